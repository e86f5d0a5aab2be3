"""The head's outline against the boundary of the foreground, as forces and curvatures of the outline's vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.rasterizer import Fragments
from tracker.reference_raster import MeshEdges, find_outline, mesh_edges, signed_distance_px
from tracker.state import View

_SQUARES = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))
"""Rows and columns of the first six packed curvatures."""


@dataclass(frozen=True, eq=False)
class OutlineEvidence:
    """Hold what the outline is compared with."""

    edges: MeshEdges
    distance_px: np.ndarray
    """Signed distance of each pixel's centre from the foreground's boundary, float64 (H, W), pixels."""

    @staticmethod
    def of(foreground: np.ndarray, faces: np.ndarray) -> OutlineEvidence:
        """Prepare a foreground, bool (H, W), for a head with triangles (F, 3)."""
        return OutlineEvidence(mesh_edges(np.asarray(faces, dtype=np.int64)), signed_distance_px(foreground))


def add_outline(
    evidence: OutlineEvidence,
    verts_cam: np.ndarray,
    faces: np.ndarray,
    view: View,
    fragments: Fragments,
    weight: float,
    floor_px: float,
    force: np.ndarray,
    curvature: np.ndarray,
) -> float:
    """Add the mean distance of the outline, by length, from the foreground's boundary.

    Args:
        evidence: the boundary.
        verts_cam: vertices in camera space (V, 3).
        faces: triangles (F, 3).
        view: the camera.
        fragments: what the rasteriser sees.
        weight: energy of one pixel of distance.
        floor_px: distance below which the norm is rounded off.
        force: (V, 6), added to.
        curvature: (V, 21), added to.

    Returns:
        The energy.
    """
    height, width = evidence.distance_px.shape
    outline = find_outline(verts_cam, faces, evidence.edges, view.intrinsics(width, height), fragments)
    if not len(outline.vertices):
        return 0.0
    shares = weight * outline.length_px / outline.length_px.sum()
    middle_px = view.project(verts_cam[outline.vertices.ravel()]).reshape(-1, 2, 2).mean(axis=1)
    distance, slope = _bilinear(evidence.distance_px, middle_px)
    pull = shares / np.maximum(np.abs(distance), floor_px)
    for end in (0, 1):
        vertex = outline.vertices[:, end]
        x, y, depth = verts_cam[vertex].T
        along = slope * view.focal_px / depth[:, None]
        row = np.column_stack((along, -(along[:, 0] * x + along[:, 1] * y) / depth))
        # The middle moves with half of each end; half of the curvature at each is never less than the middle's own.
        for axis in range(3):
            np.add.at(force[:, axis], vertex, 0.5 * pull * distance * row[:, axis])
        for index, (i, j) in enumerate(_SQUARES):
            np.add.at(curvature[:, index], vertex, 0.5 * pull * row[:, i] * row[:, j])
    return float((shares * np.abs(distance)).sum())


def _bilinear(values: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate an image (H, W) at points (N, 2), pixels; return values (N,) and gradients (N, 2)."""
    height, width = values.shape
    place = points_px - 0.5
    inside = np.clip(place, 0, (width - 1, height - 1))
    left, top = np.clip(np.floor(inside).astype(np.int64), 0, (max(width - 2, 0), max(height - 2, 0))).T
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = inside[:, 0] - left, inside[:, 1] - top
    a, b, c, d = values[top, left], values[top, right], values[bottom, left], values[bottom, right]
    slope = np.column_stack(((1 - y) * (b - a) + y * (d - c), (1 - x) * (c - a) + x * (d - b)))
    slope[inside != place] = 0.0
    return (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d), slope
