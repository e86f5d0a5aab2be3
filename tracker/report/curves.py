"""The numbers of a track that a report draws: residual, pose, jaw, gaze and actions over time, thinned for the eye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from flame.arkit import ARKIT_NAMES
from flame.camera import OPENGL_AXES

if TYPE_CHECKING:
    from tracker.result import Track

EYE_FROM_CAM = np.diag(OPENGL_AXES)
"""Turns OpenCV's axes into those of somebody who looks at the picture: +x right, +y up, +z towards the camera."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Hold what one person does over T frames; NaN where the person is not tracked."""

    residual_percent: np.ndarray
    """Median distance of the evidence from the head, percent of the eye distance, float64 (T,)."""
    yaw: np.ndarray
    """Where the face looks, neck included, degrees, float64 (T,): positive towards the picture's right."""
    pitch: np.ndarray
    """The same, positive upwards."""
    roll: np.ndarray
    """Turn of the face in the picture, degrees, positive clockwise."""
    position_cm: np.ndarray
    """Origin of the head in camera space (right, down, away), centimetres, float64 (T, 3)."""
    jaw_open: np.ndarray
    """Opening of the jaw, degrees."""
    jaw_side: np.ndarray
    """Turn of the jaw to the subject's left, degrees."""
    gaze: dict[str, np.ndarray]
    """Turns of the eyes in the head, degrees: to the subject's left, and upwards, of both eyes."""
    actions: dict[str, np.ndarray]
    """ARKit's coefficients by name, or the head's own expression coefficients, the most active first."""
    is_arkit: bool
    """Whether the actions are ARKit's."""


def curves_of(track: Track, person: int) -> Curves:
    """Return the curves of one person."""
    is_tracked = track.is_tracked[person]
    facing = EYE_FROM_CAM @ _matrices(track.rotation[person], is_tracked) @ _matrices(track.neck[person], is_tracked)
    forward = facing[:, :, 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = 100.0 * track.residual_px[person].astype(np.float64) / track.interocular_px[person]
    actions, is_arkit = _actions(track, person)
    return Curves(
        residual_percent=np.where(is_tracked, residual, np.nan),
        yaw=np.degrees(np.arctan2(forward[:, 0], forward[:, 2])),
        pitch=np.degrees(np.arcsin(np.clip(forward[:, 1], -1, 1))),
        roll=-np.degrees(np.arctan2(facing[:, 1, 0], facing[:, 1, 1])),
        position_cm=100.0 * track.translation[person],
        jaw_open=np.degrees(track.jaw[person, :, 0]),
        jaw_side=np.degrees(track.jaw[person, :, 1]),
        gaze={
            f"{side} eye, {way}": sign * np.degrees(getattr(track, f"{side}_eye")[person, :, axis])
            for side in ("left", "right")
            for way, axis, sign in (("to the left", 1, 1.0), ("up", 0, -1.0))
        },
        actions=actions,
        is_arkit=is_arkit,
    )


def _matrices(axis_angles: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """Return rotations (T, 3) as matrices (T, 3, 3), NaN where they are not known."""
    matrices = np.full((len(axis_angles), 3, 3), np.nan)
    if is_known.any():
        matrices[is_known] = Rotation.from_rotvec(axis_angles[is_known].astype(np.float64)).as_matrix()
    return matrices


def _actions(track: Track, person: int) -> tuple[dict[str, np.ndarray], bool]:
    """Return the actions by name, the most active first, and whether they are ARKit's."""
    is_arkit = _knows_arkit(track)
    if is_arkit:
        named = track.arkit(person)
    else:
        names = track.expression_names or [f"expression {index}" for index in range(track.expression.shape[-1])]
        named = dict(zip(names, track.expression[person].T.astype(np.float64), strict=True))
    activity = {name: _activity(values) for name, values in named.items()}
    return {name: named[name] for name in sorted(named, key=lambda name: -activity[name])}, is_arkit


def _knows_arkit(track: Track) -> bool:
    """Return whether the head has ARKit's actions; one that is no longer there is asked by the track's own names."""
    if not any(name in ARKIT_NAMES for name in track.expression_names):
        return False
    from flame.errors import UserError

    try:
        track.arkit(0)
    except UserError:
        return False
    return True


def _activity(values: np.ndarray) -> float:
    """Return how much a curve (T,) moves; one that is only ever there counts a little, too."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0
    low, high = np.percentile(known, (2, 98))
    return float(high - low) + 0.2 * float(np.abs(known).mean())


def thinned(values: np.ndarray, max_points: int) -> np.ndarray:
    """Return the positions of a curve (T,) that show its shape in at most about ``max_points`` points, increasing.

    Of each stretch the least and the greatest value stay, and the first one that is missing, so that neither peaks nor
    gaps disappear.
    """
    if len(values) <= max_points:
        return np.arange(len(values))
    kept: list[int] = [0, len(values) - 1]
    edges = np.linspace(0, len(values), max(1, max_points // 2) + 1).astype(int)
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        part = values[first:last]
        is_known = np.isfinite(part)
        if is_known.any():
            kept.extend((first + int(np.nanargmin(part)), first + int(np.nanargmax(part))))
        if not is_known.all():
            kept.append(first + int(np.argmin(is_known)))
    return np.unique(kept)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return first and last position of every stretch of a mask (T,) that is true."""
    padded = np.concatenate(([False], np.asarray(mask, bool), [False])).astype(np.int8)
    change = np.diff(padded)
    return list(zip(np.flatnonzero(change == 1).tolist(), (np.flatnonzero(change == -1) - 1).tolist(), strict=True))
