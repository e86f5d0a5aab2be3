"""Track one source: scout, then stream every frame through observation, solving and smoothing; constant memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Config
from flame import HeadModel, load_head
from flame.camera import Intrinsics
from flame.errors import InputError
from flame.surface import build_surface_rig
from priors import create_prior
from priors.evidence import FaceEvidence, Prior
from tracker.camera_guess import HELD, CameraFreedom, CameraGuess
from tracker.dense_fitting import DenseFitting
from tracker.faces import Anchor, FaceFollower, Sighting
from tracker.frames import Frame, FrameSource, SourceInfo, open_source, probe_source, read_frames_at
from tracker.prefetch import Prefetch
from tracker.scout import (
    FittingModel,
    Glimpse,
    Lookout,
    Person,
    anchors,
    group_by_person,
    nobody,
    solve_person,
    spread_seconds,
)
from tracker.smooth import create_smoother
from tracker.state import View
from tracker.stream import FaceFrame, PersonStream, smooths_jointly

_UNKNOWN_FRAME_RATE = 30.0
_MIN_FRAMES_AHEAD, _MAX_FRAMES_AHEAD = 4, 64
_BYTES_AHEAD = 64 * 2**20
"""How far observation may run ahead of solving: as many frames as fit in here, within limits."""


@dataclass(frozen=True)
class Toolkit:
    """Hold what is loaded once and used for every clip."""

    head_name: str
    """``commons`` or the path of a head model."""
    head: HeadModel
    prior: Prior
    model: FittingModel


@dataclass(frozen=True)
class Span:
    """Select frames of a source."""

    start_seconds: float | None = None
    """First time, seconds on the source's clock."""
    end_seconds: float | None = None
    """Time before which to stop, seconds."""
    max_frames: int | None = None
    """Number of frames after which to stop."""

    def open(self, path: Path) -> FrameSource:
        """Open a source at this span."""
        return open_source(
            path, start_seconds=self.start_seconds, end_seconds=self.end_seconds, max_frames=self.max_frames
        )


@dataclass(frozen=True)
class Cast:
    """Hold the people of one clip and the camera."""

    people: tuple[Person, ...]
    intrinsics: Intrinsics
    """The camera that is used for every frame, pixels of the original image."""
    camera: CameraGuess
    """Where that came from."""


@dataclass(frozen=True)
class TrackedFrame:
    """Hold one frame with the outcome for every person, and the evidence for pictures."""

    frame: Frame
    faces: tuple[FaceFrame, ...]
    evidence: tuple[FaceEvidence | None, ...]


def load_toolkit(
    head: str,
    prior: str,
    config: Config,
    device: str = "auto",
    weights: str | Path | None = None,
    mica: str | Path | None = None,
) -> Toolkit:
    """Load head model and prior and prepare the head for fitting.

    Args:
        head: ``commons``, or the path of a head model.
        prior: one of ``priors.PRIOR_NAMES``.
        config: how to fit.
        device: where dense maps are drawn and networks run.
        weights: those of the prior's networks.
        mica: MICA's network, which then expects the identities in place of the prior's own anchor.

    Raises:
        UserError: the head or weights cannot be read, the prior is not known, or settings contradict each other.
    """
    _check(config)
    model = load_head(head)
    backend = "cuda" if device == "cuda" else "cpu"
    loaded_prior = create_prior(prior, model, backend, weights=weights, device=device)
    if mica is not None:
        from priors.mica import anchored_by_mica

        loaded_prior = anchored_by_mica(loaded_prior, model, mica)
    rig = build_surface_rig(model, loaded_prior.surface)
    if model.expression_bounds is None:
        bounds = np.tile([-np.inf, np.inf], (rig.num_expressions, 1))
    else:
        bounds = model.expression_bounds.numpy().astype(np.float64)
    fitting = FittingModel.of(rig, bounds, config, model.expression_names or ())
    fitting = replace(fitting, identity_anchor=loaded_prior.identity_anchor)
    if config.solver.evidence != "landmarks":
        fitting = replace(fitting, dense=DenseFitting.of(model, loaded_prior, fitting.prior, config))
    # Absolute: a track has to find its head again from any other folder.
    return Toolkit(head if head == "commons" else str(Path(head).resolve()), model, loaded_prior, fitting)


def _check(config: Config) -> None:
    """Refuse settings that contradict each other."""
    is_dense = config.solver.evidence == "dense"
    if config.solver.method == "adam" and not is_dense:
        raise InputError(
            f"setting 'solver.method' is 'adam' and 'solver.evidence' is '{config.solver.evidence}'; "
            "Adam minimises the dense energy only: set solver.evidence=dense, or use --preset paper."
        )
    if smooths_jointly(config.smoothing) and is_dense:
        raise InputError(
            "setting 'smoothing.method' is 'window' and 'solver.evidence' is 'dense'; dense fits keep no equations "
            "that a window could solve: set smoothing.method=quadratic, or use --preset dense."
        )


def scout_frames(info: SourceInfo, start_seconds: float, end_seconds: float, config: Config) -> list[Frame]:
    """Read the frames at which a part of a clip is scouted, by random access."""
    if info.kind == "image":
        with open_source(info.path) as source:
            return list(source)
    num_frames = max(1, round((end_seconds - start_seconds) * _frame_rate(info)))
    return read_frames_at(info, spread_seconds(start_seconds, end_seconds, num_frames, config))


def _frame_rate(info: SourceInfo) -> float:
    """Return the frames per second that the header tells, or what is usual."""
    return float(info.frame_rate or _UNKNOWN_FRAME_RATE)


def _expected_range(info: SourceInfo, span: Span) -> tuple[float, float]:
    """Return when a span starts and ends, as far as the header tells."""
    start_seconds = span.start_seconds or 0.0
    end_seconds = min(span.end_seconds or math.inf, info.duration_seconds or math.inf)
    if not math.isfinite(end_seconds):
        end_seconds = start_seconds + (info.num_frames or 1) / _frame_rate(info)
    if span.max_frames is not None:
        end_seconds = min(end_seconds, start_seconds + span.max_frames / _frame_rate(info))
    return start_seconds, end_seconds


def scout(toolkit: Toolkit, info: SourceInfo, span: Span, max_people: int, camera: CameraGuess) -> list[list[Glimpse]]:
    """Look at a few frames of a source and tell people apart; the main person first.

    Where the spread frames show fewer people than wanted at a glance, they are searched thoroughly. Where they show
    nobody, the clip is looked through at intervals until somebody is seen, and scouted from there on.
    """
    config = toolkit.model.config
    lookout = Lookout(toolkit.prior, View.of(camera.intrinsics), max_people, config.status)
    start_seconds, end_seconds = _expected_range(info, span)
    frames = scout_frames(info, start_seconds, end_seconds, config)
    seen = lookout.over(frames, is_thorough=False)
    if max(map(len, seen), default=0) < max_people:
        seen = lookout.over(frames, is_thorough=True)
    if not any(seen) and info.kind != "image":
        first = _first_glimpses(info, span, lookout, config)
        if first:
            later = scout_frames(info, first[0].pts_seconds, end_seconds, config)
            later = [frame for frame in later if frame.pts_seconds > first[0].pts_seconds]
            seen = lookout.over(later, [first], is_thorough=False)
    return group_by_person(seen, max_people)


def _first_glimpses(info: SourceInfo, span: Span, lookout: Lookout, config: Config) -> list[Glimpse]:
    """Look through a clip from its start at intervals until somebody is seen."""
    searched_seconds = -math.inf
    with span.open(info.path) as source:
        for frame in source:
            if frame.pts_seconds - searched_seconds < config.status.search_seconds:
                continue
            searched_seconds = frame.pts_seconds
            glimpses = lookout.at(frame, is_thorough=True)
            if glimpses:
                return glimpses
    return []


def identify(
    toolkit: Toolkit, people: Sequence[Sequence[Glimpse]], freedom: CameraFreedom = HELD
) -> tuple[Person, ...]:
    """Solve the people's identities; what is free of the camera comes from the first person and serves all."""
    solved: list[Person] = []
    for glimpses in people:
        if not solved:
            solved.append(solve_person(toolkit.model, glimpses, freedom))
            continue
        first = solved[0]
        views = [
            replace(glimpse, view=glimpse.view.zoomed(first.log_zoom).shifted(first.center_shift_px))
            for glimpse in glimpses
        ]
        solved.append(solve_person(toolkit.model, views, HELD))
    return tuple(solved)


def cast(toolkit: Toolkit, people: Sequence[Person], camera: CameraGuess) -> Cast:
    """Put people whose identity is known into a clip. Where there are none, one of average shape is looked for."""
    people = people or (nobody(toolkit.model),)
    return Cast(tuple(people), camera.corrected(people[0].log_zoom, people[0].center_shift_px), camera)


class _Promised(Sequence[Anchor]):
    """Be where the main person was scouted, once scouting has ended; whoever looks earlier waits."""

    def __init__(self, people: Future[Sequence[Sequence[Anchor]]]) -> None:
        self._people = people

    def __getitem__(self, index: Any) -> Any:
        return self._people.result()[0][index]

    def __len__(self) -> int:
        return len(self._people.result()[0])


class Observation:
    """Watch a source in threads of its own: decode ahead, and follow who was seen while scouting.

    It does not need to know who the people are, so it runs while their identities are solved. Where one face is
    followed, it runs while the clip is scouted, too, and waits for that only where several faces are seen, or none.
    """

    def __init__(self, source: FrameSource, toolkit: Toolkit, max_people: int = 1) -> None:
        """Start watching; it gets no further than the first doubt before ``tell`` is called."""
        self._seen: Future[Sequence[Sequence[Anchor]]] = Future()
        self._max_people = max_people
        self._toolkit = toolkit
        frame_bytes = 3 * source.info.width * source.info.height
        self._frames = Prefetch(source)
        self._observed = Prefetch(
            self._observe(), depth=max(_MIN_FRAMES_AHEAD, min(_MAX_FRAMES_AHEAD, _BYTES_AHEAD // frame_bytes))
        )

    def __iter__(self) -> Iterator[tuple[Frame, list[Sighting]]]:
        """Yield every frame with what is seen of every person."""
        return iter(self._observed)

    def tell(self, seen: Sequence[Sequence[Glimpse]]) -> None:
        """Tell what was scouted: one entry per person, none for a clip in which nobody was seen."""
        self._seen.set_result([anchors(glimpses) for glimpses in seen] or [[]])

    def close(self) -> None:
        """Stop the threads; the source may be closed only after that."""
        if not self._seen.done():
            self._seen.set_result([[]])
        self._observed.close()
        self._frames.close()

    def _observe(self) -> Iterator[tuple[Frame, list[Sighting]]]:
        """Pair every frame with what is seen in it."""
        places = [_Promised(self._seen)] if self._max_people == 1 else self._seen.result()
        follower = FaceFollower(self._toolkit.prior, places, self._toolkit.model.config.status)
        for frame in self._frames:
            yield frame, follower.observe(frame.image, frame.pts_seconds)


def stream_clip(observation: Observation, toolkit: Toolkit, cast: Cast) -> Iterator[TrackedFrame]:
    """Track every observed frame in order; frames come out a few behind those that went in."""
    streams = [PersonStream(person, toolkit.model, cast.intrinsics) for person in cast.people]
    model, names = toolkit.model, toolkit.head.expression_names or ()
    smoothers = [create_smoother(model.config.smoothing, model.prior, names) for _ in cast.people]
    waiting: deque[tuple[Frame, list[Sighting]]] = deque()
    ready: list[deque[FaceFrame]] = [deque() for _ in cast.people]

    def emit(smoothed: Sequence[Sequence[FaceFrame]]) -> Iterator[TrackedFrame]:
        # A person who is lost comes out of the smoother at once, and has to wait for the others.
        for faces, more in zip(ready, smoothed, strict=True):
            faces.extend(more)
        while all(ready):
            frame, sightings = waiting.popleft()
            faces = tuple(faces.popleft() for faces in ready)
            yield TrackedFrame(frame, faces, tuple(sighting.evidence for sighting in sightings))

    for frame, sightings in observation:
        waiting.append((frame, sightings))
        solved = [stream.solve(seen, frame.pts_seconds) for stream, seen in zip(streams, sightings, strict=True)]
        yield from emit([smoother.push(face) for smoother, face in zip(smoothers, solved, strict=True)])
    yield from emit([smoother.flush() for smoother in smoothers])


def probe(path: str | Path) -> SourceInfo:
    """Return what is known of a source before it is read.

    Raises:
        UserError: there is no such source, or it cannot be tracked.
    """
    return probe_source(Path(path))
