"""Robust Levenberg-Marquardt for many frames that share identity and camera zoom.

The per-frame blocks are eliminated first (Schur complement), so the cost is linear in the number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import SolverConfig
from flame.surface import SurfaceRig
from tracker.active_set import MAX_ROUNDS, FrameBlock, solve_positive
from tracker.levenberg_marquardt import StopReason, minimize
from tracker.priors import StatePrior
from tracker.solver import FrameNormal, normal_equations
from tracker.state import FaceState, View
from tracker.terms import Whitening


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
class _Point:
    """Hold all unknowns."""

    shared: Shared
    states: tuple[FaceState, ...]


@dataclass(frozen=True)
class _JointNormal:
    """Hold the normal equations of all frames and of what they share, at one point."""

    energy: float
    frames: tuple[FrameNormal, ...]
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

    def linearize(point: _Point) -> _JointNormal:
        return _joint_normal_equations(rig, whitenings, point.states, point.shared, prior, shared_prior, views, config)

    def propose(point: _Point, normal: _JointNormal, damping: float) -> tuple[_Point, float]:
        return _joint_step(normal, point, prior, shared_prior, damping)

    begin = _Point(start, tuple(starts))
    found = minimize(begin, linearize, propose, tolerance=config.tolerance, max_iterations=max_iterations)
    return JointFit(
        shared=found.point.shared,
        states=found.point.states,
        energy=found.linear.energy,
        residual_px=tuple(np.linalg.norm(frame.error_px, axis=1) for frame in found.linear.frames),
        iterations=found.iterations,
        reason=found.reason,
    )


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
        normal = normal_equations(person, whitening, state, prior, view.zoomed(shared.log_zoom), config.robust_width)
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
    normal: _JointNormal, point: _Point, prior: StatePrior, shared_prior: SharedPrior, damping: float
) -> tuple[_Point, float]:
    """Take one damped step: eliminate the frames, solve for what is shared, substitute back.

    Returns:
        The point after the step, and the energy that it should save.
    """
    blocks = [
        FrameBlock(frame.hessian, frame.gradient, state, prior, damping)
        for frame, state in zip(normal.frames, point.states, strict=True)
    ]
    delta = np.zeros(len(normal.gradient))
    for _ in range(MAX_ROUNDS):
        hessian, gradient = normal.hessian.copy(), normal.gradient.copy()
        hessian.flat[:: len(gradient) + 1] *= 1 + damping
        for block, coupling in zip(blocks, normal.coupling, strict=True):
            taken_hessian, taken_gradient = block.eliminate(coupling)
            hessian -= taken_hessian
            gradient -= taken_gradient
        if shared_prior.log_zoom_sigma == 0:
            hessian[-1, :], hessian[:, -1], hessian[-1, -1], gradient[-1] = 0.0, 0.0, 1.0, 0.0
        delta = -solve_positive(hessian, gradient)
        crosses = [block.substitute(delta) for block in blocks]
        if not any(crosses):
            break
    states = tuple(
        state.step(block.delta, prior.lower, prior.upper) for state, block in zip(point.states, blocks, strict=True)
    )
    shared = Shared(point.shared.shape + delta[:-1], point.shared.log_zoom + float(delta[-1]))
    return _Point(shared, states), _expected_gain(normal, delta, [block.delta for block in blocks])


def _expected_gain(normal: _JointNormal, shared_delta: np.ndarray, deltas: Sequence[np.ndarray]) -> float:
    """Return by how much the quadratic model falls along a step of the shared parameters and the frames'."""
    change = float(normal.gradient @ shared_delta + 0.5 * shared_delta @ normal.hessian @ shared_delta)
    for frame, coupling, delta in zip(normal.frames, normal.coupling, deltas, strict=True):
        change += float(frame.gradient @ delta + 0.5 * delta @ frame.hessian @ delta + shared_delta @ coupling @ delta)
    return -change
