"""Robust Levenberg-Marquardt for one frame.

Minimised is sum rho(W (project(x) - p)) + priors, with rho handled by re-weighting (IRLS). Steps solve
(H + lambda diag H) d = -g with H = J^T w J, within the bounds of the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import SolverConfig
from flame.surface import PosedPoints, SurfaceRig
from tracker.active_set import bounded_step
from tracker.levenberg_marquardt import StopReason, minimize
from tracker.priors import StatePrior
from tracker.state import NUM_RIGID, FaceState, View
from tracker.terms import Term, Whitening, cauchy_weights, correspondences


@dataclass(frozen=True)
class FrameFit:
    """Hold the solution of one frame."""

    state: FaceState
    energy: float
    residual_px: np.ndarray
    """Distance of every point from where it was seen, float64 (N,), pixels."""
    iterations: int
    reason: StopReason
    normal: FrameNormal | None = None
    """The normal equations at the solution; dense fits keep none."""


@dataclass(frozen=True)
class FrameNormal:
    """Hold the normal equations of one frame at one state; D = 18 + E."""

    energy: float
    hessian: np.ndarray
    gradient: np.ndarray
    weighted_jacobian: np.ndarray
    weighted_residual: np.ndarray
    error_px: np.ndarray
    by_points_cam: np.ndarray
    by_log_focal: np.ndarray
    root_weights: np.ndarray
    posed: PosedPoints
    """The rig at this state."""


def fit_frame(
    rig: SurfaceRig,
    whitening: Whitening,
    start: FaceState,
    prior: StatePrior,
    view: View,
    config: SolverConfig,
    max_iterations: int,
    *,
    extra_terms: Sequence[Term] = (),
    start_posed: PosedPoints | None = None,
) -> FrameFit:
    """Find the state of one face in one frame; identity (in ``rig``) and camera are given.

    ``extra_terms`` are minimised together with the correspondences; see ``tracker.terms.Term``. Where the rig has been
    posed at ``start`` already, as at the end of the frame before, ``start_posed`` spares doing it again.
    """

    def linearize(state: FaceState) -> FrameNormal:
        posed = start_posed if state is start else None
        return normal_equations(rig, whitening, state, prior, view, config.robust_width, extra_terms, posed)

    def propose(state: FaceState, normal: FrameNormal, damping: float) -> tuple[FaceState, float]:
        delta, expected_gain = bounded_step(normal.hessian, normal.gradient, state, prior, damping)
        return state.step(delta, prior.lower, prior.upper), expected_gain

    found = minimize(start, linearize, propose, tolerance=config.tolerance, max_iterations=max_iterations)
    return FrameFit(
        state=found.point,
        energy=found.linear.energy,
        residual_px=np.linalg.norm(found.linear.error_px, axis=1),
        iterations=found.iterations,
        reason=found.reason,
        normal=found.linear,
    )


def normal_equations(
    rig: SurfaceRig,
    whitening: Whitening,
    state: FaceState,
    prior: StatePrior,
    view: View,
    robust_width: float,
    extra_terms: Sequence[Term] = (),
    posed: PosedPoints | None = None,
) -> FrameNormal:
    """Linearise all terms of one frame; ``posed`` is the rig at this state, where that is known already."""
    posed = posed or rig.pose(state.joint_angles, state.expression)
    term = correspondences(posed, state, view, whitening)
    weights, energy = cauchy_weights(term.residual, robust_width)
    root = np.repeat(np.sqrt(weights), 2)
    jacobian = term.by_state
    jacobian *= root[:, None]
    residual = term.residual.ravel() * root
    hessian = jacobian.T @ jacobian
    gradient = jacobian.T @ residual
    deviation = (state.values - prior.mean) * prior.precision
    energy += 0.5 * float(deviation @ (state.values - prior.mean))
    gradient[NUM_RIGID:] += deviation
    diagonal = np.arange(NUM_RIGID, len(gradient))
    hessian[diagonal, diagonal] += prior.precision
    for extra_term in extra_terms:
        extra_residual, by_state = extra_term(posed, state, view)
        energy += 0.5 * float(extra_residual @ extra_residual)
        gradient += by_state.T @ extra_residual
        hessian += by_state.T @ by_state
    return FrameNormal(
        energy=energy,
        hessian=hessian,
        gradient=gradient,
        weighted_jacobian=jacobian,
        weighted_residual=residual,
        error_px=term.error_px,
        by_points_cam=term.by_points_cam,
        by_log_focal=term.by_log_focal,
        root_weights=root,
        posed=posed,
    )
