"""Pictures of a mesh: anti-aliased, softly lit, with transparency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.rasterizer import NEAR_METRES, cpu
from flame.shading import (
    CLAY,
    NOT_AN_EYE,
    STUDIO,
    Lighting,
    eye_from_cam,
    linear_from_srgb,
    screen_occlusion,
    shade_eye,
    shade_point,
    vertex_normals,
)

Mode = Literal["mesh", "normals", "wire"]

_MODES: tuple[Mode, ...] = ("mesh", "normals", "wire")


@dataclass(frozen=True)
class Layer:
    """A picture with transparency that covers a part of an image."""

    left: int
    """First column of the image that the layer covers."""
    top: int
    """First row."""
    rgba: np.ndarray
    """Premultiplied sRGB and opacity in [0, 1], float32 (h, w, 4)."""

    def over(self, image: np.ndarray) -> None:
        """Blend the layer over a uint8 image (H, W, 3), in place."""
        _blend(image, self.rgba, self.left, self.top)


def render(
    verts_cam: np.ndarray,
    faces: np.ndarray,
    intrinsics: Intrinsics,
    *,
    mode: Mode = "mesh",
    colors: np.ndarray | tuple[float, float, float] = CLAY,
    opacity: np.ndarray | float = 1.0,
    iris_metres: np.ndarray | None = None,
    supersampling: int = 2,
    lighting: Lighting = STUDIO,
) -> Layer:
    """Render a mesh, vertices (V, 3) in camera space, into the part of the image where it is; back faces are left out.

    ``mesh`` is lit clay of the material ``colors`` (sRGB, one or (V, 3)), ``normals`` the camera-space normals in the
    usual colours, ``wire`` the clay with its triangles' edges. ``opacity`` is one or (V,); ``iris_metres`` (V, 2) is
    where vertices of eyeballs are, seen along the gaze from the pupil (see ``flame.shading.HeadLook``). Outlines, inner
    ones too, are sampled ``supersampling`` x ``supersampling`` times in a pixel.

    Raises:
        InputError: The mode is unknown or an array does not fit the mesh.
    """
    verts_cam = np.ascontiguousarray(verts_cam, np.float64)
    faces = np.ascontiguousarray(faces, np.int32)
    if mode not in _MODES:
        raise InputError(f"unknown drawing mode {mode!r}; choose {', '.join(_MODES)}")
    box = visible_box(verts_cam, intrinsics)
    if box is None:
        return Layer(0, 0, np.zeros((0, 0, 4), np.float32))
    left, top, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    fine = intrinsics.crop(left, top, width, height).scale(supersampling)
    corners_px = cpu.project_corners(verts_cam, fine)
    triangle, inverse_depth, _ = cpu.visibility(corners_px, faces, fine.height, fine.width, True, NEAR_METRES)
    normals_cam = vertex_normals(verts_cam, faces)
    attributes = np.empty((len(verts_cam), 10))
    if mode == "normals":
        attributes[:, 0:3] = normals_cam * (1, -1, -1)
    else:
        attributes[:, 0:3] = eye_from_cam(normals_cam, verts_cam)
        attributes[:, 3:6] = linear_from_srgb(np.broadcast_to(np.asarray(colors, np.float64), verts_cam.shape))
        attributes[:, 7] = screen_occlusion(verts_cam, normals_cam, inverse_depth, fine)
    attributes[:, 6] = opacity
    attributes[:, 8:] = NOT_AN_EYE if iris_metres is None else iris_metres
    rgba = np.zeros((height, width, 4), np.float32)
    light, mode_index = lighting.packed(), _MODES.index(mode)
    _shade_samples(corners_px, faces, triangle, inverse_depth, attributes, light, mode_index, supersampling, rgba)
    return Layer(left, top, rgba)


def visible_box(verts_cam: np.ndarray, intrinsics: Intrinsics) -> tuple[int, int, int, int] | None:
    """Return left, top, right, bottom of a mesh (V, 3) in the image, whole pixels; None when it is outside."""
    corners_px = cpu.project_corners(verts_cam, intrinsics)
    points_px = corners_px[(corners_px[:, 2] > 0) & (corners_px[:, 2] < 1 / NEAR_METRES), :2]
    if len(points_px) == 0:
        return None
    limit = (intrinsics.width, intrinsics.height)
    left, top = np.clip(np.floor(points_px.min(axis=0)), 0, limit)
    right, bottom = np.clip(np.ceil(points_px.max(axis=0)), 0, limit)
    return (int(left), int(top), int(right), int(bottom)) if left < right and top < bottom else None


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mix(attributes, channel, ia, ib, ic, wa, wb, wc):  # pragma: no cover - compiled
    return wa * attributes[ia, channel] + wb * attributes[ib, channel] + wc * attributes[ic, channel]


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _light_at(attributes, ia, ib, ic, wa, wb, wc, nx, ny, nz, light):  # pragma: no cover - compiled
    """Return the sRGB colour of a point of a triangle, given the weights of its corners and the normal there."""
    red, green = _mix(attributes, 3, ia, ib, ic, wa, wb, wc), _mix(attributes, 4, ia, ib, ic, wa, wb, wc)
    blue, openness = _mix(attributes, 5, ia, ib, ic, wa, wb, wc), _mix(attributes, 7, ia, ib, ic, wa, wb, wc)
    eye_x = _mix(attributes, 8, ia, ib, ic, wa, wb, wc)
    if eye_x > 0.75 * NOT_AN_EYE:
        return shade_point(light, nx, ny, nz, red, green, blue, openness)
    radius = math.sqrt(eye_x * eye_x + _mix(attributes, 9, ia, ib, ic, wa, wb, wc) ** 2)
    return shade_eye(light, nx, ny, nz, red, green, blue, openness, radius)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _line_at(corners, faces, f, x, y, half_width):  # pragma: no cover - compiled
    """Return how much of a line along the edges of triangle ``f`` covers the point, less where triangles are small."""
    nearest, smallest = 1e9, 1e9
    ax, ay = corners[faces[f, 0], 0], corners[faces[f, 0], 1]
    bx, by = corners[faces[f, 1], 0], corners[faces[f, 1], 1]
    cx, cy = corners[faces[f, 2], 0], corners[faces[f, 2], 1]
    area = abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
    for corner in range(3):
        px, py = corners[faces[f, corner], 0], corners[faces[f, corner], 1]
        qx, qy = corners[faces[f, (corner + 1) % 3], 0], corners[faces[f, (corner + 1) % 3], 1]
        length = math.sqrt((qx - px) ** 2 + (qy - py) ** 2) + 1e-9
        nearest = min(nearest, abs((qx - px) * (y - py) - (qy - py) * (x - px)) / length)
        smallest = min(smallest, area / length)
    cover = min(max(half_width + 0.5 - nearest, 0.0), 1.0)
    return cover * min(1.0, smallest / (8.0 * half_width))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _is_smooth(inverse_depth, top, left, n):  # pragma: no cover - compiled
    """Return whether the n x n samples of a pixel lie on a surface without a step: one colour serves for all."""
    first = inverse_depth[top, left]
    for i in range(top, top + n):
        for j in range(left, left + n):
            if abs(inverse_depth[i, j] - first) > 0.01 * first:
                return False
    return first > 0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _shade_samples(corners, faces, triangle, inverse_depth, attributes, light, mode, n, rgba):  # pragma: no cover
    for row in range(rgba.shape[0]):
        for column in range(rgba.shape[1]):
            # On a surface without a step one sample stands for all. Not the pixel's centre: that may lie outside the
            # sample's triangle, where the weights of a sliver mean nothing.
            top, left, bottom, right = row * n, column * n, row * n + n, column * n + n
            is_smooth = _is_smooth(inverse_depth, top, left, n)
            if is_smooth:
                bottom, right = top + 1, left + 1
            share = 1.0 if is_smooth else 1.0 / (n * n)
            for i in range(top, bottom):
                for j in range(left, right):
                    f = triangle[i, j]
                    if f < 0:
                        continue
                    ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
                    wa, wb, wc, _ = cpu.weights_at(corners, ia, ib, ic, j + 0.5, i + 0.5)
                    nx = _mix(attributes, 0, ia, ib, ic, wa, wb, wc)
                    ny = _mix(attributes, 1, ia, ib, ic, wa, wb, wc)
                    nz = _mix(attributes, 2, ia, ib, ic, wa, wb, wc)
                    scale = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
                    nx, ny, nz = nx * scale, ny * scale, nz * scale
                    if mode == 1:
                        r, g, b = 0.5 + 0.5 * nx, 0.5 + 0.5 * ny, 0.5 + 0.5 * nz
                    else:
                        r, g, b = _light_at(attributes, ia, ib, ic, wa, wb, wc, nx, ny, nz, light)
                    opacity = min(max(_mix(attributes, 6, ia, ib, ic, wa, wb, wc), 0.0), 1.0) * share
                    ink = opacity
                    if mode == 2 and is_smooth:
                        ink *= 1.0 - 0.75 * _line_at(corners, faces, f, j + 0.5, i + 0.5, 0.5 * n)
                    rgba[row, column, 0] += r * ink
                    rgba[row, column, 1] += g * ink
                    rgba[row, column, 2] += b * ink
                    rgba[row, column, 3] += opacity


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _blend(image, rgba, left, top):  # pragma: no cover - compiled
    for row in range(rgba.shape[0]):
        for column in range(rgba.shape[1]):
            alpha = rgba[row, column, 3]
            if alpha <= 0:
                continue
            for channel in range(3):
                below = image[top + row, left + column, channel] * (1.0 - alpha)
                image[top + row, left + column, channel] = int(below + 255.0 * rgba[row, column, channel] + 0.5)
