"""The dense energy of one or many images of a person as a problem for Levenberg-Marquardt.

Weights and meaning of the terms are those of ``EnergyConfig``; ``tracker.adam`` minimises the same energy as the paper
does. With squared terms w |x|^2 the priors' precisions are 2 w.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from configs.schema import EnergyConfig, SolverConfig
from flame.mesh_rig import MeshRig
from flame.model import HeadModel
from flame.surface import NUM_JOINT_ANGLES, SurfacePoints, build_surface_rig
from priors.dense_surface import DenseSurface
from tracker.dense_term import COARSE, FINE, DenseTerm, Detail
from tracker.frame_terms import FrameTerm, LandmarkTerm, StateTerm, VectorTerm, squares
from tracker.joint_solver import FrameProblem, JointFit, Shared, SharedPrior, fit_joint
from tracker.priors import StatePrior
from tracker.reference_problem import DenseProblem, PointEvidence, Unknowns, padded
from tracker.state import FIRST_EXPRESSION, NUM_RIGID, FaceState, View
from tracker.terms import Whitening

_FRAME_SECONDS = 1 / 30
_COARSE_SHAPES, _COARSE_ITERATIONS, _COARSE_TOLERANCE = 80, 5, 1e-2
_NECK, _JAW, _LEFT_EYE, _RIGHT_EYE = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)


@dataclass(frozen=True, eq=False)
class DenseModel:
    """Hold a head as dense fitting needs it; made once."""

    head: HeadModel
    rig: MeshRig
    surface: DenseSurface
    lower: np.ndarray
    """Lower bounds of joint angles and expression, float64 (12 + E,)."""
    upper: np.ndarray
    """Upper bounds, float64 (12 + E,)."""
    mirror_precision: np.ndarray = field(repr=False)
    """Hessian of half the mean squared asymmetry of the neutral head by shape, float64 (I, I), metres squared."""
    mirror_slope: np.ndarray = field(repr=False)
    """Its gradient at the mean head, float64 (I,)."""
    pool: ThreadPoolExecutor | None = None
    """Threads for the sums over pixels and vertices."""

    @cached_property
    def coarse(self) -> DenseModel:
        """Return the model with the first identity coefficients only."""
        count = min(_COARSE_SHAPES, self.rig.num_shapes)
        directions = np.eye(self.rig.num_shapes)[:, :count]
        return replace(
            self,
            rig=self.rig.with_shape_basis(directions),
            mirror_precision=self.mirror_precision[:count, :count],
            mirror_slope=self.mirror_slope[:count],
        )

    @staticmethod
    def of(
        head: HeadModel,
        *,
        is_bounded: bool = True,
        num_threads: int | None = None,
        dtype: type[np.floating] = np.float32,
    ) -> DenseModel:
        """Prepare a head.

        Args:
            head: the head model.
            is_bounded: whether expressions keep within the head's bounds, if it has any.
            num_threads: threads for the sums; by default one for every processor.
            dtype: precision of the bases; float64 is for checks of derivatives.
        """
        num_values = NUM_JOINT_ANGLES + head.num_expression
        lower, upper = np.full(num_values, -np.inf), np.full(num_values, np.inf)
        if is_bounded and head.expression_bounds is not None:
            bounds = head.expression_bounds.detach().cpu().numpy().astype(np.float64)
            lower[NUM_JOINT_ANGLES:], upper[NUM_JOINT_ANGLES:] = bounds.T
        return DenseModel(
            head, MeshRig.of(head, dtype), DenseSurface.of(head), lower, upper, *_asymmetry(head), _pool(num_threads)
        )


@dataclass(frozen=True, eq=False)
class DenseFit:
    """Hold what dense fitting found."""

    states: tuple[FaceState, ...]
    shape: np.ndarray
    """Identity coefficients, float64 (I,)."""
    log_focal: float
    """Logarithm of the factor on the expected focal lengths."""
    center_shift_px: tuple[float, float]
    """Shift of the principal points, pixels."""
    joint: JointFit
    """Energies, iterations and why the solver stopped."""


def fit_dense(
    model: DenseModel,
    problems: Sequence[DenseProblem],
    starts: Sequence[FaceState],
    energy: EnergyConfig,
    solver: SolverConfig,
    max_iterations: int,
    *,
    unknowns: Unknowns | None = None,
    start: Shared | None = None,
    is_warm: bool = False,
) -> DenseFit:
    """Fit one person in one or more images; identity, zoom and principal point are shared, all else is each image's.

    Args:
        model: the head.
        problems: what each image says; the anchor of the first is the person's.
        starts: where to begin, one state per image.
        energy: weights of the terms.
        solver: when to stop.
        max_iterations: Levenberg-Marquardt iterations at most.
        unknowns: what is solved for; by default what the paper solves for.
        start: identity and camera to begin with.
        is_warm: whether the start is near the solution, so that the coarse look, which finds the way, can be left out.
    """
    unknowns = unknowns or Unknowns()
    begin = start or Shared(np.zeros(model.rig.num_shapes))
    if not is_warm:
        coarse = model.coarse
        few = replace(begin, shape=begin.shape[: coarse.rig.num_shapes])
        found = _fit(
            coarse,
            problems,
            starts,
            energy,
            replace(solver, tolerance=_COARSE_TOLERANCE),
            _COARSE_ITERATIONS,
            unknowns,
            few,
            COARSE,
        )
        rest = begin.shape[coarse.rig.num_shapes :]
        begin, starts = replace(found.shared, shape=np.concatenate((found.shared.shape, rest))), found.states
    fit = _fit(model, problems, starts, energy, solver, max_iterations, unknowns, begin, FINE)
    return DenseFit(fit.states, fit.shared.shape, fit.shared.log_zoom, fit.shared.center_shift_px, fit)


def _fit(
    model: DenseModel,
    problems: Sequence[DenseProblem],
    starts: Sequence[FaceState],
    energy: EnergyConfig,
    solver: SolverConfig,
    max_iterations: int,
    unknowns: Unknowns,
    start: Shared,
    detail: Detail,
) -> JointFit:
    """Fit at one level of detail."""
    frames = [
        frame_problem(model, problem, energy, unknowns, state, detail)
        for problem, state in zip(problems, starts, strict=True)
    ]
    return fit_joint(
        frames, starts, start, identity_prior(model, problems[0], energy, unknowns), solver, max_iterations
    )


def frame_problem(
    model: DenseModel,
    problem: DenseProblem,
    energy: EnergyConfig,
    unknowns: Unknowns,
    start: FaceState,
    detail: Detail = FINE,
) -> FrameProblem:
    """Return the terms of one image; joints that are not solved for stay as they start."""
    view = View.of(problem.intrinsics)
    terms: list[FrameTerm] = [DenseTerm.of(problem, model.rig, model.surface, energy, detail, model.pool)]
    size = problem.size_px
    for weight, evidence in ((energy.landmarks, problem.landmarks), (energy.iris, problem.irises)):
        if weight and evidence is not None:
            terms.append(_landmark_term(model, evidence, weight, size))
    if energy.eye_closure and problem.lids is not None:
        lids = problem.lids
        seen = np.flatnonzero(np.isfinite(lids.offset_px).all(axis=1))
        both = SurfacePoints(
            np.concatenate((lids.upper.triangles[seen], lids.lower.triangles[seen])),
            np.concatenate((lids.upper.barycentric[seen], lids.lower.barycentric[seen])),
        )
        weight = math.sqrt(2 * energy.eye_closure / max(len(seen), 1)) / size
        terms.append(VectorTerm(build_surface_rig(model.head, both), lids.offset_px[seen], weight))
    terms += _state_terms(problem, energy, len(model.lower))
    return FrameProblem(view, tuple(terms), _state_prior(model, energy, unknowns, start))


def _landmark_term(model: DenseModel, evidence: PointEvidence, weight: float, size_px: int) -> LandmarkTerm:
    """Return the mean squared distance of points that are seen."""
    seen = np.flatnonzero(np.isfinite(evidence.points_px).all(axis=1))
    inverse_sigma = math.sqrt(2 * weight / max(len(seen), 1)) / size_px
    whitening = Whitening(evidence.points_px[seen], np.tile(inverse_sigma * np.eye(2), (len(seen), 1, 1)))
    return LandmarkTerm(build_surface_rig(model.head, evidence.points.take(seen)), whitening, squares)


def _state_prior(model: DenseModel, energy: EnergyConfig, unknowns: Unknowns, start: FaceState) -> StatePrior:
    """Return weights and bounds of joint angles and expression; what is not solved for is held where it starts."""
    precision = np.empty(len(model.lower))
    lower, upper = model.lower.copy(), model.upper.copy()
    parts = (
        (_NECK, energy.neck, unknowns.neck),
        (_JAW, energy.jaw, unknowns.jaw and model.head.has_jaw),
        (_LEFT_EYE, energy.eyes, unknowns.eyes),
        (_RIGHT_EYE, energy.eyes, unknowns.eyes),
        (slice(NUM_JOINT_ANGLES, None), energy.expression, unknowns.expression),
    )
    for part, weight, is_free in parts:
        precision[part] = 2 * weight
        if not is_free:
            lower[part] = upper[part] = start.values[part]
    return StatePrior(np.zeros(len(precision)), precision, lower, upper)


def _state_terms(problem: DenseProblem, energy: EnergyConfig, num_values: int) -> list[FrameTerm]:
    """Return eye symmetry and the change since the frame before."""
    terms: list[FrameTerm] = []
    width = NUM_RIGID + num_values
    if energy.eye_symmetry:
        rows = np.zeros((3, width))
        rows[:, 12:15], rows[:, 15:18] = np.eye(3), -np.eye(3)
        terms.append(StateTerm(rows * math.sqrt(2 * energy.eye_symmetry), np.zeros(3)))
    before, smoothness = problem.previous, energy.smoothness
    weights = np.zeros(width)
    parts = (
        (slice(0, 3), smoothness.rotation),
        (slice(3, 6), smoothness.translation),
        (slice(6, 9), smoothness.neck),
        (slice(9, 12), smoothness.jaw),
        (slice(12, 18), smoothness.eyes),
        (slice(FIRST_EXPRESSION, None), smoothness.expression),
    )
    for part, weight in parts:
        weights[part] = weight
    if before is not None and weights.any():
        root = np.sqrt(2 * weights * _FRAME_SECONDS / problem.seconds_since_previous)
        target = np.concatenate((np.zeros(NUM_RIGID), before.values))
        kept = np.flatnonzero(root)
        terms.append(StateTerm(np.diag(root)[kept], (root * target)[kept], before))
    return terms


def identity_prior(model: DenseModel, problem: DenseProblem, energy: EnergyConfig, unknowns: Unknowns) -> SharedPrior:
    """Return the prior of identity and camera: the anchor, the mean head, left-right symmetry, the principal point."""
    num_shapes = model.rig.num_shapes
    anchor = padded(problem.anchor, model.head.num_shape, "anchor")[:num_shapes]
    precision = (
        2 * (energy.identity + energy.identity_zero) * np.eye(num_shapes) + 2 * energy.mirror * model.mirror_precision
    )
    slope = 2 * energy.identity * anchor - 2 * energy.mirror * model.mirror_slope
    mean = np.linalg.lstsq(precision, slope, rcond=None)[0] if slope.any() else np.zeros(num_shapes)
    center_sigma = problem.size_px / math.sqrt(2 * energy.principal_point) if energy.principal_point else math.inf
    return SharedPrior(
        precision,
        mean,
        log_zoom_sigma=math.inf if unknowns.log_focal else 0.0,
        center_sigma_px=center_sigma if unknowns.principal_point else 0.0,
        holds_identity=not unknowns.shape,
    )


def _asymmetry(head: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Return Hessian and gradient by shape of half the mean squared distance of the neutral head from its reflection."""
    num_shapes = head.num_shape
    if head.topology is None or head.topology.mirror is None:
        return np.zeros((num_shapes, num_shapes)), np.zeros(num_shapes)
    flip = np.array((-1.0, 1.0, 1.0))
    mirror = head.topology.mirror
    template = head.template.detach().cpu().numpy().astype(np.float64)
    basis = head.shape_basis.detach().cpu().numpy().astype(np.float64)
    offset = (template - template[mirror] * flip).reshape(-1)
    rows = (basis - basis[mirror] * flip[:, None]).reshape(-1, num_shapes)
    return rows.T @ rows / len(template), rows.T @ offset / len(template)


def _pool(num_threads: int | None) -> ThreadPoolExecutor | None:
    """Return threads to divide sums among; None where one is enough."""
    count = num_threads or os.cpu_count() or 1
    return ThreadPoolExecutor(count, "dense") if count > 1 else None
