"""Pose one person's head without torch, whose import alone takes longer than a viewer may take to open.

The same arithmetic as ``flame.model``: rest shape, expressions and pose correctives in one product, then linear blend
skinning; single precision, about a millisecond a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flame.head_files import NUM_JOINTS, HeadArrays

if TYPE_CHECKING:
    from tracker.result import Track

JOINTS = ("neck", "jaw", "left_eye", "right_eye")
"""Joints that a track poses, in the order of the model's joints after the root."""
_JAW = 2


@dataclass(frozen=True, eq=False)
class FaceParameters:
    """Hold what poses a head of a given person."""

    expression: np.ndarray
    """Expression coefficients (E,)."""
    joints: Mapping[str, np.ndarray]
    """Axis-angle (3,) of each of ``JOINTS``, radians."""

    @staticmethod
    def of(track: Track, frame: int, person: int) -> FaceParameters:
        """Take the parameters of a tracked frame; NaN where the person is not tracked."""
        joints = {name: getattr(track, name)[person, frame] for name in JOINTS}
        return FaceParameters(track.expression[person, frame], joints)


def rotation_matrices(axis_angles: np.ndarray) -> np.ndarray:
    """Return rotations (N, 3, 3) float64 from axis-angle vectors (N, 3), radians, by Rodrigues' formula."""
    vectors = np.asarray(axis_angles, np.float64)
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    cross = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -z, y, -x
    cross -= cross.transpose(0, 2, 1)
    # np.sinc is sin(pi x) / (pi x) and knows its limit at zero.
    sine, half_sine = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi))
    return np.eye(3) + sine * cross + 0.5 * half_sine**2 * (cross @ cross)


def cam_from_head(track: Track, frame: int, person: int) -> np.ndarray:
    """Return the rigid transform from head to camera space, float64 (4, 4), metres; NaN where not tracked."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrices(track.rotation[person, frame][None])[0]
    matrix[:3, 3] = track.translation[person, frame]
    return matrix


@dataclass(frozen=True, eq=False)
class PersonRig:
    """Hold the head of one person, ready to be posed."""

    rest: np.ndarray
    """Vertices at rest, float32 (V, 3), metres, head space."""
    joints: np.ndarray
    """Joints at rest, float64 (5, 3)."""
    directions: np.ndarray
    """Expressions and pose correctives together, float32 (E + 36, V * 3)."""
    joint_directions: np.ndarray
    """How expressions move the joints at rest, float64 (E, 5, 3)."""
    skin_weights: np.ndarray
    """Share of each joint in each vertex, float32 (V, 5)."""
    parents: tuple[int, ...]
    """Parent of each joint, -1 for the root."""
    has_jaw: bool
    """Where not, the jaw's rotation counts as none."""

    @staticmethod
    def of(head: HeadArrays, identity: np.ndarray) -> PersonRig:
        """Give a head the identity (I,), standard deviations."""
        count = len(head.template)
        moved = np.asarray(identity, np.float32) @ head.shape_directions.reshape(len(head.shape_directions), -1)
        rest = head.template + moved.reshape(count, 3)
        expressions = np.asarray(head.expression_directions, np.float64)
        stacked = np.concatenate((expressions.reshape(-1, 3 * count), head.pose_basis))
        return PersonRig(
            rest=rest.astype(np.float32),
            joints=head.joint_regressor @ rest,
            directions=np.ascontiguousarray(stacked, np.float32),
            joint_directions=np.einsum("jv,evc->ejc", head.joint_regressor, expressions, optimize=True),
            skin_weights=head.skin_weights.astype(np.float32),
            parents=head.parents,
            has_jaw=head.has_jaw,
        )

    def pose(self, parameters: FaceParameters) -> np.ndarray:
        """Return the vertices in head space, float32 (V, 3), metres; equal to ``Track.vertices`` but for rounding."""
        expression = np.asarray(parameters.expression, np.float64)
        angles = np.zeros((NUM_JOINTS, 3))
        for joint, name in enumerate(JOINTS, start=1):
            if joint != _JAW or self.has_jaw:
                angles[joint] = parameters.joints[name]
        local = rotation_matrices(angles)
        features = (local[1:] - np.eye(3)).reshape(-1)
        weights = np.concatenate((expression, features)).astype(np.float32)
        rest = self.rest + (weights @ self.directions).reshape(-1, 3)
        joints = self.joints + np.tensordot(expression, self.joint_directions, axes=1)
        carried = self._posed_from_rest(local, joints).astype(np.float32)
        blended = (self.skin_weights @ carried.reshape(NUM_JOINTS, 12)).reshape(-1, 3, 4)
        return np.einsum("vrc,vc->vr", blended[:, :, :3], rest) + blended[:, :, 3]

    def _posed_from_rest(self, local: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """Return how points fixed to each joint move, (5, 3, 4)."""
        turns, places = np.empty((NUM_JOINTS, 3, 3)), np.empty((NUM_JOINTS, 3))
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                turns[joint], places[joint] = local[joint], joints[joint]
            else:
                turns[joint] = turns[parent] @ local[joint]
                places[joint] = places[parent] + turns[parent] @ (joints[joint] - joints[parent])
        shift = places - np.einsum("jrc,jc->jr", turns, joints)
        return np.concatenate((turns, shift[:, :, None]), axis=2)
