"""Damped Newton steps of one frame within bounds: parameters that would cross a bound go to it and stay there."""

from __future__ import annotations

import numpy as np
import scipy.linalg

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
    block = FrameBlock(hessian, gradient, state, prior, damping)
    nothing_shared = np.zeros((0, len(gradient)))
    for _ in range(MAX_ROUNDS):
        block.eliminate(nothing_shared)
        if not block.substitute(np.zeros(0)):
            break
    delta = block.delta
    return delta, -float(gradient @ delta + 0.5 * delta @ (hessian @ delta))


def solve_positive(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve a symmetric positive definite system; where rounding has made it singular, in the least-squares sense."""
    _, solution, failed_at = _POSV(matrix, right, lower=1)
    if failed_at:
        return np.linalg.lstsq(matrix, right, rcond=None)[0]
    return solution
