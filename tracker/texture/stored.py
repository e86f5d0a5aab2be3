"""Textures that are kept in a track's output folder from one use to the next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.errors import OutputError
from tracker.texture.head_texture import HeadTexture, load_texture, save_texture, texture_key

if TYPE_CHECKING:
    from tracker.frames import Frame
    from tracker.result import Track

log = logging.getLogger(__name__)


def textures_of(
    track: Track, folder: Path | None, frames: Callable[[], Iterable[tuple[int, Frame]]], size_px: int
) -> list[HeadTexture | None]:
    """Return everybody's texture: the one in the output folder where it is of this track, else a new one, kept there.

    Args:
        track: the tracked clip.
        folder: its output folder; None keeps nothing.
        frames: opens the clip, see ``fuse_textures``; not called where the textures are stored.
        size_px: length of a side, texels.

    Raises:
        InputError: the clip cannot be read, or is another one.
    """
    stored = stored_textures(track, folder, size_px)
    # A person who is never tracked has no texture; of the others all have to be there.
    if all(texture is not None for texture, seen in zip(stored, track.is_tracked.any(axis=1), strict=True) if seen):
        return stored
    # Imported here: stored textures are read without what makes new ones, which takes a second to import.
    from tracker.texture.fusing import fuse_textures

    textures = fuse_textures(track, frames(), size_px)
    if folder is not None:
        key = texture_key(track, size_px)
        try:
            for person, texture in enumerate(textures):
                if texture is not None:
                    save_texture(folder, person, texture, key)
        except OutputError as error:
            log.info("texture not kept: %s", error)
    return textures


def stored_textures(track: Track, folder: Path | None, size_px: int) -> list[HeadTexture | None]:
    """Return the textures of a track in its output folder; None where there is none of this track and size."""
    if folder is None:
        return [None] * track.num_people
    key = texture_key(track, size_px)
    return [load_texture(folder, person, key) for person in range(track.num_people)]
