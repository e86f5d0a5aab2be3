"""A head of FLAME's size for timings: 5023 vertices, 300 identity and 100 expression coefficients.

It is the commons head with some triangles of the neck and the back of the head split, and with local bumps of the face
beside its own expressions. It means nothing; it costs what FLAME costs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from flame import load_head
from flame.model import HeadModel

NUM_VERTICES, NUM_EXPRESSIONS = 5023, 100
_BUMP_RADIUS_M, _BUMP_HEIGHT_M = 0.015, 0.002


def full_size_head(dtype: torch.dtype = torch.float64, seed: int = 0) -> HeadModel:
    """Return the head."""
    head = _with_bumps(load_head().to(dtype=dtype), np.random.default_rng(seed))
    return _with_split_triangles(head)


def _with_bumps(head: HeadModel, random: np.random.Generator) -> HeadModel:
    """Fill the expressions up with smooth bumps at random places of the face."""
    assert head.topology is not None and head.expression_bounds is not None
    count = NUM_EXPRESSIONS - head.num_expression
    template = head.template.numpy()
    is_face = head.topology.regions["face"]
    centres = template[random.choice(np.flatnonzero(is_face), count, replace=False)]
    distance = np.linalg.norm(template[:, None] - centres, axis=2)
    directions = random.normal(size=(count, 3))
    directions *= _BUMP_HEIGHT_M / np.linalg.norm(directions, axis=1, keepdims=True)
    height = np.exp(-0.5 * (distance / _BUMP_RADIUS_M) ** 2) * is_face[:, None]
    bumps = torch.as_tensor(height[:, None, :] * directions.T, dtype=head.dtype)
    bounds = torch.tensor((-3.0, 3.0), dtype=head.dtype).expand(count, 2)
    return replace(
        head,
        name="full-size",
        expression_basis=torch.cat((head.expression_basis, bumps), -1),
        expression_bounds=torch.cat((head.expression_bounds, bounds)),
        expression_names=None,
    )


def _with_split_triangles(head: HeadModel) -> HeadModel:
    """Split triangles outside the face at their middles until there are enough vertices."""
    topology = head.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    faces = head.faces.numpy()
    outside = ~(topology.regions["face"] | topology.regions["ears"])
    split = np.flatnonzero(outside[faces].all(axis=1))[: NUM_VERTICES - head.num_vertices]
    uv = np.concatenate((topology.uv, topology.uv[topology.uv_faces[split]].mean(axis=1)))
    corners = torch.as_tensor(faces[split])

    def grown(values: torch.Tensor) -> torch.Tensor:
        return torch.cat((values, values[corners].mean(dim=1)))

    faces = _split(faces, split, head.num_vertices)
    num_new = len(split)
    regions = {
        name: np.concatenate((mask, mask[head.faces.numpy()[split]].all(axis=1)))
        for name, mask in topology.regions.items()
    }
    pose = head.pose_basis.view(36, -1, 3).permute(1, 0, 2)
    regressor = torch.cat((head.joint_regressor, head.joint_regressor.new_zeros(5, num_new)), 1)
    return replace(
        head,
        template=grown(head.template),
        faces=torch.as_tensor(faces),
        shape_basis=grown(head.shape_basis),
        expression_basis=grown(head.expression_basis),
        pose_basis=grown(pose).permute(1, 0, 2).reshape(36, -1).contiguous(),
        joint_regressor=regressor,
        skin_weights=grown(head.skin_weights),
        topology=replace(
            topology,
            faces=faces,
            regions=regions,
            mirror=None,
            uv=uv.astype(np.float32),
            uv_faces=_split(topology.uv_faces, split, len(topology.uv)),
            landmark_sets={},
        ),
    )


def _split(faces: np.ndarray, split: np.ndarray, first_new: int) -> np.ndarray:
    """Replace triangles by three around a new vertex each; the new ones are numbered from ``first_new``."""
    middle = first_new + np.arange(len(split))
    a, b, c = faces[split].T
    faces = faces.copy()
    faces[split] = np.column_stack((a, b, middle))
    others = np.concatenate((np.column_stack((b, c, middle)), np.column_stack((c, a, middle))))
    return np.concatenate((faces, others))
