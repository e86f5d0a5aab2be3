"""Track clips from Python: the same words as on the command line and in the files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs import load_preset
from configs.schema import Config
from flame.errors import InputError
from tracker.clip import Cast, Span, Toolkit, TrackedFrame, cast, identify, load_toolkit, probe, scout, stream_clip
from tracker.frames import SourceInfo
from tracker.outputs import ClipOutput, describe
from tracker.recorder import Recorder
from tracker.result import Track
from tracker.scout import Glimpse

MAX_FACES = 16


@dataclass(frozen=True)
class Options:
    """Say how to track; every field is an option of the command line, too."""

    head: str = "commons"
    """Head model: ``commons``, or the path of a FLAME ``.pkl`` or ``.npz`` file."""
    prior: str = "mediapipe"
    """What looks at the frames."""
    faces: int = 1
    """People to track at most."""
    same_person: bool = False
    """All inputs show one person: find one identity from all of them."""
    start_seconds: float | None = None
    """Begin at this time of the clip."""
    end_seconds: float | None = None
    """Stop before this time of the clip."""
    max_frames: int | None = None
    """Stop after so many frames."""
    fov_degrees: float | None = None
    """Field of view along the longer image side; found from the clip when not given."""
    overlay: bool = True
    """Write the overlay video when there is an output folder."""
    panels: bool = False
    """Make the overlay show input, normals, 2D vertices, overlay and mesh side by side."""
    device: str = "auto"
    """Where pictures are drawn: ``auto``, ``cpu`` or ``cuda``."""
    config: Config = field(default_factory=lambda: load_preset("default"))
    """Everything else."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            InputError: an option is out of range, or options contradict each other.
        """
        if not 1 <= self.faces <= MAX_FACES:
            raise InputError(f"--faces {self.faces}: it must be from 1 to {MAX_FACES}.")
        if self.same_person and self.faces > 1:
            raise InputError(f"--same-person and --faces {self.faces} contradict each other; use --faces 1.")
        if self.panels and not self.overlay:
            raise InputError("--panels and --no-overlay contradict each other; leave one out.")
        if self.fov_degrees is not None and not 1 <= self.fov_degrees <= 170:
            raise InputError(f"--fov {self.fov_degrees:g}: it must be from 1 to 170 degrees.")

    @property
    def span(self) -> Span:
        """Return the frames to read."""
        return Span(self.start_seconds, self.end_seconds, self.max_frames)


@dataclass(frozen=True)
class Progress:
    """Tell a caller how far a run is."""

    path: Path
    frame: TrackedFrame
    num_frames: int | None
    """Frames of the clip as far as its header tells."""


OnFrame = Callable[[Progress], None]
OnDone = Callable[[Track, Path | None], None]


def track(
    path: str | Path,
    output: str | Path | None = None,
    *,
    on_frame: OnFrame | None = None,
    toolkit: Toolkit | None = None,
    **options: Any,
) -> Track:
    """Track a video, an image or a folder of images.

    Args:
        path: what to track.
        output: folder for ``track.npz``, ``track.json`` and the overlay; nothing is written without it.
        on_frame: called after every frame.
        toolkit: what ``load_toolkit`` returned, to load it once for many clips.
        options: fields of ``Options``.

    Raises:
        UserError: the input cannot be read, or an option cannot be used.
    """
    return track_many([path], [output], on_frame=on_frame, toolkit=toolkit, options=Options(**options))[0]


def track_many(
    paths: Sequence[str | Path],
    outputs: Sequence[str | Path | None] | None = None,
    *,
    on_frame: OnFrame | None = None,
    on_done: OnDone | None = None,
    toolkit: Toolkit | None = None,
    options: Options | None = None,
) -> list[Track]:
    """Track several inputs; with ``same_person`` all of them serve to find one identity.

    Args:
        paths: what to track.
        outputs: one folder per input, or None for those (or all) of which nothing shall be written.
        on_frame: called after every frame.
        on_done: called after every input with its track and folder.
        toolkit: what ``load_toolkit`` returned.
        options: how to track.

    Raises:
        UserError: an input cannot be read, or an option cannot be used.
    """
    settings = options or Options()
    folders = [Path(output) if output is not None else None for output in outputs or [None] * len(paths)]
    infos = [probe(path) for path in paths]
    toolkit = toolkit or load_toolkit(settings.head, settings.prior, settings.config)
    if settings.same_person:
        seen = [_scout(toolkit, info, settings) for info in infos]
        together = [glimpse for people in seen for glimpses in people for glimpse in glimpses]
        everybody = [together] if together else []
        people = identify(toolkit, everybody, focal_is_known=settings.fov_degrees is not None)
        casts = [cast(toolkit, info, people, own, settings.fov_degrees) for info, own in zip(infos, seen, strict=True)]
    else:
        casts = [None] * len(infos)
    tracks = []
    for info, known, folder in zip(infos, casts, folders, strict=True):
        tracks.append(_track_clip(toolkit, info, known, folder, settings, on_frame))
        if on_done is not None:
            on_done(tracks[-1], folder)
    return tracks


def _scout(toolkit: Toolkit, info: SourceInfo, options: Options) -> list[list[Glimpse]]:
    """Look at a few frames of one input."""
    return scout(toolkit, info, options.span, options.faces, options.fov_degrees)


def _cast(toolkit: Toolkit, info: SourceInfo, options: Options) -> Cast:
    """Scout one input and solve the identities of who is in it."""
    seen = _scout(toolkit, info, options)
    people = identify(toolkit, seen, focal_is_known=options.fov_degrees is not None)
    return cast(toolkit, info, people, seen, options.fov_degrees)


def _track_clip(
    toolkit: Toolkit,
    info: SourceInfo,
    known: Cast | None,
    folder: Path | None,
    options: Options,
    on_frame: OnFrame | None,
) -> Track:
    """Track one input; ``known`` holds its people where other inputs helped to identify them."""
    started = time.perf_counter()
    players = known or _cast(toolkit, info, options)
    recorder = Recorder(toolkit.head_name, toolkit.head, players.people, players.intrinsics)
    is_complete = False
    problems: tuple[str, ...] = ()

    def result() -> Track:
        seconds = time.perf_counter() - started
        notes = describe(info, options, players, seconds, problems, is_complete=is_complete)
        return recorder.track(notes)

    with options.span.open(info.path) as source, ClipOutput(folder, info, toolkit, players, options, result) as output:
        for tracked in stream_clip(source, toolkit, players):
            recorder.add(tracked.frame.index, tracked.frame.pts_seconds, tracked.faces)
            output.add(tracked)
            if on_frame is not None:
                on_frame(Progress(info.path, tracked, info.num_frames))
        is_complete, problems = True, source.problems
    return result()
