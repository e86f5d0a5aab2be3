"""Things held or standing before a face: telephones, cups, microphones, and whatever is cut in from outside."""

from __future__ import annotations

import cv2
import numpy as np

from priors.pixel_kinds import Kind
from priors.training.render.backgrounds import random_background, random_colors
from priors.training.render.canvas import Canvas
from priors.training.render.hands import draw_hand
from priors.training.render.strokes import tube_chain

_SHIFT = 3


def draw_thing(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw one thing in front of the head, in place; kind COVER."""
    makers = (_draw_box, _draw_cup, _draw_microphone, _draw_blob, _draw_edge)
    makers[int(rng.choice(len(makers), p=(0.25, 0.15, 0.15, 0.25, 0.2)))](canvas, rng)


def draw_mask(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a cloth mask over mouth and nose with its straps, in place; kind COVER."""
    wear = canvas.place
    top = rng.uniform(-0.032, -0.008)
    sag = rng.uniform(0.2, 0.5)
    x, y, z = np.abs(wear[..., 0]), wear[..., 1], wear[..., 2]
    back = rng.uniform(-0.065, -0.045)
    covered = (y < top - sag * np.maximum(x - 0.02, 0)) & (z > back) & (y > -0.145) & (y > -0.128 - 0.5 * (z - 0.03))
    rows, columns = np.nonzero(covered)
    if len(rows) < 20:
        return
    color = random_colors(rng, 1)[0] if rng.random() < 0.5 else np.array((0.85, 0.9, 0.93)) * rng.uniform(0.7, 1.05)
    brightness = canvas.image[rows, columns].mean(axis=1) / max(float(canvas.skin.mean()), 0.05)
    pleats = 1 + 0.08 * np.sin(wear[rows, columns, 1] * rng.uniform(200, 700))
    soft = np.clip(0.25 + 0.75 * brightness, 0.2, 1.3)
    canvas.paint(rows, columns, color * (soft * pleats)[:, None], Kind.COVER)
    px = canvas.frame.px_per_metre
    for side in (-1.0, 1.0):
        strap = np.array(((side * 0.06, top - 0.02, -0.02), (side * 0.078, -0.01, -0.07)))
        tubes = tube_chain(canvas.frame.to_pixels(strap), np.full(2, max(0.0015 * px, 0.4)))
        canvas.draw_tubes(*tubes, color * 0.95, nearer=0.006)


def _spot(canvas: Canvas, rng: np.random.Generator, spread: float = 0.05) -> np.ndarray:
    """Return a pixel (2,) about the lower half of the face."""
    x, y = rng.normal(0, spread), rng.normal(-0.05, spread)
    return canvas.frame.to_pixels(np.array((x, y, 0.04)))[:2].astype(np.float64)


def _fill(canvas: Canvas, rng: np.random.Generator, corners: np.ndarray, texture: np.ndarray | None = None) -> None:
    """Fill a polygon, (N, 2) pixels, with a texture (H, W, 3), shaded from one side to the other."""
    height, width = canvas.kind.shape
    mask = np.zeros((height, width), np.float32)
    cv2.fillPoly(mask, [np.round((corners - 0.5) * 2**_SHIFT).astype(np.int32)], (1.0,), cv2.LINE_8, _SHIFT)
    mask = cv2.GaussianBlur(mask, (3, 3), 0.6)
    rows, columns = np.nonzero(mask > 0.02)
    if len(rows) == 0:
        return
    texture = random_background(rng, height, width) if texture is None else texture
    angle = rng.uniform(0, 2 * np.pi)
    position = (columns * np.cos(angle) + rows * np.sin(angle)).astype(np.float32)
    span = max(float(np.ptp(position)), 1.0)
    shade = 1 + rng.uniform(0, 0.5) * ((position - position.min()) / span - 0.5)
    canvas.paint(rows, columns, texture[rows, columns] * shade[:, None], Kind.COVER, mask[rows, columns])


def _plain(canvas: Canvas, color: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.asarray(color, np.float32), canvas.image.shape)


def _rounded_box(center: np.ndarray, half: np.ndarray, angle: float, corner: float) -> np.ndarray:
    """Return the outline of a box with round corners, (N, 2) pixels."""
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False) + np.pi / 32
    inner = np.maximum(half - corner, 0)
    outline = np.stack((np.cos(turn), np.sin(turn)), axis=-1)
    outline = np.sign(outline) * inner + outline * corner
    cosine, sine = np.cos(angle), np.sin(angle)
    return center + outline @ np.array(((cosine, sine), (-sine, cosine)))


def _draw_box(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a telephone, book or tablet, perhaps with the hand that holds it."""
    px = canvas.frame.px_per_metre
    half = np.array((rng.uniform(0.03, 0.07), rng.uniform(0.06, 0.12))) * px
    center, angle = _spot(canvas, rng, 0.08), rng.normal(0, 0.4)
    corner = rng.uniform(0.05, 0.3) * half[0]
    _fill(canvas, rng, _rounded_box(center, half, angle, corner), _plain(canvas, random_colors(rng, 1)[0]))
    if rng.random() < 0.6:
        _fill(canvas, rng, _rounded_box(center, half * 0.9, angle, corner * 0.8))
    if rng.random() < 0.5:
        draw_hand(canvas, rng)


def _draw_cup(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a cup or glass at the mouth."""
    px = canvas.frame.px_per_metre
    center = canvas.frame.to_pixels(np.array((rng.normal(0, 0.01), -0.085, 0.05)))[:2].astype(np.float64)
    angle, top, bottom = rng.normal(0, 0.3), rng.uniform(0.03, 0.045) * px, rng.uniform(0.022, 0.04) * px
    length = rng.uniform(0.07, 0.12) * px
    local = np.array(((-top, 0), (top, 0), (bottom, length), (-bottom, length)))
    cosine, sine = np.cos(angle), np.sin(angle)
    corners = center + local @ np.array(((cosine, sine), (-sine, cosine)))
    color = random_colors(rng, 1)[0]
    middle = np.stack((corners[:2].mean(axis=0), corners[2:].mean(axis=0)))
    points = np.column_stack((middle, np.full(2, canvas.frame.cam_from_wear[3, 2] - 0.15)))
    canvas.draw_tubes(*tube_chain(points, (top, bottom)), color, nearer=np.inf, gloss=rng.uniform(0, 0.5))
    if rng.random() < 0.5:
        _fill(canvas, rng, corners * 0.6 + corners[[3, 2, 1, 0]] * 0.4)
    if rng.random() < 0.6:
        draw_hand(canvas, rng)


def _draw_microphone(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a microphone on its handle or stand."""
    px = canvas.frame.px_per_metre
    head = canvas.frame.to_pixels(np.array((rng.normal(0, 0.03), rng.uniform(-0.13, -0.08), 0.07)))[:2]
    angle, radius = rng.normal(0, 0.5), rng.uniform(0.018, 0.035) * px
    handle = head + np.array((np.sin(angle), np.cos(angle))) * rng.uniform(0.12, 0.3) * px
    depth = canvas.frame.cam_from_wear[3, 2] - 0.15
    points = np.column_stack((np.stack((handle, head)), np.full(2, depth)))
    grey = rng.uniform(0.03, 0.5)
    canvas.draw_tubes(*tube_chain(points, (0.5 * radius, 0.6 * radius)), np.full(3, grey), nearer=np.inf, gloss=0.4)
    ball = points[1:] + ((0.0, 0.0, 0.0),)
    canvas.draw_tubes(ball, ball, np.full((1, 2), radius), np.full(3, rng.uniform(0.05, 0.6)), nearer=np.inf)


def _draw_blob(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw something of no particular shape with a texture: food, a toy, a plant, a pet."""
    px = canvas.frame.px_per_metre
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    outline = np.ones_like(turn)
    for order in range(2, 6):
        outline += rng.normal(0, 0.35 / order) * np.cos(order * turn + rng.uniform(0, 2 * np.pi))
    size = rng.uniform(0.015, 0.07) * px * np.maximum(outline, 0.1)
    shape = np.stack((np.cos(turn), np.sin(turn)), axis=-1) * size[:, None] * rng.uniform(0.5, 1.5, 2)
    _fill(canvas, rng, _spot(canvas, rng, 0.07) + shape)


def _draw_edge(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw something large that reaches in from one side of the picture."""
    height, width = canvas.kind.shape
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array((np.cos(angle), np.sin(angle)))
    across = np.array((-along[1], along[0]))
    middle, half = np.array((width, height)) / 2, 0.5 * max(height, width)
    near = middle + along * half * rng.uniform(0.25, 0.8)
    offsets = np.linspace(-2, 2, 24)
    wobble = np.cumsum(rng.normal(0, 0.05, 24)) * half * rng.choice((0.0, 1.0))
    line = near + across * offsets[:, None] * half + along * wobble[:, None]
    _fill(canvas, rng, np.concatenate((line, line[::-1] + along * 3 * half)))
