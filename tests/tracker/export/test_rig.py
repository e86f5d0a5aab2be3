from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.tracker.export.tracks import small_track, toy_head_file
from tracker.export.rig import head_motion, rig_head, shown_frames, unbroken_quaternions
from tracker.result import Track


def skinned(track: Track, person: int) -> np.ndarray:
    """Do what an animation program does with a rig: morph, then skin; (T, V, 3) in camera space."""
    rig = rig_head(track, person)
    motion = head_motion(track, person, rig)
    frames = []
    for weights, joints in zip(motion.morph_weights, motion.cam_from_joint, strict=True):
        morphed = rig.rest_vertices + np.einsum("m,mvc->vc", weights.astype(np.float64), rig.morph_deltas)
        moved = [
            (morphed - place) @ joint[:3, :3].T + joint[:3, 3]
            for joint, place in zip(joints, rig.rest_joints, strict=True)
        ]
        frames.append(np.einsum("vj,jvc->vc", rig.skin_weights, np.stack(moved)))
    return np.stack(frames)


@pytest.mark.parametrize("head", ["commons", "flame"])
def test_a_rig_moves_every_vertex_as_the_track_does(head, tmp_path):
    track = small_track("commons" if head == "commons" else toy_head_file(tmp_path), people=2, frames=4)
    for person in range(2):
        expected = np.stack([track.vertices(frame, person) for frame in range(4)])
        assert np.abs(skinned(track, person) - expected).max() < 2e-6


def test_joints_in_their_parents_axes_compose_to_joints_in_camera_space():
    track = small_track(frames=3)
    rig = rig_head(track, 0)
    motion = head_motion(track, 0, rig)
    local = motion.parent_from_joint(rig.joint_parents)
    for joint, parent in enumerate(rig.joint_parents):
        above = np.eye(4) if parent < 0 else motion.cam_from_joint[:, parent]
        assert np.allclose(above @ local[:, joint], motion.cam_from_joint[:, joint], atol=1e-12)


def test_lost_frames_hold_the_last_tracked_pose_and_early_ones_the_first():
    is_tracked = np.array([False, True, False, False, True])
    assert shown_frames(is_tracked).tolist() == [1, 1, 1, 1, 4]
    track = small_track(frames=5, lost=((0, 0), (0, 2), (0, 3)))
    motion = head_motion(track, 0, rig_head(track, 0))
    assert np.isfinite(motion.cam_from_joint).all() and np.isfinite(motion.morph_weights).all()
    assert np.array_equal(motion.cam_from_joint[0], motion.cam_from_joint[1])
    assert np.array_equal(motion.morph_weights[3], motion.morph_weights[1])


def test_quaternions_of_turns_that_go_round_and_round_never_jump():
    angles = np.linspace(0, 6 * np.pi, 60)[:, None] * (1.0, -0.7)
    rotations = Rotation.from_rotvec(angles.reshape(-1, 1) * (0.6, 0.0, 0.8)).as_matrix().reshape(60, 2, 3, 3)
    quaternions = unbroken_quaternions(rotations)
    assert (np.sum(quaternions[1:] * quaternions[:-1], axis=-1) > 0.9).all()
    found = Rotation.from_quat(quaternions.reshape(-1, 4)).as_matrix()
    assert np.allclose(found, rotations.reshape(-1, 3, 3))


def test_morph_targets_that_move_nothing_are_left_out(tmp_path):
    # FLAME files hold 100 expression columns; the toy head fills 8 of them.
    rig = rig_head(small_track(toy_head_file(tmp_path)), 0)
    assert rig.num_expressions == 8
    assert (np.abs(rig.morph_deltas).max(axis=(1, 2)) > 0).all()


def test_expressions_keep_their_names_on_the_commons_head():
    rig = rig_head(small_track(), 0)
    assert {"mouthSmileLeft", "eyeBlinkRight"} <= set(rig.morph_names)
    assert any(name.startswith("pose_jaw_") for name in rig.morph_names)
