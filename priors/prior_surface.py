"""Whose surface a prior's maps speak of, and in which axes their normals are."""

from __future__ import annotations

from dataclasses import dataclass

from flame.model import HeadModel
from priors.evidence import NormalSpace


@dataclass(frozen=True)
class MapSurface:
    """Declare the topology and the spaces of a prior's dense maps."""

    topology: str
    """Name of the topology whose texture coordinates are predicted; ``any``: those of the head that is tracked."""
    normal_space: NormalSpace
    """Axes of the normals as they are predicted."""
    num_vertices: int | None = None
    """Vertices of the topology; None: any number."""
    num_triangles: int | None = None
    """Triangles of the topology; None: any number."""

    def __str__(self) -> str:
        """Return name and size."""
        if self.num_vertices is None:
            return f"{self.topology} topology"
        return f"{self.topology} topology ({self.num_vertices} vertices, {self.num_triangles} triangles)"

    def is_of(self, head: HeadModel) -> bool:
        """Return whether a head has this topology."""
        return self.num_vertices in (None, head.num_vertices) and self.num_triangles in (None, len(head.faces))


ANY_HEAD = MapSurface("any", "camera")
"""Maps that are drawn for whatever head is tracked."""
FLAME = MapSurface("FLAME", "head", 5023, 9976)
"""FLAME's mesh, with the texture coordinates of its ``head_template.obj``."""
