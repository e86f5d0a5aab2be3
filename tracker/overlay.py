"""Heads drawn over images: semi-transparent meshes, labels, and rows of panels that show how a result came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numba
import numpy as np

from flame.camera import Intrinsics, project
from flame.rasterizer import rasterize
from flame.render import Mode, render, visible_box
from flame.shading import CLAY, HeadLook, normals_to_rgb

OVERLAY_ALPHA = 0.72
"""Opacity of the face in overlays: the mesh's shape is plain and the face below still shows through."""

PANEL_NAMES = ("input", "normals", "2D vertices", "overlay", "mesh")
"""The panels of ``panels``, left to right."""

_BACKDROP = (38, 40, 44)
_LABEL_FONT = cv2.FONT_HERSHEY_DUPLEX


@dataclass(frozen=True, eq=False)
class DrawnHead:
    """A head as it is to be drawn in one frame."""

    verts_cam: np.ndarray
    """Vertices in camera space, metres, (V, 3)."""
    look: HeadLook | None = None
    """Materials and fading; without it the whole head is clay."""
    label: str = ""
    """A short status, drawn above the head."""


def draw_head(
    image: np.ndarray,
    verts_cam: np.ndarray,
    faces: np.ndarray,
    intrinsics: Intrinsics,
    *,
    alpha: float = OVERLAY_ALPHA,
    color: tuple[float, float, float] = CLAY,
    mode: Mode = "mesh",
    vertex_colors: np.ndarray | None = None,
    opacity_per_vertex: np.ndarray | None = None,
    iris_metres: np.ndarray | None = None,
    supersampling: int = 2,
) -> np.ndarray:
    """Return a copy of a uint8 RGB image (H, W, 3) with a head drawn over it, back faces hidden and edges anti-aliased.

    Vertices (V, 3) are in camera space. ``alpha`` is the opacity, times ``opacity_per_vertex`` (V,) where given;
    ``vertex_colors`` (V, 3) sRGB replaces ``color``; modes are those of ``flame.render.render``.

    Raises:
        InputError: The mode is unknown.
    """
    image = np.array(image)
    layer = render(
        verts_cam,
        faces,
        intrinsics,
        mode=mode,
        colors=color if vertex_colors is None else vertex_colors,
        opacity=alpha if opacity_per_vertex is None else alpha * opacity_per_vertex,
        iris_metres=iris_metres,
        supersampling=supersampling,
    )
    layer.over(image)
    return image


def draw_heads(
    image: np.ndarray,
    heads: Sequence[DrawnHead],
    faces: np.ndarray,
    intrinsics: Intrinsics,
    *,
    alpha: float = OVERLAY_ALPHA,
    mode: Mode = "mesh",
    fade: bool = True,
    labels: bool = True,
) -> np.ndarray:
    """Return a copy of a uint8 RGB image with heads drawn over it, the farthest first; ``fade`` follows their looks."""
    image = np.array(image)
    ordered = sorted(heads, key=lambda head: -float(np.median(head.verts_cam[:, 2])))
    for head in ordered:
        look = head.look
        layer = render(
            head.verts_cam,
            faces,
            intrinsics,
            mode=mode,
            colors=CLAY if look is None else look.colors,
            opacity=alpha if look is None or not fade else alpha * look.opacity,
            iris_metres=None if look is None else look.iris_metres,
        )
        layer.over(image)
    for head in ordered if labels else ():
        box = visible_box(head.verts_cam, intrinsics)
        if head.label and box is not None:
            draw_label(image, head.label, ((box[0] + box[2]) / 2, box[1]), anchor="bottom")
    return image


def draw_label(image: np.ndarray, text: str, at_px: tuple[float, float], *, anchor: str = "top_left") -> None:
    """Write a line of text on a dark tag into a uint8 image, in place, kept inside the image.

    ``anchor`` says which point of the tag is at ``at_px``: ``top_left``, or ``bottom`` for the middle of its lower
    edge.
    """
    height, width = image.shape[:2]
    scale = float(np.clip(height / 1000, 0.38, 1.2))
    (text_width, text_height), baseline = cv2.getTextSize(text, _LABEL_FONT, scale, 1)
    pad = round(11 * scale)
    tag_width, tag_height = text_width + 2 * pad, text_height + baseline + pad
    left, top = at_px
    if anchor == "bottom":
        left, top = left - tag_width / 2, top - tag_height - pad
    left = round(min(max(left, 0), max(width - tag_width, 0)))
    top = round(min(max(top, 0), max(height - tag_height, 0)))
    tag = image[top : top + tag_height, left : left + tag_width]
    tag[:] = (tag * 0.35 + np.multiply(_BACKDROP, 0.35)).astype(np.uint8)
    origin = (pad, text_height + pad // 2 + baseline // 4)
    # OpenCV draws only into contiguous memory.
    tag_copy = np.ascontiguousarray(tag)
    cv2.putText(tag_copy, text, origin, _LABEL_FONT, scale, (240, 240, 240), 1, cv2.LINE_AA)
    tag[:] = tag_copy


def draw_points(image: np.ndarray, points_px: np.ndarray, colors: np.ndarray, *, radius_px: float = 1.3) -> np.ndarray:
    """Return a copy of a uint8 RGB image with anti-aliased dots at points (N, 2) in pixels, of colours (N, 3) uint8.

    Later points lie over earlier ones; points that are not finite are left out.
    """
    image = np.array(image)
    points_px = np.asarray(points_px, np.float64)
    is_near = (np.abs(points_px) < 1e6).all(axis=1)
    _splat(image, points_px[is_near], np.asarray(colors, np.float64)[is_near], radius_px)
    return image


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _splat(image, points_px, colors, radius_px):  # pragma: no cover - compiled
    height, width = image.shape[:2]
    reach = radius_px + 0.5
    for p in range(points_px.shape[0]):
        x, y = points_px[p, 0], points_px[p, 1]
        for row in range(max(int(y - reach), 0), min(int(y + reach) + 1, height)):
            for column in range(max(int(x - reach), 0), min(int(x + reach) + 1, width)):
                distance = math.hypot(column + 0.5 - x, row + 0.5 - y)
                cover = min(max(reach - distance, 0.0), 1.0)
                for channel in range(3):
                    below = image[row, column, channel]
                    image[row, column, channel] = int(below + (colors[p, channel] - below) * cover + 0.5)


def panels(
    image: np.ndarray,
    heads: Sequence[DrawnHead],
    faces: np.ndarray,
    intrinsics: Intrinsics,
    *,
    normals_cam: np.ndarray | None = None,
    points_px: np.ndarray | None = None,
    focus_px: float | None = None,
    max_width: int = 4096,
) -> np.ndarray:
    """Return input, normals, 2D vertices, overlay and mesh side by side and named, uint8 RGB, as high as the image.

    ``normals_cam`` (H, W, 3; 0 where unknown) are predicted normals, ``points_px`` (N, 2) where evidence sees the
    surface; without them the heads' own are shown. When five images are wider than ``max_width`` pixels, each panel is
    a strip of the image round the column ``focus_px``; without a focus it is the whole image, made smaller. For a video
    choose once.
    """
    dark = (image * np.float32(0.25)).astype(np.uint8)
    if normals_cam is None:
        black = np.zeros_like(image)
        normals = draw_heads(black, heads, faces, intrinsics, alpha=1, mode="normals", fade=False, labels=False)
    else:
        normals = (255 * normals_to_rgb(normals_cam) + 0.5).astype(np.uint8)
    if points_px is None:
        vertices = _draw_vertices(dark, heads, faces, intrinsics)
    else:
        vertices = draw_points(dark, points_px, _sweep(points_px))
    mesh = np.full_like(image, _BACKDROP)
    views = (
        image,
        normals,
        vertices,
        draw_heads(image, heads, faces, intrinsics),
        draw_heads(mesh, heads, faces, intrinsics, alpha=1, fade=False, labels=False),
    )
    height, width = image.shape[:2]
    # Even widths: most video formats store colour for pairs of columns.
    panel_width = min(width, max_width // len(views) // 2 * 2)
    row = np.concatenate([_fit_panel(view, panel_width, focus_px) for view in views], axis=1)
    for index, name in enumerate(PANEL_NAMES):
        draw_label(row, name, (index * panel_width + height / 100, height / 100))
    return row


def _fit_panel(view: np.ndarray, panel_width: int, focus_px: float | None) -> np.ndarray:
    """Cut a strip of an image round a column, or shrink the whole of it between dark bars, to the width of a panel."""
    height, width = view.shape[:2]
    if width == panel_width:
        return view
    if focus_px is not None:
        left = round(min(max(focus_px - panel_width / 2, 0), width - panel_width))
        return view[:, left : left + panel_width]
    small = cv2.resize(view, (panel_width, round(height * panel_width / width)), interpolation=cv2.INTER_AREA)
    panel = np.full((height, panel_width, 3), _BACKDROP, np.uint8)
    top = (height - len(small)) // 2
    panel[top : top + len(small)] = small
    return panel


def _draw_vertices(
    image: np.ndarray, heads: Sequence[DrawnHead], faces: np.ndarray, intrinsics: Intrinsics
) -> np.ndarray:
    """Draw those of the heads' vertices that can be seen as dots."""
    for head in heads:
        triangle = rasterize(head.verts_cam, faces, intrinsics, cull_backfaces=True).triangle
        is_seen = np.unique(np.asarray(faces)[np.unique(triangle[triangle >= 0])])
        points_px = project(head.verts_cam[is_seen], intrinsics)
        image = draw_points(image, points_px, _sweep(points_px), radius_px=1.0)
    return image


def _sweep(points_px: np.ndarray) -> np.ndarray:
    """Colour points (N, 2) by their place among the others, uint8 (N, 3)."""
    if len(points_px) == 0:
        return np.zeros((0, 3), np.uint8)
    low, high = np.nanmin(points_px, axis=0), np.nanmax(points_px, axis=0)
    x, y = np.nan_to_num((points_px - low) / np.maximum(high - low, 1e-9)).T
    return (255 * np.clip(np.stack((0.25 + 0.75 * x, 1 - 0.75 * y, 0.35 + 0.65 * y), axis=-1), 0, 1)).astype(np.uint8)
