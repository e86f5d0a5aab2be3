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
    """Whether the strand has any corrective of joint 1, 2, 3 or 4, bool (M, 4)."""
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
        """Return orthonormal shape directions (I, R) that one camera can see in the points.

        Left out are directions that move the points, or the joints, by less than ``threshold_m`` (root mean square,
        metres): under a unit Gaussian shape prior they are best left at zero. Left out, too, is the direction that
        changes the points' overall size, since a camera cannot tell a large face from a near one; the face keeps the
        mean face's size.
        """
        moves = np.zeros((self.num_points, 3, self.num_shapes))
        np.add.at(moves, self.point, self.shape_basis)
        points = np.zeros((self.num_points, 3))
        np.add.at(points, self.point, self.rest)
        stacked = np.concatenate((moves.reshape(-1, self.num_shapes), self.joint_shape_basis.reshape(15, -1)))
        size = np.einsum("nc,nci->i", points - points.mean(axis=0), moves)
        size /= max(float(np.linalg.norm(size)), 1e-300)
        stacked = stacked - np.outer(stacked @ size, size)
        variances, directions = np.linalg.eigh(stacked.T @ stacked / self.num_points)
        keep = variances > threshold_m**2
        return np.ascontiguousarray(directions[:, keep][:, ::-1])

    def pose(self, joint_angles: np.ndarray, expression: np.ndarray) -> PosedPoints:
        """Return the points in head space under joint angles (12,) in radians and expression coefficients (E,)."""
        joints = self.joints + self.joint_expression_basis @ expression
        posed_joints = kinematics(joint_angles, joints)
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
            *posed_joints,
        )
        return PosedPoints(points, jacobian)

    def shape_jacobian(self, joint_angles: np.ndarray, by_points: np.ndarray) -> np.ndarray:
        """Carry derivatives (N, K, 3) with respect to the posed points over to the shape coefficients: (N, K, I)."""
        rotations = kinematics(joint_angles, self.joints)[0]
        return _shape_product(
            self.point,
            self.joint,
            self.weight,
            self.shape_basis,
            self.joint_shape_basis,
            posed_joint_basis(rotations[NECK], self.joint_shape_basis),
            rotations,
            np.ascontiguousarray(by_points),
        )


def build_surface_rig(model: HeadModel, points: SurfacePoints) -> SurfaceRig:
    """Restrict a head model to surface points (N of them); weights below 1e-9 are dropped and the rest renormalised."""
    arrays = {
        name: getattr(model, name).detach().cpu().numpy().astype(np.float64)
        for name in ("template", "shape_basis", "expression_basis", "skin_weights", "joint_regressor")
    }
    num_vertices = len(arrays["template"])
    pose_basis = model.pose_basis.detach().cpu().numpy().astype(np.float64).reshape(36, num_vertices, 3)
    vertex = model.faces.detach().cpu().numpy()[points.triangles]
    corner_weights = points.barycentric[:, :, None] * arrays["skin_weights"][vertex]
    corner_weights[corner_weights < 1e-9] = 0.0
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
        has_pose_basis=np.abs(folded_pose.reshape(-1, 3, 4, 9)).max(axis=(1, 3)) > 0,
        joints=regressor @ arrays["template"],
        joint_shape_basis=np.einsum("jv,vci->jci", regressor, arrays["shape_basis"]),
        joint_expression_basis=np.einsum("jv,vce->jce", regressor, arrays["expression_basis"]),
    )


@numba.njit(cache=True, nogil=True)
def posed_joint_basis(neck_rotation, joint_basis):  # pragma: no cover - compiled
    """Return derivatives of the posed joints (5, 3, B) from those of the resting joints."""
    posed = joint_basis.copy()
    for joint in range(JAW, NUM_JOINTS):
        posed[joint] = joint_basis[NECK] + np.dot(neck_rotation, joint_basis[joint] - joint_basis[NECK])
    return posed


@numba.njit(cache=True, nogil=True)
def kinematics(joint_angles, joints):  # pragma: no cover - compiled
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
    num_expressions = expression.shape[0]
    points = np.zeros((num_points, 3))
    jacobian = np.zeros((num_points, 3, NUM_JOINT_ANGLES + num_expressions))
    posed_basis = posed_joint_basis(rotations[NECK], joint_expression_basis)
    joints_move = np.any(joint_expression_basis != 0.0)
    strand, local, relative = np.empty(3), np.empty(3), np.empty(3)
    for m in range(len(point)):
        p, j, w = point[m], joint[m], weight[m]
        rotation = rotations[j]
        _at_rest(rest[m], expression_basis[m], pose_basis[m], has_pose_basis[m], expression, features, local)
        for c in range(3):
            local[c] -= w * joints[j, c]
        for c in range(3):
            relative[c] = rotation[c, 0] * local[0] + rotation[c, 1] * local[1] + rotation[c, 2] * local[2]
            strand[c] = relative[c] + w * posed_joints[j, c]
            points[p, c] += strand[c]
        _add_turned(jacobian[p], rotation, expression_basis[m], 1.0)
        if joints_move:
            _add_turned(jacobian[p], rotation, joint_expression_basis[j], -w)
            jacobian[p, :, NUM_JOINT_ANGLES:] += w * posed_basis[j]
        if j >= NECK:
            _add_turn(jacobian[p], 0, axes[0], strand - w * posed_joints[NECK])
        if j >= JAW:
            _add_turn(jacobian[p], 3 * (j - 1), axes[j - 1], relative)
        for k in range(4):
            if has_pose_basis[m, k]:
                _add_correctives(jacobian[p], 3 * k, rotation, pose_basis[m], 9 * k, features_jacobian[k])
    return points, jacobian


@numba.njit(cache=True, nogil=True, inline="always")
def _at_rest(
    rest, expression_basis, pose_basis, has_pose_basis, expression, features, out
):  # pragma: no cover - compiled
    """Write a strand's rest position under expression and pose correctives to ``out`` (3,)."""
    for c in range(3):
        value = rest[c]
        for e in range(expression.shape[0]):
            value += expression_basis[c, e] * expression[e]
        for k in range(4):
            if has_pose_basis[k]:
                for f in range(9 * k, 9 * k + 9):
                    value += pose_basis[c, f] * features[f]
        out[c] = value


@numba.njit(cache=True, nogil=True, inline="always")
def _add_turned(jacobian, rotation, basis, factor):  # pragma: no cover - compiled
    """Add ``factor`` times the rotated basis (3, E) to a point's derivatives by expression."""
    for c in range(3):
        x, y, z = factor * rotation[c, 0], factor * rotation[c, 1], factor * rotation[c, 2]
        for e in range(basis.shape[1]):
            jacobian[c, NUM_JOINT_ANGLES + e] += x * basis[0, e] + y * basis[1, e] + z * basis[2, e]


@numba.njit(cache=True, nogil=True, inline="always")
def _add_correctives(jacobian, column, rotation, pose_basis, first, features_jacobian):  # pragma: no cover - compiled
    """Add what a joint's three angles do through its pose correctives to a point's derivatives."""
    moved = np.empty(3)
    for angle in range(3):
        for c in range(3):
            value = 0.0
            for f in range(9):
                value += pose_basis[c, first + f] * features_jacobian[angle, f]
            moved[c] = value
        for c in range(3):
            jacobian[c, column + angle] += (
                rotation[c, 0] * moved[0] + rotation[c, 1] * moved[1] + rotation[c, 2] * moved[2]
            )


@numba.njit(cache=True, nogil=True, fastmath=True)
def _shape_product(
    point, joint, weight, shape_basis, joint_basis, posed_basis, rotations, by_points
):  # pragma: no cover - compiled
    """Evaluate ``SurfaceRig.shape_jacobian``: d point = sum over strands of R (S - w dJ) + w dJ_posed."""
    num_points, num_rows, _ = by_points.shape
    num_shapes = shape_basis.shape[2]
    out = np.zeros((num_points, num_rows, num_shapes))
    for m in range(len(point)):
        p, j, w = point[m], joint[m], weight[m]
        rotation = rotations[j]
        for k in range(num_rows):
            row, outer = out[p, k], by_points[p, k]
            for c in range(3):
                inner = outer[0] * rotation[0, c] + outer[1] * rotation[1, c] + outer[2] * rotation[2, c]
                basis = shape_basis[m, c]
                lever, carried = joint_basis[j, c], posed_basis[j, c]
                inner_joint, outer_joint = w * inner, w * outer[c]
                for i in range(num_shapes):
                    row[i] += inner * basis[i] - inner_joint * lever[i] + outer_joint * carried[i]
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def _add_turn(jacobian, column, axes, lever):  # pragma: no cover - compiled
    """Add axis x lever for three axes (columns of ``axes``) to three columns of a point's Jacobian."""
    for angle in range(3):
        x, y, z = axes[0, angle], axes[1, angle], axes[2, angle]
        jacobian[0, column + angle] += y * lever[2] - z * lever[1]
        jacobian[1, column + angle] += z * lever[0] - x * lever[2]
        jacobian[2, column + angle] += x * lever[1] - y * lever[0]
