"""How far a predicted surface is from true points: the alignment and the measures of head-reconstruction benchmarks.

Written after the public evaluator of MonoNPHM (``scripts/evaluation/eval.py``, ``utils_3d/icp.py``): one direction
only, from the true points to the predicted surface, after a similarity transform that begins with seven landmarks and
ends with an iterative closest point fit, scale included. The fit here minimises the sum of absolute distances along the
normals (there: nine parts of that and one part of the distance between the points, by Adam).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from flame.closest_point import ClosestPoint

CLOSE_METRES = 0.0025
"""Distance up to which a point counts as found (R2.5)."""
_ROUNDS = 40
_SETTLED = 1e-4
_FIT_POINTS = 1000
"""So many points, evenly taken from those given, serve to find the alignment."""
_MAX_DISTANCE, _MIN_COSINE = 0.01, 0.2
"""Matches that are farther apart, metres, or whose normals differ more are left out of the fit, never of the error."""
_SOFTENING = 5e-5
"""Absolute values are rounded below this, metres."""


@dataclass(frozen=True)
class Similarity:
    """Hold a rotation, a scale and a shift: ``x -> scale * rotation @ x + shift``."""

    rotation: np.ndarray
    """Rotation matrix (3, 3)."""
    scale: float
    shift: np.ndarray
    """Shift (3,), metres."""

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return points (N, 3) moved."""
        return self.scale * points @ self.rotation.T + self.shift

    def inverse(self, points: np.ndarray) -> np.ndarray:
        """Return points (N, 3) moved back."""
        return (points - self.shift) @ self.rotation / self.scale


@dataclass(frozen=True)
class SurfaceError:
    """Hold the distances of true points from a predicted surface."""

    l1_mm: float
    """Mean of |dx| + |dy| + |dz|, millimetres: the L1 norm of the offset, some 1.5 times the distance."""
    l2_mm: float
    """Mean distance, millimetres."""
    close_percent: float
    """Share of the points within 2.5 mm, percent."""
    normal_consistency: float
    """Mean absolute cosine between the true normals and those of the triangles met."""
    offsets: np.ndarray
    """Offset of every point to the surface (N, 3), metres, in the frame of the true points."""
    aligned: Similarity
    """The transform from the prediction to the true points."""


def similarity_of(points: np.ndarray, targets: np.ndarray) -> Similarity:
    """Return the least-squares similarity that takes points (N, 3) to targets (N, 3).

    Written from S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991.
    """
    centre, target = points.mean(axis=0), targets.mean(axis=0)
    left, values, right = np.linalg.svd((targets - target).T @ (points - centre))
    signs = np.array((1.0, 1.0, np.sign(np.linalg.det(left @ right))))
    rotation = (left * signs) @ right
    scale = float((values * signs).sum() / ((points - centre) ** 2).sum())
    return Similarity(rotation, scale, target - scale * rotation @ centre)


def surface_error(
    points: np.ndarray,
    normals: np.ndarray,
    landmarks: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    predicted_landmarks: np.ndarray,
) -> SurfaceError:
    """Align a prediction with true points and measure how far these are from its surface.

    Args:
        points: True points (N, 3), metres.
        normals: Their unit normals (N, 3).
        landmarks: True landmarks (L, 3), metres.
        vertices: Predicted vertices (V, 3), metres.
        faces: Triangles of the prediction (F, 3).
        predicted_landmarks: The same landmarks on the prediction (L, 3), metres.
    """
    closest = ClosestPoint(vertices, faces)
    corners = closest.vertices[closest.faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    face_normals /= np.maximum(np.linalg.norm(face_normals, axis=1, keepdims=True), 1e-20)
    moved = similarity_of(predicted_landmarks, landmarks)
    some = slice(None, None, max(1, len(points) // _FIT_POINTS))
    for _ in range(_ROUNDS):
        moved, change = _refined(moved, closest, face_normals, points[some], normals[some])
        if change < _SETTLED:
            break
    match = closest(moved.inverse(points))
    offsets = moved(match.point) - points
    distance = np.linalg.norm(offsets, axis=1)
    cosine = ((face_normals[match.triangle] @ moved.rotation.T) * normals).sum(axis=1)
    return SurfaceError(
        l1_mm=1e3 * float(np.abs(offsets).sum(axis=1).mean()),
        l2_mm=1e3 * float(distance.mean()),
        close_percent=100.0 * float((distance <= CLOSE_METRES).mean()),
        normal_consistency=float(np.abs(cosine).mean()),
        offsets=offsets,
        aligned=moved,
    )


def _refined(
    moved: Similarity, closest: ClosestPoint, face_normals: np.ndarray, points: np.ndarray, normals: np.ndarray
) -> tuple[Similarity, float]:
    """Take one re-weighted Gauss-Newton step of the fit; return it and how far it moved the surface, in face sizes."""
    match = closest(moved.inverse(points))
    found, planes = moved(match.point), face_normals[match.triangle] @ moved.rotation.T
    gap = found - points
    distance = np.linalg.norm(gap, axis=1)
    kept = (distance < _MAX_DISTANCE) & ((planes * normals).sum(axis=1) > _MIN_COSINE)
    if kept.sum() < 7:
        return moved, 0.0
    found, planes, gap = found[kept], planes[kept], gap[kept]
    centre = found.mean(axis=0)
    arm = found - centre
    jacobian = np.column_stack((np.cross(arm, planes), planes, (arm * planes).sum(axis=1)))
    along = (gap * planes).sum(axis=1)
    weight = 1.0 / np.maximum(np.abs(along), _SOFTENING)
    left, right = jacobian.T @ (weight[:, None] * jacobian), jacobian.T @ (weight * along)
    step = -np.linalg.solve(left, right)
    turn = Rotation.from_rotvec(step[:3]).as_matrix()
    growth = float(np.exp(step[6]))
    shift = growth * turn @ (moved.shift - centre) + centre + step[3:6]
    size = float(np.sqrt((arm**2).sum(axis=1).mean()))
    change = float(np.linalg.norm(step[:3]) + np.linalg.norm(step[3:6]) / size + abs(step[6]))
    return Similarity(turn @ moved.rotation, growth * moved.scale, shift), change
