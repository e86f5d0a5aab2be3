"""Turned clips give the same person and the same motion, turned; a head that rolls within a clip is followed."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from flame.rotation_kernels import rotation_matrix
from tests.tracker.face_clips import SIZE, portrait, write_video
from tracker import api
from tracker.result import Track

NUM_FRAMES = 6
FOCAL_PX = 400.0
ROLL_STEP_DEGREES = 6.0


def rolling(degrees: float) -> np.ndarray:
    """Return the same picture in every frame, turned clockwise about its middle."""
    turn = cv2.getRotationMatrix2D((SIZE / 2 - 0.5, SIZE / 2 - 0.5), -degrees, 0.8)
    return cv2.warpAffine(portrait(), turn, (SIZE, SIZE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def angle_degrees(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the angle between two rotations, float64 (3, 3)."""
    cosine = (np.trace(expected.T @ found) - 1) / 2
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def track_turned(toolkit, folder, quarters: int) -> Track:
    """Track a clip that is turned clockwise by quarters."""
    images = [np.ascontiguousarray(np.rot90(portrait(index), -quarters)) for index in range(NUM_FRAMES)]
    path = write_video(folder / f"turned{quarters}.mp4", images)
    return api.track(path, toolkit=toolkit, focal_px=FOCAL_PX)


@pytest.fixture(scope="module")
def upright(toolkit, tmp_path_factory) -> Track:
    """Return the track of the clip as it is."""
    return track_turned(toolkit, tmp_path_factory.mktemp("upright"), 0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_clip_gives_the_turned_track(toolkit, upright, tmp_path, quarters):
    turned = track_turned(toolkit, tmp_path, quarters)
    assert turned.status_counts() == upright.status_counts()
    turn = rotation_matrix(np.array((0.0, 0.0, quarters * math.pi / 2)))
    for frame in range(NUM_FRAMES):
        expected, found = turn @ upright.cam_from_head(frame)[:3], turned.cam_from_head(frame)[:3]
        assert angle_degrees(expected[:, :3], found[:, :3]) < 2.0
        assert np.linalg.norm(expected[:, 3] - found[:, 3]) < 0.01
    heads = [toolkit.head.vertices(shape=torch.from_numpy(track.identity[0])) for track in (upright, turned)]
    assert (heads[0] - heads[1]).norm(dim=1).mean() < 0.6e-3
    assert np.abs(upright.expression - turned.expression).mean() < 0.05
    assert turned.intrinsics.cx == SIZE / 2


@pytest.mark.parametrize("direction", [1, -1])
def test_a_head_that_rolls_from_upright_onto_its_side_is_followed(toolkit, tmp_path, direction):
    rolls = direction * np.arange(0.0, 90.0 + ROLL_STEP_DEGREES / 2, ROLL_STEP_DEGREES)
    path = write_video(tmp_path / "rolling.mp4", [rolling(degrees) for degrees in rolls])
    track = api.track(path, toolkit=toolkit, focal_px=FOCAL_PX)
    assert [frame.faces[0].status.label for frame in track] == ["ok"] * len(rolls)
    upright = track.cam_from_head(0)[:3, :3]
    for frame, degrees in enumerate(rolls):
        turn = rotation_matrix(np.array((0.0, 0.0, math.radians(degrees))))
        assert angle_degrees(turn @ upright, track.cam_from_head(frame)[:3, :3]) < 3.0
