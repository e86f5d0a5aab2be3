"""What the pixels of a rendered mesh show: exact labels, and what covers and image borders take away from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numba
import numpy as np

from flame.camera import Intrinsics
from flame.rasterizer import NEAR_METRES, Backend, cpu, rasterize
from flame.rasterizer.cpu import weights_at
from priors.pixel_kinds import Kind
from priors.training.labels import LabelMaps

_MOST_CUT = 0.3
_REPEATED_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class LabelledMesh:
    """Name what the labels of a mesh need that never changes.

    The mesh may go on after its labelled part: triangles after the first L belong to clothes and the like.
    """

    faces: np.ndarray
    """Triangles, int32 (F, 3)."""
    kinds: np.ndarray
    """What each triangle is, uint8 (F,), values of `Kind`."""
    template: np.ndarray
    """Rest vertices of the mean head, (V, 3), metres in head space; V vertices bear the labelled triangles."""
    uv: np.ndarray
    """Texture coordinates (VT, 2), origin bottom left."""
    uv_faces: np.ndarray
    """Rows of ``uv`` at the corners of the labelled triangles, int32 (L, 3)."""

    def visible(
        self, verts_cam: np.ndarray, camera: Intrinsics, backend: Backend = "cpu"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the vertices in the image, the front triangle of each pixel (-1: none), and its inverse depth.

        The vertices are x and y in pixels and inverse depth, float64 (V, 3); back faces are left out.
        """
        corners = cpu.project_corners(verts_cam, camera)
        if backend == "cpu":
            size = camera.height, camera.width
            triangle, inverse, _ = cpu.visibility(corners, self.faces, *size, True, NEAR_METRES)
            return corners, triangle, inverse
        fragments = rasterize(verts_cam, self.faces, camera, cull_backfaces=True, backend=backend)
        return corners, fragments.triangle, np.where(fragments.mask, 1 / fragments.depth, 0).astype(np.float32)

    def labels(
        self, verts_cam: np.ndarray, normals_cam: np.ndarray, camera: Intrinsics, backend: Backend = "cpu"
    ) -> LabelMaps:
        """Return what a camera's pixels show of the mesh with these vertices and vertex normals, camera space."""
        corners, triangle, _ = self.visible(verts_cam, camera, backend)
        size = triangle.shape
        place, uv = np.full((*size, 3), np.nan, np.float32), np.zeros((*size, 2), np.float32)
        normals = np.zeros((*size, 3), np.float32)
        _label(corners, self.faces, self.uv_faces, self.uv, self.template, normals_cam, triangle, place, uv, normals)
        kind = np.where(triangle >= 0, self.kinds[triangle], np.uint8(Kind.BACKGROUND)).astype(np.uint8)
        return LabelMaps(place, uv, normals, kind)


def covered(labels: LabelMaps, cover: np.ndarray) -> LabelMaps:
    """Return labels below covers.

    Args:
        labels: those of the mesh alone.
        cover: uint8 (S, S), S a multiple of the labels' side: ``Kind.HAIR`` keeps what is below, ``Kind.COVER`` and
            ``Kind.BACKGROUND`` do not; other values are no cover. A block's label follows half of its pixels.
    """
    size = len(labels.kind)
    kind, place = labels.kind.copy(), labels.place.copy()
    for what in (Kind.HAIR, Kind.COVER, Kind.BACKGROUND):
        mask = cover == what
        if not mask.any():
            continue
        there = _mostly(mask, size)
        kind[there] = what
        if what != Kind.HAIR:
            place[there] = np.nan
    unseen = ~np.isfinite(place[..., :1])
    return LabelMaps(place, np.where(unseen, 0, labels.uv), np.where(unseen, 0, labels.normals_cam), kind)


def cut_at_border(image: np.ndarray, labels: LabelMaps, rng: np.random.Generator) -> tuple[np.ndarray, LabelMaps]:
    """Let the photograph end inside the crop, at one side: black, or the last row repeated; no labels there."""
    small, side = len(labels.kind), int(rng.integers(4))
    rows = round(rng.uniform(0.04, _MOST_CUT) * small)
    image, maps = np.rot90(image, side).copy(), [np.rot90(m, side).copy() for m in vars(labels).values()]
    pixels = rows * (len(image) // small)
    image[:pixels] = image[pixels] if rng.random() < _REPEATED_SHARE else 0
    for array, value in zip(maps, (np.nan, 0, 0, Kind.BACKGROUND), strict=True):
        array[:rows] = value
    place, uv, normals, kind = (np.ascontiguousarray(np.rot90(array, -side)) for array in maps)
    return np.ascontiguousarray(np.rot90(image, -side)), LabelMaps(place, uv, normals, kind)


def _mostly(mask: np.ndarray, size: int) -> np.ndarray:
    """Return which of size x size blocks of a mask (S, S) are at least half true."""
    return cv2.resize(mask.astype(np.uint8) * 255, (size, size), interpolation=cv2.INTER_AREA) >= 127


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _label(corners, faces, uv_faces, uv, template, normals, triangle, place, texture, turned):  # pragma: no cover
    """Write place, texture coordinates and unit normals of the pixels that see a labelled triangle."""
    for row in range(triangle.shape[0]):
        for column in range(triangle.shape[1]):
            f = triangle[row, column]
            if f < 0 or f >= uv_faces.shape[0]:
                continue
            ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
            wa, wb, wc, _ = weights_at(corners, ia, ib, ic, column + 0.5, row + 0.5)
            length = 0.0
            for c in range(3):
                place[row, column, c] = wa * template[ia, c] + wb * template[ib, c] + wc * template[ic, c]
                value = wa * normals[ia, c] + wb * normals[ib, c] + wc * normals[ic, c]
                turned[row, column, c] = value
                length += value * value
            length = 1.0 / math.sqrt(length + 1e-20)
            for c in range(3):
                turned[row, column, c] *= length
            for c in range(2):
                value = wa * uv[uv_faces[f, 0], c] + wb * uv[uv_faces[f, 1], c]
                texture[row, column, c] = value + wc * uv[uv_faces[f, 2], c]
