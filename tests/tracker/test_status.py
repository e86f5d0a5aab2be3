"""When a fitted face is trusted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from configs.schema import StatusConfig
from priors.evidence import FaceEvidence, FaceRegion
from tracker.status import FrameStatus, judge

CONFIG = StatusConfig(low_presence=0.8, min_visibility=0.7, max_residual_percent=5.0)
SURE = FaceEvidence(
    points_px=np.zeros((3, 2)),
    sigma_px=np.ones((3, 2)),
    normal_px=np.tile([1.0, 0.0], (3, 1)),
    presence=1.0,
    visibility=1.0,
    region=FaceRegion((0.0, 0.0), 100.0, 0.0),
    points_depth_px=np.zeros(3),
)


def judged(residual_percent: float = 1.0, eyes_px: float = 60.0, **changes: float) -> FrameStatus:
    """Return the status of a face whose residuals are all the same share of the distance of its eyes."""
    residual_px = np.full(3, residual_percent / 100 * eyes_px)
    return judge(dataclasses.replace(SURE, **changes), residual_px, eyes_px, CONFIG)


def test_a_face_that_is_seen_and_fitted_is_ok():
    assert judged() is FrameStatus.OK


@pytest.mark.parametrize("changes", [{"presence": 0.79}, {"visibility": 0.69}, {"residual_percent": 5.1}])
def test_doubt_lowers_the_status(changes):
    assert judged(**changes) is FrameStatus.LOW_CONFIDENCE


@pytest.mark.parametrize("changes", [{"presence": 0.8}, {"visibility": 0.7}, {"residual_percent": 4.9}])
def test_limits_are_those_of_the_configuration(changes):
    assert judged(**changes) is FrameStatus.OK


def test_the_residual_is_relative_to_the_distance_of_the_eyes():
    assert judged(4.0, eyes_px=8.0) is judged(4.0, eyes_px=800.0) is FrameStatus.OK
    assert judged(6.0, eyes_px=8.0) is judged(6.0, eyes_px=800.0) is FrameStatus.LOW_CONFIDENCE


@pytest.mark.parametrize("residual", [np.nan, np.inf])
def test_a_fit_that_came_to_nothing_is_doubtful(residual):
    assert judged(residual) is FrameStatus.LOW_CONFIDENCE


def test_convention_numbers_and_words_that_files_hold():
    words = {status.label: int(status) for status in FrameStatus}
    assert words == {"ok": 0, "low_confidence": 1, "lost": 2, "no_face": 3}
    assert [status.is_tracked for status in FrameStatus] == [True, True, False, False]
