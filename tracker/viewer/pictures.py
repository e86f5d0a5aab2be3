"""The clip's pictures while somebody plays or scrubs: read ahead in a thread of their own, kept for a while."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flame.errors import UserError

if TYPE_CHECKING:
    from tracker.frames import Frame, SourceInfo
    from tracker.result import Track

log = logging.getLogger(__name__)

_CACHE_BYTES = 160 << 20
_READ_AHEAD = 12
"""Frames read before they are asked for."""
_REACH = 60
"""Frames ahead up to which decoding on beats a new start at a keyframe."""
_UNREADABLE = "this frame of the clip cannot be decoded"


class PictureCache:
    """Keep the pictures used last, up to a number of bytes; safe to use from several threads."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        """Begin empty."""
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._pictures: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, position: int) -> bool:
        """Tell whether a picture is kept."""
        with self._lock:
            return position in self._pictures

    def get(self, position: int) -> np.ndarray | None:
        """Return a picture, and count it as used; None where it is not kept."""
        with self._lock:
            if position in self._pictures:
                self._pictures.move_to_end(position)
            return self._pictures.get(position)

    def put(self, position: int, picture: np.ndarray) -> None:
        """Keep a picture; the ones used longest ago make room, this one never does."""
        with self._lock:
            replaced = self._pictures.pop(position, None)
            self._num_bytes += picture.nbytes - (0 if replaced is None else replaced.nbytes)
            self._pictures[position] = picture
            while self._num_bytes > self._max_bytes and len(self._pictures) > 1:
                _, dropped = self._pictures.popitem(last=False)
                self._num_bytes -= dropped.nbytes

    def latest_between(self, first: int, last: int) -> int | None:
        """Return the last position that is kept in ``first .. last``; None where none is."""
        with self._lock:
            return next((each for each in range(last, first - 1, -1) if each in self._pictures), None)


class PictureReader:
    """Read pictures of a track's frames, smaller than the clip's where those are large; RGB uint8 (H, W, 3)."""

    def __init__(
        self, track: Track, given: Path | None, *, max_side_px: int = 960, on_read: Callable[[], None] | None = None
    ) -> None:
        """Begin to read the clip, from where it was tracked or where it is ``given`` to be now.

        ``on_read`` is called (in the reading thread) after each picture, and on a problem.
        """
        self.problem: str | None = None
        """Why there are no pictures, one line; None as long as there may be."""
        self._track = track
        self._given = given
        self._max_side_px = max_side_px
        self._on_read = on_read or (lambda: None)
        self._position_of = {int(index): position for position, index in enumerate(track.frame_index)}
        self._cache = PictureCache()
        self._wanted: int | None = None
        self._missing: set[int] = set()
        self._next_position = 0
        self._frames: Iterator[Frame] | None = None
        self._info: SourceInfo | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read_all, name="viewer pictures", daemon=True)
        self._thread.start()

    def want(self, position: int) -> None:
        """Say which frame is on show; it and the following ones are read next."""
        with self._changed:
            if self._wanted != position:
                self._wanted = position
                self._changed.notify()

    def get(self, position: int) -> np.ndarray | None:
        """Return the picture of a frame; None where it is not read yet, or cannot be."""
        return self._cache.get(position)

    def problem_of(self, position: int) -> str | None:
        """Return why there is no picture of a frame and will be none, one line; None where there may be one."""
        return _UNREADABLE if self.problem is None and position in self._missing else self.problem

    def latest_between(self, first: int, last: int) -> int | None:
        """Return the last frame in ``first .. last`` whose picture is there."""
        return self._cache.latest_between(first, last)

    def close(self) -> None:
        """Stop reading."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _read_all(self) -> None:
        """Read what is wanted until closed."""
        try:
            self._info = self._checked_source()
            while True:
                with self._changed:
                    while not self._is_closed and self._next_task() is None:
                        self._changed.wait()
                    task = self._next_task()
                if self._is_closed or task is None:
                    break
                self._read_one(task)
                self._on_read()
        except UserError as error:
            self.problem = str(error)
            self._on_read()
        except Exception as error:  # a decoder's own kinds; without pictures the rest still works
            log.warning("pictures", exc_info=True)
            self.problem = f"the clip cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
            self._on_read()
        finally:
            self._stop_frames()

    def _checked_source(self) -> SourceInfo:
        """Describe the clip.

        Raises:
            UserError: it is not there, or not the one that was tracked.
        """
        from flame.errors import InputError
        from tracker.tracked_clip import find_clip

        info = find_clip(self._track, self._given)
        camera = self._track.intrinsics
        if (info.width, info.height) != (camera.width, camera.height):
            raise InputError(
                f"{info.path} has {info.width} x {info.height} pixels, the tracked clip {camera.width} x "
                f"{camera.height}: another clip; give the right one with --source"
            )
        return info

    def _next_task(self) -> int | None:
        """Return which frame to read next: the one on show, or one of the following; None where nothing is to do."""
        if self._wanted is None:
            return None
        last = min(self._wanted + _READ_AHEAD, len(self._track) - 1)
        todo = (each for each in range(self._wanted, last + 1) if each not in self._cache)
        return next((each for each in todo if each not in self._missing), None)

    def _read_one(self, task: int) -> None:
        """Read up to a frame, from where reading is or from a new start; the frame is missing where that fails."""
        is_near = self._next_position <= task <= self._next_position + _REACH
        if self._frames is None or not is_near:
            self._start_at(task)
        try:
            self._decode_to(task)
        except UserError:
            # Nothing can be decoded from here on; earlier frames may still be asked for.
            self._stop_frames()
            self._missing.update(range(task, len(self._track)))

    def _decode_to(self, task: int) -> None:
        """Decode until a frame is there, keeping some of those before it, or until somebody wants another part."""
        assert self._frames is not None
        for frame in self._frames:
            position = self._position_of.get(frame.index)
            if position is None:
                if frame.index > int(self._track.frame_index[-1]):
                    break
                continue
            self._next_position = position + 1
            if position >= task:
                self._missing.update(range(task, position))
                self._cache.put(position, self._small(frame.image))
                return
            with self._changed:
                overtaken = self._wanted is None or not 0 <= self._wanted - position <= _REACH
            if position % 4 == 0 or position > task - 4:
                self._cache.put(position, self._small(frame.image))
            if overtaken or self._is_closed:
                return
        self._stop_frames()
        self._missing.update(range(task, len(self._track)))

    def _start_at(self, position: int) -> None:
        """Begin to decode at the keyframe before a frame."""
        from tracker.frames import FrameSource

        self._stop_frames()
        assert self._info is not None
        start = float(self._track.pts_seconds[position]) - 1e-4
        source = FrameSource(self._info, start_seconds=start if start > 0 else None, end_seconds=None, max_frames=None)
        self._frames = iter(source)
        self._next_position = position

    def _stop_frames(self) -> None:
        if self._frames is not None:
            self._frames.close()  # type: ignore[attr-defined]
            self._frames = None

    def _small(self, image: np.ndarray) -> np.ndarray:
        """Return a picture that is quickly sent: its longer side at most ``max_side_px``."""
        height, width = image.shape[:2]
        factor = self._max_side_px / max(height, width)
        if factor >= 1:
            return image
        import cv2

        size = max(round(width * factor), 1), max(round(height * factor), 1)
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
