"""Looking through the tracked camera shows what the camera saw."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flame.camera import Intrinsics, project
from tests.tracker.export.tracks import small_track
from tracker.viewer.framing import free_view, head_centres, picture_depth, through_camera, world_from_cam

CENTRED = Intrinsics(500.0, 500.0, 320.0, 240.0, 640, 480)
SHIFTED = Intrinsics(500.0, 480.0, 280.0, 260.0, 640, 480)


def seen_at(view, points: np.ndarray, aspect: float) -> np.ndarray:
    """Return where a client's camera shows points: -1 to 1 across and down the window."""
    forward = view.look_at - view.position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, view.up)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    local = (points - view.position) @ np.stack((right, down, forward), axis=1)
    scale = math.tan(view.fov_radians / 2)
    return np.stack((local[:, 0] / local[:, 2] / (scale * aspect), local[:, 1] / local[:, 2] / scale), axis=1)


@pytest.mark.parametrize("aspect", [0.5, 4 / 3, 2.4])
@pytest.mark.parametrize("intrinsics", [CENTRED, SHIFTED])
@pytest.mark.parametrize("person", [None, 0])
def test_through_the_camera_points_lie_where_the_picture_has_them(aspect, intrinsics, person):
    track = small_track(frames=3, intrinsics=intrinsics)
    pose = world_from_cam(track, 1, person, np.array((0.0, 0.0, 0.6)))
    assert pose is not None
    view = through_camera(intrinsics, pose, aspect, 0.6)
    rng = np.random.default_rng(1)
    points = rng.uniform((-0.1, -0.1, 0.4), (0.1, 0.1, 0.8), (50, 3))
    corners = np.array([(0, 0), (640, 0), (640, 480), (0, 480)], float)
    on_plane = np.stack(
        ((corners[:, 0] - intrinsics.cx) / intrinsics.fx, (corners[:, 1] - intrinsics.cy) / intrinsics.fy, np.ones(4)),
        axis=1,
    )
    world = np.concatenate((points, on_plane)) @ pose[:3, :3].T + pose[:3, 3]
    window = seen_at(view, world, aspect)
    # The map from picture to window is one scale and one shift: fix them with two corners, then all else has to fit.
    pixels = np.concatenate((project(points, intrinsics), corners))
    scale = (window[-2] - window[-4]) / (pixels[-2] - pixels[-4])
    np.testing.assert_allclose(window, window[-4] + (pixels - pixels[-4]) * scale, atol=1e-9)
    assert np.abs(window[-4:]).max() == pytest.approx(1.0)


def test_with_a_head_fixed_its_vertices_stand_still():
    track = small_track(frames=4, people=2)
    anchor = np.array((0.0, 0.0, 0.7))
    still = []
    for frame in range(4):
        pose = world_from_cam(track, frame, 1, anchor)
        head = np.eye(4)
        head[:] = pose @ track.cam_from_head(frame, 1)
        still.append(head)
    np.testing.assert_allclose(still, np.repeat(still[:1], 4, axis=0), atol=1e-9)
    np.testing.assert_allclose(still[0] @ (0, 0, 0, 1), (*anchor, 1), atol=1e-12)
    # Upright (the world's y points down) and facing the viewer.
    np.testing.assert_allclose(still[0][:3, :3], np.diag((1.0, -1.0, -1.0)), atol=1e-9)


def test_lost_heads_give_no_pose_and_no_centre():
    track = small_track(frames=3, people=2, lost=((1, 1),))
    assert world_from_cam(track, 1, 1, np.zeros(3)) is None
    assert len(head_centres(track, 1)) == 1
    assert len(head_centres(track, 0)) == 2


def test_nobody_tracked_is_no_reason_to_fail():
    track = small_track(frames=2, lost=((0, 0), (0, 1)))
    assert head_centres(track, 0).shape == (1, 3)
    assert picture_depth(track) > 0.6


def test_all_heads_are_in_the_free_view():
    centres = np.array(((-0.3, 0.0, 0.7), (0.3, 0.05, 0.9)))
    view = free_view(centres)
    assert np.abs(seen_at(view, centres, 1.0)).max() < 0.9
