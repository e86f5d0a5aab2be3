"""What lies behind a rendered head: gradients, blurred lights, clouds, rooms of boxes and stripes."""

from __future__ import annotations

import cv2
import numpy as np

from priors.training.render.noise_tiles import clouds


def random_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a random background, sRGB float32 (height, width, 3) in [0, 1]; the same state, the same picture.

    Kinds: a plain or graded wall, clouds of noise, lights out of focus, shelves and windows, scattered boxes, and
    mixtures of them; about a third are softened as by a short depth of field.
    """
    makers = (_wall, _clouds, _bokeh, _room, _boxes, _stripes)
    picture = makers[int(rng.choice(len(makers), p=(0.22, 0.18, 0.14, 0.2, 0.16, 0.1)))](rng, height, width)
    if rng.random() < 0.3:
        other = makers[int(rng.integers(0, len(makers)))](rng, height, width)
        share = _ramp(rng, height, width)[..., None]
        picture = picture + share * (other - picture)
    if rng.random() < 0.4:
        picture = _soften(picture, float(rng.uniform(0.004, 0.03)) * max(height, width))
    if rng.random() < 0.6:
        picture = picture + np.float32(rng.uniform(0.005, 0.05)) * clouds(rng, height, width)[..., :1]
    return np.clip(picture, 0, 1).astype(np.float32, copy=False)


def random_colors(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return colours as rooms and clothes have them, mostly muted, sRGB float32 (count, 3)."""
    hue = rng.uniform(0, 360, count)
    saturation = rng.beta(1.0, 2.5, count)
    value = rng.beta(1.4, 1.2, count)
    hsv = np.stack((hue, saturation, value), axis=-1).astype(np.float32)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0].reshape(count, 3)


def _ramp(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a smooth transition from 0 to 1 in a random direction, float32 (height, width)."""
    angle, sharpness = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 5)
    x = (np.arange(width, dtype=np.float32) / width - np.float32(rng.uniform(0.2, 0.8))) * np.float32(np.cos(angle))
    y = (np.arange(height, dtype=np.float32) / height - np.float32(rng.uniform(0.2, 0.8))) * np.float32(np.sin(angle))
    return np.clip((x + y[:, None]) * np.float32(sharpness) + np.float32(0.5), 0, 1)


def _wall(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return one colour, or a blend of four from the corners."""
    colors = random_colors(rng, 4)
    if rng.random() < 0.3:
        colors[:] = colors[0]
    elif rng.random() < 0.6:
        colors = colors[0] + (colors - colors[0]) * np.float32(0.35)
    columns = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    top, bottom = colors[0] + columns * (colors[1] - colors[0]), colors[2] + columns * (colors[3] - colors[2])
    return top + rows * (bottom - top)


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return coloured fractal noise, from one hue to all."""
    field = clouds(rng, height, width, zoom=float(rng.uniform(1, 4)))
    color, contrast = random_colors(rng, 1)[0], np.float32(rng.uniform(0.04, 0.25))
    if rng.random() < 0.6:
        direction = random_colors(rng, 1)[0] - np.float32(0.2)
        return color + field[..., :1] * (contrast * 2 * direction)
    return color + field * contrast


def _bokeh(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return lights out of focus over a graded wall."""
    picture = np.ascontiguousarray(_wall(rng, height, width) * np.float32(rng.uniform(0.15, 0.8)))
    disks = np.zeros_like(picture)
    size = max(height, width)
    for color in random_colors(rng, int(rng.integers(6, 30))):
        center = (int(rng.uniform(0, width) * 8), int(rng.uniform(0, height) * 8))
        radius = int(rng.uniform(0.01, 0.09) * size * 8)
        bright = (color * np.float32(rng.uniform(0.4, 1.4))).tolist()
        cv2.circle(disks, center, radius, bright, cv2.FILLED, cv2.LINE_8, 3)
    return picture + _soften(disks, float(rng.uniform(0.004, 0.02)) * size)


def _boxes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return scattered polygons and ellipses over a wall."""
    picture = np.ascontiguousarray(_wall(rng, height, width))
    size = max(height, width)
    for color in random_colors(rng, int(rng.integers(4, 25))):
        center = rng.uniform(0, 1, 2) * (width, height)
        half, angle = rng.uniform(0.02, 0.35, 2) * size, float(rng.uniform(-20, 20))
        if rng.random() < 0.3:
            box = (tuple(center.tolist()), tuple((2 * half).tolist()), angle)
            cv2.ellipse(picture, box, color.tolist(), cv2.FILLED, cv2.LINE_8)
        else:
            corners = cv2.boxPoints((tuple(center.tolist()), tuple((2 * half).tolist()), angle))
            cv2.fillConvexPoly(picture, (corners * 8).astype(np.int32), color.tolist(), cv2.LINE_8, 3)
    return picture


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return stripes of a curtain, a fence or wallpaper, smooth or hard."""
    low, high = random_colors(rng, 2)
    high = low + (high - low) * np.float32(rng.uniform(0.1, 1))
    angle, period = rng.choice((0.0, np.pi / 2, rng.uniform(0, np.pi))), rng.uniform(0.02, 0.25) * max(height, width)
    x = np.arange(width, dtype=np.float32) * np.float32(np.cos(angle) * 2 * np.pi / period)
    y = np.arange(height, dtype=np.float32) * np.float32(np.sin(angle) * 2 * np.pi / period)
    wobble = clouds(rng, height, width, zoom=3.0)[..., 0] * np.float32(rng.uniform(0, 0.8))
    wave = np.sin(x + y[:, None] + wobble)
    share = np.clip(wave * np.float32(rng.uniform(0.5, 6)) + np.float32(0.5), 0, 1)
    return low + share[..., None] * (high - low)


def _room(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a wall with a window, a picture, shelves with books or a door, in upright lines."""
    picture = np.ascontiguousarray(_wall(rng, height, width))
    if rng.random() < 0.5:
        _draw_shelves(picture, rng)
    for _ in range(int(rng.integers(0, 4))):
        frame, inside = random_colors(rng, 2)
        left, top = rng.uniform(-0.2, 0.9, 2) * (width, height)
        w, h = rng.uniform(0.12, 0.6, 2) * (width, height)
        border = max(1, round(float(rng.uniform(0.005, 0.03)) * width))
        is_bright = rng.random() < 0.4
        color = (0.75 + 0.25 * inside if is_bright else inside).tolist()
        corners = (int(left), int(top)), (int(left + w), int(top + h))
        cv2.rectangle(picture, *corners, color, cv2.FILLED)
        cv2.rectangle(picture, *corners, frame.tolist(), border)
        if is_bright:
            middle = int(left + w / 2)
            cv2.line(picture, (middle, int(top)), (middle, int(top + h)), frame.tolist(), border)
    if rng.random() < 0.4:
        floor = int(height * rng.uniform(0.55, 0.95))
        picture[floor:] = random_colors(rng, 1)[0]
    return picture


def _draw_shelves(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Draw boards with books on a picture, in place."""
    height, width = picture.shape[:2]
    step = int(height * rng.uniform(0.12, 0.35)) + 2
    wood = (random_colors(rng, 1)[0] * np.float32(0.7)).tolist()
    left, right = sorted(rng.uniform(-0.3, 1.3, 2))
    for bottom in range(int(rng.uniform(0, step)), height + step, step):
        x = int(left * width)
        for color in random_colors(rng, 24):
            thick, tall = int(rng.uniform(0.01, 0.06) * width) + 1, int(step * rng.uniform(0.5, 0.95))
            if x > right * width:
                break
            cv2.rectangle(picture, (x, bottom - tall), (x + thick, bottom), color.tolist(), cv2.FILLED)
            x += thick
        board = max(1, step // 14)
        cv2.rectangle(picture, (int(left * width), bottom), (int(right * width), bottom + board), wood, cv2.FILLED)


def _soften(picture: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur a picture, cheaply: large blurs are done on a reduced copy."""
    height, width = picture.shape[:2]
    factor = 1
    while sigma_px / factor > 3.0 and min(height, width) // (2 * factor) >= 8:
        factor *= 2
    if factor == 1:
        return cv2.GaussianBlur(picture, (0, 0), max(sigma_px, 0.3))
    small = cv2.resize(picture, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(sigma_px / factor, 0.3))
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
