"""Smoothing: keeps polynomials, removes noise, never crosses a break, emits every frame once and in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import SMOOTHING_METHODS, SmoothingConfig
from flame.errors import InputError
from flame.rotation_kernels import rotation_matrix, small_turn_vector
from tracker.priors import StatePrior
from tracker.smooth import QuadraticSmoother, WindowSmoother, create_smoother
from tracker.state import FaceState
from tracker.status import FrameStatus
from tracker.stream import FaceFrame, FrameQuadratic

CONFIG = SmoothingConfig(method="quadratic")
WINDOW = SmoothingConfig(method="window")
PRIOR = StatePrior(np.zeros(16), np.ones(16), np.full(16, -5.0), np.full(16, 5.0))
STIFFNESS = 1e3


def face_frame(seconds: float, value: float, *, is_continuous: bool = True) -> FaceFrame:
    """Return a tracked frame all of whose numbers are ``value``."""
    state = FaceState(
        rotation_matrix(np.array([0.0, value, 0.0])), np.full(3, value), np.full(12, value), np.full(4, value)
    )
    quadratic = FrameQuadratic(STIFFNESS * np.eye(22), np.zeros(22), energy=1e9)
    return FaceFrame(FrameStatus.OK, seconds, is_continuous, state, 1.0, 50.0, 1.0, 3, quadratic)


def lost_frame(seconds: float) -> FaceFrame:
    """Return a frame without a face."""
    return FaceFrame(FrameStatus.LOST, seconds, False, None, float("nan"), float("nan"), 0.0, 0)


def smooth(frames: list[FaceFrame], config: SmoothingConfig = CONFIG) -> list[FaceFrame]:
    """Push all frames through a smoother."""
    smoother = create_smoother(config, PRIOR)
    out = [each for frame in frames for each in smoother.push(frame)]
    return out + smoother.flush()


def values(frames: list[FaceFrame]) -> np.ndarray:
    """Return one number of every frame."""
    return np.array([np.nan if frame.state is None else frame.state.expression[0] for frame in frames])


@pytest.mark.parametrize("config", [CONFIG, WINDOW])
@given(
    steps=st.lists(st.floats(0.005, 0.2), min_size=1, max_size=40),
    breaks=st.lists(st.integers(0, 39), max_size=4),
    lost=st.lists(st.integers(0, 39), max_size=4),
)
def test_every_frame_comes_out_once_in_order(config, steps, breaks, lost):
    times = np.cumsum(steps)
    frames = [
        lost_frame(t) if i in lost else face_frame(t, 0.1 * np.sin(t), is_continuous=i not in breaks and i > 0)
        for i, t in enumerate(times)
    ]
    out = smooth(frames, config)
    assert [frame.pts_seconds for frame in out] == [frame.pts_seconds for frame in frames]
    assert [frame.status for frame in out] == [frame.status for frame in frames]


def test_motion_that_is_quadratic_in_time_is_kept():
    times = np.arange(30) / 30
    frames = [face_frame(t, 0.3 * t + 0.2 * t**2, is_continuous=i > 0) for i, t in enumerate(times)]
    out = smooth(frames)
    np.testing.assert_allclose(values(out), values(frames), atol=1e-9)
    np.testing.assert_allclose(out[9].state.translation, frames[9].state.translation, atol=1e-9)
    np.testing.assert_allclose(out[9].state.rotation, frames[9].state.rotation, atol=1e-9)


def test_variable_frame_rate_keeps_quadratic_motion():
    times = np.cumsum(np.random.default_rng(0).uniform(0.008, 0.05, 40))
    frames = [face_frame(t, 0.1 - 0.4 * t + 0.2 * t**2, is_continuous=i > 0) for i, t in enumerate(times)]
    np.testing.assert_allclose(values(smooth(frames)), values(frames), atol=1e-9)


@pytest.mark.parametrize("config", [CONFIG, WINDOW])
def test_noise_is_lowered(config):
    noise = np.random.default_rng(0).normal(size=200)
    frames = [face_frame(i / 30, 0.01 * n, is_continuous=i > 0) for i, n in enumerate(noise)]
    assert values(smooth(frames, config)).std() < 0.7 * values(frames).std()


@pytest.mark.parametrize("config", [CONFIG, WINDOW])
def test_a_break_stays_sharp(config):
    frames = [face_frame(i / 30, 0.0 if i < 10 else 1.0, is_continuous=i not in (0, 10)) for i in range(20)]
    np.testing.assert_allclose(values(smooth(frames, config)), values(frames), atol=1e-9)


@pytest.mark.parametrize("config", [CONFIG, WINDOW])
def test_zero_half_width_switches_smoothing_off(config):
    frames = [face_frame(i / 30, float(np.sin(i)), is_continuous=i > 0) for i in range(12)]
    np.testing.assert_array_equal(values(smooth(frames, replace(config, half_width_seconds=0.0))), values(frames))


@pytest.mark.parametrize("config", [CONFIG, WINDOW, replace(WINDOW, max_lag_frames=0)])
@pytest.mark.parametrize("rate", [10, 30, 240])
def test_frames_are_held_back_no_longer_than_allowed(config, rate):
    smoother = create_smoother(config, PRIOR)
    num_out = 0
    for i in range(60):
        num_out += len(smoother.push(face_frame(i / rate, 0.0, is_continuous=i > 0)))
        assert i + 1 - num_out <= config.max_lag_frames


def test_the_method_is_chosen_by_name():
    assert isinstance(create_smoother(CONFIG, PRIOR), QuadraticSmoother)
    assert isinstance(create_smoother(WINDOW, PRIOR), WindowSmoother)
    with pytest.raises(InputError, match="smoothing.method.*'kalman'.*" + ", ".join(SMOOTHING_METHODS)):
        create_smoother(SmoothingConfig(method="kalman"), PRIOR)


def test_what_only_the_smoother_needs_does_not_come_out():
    frames = [face_frame(i / 30, 0.0, is_continuous=i > 0) for i in range(20)]
    assert all(frame.quadratic is None for frame in smooth(frames, WINDOW))


def test_sure_frames_move_less_than_doubtful_ones():
    frames = [face_frame(i / 30, 0.1 * (i % 2), is_continuous=i > 0) for i in range(20)]
    sure = FrameQuadratic(1e6 * np.eye(22), np.zeros(22), energy=1e9)
    frames[10] = replace(frames[10], quadratic=sure)
    moved = np.abs(values(smooth(frames, WINDOW)) - values(frames))
    assert moved[10] < 0.1 * moved[[6, 8, 12, 14]].min()


def test_what_is_quicker_than_expected_is_left_with_its_evidence():
    frames = [face_frame(i / 12, 0.5 * (i % 2), is_continuous=i > 0) for i in range(20)]
    energy = 10.0
    frames = [replace(frame, quadratic=replace(frame.quadratic, energy=energy)) for frame in frames if frame.quadratic]
    smoothed = smooth(frames, WINDOW)
    for before, after in zip(frames, smoothed, strict=True):
        assert before.state is not None and after.state is not None and before.quadratic is not None
        turn = small_turn_vector(after.state.rotation @ before.state.rotation.T)
        step = (turn, after.state.translation - before.state.translation, after.state.values - before.state.values)
        assert before.quadratic.rise(np.concatenate(step)) <= energy * 1.01
    assert values(smoothed).std() > 0.5 * values(frames).std()


def test_bounds_hold():
    tight = replace(PRIOR, lower=np.zeros(16))
    rng = np.random.default_rng(0)
    frames = [face_frame(i / 30, float(max(0.0, 0.05 * rng.normal())), is_continuous=i > 0) for i in range(60)]
    smoother = create_smoother(WINDOW, tight)
    out = [each for frame in frames for each in smoother.push(frame)] + smoother.flush()
    assert values(out).min() >= 0.0


def test_the_window_does_not_depend_on_how_the_frames_are_handed_in():
    """A lag of half a second and more changes next to nothing."""
    rng = np.random.default_rng(1)
    frames = [face_frame(i / 30, 0.02 * rng.normal(), is_continuous=i > 0) for i in range(60)]
    short, long = (values(smooth(frames, replace(WINDOW, max_lag_frames=lag))) for lag in (15, 59))
    np.testing.assert_allclose(short, long, atol=1e-3)
