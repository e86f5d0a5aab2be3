"""Streaming one person: poses follow, faces get lost and come back, breaks are told."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from flame.camera import Intrinsics
from tests.tracker.face_clips import portrait, wall, write_video
from tests.tracker.scripted_faces import VIEW, evidence_of, pose
from tracker.api import track
from tracker.camera_guess import guess_camera
from tracker.clip import Observation, Span, Toolkit, cast, identify, probe, scout, stream_clip
from tracker.faces import Sighting
from tracker.scout import nobody
from tracker.status import FrameStatus
from tracker.stream import FaceFrame, PersonStream

CAMERA = Intrinsics(VIEW.focal_px[0], VIEW.focal_px[1], VIEW.center_px[0], VIEW.center_px[1], 640, 480)
NOT_SEEN = Sighting(None, is_continuous=False)


@pytest.fixture
def stream(toolkit) -> PersonStream:
    """Return the stream of a person of average shape."""
    return PersonStream(nobody(toolkit.model), toolkit.model, CAMERA)


def turned(toolkit: Toolkit, index: int) -> list[float]:
    return [0.0, 0.3 * np.sin(index / 5), 0.0]


def sighting(toolkit: Toolkit, index: int, *, is_continuous: bool = True, **changes: float) -> Sighting:
    """Return a face that shakes its head, seen with half a pixel of noise."""
    state = pose(toolkit.model.rig, turned(toolkit, index))
    return Sighting(evidence_of(toolkit.model.rig, state, noise_px=0.5, seed=index, **changes), is_continuous)


def angle_degrees(first: np.ndarray, second: np.ndarray) -> float:
    """Return the angle between two rotations."""
    return float(np.degrees(np.arccos(np.clip((np.trace(first @ second.T) - 1) / 2, -1, 1))))


def test_a_head_is_followed(stream, toolkit):
    for index in range(12):
        face = stream.solve(sighting(toolkit, index, is_continuous=index > 0), index / 25)
        truth = pose(toolkit.model.rig, turned(toolkit, index))
        assert face.status is FrameStatus.OK and face.is_continuous == (index > 0)
        assert angle_degrees(face.state.rotation, truth.rotation) < 1.5
        np.testing.assert_allclose(face.state.translation, truth.translation, atol=0.012)
        assert 0.2 < face.residual_px < 1.2 and face.presence == 1.0


def test_a_face_that_was_never_seen_is_no_face(stream):
    for index in range(3):
        face = stream.solve(NOT_SEEN, index / 25)
        assert face.status is FrameStatus.NO_FACE and face.state is None and not face.is_continuous
        assert np.isnan(face.residual_px) and np.isnan(face.interocular_px) and face.presence == 0


def test_a_face_that_was_seen_is_lost_and_found_again(stream, toolkit):
    faces = [stream.solve(sighting(toolkit, 0, is_continuous=False), 0.0)]
    faces += [stream.solve(NOT_SEEN, index / 25) for index in (1, 2)]
    # A follower may say that it followed; without a solved frame before there is nothing to be continuous with.
    faces += [stream.solve(sighting(toolkit, 3), 3 / 25), stream.solve(sighting(toolkit, 4), 4 / 25)]
    assert [face.status.label for face in faces] == ["ok", "lost", "lost", "ok", "ok"]
    assert [face.is_continuous for face in faces] == [False, False, False, False, True]


def test_a_cut_is_a_break(stream, toolkit):
    stream.solve(sighting(toolkit, 0, is_continuous=False), 0.0)
    state = pose(toolkit.model.rig, (0, -0.7, 0.5), (0.1, 0.05, 0.5))
    cut = Sighting(evidence_of(toolkit.model.rig, state), is_continuous=False)
    face = stream.solve(cut, 0.04)
    assert not face.is_continuous and angle_degrees(face.state.rotation, state.rotation) < 1.5


def test_a_jump_that_the_follower_missed_starts_anew(stream, toolkit):
    stream.solve(sighting(toolkit, 0, is_continuous=False), 0.0)
    state = pose(toolkit.model.rig, (0, 0.2, 3.0), (0.1, 0.05, 0.9))
    face = stream.solve(Sighting(evidence_of(toolkit.model.rig, state), is_continuous=True), 0.04)
    assert angle_degrees(face.state.rotation, state.rotation) < 3 and face.status is FrameStatus.OK


@pytest.mark.parametrize("changes", [{"presence": 0.6}, {"visibility": 0.3}])
def test_a_doubtful_face_is_fitted_and_marked(stream, toolkit, changes):
    face = stream.solve(sighting(toolkit, 0, is_continuous=False, **changes), 0.0)
    assert face.status is FrameStatus.LOW_CONFIDENCE and face.state is not None


def test_points_that_say_nothing_break_nothing(stream, toolkit):
    seen = sighting(toolkit, 0, is_continuous=False)
    seen.evidence.sigma_px[:] = np.inf
    face = stream.solve(seen, 0.0)
    assert face.status is not FrameStatus.NO_FACE
    assert np.isfinite(face.state.translation).all() and np.isfinite(face.state.expression).all()


def frames_of(toolkit: Toolkit, path, span: Span | None = None) -> list[tuple[FaceFrame, ...]]:
    """Return the frames of a clip after scouting it."""
    span, info = span or Span(), probe(path)
    camera = guess_camera(info, toolkit.model.config.regularization)
    seen = scout(toolkit, info, span, 1, camera)
    people = identify(toolkit, seen, camera.freedom)
    with span.open(path) as source, contextlib.closing(Observation(source, toolkit)) as observation:
        observation.tell(seen)
        tracked = list(stream_clip(observation, toolkit, cast(toolkit, people, camera)))
    assert all(len(each.faces) == len(each.evidence) == 1 for each in tracked)
    assert [each.faces[0].pts_seconds for each in tracked] == [each.frame.pts_seconds for each in tracked]
    return [each.faces for each in tracked]


def test_every_frame_comes_out_once_and_in_order(toolkit, gap_clip):
    times = [faces[0].pts_seconds for faces in frames_of(toolkit, gap_clip)]
    np.testing.assert_allclose(times, np.arange(24) / 12, atol=1e-6)


def test_a_cut_to_another_place_is_told(toolkit, tmp_path):
    left, right = (np.concatenate(pair, axis=1) for pair in ((portrait(), wall()), (wall(), portrait())))
    path = write_video(tmp_path / "cut.mp4", [left] * 8 + [right] * 8)
    faces = [each[0] for each in frames_of(toolkit, path)]
    assert not faces[8].is_continuous and all(face.is_continuous for face in faces[1:8] + faces[9:])
    assert all(face.status is FrameStatus.OK for face in faces)
    assert faces[7].state.translation[0] < 0 < faces[8].state.translation[0]


def test_leaving_early_stops_the_threads_and_frees_the_source(toolkit, face_clip):
    camera = guess_camera(probe(face_clip), toolkit.model.config.regularization)
    with Span().open(face_clip) as source:
        observation = Observation(source, toolkit)
        observation.tell([])
        next(stream_clip(observation, toolkit, cast(toolkit, (), camera)))
        observation.close()
        assert len(list(source)) == 16


def test_leaving_before_scouting_has_ended_does_not_hang(toolkit, pair_clip):
    for max_people in (1, 2):
        with Span().open(pair_clip) as source:
            Observation(source, toolkit, max_people).close()


def test_watching_while_scouting_sees_the_same(toolkit, pair_clip):
    """Two faces are in doubt at the first frame, so that the watcher has to wait for what scouting says."""
    camera = guess_camera(probe(pair_clip), toolkit.model.config.regularization)
    seen = scout(toolkit, probe(pair_clip), Span(), 1, camera)
    found = []
    for is_early in (True, False):
        with Span().open(pair_clip) as source, contextlib.closing(Observation(source, toolkit)) as observation:
            time.sleep(0.3 if is_early else 0.0)
            observation.tell(seen)
            found.append([sightings[0].evidence.points_px for _, sightings in observation])
    np.testing.assert_array_equal(*found)


def test_one_of_two_people_may_be_lost_while_the_other_goes_on(tmp_path, toolkit):
    images = []
    for index in range(24):
        side = portrait(index, 24, is_mirrored=True) if index < 8 else wall()
        images.append(np.concatenate((portrait(index, 24), side), axis=1))
    clip = write_video(tmp_path / "leaving.mp4", images)
    tracked = track(clip, toolkit=toolkit, faces=2)
    assert len(tracked) == 24
    stays = int(tracked.is_tracked[:, -1].argmax())
    assert tracked.is_tracked[stays].all()
    assert tracked.is_tracked[1 - stays, :6].all() and not tracked.is_tracked[1 - stays, 16:].any()
