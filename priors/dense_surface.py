"""Which parts of a head's surface dense maps speak of: skin, not eyes and not the inside of the mouth."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from flame.errors import InputError
from flame.model import HeadModel
from priors.uv_lookup import UvCopies, uv_copies

_EYES = (3, 4)
_SKIN = ("face", "ears", "neck")
_NEVER = ("eyes", "eye_sockets", "eyelids", "inner_mouth", "tongue", "scalp")
_KEPT = ("lips",)
_EXCLUDED = ("eyes", "eye_sockets", "inner_mouth", "tongue")


@dataclass(frozen=True, eq=False)
class DenseSurface:
    """List what may be looked up in a texture map, and which triangles say nothing."""

    copies: UvCopies
    """Vertices of the skin with their texture coordinates."""
    is_excluded: np.ndarray
    """Triangles of eyes and inner mouth, bool (F,)."""
    uv: np.ndarray
    """Texture coordinates, float64 (VT, 2)."""
    uv_faces: np.ndarray
    """Rows of ``uv`` at each triangle's corners, int32 (F, 3)."""

    @staticmethod
    def of(head: HeadModel) -> DenseSurface:
        """Select by the head's regions; a head without regions offers all of its skin. Done once per head.

        Raises:
            InputError: the head has no texture coordinates.
        """
        if head not in _MADE:
            _MADE[head] = DenseSurface._select(head)
        return _MADE[head]

    @staticmethod
    def _select(head: HeadModel) -> DenseSurface:
        topology = head.topology
        if topology is None or topology.uv is None or topology.uv_faces is None:
            raise InputError(
                f"head {head.name!r} has no texture coordinates, so texture maps cannot be fitted; "
                "use a head with UV, or evidence from landmarks"
            )
        faces = head.faces.detach().cpu().numpy()
        regions = topology.regions
        is_eye = (head.skin_weights.detach().cpu().numpy()[:, _EYES] > 0.5).any(axis=1)
        nothing = np.zeros(head.num_vertices, dtype=bool)

        def union(names: tuple[str, ...]) -> np.ndarray:
            return np.logical_or.reduce([regions.get(name, nothing) for name in names])

        lips = union(_KEPT)
        skin = (union(_SKIN) if "face" in regions else ~nothing) & ~(union(_NEVER) & ~lips) & ~is_eye
        excluded = (union(_EXCLUDED) & ~lips & ~regions.get("face", nothing)) | is_eye
        uv_faces = np.ascontiguousarray(topology.uv_faces, dtype=np.int32)
        return DenseSurface(
            uv_copies(topology, skin), excluded[faces].any(axis=1), topology.uv.astype(np.float64), uv_faces
        )


_MADE: WeakKeyDictionary[HeadModel, DenseSurface] = WeakKeyDictionary()
"""Surfaces of heads that are in use."""
