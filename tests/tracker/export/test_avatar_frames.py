"""What the data sets for head avatars share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flame.camera import Intrinsics, project
from tests.tracker.export.flame_reader import dot_position
from tracker.export.avatar_frames import PictureWriter, as_bytes, over_white, padded_view, square_view


@pytest.mark.parametrize(
    ("camera", "size"),
    [
        (Intrinsics(500, 500, 320, 240, 640, 480), (640, 480)),
        (Intrinsics(500, 500, 320.5, 240, 641, 480), (641, 480)),
        (Intrinsics(500, 500, 330.5, 200, 640, 480), (661, 560)),
        (Intrinsics(500, 500, 300.2, 240.3, 640, 480), (680, 481)),
        (Intrinsics(600, 500, 320, 240, 640, 480), (640, 576)),
    ],
)
def test_padding_centres_the_principal_point_and_keeps_the_whole_picture(camera: Intrinsics, size: tuple[int, int]):
    view = padded_view(camera)
    lens = view.intrinsics
    assert (lens.width, lens.height) == size
    assert lens.fx == lens.fy and (lens.cx, lens.cy) == (lens.width / 2, lens.height / 2)
    points_cam = np.random.default_rng(0).normal((0, 0, 1), 0.1, (20, 3))
    mapped = cv2.perspectiveTransform(project(points_cam, camera)[None], view.view_from_image)[0]
    assert np.abs(mapped - project(points_cam, lens)).max() < 1e-6
    corners = np.array((((0, 0), (camera.width, camera.height)),), np.float64)
    inside = cv2.perspectiveTransform(corners, view.view_from_image)[0]
    assert inside.min() > -0.51 and (inside.max(axis=0) < np.array(size) + 0.51).all()


def test_a_centred_camera_gives_the_clips_own_pixels():
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    view = padded_view(Intrinsics.from_fov(40, 64, 48))
    assert view.is_clip and view.draw(image) is image
    moved = padded_view(Intrinsics(60, 60, 36, 24, 64, 48))
    assert (moved.draw(image)[:, :64] == image).all() and not moved.draw(image)[:, 64:].any()


@pytest.mark.parametrize("size_px", [512, 96])
def test_the_square_view_is_a_turned_camera(size_px: int):
    camera = Intrinsics(330.0, 300.0, 118.0, 104.0, 256, 192)
    view = square_view(camera, np.array(((150.0, 20, 220, 110), (160, 30, 230, 120))), size_px)
    lens = view.intrinsics
    assert np.allclose(view.view_from_cam @ view.view_from_cam.T, np.eye(3)) and lens.fx == lens.fy
    point_cam = np.array(((0.12, -0.06, 0.6),))
    seen_px, clip_px = project(point_cam @ view.view_from_cam.T, lens)[0], project(point_cam, camera)[0]
    columns, rows = np.meshgrid(np.arange(256) + 0.5, np.arange(192) + 0.5)
    dot = 255 * np.exp(-((columns - clip_px[0]) ** 2 + (rows - clip_px[1]) ** 2) / 18)
    drawn = view.draw(np.repeat(np.round(dot)[..., None], 3, axis=2).astype(np.uint8))
    assert drawn.shape == (size_px, size_px, 3)
    found = dot_position(drawn[..., 1], seen_px, round(15 * view.zoom))
    assert np.abs(found - seen_px).max() < 0.1 * max(view.zoom, 1)


def test_opacities_blend_over_white():
    image = np.array((((10, 20, 30), (10, 20, 30), (10, 20, 30)),), np.uint8)
    alpha = np.array(((0.0, 0.5, 1.0),), np.float32)
    assert over_white(image, alpha).tolist() == [[[255, 255, 255], [132, 137, 142], [10, 20, 30]]]
    assert as_bytes(alpha).tolist() == [[0, 128, 255]]


def test_pictures_are_written_as_they_are_and_failures_are_told(tmp_path: Path):
    depth = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    rgba = np.random.default_rng(2).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    with PictureWriter() as pictures:
        pictures.add(tmp_path / "depth.png", depth)
        pictures.add(tmp_path / "rgba.png", rgba)
        pictures.add(tmp_path / "rgb.jpg", rgba[..., :3])
    assert (cv2.imread(str(tmp_path / "depth.png"), cv2.IMREAD_UNCHANGED) == depth).all()
    written = cv2.imread(str(tmp_path / "rgba.png"), cv2.IMREAD_UNCHANGED)
    assert (written[..., (2, 1, 0, 3)] == rgba).all()
    assert cv2.imread(str(tmp_path / "rgb.jpg")).shape == (20, 30, 3)
    with pytest.raises(FileNotFoundError), PictureWriter() as pictures:
        for number in range(40):
            pictures.add(tmp_path / f"nowhere/{number}.png", depth)
