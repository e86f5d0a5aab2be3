"""Texture coordinates of places on the template, without search: the nearest triangle is kept per cell of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from flame.model import HeadModel
from priors.dense_surface import DenseSurface

_CELL_METRES = 0.003
_REACH_METRES = 0.012
"""Places further from the template's skin than this are no places on it."""
_MOST_STRETCHED = 60.0
"""Texture per metre of a triangle that is no sliver; the commons face has about 4."""


@dataclass(frozen=True, eq=False)
class TemplateLookup:
    """Find texture coordinates of places near a head's template."""

    corner: np.ndarray
    """Place of the first cell's centre, float32 (3,), metres."""
    triangle: np.ndarray
    """Nearest triangle per cell, int32 (X, Y, Z); -1 where none is near."""
    origin: np.ndarray
    """One corner of each triangle, float32 (T, 3), metres."""
    uv_origin: np.ndarray
    """Its texture coordinates, float32 (T, 2)."""
    uv_from_place: np.ndarray
    """Change of texture coordinates per metre, float32 (T, 2, 3); nothing across the triangle."""

    @staticmethod
    def of(head: HeadModel) -> TemplateLookup:
        """Prepare a head's skin: all of it but eyes and the mouth's inside.

        Raises:
            InputError: the head has no texture coordinates.
        """
        surface = DenseSurface.of(head)
        template = head.template.detach().cpu().numpy().astype(np.float64)
        corners = template[head.faces.detach().cpu().numpy()]
        uv = surface.uv[surface.uv_faces]
        jacobian = _uv_from_place(corners, uv)
        is_used = ~surface.is_excluded & (np.abs(jacobian).max(axis=(1, 2)) < _MOST_STRETCHED)
        corners, uv, jacobian = corners[is_used], uv[is_used], jacobian[is_used]
        low = corners.min(axis=(0, 1)) - _REACH_METRES
        counts = np.ceil((corners.max(axis=(0, 1)) + _REACH_METRES - low) / _CELL_METRES).astype(int)
        cells = np.stack(np.meshgrid(*(np.arange(count) for count in counts), indexing="ij"), axis=-1)
        return TemplateLookup(
            corner=low.astype(np.float32),
            triangle=_nearest(low + cells.reshape(-1, 3) * _CELL_METRES, corners).reshape(counts),
            origin=corners[:, 0].astype(np.float32),
            uv_origin=uv[:, 0].astype(np.float32),
            uv_from_place=jacobian.astype(np.float32),
        )

    def __call__(self, place: np.ndarray) -> np.ndarray:
        """Return the texture coordinates (N, 2), float32, of places (N, 3), metres; NaN far from the skin."""
        cell = np.rint((place - self.corner) / np.float32(_CELL_METRES)).astype(np.int64)
        shape = self.triangle.shape
        is_inside = ((cell >= 0) & (cell < shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(np.where(is_inside[:, None], cell, 0).T), shape)
        triangle = np.where(is_inside, self.triangle.ravel()[flat], -1)
        offset = (place - self.origin[triangle]).astype(np.float32)
        uv = self.uv_origin[triangle] + np.einsum("nij,nj->ni", self.uv_from_place[triangle], offset)
        uv[triangle < 0] = np.nan
        return uv


def _uv_from_place(corners: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return how texture coordinates change with the place within triangles (T, 3, 3), float64 (T, 2, 3)."""
    edges = np.stack((corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    uv_edges = np.stack((uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]), axis=1)
    return np.swapaxes(np.linalg.pinv(edges) @ uv_edges, 1, 2)


def _nearest(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the triangle (T, 3, 3) nearest to each point (N, 3), -1 beyond reach; int32 (N,).

    Centre, corners and edge middles stand for a triangle, pulled a little inside so that neighbours can be told apart.
    """
    middle = corners.mean(axis=1, keepdims=True)
    stand_ins = np.concatenate((middle, corners, (corners + np.roll(corners, 1, axis=1)) / 2), axis=1)
    stand_ins = middle + 0.9 * (stand_ins - middle)
    tree = KDTree(stand_ins.reshape(-1, 3))
    _, found = tree.query(points, distance_upper_bound=_REACH_METRES)
    triangle = np.asarray(found) // stand_ins.shape[1]
    return np.where(triangle < len(corners), triangle, -1).astype(np.int32)
