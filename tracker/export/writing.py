"""Write a track in one or several formats, each into a folder of its own that appears when it is complete."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flame.errors import InputError, UserError
from tracker.export.formats import EXPORT_FOLDER, Format, find_formats
from tracker.export.job import ExportJob, ExportOptions, Steps
from tracker.output_files import make_output_folder, output_error
from tracker.result import Track


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
    names: str | Sequence[str],
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
        on_error: called with each format that cannot be written, and why; without it the first error is raised.
        show_steps: shows progress, see ``ExportJob``.
        options: fields of ``ExportOptions``.

    Raises:
        UserError: a format is not known, an option is out of range, or something cannot be read or written.
        TypeError: an option is not known.
    """
    formats = find_formats(names)
    settings = _with_matting(ExportOptions(**options))
    home = None if isinstance(track, Track) else Path(track)
    if home is None and output is None:
        raise InputError("a track from memory has no folder of its own; say where to export to: output=…")
    loaded = track if isinstance(track, Track) else Track.load(track, head=head)
    if not loaded.is_tracked.any():
        raise InputError("nobody is tracked in any frame; there is nothing to export.")
    # Every format needs it: where it is gone, that is one mistake, too.
    _ = loaded.head_model
    if home is not None and home.is_file():
        home = home.parent
    target = Path(output) if output is not None else Path(home or ".") / EXPORT_FOLDER
    steps = show_steps or _silent
    # The folder's textures are those of its own track, not of a converted one.
    home = home if settings.convert_to is None else None
    loaded, conversion_notes = _converted(loaded, settings, steps)
    make_output_folder(target)
    job = ExportJob(loaded, target, settings, home, steps)
    return _write_all(formats, job, conversion_notes, on_done, on_error)


def _write_all(
    formats: Sequence[Format],
    job: ExportJob,
    more_notes: Sequence[str],
    on_done: OnDone | None,
    on_error: OnError | None,
) -> list[Exported]:
    """Write one format after the other, and return what was written.

    Raises:
        UserError: something cannot be read or written, and nobody wants to be told of it (``on_error``).
    """
    done = []
    for each in formats:
        try:
            exported = _write(each, job, more_notes)
        except UserError as error:
            if on_error is None:
                raise
            on_error(each, error)
            continue
        done.append(exported)
        if on_done is not None:
            on_done(exported)
    return done


def check_options(**options: Any) -> None:
    """Refuse what cannot be meant, before a clip is tracked for it.

    Args:
        options: fields of ``ExportOptions``.

    Raises:
        UserError: one is out of range, or the head to convert to or the matting is not to be had.
    """
    settings = _with_matting(ExportOptions(**options))
    if settings.convert_to is not None:
        from flame import load_head

        load_head(settings.convert_to)


def _with_matting(settings: ExportOptions) -> ExportOptions:
    """Return options whose matting is to be had: where it is not, that is one mistake and not one per format."""
    if settings.matting != ExportOptions.matting:
        from priors.head_matting import find_matting

        find_matting(settings.matting)
    return settings


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
        _put_in_place(part, folder)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise output_error(Path(error.filename) if error.filename else folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    paths = tuple(folder / path.relative_to(part) for path in written.paths)
    return Exported(each, folder, paths, (*more_notes, *written.notes))


def _put_in_place(part: Path, folder: Path) -> None:
    """Rename what is complete to its name; an earlier one keeps the name until then, whole.

    Removing thousands of files takes seconds in which Ctrl-C may come, so it is done under another name.
    """
    old = folder.with_name(f".{folder.name}.old")
    _remove(old)
    try:
        if folder.exists() or folder.is_symlink():
            folder.rename(old)
        part.rename(folder)
    except BaseException:
        if not folder.exists() and (old.exists() or old.is_symlink()):
            old.rename(folder)
        raise
    finally:
        with contextlib.suppress(OSError):
            _remove(old)


def _remove(path: Path) -> None:
    """Remove a folder, or a file that is in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
