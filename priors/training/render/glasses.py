"""Glasses: frames of many shapes on the nose, temples to the ears, clear, tinted or dark lenses with reflections."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from priors.pixel_kinds import Kind
from priors.training.render.backgrounds import random_colors
from priors.training.render.canvas import Canvas
from priors.training.render.head_frame import BRIDGE_LANDMARKS
from priors.training.render.strokes import tube_chain

_RIM_POINTS = 28
_SUBPIXEL = 3
_OPAQUE = 0.55
"""From this share of tint on, what lies behind a lens cannot be told any more."""


@dataclass(frozen=True)
class GlassesStyle:
    """Describe a pair of glasses; lengths in metres of wear space."""

    half_width: float
    """Half of a lens' width."""
    half_height: float
    """Half of a lens' height."""
    power: float
    """Exponent of the lens' outline: 2 round, more squarer."""
    taper: float
    """How much narrower the lens is at its bottom."""
    spacing: float
    """Distance of a lens' centre from the middle."""
    drop: float
    """How far the centre lies below the eye."""
    forward: float
    """How far before the eyeballs' centres the lenses lie."""
    wrap: float
    """How much the lenses turn to the sides, radians."""
    rim: float
    """Thickness of the rim; 0 for none."""
    color: np.ndarray
    """Colour of the frame, sRGB (3,)."""
    tint: np.ndarray
    """Colour of the lens, sRGB (3,)."""
    opacity: float
    """Share of the lens' own colour."""
    reflection: float
    """Strength of the reflection on the lenses."""


def random_style(rng: np.random.Generator) -> GlassesStyle:
    """Return a random pair of glasses; about a third are sunglasses."""
    is_dark = rng.random() < 0.33
    half_width = float(rng.uniform(0.020, 0.031))
    rim = float(rng.choice((0.0008, 0.0016, 0.0026), p=(0.4, 0.35, 0.25)) * rng.uniform(0.8, 1.3))
    color = random_colors(rng, 1)[0] if rng.random() < 0.45 else np.full(3, rng.uniform(0.02, 0.25))
    return GlassesStyle(
        half_width=half_width,
        half_height=float(half_width * rng.uniform(0.6, 1.0)),
        power=float(rng.uniform(2.0, 5.0)),
        taper=float(rng.uniform(-0.05, 0.25)),
        spacing=half_width + float(rng.uniform(0.006, 0.011)),
        drop=float(rng.uniform(-0.001, 0.009) + (rng.random() < 0.08) * 0.012),
        forward=float(rng.uniform(0.024, 0.034)),
        wrap=float(rng.uniform(0.05, 0.30)),
        rim=0.0 if rng.random() < 0.07 else rim,
        color=np.asarray(color, np.float32),
        tint=np.asarray(rng.uniform(0.0, 0.12, 3) if is_dark else random_colors(rng, 1)[0], np.float32),
        opacity=float(rng.uniform(0.45, 0.99) if is_dark else rng.choice((0.0, rng.uniform(0, 0.2)))),
        reflection=float(rng.uniform(0, 1) ** 2 * 0.7),
    )


def draw_glasses(canvas: Canvas, rng: np.random.Generator, style: GlassesStyle | None = None) -> GlassesStyle:
    """Draw glasses on a head, in place; frames and dark lenses are kind COVER, clear lenses change only the picture."""
    style = random_style(rng) if style is None else style
    px = canvas.frame.px_per_metre
    color = style.color
    reflection_seed = rng.random(4)
    # The lens that is further away first, so that the nearer one hides it.
    sides = sorted((-1.0, 1.0), key=lambda side: -float(_to_pixels(canvas, _rim(style, side)).mean(axis=0)[2]))
    temple_px = max(0.5 * px * max(style.rim * 1.3, 0.0012), 0.35)
    for side in sides:
        _draw_temple(canvas, style, side, temple_px, color)
    for side in sides:
        rim_px = _to_pixels(canvas, _rim(style, side))
        _draw_lens(canvas, style, rim_px, reflection_seed)
        if style.rim > 0:
            radius = max(0.5 * px * style.rim, 0.35)
            tubes = tube_chain(np.concatenate((rim_px, rim_px[:1])), np.full(_RIM_POINTS + 1, radius))
            canvas.draw_tubes(*tubes, color, nearer=0.004, gloss=0.5)
    inner = style.spacing - style.half_width
    t = np.linspace(-1, 1, 7)
    bridge = np.stack((t * inner, -style.drop + 0.35 * style.half_height - 0.003 * t * t, 0 * t), axis=-1)
    bridge[:, 2] = style.forward + 0.004 * (1 - t * t)
    radius = max(0.5 * px * max(style.rim, 0.001), 0.35)
    canvas.draw_tubes(*tube_chain(_to_pixels(canvas, bridge), np.full(7, radius)), color, nearer=0.003, gloss=0.5)
    return style


def _to_pixels(canvas: Canvas, points: np.ndarray) -> np.ndarray:
    """Return pixels and depth, float32 (..., 3), of points of wear space, moved to where this nose really is."""
    pixels = canvas.frame.to_pixels(points)
    bridge = canvas.frame.guide.bridge
    if bridge is not None:
        there = canvas.landmarks_px[list(BRIDGE_LANDMARKS)].mean(axis=0)
        pixels[..., :2] += there - canvas.frame.to_pixels(bridge)[:, :2].mean(axis=0)
    return pixels


def _rim(style: GlassesStyle, side: float) -> np.ndarray:
    """Return the outline of one lens, (_RIM_POINTS, 3), wear space; ``side`` is +1 on the subject's left."""
    angle = np.linspace(0, 2 * np.pi, _RIM_POINTS, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    x = np.sign(cosine) * np.abs(cosine) ** (2 / style.power)
    y = np.sign(sine) * np.abs(sine) ** (2 / style.power)
    x = style.half_width * x * (1 + style.taper * 0.5 * (y - 1))
    outward = style.spacing - 0.5 * style.taper * style.half_width + x
    bend = style.wrap * np.maximum(outward - 0.012, 0)
    return np.stack((side * outward, style.half_height * y - style.drop, style.forward - bend), axis=-1)


def _draw_temple(canvas: Canvas, style: GlassesStyle, side: float, radius_px: float, color: np.ndarray) -> None:
    """Draw the bar from a lens' outer corner over the ear."""
    outer = _rim(style, side)[0]
    hinge = outer + (0.0, 0.55 * style.half_height, 0.0)
    ear = np.array((side * 0.079, 0.012, -0.075))
    widest = np.array((side * max(abs(outer[0]) + 0.006, 0.074), hinge[1], -0.01))
    tip = np.array((side * 0.077, -0.012, -0.095))
    points = np.stack((outer + (0.0, 0.2 * style.half_height, 0.0), hinge, widest, ear, tip))
    canvas.draw_tubes(*tube_chain(_to_pixels(canvas, points), np.full(5, radius_px)), color, nearer=0.004, gloss=0.4)


def _draw_lens(canvas: Canvas, style: GlassesStyle, rim_px: np.ndarray, seed: np.ndarray) -> None:
    """Tint what lies behind a lens and lay a reflection over it."""
    depth = float(rim_px[:, 2].mean())
    low = np.floor(rim_px[:, :2].min(axis=0)).astype(int) - 1
    high = np.ceil(rim_px[:, :2].max(axis=0)).astype(int) + 2
    height, width = canvas.kind.shape
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, (width, height))
    if right <= left or bottom <= top:
        return
    box = np.s_[top:bottom, left:right]
    mask = np.zeros((bottom - top, right - left), np.float32)
    corners = (rim_px[:, :2] - (left + 0.5, top + 0.5)) * 2**_SUBPIXEL
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], (1.0,), cv2.LINE_8, _SUBPIXEL)
    mask *= canvas.depth[box] > depth - 0.012
    rows = np.arange(bottom - top, dtype=np.float32)[:, None] / max(bottom - top, 1)
    columns = np.arange(right - left, dtype=np.float32)[None] / max(right - left, 1)
    # Sunglasses are often darker above.
    opacity = np.clip(style.opacity * (1.1 - 0.5 * rows * seed[0]), 0, 1) * mask
    band = np.abs(columns - rows * (seed[1] - 0.5) - seed[2]) / (0.1 + 0.4 * seed[3])
    reflection = style.reflection * np.clip(1 - band, 0, 1) * (1 - 0.6 * rows) * mask
    picture = canvas.image[box]
    picture += opacity[..., None] * (style.tint - picture)
    picture += reflection[..., None] * (np.float32(0.95) - picture)
    dark = np.maximum(opacity, reflection) > _OPAQUE
    canvas.kind[box][dark] = Kind.COVER
    canvas.depth[box][dark] = depth
