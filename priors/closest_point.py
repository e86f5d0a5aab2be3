"""Closest points on a triangle mesh."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from flame.surface import SurfacePoints

_CANDIDATES = 24


class ClosestPoint:
    """Answer which surface point of some triangles of a mesh lies closest to given points."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, triangles: np.ndarray | None = None) -> None:
        """Prepare a search among ``triangles`` (all by default) of a mesh with vertices (V, 3) and faces (F, 3)."""
        self.vertices = np.asarray(vertices, dtype=np.float64)
        self.faces = np.asarray(faces)
        self._triangles = np.arange(len(faces)) if triangles is None else np.asarray(triangles)
        self._tree = KDTree(self.vertices[self.faces[self._triangles]].mean(axis=1))

    def __call__(self, points: np.ndarray) -> SurfacePoints:
        """Return the closest surface points of points (N, 3); exact among the triangles whose centres are nearest."""
        count = min(_CANDIDATES, len(self._triangles))
        _, nearest = self._tree.query(points, k=count)
        candidates = self._triangles[nearest.reshape(len(points), count)]
        corners = self.vertices[self.faces[candidates]]
        barycentric = _closest_barycentric(points[:, None, :], corners)
        offsets = np.einsum("nkj,nkjc->nkc", barycentric, corners) - points[:, None, :]
        best = np.argmin((offsets**2).sum(axis=-1), axis=1)
        rows = np.arange(len(points))
        return SurfacePoints(candidates[rows, best].astype(np.int64), barycentric[rows, best])


def _closest_barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return barycentric coordinates (..., 3) of the closest points of triangles (..., 3, 3) to points (..., 3)."""
    a, b, c = (corners[..., i, :] for i in range(3))
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    denominator = np.maximum(d00 * d11 - d01 * d01, 1e-30)
    v = (d11 * d20 - d01 * d21) / denominator
    w = (d00 * d21 - d01 * d20) / denominator
    inside = np.stack((1 - v - w, v, w), axis=-1)
    choices = [inside]
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge = corners[..., end, :] - corners[..., start, :]
        along = ((points - corners[..., start, :]) * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-30)
        along = np.clip(along, 0.0, 1.0)
        on_edge = np.zeros_like(inside)
        on_edge[..., start], on_edge[..., end] = 1 - along, along
        choices.append(on_edge)
    stacked = np.stack(choices)
    distance = ((np.einsum("e...k,...kc->e...c", stacked, corners) - points) ** 2).sum(-1)
    distance[0] = np.where((inside >= 0).all(-1), distance[0], np.inf)
    best = np.argmin(distance, axis=0)
    return np.take_along_axis(stacked, best[None, ..., None], axis=0)[0]
