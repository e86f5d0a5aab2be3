"""The command line, end to end, on clips of a real face."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from flame.errors import InputError
from flame.saving import save_flame_pkl
from priors.landmark_embedding import load_embedding
from tests.tracker.clips import Sound, click_seconds, write_sound
from tests.tracker.face_clips import RATE, portrait, read_video, roll_degrees, wall, write_video, zoom
from tracker import Track
from tracker.api import Options, Progress
from tracker.run import build_parser, output_folders
from tracker.status import FrameStatus
from tracker.summary import expected_frames

RESULTS = ["overlay.mp4", "track.json", "track.npz"]


def names(folder: Path) -> list[str]:
    """Return the names of all files in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def write_image(path: Path, image: np.ndarray) -> Path:
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def test_a_video_gives_parameters_and_an_overlay(cli, face_clip, tmp_path):
    outcome = cli(face_clip, "-o", "out")
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == str(face_clip)
    assert lines[1].startswith("  frames    16 in ") and "frames/s" in lines[1]
    assert lines[2].startswith("  person 0  tracked in 16 of 16 frames (16 ok); residual ")
    assert lines[3].startswith("  camera    field of view ") and "(estimated around what is usual" in lines[3]
    assert lines[4] == "  files     out/: track.npz, track.json, overlay.mp4" and len(lines) == 5
    assert names(tmp_path / "out") == RESULTS
    header = json.loads((tmp_path / "out" / "track.json").read_text())
    assert header["is_complete"] is True and len(header["source"]["sha256"]) == 64
    assert header["settings"]["config"]["smoothing"]["half_width_seconds"] > 0


def test_the_overlay_keeps_size_times_and_sound(cli, face_clip, tmp_path):
    assert cli(face_clip, "-o", "out").status == 0
    before, after = read_video(face_clip), read_video(tmp_path / "out" / "overlay.mp4")
    assert len(after) == len(before) == 16 and after[0].shape == before[0].shape
    assert click_seconds(tmp_path / "out" / "overlay.mp4") == pytest.approx(click_seconds(face_clip), abs=0.03)
    changed = np.abs(after[5].astype(int) - before[5]).mean(axis=2)
    assert changed[110:150, 110:150].mean() > 15 and changed[:, :20].mean() < 4


def test_the_pose_follows_the_picture(face_track):
    rolls = []
    for frame in face_track:
        across = frame.faces[0].cam_from_head[:2, 0]
        rolls.append(np.degrees(np.arctan2(across[1], across[0])))
    expected = np.array([roll_degrees(index, 16) for index in range(16)])
    assert np.abs(np.subtract(rolls, rolls[0]) - expected).max() < 2.0
    depth = face_track.translation[0, :, 2]
    np.testing.assert_allclose(depth[0] / depth, [zoom(index, 16) for index in range(16)], rtol=0.03)
    percent = 100 * face_track.residual_px / face_track.interocular_px
    assert np.median(percent) < 2.5


def test_the_default_folder_is_named_after_the_input(cli, face_clip, tmp_path):
    assert cli(face_clip, "--max-frames", 2, "--no-overlay").status == 0
    assert names(tmp_path / "face_track") == ["track.json", "track.npz"]


def test_ranges(cli, face_clip, tmp_path):
    assert cli(face_clip, "-o", "a", "--start", 0.5, "--end", 1.0, "--no-overlay").status == 0
    track = Track.load(tmp_path / "a")
    assert track.frame_index.tolist() == [6, 7, 8, 9, 10, 11]
    np.testing.assert_allclose(track.pts_seconds, np.arange(6, 12) / RATE)
    assert cli(face_clip, "-o", "b", "--max-frames", 1).status == 0
    assert len(Track.load(tmp_path / "b")) == 1 == len(read_video(tmp_path / "b" / "overlay.mp4"))
    assert cli(face_clip, "-o", "c", "--start", 1.0, "--max-frames", 2, "--no-overlay").status == 0
    assert Track.load(tmp_path / "c").frame_index.tolist() == [12, 13]


def test_a_lost_face_is_found_again(cli, gap_clip, tmp_path):
    outcome = cli(gap_clip, "-o", "out")
    assert outcome.status == 0 and " lost)" in outcome.out
    status = Track.load(tmp_path / "out").status[0]
    assert (status[:6] == FrameStatus.OK).all() and (status[6:14] == FrameStatus.LOST).all()
    assert (status[20:] == FrameStatus.OK).all()
    assert len(read_video(tmp_path / "out" / "overlay.mp4")) == 24


def test_a_face_that_comes_late_is_found(cli, late_clip, tmp_path):
    assert cli(late_clip, "-o", "out", "--no-overlay").status == 0
    track = Track.load(tmp_path / "out")
    assert (track.status[0, :90] == FrameStatus.NO_FACE).all() and (track.status[0, 97:] == FrameStatus.OK).all()
    assert track.info["people"][0]["num_keyframes"] >= 1


def test_a_face_between_the_scouted_frames_is_found(cli, tmp_path):
    images = [wall()] * 59 + [portrait(index) for index in range(6)] + [wall()] * 35
    assert cli(write_video(tmp_path / "flash.mp4", images), "-o", "out", "--no-overlay").status == 0
    track = Track.load(tmp_path / "out")
    assert track.is_tracked[0, 60:65].all() and track.is_tracked.sum() <= 6


def test_several_people_keep_their_place(cli, pair_clip, tmp_path):
    assert cli(pair_clip, "-o", "out", "--faces", 2).status == 0
    track = Track.load(tmp_path / "out")
    assert track.num_people == 2 and (track.status == FrameStatus.OK).all()
    x, y, z = np.moveaxis(track.translation, -1, 0)
    column = track.intrinsics.fx * x / z + track.intrinsics.cx
    assert (np.abs(column[0] - 128) < 40).all() and (np.abs(column[1] - 384) < 40).all()
    assert cli(pair_clip, "-o", "one", "--no-overlay").status == 0
    assert Track.load(tmp_path / "one").num_people == 1
    assert cli(pair_clip, "-o", "many", "--faces", 5, "--no-overlay").status == 0
    assert Track.load(tmp_path / "many").num_people == 2


def test_nobody_there(cli, empty_clip, tmp_path):
    outcome = cli(empty_clip, "-o", "out")
    assert (outcome.status, outcome.err) == (3, "")
    assert "  person 0  tracked in 0 of 12 frames (12 no_face)\n  no face was found in any frame\n" in outcome.out
    track = Track.load(tmp_path / "out")
    assert (track.status == FrameStatus.NO_FACE).all() and track.status.shape == (1, 12)
    assert np.isnan(track.vertices(0)).all()
    assert json.loads((tmp_path / "out" / "track.json").read_text())["people"] == [
        {"num_keyframes": 0, "keyframe_residual_percent": None}
    ]
    assert len(read_video(tmp_path / "out" / "overlay.mp4")) == 12


def test_an_image(cli, tmp_path):
    path = write_image(tmp_path / "a face.png", portrait(size=301))
    assert cli(path).status == 0
    folder = tmp_path / "a face_track"
    assert names(folder) == ["overlay.png", "track.json", "track.npz"]
    assert cv2.imread(str(folder / "overlay.png")).shape == (301, 301, 3)
    assert len(Track.load(folder)) == 1


def test_a_folder_of_images(cli, tmp_path):
    (tmp_path / "frames").mkdir()
    for index in (0, 1, 2, 9, 10):
        write_image(tmp_path / "frames" / f"f{index}.jpg", portrait(index))
    assert cli("frames").status == 0
    assert names(tmp_path / "frames_track") == RESULTS
    assert len(read_video(tmp_path / "frames_track" / "overlay.mp4")) == 5
    rolls = Track.load(tmp_path / "frames_track").rotation[0, :, 2]
    assert len(set(np.sign(np.diff(rolls)))) == 2


@pytest.mark.parametrize(("height", "width"), [(255, 301), (257, 256)])
def test_odd_sizes(cli, tmp_path, height, width):
    images = [cv2.resize(portrait(index), (width, height)) for index in range(2)]
    path = write_video(tmp_path / "odd.mp4", images)
    assert cli(path, "-o", "out").status == 0
    assert read_video(tmp_path / "out" / "overlay.mp4")[0].shape == (height, width, 3)
    assert cli(path, "-o", "out", "--panels").status == 0


def test_a_video_of_one_frame(cli, tmp_path):
    path = write_video(tmp_path / "one.mp4", [portrait()])
    assert cli(path, "-o", "out").status == 0
    assert len(Track.load(tmp_path / "out")) == 1 == len(read_video(tmp_path / "out" / "overlay.mp4"))


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_pictures_of_a_few_pixels_hold_nobody(cli, tmp_path, size):
    assert cli(write_image(tmp_path / "tiny.png", wall(size, size)), "-o", "out").status == 3


@pytest.mark.parametrize(
    "name", ["two words.mp4", "łódź 顔 😀.mp4", "-dash.mp4", "a:b.mp4", "%d.mp4", "no_suffix", "bad\udcff.mp4"]
)
def test_names_of_all_kinds(cli, face_clip, tmp_path, name):
    Path(name).write_bytes(face_clip.read_bytes())
    assert cli("--max-frames", 1, "--no-overlay", "--", name).status == 0
    assert (tmp_path / f"{Path(name).stem}_track" / "track.npz").is_file()


def test_several_inputs_get_a_folder_each(cli, face_clip, pair_clip, tmp_path):
    outcome = cli(face_clip, pair_clip, "-o", "out", "--max-frames", 1, "--no-overlay")
    assert outcome.status == 0 and outcome.out.count("  files     ") == 2
    assert names(tmp_path / "out") == ["face_track", "pair_track"]


def test_a_bad_input_does_not_stop_the_others(cli, face_clip, pair_clip, tmp_path):
    write_sound(tmp_path / "sound.m4a")
    inputs = [face_clip, "missing.mp4", "sound.m4a", pair_clip]
    outcome = cli(*inputs, "-o", "out", "--max-frames", 1, "--no-overlay")
    assert outcome.status == 2
    assert outcome.err.splitlines() == [
        "error: missing.mp4: no such file; check the name",
        "error: sound.m4a: holds only sound; give a file that has a picture",
        "error: 2 of 4 inputs could not be tracked",
    ]
    assert names(tmp_path / "out") == ["face_track", "pair_track"]
    assert all(len(Track.load(folder)) == 1 for folder in (tmp_path / "out").iterdir())


def test_one_input_without_a_face_shows_in_the_status(cli, face_clip, empty_clip):
    assert cli(empty_clip, face_clip, "--max-frames", 1, "--no-overlay").status == 3


def test_one_identity_for_all_photos(cli, tmp_path):
    photos = [write_image(tmp_path / f"{index}.png", portrait(index, size=256 + 16 * index)) for index in (0, 4, 12)]
    nobody = write_image(tmp_path / "wall.png", wall())
    outcome = cli(*photos, nobody, "missing.png", "--same-person", "--no-overlay", "-o", "out")
    assert outcome.status == 2 and "1 of 5 inputs" in outcome.err
    tracks = [Track.load(tmp_path / "out" / f"{path.stem}_track") for path in (*photos, nobody)]
    for track in tracks:
        np.testing.assert_array_equal(track.identity, tracks[0].identity)
        assert track.info["people"][0]["num_keyframes"] == 3
    assert [track.is_tracked.all() for track in tracks] == [True, True, True, False]
    assert cli(*photos, "--same-person", "--no-overlay", "-o", "out").status == 0


def test_panels_show_five_pictures_side_by_side(cli, face_clip, tmp_path):
    assert cli(face_clip, "-o", "out", "--panels", "--max-frames", 2).status == 0
    before, row = read_video(face_clip)[0], read_video(tmp_path / "out" / "overlay.mp4")[0]
    assert row.shape == (256, 5 * 256, 3)
    assert np.abs(row[60:, :256].astype(int) - before[60:]).mean() < 6
    normals = row[120:150, 256 + 120 : 256 + 140].reshape(-1, 3).mean(axis=0)
    assert normals[2] > 180 and (row[250, 260] < 30).all()


def test_a_second_run_replaces_the_first(cli, face_clip, tmp_path):
    assert cli(face_clip, "-o", "out").status == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / ".overlay.mp4.part").write_text("left by a kill")
    outcome = cli(face_clip, "-o", "out", "--no-overlay", "--max-frames", 3)
    assert outcome.status == 0 and "files     out/: track.npz, track.json\n" in outcome.out
    assert names(tmp_path / "out") == ["notes.txt", "track.json", "track.npz"]
    assert len(Track.load(tmp_path / "out")) == 3


def test_a_run_that_fails_at_once_leaves_the_results_of_the_first(cli, face_clip, tmp_path):
    assert cli(face_clip, "-o", "out", "--max-frames", 2).status == 0
    assert cli(face_clip, "-o", "out", "--start", 100).status == 2
    assert names(tmp_path / "out") == RESULTS and len(Track.load(tmp_path / "out")) == 2


def test_a_stranger_file_named_like_a_result_stays_without_a_track(cli, face_clip, tmp_path):
    (tmp_path / "overlay.png").write_bytes(b"mine")
    assert cli(face_clip, "-o", ".", "--max-frames", 1).status == 0
    assert (tmp_path / "overlay.png").read_bytes() == b"mine"


def test_the_focal_length_is_kept_where_it_is_given(cli, face_clip, tmp_path):
    assert cli(face_clip, "-o", "out", "--fov", 30, "--no-overlay").status == 0
    assert Track.load(tmp_path / "out").intrinsics.fov_degrees == pytest.approx(30)


def test_presets_and_settings_reach_the_run(cli, face_clip, tmp_path):
    arguments = ["--preset", "fast", "--set", "scout.keyframes=1", "--set", "smoothing.half_width_seconds=0"]
    assert cli(face_clip, "-o", "out", "--no-overlay", *arguments).status == 0
    track = Track.load(tmp_path / "out")
    assert track.info["people"][0]["num_keyframes"] == 1
    config = track.info["settings"]["config"]
    assert (config["solver"]["max_iterations"], config["smoothing"]["half_width_seconds"]) == (8, 0.0)


def test_a_relative_head_is_found_from_any_folder(cli, face_clip, tmp_path, monkeypatch):
    (tmp_path / "heads").mkdir()
    asset = Path(__file__).parents[2] / "flame" / "assets" / "commons.npz"
    (tmp_path / "heads" / "mine.npz").symlink_to(asset)
    assert cli(face_clip, "-o", "out", "--head", "heads/mine.npz", "--max-frames", 2, "--no-overlay").status == 0
    monkeypatch.chdir("/")
    assert np.isfinite(Track.load(tmp_path / "out").vertices(0)).all()


def test_a_head_in_flame_format(cli, face_clip, toolkit, monkeypatch, tmp_path):
    save_flame_pkl(toolkit.head, tmp_path / "head.pkl")
    # Where the landmarks lie is the same; finding it out anew takes longer than all the rest.
    monkeypatch.setattr("priors.mediapipe.load_embedding", lambda _head: load_embedding(toolkit.head))
    assert cli(face_clip, "-o", "out", "--head", "head.pkl", "--max-frames", 2, "--panels").status == 0
    track = Track.load(tmp_path / "out")
    assert track.is_tracked.all() and track.expression_names == () and np.isfinite(track.vertices(1)).all()
    with pytest.raises(InputError, match="ARKit"):
        track.arkit()


def test_output_folders():
    paths = [Path("a/x.mp4"), Path("b/x.mp4"), Path("b/y.v2.mp4"), Path("c/x.mov")]
    expected = ["x_track", "x_track_2", "y.v2_track", "x_track_3"]
    assert output_folders(paths, None) == [Path(name) for name in expected]
    assert output_folders(paths, "out") == [Path("out") / name for name in expected]
    assert output_folders(paths[:1], "out") == [Path("out")]
    assert output_folders([Path()], None) == [Path(f"{Path.cwd().stem}_track")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 300),
        ({"max_frames": 7}, 7),
        ({"max_frames": 700}, 300),
        ({"start_seconds": 4.0}, 180),
        ({"start_seconds": 4.0, "end_seconds": 5.0}, 30),
        ({"end_seconds": 99.0}, 300),
        ({"start_seconds": 99.0}, 1),
    ],
)
def test_the_bar_knows_how_long_it_will_be(options, expected):
    assert expected_frames(Progress(Path("x"), None, 300, 10.0), Options(**options)) == expected
    assert expected_frames(Progress(Path("x"), None, None, 0.0), Options(**options)) == options.get("max_frames")


def test_the_help_names_every_option():
    text = build_parser().format_help()
    for option in Options.__dataclass_fields__:
        word = {"config": "preset", "overlay": "no-overlay", "start_seconds": "start", "end_seconds": "end"}.get(option)
        assert f"--{word or option.removesuffix('_degrees').removesuffix('_px').replace('_', '-')}" in text


def test_a_run_of_its_own_says_nothing_but_the_summary(face_clip, tmp_path):
    command = [sys.executable, "-m", "tracker.run", str(face_clip), "-o", str(tmp_path / "out"), "--max-frames", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 5 and "  files     " in done.stdout


def test_a_reader_that_has_left_stops_nothing(face_clip, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "tracker.run", str(face_clip), str(face_clip), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--max-frames", "1", "--no-overlay"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert names(tmp_path / "out") == ["face_track", "face_track_2"]


def test_sound_that_ends_early_stops_nothing(cli, tmp_path):
    path = write_video(
        tmp_path / "short.mp4", [portrait(i) for i in range(4)], sound=Sound(seconds=0.1, click_seconds=0)
    )
    assert cli(path, "-o", "out").status == 0
    assert len(read_video(tmp_path / "out" / "overlay.mp4")) == 4
