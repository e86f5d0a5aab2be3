"""Heads drawn over images: semi-transparent meshes, labels, and panels that show how a result came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numba
import numpy as np

from flame.camera import Intrinsics, project
from flame.errors import InputError
from flame.rasterizer import rasterize
from flame.render import Mode, render, visible_box
from flame.shading import CLAY, HeadLook, normals_to_rgb

OVERLAY_ALPHA = 0.72
"""Opacity of the face in overlays: the mesh's shape is plain and the face below still shows through."""

Layout = Literal["row", "grid"]
LAYOUTS: tuple[Layout, ...] = ("row", "grid")
"""How panels lie: all beside each other, or three beside each other in two rows."""

PANEL_NAMES = ("input", "normals", "2D vertices", "overlay", "mesh")
"""The panels of a row, left to right."""

GRID_NAMES = (*PANEL_NAMES, "mesh, turned")
"""The panels of a grid, row by row: the last one shows the meshes turned by ``TURN_DEGREES``, each about itself."""

TURN_DEGREES = 45.0

_GRID_COLUMNS = 3
_MAX_GRID_PIXELS = 4096 * 2304
"""Pixels that decoders of H.264 up to level 5.2 take."""
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
    alpha: float = OVERLAY_ALPHA,
    layout: Layout = "row",
    note: str = "",
    max_width: int = 4096,
) -> np.ndarray:
    """Return input, normals, 2D vertices, overlay and mesh beside each other and named, uint8 RGB, sizes even.

    ``normals_cam`` (H, W, 3; 0 where unknown) are predicted normals, ``points_px`` (N, 2) where evidence sees the
    surface; without them the heads' own are shown. ``note`` is written on the overlay.

    In a row, panels are as high as the image. When five images are wider than ``max_width`` pixels, each panel is a
    strip of the image round the column ``focus_px``; without a focus it is the whole image, made smaller. For a video
    choose once. In a grid, panels show the whole image, in its own size where three of them are no wider than
    ``max_width`` and six are no more pixels than players can decode; a sixth shows the meshes turned.

    Raises:
        InputError: The layout is unknown.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout '{layout}' is not known; allowed: {', '.join(LAYOUTS)}.")
    names = [f"{name}: {note}" if note and name == "overlay" else name for name in GRID_NAMES]
    views = [
        image,
        _draw_normals(image, heads, faces, intrinsics, normals_cam),
        _draw_vertices(image, heads, faces, intrinsics, points_px),
        draw_heads(image, heads, faces, intrinsics, alpha=alpha),
        _draw_meshes(image, heads, faces, intrinsics),
    ]
    if layout == "row":
        return _even_sized(_row(views, names[: len(views)], focus_px, max_width))
    views.append(_draw_meshes(image, _turned(heads), faces, intrinsics))
    return _even_sized(_grid(views, names, max_width))


def _row(views: Sequence[np.ndarray], names: Sequence[str], focus_px: float | None, max_width: int) -> np.ndarray:
    """Put views beside each other, as high as they are."""
    height, width = views[0].shape[:2]
    panel_width = min(width, max_width // len(views) // 2 * 2)
    row = np.concatenate([_fit_panel(view, panel_width, focus_px) for view in views], axis=1)
    for index, name in enumerate(names):
        draw_label(row, name, (index * panel_width + height / 100, height / 100))
    return row


def _grid(views: Sequence[np.ndarray], names: Sequence[str], max_width: int) -> np.ndarray:
    """Put whole views, made smaller where they have to be, beside and below each other."""
    height, width = views[0].shape[:2]
    scale = min(1.0, max_width / (_GRID_COLUMNS * width), math.sqrt(_MAX_GRID_PIXELS / (len(views) * width * height)))
    if scale < 1:
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        views = [cv2.resize(view, size, interpolation=cv2.INTER_AREA) for view in views]
    panels = [np.array(view) for view in views]
    for panel, name in zip(panels, names, strict=True):
        margin = len(panel) / 100
        draw_label(panel, name, (margin, margin))
    rows = [panels[first : first + _GRID_COLUMNS] for first in range(0, len(panels), _GRID_COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def _even_sized(picture: np.ndarray) -> np.ndarray:
    """Add a dark column or row where a size is odd: video formats that all players show have colour for pairs."""
    height, width = picture.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return picture
    even = np.full((height + height % 2, width + width % 2, 3), _BACKDROP, np.uint8)
    even[:height, :width] = picture
    return even


def _turned(heads: Sequence[DrawnHead]) -> list[DrawnHead]:
    """Turn every head about the vertical through its own middle, so that what faces the camera is seen from aside."""
    cos, sin = math.cos(math.radians(TURN_DEGREES)), math.sin(math.radians(TURN_DEGREES))
    turn = np.array(((cos, 0.0, sin), (0.0, 1.0, 0.0), (-sin, 0.0, cos)))
    middles = [(head.verts_cam.min(axis=0) + head.verts_cam.max(axis=0)) / 2 for head in heads]
    return [
        replace(head, verts_cam=(head.verts_cam - middle) @ turn.T + middle)
        for head, middle in zip(heads, middles, strict=True)
    ]


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


def _draw_normals(
    image: np.ndarray,
    heads: Sequence[DrawnHead],
    faces: np.ndarray,
    intrinsics: Intrinsics,
    normals_cam: np.ndarray | None,
) -> np.ndarray:
    """Paint normals (H, W, 3), or without them the heads' own, on black."""
    if normals_cam is not None:
        return (255 * normals_to_rgb(normals_cam) + 0.5).astype(np.uint8)
    black = np.zeros_like(image)
    return draw_heads(black, heads, faces, intrinsics, alpha=1, mode="normals", fade=False, labels=False)


def _draw_vertices(
    image: np.ndarray,
    heads: Sequence[DrawnHead],
    faces: np.ndarray,
    intrinsics: Intrinsics,
    points_px: np.ndarray | None,
) -> np.ndarray:
    """Draw points (N, 2), or without them those of the heads' vertices that can be seen, as dots on a dark image."""
    image = (image * np.float32(0.25)).astype(np.uint8)
    if points_px is not None:
        return draw_points(image, points_px, _sweep(points_px))
    for head in heads:
        triangle = rasterize(head.verts_cam, faces, intrinsics, cull_backfaces=True).triangle
        is_seen = np.unique(np.asarray(faces)[np.unique(triangle[triangle >= 0])])
        seen_px = project(head.verts_cam[is_seen], intrinsics)
        image = draw_points(image, seen_px, _sweep(seen_px), radius_px=1.0)
    return image


def _draw_meshes(
    image: np.ndarray, heads: Sequence[DrawnHead], faces: np.ndarray, intrinsics: Intrinsics
) -> np.ndarray:
    """Draw the whole heads on a backdrop of the image's size."""
    backdrop = np.full_like(image, _BACKDROP)
    return draw_heads(backdrop, heads, faces, intrinsics, alpha=1, fade=False, labels=False)


def _sweep(points_px: np.ndarray) -> np.ndarray:
    """Colour points (N, 2) by their place among the others, uint8 (N, 3)."""
    if len(points_px) == 0:
        return np.zeros((0, 3), np.uint8)
    low, high = np.nanmin(points_px, axis=0), np.nanmax(points_px, axis=0)
    x, y = np.nan_to_num((points_px - low) / np.maximum(high - low, 1e-9)).T
    return (255 * np.clip(np.stack((0.25 + 0.75 * x, 1 - 0.75 * y, 0.35 + 0.65 * y), axis=-1), 0, 1)).astype(np.uint8)
