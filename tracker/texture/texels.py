"""Which point of a head each texel of its texture shows, what kind of surface that is, and where its mirror image lies.

Texels are kept as a list of the N that lie on the head, in the order of the picture's rows; the first row is the top
(v = 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt

from flame.camera import Intrinsics
from flame.rasterizer import rasterize

if TYPE_CHECKING:
    from flame.model import HeadModel
    from flame.topology import Topology

_EYES = (3, 4)
"""Joints of the eyeballs."""
_NEVER_SKIN = ("eye_sockets", "inner_mouth", "tongue")


class Part(IntEnum):
    """Kinds of surface that do not share colours."""

    SKIN = 0
    """Skin, lips and scalp."""
    LEFT_EYE = 1
    RIGHT_EYE = 2
    HIDDEN = 3
    """Inside of the mouth and eye sockets."""


@dataclass(frozen=True, eq=False)
class TexelTable:
    """Describe the N texels of a head's texture that show something."""

    size_px: int
    row: np.ndarray
    """Row of each texel in the picture, int32 (N,)."""
    column: np.ndarray
    """Column of each texel, int32 (N,)."""
    vertices: np.ndarray
    """Vertices of the triangle that each texel lies in, int32 (N, 3)."""
    triangle: np.ndarray
    """That triangle, int32 (N,)."""
    weights: np.ndarray
    """Weights of those vertices, float32 (N, 3)."""
    part: np.ndarray
    """``Part`` of each texel, uint8 (N,)."""
    triangle_part: np.ndarray
    """``Part`` of each triangle, uint8 (F,)."""
    mirror: np.ndarray
    """Which texel shows the reflection in x = 0 of each, int32 (N,); -1 where none does."""
    nearest: np.ndarray
    """For every texel of the picture the one of the N that is nearest, int32 (S, S)."""
    texel_area: np.ndarray
    """Texels that each triangle covers, float64 (F,)."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.row)

    def on(self, values: np.ndarray) -> np.ndarray:
        """Return values of vertices (V, ...) at the texels, (N, ...)."""
        corners = values[self.vertices]
        return np.einsum("nk...,nk->n...", corners, self.weights)

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Return values of the texels (N, ...) as a picture (S, S, ...), continued to where no texel is."""
        return values[self.nearest]

    @staticmethod
    def of(head: HeadModel, size_px: int) -> TexelTable | None:
        """Rasterise a head's texture layout; None where it has none. Kept for a few heads and sizes."""
        return _table(head, size_px)


@lru_cache(maxsize=2)
def _table(head: HeadModel, size_px: int) -> TexelTable | None:
    topology = head.topology
    if topology is None or topology.uv is None or topology.uv_faces is None:
        return None
    faces = head.faces.detach().cpu().numpy().astype(np.int32)
    corners = _corners_px(topology.uv, size_px)
    flat = np.column_stack((corners, np.ones(len(corners))))
    fragments = rasterize(flat, topology.uv_faces, Intrinsics(1.0, 1.0, 0.0, 0.0, size_px, size_px))
    if not fragments.mask.any():
        return None
    row, column = (index.astype(np.int32) for index in np.nonzero(fragments.mask))
    triangle = fragments.triangle[row, column]
    weights = fragments.barycentric[row, column]
    place = np.full((size_px, size_px), -1, np.int32)
    place[row, column] = np.arange(len(row))
    nearest_at = np.asarray(distance_transform_edt(~fragments.mask, return_distances=False, return_indices=True))
    kinds = parts(head)
    a, b, c = np.moveaxis(corners[topology.uv_faces], 1, 0)
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    return TexelTable(
        size_px=size_px,
        row=row,
        column=column,
        vertices=faces[triangle],
        triangle=triangle,
        weights=weights,
        part=kinds[triangle],
        triangle_part=kinds,
        mirror=_mirrored(topology, faces, triangle, weights, place),
        nearest=place[nearest_at[0], nearest_at[1]],
        texel_area=np.abs(ux * vy - uy * vx) / 2,
    )


def _corners_px(uv: np.ndarray, size_px: int) -> np.ndarray:
    """Return where texture coordinates (VT, 2) lie in a picture whose first row is the top, float64 (VT, 2)."""
    uv = np.asarray(uv, np.float64)
    return np.stack((uv[:, 0], 1 - uv[:, 1]), axis=1) * size_px


def parts(head: HeadModel) -> np.ndarray:
    """Return the ``Part`` of each triangle, uint8 (F,); a head without regions has skin and the eyes of its joints."""
    faces = head.faces.detach().cpu().numpy()
    regions = head.topology.regions if head.topology is not None else {}
    nothing = np.zeros(head.num_vertices, bool)
    is_hidden = np.logical_or.reduce([regions.get(name, nothing) for name in _NEVER_SKIN])
    is_hidden &= ~regions.get("lips", nothing) & ~regions.get("face", nothing)
    kinds = np.where(is_hidden[faces].any(axis=1), Part.HIDDEN, Part.SKIN).astype(np.uint8)
    skin_weights = head.skin_weights.detach().cpu().numpy()
    for joint, part, name in zip(_EYES, (Part.LEFT_EYE, Part.RIGHT_EYE), ("left_eye", "right_eye"), strict=True):
        is_eye = (skin_weights[:, joint] > 0.5) | regions.get(name, nothing)
        kinds[is_eye[faces].any(axis=1)] = part
    return kinds


def _mirrored(
    topology: Topology, faces: np.ndarray, triangle: np.ndarray, weights: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """Return the texel that shows each texel's mirror image, int32 (N,); -1 where there is none."""
    if topology.mirror is None or topology.uv is None or topology.uv_faces is None:
        return np.full(len(triangle), -1, np.int32)
    partner = topology.mirror[faces]
    rows = _uv_rows_of(partner, faces, topology.uv_faces)
    mirrored_uv = np.einsum("nkc,nk->nc", topology.uv[rows[triangle]], weights)
    size = len(place)
    at = np.floor(_corners_px(mirrored_uv, size)).astype(np.int64).clip(0, size - 1)
    found = place[at[:, 1], at[:, 0]]
    # Texels at the rim of an island may miss it by rounding: a neighbour does as well.
    for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        beside = place[(at[:, 1] + down).clip(0, size - 1), (at[:, 0] + right).clip(0, size - 1)]
        found = np.where(found < 0, beside, found)
    return np.where((rows >= 0).all(axis=1)[triangle], found, -1).astype(np.int32)


def _uv_rows_of(partner: np.ndarray, faces: np.ndarray, uv_faces: np.ndarray) -> np.ndarray:
    """Return rows of texture coordinates, int64 (F, 3), for triangles named by vertices (F, 3); -1 where unknown.

    Where the mirror image of a triangle is none (the other diagonal of a quad), its corners take the coordinates that
    they have in the triangle on the other side of one of its edges.
    """
    by_triangle = {tuple(sorted(face)): index for index, face in enumerate(faces.tolist())}
    by_edge: dict[tuple[int, int], list[int]] = {}
    for index, (a, b, c) in enumerate(faces.tolist()):
        for edge in ((a, b), (b, c), (c, a)):
            by_edge.setdefault((min(edge), max(edge)), []).append(index)
    rows = np.full(partner.shape, -1, np.int64)
    for index, corners in enumerate(partner.tolist()):
        same = by_triangle.get(tuple(sorted(corners)))
        near = [same] if same is not None else []
        if same is None:
            a, b, c = corners
            for edge in ((a, b), (b, c), (c, a)):
                near += by_edge.get((min(edge), max(edge)), [])
        known: dict[int, int] = {}
        for other in near:
            for vertex, row in zip(faces[other].tolist(), uv_faces[other].tolist(), strict=True):
                known.setdefault(vertex, row)
        rows[index] = [known.get(corner, -1) for corner in corners]
    return rows
