"""Say in a few lines how much a run will do and what came out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracker.outputs import RESULT_NAMES
from tracker.result import Track

if TYPE_CHECKING:
    from tracker.api import Options, Progress


def expected_frames(progress: Progress, options: Options) -> int | None:
    """Return how many frames a run will have, as far as the clip's header tells."""
    num_frames = progress.num_frames
    span = options.span
    if num_frames is not None and progress.duration_seconds > 0:
        start = span.start_seconds or 0.0
        end = min(span.end_seconds or progress.duration_seconds, progress.duration_seconds)
        num_frames = max(1, round(num_frames * (end - start) / progress.duration_seconds))
    return min((count for count in (num_frames, span.max_frames) if count is not None), default=None)


def describe_camera(camera: dict[str, Any]) -> str:
    """Say which camera was used, and how it came to be known."""
    origin = {
        "given": "given",
        "EXIF": "from EXIF",
        "solved": "estimated around what is usual; give --fov if you know it",
        "expected": "assumed",
    }[camera["focal_from"]]
    return f"field of view {camera['fov_degrees']:.1f} degrees ({origin})"


def summary(track: Track, folder: Path | None, seconds: float) -> str:
    """Return the closing lines of one input: frames, tracked, residual, speed, files, and what was wrong with it."""
    lines = [f"{track.info['source']['path']}"]
    rate = len(track) / max(seconds, 1e-9)
    lines.append(f"  frames    {len(track)} in {seconds:.1f} s ({rate:.1f} frames/s, loading and scouting included)")
    for person in range(track.num_people):
        good = track.is_tracked[person]
        percent = 100 * track.residual_px[person][good] / track.interocular_px[person][good]
        counts = ", ".join(f"{count} {label}" for label, count in track.status_counts(person).items() if count)
        residual = f"; residual {np.median(percent):.2f} % of the eye distance" if good.any() else ""
        lines.append(f"  person {person}  tracked in {good.sum()} of {len(track)} frames ({counts}){residual}")
    if track.is_tracked.any():
        lines.append(f"  camera    {describe_camera(track.info['camera'])}")
    else:
        lines.append("  no face was found in any frame")
    lines.extend(f"  note      {problem}" for problem in track.info["source"]["problems"])
    if folder is not None:
        lines.append(f"  files     {folder}/: {', '.join(name for name in RESULT_NAMES if (folder / name).is_file())}")
    return "\n".join(lines)
