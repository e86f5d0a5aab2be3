"""What a camera and a file format do to a picture: blur, noise, colour cast, tone curve, small sizes, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np

from priors.training.render.noise_tiles import grain

_CURVE_STEPS = 2048
_GRAINS_PX = (0.0, 0.6, 1.1)
"""Sizes of noise grains: raw, after interpolation of the colour filter, after a noisy reduction."""


@dataclass(frozen=True)
class PhotoEffects:
    """How strong the effects are that `degrade` draws from; probabilities in [0, 1]."""

    exposure_stops: float = 0.4
    """Standard deviation of the exposure, stops."""
    white_balance: float = 0.08
    """Standard deviation of the logarithm of each channel's gain."""
    max_vignette: float = 0.5
    """Most light that is lost in the corners, share."""
    focus_blur: float = 0.3
    """Probability of a picture out of focus."""
    motion_blur: float = 0.15
    """Probability of a picture blurred by motion."""
    max_blur: float = 0.012
    """Largest deviation of the focus blur, and a third of the longest motion, in units of the picture's width."""
    small_picture: float = 0.3
    """Probability of a picture that was once smaller."""
    least_scale: float = 0.2
    """Smallest size that it had, in units of its present size."""
    noise: float = 0.7
    """Probability of visible sensor noise."""
    most_noise: float = 0.045
    """Largest standard deviation of the noise, in units of white; small ones are more frequent."""
    jpeg: float = 0.8
    """Probability of JPEG compression."""
    least_quality: int = 18
    """Lowest quality of the compression."""
    grey: float = 0.05
    """Probability of a picture without colour."""
    sharpen: float = 0.12
    """Probability of a picture sharpened by the camera."""


HEAVY = PhotoEffects()
"""Bad light, cheap cameras, small or much compressed pictures."""
LIGHT = PhotoEffects(
    exposure_stops=0.25,
    white_balance=0.045,
    max_vignette=0.25,
    focus_blur=0.15,
    motion_blur=0.04,
    max_blur=0.004,
    small_picture=0.2,
    least_scale=0.55,
    noise=0.6,
    most_noise=0.012,
    jpeg=0.6,
    least_quality=55,
    grey=0.02,
)
"""Telephones and video calls in ordinary light."""
_LIGHT_SHARE = 0.58
"""How many pictures have light effects only."""


def degrade(image: np.ndarray, rng: np.random.Generator, effects: PhotoEffects | None = None) -> np.ndarray:
    """Return a rendered picture as a camera would have kept it, uint8 (H, W, 3) sRGB.

    In the order of nature: blur of lens and motion, exposure and colour cast and vignette in linear light, shot and
    read noise (neighbouring pixels may be correlated), tone curve, sharpening, a smaller size, JPEG blocks. Nothing
    moves: labels stay valid.

    Args:
        image: sRGB float32 (H, W, 3) in [0, 1].
        rng: random numbers; the same state gives the same picture.
        effects: how strong and how frequent; `LIGHT` or `HEAVY` by chance if not given.
    """
    if effects is None:
        effects = LIGHT if rng.random() < _LIGHT_SHARE else HEAVY
    picture = _blur(np.ascontiguousarray(image, dtype=np.float32), rng, effects)
    gains, falloff = _gains(rng, effects), _vignette(rng, effects)
    shot, read, noise = _noise(rng, effects, *picture.shape[:2])
    curve = _tone_curve(rng)
    saturation = float(np.clip(rng.normal(1.0, 0.15), 0.45, 1.4))
    if rng.random() < effects.grey:
        saturation = 0.0
    picture = _develop(picture, gains, falloff, noise, shot, read, curve, saturation)
    if rng.random() < effects.sharpen:
        picture = _sharpen(picture, float(rng.uniform(0.3, 1.2)))
    if rng.random() < effects.small_picture:
        picture = _shrink_and_grow(picture, rng, effects.least_scale)
    if rng.random() < effects.jpeg:
        picture = compress(picture, int(rng.integers(effects.least_quality, 96)))
    return picture


def compress(picture: np.ndarray, quality: int) -> np.ndarray:
    """Return what JPEG at a quality in [1, 100] leaves of a picture, uint8 (H, W, 3)."""
    _, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _blur(picture: np.ndarray, rng: np.random.Generator, effects: PhotoEffects) -> np.ndarray:
    """Blur by focus or motion, or not at all."""
    chance, size = rng.random(), max(picture.shape)
    amount = float(rng.uniform(0.0, 1.0)) ** 2 * effects.max_blur * size
    if chance < effects.focus_blur:
        return cv2.GaussianBlur(picture, (0, 0), max(amount, 0.3))
    if chance < effects.focus_blur + effects.motion_blur:
        return cv2.filter2D(picture, -1, _motion_kernel(3 * amount, float(rng.uniform(0, np.pi))))
    return picture


def _motion_kernel(length_px: float, angle: float) -> np.ndarray:
    """Return the picture of a point that moves along a line, float32, sum 1."""
    half = int(np.ceil(length_px / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    reach = length_px / 2 * np.array((np.cos(angle), np.sin(angle)))
    ends = [tuple(np.round((half + sign * reach) * 16).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], (1.0,), 1, cv2.LINE_4, 4)
    kernel = cv2.GaussianBlur(kernel, (3, 3), 0.5)
    return kernel / kernel.sum()


def _gains(rng: np.random.Generator, effects: PhotoEffects) -> np.ndarray:
    """Return the gain of each channel in linear light, float32 (3,)."""
    exposure = 2.0 ** np.clip(rng.normal(0, effects.exposure_stops), -1.8, 1.0)
    warmth, tint = rng.normal(0, effects.white_balance, 2)
    return (exposure * np.exp((warmth, tint * 0.5, -warmth))).astype(np.float32)


def _vignette(rng: np.random.Generator, effects: PhotoEffects) -> np.ndarray:
    """Return the centre (x, y) in units of the picture and the loss in the corners, float32 (3,)."""
    loss = rng.uniform(0, effects.max_vignette) if rng.random() < 0.4 else 0.0
    return np.array((*rng.normal(0.5, 0.1, 2), loss), np.float32)


def _noise(rng: np.random.Generator, effects: PhotoEffects, height: int, width: int) -> tuple[float, float, np.ndarray]:
    """Return the variances of shot noise (a unit of light) and read noise, and a unit field (H, W, 3)."""
    if rng.random() >= effects.noise:
        return 0.0, 0.0, np.zeros((1, 1, 3), np.float32)
    field = grain(rng, height, width, float(rng.choice(_GRAINS_PX)))
    if rng.random() < 0.3:
        field = np.broadcast_to(field[..., :1], field.shape)
    strength = effects.most_noise * 10.0 ** rng.uniform(-1.4, 0.0)
    return strength**2 * 1.5, (strength * rng.uniform(0.1, 0.6)) ** 2, np.ascontiguousarray(field)


def _tone_curve(rng: np.random.Generator) -> np.ndarray:
    """Return a rising curve from display values to display values, float32 (_CURVE_STEPS + 1,) over [0, 1]."""
    x = np.linspace(0, 1, _CURVE_STEPS + 1)
    gamma = np.exp(np.clip(rng.normal(0, 0.15), -0.4, 0.4))
    contrast = rng.uniform(-0.5, 0.9)
    y = x**gamma
    y = y + contrast * 0.5 * y * (1 - y) * (2 * y - 1) * 2
    black, white = rng.uniform(-0.03, 0.05), rng.uniform(0.93, 1.04)
    return (black + (white - black) * y).astype(np.float32)


def _sharpen(picture: np.ndarray, amount: float) -> np.ndarray:
    soft = cv2.GaussianBlur(picture, (0, 0), 1.2)
    return cv2.addWeighted(picture, 1 + amount, soft, -amount, 0)


def _shrink_and_grow(picture: np.ndarray, rng: np.random.Generator, least: float) -> np.ndarray:
    """Reduce a picture, perhaps compress it, and bring it back to its size."""
    height, width = picture.shape[:2]
    scale = least + (1 - least) * float(rng.random()) ** 0.7
    down = (cv2.INTER_AREA, cv2.INTER_LINEAR)[int(rng.integers(0, 2))]
    up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[int(rng.choice(3, p=(0.5, 0.45, 0.05)))]
    small = cv2.resize(picture, (max(8, round(width * scale)), max(8, round(height * scale))), interpolation=down)
    if rng.random() < 0.4:
        small = compress(small, int(rng.integers(25, 90)))
    return cv2.resize(small, (width, height), interpolation=up)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _develop(image, gains, vignette, noise, shot, read, curve, saturation):  # pragma: no cover - compiled
    height, width = image.shape[:2]
    out = np.empty((height, width, 3), np.uint8)
    zero, one, half, steps = np.float32(0), np.float32(1), np.float32(0.5), np.float32(curve.shape[0] - 1)
    loss, has_noise = np.float32(2) * vignette[2], shot > 0.0
    shot, read, saturation = np.float32(shot), np.float32(read), np.float32(saturation)
    per_row, per_column = one / np.float32(height), one / np.float32(width)
    for row in range(height):
        dy = (np.float32(row) + half) * per_row - vignette[1]
        for column in range(width):
            dx = (np.float32(column) + half) * per_column - vignette[0]
            light = max(one - loss * (dx * dx + dy * dy), np.float32(0.1))
            r, g, b = image[row, column, 0], image[row, column, 1], image[row, column, 2]
            r, g, b = r * r * light * gains[0], g * g * light * gains[1], b * b * light * gains[2]
            if has_noise:
                r += np.sqrt(shot * r + read) * noise[row, column, 0]
                g += np.sqrt(shot * g + read) * noise[row, column, 1]
                b += np.sqrt(shot * b + read) * noise[row, column, 2]
            r = curve[np.int32(np.sqrt(min(max(r, zero), one)) * steps + half)]
            g = curve[np.int32(np.sqrt(min(max(g, zero), one)) * steps + half)]
            b = curve[np.int32(np.sqrt(min(max(b, zero), one)) * steps + half)]
            grey = np.float32(0.3) * r + np.float32(0.59) * g + np.float32(0.11) * b
            out[row, column, 0] = np.uint8(min(max(grey + saturation * (r - grey), zero), one) * np.float32(255) + half)
            out[row, column, 1] = np.uint8(min(max(grey + saturation * (g - grey), zero), one) * np.float32(255) + half)
            out[row, column, 2] = np.uint8(min(max(grey + saturation * (b - grey), zero), one) * np.float32(255) + half)
    return out
