"""One person's motion as programs for FLAME write it: codes padded to 300 and 100, poses about the root joint.

A track moves the whole head, ``v_cam = R v + t``. FLAME's ``rotation`` turns about the root joint J0 of the shaped and
expressed template, ``v = R (v - J0) + J0 + translation``, so ``translation = t + R J0 - J0``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from flame.errors import InputError
from flame.model import JOINT_NAMES
from flame.saving import NUM_EXPRESSION_COLUMNS, NUM_SHAPE_COLUMNS
from tracker.result import Track

NUM_VERTICES = 5023
"""Vertices of FLAME, the only head that programs for its codes know."""

_NECK = JOINT_NAMES.index("neck")


@dataclass(frozen=True, eq=False)
class FlameMotion:
    """Hold a person over the N frames in which the person is tracked; rotations are axis-angle, radians."""

    positions: np.ndarray
    """Positions of the frames in the track, int64 (N,)."""
    shape: np.ndarray
    """Identity coefficients, padded with zeros, float64 (300,)."""
    expression: np.ndarray
    """Expression coefficients, padded with zeros, float64 (N, 100)."""
    neck: np.ndarray
    """Float64 (N, 3)."""
    jaw: np.ndarray
    """Float64 (N, 3); zero on heads without a jaw joint."""
    eyes: np.ndarray
    """The subject's left eye, then the right one, float64 (N, 6)."""
    cam_from_head: np.ndarray
    """Rigid transforms from head to camera space, float64 (N, 4, 4), metres."""
    joints: np.ndarray
    """Joints of the shaped and expressed template, head space, float64 (N, 5, 3), metres."""


def flame_motion(track: Track, person: int) -> FlameMotion:
    """Return a person's motion in the frames in which the person is tracked.

    Raises:
        InputError: the head has more coefficients than the formats hold.
    """
    head = track.head_model
    if head.num_shape > NUM_SHAPE_COLUMNS or head.num_expression > NUM_EXPRESSION_COLUMNS:
        raise InputError(
            f"head {head.name!r} has {head.num_shape} shape and {head.num_expression} expression coefficients; "
            f"the format holds {NUM_SHAPE_COLUMNS} and {NUM_EXPRESSION_COLUMNS}; convert the track with --convert-to."
        )
    at = np.flatnonzero(track.is_tracked[person])
    jaw = track.jaw[person, at].astype(np.float64)
    return FlameMotion(
        positions=at,
        shape=_padded(track.identity[person], NUM_SHAPE_COLUMNS),
        expression=_padded(track.expression[person, at], NUM_EXPRESSION_COLUMNS),
        neck=track.neck[person, at].astype(np.float64),
        jaw=jaw if head.has_jaw else np.zeros_like(jaw),
        eyes=np.concatenate((track.left_eye[person, at], track.right_eye[person, at]), axis=1).astype(np.float64),
        cam_from_head=_cam_from_head(track, person, at),
        joints=_joints(track, person, at),
    )


def cam_from_steady(track: Track, person: int, positions: np.ndarray) -> np.ndarray:
    """Return the rigid transforms of a head whose neck is held straight, float64 (N, 4, 4), OpenCV axes, metres.

    Formats without a neck joint hold the head steady and move the camera: what follows the neck alone is seen where it
    is, but for the neck's pose correctives.

    Args:
        track: the track.
        person: which person.
        positions: frames in which the person is tracked, int64 (N,).
    """
    turn = Rotation.from_rotvec(track.neck[person, positions]).as_matrix()
    return _cam_from_head(track, person, positions) @ about(turn, _joints(track, person, positions)[:, _NECK])


def _cam_from_head(track: Track, person: int, positions: np.ndarray) -> np.ndarray:
    """Return the poses of the head in some frames, float64 (N, 4, 4)."""
    transforms = np.tile(np.eye(4), (len(positions), 1, 1))
    transforms[:, :3, :3] = Rotation.from_rotvec(track.rotation[person, positions]).as_matrix()
    transforms[:, :3, 3] = track.translation[person, positions]
    return transforms


def _joints(track: Track, person: int, positions: np.ndarray) -> np.ndarray:
    """Return the joints of the shaped and expressed template in some frames, head space, float64 (N, 5, 3), metres."""
    head = track.head_model
    with torch.no_grad():
        rest = head.rest(torch.from_numpy(np.asarray(track.identity[person]))).joints.double().numpy()
        moved = head.joint_expression_basis.double().numpy()
    return rest + np.einsum("jce,ne->njc", moved, track.expression[person, positions].astype(np.float64))


def root_pose(world_from_head: np.ndarray, root_joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return FLAME's ``rotation``, axis-angle, and ``translation``, each (N, 3), of rigid transforms (N, 4, 4).

    Args:
        world_from_head: transforms ``v = R v0 + t``.
        root_joint: the root joint J0 (N, 3), see `FlameMotion.joints`.
    """
    turn, shift = world_from_head[:, :3, :3], world_from_head[:, :3, 3]
    return Rotation.from_matrix(turn).as_rotvec(), shift + np.einsum("nij,nj->ni", turn, root_joint) - root_joint


def about(turn: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the transforms (N, 4, 4) that turn (N, 3, 3) about points (N, 3)."""
    transforms = np.tile(np.eye(4), (len(turn), 1, 1))
    transforms[:, :3, :3] = turn
    transforms[:, :3, 3] = point - np.einsum("nij,nj->ni", turn, point)
    return transforms


def rotation_6d(turn: np.ndarray) -> np.ndarray:
    """Return rotations (..., 3, 3) as their first two rows (..., 6).

    Y. Zhou et al., "On the continuity of rotation representations in neural networks", 2019, in the layout of
    ``pytorch3d.transforms.matrix_to_rotation_6d``.
    """
    return turn[..., :2, :].reshape(*turn.shape[:-2], 6)


def other_version_note(track: Track, reader: str, file: str) -> str:
    """Say which FLAME file a program puts the codes into: versions of FLAME share their mesh, not their codes."""
    return (
        f"{reader} puts the codes into its {file}; if the track's {Path(track.head).name} is another version, "
        "export with --convert-to and that file"
    )


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    """Return float64 values (..., K) with zeros after them, (..., count)."""
    values = np.asarray(values, np.float64)
    return np.concatenate((values, np.zeros((*values.shape[:-1], count - values.shape[-1]))), axis=-1)
