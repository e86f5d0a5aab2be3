"""Points on a head's surface, and a small fast model of just those points with analytic derivatives.

A tracker asks thousands of times a second where a few hundred surface points are and how they move with each parameter.
Linear blend skinning is linear in the rest vertices, so the three vertices under a barycentric point fold into one
"strand" per (point, joint): exact, and far smaller than the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numba
import numpy as np

from flame.rotation_kernels import left_jacobian, rotation_matrix

if TYPE_CHECKING:
    from flame.model import HeadModel

NUM_JOINTS = 5
NECK, JAW, LEFT_EYE, RIGHT_EYE = 1, 2, 3, 4
NUM_JOINT_ANGLES = 12
"""Axis-angle numbers of neck, jaw, left eye, right eye, in this order."""


@dataclass(frozen=True)
class SurfacePoints:
    """Name N points on a head by triangle and barycentric coordinates; they move with the surface."""

    triangles: np.ndarray
    """Index into the head's faces, int64 (N,)."""
    barycentric: np.ndarray
    """Weights of the triangle's three vertices, float64 (N, 3), rows sum to one."""

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.triangles)

    def on(self, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Return the points' positions (..., N, C) on vertices (..., V, C), in the vertices' space and unit."""
        corners = vertices[..., faces[self.triangles], :]
        return np.einsum("...nkc,nk->...nc", corners, self.barycentric)

    def take(self, indices: np.ndarray) -> SurfacePoints:
        """Return the selected points."""
        return SurfacePoints(self.triangles[indices], self.barycentric[indices])


@dataclass(frozen=True)
class PosedPoints:
    """Hold surface points in head space and how they move."""

    points_head: np.ndarray
    """Positions, float64 (N, 3), metres."""
    jacobian: np.ndarray
    """Derivatives, float64 (N, 3, 12 + E), with respect to the joint angles and the expression coefficients."""


@dataclass(frozen=True)
class SurfaceRig:
    """Hold the parts of a head model that N surface points depend on: M strands, each a (point, joint) pair."""

    num_points: int
    point: np.ndarray
    """Surface point of each strand, int64 (M,), ascending."""
    joint: np.ndarray
    """Joint of each strand, int64 (M,)."""
    weight: np.ndarray
    """Skinning weight of each strand, float64 (M,); the strands of a point sum to one."""
    rest: np.ndarray
    """Weighted rest position at zero expression and pose, float64 (M, 3)."""
    shape_basis: np.ndarray
    """Derivative of ``rest`` with respect to shape coefficients, float64 (M, 3, I)."""
    expression_basis: np.ndarray
    """Derivative of ``rest`` with respect to expression coefficients, float64 (M, 3, E)."""
    pose_basis: np.ndarray
    """Derivative of ``rest`` with respect to the pose features vec(R - I) of joints 1 to 4, float64 (M, 3, 36)."""
    has_pose_basis: np.ndarray
    """Whether the strand has any pose corrective, bool (M,)."""
    joints: np.ndarray
    """Joint positions at rest, float64 (5, 3)."""
    joint_shape_basis: np.ndarray
    """Derivative of ``joints`` with respect to shape coefficients, float64 (5, 3, I)."""
    joint_expression_basis: np.ndarray
    """Derivative of ``joints`` with respect to expression coefficients, float64 (5, 3, E)."""

    @property
    def num_expressions(self) -> int:
        """Return the number of expression coefficients."""
        return self.expression_basis.shape[2]

    @property
    def num_shapes(self) -> int:
        """Return the number of shape coefficients."""
        return self.shape_basis.shape[2]

    def with_shape(self, shape: np.ndarray) -> SurfaceRig:
        """Return the rig of the person with these shape coefficients (I,), standard deviations."""
        return replace(
            self,
            rest=self.rest + self.shape_basis @ shape,
            joints=self.joints + self.joint_shape_basis @ shape,
        )

    def with_shape_basis(self, directions: np.ndarray) -> SurfaceRig:
        """Return the rig whose shape coefficients run along the columns of ``directions`` (I, R)."""
        return replace(
            self,
            shape_basis=self.shape_basis @ directions,
            joint_shape_basis=self.joint_shape_basis @ directions,
        )

    def observable_shape_directions(self, threshold_m: float) -> np.ndarray:
        """Return orthonormal shape directions (I, R) that move the points, or the joints, by more than a threshold.

        Under a unit Gaussian shape prior the best shape for evidence on these points lies in the span of the directions
        that move them, so solving there loses no more than ``threshold_m`` (root mean square, metres) per direction.
        """
        moves = np.zeros((self.num_points, 3, self.num_shapes))
        np.add.at(moves, self.point, self.shape_basis)
        stacked = np.concatenate((moves.reshape(-1, self.num_shapes), self.joint_shape_basis.reshape(15, -1)))
        gram = stacked.T @ stacked / self.num_points
        variances, directions = np.linalg.eigh(gram)
        keep = variances > threshold_m**2
        return np.ascontiguousarray(directions[:, keep][:, ::-1])

    def pose(self, joint_angles: np.ndarray, expression: np.ndarray) -> PosedPoints:
        """Return the points in head space under joint angles (12,) in radians and expression coefficients (E,)."""
        joints = self.joints + self.joint_expression_basis @ expression
        kinematics = _kinematics(joint_angles, joints)
        points, jacobian = _pose_strands(
            self.num_points,
            self.point,
            self.joint,
            self.weight,
            self.rest,
            self.expression_basis,
            self.pose_basis,
            self.has_pose_basis,
            joints,
            self.joint_expression_basis,
            expression,
            *kinematics,
        )
        return PosedPoints(points, jacobian)

    def shape_jacobian(self, joint_angles: np.ndarray) -> np.ndarray:
        """Return the derivative of the posed points with respect to the shape coefficients, float64 (N, 3, I)."""
        rotations = _kinematics(joint_angles, self.joints)[0]
        positions_jacobian = _posed_joint_basis(rotations[NECK], self.joint_shape_basis)
        relative = self.shape_basis - self.weight[:, None, None] * self.joint_shape_basis[self.joint]
        moved = np.matmul(rotations[self.joint], relative)
        moved += self.weight[:, None, None] * positions_jacobian[self.joint]
        starts = np.flatnonzero(np.r_[True, self.point[1:] != self.point[:-1]])
        return np.add.reduceat(moved, starts, axis=0)


def build_surface_rig(model: HeadModel, points: SurfacePoints) -> SurfaceRig:
    """Restrict a head model to surface points (N of them); weights below 1e-6 are dropped and the rest renormalised."""
    arrays = {
        name: getattr(model, name).detach().cpu().numpy().astype(np.float64)
        for name in ("template", "shape_basis", "expression_basis", "skin_weights", "joint_regressor")
    }
    num_vertices = len(arrays["template"])
    pose_basis = model.pose_basis.detach().cpu().numpy().astype(np.float64).reshape(36, num_vertices, 3)
    vertex = model.faces.detach().cpu().numpy()[points.triangles]
    corner_weights = points.barycentric[:, :, None] * arrays["skin_weights"][vertex]
    corner_weights[corner_weights < 1e-6] = 0.0
    corner_weights /= corner_weights.sum(axis=(1, 2), keepdims=True)
    point, joint = np.nonzero(corner_weights.sum(axis=1))
    strand_weights = corner_weights[point, :, joint]
    corners = vertex[point]

    def fold(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.einsum("mk,mk...->m...", strand_weights, values[corners]))

    folded_pose = fold(pose_basis.transpose(1, 2, 0))
    regressor = arrays["joint_regressor"]
    return SurfaceRig(
        num_points=len(points),
        point=point,
        joint=joint,
        weight=strand_weights.sum(axis=1),
        rest=fold(arrays["template"]),
        shape_basis=fold(arrays["shape_basis"]),
        expression_basis=fold(arrays["expression_basis"]),
        pose_basis=folded_pose,
        has_pose_basis=np.abs(folded_pose).max(axis=(1, 2)) > 0,
        joints=regressor @ arrays["template"],
        joint_shape_basis=np.einsum("jv,vci->jci", regressor, arrays["shape_basis"]),
        joint_expression_basis=np.einsum("jv,vce->jce", regressor, arrays["expression_basis"]),
    )


@numba.njit(cache=True, nogil=True)
def _posed_joint_basis(neck_rotation, joint_basis):  # pragma: no cover - compiled
    """Return derivatives of the posed joints (5, 3, B) from those of the resting joints."""
    posed = joint_basis.copy()
    for joint in range(JAW, NUM_JOINTS):
        posed[joint] = joint_basis[NECK] + np.dot(neck_rotation, joint_basis[joint] - joint_basis[NECK])
    return posed


@numba.njit(cache=True, nogil=True)
def _kinematics(joint_angles, joints):  # pragma: no cover - compiled
    """Return what posing needs: global rotations, posed joints, pose features, and their derivatives.

    Returns:
        rotations (5, 3, 3); posed joints (5, 3); features (36,); axes (4, 3, 3), the head-space axis about which each
        angle turns its joint, as ``axes[joint - 1, :, angle]``; features_jacobian (4, 3, 9).
    """
    rotations = np.empty((NUM_JOINTS, 3, 3))
    rotations[0] = np.eye(3)
    posed = joints.copy()
    features = np.empty(36)
    features_jacobian = np.empty((4, 3, 9))
    axes = np.empty((4, 3, 3))
    for joint in range(1, NUM_JOINTS):
        angles = joint_angles[3 * (joint - 1) : 3 * joint]
        local = rotation_matrix(angles)
        turn = left_jacobian(angles)
        parent = rotations[0] if joint == NECK else rotations[NECK]
        rotations[joint] = np.dot(parent, local)
        if joint != NECK:
            posed[joint] = joints[NECK] + np.dot(rotations[NECK], joints[joint] - joints[NECK])
        axes[joint - 1] = np.dot(parent, turn)
        for row in range(3):
            for column in range(3):
                features[9 * (joint - 1) + 3 * row + column] = local[row, column] - (1.0 if row == column else 0.0)
        for angle in range(3):
            x, y, z = turn[0, angle], turn[1, angle], turn[2, angle]
            for column in range(3):
                features_jacobian[joint - 1, angle, column] = y * local[2, column] - z * local[1, column]
                features_jacobian[joint - 1, angle, 3 + column] = z * local[0, column] - x * local[2, column]
                features_jacobian[joint - 1, angle, 6 + column] = x * local[1, column] - y * local[0, column]
    return rotations, posed, features, axes, features_jacobian


@numba.njit(cache=True, nogil=True, fastmath=True)
def _pose_strands(
    num_points,
    point,
    joint,
    weight,
    rest,
    expression_basis,
    pose_basis,
    has_pose_basis,
    joints,
    joint_expression_basis,
    expression,
    rotations,
    posed_joints,
    features,
    axes,
    features_jacobian,
):  # pragma: no cover - compiled
    """Pose all strands and sum them to points; see SurfaceRig.pose."""
    num_strands = len(point)
    num_expressions = expression.shape[0]
    points = np.zeros((num_points, 3))
    jacobian = np.zeros((num_points, 3, NUM_JOINT_ANGLES + num_expressions))
    posed_basis = _posed_joint_basis(rotations[NECK], joint_expression_basis)
    joints_move = np.any(joint_expression_basis != 0.0)
    strand = np.empty(3)
    local = np.empty(3)
    relative = np.empty(3)
    by_feature = np.empty(3)
    for m in range(num_strands):
        p, j, w = point[m], joint[m], weight[m]
        rotation = rotations[j]
        for c in range(3):
            value = rest[m, c] - w * joints[j, c]
            for e in range(num_expressions):
                value += expression_basis[m, c, e] * expression[e]
            if has_pose_basis[m]:
                for f in range(36):
                    value += pose_basis[m, c, f] * features[f]
            local[c] = value
        for c in range(3):
            relative[c] = rotation[c, 0] * local[0] + rotation[c, 1] * local[1] + rotation[c, 2] * local[2]
            strand[c] = relative[c] + w * posed_joints[j, c]
            points[p, c] += strand[c]
            for e in range(num_expressions):
                jacobian[p, c, NUM_JOINT_ANGLES + e] += (
                    rotation[c, 0] * expression_basis[m, 0, e]
                    + rotation[c, 1] * expression_basis[m, 1, e]
                    + rotation[c, 2] * expression_basis[m, 2, e]
                )
            if joints_move:
                for e in range(num_expressions):
                    turned = 0.0
                    for d in range(3):
                        turned += rotation[c, d] * joint_expression_basis[j, d, e]
                    jacobian[p, c, NUM_JOINT_ANGLES + e] += w * (posed_basis[j, c, e] - turned)
        if j >= 1:
            _add_turn(jacobian[p], 0, axes[0], strand - w * posed_joints[NECK])
        if j >= 2:
            _add_turn(jacobian[p], 3 * (j - 1), axes[j - 1], relative)
        if has_pose_basis[m]:
            for k in range(4):
                for angle in range(3):
                    for c in range(3):
                        value = 0.0
                        for f in range(9):
                            value += pose_basis[m, c, 9 * k + f] * features_jacobian[k, angle, f]
                        by_feature[c] = value
                    for c in range(3):
                        jacobian[p, c, 3 * k + angle] += (
                            rotation[c, 0] * by_feature[0]
                            + rotation[c, 1] * by_feature[1]
                            + rotation[c, 2] * by_feature[2]
                        )
    return points, jacobian


@numba.njit(cache=True, nogil=True, inline="always")
def _add_turn(jacobian, column, axes, lever):  # pragma: no cover - compiled
    """Add axis x lever for three axes (columns of ``axes``) to three columns of a point's Jacobian."""
    for angle in range(3):
        x, y, z = axes[0, angle], axes[1, angle], axes[2, angle]
        jacobian[0, column + angle] += y * lever[2] - z * lever[1]
        jacobian[1, column + angle] += z * lever[0] - x * lever[2]
        jacobian[2, column + angle] += x * lever[1] - y * lever[0]
