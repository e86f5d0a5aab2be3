"""Beards, moustaches and stubble, drawn where the template says that they grow."""

from __future__ import annotations

import numpy as np

from priors.pixel_kinds import Kind
from priors.training.render.canvas import Canvas
from priors.training.render.hair import random_color
from priors.training.render.noise_tiles import clouds, grain

_MOUTH = (-0.073, 0.027, 0.0125)
"""Height of the lips' middle, their half-width and half-height, wear space, with a margin."""
_POINTS = 5


def draw_beard(canvas: Canvas, rng: np.random.Generator, color: np.ndarray | None = None) -> None:
    """Draw stubble, a moustache, a chin beard or a full beard, in place; kind HAIR where it is dense.

    Args:
        canvas: the picture.
        rng: random numbers.
        color: colour, sRGB (3,); random if not given.
    """
    color = random_color(rng) if color is None else np.clip(color * rng.uniform(0.7, 1.2), 0.01, 0.95)
    parts = str(rng.choice(("full", "full", "moustache", "goatee", "stubble", "stubble")))
    density = float(rng.uniform(0.15, 0.5) if parts == "stubble" else rng.uniform(0.6, 1.0))
    wear = canvas.place
    rows, columns = np.nonzero((wear[..., 1] < -0.02) & (wear[..., 2] > -0.075))
    if len(rows) == 0:
        return
    points = wear[rows, columns]
    noise = clouds(rng, *canvas.size)[rows, columns, 0]
    where = _growth(points + 0.003 * noise[:, None], rng, parts)
    speckle = grain(rng, *canvas.size, 0.6)[rows, columns, 0]
    alpha = where * density * np.clip(0.85 + 0.25 * speckle * (1.3 - density), 0, 1)
    brightness = canvas.image[rows, columns].mean(axis=1) / max(float(canvas.skin.mean()), 0.05)
    colors = color * (brightness * np.clip(0.95 + 0.2 * speckle, 0.4, 1.5))[:, None]
    canvas.paint(rows, columns, colors, Kind.HAIR, alpha)
    if parts != "stubble" and rng.random() < 0.6:
        _draw_locks(canvas, rng, color, (rows, columns), where)


def _growth(points: np.ndarray, rng: np.random.Generator, parts: str) -> np.ndarray:
    """Return how densely a beard grows at points (n, 3) of wear space, in [0, 1]."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    mouth_y, mouth_x, mouth_half = _MOUTH
    lips = 1 - np.sqrt((x / mouth_x) ** 2 + ((y - mouth_y) / mouth_half) ** 2)
    off_lips = np.clip(-lips / 0.15, 0, 1)
    # Cheek line: from the corner of the mouth up to the ear.
    drop = rng.uniform(-0.012, 0.015)
    line = np.interp(x, (0.0, 0.03, 0.05, 0.068, 0.08), (-0.055, -0.055, -0.062, -0.040, -0.02)) - drop
    throat = np.interp(z, (-0.1, -0.06, 0.0, 0.03), (-0.09, -0.10, -0.125, -0.14)) + rng.uniform(-0.01, 0.012)
    soft = rng.uniform(0.003, 0.012)
    jaw = np.clip((line - y) / soft, 0, 1) * np.clip((y - throat) / soft, 0, 1)
    upper = np.clip((mouth_y + 0.002 - y) / -0.003, 0, 1) * np.clip((-0.0485 - y) / 0.004, 0, 1)
    width = rng.uniform(0.022, 0.034)
    moustache = upper * np.clip((width - x) / 0.005, 0, 1)
    chin = np.clip((mouth_y - 0.006 - y) / 0.004, 0, 1) * np.clip((rng.uniform(0.012, 0.03) - x) / 0.005, 0, 1)
    chin *= np.clip((y - throat) / soft, 0, 1)
    if parts == "moustache":
        where = moustache
    elif parts == "goatee":
        where = np.maximum(chin, moustache if rng.random() < 0.6 else 0)
    else:
        where = np.maximum(jaw, moustache if rng.random() < 0.92 else 0)
    return where * off_lips


def _draw_locks(
    canvas: Canvas,
    rng: np.random.Generator,
    color: np.ndarray,
    pixels: tuple[np.ndarray, np.ndarray],
    where: np.ndarray,
) -> None:
    """Draw short locks that start at pixels where the beard is dense and hang down."""
    dense = np.flatnonzero(where > 0.6)
    if len(dense) < 20:
        return
    count = int(rng.integers(60, 160))
    chosen = dense[rng.integers(0, len(dense), count)]
    rows, columns = pixels[0][chosen], pixels[1][chosen]
    place = canvas.place[rows, columns]
    length = rng.uniform(0.004, 0.05) * rng.uniform(0.6, 1.2, count) * np.clip((-place[:, 1] - 0.03) / 0.07, 0.2, 1)
    px = canvas.frame.px_per_metre
    t = np.linspace(0, 1, _POINTS)
    # Away from the middle above the mouth, downwards elsewhere.
    aside = np.where(place[:, 1] > -0.066, np.sign(place[:, 0]) * 0.8, 0) + rng.normal(0, 0.25, count)
    right = canvas.frame.cam_from_wear[0, :2]
    right = right / (np.linalg.norm(right) + 1e-9)
    steps = (np.array((0.0, 1.0)) + aside[:, None] * right) * (length * px)[:, None]
    points = np.empty((count, _POINTS, 3), np.float32)
    points[..., 0] = columns[:, None] + 0.5 + steps[:, :1] * t
    points[..., 1] = rows[:, None] + 0.5 + steps[:, 1:] * t
    points[..., 2] = canvas.head_depth[rows, columns][:, None] - 0.006
    half = np.full((count, _POINTS), 0.5 * px * rng.uniform(0.0015, 0.004)) * np.clip(1.3 - t, 0.4, 1)
    brightness = canvas.image[rows, columns].mean(axis=1) / max(float(color.mean()), 0.03)
    shade = np.clip(brightness, 0.5, 1.8)[:, None] * rng.uniform(0.75, 1.25, (count, 1)) * np.ones(_POINTS)
    canvas.draw_locks(points, half, np.tile(color, (count, 1)), shade, rng.random(count), nearer=0.05)
