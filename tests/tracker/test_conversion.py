"""Tracks on other heads: same head, the commons head in disguise and back, no jaw, lost frames, several people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame.correspondence import load_correspondence
from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from flame.saving import save_flame_pkl
from tests.disguised_head import disguised, without_jaw
from tests.tracker.export.tracks import small_track
from tracker.conversion import Conversion, convert_track
from tracker.conversion.face_fit import shortest_turn
from tracker.result import Track

LOST = ((0, 3), (1, 0), (1, 5))


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Iterator[Path]:
    """Keep correspondences out of the user's own cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def track(commons) -> Track:
    """Return two people, lost now and then, whose expressions have the size that real ones have."""
    made = small_track(people=2, frames=6, lost=LOST)
    smaller = replace(made, identity=0.5 * made.identity, expression=0.5 * made.expression)
    vars(smaller)["head_model"] = commons
    return smaller


@pytest.fixture(scope="module")
def there(track, commons, cache) -> Conversion:
    return convert_track(track, disguised(commons)[0])


@pytest.fixture(scope="module")
def back(there, commons) -> Conversion:
    return convert_track(there.track, commons)


def tracked(track: Track) -> list[tuple[int, int]]:
    return [(int(frame), int(person)) for person, frame in np.argwhere(track.is_tracked)]


def gaze(track: Track) -> np.ndarray:
    """Return where the eyes look in camera space (2, P, T, 3)."""
    turn = matrix_from_axis_angle(track.rotation) @ matrix_from_axis_angle(track.neck.astype(float))
    eyes = [matrix_from_axis_angle(eye.astype(float)) for eye in (track.left_eye, track.right_eye)]
    return np.stack([(turn @ eye)[..., 2] for eye in eyes])


def test_a_track_that_is_on_the_head_already_stays(track, commons):
    same = convert_track(track, "commons")
    for name in ("identity", "expression", "jaw", "rotation", "translation"):
        np.testing.assert_array_equal(getattr(same.track, name), getattr(track, name))
    assert np.array_equal(np.isnan(same.error_mm), ~track.is_tracked) and np.nanmax(same.error_mm) == 0
    assert same.people[0].median_mm == 0 and same.track.info == track.info


def test_the_commons_head_as_a_flame_file_and_back_is_exact(track, commons, cache, tmp_path):
    path = tmp_path / "flame.pkl"
    save_flame_pkl(commons, path)
    there = convert_track(track, path)
    assert there.track.head == str(path) and there.track.expression.shape[-1] == 100
    assert np.nanmax(there.error_mm) < 0.02 and there.track.expression_names == ()
    back = convert_track(there.track, commons)
    assert back.track.head == "commons" and np.nanmax(back.error_mm) < 0.02
    for person in range(2):
        before, after = track.arkit(person), back.track.arkit(person)
        for name, values in before.items():
            np.testing.assert_allclose(after[name], values, atol=0.01, err_msg=name)


def test_a_head_of_another_mesh_follows(there, track):
    assert np.array_equal(np.isnan(there.error_mm), ~track.is_tracked)
    assert np.nanmean(there.error_mm) < 0.35 and np.nanmax(there.error_mm) < 0.5
    for person, error in enumerate(there.people):
        assert 0 < error.median_mm < error.p95_mm < 1.0
        assert error.reprojection_px == pytest.approx(np.nanmean(there.error_px[person]), rel=1e-3)
    assert np.nanmax(there.error_px) < 0.5


def test_the_errors_are_those_of_the_vertices(there, track, commons, cache):
    pairs = load_correspondence(commons, there.track.head_model)
    face = np.flatnonzero(pairs.is_face)
    for frame, person in tracked(track)[:3]:
        before = pairs.source.take(face).on(track.vertices(frame, person), commons.faces.numpy())
        after = pairs.target.take(face).on(there.track.vertices(frame, person), there.track.head_model.faces.numpy())
        apart_mm = 1e3 * np.linalg.norm(after - before, axis=1).mean()
        assert there.error_mm[person, frame] == pytest.approx(apart_mm, abs=2e-3)


def test_there_and_back_again(back, track, commons):
    face = commons.topology.region("face")
    for frame, person in tracked(track):
        apart = back.track.vertices(frame, person)[face] - track.vertices(frame, person)[face]
        assert 1e3 * np.linalg.norm(apart, axis=1).mean() < 0.15
    for person in range(2):
        before, after = track.arkit(person), back.track.arkit(person)
        apart = {name: float(np.nanmean(np.abs(after[name] - before[name]))) for name in before}
        # The tongue of one mesh has no place on another.
        assert apart.pop("tongueOut") > 0.1
        assert np.mean(list(apart.values())) < 0.01 and max(apart.values()) < 0.05, apart


def test_eyes_look_where_they_looked(there, track):
    cosine = (gaze(there.track) * gaze(track)).sum(axis=-1)
    assert np.nanmin(cosine) > np.cos(np.radians(0.1))


def test_what_is_not_the_head_s_stays(there, track):
    for name in ("status", "frame_index", "pts_seconds", "presence", "residual_px"):
        np.testing.assert_array_equal(getattr(there.track, name), getattr(track, name))
    assert there.track.intrinsics == track.intrinsics
    for name in ("expression", "neck", "jaw", "left_eye", "right_eye", "rotation", "translation"):
        values = getattr(there.track, name)
        assert values.dtype == getattr(track, name).dtype, name
        assert np.array_equal(np.isnan(values).any(axis=-1), ~track.is_tracked), name


def test_it_tells_where_it_comes_from(there, back, track, tmp_path):
    origin = there.track.info["converted_from"]
    assert (origin["head"], origin["head_hash"]) == ("commons", track.head_hash)
    assert origin["people"][1]["median_mm"] == pytest.approx(there.people[1].median_mm)
    assert back.track.info["converted_from"]["converted_from"] == origin
    back.track.save(tmp_path)
    loaded = Track.load(tmp_path)
    assert loaded.info == json.loads(json.dumps(back.track.info))
    np.testing.assert_array_equal(loaded.vertices(1), back.track.vertices(1))


def test_the_correspondence_is_used_again(there, cache):
    assert len(list(cache.rglob("correspondence_*.npz"))) >= 1


def test_a_neutral_face_stays_neutral(track, commons, cache):
    joints = ("jaw", "neck", "left_eye", "right_eye")
    still = {name: np.zeros_like(getattr(track, name)) for name in ("expression", *joints)}
    calm = replace(track, **{name: np.where(track.is_tracked[..., None], zero, np.nan) for name, zero in still.items()})
    vars(calm)["head_model"] = commons
    plain = replace(commons, name="plain", shape_basis=commons.shape_basis[..., :20])
    converted = convert_track(calm, plain)
    # Few identities do not say who it is, and yet expressions do not make up for it.
    assert np.nanmin(converted.error_mm) > 0.1 and np.nanmax(np.abs(converted.track.expression)) < 0.02
    assert max(np.nanmax(np.abs(getattr(converted.track, name))) for name in joints) < 0.02


def test_a_head_without_jaw_follows_by_expression(track, commons, cache):
    converted = convert_track(track, without_jaw(commons))
    assert np.nanmax(np.abs(converted.track.jaw)) == 0
    assert np.nanmax(track.jaw) > 0.1 and np.nanmean(converted.error_mm) < 0.4
    back = convert_track(converted.track, commons)
    assert np.nanmean(np.abs(back.track.jaw - track.jaw)) < 0.02


def test_expressions_keep_their_bounds(track, commons, cache):
    tight = replace(
        commons,
        name="tight",
        expression_bounds=0.15 * commons.expression_bounds,
        shape_basis=commons.shape_basis[..., :150],
    )
    expression = convert_track(track, tight).track.expression
    assert np.nanmin(expression) >= 0 and np.nanmax(expression) == pytest.approx(0.15)
    assert np.nanmax(track.expression) > 0.25


def test_a_person_who_is_never_tracked_is_left_out(commons, there, tmp_path):
    lost = small_track(people=2, frames=2, lost=((1, 0), (1, 1)))
    converted = convert_track(lost, there.track.head_model)
    assert np.isnan(converted.people[1].median_mm) and not converted.track.identity[1].any()
    assert converted.track.info["converted_from"]["people"][1]["median_mm"] is None
    converted.track.save(tmp_path)


def test_progress_is_shown_for_every_person(there, track, commons):
    seen = []

    def show(frames, count, label):
        seen.append((count, label))
        return frames

    convert_track(there.track, commons, show_frames=show)
    assert seen == [(6, "person 0"), (6, "person 1")]


def test_heads_that_differ_too_much_are_refused(track, there):
    large = replace(there.track.head_model, name="large", template=10 * there.track.head_model.template)
    with pytest.raises(InputError, match="apart, 0.04 to 0.09 are allowed"):
        convert_track(track, large)


def test_the_shortest_turn():
    rng = np.random.default_rng(0)
    for start, end in rng.normal(size=(5, 2, 3)):
        start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
        turn = shortest_turn(start, end)
        np.testing.assert_allclose(matrix_from_axis_angle(turn) @ start, end, atol=1e-12)
        assert abs(turn @ start) < 1e-9
    assert not shortest_turn(start, start).any()
