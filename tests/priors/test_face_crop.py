"""The crop a network looks at: where it lies, what it shows, which camera sees it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flame.camera import Intrinsics, project
from priors.face_crop import FaceCrop, ray_from_cam

CAMERA = Intrinsics(900.0, 900.0, 320.0, 240.0, 640, 480)


def landmarks(center: tuple[float, float], size: float, roll_rad: float) -> np.ndarray:
    """Return landmarks on an upright ellipse, eye corners level, then turned clockwise."""
    angles = np.linspace(0, 2 * math.pi, 478, endpoint=False)
    points = size * np.column_stack((0.4 * np.cos(angles), 0.5 * np.sin(angles)))
    points[33], points[263] = size * np.array((-0.2, -0.1)), size * np.array((0.2, -0.1))
    turn = np.array(((math.cos(roll_rad), -math.sin(roll_rad)), (math.sin(roll_rad), math.cos(roll_rad))))
    return points @ turn.T + center


def test_crop_is_upright_larger_than_the_face_and_moved_towards_the_skull() -> None:
    crop = FaceCrop.around(landmarks((300, 200), 100, math.radians(30)))
    assert crop.roll_rad == pytest.approx(math.radians(30), abs=1e-6)
    assert crop.side_px == pytest.approx(160, rel=1e-3)
    middle = crop.image_from_crop @ (128, 128, 1)
    up = np.array((math.sin(math.radians(30)), -math.cos(math.radians(30))))
    np.testing.assert_allclose(middle, np.array((300, 200)) + 0.08 * 160 * up, atol=0.05)


@given(st.floats(-3.1, 3.1), st.floats(20, 900), st.floats(-200, 800), st.floats(-200, 800))
def test_crop_of_moved_landmarks_sees_them_at_the_same_places(roll_rad: float, size: float, x: float, y: float) -> None:
    points, moved = landmarks((0, 0), 100, 0.0), landmarks((x, y), size, roll_rad)
    first, second = FaceCrop.around(points), FaceCrop.around(moved)
    places = [
        np.column_stack((each, np.ones(478))) @ crop.crop_from_image.T
        for crop, each in ((first, points), (second, moved))
    ]
    np.testing.assert_allclose(places[0], places[1], atol=1e-6 * max(1.0, 1e3 / size))


@pytest.mark.parametrize("side", [64.0, 256.0, 1000.0])
def test_cut_shows_a_point_where_the_similarity_says(side: float) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[200:232, 300:332] = 255
    crop = FaceCrop.of(np.array((310.0, 220.0)), side, 0.4)
    picture = crop.cut(image).astype(float)[..., 0]
    rows, columns = np.nonzero(picture > 127)
    inside = picture.sum() / 255
    if side > 64:
        middle = np.array(((columns + 0.5).mean(), (rows + 0.5).mean(), 1.0))
        np.testing.assert_allclose(crop.image_from_crop @ middle, (316, 216), atol=0.02 * side / 2)
        assert inside == pytest.approx((32 * 256 / side) ** 2, rel=0.03)
    else:
        assert inside > 0


def test_cut_is_black_beyond_the_image() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    picture = FaceCrop.of(np.array((0.0, 50.0)), 100.0, 0.0).cut(image)
    assert (picture[:, :120] == 0).all() and (picture[8:-8, 136:-8] == 200).all()


def test_the_pictures_camera_sees_points_where_the_picture_shows_them() -> None:
    crop = FaceCrop.of(np.array((350.0, 180.0)), 130.0, -0.7)
    points_cam = np.random.default_rng(0).normal((0.02, -0.05, 0.8), 0.05, (20, 3))
    image_px = project(points_cam, CAMERA)
    crop_px = project(points_cam @ crop.crop_cam_from_cam().T, crop.intrinsics(CAMERA))
    np.testing.assert_allclose(np.column_stack((crop_px, np.ones(20))) @ crop.image_from_crop.T, image_px, atol=1e-9)


@given(st.floats(-300, 900), st.floats(-300, 900))
def test_ray_rotation_is_the_smallest_that_takes_the_ray_to_the_axis(x: float, y: float) -> None:
    turn = ray_from_cam(CAMERA, (x, y))
    ray = np.array(((x - CAMERA.cx) / CAMERA.fx, (y - CAMERA.cy) / CAMERA.fy, 1.0))
    ray /= np.linalg.norm(ray)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turn @ ray, (0, 0, 1), atol=1e-12)
    assert (np.trace(turn) - 1) / 2 == pytest.approx(ray[2], abs=1e-12)
