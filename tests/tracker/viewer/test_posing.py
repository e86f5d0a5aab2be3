"""The viewer's heads are the track's heads, and sliders change what they say."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest

from flame.errors import InputError
from tests.tracker.export.tracks import small_track, toy_head_file
from tracker.viewer.clip import Clip
from tracker.viewer.controls import Edits
from tracker.viewer.posing import FaceParameters, PersonRig


@pytest.fixture(scope="module", params=["commons", "toy"])
def clip(request, tmp_path_factory) -> Clip:
    head = "commons" if request.param == "commons" else toy_head_file(tmp_path_factory.mktemp("head"))
    return Clip(small_track(head, people=2, frames=5, lost=((1, 2),)))


def test_vertices_are_those_of_the_track(clip):
    for person in range(2):
        for frame in (0, 3, 4):
            ours = clip.vertices(frame, person, Edits())
            assert ours is not None and ours.dtype == np.float32
            np.testing.assert_allclose(ours, clip.track.vertices(frame, person), atol=2e-6)


def test_lost_frames_have_no_vertices(clip):
    assert clip.vertices(2, 1, Edits()) is None
    assert clip.vertices(2, 0, Edits()) is not None


def test_a_jaw_that_is_no_joint_is_left_alone(clip):
    stiff = dataclasses.replace(clip.rig(0), has_jaw=False)
    parameters = FaceParameters.of(clip.track, 0, 0)
    shut = FaceParameters(parameters.expression, {**parameters.joints, "jaw": np.zeros(3)})
    np.testing.assert_array_equal(stiff.pose(parameters), clip.rig(0).pose(shut))
    assert np.abs(clip.rig(0).pose(parameters) - stiff.pose(parameters)).max() > 1e-4


def test_posing_is_fast_enough_for_playback(clip):
    rig, parameters = clip.rig(0), FaceParameters.of(clip.track, 0, 0)
    rig.pose(parameters)
    start = time.process_time()
    for _ in range(20):
        rig.pose(parameters)
    assert (time.process_time() - start) / 20 < 0.01


def test_edits_replace_what_was_tracked_in_every_frame(clip):
    edits = Edits()
    control = clip.controls["mouthPucker" if "mouthPucker" in clip.controls else "expression_001"]
    edits.set(0, control, 0.25)
    edits.set(0, clip.controls["jaw.x"], 12.0)
    for frame in range(5):
        parameters = clip.parameters(frame, 0, edits)
        assert control.value_in(parameters) == pytest.approx(0.25)
        assert parameters.joints["jaw"][0] == pytest.approx(np.radians(12.0))
        tracked = FaceParameters.of(clip.track, frame, 0)
        untouched = np.arange(len(tracked.expression)) != control.index
        np.testing.assert_array_equal(parameters.expression[untouched], tracked.expression[untouched])
        np.testing.assert_array_equal(parameters.joints["jaw"][1:], tracked.joints["jaw"][1:])
    assert edits.names(0) == (control.name, "jaw.x")
    # The track itself and the other person stay as they are.
    assert clip.track.jaw[0, 0, 0] != pytest.approx(np.radians(12.0))
    np.testing.assert_array_equal(clip.parameters(0, 1, edits).expression, clip.track.expression[1, 0])
    edits.reset(0)
    np.testing.assert_array_equal(clip.parameters(0, 0, edits).expression, clip.track.expression[0, 0])


def test_sliders_reach_every_tracked_value(clip):
    for person, frame in ((0, 0), (0, 4), (1, 1)):
        parameters = FaceParameters.of(clip.track, frame, person)
        for control in clip.controls.values():
            assert control.low - 1e-6 <= control.value_in(parameters) <= control.high + 1e-6, control.name
            assert control.low < control.high


def test_sliders_have_the_names_people_know():
    commons = Clip(small_track(frames=2))
    folders = {}
    for control in commons.controls.values():
        folders.setdefault(control.folder, []).append(control.name)
    assert list(folders) == ["Eyes: gaze", "Eyes: lids", "Brows", "Jaw", "Mouth", "Cheeks and nose", "Tongue", "Neck"]
    assert folders["Jaw"] == ["jawForward", "jaw.x", "jaw.y", "jaw.z"]
    assert "eyeBlinkLeft" in folders["Eyes: lids"]
    assert commons.controls["mouthSmileLeft"].high >= 1


def test_sliders_without_names_are_numbered(tmp_path):
    flame = Clip(small_track(toy_head_file(tmp_path), frames=2))
    assert "expression_000" in flame.controls
    assert flame.controls["expression_000"].folder == "Expression 000 to 019"


def test_another_head_is_refused(tmp_path):
    track = dataclasses.replace(small_track(frames=2), head_hash="0" * 64)
    with pytest.raises(InputError, match="the track was made with 000000000000"):
        Clip(track)


def test_rest_is_the_head_of_the_person(clip):
    rest = clip.track.head_model.rest(clip.track.head_model.template.new_tensor(clip.track.identity[0]))
    np.testing.assert_allclose(PersonRig.of(clip.head, clip.track.identity[0]).rest, rest.vertices, atol=2e-6)


def test_the_viewer_opens_without_heavy_imports():
    heavy = ("torch", "numba", "mediapipe", "trimesh", "scipy.spatial")
    code = (
        "import sys, tracker.view, tracker.viewer.player, tracker.result, flame.head_files; "
        f"flame.head_files.read_head_arrays(); print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
