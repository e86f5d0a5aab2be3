"""Rotations as axis-angle vectors and 3 x 3 matrices, for numpy arrays and torch tensors alike.

Every function takes any leading batch shape, keeps the array's kind and dtype, and is exact and smooth at the identity
(torch gradients are finite there). An axis-angle vector's direction is the axis, its length the angle in radians;
matrices rotate column vectors, ``R @ x``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from flame.camera import Array

_SERIES_BELOW = 1e-2
"""Squared angle below which the closed forms are replaced by their Taylor series (next term under 1e-17)."""


def matrix_from_axis_angle(axis_angle: Array) -> Array:
    """Return the rotation matrices (..., 3, 3) of axis-angle vectors (..., 3), radians (Rodrigues' formula)."""
    squared, angle, is_small = _angles(axis_angle)
    xp = _namespace(axis_angle)
    half_sinc = xp.sin(angle / 2) / angle
    sine_part = xp.where(is_small, _series(squared, (1, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880)), xp.sin(angle) / angle)
    cosine_part = xp.where(is_small, _one_minus_cosine_series(squared), 2 * half_sinc * half_sinc)
    return _rotation_polynomial(axis_angle, sine_part, cosine_part)


def left_jacobian(axis_angle: Array) -> Array:
    """Return the left Jacobian J (..., 3, 3) of SO(3) at axis-angle vectors (..., 3).

    A small change dw of the vector turns the rotation by ``J @ dw`` on the left:
    ``R(w + dw) = R(J @ dw) @ R(w)`` to first order, so ``d(R(w) @ x) / dw = -skew(R(w) @ x) @ J``.
    """
    squared, angle, is_small = _angles(axis_angle)
    xp = _namespace(axis_angle)
    half_sinc = xp.sin(angle / 2) / angle
    linear = xp.where(is_small, _one_minus_cosine_series(squared), 2 * half_sinc * half_sinc)
    cubic_series = _series(squared, (1 / 6, -1 / 120, 1 / 5040, -1 / 362880, 1 / 39916800))
    quadratic = xp.where(is_small, cubic_series, (angle - xp.sin(angle)) / (angle * angle * angle))
    return _rotation_polynomial(axis_angle, linear, quadratic)


def axis_angle_from_matrix(matrix: Array) -> Array:
    """Return the axis-angle vectors (..., 3) of rotation matrices (..., 3, 3); angles lie in [0, pi].

    Accurate at the identity and at half turns, where the axis's sign is arbitrary. The way is through the unit
    quaternion, taken from the largest row of its outer product (S. W. Shepperd, 1978).
    """
    xp = _namespace(matrix)
    quaternion = _unit_quaternion(matrix)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    sign = xp.where(real < 0, -xp.ones_like(real), xp.ones_like(real))
    real, imaginary = real * sign, imaginary * sign
    squared_sine = (imaginary * imaginary).sum(-1)[..., None]
    is_small = squared_sine < _SERIES_BELOW
    half_sine = xp.sqrt(xp.where(is_small, xp.ones_like(squared_sine), squared_sine))
    angle_ratio = 2 * _arctan2(half_sine, real) / half_sine
    arcsine_series = _series(squared_sine, (2, 1 / 3, 3 / 20, 5 / 56, 35 / 576, 63 / 1408, 231 / 6656))
    return imaginary * xp.where(is_small, arcsine_series, angle_ratio)


def skew(vectors: Array) -> Array:
    """Return the matrices (..., 3, 3) with ``skew(a) @ b = cross(a, b)`` for vectors (..., 3)."""
    xp = _namespace(vectors)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    zero = xp.zeros_like(x)
    rows = (xp.stack((zero, -z, y), -1), xp.stack((z, zero, -x), -1), xp.stack((-y, x, zero), -1))
    return xp.stack(rows, -2)


def _namespace(array: np.ndarray | torch.Tensor) -> Any:
    """Return torch or numpy: the functions used here have the same names and positional arguments in both."""
    return torch if isinstance(array, torch.Tensor) else np


def _arctan2(y: Any, x: Any) -> Any:
    return torch.atan2(y, x) if isinstance(y, torch.Tensor) else np.arctan2(y, x)


def _angles(axis_angle: Array) -> tuple[Any, Any, Any]:
    """Return squared angle, angle (1 where it is small, so that no division or root is singular) and that mask."""
    xp = _namespace(axis_angle)
    squared = (axis_angle * axis_angle).sum(-1)
    is_small = squared < _SERIES_BELOW
    angle = xp.sqrt(xp.where(is_small, xp.ones_like(squared), squared))
    return squared, angle, is_small


def _series(variable: Any, coefficients: tuple[float, ...]) -> Any:
    """Evaluate the power series with the given coefficients, constant first, by Horner's rule."""
    value = variable * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        value = (value + coefficient) * variable
    return value + coefficients[0]


def _one_minus_cosine_series(squared: Any) -> Any:
    return _series(squared, (1 / 2, -1 / 24, 1 / 720, -1 / 40320, 1 / 3628800))


def _rotation_polynomial(axis_angle: Array, linear: Any, quadratic: Any) -> Array:
    """Return ``I + linear * K + quadratic * K @ K`` with K the skew matrix, using ``K @ K = w w' - |w|^2 I``."""
    xp = _namespace(axis_angle)
    squared = (axis_angle * axis_angle).sum(-1)
    outer = axis_angle[..., :, None] * axis_angle[..., None, :]
    if isinstance(axis_angle, torch.Tensor):
        identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    else:
        identity = np.eye(3, dtype=axis_angle.dtype)
    diagonal = (xp.ones_like(squared) - quadratic * squared)[..., None, None] * identity
    return diagonal + linear[..., None, None] * skew(axis_angle) + quadratic[..., None, None] * outer


def _unit_quaternion(matrix: Array) -> Any:
    """Return quaternions (..., 4), real part first, of either sign."""
    xp = _namespace(matrix)
    xx, yy, zz = matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 2, 2]
    wx, wy, wz = (
        matrix[..., 2, 1] - matrix[..., 1, 2],
        matrix[..., 0, 2] - matrix[..., 2, 0],
        matrix[..., 1, 0] - matrix[..., 0, 1],
    )
    xy, xz, yz = (
        matrix[..., 0, 1] + matrix[..., 1, 0],
        matrix[..., 0, 2] + matrix[..., 2, 0],
        matrix[..., 1, 2] + matrix[..., 2, 1],
    )
    rows = (
        xp.stack((1 + xx + yy + zz, wx, wy, wz), -1),
        xp.stack((wx, 1 + xx - yy - zz, xy, xz), -1),
        xp.stack((wy, xy, 1 - xx + yy - zz, yz), -1),
        xp.stack((wz, xz, yz, 1 - xx - yy + zz), -1),
    )
    four_outer = xp.stack(rows, -2)
    diagonal = xp.stack([row[..., index] for index, row in enumerate(rows)], -1)
    best = diagonal.argmax(-1)[..., None, None]
    if isinstance(four_outer, torch.Tensor):
        row = torch.take_along_dim(four_outer, best, dim=-2)[..., 0, :]
    else:
        row = np.take_along_axis(four_outer, best, axis=-2)[..., 0, :]
    return row / xp.sqrt((row * row).sum(-1))[..., None]
