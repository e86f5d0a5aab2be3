"""What a run leaves in its output folder while it goes on and when it ends, however it ends."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tracker.clip import Cast, Toolkit, TrackedFrame
from tracker.output_files import make_output_folder, write_image
from tracker.frames import SourceInfo
from tracker.pictures import Painter
from tracker.result import Track
from tracker.video_writer import VideoWriter

if TYPE_CHECKING:
    from tracker.api import Options

_SAVE_EVERY_SECONDS = 10.0


class ClipOutput:
    """Write overlay and track of one clip; nothing where there is no folder.

    The track is saved every few seconds, and in any case at the end, so that an interrupted or killed run leaves what it
    has found.
    """

    def __init__(
        self,
        folder: Path | None,
        info: SourceInfo,
        toolkit: Toolkit,
        cast: Cast,
        options: Options,
        result: Callable[[], Track],
    ) -> None:
        """Prepare the folder.

        Raises:
            InputError: the folder cannot be written.
        """
        self._folder = None if folder is None else make_output_folder(folder)
        self._info = info
        self._start_seconds = options.start_seconds
        self._result = result
        self._saved_at = time.monotonic()
        draws = self._folder is not None and options.overlay
        self._painter = Painter(toolkit, cast, options) if draws else None
        self._video: VideoWriter | None = None

    def __enter__(self) -> ClipOutput:
        """Return itself."""
        return self

    def add(self, tracked: TrackedFrame) -> None:
        """Draw a frame, and save the track when it is time."""
        if self._folder is None:
            return
        if self._painter is not None:
            self._write_picture(self._painter.paint(tracked), tracked)
        if time.monotonic() - self._saved_at > _SAVE_EVERY_SECONDS:
            self._result().save(self._folder)
            self._saved_at = time.monotonic()

    def _write_picture(self, picture: np.ndarray, tracked: TrackedFrame) -> None:
        """Append a picture to the overlay video, or write it as the overlay of an image."""
        assert self._folder is not None
        if self._info.kind == "image":
            write_image(self._folder / "overlay.png", picture)
            return
        if self._video is None:
            height, width = picture.shape[:2]
            path = self._folder / "overlay.mp4"
            self._video = VideoWriter(path, self._info, height, width, start_seconds=self._start_seconds)
        self._video.write(picture, tracked.frame.pts_seconds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the video and save the track, also after an interruption."""
        try:
            if self._video is not None:
                self._video.close()
        finally:
            if self._folder is not None:
                self._result().save(self._folder)


def describe(
    info: SourceInfo,
    options: Options,
    cast: Cast,
    seconds: float,
    problems: tuple[str, ...],
    *,
    is_complete: bool,
) -> dict[str, Any]:
    """Return what ``track.json`` says of source, settings and run."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        program = version("pixel3dmm-tracker")
    except PackageNotFoundError:
        program = "not installed"
    return {
        "program_version": program,
        "is_complete": is_complete,
        "seconds": round(seconds, 3),
        "source": {
            "path": str(info.path),
            "kind": info.kind,
            "sha256": info.content_sha256,
            "width": info.width,
            "height": info.height,
            "frame_rate": str(info.frame_rate) if info.frame_rate else None,
            "rotation_degrees": info.rotation_degrees,
            "start_offset_seconds": info.start_offset_seconds,
            "problems": list(problems),
        },
        "people": [
            {"num_keyframes": person.num_keyframes, "keyframe_residual_percent": round(person.residual_percent, 3)}
            for person in cast.people
        ],
        "settings": dataclasses.asdict(options),
    }
