"""From lit samples to a picture: light added up, exposed like a camera does, over a background."""

from __future__ import annotations

import math

import numpy as np

from priors.training.render import light_kernels
from priors.training.render.light import Light
from priors.training.render.sample_kernels import (
    NUM_ROWS,
    ROW_COLOR,
    ROW_GLOSS,
    ROW_LIT,
    ROW_NORMAL,
    ROW_OPEN,
    ROW_POINT,
    ROW_SHARE,
    ROW_SHARP,
    ROW_SOFT,
)

_SPARSE = 4
"""Every how many pixels are enough to measure the exposure."""


class SampleBuffer:
    """Hold the arrays that samples of a picture go through; kept from picture to picture."""

    def __init__(self, image_px: int, per_side: int) -> None:
        """Make room for ``per_side`` x ``per_side`` samples in each of image_px x image_px pixels."""
        most = (image_px * per_side) ** 2
        self.image_px, self.per_side = image_px, per_side
        self.rows = np.empty((NUM_ROWS, most), np.float32)
        self.pixel = np.empty(most, np.int32)
        self._sent, self._work = np.empty((3, most), np.float32), np.empty((3, most), np.float32)

    def lit(self, count: int, light: Light) -> np.ndarray:
        """Return premultiplied light and coverage, float32 (S, S, 4), of the first ``count`` samples."""
        rows = self.rows
        surface = rows[ROW_COLOR : ROW_COLOR + 3], rows[ROW_NORMAL : ROW_NORMAL + 3], rows[ROW_POINT : ROW_POINT + 3]
        finish = rows[ROW_GLOSS], rows[ROW_SHARP], rows[ROW_SOFT], rows[ROW_OPEN], rows[ROW_LIT]
        light_kernels.surround(*surface, rows[ROW_GLOSS], rows[ROW_OPEN], count, light.sh, self._sent)
        for number, lamp in enumerate(light.lamps()):
            wrap = np.float32(light.wrap)
            light_kernels.shine(*surface, finish, count, lamp, wrap, number == 0, self._work, self._sent)
        layer = np.zeros((self.image_px, self.image_px, 4), np.float32)
        light_kernels.gather(rows[ROW_SHARE], count, self.pixel, self._sent, layer.reshape(-1, 4))
        return layer


def random_gain(layer: np.ndarray, rng: np.random.Generator) -> float:
    """Return how a camera exposes a layer (S, S, 4): it levels brightness out, but not wholly, and errs."""
    sparse = layer[::_SPARSE, ::_SPARSE]
    seen = sparse[sparse[..., 3] > 0.99]
    level = float(np.median(seen[:, 1])) if len(seen) else 0.2
    wanted = math.exp(rng.normal(math.log(0.2), 0.45))
    return float((wanted / max(level, 1e-3)) ** rng.uniform(0.55, 0.95))


def develop(layer: np.ndarray, backdrop: np.ndarray, gain: float) -> np.ndarray:
    """Lay a layer (S, S, 4), its light times ``gain``, over an sRGB background; sRGB float32 (S, S, 3)."""
    image = np.empty(backdrop.shape, np.float32)
    light_kernels.develop(layer, np.ascontiguousarray(backdrop, np.float32), np.float32(gain), image)
    return image
