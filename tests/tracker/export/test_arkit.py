"""ARKit curves: the columns and times of Live Link Face, exact values, signs of angles, lost frames, other heads."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import Config
from flame import load_head
from flame.arkit import ARKIT_NAMES, arkit_coefficients, expression_from_arkit
from flame.camera import Intrinsics, project
from flame.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from flame.saving import save_flame_pkl
from flame.surface import SurfacePoints, build_surface_rig
from tests.tracker.export.tracks import small_track
from tracker.export import export
from tracker.export.arkit import ANGLES, COEFFICIENTS, timecode
from tracker.priors import state_prior
from tracker.result import Track
from tracker.solver import fit_frame
from tracker.state import FaceState, View
from tracker.terms import Whitening

# The first line of recordings of the app.
HEADER = (
    "Timecode,BlendshapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,"
    "EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,"
    "EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,"
    "MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,"
    "MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,"
    "MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,"
    "BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,"
    "HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)
LENS = Intrinsics(900.0, 900.0, 320.0, 240.0, 640, 480)
FACING = np.diag((1.0, -1.0, -1.0))
OPPOSITES = (
    ("jawLeft", "jawRight"),
    *((f"eyeLookUp{side}", f"eyeLookDown{side}") for side in ("Left", "Right")),
    *((f"eyeLookIn{side}", f"eyeLookOut{side}") for side in ("Left", "Right")),
)


def read(path: Path) -> list[dict[str, str]]:
    """Read the file as Unreal's importer does: every row has as many cells as the header."""
    lines = path.read_text(encoding="ascii").splitlines()
    assert lines[0] == HEADER
    assert all(len([cell for cell in line.split(",") if cell]) == 63 for line in lines)
    return list(csv.DictReader(lines))


def seconds_of(code: str) -> float:
    """Return the time of a timecode as Unreal's importer does: FF.mmm are sixtieths of a second."""
    hours, minutes, seconds, frames = code.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(frames) / 60


def exported(tmp_path: Path, track: Track) -> list[dict[str, str]]:
    done = export(track, ["arkit"], tmp_path / "export")[0]
    assert done.paths == (done.folder / "arkit.csv",)
    return read(done.paths[0])


def some_coefficients(count: int, seed: int = 0, share: float = 0.4) -> np.ndarray:
    """Return coefficients (count, 52) of which some are active, and none together with its opposite."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((count, 52)) < share, rng.random((count, 52)), 0.0)
    for one, other in OPPOSITES:
        column = np.where(rng.random(count) < 0.5, ARKIT_NAMES.index(one), ARKIT_NAMES.index(other))
        values[np.arange(count), column] = 0.0
    return values


def changed(track: Track, **arrays) -> Track:
    """Return a copy with other arrays; the head need not be loaded again."""
    other = replace(track, **arrays)
    vars(other)["head_model"] = track.head_model
    return other


def with_coefficients(track: Track, values: np.ndarray) -> Track:
    expression, joints = expression_from_arkit(track.head_model, values)
    arrays = {"expression": expression, **joints}
    return changed(track, **{name: array[None].astype(np.float32) for name, array in arrays.items()})


def still(frames: int = 1) -> Track:
    """Return a neutral head that looks at the camera."""
    track = small_track(frames=frames)
    none = np.zeros((1, frames, 3))
    facing = np.tile(axis_angle_from_matrix(FACING), (1, frames, 1))
    neutral = {name: none.astype(np.float32) for name in ("neck", "jaw", "left_eye", "right_eye")}
    place = np.tile((0.0, 0.0, 0.6), (1, frames, 1))
    return changed(track, **neutral, expression=0 * track.expression, rotation=facing, translation=place)


def test_columns_are_those_of_the_app(tmp_path: Path):
    row = exported(tmp_path, small_track())[0]
    assert row["BlendshapeCount"] == "61" == str(len(COEFFICIENTS) + len(ANGLES))
    assert sorted(name.lower() for name in COEFFICIENTS) == sorted(name.lower() for name in ARKIT_NAMES)


def test_parameters_come_back_exactly(tmp_path: Path):
    values = some_coefficients(20)
    rows = exported(tmp_path, with_coefficients(small_track(frames=20), values))
    found = np.array([[float(row[name[0].upper() + name[1:]]) for name in ARKIT_NAMES] for row in rows])
    np.testing.assert_allclose(found, values, atol=1e-6)


@pytest.mark.parametrize(("sigma_px", "noise_px", "allowed"), [(0.01, 0.0, 1e-4), (0.5, 0.5, 0.05)])
def test_truth_is_recovered_through_the_solver(tmp_path: Path, sigma_px: float, noise_px: float, allowed: float):
    # 400 points of the face and the fronts of the eyes, seen exactly or half a pixel off; tongues are not seen.
    truth = some_coefficients(8, seed=1)
    truth[:, ARKIT_NAMES.index("tongueOut")] = 0
    track = with_coefficients(small_track(frames=8, intrinsics=LENS), truth)
    track = changed(track, identity=0 * track.identity, neck=0 * track.neck)
    model = track.head_model
    rng, faces = np.random.default_rng(0), model.faces.numpy()
    front = model.template.numpy()[faces].mean(1)[:, 2]
    parts = {name: model.topology.region_triangles(name) for name in ("face", "left_eye", "right_eye")}
    eyes = [parts[name][np.argsort(-front[parts[name]])[:8]] for name in ("left_eye", "right_eye")]
    triangles = np.concatenate((rng.choice(parts["face"], 400, replace=False), *eyes))
    rig = build_surface_rig(model, SurfacePoints(triangles, np.full((len(triangles), 3), 1 / 3)))
    config = Config()
    prior = state_prior(config.regularization, np.tile([0.0, 1.0], (rig.num_expressions, 1)))
    lens = track.intrinsics
    view = View(np.array((lens.fx, lens.fy)), np.array((lens.cx, lens.cy)))
    start = FaceState(FACING, np.array((0.0, 0.0, 0.6)), np.zeros(12), np.zeros(rig.num_expressions))
    found = np.zeros((8, 52))
    for frame in range(8):
        points = track.vertices(frame).astype(np.float64)[faces[triangles]].mean(axis=1)
        points_px = project(points, lens) + noise_px * rng.normal(size=(len(points), 2))
        state = start
        for sigma in (1.0, sigma_px):
            evidence = Whitening(points_px, np.tile(np.eye(2) / sigma, (len(points), 1, 1)))
            fit = fit_frame(rig, evidence, state, prior, view, replace(config.solver, tolerance=1e-12), 60)
            state = fit.state
        angles = dict(zip(("jaw", "left_eye", "right_eye"), state.joint_angles[3:].reshape(3, 3), strict=True))
        found[frame] = arkit_coefficients(model, state.expression, **angles)
    rows = exported(tmp_path, with_coefficients(track, found))
    written = np.array([[float(row[name[0].upper() + name[1:]]) for name in ARKIT_NAMES] for row in rows])
    assert np.abs(written - truth).mean() < allowed


@given(seconds=st.floats(0, 90_000))
def test_timecodes_keep_times_to_seventeen_microseconds(seconds: float):
    code = timecode(seconds)
    assert len(code) >= len("00:00:00:00.000")
    assert seconds_of(code) == pytest.approx(seconds, abs=0.5 / 60_000 + 1e-9)
    assert [int(part.split(".")[0]) < 60 for part in code.split(":")[1:]] == [True] * 3


def test_timecodes_count_sixtieths_whatever_the_rate(tmp_path: Path):
    assert timecode(0.0) == "00:00:00:00.000"
    assert timecode(1 / 24) == "00:00:00:02.500"
    assert timecode(0.9999999) == "00:00:01:00.000"
    assert timecode(3661 + 59.5 / 60) == "01:01:01:59.500"
    times = np.array((0.0, 0.04, 0.1, 0.3, 0.35, 0.7))
    rows = exported(tmp_path, replace(small_track(), pts_seconds=times))
    np.testing.assert_allclose([seconds_of(row["Timecode"]) for row in rows], times, atol=1e-5)


def test_a_clip_that_begins_before_its_clock_starts_at_zero(tmp_path: Path):
    rows = exported(tmp_path, small_track(first_seconds=-0.08))
    assert [seconds_of(row["Timecode"]) for row in rows[:3]] == pytest.approx([0, 0.04, 0.08], abs=1e-5)


@pytest.mark.parametrize("part", ["rotation", "neck"])
@pytest.mark.parametrize(
    ("axis", "column", "landmark", "moves"),
    # Turned to the person's left the nose moves to the picture's right, looking up it moves up; tilted to the person's
    # right the crown moves to the picture's left.
    [
        ((0, 1, 0), "HeadYaw", "nose", (1, 0)),
        ((-1, 0, 0), "HeadPitch", "nose", (0, -1)),
        ((0, 0, 1), "HeadRoll", "crown", (-1, 0)),
    ],
)
def test_heads_turn_as_the_picture_shows(tmp_path: Path, part: str, axis, column: str, landmark: str, moves):
    before = still()
    turn = 0.4 * np.array(axis, float)
    if part == "rotation":
        after = changed(before, rotation=axis_angle_from_matrix(FACING @ matrix_from_axis_angle(turn))[None, None])
    else:
        after = changed(before, neck=turn[None, None].astype(np.float32))
    template = before.head_model.template.numpy()
    is_eye = before.head_model.topology.region("eyes")
    place = {"nose": template[:, 2].argmax(), "crown": template[:, 1].argmax()}[landmark]

    def seen(track: Track) -> np.ndarray:
        points_px = project(track.vertices(0).astype(np.float64), track.intrinsics)
        return points_px[place] - points_px[is_eye].mean(axis=0)

    assert (seen(after) - seen(before)) @ moves > 3
    row = exported(tmp_path, after)[0]
    expected = dict.fromkeys(("HeadYaw", "HeadPitch", "HeadRoll"), 0.0) | {column: 0.4}
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("axis", "action", "column", "sign"),
    # As in recordings of the app: looking left LeftEyeYaw is negative, looking down the pitch is positive.
    [
        ((0, 1, 0), "EyeLookOutLeft", "LeftEyeYaw", -1),
        ((0, -1, 0), "EyeLookInLeft", "LeftEyeYaw", 1),
        ((1, 0, 0), "EyeLookDownLeft", "LeftEyePitch", 1),
        ((-1, 0, 0), "EyeLookUpLeft", "LeftEyePitch", -1),
    ],
)
def test_eyes_turn_with_their_coefficients(tmp_path: Path, axis, action: str, column: str, sign: int):
    gaze = matrix_from_axis_angle(0.2 * np.array(axis, float)) @ (0, 0, 1)
    toward = {"Out": (1, 0, 0), "In": (-1, 0, 0), "Down": (0, -1, 0), "Up": (0, 1, 0)}
    assert gaze @ toward[action.removeprefix("EyeLook").removesuffix("Left")] > 0.1
    turned = changed(still(), left_eye=(0.2 * np.array(axis, np.float32))[None, None])
    row = exported(tmp_path, turned)[0]
    active = {name for name in COEFFICIENTS if float(row[name]) > 1e-6}
    assert active == {action}
    assert float(row[column]) == pytest.approx(0.2 * sign, abs=1e-6)
    assert all(float(row[name]) == pytest.approx(0, abs=1e-6) for name in ANGLES if name != column)


def test_a_gaze_without_torsion_has_the_roll_of_recordings(tmp_path: Path):
    gaze = matrix_from_axis_angle(np.array((0, 0.36, 0))) @ matrix_from_axis_angle(np.array((-0.17, 0, 0)))
    row = exported(tmp_path, changed(still(), left_eye=axis_angle_from_matrix(gaze)[None, None].astype(np.float32)))[0]
    yaw, pitch, roll = (float(row[f"LeftEye{name}"]) for name in ("Yaw", "Pitch", "Roll"))
    assert yaw < 0 and pitch < 0
    assert math.tan(roll) == pytest.approx(math.tan(pitch) * math.sin(yaw), abs=1e-6)


def test_lost_frames_have_no_row(tmp_path: Path):
    done = export(small_track(lost=((0, 0), (0, 3))), ["arkit"], tmp_path)[0]
    rows = read(done.paths[0])
    assert [round(seconds_of(row["Timecode"]) / 0.04) for row in rows] == [1, 2, 4, 5]
    assert done.notes == ("person 0: 2 frames without a face have no row",)


def test_every_person_has_a_file(tmp_path: Path):
    track = small_track(people=3, lost=tuple((1, frame) for frame in range(6)))
    done = export(track, ["arkit"], tmp_path)[0]
    assert [path.name for path in done.paths] == ["person_0.csv", "person_2.csv"]
    heads = [[float(row["HeadYaw"]) for row in read(path)] for path in done.paths]
    assert np.abs(np.subtract(*heads)).max() > 0.01


def test_coefficients_beyond_the_range_are_cut_and_told(tmp_path: Path):
    track = still(2)
    track.left_eye[0, 1] = (0, 0.6, 0)
    done = export(track, ["arkit"], tmp_path)[0]
    assert [float(row["EyeLookOutLeft"]) for row in read(done.paths[0])] == [0.0, 1.0]
    assert "EyeLookOutLeft" in done.notes[0] and "cut off" in done.notes[0]


def test_heads_without_actions_are_converted(tmp_path: Path):
    # The commons head as a FLAME file has forgotten which of its expressions are whose actions.
    commons = load_head("commons")
    save_flame_pkl(commons, tmp_path / "flame.pkl")
    flame = load_head(tmp_path / "flame.pkl")
    truth = with_coefficients(small_track(frames=3), some_coefficients(3, seed=2, share=0.2))
    truth.jaw[..., 2] = 0
    shape = np.zeros((1, flame.num_shape), np.float32)
    shape[:, : commons.num_shape] = truth.identity
    expression = np.zeros((1, 3, flame.num_expression), np.float32)
    expression[..., : commons.num_expression] = truth.expression
    track = replace(
        truth,
        identity=shape,
        expression=expression,
        head=str(tmp_path / "flame.pkl"),
        head_hash=flame.content_hash,
        expression_names=(),
    )
    done = export(track, ["arkit"], tmp_path / "export")[0]
    assert "converted to the commons head" in done.notes[0] and " mm" in done.notes[0]
    (tmp_path / "same").mkdir()
    expected = exported(tmp_path / "same", truth)
    for found, row in zip(read(done.paths[0]), expected, strict=True):
        errors = [abs(float(found[name]) - float(row[name])) for name in COEFFICIENTS]
        assert np.mean(errors) < 0.05
        assert float(found["HeadYaw"]) == pytest.approx(float(row["HeadYaw"]), abs=0.02)
