"""Temporal smoothing with a fixed lag: frames come out in order, a few behind those that went in.

Either the frames of a window are solved together, each by what its evidence says (``WindowSmoother``), or every
parameter is smoothed by itself, by local quadratic fits (``QuadraticSmoother``). Neither crosses a cut, a loss or a
frame that was not followed from the one before; both weigh by time, not by frame count, so that variable frame rates
are treated right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from configs.schema import SMOOTHING_METHODS, SmoothingConfig
from flame.errors import InputError
from flame.rotation_kernels import rotation_matrix, small_turn_vector
from flame.surface import NUM_JOINT_ANGLES
from tracker.motion import Motion
from tracker.priors import StatePrior
from tracker.state import NUM_RIGID, FaceState
from tracker.stream import FaceFrame, FrameQuadratic, smooths_jointly
from tracker.window_solver import Chain

_LARGEST_RISE = 1.0
"""Share of its energy by which a frame's energy may rise: what moves more quickly than faces are expected to, as in
clips of few frames a second, is left with its evidence. Ordinary clips hardly come near this."""
_NECK = slice(0, 3)
_ROUNDS, _NUM_REVISED = 1, 2
"""Revisions of the active set per frame, and how many of the newest frames they look at."""


class Smoother(Protocol):
    """Smooth one person's frames."""

    def push(self, frame: FaceFrame) -> list[FaceFrame]:
        """Take the next frame; return those that no later frame can change, smoothed, oldest first."""
        ...

    def flush(self) -> list[FaceFrame]:
        """Return what is left at the end of the clip."""
        ...


def create_smoother(config: SmoothingConfig, prior: StatePrior, expression_names: Sequence[str] = ()) -> Smoother:
    """Return the smoother that the configuration asks for, of a face whose parameters have these bounds and names.

    Raises:
        InputError: there is no such method.
    """
    if config.method not in SMOOTHING_METHODS:
        raise InputError(f"setting 'smoothing.method' is '{config.method}'; allowed: {', '.join(SMOOTHING_METHODS)}.")
    if smooths_jointly(config):
        return WindowSmoother(Motion.of(config, prior, expression_names), prior, config.max_lag_frames)
    return QuadraticSmoother(config)


class WindowSmoother:
    """Solve each frame once more, together with its past and a few frames of its future; see ``Chain``.

    The frames' equations are those at the streamed solution; they are not linearised anew, since smoothing moves a face
    by less than the noise of its evidence.
    """

    def __init__(self, motion: Motion, prior: StatePrior, max_lag_frames: int) -> None:
        """Prepare an empty window; the bounds of ``prior`` hold."""
        self._motion = motion
        self._prior = prior
        self._max_lag_frames = max_lag_frames
        self._chain = Chain()
        self._window: deque[FaceFrame] = deque()

    def push(self, frame: FaceFrame) -> list[FaceFrame]:
        """Take the next frame; return those that no later frame can change, smoothed, oldest first."""
        if frame.state is None or frame.quadratic is None:
            return [*self.flush(), frame]
        out = [] if frame.is_continuous else self.flush()
        self._append(frame, frame.state, frame.quadratic)
        if len(self._window) > self._max_lag_frames:
            # A frame stays for several calls, which revise what is at a bound, so each has to do little.
            out.append(self._moved(self._window.popleft(), self._chain.solve_oldest(_ROUNDS, _NUM_REVISED)))
            self._chain.forget()
        return out

    def flush(self) -> list[FaceFrame]:
        """Return what is left at the end of the clip, or before a break."""
        steps = self._chain.solve()
        out = [self._moved(frame, step) for frame, step in zip(self._window, steps, strict=True)]
        self._window.clear()
        self._chain = Chain()
        return out

    def _append(self, frame: FaceFrame, state: FaceState, quadratic: FrameQuadratic) -> None:
        """Add a frame to the chain, tied to the one before."""
        room = (np.minimum(self._prior.lower - state.values, 0), np.maximum(self._prior.upper - state.values, 0))
        for way in room:
            # One camera cannot tell neck from head: turning one against the other would buy smoothness for nothing.
            way[_NECK] = 0.0
        link = None
        before = self._window[-1] if self._window else None
        if before is not None and before.state is not None:
            still = np.zeros(NUM_RIGID)
            link = self._motion.link(before.state, state, frame.pts_seconds - before.pts_seconds, (still, still))
        self._chain.append(quadratic.hessian, quadratic.gradient, room, link)
        self._window.append(frame)

    def _moved(self, frame: FaceFrame, step: np.ndarray) -> FaceFrame:
        """Return a frame after its step, without what only the smoother needs."""
        assert frame.state is not None and frame.quadratic is not None
        step = step[:-NUM_RIGID]
        rise, most = frame.quadratic.rise(step), _LARGEST_RISE * frame.quadratic.energy
        if rise > most:
            # Quicker than faces are expected to be: the evidence knows better. The energy is nearly quadratic here.
            step = step * np.sqrt(most / rise)
        state = frame.state.step(step, self._prior.lower, self._prior.upper)
        return replace(frame, state=state, quadratic=None)


class QuadraticSmoother:
    """Smooth every parameter by itself: a local quadratic fit in time, so that peaks keep their height."""

    def __init__(self, config: SmoothingConfig) -> None:
        """Prepare an empty window."""
        self._config = config
        self._window: deque[FaceFrame] = deque()
        self._num_emitted = 0

    def push(self, frame: FaceFrame) -> list[FaceFrame]:
        """Take the next frame; return those that no later frame can change, smoothed, oldest first."""
        self._window.append(frame)
        return self._emit(flush=False)

    def flush(self) -> list[FaceFrame]:
        """Return what is left at the end of the clip."""
        return self._emit(flush=True)

    def _emit(self, *, flush: bool) -> list[FaceFrame]:
        """Return smoothed frames whose window is complete and forget frames that none will need."""
        out = []
        half_width = self._config.half_width_seconds
        while self._num_emitted < len(self._window):
            frame = self._window[self._num_emitted]
            lag = len(self._window) - 1 - self._num_emitted
            newest = self._window[-1]
            complete = newest.pts_seconds - frame.pts_seconds >= half_width or lag >= self._config.max_lag_frames
            if not (flush or complete):
                break
            out.append(smoothed(list(self._window), self._num_emitted, half_width))
            self._num_emitted += 1
        while self._num_emitted > self._config.max_lag_frames:
            self._window.popleft()
            self._num_emitted -= 1
        return out


def smoothed(window: Sequence[FaceFrame], index: int, half_width_seconds: float) -> FaceFrame:
    """Return frame ``index`` of a window with its state replaced by a local quadratic fit over its neighbours in time.

    With too few neighbours for a quadratic to smooth anything, the frame is returned as it is.
    """
    frame = window[index]
    neighbours = _followed_neighbours(window, index, half_width_seconds)
    if frame.state is None or len(neighbours) < 4:
        return frame
    times = np.array([other.pts_seconds - frame.pts_seconds for other in neighbours]) / half_width_seconds
    weights = (1 - np.minimum(np.abs(times) / 1.2, 1) ** 3) ** 3
    powers = np.stack((np.ones_like(times), times, times**2), axis=1)
    kernel = np.linalg.solve(powers.T @ (weights[:, None] * powers), powers.T * weights)[0]
    values = _relative_values([other.state for other in neighbours if other.state is not None], frame.state)
    # A fit may overshoot; what no neighbour does (a lid beyond closed, say) is not made up.
    fitted = np.clip(kernel @ values, values.min(axis=0), values.max(axis=0))
    return replace(frame, state=_apply_values(fitted, frame.state))


def _followed_neighbours(window: Sequence[FaceFrame], index: int, half_width_seconds: float) -> list[FaceFrame]:
    """Return the frames around ``index`` within the half width that are joined to it without a break."""
    center = window[index].pts_seconds
    first = index
    while first > 0 and window[first].is_continuous and center - window[first - 1].pts_seconds <= half_width_seconds:
        first -= 1
    last = index
    while (
        last + 1 < len(window)
        and window[last + 1].is_continuous
        and window[last + 1].pts_seconds - center <= half_width_seconds
    ):
        last += 1
    return list(window[first : last + 1])


def _relative_values(states: Sequence[FaceState], reference: FaceState) -> np.ndarray:
    """Return states as rows of numbers that can be averaged: rotation relative to a reference, and the rest."""
    return np.array(
        [
            np.concatenate((small_turn_vector(state.rotation @ reference.rotation.T), state.translation, state.values))
            for state in states
        ]
    )


def _apply_values(values: np.ndarray, reference: FaceState) -> FaceState:
    """Invert ``_relative_values`` for one row."""
    return FaceState(
        rotation=rotation_matrix(np.ascontiguousarray(values[:3])) @ reference.rotation,
        translation=values[3:6],
        joint_angles=values[6 : 6 + NUM_JOINT_ANGLES],
        expression=values[6 + NUM_JOINT_ANGLES :],
    )
