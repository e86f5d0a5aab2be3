"""Compiled rotation formulas for one axis-angle vector; callable from Python and from other compiled code.

With theta = |w| and [w] the cross-product matrix: R = I + a [w] + b [w]^2 (Rodrigues) and the left Jacobian
J = I + b [w] + c [w]^2, for which d(R x)/dw = -[R x] J. Near zero a, b, c come from their Taylor series.
"""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _coefficients(theta_squared):  # pragma: no cover - compiled
    """Return sin(t)/t, (1 - cos t)/t^2, (t - sin t)/t^3 for t^2."""
    if theta_squared < 1e-4:
        a = 1.0 - theta_squared / 6.0 * (1.0 - theta_squared / 20.0)
        b = 0.5 - theta_squared / 24.0 * (1.0 - theta_squared / 30.0)
        c = 1.0 / 6.0 - theta_squared / 120.0 * (1.0 - theta_squared / 42.0)
        return a, b, c
    theta = math.sqrt(theta_squared)
    a = math.sin(theta) / theta
    return a, (1.0 - math.cos(theta)) / theta_squared, (1.0 - a) / theta_squared


@numba.njit(cache=True, nogil=True)
def _polynomial(w, first, second):  # pragma: no cover - compiled
    """Return I + first [w] + second [w]^2."""
    x, y, z = w[0], w[1], w[2]
    out = np.empty((3, 3))
    out[0, 0] = 1.0 - second * (y * y + z * z)
    out[1, 1] = 1.0 - second * (x * x + z * z)
    out[2, 2] = 1.0 - second * (x * x + y * y)
    out[0, 1] = second * x * y - first * z
    out[1, 0] = second * x * y + first * z
    out[0, 2] = second * x * z + first * y
    out[2, 0] = second * x * z - first * y
    out[1, 2] = second * y * z - first * x
    out[2, 1] = second * y * z + first * x
    return out


@numba.njit(cache=True, nogil=True)
def rotation_matrix(axis_angle):  # pragma: no cover - compiled
    """Return the rotation matrix (3, 3) of one axis-angle vector (3,), radians, float64."""
    a, b, _ = _coefficients(axis_angle[0] ** 2 + axis_angle[1] ** 2 + axis_angle[2] ** 2)
    return _polynomial(axis_angle, a, b)


@numba.njit(cache=True, nogil=True)
def left_jacobian(axis_angle):  # pragma: no cover - compiled
    """Return J (3, 3) so that R(w + d) is exp([J d]) R(w) to first order in d; one vector (3,), radians, float64."""
    _, b, c = _coefficients(axis_angle[0] ** 2 + axis_angle[1] ** 2 + axis_angle[2] ** 2)
    return _polynomial(axis_angle, b, c)


@numba.njit(cache=True, nogil=True)
def small_turn_vector(matrix):  # pragma: no cover - compiled
    """Return the axis-angle vector (3,) of one rotation matrix (3, 3), float64, that turns by well under pi.

    ``flame.rotation.axis_angle_from_matrix`` does so for all rotations; this one is for turns between nearby frames.
    """
    out = np.empty(3)
    out[0] = 0.5 * (matrix[2, 1] - matrix[1, 2])
    out[1] = 0.5 * (matrix[0, 2] - matrix[2, 0])
    out[2] = 0.5 * (matrix[1, 0] - matrix[0, 1])
    sine = math.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2)
    cosine = 0.5 * (matrix[0, 0] + matrix[1, 1] + matrix[2, 2] - 1.0)
    if sine > 1e-8:
        out *= math.atan2(sine, cosine) / sine
    return out
