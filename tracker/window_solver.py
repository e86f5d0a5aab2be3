"""Solve the frames of a window together: evidence of every frame, and how a face moves from one to the next.

Identity and camera are given. Frames hang together in a chain, so the normal equations are block tridiagonal; they are
eliminated in order of time, which costs the same for every frame (block Cholesky, a Kalman smoother in information
form), and parameters stay within their bounds by an active set. What an eliminated frame says of the next one is all
that has to be kept of it: ``Chain.forget`` drops the oldest frame and keeps memory constant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from configs.schema import SolverConfig
from tracker.active_set import MAX_ROUNDS
from tracker.chain_kernels import back_substitution, block_equations, inverse_of_free, schur_message
from tracker.levenberg_marquardt import StopReason, minimize
from tracker.motion import Link, Motion
from tracker.priors import StatePrior
from tracker.state import NUM_RIGID, FaceState

_VELOCITY_PRECISION = 0.01
"""Heads move at up to some 10 radians/s and 10 m/s: keeps a frame's velocity finite where nothing else tells it."""


_SLACK = 1e-3
"""Radians or expression units by which a bound may be crossed before the step is found again; put back at the end."""


_NO_VECTOR, _NO_MATRIX = np.zeros(0), np.zeros((0, 0))
_NO_LINK = (_NO_VECTOR, _NO_VECTOR, _NO_VECTOR)


class NormalEquations(Protocol):
    """Be one frame's energy near a state, without anything that ties it to other frames; D = 18 + E."""

    @property
    def energy(self) -> float:
        """Return the energy."""
        ...

    @property
    def hessian(self) -> np.ndarray:
        """Return the second derivatives, float64 (D, D)."""
        ...

    @property
    def gradient(self) -> np.ndarray:
        """Return the first derivatives, float64 (D,)."""
        ...


@dataclass(frozen=True)
class WindowFit:
    """Hold the joint solution of consecutive frames."""

    states: tuple[FaceState, ...]
    velocities: np.ndarray
    """Turn (radians/s) and translation (metres/s) of the head, camera axes, float64 (T, 6)."""
    energy: float
    iterations: int
    reason: StopReason


class _Node:
    """Hold one frame of a chain: its own equations, what its past says of it, and its part of the elimination."""

    def __init__(self, hessian: np.ndarray, gradient: np.ndarray, room: tuple[np.ndarray, np.ndarray]) -> None:
        """Embed a frame's equations; ``room`` is how far the tail (12 + E,) may go down and up."""
        dimension = len(gradient)
        size = dimension + NUM_RIGID
        self.own_hessian = np.zeros((size, size))
        self.own_hessian[:dimension, :dimension] = hessian
        velocity = np.arange(dimension, size)
        self.own_hessian[velocity, velocity] = _VELOCITY_PRECISION
        self.own_gradient = np.zeros(size)
        self.own_gradient[:dimension] = gradient
        self.tail = slice(NUM_RIGID, dimension)
        self.room = room
        slope = gradient[NUM_RIGID:]
        at_lower, at_upper = room[0] >= 0, room[1] <= 0
        # At a bound that the frame's own evidence pushes against, it will most likely stay.
        self.is_held = (at_lower & (slope > 0)) | (at_upper & (slope < 0)) | (at_lower & at_upper)
        self.held = np.clip(np.zeros(len(slope)), *room) * self.is_held
        self.message: tuple[np.ndarray, np.ndarray] | None = None
        """Hessian (Z, Z) and gradient (Z,) that the frames before leave behind."""
        self.link: Link | None = None
        """What ties this frame to the next."""
        self.step = np.zeros(size)
        self._hessian = self._inverse = self.own_hessian
        self._slope = self._gradient = self.own_gradient
        self._held_step = np.zeros(size)

    @property
    def _cross(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the parts of the coupling with the next frame; empty where there is none."""
        return _NO_LINK if self.link is None else self.link.cross.parts

    def eliminate(self, damping: float) -> None:
        """Find this frame's free parameters as functions of the next frame's, given the message from before."""
        self._held_step[self.tail] = self.held
        message = self.message or (_NO_MATRIX, _NO_VECTOR)
        before = _NO_LINK if self.link is None else self.link.before.parts
        offset = _NO_VECTOR if self.link is None else self.link.offset
        hessian, gradient, self._slope = block_equations(
            self.own_hessian, self.own_gradient, *message, *before, *self._cross, offset, damping, self._held_step
        )
        self._hessian, self._gradient = hessian, gradient
        is_free = np.ones(len(gradient), dtype=bool)
        is_free[self.tail] = ~self.is_held
        free = np.flatnonzero(is_free)
        self._inverse, is_positive = inverse_of_free(hessian, free)
        if not is_positive:
            # Rounding has made it singular: least squares.
            self._inverse[np.ix_(free, free)] = np.linalg.pinv(hessian[np.ix_(free, free)], hermitian=True)

    def tell(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the message to the next frame: the Schur complement of this one."""
        assert self.link is not None
        cross, precision = self.link.cross, self.link.precision
        hessian = schur_message(self._inverse, *cross.parts)
        precision.add_to(hessian)
        gradient = precision.times(self.link.offset)
        gradient += cross.transposed_times(self._inverse @ self._slope - self._held_step)
        return hessian, gradient

    def substitute(self, after: np.ndarray | None) -> None:
        """Set the step, given that of the next frame (Z,), if there is one that this is tied to."""
        parts = _NO_LINK if after is None else self._cross
        self.step = back_substitution(
            self._inverse, self._slope, self._held_step, *parts, _NO_VECTOR if after is None else after
        )

    def revise(self, after: np.ndarray | None, *, may_release: bool) -> bool:
        """Hold parameters that cross a bound, release those that the others now pull back; return whether any were."""
        tail = self.step[self.tail]
        crosses = ~self.is_held & ((tail < self.room[0] - _SLACK) | (tail > self.room[1] + _SLACK))
        release = np.zeros_like(crosses)
        if may_release and self.is_held.any():
            force = self._hessian @ self.step + self._gradient
            if self.link is not None and after is not None:
                force -= self.link.cross.times(after)
            force = force[self.tail]
            down, up = self.held <= self.room[0], self.held >= self.room[1]
            release = self.is_held & ((force < 0) | ~down) & ((force > 0) | ~up)
        if not (crosses.any() or release.any()):
            return False
        self.is_held = (self.is_held & ~release) | crosses
        self.held = np.where(crosses, np.clip(tail, *self.room), self.held) * self.is_held
        return True


class Chain:
    """Hold frames in order of time and solve for all their steps at once; Z = 24 + E numbers a frame."""

    def __init__(self, damping: float = 0.0) -> None:
        """Start without frames; ``damping`` is Levenberg-Marquardt's, a share of the diagonal."""
        self._damping = damping
        self._nodes: deque[_Node] = deque()
        self._num_eliminated = 0

    def __len__(self) -> int:
        """Return the number of frames held."""
        return len(self._nodes)

    def append(
        self,
        hessian: np.ndarray,
        gradient: np.ndarray,
        room: tuple[np.ndarray, np.ndarray],
        link: Link | None,
        velocity: np.ndarray | None = None,
    ) -> None:
        """Add the next frame.

        Args:
            hessian: second derivatives of its own energy, float64 (D, D).
            gradient: first derivatives of its own energy, float64 (D,).
            room: how far joint angles and expression may go down (<= 0) and up (>= 0), float64 (12 + E,) each.
            link: what ties it to the frame before; None begins a new chain.
            velocity: the head's velocity at which the step begins, float64 (6,); zero unless given.
        """
        node = _Node(hessian, gradient, room)
        if velocity is not None:
            node.own_gradient[-NUM_RIGID:] = _VELOCITY_PRECISION * velocity
        if link is not None and self._nodes:
            self._nodes[-1].link = link
            self._num_eliminated = min(self._num_eliminated, len(self._nodes) - 1)
        self._nodes.append(node)

    def forget(self) -> None:
        """Drop the oldest frame; what it says of the next one stays."""
        self._eliminate()
        self._nodes.popleft()
        self._num_eliminated -= 1

    def solve(self) -> list[np.ndarray]:
        """Return every frame's step, float64 (Z,), within its bounds."""
        self._find_steps(MAX_ROUNDS, len(self._nodes))
        return [self._within_bounds(node) for node in self._nodes]

    def solve_oldest(self, max_rounds: int, num_revised: int) -> np.ndarray:
        """Return the oldest frame's step, float64 (Z,), within its bounds.

        The active set is revised ``max_rounds`` times, in the newest ``num_revised`` frames; what crosses a bound after
        that is put back to it, and a later call goes on from there.
        """
        self._find_steps(max_rounds, num_revised)
        return self._within_bounds(self._nodes[0])

    def _find_steps(self, max_rounds: int, num_revised: int) -> None:
        """Set every frame's step, revising the active set of the newest frames."""
        first_open = len(self._nodes) - num_revised
        for rounds in range(max_rounds + 1):
            self._eliminate()
            first_revised = len(self._nodes)
            after: np.ndarray | None = None
            for index in range(len(self._nodes) - 1, -1, -1):
                node = self._nodes[index]
                node.substitute(after)
                may_revise = rounds < max_rounds and index >= first_open
                if may_revise and node.revise(after, may_release=rounds == 0):
                    first_revised = index
                after = node.step
            if first_revised == len(self._nodes):
                break
            self._num_eliminated = first_revised

    def _eliminate(self) -> None:
        """Eliminate the frames that are new, or whose past or bounds have changed."""
        for index in range(self._num_eliminated, len(self._nodes)):
            node = self._nodes[index]
            node.eliminate(self._damping)
            if node.link is not None and index + 1 < len(self._nodes):
                self._nodes[index + 1].message = node.tell()
        self._num_eliminated = len(self._nodes)

    @staticmethod
    def _within_bounds(node: _Node) -> np.ndarray:
        """Return a step with what has crossed a bound in the last round put back to it."""
        step = node.step.copy()
        step[node.tail] = np.clip(step[node.tail], *node.room)
        return step


@dataclass(frozen=True)
class _Point:
    """Hold all unknowns of a window."""

    states: tuple[FaceState, ...]
    velocities: np.ndarray


@dataclass(frozen=True)
class _Linear:
    """Hold all frames' normal equations and links at one point."""

    energy: float
    frames: tuple[NormalEquations, ...]
    links: tuple[Link | None, ...]


def fit_window(
    linearize: Sequence[Callable[[FaceState], NormalEquations]],
    starts: Sequence[FaceState],
    seconds: Sequence[float],
    is_continuous: Sequence[bool],
    motion: Motion,
    prior: StatePrior,
    config: SolverConfig,
    max_iterations: int,
) -> WindowFit:
    """Find the states of T consecutive frames together, by damped steps until nothing more is to be gained.

    Args:
        linearize: per frame, its energy and normal equations at a state.
        starts: per frame, the state to begin at.
        seconds: per frame, its time.
        is_continuous: per frame, whether the face was followed from the frame before; breaks the chain where not.
        motion: how the face is expected to move.
        prior: its bounds hold; its mean and width are the frames' own business.
        config: when to stop.
        max_iterations: stop after so many steps.
    """

    def at(point: _Point) -> _Linear:
        frames = tuple(each(state) for each, state in zip(linearize, point.states, strict=True))
        links = _links(point, seconds, is_continuous, motion)
        energy = sum(frame.energy for frame in frames) + sum(link.energy for link in links if link is not None)
        energy += 0.5 * _VELOCITY_PRECISION * float(np.vdot(point.velocities, point.velocities))
        return _Linear(energy, frames, links)

    def propose(point: _Point, linear: _Linear, damping: float) -> tuple[_Point, float]:
        return _window_step(point, linear, prior, damping)

    begin = _Point(tuple(starts), np.zeros((len(starts), NUM_RIGID)))
    found = minimize(begin, at, propose, tolerance=config.tolerance, max_iterations=max_iterations)
    return WindowFit(found.point.states, found.point.velocities, found.linear.energy, found.iterations, found.reason)


def _links(
    point: _Point, seconds: Sequence[float], is_continuous: Sequence[bool], motion: Motion
) -> tuple[Link | None, ...]:
    """Return what ties every frame to the one before; None for the first and after a break."""
    links: list[Link | None] = [None]
    for index in range(1, len(point.states)):
        if not is_continuous[index]:
            links.append(None)
            continue
        before, after = index - 1, index
        links.append(
            motion.link(
                point.states[before],
                point.states[after],
                seconds[after] - seconds[before],
                (point.velocities[before], point.velocities[after]),
            )
        )
    return tuple(links)


def _window_step(point: _Point, linear: _Linear, prior: StatePrior, damping: float) -> tuple[_Point, float]:
    """Take one damped step of all frames; return the point after it and the energy that it should save."""
    chain = Chain(damping)
    for frame, state, velocity, link in zip(linear.frames, point.states, point.velocities, linear.links, strict=True):
        room = (np.minimum(prior.lower - state.values, 0), np.maximum(prior.upper - state.values, 0))
        chain.append(frame.hessian, frame.gradient, room, link, velocity)
    steps = chain.solve()
    states = tuple(
        state.step(step[:-NUM_RIGID], prior.lower, prior.upper) for state, step in zip(point.states, steps, strict=True)
    )
    velocities = point.velocities + np.array([step[-NUM_RIGID:] for step in steps])
    return _Point(states, velocities), _expected_gain(point, linear, steps)


def _expected_gain(point: _Point, linear: _Linear, steps: Sequence[np.ndarray]) -> float:
    """Return by how much the quadratic model falls along the steps."""
    change = 0.0
    for frame, step, velocity in zip(linear.frames, steps, point.velocities, strict=True):
        own, faster = step[:-NUM_RIGID], step[-NUM_RIGID:]
        change += float(frame.gradient @ own + 0.5 * own @ (frame.hessian @ own))
        change += _VELOCITY_PRECISION * float(faster @ (velocity + 0.5 * faster))
    for link, before, after in zip(linear.links[1:], steps[:-1], steps[1:], strict=True):
        if link is not None:
            change += float(
                after @ link.precision.times(link.offset + 0.5 * after)
                - before @ link.cross.times(link.offset + after)
                + 0.5 * before @ link.before.times(before)
            )
    return -change
