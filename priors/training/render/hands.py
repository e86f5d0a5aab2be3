"""Hands before a face: palm, fingers and thumb of shaded tubes, and the forearm that they come on."""

from __future__ import annotations

import numpy as np

from priors.training.render.canvas import Canvas
from priors.training.render.strokes import tube_chain

_FINGER_LENGTHS = (0.62, 0.78, 0.85, 0.78, 0.62)
"""Thumb to little finger, in units of the palm's length."""
_BASES = ((-0.42, 0.30), (-0.36, 0.95), (-0.12, 1.02), (0.13, 1.0), (0.36, 0.9))
"""Where fingers start: across and along the palm, in units of its length, wrist at (0, 0)."""
_NEAR = 0.05


def draw_hand(canvas: Canvas, rng: np.random.Generator, color: np.ndarray | None = None) -> None:
    """Draw a hand that touches or hides part of the face, in place; kind COVER.

    Args:
        canvas: the picture.
        rng: random numbers.
        color: skin, sRGB (3,); about the subject's if not given, or now and then someone else's, or a glove.
    """
    if color is None:
        color = canvas.skin * np.exp(rng.normal(0, 0.08)) * np.exp(rng.normal(0, 0.03, 3))
        if rng.random() < 0.15:
            color = rng.uniform(0.05, 0.9, 3)
    px = canvas.frame.px_per_metre
    size = float(rng.uniform(0.085, 0.115)) * px
    target = _target(canvas, rng)
    # The forearm comes from below or from the side.
    side = float(rng.choice((-1.0, 1.0)))
    angle = side * abs(rng.normal(0.5, 0.6))
    along = np.array((np.sin(angle), -np.cos(angle)))
    across = np.array((-along[1], along[0])) * float(rng.choice((-1.0, 1.0)))
    reach = rng.uniform(0.3, 1.7)
    wrist = target - along * size * reach
    curl = float(rng.choice((rng.uniform(0, 0.25), rng.uniform(0.3, 0.9))))
    spread = float(rng.uniform(0.0, 0.35))
    dark = np.asarray(color) * rng.uniform(0.85, 1.0)
    _draw_arm(canvas, rng, wrist, along, size, dark)
    _draw_palm(canvas, wrist, along, across, size, np.asarray(color))
    for finger in rng.permutation(5):
        _draw_finger(canvas, rng, int(finger), (wrist, along, across, size), curl, spread, np.asarray(color))


def _target(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Return a pixel (2,) of the face, or one near it, that the hand is at."""
    spot = canvas.landmarks_px[int(rng.integers(0, len(canvas.landmarks_px)))]
    return spot.astype(np.float64) + rng.normal(0, 0.02, 2) * canvas.frame.px_per_metre


def _points(spots: np.ndarray, depth: float) -> np.ndarray:
    return np.column_stack((spots, np.full(len(spots), depth)))


def _depth(canvas: Canvas) -> float:
    return float(canvas.frame.cam_from_wear[3, 2]) - 3 * _NEAR


def _draw_arm(
    canvas: Canvas, rng: np.random.Generator, wrist: np.ndarray, along: np.ndarray, size: float, color: np.ndarray
) -> None:
    """Draw the forearm, bare or in a sleeve."""
    elbow = wrist - along * size * 3
    tubes = tube_chain(
        _points(np.stack((elbow, wrist + along * 0.1 * size)), _depth(canvas)), [0.5 * size, 0.28 * size]
    )
    canvas.draw_tubes(*tubes, color, nearer=np.inf, gloss=0.03)
    if rng.random() < 0.5:
        start = wrist - along * size * rng.uniform(0.1, 0.8)
        tubes = tube_chain(_points(np.stack((elbow, start)), _depth(canvas)), [0.7 * size, 0.42 * size])
        canvas.draw_tubes(*tubes, rng.uniform(0.05, 0.9, 3), nearer=np.inf, gloss=0.0)


def _draw_palm(
    canvas: Canvas, wrist: np.ndarray, along: np.ndarray, across: np.ndarray, size: float, color: np.ndarray
) -> None:
    """Draw the palm as tubes from the wrist to the bases of the fingers."""
    depth = _depth(canvas)
    thumb = np.stack((wrist - across * 0.1 * size, wrist + (-0.36 * across + 0.42 * along) * size))
    canvas.draw_tubes(*tube_chain(_points(thumb, depth), [0.25 * size, 0.17 * size]), color, nearer=np.inf, gloss=0.04)
    spots = np.stack((wrist, wrist + 0.3 * along * size, wrist + 0.72 * along * size))
    tubes = tube_chain(_points(spots, depth), [0.28 * size, 0.38 * size, 0.45 * size])
    canvas.draw_tubes(*tubes, color, nearer=np.inf, gloss=0.04)


def _draw_finger(
    canvas: Canvas,
    rng: np.random.Generator,
    finger: int,
    hand: tuple[np.ndarray, np.ndarray, np.ndarray, float],
    curl: float,
    spread: float,
    color: np.ndarray,
) -> None:
    """Draw one finger of three joints; curled fingers are shortened by perspective and bend aside."""
    wrist, along, across, size = hand
    x, y = _BASES[finger]
    base = wrist + (across * x + along * y) * size
    turn = x * (0.3 + 2 * spread) if finger else -0.7 - 0.5 * spread
    bend = curl * rng.uniform(0.7, 1.3)
    spots, radii = [base], [0.115 * size]
    length = _FINGER_LENGTHS[finger] * size * (1 - 0.5 * bend)
    for joint, share in enumerate((0.45, 0.32, 0.23)):
        turn += 0.25 * bend * (1 if finger else -1) * np.sign(rng.normal() + 1e-9)
        direction = along * np.cos(turn) + across * np.sin(turn)
        spots.append(spots[-1] + direction * length * share)
        radii.append((0.105, 0.095, 0.075)[joint] * size)
    points = _points(np.stack(spots), _depth(canvas))
    shadow = tube_chain(points, np.array(radii) * 1.1)
    canvas.draw_tubes(*shadow, color * 0.72, nearer=np.inf, gloss=0.0)
    canvas.draw_tubes(*tube_chain(points, radii), color, nearer=np.inf, gloss=0.06)
    if rng.random() < 0.5:
        nail = tube_chain(points[-2:] * 0.15 + points[-1:] * 0.85, np.full(2, 0.045 * size))
        canvas.draw_tubes(*nail, np.clip(color * (1.1, 1.0, 1.0) + 0.06, 0, 1), nearer=np.inf, gloss=0.3)
