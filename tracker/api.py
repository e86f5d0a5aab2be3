"""Track clips from Python: the same words as on the command line and in the files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from configs import preset_for_prior
from configs.schema import Config
from flame.errors import InputError, UserError
from flame.rasterizer import check_backend
from tracker.camera_guess import CameraGuess, GivenCamera, common_freedom, guess_camera
from tracker.clip import (
    Observation,
    Span,
    Toolkit,
    TrackedFrame,
    cast,
    identify,
    load_toolkit,
    probe,
    scout,
    stream_clip,
)
from tracker.frames import SourceInfo, check_range
from tracker.outputs import ClipOutput, describe, prepare_folder
from tracker.overlay import LAYOUTS, Layout
from tracker.recorder import Recorder
from tracker.result import Track
from tracker.scout import Glimpse, Person

MAX_FACES = 16


@dataclass(frozen=True)
class Options:
    """Say how to track; every field is an option of the command line, too."""

    head: str = "commons"
    """Head model: ``commons``, or the path of a FLAME ``.pkl`` or ``.npz`` file."""
    prior: str = "mediapipe"
    """What looks at the frames: ``mediapipe``, ``pixel3dmm`` or ``commons``."""
    weights: str | Path | None = None
    """Networks of the prior that the user has: see ``priors.create_prior``."""
    mica: str | Path | None = None
    """MICA's network, the file ``mica.tar``: it tells who somebody is from pixels, for FLAME 2020 heads."""
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
    """Field of view along the longer image side; from EXIF, or else found from the clip, when not given."""
    focal_px: float | None = None
    """The same as a focal length in pixels; give one of the two."""
    principal_point_px: tuple[float, float] | None = None
    """Where the optical axis meets the image, pixels from its top left corner; the image's centre when not given."""
    overlay: bool = True
    """Write the overlay video when there is an output folder."""
    panels: bool = False
    """Make the overlay show input, normals, 2D vertices, overlay and mesh beside each other."""
    layout: Layout = "row"
    """How panels lie: ``row``, or ``grid`` (two rows, the head turned as a sixth)."""
    device: str = "auto"
    """Where dense maps are rasterised and networks run: ``auto``, ``cpu`` or ``cuda``; auto rasterises on the CPU,
    which is quick enough, and runs networks on a GPU where there is one."""
    config: Config | None = None
    """Everything else; None takes the preset made for the prior."""

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
        if self.layout not in LAYOUTS:
            raise InputError(f"--layout {self.layout}: it must be one of {', '.join(LAYOUTS)}.")
        if self.layout != "row" and not self.panels:
            raise InputError(f"--layout {self.layout} says how panels lie; add --panels.")
        GivenCamera(self.fov_degrees, self.focal_px, self.principal_point_px)
        check_range(self.start_seconds, self.end_seconds, self.max_frames)
        check_backend(self.device)

    @property
    def settings(self) -> Config:
        """Return the configuration."""
        return self.config or preset_for_prior(self.prior)

    @property
    def span(self) -> Span:
        """Return the frames to read."""
        return Span(self.start_seconds, self.end_seconds, self.max_frames)

    def camera(self, info: SourceInfo) -> CameraGuess:
        """Return the camera that a source is expected to have."""
        given = GivenCamera(self.fov_degrees, self.focal_px, self.principal_point_px)
        return guess_camera(info, self.settings.regularization, given)


@dataclass(frozen=True)
class Progress:
    """Tell a caller how far a run is."""

    path: Path
    frame: TrackedFrame
    num_frames: int | None
    """Frames of the clip as far as its header tells."""
    duration_seconds: float
    """Length of the clip as far as its header tells; 0 where it does not."""


OnFrame = Callable[[Progress], None]
OnDone = Callable[[Track, Path | None], None]
OnError = Callable[[Path, UserError], None]


@dataclass(frozen=True)
class _Job:
    """Hold one input that can be read, and where its results go."""

    info: SourceInfo
    folder: Path | None
    seen: list[list[Glimpse]] | None = None
    """What scouting saw, where it has been done already."""
    people: tuple[Person, ...] | None = None
    """Who is in it, where all inputs serve to identify them."""


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
    on_error: OnError | None = None,
    toolkit: Toolkit | None = None,
    options: Options | None = None,
) -> list[Track]:
    """Track several inputs; with ``same_person`` all of them serve to find one identity.

    Args:
        paths: what to track.
        outputs: one folder per input, or None for those (or all) of which nothing shall be written.
        on_frame: called after every frame.
        on_done: called after every input with its track and folder.
        on_error: called with every input that cannot be tracked, and why; the others are tracked all the same, and only
            their tracks are returned. Without it the first error is raised.
        toolkit: what ``load_toolkit`` returned.
        options: how to track.

    Raises:
        UserError: an input cannot be read, or an option cannot be used.
    """
    settings = options or Options()
    jobs = []
    for path, output in zip(paths, outputs or [None] * len(paths), strict=True):
        with _handing_over(path, on_error):
            jobs.append(_Job(probe(path), None if output is None else Path(output)))
    if not jobs:
        return []
    toolkit = toolkit or load_toolkit(
        settings.head, settings.prior, settings.settings, settings.device, settings.weights, settings.mica
    )
    # The matrices are small and the stages have threads of their own: more threads inside a product only fight them.
    with threadpool_limits(limits=1):
        if settings.same_person:
            jobs = _with_one_identity(toolkit, jobs, settings, on_error)
        tracks = []
        for job in jobs:
            with _handing_over(job.info.path, on_error):
                if job.folder is not None:
                    prepare_folder(job.folder, job.info)
                tracks.append(_track_clip(toolkit, job, settings, on_frame))
                if on_done is not None:
                    on_done(tracks[-1], job.folder)
    return tracks


@contextlib.contextmanager
def _handing_over(path: str | Path, on_error: OnError | None) -> Iterator[None]:
    """Hand what is wrong with one input over, where somebody wants to hear of it."""
    try:
        yield
    except UserError as error:
        if on_error is None:
            raise
        on_error(Path(path), error)


def _scout(toolkit: Toolkit, info: SourceInfo, options: Options) -> list[list[Glimpse]]:
    """Look at a few frames of one input."""
    return scout(toolkit, info, options.span, options.faces, options.camera(info))


def _with_one_identity(
    toolkit: Toolkit, jobs: Sequence[_Job], options: Options, on_error: OnError | None
) -> list[_Job]:
    """Scout all inputs and solve one identity from everything that was seen; inputs that cannot be read drop out."""
    scouted: list[tuple[_Job, list[list[Glimpse]]]] = []
    for job in jobs:
        with _handing_over(job.info.path, on_error):
            scouted.append((job, _scout(toolkit, job.info, options)))
    together = [glimpse for _, people in scouted for glimpses in people for glimpse in glimpses]
    freedom = common_freedom([options.camera(job.info) for job, _ in scouted])
    people = identify(toolkit, [together] if together else [], freedom)
    return [replace(job, seen=seen, people=people) for job, seen in scouted]


def _identities(toolkit: Toolkit, job: _Job, seen: Sequence[Sequence[Glimpse]], options: Options) -> tuple[Person, ...]:
    """Return who is in an input, unless that is known already."""
    if job.people is not None:
        return job.people
    return identify(toolkit, seen, options.camera(job.info).freedom)


def _track_clip(toolkit: Toolkit, job: _Job, options: Options, on_frame: OnFrame | None) -> Track:
    """Track one input: watch it in the background, find out meanwhile who is in it, then solve frame by frame."""
    started = time.perf_counter()
    info = job.info
    is_complete = False
    problems: tuple[str, ...] = ()
    with (
        options.span.open(info.path) as source,
        contextlib.closing(Observation(source, toolkit, options.faces)) as observation,
    ):
        seen = _scout(toolkit, info, options) if job.seen is None else job.seen
        observation.tell(seen)
        players = cast(toolkit, _identities(toolkit, job, seen, options), options.camera(info))
        recorder = Recorder(toolkit.head_name, toolkit.head, players.people, players.intrinsics)

        def result() -> Track:
            seconds = time.perf_counter() - started
            notes = describe(info, options, players, seconds, problems, is_complete=is_complete)
            return recorder.track(notes)

        with ClipOutput(job.folder, info, toolkit, players, options, result) as output:
            for tracked in stream_clip(observation, toolkit, players):
                recorder.add(tracked.frame.index, tracked.frame.pts_seconds, tracked.faces)
                output.add(tracked)
                if on_frame is not None:
                    on_frame(Progress(info.path, tracked, info.num_frames, info.duration_seconds))
            is_complete, problems = True, source.problems
    return result()
