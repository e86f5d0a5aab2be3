"""All vertices of a head with analytic derivatives, for dense evidence: positions at once, Jacobian rows on demand.

Linear blend skinning as in ``flame.surface``, but with the bases held by vertex, not by (vertex, joint) pair, and in
single precision: a few micrometres of rounding against a third of the memory traffic that the time is spent on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from flame.mesh_rig_kernels import blend, move_rigidly, skin, turn_basis, turn_joints
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


class VertexRings(NamedTuple):
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
        verts_cam = skin(
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
        blend(vertices, *weights, rotations, head_from_rest)
        first_shape = NUM_RIGID + NUM_JOINT_ANGLES + self.num_expressions
        for first, basis, joint_basis in (
            (NUM_RIGID + NUM_JOINT_ANGLES, self.expression_basis, self.joint_expression_basis),
            (first_shape, self.shape_basis, self.joint_shape_basis),
        ):
            carried = posed_joint_basis(rotations[NECK], joint_basis) - rotations @ joint_basis
            carries = carried.any(axis=(1, 2))
            carried = (posed.rotation @ carried).astype(kind)
            turn_basis(vertices, *weights, head_from_rest, posed.rotation, basis, carried, carries, first, out)
        turns = (rotations, joints, posed_joints, axes)
        turn_joints(
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
        move_rigidly(vertices, posed.verts_cam, posed.translation, focal_px, out)
        return out

    def _at_rest(self, shape: np.ndarray, expression: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return the vertices before skinning, float64 (V, 3)."""
        kind = self.shape_basis.dtype
        blended = self.shape_basis.reshape(self.rest.size, self.num_shapes) @ shape.astype(kind)
        blended += self.expression_basis.reshape(self.rest.size, self.num_expressions) @ expression.astype(kind)
        blended += self.pose_basis.reshape(-1, 36) @ features.astype(kind)
        return self.rest + blended.reshape(-1, 3)
