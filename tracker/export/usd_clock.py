"""Times of a track as time codes of a USD stage.

A stage counts time in codes, ``timeCodesPerSecond`` of them a second, and animation programs show a code as a frame's
number. So a clip of constant rate gets that rate, and each frame its own number as a whole code. Where frames come at
changing intervals a code follows the frame's timestamp instead, and may be fractional: the first frame keeps its
number, and the rate is the usual one nearest to the median interval, so that most frames stay near whole codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STILL_RATE = 24.0
"""Codes per second of a track with one frame: USD's own fallback."""

_USUAL_RATES = (*(rate * 1000 / 1001 for rate in (24, 30, 48, 60, 120)), *range(1, 241))
_USUAL_WITHIN = 2e-3
"""A rate that is nearer to a usual one than this share is taken for it."""
_WHOLE_WITHIN = 0.05
"""Largest distance of a timestamp from the even grid that is still rounding, in frames: 1.7 ms at 30 frames/s."""


@dataclass(frozen=True, eq=False)
class Clock:
    """Hold the time codes of T frames."""

    codes: np.ndarray
    """Time code of each frame, float64 (T,)."""
    rate: float
    """Time codes per second."""
    is_constant: bool
    """Whether the codes are the frames' numbers."""


def clock_of(frame_index: np.ndarray, pts_seconds: np.ndarray) -> Clock:
    """Return the time codes of frames with these numbers, int64 (T,), and timestamps, float64 (T,), seconds."""
    numbers = np.asarray(frame_index, np.float64)
    elapsed = np.asarray(pts_seconds, np.float64) - pts_seconds[0]
    if len(numbers) < 2 or elapsed[-1] <= 0:
        return Clock(numbers, STILL_RATE, True)
    mean = (numbers[-1] - numbers[0]) / elapsed[-1]
    for rate in (_usual(mean), mean):
        if np.abs(numbers[0] + elapsed * rate - numbers).max() < _WHOLE_WITHIN:
            return Clock(numbers, rate, True)
    rate = _usual(1.0 / float(np.median(np.diff(elapsed) / np.diff(numbers))))
    return Clock(numbers[0] + elapsed * rate, rate, False)


def _usual(rate: float) -> float:
    """Return the usual rate nearest to a rate; the rate itself where none is near."""
    nearest = min(_USUAL_RATES, key=lambda usual: abs(usual - rate))
    return float(nearest) if abs(nearest - rate) < _USUAL_WITHIN * rate else rate
