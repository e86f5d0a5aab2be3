"""Playing at the clip's own times."""

from __future__ import annotations

import numpy as np
import pytest

from tracker.viewer.clock import PlaybackClock

UNEVEN = np.array([5.0, 5.1, 5.5, 5.6, 5.7])


def test_frames_are_on_show_until_the_next_one_begins():
    clock = PlaybackClock(UNEVEN)
    clock.play(100.0)
    shown = [clock.frame_at(100.0 + after) for after in (0.0, 0.09, 0.1, 0.49, 0.5, 0.65, 0.7)]
    assert shown == [0, 0, 1, 1, 2, 3, 4]


def test_late_looks_skip_frames_instead_of_slowing_down():
    clock = PlaybackClock(np.arange(1000) / 50)
    clock.play(0.0)
    assert [clock.frame_at(now) for now in (0.0, 1.0, 7.3)] == [0, 50, 365]


def test_a_loop_begins_again_after_the_last_frame_was_on_show():
    clock = PlaybackClock(UNEVEN)
    clock.play(0.0)
    assert clock.frame_at(0.79) == 4
    assert clock.frame_at(0.81) == 0
    assert clock.frame_at(0.80 + 0.55) == 2
    assert clock.is_playing


def test_without_loop_the_last_frame_stays_and_play_begins_again():
    clock = PlaybackClock(UNEVEN, loop=False)
    clock.play(0.0)
    assert clock.frame_at(9.0) == 4
    assert not clock.is_playing
    clock.play(20.0)
    assert clock.frame_at(20.15) == 1


def test_speed_changes_keep_the_place():
    clock = PlaybackClock(np.arange(100) / 10)
    clock.play(0.0)
    clock.set_speed(0.5, 2.0)
    assert clock.frame_at(2.0) == 20
    assert clock.frame_at(4.0) == 30
    clock.set_speed(4.0, 4.0)
    assert clock.frame_at(5.0) == 70


def test_pause_and_seek():
    clock = PlaybackClock(UNEVEN)
    clock.play(0.0)
    clock.pause(0.52)
    assert clock.frame_at(99.0) == 2
    clock.seek(77, 99.0)
    assert clock.frame_at(99.0) == 4
    clock.seek(-5, 99.0)
    assert clock.frame_at(100.0) == 0
    clock.seek(3, 100.0)
    clock.play(100.0)
    assert clock.frame_at(100.05) == 3


@pytest.mark.parametrize("times", [np.array([0.0]), np.array([3.0])])
def test_a_single_picture_can_be_played(times):
    clock = PlaybackClock(times)
    clock.play(0.0)
    assert {clock.frame_at(now) for now in (0.0, 0.5, 1.0, 100.25)} == {0}
