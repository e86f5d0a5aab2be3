"""The output of metrical-tracker, read again as INSTA's scripts, FlashAvatar and PyTorch3D understand it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from flame.camera import Intrinsics
from tests.tracker.export.flame_reader import (
    clip_pixels,
    dot_position,
    dotted_vertices,
    flame_file,
    flame_vertices,
    from_six,
    read_mesh,
    write_dotted_clip,
)
from tests.tracker.export.tracks import SIZE, small_track, toy_head_file
from tracker.export import Exported, export
from tracker.result import Track

MATTING = "tests.tracker.export.flame_reader:everything"
OFF_CENTRE = Intrinsics(330.0, 300.0, 118.25, 104.5, SIZE[1], SIZE[0])
SHAPES = {
    "flame": {
        **{"exp": (1, 100), "shape": (1, 300), "tex": (1, 140), "sh": (1, 9, 3)},
        **{"eyes": (1, 12), "eyelids": (1, 2), "jaw": (1, 6)},
    },
    "camera": {"R": (1, 6), "t": (1, 3), "fl": (1, 1), "pp": (1, 2)},
    "opencv": {"R": (1, 3, 3), "t": (1, 3), "K": (1, 3, 3)},
}


def exported(tmp_path: Path, head: str | Path = "commons", **options: Any) -> tuple[Track, Exported]:
    track = small_track(head, source=tmp_path / "clip", **options)
    write_dotted_clip(track, tmp_path / "clip")
    return track, export(track, ["metrical-tracker"], tmp_path / "export", matting=MATTING)[0]


def read_frame(path: Path) -> dict[str, Any]:
    """Load a file with nothing allowed but the arrays that are in it."""
    from numpy.core.multiarray import _reconstruct  # pyright: ignore

    allowed = [_reconstruct, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in (np.float32, np.int64))]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, weights_only=True)


def through_opencv(frame: dict[str, Any], verts: np.ndarray) -> np.ndarray:
    """Return pixels (V, 2) of vertices."""
    opencv = frame["opencv"]
    seen = (verts @ opencv["R"][0].T + opencv["t"][0]) @ opencv["K"][0].T
    return seen[:, :2] / seen[:, 2:]


def through_pytorch3d(frame: dict[str, Any], verts: np.ndarray) -> np.ndarray:
    """Return pixels (V, 2) of vertices; +x is to the left, +y up, rows are multiplied from the left."""
    camera, (height, width) = frame["camera"], frame["img_size"]
    x, y, z = (verts @ from_six(camera["R"][0].astype(float)) + camera["t"][0]).T
    focal, half = camera["fl"][0, 0], min(height, width) / 2
    ndc = np.stack((focal * x / z + camera["pp"][0, 0], focal * y / z + camera["pp"][0, 1]), axis=1)
    return np.array((width / 2, height / 2)) - half * ndc


@pytest.mark.parametrize("lens", [None, OFF_CENTRE])
def test_meshes_lie_where_the_pictures_show_the_head(tmp_path: Path, lens: Intrinsics | None):
    track, done = exported(tmp_path, intrinsics=lens, frames=3)
    for number in range(3):
        frame = read_frame(done.folder / f"checkpoint/{number:05d}.frame")
        mesh = read_mesh(done.folder / f"mesh/{number:05d}.ply")
        assert (mesh.faces == track.head_model.faces.numpy()).all()
        seen_px = through_opencv(frame, mesh.vertices)
        assert np.abs(seen_px - through_pytorch3d(frame, mesh.vertices)).max() < 0.02
        # The turned camera sees the clip's pixels through one homography, the same in all frames and all heads.
        homography, _ = cv2.findHomography(clip_pixels(track, number, 0), seen_px)
        mapped = cv2.perspectiveTransform(clip_pixels(track, number, 0)[None], homography)[0]
        assert np.abs(mapped - seen_px).max() < 0.02
        picture = cv2.imread(str(done.folder / f"input/{number:05d}.png"))[..., ::-1]
        assert picture.shape == (512, 512, 3)
        for channel, vertex in enumerate(dotted_vertices(track)):
            found = dot_position(picture[..., channel], seen_px[vertex], 16)
            assert np.abs(found - seen_px[vertex]).max() < 0.1
        assert seen_px.min() > 0 and seen_px.max() < 512


def test_codes_give_the_head_above_the_neck(tmp_path: Path):
    head = toy_head_file(tmp_path)
    track, done = exported(tmp_path, head, frames=4)
    carried = track.head_model.skin_weights.numpy()[:, 0] < 1e-6
    data, away = flame_file(head), []
    for number in range(4):
        frame = read_frame(done.folder / f"checkpoint/{number:05d}.frame")
        codes = {name: values[0].astype(float) for name, values in frame["flame"].items()}
        turns = [np.eye(3), np.eye(3), from_six(codes["jaw"]), from_six(codes["eyes"][:6]), from_six(codes["eyes"][6:])]
        coded = flame_vertices(data, codes["shape"], codes["exp"], turns, np.zeros(3))
        mesh = read_mesh(done.folder / f"mesh/{number:05d}.ply").vertices
        away.append(np.linalg.norm((coded - mesh)[carried], axis=1).max())
        assert np.linalg.norm(through_opencv(frame, coded) - through_opencv(frame, mesh), axis=1)[carried].max() < 1.5
    # Straightening the neck leaves out its pose correctives, which are told.
    note = next(note for note in done.notes if "no neck joint" in note)
    told_mm = float(re.search(r"([\d.]+) mm", note)[1])  # pyright: ignore
    assert 0.3 * max(away) < told_mm / 1000 < 1.01 * max(away) + 1e-5
    assert max(away) < 2e-3


def test_codes_are_exact_where_the_neck_is_straight(tmp_path: Path):
    head = toy_head_file(tmp_path)
    track = small_track(head, source=tmp_path / "clip", frames=2)
    track.neck[:] = 0
    write_dotted_clip(track, tmp_path / "clip")
    done = export(track, ["metrical-tracker"], tmp_path / "export", matting=MATTING)[0]
    for number in range(2):
        frame = read_frame(done.folder / f"checkpoint/{number:05d}.frame")
        codes = {name: values[0].astype(float) for name, values in frame["flame"].items()}
        turns = [np.eye(3), np.eye(3), from_six(codes["jaw"]), from_six(codes["eyes"][:6]), from_six(codes["eyes"][6:])]
        coded = flame_vertices(flame_file(head), codes["shape"], codes["exp"], turns, np.zeros(3))
        mesh = read_mesh(done.folder / f"mesh/{number:05d}.ply").vertices
        assert np.abs(coded - mesh).max() < 1e-5
    assert not any("neck" in note for note in done.notes)


def test_files_keys_and_shapes_are_those_of_the_tracker(tmp_path: Path):
    track, done = exported(tmp_path, frames=4, lost=((0, 1),))
    assert sorted(path.name for path in (done.folder / "checkpoint").iterdir()) == [f"0000{i}.frame" for i in range(3)]
    for number in range(3):
        frame = read_frame(done.folder / f"checkpoint/{number:05d}.frame")
        assert frame.keys() == {*SHAPES, "img_size", "frame_id", "global_step"}
        for part, shapes in SHAPES.items():
            assert {name: values.shape for name, values in frame[part].items()} == shapes
            assert all(values.dtype == np.float32 for values in frame[part].values())
        assert frame["img_size"].tolist() == [512, 512] and frame["img_size"].dtype == np.int64
        assert frame["frame_id"] == f"{number:05d}" and isinstance(frame["global_step"], int)
        # FlashAvatar takes the principal point for the middle, and its pictures count from 1.
        assert np.allclose(frame["opencv"]["K"][0, :2, 2], 256) and np.allclose(frame["camera"]["pp"], 0)
        for name in (f"imgs/{number + 1:05d}.jpg", f"alpha/{number + 1:05d}.jpg"):
            assert cv2.imread(str(done.folder / name), cv2.IMREAD_UNCHANGED).shape[:2] == (512, 512)
        head, mouth = (
            cv2.imread(str(done.folder / f"parsing/{number + 1:05d}_{part}.png"), cv2.IMREAD_UNCHANGED)
            for part in ("neckhead", "mouth")
        )
        assert set(np.unique(head)) == set(np.unique(mouth)) == {0, 255}
        assert 50 < (mouth > 0).sum() < 0.1 * (head > 0).sum()
    canonical = read_mesh(done.folder / "canonical.obj")
    identity = torch.from_numpy(track.identity[0])
    expected = track.head_model.vertices(shape=identity, jaw=torch.tensor((math.radians(12), 0.0, 0.0)))
    assert np.abs(canonical.vertices - expected.numpy()).max() < 1e-6
    assert any("1 of 4 frames" in note for note in done.notes)


def test_depth_is_that_of_the_mesh(tmp_path: Path):
    _, done = exported(tmp_path, frames=2)
    frame = read_frame(done.folder / "checkpoint/00001.frame")
    verts = read_mesh(done.folder / "mesh/00001.ply").vertices
    depth = cv2.imread(str(done.folder / "depth/00001.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16 and depth.shape == (512, 512)
    seen_px = through_opencv(frame, verts)
    along = (verts @ frame["opencv"]["R"][0].T + frame["opencv"]["t"][0])[:, 2]
    nose = int(along.argmin())
    column, row = seen_px[nose].astype(int)
    assert abs(int(depth[row, column]) - 1000 * along[nose]) < 2
    assert depth[0, 0] == 0


def test_people_have_their_own_squares(tmp_path: Path):
    track, done = exported(tmp_path, frames=2, people=2)
    assert [path.name for path in done.paths] == ["person_0", "person_1"]
    for person in range(2):
        frame = read_frame(done.folder / f"person_{person}/checkpoint/00001.frame")
        mesh = read_mesh(done.folder / f"person_{person}/mesh/00001.ply")
        seen_px = through_opencv(frame, mesh.vertices)
        homography, _ = cv2.findHomography(clip_pixels(track, 1, person), seen_px)
        picture = cv2.imread(str(done.folder / f"person_{person}/input/00001.png"))
        original = cv2.imread(str(tmp_path / "clip/00001.png"))
        shift = np.array(((1, 0, 0.5), (0, 1, 0.5), (0, 0, 1)))
        warped = cv2.warpPerspective(
            original, np.linalg.inv(shift) @ homography @ shift, (512, 512), flags=cv2.INTER_CUBIC
        )
        assert np.abs(warped.astype(int) - picture).max() <= 3
        assert np.abs(seen_px.mean(axis=0) - 256).max() < 120
