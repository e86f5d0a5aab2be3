"""Closest points on a triangle mesh: exact for each of the triangles that are near, compiled."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy.spatial import KDTree

from flame.surface import SurfacePoints

_CANDIDATES = 24
"""How many of the points that stand for triangles are tried."""


@dataclass(frozen=True)
class Closest:
    """Hold the closest surface point of each of N queries."""

    triangle: np.ndarray
    """Triangle index, int64 (N,)."""
    barycentric: np.ndarray
    """Weights of the triangle's corners (N, 3)."""
    point: np.ndarray
    """The closest point (N, 3)."""
    distance: np.ndarray
    """Distance to it (N,)."""

    @property
    def surface(self) -> SurfacePoints:
        """Return the points as points of the surface, without their places."""
        return SurfacePoints(self.triangle, self.barycentric)


class ClosestPoint:
    """Answer which surface point of some triangles of a mesh lies closest to given points.

    Exact as long as the closest triangle is among those whose centre, corner or edge is nearest, which holds for meshes
    without very long triangles.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, triangles: np.ndarray | None = None) -> None:
        """Prepare a search among ``triangles`` (all by default) of a mesh with vertices (V, 3) and faces (F, 3)."""
        self.vertices = np.asarray(vertices, dtype=np.float64)
        self.faces = np.asarray(faces)
        self._triangles = np.arange(len(faces)) if triangles is None else np.asarray(triangles)
        self._corners = np.ascontiguousarray(self.vertices[self.faces[self._triangles]])
        corners, middle = self._corners, self._corners.mean(axis=1)
        # Centre, edge middles and points towards the corners stand for a triangle, so that long triangles are found.
        stand_ins = (
            middle,
            *(0.5 * (corners[:, i] + corners[:, (i + 1) % 3]) for i in range(3)),
            *((middle + corners[:, i]) / 2 for i in range(3)),
        )
        self._tree = KDTree(np.concatenate(stand_ins))

    def __call__(self, points: np.ndarray) -> Closest:
        """Return the closest surface points of points (N, 3)."""
        points = np.ascontiguousarray(points, dtype=np.float64)
        _, nearest = self._tree.query(points, k=min(_CANDIDATES, self._tree.n))
        candidates = np.asarray(nearest).reshape(len(points), -1) % len(self._triangles)
        triangle, barycentric = _best_of(points, self._corners, candidates)
        point = np.einsum("nk,nkc->nc", barycentric, self._corners[triangle])
        distance = np.linalg.norm(points - point, axis=1)
        return Closest(self._triangles[triangle].astype(np.int64), barycentric, point, distance)


def closest_on_mesh(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> Closest:
    """Return the closest point on the mesh (V, 3), (F, 3) for each query point (N, 3); see `ClosestPoint`."""
    return ClosestPoint(vertices, faces)(points)


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
