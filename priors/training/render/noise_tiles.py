"""Random fields that are cheap to draw: tiles made once, cut at random places.

A fresh field of Gaussian numbers costs more than all other effects on a picture together, so every picture takes a
random cut, possibly mirrored, from a few fixed tiles instead.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

_TILE_PX = 640
_SEED = 71
_CLOUD_OCTAVES = 6


@lru_cache(maxsize=8)
def _white(grain_px: float) -> np.ndarray:
    """Return a tile of unit Gaussian noise with grains of a size, float32 (T, T, 3)."""
    field = np.random.default_rng(_SEED).standard_normal((_TILE_PX, _TILE_PX, 3), dtype=np.float32)
    if grain_px > 0:
        field = cv2.GaussianBlur(field, (0, 0), grain_px, borderType=cv2.BORDER_REFLECT)
    field /= field.std()
    field.setflags(write=False)
    return field


@lru_cache(maxsize=1)
def _clouds() -> np.ndarray:
    """Return a tile of fractal noise, zero mean and unit deviation, float32 (T, T, 3)."""
    rng = np.random.default_rng(_SEED + 1)
    field = np.zeros((_TILE_PX, _TILE_PX, 3), np.float32)
    for octave in range(_CLOUD_OCTAVES):
        size = 4 * 2**octave
        coarse = rng.standard_normal((size, size, 3), dtype=np.float32)
        field += cv2.resize(coarse, (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_CUBIC) * np.float32(0.6**octave)
    field -= field.mean(axis=(0, 1))
    field /= field.std(axis=(0, 1))
    field.setflags(write=False)
    return field


def grain(rng: np.random.Generator, height: int, width: int, grain_px: float = 0.0) -> np.ndarray:
    """Return Gaussian noise of unit deviation, float32 (height, width, 3), with grains about ``grain_px`` wide.

    Args:
        rng: random numbers.
        height: rows.
        width: columns.
        grain_px: deviation of the blur that makes neighbours alike; few different values, each keeps a tile.
    """
    return _cut(_white(float(grain_px)), rng, height, width)


def clouds(rng: np.random.Generator, height: int, width: int, zoom: float = 1.0) -> np.ndarray:
    """Return fractal noise of about unit deviation, float32 (height, width, 3), channels independent.

    Args:
        rng: random numbers.
        height: rows.
        width: columns.
        zoom: more than 1 shows a smaller part of the field enlarged.
    """
    if zoom <= 1.0:
        return _cut(_clouds(), rng, height, width)
    part = _cut(_clouds(), rng, max(2, round(height / zoom)), max(2, round(width / zoom)))
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)


def _cut(tile: np.ndarray, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a random window of a tile, repeated by reflection where it is too small."""
    size = tile.shape[0]
    if height > size or width > size:
        rows, columns = max(0, height - size), max(0, width - size)
        tile = cv2.copyMakeBorder(tile, 0, rows, 0, columns, cv2.BORDER_REFLECT)
    top = int(rng.integers(0, tile.shape[0] - height + 1))
    left = int(rng.integers(0, tile.shape[1] - width + 1))
    window = tile[top : top + height, left : left + width]
    flips = int(rng.integers(0, 4))
    return window[:: -1 if flips & 1 else 1, :: -1 if flips & 2 else 1]
