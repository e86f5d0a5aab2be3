"""The mouth's inside: the photograph's own upper teeth on an arch behind the lips, and darkness behind them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flame.rasterizer import rasterize
from sample_scene.portrait import DETAIL, HEIGHT, WIDTH, Portrait

_INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
"""The detector's points around the mouth's opening, from the right corner over the upper lip and back below."""
_NUM_UPPER = 11
_BEHIND_LIPS_METRES = 0.004
_GUM, _TONGUE = np.array((165.0, 95.0, 90.0)), np.array((170.0, 84.0, 80.0))
_DEEP = np.array((34.0, 11.0, 10.0))
_DARKENING_METRES = 0.024
_CHEEK_ROW, _COLLAR_ROW = 225, 262
"""Row of the clip below which cheeks and chin may uncover what is behind them, and where the collar begins."""


@dataclass(frozen=True)
class Teeth:
    """Hold the upper teeth: a piece of the photograph on an arch, fixed to the skull."""

    points_cam: np.ndarray
    """Rest positions, float64 (N, 3), metres, camera space."""
    points_px: np.ndarray
    """Where they are in the photograph, (N, 2), clip pixels."""
    faces: np.ndarray
    """Int32 (F, 3)."""
    texture: np.ndarray
    """The photograph with the teeth continued under the upper lip, float32 (H, W, 3)."""


def build_teeth(portrait: Portrait, verts_cam: np.ndarray) -> Teeth:
    """Lay the teeth that the smile shows on an arch behind the lips."""
    lips_px = portrait.evidence.points_px[list(_INNER_LIPS)]
    upper, lower = lips_px[:_NUM_UPPER], np.concatenate((lips_px[_NUM_UPPER - 1 :], lips_px[:1]))[::-1]
    columns = np.linspace(lips_px[0, 0] - 1, lips_px[_NUM_UPPER - 1, 0] + 1, 25)
    top = np.interp(columns, *upper.T) - 9.0
    bottom = np.interp(columns, *lower.T) + 2.5 * np.abs(np.linspace(-1, 1, 25)) ** 3 - 1.0
    share = np.linspace(0, 1, 9)[:, None]
    points_px = np.stack((np.broadcast_to(columns, (9, 25)), top + share * (bottom - top)), axis=-1).reshape(-1, 2)
    intrinsics = portrait.track.intrinsics
    rays = (points_px - (intrinsics.cx, intrinsics.cy)) / (intrinsics.fx, intrinsics.fy)
    faces = portrait.track.head_model.faces.numpy()
    lips_cam = portrait.surface.on(verts_cam, faces)[list(_INNER_LIPS)]
    arch_cam = lips_cam[:_NUM_UPPER]
    depth = np.interp(points_px[:, 0], lips_px[:_NUM_UPPER, 0], arch_cam[:, 2]) + _BEHIND_LIPS_METRES
    index = np.arange(9 * 25).reshape(9, 25)
    corners = [part.ravel() for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])]
    quads = np.stack(corners, axis=1)
    return Teeth(
        points_cam=np.concatenate((rays, np.ones((len(rays), 1))), axis=1) * depth[:, None],
        points_px=points_px,
        faces=np.concatenate((quads[:, :3], quads[:, (0, 2, 3)])).astype(np.int32),
        texture=_continued_teeth(portrait, upper, lower),
    )


def _continued_teeth(portrait: Portrait, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return the photograph with each column of teeth continued above the lip's edge, into the gum's colour."""
    texture = portrait.texture.copy()
    first, last = np.ceil(portrait.texture_px(upper)[[0, -1], 0]).astype(int)
    for column in range(first, last):
        x = (column + 0.5) / DETAIL
        edge = portrait.texture_px(np.array((x, np.interp(x, *upper.T) + 1.5)))[1]
        end = portrait.texture_px(np.array((x, np.interp(x, *lower.T) - 0.5)))[1]
        row = min(int(edge), int(end))
        tooth = texture[row : row + 3, column].mean(axis=0)
        rise = np.arange(1, 26)[:, None]
        gum = np.clip((rise - 8) / 6.0, 0, 1)
        shadow = 1 - 0.4 * np.clip(rise / 8.0, 0, 1)
        texture[row - 25 : row, column] = (shadow * (tooth * (1 - gum) + gum * _GUM))[::-1]
        texture[int(end) : int(end) + 12, column] = 0.4 * tooth
    return texture


def cavity_color(portrait: Portrait) -> np.ndarray:
    """Return the colour of the mouth's inside and how much it covers the photograph, float32 (V, 4): darker inside."""
    head = portrait.track.head_model
    topology = head.topology
    assert topology is not None
    template = head.template.numpy()
    inside, tongue = topology.region("inner_mouth"), topology.region("tongue")
    behind_metres = template[topology.region("lips"), 2].max() - template[:, 2]
    light = np.exp(-np.maximum(behind_metres, 0) / _DARKENING_METRES)[:, None]
    colors = np.zeros((len(template), 4), np.float32)
    colors[:, :3] = _DEEP + light * (np.where(tongue[:, None], _TONGUE, _GUM) - _DEEP)
    colors[inside, 3] = np.clip(depth_in_rings(inside, topology.faces, 3) - 1, 0, 2)[inside] / 2
    colors[tongue, 3] = 1.0
    return colors


def depth_in_rings(mask: np.ndarray, faces: np.ndarray, limit: int) -> np.ndarray:
    """Return how many edges each vertex (V,) of a mask is away from those outside, up to a limit."""
    depth = np.where(mask, float(limit), 0.0)
    for _ in range(limit):
        np.minimum.at(depth, faces.ravel(), np.repeat(depth[faces].min(axis=1) + 1, 3))
    return depth


def lower_face_painted_over(portrait: Portrait, verts_cam: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the photograph with the skin of neck and cheeks continued behind chin and mouth and over the outline."""
    topology = portrait.track.head_model.topology
    assert topology is not None
    lower = faces[topology.region_triangles("face")].astype(np.int32)
    is_face = rasterize(verts_cam, lower, portrait.track.intrinsics).mask
    size = (WIDTH, HEIGHT)
    matte = cv2.resize(portrait.matte[-DETAIL * HEIGHT :], size, interpolation=cv2.INTER_AREA)
    hole = cv2.erode(is_face.astype(np.uint8), np.ones((1, 15)))
    hole = cv2.dilate(hole, np.ones((9, 1)))
    hole[:_CHEEK_ROW] = 0
    beyond = matte < 0.95
    beyond[: _CHEEK_ROW - 20], beyond[_COLLAR_ROW:] = 0, 0
    unknown = np.logical_or(hole, beyond).astype(np.uint8)
    photo = cv2.resize(portrait.texture[-DETAIL * HEIGHT :], size, interpolation=cv2.INTER_AREA)
    nearby = slice(_CHEEK_ROW - 30, 340), slice(200, 450)
    filled = photo.copy()
    source = np.clip(photo[nearby], 0, 255).astype(np.uint8)
    filled[nearby] = cv2.inpaint(source, unknown[nearby], 5, cv2.INPAINT_TELEA)
    unknown[nearby[0].stop :] = 0
    unknown[:, : nearby[1].start], unknown[:, nearby[1].stop :] = 0, 0
    size = (DETAIL * WIDTH, DETAIL * HEIGHT)
    cover = cv2.GaussianBlur(cv2.resize(unknown.astype(np.float32), size), (0, 0), 2.0)[..., None]
    texture = portrait.texture.copy()
    texture[-DETAIL * HEIGHT :] += cover * (cv2.resize(filled, size) - texture[-DETAIL * HEIGHT :])
    return texture
