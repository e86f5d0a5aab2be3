"""The parametric head and how it is seen: model, loading and saving, topology, camera, rasteriser, shading."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from flame.errors import AssetMissingError, InputError, UnsafeFileError, UserError

if TYPE_CHECKING:
    from flame.loading import load_head
    from flame.model import HeadModel, PosedHead, ShapedHead
    from flame.saving import save_flame_pkl
    from flame.topology import Topology

__all__ = [
    "AssetMissingError",
    "HeadModel",
    "InputError",
    "PosedHead",
    "ShapedHead",
    "Topology",
    "UnsafeFileError",
    "UserError",
    "load_head",
    "save_flame_pkl",
]

_HOMES = {
    "HeadModel": "flame.model",
    "PosedHead": "flame.model",
    "ShapedHead": "flame.model",
    "Topology": "flame.topology",
    "load_head": "flame.loading",
    "save_flame_pkl": "flame.saving",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: torch takes seconds, and ``--help`` shall not wait for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
