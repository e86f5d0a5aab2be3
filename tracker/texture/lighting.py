"""Estimate the light of a clip from the skin, so that a texture holds the skin's colour and not the light on it.

Light from far away on a matt surface depends on the normal alone and is well described by spherical harmonics up to
order two (R. Ramamoorthi and P. Hanrahan, "An efficient representation for irradiance environment maps", 2001). The
light is taken to stand still with respect to the camera; each frame has a gain of its own, the camera's exposure. How
bright the skin itself is and how bright the light is cannot be told apart: the skin's mean colour stays that of the
clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

_NUM_TERMS = 9
_EVEN_SHARE = 0.03
"""Weight of even light on a ball, seen from the camera, in the fit: how light falls on directions that no skin has."""
_WHITE_SHARE = 0.3
"""The same for white light, with respect to each channel: lamps are white more often than skin is of one colour."""
_BALL_POINTS = 400
_OUTLIER = 0.15
"""Relative deviation from the light model at which a sample's weight has fallen to a quarter."""
_ALBEDO_POWER = 0.5
"""How far a point's own albedo is believed against that of all skin, as a power."""
_ROUNDS = 8
_BRIGHT_BOUND, _DARK_BOUND = 0.8, 0.55
"""Bounds of the shading's logarithm: at most factors of about 2.2 and 1.7 are divided out."""
_TINT_BOUND = 0.15
"""The same for how far channels differ: light and skin of several colours are hard to tell apart."""


@dataclass(frozen=True, eq=False)
class Light:
    """The light on one person in K frames."""

    harmonics: np.ndarray
    """Coefficients of the light, float64 (9, 3), one column a channel; 1 is the skin's usual brightness."""
    gain: np.ndarray
    """Brightness of each frame, float64 (K, 3)."""

    def shading(self, frame: int, normals_cam: np.ndarray) -> np.ndarray:
        """Return the light on normals (..., 3) in a frame, float64 (..., 3): bounded, times the frame's gain."""
        return self.gain[frame] * bounded(harmonics(normals_cam) @ self.harmonics)

    @staticmethod
    def even(num_frames: int) -> Light:
        """Return light from everywhere."""
        coefficients = np.zeros((_NUM_TERMS, 3))
        coefficients[0] = 1
        return Light(coefficients, np.ones((num_frames, 3)))


def harmonics(normals: np.ndarray) -> np.ndarray:
    """Return the nine harmonics of unit normals (..., 3), float64 (..., 9), scaled to be of about unit size."""
    x, y, z = np.moveaxis(np.asarray(normals, np.float64), -1, 0)
    one = np.ones_like(x)
    return np.stack((one, x, y, z, x * y, y * z, x * z, x * x - y * y, (3 * z * z - 1) / 2), axis=-1)


def bounded(shading: np.ndarray) -> np.ndarray:
    """Return shading within a factor of 1, so that highlights and deep shadows are not divided out of proportion."""
    logarithm = np.log(np.maximum(shading, 0.05))
    brightness = logarithm.mean(axis=-1, keepdims=True)
    bound = np.where(brightness > 0, _BRIGHT_BOUND, _DARK_BOUND)
    return np.exp(_limited(brightness, bound) + _limited(logarithm - brightness, _TINT_BOUND))


def _limited(values: np.ndarray, bound: np.ndarray | float) -> np.ndarray:
    """Return values that stay below a bound, and hardly change where they are small against it."""
    return values / (1 + (values / bound) ** 4) ** 0.25


def estimate_light(colors: np.ndarray, weights: np.ndarray, normals_cam: np.ndarray) -> Light:
    """Fit the light to samples of skin.

    Args:
        colors: linear colour of M points of the skin in K frames, float64 (K, M, 3).
        weights: how well each is seen, float64 (K, M); 0 where it is not.
        normals_cam: unit normals in camera space, float64 (K, M, 3).

    Returns:
        The light, even where there is too little to see.
    """
    num_frames = len(colors)
    is_seen = weights > 0
    if is_seen.sum() < 10 * _NUM_TERMS:
        return Light.even(num_frames)
    basis = harmonics(normals_cam)
    gain = _gains(colors, weights, np.ones_like(colors))
    # Skin is of one colour to begin with; then each point has what all frames that see it say, drawn half to the mean.
    albedo = np.ones(colors.shape[1:])
    trust = np.ones(colors.shape)
    light = np.zeros((_NUM_TERMS, 3))
    for round_ in range(_ROUNDS):
        target = colors / (gain[:, None] * albedo)
        white = _solve(basis, target.mean(axis=2), weights * trust.mean(axis=2), _EVEN_SHARE, None)
        for channel in range(3):
            light[:, channel] = _solve(basis, target[..., channel], weights * trust[..., channel], _WHITE_SHARE, white)
        shading = np.maximum(basis @ light, 0.05)
        gain = _gains(colors, weights * trust.mean(axis=2), shading * albedo)
        relative = colors / np.maximum(gain[:, None] * shading * albedo, 1e-6) - 1
        trust = 1 / (1 + (relative / _OUTLIER) ** 2) ** 2
        if round_ >= 2:
            seen_by = np.maximum((weights[..., None] * trust).sum(axis=0), 1e-9)
            mean = (weights[..., None] * trust * colors / (gain[:, None] * shading)).sum(axis=0) / seen_by
            albedo = np.clip(np.where(seen_by > 1e-6, mean, 1.0), 0.05, 4.0) ** _ALBEDO_POWER
    return _normalised(light, gain, basis, weights)


def _solve(
    basis: np.ndarray, target: np.ndarray, weights: np.ndarray, share: float, usual: np.ndarray | None
) -> np.ndarray:
    """Return weighted least squares, float64 (9,), drawn to the light ``usual``, or to even light.

    The pull acts on the light on a ball and not on the coefficients: on a face most of them look alike.
    """
    rows, values, held = basis.reshape(-1, _NUM_TERMS), target.reshape(-1), weights.reshape(-1)
    total = held.sum() + 1e-9
    if usual is None:
        usual = np.zeros(_NUM_TERMS)
        usual[0] = (held * values).sum() / total
    weighted = rows * held[:, None]
    pull = share * total * _ball()
    return np.linalg.solve(rows.T @ weighted + pull, weighted.T @ values + pull @ usual)


@cache
def _ball() -> np.ndarray:
    """Return the mean outer product of the harmonics over the near half of a ball, float64 (9, 9)."""
    index = np.arange(_BALL_POINTS) + 0.5
    z = 0.25 - 1.25 * index / _BALL_POINTS
    around = index * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z * z)
    basis = harmonics(np.stack((radius * np.cos(around), radius * np.sin(around), z), axis=1))
    return basis.T @ basis / _BALL_POINTS + 1e-6 * np.eye(_NUM_TERMS)


def _gains(colors: np.ndarray, weights: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return each frame's brightness relative to a model of it, float64 (K, 3); that of frames with nothing is 1."""
    total = weights.sum(axis=1)
    log_ratio = np.log(np.maximum(colors, 1e-4)) - np.log(np.maximum(model, 1e-4))
    mean = (weights[..., None] * log_ratio).sum(axis=1) / np.maximum(total, 1e-9)[:, None]
    return np.where(total[:, None] > 1e-6, np.exp(mean), 1.0)


def _normalised(light: np.ndarray, gain: np.ndarray, basis: np.ndarray, weights: np.ndarray) -> Light:
    """Scale light and gains so that the shading's median on the skin and the gains' mean are 1."""
    shading = (basis @ light)[weights > 0.5 * weights.max()]
    middle = np.maximum(np.median(shading, axis=0), 0.05)
    share = weights.sum(axis=1)
    usual = np.exp((share[:, None] * np.log(gain)).sum(axis=0) / max(float(share.sum()), 1e-9))
    return Light(light / middle, np.clip(gain / usual, 0.2, 5.0))
