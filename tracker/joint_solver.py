"""Robust Levenberg-Marquardt for many frames that share identity and camera.

One image is one frame, several photographs of a person are frames with cameras of their own. The per-frame blocks are
eliminated first (Schur complement), so the cost is linear in the number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from configs.schema import SolverConfig
from tracker.active_set import MAX_ROUNDS, FrameBlock, solve_positive
from tracker.frame_terms import NUM_CAMERA, FramePoint, FrameTerm
from tracker.levenberg_marquardt import StopReason, minimize
from tracker.priors import StatePrior
from tracker.state import NUM_RIGID, FaceState, View


@dataclass(frozen=True)
class Shared:
    """Hold what all frames of a person share: identity, in the rig's directions, and corrections of the camera."""

    shape: np.ndarray
    """Coefficients along the rig's shape directions, float64 (R,)."""
    log_zoom: float = 0.0
    """Natural logarithm of the factor by which all views' expected focal lengths are multiplied."""
    center_shift_px: tuple[float, float] = (0.0, 0.0)
    """Shift of all views' principal points, pixels."""

    def view(self, expected: View) -> View:
        """Return a view with the corrections."""
        return expected.zoomed(self.log_zoom).shifted(self.center_shift_px)


@dataclass(frozen=True)
class SharedPrior:
    """Hold the expected identity and camera: Gaussians; the camera's are around zero."""

    identity_precision: np.ndarray
    """Inverse covariance of the shape coefficients, float64 (R, R)."""
    identity_mean: np.ndarray
    """Expected shape coefficients, float64 (R,)."""
    log_zoom_sigma: float = 0.0
    """Standard deviation of the logarithmic zoom; zero holds the focal lengths."""
    center_sigma_px: float = 0.0
    """Standard deviation of the principal point's shift, pixels; zero holds it."""
    holds_identity: bool = False
    """Whether the shape coefficients stay as they start."""

    @staticmethod
    def around_zero(
        num_shapes: int, identity_sigma: float, log_zoom_sigma: float = 0.0, center_sigma_px: float = 0.0
    ) -> SharedPrior:
        """Return the prior whose shape coefficients are independent and equally wide."""
        precision = np.eye(num_shapes) * identity_sigma**-2
        return SharedPrior(precision, np.zeros(num_shapes), log_zoom_sigma, center_sigma_px)

    @cached_property
    def precision(self) -> np.ndarray:
        """Return the inverse covariance of all shared parameters, float64 (R + 3, R + 3); zero where they are held."""
        num_shapes = len(self.identity_mean)
        out = np.zeros((num_shapes + NUM_CAMERA,) * 2)
        out[:num_shapes, :num_shapes] = self.identity_precision
        for index, sigma in enumerate((self.log_zoom_sigma, self.center_sigma_px, self.center_sigma_px)):
            out[num_shapes + index, num_shapes + index] = sigma**-2 if sigma > 0 else 0.0
        return out

    @cached_property
    def is_held(self) -> np.ndarray:
        """Return which shared parameters do not move, bool (R + 3,)."""
        held = (self.log_zoom_sigma <= 0, self.center_sigma_px <= 0, self.center_sigma_px <= 0)
        return np.concatenate((np.full(len(self.identity_mean), self.holds_identity), held))

    def deviation(self, shared: Shared) -> np.ndarray:
        """Return how far shared parameters are from what is expected, float64 (R + 3,)."""
        return np.concatenate((shared.shape - self.identity_mean, [shared.log_zoom], shared.center_shift_px))


@dataclass(frozen=True)
class FrameProblem:
    """Hold what one frame contributes: its camera, its evidence, and what its state is expected to be."""

    view: View
    """The expected camera."""
    terms: Sequence[FrameTerm]
    prior: StatePrior


@dataclass(frozen=True)
class FrameResidual:
    """Hold what is left of one frame's terms at a solution."""

    residual_px: np.ndarray
    """Distances of projected points from where they were seen, of all terms that have such, float64 (N,), pixels."""
    energies: tuple[float, ...]
    """Energy of each term, in the order of ``FrameProblem.terms``."""


@dataclass(frozen=True)
class JointFit:
    """Hold the joint solution of several frames."""

    shared: Shared
    states: tuple[FaceState, ...]
    energy: float
    frames: tuple[FrameResidual, ...]
    iterations: int
    reason: StopReason


@dataclass(frozen=True)
class _Point:
    """Hold all unknowns."""

    shared: Shared
    states: tuple[FaceState, ...]


@dataclass(frozen=True)
class _FrameNormal:
    """Hold the normal equations of one frame: its own block and its coupling (S, D) to what is shared."""

    hessian: np.ndarray
    gradient: np.ndarray
    coupling: np.ndarray


@dataclass(frozen=True)
class _JointNormal:
    """Hold the normal equations of all frames and of what they share, at one point."""

    frames: tuple[_FrameNormal, ...]
    hessian: np.ndarray
    gradient: np.ndarray


class _Linear:
    """Hold the energy at a point; the normal equations follow when a step is looked for."""

    def __init__(self, frames: Sequence[FrameProblem], point: _Point, shared_prior: SharedPrior) -> None:
        self._frames, self._point, self._shared_prior = frames, point, shared_prior
        self.terms = tuple(
            tuple(term.at(FramePoint(state, point.shared.view(frame.view), point.shared.shape)) for term in frame.terms)
            for frame, state in zip(frames, point.states, strict=True)
        )
        deviation = shared_prior.deviation(point.shared)
        energy = 0.5 * float(deviation @ shared_prior.precision @ deviation)
        for frame, state, terms in zip(frames, point.states, self.terms, strict=True):
            energy += frame.prior.energy(state) + sum(term.energy for term in terms)
        self.energy = energy

    @cached_property
    def normal(self) -> _JointNormal:
        """Return the normal equations."""
        prior = self._shared_prior
        hessian = prior.precision.copy()
        gradient = prior.precision @ prior.deviation(self._point.shared)
        frames = []
        for frame, state, terms in zip(self._frames, self._point.states, self.terms, strict=True):
            size = state.num_parameters
            total = np.zeros((size + len(gradient),) * 2)
            slope = np.zeros(size + len(gradient))
            for term in terms:
                quadratic = term.quadratic()
                total += quadratic.hessian
                slope += quadratic.gradient
            diagonal = np.arange(NUM_RIGID, size)
            total[diagonal, diagonal] += frame.prior.precision
            slope[diagonal] += frame.prior.precision * (state.values - frame.prior.mean)
            hessian += total[size:, size:]
            gradient += slope[size:]
            frames.append(_FrameNormal(total[:size, :size].copy(), slope[:size], total[size:, :size].copy()))
        return _JointNormal(tuple(frames), hessian, gradient)


def fit_joint(
    frames: Sequence[FrameProblem],
    starts: Sequence[FaceState],
    start: Shared,
    shared_prior: SharedPrior,
    config: SolverConfig,
    max_iterations: int,
) -> JointFit:
    """Find identity and camera shared by frames, together with the frames' states."""

    def linearize(point: _Point) -> _Linear:
        return _Linear(frames, point, shared_prior)

    def propose(point: _Point, linear: _Linear, damping: float) -> tuple[_Point, float]:
        return _joint_step(frames, linear.normal, point, shared_prior, damping)

    begin = _Point(start, tuple(starts))
    found = minimize(begin, linearize, propose, tolerance=config.tolerance, max_iterations=max_iterations)
    return JointFit(
        shared=found.point.shared,
        states=found.point.states,
        energy=found.linear.energy,
        frames=tuple(
            FrameResidual(
                np.concatenate([term.residual_px for term in terms] or [np.zeros(0)]),
                tuple(term.energy for term in terms),
            )
            for terms in found.linear.terms
        ),
        iterations=found.iterations,
        reason=found.reason,
    )


def _joint_step(
    frames: Sequence[FrameProblem], normal: _JointNormal, point: _Point, shared_prior: SharedPrior, damping: float
) -> tuple[_Point, float]:
    """Take one damped step: eliminate the frames, solve for what is shared, substitute back.

    Returns:
        The point after the step, and the energy that it should save.
    """
    blocks = [
        FrameBlock(equations.hessian, equations.gradient, state, frame.prior, damping)
        for equations, state, frame in zip(normal.frames, point.states, frames, strict=True)
    ]
    moves = ~shared_prior.is_held
    delta = np.zeros(len(normal.gradient))
    for _ in range(MAX_ROUNDS):
        hessian, gradient = normal.hessian.copy(), normal.gradient.copy()
        hessian.flat[:: len(gradient) + 1] *= 1 + damping
        for block, equations in zip(blocks, normal.frames, strict=True):
            taken_hessian, taken_gradient = block.eliminate(equations.coupling)
            hessian -= taken_hessian
            gradient -= taken_gradient
        if moves.any():
            delta[moves] = -solve_positive(hessian[np.ix_(moves, moves)], gradient[moves])
        crosses = [block.substitute(delta) for block in blocks]
        if not any(crosses):
            break
    states = tuple(
        state.step(block.delta, frame.prior.lower, frame.prior.upper)
        for state, block, frame in zip(point.states, blocks, frames, strict=True)
    )
    shift = point.shared.center_shift_px
    shared = Shared(
        point.shared.shape + delta[:-NUM_CAMERA],
        point.shared.log_zoom + float(delta[-3]),
        (shift[0] + float(delta[-2]), shift[1] + float(delta[-1])),
    )
    return _Point(shared, states), _expected_gain(normal, delta, [block.delta for block in blocks])


def _expected_gain(normal: _JointNormal, shared_delta: np.ndarray, deltas: Sequence[np.ndarray]) -> float:
    """Return by how much the quadratic model falls along a step of the shared parameters and the frames'."""
    change = float(normal.gradient @ shared_delta + 0.5 * shared_delta @ normal.hessian @ shared_delta)
    for frame, delta in zip(normal.frames, deltas, strict=True):
        change += float(frame.gradient @ delta + 0.5 * delta @ frame.hessian @ delta)
        change += float(shared_delta @ frame.coupling @ delta)
    return -change
