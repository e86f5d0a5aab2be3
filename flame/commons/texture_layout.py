"""Lay the source's texture islands out for a head alone: upright, large, and mirror-symmetric about u = 0.5.

The source packs a whole body into the unit square, with the face lying on its side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Island:
    """Say where the left half of one island of the source's layout goes."""

    name: str
    inside: tuple[float, float]
    """A source texture coordinate that identifies the island by lying in its bounding box."""
    origin: tuple[float, float]
    """Source coordinate (on the midline, where the island has one) that is moved to ``target``."""
    upright: bool
    """False where the source shows the island turned by a quarter (its v grows to the subject's left)."""
    scale: float
    target: tuple[float, float]


ISLANDS = (
    Island("skin", (0.80, 0.60), (0.9935, 0.4830), False, 1.46, (0.5, 0.474)),
    Island("lower neck", (0.40, 0.93), (0.3805, 0.9185), True, 1.46, (0.5, 0.405)),
    Island("mouth cavity", (0.88, 0.05), (0.8407, 0.0119), True, 1.20, (0.5, 0.02)),
    Island("tongue", (0.63, 0.95), (0.6229, 0.9294), True, 3.0, (0.5, 0.21)),
    Island("eye socket", (0.12, 0.60), (0.0861, 0.5474), True, 1.5, (0.84, 0.02)),
    Island("eyeball front", (0.766, 0.951), (0.7601, 0.9442), True, 14.0, (0.58, 0.21)),
    Island("eyeball back", (0.779, 0.938), (0.7727, 0.9316), True, 8.0, (0.84, 0.21)),
)


def symmetric_layout(
    uv: np.ndarray, uv_faces: np.ndarray, on_midline: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place the islands of the left half and mirror them.

    Args:
        uv: The source's texture coordinates (N, 2).
        uv_faces: Texture triangles of the left half (F, 3).
        on_midline: Whether the vertex of each of their corners lies on the plane of symmetry, bool (F, 3).

    Returns:
        Texture coordinates (M, 2) of both halves, the left half's triangles in them (F, 3), and the mirror image of
        each coordinate (M,).
    """
    used, half = np.unique(uv_faces, return_inverse=True)
    half = half.reshape(-1, 3)
    placed = _place(uv[used], half)
    shared = np.zeros(len(placed), bool)
    shared[half[on_midline]] = True
    # Along a seam on the midline (the back of the head) the two halves lie apart.
    shared &= np.abs(placed[:, 0] - 0.5) < 1e-3
    placed[shared, 0] = 0.5
    mirror = np.arange(len(placed))
    mirror[~shared] = len(placed) + np.arange((~shared).sum())
    reflected = placed[~shared] * [-1.0, 1.0] + [1.0, 0.0]
    both = np.concatenate((mirror, np.flatnonzero(~shared)))
    return np.concatenate((placed, reflected)), half, both


def _place(uv: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Move each island of the left half to its target (N, 2)."""
    edges = np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]]))
    graph = coo_matrix((np.ones(len(edges)), edges.T), (len(uv), len(uv)))
    count, label = connected_components(graph, directed=False)
    placed = np.full_like(uv, np.nan)
    for index in range(count):
        points = uv[label == index]
        centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
        island = min(ISLANDS, key=lambda one: float(np.linalg.norm(np.subtract(one.inside, centre))))
        offset = points - island.origin
        if not island.upright:
            offset = np.stack((offset[:, 1], -offset[:, 0]), axis=1)
        placed[label == index] = island.target + island.scale * offset
    return placed


def island_of(uv: np.ndarray, uv_faces: np.ndarray) -> np.ndarray:
    """Return the name of the island that each triangle of the new layout lies in, str (F,)."""
    boxes = {}
    for island in ISLANDS:
        corner = np.subtract(island.inside, island.origin)
        if not island.upright:
            corner = np.array([corner[1], -corner[0]])
        boxes[island.name] = island.target + island.scale * corner
    edges = np.concatenate((uv_faces[:, [0, 1]], uv_faces[:, [1, 2]]))
    graph = coo_matrix((np.ones(len(edges)), edges.T), (len(uv), len(uv)))
    count, label = connected_components(graph, directed=False)
    names = np.empty(count, dtype="U16")
    for index in range(count):
        points = uv[label == index]
        points = np.stack((0.5 + np.abs(points[:, 0] - 0.5), points[:, 1]), axis=1)
        centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
        names[index] = min(boxes, key=lambda name: float(np.linalg.norm(boxes[name] - centre)))
    return names[label[uv_faces[:, 0]]]
