"""Frames that share identity and camera: elimination by frames gives the steps of the whole system solved at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares

from configs import Config
from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfacePoints, SurfaceRig, build_surface_rig
from tests.toy_head import make_toy_head
from tracker.frame_terms import FramePoint, FrameTerm, LandmarkTerm, StateTerm, cauchy, squares
from tracker.joint_solver import FrameProblem, JointFit, Shared, SharedPrior, fit_joint
from tracker.levenberg_marquardt import INITIAL_DAMPING, StopReason
from tracker.priors import StatePrior, state_prior
from tracker.state import NUM_RIGID, FaceState, View
from tracker.terms import Whitening

VIEW = View(np.array([900.0, 850.0]), np.array([320.0, 240.0]))
FACING = np.diag([1.0, -1.0, -1.0])
SHARED_PRIOR = SharedPrior.around_zero(10, 1.0, log_zoom_sigma=0.1, center_sigma_px=5.0)
EXACT = replace(Config().solver, tolerance=1e-13)


@pytest.fixture(scope="module")
def rig() -> SurfaceRig:
    head = make_toy_head()
    triangles = np.arange(0, len(head.faces), 3)
    return build_surface_rig(head, SurfacePoints(triangles, np.full((len(triangles), 3), 1 / 3)))


@pytest.fixture(scope="module")
def prior(rig) -> StatePrior:
    return state_prior(Config().regularization, np.tile([0.0, 1.0], (rig.num_expressions, 1)))


def state(rig: SurfaceRig, seed: int, expression: float = 0.4) -> FaceState:
    rng = np.random.default_rng(seed)
    rotation = rotation_matrix(0.25 * rng.normal(size=3)) @ FACING
    angles = 0.02 * rng.uniform(size=12)
    return FaceState(rotation, np.array([0.02, -0.02, 0.5]), angles, expression * rng.random(rig.num_expressions))


def neutral(rig: SurfaceRig) -> FaceState:
    return FaceState(FACING, np.array([0.0, 0.0, 0.55]), np.zeros(12), np.zeros(rig.num_expressions))


def see(rig: SurfaceRig, at: FaceState, shape: np.ndarray, view: View, seed: int, sigma_px: float = 0.5) -> Whitening:
    person = rig.with_shape(shape)
    points_px = view.project(at.points_cam(person.pose(at.joint_angles, at.expression).points_head))
    points_px = points_px + 0.3 * np.random.default_rng(seed).normal(size=points_px.shape)
    return Whitening(points_px, np.tile(np.eye(2) / sigma_px, (len(points_px), 1, 1)))


def scene(
    rig: SurfaceRig, prior: StatePrior, count: int, kernel=squares, expression: float = 0.4
) -> tuple[list[FrameProblem], list[FaceState]]:
    """Return frames of a person before a camera with a longer lens than expected, and where to begin."""
    shape = np.random.default_rng(1).normal(size=10)
    true_view = VIEW.zoomed(0.08).shifted((3.0, -2.0))
    frames = []
    for seed in range(count):
        seen = see(rig, state(rig, seed, expression), shape, true_view, seed)
        terms: list[FrameTerm] = [LandmarkTerm(rig, seen, kernel)]
        if seed == 1:
            rows = np.zeros((3, 18 + rig.num_expressions))
            rows[:, 12:15], rows[:, 15:18] = np.eye(3), -np.eye(3)
            terms.append(StateTerm(30 * rows, np.zeros(3)))
        frames.append(FrameProblem(VIEW, terms, prior))
    return frames, [replace(state(rig, seed), expression=neutral(rig).expression) for seed in range(count)]


def whole_system(
    frames: list[FrameProblem], states: list[FaceState], shared: Shared, prior: SharedPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Put the normal equations of all frames and of what they share into one matrix: frame after frame, then shared."""
    own, size = states[0].num_parameters, len(shared.shape) + 3
    total = own * len(frames) + size
    hessian, gradient = np.zeros((total, total)), np.zeros(total)
    hessian[-size:, -size:] = prior.precision
    gradient[-size:] = prior.precision @ prior.deviation(shared)
    for index, (frame, at) in enumerate(zip(frames, states, strict=True)):
        places = np.concatenate((np.arange(own * index, own * (index + 1)), np.arange(total - size, total)))
        for term in frame.terms:
            quadratic = term.at(FramePoint(at, shared.view(frame.view), shared.shape)).quadratic()
            hessian[np.ix_(places, places)] += quadratic.hessian
            gradient[places] += quadratic.gradient
        tail = places[NUM_RIGID:own]
        hessian[tail, tail] += frame.prior.precision
        gradient[tail] += frame.prior.precision * (at.values - frame.prior.mean)
    return hessian, gradient


def steps_of(fit: JointFit, starts: list[FaceState], begin: Shared) -> np.ndarray:
    """Return what a fit changed but for the rotations, in the order of ``whole_system``."""
    parts = [
        np.concatenate((after.translation - before.translation, after.values - before.values))
        for after, before in zip(fit.states, starts, strict=True)
    ]
    shift = np.subtract(fit.shared.center_shift_px, begin.center_shift_px)
    return np.concatenate((*parts, fit.shared.shape - begin.shape, [fit.shared.log_zoom - begin.log_zoom], shift))


@pytest.mark.parametrize("kernel", (squares, cauchy(3.0)), ids=("squares", "cauchy"))
@pytest.mark.parametrize("count", (1, 3))
def test_the_first_step_is_that_of_the_whole_system(rig, prior, count, kernel):
    unbounded = replace(prior, lower=np.full(len(prior.lower), -9.0), upper=np.full(len(prior.upper), 9.0))
    frames, starts = scene(rig, unbounded, count, kernel)
    begin = Shared(np.random.default_rng(5).normal(0, 0.1, 10), 0.02, (1.0, 2.0))
    fit = fit_joint(frames, starts, begin, SHARED_PRIOR, EXACT, 1)
    hessian, gradient = whole_system(frames, starts, begin, SHARED_PRIOR)
    hessian[np.diag_indices_from(hessian)] *= 1 + INITIAL_DAMPING
    expected = -np.linalg.solve(hessian, gradient)
    own = starts[0].num_parameters
    for index, (after, before) in enumerate(zip(fit.states, starts, strict=True)):
        turn = rotation_matrix(np.ascontiguousarray(expected[own * index : own * index + 3]))
        np.testing.assert_allclose(after.rotation, turn @ before.rotation, atol=1e-9)
    is_turn = np.zeros(len(expected), dtype=bool)
    for index in range(count):
        is_turn[own * index : own * index + 3] = True
    np.testing.assert_allclose(steps_of(fit, starts, begin), expected[~is_turn], rtol=1e-6, atol=1e-9)
    assert fit.reason is StopReason.MAX_ITERATIONS


def test_what_is_held_stays_and_the_rest_moves_as_if_it_were_known(rig, prior):
    unbounded = replace(prior, lower=np.full(len(prior.lower), -9.0), upper=np.full(len(prior.upper), 9.0))
    frames, starts = scene(rig, unbounded, 2)
    held = replace(SHARED_PRIOR, holds_identity=True, center_sigma_px=0.0)
    begin = Shared(np.full(10, 0.1), 0.02, (1.0, 2.0))
    fit = fit_joint(frames, starts, begin, held, EXACT, 1)
    np.testing.assert_array_equal(fit.shared.shape, begin.shape)
    assert fit.shared.center_shift_px == begin.center_shift_px
    hessian, gradient = whole_system(frames, starts, begin, held)
    hessian[np.diag_indices_from(hessian)] *= 1 + INITIAL_DAMPING
    moves = np.ones(len(gradient), dtype=bool)
    moves[-13:] = ~held.is_held
    expected = np.zeros(len(gradient))
    expected[moves] = -np.linalg.solve(hessian[np.ix_(moves, moves)], gradient[moves])
    assert fit.shared.log_zoom == pytest.approx(begin.log_zoom + expected[-3], abs=1e-10)
    own = starts[0].num_parameters
    for index in range(2):
        moved = fit.states[index].translation - starts[index].translation
        np.testing.assert_allclose(moved, expected[own * index + 3 : own * index + 6], atol=1e-10)


def test_a_general_solver_finds_nothing_lower_within_the_bounds(rig, prior):
    """Let SciPy go on from the solution; to it bounds, frames and shared parameters are all the same."""
    frames, starts = scene(rig, prior, 2, expression=1.4)
    fit = fit_joint(frames, starts, Shared(np.zeros(10)), SHARED_PRIOR, EXACT, 60)
    values = np.array([each.values for each in fit.states])
    lower, upper = prior.lower, prior.upper
    assert ((values == lower) | (values == upper)).sum() >= 2
    assert (values >= lower).all() and (values <= upper).all()
    own = starts[0].num_parameters
    free = np.full(own - NUM_RIGID, np.inf)
    roots = [np.sqrt(frame.prior.precision) for frame in frames]
    shared_root = np.sqrt(np.diag(SHARED_PRIOR.precision))
    solution = np.concatenate((np.zeros(2 * own), fit.shared.shape, [fit.shared.log_zoom], fit.shared.center_shift_px))

    def residual(vector: np.ndarray) -> np.ndarray:
        shared = Shared(vector[-13:-3], float(vector[-3]), (float(vector[-2]), float(vector[-1])))
        parts = [shared_root * vector[-13:]]
        for index, frame in enumerate(frames):
            at = fit.states[index].step(vector[own * index : own * (index + 1)], -free, free)
            point = FramePoint(at, shared.view(frame.view), shared.shape)
            linear = [term.at(point) for term in frame.terms]
            parts.append(linear[0].term.residual.ravel())
            parts += [each.residual for each in linear[1:]]
            parts.append(roots[index] * (at.values - frame.prior.mean))
        return np.concatenate(parts)

    assert 0.5 * np.square(residual(solution)).sum() == pytest.approx(fit.energy, rel=1e-12)
    limits = np.tile([[-np.inf], [np.inf]], 2 * own + 13)
    for index in range(2):
        tail = slice(own * index + NUM_RIGID, own * (index + 1))
        limits[:, tail] = lower - values[index] - 1e-12, upper - values[index] + 1e-12
    found = least_squares(residual, solution, bounds=limits, x_scale="jac", max_nfev=8)
    assert found.cost > fit.energy * (1 - 1e-6)


def test_images_of_one_person_weigh_together(rig, prior):
    """A frame twice over says the same thing twice: the identity's prior weighs half as much."""
    frames, starts = scene(rig, prior, 1)
    twice = fit_joint(frames * 2, starts * 2, Shared(np.zeros(10)), SHARED_PRIOR, EXACT, 60)
    weaker = SharedPrior(SHARED_PRIOR.precision[:10, :10] / 2, np.zeros(10), 0.1 * 2**0.5, 5.0 * 2**0.5)
    once = fit_joint(frames, starts, Shared(np.zeros(10)), weaker, EXACT, 60)
    np.testing.assert_allclose(twice.shared.shape, once.shared.shape, atol=1e-5)
    assert twice.energy == pytest.approx(2 * once.energy, rel=1e-8)
    np.testing.assert_allclose(twice.states[0].rotation, twice.states[1].rotation, atol=1e-9)


def test_the_order_of_images_does_not_matter(rig, prior):
    frames, starts = scene(rig, prior, 3)
    fits = [fit_joint(frames[::way], starts[::way], Shared(np.zeros(10)), SHARED_PRIOR, EXACT, 60) for way in (1, -1)]
    np.testing.assert_allclose(fits[0].shared.shape, fits[1].shared.shape, atol=1e-6)
    np.testing.assert_allclose(fits[0].states[0].values, fits[1].states[2].values, atol=1e-6)


def test_every_fit_says_why_it_ended(rig, prior):
    frames, starts = scene(rig, prior, 2)
    begin = Shared(np.zeros(10))
    done = fit_joint(frames, starts, begin, SHARED_PRIOR, Config().solver, 60)
    assert done.reason is StopReason.CONVERGED
    assert done.iterations < 20
    short = fit_joint(frames, starts, begin, SHARED_PRIOR, EXACT, 2)
    assert (short.reason, short.iterations) == (StopReason.MAX_ITERATIONS, 2)
    assert len(done.frames) == 2
    total = sum(sum(frame.energies) for frame in done.frames)
    total += sum(frame.prior.energy(state) for frame, state in zip(frames, done.states, strict=True))
    deviation = SHARED_PRIOR.deviation(done.shared)
    assert done.energy == pytest.approx(total + 0.5 * deviation @ SHARED_PRIOR.precision @ deviation)
    assert np.median(done.frames[0].residual_px) < 0.6
