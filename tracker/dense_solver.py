"""The dense energy of one or many images of a person as a problem for Levenberg-Marquardt.

Weights and meaning of the terms are those of ``EnergyConfig``; ``tracker.adam`` minimises the same energy as the paper
does. With squared terms w |x|^2 the priors' precisions are 2 w.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import cv2
import numpy as np

from configs.schema import EnergyConfig, SolverConfig
from flame.errors import InputError
from flame.mesh_rig import MeshRig
from flame.model import HeadModel
from flame.surface import NUM_JOINT_ANGLES, SurfacePoints, SurfaceRig, build_surface_rig
from priors.dense_surface import DenseSurface
from tracker.dense_checks import check_fit
from tracker.dense_points import point_terms
from tracker.dense_term import COARSE, FINE, SHARP, DenseTerm, Detail
from tracker.frame_terms import FrameTerm, StateTerm
from tracker.joint_solver import FrameProblem, JointFit, Shared, SharedPrior, fit_joint
from tracker.priors import StatePrior
from tracker.reference_problem import FRAME_SECONDS, DenseProblem, Unknowns, padded
from tracker.state import FIRST_EXPRESSION, NUM_RIGID, FaceState, View

_MIN_LOOKUPS, _AGREEING_SHARE, _MAX_SAMPLES = 12, 0.02, 300
_COARSE_SHAPES, _COARSE_ITERATIONS, _COARSE_TOLERANCE = 80, 5, 1e-2
_FINE_ITERATIONS, _FINE_TOLERANCE = 25, 1e-3
"""Where a fine look ends if a sharp one follows."""
_NO_DISTORTION = np.zeros(4)
_FOLLOWING_STEPS, _LEAST_WIDTH_PX = 6, 0.5
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

    shape: np.ndarray | None = None
    """Identity coefficients of the person whom the rig already is, float64 (I,); None for the mean head."""
    directions: np.ndarray | None = None
    """Shape directions of the rig, float64 (I, R); None for the head's own."""
    point_rigs: dict[bytes, SurfaceRig] = field(default_factory=dict, repr=False)
    """Rigs of surface points that were asked for."""

    @cached_property
    def coarse(self) -> DenseModel:
        """Return the model with the first identity coefficients only."""
        return self.along(np.eye(self.rig.num_shapes)[:, :_COARSE_SHAPES])

    def along(self, directions: np.ndarray) -> DenseModel:
        """Return the model whose shape coefficients run along directions (R, R'), R' <= R."""
        mine = np.eye(self.head.num_shape) if self.directions is None else self.directions
        return replace(self, rig=self.rig.with_shape_basis(directions), directions=mine @ directions, point_rigs={})

    def of_person(self, shape: np.ndarray) -> DenseModel:
        """Return the model of the person with identity coefficients (I,), which it holds."""
        person = replace(self, rig=self.rig.with_shape(shape), shape=shape, point_rigs={})
        return person.along(np.zeros((self.rig.num_shapes, 0)))

    def point_rig(self, points: SurfacePoints) -> SurfaceRig:
        """Return the rig of surface points with this model's person and shape directions."""
        key = points.triangles.tobytes() + points.barycentric.tobytes()
        if key not in self.point_rigs:
            rig = build_surface_rig(self.head, points)
            rig = rig if self.shape is None else rig.with_shape(self.shape)
            self.point_rigs[key] = rig if self.directions is None else rig.with_shape_basis(self.directions)
        return self.point_rigs[key]

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
    log_zoom_sigma: float = math.inf,
) -> DenseFit:
    """Fit one person in one or more images; identity, zoom and principal point are shared, all else is each image's.

    Args:
        model: the head.
        problems: what each image says; the anchor of the first is the person's.
        starts: where to begin, one state per image.
        energy: weights of the terms.
        solver: when to stop; a tolerance below 1e-3 has the evidence looked at more sharply in the end.
        max_iterations: Levenberg-Marquardt iterations at most, the coarse look's not counted.
        unknowns: what is solved for; by default what the paper solves for.
        start: identity and camera to begin with.
        log_zoom_sigma: standard deviation of the logarithm of the focal length, where that is solved for.
        is_warm: whether the start is near the solution, so that the coarse look, which finds the way, can be left out.

    Raises:
        InputError: an image has no start, is of another head, or says nothing.
    """
    check_fit(model.head, problems, starts)
    unknowns = unknowns or Unknowns()
    begin = start or Shared(np.zeros(model.rig.num_shapes))

    def fit(
        level: DenseModel, detail: Detail, begin: Shared, starts: Sequence[FaceState], settings: SolverConfig, most: int
    ) -> JointFit:
        pairs = zip(problems, starts, strict=True)
        frames = [frame_problem(level, problem, energy, unknowns, state, detail) for problem, state in pairs]
        shared_prior = identity_prior(level, problems[0], energy, unknowns, log_zoom_sigma)
        return fit_joint(frames, starts, begin, shared_prior, settings, most)

    if not is_warm:
        count = model.coarse.rig.num_shapes
        few, settings = replace(begin, shape=begin.shape[:count]), replace(solver, tolerance=_COARSE_TOLERANCE)
        found = fit(model.coarse, COARSE, few, starts, settings, _COARSE_ITERATIONS)
        shape = np.concatenate((found.shared.shape, begin.shape[count:]))
        begin, starts = replace(found.shared, shape=shape), found.states
    else:
        pairs = zip(problems, starts, strict=True)
        starts = [moved_to_lookups(model, problem, state, begin) for problem, state in pairs]
    found = _look_closely(partial(fit, model), begin, starts, solver, max_iterations)
    return DenseFit(found.states, found.shared.shape, found.shared.log_zoom, found.shared.center_shift_px, found)


def _look_closely(
    fit: Callable[[Detail, Shared, Sequence[FaceState], SolverConfig, int], JointFit],
    begin: Shared,
    starts: Sequence[FaceState],
    solver: SolverConfig,
    max_iterations: int,
) -> JointFit:
    """Fit finely, and then sharply where the tolerance asks for it; the iterations are those of both."""
    if solver.tolerance >= _FINE_TOLERANCE:
        return fit(FINE, begin, starts, solver, max_iterations)
    settings = replace(solver, tolerance=_FINE_TOLERANCE)
    fine = fit(FINE, begin, starts, settings, min(max_iterations, _FINE_ITERATIONS))
    if fine.iterations >= max_iterations:
        return fine
    sharp = fit(SHARP, fine.shared, fine.states, solver, max_iterations - fine.iterations)
    return replace(sharp, iterations=fine.iterations + sharp.iterations)


def start_from_lookups(model: DenseModel, problem: DenseProblem) -> FaceState:
    """Return the neutral mean head in the pose in which most looked-up vertices lie where the map shows them.

    Wrong lookups may well be many, so the pose is found by random sample consensus.

    Raises:
        InputError: the map shows too few vertices, or they agree on no pose.
    """
    lookups, view = problem.lookups, View.of(problem.intrinsics)
    neutral = np.zeros(NUM_JOINT_ANGLES), np.zeros(model.rig.num_expressions)
    facing = FaceState(np.eye(3), np.zeros(3), *neutral)
    verts_head = _verts_head(model, facing, np.zeros(model.rig.num_shapes))
    count, found = len(lookups.vertices), False
    if count >= _MIN_LOOKUPS:
        cv2.setRNGSeed(0)
        found, axis_angle, translation, _ = cv2.solvePnPRansac(
            verts_head[lookups.vertices],
            lookups.points_px,
            view.matrix,
            _NO_DISTORTION,
            flags=cv2.SOLVEPNP_SQPNP,
            reprojectionError=_AGREEING_SHARE * problem.size_px,
            iterationsCount=_MAX_SAMPLES,
            confidence=0.9999,
        )
    if not found or translation[2, 0] <= 0:
        raise InputError(
            f"the texture map shows {count} vertices of the head that agree on no pose; at least {_MIN_LOOKUPS} are "
            "needed: is it a map of this head's texture coordinates, origin bottom left?"
        )
    return replace(facing, rotation=cv2.Rodrigues(axis_angle)[0], translation=translation[:, 0])


def moved_to_lookups(model: DenseModel, problem: DenseProblem, state: FaceState, shared: Shared) -> FaceState:
    """Return a state with its head moved rigidly to where the texture map shows it now.

    What moves further between frames than the energy's cap would be lost without. Few robust Gauss-Newton steps: the
    width of the kernel (Geman-McClure's weights) is the median distance, so that it shrinks on the way.
    """
    lookups, view = problem.lookups, shared.view(View.of(problem.intrinsics))
    if len(lookups.vertices) < _MIN_LOOKUPS:
        return state
    points = _verts_head(model, state, shared.shape)[lookups.vertices]
    axis_angle, translation = cv2.Rodrigues(state.rotation)[0][:, 0], state.translation.copy()
    for _ in range(_FOLLOWING_STEPS):
        seen_px, by_all = cv2.projectPoints(points, axis_angle, translation, view.matrix, _NO_DISTORTION)
        error_px, by_pose = lookups.points_px - seen_px[:, 0], by_all[:, :NUM_RIGID]
        distance_px = np.linalg.norm(error_px, axis=1)
        width_px = max(float(np.median(distance_px)), _LEAST_WIDTH_PX)
        weighted = by_pose * np.repeat((1 + (distance_px / width_px) ** 2) ** -2, 2)[:, None]
        step = np.linalg.lstsq(weighted.T @ by_pose, weighted.T @ error_px.ravel(), rcond=None)[0]
        axis_angle, translation = axis_angle + step[:3], translation + step[3:]
    if not (np.isfinite(translation).all() and translation[2] > 0):
        return state
    return replace(state, rotation=cv2.Rodrigues(axis_angle)[0], translation=translation)


def _verts_head(model: DenseModel, state: FaceState, shape: np.ndarray) -> np.ndarray:
    """Return posed vertices (V, 3) in head space, metres, float64."""
    posed = model.rig.pose(shape, state.expression, state.joint_angles, np.eye(3), np.zeros(3))
    return np.asarray(posed.verts_cam, np.float64)


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
    terms += point_terms(model.point_rig, problem, energy)
    terms += _state_terms(problem, energy, len(model.lower))
    return FrameProblem(view, tuple(terms), _state_prior(model, energy, unknowns, start))


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
        root = np.sqrt(2 * weights * FRAME_SECONDS / problem.seconds_since_previous)
        target = np.concatenate((np.zeros(NUM_RIGID), before.values))
        kept = np.flatnonzero(root)
        terms.append(StateTerm(np.diag(root)[kept], (root * target)[kept], before))
    return terms


def identity_prior(
    model: DenseModel,
    problem: DenseProblem,
    energy: EnergyConfig,
    unknowns: Unknowns,
    log_zoom_sigma: float = math.inf,
) -> SharedPrior:
    """Return the prior of identity and camera: the anchor, the mean head, left-right symmetry, the principal point."""
    num_shapes = model.rig.num_shapes
    anchor = padded(problem.anchor, model.head.num_shape, "anchor")[:num_shapes]
    asymmetry, slope = model.mirror_precision[:num_shapes, :num_shapes], model.mirror_slope[:num_shapes]
    precision = 2 * (energy.identity + energy.identity_zero) * np.eye(num_shapes) + 2 * energy.mirror * asymmetry
    slope = 2 * energy.identity * anchor - 2 * energy.mirror * slope
    mean = np.linalg.lstsq(precision, slope, rcond=None)[0] if slope.any() else np.zeros(num_shapes)
    center_sigma = problem.size_px / math.sqrt(2 * energy.principal_point) if energy.principal_point else math.inf
    return SharedPrior(
        precision,
        mean,
        log_zoom_sigma=log_zoom_sigma if unknowns.log_focal else 0.0,
        center_sigma_px=center_sigma if unknowns.principal_point else 0.0,
        holds_identity=not unknowns.shape,
    )


def _asymmetry(head: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Return Hessian and gradient by shape of half the mean squared distance of a neutral head from its reflection."""
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
