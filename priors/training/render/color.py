"""Display values and light: sRGB in [0, 1] and linear intensities, by a plain square, as in ``flame.shading``."""

from __future__ import annotations

import numpy as np


def linear_from_srgb(srgb: np.ndarray) -> np.ndarray:
    """Return linear intensities of display values in [0, 1], of the same shape, float32."""
    return np.square(np.asarray(srgb, np.float32))


def srgb_from_linear(linear: np.ndarray) -> np.ndarray:
    """Return display values of linear intensities, both in [0, 1]; float32 of the same shape."""
    return np.sqrt(np.clip(linear, 0, 1, dtype=np.float32))
