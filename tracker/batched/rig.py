"""Surface points of one person posed in B frames at once, with their derivatives; see ``flame.surface.SurfaceRig``.

A point is x = sum over joints j of R_j (a_j + A_j c), with c the expression coefficients and pose features of a frame.
Where the joints end up folds into two of the slots, since the root does not turn and all other joints hang on the neck:
slot 0 holds (weight of the root) J_root + (weight of all others) J_neck, slot 1 the offsets w_j (J_j - J_neck).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flame.rotation import left_jacobian, matrix_from_axis_angle, skew
from flame.surface import JAW, NECK, NUM_JOINT_ANGLES, NUM_JOINTS, SurfaceRig

_ROOT = 0
_NUM_MOVED = NUM_JOINTS - 1
_FEATURES = 9


@dataclass(frozen=True)
class BatchedKinematics:
    """Hold the joints of B frames."""

    rotations: torch.Tensor
    """Rotation of each joint in head space, (B, 5, 3, 3)."""
    axes: torch.Tensor
    """Head-space axes about which a joint's three angles turn it, as columns, (B, 4, 3, 3)."""
    features: torch.Tensor
    """R - I of joints 1 to 4 relative to their parents, (B, 4, 9)."""
    features_jacobian: torch.Tensor
    """Derivatives of the features with respect to the joint's three angles, (B, 4, 9, 3)."""


@dataclass(frozen=True)
class BatchedPose:
    """Hold N points of B frames in head space."""

    kinematics: BatchedKinematics
    points_head: torch.Tensor
    """Positions, (B, N, 3), metres."""
    parts: torch.Tensor
    """What each joint's slot contributes, (B, N, 5, 3)."""


@dataclass(frozen=True)
class BatchedRig:
    """Hold a surface rig's arrays on one device, in one floating-point type."""

    base: torch.Tensor
    """Slots at zero expression and pose, (N, 15): joint by joint, x y z."""
    basis: torch.Tensor
    """Derivatives of the slots with respect to E expression coefficients and F pose features, (N, 15, E + F)."""
    num_expressions: int
    """E."""
    corrected_joints: tuple[int, ...]
    """Joints less one, of 0 to 3, whose pose features move points; F is nine times their number."""

    @staticmethod
    def of(rig: SurfaceRig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> BatchedRig:
        """Fold the strands of a rig (one person's) into slots."""
        corrected = tuple(np.flatnonzero(rig.has_pose_basis.any(axis=0)).tolist())
        pose_basis = rig.pose_basis.reshape(-1, 3, _NUM_MOVED, _FEATURES)[:, :, list(corrected)]
        strands = np.concatenate(
            (rig.rest[..., None], rig.expression_basis, pose_basis.reshape(len(rig.point), 3, -1)), axis=2
        )
        joints = np.zeros((NUM_JOINTS, *strands.shape[1:]))
        joints[:, :, 0] = rig.joints
        joints[:, :, 1 : 1 + rig.num_expressions] = rig.joint_expression_basis
        weights = np.zeros((rig.num_points, NUM_JOINTS))
        weights[rig.point, rig.joint] = rig.weight
        slots = -weights[:, :, None, None] * joints
        slots[rig.point, rig.joint] += strands
        slots[:, _ROOT] += weights[:, _ROOT, None, None] * joints[_ROOT]
        slots[:, _ROOT] += weights[:, NECK:].sum(axis=1)[:, None, None] * joints[NECK]
        slots[:, NECK] += np.einsum("nj,jcq->ncq", weights[:, JAW:], joints[JAW:] - joints[NECK])
        folded = torch.from_numpy(slots.reshape(rig.num_points, 3 * NUM_JOINTS, -1)).to(device, dtype)
        return BatchedRig(folded[..., 0].contiguous(), folded[..., 1:].contiguous(), rig.num_expressions, corrected)

    @property
    def num_points(self) -> int:
        """Return the number of points N."""
        return len(self.base)

    def pose(self, values: torch.Tensor) -> BatchedPose:
        """Pose the points under joint angles and expression coefficients (B, 12 + E), as in ``FaceState.values``."""
        kinematics = _kinematics(values[:, :NUM_JOINT_ANGLES])
        features = [kinematics.features[:, joint] for joint in self.corrected_joints]
        coefficients = torch.cat((values[:, NUM_JOINT_ANGLES:], *features), dim=1)
        at_rest = torch.addmm(self.base.flatten(), coefficients, self.basis.flatten(0, 1).T)
        parts = torch.einsum("bjcd,bnjd->bnjc", kinematics.rotations, at_rest.view(len(values), -1, NUM_JOINTS, 3))
        return BatchedPose(kinematics, parts.sum(dim=2), parts)

    def pull_back(self, pose: BatchedPose, by_points: torch.Tensor) -> torch.Tensor:
        """Carry derivatives (B, N, K, 3) with respect to posed points over to the values: (B, N, K, 12 + E)."""
        num_frames, num_points, num_rows, _ = by_points.shape
        turns, kinematics = pose.kinematics.rotations, pose.kinematics
        rows = by_points.flatten(1, 2)
        by_slots = torch.bmm(rows, turns.transpose(1, 2).flatten(2))
        # One product for each point serves all frames.
        by_slots = by_slots.view(num_frames, num_points, num_rows, -1).permute(1, 2, 0, 3).flatten(1, 2)
        by_basis = torch.bmm(by_slots, self.basis).view(num_points, num_rows, num_frames, -1).permute(2, 0, 1, 3)
        by_angles = []
        for joint in range(NECK, NUM_JOINTS):
            lever = pose.points_head - pose.parts[:, :, _ROOT] if joint == NECK else pose.parts[:, :, joint]
            torque = torch.linalg.cross(lever[:, :, None], by_points)
            by_joint = torch.bmm(torque.flatten(1, 2), kinematics.axes[:, joint - 1])
            if joint - 1 in self.corrected_joints:
                first = self.num_expressions + _FEATURES * self.corrected_joints.index(joint - 1)
                by_features = by_basis[..., first : first + _FEATURES].flatten(1, 2)
                by_joint = by_joint + torch.bmm(by_features, kinematics.features_jacobian[:, joint - 1])
            by_angles.append(by_joint.view(num_frames, num_points, num_rows, 3))
        return torch.cat((*by_angles, by_basis[..., : self.num_expressions]), dim=-1)


def _kinematics(joint_angles: torch.Tensor) -> BatchedKinematics:
    """Return the joints under joint angles (B, 12), radians."""
    angles = joint_angles.view(-1, _NUM_MOVED, 3)
    local, turn = matrix_from_axis_angle(angles), left_jacobian(angles)
    identity = torch.eye(3, dtype=local.dtype, device=local.device).expand(len(local), 1, 3, 3)
    neck = local[:, :1]
    parents = torch.cat((identity, neck.expand(-1, _NUM_MOVED - 1, -1, -1)), dim=1)
    rotations = torch.cat((identity, parents @ local), dim=1)
    # d R / d angle = skew(column of the left Jacobian) R, entry by entry of the matrix.
    by_angle = skew(turn.transpose(-1, -2)) @ local[:, :, None]
    return BatchedKinematics(
        rotations=rotations,
        axes=parents @ turn,
        features=(local - identity).flatten(2),
        features_jacobian=by_angle.flatten(3).transpose(-1, -2),
    )
