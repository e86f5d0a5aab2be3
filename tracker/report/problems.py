"""What went wrong where: stretches of a track that deserve a look, with the frame that shows each best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from tracker.priors import are_lids, state_prior
from tracker.report.curves import Curves, runs
from tracker.status import FrameStatus

if TYPE_CHECKING:
    from configs.schema import Config
    from tracker.result import Track

TURN_DEGREES_PER_SECOND = 700.0
"""Heads do not turn faster."""
MOVE_METRES_PER_SECOND = 2.5
"""Nor move."""
CHANGE_PER_SECOND = 18.0
"""Nor do actions other than those of eyes and lids change faster, in their own ranges (0 to 1 for ARKit's)."""
_MIN_STEP_SECONDS = 1 / 30
"""Noise over a shorter time looks like speed."""
_HIGH_RESIDUAL_FACTOR = 2.0
"""Times a person's median residual: worth a look."""
_HIGH_RESIDUAL_SHARE = 0.5
"""Of the residual at which confidence is low: less is never worth one."""
_PAUSE_SECONDS = 0.2
"""Stretches of one kind that are nearer than this are told as one."""
_MIN_BOUND_SECONDS = 0.25
"""Values that touch a bound for a shorter time are not told."""
_FREE_RANGE = 6.0
"""Of expression coefficients without bounds, in standard deviations."""
_JOINT_WORDS = tuple(
    f"{joint} {axis}" for joint in ("neck", "jaw", "left eye", "right eye") for axis in ("pitch", "yaw", "roll")
)


@dataclass(frozen=True)
class Problem:
    """Describe one stretch of a track."""

    kind: str
    """What it is, one or two words: a key of ``KINDS``."""
    person: int | None
    """Whose; None where it is the clip's."""
    first: int
    """First position in the track."""
    last: int
    """Last position, inclusive."""
    worst: int
    """The position that shows it best."""
    detail: str
    """What was measured, a few words."""

    @property
    def num_frames(self) -> int:
        """Return its length."""
        return self.last - self.first + 1


KINDS = {
    "lost": "the face was not found; nothing is tracked",
    "no face yet": "nobody was seen so far",
    "low confidence": "tracked, but covered, hardly a face, or fitted badly: use with care",
    "high residual": "well tracked by its own standard, but clearly worse than the rest of the clip",
    "jump": "faster than a face moves: a cut, another face, or a mistake",
    "at a bound": "the head cannot do what it should: a value stayed at its limit",
    "missing frames": "frames of the clip could not be decoded and are not in the track",
}
"""What kinds of problems there are, the worst first, and what each means."""


def find_problems(track: Track, curves: Sequence[Curves], config: Config) -> list[Problem]:
    """Return the problems of a track in the order of time."""
    found = list(_missing_frames(track))
    for person, person_curves in enumerate(curves):
        found.extend(_lost(track, person))
        found.extend(_doubtful(track, person, person_curves, config))
        found.extend(_high_residual(track, person, person_curves, config))
        found.extend(_jumps(track, person))
        found.extend(_at_bounds(track, person, config))
    order = list(KINDS)
    return sorted(found, key=lambda problem: (problem.first, order.index(problem.kind), problem.person or 0))


def _missing_frames(track: Track) -> Iterable[Problem]:
    """Find where the clip's frames are not numbered on."""
    steps = np.diff(track.frame_index)
    for position in np.flatnonzero(steps > 1).tolist():
        count = int(steps[position]) - 1
        detail = f"{count} frame{'s' if count > 1 else ''} between {track.frame_index[position]} and "
        detail += str(track.frame_index[position + 1])
        yield Problem("missing frames", None, position, position + 1, position + 1, detail)


def _lost(track: Track, person: int) -> Iterable[Problem]:
    """Find where a person is not tracked."""
    for status, kind in ((FrameStatus.LOST, "lost"), (FrameStatus.NO_FACE, "no face yet")):
        for first, last in runs(track.status[person] == status):
            is_end = last == len(track) - 1
            seconds = float(track.pts_seconds[last if is_end else last + 1] - track.pts_seconds[first])
            again = "found again" if status is FrameStatus.LOST else "first seen"
            detail = "to the end" if is_end else f"{again} after {seconds:.2f} s"
            yield Problem(kind, person, first, last, first, detail)


def _doubtful(track: Track, person: int, curves: Curves, config: Config) -> Iterable[Problem]:
    """Find where confidence is low, and say why."""
    limits = config.status
    residual, presence = curves.residual_percent, track.presence[person]
    for first, last in _joined(track, track.status[person] == FrameStatus.LOW_CONFIDENCE):
        part = slice(first, last + 1)
        worst = first + _worst_of(np.nan_to_num(residual[part]))
        reasons = []
        if np.nanmax(residual[part], initial=0) > limits.max_residual_percent:
            reasons.append(f"residual up to {np.nanmax(residual[part]):.1f} % of the eye distance")
        if np.nanmin(presence[part], initial=1) < limits.low_presence:
            reasons.append(f"a face with probability {np.nanmin(presence[part]):.2f}")
            worst = worst if len(reasons) > 1 else first + int(np.nanargmin(presence[part]))
        yield Problem("low confidence", person, first, last, worst, "; ".join(reasons) or "more than half is covered")


def _high_residual(track: Track, person: int, curves: Curves, config: Config) -> Iterable[Problem]:
    """Find well tracked frames that fit much worse than the others."""
    is_ok = track.status[person] == FrameStatus.OK
    if not is_ok.any():
        return
    usual = float(np.median(curves.residual_percent[is_ok]))
    limit = max(_HIGH_RESIDUAL_FACTOR * usual, _HIGH_RESIDUAL_SHARE * config.status.max_residual_percent)
    with np.errstate(invalid="ignore"):
        is_high = is_ok & (curves.residual_percent > limit)
    for first, last in _joined(track, is_high):
        worst = first + _worst_of(np.where(is_high, curves.residual_percent, 0)[first : last + 1])
        detail = f"up to {curves.residual_percent[worst]:.1f} % of the eye distance; usual is {usual:.1f} %"
        yield Problem("high residual", person, first, last, worst, detail)


def _jumps(track: Track, person: int) -> Iterable[Problem]:
    """Find steps from frame to frame that no face makes."""
    is_tracked = track.is_tracked[person]
    after = np.flatnonzero(is_tracked[1:] & is_tracked[:-1]) + 1
    if not len(after):
        return
    seconds = np.maximum(np.diff(track.pts_seconds)[after - 1], _MIN_STEP_SECONDS)
    before, here = (Rotation.from_rotvec(track.rotation[person][positions]) for positions in (after - 1, after))
    turned = np.degrees((here * before.inv()).magnitude()) / seconds
    moved = np.linalg.norm(np.diff(track.translation[person], axis=0)[after - 1], axis=1) / seconds
    change, names = _expression_change(track, person)
    changed = change[after - 1] / seconds[:, None]
    fastest = changed.argmax(axis=1) if changed.shape[1] else np.zeros(len(after), int)
    peak = changed.max(axis=1, initial=0.0)
    is_jump = np.zeros(len(track), bool)
    words: dict[int, str] = {}
    for index, position in enumerate(after.tolist()):
        reasons = []
        if turned[index] > TURN_DEGREES_PER_SECOND:
            reasons.append(f"turned at {turned[index]:.0f} degrees/s")
        if moved[index] > MOVE_METRES_PER_SECOND:
            reasons.append(f"moved at {moved[index]:.1f} m/s")
        if peak[index] > CHANGE_PER_SECOND:
            reasons.append(f"{names[fastest[index]]} changed at {peak[index]:.0f}/s")
        if reasons:
            is_jump[position] = True
            words[position] = ", ".join(reasons)
    for first, last in _joined(track, is_jump):
        positions = [position for position in range(first, last + 1) if position in words]
        extra = f" (and {len(positions) - 1} more)" if len(positions) > 1 else ""
        yield Problem("jump", person, max(first - 1, 0), last, positions[0], words[positions[0]] + extra)


def _expression_change(track: Track, person: int) -> tuple[np.ndarray, list[str]]:
    """Return steps (T - 1, N) of the actions that cannot be quick, in their ranges, and their names."""
    lower, upper, names = _limits(track, None)
    expression = slice(len(_JOINT_WORDS), None)
    span = (upper - lower)[expression]
    span = np.where(np.isfinite(span), span, _FREE_RANGE)
    is_slow = ~are_lids(names[expression])
    steps = np.abs(np.diff(track.expression[person], axis=0))[:, is_slow] / span[is_slow]
    return steps, [name for name, slow in zip(names[expression], is_slow, strict=True) if slow]


def _at_bounds(track: Track, person: int, config: Config) -> Iterable[Problem]:
    """Find where values stay at their limits; zero is where most actions rest, and closed lids are no surprise."""
    lower, upper, names = _limits(track, config)
    joints = np.concatenate([getattr(track, name)[person] for name in ("neck", "jaw", "left_eye", "right_eye")], axis=1)
    values = np.concatenate((joints, track.expression[person]), axis=1)
    slack = 1e-3 * np.where(np.isfinite(upper - lower), upper - lower, 1.0)
    is_told = ~are_lids(names) & ~np.char.endswith(np.array(names), " roll")
    with np.errstate(invalid="ignore"):
        touches = (values >= upper - slack) | ((values <= lower + slack) & (lower < 0))
    touches &= is_told
    is_long = np.zeros_like(touches)
    for column in np.flatnonzero(touches.any(axis=0)).tolist():
        for first, last in runs(touches[:, column]):
            if track.pts_seconds[last] - track.pts_seconds[first] >= _MIN_BOUND_SECONDS:
                is_long[first : last + 1, column] = True
    for first, last in _joined(track, is_long.any(axis=1)):
        part = is_long[first : last + 1]
        count = part.sum(axis=0)
        told = [names[column] for column in np.argsort(-count, kind="stable") if count[column]]
        more = f" and {len(told) - 4} more" if len(told) > 4 else ""
        worst = first + _worst_of(part.sum(axis=1))
        yield Problem("at a bound", person, first, last, worst, ", ".join(told[:4]) + more)


def _limits(track: Track, config: Config | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return lower and upper bounds (12 + E,) of joint angles and expressions, and their names."""
    from configs.schema import Config
    from flame.errors import UserError

    num_expressions = track.expression.shape[-1]
    bounds = None
    try:
        bounds = track.head_model.expression_bounds
    except UserError:
        # A head that has gone away tells no bounds; the track can still be looked at.
        pass
    if bounds is None:
        told = np.tile((-np.inf, np.inf), (num_expressions, 1))
    else:
        told = bounds.numpy().astype(np.float64)
    prior = state_prior((config or Config()).regularization, told, track.expression_names)
    names = list(track.expression_names) or [f"expression {index}" for index in range(num_expressions)]
    return prior.lower, prior.upper, [*_JOINT_WORDS, *names]


def _joined(track: Track, mask: np.ndarray) -> list[tuple[int, int]]:
    """Return the stretches of a mask (T,), those that are near each other as one."""
    joined: list[tuple[int, int]] = []
    for first, last in runs(mask):
        if joined and track.pts_seconds[first] - track.pts_seconds[joined[-1][1]] <= _PAUSE_SECONDS:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _worst_of(values: np.ndarray) -> int:
    """Return the position of the greatest value."""
    return int(np.argmax(values))
