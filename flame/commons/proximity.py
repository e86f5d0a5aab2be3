"""Exact closest points on a triangle mesh, by the triangles around the nearest vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy.spatial import KDTree

NEIGHBOURS = 6
"""How many of the nearest triangle centres and corners are tried."""


@dataclass(frozen=True)
class Closest:
    """Hold the closest surface point of each query."""

    triangle: np.ndarray
    """Triangle index, int64 (N,)."""
    barycentric: np.ndarray
    """Weights of the triangle's corners (N, 3)."""
    point: np.ndarray
    """The closest point (N, 3)."""
    distance: np.ndarray
    """Distance to it (N,)."""


def closest_on_mesh(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> Closest:
    """Return the closest point on the mesh (V, 3), (F, 3) for each query point (N, 3).

    Exact as long as the closest triangle is among those whose centre or corner is nearest, which holds for meshes
    without very long triangles.
    """
    corners = vertices[faces]
    # Centre, corners and edge middles stand for a triangle, so that long triangles are found too.
    stand_ins = np.concatenate(
        (
            corners.mean(axis=1),
            *(0.5 * (corners[:, i] + corners[:, (i + 1) % 3]) for i in range(3)),
            *((corners.mean(axis=1) + corners[:, i]) / 2 for i in range(3)),
        )
    )
    _, nearest = KDTree(stand_ins).query(points, k=min(4 * NEIGHBOURS, len(stand_ins)))
    candidates = nearest % len(faces)
    triangle, barycentric = _best_of(
        np.ascontiguousarray(points, np.float64), np.ascontiguousarray(corners, np.float64), candidates
    )
    point = np.einsum("nk,nkc->nc", barycentric, corners[triangle])
    return Closest(triangle, barycentric, point, np.linalg.norm(points - point, axis=1))


@numba.njit(cache=True)
def _best_of(points, corners, candidates):  # pragma: no cover - compiled
    """Return the nearest of the candidate triangles of each point and the weights of its closest point."""
    count = points.shape[0]
    triangle = np.zeros(count, np.int64)
    barycentric = np.zeros((count, 3))
    for i in range(count):
        best = np.inf
        for k in range(candidates.shape[1]):
            t = candidates[i, k]
            weights = _closest_weights(points[i], corners[t, 0], corners[t, 1], corners[t, 2])
            gap = points[i] - weights[0] * corners[t, 0] - weights[1] * corners[t, 1] - weights[2] * corners[t, 2]
            squared = (gap * gap).sum()
            if squared < best:
                best = squared
                triangle[i] = t
                barycentric[i] = weights
    return triangle, barycentric


@numba.njit(cache=True)
def _closest_weights(p, a, b, c):  # pragma: no cover - compiled
    """Return the weights of the point of triangle abc closest to p (Ericson, Real-Time Collision Detection, 5.1.5)."""
    ab, ac, ap = b - a, c - a, p - a
    d1, d2 = (ab * ap).sum(), (ac * ap).sum()
    if d1 <= 0 and d2 <= 0:
        return np.array([1.0, 0.0, 0.0])
    bp = p - b
    d3, d4 = (ab * bp).sum(), (ac * bp).sum()
    if d3 >= 0 and d4 <= d3:
        return np.array([0.0, 1.0, 0.0])
    vc = d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        v = d1 / (d1 - d3)
        return np.array([1.0 - v, v, 0.0])
    cp = p - c
    d5, d6 = (ab * cp).sum(), (ac * cp).sum()
    if d6 >= 0 and d5 <= d6:
        return np.array([0.0, 0.0, 1.0])
    vb = d5 * d2 - d1 * d6
    if vb <= 0 and d2 >= 0 and d6 <= 0:
        w = d2 / (d2 - d6)
        return np.array([1.0 - w, 0.0, w])
    va = d3 * d6 - d5 * d4
    if va <= 0 and (d4 - d3) >= 0 and (d5 - d6) >= 0:
        w = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        return np.array([0.0, 1.0 - w, w])
    denominator = va + vb + vc
    return np.array([va / denominator, vb / denominator, vc / denominator])
