"""Compiled parts of the elimination of a chain's frames; see ``tracker.window_solver``.

A chain's blocks are small (some 65 numbers a frame, two thirds of them free) and there are several per streamed frame,
so that calls and copies would cost more than the arithmetic.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def inverse_of_free(matrix, free):  # pragma: no cover - compiled
    """Invert a symmetric positive definite matrix (Z, Z) restricted to some of its rows and columns.

    Args:
        matrix: float64 (Z, Z).
        free: rows that count, int64 (F,), ascending.

    Returns:
        The inverse in its place within float64 (Z, Z), zero elsewhere, and whether the matrix was positive definite.
    """
    count = len(free)
    out = np.zeros_like(matrix)
    lower, is_positive = factor_of_free(matrix, free)
    if not is_positive:
        return out, False
    # Rows of the factor's inverse, then their outer products.
    factor = np.zeros((count, count))
    product = np.zeros((count, count))
    for i in range(count):
        row = factor[i]
        for k in range(i):
            share = lower[i, k]
            other = factor[k]
            for j in range(k + 1):
                row[j] -= share * other[j]
        row[i] = 1.0
        row[: i + 1] /= lower[i, i]
        for a in range(i + 1):
            share = row[a]
            target = product[a]
            for j in range(a + 1):
                target[j] += share * row[j]
    for a in range(count):
        for j in range(a + 1):
            out[free[a], free[j]] = out[free[j], free[a]] = product[a, j]
    return out, True


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def factor_of_free(matrix, free):  # pragma: no cover - compiled
    """Return the lower Cholesky factor (F, F) of the free part of a symmetric matrix, and whether there is one."""
    count = len(free)
    lower = np.zeros((count, count))
    for i in range(count):
        row = lower[i]
        for j in range(i):
            total = matrix[free[i], free[j]]
            other = lower[j]
            for k in range(j):
                total -= row[k] * other[k]
            row[j] = total / other[j]
        total = matrix[free[i], free[i]]
        for k in range(i):
            total -= row[k] * row[k]
        if not total > 0.0:
            return lower, False
        row[i] = np.sqrt(total)
    return lower, True


@numba.njit(cache=True, nogil=True)
def schur_message(inverse, cross_diagonal, cross_upper, cross_lower):  # pragma: no cover - compiled
    """Return -C^T A^-1 C, float64 (Z, Z), for the sparse coupling C of ``tracker.motion.Paired``."""
    size, paired = len(cross_diagonal), len(cross_upper)
    first = size - paired
    half = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            half[i, j] = inverse[i, j] * cross_diagonal[j]
        for j in range(paired):
            half[i, j] += inverse[i, first + j] * cross_lower[j]
            half[i, first + j] += inverse[i, j] * cross_upper[j]
    out = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            out[i, j] = -cross_diagonal[i] * half[i, j]
    for i in range(paired):
        for j in range(size):
            out[i, j] -= cross_lower[i] * half[first + i, j]
            out[first + i, j] -= cross_upper[i] * half[i, j]
    return out


@numba.njit(cache=True, nogil=True)
def block_equations(
    own_hessian,
    own_gradient,
    message_hessian,
    message_gradient,
    before_diagonal,
    before_upper,
    before_lower,
    cross_diagonal,
    cross_upper,
    cross_lower,
    offset,
    damping,
    held_step,
):  # pragma: no cover - compiled
    """Sum a frame's own equations, the message from the frames before, and its part of the link to the next frame.

    Arrays of a message or a link that is not there are empty.

    Returns:
        Hessian (Z, Z), gradient (Z,), and the gradient after the step of the parameters that are held, float64 (Z,).
    """
    size = len(own_gradient)
    hessian, gradient = own_hessian.copy(), own_gradient.copy()
    if len(message_gradient):
        hessian += message_hessian
        gradient += message_gradient
    if len(cross_diagonal):
        paired = len(cross_upper)
        first = size - paired
        for i in range(size):
            hessian[i, i] += before_diagonal[i]
            gradient[i] -= cross_diagonal[i] * offset[i]
        for i in range(paired):
            hessian[i, first + i] += before_upper[i]
            hessian[first + i, i] += before_lower[i]
            gradient[i] -= cross_upper[i] * offset[first + i]
            gradient[first + i] -= cross_lower[i] * offset[i]
    for i in range(size):
        hessian[i, i] *= 1.0 + damping
    slope = gradient.copy()
    for j in range(size):
        if held_step[j] != 0.0:
            for i in range(size):
                slope[i] += hessian[j, i] * held_step[j]
    return hessian, gradient, slope


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def back_substitution(
    inverse, slope, held_step, cross_diagonal, cross_upper, cross_lower, after
):  # pragma: no cover - compiled
    """Return a frame's step, float64 (Z,), given that of the next frame, or with empty ``cross_diagonal`` alone."""
    size = len(slope)
    pull = -slope
    if len(cross_diagonal):
        paired = len(cross_upper)
        first = size - paired
        for i in range(size):
            pull[i] += cross_diagonal[i] * after[i]
        for i in range(paired):
            pull[i] += cross_upper[i] * after[first + i]
            pull[first + i] += cross_lower[i] * after[i]
    step = held_step.copy()
    for i in range(size):
        total = 0.0
        for j in range(size):
            total += inverse[i, j] * pull[j]
        step[i] += total
    return step
