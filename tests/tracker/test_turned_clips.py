"""A clip that is turned in the image plane gives the same person and the same motion, turned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flame.rotation_kernels import rotation_matrix
from tests.tracker.face_clips import SIZE, portrait, write_video
from tracker import api
from tracker.result import Track

NUM_FRAMES = 6
FOCAL_PX = 400.0


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
        cosine = (np.trace(expected[:, :3].T @ found[:, :3]) - 1) / 2
        assert math.degrees(math.acos(min(cosine, 1.0))) < 2.0
        assert np.linalg.norm(expected[:, 3] - found[:, 3]) < 0.01
    heads = [toolkit.head.vertices(shape=torch.from_numpy(track.identity[0])) for track in (upright, turned)]
    assert (heads[0] - heads[1]).norm(dim=1).mean() < 0.9e-3
    assert np.abs(upright.expression - turned.expression).mean() < 0.05
    assert turned.intrinsics.cx == SIZE / 2
