"""The commons head in disguise: what a FLAME file is to it, with known truth.

Another mesh with other vertices in another order, another mean face, size, pitch and origin, identities and
expressions that are mixtures without names, other joints.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from flame.model import NUM_POSE_FEATURES, HeadModel
from flame.rotation import matrix_from_axis_angle
from flame.surface import SurfacePoints
from flame.topology import Topology

SCALE, TURN, SHIFT = 1.03, np.array((0.03, 0.0, 0.0)), np.array((0.0, 0.02, -0.01))
_NUM_EXPRESSIONS = 100


def disguised(head: HeadModel, seed: int = 0) -> tuple[HeadModel, SurfacePoints]:
    """Return a head that is another one in disguise, and where its vertices lie on that one."""
    rng = np.random.default_rng(seed)
    faces = head.faces.numpy()
    order = rng.permutation(len(faces))
    new_faces = np.argsort(order)[dual_faces(faces)]
    identity = rng.normal(0.0, 0.4, head.num_shape) * (np.arange(head.num_shape) < 60)
    turn = SCALE * matrix_from_axis_angle(TURN)

    def carried(values: torch.Tensor) -> np.ndarray:
        corners = faces[order].T
        return (sum(values.numpy()[corner] for corner in corners) / 3).astype(np.float32)

    shape = np.matmul(turn.astype(np.float32), carried(head.shape_basis))
    expression = np.matmul(turn, carried(head.expression_basis))
    pose = carried(head.pose_basis.reshape(NUM_POSE_FEATURES, -1, 3).permute(1, 2, 0))
    template = carried(head.template + head.shape_basis @ torch.as_tensor(identity, dtype=head.dtype)) @ turn.T + SHIFT
    shape_mixture = np.linalg.qr(rng.normal(size=(head.num_shape,) * 2))[0].astype(np.float32)
    mixture = 0.5 * np.linalg.qr(rng.normal(size=(_NUM_EXPRESSIONS, head.num_expression)))[0].T
    pose = np.einsum("rc,vcf->fvr", turn, pose).reshape(NUM_POSE_FEATURES, -1)
    made = HeadModel(
        name="disguised",
        template=_tensor(template),
        faces=torch.from_numpy(new_faces),
        shape_basis=_tensor(shape @ shape_mixture),
        expression_basis=_tensor(expression @ mixture),
        pose_basis=_tensor(pose),
        joint_regressor=_tensor(_spread_regressor(head, faces)[:, order]),
        skin_weights=_tensor(carried(head.skin_weights)),
        topology=Topology(new_faces),
        source="made for tests",
    )
    return made, SurfacePoints(order, np.full((len(order), 3), 1 / 3))


def without_jaw(head: HeadModel, jaw_rad: float = 0.3) -> HeadModel:
    """Return a head whose jaw opens by one more expression."""
    with torch.no_grad():
        opened = head.vertices(jaw=torch.tensor((jaw_rad, 0.0, 0.0))) - head.template
    return replace(
        head,
        name="no jaw",
        expression_basis=torch.cat((head.expression_basis, opened[..., None]), -1),
        expression_names=None,
        expression_bounds=None,
        joint_actions=(),
        has_jaw=False,
    )


def dual_faces(faces: np.ndarray) -> np.ndarray:
    """Return the triangles (N, 3) of the mesh whose vertices are the triangles of another: a fan for each ring."""
    rings: dict[int, dict[int, tuple[int, int]]] = {}
    for triangle, corners in enumerate(faces.tolist()):
        for corner in range(3):
            vertex, after, before = (corners[(corner + step) % 3] for step in range(3))
            rings.setdefault(vertex, {})[after] = (before, triangle)
    fans = []
    for ring in rings.values():
        start = vertex = next(iter(ring))
        polygon = []
        while vertex in ring and len(polygon) < len(ring):
            vertex, triangle = ring[vertex]
            polygon.append(triangle)
        if vertex == start and len(polygon) > 2:
            fans += [(polygon[0], *polygon[at : at + 2]) for at in range(1, len(polygon) - 1)]
    return np.array(fans)


def _spread_regressor(head: HeadModel, faces: np.ndarray) -> np.ndarray:
    """Return joints from triangles' centres (5, F): each vertex's share goes to its triangles."""
    regressor = head.joint_regressor.double().numpy()
    share = regressor / np.maximum(np.bincount(faces.ravel(), minlength=head.num_vertices), 1)
    spread = share[:, faces].sum(axis=2)
    return spread / spread.sum(axis=1, keepdims=True)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()
