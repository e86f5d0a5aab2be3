"""Hats, caps, hoods, headscarves and headphones: shells that follow the head's own shape at a distance."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from priors.pixel_kinds import Kind
from priors.training.render.backgrounds import random_background, random_colors
from priors.training.render.canvas import Canvas
from priors.training.render.head_frame import SKULL_CENTER, shell_directions
from priors.training.render.strokes import tube_chain

_ROWS, _COLUMNS = 10, 36


def draw_headwear(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw something on the head, in place; kind COVER."""
    makers: tuple[Callable[[Canvas, np.random.Generator], None], ...] = (_draw_hat, _draw_hood, _draw_headphones)
    makers[int(rng.choice(3, p=(0.55, 0.25, 0.2)))](canvas, rng)


@lru_cache(maxsize=16)
def grid_faces(rows: int, columns: int, *, is_closed: bool) -> np.ndarray:
    """Return the triangles, int32 (F, 3), of a grid of points; closed: the last column joins the first."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns if is_closed else columns - 1), indexing="ij")
    a, b = row * columns + column, row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate(
        (np.stack((a, c, b), axis=-1).reshape(-1, 3), np.stack((b, c, d), axis=-1).reshape(-1, 3))
    ).astype(np.int32)


def _cloth(
    canvas: Canvas, rng: np.random.Generator, values: np.ndarray, pixels: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return colours (n, 3) of cloth, plain, striped or printed; ``values`` (n, >= 5): row, column, light."""
    color, other = random_colors(rng, 2)
    kind = int(rng.choice(3, p=(0.55, 0.25, 0.2)))
    colors = np.tile(color, (len(values), 1))
    if kind == 1:
        axis, count = int(rng.integers(0, 2)), float(rng.integers(2, 14))
        share = np.clip(3 * np.sin(2 * np.pi * count * values[:, axis]) + 0.5, 0, 1)[:, None]
        colors = colors + share * (other - colors)
    elif kind == 2:
        colors = random_background(rng, *canvas.kind.shape)[pixels]
    return colors * values[:, -3:]


def _draw_shell(
    canvas: Canvas,
    rng: np.random.Generator,
    points: np.ndarray,
    *,
    is_closed: bool,
    nearer: float,
    color: np.ndarray | None,
) -> None:
    """Paint a grid of points (rows, columns, 3) of wear space as cloth, or in one colour."""
    rows, columns = points.shape[:2]
    verts = canvas.frame.to_cam(points.reshape(-1, 3)).astype(np.float64)
    row, column = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    attributes = np.stack((row.reshape(-1), column.reshape(-1)), axis=-1)
    drawn = canvas.draw_mesh(verts, grid_faces(rows, columns, is_closed=is_closed), attributes, nearer=nearer)
    if drawn is None:
        return
    pixel_rows, pixel_columns, values = drawn
    pixels = (pixel_rows, pixel_columns)
    colors = _cloth(canvas, rng, values, pixels) if color is None else color * values[:, -3:]
    canvas.paint(pixel_rows, pixel_columns, colors, Kind.COVER)


def _draw_hat(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a cap, a woollen hat, a helmet or a hat with a brim."""
    guide = canvas.frame.guide
    around = np.linspace(-np.pi, np.pi, _COLUMNS, endpoint=False)
    front, back = rng.uniform(0.03, 0.075), rng.uniform(-0.04, 0.03)
    side = rng.uniform(0.015, 0.045)
    level = np.where(
        np.abs(around) < np.pi / 2, side + (front - side) * np.cos(around), side + (side - back) * np.cos(around)
    )
    thickness = rng.uniform(0.006, 0.022)
    angle = np.full(_COLUMNS, 1.2)
    for _ in range(4):
        directions = shell_directions(angle, around)
        reach = guide.skin_radius(SKULL_CENTER + 0.1 * directions) + thickness
        angle = np.arccos(np.clip((level - SKULL_CENTER[1]) / reach, -0.9, 0.9))
    share = np.linspace(0.02, 1, _ROWS)[:, None]
    directions = shell_directions(share * angle, np.broadcast_to(around, (_ROWS, _COLUMNS)))
    reach = guide.skin_radius(SKULL_CENTER + 0.1 * directions) + thickness
    reach = reach + rng.uniform(0, 0.05) * (1 - share**2) * rng.choice((0.0, 1.0))
    points = SKULL_CENTER + directions * reach[..., None]
    _draw_shell(canvas, rng, points, is_closed=True, nearer=0.03, color=None)
    brim = str(rng.choice(("none", "peak", "round"), p=(0.4, 0.35, 0.25)))
    if brim != "none":
        _draw_brim(canvas, rng, points[-1], around, brim)


def _draw_brim(canvas: Canvas, rng: np.random.Generator, edge: np.ndarray, around: np.ndarray, kind: str) -> None:
    """Draw the brim at the lower edge (columns, 3) of a hat: all round, or a peak towards the front or the back."""
    turned = np.pi if rng.random() < 0.15 else 0.0
    off = (around - turned + np.pi) % (2 * np.pi) - np.pi
    reach = np.full(len(around), rng.uniform(0.04, 0.11))
    if kind == "peak":
        reach = rng.uniform(0.05, 0.08) * np.sqrt(np.maximum(1 - (off / 1.15) ** 2, 0)) + 1e-4
    outward = edge - SKULL_CENTER
    outward = outward * (1, 0, 1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    t = np.linspace(0, 1, 5)[:, None, None]
    droop = rng.uniform(-0.2, 0.6) * (0.4 + 0.6 * t)
    points = edge + t * reach[:, None] * (outward + droop * np.array((0.0, -1.0, 0.0)))
    _draw_shell(canvas, rng, points, is_closed=True, nearer=0.02, color=random_colors(rng, 1)[0])


def _draw_hood(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a hood or headscarf that leaves the face free."""
    guide = canvas.frame.guide
    around = np.linspace(-np.pi, np.pi, _COLUMNS, endpoint=False)
    up, side, down = np.radians((rng.uniform(15, 42), rng.uniform(40, 62), rng.uniform(45, 62)))
    vertical = np.where(np.abs(around) < np.pi / 2, up, down)
    opening = 1 / np.sqrt((np.cos(around) / vertical) ** 2 + (np.sin(around) / side) ** 2)
    share = np.linspace(0, 1, 14)[:, None]
    angle = opening + share * (0.985 * np.pi - opening)
    x, y, z = np.moveaxis(shell_directions(angle, np.broadcast_to(around, angle.shape)), -1, 0)
    # The same angles about the axis out of the face instead of up.
    directions = np.stack((x, z, y), axis=-1)
    gap = rng.uniform(0.006, 0.02) + rng.uniform(0, 0.02) * share
    folds = 1 + 0.25 * np.sin(rng.integers(5, 13) * around + rng.uniform(0, 6))
    reach = guide.skin_radius(SKULL_CENTER + 0.1 * directions) + gap * folds
    points = SKULL_CENTER + directions * reach[..., None]
    _draw_shell(canvas, rng, points, is_closed=True, nearer=0.02, color=None)


def _draw_headphones(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw headphones: a band over the head and a cup over each ear."""
    frame, guide, px = canvas.frame, canvas.frame.guide, canvas.frame.px_per_metre
    color = np.full(3, rng.uniform(0.02, 0.9)) if rng.random() < 0.6 else random_colors(rng, 1)[0]
    angle = np.linspace(-1.75, 1.75, 19)
    lean = rng.normal(-0.05, 0.12)
    directions = np.stack((np.sin(angle), np.cos(angle), lean * np.ones_like(angle)), axis=-1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reach = guide.skin_radius(SKULL_CENTER + 0.1 * directions) + rng.uniform(0.006, 0.02)
    band = frame.to_pixels(SKULL_CENTER + directions * reach[:, None])
    thick = np.full(len(band), rng.uniform(0.003, 0.01) * px)
    canvas.draw_tubes(*tube_chain(band, thick), color, nearer=0.008, gloss=0.3)
    radius = rng.uniform(0.028, 0.045) * px
    for side in (-1.0, 1.0):
        cup = frame.to_pixels(np.array(((side * 0.083, -0.018, -0.083), (side * 0.092, -0.018, -0.085))))
        outer = color * rng.uniform(0.6, 1.3)
        canvas.draw_tubes(*tube_chain(cup, (radius, radius * 0.9)), np.clip(outer, 0, 1), nearer=0.02, gloss=0.3)
