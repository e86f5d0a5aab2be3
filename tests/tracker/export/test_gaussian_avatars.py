"""The data set for GaussianAvatars, read again as its own readers do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from flame.camera import Intrinsics
from tests.tracker.export.flame_reader import (
    clip_pixels,
    dot_position,
    dotted_vertices,
    flame_file,
    flame_vertices,
    rotation,
    write_dotted_clip,
)
from tests.tracker.export.tracks import SIZE, small_track, toy_head_file
from tracker.export import Exported, export
from tracker.result import Track

MATTING = "tests.tracker.export.flame_reader:everything"
OFF_CENTRE = Intrinsics(330.0, 300.0, 118.25, 104.5, SIZE[1], SIZE[0])
ROOT_KEYS = {"frames", "timestep_indices", "camera_indices"}
LENS_KEYS = {"cx", "cy", "fl_x", "fl_y", "h", "w", "camera_angle_x", "camera_angle_y"}
FRAME_KEYS = LENS_KEYS | {
    *("timestep_index", "timestep_index_original", "timestep_id", "camera_index", "camera_id"),
    *("transform_matrix", "file_path", "fg_mask_path", "flame_param_path"),
}


def exported(tmp_path: Path, track: Track, matting: str = MATTING) -> Exported:
    return export(track, ["gaussian-avatars"], tmp_path / "export", matting=matting)[0]


def dotted(tmp_path: Path, head: str | Path = "commons", **options) -> Track:
    track = small_track(head, source=tmp_path / "clip", **options)
    write_dotted_clip(track, tmp_path / "clip")
    return track


def read_frame(folder: Path, frame: dict, head_file: Path) -> np.ndarray:
    """Return where FLAME's vertices are in a picture (V, 2): of the lens only the angle and the size count."""
    params = np.load(folder / frame["flame_param_path"])
    eyes = params["eyes_pose"][0]
    turns = [rotation(params[name][0]) for name in ("rotation", "neck_pose", "jaw_pose")]
    turns += [rotation(eyes[:3]), rotation(eyes[3:])]
    verts = flame_vertices(flame_file(head_file), params["shape"], params["expr"][0], turns, params["translation"][0])
    c2w = np.array(frame["transform_matrix"])
    x, y, z = np.linalg.solve(c2w, np.column_stack((verts, np.ones(len(verts)))).T)[:3]
    focal = frame["w"] / 2 / math.tan(frame["camera_angle_x"] / 2)
    return np.stack((frame["w"] / 2 + focal * x / -z, frame["h"] / 2 - focal * y / -z), axis=1)


def no_jaw_file(folder: Path) -> Path:
    """Write a FLAME file whose jaw is not a joint; its name says so."""
    return toy_head_file(folder).rename(folder / "toy_no_jaw.pkl")


@pytest.mark.parametrize("lens", [None, OFF_CENTRE])
@pytest.mark.parametrize("is_commons", [False, True])
def test_flame_lies_where_the_picture_shows_the_head(tmp_path: Path, lens: Intrinsics | None, is_commons: bool):
    head = "commons" if is_commons else toy_head_file(tmp_path)
    track = dotted(tmp_path, head, intrinsics=lens, frames=4)
    folder = exported(tmp_path, track).folder
    head_file = folder / "commons_head.pkl" if is_commons else Path(head)
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    assert len(frames) == len(track)
    for position, frame in enumerate(frames):
        seen_px = read_frame(folder, frame, head_file)
        # The padded picture has square pixels, so it is the clip's scaled along an axis and moved.
        clip_px = clip_pixels(track, position, 0)
        scale = np.max((track.intrinsics.fx, track.intrinsics.fy)) / (track.intrinsics.fx, track.intrinsics.fy)
        moved = seen_px - clip_px * scale
        assert np.abs(moved - moved.mean(axis=0)).max() < 0.02
        picture = cv2.imread(str(folder / frame["file_path"]))[..., ::-1]
        assert picture.shape == (frame["h"], frame["w"], 3)
        for channel, vertex in enumerate(dotted_vertices(track)):
            found = dot_position(picture[..., channel], seen_px[vertex], 10)
            assert np.abs(found - seen_px[vertex]).max() < 0.1


def test_a_head_without_a_jaw_joint_keeps_its_jaw_still(tmp_path: Path):
    head = no_jaw_file(tmp_path)
    track = dotted(tmp_path, head, frames=2)
    assert not track.head_model.has_jaw and track.jaw.any()
    folder = exported(tmp_path, track).folder
    for position, frame in enumerate(json.loads((folder / "transforms.json").read_text())["frames"]):
        assert not np.load(folder / frame["flame_param_path"])["jaw_pose"].any()
        assert np.abs(read_frame(folder, frame, head) - clip_pixels(track, position, 0)).max() < 0.02


def test_who_has_flames_mesh_is_told_whose_codes_are_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    track = dotted(tmp_path, toy_head_file(tmp_path), frames=1)
    assert not any("flame2023" in note for note in exported(tmp_path, track).notes)
    monkeypatch.setattr("tracker.export.gaussian_avatars.NUM_VERTICES", track.head_model.num_vertices)
    [note] = [note for note in exported(tmp_path, track).notes if "flame2023.pkl" in note]
    assert "toy_flame.pkl" in note and "--convert-to" in note


def test_pictures_are_the_clips_own_where_the_camera_allows(tmp_path: Path):
    track = dotted(tmp_path, frames=2)
    folder = exported(tmp_path, track).folder
    alpha = cv2.imread(str(folder / "fg_masks/00001_00.png"), cv2.IMREAD_UNCHANGED)
    assert alpha.shape == SIZE and alpha.dtype == np.uint8 and set(np.unique(alpha)) >= {0, 255}
    picture = cv2.imread(str(folder / "images/00001_00.png"))
    original = cv2.imread(str(tmp_path / "clip/00001.png"))
    assert (picture[alpha == 255] == original[alpha == 255]).all()
    assert (picture[alpha == 0] == 255).all()


def test_keys_shapes_and_splits_are_those_of_the_format(tmp_path: Path):
    track = dotted(tmp_path, frames=8, lost=((0, 0), (0, 4)))
    done = exported(tmp_path, track)
    folder = done.folder
    database = {
        part: json.loads((folder / f"transforms{part}.json").read_text())
        for part in ("", "_train", "_val", "_test", "_backup", "_backup_flame")
    }
    for content in database.values():
        assert content.keys() == ROOT_KEYS | LENS_KEYS
    everything = database[""]
    assert all(frame.keys() == FRAME_KEYS for frame in everything["frames"])
    assert all(frame.keys() == FRAME_KEYS - {"flame_param_path"} for frame in database["_backup"]["frames"])
    # Timesteps count without holes; the original ones tell which frames were left out.
    assert [frame["timestep_index"] for frame in everything["frames"]] == everything["timestep_indices"] == [*range(6)]
    assert [frame["timestep_index_original"] for frame in everything["frames"]] == [1, 2, 3, 5, 6, 7]
    assert any("2 of 8 frames" in note for note in done.notes)
    assert [len(database[part]["frames"]) for part in ("_train", "_val", "_test")] == [5, 0, 1]
    assert database["_train"]["timestep_indices"] == database["_val"]["timestep_indices"] == [0, 1, 2, 3, 4]
    assert database["_test"]["timestep_indices"] == [5] and database["_val"]["camera_indices"] == []
    vertices = track.head_model.num_vertices
    shapes = {
        **{"translation": (1, 3), "rotation": (1, 3), "neck_pose": (1, 3), "jaw_pose": (1, 3), "eyes_pose": (1, 6)},
        **{"shape": (300,), "expr": (1, 100), "static_offset": (1, vertices, 3)},
    }
    files = [folder / frame["flame_param_path"] for frame in everything["frames"]]
    for path in (*files, folder / "canonical_flame_param.npz"):
        with np.load(path) as params:
            assert {name: params[name].shape for name in params.files} == shapes
            assert all(params[name].dtype == np.float32 for name in params.files)
    mean = np.mean([np.load(path)["translation"] for path in files], axis=0)
    assert np.abs(mean).max() < 1e-6
    canonical = np.load(folder / "canonical_flame_param.npz")
    assert canonical["jaw_pose"].tolist() == [[np.float32(0.3), 0, 0]]
    assert (canonical["shape"] == np.load(files[0])["shape"]).all() and canonical["shape"].any()
    assert not any(canonical[name].any() for name in ("translation", "rotation", "neck_pose", "eyes_pose", "expr"))


def test_every_person_has_a_folder_and_one_nobody_sees_has_none(tmp_path: Path):
    lost = tuple((2, frame) for frame in range(3))
    track = dotted(tmp_path, people=3, frames=3, lost=((1, 1), *lost))
    done = exported(tmp_path, track)
    assert [path.name for path in done.paths] == ["person_0", "person_1"]
    counts = [len(json.loads((path / "transforms.json").read_text())["frames"]) for path in done.paths]
    assert counts == [3, 2]
    for person, position, number in ((0, 1, 1), (1, 2, 1)):
        folder = done.paths[person]
        frame = json.loads((folder / "transforms.json").read_text())["frames"][number]
        seen_px = read_frame(folder, frame, done.folder / "commons_head.pkl")
        assert np.abs(seen_px - clip_pixels(track, position, person)).max() < 0.1
    assert not (done.folder / "person_2").exists()


def test_masks_cover_the_tracked_head_and_little_else(tmp_path: Path, face_track: Track):
    done = exported(tmp_path, face_track, "mediapipe")
    frames = json.loads((done.folder / "transforms.json").read_text())["frames"]
    faces = face_track.head_model.faces.numpy()
    for frame in frames[::5]:
        mask = cv2.imread(str(done.folder / frame["fg_mask_path"]), cv2.IMREAD_UNCHANGED) / 255
        seen_px = read_frame(done.folder, frame, done.folder / "commons_head.pkl")
        drawn = np.zeros(mask.shape, np.uint8)
        for corners in seen_px[faces]:
            cv2.fillConvexPoly(drawn, np.round(corners * 16 - 8).astype(np.int32), (1,), shift=4)
        inside = drawn.astype(bool)
        assert mask[inside].mean() > 0.95
        # Hair is more than the mesh, but not the whole picture.
        assert mask.sum() < 2.2 * inside.sum()
