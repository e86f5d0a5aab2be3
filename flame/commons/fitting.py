"""Fit a linear head model to a scan: closest points, damped Gauss-Newton on pose, scale and coefficients at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from flame.closest_point import Closest, closest_on_mesh
from flame.commons.mesh import rigid_motion, vertex_normals


@dataclass(frozen=True)
class LinearHead:
    """Hold a head whose vertices are linear in its coefficients."""

    mean: np.ndarray
    """Vertices at zero (V, 3), metres."""
    modes: np.ndarray
    """Displacement per unit of each coefficient (K, V, 3), metres."""
    faces: np.ndarray
    """Triangles (F, 3)."""
    region: np.ndarray
    """Vertices that may be matched, bool (V,)."""

    def vertices(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the vertices (V, 3) at coefficients (K,)."""
        return self.mean + np.tensordot(coefficients, self.modes, axes=1)


@dataclass(frozen=True)
class Fit:
    """Hold a fitted head and how far the scan is from it."""

    coefficients: np.ndarray
    """Fitted coefficients (K,)."""
    scan: np.ndarray
    """The scan's points in the model's frame (N, 3), metres."""
    scale: float
    """Model metres per scan unit."""
    distances: np.ndarray
    """Scan-to-surface distance of the points in the region (M,), metres."""
    members: np.ndarray
    """Indices of those points (M,)."""


@dataclass(frozen=True)
class FitOptions:
    """Say how a scan is fitted."""

    free_scale: bool
    """Whether the scan's unit of length is unknown."""
    stages: tuple[float, ...] = (30.0, 10.0, 5.0, 3.0, 1.5, 1.0)
    """Weight of the prior (millimetres of residual per standard deviation of a coefficient), one a round."""
    rounds: int = 4
    """Rounds of closest points at each stage."""
    scale_spread: float = 0.1
    """Standard deviation of the logarithm of an unknown scale: the scan's unit is a guess, not nothing."""
    huber_metres: float = 0.002
    """Residual from which on points count less."""


def fit_scan(head: LinearHead, scan: np.ndarray, scan_faces: np.ndarray, start: np.ndarray, options: FitOptions) -> Fit:
    """Fit the head to a scan.

    Args:
        head: The linear head; its modes are in units of standard deviations.
        scan: Scan vertices (N, 3), metres (or any unit when the scale is free), facing +z, +y up.
        scan_faces: Scan triangles (M, 3).
        start: Transform ``model_from_scan`` to begin with (4, 4), with the scale in it.
        options: Weights and rounds.
    """
    points = scan @ start[:3, :3].T + start[:3, 3]
    start_scale = total_scale = float(np.cbrt(np.linalg.det(start[:3, :3])))
    coefficients = np.zeros(len(head.modes))
    inner = interior_faces(head)
    for prior_mm in options.stages:
        for _ in range(options.rounds):
            match, members, _ = match_scan(head, inner, coefficients, points, scan_faces)
            update = _solve(head, coefficients, points[members], match, prior_mm, options, total_scale / start_scale)
            points = update.scale * points @ update.rotation.T + update.translation
            total_scale *= update.scale
            coefficients = update.coefficients
    match, members, _ = match_scan(head, inner, coefficients, points, scan_faces)
    return Fit(coefficients, points, total_scale, match.distance, members)


def find_start(head: LinearHead, scan: np.ndarray) -> np.ndarray:
    """Return ``model_from_scan`` (4, 4) that lays a scan of known scale on the mean face.

    The scan faces +z but may nod: noses are laid on each other at several pitches, and points aligned to the nearest
    scan points.
    """
    face = head.mean[head.region]
    best, best_cost = np.eye(4), np.inf
    for pitch in np.radians((-30.0, -15.0, 0.0, 15.0, 30.0)):
        start = np.eye(4)
        start[:3, :3] = Rotation.from_rotvec([pitch, 0.0, 0.0]).as_matrix()
        turned = scan @ start[:3, :3].T
        start[:3, 3] = face[np.argmax(face[:, 2])] - turned[np.argmax(turned[:, 2])]
        for _ in range(20):
            placed = scan @ start[:3, :3].T + start[:3, 3]
            found = KDTree(placed).query(face)
            distance, nearest = np.asarray(found[0]), np.asarray(found[1])
            near = distance <= np.quantile(distance, 0.8)
            turn, shift = rigid_motion(placed[nearest[near]], face[near])
            start[:3] = turn @ start[:3]
            start[:3, 3] += shift
        if distance[near].mean() < best_cost:
            best, best_cost = start, distance[near].mean()
    return best


def interior_faces(head: LinearHead) -> np.ndarray:
    """Return which triangles lie wholly in the region, bool (F,)."""
    return head.region[head.faces].all(axis=1)


def match_scan(
    head: LinearHead, inner: np.ndarray, coefficients: np.ndarray, points: np.ndarray, scan_faces: np.ndarray
) -> tuple[Closest, np.ndarray, np.ndarray]:
    """Find the closest surface point of every scan point whose closest point on the whole head is in the region.

    Points that face away from the surface they are closest to, or are farther than 2 cm, are left out.

    Returns:
        The matches, the indices of the scan points, and the vertices of the head.
    """
    vertices = head.vertices(coefficients)
    match = closest_on_mesh(points, vertices, head.faces)
    corners = vertices[head.faces[match.triangle]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    agree = (normals * vertex_normals(points, scan_faces)).sum(axis=1)
    members = np.flatnonzero(inner[match.triangle] & (agree > 0.3) & (match.distance < 0.02))
    kept = Closest(*(getattr(match, name)[members] for name in ("triangle", "barycentric", "point", "distance")))
    return kept, members, vertices


@dataclass(frozen=True)
class _Update:
    rotation: np.ndarray
    translation: np.ndarray
    scale: float
    coefficients: np.ndarray


def _solve(
    head: LinearHead,
    coefficients: np.ndarray,
    points: np.ndarray,
    match: Closest,
    prior_mm: float,
    options: FitOptions,
    scale: float,
) -> _Update:
    """Solve one damped least-squares step for the scan's pose and scale and the head's coefficients.

    Gaps are counted in the scan's own unit (divided by ``scale``): else shrinking the scan to a point would fit best.
    """
    corner_indices = head.faces[match.triangle]
    vertices = head.vertices(coefficients)
    normals = np.einsum("nk,nkc->nc", match.barycentric, vertex_normals(vertices, head.faces)[corner_indices])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    modes_at = np.einsum("nk,mnkc,nc->nm", match.barycentric, head.modes[:, corner_indices], normals, optimize=True)
    gap = ((points - match.point) * normals).sum(axis=1)
    pose = np.column_stack((np.cross(points, normals), normals, (match.point * normals).sum(axis=1)))
    if not options.free_scale:
        pose = pose[:, :6]
    jacobian = np.column_stack((pose, -modes_at))
    weight = 1.0 / np.maximum(1.0, np.abs(gap) / options.huber_metres) / scale**2
    prior = (prior_mm * 1e-3) ** 2 * len(points) / 5000.0
    left = jacobian.T @ (weight[:, None] * jacobian)
    right = -jacobian.T @ (weight * gap)
    first = pose.shape[1]
    left[np.arange(first, len(left)), np.arange(first, len(left))] += prior
    if options.free_scale:
        scale_prior = prior / options.scale_spread**2
        left[6, 6] += scale_prior
        right[6] -= scale_prior * np.log(scale)
    right[first:] -= prior * coefficients
    step = np.linalg.solve(left, right)
    growth = float(np.exp(step[6])) if options.free_scale else 1.0
    return _Update(Rotation.from_rotvec(step[:3]).as_matrix(), step[3:6], growth, coefficients + step[first:])
