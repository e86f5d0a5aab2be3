"""Find the clip of a track again, and read its frames as they were tracked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flame.errors import AssetMissingError, InputError

if TYPE_CHECKING:
    from tracker.frames import Frame, SourceInfo
    from tracker.result import Track


def find_clip(track: Track, given: str | Path | None = None) -> SourceInfo:
    """Return the clip that was tracked, from where it was, or from where it is said to be now.

    Raises:
        AssetMissingError: it is not there.
        InputError: it is another one, or cannot be read.
    """
    from tracker.frames import probe_source

    told = track.info.get("source") or {}
    places = (given,) if given else (told.get("absolute_path"), told.get("path"))
    paths = [Path(place) for place in places if place]
    path = next((each for each in paths if each.exists()), None)
    if path is None:
        where = paths[0] if paths else "a known place"
        raise AssetMissingError(f"the clip of this track is not at {where}; say where it is with --source.")
    info = probe_source(path)
    if told.get("sha256") not in (None, info.content_sha256):
        raise InputError(f"{path} is not the clip that was tracked (its content differs); give it with --source.")
    return info


def clip_frames(track: Track, info: SourceInfo) -> Iterator[tuple[int, Frame]]:
    """Yield position in the track and picture of every frame of a track, in order and in constant memory.

    Raises:
        InputError: the clip cannot be read.
    """
    from tracker.frames import open_source

    position_of = {int(index): position for position, index in enumerate(track.frame_index)}
    settings = track.info.get("settings") or {}
    with open_source(info.path, start_seconds=settings.get("start_seconds")) as source:
        for frame in source:
            if frame.index in position_of:
                yield position_of.pop(frame.index), frame
            if not position_of:
                return
