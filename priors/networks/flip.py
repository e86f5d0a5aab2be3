"""Average a network's maps of a picture and of its mirror image; where the mirror lies follows from the head's UV.

The mirror image of a face is that of the mirrored head: its normals' x and its place's x have changed sign, and a pixel
that showed the texture at u shows it at ``c - u``. The constant c is measured on the head model: the sum of u over
pairs of mirror vertices. A constant that is wrong by e moves every texture coordinate by e / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor, nn

from flame.errors import InputError
from flame.model import HeadModel
from priors.dense_surface import DenseSurface

_MAX_PARTNER_METRES = 0.01
_MAX_SPREAD = 0.01
"""Half of the pairs may be off by so much in texture space; a layout that is not symmetric is off by far more."""
_SIGNED_X = ("normals", "place")


@dataclass(frozen=True)
class UvMirror:
    """Say where a pixel's mirror image lies in texture space: at ``(sum_u - u, v)``."""

    sum_u: float
    """Twice the u of the symmetry axis."""
    spread: float = 0.0
    """How far pairs of vertices are from that (median distance in texture space)."""

    def __call__(self, uv: np.ndarray) -> np.ndarray:
        """Return texture coordinates (..., 2) of the mirror image."""
        return np.stack((self.sum_u - uv[..., 0], uv[..., 1]), axis=-1)

    @staticmethod
    def of(head: HeadModel) -> UvMirror:
        """Measure a head's texture layout on the skin's vertices away from seams.

        Partners are those of the head's mirror map, or the vertices nearest to each other's reflections.

        Raises:
            InputError: the head has no texture coordinates, or they are not symmetric about a line u = constant.
        """
        copies = DenseSurface.of(head).copies
        counts = np.bincount(copies.vertex, minlength=head.num_vertices)
        uv = np.full((head.num_vertices, 2), np.nan)
        uv[copies.vertex] = copies.uv
        uv[counts != 1] = np.nan
        partner = mirror_partners(head)
        is_pair = (partner >= 0) & np.isfinite(uv).all(axis=1) & np.isfinite(uv[partner]).all(axis=1)
        if not is_pair.any():
            raise InputError(f"head {head.name!r} has no pairs of mirror vertices with texture coordinates")
        first, second = uv[is_pair], uv[partner[is_pair]]
        sum_u = float(np.median(first[:, 0] + second[:, 0]))
        off = np.hypot(first[:, 0] + second[:, 0] - sum_u, first[:, 1] - second[:, 1])
        if np.median(off) > _MAX_SPREAD:
            raise InputError(
                f"the texture coordinates of head {head.name!r} are not symmetric (pairs are off by "
                f"{np.median(off):.3g}), so maps of mirrored pictures cannot be averaged"
            )
        return UvMirror(sum_u, float(np.median(off)))


def mirror_partners(head: HeadModel) -> np.ndarray:
    """Return the vertex nearest to each vertex's reflection, int64 (V,); -1 where none is near."""
    if head.topology is not None and head.topology.mirror is not None:
        return head.topology.mirror
    template = head.template.detach().cpu().numpy().astype(np.float64)
    distance, partner = KDTree(template).query(template * np.array((-1.0, 1.0, 1.0)))
    return np.where(np.asarray(distance) <= _MAX_PARTNER_METRES, np.asarray(partner, dtype=np.int64), -1)


class MirrorAveraged(nn.Module):
    """Run a network on pictures and on their mirror images; return the mean of both, and where they disagree."""

    def __init__(self, network: nn.Module, mirror: UvMirror) -> None:
        """Take a network whose maps are those of `priors.networks`."""
        super().__init__()
        self.network = network
        self.mirror = mirror

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the averaged maps of pictures (B, 3, S, S); the network sees 2 B of them at once.

        Where there is ``uv``, there is ``mirror_gap_uv`` (B, 1, h, w), too: the larger difference of its coordinates.
        """
        maps = self.network(torch.cat((image, image.flip(-1))))
        count = len(image)
        seen = {name: values[:count] for name, values in maps.items()}
        undone = unmirror({name: values[count:] for name, values in maps.items()}, self.mirror)
        found = {name: (values + undone[name]) / 2 for name, values in seen.items()}
        if "uv" in seen:
            found["mirror_gap_uv"] = (seen["uv"] - undone["uv"]).abs().amax(dim=1, keepdim=True)
        return found


def unmirror(maps: dict[str, Tensor], mirror: UvMirror) -> dict[str, Tensor]:
    """Return the maps (B, C, h, w) of a picture from those of its mirror image; also the other way round."""
    undone = {}
    for name, values in maps.items():
        values = values.flip(-1)
        if name == "uv":
            values = torch.cat((mirror.sum_u - values[:, :1], values[:, 1:]), dim=1)
        elif name in _SIGNED_X:
            values = torch.cat((-values[:, :1], values[:, 1:]), dim=1)
        undone[name] = values
    return undone
