"""What is known of a camera: given before EXIF before what is usual, and what stays free of it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from configs.schema import RegularizationConfig
from flame.errors import InputError
from tests.tracker.face_clips import portrait, write_video
from tests.tracker.scripted_faces import VIEW, evidence_of, pose
from tests.tracker.test_exif import photo
from tracker import api
from tracker.camera_guess import HELD, CameraFreedom, GivenCamera, common_freedom, guess_camera
from tracker.frames import SourceInfo
from tracker.result import Track
from tracker.scout import Glimpse, solve_person

CONFIG = RegularizationConfig()
CLIP = SourceInfo(Path("clip.mp4"), "video", 1280, 720, Fraction(25), 10, 0.4)
PHOTO = replace(CLIP, kind="image", focal_px=1500.0)


def test_without_any_word_the_usual_camera_is_expected_and_free():
    guess = guess_camera(CLIP, CONFIG)
    assert guess.intrinsics.fov_degrees == pytest.approx(CONFIG.default_fov_degrees)
    assert (guess.intrinsics.cx, guess.intrinsics.cy) == (640, 360)
    assert (guess.focal_from, guess.center_from) == ("expected", "centre")
    assert guess.freedom == CameraFreedom(CONFIG.log_focal, 0.0)


def test_exif_is_known():
    guess = guess_camera(PHOTO, CONFIG)
    assert (guess.intrinsics.fx, guess.intrinsics.fy, guess.focal_from) == (1500, 1500, "EXIF")
    assert guess.freedom == HELD


@pytest.mark.parametrize("given_camera", [GivenCamera(fov_degrees=30), GivenCamera(focal_px=2388.45)])
@pytest.mark.parametrize("info", [CLIP, PHOTO])
def test_what_is_given_counts_before_exif(info, given_camera):
    guess = guess_camera(info, CONFIG, given_camera)
    assert guess.intrinsics.fov_degrees == pytest.approx(30, abs=1e-3)
    assert guess.focal_from == "given" and guess.freedom == HELD


@given(fov=st.floats(1, 170), width=st.integers(16, 5000), height=st.integers(16, 5000), aspect=st.fractions("1/2", 2))
def test_a_field_of_view_is_that_of_the_longer_side_whatever_the_pixels(fov, width, height, aspect):
    info = replace(CLIP, width=width, height=height, pixel_aspect_ratio=aspect)
    intrinsics = guess_camera(info, CONFIG, GivenCamera(fov_degrees=fov)).intrinsics
    assert intrinsics.fov_degrees == pytest.approx(fov)
    assert intrinsics.fy / intrinsics.fx == pytest.approx(float(aspect))


def test_the_principal_point_is_held_unless_it_is_let_go():
    free = replace(CONFIG, principal_point=0.05)
    assert guess_camera(CLIP, free).freedom.center_sigma_px == pytest.approx(64)
    guess = guess_camera(CLIP, free, GivenCamera(principal_point_px=(100.0, -20.0)))
    assert (guess.intrinsics.cx, guess.intrinsics.cy, guess.center_from) == (100, -20, "given")
    assert guess.freedom.center_sigma_px == 0


def test_one_correction_for_several_cameras_follows_the_surest():
    loose = guess_camera(CLIP, replace(CONFIG, principal_point=0.05))
    assert common_freedom([loose]) == loose.freedom
    assert common_freedom([loose, loose]) == CameraFreedom(CONFIG.log_focal, 0.0)
    assert common_freedom([loose, guess_camera(PHOTO, CONFIG)]) == common_freedom([]) == HELD


def test_a_description_says_what_was_solved():
    guess = guess_camera(CLIP, CONFIG)
    assert guess.describe(guess.intrinsics) == {
        "fov_degrees": pytest.approx(45),
        "focal_from": "expected",
        "principal_point_from": "centre",
    }
    corrected = guess.corrected(0.1, (3.0, -4.0))
    assert (corrected.cx, corrected.cy) == (643, 356)
    assert corrected.fx == pytest.approx(guess.intrinsics.fx * np.exp(0.1))
    assert {"solved"} == {guess.describe(corrected)[key] for key in ("focal_from", "principal_point_from")}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fov_degrees": 30, "focal_px": 900}, "both set the focal length"),
        ({"focal_px": 0}, "--focal 0: it must be above 0"),
        ({"focal_px": float("nan")}, "--focal nan"),
        ({"principal_point_px": (1.0, float("inf"))}, "--principal-point 1,inf"),
        ({"principal_point_px": (1.0,)}, "two numbers X,Y"),
    ],
)
def test_what_no_camera_is_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        api.Options(**values)


@pytest.mark.parametrize(
    ("given_camera", "message"),
    [
        (GivenCamera(focal_px=1e-5), "--focal 1e-05: with 1280 x 720 pixels that is a field of view of 180 degrees"),
        (GivenCamera(focal_px=1e7), "it must be from 0.1 to 170"),
        (GivenCamera(principal_point_px=(1e9, 0.0)), r"--principal-point 1e\+09,0: that is too far from a picture"),
        (GivenCamera(fov_degrees=20, principal_point_px=(640.0, -60000.0)), "too far"),
    ],
)
def test_what_is_no_camera_of_this_picture_is_refused(given_camera, message):
    with pytest.raises(InputError, match=message):
        guess_camera(CLIP, CONFIG, given_camera)


def test_a_crop_may_lie_far_from_the_optical_axis():
    assert guess_camera(CLIP, CONFIG, GivenCamera(principal_point_px=(-4000.0, 3000.0))).intrinsics.cx == -4000
    tiny = replace(CLIP, width=10, height=10)
    assert guess_camera(tiny, CONFIG, GivenCamera(focal_px=600.0)).intrinsics.fov_degrees < 1


# Recovery from exact correspondences

TURNS = [(0, 0, 0), (0, 0.6, 0), (0, -0.6, 0), (0.5, 0, 0), (-0.5, 0.3, 0), (0, 0, 1.5), (0.2, 0.2, -1.5), (0, 0, 3.0)]
PLACES = [(0, 0, 0.3), (0.05, 0.02, 0.35), (-0.06, 0.04, 0.4), (0.04, -0.06, 0.3), (-0.03, -0.05, 0.5)]


def views_of_one_camera(toolkit, log_zoom: float, shift_px: tuple[float, float]) -> list[Glimpse]:
    """Look at the mean face from near by with another camera than the expected one."""
    true_view = VIEW.zoomed(log_zoom).shifted(shift_px)
    states = [pose(toolkit.model.rig, turn, PLACES[index % len(PLACES)]) for index, turn in enumerate(TURNS)]
    return [Glimpse(evidence_of(toolkit.model.rig, state, view=true_view), 0.0, VIEW) for state in states]


def solved_camera(toolkit, glimpses: list[Glimpse], freedom: CameraFreedom):
    """Return what is found when many iterations may be spent."""
    config = toolkit.model.config
    patient = replace(config, scout=replace(config.scout, iterations=60))
    return solve_person(replace(toolkit.model, config=patient, identity_anchor=None), glimpses, freedom)


@pytest.mark.parametrize(("log_zoom", "shift_px"), [(0.15, (0.0, 0.0)), (-0.15, (0.0, 0.0)), (0.1, (25.0, -15.0))])
def test_a_free_camera_is_recovered_from_exact_views(toolkit, log_zoom, shift_px):
    center_sigma_px = 60.0 if any(shift_px) else 0.0
    glimpses = views_of_one_camera(toolkit, log_zoom, shift_px)
    person = solved_camera(toolkit, glimpses, CameraFreedom(0.5, center_sigma_px))
    assert person.log_zoom == pytest.approx(log_zoom, abs=0.01)
    assert person.center_shift_px == pytest.approx(shift_px, abs=1.5)


def test_a_held_camera_is_held_whatever_the_views_say(toolkit):
    person = solved_camera(toolkit, views_of_one_camera(toolkit, 0.1, (25.0, -15.0)), HELD)
    assert person.log_zoom == 0 and person.center_shift_px == (0, 0)


# Whole runs


@pytest.fixture(scope="module")
def photo_path(tmp_path_factory) -> Path:
    """Return a photograph of a face whose EXIF tells 50 mm."""
    return photo(tmp_path_factory.mktemp("photos") / "exif.jpg", Image.fromarray(portrait(size=384)), focal_35mm=50)


def test_exif_is_used_as_known(cli, photo_path, tmp_path):
    outcome = cli(photo_path, "-o", "out", "--no-overlay")
    assert outcome.status == 0 and "(from EXIF)" in outcome.out
    track = Track.load(tmp_path / "out")
    expected_px = 50 * np.hypot(384, 384) / np.hypot(36, 24)
    assert track.intrinsics.fx == pytest.approx(expected_px, rel=1e-9)
    assert track.info["camera"]["focal_from"] == "EXIF"


def test_a_focal_length_and_a_principal_point_are_kept(cli, photo_path, tmp_path):
    assert cli(photo_path, "-o", "out", "--no-overlay", "--focal", 700, "--principal-point", "150,210").status == 0
    track = Track.load(tmp_path / "out")
    found = track.intrinsics
    assert (found.fx, found.fy, found.cx, found.cy) == pytest.approx((700, 700, 150, 210))
    assert track.info["camera"]["focal_from"] == track.info["camera"]["principal_point_from"] == "given"


@pytest.mark.parametrize("text", ["960", "1,2,3", "a,b", "960x540"])
def test_a_principal_point_that_is_none_is_one_line(cli, photo_path, text):
    outcome = cli(photo_path, "--principal-point", text)
    assert outcome.status == 2 and f"'{text}' is not X,Y in pixels" in outcome.err and outcome.err.count("\n") == 1


def test_a_principal_point_left_of_the_picture_is_written_with_an_equals_sign(cli, photo_path):
    outcome = cli(photo_path, "--principal-point", "-10,200")
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert "expected one argument; one that begins with - is written --principal-point=VALUE" in outcome.err
    assert cli(photo_path, "-o", "out", "--no-overlay", "--principal-point=-10,200").status == 0


def test_an_unknown_camera_is_estimated(face_track):
    assert face_track.info["camera"]["focal_from"] == "solved"
    assert face_track.info["camera"]["principal_point_from"] == "centre"


def test_a_free_principal_point_moves(toolkit, photo_path):
    config = replace(toolkit.model.config, regularization=replace(CONFIG, principal_point=0.05))
    track = api.track(photo_path, toolkit=toolkit, config=config)
    assert track.info["camera"]["principal_point_from"] == "solved"
    assert 0 < np.hypot(track.intrinsics.cx - 192, track.intrinsics.cy - 192) < 60


def test_photos_of_one_person_keep_the_known_cameras(toolkit, photo_path, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", [portrait(index) for index in range(4)])
    options = api.Options(same_person=True)
    known, unknown = api.track_many([photo_path, clip], toolkit=toolkit, options=options)
    assert known.info["camera"]["focal_from"] == "EXIF"
    assert unknown.info["camera"]["focal_from"] == "expected"
    assert unknown.intrinsics.fov_degrees == pytest.approx(45)
    np.testing.assert_array_equal(known.identity, unknown.identity)
