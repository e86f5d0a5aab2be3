"""All vertices of a head with analytic derivatives, for dense evidence: positions at once, Jacobian rows on demand.

The same strands as in ``flame.surface``, one per (vertex, joint) pair, in single precision: a few micrometres of
rounding against a third of the memory traffic that the time is spent on.
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
    strands: np.ndarray
    """Places of the rig's strands before skinning, float64 (M, 3)."""


@dataclass(frozen=True, eq=False)
class MeshRig:
    """Hold a head's V vertices as M strands with bases in single precision."""

    faces: np.ndarray
    """Triangles, int32 (F, 3)."""
    rings: VertexRings
    first_strand: np.ndarray
    """First strand of each vertex, int32 (V + 1,)."""
    joint: np.ndarray
    """Joint of each strand, int32 (M,)."""
    weight: np.ndarray
    """Skinning weight of each strand, float64 (M,)."""
    rest: np.ndarray
    """Weighted rest position, float64 (M, 3)."""
    shape_basis: np.ndarray
    """Derivative of ``rest`` by shape, float32 (or float64) (M, 3, R)."""
    expression_basis: np.ndarray
    """Derivative of ``rest`` by expression, float32 (M, 3, E)."""
    pose_basis: np.ndarray
    """Derivative of ``rest`` by the pose features, float32 (M, 3, 36)."""
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
        single = {
            name: np.ascontiguousarray(getattr(rig, name), dtype=dtype)
            for name in ("shape_basis", "expression_basis", "pose_basis")
        }
        return MeshRig(
            faces=faces,
            rings=VertexRings.of(faces.astype(np.int64), num_vertices),
            first_strand=np.searchsorted(rig.point, np.arange(num_vertices + 1)).astype(np.int32),
            joint=rig.joint.astype(np.int32),
            weight=rig.weight,
            rest=rig.rest,
            joints=rig.joints,
            joint_shape_basis=rig.joint_shape_basis,
            joint_expression_basis=rig.joint_expression_basis,
            **single,
        )

    @property
    def num_vertices(self) -> int:
        """Return V."""
        return len(self.first_strand) - 1

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
        strands = self._strands_at_rest(shape, expression, features)
        verts_cam = _sum_strands(
            self.first_strand, self.joint, self.weight, strands, rotations, joints, posed_joints, rotation, translation
        )
        return PosedMesh(verts_cam, rotation, translation, rotations, joint_angles, expression, shape, strands)

    def jacobian(self, posed: PosedMesh, focal_px: np.ndarray, vertices: np.ndarray) -> np.ndarray:
        """Return how some vertices move in camera space with a step of all parameters, (K, 3, P), metres.

        The columns are those of ``num_parameters``. A camera's zoom and the place of its principal point (pixels) move
        no vertex; their columns hold the sideways motion that has the same effect in the image.

        Args:
            posed: where the head is.
            focal_px: focal lengths (2,).
            vertices: which rows to compute, int (K,).
        """
        joints = self.joints + self.joint_shape_basis @ posed.shape + self.joint_expression_basis @ posed.expression
        rotations, posed_joints, _, axes, features_jacobian = kinematics(posed.joint_angles, joints)
        neck, kind = rotations[NECK], self.shape_basis.dtype
        return _jacobian_rows(
            np.ascontiguousarray(vertices, dtype=np.int32),
            self.first_strand,
            self.joint,
            self.weight,
            posed.strands,
            self.shape_basis,
            self.expression_basis,
            self.pose_basis,
            joints,
            self.joint_shape_basis.astype(kind),
            posed_joint_basis(neck, self.joint_shape_basis).astype(kind),
            self.joint_expression_basis.astype(kind),
            posed_joint_basis(neck, self.joint_expression_basis).astype(kind),
            rotations,
            posed_joints,
            axes,
            features_jacobian,
            posed.rotation,
            posed.translation,
            posed.verts_cam,
            focal_px,
        )

    def _strands_at_rest(self, shape: np.ndarray, expression: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return the strands' places before skinning, float64 (M, 3)."""
        kind = self.shape_basis.dtype
        blended = self.shape_basis.reshape(-1, self.num_shapes) @ shape.astype(kind)
        blended += self.expression_basis.reshape(-1, self.num_expressions) @ expression.astype(kind)
        blended += self.pose_basis.reshape(-1, 36) @ features.astype(kind)
        return self.rest + blended.reshape(-1, 3)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _sum_strands(
    first_strand, joint, weight, strands, rotations, joints, posed_joints, rotation, translation
):  # pragma: no cover - compiled
    """Skin the strands and place them in camera space, float64 (V, 3)."""
    num_vertices = len(first_strand) - 1
    out = np.empty((num_vertices, 3))
    head = np.empty(3)
    for v in range(num_vertices):
        head[:] = 0.0
        for m in range(first_strand[v], first_strand[v + 1]):
            j, w = joint[m], weight[m]
            x = strands[m, 0] - w * joints[j, 0]
            y = strands[m, 1] - w * joints[j, 1]
            z = strands[m, 2] - w * joints[j, 2]
            for c in range(3):
                turned = rotations[j, c, 0] * x + rotations[j, c, 1] * y + rotations[j, c, 2] * z
                head[c] += turned + w * posed_joints[j, c]
        for c in range(3):
            out[v, c] = rotation[c, 0] * head[0] + rotation[c, 1] * head[1] + rotation[c, 2] * head[2] + translation[c]
    return out


@numba.njit(cache=True, nogil=True, fastmath=True)
def _jacobian_rows(
    vertices,
    first_strand,
    joint,
    weight,
    strands,
    shape_basis,
    expression_basis,
    pose_basis,
    joints,
    joint_shape,
    posed_shape,
    joint_expression,
    posed_expression,
    rotations,
    posed_joints,
    axes,
    features_jacobian,
    rotation,
    translation,
    verts_cam,
    focal,
):  # pragma: no cover - compiled
    """Evaluate ``MeshRig.jacobian``."""
    num_expressions, num_shapes = expression_basis.shape[2], shape_basis.shape[2]
    first_shape = 18 + num_expressions
    first_camera = first_shape + num_shapes
    out = np.zeros((len(vertices), 3, first_camera + 3), shape_basis.dtype)
    cam_rotations = np.empty((5, 3, 3), shape_basis.dtype)
    for j in range(5):
        cam_rotations[j] = np.dot(rotation, rotations[j])
    turned_to_cam = rotation.astype(shape_basis.dtype)
    relative, strand, by_angle = np.empty(3), np.empty(3), np.zeros((3, 12))
    for k in range(len(vertices)):
        v = vertices[k]
        rows = out[k]
        by_angle[:] = 0.0
        for m in range(first_strand[v], first_strand[v + 1]):
            j, w = joint[m], weight[m]
            turn = cam_rotations[j]
            share = shape_basis.dtype.type(w)
            for c in range(3):
                _add_basis(rows[c, 18:first_shape], turn[c], expression_basis[m])
                _add_joints(
                    rows[c, 18:first_shape], turn[c], turned_to_cam[c], share, joint_expression[j], posed_expression[j]
                )
                _add_basis(rows[c, first_shape:first_camera], turn[c], shape_basis[m])
                _add_joints(
                    rows[c, first_shape:first_camera], turn[c], turned_to_cam[c], share, joint_shape[j], posed_shape[j]
                )
            x = strands[m, 0] - w * joints[j, 0]
            y = strands[m, 1] - w * joints[j, 1]
            z = strands[m, 2] - w * joints[j, 2]
            for c in range(3):
                relative[c] = rotations[j, c, 0] * x + rotations[j, c, 1] * y + rotations[j, c, 2] * z
                strand[c] = relative[c] + w * posed_joints[j, c]
            if j >= 1:
                _add_axes(by_angle, 0, axes[0], strand - w * posed_joints[1])
            if j >= 2:
                _add_axes(by_angle, 3 * (j - 1), axes[j - 1], relative)
            for joint_index in range(4):
                for angle in range(3):
                    for c in range(3):
                        value = 0.0
                        for f in range(9):
                            value += pose_basis[m, c, 9 * joint_index + f] * features_jacobian[joint_index, angle, f]
                        for d in range(3):
                            by_angle[d, 3 * joint_index + angle] += rotations[j, d, c] * value
        for c in range(3):
            for a in range(12):
                rows[c, 6 + a] = (
                    rotation[c, 0] * by_angle[0, a] + rotation[c, 1] * by_angle[1, a] + rotation[c, 2] * by_angle[2, a]
                )
            rows[c, 3 + c] = 1.0
        px, py, pz = (
            verts_cam[v, 0] - translation[0],
            verts_cam[v, 1] - translation[1],
            verts_cam[v, 2] - translation[2],
        )
        rows[0, 1], rows[0, 2] = pz, -py
        rows[1, 0], rows[1, 2] = -pz, px
        rows[2, 0], rows[2, 1] = py, -px
        rows[0, first_camera], rows[1, first_camera] = verts_cam[v, 0], verts_cam[v, 1]
        rows[0, first_camera + 1] = verts_cam[v, 2] / focal[0]
        rows[1, first_camera + 2] = verts_cam[v, 2] / focal[1]
    return out


@numba.njit(cache=True, nogil=True, fastmath=True, inline="always")
def _add_basis(row, turn, basis):  # pragma: no cover - compiled
    """Add one row of a turned basis (3, B) to ``row`` (B,)."""
    x, y, z = turn[0], turn[1], turn[2]
    for b in range(basis.shape[1]):
        row[b] += x * basis[0, b] + y * basis[1, b] + z * basis[2, b]


@numba.njit(cache=True, nogil=True, fastmath=True, inline="always")
def _add_joints(row, turn, rotation, weight, resting, posed):  # pragma: no cover - compiled
    """Add what the motion of a strand's own joint does to ``row`` (B,): turned about it, carried with it."""
    x, y, z = weight * turn[0], weight * turn[1], weight * turn[2]
    u, v, w = weight * rotation[0], weight * rotation[1], weight * rotation[2]
    for b in range(resting.shape[1]):
        row[b] += u * posed[0, b] + v * posed[1, b] + w * posed[2, b]
        row[b] -= x * resting[0, b] + y * resting[1, b] + z * resting[2, b]


@numba.njit(cache=True, nogil=True, fastmath=True, inline="always")
def _add_axes(by_angle, column, axes, lever):  # pragma: no cover - compiled
    """Add axis x lever for three axes (columns) to three columns of ``by_angle`` (3, 12)."""
    for angle in range(3):
        x, y, z = axes[0, angle], axes[1, angle], axes[2, angle]
        by_angle[0, column + angle] += y * lever[2] - z * lever[1]
        by_angle[1, column + angle] += z * lever[0] - x * lever[2]
        by_angle[2, column + angle] += x * lever[1] - y * lever[0]
