"""Track with dense evidence: cut the face out, have the prior draw its maps, and fit the dense energy to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.schema import Config
from flame.camera import Intrinsics
from flame.model import HeadModel
from priors.evidence import FaceEvidence, Prior
from priors.placed_maps import with_camera_normals
from tracker.adam import fit_adam
from tracker.dense_solver import DenseModel, fit_dense
from tracker.joint_solver import Shared
from tracker.levenberg_marquardt import StopReason
from tracker.priors import StatePrior
from tracker.reference_problem import (
    CorrespondenceEvidence,
    DenseProblem,
    LidEvidence,
    PointEvidence,
    Unknowns,
    look_up_vertices,
)
from tracker.solver import FrameFit
from tracker.state import FaceState, View
from tracker.terms import whiten

_MARGIN = 1.25
"""Side of the square that is cut out, in units of the points' extent."""
_LEAST_SEEN = 0.01
"""Share of that square below which maps say too little to place a head by."""


@dataclass(frozen=True)
class Crop:
    """Name a square of an image and the side of the picture that it becomes."""

    corner_px: np.ndarray
    """Left and top edge, float64 (2,), pixels of the image."""
    scale: float
    """Pixels of the picture per pixel of the image."""
    size_px: int
    """Side of the picture."""

    @staticmethod
    def around(points_px: np.ndarray, size_px: int) -> Crop:
        """Return the square around points (N, 2)."""
        low, high = points_px.min(axis=0), points_px.max(axis=0)
        side = _MARGIN * max(float((high - low).max()), 1.0)
        return Crop((low + high - side) / 2, size_px / side, size_px)

    def points(self, points_px: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the image in the picture."""
        return (points_px - self.corner_px) * self.scale

    def intrinsics(self, view: View) -> Intrinsics:
        """Return the camera of the picture."""
        cropped = View(view.focal_px * self.scale, self.points(view.center_px))
        return cropped.intrinsics(self.size_px, self.size_px)

    def evidence(self, evidence: FaceEvidence) -> FaceEvidence:
        """Return evidence in the picture."""
        region = evidence.region
        x, y = self.points(np.array(region.center_px)).tolist()
        placed = evidence.image_from_picture
        if placed is not None:
            placed = np.column_stack((placed[:, :2] * self.scale, self.points(placed[:, 2])))
        return replace(
            evidence,
            points_px=self.points(evidence.points_px),
            sigma_px=evidence.sigma_px * self.scale,
            points_depth_px=evidence.points_depth_px * self.scale,
            region=replace(region, center_px=(x, y), size_px=region.size_px * self.scale),
            image_from_picture=placed,
        )


@dataclass(frozen=True)
class DenseFitting:
    """Fit the dense energy to what a prior draws."""

    model: DenseModel
    prior: Prior
    config: Config
    unknowns: Unknowns

    @staticmethod
    def of(head: HeadModel, prior: Prior, state_prior: StatePrior, config: Config) -> DenseFitting:
        """Prepare a head; joints and expressions keep within the bounds of the state prior.

        Raises:
            InputError: the head has no texture coordinates.
        """
        model = DenseModel.of(head, num_threads=1)
        model = replace(model, lower=state_prior.lower, upper=state_prior.upper)
        has_gaze = prior.eyes is not None and config.energy.iris > 0
        has_neck = config.energy.neck > 0
        return DenseFitting(model, prior, config, Unknowns(neck=has_neck, eyes=has_gaze, principal_point=False))

    def problem(
        self, evidence: FaceEvidence, view: View, before: FaceState | None = None, seconds: float = 1 / 30
    ) -> DenseProblem:
        """Return what one frame says, in a picture of the face; ``before`` was ``seconds`` ago."""
        size_px, energy = self.config.solver.dense_px, self.config.energy
        crop = Crop.around(evidence.points_px, size_px)
        local = crop.evidence(evidence)
        intrinsics = crop.intrinsics(view)
        maps = with_camera_normals(self.prior.dense(local, size_px, size_px), intrinsics)
        lookups = look_up_vertices(self.model.head, maps, energy.uv_max_distance, energy.uv_is_subpixel)
        landmarks = irises = lids = None
        if self.prior.eyes is not None:
            eyes, surface = self.prior.eyes, self.prior.surface
            is_seen = np.isfinite(local.sigma_px).all(axis=1, keepdims=True)
            seen_px = np.where(is_seen, local.points_px, np.nan)
            landmarks = PointEvidence(surface.take(eyes.contours), seen_px[eyes.contours])
            irises = PointEvidence(surface.take(eyes.irises), seen_px[eyes.irises])
            offset_px = seen_px[eyes.upper_lids] - seen_px[eyes.lower_lids]
            lids = LidEvidence(surface.take(eyes.upper_lids), surface.take(eyes.lower_lids), offset_px)
        return DenseProblem(
            head=self.model.head,
            maps=maps,
            intrinsics=intrinsics,
            lookups=lookups,
            landmarks=landmarks,
            correspondences=(
                CorrespondenceEvidence(self.prior.surface, whiten(local)) if energy.correspondences > 0 else None
            ),
            irises=irises,
            lids=lids,
            previous=before,
            seconds_since_previous=max(seconds, 1e-3),
        )

    def identify(
        self, problems: Sequence[DenseProblem], starts: Sequence[FaceState], *, focal_is_known: bool
    ) -> Shared:
        """Find the identity, and the zoom unless the focal length is known, of one person in several frames."""
        unknowns = replace(self.unknowns, log_focal=not focal_is_known)
        config = self.config
        if config.solver.method == "adam":
            found = fit_adam(problems, starts, config.energy, config.adam, unknowns=unknowns)
            return Shared(found.shape, found.log_focal)
        fit = fit_dense(
            self.model,
            problems,
            starts,
            config.energy,
            config.solver,
            config.scout.iterations,
            unknowns=unknowns,
            log_zoom_sigma=config.regularization.log_focal,
        )
        return Shared(fit.shape, fit.log_focal)

    def of_person(self, shape: np.ndarray) -> PersonDenseFitting:
        """Return what fits the frames of the person with these identity coefficients (I,)."""
        person = self.model.of_person(shape)
        held = replace(self.unknowns, shape=False, log_focal=False, principal_point=False)
        return PersonDenseFitting(replace(self, model=person, unknowns=held), shape)


@dataclass(frozen=True)
class PersonDenseFitting:
    """Fit single frames of a person whose identity is known."""

    fitting: DenseFitting
    """Its rig is the person's and has no shape directions left."""
    shape: np.ndarray
    """Identity coefficients, float64 (I,)."""

    def fit(self, problem: DenseProblem, start: FaceState, max_iterations: int, *, is_warm: bool) -> FrameFit:
        """Find the state of one frame."""
        fitting, config = self.fitting, self.fitting.config
        if config.solver.method == "adam":
            found = fit_adam(
                [problem], [start], config.energy, config.adam, shape=self.shape, unknowns=fitting.unknowns
            )
            return FrameFit(
                found.states[0], float(found.energies[-1]), np.zeros(0), config.adam.steps, StopReason.MAX_ITERATIONS
            )
        found = fit_dense(
            fitting.model,
            [problem],
            [start],
            config.energy,
            config.solver,
            max_iterations,
            unknowns=fitting.unknowns,
            is_warm=is_warm,
        )
        joint = found.joint
        return FrameFit(found.states[0], joint.energy, joint.frames[0].residual_px, joint.iterations, joint.reason)


def shows_face(problem: DenseProblem) -> bool:
    """Return whether the maps show enough of a face to be fitted; a network may see none where landmarks were found."""
    return float(problem.maps.mask.mean()) >= _LEAST_SEEN
