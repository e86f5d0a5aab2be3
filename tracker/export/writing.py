"""Write a track in one or several formats, each into a folder of its own that appears when it is complete."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flame.errors import InputError, UserError
from tracker.export.formats import Format, find_formats
from tracker.export.job import ExportJob, ExportOptions, Steps
from tracker.output_files import make_output_folder, output_error
from tracker.result import Track

FOLDER = "export"
"""The folder of exports in a track's output folder."""


@dataclass(frozen=True)
class Exported:
    """Say what became of one format."""

    format: Format
    """Which one."""
    folder: Path
    """Where it is."""
    paths: tuple[Path, ...]
    """Files or folders to open first."""
    notes: tuple[str, ...]
    """What its user should know, a line each."""


OnDone = Callable[[Exported], None]
OnError = Callable[[Format, UserError], None]


def export(
    track: Track | str | Path,
    names: Sequence[str],
    output: str | Path | None = None,
    *,
    head: str | Path | None = None,
    on_done: OnDone | None = None,
    on_error: OnError | None = None,
    show_steps: Steps | None = None,
    **options: Any,
) -> list[Exported]:
    """Write a track in other people's formats.

    Args:
        track: a track, or the output folder of a run.
        names: formats, keys of ``FORMATS``; ``all`` for every one.
        output: folder that gets a folder per format; ``export`` in the track's own folder when not given.
        head: where the head model is now, if it is no longer where it was when the clip was tracked.
        on_done: called after every format.
        on_error: called with every format that cannot be written, and why; the others are written all the same.
            Without it the first error is raised.
        show_steps: shows progress, see ``ExportJob``.
        options: fields of ``ExportOptions``.

    Raises:
        UserError: a format or an option is not known, or something cannot be read or written.
    """
    formats = find_formats(names)
    settings = ExportOptions(**options)
    home = None if isinstance(track, Track) else Path(track)
    if home is None and output is None:
        raise InputError("a track from memory has no folder of its own; say where to export to: output=…")
    loaded = track if isinstance(track, Track) else Track.load(track, head=head)
    if not loaded.is_tracked.any():
        raise InputError("nobody is tracked in any frame; there is nothing to export.")
    if home is not None and home.suffix == ".npz":
        home = home.parent
    target = Path(output) if output is not None else Path(home or ".") / FOLDER
    steps = show_steps or _silent
    # The folder's textures are those of its own track, not of a converted one.
    home = home if settings.convert_to is None else None
    loaded, conversion_notes = _converted(loaded, settings, steps)
    make_output_folder(target)
    job = ExportJob(loaded, target, settings, home, steps)
    done = []
    for each in formats:
        try:
            done.append(_write(each, job, conversion_notes))
        except UserError as error:
            if on_error is None:
                raise
            on_error(each, error)
        else:
            if on_done is not None:
                on_done(done[-1])
    return done


def _silent(items: Iterable[Any], _count: int, _label: str) -> Iterable[Any]:
    """Show nothing."""
    return items


def _converted(track: Track, options: ExportOptions, steps: Steps) -> tuple[Track, tuple[str, ...]]:
    """Return the track on the head model that is wanted, and how far the faces are apart, a line for each person."""
    if options.convert_to is None:
        return track, ()
    from tracker.conversion import convert_track

    conversion = convert_track(track, options.convert_to, show_frames=steps)
    return conversion.track, tuple(
        f"person {person} converted to {Path(options.convert_to).name}: face {error.median_mm:.2f} mm (median), "
        f"{error.p95_mm:.2f} mm (95 %), {error.reprojection_px:.2f} px from the track's"
        for person, error in enumerate(conversion.people)
        if np.isfinite(error.median_mm)
    )


def _write(each: Format, job: ExportJob, more_notes: Sequence[str] = ()) -> Exported:
    """Write one format into a folder of its own, which replaces an earlier one when it is complete.

    Raises:
        UserError: something cannot be read or written.
    """
    part, folder = job.folder / f".{each.name}.part", job.folder / each.name
    try:
        _remove(part)
        part.mkdir()
        written = each.load()(dataclasses.replace(job, folder=part))
        _remove(folder)
        part.replace(folder)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise output_error(Path(error.filename) if error.filename else folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    paths = tuple(folder / path.relative_to(part) for path in written.paths)
    return Exported(each, folder, paths, (*more_notes, *written.notes))


def _remove(path: Path) -> None:
    """Remove a folder, or a file that is in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
