"""What a run leaves in its output folder while it goes on and when it ends, however it ends."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from flame.errors import InputError
from tracker.clip import Cast, Toolkit, TrackedFrame
from tracker.export.formats import EXPORT_FOLDER, FORMATS
from tracker.frames import SourceInfo
from tracker.interruption import held_back
from tracker.output_files import make_output_folder, write_image
from tracker.pictures import Painter
from tracker.result import Track
from tracker.video_writer import VideoWriter

if TYPE_CHECKING:
    from tracker.api import Options

RESULT_NAMES = ("track.npz", "track.json", "overlay.mp4", "overlay.png", "report.html")
"""The files that a run may write, and that it removes where an earlier run left them."""

_SAVE_EVERY_SECONDS = 10.0
_SAVE_SHARE = 0.05
"""Saving again and again takes at most this share of the time: a track of hours takes seconds to write."""


def prepare_folder(folder: Path, info: SourceInfo) -> None:
    """Make the output folder of a source.

    Raises:
        InputError: the source itself lies where a result would be written.
        OutputError: the folder cannot be made or written.
    """
    targets = {(folder / name).resolve() for name in RESULT_NAMES}
    exports = {(folder / EXPORT_FOLDER / name).resolve() for name in FORMATS}
    for path in (info.path, *info.image_paths):
        place = path.resolve()
        if place in targets or exports & {place, *place.parents}:
            raise InputError(f"{path}: the results in {folder} would overwrite it; choose another folder with -o.")
    make_output_folder(folder)


class ClipOutput:
    """Write overlay and track of one clip; nothing where there is no folder.

    The track is saved every few seconds, and in any case at the end, so that an interrupted or killed run leaves what
    it has found. Results of an earlier run are removed with the first frame, never mixed with those of this one.
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
        """Write into a folder that ``prepare_folder`` has made."""
        self._folder = folder
        self._info = info
        self._start_seconds = options.start_seconds
        self._result = result
        self._save_after = time.monotonic() + _SAVE_EVERY_SECONDS
        self._is_empty = True
        draws = self._folder is not None and options.overlay
        self._painter = Painter.of_run(toolkit, cast, options) if draws else None
        self._video: VideoWriter | None = None

    def __enter__(self) -> ClipOutput:
        """Return itself."""
        return self

    def add(self, tracked: TrackedFrame) -> None:
        """Draw a frame, and save the track when it is time.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        if self._folder is None:
            return
        picture = None if self._painter is None else self._painter.paint(tracked)
        with held_back():
            if self._is_empty:
                _remove_results(self._folder)
                self._is_empty = False
            if picture is not None:
                self._write_picture(self._folder, picture, tracked)
            if time.monotonic() > self._save_after:
                self._save(self._folder)

    def _save(self, folder: Path) -> None:
        """Write the track as it is now."""
        started = time.monotonic()
        self._result().save(folder)
        ended = time.monotonic()
        self._save_after = ended + max(_SAVE_EVERY_SECONDS, (ended - started) / _SAVE_SHARE)

    def _write_picture(self, folder: Path, picture: np.ndarray, tracked: TrackedFrame) -> None:
        """Append a picture to the overlay video, or write it as the overlay of an image."""
        if self._info.kind == "image":
            write_image(folder / "overlay.png", picture)
            return
        if self._video is None:
            height, width = picture.shape[:2]
            path = folder / "overlay.mp4"
            self._video = VideoWriter(path, self._info, height, width, start_seconds=self._start_seconds)
        self._video.write(picture, tracked.frame.pts_seconds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Save the track and finish the video, also after an error or an interruption."""
        if self._folder is None or self._is_empty:
            return
        with held_back():
            try:
                self._save(self._folder)
            finally:
                if self._video is not None:
                    self._video.close()


def _remove_results(folder: Path) -> None:
    """Remove what an earlier run left; without a track no file here is known to be a result."""
    if not any((folder / name).exists() for name in ("track.npz", "track.json")):
        return
    for name in RESULT_NAMES:
        for path in (folder / name, folder / f".{name}.part"):
            path.unlink(missing_ok=True)
    for name in FORMATS:
        shutil.rmtree(folder / EXPORT_FOLDER / name, ignore_errors=True)


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
    # Options without a configuration take that of their prior: it is what was used that is told.
    settings = dataclasses.asdict(dataclasses.replace(options, config=options.settings))
    return {
        "program_version": program,
        "is_complete": is_complete,
        "seconds": round(seconds, 3),
        "source": {
            "path": str(info.path),
            "absolute_path": str(info.path.resolve()),
            "kind": info.kind,
            "sha256": info.content_sha256,
            "width": info.width,
            "height": info.height,
            "frame_rate": str(info.frame_rate) if info.frame_rate else None,
            "rotation_degrees": info.rotation_degrees,
            "start_offset_seconds": info.start_offset_seconds,
            "problems": list(problems),
        },
        "camera": cast.camera.describe(cast.intrinsics),
        "people": [
            {
                "num_keyframes": person.num_keyframes,
                "keyframe_residual_percent": (
                    round(person.residual_percent, 3) if math.isfinite(person.residual_percent) else None
                ),
            }
            for person in cast.people
        ],
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
    }
