"""What a face is expected to do: means, standard deviations and bounds of joint angles and expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.schema import RegularizationConfig
from tracker.state import FaceState

_JAW_LOWER = (-0.05, -0.1, -0.02)
_JAW_UPPER = (0.7, 0.1, 0.02)
_EYE_LIMIT = (0.45, 0.6, 0.05)
_NECK_LIMIT = 0.5
_LID_PREFIX = "eye"


@dataclass(frozen=True)
class StatePrior:
    """Hold a bounded Gaussian over joint angles and expressions, in the order of ``FaceState.values``."""

    mean: np.ndarray
    """Expected values, float64 (12 + E,)."""
    precision: np.ndarray
    """Inverse variances, float64 (12 + E,)."""
    lower: np.ndarray
    """Lower bounds, float64 (12 + E,)."""
    upper: np.ndarray
    """Upper bounds, float64 (12 + E,)."""

    def energy(self, state: FaceState) -> float:
        """Return half the squared deviation of a state from the mean, in standard deviations."""
        deviation = state.values - self.mean
        return 0.5 * float((deviation * self.precision) @ deviation)

    def near(self, before: FaceState, seconds: float, change_per_second: float) -> StatePrior:
        """Return this prior times one that keeps the values near those of a frame ``seconds`` before.

        The change within a second has ``change_per_second`` times this prior's standard deviations and grows with the
        square root of time, as a random walk does.
        """
        walk = self.precision / (change_per_second**2 * max(seconds, 1e-3))
        precision = self.precision + walk
        mean = (self.precision * self.mean + walk * before.values) / precision
        return replace(self, mean=mean, precision=precision)


def are_lids(expression_names: Sequence[str]) -> np.ndarray:
    """Return which expressions are the lids', by name, bool (E,)."""
    return np.array([name.startswith(_LID_PREFIX) for name in expression_names], dtype=bool)


def state_prior(
    config: RegularizationConfig, expression_bounds: np.ndarray, expression_names: Sequence[str] = ()
) -> StatePrior:
    """Build the prior of one frame from the configuration and a head model's expressions.

    Args:
        config: standard deviations.
        expression_bounds: lower and upper bounds (E, 2), infinite where there are none.
        expression_names: E names, or none; those of lids are looser.
    """
    is_action = np.isfinite(expression_bounds).all(axis=1)
    expression = np.where(is_action, config.expression, config.free_expression)
    if expression_names:
        expression[are_lids(expression_names) & is_action] = config.lid
    jaw = (config.jaw_open_rad, config.jaw_side_rad, config.locked_rad)
    eye = (config.eye_rad, config.eye_rad, config.locked_rad)
    sigma = np.concatenate(((config.neck_rad,) * 3, jaw, eye, eye, expression))
    limit = np.asarray(_EYE_LIMIT)
    neck = np.full(3, _NECK_LIMIT)
    return StatePrior(
        mean=np.zeros(len(sigma)),
        precision=sigma**-2.0,
        lower=np.concatenate((-neck, _JAW_LOWER, -limit, -limit, expression_bounds[:, 0])),
        upper=np.concatenate((neck, _JAW_UPPER, limit, limit, expression_bounds[:, 1])),
    )
