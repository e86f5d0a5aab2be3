"""The sample clip: small, whole, and tracked close to the parameters that it was drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tracker
from flame.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from tracker import Track
from tracker.frames import open_source

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIP = EXAMPLES / "sample.mp4"
NUM_TRACKED = 66
"""Frames that the tests track: a turn, two blinks, the beginning of speech."""


@pytest.fixture(scope="module")
def truth() -> Track:
    return Track.load(EXAMPLES / "sample_truth")


@pytest.fixture(scope="module")
def tracked() -> Track:
    return tracker.track(CLIP, max_frames=NUM_TRACKED)


def correlation(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.corrcoef(found, true[: len(found)])[0, 1])


def test_clip_is_small():
    assert CLIP.stat().st_size <= 2_000_000


def test_truth_has_the_clips_frames_and_size(truth):
    with open_source(CLIP) as source:
        seconds = [frame.pts_seconds for frame in source]
        size = source.info.width, source.info.height
    assert np.allclose(seconds, truth.pts_seconds, atol=1e-3)
    assert size == (truth.intrinsics.width, truth.intrinsics.height)


def test_truth_belongs_to_the_head_that_is_shipped(truth):
    assert np.isfinite(truth.vertices(0)).all()


def test_every_frame_is_tracked(tracked):
    assert tracked.is_tracked.all()
    assert np.median(100 * tracked.residual_px / tracked.interocular_px) < 2.0


def test_head_turns_as_it_was_turned(tracked, truth):
    found, true = (matrix_from_axis_angle(track.rotation[0, :NUM_TRACKED]) for track in (tracked, truth))
    error_degrees = np.degrees(np.linalg.norm(axis_angle_from_matrix(found @ true.transpose(0, 2, 1)), axis=1))
    assert np.median(error_degrees) < 3.0
    assert error_degrees.max() < 6.0


def test_jaw_opens_as_it_was_opened(tracked, truth):
    assert correlation(tracked.jaw[0, :, 0], truth.jaw[0, :, 0]) > 0.6


@pytest.mark.parametrize("name", ["eyeBlinkLeft", "eyeBlinkRight"])
def test_eyes_blink_when_they_blinked(tracked, truth, name):
    column = truth.expression_names.index(name)
    found, true = tracked.expression[0, :, column], truth.expression[0, :NUM_TRACKED, column]
    assert correlation(found, true) > 0.85
    assert found[true == 0].max() < 0.25 < found[true > 0.95].min()
