"""Collecting frames: what goes in comes out of the track, in the same place."""

from __future__ import annotations

import numpy as np
import pytest

from flame.camera import Intrinsics
from flame.rotation_kernels import rotation_matrix
from tracker.recorder import Recorder
from tracker.scout import Person
from tracker.state import FaceState
from tracker.status import FrameStatus
from tracker.stream import FaceFrame

CAMERA = Intrinsics(800.0, 810.0, 320.0, 240.0, 640, 480)
NAN = float("nan")


def person(seed: int, count: int) -> Person:
    return Person(np.random.default_rng(seed).normal(size=count), 4, 1.0, 0.0)


def face(seed: int, num_expressions: int) -> FaceFrame:
    """Return a tracked face with random parameters."""
    rng = np.random.default_rng(seed)
    state = FaceState(
        rotation_matrix(rng.normal(size=3)), rng.normal(size=3), rng.normal(size=12), rng.normal(size=num_expressions)
    )
    return FaceFrame(FrameStatus.OK, 0.0, True, state, 0.5 + seed, 60.0 + seed, 0.9, 3)


def lost() -> FaceFrame:
    return FaceFrame(FrameStatus.LOST, 0.0, False, None, NAN, NAN, 0.0, 0)


@pytest.fixture
def recorder(toy_head):
    """Return a recorder of two people."""
    people = [person(seed, toy_head.num_shape) for seed in (1, 2)]
    return Recorder("toy.npz", toy_head, people, CAMERA)


def test_numbers_come_out_where_they_went_in(recorder, toy_head):
    count = toy_head.num_expression
    faces = [[face(10 * p + t, count) for p in range(2)] for t in range(3)]
    for index, row in enumerate(faces):
        recorder.add(100 + index, 0.5 * index, row)
    track = recorder.track({"source": {}})
    assert (len(recorder), len(track), track.num_people) == (3, 3, 2)
    assert track.frame_index.tolist() == [100, 101, 102] and track.pts_seconds.tolist() == [0.0, 0.5, 1.0]
    for t, row in enumerate(faces):
        for p, each in enumerate(row):
            state = each.state
            np.testing.assert_allclose(track.cam_from_head(t, p)[:3, :3], state.rotation, atol=1e-12)
            np.testing.assert_array_equal(track.translation[p, t], state.translation)
            joints = np.concatenate([getattr(track, name)[p, t] for name in ("neck", "jaw", "left_eye", "right_eye")])
            np.testing.assert_array_equal(joints, state.joint_angles.astype(np.float32))
            np.testing.assert_array_equal(track.expression[p, t], state.expression.astype(np.float32))
            assert track[t].faces[p].residual_px == pytest.approx(each.residual_px)


def test_identity_is_that_of_the_people(recorder, toy_head):
    track = recorder.track({})
    np.testing.assert_allclose(track.identity[1], person(2, toy_head.num_shape).shape, rtol=1e-6)
    assert track.identity.dtype == np.float32


def test_frames_without_a_face_are_not_a_number(recorder, toy_head):
    recorder.add(0, 0.0, [face(0, toy_head.num_expression), lost()])
    track = recorder.track({})
    assert track.status.tolist() == [[FrameStatus.OK], [FrameStatus.LOST]]
    assert track.is_tracked.tolist() == [[True], [False]]
    for name in ("expression", "neck", "jaw", "left_eye", "right_eye", "rotation", "translation", "residual_px"):
        assert np.isfinite(getattr(track, name)[0]).all(), name
        assert np.isnan(getattr(track, name)[1]).all(), name


def test_a_track_may_be_taken_at_any_moment(recorder, toy_head):
    empty = recorder.track({})
    assert len(empty) == 0 and empty.expression.shape == (2, 0, toy_head.num_expression)
    recorder.add(0, 0.0, [lost(), lost()])
    first = recorder.track({})
    recorder.add(1, 0.1, [lost(), lost()])
    assert (len(first), len(recorder.track({}))) == (1, 2)
    assert first.head_hash == toy_head.content_hash
