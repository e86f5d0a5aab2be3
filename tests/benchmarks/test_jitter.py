"""The jitter benchmark's figures, on tracks whose jitter and lag are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.jitter import Stretch, correlations, measure, peak
from flame.errors import UserError


def stretch(fitted_px: np.ndarray, detected_px: np.ndarray) -> Stretch:
    return Stretch(detected_px, fitted_px, np.full(len(fitted_px), 60.0))


def wander(num_frames: int, seed: int = 0) -> np.ndarray:
    """Return landmarks that wander smoothly, (T, 5, 2)."""
    steps = np.random.default_rng(seed).normal(size=(num_frames + 8, 5, 2))
    kernel = np.hanning(9)
    velocity = np.apply_along_axis(lambda each: np.convolve(each, kernel, mode="valid"), 0, steps)
    return velocity.cumsum(axis=0)


def test_the_same_landmarks_have_a_ratio_of_one():
    points = wander(40)
    found = measure([stretch(points, points)])
    assert found.fitted_rms == found.detected_rms and found.lag_frames == 0 and found.residual_percent == 0


@pytest.mark.parametrize("lag", [-2, 0, 3])
def test_a_lag_is_told(lag):
    points = wander(60)
    fitted, detected = points[5 - lag : 50 - lag], points[5:50]
    lag_frames, place = peak(correlations([stretch(fitted, detected)]))
    assert lag_frames == lag and abs(place - lag) < 0.2


def test_noise_counts_and_breaks_do_not():
    noise = np.random.default_rng(1).normal(size=(200, 5, 2))
    found = measure([stretch(0.5 * noise, noise), stretch(0.5 * noise + 1000, noise - 1000)])
    assert found.fitted_rms / found.detected_rms == pytest.approx(0.5)
    assert found.detected_rms == pytest.approx(np.sqrt(12), rel=0.1)


def test_too_few_frames_are_an_error():
    with pytest.raises(UserError, match="three frames"):
        measure([stretch(wander(2), wander(2))])
