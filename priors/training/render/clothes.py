"""Shoulders below the neck, bare or in clothes of any neckline."""

from __future__ import annotations

import numpy as np

from priors.pixel_kinds import Kind
from priors.training.render.backgrounds import random_background, random_colors
from priors.training.render.canvas import Canvas
from priors.training.render.headwear import grid_faces

_DROP = np.array((-0.06, -0.04, -0.02, 0.0, 0.015, 0.03, 0.05, 0.08, 0.12, 0.18, 0.32))
"""Rows of the body's surface: distance below the neck's end, metres of wear space."""
_HALF_WIDTH = np.array((0.058, 0.058, 0.060, 0.064, 0.078, 0.105, 0.145, 0.185, 0.203, 0.210, 0.212))
_HALF_DEPTH = np.array((0.062, 0.060, 0.061, 0.066, 0.074, 0.083, 0.094, 0.104, 0.112, 0.120, 0.125))
_COLUMNS = 32
_FIRST_BARE_ROW = 2


def draw_clothes(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw neck base and shoulders, in place; kind BACKGROUND, also where a collar hides the neck."""
    collar = float(rng.uniform(0.003, 0.02)) if rng.random() < 0.35 else 0.0
    verts = _body(canvas, rng, collar)
    first = 0 if collar else _FIRST_BARE_ROW
    rows = len(_DROP) - first
    around = np.linspace(-np.pi, np.pi, _COLUMNS, endpoint=False)
    drop = np.repeat(_DROP[first:], _COLUMNS)
    attributes = np.column_stack((drop, np.tile(np.cos(around), rows), np.tile(np.sin(around), rows)))
    # Bare skin joins the neck from inside: the head's own surface wins where both are.
    nearer = 0.003 if collar else 0.0
    faces = grid_faces(rows, _COLUMNS, is_closed=True)
    drawn = canvas.draw_mesh(verts[first:].reshape(-1, 3), faces, attributes, nearer=nearer)
    if drawn is None:
        return
    pixel_rows, pixel_columns, values = drawn
    turn = np.arctan2(values[:, 2], values[:, 1])
    cloth = random_colors(rng, 1)[0]
    colors = np.tile(cloth, (len(values), 1))
    if rng.random() < 0.4:
        colors = random_background(rng, *canvas.kind.shape)[pixel_rows, pixel_columns]
    is_skin = values[:, 0] < _neckline(turn, rng, collar)
    colors[is_skin] = canvas.skin
    shade = np.clip(0.75 + 6 * np.abs(values[:, :1] - 0.01), 0.75, 1)
    canvas.paint(pixel_rows, pixel_columns, colors * values[:, -3:] * shade, Kind.BACKGROUND)


def _neckline(turn: np.ndarray, rng: np.random.Generator, collar: float) -> np.ndarray:
    """Return how far down the skin is bare at angles (n,) round the body, 0 in front."""
    if collar:
        if rng.random() < 0.5:
            return np.full(len(turn), -1.0)
        # Open in front, as a V.
        return rng.uniform(0.0, 0.1) - 0.15 * np.abs(turn) / rng.uniform(0.15, 0.6)
    shape = int(rng.integers(0, 4))
    if shape == 0:
        return np.full(len(turn), rng.uniform(0.0, 0.02))
    if shape == 1:
        return 0.012 + rng.uniform(0.02, 0.14) * np.maximum(1 - np.abs(turn) / rng.uniform(0.5, 1.0), 0)
    if shape == 2:
        return 0.012 + rng.uniform(0.01, 0.10) * np.sqrt(np.maximum(np.cos(turn), 0))
    return np.full(len(turn), rng.uniform(0.04, 0.35))


def _body(canvas: Canvas, rng: np.random.Generator, collar: float) -> np.ndarray:
    """Return the body's surface in camera space, (rows, columns, 3), metres: ellipses one below the other."""
    frame = canvas.frame
    scale = abs(float(np.linalg.det(frame.cam_from_wear[:3]))) ** (1 / 3)
    base = frame.verts_cam[frame.guide.neck_vertices].mean(axis=0)
    forward = frame.cam_from_wear[2]
    yaw = np.arctan2(forward[0], -forward[2]) * rng.uniform(0, 0.8) + rng.normal(0, 0.15)
    roll, lean = rng.normal(0, 0.12), rng.normal(0, 0.1)
    down = np.array((np.sin(roll), np.cos(roll), np.sin(lean)))
    down /= np.linalg.norm(down)
    front = np.array((np.sin(yaw), 0.0, -np.cos(yaw)))
    front -= down * (front @ down)
    front /= np.linalg.norm(front)
    left = np.cross(front, down)
    around = np.linspace(-np.pi, np.pi, _COLUMNS, endpoint=False)
    width = _HALF_WIDTH * rng.uniform(0.95, 1.05)
    width = width + (rng.uniform(0.85, 1.25) - 1) * np.clip(_DROP / 0.05, 0, 1) * width
    grow = (
        np.where(_DROP < 0.01, collar, 0.004) if collar else np.interp(_DROP, (-0.02, 0.0, 0.015), (-0.02, -0.012, 0))
    )
    height = rng.uniform(0.1, 0.7)
    slope = np.interp(np.arange(len(_DROP)), (0, 3, len(_DROP)), (1, rng.uniform(0.7, 1.3), 1))
    across = (width + grow)[:, None] * np.sin(around)
    ahead = (_HALF_DEPTH + grow)[:, None] * np.cos(around) - 0.015 * np.clip(_DROP / 0.05, 0, 1)[:, None]
    fall = (_DROP * np.where(_DROP > 0, slope, height))[:, None] * np.ones_like(around)
    points = across[..., None] * left + ahead[..., None] * front + fall[..., None] * down
    return base + scale * points
