"""Convert a track: each person's neutral face gives the identity, each frame's vertices give what the face does.

The vertices of the track's own head, posed frame by frame, are the data; the other head is fitted to them through a
stored surface correspondence. The camera stays, so that both heads lie over the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flame import HeadModel, load_head
from flame.correspondence import load_correspondence
from tracker.conversion.person import JOINTS, ConvertedPerson, HeadPair, PersonError, ShowFrames, convert_person
from tracker.result import Track
from tracker.state import FIRST_EXPRESSION

ORIGIN = "converted_from"
"""Key of ``Track.info`` that tells of the track before: its head and the error of each person."""


@dataclass(frozen=True, eq=False)
class Conversion:
    """Hold a track on another head, and how well that head can follow."""

    track: Track
    """The track on the other head; ``info["converted_from"]`` tells where it comes from."""
    error_mm: np.ndarray
    """Mean distance of the face's points from those of the original, float32 (P, T); NaN where not tracked."""
    error_px: np.ndarray
    """The same in the image, pixels."""
    people: tuple[PersonError, ...]
    """Summary of each person."""


def convert_track(track: Track, head: HeadModel | str | Path, *, show_frames: ShowFrames | None = None) -> Conversion:
    """Fit another head to a track.

    A neutral face stays neutral: what the other head's identities cannot say of a person is not made up for by
    expressions, so that these mean what they say.

    Args:
        track: the track; its head model has to be at hand.
        head: ``commons``, the path of a head model, or a head model.
        show_frames: shows progress.

    Raises:
        AssetMissingError: a head model is not there.
        InputError: a head model cannot be read, or the two heads are too different.
    """
    target = head if isinstance(head, HeadModel) else load_head(head)
    name = _name_of(target) if isinstance(head, HeadModel) else _absolute(head)
    if target.content_hash == track.head_hash:
        return _unchanged(track, target, name)
    source = track.head_model
    pair = HeadPair(source, target, load_correspondence(source, target))
    show = show_frames or _silent
    people = [convert_person(pair, track, person, show) for person in range(track.num_people)]
    errors = np.array([each.errors for each in people], np.float32).reshape(track.num_people, len(track), 2)
    summaries = tuple(each.summary for each in people)
    converted = _assembled(track, target, name, people)
    return Conversion(converted, errors[..., 0], errors[..., 1], summaries)


def _assembled(track: Track, target: HeadModel, name: str, people: list[ConvertedPerson]) -> Track:
    """Return the track with the people's new parameters."""
    size = (track.num_people, len(track))
    width = FIRST_EXPRESSION + target.num_expression
    rows = np.array([each.rows for each in people], np.float64).reshape(*size, width)
    joints = {joint: rows[..., 6 + 3 * at : 9 + 3 * at].astype(np.float32) for at, joint in enumerate(JOINTS)}
    identity = np.array([each.identity for each in people], np.float32)
    origin: dict[str, Any] = {"head": track.head, "head_hash": track.head_hash}
    origin["people"] = [_finite(asdict(each.summary)) for each in people]
    if ORIGIN in track.info:
        origin[ORIGIN] = track.info[ORIGIN]
    converted = replace(
        track,
        identity=identity.reshape(track.num_people, target.num_shape),
        expression=rows[..., FIRST_EXPRESSION:].astype(np.float32),
        rotation=np.ascontiguousarray(rows[..., :3]),
        translation=np.ascontiguousarray(rows[..., 3:6]),
        head=name,
        head_hash=target.content_hash,
        expression_names=tuple(target.expression_names or ()),
        info={**track.info, ORIGIN: origin},
        **joints,
    )
    return _with_model(converted, target)


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """Return what JSON can say: it has no NaN."""
    return {key: round(value, 4) if np.isfinite(value) else None for key, value in values.items()}


def _unchanged(track: Track, target: HeadModel, name: str) -> Conversion:
    """Return a track that is on this head already."""
    error_mm, error_px = (np.where(track.is_tracked, 0.0, np.nan).astype(np.float32) for _ in range(2))
    people = tuple(PersonError(*(0.0 if seen.any() else np.nan,) * 3) for seen in track.is_tracked)
    return Conversion(_with_model(replace(track, head=name), target), error_mm, error_px, people)


def _with_model(track: Track, model: HeadModel) -> Track:
    """Return the track, which need not read its head again."""
    vars(track)["head_model"] = model
    return track


def _name_of(head: HeadModel) -> str:
    """Return what a track calls a head: ``commons``, or the path of its file where it has one."""
    path = Path(head.source)
    return _absolute(path) if path.suffix in {".pkl", ".npz"} and path.is_file() else head.name


def _absolute(head: str | Path) -> str:
    """Return the name of a head by which a track finds it from any other folder."""
    return "commons" if str(head) == "commons" else str(Path(head).resolve())


def _silent(frames: Iterable[int], _count: int, _label: str) -> Iterable[int]:
    """Show nothing."""
    return frames
