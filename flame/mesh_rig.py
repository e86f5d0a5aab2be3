"""All vertices of a head with analytic derivatives, for dense evidence: positions at once, Jacobian rows on demand.

Linear blend skinning as in ``flame.surface``, but with the bases held by vertex, not by (vertex, joint) pair, and in
single precision: a few micrometres of rounding against a third of the memory traffic that the time is spent on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np

from flame.model import HeadModel
from flame.surface import (
    NECK,
    NUM_JOINT_ANGLES,
    SurfacePoints,
    build_surface_rig,
    kinematics,
    posed_joint_basis,
)

NUM_RIGID = 6
NUM_CAMERA = 3


@dataclass(frozen=True, eq=False)
class VertexRings:
    """List the neighbours of every vertex, so that its area normal is half the sum of neighbour x (after - before)."""

    start: np.ndarray
    """First entry of each vertex, int32 (V + 1,)."""
    neighbour: np.ndarray
    """Neighbouring vertex, int32 (N,)."""
    after: np.ndarray
    """The vertex that follows it around the centre, or the centre where no triangle follows, int32 (N,)."""
    before: np.ndarray
    """The vertex that comes before it, or the centre, int32 (N,)."""

    @staticmethod
    def of(faces: np.ndarray, num_vertices: int) -> VertexRings:
        """Collect the rings of a mesh with triangles (F, 3)."""
        centre = faces.T.ravel()
        first = np.roll(faces, -1, axis=1).T.ravel()
        second = np.roll(faces, -2, axis=1).T.ravel()
        # Each triangle (c, a, b) says "b follows a" and "a comes before b"; both halves are joined by (c, neighbour).
        keys = np.concatenate((centre * num_vertices + first, centre * num_vertices + second))
        unique, inverse = np.unique(keys, return_inverse=True)
        middle = unique // num_vertices
        after, before = middle.copy(), middle.copy()
        after[inverse[: len(centre)]] = second
        before[inverse[len(centre) :]] = first
        neighbour = unique % num_vertices
        # Where a fan is open, the centre itself counts as between its first and its last neighbour.
        first_of_fan, last_of_fan = np.flatnonzero(before == middle), np.flatnonzero(after == middle)
        open_centre = middle[first_of_fan]
        middle = np.concatenate((middle, open_centre))
        after = np.concatenate((after, neighbour[first_of_fan]))
        before = np.concatenate((before, neighbour[last_of_fan]))
        neighbour = np.concatenate((neighbour, open_centre))
        order = np.argsort(middle, kind="stable")
        start = np.searchsorted(middle[order], np.arange(num_vertices + 1))
        arrays = (start, neighbour[order], after[order], before[order])
        return VertexRings(*(np.ascontiguousarray(array, dtype=np.int32) for array in arrays))


@dataclass(frozen=True, eq=False)
class PosedMesh:
    """Hold the vertices of one face in one frame and what their derivatives need."""

    verts_cam: np.ndarray
    """Vertices in camera space, float64 (V, 3), metres."""
    rotation: np.ndarray
    """Rotation of cam_from_head, float64 (3, 3)."""
    translation: np.ndarray
    """Translation of cam_from_head, float64 (3,), metres."""
    joint_rotations: np.ndarray
    """Rotations of the joints in head space, float64 (5, 3, 3)."""
    joint_angles: np.ndarray
    """Axis-angle of neck, jaw, left eye, right eye, float64 (12,)."""
    expression: np.ndarray
    """Expression coefficients, float64 (E,)."""
    shape: np.ndarray
    """Shape coefficients along the rig's directions, float64 (R,)."""
    rest: np.ndarray
    """Vertices before skinning, expression and pose correctives included, float64 (V, 3)."""


@dataclass(frozen=True, eq=False)
class MeshRig:
    """Hold a head's V vertices with their bases, and their M weights of joints, listed by vertex."""

    faces: np.ndarray
    """Triangles, int32 (F, 3)."""
    rings: VertexRings
    first_weight: np.ndarray
    """First weight of each vertex, int32 (V + 1,)."""
    joint: np.ndarray
    """Joint of each weight, int32 (M,)."""
    weight: np.ndarray
    """Skinning weights, float64 (M,); those of a vertex sum to one."""
    rest: np.ndarray
    """Vertices at rest, float64 (V, 3)."""
    shape_basis: np.ndarray
    """Derivative of ``rest`` by shape, float32 (or float64) (V, 3, R)."""
    expression_basis: np.ndarray
    """Derivative of ``rest`` by expression, float32 (V, 3, E)."""
    pose_basis: np.ndarray
    """Derivative of ``rest`` by the pose features, float32 (V, 3, 36)."""
    joints: np.ndarray
    """Joint positions at rest, float64 (5, 3)."""
    joint_shape_basis: np.ndarray
    """Derivative of ``joints`` by shape, float64 (5, 3, R)."""
    joint_expression_basis: np.ndarray
    """Derivative of ``joints`` by expression, float64 (5, 3, E)."""

    @staticmethod
    def of(model: HeadModel, dtype: type[np.floating] = np.float32) -> MeshRig:
        """Build the rig of a head model with its full identity basis; the bases are held as ``dtype``."""
        num_vertices = model.num_vertices
        faces = np.ascontiguousarray(model.faces.detach().cpu().numpy(), dtype=np.int32)
        corner_of_vertex = np.zeros(num_vertices, np.int64)
        corner_of_vertex[faces.ravel()] = np.arange(faces.size)
        points = SurfacePoints(corner_of_vertex // 3, np.eye(3)[corner_of_vertex % 3])
        rig = build_surface_rig(model, points)
        first = np.searchsorted(rig.point, np.arange(num_vertices + 1))

        def by_vertex(strands: np.ndarray, kind: type[np.floating]) -> np.ndarray:
            # The weights of a vertex sum to one, so its weighted values do to itself.
            return np.ascontiguousarray(np.add.reduceat(strands, first[:-1]), dtype=kind)

        return MeshRig(
            faces=faces,
            rings=VertexRings.of(faces.astype(np.int64), num_vertices),
            first_weight=first.astype(np.int32),
            joint=rig.joint.astype(np.int32),
            weight=rig.weight,
            rest=by_vertex(rig.rest, np.float64),
            shape_basis=by_vertex(rig.shape_basis, dtype),
            expression_basis=by_vertex(rig.expression_basis, dtype),
            pose_basis=by_vertex(rig.pose_basis, dtype),
            joints=rig.joints,
            joint_shape_basis=rig.joint_shape_basis,
            joint_expression_basis=rig.joint_expression_basis,
        )

    @property
    def num_vertices(self) -> int:
        """Return V."""
        return len(self.rest)

    @property
    def num_shapes(self) -> int:
        """Return R, the number of shape directions."""
        return self.shape_basis.shape[2]

    @property
    def num_expressions(self) -> int:
        """Return E."""
        return self.expression_basis.shape[2]

    @property
    def num_parameters(self) -> int:
        """Return the width of Jacobian rows: 6 rigid, 12 joint angles, E expressions, R shapes, 3 of the camera."""
        return NUM_RIGID + NUM_JOINT_ANGLES + self.num_expressions + self.num_shapes + NUM_CAMERA

    def with_shape_basis(self, directions: np.ndarray) -> MeshRig:
        """Return the rig whose shape coefficients run along the columns of ``directions`` (I, R); R may be 0."""
        return replace(
            self,
            shape_basis=np.ascontiguousarray(self.shape_basis @ directions.astype(self.shape_basis.dtype)),
            joint_shape_basis=np.ascontiguousarray(self.joint_shape_basis @ directions),
        )

    def with_shape(self, shape: np.ndarray) -> MeshRig:
        """Return the rig of the person with these shape coefficients (R,); its own shape coefficients add to them."""
        return replace(
            self,
            rest=self.rest + self.shape_basis @ shape,
            joints=self.joints + self.joint_shape_basis @ shape,
        )

    def pose(
        self,
        shape: np.ndarray,
        expression: np.ndarray,
        joint_angles: np.ndarray,
        rotation: np.ndarray,
        translation: np.ndarray,
    ) -> PosedMesh:
        """Place the head: shape (R,), expression (E,), joint angles (12,), cam_from_head rotation and translation."""
        joints = self.joints + self.joint_shape_basis @ shape + self.joint_expression_basis @ expression
        rotations, posed_joints, features, _, _ = kinematics(joint_angles, joints)
        rest = self._at_rest(shape, expression, features)
        verts_cam = _skin(
            self.first_weight, self.joint, self.weight, rest, rotations, joints, posed_joints, rotation, translation
        )
        return PosedMesh(verts_cam, rotation, translation, rotations, joint_angles, expression, shape, rest)

    def jacobian(
        self, posed: PosedMesh, focal_px: np.ndarray, vertices: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return how some vertices move in camera space with a step of all parameters, (K, 3, P), metres.

        The columns are those of ``num_parameters``. A camera's zoom and the place of its principal point (pixels) move
        no vertex; their columns hold the sideways motion that has the same effect in the image.

        Args:
            posed: where the head is.
            focal_px: focal lengths (2,).
            vertices: which rows to compute, int (K,).
            out: where to write them, contiguous, of the bases' type; a new array by default.
        """
        joints = self.joints + self.joint_shape_basis @ posed.shape + self.joint_expression_basis @ posed.expression
        rotations, posed_joints, _, axes, features_jacobian = kinematics(posed.joint_angles, joints)
        vertices, kind = np.ascontiguousarray(vertices, dtype=np.int32), self.shape_basis.dtype
        if out is None:
            out = np.empty((len(vertices), 3, self.num_parameters), kind)
        head_from_rest = np.empty((len(vertices), 3, 3))
        weights = (self.first_weight, self.joint, self.weight)
        _blend(vertices, *weights, rotations, head_from_rest)
        first_shape = NUM_RIGID + NUM_JOINT_ANGLES + self.num_expressions
        for first, basis, joint_basis in (
            (NUM_RIGID + NUM_JOINT_ANGLES, self.expression_basis, self.joint_expression_basis),
            (first_shape, self.shape_basis, self.joint_shape_basis),
        ):
            carried = posed_joint_basis(rotations[NECK], joint_basis) - rotations @ joint_basis
            carries = carried.any(axis=(1, 2))
            carried = (posed.rotation @ carried).astype(kind)
            _turn_basis(vertices, *weights, head_from_rest, posed.rotation, basis, carried, carries, first, out)
        turns = (rotations, joints, posed_joints, axes)
        _turn_joints(
            vertices,
            *weights,
            posed.rest,
            self.pose_basis,
            *turns,
            features_jacobian,
            head_from_rest,
            posed.rotation,
            out,
        )
        _move_rigidly(vertices, posed.verts_cam, posed.translation, focal_px, out)
        return out

    def _at_rest(self, shape: np.ndarray, expression: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return the vertices before skinning, float64 (V, 3)."""
        kind = self.shape_basis.dtype
        blended = self.shape_basis.reshape(self.rest.size, self.num_shapes) @ shape.astype(kind)
        blended += self.expression_basis.reshape(self.rest.size, self.num_expressions) @ expression.astype(kind)
        blended += self.pose_basis.reshape(-1, 36) @ features.astype(kind)
        return self.rest + blended.reshape(-1, 3)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _skin(
    first_weight, joint, weight, rest, rotations, joints, posed_joints, rotation, translation
):  # pragma: no cover - compiled
    """Skin vertices at rest (V, 3) and place them in camera space, float64 (V, 3)."""
    out = np.empty((len(rest), 3))
    head = np.empty(3)
    for v in range(len(rest)):
        head[:] = 0.0
        for m in range(first_weight[v], first_weight[v + 1]):
            j, w = joint[m], weight[m]
            x, y, z = rest[v, 0] - joints[j, 0], rest[v, 1] - joints[j, 1], rest[v, 2] - joints[j, 2]
            for c in range(3):
                turned = rotations[j, c, 0] * x + rotations[j, c, 1] * y + rotations[j, c, 2] * z
                head[c] += w * (turned + posed_joints[j, c])
        for c in range(3):
            out[v, c] = rotation[c, 0] * head[0] + rotation[c, 1] * head[1] + rotation[c, 2] * head[2] + translation[c]
    return out


@numba.njit(cache=True, nogil=True, fastmath=True)
def _blend(vertices, first_weight, joint, weight, rotations, out):  # pragma: no cover - compiled
    """Write the weighted rotations of vertices, (K, 3, 3)."""
    for k in range(len(vertices)):
        v = vertices[k]
        for r in range(3):
            for c in range(3):
                total = 0.0
                for m in range(first_weight[v], first_weight[v + 1]):
                    total += weight[m] * rotations[joint[m], r, c]
                out[k, r, c] = total


@numba.njit(cache=True, nogil=True, fastmath=True)
def _turn_basis(
    vertices, first_weight, joint, weight, head_from_rest, rotation, basis, carried, carries, first, out
):  # pragma: no cover - compiled
    """Write what coefficients do to vertices, to B columns of ``out`` from ``first`` on.

    Args:
        vertices: which rows to write, int32 (K,).
        first_weight: first weight of each vertex, int32 (V + 1,).
        joint: joint of each weight, int32 (M,).
        weight: skinning weights, float64 (M,).
        head_from_rest: weighted rotations of these vertices, float64 (K, 3, 3).
        rotation: rotation of cam_from_head, float64 (3, 3).
        basis: derivative of the vertices at rest, (V, 3, B).
        carried: how the joints' own motion moves what turns with them, camera axes, (5, 3, B).
        carries: joints for which that is not zero, bool (5,).
        first: first column.
        out: float32 or float64 (K, 3, P).
    """
    number, count = basis.dtype.type, basis.shape[2]
    for k in range(len(vertices)):
        v = vertices[k]
        turn = head_from_rest[k]
        for c in range(3):
            x = number(rotation[c, 0] * turn[0, 0] + rotation[c, 1] * turn[1, 0] + rotation[c, 2] * turn[2, 0])
            y = number(rotation[c, 0] * turn[0, 1] + rotation[c, 1] * turn[1, 1] + rotation[c, 2] * turn[2, 1])
            z = number(rotation[c, 0] * turn[0, 2] + rotation[c, 1] * turn[1, 2] + rotation[c, 2] * turn[2, 2])
            row = out[k, c, first : first + count]
            by_x, by_y, by_z = basis[v, 0], basis[v, 1], basis[v, 2]
            for b in range(count):
                row[b] = x * by_x[b] + y * by_y[b] + z * by_z[b]
            for m in range(first_weight[v], first_weight[v + 1]):
                if carries[joint[m]]:
                    w, extra = number(weight[m]), carried[joint[m], c]
                    for b in range(count):
                        row[b] += w * extra[b]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _turn_joints(
    vertices,
    first_weight,
    joint,
    weight,
    rest,
    pose_basis,
    rotations,
    joints,
    posed_joints,
    axes,
    features_jacobian,
    head_from_rest,
    rotation,
    out,
):  # pragma: no cover - compiled
    """Write what the joint angles do to vertices, to columns 6 to 17 of ``out`` (K, 3, P)."""
    by_angle, lever, corrected = np.empty((3, 12)), np.empty(3), np.empty((3, 12))
    for k in range(len(vertices)):
        v = vertices[k]
        _correct(pose_basis[v], features_jacobian, corrected)
        for a in range(12):
            x, y, z = corrected[0, a], corrected[1, a], corrected[2, a]
            for c in range(3):
                turn = head_from_rest[k, c]
                by_angle[c, a] = turn[0] * x + turn[1] * y + turn[2] * z
        for m in range(first_weight[v], first_weight[v + 1]):
            j, w = joint[m], weight[m]
            x, y, z = rest[v, 0] - joints[j, 0], rest[v, 1] - joints[j, 1], rest[v, 2] - joints[j, 2]
            for c in range(3):
                lever[c] = w * (rotations[j, c, 0] * x + rotations[j, c, 1] * y + rotations[j, c, 2] * z)
            if j >= 2:
                _add_axes(by_angle, 3 * (j - 1), axes[j - 1], lever)
            if j >= 1:
                for c in range(3):
                    lever[c] += w * (posed_joints[j, c] - posed_joints[1, c])
                _add_axes(by_angle, 0, axes[0], lever)
        for c in range(3):
            x, y, z = rotation[c, 0], rotation[c, 1], rotation[c, 2]
            for a in range(12):
                out[k, c, 6 + a] = x * by_angle[0, a] + y * by_angle[1, a] + z * by_angle[2, a]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _correct(pose_basis, features_jacobian, out):  # pragma: no cover - compiled
    """Write how a vertex at rest moves with the joint angles by its pose correctives (3, 36), out (3, 12)."""
    for c in range(3):
        for j in range(4):
            for angle in range(3):
                total = 0.0
                for f in range(9):
                    total += pose_basis[c, 9 * j + f] * features_jacobian[j, angle, f]
                out[c, 3 * j + angle] = total


@numba.njit(cache=True, nogil=True, fastmath=True)
def _add_axes(by_angle, column, axes, lever):  # pragma: no cover - compiled
    """Add axis x lever for three axes (columns) to three columns of ``by_angle`` (3, 12)."""
    for angle in range(3):
        x, y, z = axes[0, angle], axes[1, angle], axes[2, angle]
        by_angle[0, column + angle] += y * lever[2] - z * lever[1]
        by_angle[1, column + angle] += z * lever[0] - x * lever[2]
        by_angle[2, column + angle] += x * lever[1] - y * lever[0]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _move_rigidly(vertices, verts_cam, translation, focal, out):  # pragma: no cover - compiled
    """Write what rotation, translation and camera do to vertices, to six columns and the last three of ``out``."""
    camera = out.shape[2] - 3
    for k in range(len(vertices)):
        v, rows = vertices[k], out[k]
        x, y, z = verts_cam[v, 0] - translation[0], verts_cam[v, 1] - translation[1], verts_cam[v, 2] - translation[2]
        for c in range(3):
            for p in range(3):
                rows[c, p], rows[c, 3 + p], rows[c, camera + p] = 0.0, 1.0 if c == p else 0.0, 0.0
        rows[0, 1], rows[0, 2] = z, -y
        rows[1, 0], rows[1, 2] = -z, x
        rows[2, 0], rows[2, 1] = y, -x
        rows[0, camera], rows[1, camera] = verts_cam[v, 0], verts_cam[v, 1]
        rows[0, camera + 1] = verts_cam[v, 2] / focal[0]
        rows[1, camera + 2] = verts_cam[v, 2] / focal[1]
