"""Terms of a frame: each one's gradient and Hessian against finite differences of its energy, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfacePoints, SurfaceRig, build_surface_rig
from tracker.frame_terms import (
    NUM_CAMERA,
    FramePoint,
    FrameTerm,
    LandmarkTerm,
    StateTerm,
    VectorTerm,
    cauchy,
    squares,
)
from tracker.state import FaceState, View
from tracker.terms import Whitening

NUM_POINTS = 10
STEP = 1e-6
VIEW = View(np.array([700.0, 650.0]), np.array([320.0, 240.0]))


@pytest.fixture(scope="module")
def rig(toy_head) -> SurfaceRig:
    rng = np.random.default_rng(0)
    triangles = rng.integers(0, len(toy_head.faces), NUM_POINTS)
    return build_surface_rig(toy_head, SurfacePoints(triangles, rng.dirichlet((1, 1, 1), NUM_POINTS)))


@pytest.fixture
def point(rig) -> FramePoint:
    rng = np.random.default_rng(1)
    rotation = rotation_matrix(np.array([0.2, 0.4, -0.3])) @ np.diag([1.0, -1.0, -1.0])
    state = FaceState(
        rotation, np.array([0.02, -0.03, 0.7]), 0.1 * rng.normal(size=12), rng.random(rig.num_expressions)
    )
    return FramePoint(state, VIEW, rng.normal(size=rig.num_shapes))


def stepped(point: FramePoint, delta: np.ndarray) -> FramePoint:
    """Return the point after a step of the frame's own and of the shared parameters."""
    num_own, free = point.state.num_parameters, np.full(point.state.num_parameters - 6, np.inf)
    shared = delta[num_own:]
    return FramePoint(
        point.state.step(delta[:num_own], -free, free),
        point.view.zoomed(float(shared[-3])).shifted((float(shared[-2]), float(shared[-1]))),
        point.shape + shared[:-NUM_CAMERA],
    )


def differences(function: Callable[[FramePoint], np.ndarray], point: FramePoint) -> np.ndarray:
    """Return central differences of a function (M,) by all parameters, (M, P)."""
    size = point.state.num_parameters + len(point.shape) + NUM_CAMERA
    steps = STEP * np.eye(size)
    return np.stack(
        [(function(stepped(point, step)) - function(stepped(point, -step))) / (2 * STEP) for step in steps], axis=-1
    )


def assert_gradient_is_that_of_differences(term: FrameTerm, point: FramePoint) -> None:
    found = differences(lambda at: np.array([term.at(at).energy]), point)[0]
    gradient = term.at(point).quadratic().gradient
    np.testing.assert_allclose(gradient, found, rtol=1e-5, atol=1e-6 * np.abs(found).max())


def seen(rig: SurfaceRig, seed: int = 2) -> Whitening:
    rng = np.random.default_rng(seed)
    return Whitening(300 + 50 * rng.normal(size=(rig.num_points, 2)), rng.normal(size=(rig.num_points, 2, 2)))


@pytest.mark.parametrize("kernel", (squares, cauchy(20.0)), ids=("squares", "cauchy"))
def test_gradient_of_landmarks(rig, point, kernel):
    assert_gradient_is_that_of_differences(LandmarkTerm(rig, seen(rig), kernel), point)


def test_jacobian_of_landmarks_in_every_column(rig, point):
    term = LandmarkTerm(rig, seen(rig), squares)
    expected = differences(lambda at: term.at(at).term.residual.ravel(), point)
    linear = term.at(point)
    np.testing.assert_allclose(linear.jacobian(), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(linear.quadratic().hessian, expected.T @ expected, rtol=1e-4, atol=1e-2)


def test_gradient_and_hessian_of_vectors_between_points(rig, point):
    rng = np.random.default_rng(3)
    term = VectorTerm(rig, 20 * rng.normal(size=(rig.num_points // 2, 2)), 0.3)
    assert_gradient_is_that_of_differences(term, point)
    expected = differences(lambda at: term.at(at).residual.ravel(), point)
    np.testing.assert_allclose(term.at(point).quadratic().hessian, expected.T @ expected, rtol=1e-4, atol=1e-2)


def test_vectors_between_points_do_not_see_where_the_face_is(rig, point):
    view = replace(VIEW, focal_px=VIEW.focal_px / 1e3)
    vectors = np.zeros((rig.num_points // 2, 2))
    moved = replace(point, view=view.shifted((50.0, -20.0)))
    energies = [VectorTerm(rig, vectors, 1.0).at(each).energy for each in (replace(point, view=view), moved)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)


@pytest.mark.parametrize("has_before", (False, True))
def test_gradient_and_hessian_of_priors_on_the_state(point, has_before):
    rng = np.random.default_rng(4)
    size = point.state.num_parameters
    matrix = rng.normal(size=(5, size))
    before = None
    if has_before:
        free = np.full(size - 6, np.inf)
        before = point.state.step(0.2 * rng.normal(size=size), -free, free)
    else:
        matrix[:, :6] = 0
    term = StateTerm(matrix, rng.normal(size=5), before)
    assert_gradient_is_that_of_differences(term, point)
    expected = differences(lambda at: term.at(at).residual, point)
    np.testing.assert_allclose(term.at(point).quadratic().hessian, expected.T @ expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", (squares, cauchy(3.0)), ids=("squares", "cauchy"))
def test_weights_of_a_norm_are_its_slope(kernel):
    squared = np.array([1e-4, 0.5, 9.0, 400.0])
    _, weights = kernel(squared)
    rise = (kernel(squared * (1 + STEP))[0] - kernel(squared * (1 - STEP))[0]) / (2 * STEP * squared)
    # By the squared length the energy rises with half the weight.
    np.testing.assert_allclose(rise, weights / 2, rtol=1e-6)


def test_points_that_say_nothing_weigh_nothing(rig, point):
    whitening = seen(rig)
    matrices = whitening.matrices.copy()
    matrices[3] = 0
    elsewhere = whitening.points_px.copy()
    elsewhere[3] += 1e3
    quadratics = [
        LandmarkTerm(rig, Whitening(points_px, matrices), cauchy(3.0)).at(point).quadratic()
        for points_px in (whitening.points_px, elsewhere)
    ]
    np.testing.assert_array_equal(quadratics[0].hessian, quadratics[1].hessian)
    np.testing.assert_array_equal(quadratics[0].gradient, quadratics[1].gradient)
