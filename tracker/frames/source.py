"""Open whatever the user names (video, image, folder of images) and stream its frames."""

from __future__ import annotations

import contextlib
import difflib
import logging
import math
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType

from flame.errors import AssetMissingError, InputError
from tracker.frames.images import (
    is_image,
    probe_folder,
    probe_image,
    read_image,
    refuse_unreadable_kind,
)
from tracker.frames.types import Frame, SourceInfo
from tracker.frames.video import ReadReport, probe_video, stream_video

log = logging.getLogger(__name__)


class FrameSource:
    """Frames of one source in order, decoded as they are asked for, in constant memory.

    Iterating again starts again. `problems` and `num_skipped` grow while frames are read.
    """

    def __init__(
        self, info: SourceInfo, *, start_seconds: float | None, end_seconds: float | None, max_frames: int | None
    ) -> None:
        """Take a described source and the range of it to read; see `open_source`."""
        self.info = info
        self.start_seconds = start_seconds
        self.end_seconds = end_seconds
        self.max_frames = max_frames
        self._report = ReadReport()
        self._frames: Generator[Frame, None, None] | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """Say, one line each, what was found wrong with the source so far."""
        return tuple(self._report.problems)

    @property
    def num_skipped(self) -> int:
        """Count the damaged frames left out so far."""
        return self._report.num_skipped

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames of the range from its beginning.

        Raises:
            InputError: no frame lies in the range, or none of it can be decoded.
        """
        self.close()
        self._report = ReadReport()
        self._frames = self._read()
        return self._frames

    def close(self) -> None:
        """Stop reading and close the file."""
        if self._frames is not None:
            # A thread that is still reading after a hasty Ctrl-C ends with the program.
            with contextlib.suppress(ValueError):
                self._frames.close()
            self._frames = None

    def __enter__(self) -> FrameSource:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _read(self) -> Generator[Frame, None, None]:
        start = self.start_seconds or -math.inf
        end = math.inf if self.end_seconds is None else self.end_seconds
        if self.info.kind == "video":
            frames = stream_video(self.info, start, end, self._report)
        else:
            frames = _stream_images(self.info, start, end, self._report)
        num_read = 0
        with contextlib.closing(frames):
            for frame in frames:
                yield frame
                num_read += 1
                if num_read == self.max_frames:
                    break
        for problem in self._report.problems:
            log.warning("%s: %s", self.info.path, problem)
        if not num_read:
            raise InputError(self._nothing_read())

    def _nothing_read(self) -> str:
        path, length = self.info.path, self.info.duration_seconds
        if self.start_seconds is None and self.end_seconds is None:
            return f"{path}: no frame of it can be decoded; it is empty or damaged"
        begin = f"{self.start_seconds or 0:g} s"
        until = "its end" if self.end_seconds is None else f"{self.end_seconds:g} s"
        return f"{path}: no frame between {begin} and {until}; it lasts {length:g} s: change --start or --end"


def _stream_images(info: SourceInfo, start: float, end: float, report: ReadReport) -> Generator[Frame, None, None]:
    for index, path in enumerate(info.image_paths):
        pts_seconds = float(index / info.frame_rate) if info.frame_rate else 0.0
        if not start <= pts_seconds < end:
            continue
        try:
            image = read_image(path)
        except InputError as error:
            if info.kind == "image":
                raise
            report.num_skipped += 1
            report.problems.append(f"left out: {error}")
            continue
        yield Frame(index, pts_seconds, image)


def check_range(start_seconds: float | None, end_seconds: float | None, max_frames: int | None) -> None:
    """Make sure that a range of frames can hold any.

    Raises:
        InputError: it cannot, whatever the source.
    """
    if start_seconds is not None and not 0 <= start_seconds < math.inf:
        raise InputError(f"--start {start_seconds:g}: the start is a time in seconds from 0 on")
    if end_seconds is not None and not end_seconds > (start_seconds or 0.0):
        raise InputError(f"--end {end_seconds:g}: the end must be later than the start ({start_seconds or 0:g} s)")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"--max-frames {max_frames}: at least one frame is needed")


def open_source(
    path: Path | str,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    max_frames: int | None = None,
) -> FrameSource:
    """Open a video, an image, or a folder of images for reading in order.

    The frames delivered are those with `start_seconds <= pts_seconds < end_seconds`, at most `max_frames` of them.

    Raises:
        AssetMissingError: there is no such file.
        InputError: it is not something with frames, or the range is contradictory.
    """
    check_range(start_seconds, end_seconds, max_frames)
    info = probe_source(path)
    if start_seconds is not None and info.kind == "image" and start_seconds > 0:
        raise InputError(f"{info.path}: a single image has no time; leave out --start {start_seconds:g}")
    return FrameSource(info, start_seconds=start_seconds, end_seconds=end_seconds, max_frames=max_frames)


def probe_source(path: Path | str) -> SourceInfo:
    """Describe a video, an image or a folder of images; at least one frame of it is known to decode.

    Raises:
        AssetMissingError: there is no such file.
        InputError: it is not something with frames.
    """
    path = Path(path)
    _check_exists(path)
    if path.is_dir():
        return probe_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: not a regular file; give a video, an image or a folder of images")
    _check_readable(path)
    refuse_unreadable_kind(path)
    return probe_image(path) if is_image(path) else probe_video(path)


def _check_exists(path: Path) -> None:
    if path.exists():
        return
    if "://" in str(path) or ":/" in str(path)[:8]:
        raise InputError(f"{path}: addresses are not read; download the file first and give its name")
    folder = path.parent
    if not folder.is_dir():
        raise AssetMissingError(f"{path}: no such file, and no folder {folder}; check the path")
    names = sorted(entry.name for entry in folder.iterdir())
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean {folder / close[0]}?" if close else "check the name"
    raise AssetMissingError(f"{path}: no such file; {hint}")


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read this file; change its permissions") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the disk") from error
    if is_empty:
        raise InputError(f"{path}: the file is empty (0 bytes); give a video, an image or a folder of images")
