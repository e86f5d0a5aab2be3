"""Robust Levenberg-Marquardt for one frame, and for many frames that share identity and focal length.

Both minimise sum rho(W (project(x) - p)) + priors, with rho handled by re-weighting (IRLS). Steps solve
(H + lambda diag H) d = -g with H = J^T w J, parameters at a bound that the gradient pushes against are held.
For many frames the per-frame blocks are eliminated first (Schur complement), so the cost is linear in frames.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from configs.schema import SolverConfig
from flame.surface import SurfaceRig
from tracker.priors import StatePrior
from tracker.state import NUM_RIGID, FaceState, View
from tracker.terms import Whitening, cauchy_weights, correspondences

_INITIAL_DAMPING = 1e-8
_DAMPING_GROWTH = 30.0
_MAX_DAMPING = 1e6
_MAX_BOUND_ROUNDS = 4


class StopReason(enum.Enum):
    """Say why a solve ended."""

    CONVERGED = "no step is expected to lower the energy by more than the tolerance"
    MAX_ITERATIONS = "the largest number of iterations was reached"
    NO_DESCENT = "no step lowered the energy"


@dataclass(frozen=True)
class FrameFit:
    """Hold the solution of one frame."""

    state: FaceState
    energy: float
    residual_px: np.ndarray
    """Distance of every point from where it was seen, float64 (N,), pixels."""
    iterations: int
    reason: StopReason


@dataclass(frozen=True)
class _Normal:
    """Hold the normal equations of one frame at one state."""

    energy: float
    hessian: np.ndarray
    gradient: np.ndarray
    weighted_jacobian: np.ndarray
    weighted_residual: np.ndarray
    error_px: np.ndarray
    by_points_cam: np.ndarray
    by_log_focal: np.ndarray
    root_weights: np.ndarray


def fit_frame(
    rig: SurfaceRig,
    whitening: Whitening,
    start: FaceState,
    prior: StatePrior,
    view: View,
    config: SolverConfig,
    max_iterations: int,
) -> FrameFit:
    """Find the state of one face in one frame; identity (in ``rig``) and camera are given."""

    def linearize(state: FaceState) -> _Normal:
        return _normal_equations(rig, whitening, state, prior, view, config.robust_width)

    state, normal, damping = start, linearize(start), _INITIAL_DAMPING
    reason = StopReason.MAX_ITERATIONS
    num_iterations = 0
    while num_iterations < max_iterations:
        num_iterations += 1
        delta, expected_gain = _bounded_step(normal, state, prior, damping)
        if expected_gain < config.tolerance * normal.energy:
            reason = StopReason.CONVERGED
            break
        candidate = state.step(delta, prior.lower, prior.upper)
        proposed = linearize(candidate)
        if not proposed.energy < normal.energy:
            damping *= _DAMPING_GROWTH
            if damping > _MAX_DAMPING:
                reason = StopReason.NO_DESCENT
                break
            continue
        state, normal, damping = candidate, proposed, max(damping / _DAMPING_GROWTH, _INITIAL_DAMPING)
    return FrameFit(
        state=state,
        energy=normal.energy,
        residual_px=np.linalg.norm(normal.error_px, axis=1),
        iterations=num_iterations,
        reason=reason,
    )


def _normal_equations(
    rig: SurfaceRig,
    whitening: Whitening,
    state: FaceState,
    prior: StatePrior,
    view: View,
    robust_width: float,
) -> _Normal:
    """Linearise all terms of one frame."""
    posed = rig.pose(state.joint_angles, state.expression)
    term = correspondences(posed, state, view, whitening)
    weights, energy = cauchy_weights(term.residual, robust_width)
    root = np.repeat(np.sqrt(weights), 2)
    jacobian = term.by_state * root[:, None]
    residual = term.residual.ravel() * root
    hessian = jacobian.T @ jacobian
    gradient = jacobian.T @ residual
    deviation = (state.values - prior.mean) * prior.precision
    energy += 0.5 * float(deviation @ (state.values - prior.mean))
    gradient[NUM_RIGID:] += deviation
    diagonal = np.arange(NUM_RIGID, len(gradient))
    hessian[diagonal, diagonal] += prior.precision
    return _Normal(
        energy=energy,
        hessian=hessian,
        gradient=gradient,
        weighted_jacobian=jacobian,
        weighted_residual=residual,
        error_px=term.error_px,
        by_points_cam=term.by_points_cam,
        by_log_focal=term.by_log_focal,
        root_weights=root,
    )


def _held(gradient: np.ndarray, state: FaceState, prior: StatePrior) -> np.ndarray:
    """Return which parameters are at a bound that the gradient pushes against, bool (18 + E,)."""
    held = np.zeros(len(gradient), dtype=bool)
    values, slope = state.values, gradient[NUM_RIGID:]
    held[NUM_RIGID:] = ((values <= prior.lower) & (slope > 0)) | ((values >= prior.upper) & (slope < 0))
    return held


def _bounded_step(normal: _Normal, state: FaceState, prior: StatePrior, damping: float) -> tuple[np.ndarray, float]:
    """Return the damped Gauss-Newton step within the bounds, and the energy that it should save.

    Parameters whose step would cross a bound go to the bound, and the step of the others is found again.
    """
    hessian, gradient = normal.hessian.copy(), normal.gradient
    hessian.flat[:: len(gradient) + 1] *= 1 + damping
    room_down, room_up = prior.lower - state.values, prior.upper - state.values
    delta = np.zeros(len(gradient))
    free = ~_held(gradient, state, prior)
    for _ in range(_MAX_BOUND_ROUNDS):
        rows = hessian[free]
        slope = gradient[free] + rows[:, ~free] @ delta[~free]
        delta[free] = -_solve_positive(rows[:, free], slope)
        tail = delta[NUM_RIGID:]
        crosses = (tail < room_down) | (tail > room_up)
        if not crosses.any():
            break
        tail[crosses] = np.clip(tail[crosses], room_down[crosses], room_up[crosses])
        free[NUM_RIGID:] &= ~crosses
    return delta, -float(gradient @ delta + 0.5 * delta @ (normal.hessian @ delta))


def _solve_positive(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve a symmetric positive definite system; where rounding has made it singular, in the least-squares sense."""
    _, solution, failed_at = scipy.linalg.lapack.dposv(matrix, right, lower=1)
    if failed_at:
        return np.linalg.lstsq(matrix, right, rcond=None)[0]
    return solution


def _hold(hessian: np.ndarray, gradient: np.ndarray, held: np.ndarray) -> None:
    """Decouple held parameters in place, so that their step is zero."""
    gradient[held] = 0.0
    hessian[held, :] = 0.0
    hessian[:, held] = 0.0
    hessian[held, held] = 1.0


@dataclass(frozen=True)
class Shared:
    """Hold what all frames of a person share: identity, in the rig's directions, and the camera's zoom."""

    shape: np.ndarray
    """Coefficients along the rig's shape directions, float64 (R,)."""
    log_zoom: float
    """Natural logarithm of the factor by which all views' expected focal lengths are multiplied."""


@dataclass(frozen=True)
class JointFit:
    """Hold the joint solution of several frames."""

    shared: Shared
    states: tuple[FaceState, ...]
    energy: float
    residual_px: tuple[np.ndarray, ...]
    """Distance of every point from where it was seen, float64 (N,) per frame, pixels."""
    iterations: int
    reason: StopReason


@dataclass(frozen=True)
class SharedPrior:
    """Hold the expected identity and zoom, both around zero."""

    identity_sigma: float
    """Standard deviation of the shape coefficients."""
    log_zoom_sigma: float
    """Standard deviation of the logarithmic zoom; zero holds the focal lengths."""


@dataclass(frozen=True)
class _JointNormal:
    """Hold the normal equations of all frames and of what they share, at one point."""

    energy: float
    frames: tuple[_Normal, ...]
    coupling: tuple[np.ndarray, ...]
    hessian: np.ndarray
    gradient: np.ndarray


def fit_joint(
    rig: SurfaceRig,
    whitenings: Sequence[Whitening],
    starts: Sequence[FaceState],
    start: Shared,
    prior: StatePrior,
    shared_prior: SharedPrior,
    views: Sequence[View],
    config: SolverConfig,
    max_iterations: int,
) -> JointFit:
    """Find identity and focal length shared by frames, together with the frames' states."""

    def linearize(shared: Shared, states: Sequence[FaceState]) -> _JointNormal:
        return _joint_normal_equations(rig, whitenings, states, shared, prior, shared_prior, views, config)

    shared, states, damping = start, tuple(starts), _INITIAL_DAMPING
    normal = linearize(shared, states)
    reason = StopReason.MAX_ITERATIONS
    num_iterations = 0
    while num_iterations < max_iterations:
        num_iterations += 1
        new_shared, new_states = _joint_step(normal, shared, states, prior, shared_prior, damping)
        proposed = linearize(new_shared, new_states)
        if not proposed.energy < normal.energy:
            damping *= _DAMPING_GROWTH
            if damping > _MAX_DAMPING:
                reason = StopReason.NO_DESCENT
                break
            continue
        gain = normal.energy - proposed.energy
        shared, states, normal = new_shared, new_states, proposed
        damping = max(damping / _DAMPING_GROWTH, _INITIAL_DAMPING)
        if gain < config.tolerance * normal.energy:
            reason = StopReason.CONVERGED
            break
    residuals_px = tuple(np.linalg.norm(frame.error_px, axis=1) for frame in normal.frames)
    return JointFit(shared, states, normal.energy, residuals_px, num_iterations, reason)


def _joint_normal_equations(
    rig: SurfaceRig,
    whitenings: Sequence[Whitening],
    states: Sequence[FaceState],
    shared: Shared,
    prior: StatePrior,
    shared_prior: SharedPrior,
    views: Sequence[View],
    config: SolverConfig,
) -> _JointNormal:
    """Linearise every frame, and its dependence on the shared parameters (shape first, zoom last)."""
    person = rig.with_shape(shared.shape)
    num_shared = rig.num_shapes + 1
    hessian = np.zeros((num_shared, num_shared))
    gradient = np.zeros(num_shared)
    frames, coupling, energy = [], [], 0.0
    for whitening, state, view in zip(whitenings, states, views, strict=True):
        normal = _normal_equations(person, whitening, state, prior, view.zoomed(shared.log_zoom), config.robust_width)
        by_shape = person.shape_jacobian(state.joint_angles, normal.by_points_cam @ state.rotation)
        by_shared = np.column_stack((by_shape.reshape(-1, rig.num_shapes), normal.by_log_focal))
        by_shared *= normal.root_weights[:, None]
        hessian += by_shared.T @ by_shared
        gradient += by_shared.T @ normal.weighted_residual
        coupling.append(by_shared.T @ normal.weighted_jacobian)
        frames.append(normal)
        energy += normal.energy
    diagonal = np.arange(rig.num_shapes)
    hessian[diagonal, diagonal] += shared_prior.identity_sigma**-2
    gradient[:-1] += shared.shape * shared_prior.identity_sigma**-2
    energy += 0.5 * float(shared.shape @ shared.shape) * shared_prior.identity_sigma**-2
    if shared_prior.log_zoom_sigma > 0:
        hessian[-1, -1] += shared_prior.log_zoom_sigma**-2
        gradient[-1] += shared.log_zoom * shared_prior.log_zoom_sigma**-2
        energy += 0.5 * (shared.log_zoom / shared_prior.log_zoom_sigma) ** 2
    return _JointNormal(energy, tuple(frames), tuple(coupling), hessian, gradient)


def _joint_step(
    normal: _JointNormal,
    shared: Shared,
    states: Sequence[FaceState],
    prior: StatePrior,
    shared_prior: SharedPrior,
    damping: float,
) -> tuple[Shared, tuple[FaceState, ...]]:
    """Take one damped step: eliminate the frames, solve for what is shared, substitute back."""
    hessian, gradient = normal.hessian.copy(), normal.gradient.copy()
    hessian.flat[:: len(gradient) + 1] *= 1 + damping
    eliminated = []
    for frame, coupling, state in zip(normal.frames, normal.coupling, states, strict=True):
        held = _held(frame.gradient, state, prior)
        block, slope, cross = frame.hessian.copy(), frame.gradient.copy(), coupling.copy()
        _hold(block, slope, held)
        cross[:, held] = 0.0
        block.flat[:: len(slope) + 1] *= 1 + damping
        solved = _solve_positive(block, np.column_stack((cross.T, slope)))
        hessian -= cross @ solved[:, :-1]
        gradient -= cross @ solved[:, -1]
        eliminated.append(solved)
    if shared_prior.log_zoom_sigma == 0:
        hessian[-1, :], hessian[:, -1], hessian[-1, -1], gradient[-1] = 0.0, 0.0, 1.0, 0.0
    delta = -_solve_positive(hessian, gradient)
    new_states = tuple(
        state.step(-(solved[:, :-1] @ delta + solved[:, -1]), prior.lower, prior.upper)
        for state, solved in zip(states, eliminated, strict=True)
    )
    new_shared = Shared(shared.shape + delta[:-1], shared.log_zoom + float(delta[-1]))
    return new_shared, new_states
