"""Paint eyeballs: white, iris and pupil of usual build, in the colours that the frames show.

Only a slit of an eyeball is ever seen, under lids and lashes, with a highlight on it, and an iris is a dozen pixels
wide in most clips. Colours can be taken from there, a picture of the eyeball cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracker.texture.texels import Part, TexelTable

IRIS_METRES, PUPIL_METRES = 0.0059, 0.0021
"""Radii of the iris and of the pupil."""
_WHITE = np.array((0.66, 0.62, 0.59))
"""Usual linear albedo of the white of the eye."""
_IRIS = np.array((0.075, 0.047, 0.030))
"""Usual linear albedo of an iris, brown."""
_VEINS = np.array((0.52, 0.22, 0.18))
"""Towards the corners and the back of the eyeball."""
_LIGHTEST_IRIS = 0.5
"""Luminance of the lightest iris relative to the white: what is lighter is skin that is taken for it."""
_OWN_HUE = (0.3, 0.42)
"""Luminance of an iris relative to the white up to which it is brown, and from which it has the hue that was seen. Dark
irises are brown; what else they show is a reflection of the sky or a screen."""
_MIN_TEXELS = 40
"""Texels that have to be seen for a colour to be taken from them, for a texture of 1024 texels a side."""


@dataclass(frozen=True, eq=False)
class EyeTexels:
    """Say where texels of one eyeball lie as seen along the gaze at rest."""

    index: np.ndarray
    """Which of the N texels they are, int64 (M,)."""
    radius: np.ndarray
    """Distance from the pupil's axis, float64 (M,), metres; texels of the back have that of the rim and more."""
    angle: np.ndarray
    """Direction from the pupil's centre, float64 (M,), radians."""


def eye_texels(table: TexelTable, template: np.ndarray, part: Part) -> EyeTexels:
    """Find the texels of an eyeball, given the head at rest (V, 3), metres."""
    index = np.flatnonzero(table.part == part)
    if len(index) == 0:
        return EyeTexels(index, np.zeros(0), np.zeros(0))
    ball = template[np.unique(table.vertices[index])]
    centre = (ball.min(axis=0) + ball.max(axis=0)) / 2
    place = np.einsum("nkc,nk->nc", template[table.vertices[index]], table.weights[index]) - centre
    radius = np.hypot(place[:, 0], place[:, 1])
    radius = np.where(place[:, 2] > 0, radius, 2 * radius.max(initial=0.0) - radius)
    return EyeTexels(index, radius, np.arctan2(place[:, 1], place[:, 0]))


def paint_eyes(
    table: TexelTable, template: np.ndarray, seen: np.ndarray, confidence: np.ndarray, skin_light: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the texels of both eyeballs, int64 (M,), and their linear albedo, float64 (M, 3).

    Args:
        table: the head's texels.
        template: vertices of the head at rest (V, 3), metres.
        seen: linear albedo that was seen (N, 3).
        confidence: how well (N,).
        skin_light: luminance of the skin, linear; the white of the eye is somewhat brighter.
    """
    balls = [eye_texels(table, template, part) for part in (Part.LEFT_EYE, Part.RIGHT_EYE)]
    index = np.concatenate([ball.index for ball in balls])
    radius = np.concatenate([ball.radius for ball in balls])
    angle = np.concatenate([ball.angle for ball in balls])
    if len(index) == 0:
        return index, np.zeros((0, 3))
    white, iris = _colors(seen[index], confidence[index], radius, table.size_px, skin_light)
    return index, _paint(radius, angle, white, iris)


def luminance(linear: np.ndarray) -> np.ndarray:
    """Return the luminance of linear sRGB colours (..., 3)."""
    return linear @ np.array((0.2126, 0.7152, 0.0722))


def _colors(
    seen: np.ndarray, confidence: np.ndarray, radius: np.ndarray, size_px: int, skin_light: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return linear albedo of the white and of the iris."""
    enough = _MIN_TEXELS * (size_px / 1024) ** 2
    level = min(1.35 * skin_light, 0.7)
    usual = _WHITE * (level / luminance(_WHITE))
    is_seen = confidence > 0
    is_white = is_seen & (radius > 1.2 * IRIS_METRES) & (radius < 1.7 * IRIS_METRES)
    white = usual
    if is_white.sum() >= enough:
        brightest = seen[is_white][luminance(seen[is_white]) >= np.percentile(luminance(seen[is_white]), 60)]
        tint = np.median(brightest, axis=0)
        level = min(np.clip(1.15 * float(luminance(tint)), 0.9 * skin_light, 1.7 * skin_light), 0.7)
        # Lids and lashes darken what is seen of the white, skin that is taken for it reddens it.
        white = level * (0.5 * usual / luminance(usual) + 0.5 * tint / max(float(luminance(tint)), 1e-3))
    is_iris = is_seen & (radius > 1.15 * PUPIL_METRES) & (radius < 0.85 * IRIS_METRES)
    iris = _IRIS * (level / luminance(_WHITE))
    if is_iris.sum() >= enough:
        # The pupil, and the shadow of the lid, are no part of its colour.
        bright = seen[is_iris][luminance(seen[is_iris]) >= np.percentile(luminance(seen[is_iris]), 40)]
        found = np.median(bright, axis=0)
        light = float(luminance(found))
        low, high = _OWN_HUE
        own = np.clip((light / level - low) / (high - low), 0, 1)
        hue = own * found / max(light, 1e-3) + (1 - own) * _IRIS / luminance(_IRIS)
        iris = hue * np.clip(light, 0.012, _LIGHTEST_IRIS * level)
    return white, iris


def _paint(radius: np.ndarray, angle: np.ndarray, white: np.ndarray, iris: np.ndarray) -> np.ndarray:
    """Return linear colours (M, 3) of points of an eyeball."""

    def step(edge: float, softness: float) -> np.ndarray:
        share = np.clip((radius - edge) / softness + 0.5, 0, 1)
        return (share * share * (3 - 2 * share))[:, None]

    streaks = sum(np.sin(turns * angle + phase) for turns, phase in ((17, 0.3), (29, 1.7), (43, 4.1), (61, 2.6)))
    across = np.clip((radius - PUPIL_METRES) / (IRIS_METRES - PUPIL_METRES), 0, 1)
    texture = 1 + 0.10 * streaks * np.sin(np.pi * across) + 0.25 * np.exp(-(((across - 0.25) / 0.15) ** 2))
    ring = 1 - 0.55 * np.exp(-(((across - 0.97) / 0.13) ** 2))
    color = iris * (texture * ring)[:, None]
    color = color + (0.004 - color) * (1 - step(PUPIL_METRES, 0.0006))
    color = color + (white - color) * step(IRIS_METRES, 0.0009)
    color = color + (white * _VEINS / _WHITE - color) * 0.6 * step(0.0115, 0.006)
    # Under the lids it is dark: what shows of it through a lid that does not quite close should not shine.
    lid = np.clip((np.abs(radius * np.sin(angle)) - 0.0035) / 0.004, 0, 1)
    return color * (1 - 0.55 * lid * lid * (3 - 2 * lid))[:, None]
