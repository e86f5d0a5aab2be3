"""Damped Newton steps of one frame within bounds: parameters that would cross a bound go to it and stay there."""

from __future__ import annotations

import numba
import numpy as np
import scipy.linalg

from tracker.chain_kernels import factor_of_free
from tracker.priors import StatePrior
from tracker.state import NUM_RIGID, FaceState

# LAPACK's own routine: the checks of scipy.linalg.solve take longer than these small systems.
(_POSV,) = scipy.linalg.get_lapack_funcs(("posv",), dtype=np.float64)
MAX_ROUNDS = 4
"""How often a step is found again without the parameters that have reached a bound."""


class FrameBlock:
    """Hold one frame's damped normal equations H d = -g, with D = 18 + E parameters, while a step is looked for.

    A round is ``eliminate`` then ``substitute``; rounds go on until no further parameter crosses a bound.
    """

    def __init__(
        self, hessian: np.ndarray, gradient: np.ndarray, state: FaceState, prior: StatePrior, damping: float
    ) -> None:
        """Hold the parameters that are at a bound which the gradient pushes against."""
        self._hessian = hessian.copy()
        self._hessian.flat[:: len(gradient) + 1] *= 1 + damping
        self._gradient = gradient
        values, slope = state.values, gradient[NUM_RIGID:]
        self._room_down, self._room_up = prior.lower - values, prior.upper - values
        self._is_free = np.ones(len(gradient), dtype=bool)
        at_lower, at_upper = self._room_down >= 0, self._room_up <= 0
        self._is_free[NUM_RIGID:] &= ~((at_lower & (slope > 0)) | (at_upper & (slope < 0)) | (at_lower & at_upper))
        self._solved = np.zeros((0, 0))
        self.delta = np.zeros(len(gradient))
        """The step so far, float64 (D,)."""

    def eliminate(self, coupling: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Solve for the free parameters as functions of S shared ones, coupled by the Hessian's block (S, D).

        Returns:
            What the frame takes from the shared Hessian (S, S) and from the shared gradient (S,): its Schur complement.
        """
        free, fixed = self._is_free, ~self._is_free
        rows = self._hessian[free]
        slope = self._gradient[free] + rows[:, fixed] @ self.delta[fixed]
        cross = coupling[:, free]
        self._solved = solve_positive(rows[:, free], np.column_stack((cross.T, slope)))
        taken = cross @ self._solved
        return taken[:, :-1], taken[:, -1] - coupling[:, fixed] @ self.delta[fixed]

    def substitute(self, shared_delta: np.ndarray) -> bool:
        """Set the free parameters' step given the shared one (S,); return whether some have crossed a bound."""
        self.delta[self._is_free] = -(self._solved[:, :-1] @ shared_delta + self._solved[:, -1])
        tail = self.delta[NUM_RIGID:]
        crosses = (tail < self._room_down) | (tail > self._room_up)
        np.clip(tail, self._room_down, self._room_up, out=tail)
        self._is_free[NUM_RIGID:] &= ~crosses
        return bool(crosses.any())


def bounded_step(
    hessian: np.ndarray, gradient: np.ndarray, state: FaceState, prior: StatePrior, damping: float
) -> tuple[np.ndarray, float]:
    """Return the damped Gauss-Newton step of one frame within its bounds, and the energy that it should save."""
    values = state.values
    delta, is_positive = _bounded_step(hessian, gradient, prior.lower - values, prior.upper - values, damping)
    if not is_positive:
        delta = _least_squares_step(FrameBlock(hessian, gradient, state, prior, damping))
    return delta, -float(gradient @ delta + 0.5 * delta @ (hessian @ delta))


def _least_squares_step(block: FrameBlock) -> np.ndarray:
    """Return the step of a frame whose equations rounding has made singular."""
    nothing_shared = np.zeros((0, len(block.delta)))
    for _ in range(MAX_ROUNDS):
        block.eliminate(nothing_shared)
        if not block.substitute(np.zeros(0)):
            break
    return block.delta


@numba.njit(cache=True, nogil=True)
def _bounded_step(hessian, gradient, room_down, room_up, damping):  # pragma: no cover - compiled
    """Do what ``FrameBlock`` does for a frame that shares nothing; return the step, and whether it could be found."""
    size = len(gradient)
    rigid = size - len(room_down)
    delta = np.zeros(size)
    is_free = np.ones(size, dtype=np.bool_)
    for i in range(rigid, size):
        down, up, slope = room_down[i - rigid], room_up[i - rigid], gradient[i]
        if (down >= 0 and slope > 0) or (up <= 0 and slope < 0) or (down >= 0 and up <= 0):
            is_free[i] = False
    damped = hessian.copy()
    for i in range(size):
        damped[i, i] *= 1.0 + damping
    for _ in range(MAX_ROUNDS):
        # What is held has a step, what is free has none yet.
        slope = gradient + np.dot(damped, np.where(is_free, 0.0, delta))
        if not _solve_free(damped, slope, np.flatnonzero(is_free), delta):
            return delta, False
        crossed = False
        for i in range(rigid, size):
            down, up = room_down[i - rigid], room_up[i - rigid]
            # A start beyond its bounds goes to them, too.
            if delta[i] < down or delta[i] > up:
                delta[i] = min(max(delta[i], down), up)
                is_free[i] = False
                crossed = True
        if not crossed:
            break
    return delta, True


@numba.njit(cache=True, nogil=True)
def _solve_free(matrix, slope, free, out):  # pragma: no cover - compiled
    """Write -A^-1 b, of the free parts of a matrix and a vector, to that of ``out``; return whether A allows it."""
    lower, is_positive = factor_of_free(matrix, free)
    if not is_positive:
        return False
    step = np.empty(len(free))
    for a in range(len(free)):
        total = slope[free[a]]
        for b in range(a):
            total -= lower[a, b] * step[b]
        step[a] = total / lower[a, a]
    for a in range(len(free) - 1, -1, -1):
        step[a] /= lower[a, a]
        for b in range(a):
            step[b] -= lower[a, b] * step[a]
        out[free[a]] = -step[a]
    return True


def solve_positive(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve a symmetric positive definite system; where rounding has made it singular, in the least-squares sense."""
    _, solution, failed_at = _POSV(matrix, right, lower=1)
    if failed_at:
        return np.linalg.lstsq(matrix, right, rcond=None)[0]
    return solution
