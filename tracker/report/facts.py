"""What a report says in words: the clip, the run, its people and its settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from flame.errors import UserError
from tracker.frames import SourceInfo
from tracker.report.curves import Curves
from tracker.report.page import Moment, Setting
from tracker.report.problems import Problem
from tracker.result import FORMAT_VERSION, Track
from tracker.status import FrameStatus
from tracker.summary import describe_camera


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds."""
    minutes = int(seconds // 60)
    return f"{minutes}:{seconds - 60 * minutes:05.2f}"


def title(track: Track) -> str:
    """Return the clip's name."""
    path = track.info.get("source", {}).get("path")
    return (Path(path).name or str(path)) if path else "A track"


def subtitle(track: Track, num_problems: int) -> str:
    """Return the shortest summary."""
    people = f"{track.num_people} people" if track.num_people > 1 else "1 person"
    share = 100.0 * float(track.is_tracked.mean()) if track.is_tracked.size else 0.0
    places = "no problem was found"
    if num_problems:
        places = f"{num_problems} place{'' if num_problems == 1 else 's'} to look at"
    return f"{len(track)} frame{'' if len(track) == 1 else 's'}, {people}, tracked {share:.0f} %, {places}"


def when(track: Track, problem: Problem) -> str:
    """Say when a problem was, and whose."""
    first, last = track.pts_seconds[problem.first], track.pts_seconds[problem.last]
    span = clock(first) if problem.first == problem.last else f"{clock(first)} to {clock(last)}"
    frames = f"{problem.num_frames} frame{'' if problem.num_frames == 1 else 's'}"
    who = f", person {problem.person}" if problem.person is not None and track.num_people > 1 else ""
    return f"{span}, {frames}{who}"


def facts(track: Track, info: SourceInfo | None) -> tuple[tuple[str, str], ...]:
    """Return names and values of what a reader wants to know first."""
    run, source = track.info, track.info.get("source", {})
    camera = track.intrinsics
    rows = [("Clip", str(source.get("path", "not told"))), ("Pictures", _pictures(track, source, info))]
    first, last = float(track.pts_seconds[0]), float(track.pts_seconds[-1])
    rows.append(("Frames", f"{len(track)}, from {clock(first)} to {clock(last)}"))
    told = describe_camera(run["camera"]) if "camera" in run else f"field of view {camera.fov_degrees:.1f} degrees"
    center = f"focal length {camera.fx:.0f} px, centre {camera.cx:.0f}, {camera.cy:.0f}"
    rows.append(("Camera", f"{told}; {center}"))
    rows.append(("Head", f"{track.head}, {track.identity.shape[1]} + {track.expression.shape[2]} coefficients"))
    settings_told = run.get("settings", {})
    weights = settings_told.get("weights")
    rows.append(("Prior", f"{settings_told.get('prior', 'not told')}{f', {weights}' if weights else ''}"))
    seconds = run.get("seconds")
    if seconds:
        rows.append(("Speed", f"{len(track) / seconds:.1f} frames/s ({seconds:.1f} s, scouting included)"))
    for person, told_person in enumerate(run.get("people", ())):
        name = f"Identity of person {person}" if track.num_people > 1 else "Identity"
        residual = told_person.get("keyframe_residual_percent")
        count = told_person.get("num_keyframes", 0)
        text = f"from {count} keyframe{'' if count == 1 else 's'}"
        rows.append((name, text + (f", residual {residual:.2f} %" if residual is not None else "")))
    rows.append(("Program", f"{run.get('program_version', 'not told')}, track format {FORMAT_VERSION}"))
    return tuple(rows)


def _pictures(track: Track, source: dict[str, Any], info: SourceInfo | None) -> str:
    """Say how large the pictures are and how many a second."""
    text = f"{track.intrinsics.width} x {track.intrinsics.height} pixels"
    rate = source.get("frame_rate")
    if rate:
        text += f", {float(Fraction(rate)):.4g} a second"
        steps = np.diff(track.pts_seconds)
        if len(steps) > 1 and np.ptp(steps) > 0.1 * np.median(steps):
            text += " on average, at variable times"
    if source.get("rotation_degrees"):
        text += f", turned by {source['rotation_degrees']} degrees"
    if info is not None and info.has_audio:
        text += ", with sound"
    return text


def source_notes(track: Track) -> tuple[str, ...]:
    """Return what was wrong with the clip or the run as a whole."""
    notes = [f"Clip: {problem}" for problem in track.info.get("source", {}).get("problems", ())]
    if track.info.get("is_complete") is False:
        notes.append("The run was interrupted; the track ends early.")
    return tuple(notes)


def people(track: Track, curves: Sequence[Curves]) -> tuple[tuple[str, ...], ...]:
    """Return a row per person: name, share tracked, frames by status, residuals."""
    rows = []
    for person in range(track.num_people):
        counts = track.status_counts(person)
        residual = curves[person].residual_percent
        known = residual[np.isfinite(residual)]
        quantiles = [f"{np.percentile(known, percent):.2f} %" if len(known) else "–" for percent in (50, 95)]
        share = f"{100.0 * float(track.is_tracked[person].mean()):.1f} %"
        rows.append((str(person), share, *(str(counts[status.label]) for status in FrameStatus), *quantiles))
    return tuple(rows)


def moments(track: Track, curves: Sequence[Curves]) -> tuple[Moment, ...]:
    """Return what everybody who is tracked does in a track of a single frame, in numbers."""
    told = []
    for person, each in enumerate(curves):
        if not track.is_tracked[person, 0]:
            continue
        who = f", person {person}" if track.num_people > 1 else ""
        turns = {
            "yaw, to the picture's right": each.yaw,
            "pitch, up": each.pitch,
            "roll, clockwise": each.roll,
            "jaw, open": each.jaw_open,
            "jaw, to the subject's left": each.jaw_side,
            **each.gaze,
        }
        rows = [(name, f"{float(values[0]):.1f}°") for name, values in turns.items()]
        for name, value in zip(("right", "down", "away"), each.position_cm[0], strict=True):
            rows.append((f"from the camera, {name}", f"{float(value):.1f} cm"))
        told.append(Moment(f"pose-{person}", f"Pose and gaze{who}", tuple(rows)))
        kind = "ARKit coefficients" if each.is_arkit else "Expression coefficients"
        actions = tuple((name, f"{float(values[0]):.2f}") for name, values in each.actions.items())
        told.append(Moment(f"actions-{person}", f"{kind}{who}", actions))
    return tuple(told)


def settings(track: Track) -> tuple[Setting, ...]:
    """Return all settings of the run, those of its configuration by their dotted names."""
    told = dict(_flat(track.info.get("settings", {})))
    defaults = _defaults(str(told.get("prior", "mediapipe")))
    return tuple(
        Setting(name, _word(value), name in defaults and _word(defaults[name]) != _word(value))
        for name, value in told.items()
    )


def _defaults(prior: str) -> dict[str, Any]:
    """Return the settings of a run with a prior and no other option."""
    from tracker.api import Options

    try:
        options = Options(prior=prior)
        return dict(_flat(dataclasses.asdict(dataclasses.replace(options, config=options.settings))))
    except UserError:
        return {}


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values by dotted names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _word(value: Any) -> str:
    """Return a setting as one reads it."""
    if value is None:
        return "not given"
    return value if isinstance(value, str) else json.dumps(value)
