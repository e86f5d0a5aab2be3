"""Linear blend skinning: joints turn in their parents' frames, and vertices follow the joints they hang on.

Written from section 3 of T. Li et al., "Learning a model of facial shape and expression from 4D scans", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def joint_transforms(rotations: Tensor, joints: Tensor, parents: Sequence[int]) -> Tensor:
    """Return ``posed_from_rest`` (..., J, 4, 4): where each joint carries the points that are fixed to it.

    Args:
        rotations: (..., J, 3, 3), each about its joint and in its parent's frame.
        joints: rest positions (..., J, 3), metres.
        parents: index of each joint's parent, -1 for a root; parents come before their children.
    """
    rest_offsets = joints - torch.einsum("...jrc,...jc->...jr", rotations, joints)
    turns: list[Tensor] = []
    offsets: list[Tensor] = []
    for joint, parent in enumerate(parents):
        turn, offset = rotations[..., joint, :, :], rest_offsets[..., joint, :]
        if parent >= 0:
            offset = torch.einsum("...rc,...c->...r", turns[parent], offset) + offsets[parent]
            turn = turns[parent] @ turn
        turns.append(turn)
        offsets.append(offset)
    top = torch.cat((torch.stack(turns, -3), torch.stack(offsets, -2)[..., None]), -1)
    bottom = top.new_tensor((0.0, 0.0, 0.0, 1.0)).expand(*top.shape[:-2], 1, 4)
    return torch.cat((top, bottom), -2)


def skin(vertices: Tensor, posed_from_rest: Tensor, weights: Tensor) -> Tensor:
    """Return skinned vertices (..., V, 3): each is moved by the weighted mean of the joints' transforms.

    Args:
        vertices: rest positions (..., V, 3), metres.
        posed_from_rest: (..., J, 4, 4) of `joint_transforms`.
        weights: (V, J), rows sum to one.
    """
    blended = torch.einsum("vj,...jrc->...vrc", weights, posed_from_rest[..., :3, :])
    return (blended[..., :3] * vertices[..., None, :]).sum(-1) + blended[..., 3]
