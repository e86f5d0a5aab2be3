"""Solve the frames of a clip in order, each from the one before; constant memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.camera import Intrinsics
from flame.surface import SurfaceRig
from tracker.faces import Sighting
from tracker.scout import FittingModel, Person, initial_state, interocular_px
from tracker.solver import FrameFit, fit_frame
from tracker.state import FaceState, View
from tracker.status import FrameStatus, judge
from tracker.terms import whiten

_COLD_RESTART_PERCENT = 4.0
"""A warm start that ends with a larger median residual, percent of the interocular distance, is tried again cold."""


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


class PersonStream:
    """Solve one person's frames in order."""

    def __init__(self, person: Person, model: FittingModel, intrinsics: Intrinsics) -> None:
        """Prepare to track a person whose identity is known with a camera that is known."""
        self._rig: SurfaceRig = model.rig.with_shape(person.shape)
        self._model = model
        self._view = View.of(intrinsics)
        self._before: FaceFrame | None = None
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
        if before is not None and 100 * float(np.median(fit.residual_px)) > _COLD_RESTART_PERCENT * eyes_px:
            cold = self._fit(sighting, None, pts_seconds)
            if np.median(cold.residual_px) < np.median(fit.residual_px):
                fit, before = cold, None
                eyes_px = interocular_px(self._rig, fit.state, self._view)
        frame = FaceFrame(
            status=judge(sighting.evidence, fit.residual_px, eyes_px, self._model.config.status),
            pts_seconds=pts_seconds,
            is_continuous=before is not None,
            state=fit.state,
            residual_px=float(np.median(fit.residual_px)),
            interocular_px=eyes_px,
            presence=sighting.evidence.presence,
            iterations=fit.iterations,
        )
        self._before, self._was_seen = frame, True
        return frame

    def _fit(self, sighting: Sighting, before: FaceFrame | None, pts_seconds: float) -> FrameFit:
        """Fit from the frame before, or from a neutral face posed on the evidence."""
        evidence, config = sighting.evidence, self._model.config
        assert evidence is not None
        prior, iterations = self._model.prior, config.solver.max_iterations
        if before is not None and before.state is not None:
            start = before.state
            elapsed_seconds = pts_seconds - before.pts_seconds
            prior = prior.near(start, elapsed_seconds, config.regularization.change_per_second)
            iterations = config.solver.max_iterations_warm
        else:
            start = initial_state(self._rig, evidence, self._view)
        whitening = whiten(evidence, config.solver.sigma_scale)
        return fit_frame(self._rig, whitening, start, prior, self._view, config.solver, iterations)
