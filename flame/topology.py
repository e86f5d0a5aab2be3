"""What is known about a head's surface beside its geometry: regions, mirror map, texture coordinates, landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from flame.errors import InputError

if TYPE_CHECKING:
    from flame.surface import SurfacePoints

_MIRROR_CANDIDATES = 12
"""Nearest neighbours of a reflected vertex that are considered as its partner."""


@dataclass(frozen=True, eq=False)
class Topology:
    """Describe the surface of a head with V vertices and F triangles."""

    faces: np.ndarray
    """Vertex indices, int64 (F, 3), anticlockwise seen from outside."""
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Vertex masks, bool (V,), by name: face, lips, eyes, left_eye, right_eye, ears, scalp, neck, inner_mouth …"""
    mirror: np.ndarray | None = None
    """Index of the vertex at the reflection of each vertex in x = 0, int64 (V,); its own inverse."""
    uv: np.ndarray | None = None
    """Texture coordinates in [0, 1], float32 (VT, 2), origin bottom left; a vertex on a seam has several."""
    uv_faces: np.ndarray | None = None
    """Rows of ``uv`` at each triangle's corners, int64 (F, 3)."""
    landmark_sets: Mapping[str, SurfacePoints] = field(default_factory=dict)
    """Named sets of points on the surface."""

    def region(self, *names: str) -> np.ndarray:
        """Return the vertex mask, bool (V,), of one region or of the union of several.

        Raises:
            InputError: a region is not known.
        """
        unknown = [name for name in names if name not in self.regions]
        if unknown or not names:
            known = ", ".join(sorted(self.regions)) or "none"
            raise InputError(f"this head has no region {unknown[0] if unknown else ''!r}; it has: {known}")
        return np.logical_or.reduce([self.regions[name] for name in names])

    def region_triangles(self, *names: str) -> np.ndarray:
        """Return indices, int64 (N,), of the triangles that lie wholly in the union of the named regions."""
        return np.flatnonzero(self.region(*names)[self.faces].all(axis=1))

    def mirrored(self, vertices: np.ndarray) -> np.ndarray:
        """Return vertices (..., V, 3) of the head reflected in x = 0, in the same vertex order.

        Raises:
            InputError: this head has no mirror map.
        """
        if self.mirror is None:
            raise InputError("this head has no left-right mirror map, so it cannot be reflected")
        return vertices[..., self.mirror, :] * np.array((-1, 1, 1), dtype=vertices.dtype)

    def with_landmarks(self, name: str, points: SurfacePoints) -> Topology:
        """Return a copy that also has the named landmark set."""
        return replace(self, landmark_sets={**self.landmark_sets, name: points})

    def landmarks(self, name: str) -> SurfacePoints:
        """Return a landmark set by name.

        Raises:
            InputError: the set is not known.
        """
        if name not in self.landmark_sets:
            known = ", ".join(sorted(self.landmark_sets)) or "none"
            raise InputError(f"this head has no landmark set {name!r}; it has: {known}")
        return self.landmark_sets[name]


def mirror_from_template(template: np.ndarray, tolerance_m: float = 5e-3) -> np.ndarray | None:
    """Find the left-right partner of each vertex by geometry: the nearest to its reflection in x = 0.

    Pairs are taken from the closest on, so the map is one-to-one and its own inverse.

    Args:
        template: vertex positions (V, 3), metres, head space.
        tolerance_m: largest distance of a vertex from its partner's reflection.

    Returns:
        Partner indices, int64 (V,); None where some vertex has no partner within the tolerance.
    """
    # Heads with a mirror map of their own, as the shipped one, need not wait for its import.
    from scipy.spatial import KDTree

    count = len(template)
    reflected = template * np.array((-1.0, 1.0, 1.0))
    neighbours = min(_MIRROR_CANDIDATES, count)
    distances, partners = (found.reshape(-1) for found in KDTree(template).query(reflected, k=neighbours))
    order = np.argsort(distances, kind="stable")
    pairs = zip(order // neighbours, partners[order], distances[order], strict=True)
    mirror = np.full(count, -1, dtype=np.int64)
    for vertex, partner, distance in pairs:
        if distance > tolerance_m:
            break
        if mirror[vertex] < 0 and mirror[partner] < 0:
            mirror[vertex], mirror[partner] = partner, vertex
    return mirror if (mirror >= 0).all() else None
