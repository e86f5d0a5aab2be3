"""What single surface points say in the dense energy: landmarks, correspondences, irises, lids."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from configs.schema import EnergyConfig
from flame.surface import SurfacePoints, SurfaceRig
from tracker.frame_terms import FrameTerm, LandmarkTerm, VectorTerm, cauchy, squares
from tracker.reference_problem import CorrespondenceEvidence, DenseProblem, PointEvidence
from tracker.terms import Whitening

RigOf = Callable[[SurfacePoints], SurfaceRig]
"""Returns the rig of surface points."""


def point_terms(rig_of: RigOf, problem: DenseProblem, energy: EnergyConfig) -> list[FrameTerm]:
    """Return the terms of one image whose weights are not 0."""
    terms: list[FrameTerm] = []
    size = problem.size_px
    for weight, evidence in ((energy.landmarks, problem.landmarks), (energy.iris, problem.irises)):
        if weight and evidence is not None:
            terms.append(_landmark_term(rig_of, evidence, weight, size))
    if energy.correspondences and problem.correspondences is not None:
        terms.append(_correspondence_term(rig_of, problem.correspondences, energy))
    if energy.eye_closure and problem.lids is not None:
        lids = problem.lids
        seen = np.flatnonzero(np.isfinite(lids.offset_px).all(axis=1))
        both = SurfacePoints(
            np.concatenate((lids.upper.triangles[seen], lids.lower.triangles[seen])),
            np.concatenate((lids.upper.barycentric[seen], lids.lower.barycentric[seen])),
        )
        weight = math.sqrt(2 * energy.eye_closure / max(len(seen), 1)) / size
        terms.append(VectorTerm(rig_of(both), lids.offset_px[seen], weight))
    return terms


def _landmark_term(rig_of: RigOf, evidence: PointEvidence, weight: float, size_px: int) -> LandmarkTerm:
    """Return the mean squared distance of points that are seen."""
    seen = np.flatnonzero(np.isfinite(evidence.points_px).all(axis=1))
    inverse_sigma = math.sqrt(2 * weight / max(len(seen), 1)) / size_px
    whitening = Whitening(evidence.points_px[seen], np.tile(inverse_sigma * np.eye(2), (len(seen), 1, 1)))
    return LandmarkTerm(rig_of(evidence.points.take(seen)), whitening, squares)


def _correspondence_term(rig_of: RigOf, evidence: CorrespondenceEvidence, energy: EnergyConfig) -> LandmarkTerm:
    """Return the robust mean of all surface points."""
    share, norm = energy.correspondences / len(evidence.points), cauchy(energy.correspondence_width)

    def kernel(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies, weights = norm(squared)
        return share * energies, share * weights

    return LandmarkTerm(rig_of(evidence.points), evidence.whitening, kernel)
