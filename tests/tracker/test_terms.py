"""Energy terms: derivatives against finite differences, whitening, robust weights."""

from __future__ import annotations

import numpy as np
import pytest

from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfacePoints, SurfaceRig, build_surface_rig
from priors.evidence import FaceEvidence, FaceRegion
from tracker.state import FaceState, View
from tracker.terms import Whitening, cauchy_weights, correspondences, whiten

NUM_POINTS = 12
STEP = 1e-6


@pytest.fixture(scope="module")
def rig(toy_head) -> SurfaceRig:
    rng = np.random.default_rng(0)
    triangles = rng.integers(0, len(toy_head.faces), NUM_POINTS)
    return build_surface_rig(toy_head, SurfacePoints(triangles, rng.dirichlet((1, 1, 1), NUM_POINTS)))


@pytest.fixture
def state(rig) -> FaceState:
    rng = np.random.default_rng(1)
    rotation = rotation_matrix(np.array([0.2, 0.4, -0.3])) @ np.diag([1.0, -1.0, -1.0])
    return FaceState(rotation, np.array([0.02, -0.03, 0.7]), 0.1 * rng.normal(size=12), rng.random(rig.num_expressions))


@pytest.fixture
def whitening() -> Whitening:
    rng = np.random.default_rng(2)
    return Whitening(300 + 50 * rng.normal(size=(NUM_POINTS, 2)), rng.normal(size=(NUM_POINTS, 2, 2)))


VIEW = View(np.array([700.0, 650.0]), np.array([320.0, 240.0]))


def residual(rig, state, view, whitening):
    posed = rig.pose(state.joint_angles, state.expression)
    return correspondences(posed, state, view, whitening).residual.ravel()


def test_residual_is_whitened_projection_error(rig, state, whitening):
    points_cam = state.points_cam(rig.pose(state.joint_angles, state.expression).points_head)
    for n in range(NUM_POINTS):
        x, y, z = points_cam[n]
        error = np.array([700 * x / z + 320, 650 * y / z + 240]) - whitening.points_px[n]
        expected = whitening.matrices[n] @ error
        np.testing.assert_allclose(residual(rig, state, VIEW, whitening)[2 * n : 2 * n + 2], expected, rtol=1e-10)


def test_jacobian_equals_finite_differences(rig, state, whitening):
    posed = rig.pose(state.joint_angles, state.expression)
    jacobian = correspondences(posed, state, VIEW, whitening).by_state
    bound = np.full(state.num_parameters - 6, np.inf)
    for index in range(state.num_parameters):
        delta = np.zeros(state.num_parameters)
        delta[index] = STEP
        ahead = residual(rig, state.step(delta, -bound, bound), VIEW, whitening)
        behind = residual(rig, state.step(-delta, -bound, bound), VIEW, whitening)
        np.testing.assert_allclose(jacobian[:, index], (ahead - behind) / (2 * STEP), atol=1e-4, rtol=1e-6)


def test_focal_derivative_equals_finite_differences(rig, state, whitening):
    posed = rig.pose(state.joint_angles, state.expression)
    by_log_focal = correspondences(posed, state, VIEW, whitening).by_log_focal
    ahead, behind = (residual(rig, state, VIEW.zoomed(sign * STEP), whitening) for sign in (1, -1))
    np.testing.assert_allclose(by_log_focal, (ahead - behind) / (2 * STEP), atol=1e-4, rtol=1e-6)


def evidence_with(sigma_px: np.ndarray, normal_px: np.ndarray) -> FaceEvidence:
    count = len(sigma_px)
    return FaceEvidence(
        points_px=np.zeros((count, 2)),
        sigma_px=sigma_px,
        normal_px=normal_px,
        presence=1.0,
        visibility=1.0,
        region=FaceRegion((0.0, 0.0), 1.0, 0.0),
        points_depth_px=np.zeros(count),
    )


def test_whitening_lets_a_point_slide_along_its_outline():
    angle = 0.3
    normal = np.array([[np.cos(angle), np.sin(angle)]])
    tangent = np.array([-np.sin(angle), np.cos(angle)])
    whitened = whiten(evidence_with(np.array([[2.0, np.inf]]), normal)).matrices[0]
    np.testing.assert_allclose(whitened @ (5.0 * tangent), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(whitened @ (4.0 * normal[0])), 2.0)


def test_whitening_scale_multiplies_standard_deviations():
    evidence = evidence_with(np.array([[2.0, 3.0]]), np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(whiten(evidence, 2.0).matrices[0], np.diag([1 / 4, 1 / 6]))


def test_cauchy_weights_are_the_slope_of_the_cost():
    residuals = np.array([[0.0, 0.0], [1.0, 0.5], [30.0, -4.0]])
    weights, _ = cauchy_weights(residuals, 3.0)
    assert weights[0] == 1.0
    for row, weight in zip(residuals[1:], weights[1:], strict=True):
        distance = np.linalg.norm(row)
        ahead, behind = (cauchy_weights((distance + s * STEP) * row[None] / distance, 3.0)[1] for s in (1, -1))
        np.testing.assert_allclose((ahead - behind) / (2 * STEP), weight * distance, rtol=1e-5)
