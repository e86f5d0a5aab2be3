"""Rotations: against matrix exponentials and scipy, at the identity and at half turns, in both libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from flame import rotation_kernels
from flame.rotation import axis_angle_from_matrix, left_jacobian, matrix_from_axis_angle, skew
from tests.tolerances import assert_close

vectors = arrays(np.float64, (3,), elements=st.floats(-1.0, 1.0))
angles = st.one_of(
    st.floats(0.0, math.pi),
    st.sampled_from([0.0, 1e-300, 1e-160, 1e-12, 1e-8, 1e-4, 0.0999999, 0.1, 0.1000001]),
    st.floats(0.0, 1e-3).map(lambda gap: math.pi - gap),
)


def _axis_angle(direction: np.ndarray, angle: float) -> np.ndarray:
    length = np.linalg.norm(direction)
    return angle * (direction / length if length > 1e-3 else np.array((1.0, 0.0, 0.0)))


def _matrix(axis_angle: torch.Tensor) -> torch.Tensor:
    return matrix_from_axis_angle(axis_angle)


@given(vectors, angles)
def test_matrix_is_the_exponential(direction, angle):
    axis_angle = _axis_angle(direction, angle)
    expected = torch.linalg.matrix_exp(skew(torch.from_numpy(axis_angle)))
    np.testing.assert_allclose(matrix_from_axis_angle(axis_angle), expected.numpy(), atol=1e-14)


@given(vectors, angles)
def test_round_trip_of_the_vector(direction, angle):
    axis_angle = _axis_angle(direction, angle)
    back = axis_angle_from_matrix(matrix_from_axis_angle(axis_angle))
    if angle > math.pi - 1e-9:
        back = back * np.sign(back @ axis_angle)
    np.testing.assert_allclose(back, axis_angle, atol=1e-13, rtol=1e-12)


@given(vectors, angles)
def test_float32_round_trip_of_the_matrix(direction, angle):
    matrix = matrix_from_axis_angle(torch.from_numpy(_axis_angle(direction, angle)).float())
    assert matrix.dtype == torch.float32
    assert_close(matrix_from_axis_angle(axis_angle_from_matrix(matrix)), matrix)


@given(vectors, angles)
def test_numpy_and_torch_agree(direction, angle):
    axis_angle = _axis_angle(direction, angle)
    tensor = torch.from_numpy(axis_angle)
    for function in (matrix_from_axis_angle, left_jacobian, skew):
        np.testing.assert_allclose(function(axis_angle), function(tensor).numpy(), atol=1e-15, rtol=1e-14)
    matrix = matrix_from_axis_angle(axis_angle)
    np.testing.assert_allclose(
        axis_angle_from_matrix(matrix), axis_angle_from_matrix(torch.from_numpy(matrix)).numpy(), atol=1e-15, rtol=1e-14
    )


@given(vectors, angles, vectors)
def test_left_jacobian_is_the_derivative(direction, angle, point):
    axis_angle = torch.from_numpy(_axis_angle(direction, angle))
    derivative = torch.autograd.functional.jacobian(
        lambda vector: matrix_from_axis_angle(vector) @ torch.from_numpy(point), axis_angle
    )
    turned = matrix_from_axis_angle(axis_angle).numpy() @ point
    expected = -skew(turned) @ left_jacobian(axis_angle.numpy())
    np.testing.assert_allclose(np.asarray(derivative), expected, atol=1e-12)


def test_scipy_agrees():
    rotations = Rotation.from_rotvec(np.random.default_rng(3).uniform(-1.8, 1.8, (500, 3)))
    np.testing.assert_allclose(axis_angle_from_matrix(rotations.as_matrix()), rotations.as_rotvec(), atol=1e-13)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (-1, 2, 3)])
def test_half_turns(axis):
    axis_angle = math.pi * np.array(axis) / np.linalg.norm(axis)
    back = axis_angle_from_matrix(matrix_from_axis_angle(axis_angle))
    np.testing.assert_allclose(np.abs(back), np.abs(axis_angle), atol=1e-14)
    np.testing.assert_allclose(matrix_from_axis_angle(back), matrix_from_axis_angle(axis_angle), atol=1e-14)


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e-9, 1e-3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_and_right_near_zero(scale, dtype):
    axis_angle = (scale * torch.tensor((0.3, -0.5, 0.8), dtype=dtype)).requires_grad_()
    back = axis_angle_from_matrix(matrix_from_axis_angle(axis_angle))
    gradient = torch.autograd.grad((back * torch.tensor((1.0, 2.0, 3.0), dtype=dtype)).sum(), axis_angle)[0]
    assert_close(gradient, torch.tensor((1.0, 2.0, 3.0), dtype=dtype))


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.2, 2.5])
def test_gradcheck(scale):
    axis_angle = scale * torch.tensor([[0.3, -0.5, 0.8], [0.0, 0.6, -0.8]], dtype=torch.float64)
    axis_angle.requires_grad_()
    assert torch.autograd.gradcheck(_matrix, axis_angle)
    assert torch.autograd.gradcheck(lambda v: axis_angle_from_matrix(matrix_from_axis_angle(v)), axis_angle)
    assert torch.autograd.gradgradcheck(_matrix, axis_angle)


@pytest.mark.parametrize("batch", [(), (1,), (0,), (2, 3)])
def test_batches_are_loops(batch):
    axis_angle = torch.randn(*batch, 3, dtype=torch.float64)
    matrices = matrix_from_axis_angle(axis_angle)
    assert matrices.shape == (*batch, 3, 3)
    assert axis_angle_from_matrix(matrices).shape == (*batch, 3)
    for index in np.ndindex(*batch):
        assert_close(matrices[index], matrix_from_axis_angle(axis_angle[index]))


@given(vectors, angles)
def test_compiled_kernels_equal_the_general_functions(direction, angle):
    axis_angle = _axis_angle(direction, angle)
    np.testing.assert_allclose(
        rotation_kernels.rotation_matrix(axis_angle), matrix_from_axis_angle(axis_angle), atol=1e-12
    )
    np.testing.assert_allclose(rotation_kernels.left_jacobian(axis_angle), left_jacobian(axis_angle), atol=1e-9)


@given(vectors, st.floats(0.0, 3.0))
def test_small_turns_come_back(direction, angle):
    axis_angle = _axis_angle(direction, angle)
    turn = rotation_kernels.small_turn_vector(rotation_kernels.rotation_matrix(axis_angle))
    np.testing.assert_allclose(turn, axis_angle, atol=1e-9)
