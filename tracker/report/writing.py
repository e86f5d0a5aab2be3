"""Write the report of a track: gather what there is to tell and put it on a page."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flame.errors import InputError, UserError
from tracker.export.job import ExportJob, ExportOptions, Steps
from tracker.frames import SourceInfo
from tracker.output_files import make_output_folder, write_atomically
from tracker.recorded_options import recorded_config
from tracker.report import facts, figures, pictures
from tracker.report.clip import CarriedClip, as_jpeg, carry_image, carry_video
from tracker.report.curves import Curves, curves_of
from tracker.report.page import Page, Sides, ToldProblem, render_page
from tracker.report.problems import KINDS, Problem, find_problems
from tracker.result import Track
from tracker.status import FrameStatus

FILE_NAME = "report.html"

_MAX_TOLD = 120
"""Problems in the list, at most."""
_MAX_THUMBNAILS = 16
_THUMBNAIL_QUALITY = 80
_DIGITS = 5


def write_report(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    source: str | Path | None = None,
    head: str | Path | None = None,
    show_steps: Steps | None = None,
) -> Path:
    """Write ``report.html`` about the output folder of a run and return its path.

    What is no longer there, such as the clip or the head model, is left out and the page says so.

    Args:
        folder: output folder of a run.
        output: folder that gets the page; that of the run when not given.
        source: where the clip is now, if it is no longer where it was when it was tracked.
        head: where the head model is now, if it is no longer where it was.
        show_steps: shows progress where the overlay has to be drawn anew, see ``ExportJob``.

    Raises:
        AssetMissingError: there is no track.
        InputError: the track cannot be read, or ``source`` is not its clip.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    track = Track.load(folder, head=head)
    folder = folder.parent if folder.suffix == ".npz" and not folder.is_dir() else folder
    if not len(track):
        raise InputError(f"{folder}: the track has no frames; there is nothing to report.")
    path = (folder if output is None else make_output_folder(Path(output))) / FILE_NAME
    options = ExportOptions(source=None if source is None else str(source))
    job = ExportJob(track, folder, options, home=folder)
    if show_steps is not None:
        job = dataclasses.replace(job, show_steps=show_steps)
    page = _Gathering.of(job, is_source_given=source is not None).page()
    with write_atomically(path) as stream:
        stream.write(render_page(page).encode("utf-8", "replace"))
    return path


@dataclass(frozen=True, eq=False)
class _Gathering:
    """Hold what the parts of a page are made from."""

    job: ExportJob
    info: SourceInfo | None
    """The clip; None where it is not to be had."""
    missing: tuple[str, ...]
    """Why clip or head are not to be had."""
    has_head: bool
    curves: tuple[Curves, ...]
    problems: tuple[Problem, ...]

    @staticmethod
    def of(job: ExportJob, *, is_source_given: bool) -> _Gathering:
        """Look at a track, and for its clip and its head."""
        track, missing = job.track, []
        info, has_head = None, True
        try:
            info = job.source
        except UserError as error:
            if is_source_given:
                raise
            missing.append(f"Pictures of the clip are left out: {error}")
        try:
            _ = track.head_model
        except UserError as error:
            has_head = False
            missing.append(f"Pictures of the head are left out: {error}")
        curves = tuple(curves_of(track, person) for person in range(track.num_people))
        problems = tuple(find_problems(track, curves, recorded_config(track)))
        return _Gathering(job, info, tuple(missing), has_head, curves, problems)

    def page(self) -> Page:
        """Put everything together."""
        track = self.job.track
        clip, clip_notes = self._clip()
        told, notes = self._told_problems()
        sides, sides_note = self._sides()
        plots, moments = [], ()
        for person, curves in enumerate(self.curves if len(track) > 1 else ()):
            plots.append(figures.actions(track, curves, person))
            plots.append(figures.pose(track, curves, person))
            plots.append(figures.jaw_and_gaze(track, curves, person))
        if len(track) == 1:
            moments = facts.moments(track, self.curves)
        return Page(
            title=facts.title(track),
            subtitle=facts.subtitle(track, len(self.problems)),
            facts=facts.facts(track, self.info),
            clip=clip,
            clip_notes=(*clip_notes, *self.missing),
            timeline=figures.timeline(track, self.curves) if len(track) > 1 else None,
            plots=tuple(plots),
            moments=moments,
            problems=told,
            problem_notes=(*facts.source_notes(track), *notes),
            sides=sides,
            sides_note=sides_note,
            people=facts.people(track, self.curves),
            settings=facts.settings(track),
            data=_data(track, self.curves),
        )

    def _clip(self) -> tuple[CarriedClip | None, tuple[str, ...]]:
        """Return the overlay: the one in the folder, or one drawn now."""
        clip = next((found for path in _overlays(self.job.folder) if (found := _carried(path)) is not None), None)
        if clip is None and self.info is not None and self.has_head:
            with tempfile.TemporaryDirectory() as scratch:
                from tracker.export.video import write

                drawn = write(dataclasses.replace(self.job, folder=Path(scratch))).paths[0]
                clip = _carried(drawn)
        return clip, () if clip is None or not clip.note else (clip.note,)

    def _told_problems(self) -> tuple[tuple[ToldProblem, ...], tuple[str, ...]]:
        """Return the list of problems in the order of time, with pictures of the worst, and what is left out of it."""
        track = self.job.track
        order = list(KINDS)
        ranked = sorted(self.problems, key=lambda problem: (order.index(problem.kind), -problem.num_frames))
        told = set(map(id, _fairly(ranked, order, _MAX_TOLD)))
        seen: dict[tuple[int, int | None], np.ndarray] = {}
        if self.info is not None and self.has_head:
            shown = [(each.worst, each.person) for each in _fairly(ranked, order, _MAX_THUMBNAILS)]
            seen = pictures.thumbnails(track, self.info, shown)
        entries = []
        for problem in self.problems:
            if id(problem) not in told:
                continue
            picture = seen.get((problem.worst, problem.person))
            entries.append(
                ToldProblem(
                    problem.kind,
                    facts.when(track, problem),
                    problem.detail,
                    problem.worst,
                    None if picture is None else as_jpeg(picture, _THUMBNAIL_QUALITY),
                )
            )
        left_out = len(self.problems) - len(entries)
        return tuple(entries), (f"{left_out} lesser ones are not listed.",) if left_out else ()

    def _sides(self) -> tuple[tuple[Sides, ...], str]:
        """Return everybody's neutral head, and a word on what it is."""
        track = self.job.track
        if not self.has_head:
            return (), "The head model is not where it was."
        seen = [person for person in range(track.num_people) if track.is_tracked[person].any()]
        if not seen:
            return (), "Nobody was seen."
        sides, num_textured = [], 0
        for person in seen:
            texture = pictures.stored_texture(self.job.folder, track, person)
            num_textured += texture is not None
            views = pictures.identity_views(track, person, texture)
            named = tuple((name, as_jpeg(view)) for (name, _), view in zip(pictures.VIEWS, views, strict=True))
            sides.append(Sides(f"Person {person}" if track.num_people > 1 else "", named))
        note = "The neutral head, as identity coefficients say"
        return tuple(sides), f"{note}, with the texture fused from the clip." if num_textured else f"{note}."


def _fairly(ranked: Sequence[Problem], kinds: Sequence[str], count: int) -> list[Problem]:
    """Choose some problems by turns from every kind, those in front first, so that no kind drives out another."""
    queues = [[problem for problem in ranked if problem.kind == kind] for kind in kinds]
    chosen: list[Problem] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


def _overlays(folder: Path) -> list[Path]:
    """Return the overlays in an output folder: that of the run, then that of an export that is not older."""
    names = ("overlay.mp4", "overlay.png")
    found = [folder / name for name in names if (folder / name).is_file()]
    tracked = (folder / "track.npz").stat().st_mtime
    exported = [folder / "export" / "video" / name for name in names]
    return found + [path for path in exported if path.is_file() and path.stat().st_mtime >= tracked]


def _carried(path: Path) -> CarriedClip | None:
    """Return a video or an image for the page; None where it cannot be read."""
    if path.suffix == ".mp4":
        return carry_video(path)
    from tracker.frames import open_source

    try:
        with open_source(path) as source:
            return carry_image(next(iter(source)).image)
    except UserError:
        return None


def _data(track: Track, curves: Sequence[Curves]) -> dict[str, Any]:
    """Return what the page's script needs of every frame."""
    steps = np.diff(track.pts_seconds)
    last = float(track.pts_seconds[-1]) + (float(np.median(steps)) if len(steps) else 1.0)
    return {
        "seconds": [round(float(seconds), _DIGITS) for seconds in track.pts_seconds],
        "endSeconds": round(last, _DIGITS),
        "numbers": [int(number) for number in track.frame_index],
        "words": [status.label.replace("_", " ") for status in FrameStatus],
        "status": ["".join(str(int(status)) for status in row) for row in track.status],
        "residual": [
            [round(float(value), 2) if np.isfinite(value) else None for value in person.residual_percent]
            for person in curves
        ],
        "firstSeconds": round(float(track.pts_seconds[0]), _DIGITS),
    }
