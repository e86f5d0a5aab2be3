"""Forces and curvatures of vertices as the gradient and the Hessian of a step, compiled."""

from __future__ import annotations

import math

import numba
import numpy as np

from tracker.frame_terms import NUM_CAMERA

_FAST = {"reassoc", "contract", "arcp", "nsz"}
_NUM_TURNING = 9
"""Columns with which the axes of a normal map may turn: the head's rotation and translation, and the neck."""


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def stack_rows(
    active, row_of_vertex, jacobian, force, curvature, verts_cam, vert_normals_cam, rings, turning, step, rows
):  # pragma: no cover - compiled
    """Turn per-vertex forces and curvatures into rows whose square is the Hessian, and the gradient.

    Args:
        active: vertices that any term speaks of, int32 (K,).
        row_of_vertex: row of ``jacobian`` of each vertex, int32 (V,).
        jacobian: how vertices move with a step, float32 or float64 (N, 3, P), metres.
        force: gradients by motion and turn of each vertex, float64 (V, 6).
        curvature: packed Hessians of the same, float64 (V, 21).
        verts_cam: vertices in camera space, float64 (V, 3), metres.
        vert_normals_cam: their unit normals, float64 (V, 3).
        rings: the vertices' neighbours (see ``VertexRings``).
        turning: how fast the normal map's axes turn with each of the first nine columns, camera axes, float64 (9, 3).
        step: write rows of one vertex in so many, with as many times the weight.
        rows: written to, (6 K / step, P), zeros before, with H = rows^T rows.

    Returns:
        The gradient, float64 (P,).
    """
    gradient, pull = np.zeros(jacobian.shape[2]), np.zeros((len(jacobian), 3))
    turns, factor, lean = np.zeros((3, jacobian.shape[2]), jacobian.dtype), np.zeros((6, 6)), np.empty(3)
    start, neighbour, after, before = rings
    for k in range(len(active)):
        v = active[k]
        index = row_of_vertex[v]
        has_turn = curvature[v, 9] + curvature[v, 14] + curvature[v, 20] > 0
        _pull_vertex(force[v], jacobian[index], pull[index], gradient)
        scale = 0.0
        if has_turn:
            ring = start[v], start[v + 1]
            scale = 1.0 / _area(ring, neighbour, after, before, verts_cam, vert_normals_cam[v])
            _project_force(force[v], vert_normals_cam[v], turning, scale, lean, gradient)
            _pull_ring(ring, neighbour, after, before, verts_cam, row_of_vertex, lean, pull)
        if k % step == 0:
            if has_turn:
                _turn_ring(ring, neighbour, after, before, verts_cam, row_of_vertex, jacobian, turns)
                _unit_turns(turns, vert_normals_cam[v], scale, turning)
            _factor(curvature[v], math.sqrt(step), factor)
            first = 6 * (k // step)
            _mix(rows[first : first + 6], factor, jacobian[index], turns, has_turn)
    _add_pulls(pull, jacobian, gradient)
    return gradient


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _pull_vertex(force, moves, pull, gradient):  # pragma: no cover - compiled
    """Keep the force on a vertex for ``_add_pulls``, but for the camera's columns, which get it at once."""
    pull[0] += force[0]
    pull[1] += force[1]
    pull[2] += force[2]
    for p in range(len(gradient) - NUM_CAMERA, len(gradient)):
        gradient[p] += force[0] * moves[0, p] + force[1] * moves[1, p] + force[2] * moves[2, p]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _add_pulls(pull, jacobian, gradient):  # pragma: no cover - compiled
    """Add the forces (N, 3) on all vertices of the Jacobian to the gradient, but for the camera's columns."""
    num_moving = len(gradient) - NUM_CAMERA
    for n in range(len(pull)):
        x, y, z = pull[n, 0], pull[n, 1], pull[n, 2]
        if x != 0.0 or y != 0.0 or z != 0.0:
            moves = jacobian[n]
            for p in range(num_moving):
                gradient[p] += x * moves[0, p] + y * moves[1, p] + z * moves[2, p]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _area(ring, neighbour, after, before, verts_cam, normal):  # pragma: no cover - compiled
    """Return the length of a vertex's area normal."""
    total = 0.0
    for e in range(ring[0], ring[1]):
        w, s, r = verts_cam[neighbour[e]], verts_cam[after[e]], verts_cam[before[e]]
        x, y, z = s[0] - r[0], s[1] - r[1], s[2] - r[2]
        total += normal[0] * (w[1] * z - w[2] * y) + normal[1] * (w[2] * x - w[0] * z)
        total += normal[2] * (w[0] * y - w[1] * x)
    # Half of the sum over neighbours, since every triangle is seen from two of them.
    return max(0.5 * total, 1e-12)


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _project_force(force, normal, turning, scale, out, gradient):  # pragma: no cover - compiled
    """Write the force on an area normal that is one on the unit normal; let the map's axes turn away from it."""
    x, y, z = force[3], force[4], force[5]
    along = x * normal[0] + y * normal[1] + z * normal[2]
    out[0], out[1], out[2] = (
        (x - along * normal[0]) * scale,
        (y - along * normal[1]) * scale,
        (z - along * normal[2]) * scale,
    )
    moment_x, moment_y, moment_z = (
        normal[1] * z - normal[2] * y,
        normal[2] * x - normal[0] * z,
        normal[0] * y - normal[1] * x,
    )
    for p in range(_NUM_TURNING):
        gradient[p] -= turning[p, 0] * moment_x + turning[p, 1] * moment_y + turning[p, 2] * moment_z


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _pull_ring(ring, neighbour, after, before, verts_cam, row_of_vertex, force, pull):  # pragma: no cover - compiled
    """Carry the force on an area normal over to the neighbours that turn it."""
    for e in range(ring[0], ring[1]):
        s, r, out = verts_cam[after[e]], verts_cam[before[e]], pull[row_of_vertex[neighbour[e]]]
        x, y, z = s[0] - r[0], s[1] - r[1], s[2] - r[2]
        out[0] += y * force[2] - z * force[1]
        out[1] += z * force[0] - x * force[2]
        out[2] += x * force[1] - y * force[0]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _turn_ring(ring, neighbour, after, before, verts_cam, row_of_vertex, jacobian, out):  # pragma: no cover - compiled
    """Write how a vertex's area normal changes with a step, out (3, P)."""
    number = jacobian.dtype.type
    out[:] = 0
    for e in range(ring[0], ring[1]):
        s, r, moves = verts_cam[after[e]], verts_cam[before[e]], jacobian[row_of_vertex[neighbour[e]]]
        x, y, z = number(s[0] - r[0]), number(s[1] - r[1]), number(s[2] - r[2])
        _add_cross(out[0], moves[1], z, moves[2], y)
        _add_cross(out[1], moves[2], x, moves[0], z)
        _add_cross(out[2], moves[0], y, moves[1], x)


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _add_cross(out, plus, factor, minus, other):  # pragma: no cover - compiled
    """Add ``factor`` times one row, less ``other`` times another, to ``out``, but for the camera's columns."""
    for p in range(len(out) - NUM_CAMERA):
        out[p] += factor * plus[p] - other * minus[p]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _unit_turns(turns, normal, scale, turning):  # pragma: no cover - compiled
    """Make changes of an area normal (3, P) those of the unit normal, seen in the map's turning axes."""
    number = turns.dtype.type
    nx, ny, nz, factor = number(normal[0]), number(normal[1]), number(normal[2]), number(scale)
    for p in range(turns.shape[1]):
        x, y, z = turns[0, p] * factor, turns[1, p] * factor, turns[2, p] * factor
        along = x * nx + y * ny + z * nz
        turns[0, p], turns[1, p], turns[2, p] = x - along * nx, y - along * ny, z - along * nz
    for p in range(_NUM_TURNING):
        x, y, z = turning[p, 0], turning[p, 1], turning[p, 2]
        turns[0, p] -= number(y * normal[2] - z * normal[1])
        turns[1, p] -= number(z * normal[0] - x * normal[2])
        turns[2, p] -= number(x * normal[1] - y * normal[0])


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _mix(rows, factor, moves, turns, has_turn):  # pragma: no cover - compiled
    """Write the transposed factor (6, 6) times the stacked motions and turns, (3, P) each, to ``rows`` (6, P)."""
    number = moves.dtype.type
    for i in range(3):
        a, b, c = number(factor[0, i]), number(factor[1, i]), number(factor[2, i])
        for p in range(rows.shape[1]):
            rows[i, p] = a * moves[0, p] + b * moves[1, p] + c * moves[2, p]
    if has_turn:
        for i in range(6):
            a, b, c = number(factor[3, i]), number(factor[4, i]), number(factor[5, i])
            for p in range(rows.shape[1]):
                rows[i, p] += a * turns[0, p] + b * turns[1, p] + c * turns[2, p]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _factor(packed, scale, factor):  # pragma: no cover - compiled
    """Write ``scale`` times the Cholesky factor (6, 6) of a packed matrix; directions without weight get 0."""
    factor[:] = 0.0
    largest = 0.0
    position = 0
    for i in range(6):
        for j in range(i + 1):
            factor[i, j] = packed[position]
            position += 1
        largest = max(largest, factor[i, i])
    for j in range(6):
        pivot = factor[j, j]
        for k in range(j):
            pivot -= factor[j, k] ** 2
        if pivot <= 1e-9 * max(factor[j, j], 1e-9 * largest):
            for i in range(j, 6):
                factor[i, j] = 0.0
            continue
        factor[j, j] = math.sqrt(pivot)
        for i in range(j + 1, 6):
            value = factor[i, j]
            for k in range(j):
                value -= factor[i, k] * factor[j, k]
            factor[i, j] = value / factor[j, j]
    for i in range(6):
        for j in range(i + 1):
            factor[i, j] *= scale
