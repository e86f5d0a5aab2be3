"""Scouting: times, people told apart, first poses, keyframes, and an identity that comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import Config, override
from flame.surface import SurfaceRig
from priors.evidence import FaceEvidence, FaceRegion
from tests.tracker.face_clips import portrait, wall
from tests.tracker.scripted_faces import FACING, VIEW, evidence_of, pose
from tracker import clip
from tracker.camera_guess import CameraFreedom, GivenCamera, guess_camera
from tracker.clip import Span, Toolkit, cast, identify, probe, scout
from tracker.scout import (
    Glimpse,
    choose_keyframes,
    group_by_person,
    initial_state,
    interocular_px,
    nobody,
    solve_person,
    spread_seconds,
)
from tracker.solver import fit_frame
from tracker.state import FaceState, View
from tracker.terms import whiten


@pytest.fixture(scope="module")
def model(toolkit):
    """Return the commons head as the solver needs it, without what is known of one detector's habits."""
    return replace(toolkit.model, identity_anchor=None)


def seen_at(x: float, y: float = 0.0, size: float = 100.0, seconds: float = 0.0) -> Glimpse:
    """Return a glimpse of a face at a place."""
    nothing = np.zeros((0, 2))
    region = FaceRegion((x, y), size, 0.0)
    return Glimpse(FaceEvidence(nothing, nothing, nothing, 1.0, 1.0, region, np.zeros(0)), seconds, VIEW)


def look(toolkit: Toolkit, path: Path, span: Span | None = None, max_people: int = 1) -> list[list[Glimpse]]:
    """Scout a source whose camera nobody knows."""
    info = probe(path)
    return scout(toolkit, info, span or Span(), max_people, guess_camera(info, Config().regularization))


def columns(people: list[list[Glimpse]]) -> list[list[float]]:
    return [[glimpse.evidence.region.center_px[0] for glimpse in person] for person in people]


# Times


@given(start=st.floats(0, 100), length=st.floats(0.01, 1000), num_frames=st.integers(1, 100_000))
def test_times_are_spread_over_the_range(start, length, num_frames):
    config = Config()
    times = spread_seconds(start, start + length, num_frames, config)
    assert 1 <= len(times) <= min(config.scout.candidates, num_frames)
    assert all(start <= time <= start + length for time in times) and times == sorted(times)


def test_a_range_of_frames_is_scouted_inside_only(toolkit, face_clip, monkeypatch):
    asked = []
    real = clip.read_frames_at
    monkeypatch.setattr(clip, "read_frames_at", lambda info, seconds: asked.extend(seconds) or real(info, seconds))
    look(toolkit, face_clip, Span(start_seconds=0.5, end_seconds=1.0))
    look(toolkit, face_clip, Span(start_seconds=0.5, max_frames=3))
    assert asked and all(0.5 <= seconds < 1.0 for seconds in asked) and asked[-1] < 0.75


# People


def test_people_are_told_apart_by_place():
    frames = [[seen_at(100 + 10 * i), seen_at(600 - 10 * i, size=80)] for i in range(5)]
    assert columns(group_by_person(frames, 2)) == [[100, 110, 120, 130, 140], [600, 590, 580, 570, 560]]


def test_a_far_jump_is_somebody_else():
    frames = [[seen_at(0)], [seen_at(1000)], [seen_at(1010)]]
    assert columns(group_by_person(frames, 2)) == [[1000, 1010], [0]]


def test_the_largest_and_most_seen_come_first():
    frames = [[seen_at(0, size=50), seen_at(500, size=40)], [seen_at(500, size=40)], [seen_at(500, size=40)]]
    assert columns(group_by_person(frames, 1)) == [[500, 500, 500]]
    assert columns(group_by_person(frames, 9)) == [[500, 500, 500], [0]]


def test_nobody_is_no_group():
    assert group_by_person([], 3) == [] == group_by_person([[], []], 3)


def test_two_faces_of_one_frame_are_two_people():
    assert len(group_by_person([[seen_at(0), seen_at(10)]], 5)) == 2


# First poses


@pytest.mark.parametrize("turn", [(0, 0, 0), (0, 0.5, 0), (0.4, 0, 0), (0, 0, 1.2), (0.2, -0.6, 3.0)])
def test_a_pose_is_recovered(model, turn):
    truth = pose(model.rig, turn, (0.1, -0.05, 0.9))
    state = initial_state(model.rig, evidence_of(model.rig, truth), VIEW)
    np.testing.assert_allclose(state.rotation, truth.rotation, atol=1e-4)
    np.testing.assert_allclose(state.translation, truth.translation, atol=1e-4)


def test_points_that_say_nothing_are_not_asked(model):
    truth = pose(model.rig, (0, 0.3, 0))
    evidence = evidence_of(model.rig, truth)
    evidence.points_px[:40] += 300
    evidence.sigma_px[:40] = np.inf
    state = initial_state(model.rig, evidence, VIEW)
    np.testing.assert_allclose(state.rotation, truth.rotation, atol=1e-4)


@pytest.mark.parametrize("num_left", [0, 1, 3, 5])
def test_with_too_few_points_the_face_looks_at_the_camera(model, num_left):
    evidence = evidence_of(model.rig, pose(model.rig, at_m=(0.1, 0, 0.8)))
    evidence.sigma_px[num_left:] = np.inf
    state = initial_state(model.rig, evidence, VIEW)
    np.testing.assert_array_equal(state.rotation, FACING)
    np.testing.assert_allclose(state.translation, (0.1, 0, 0.8), atol=0.1)


def test_points_in_one_place_give_a_pose_in_front_of_the_camera(model):
    evidence = evidence_of(model.rig, pose(model.rig))
    state = initial_state(model.rig, replace(evidence, points_px=np.full_like(evidence.points_px, 100.0)), VIEW)
    assert np.isfinite(state.rotation).all() and state.translation[2] > 0


def test_the_distance_of_the_eyes_does_not_depend_on_the_turn(model):
    frontal = interocular_px(model.rig, pose(model.rig), VIEW)
    assert frontal == interocular_px(model.rig, pose(model.rig, (0, 0.8, 0)), VIEW)
    assert 0.055 < frontal / 900 * 0.7 < 0.075
    assert interocular_px(model.rig, pose(model.rig, at_m=(0, 0, 1.4)), VIEW) == pytest.approx(frontal / 2)


# Keyframes


def fits_of(model, states: list[FaceState], glimpses: list[Glimpse]):
    config = model.config.solver
    return [
        fit_frame(model.rig, whiten(each.evidence), state, model.prior, VIEW, config, 1)
        for state, each in zip(states, glimpses, strict=True)
    ]


def test_keyframes_are_spread_and_different(model):
    turns = [0.0, 0.01, 0.02, 0.03, 0.6, 0.61, -0.6]
    states = [pose(model.rig, (0, turn, 0)) for turn in turns]
    glimpses = [Glimpse(evidence_of(model.rig, state), 0.0, VIEW) for state in states]
    fits = fits_of(model, states, glimpses)
    chosen = choose_keyframes(fits, glimpses, 3)
    assert len({round(turns[index], 1) for index in chosen}) == 3
    assert choose_keyframes(fits, glimpses, 99) == list(range(7))


@pytest.mark.parametrize("visibility", [0.0, 1.0])
def test_no_keyframe_is_chosen_twice(model, visibility):
    states = [pose(model.rig)] * 4
    glimpses = [Glimpse(evidence_of(model.rig, state, visibility=visibility), 0.0, VIEW) for state in states]
    assert len(set(choose_keyframes(fits_of(model, states, glimpses), glimpses, 3))) == 3


def test_a_frame_that_is_hardly_seen_is_not_the_first_choice(model):
    states = [pose(model.rig)] * 3
    glimpses = [
        Glimpse(evidence_of(model.rig, state, visibility=visibility), 0.0, VIEW)
        for state, visibility in zip(states, (0.2, 1.0, 0.2), strict=True)
    ]
    assert choose_keyframes(fits_of(model, states, glimpses), glimpses, 1) == [1]


# Identity


def test_an_identity_comes_back(model):
    coefficients = np.zeros(model.rig.num_shapes)
    coefficients[:8] = np.random.default_rng(3).normal(size=8)
    truth = model.rig.with_shape(coefficients)
    turns = [(0, 0, 0), (0, 0.5, 0), (0, -0.5, 0), (0.3, 0, 0), (-0.3, 0.2, 0.1)]
    states = [pose(truth, turn, jaw_rad=0.1 * index) for index, turn in enumerate(turns)]
    glimpses = [Glimpse(evidence_of(truth, state, noise_px=0.3), 0.0, VIEW) for state in states]
    person = solve_person(model, glimpses)
    assert person.log_zoom == pytest.approx(0, abs=1e-9) and person.num_keyframes == 5
    assert person.residual_percent < 1.5

    error = shape_error(model.rig.with_shape(person.shape), truth)
    assert error < 0.6 * shape_error(model.rig, truth) and error < 2.5e-3


def shape_error(found: SurfaceRig, truth: SurfaceRig) -> float:
    """Return the mean distance of two neutral faces, metres, apart from their place and size."""
    points = [rig.pose(np.zeros(12), np.zeros(rig.num_expressions)).points_head for rig in (found, truth)]
    points = [each - each.mean(axis=0) for each in points]
    scale = (points[0] * points[1]).sum() / (points[0] ** 2).sum()
    return float(np.linalg.norm(scale * points[0] - points[1], axis=1).mean())


class Expectation:
    """Expect one identity, whoever is seen, and remember in what."""

    def __init__(self, shape: np.ndarray) -> None:
        self.shape, self.asked = shape, []

    def __call__(self, frames: list[FaceEvidence]) -> np.ndarray:
        self.asked += frames
        return self.shape if frames else np.zeros_like(self.shape)


def test_fitting_begins_at_the_identity_that_is_expected(model):
    coefficients = np.random.default_rng(4).normal(size=model.rig.num_shapes)
    truth = model.rig.with_shape(coefficients)
    glimpses = [Glimpse(evidence_of(truth, pose(truth, (0, turn, 0))), 0.0, VIEW) for turn in (-0.4, 0.0, 0.4)]
    expecting = replace(model, identity_anchor=Expectation(coefficients))
    person = solve_person(expecting, glimpses)
    # Of the evidence nothing is left to explain, so nothing is changed: not even what no camera sees.
    np.testing.assert_allclose(person.shape, coefficients, atol=2e-3)
    assert person.residual_percent < 0.01 < solve_person(model, glimpses).residual_percent


def test_what_is_expected_gives_way_to_evidence(model):
    expected = np.zeros(model.rig.num_shapes)
    expected[:6] = 0.8
    glimpses = [Glimpse(evidence_of(model.rig, pose(model.rig, (0, turn, 0))), 0.0, VIEW) for turn in (-0.4, 0.4)]
    person = solve_person(replace(model, identity_anchor=Expectation(expected)), glimpses)
    assert shape_error(model.rig.with_shape(person.shape), model.rig) < 0.6 * shape_error(
        model.rig.with_shape(expected), model.rig
    )


def test_four_frames_of_an_expected_identity_count_as_two(model):
    expected = np.zeros(model.rig.num_shapes)
    expected[:6] = 0.8
    model = replace(model, identity_anchor=Expectation(expected))
    looser = replace(model, config=override(model.config, [f"regularization.identity={0.2 * 2**0.5}"]))
    glimpse = Glimpse(evidence_of(model.rig, pose(model.rig)), 0.0, VIEW)
    four = solve_person(model, [glimpse] * 4).shape
    np.testing.assert_allclose(four, solve_person(looser, [glimpse]).shape, atol=0.02)
    assert np.linalg.norm(four - expected) > np.linalg.norm(solve_person(model, [glimpse]).shape - expected)


def test_an_identity_is_not_expected_of_faces_that_are_hardly_seen(model):
    seen = [(1.0, 1.0), (0.7, 1.0), (1.0, 0.3), (0.95, 0.8)]
    state = pose(model.rig)
    faces = [evidence_of(model.rig, state, presence=presence, visibility=visible) for presence, visible in seen]
    expectation = Expectation(np.ones(model.rig.num_shapes))
    solve_person(replace(model, identity_anchor=expectation), [Glimpse(face, 0.0, VIEW) for face in faces])
    assert [(face.presence, face.visibility) for face in expectation.asked] == [seen[0], seen[3]]


def test_the_shipped_head_has_an_anchor(toolkit, model):
    assert toolkit.model.identity_anchor is not None and model.identity_anchor is None


def test_a_known_focal_length_stays(model):
    glimpses = [Glimpse(evidence_of(model.rig, pose(model.rig, (0, turn, 0))), 0.0, VIEW) for turn in (0.0, 0.4)]
    assert solve_person(model, glimpses).log_zoom == pytest.approx(0, abs=1e-9)


def test_one_glimpse_is_enough_for_a_person(model):
    person = solve_person(
        model, [Glimpse(evidence_of(model.rig, pose(model.rig)), 0.0, VIEW)], CameraFreedom(0.05, 0.0)
    )
    assert person.num_keyframes == 1 and np.isfinite(person.shape).all()


def test_the_camera_of_the_first_person_serves_all(toolkit, model):
    view = View(VIEW.focal_px * 0.8, VIEW.center_px)
    people = [
        [
            Glimpse(evidence_of(model.rig, pose(model.rig, (0, turn, 0), (x, 0, 0.5)), view=VIEW), 0.0, view)
            for turn in (0, 0.5)
        ]
        for x in (-0.1, 0.1)
    ]
    first, second = identify(toolkit, people, CameraFreedom(0.05, 0.0))
    assert first.log_zoom > 0 and second.log_zoom == pytest.approx(0, abs=1e-9)


def test_nobody_is_an_average_person(toolkit, model, face_clip):
    camera = guess_camera(probe(face_clip), Config().regularization, GivenCamera(fov_degrees=40.0))
    people = cast(toolkit, (), camera)
    assert len(people.people) == 1
    assert not people.people[0].shape.any() and people.people[0].num_keyframes == 0
    assert nobody(model).shape.shape == (toolkit.head.num_shape,)
    assert people.intrinsics.fov_degrees == pytest.approx(40)


# With real pictures


def test_scouting_a_folder_and_an_image(toolkit, tmp_path):
    (tmp_path / "frames").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "frames" / f"{index}.png"), portrait(index)[..., ::-1])
    people = look(toolkit, tmp_path / "frames")
    assert len(people) == 1 and len(people[0]) == 1
    people = look(toolkit, tmp_path / "frames" / "0.png", max_people=3)
    assert len(people) == 1 and people[0][0].pts_seconds == 0
    cv2.imwrite(str(tmp_path / "wall.png"), wall())
    assert look(toolkit, tmp_path / "wall.png") == []
