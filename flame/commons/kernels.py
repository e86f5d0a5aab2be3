"""Smooth random displacement fields on the head: a Gaussian process of several scales, symmetric and antisymmetric.

The large scales move in all directions alike; the small ones mostly along the smoothed surface normal, because that is
what tells faces apart and what a scan can see. The kernel is a function of the place in space, so that lips, lids and
what lies behind them move together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from flame.commons.mesh import surface_distance, vertex_areas, vertex_normals

REFLECT = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Scale:
    """Describe one scale of the process."""

    length: float
    """Standard deviation of the Gaussian kernel, metres."""
    any_direction: float
    """Variance per coordinate, square millimetres."""
    along_normal: float
    """Further variance along the smoothed normal, square millimetres."""
    face_only: bool
    """Whether the amplitude falls off outside the face."""


SCALES = (
    Scale(0.060, 3.0, 0.40, False),
    Scale(0.030, 0.40, 0.30, True),
    Scale(0.016, 0.10, 0.25, True),
    Scale(0.009, 0.02, 0.10, True),
)
NORMAL_SMOOTHING = 0.012
"""Standard deviation of the average that smooths the normals, metres."""
OUTSIDE_AMPLITUDE = 0.25
OUTSIDE_FADE = 0.03
"""Amplitude of the small scales far from the face, and the distance over which they fade, metres."""


@dataclass(frozen=True)
class Carrier:
    """Hold the points on which fields are evaluated, with the smoothed normal and the amplitude at each."""

    points: np.ndarray
    normals: np.ndarray
    amplitude: np.ndarray


def carrier(vertices: np.ndarray, faces: np.ndarray, mirror: np.ndarray, regions: dict[str, np.ndarray]) -> Carrier:
    """Prepare the vertices of the head (V, 3) for evaluating fields; exactly symmetric."""
    outer = regions["face"] | regions["scalp"] | regions["neck"]
    normals = vertex_normals(vertices, faces)
    weight = vertex_areas(vertices, faces) * outer
    smoothed = np.empty_like(vertices)
    for first in range(0, len(vertices), 500):
        part = slice(first, first + 500)
        kernel = _gaussian(vertices[part], vertices, NORMAL_SMOOTHING)
        smoothed[part] = kernel @ (weight[:, None] * normals)
    smoothed = smoothed + smoothed[mirror] * REFLECT
    smoothed /= np.linalg.norm(smoothed, axis=1, keepdims=True)
    return Carrier(vertices, smoothed, _amplitude(vertices, faces, mirror, regions["face"]))


def _amplitude(vertices: np.ndarray, faces: np.ndarray, mirror: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return 1 in the face and behind it, falling to ``OUTSIDE_AMPLITUDE`` elsewhere (V,)."""
    along = surface_distance(vertices, faces, np.flatnonzero(face))
    through, _ = KDTree(vertices[face]).query(vertices)
    # Mouth and eye sockets are far along the skin but belong to the face.
    distance = np.where(np.isfinite(along) & (vertices[:, 2] < 0.0), along, through)
    fade = np.clip(1.0 - distance / OUTSIDE_FADE, 0.0, 1.0)
    amplitude = OUTSIDE_AMPLITUDE + (1.0 - OUTSIDE_AMPLITUDE) * fade * fade * (3.0 - 2.0 * fade)
    return 0.5 * (amplitude + amplitude[mirror])


def low_rank_factors(on: Carrier, mirror: np.ndarray, dense: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return factors (R, V, 3) of the symmetric and the antisymmetric part; the sums of their squares are covariances.

    Args:
        on: The head's vertices.
        mirror: Mirror map (V,).
        dense: Vertices among which four of five inducing points are placed, bool (V,).
        count: Number of inducing points on the left half.
    """
    left = on.points[:, 0] >= -1e-9
    inside = np.flatnonzero(left & dense)
    outside = np.flatnonzero(left & ~dense)
    chosen = np.concatenate(
        (_spread(on.points, inside, 4 * count // 5), _spread(on.points, outside, count - 4 * count // 5))
    )
    at = Carrier(on.points[chosen], on.normals[chosen], on.amplitude[chosen])
    mirrored = Carrier(at.points * REFLECT, at.normals * REFLECT, at.amplitude)
    direct = _covariance(on, at)
    crossed = _covariance(on, mirrored) * REFLECT
    factors = []
    for parity in (1.0, -1.0):
        block = 0.5 * (direct + parity * crossed)
        inner = block[chosen].reshape(3 * len(chosen), -1)
        values, vectors = np.linalg.eigh(0.5 * (inner + inner.T))
        good = values > 1e-7 * values[-1]
        root = vectors[:, good] / np.sqrt(values[good])
        field = (block.reshape(-1, 3 * len(chosen)) @ root).T.reshape(good.sum(), -1, 3)
        factors.append(0.5 * (field + parity * field[:, mirror] * REFLECT))
    return factors[0], factors[1]


def _covariance(first: Carrier, second: Carrier) -> np.ndarray:
    """Return the covariance of displacements, square metres (N, 3, M, 3)."""
    result = np.zeros((len(first.points), 3, len(second.points), 3))
    projection = np.einsum("ia,jb->iajb", first.normals, second.normals)
    for scale in SCALES:
        kernel = _gaussian(first.points, second.points, scale.length) * 1e-6
        if scale.face_only:
            kernel *= first.amplitude[:, None] * second.amplitude
        result += scale.along_normal * kernel[:, None, :, None] * projection
        for axis in range(3):
            result[:, axis, :, axis] += scale.any_direction * kernel
    return result


def _gaussian(first: np.ndarray, second: np.ndarray, length: float) -> np.ndarray:
    """Return the Gaussian kernel between points (N, 3) and (M, 3)."""
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2.0 * first @ second.T
    return np.exp(-0.5 * np.maximum(squared, 0.0) / length**2)


def _spread(points: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Choose points that are far from each other, greedily (count,)."""
    chosen = [int(among[0])]
    distance = np.linalg.norm(points[among] - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(among)):
        chosen.append(int(among[np.argmax(distance)]))
        distance = np.minimum(distance, np.linalg.norm(points[among] - points[chosen[-1]], axis=1))
    return np.array(chosen)
