"""A tracked head as a rig of animation programs: skeleton, skinning and morph targets.

Linear blend skinning of the morphed rest mesh by ``HeadMotion.cam_from_joint`` gives ``Track.vertices`` exactly (to
rounding), because the two things that FLAME does beyond a plain rig are expressed by the rig's own means:

- *pose correctives* are further morph targets, one per entry of ``R_j - I``, weighted by that entry;
- joints follow the expressed face, ``J = J_regressor (T + B_s beta + B_e psi)``: skinning moves rest points by
  ``[R_j | p_j - R_j J_j]`` (p_j: posed joint), and a rig with joints bound at the neutral face's ``J0`` does the same
  when its joint is at ``p_j + R_j (J0_j - J_j)``. So joints are animated in translation, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from flame.model import JOINT_NAMES, NUM_JOINTS, HeadModel
from flame.rotation import matrix_from_axis_angle
from flame.skinning import joint_transforms
from tracker.result import Track

_UNMOVED_METRES = 1e-9
"""Morph targets that move no vertex farther are left out."""


@dataclass(frozen=True, eq=False)
class RiggedHead:
    """Hold the head of one person: V vertices, F triangles, M morph targets, five joints."""

    rest_vertices: np.ndarray
    """Neutral head of the person, float64 (V, 3), metres, head space."""
    rest_joints: np.ndarray
    """Joints of the neutral head, float64 (5, 3), metres, head space."""
    faces: np.ndarray
    """Vertex indices, int64 (F, 3), anticlockwise seen from outside."""
    skin_weights: np.ndarray
    """Share of each joint in each vertex, float64 (V, 5); rows sum to one."""
    morph_names: tuple[str, ...]
    """Names of the morph targets: expressions, then ``pose_<joint>_<row><column>`` for pose correctives."""
    morph_deltas: np.ndarray
    """What morph targets add to the rest vertices at weight 1, float32 (M, V, 3), metres."""
    uv: np.ndarray | None
    """Texture coordinates, float32 (VT, 2), origin bottom left, where the head has them."""
    uv_faces: np.ndarray | None
    """Rows of ``uv`` at the corners of the triangles, int64 (F, 3)."""
    joint_names: tuple[str, ...] = JOINT_NAMES
    """Names of the joints."""
    joint_parents: tuple[int, ...] = (-1, 0, 1, 1, 1)
    """Parent of each joint, -1 for the root."""

    @property
    def num_expressions(self) -> int:
        """Return how many of the morph targets are expressions; they come first."""
        return sum(not name.startswith("pose_") for name in self.morph_names)


@dataclass(frozen=True, eq=False)
class HeadMotion:
    """Hold the motion of a rigged head over T frames; lost frames hold the last tracked one, early ones the first."""

    morph_weights: np.ndarray
    """Weights of the morph targets, float32 (T, M)."""
    cam_from_joint: np.ndarray
    """Joints in camera space (OpenCV), float64 (T, 5, 4, 4): rotation, and where the joint is, metres."""
    is_tracked: np.ndarray
    """Where the person is tracked, bool (T,)."""
    shown_frame: np.ndarray
    """The frame whose pose each frame shows, int64 (T,)."""

    def parent_from_joint(self, parents: tuple[int, ...]) -> np.ndarray:
        """Return each joint in the axes of its parent, the root in camera space, float64 (T, 5, 4, 4)."""
        local = self.cam_from_joint.copy()
        for joint, parent in enumerate(parents):
            if parent >= 0:
                local[:, joint] = np.linalg.inv(self.cam_from_joint[:, parent]) @ self.cam_from_joint[:, joint]
        return local


def rig_head(track: Track, person: int) -> RiggedHead:
    """Return the rig of one person of a track."""
    model = track.head_model
    deltas, names = _morphs(model)
    is_used = np.abs(deltas).max(axis=(1, 2), initial=0.0) > _UNMOVED_METRES
    with torch.no_grad():
        rest = model.to(dtype=torch.float64).rest(torch.from_numpy(track.identity[person]))
    topology = model.topology
    has_uv = topology is not None and topology.uv is not None and topology.uv_faces is not None
    return RiggedHead(
        rest_vertices=rest.vertices.numpy(),
        rest_joints=rest.joints.numpy(),
        faces=model.faces.numpy(),
        skin_weights=model.skin_weights.numpy().astype(np.float64),
        morph_names=tuple(name for name, used in zip(names, is_used, strict=True) if used),
        morph_deltas=deltas[is_used],
        uv=topology.uv if topology is not None and has_uv else None,
        uv_faces=topology.uv_faces if topology is not None and has_uv else None,
        joint_parents=model.parents,
    )


def head_motion(track: Track, person: int, rig: RiggedHead) -> HeadMotion:
    """Return the motion of one person over all frames of a track, for the person's rig.

    The person has to be tracked in some frame.
    """
    model = track.head_model.to(dtype=torch.float64)
    is_tracked = track.is_tracked[person]
    shown = shown_frames(is_tracked)
    parts = {
        name: torch.from_numpy(np.asarray(getattr(track, name)[person][shown], np.float64))
        for name in ("expression", "neck", "jaw", "left_eye", "right_eye")
    }
    angles = torch.stack([torch.zeros_like(parts["neck"]), *(parts[name] for name in JOINT_NAMES[1:])], dim=1)
    if not model.has_jaw:
        angles[:, JOINT_NAMES.index("jaw")] = 0
    with torch.no_grad():
        rotations = matrix_from_axis_angle(angles)
        neutral = torch.from_numpy(rig.rest_joints)
        joints = neutral + torch.einsum("te,jce->tjc", parts["expression"], model.joint_expression_basis)
        head_from_rest = joint_transforms(rotations, joints, model.parents).numpy()
    head_from_joint = head_from_rest @ _at(rig.rest_joints)
    cam_from_head = np.stack([track.cam_from_head(int(frame), person) for frame in shown])
    features = (rotations[:, 1:] - torch.eye(3, dtype=torch.float64)).flatten(1).numpy()
    weights = dict(zip(_morph_names(model), np.hstack((parts["expression"].numpy(), features)).T, strict=True))
    return HeadMotion(
        morph_weights=np.stack([weights[name] for name in rig.morph_names], axis=1).astype(np.float32)
        if rig.morph_names
        else np.zeros((len(shown), 0), np.float32),
        cam_from_joint=cam_from_head[:, None] @ head_from_joint,
        is_tracked=is_tracked,
        shown_frame=shown,
    )


def shown_frames(is_tracked: np.ndarray) -> np.ndarray:
    """Return for each frame, bool (T,), the tracked one that it holds: the last until then, else the first, int64."""
    tracked = np.flatnonzero(is_tracked)
    held = np.searchsorted(tracked, np.arange(len(is_tracked)), side="right") - 1
    return tracked[np.maximum(held, 0)]


def unbroken_quaternions(rotations: np.ndarray) -> np.ndarray:
    """Return quaternions x, y, z, w, float64 (T, J, 4), of rotations (T, J, 3, 3), each on the side of the one before.

    A quaternion and its negative are the same turn; between keys only neighbours on one side are a short way.
    """
    quaternions = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat().reshape(*rotations.shape[:2], 4)
    flips = np.cumprod(np.where((quaternions[1:] * quaternions[:-1]).sum(axis=-1) < 0, -1.0, 1.0), axis=0)
    quaternions[1:] *= flips[..., None]
    return quaternions


def _morph_names(model: HeadModel) -> list[str]:
    """Return the names of all expressions and pose correctives."""
    expressions = model.expression_names or [f"expression_{index:03d}" for index in range(model.num_expression)]
    entries = [f"{row}{column}" for row in range(3) for column in range(3)]
    return [*expressions, *(f"pose_{joint}_{entry}" for joint in JOINT_NAMES[1:] for entry in entries)]


def _morphs(model: HeadModel) -> tuple[np.ndarray, list[str]]:
    """Return what expressions and pose correctives add to vertices, float32 (E + 36, V, 3), and their names."""
    expressions = model.expression_basis.permute(2, 0, 1).numpy()
    correctives = model.pose_basis.reshape(-1, model.num_vertices, 3).numpy()
    return np.concatenate((expressions, correctives)).astype(np.float32), _morph_names(model)


def _at(joints: np.ndarray) -> np.ndarray:
    """Return translations to joints (5, 3) as matrices, float64 (5, 4, 4)."""
    matrices = np.tile(np.eye(4), (NUM_JOINTS, 1, 1))
    matrices[:, :3, 3] = joints
    return matrices
