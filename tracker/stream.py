"""Solve the frames of a clip in order, each from the one before; constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from configs.schema import SmoothingConfig
from flame.camera import Intrinsics
from flame.surface import PosedPoints, SurfaceRig
from priors.evidence import FaceEvidence
from tracker.dense_fitting import shows_face
from tracker.faces import Sighting
from tracker.priors import StatePrior
from tracker.scout import FittingModel, Person, initial_state, interocular_px
from tracker.solver import FrameFit, fit_frame
from tracker.state import NUM_RIGID, FaceState, View
from tracker.status import FrameStatus, judge
from tracker.terms import whiten

_COLD_RESTART_PERCENT = 4.0
"""A warm start that ends with a larger median residual, percent of the interocular distance, is tried again cold."""


@dataclass(frozen=True)
class FrameQuadratic:
    """Hold a frame's energy near its state, without what ties it to the frame before; D = 18 + E."""

    hessian: np.ndarray
    """Second derivatives, float64 (D, D)."""
    gradient: np.ndarray
    """First derivatives, float64 (D,)."""
    energy: float
    """The energy at the state: what the evidence leaves unexplained, and the priors' share."""

    def rise(self, step: np.ndarray) -> float:
        """Return by how much a step (D,) raises the energy."""
        return float((self.gradient + 0.5 * self.hessian @ step) @ step)


@dataclass(frozen=True)
class FaceFrame:
    """Hold the outcome of one person in one frame."""

    status: FrameStatus
    pts_seconds: float
    is_continuous: bool
    """Whether the face was followed from the frame before; smoothing never crosses a break."""
    state: FaceState | None
    """None where the face was not tracked."""
    residual_px: float
    """Median distance of the evidence from the fitted head, pixels; NaN where not tracked."""
    interocular_px: float
    """Distance of the eyes as seen from the front, pixels; NaN where not tracked."""
    presence: float
    """Probability that a face is there."""
    iterations: int
    """Solver iterations spent."""
    quadratic: FrameQuadratic | None = field(default=None, repr=False)
    """What the frame's own evidence says around the state; only on the way to the smoother."""


class PersonStream:
    """Solve one person's frames in order."""

    def __init__(self, person: Person, model: FittingModel, intrinsics: Intrinsics) -> None:
        """Prepare to track a person whose identity is known with a camera that is known."""
        self._rig: SurfaceRig = model.rig.with_shape(person.shape)
        dense = model.dense if model.config.solver.evidence == "dense" else None
        self._dense = None if dense is None else dense.of_person(person.shape)
        self._model = model
        self._view = View.of(intrinsics)
        self._keeps_quadratic = smooths_jointly(model.config.smoothing)
        self._before: FaceFrame | None = None
        self._posed_before: PosedPoints | None = None
        self._was_seen = False

    def solve(self, sighting: Sighting, pts_seconds: float) -> FaceFrame:
        """Fit one frame, warm-started from the frame before where the face was followed."""
        if sighting.evidence is None:
            status = FrameStatus.LOST if self._was_seen else FrameStatus.NO_FACE
            self._before = None
            return FaceFrame(status, pts_seconds, False, None, float("nan"), float("nan"), 0.0, 0)
        before = self._before if sighting.is_continuous else None
        fit = self._fit(sighting, before, pts_seconds)
        eyes_px = interocular_px(self._rig, fit.state, self._view)
        residual_px = float(np.median(fit.residual_px))
        if before is not None and 100 * residual_px > _COLD_RESTART_PERCENT * eyes_px:
            cold = self._fit(sighting, None, pts_seconds)
            if np.median(cold.residual_px) < residual_px:
                fit, before, residual_px = cold, None, float(np.median(cold.residual_px))
                eyes_px = interocular_px(self._rig, fit.state, self._view)
        frame = FaceFrame(
            status=judge(sighting.evidence, fit.residual_px, eyes_px, self._model.config.status),
            pts_seconds=pts_seconds,
            is_continuous=before is not None,
            state=fit.state,
            residual_px=residual_px,
            interocular_px=eyes_px,
            presence=sighting.evidence.presence,
            iterations=fit.iterations,
            quadratic=self._quadratic(fit, self._prior(before, pts_seconds)),
        )
        self._before, self._was_seen = frame, True
        self._posed_before = None if fit.normal is None else fit.normal.posed
        return frame

    def _fit(self, sighting: Sighting, before: FaceFrame | None, pts_seconds: float) -> FrameFit:
        """Fit from the frame before, or from a neutral face posed on the evidence."""
        evidence, config = sighting.evidence, self._model.config
        assert evidence is not None
        posed = None
        if before is not None and before.state is not None:
            start, iterations, posed = before.state, config.solver.max_iterations_warm, self._posed_before
        else:
            start, iterations = initial_state(self._rig, evidence, self._view), config.solver.max_iterations
        if self._dense is not None:
            fit = self._fit_maps(evidence, before, pts_seconds, start, iterations)
            if fit is not None:
                return fit
        whitening = whiten(evidence, config.solver.sigma_scale)
        prior = self._prior(before, pts_seconds)
        return fit_frame(self._rig, whitening, start, prior, self._view, config.solver, iterations, start_posed=posed)

    def _fit_maps(
        self, evidence: FaceEvidence, before: FaceFrame | None, pts_seconds: float, start: FaceState, iterations: int
    ) -> FrameFit | None:
        """Fit the frame's dense maps; what the residual says is still how far the landmarks are from the head.

        None where a network sees next to nothing of a face that has landmarks: they have to serve then.
        """
        assert self._dense is not None
        state, seconds = (None, 0.0) if before is None else (before.state, pts_seconds - before.pts_seconds)
        problem = self._dense.fitting.problem(evidence, self._view, state, seconds)
        if not shows_face(problem):
            return None
        fit = self._dense.fit(problem, start, iterations, is_warm=state is not None)
        posed = self._rig.pose(fit.state.joint_angles, fit.state.expression)
        points_px = self._view.project(fit.state.points_cam(posed.points_head))
        return replace(fit, residual_px=np.linalg.norm(points_px - evidence.points_px, axis=1))

    def _prior(self, before: FaceFrame | None, pts_seconds: float) -> StatePrior:
        """Return what the face is expected to do: in general, or so soon after the frame before."""
        if before is None or before.state is None:
            return self._model.prior
        change_per_second = self._model.config.regularization.change_per_second
        return self._model.prior.near(before.state, pts_seconds - before.pts_seconds, change_per_second)

    def _quadratic(self, fit: FrameFit, used: StatePrior) -> FrameQuadratic | None:
        """Take what the frame before has added to a frame's equations out of them again; None where nobody asks."""
        if fit.normal is None or not self._keeps_quadratic:
            return None
        general, values = self._model.prior, fit.state.values
        hessian, gradient = fit.normal.hessian.copy(), fit.normal.gradient.copy()
        hessian.flat[NUM_RIGID * (len(gradient) + 1) :: len(gradient) + 1] += general.precision - used.precision
        gradient[NUM_RIGID:] += general.precision * (values - general.mean) - used.precision * (values - used.mean)
        return FrameQuadratic(hessian, gradient, fit.normal.energy)


def smooths_jointly(config: SmoothingConfig) -> bool:
    """Return whether the smoother needs the frames' equations."""
    return config.method == "window" and config.half_width_seconds > 0
