"""The data set for nerfstudio, read again as its documentation says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

from flame.camera import Intrinsics
from tests.tracker.export.flame_reader import clip_pixels, dot_position, dotted_vertices, write_dotted_clip
from tests.tracker.export.tracks import SIZE, small_track, toy_head_file
from tracker.export import Exported, export
from tracker.export.head_cameras import cam_from_skull
from tracker.result import Track

MATTING = "tests.tracker.export.flame_reader:everything"
LENS = Intrinsics(330.0, 300.0, 118.25, 104.5, SIZE[1], SIZE[0])


def dotted(tmp_path: Path, head: str | Path = "commons", *, is_stiff: bool = False, **options) -> Track:
    """Return a track with a clip; a stiff face has one expression for all frames."""
    track = small_track(head, source=tmp_path / "clip", intrinsics=LENS, **options)
    if is_stiff:
        # Pose correctives of the toy head's neck reach everywhere; those of the commons head stay at the neck.
        names = ("expression", "jaw", "left_eye", "right_eye", *(() if head == "commons" else ("neck",)))
        first = int(np.flatnonzero(track.is_tracked.all(axis=0))[0])
        parts = {name: getattr(track, name) for name in names}
        held = {name: np.where(np.isnan(part), np.nan, part[:, first : first + 1]) for name, part in parts.items()}
        track = replace(track, **{name: part.astype(np.float32) for name, part in held.items()})
    write_dotted_clip(track, tmp_path / "clip")
    return track


def exported(tmp_path: Path, track: Track) -> Exported:
    return export(track, ["nerfstudio"], tmp_path / "export", matting=MATTING)[0]


def seen_px(database: dict, frame: dict, points_world: np.ndarray) -> np.ndarray:
    """Return where points (N, 3) of the world are in a picture, by the documentation alone: OpenGL cameras, c2w."""
    c2w = np.array(frame["transform_matrix"])
    np.testing.assert_allclose(c2w[:3, :3].T @ c2w[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(c2w) == pytest.approx(1)
    x, y, z = np.linalg.solve(c2w, np.column_stack((points_world, np.ones(len(points_world)))).T)[:3]
    return np.stack((database["cx"] + database["fl_x"] * x / -z, database["cy"] - database["fl_y"] * y / -z), axis=1)


@pytest.mark.parametrize("is_commons", [True, False])
def test_a_still_head_lies_where_the_pictures_show_it(tmp_path: Path, is_commons: bool):
    head = "commons" if is_commons else toy_head_file(tmp_path)
    track = dotted(tmp_path, head, is_stiff=True, frames=4)
    folder = exported(tmp_path, track).folder
    database = json.loads((folder / "transforms.json").read_text())
    # One frame places the head in the world; the cameras of the others must see it there.
    verts_cam = track.vertices(1).astype(np.float64)
    verts_gl = np.column_stack((verts_cam * (1, -1, -1), np.ones(len(verts_cam))))
    world = (np.array(database["frames"][1]["transform_matrix"]) @ verts_gl.T).T[:, :3]
    for position, frame in enumerate(database["frames"]):
        points_px = seen_px(database, frame, world)
        # The neck bends: vertices that follow the shoulders in part do not keep still.
        is_head = track.head_model.skin_weights.numpy()[:, 1] > 0.999
        assert is_head.sum() > 20
        assert np.abs(points_px - clip_pixels(track, position, 0))[is_head].max() < 0.01
        picture = cv2.imread(str(folder / frame["file_path"]))[..., ::-1]
        assert picture.shape == (*SIZE, 3)
        for channel, vertex in enumerate(dotted_vertices(track)):
            if is_head[vertex]:
                found = dot_position(picture[..., channel], points_px[vertex], 10)
                assert np.abs(found - points_px[vertex]).max() < 0.1


def test_the_world_is_upright_and_comes_from_head_space(tmp_path: Path):
    track = dotted(tmp_path, is_stiff=True, frames=2)
    folder = exported(tmp_path, track).folder
    database = json.loads((folder / "transforms.json").read_text())
    world_from_head = np.array(database["applied_transform"])
    assert world_from_head.shape == (3, 4)
    # Crown up, face towards -y, the person's left towards +x.
    np.testing.assert_allclose(world_from_head[:, :3] @ (0, 1, 0), (0, 0, 1))
    np.testing.assert_allclose(world_from_head[:, :3] @ (0, 0, 1), (0, -1, 0))
    np.testing.assert_allclose(world_from_head[:, :3] @ (1, 0, 0), (1, 0, 0))
    camera = np.array(database["frames"][0]["transform_matrix"])
    assert camera[1, 3] < -0.4
    assert camera[:3, 2] @ (0, -1, 0) > 0.8


def test_keys_are_those_of_the_format(tmp_path: Path):
    track = dotted(tmp_path, frames=3)
    folder = exported(tmp_path, track).folder
    database = json.loads((folder / "transforms.json").read_text())
    assert database["camera_model"] == "OPENCV"
    lens = {"fl_x": 330.0, "fl_y": 300.0, "cx": 118.25, "cy": 104.5, "w": SIZE[1], "h": SIZE[0]}
    assert {name: database[name] for name in lens} == lens
    assert all(database[name] == 0 for name in ("k1", "k2", "p1", "p2"))
    assert [frame.keys() for frame in database["frames"]] == [{"file_path", "mask_path", "transform_matrix"}] * 3
    for frame in database["frames"]:
        mask = cv2.imread(str(folder / frame["mask_path"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == SIZE and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}


def test_points_are_on_the_head_and_have_its_colours(tmp_path: Path):
    track = dotted(tmp_path, is_stiff=True, frames=3)
    folder = exported(tmp_path, track).folder
    database = json.loads((folder / "transforms.json").read_text())
    cloud = trimesh.load(folder / database["ply_file_path"])
    colors = np.asarray(cloud.colors)[:, :3]
    points_px = seen_px(database, database["frames"][1], np.asarray(cloud.vertices))
    picture = cv2.imread(str(folder / database["frames"][1]["file_path"]))[..., ::-1]
    for channel in range(3):
        brightest = colors[:, channel].argmax()
        x, y = points_px[brightest].astype(int)
        assert colors[brightest, channel] > 100
        assert picture[y, x, channel] > 60


def test_lost_frames_are_left_out(tmp_path: Path):
    track = dotted(tmp_path, frames=4, lost=((0, 0), (0, 2)))
    done = exported(tmp_path, track)
    database = json.loads((done.folder / "transforms.json").read_text())
    names = [frame["file_path"] for frame in database["frames"]]
    assert names == ["images/frame_00001.png", "images/frame_00003.png"]
    for kind in ("images", "masks"):
        assert sorted(path.name for path in (done.folder / kind).iterdir()) == [name.split("/")[1] for name in names]
    assert done.notes[0] == "person 0: 2 frames without a face are left out"


def test_every_person_has_a_world(tmp_path: Path):
    track = dotted(tmp_path, people=2, frames=2)
    done = exported(tmp_path, track)
    assert [path.parent.name for path in done.paths] == ["person_0", "person_1"]
    cameras = [json.loads(path.read_text())["frames"][0]["transform_matrix"] for path in done.paths]
    assert np.abs(np.subtract(*cameras)).max() > 0.05


def test_the_neck_belongs_to_the_camera():
    track = small_track(frames=1)
    turned = replace(track, neck=track.neck + np.float32(0.2))
    is_head = track.head_model.skin_weights.numpy()[:, 1] > 0.999
    stills = []
    for each in (track, turned):
        camera = np.linalg.inv(cam_from_skull(each, 0)[0])
        verts_cam = np.column_stack((each.vertices(0), np.ones(len(is_head))))
        stills.append((verts_cam @ camera.T)[is_head, :3])
    # Pose correctives of the neck are all that is left.
    assert np.abs(stills[0] - stills[1]).max() < 2e-3


def test_cameras_turn_with_the_neck_as_the_head_model_poses_it():
    track = small_track(frames=4, lost=((0, 1),))
    cameras = cam_from_skull(track, 0)
    assert np.isnan(cameras[1]).all()
    for frame in (0, 2, 3):
        shaped = track.head_model.rest(torch.from_numpy(track.identity[0]))
        expression, neck = (torch.from_numpy(getattr(track, name)[0, frame]) for name in ("expression", "neck"))
        head_from_skull = shaped.pose(expression=expression, neck=neck).posed_from_rest[1].numpy()
        np.testing.assert_allclose(cameras[frame], track.cam_from_head(frame) @ head_from_skull, atol=1e-6)
