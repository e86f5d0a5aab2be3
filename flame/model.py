"""The parametric head: coefficients and joint rotations in, vertices out; batched and differentiable.

Written from T. Li et al., "Learning a model of facial shape and expression from 4D scans", 2017:
``M = LBS(T + B_s beta + B_e psi + B_p(theta), J, theta, W)`` with five joints. Stages are types: a `HeadModel` given a
shape is a `ShapedHead`, a `ShapedHead` given expression and pose is a `PosedHead`.

The joints are regressed from the shaped *and* expressed template, ``J = J_regressor (T + B_s beta + B_e psi)``. The
paper writes J(beta); FLAME's released implementations do the former, and programs that read our results expect it.
Where the regressor does not touch vertices that expressions move, the two are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from flame.errors import InputError
from flame.head_files import NUM_JOINTS as NUM_JOINTS
from flame.head_files import NUM_POSE_FEATURES as NUM_POSE_FEATURES
from flame.head_files import JointAction as JointAction
from flame.head_files import content_hash
from flame.rotation import matrix_from_axis_angle
from flame.skinning import joint_transforms, skin
from flame.topology import Topology

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
JAW = JOINT_NAMES.index("jaw")


@dataclass(frozen=True, eq=False, repr=False)
class HeadModel:
    """Hold a head with V vertices, I shape coefficients and E expression coefficients; nothing in it changes."""

    name: str
    """Short name for people: ``commons``, or the stem of the file."""
    template: Tensor
    """Mean head (V, 3), metres, head space."""
    faces: Tensor
    """Vertex indices of the triangles, int64 (F, 3)."""
    shape_basis: Tensor
    """Identity directions (V, 3, I), metres per standard deviation."""
    expression_basis: Tensor
    """Expression directions (V, 3, E), metres per unit."""
    pose_basis: Tensor
    """Pose correctives (36, V * 3): metres per entry of ``R_j - I``, row-major, for every joint but the root."""
    joint_regressor: Tensor
    """Joints from vertices (5, V); rows sum to one."""
    skin_weights: Tensor
    """Share of each joint in each vertex (V, 5); rows sum to one."""
    parents: tuple[int, ...] = (-1, 0, 1, 1, 1)
    """Parent of each joint, -1 for the root."""
    topology: Topology | None = None
    """Regions, mirror map and texture coordinates, where known."""
    expression_names: tuple[str, ...] | None = None
    """Names of the E expressions, where they have meanings of their own."""
    expression_bounds: Tensor | None = None
    """Lowest and highest sensible value of each expression coefficient (E, 2), where they are bounded."""
    joint_actions: tuple[JointAction, ...] = ()
    """Facial actions that are rotations of jaw or eyes, where known."""
    has_jaw: bool = True
    """False for heads whose jaw moves by expression only: the jaw rotation is then taken as the identity."""
    licence: str = ""
    """Terms under which the head may be used, one line."""
    source: str = ""
    """Where the head comes from, one line."""

    def __repr__(self) -> str:
        """Return name and sizes."""
        sizes = f"{self.num_vertices} vertices, {self.num_shape} shape, {self.num_expression} expression"
        return f"HeadModel({self.name!r}, {sizes}, {self.dtype}, {self.device})"

    @property
    def num_vertices(self) -> int:
        """Return V."""
        return self.template.shape[0]

    @property
    def num_shape(self) -> int:
        """Return I, the number of shape coefficients."""
        return self.shape_basis.shape[-1]

    @property
    def num_expression(self) -> int:
        """Return E, the number of expression coefficients."""
        return self.expression_basis.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Return the floating-point type that the head computes in."""
        return self.template.dtype

    @property
    def device(self) -> torch.device:
        """Return the device that the head computes on."""
        return self.template.device

    @cached_property
    def joint_expression_basis(self) -> Tensor:
        """Return how expressions move the joints before skinning (5, 3, E), metres per unit."""
        return torch.einsum("jv,vce->jce", self.joint_regressor, self.expression_basis)

    @cached_property
    def content_hash(self) -> str:
        """Return the SHA-256 of the numbers that define the head, equal for its float32 and float64 versions."""
        arrays = (
            self.template,
            self.shape_basis.permute(2, 0, 1),
            self.expression_basis.permute(2, 0, 1),
            self.pose_basis,
            self.joint_regressor,
            self.skin_weights,
        )
        numbers = tuple(array.detach().to("cpu", torch.float32).numpy() for array in arrays)
        return content_hash(numbers, self.faces.cpu().numpy(), self.parents, self.has_jaw)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> HeadModel:
        """Return the head in another floating-point type or on another device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=device or tensor.device, dtype=dtype or tensor.dtype)

        return replace(
            self,
            template=move(self.template),
            faces=self.faces.to(device or self.faces.device),
            shape_basis=move(self.shape_basis),
            expression_basis=move(self.expression_basis),
            pose_basis=move(self.pose_basis),
            joint_regressor=move(self.joint_regressor),
            skin_weights=move(self.skin_weights),
            expression_bounds=None if self.expression_bounds is None else move(self.expression_bounds),
        )

    def rest(self, shape: Tensor | None = None) -> ShapedHead:
        """Give the head an identity.

        Args:
            shape: coefficients (..., <= I) in standard deviations; missing ones are zero.

        Raises:
            InputError: more coefficients than the head has.
        """
        vertices = self.template + self._blend(shape, self.shape_basis, "shape")
        return ShapedHead(self, vertices, self.joint_regressor @ vertices)

    def vertices(
        self,
        *,
        shape: Tensor | None = None,
        expression: Tensor | None = None,
        root: Tensor | None = None,
        neck: Tensor | None = None,
        jaw: Tensor | None = None,
        left_eye: Tensor | None = None,
        right_eye: Tensor | None = None,
        translation: Tensor | None = None,
    ) -> Tensor:
        """Return vertices (..., V, 3), metres, in one call; arguments as in `rest` and `ShapedHead.pose`."""
        return (
            self.rest(shape)
            .pose(
                expression=expression,
                root=root,
                neck=neck,
                jaw=jaw,
                left_eye=left_eye,
                right_eye=right_eye,
                translation=translation,
            )
            .vertices
        )

    def _blend(self, coefficients: Tensor | None, basis: Tensor, word: str) -> Tensor:
        """Return offsets (..., rows, 3): the basis (rows, 3, K) weighted by coefficients (..., <= K)."""
        rows, axes, available = basis.shape
        if coefficients is None:
            return basis.new_zeros(rows, axes)
        weights = torch.as_tensor(coefficients, dtype=self.dtype, device=self.device)
        given = weights.shape[-1] if weights.ndim else 0
        if weights.ndim == 0 or given > available:
            found = tuple(weights.shape)
            raise InputError(f"{word} coefficients have shape {found}; head {self.name!r} takes (..., <= {available})")
        directions = basis.permute(2, 0, 1)[:given].reshape(given, rows * axes)
        return (weights @ directions).unflatten(-1, (rows, axes))

    def _rotations(self, axis_angles: tuple[Tensor | None, ...]) -> Tensor:
        """Return joint rotations (..., 5, 3, 3) from one axis-angle (..., 3) or None per joint."""
        vectors = []
        for name, axis_angle in zip(JOINT_NAMES, axis_angles, strict=True):
            vector = torch.as_tensor(
                (0.0, 0.0, 0.0) if axis_angle is None else axis_angle, dtype=self.dtype, device=self.device
            )
            if vector.ndim == 0 or vector.shape[-1] != 3:
                raise InputError(f"{name} rotation has shape {tuple(vector.shape)}; axis-angle needs (..., 3)")
            vectors.append(vector)
        if not self.has_jaw:
            vectors[JAW] = torch.zeros_like(vectors[JAW])
        return matrix_from_axis_angle(torch.stack(torch.broadcast_tensors(*vectors), -2))


@dataclass(frozen=True, eq=False)
class ShapedHead:
    """Hold a head of one identity (or a batch of them) in rest: no expression, no rotation."""

    model: HeadModel
    vertices: Tensor
    """Rest vertices (..., V, 3), metres, head space."""
    joints: Tensor
    """Rest joints (..., 5, 3), metres, head space."""

    def pose(
        self,
        *,
        expression: Tensor | None = None,
        root: Tensor | None = None,
        neck: Tensor | None = None,
        jaw: Tensor | None = None,
        left_eye: Tensor | None = None,
        right_eye: Tensor | None = None,
        translation: Tensor | None = None,
    ) -> PosedHead:
        """Give the head an expression and a pose; what is left out is zero, and leading shapes broadcast.

        Args:
            expression: coefficients (..., <= E); missing ones are zero.
            root: rotation of the whole head about its root joint, axis-angle (..., 3), radians.
            neck: rotation about the neck joint, in the root's frame.
            jaw: rotation about the jaw joint, in the neck's frame; ignored where ``model.has_jaw`` is False.
            left_eye: rotation of the subject's left eyeball, in the neck's frame.
            right_eye: rotation of the subject's right eyeball, in the neck's frame.
            translation: added last (..., 3), metres.

        Raises:
            InputError: a shape does not fit; the message names it.
        """
        model = self.model
        rotations = model._rotations((root, neck, jaw, left_eye, right_eye))
        shift = None
        if translation is not None:
            shift = torch.as_tensor(translation, dtype=model.dtype, device=model.device)
            if shift.ndim == 0 or shift.shape[-1] != 3:
                raise InputError(f"translation has shape {tuple(shift.shape)}; it needs (..., 3)")
        rest = self.vertices + model._blend(expression, model.expression_basis, "expression")
        joints = self.joints + model._blend(expression, model.joint_expression_basis, "expression")
        batch = torch.broadcast_shapes(rest.shape[:-2], rotations.shape[:-3])
        features = (rotations[..., 1:, :, :] - torch.eye(3, dtype=model.dtype, device=model.device)).flatten(-3)
        rest = rest + (features @ model.pose_basis).unflatten(-1, (model.num_vertices, 3))
        joints = joints.expand(*batch, NUM_JOINTS, 3)
        posed_from_rest = joint_transforms(rotations.expand(*batch, NUM_JOINTS, 3, 3), joints, model.parents)
        vertices = skin(rest, posed_from_rest, model.skin_weights)
        posed_joints = torch.einsum("...jrc,...jc->...jr", posed_from_rest[..., :3, :3], joints)
        posed_joints = posed_joints + posed_from_rest[..., :3, 3]
        if shift is not None:
            vertices = vertices + shift[..., None, :]
            posed_joints = posed_joints + shift[..., None, :]
            posed_from_rest = _translated(posed_from_rest, shift)
        return PosedHead(model, vertices, posed_joints, posed_from_rest)


@dataclass(frozen=True, eq=False)
class PosedHead:
    """Hold the outcome: a head with identity, expression and pose."""

    model: HeadModel
    vertices: Tensor
    """Vertices (..., V, 3), metres."""
    joints: Tensor
    """Joint positions (..., 5, 3), metres."""
    posed_from_rest: Tensor
    """Transforms (..., 5, 4, 4) of points fixed to each joint, translation included."""


def _translated(posed_from_rest: Tensor, shift: Tensor) -> Tensor:
    """Add a translation (..., 3) to transforms (..., J, 4, 4)."""
    column = torch.cat((shift, torch.zeros_like(shift[..., :1])), -1)[..., None, :, None]
    return posed_from_rest + torch.cat((torch.zeros_like(column).expand(*column.shape[:-1], 3), column), -1)
