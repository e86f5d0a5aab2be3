"""The solver: known parameters come back, bounds hold, outliers are ignored, reasons are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs import Config
from flame import load_head
from flame.rotation_kernels import rotation_matrix
from flame.surface import PosedPoints, SurfacePoints, SurfaceRig, build_surface_rig
from tracker.frame_terms import LandmarkTerm, cauchy
from tracker.joint_solver import FrameProblem, Shared, SharedPrior, fit_joint
from tracker.levenberg_marquardt import StopReason
from tracker.priors import StatePrior, state_prior
from tracker.solver import fit_frame
from tracker.state import FaceState, View
from tracker.terms import Whitening

VIEW = View(np.array([900.0, 900.0]), np.array([320.0, 240.0]))
FACING = np.diag([1.0, -1.0, -1.0])
CONFIG = Config().solver
KERNEL = cauchy(CONFIG.robust_width)
EXACT = replace(CONFIG, tolerance=1e-12)


@pytest.fixture(scope="module")
def rig() -> SurfaceRig:
    head = load_head()
    assert head.topology is not None
    faces = head.faces.numpy()
    rng = np.random.default_rng(0)
    regions = {name: np.asarray(head.topology.regions[name]) for name in ("face", "left_eye", "right_eye")}
    on_face = rng.choice(np.flatnonzero(regions["face"][faces].all(1)), 400, replace=False)
    front = head.template.numpy()[faces].mean(1)[:, 2]
    eyes = [np.flatnonzero(regions[name][faces].all(1)) for name in ("left_eye", "right_eye")]
    on_eyes = [triangles[np.argsort(-front[triangles])[:5]] for triangles in eyes]
    triangles = np.concatenate((on_face, *on_eyes))
    return build_surface_rig(head, SurfacePoints(triangles, np.full((len(triangles), 3), 1 / 3)))


@pytest.fixture(scope="module")
def prior(rig) -> StatePrior:
    return state_prior(Config().regularization, np.tile([0.0, 1.0], (rig.num_expressions, 1)))


def random_state(rig: SurfaceRig, seed: int) -> FaceState:
    rng = np.random.default_rng(seed)
    joint_angles = np.zeros(12)
    joint_angles[3] = 0.25 * rng.random()
    joint_angles[[6, 7, 9, 10]] = rng.uniform(-0.4, 0.4, size=4)
    rotation = rotation_matrix(0.25 * rng.normal(size=3)) @ FACING
    expression = np.clip(rng.random(rig.num_expressions) - 0.6, 0, 1)
    return FaceState(rotation, np.array([0.03, -0.02, 0.6]) + 0.03 * rng.normal(size=3), joint_angles, expression)


def see(rig: SurfaceRig, state: FaceState, sigma_px: float, noise_px: float = 0.0, view: View = VIEW) -> Whitening:
    points_cam = state.points_cam(rig.pose(state.joint_angles, state.expression).points_head)
    noise = np.random.default_rng(5).normal(size=(len(points_cam), 2))
    points_px = view.project(points_cam) + noise_px * noise
    return Whitening(points_px, np.tile(np.eye(2) / sigma_px, (len(points_px), 1, 1)))


def neutral(rig: SurfaceRig) -> FaceState:
    return FaceState(FACING, np.array([0.0, 0.0, 0.7]), np.zeros(12), np.zeros(rig.num_expressions))


@pytest.mark.parametrize("seed", range(4))
def test_exact_evidence_gives_the_points_back(rig, prior, seed):
    truth = random_state(rig, seed)
    fit = fit_frame(rig, see(rig, truth, sigma_px=0.01), neutral(rig), prior, VIEW, EXACT, 50)
    posed = [
        state.points_cam(rig.pose(state.joint_angles, state.expression).points_head) for state in (fit.state, truth)
    ]
    assert np.linalg.norm(posed[0] - posed[1], axis=1).mean() < 5e-4
    assert np.median(fit.residual_px) < 0.01
    np.testing.assert_allclose(fit.state.joint_angles[[6, 7, 9, 10]], truth.joint_angles[[6, 7, 9, 10]], atol=0.02)


def test_outliers_do_not_move_the_face(rig, prior):
    truth = random_state(rig, 1)
    clean = see(rig, truth, sigma_px=0.5, noise_px=0.2)
    wrong = clean.points_px.copy()
    wrong[::12] += 40.0
    fits = [
        fit_frame(rig, replace(clean, points_px=points), neutral(rig), prior, VIEW, CONFIG, 30)
        for points in (clean.points_px, wrong)
    ]
    assert np.linalg.norm(fits[0].state.translation - fits[1].state.translation) < 2e-3
    assert np.median(fits[1].residual_px) < 0.5


def test_expressions_stay_within_their_bounds(rig, prior):
    truth = replace(random_state(rig, 2), expression=np.full(rig.num_expressions, 1.6))
    fit = fit_frame(rig, see(rig, truth, sigma_px=0.1), neutral(rig), prior, VIEW, CONFIG, 40)
    assert fit.state.expression.min() >= 0
    assert fit.state.expression.max() <= 1
    assert fit.state.expression.max() == 1


def test_solution_is_reached_at_once_from_the_solution(rig, prior):
    whitening = see(rig, random_state(rig, 3), sigma_px=0.5)
    fit = fit_frame(rig, whitening, neutral(rig), prior, VIEW, EXACT, 60)
    again = fit_frame(rig, whitening, fit.state, prior, VIEW, CONFIG, 5)
    assert again.reason is StopReason.CONVERGED
    assert again.iterations == 1
    assert again.energy <= fit.energy


def test_running_out_of_iterations_is_told(rig, prior):
    whitening = see(rig, random_state(rig, 3), sigma_px=0.05)
    fit = fit_frame(rig, whitening, neutral(rig), prior, VIEW, EXACT, 2)
    assert fit.reason is StopReason.MAX_ITERATIONS
    assert fit.iterations == 2


def test_joint_solve_finds_identity_and_focal_length(rig, prior):
    rng = np.random.default_rng(7)
    directions = rig.observable_shape_directions(1e-4)
    shape = directions @ (0.7 * rng.normal(size=directions.shape[1]))
    person = rig.with_shape(shape)
    true_view = View(VIEW.focal_px * 1.15, VIEW.center_px)
    # Close enough for perspective to show in the picture; far away focal length and distance are one.
    states = [random_state(rig, seed) for seed in range(8)]
    states = [replace(state, translation=state.translation - [0, 0, 0.3]) for state in states]
    whitenings = [see(person, state, sigma_px=0.05, view=true_view) for state in states]
    reduced = rig.with_shape_basis(directions)
    starts = [fit_frame(reduced, item, neutral(rig), prior, VIEW, CONFIG, 8).state for item in whitenings]
    fit = fit_joint(
        [FrameProblem(VIEW, (LandmarkTerm(reduced, item, KERNEL),), prior) for item in whitenings],
        starts,
        Shared(np.zeros(directions.shape[1])),
        SharedPrior.around_zero(directions.shape[1], 1.0, log_zoom_sigma=0.3),
        EXACT,
        40,
    )
    found = rig.with_shape(directions @ fit.shared.shape)
    neutral_points = [
        each.pose(np.zeros(12), np.zeros(rig.num_expressions)).points_head for each in (found, person, rig)
    ]
    # One camera does not see size: compare after removing it.
    scale = np.sum(neutral_points[1] * neutral_points[0]) / np.sum(neutral_points[0] ** 2)
    error = np.linalg.norm(scale * neutral_points[0] - neutral_points[1], axis=1).mean()
    before = np.linalg.norm(neutral_points[2] - neutral_points[1], axis=1).mean()
    assert error < 0.15 * before
    assert abs(np.exp(fit.shared.log_zoom) - 1.15) < 0.03


def test_known_focal_length_is_left_alone(rig, prior):
    whitening = see(rig, random_state(rig, 2), sigma_px=0.5)
    directions = rig.observable_shape_directions(1e-3)
    fit = fit_joint(
        [FrameProblem(VIEW, (LandmarkTerm(rig.with_shape_basis(directions), whitening, KERNEL),), prior)],
        [neutral(rig)],
        Shared(np.zeros(directions.shape[1])),
        SharedPrior.around_zero(directions.shape[1], 1.0),
        CONFIG,
        10,
    )
    assert fit.shared.log_zoom == 0.0


def test_prior_near_a_frame_is_tight_for_short_times(rig, prior):
    before = random_state(rig, 0)
    soon, late = prior.near(before, 1 / 60, 3.0), prior.near(before, 5.0, 3.0)
    distance = [np.abs(each.mean - before.values).max() for each in (soon, late)]
    assert distance[0] < distance[1]
    assert (soon.precision > late.precision).all()
    assert (late.precision > prior.precision).all()


def test_an_extra_term_is_minimised_with_the_rest(rig, prior):
    truth = random_state(rig, 3)
    seen = see(rig, truth, 1.0)
    wanted, index = 0.9, 18

    def pull(posed: PosedPoints, state: FaceState, view: View) -> tuple[np.ndarray, np.ndarray]:
        by_state = np.zeros((1, state.num_parameters))
        by_state[0, index] = 1e4
        return 1e4 * (state.expression[:1] - wanted), by_state

    plain = fit_frame(rig, seen, truth, prior, VIEW, EXACT, 30)
    pulled = fit_frame(rig, seen, truth, prior, VIEW, EXACT, 30, extra_terms=(pull,))
    assert abs(plain.state.expression[0] - truth.expression[0]) < 0.2
    assert pulled.state.expression[0] == pytest.approx(wanted, abs=1e-4)
    assert pulled.energy > plain.energy
