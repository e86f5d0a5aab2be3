"""Mesh operations that several build steps need: alignment, neighbours, smoothing, distances."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra


def rigid_motion(points: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rotation (3, 3) and shift (3,) that take points (N, 3) to targets (N, 3) best."""
    centre, target = points.mean(axis=0), targets.mean(axis=0)
    left, _, right = np.linalg.svd((targets - target).T @ (points - centre))
    rotation = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    return rotation, target - rotation @ centre


def edges_of(faces: np.ndarray) -> np.ndarray:
    """Return the undirected edges of triangles (F, 3), each once, int64 (E, 2)."""
    corners = np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]])).astype(np.int64)
    return np.unique(np.sort(corners, axis=1), axis=0)


def boundary_vertices(faces: np.ndarray) -> np.ndarray:
    """Return the vertices on edges that only one triangle has, int64 (B,)."""
    corners = np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    edges, count = np.unique(np.sort(corners, axis=1), axis=0, return_counts=True)
    return np.unique(edges[count == 1])


def averaging_matrix(faces: np.ndarray, num_vertices: int) -> csr_matrix:
    """Return the sparse matrix that replaces a vertex value by the mean over itself and its neighbours (V, V)."""
    edges = edges_of(faces)
    own = np.arange(num_vertices)
    rows = np.concatenate((edges[:, 0], edges[:, 1], own))
    cols = np.concatenate((edges[:, 1], edges[:, 0], own))
    matrix = csr_matrix((np.ones(len(rows)), (rows, cols)), (num_vertices, num_vertices))
    degree = np.asarray(matrix.sum(axis=1)).ravel()
    return csr_matrix(matrix.multiply(1.0 / degree[:, None]))


def smooth(values: np.ndarray, faces: np.ndarray, passes: int) -> np.ndarray:
    """Average vertex values (V, ...) with their neighbours ``passes`` times."""
    average = averaging_matrix(faces, len(values))
    for _ in range(passes):
        values = average @ values
    return values


def surface_distance(vertices: np.ndarray, faces: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the distance along edges from the nearest start vertex, metres (V,); inf where not connected."""
    edges = edges_of(faces)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    graph = csr_matrix((length, edges.T), (len(vertices), len(vertices)))
    return dijkstra(graph, directed=False, indices=starts, min_only=True)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit vertex normals, area-weighted (V, 3)."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normals)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return a third of the area of the triangles around each vertex, square metres (V,)."""
    corners = vertices[faces]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return np.bincount(faces.ravel(), np.repeat(area / 3.0, 3), minlength=len(vertices))
