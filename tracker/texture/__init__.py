"""An albedo-like texture of each tracked person, fused from the frames that see them well."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker.texture.fusing import MAX_FRAMES, fuse_textures
    from tracker.texture.head_texture import HeadTexture, load_texture, save_texture, texture_files, texture_key
    from tracker.texture.pictures import render_textured

__all__ = [
    "MAX_FRAMES",
    "HeadTexture",
    "fuse_textures",
    "load_texture",
    "render_textured",
    "save_texture",
    "texture_files",
    "texture_key",
]

_HOMES = {
    "MAX_FRAMES": "fusing",
    "HeadTexture": "head_texture",
    "fuse_textures": "fusing",
    "load_texture": "head_texture",
    "render_textured": "pictures",
    "save_texture": "head_texture",
    "texture_files": "head_texture",
    "texture_key": "head_texture",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: a stored texture can be read without what makes one."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tracker.texture.{_HOMES[name]}"), name)
