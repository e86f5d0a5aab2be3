"""Compiled parts of ``flame.mesh_rig``: where vertices are, and how they move with each kind of parameter."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, fastmath=True)
def skin(
    first_weight, joint, weight, rest, rotations, joints, posed_joints, rotation, translation
):  # pragma: no cover - compiled
    """Skin vertices at rest (V, 3) and place them in camera space, float64 (V, 3)."""
    out = np.empty((len(rest), 3))
    head = np.empty(3)
    for v in range(len(rest)):
        head[:] = 0.0
        for m in range(first_weight[v], first_weight[v + 1]):
            j, w = joint[m], weight[m]
            x, y, z = rest[v, 0] - joints[j, 0], rest[v, 1] - joints[j, 1], rest[v, 2] - joints[j, 2]
            for c in range(3):
                turned = rotations[j, c, 0] * x + rotations[j, c, 1] * y + rotations[j, c, 2] * z
                head[c] += w * (turned + posed_joints[j, c])
        for c in range(3):
            out[v, c] = rotation[c, 0] * head[0] + rotation[c, 1] * head[1] + rotation[c, 2] * head[2] + translation[c]
    return out


@numba.njit(cache=True, nogil=True, fastmath=True)
def blend(vertices, first_weight, joint, weight, rotations, out):  # pragma: no cover - compiled
    """Write the weighted rotations of vertices, (K, 3, 3)."""
    for k in range(len(vertices)):
        v = vertices[k]
        for r in range(3):
            for c in range(3):
                total = 0.0
                for m in range(first_weight[v], first_weight[v + 1]):
                    total += weight[m] * rotations[joint[m], r, c]
                out[k, r, c] = total


@numba.njit(cache=True, nogil=True, fastmath=True)
def turn_basis(
    vertices, first_weight, joint, weight, head_from_rest, rotation, basis, carried, carries, first, out
):  # pragma: no cover - compiled
    """Write what coefficients do to vertices, to B columns of ``out`` from ``first`` on.

    Args:
        vertices: which rows to write, int32 (K,).
        first_weight: first weight of each vertex, int32 (V + 1,).
        joint: joint of each weight, int32 (M,).
        weight: skinning weights, float64 (M,).
        head_from_rest: weighted rotations of these vertices, float64 (K, 3, 3).
        rotation: rotation of cam_from_head, float64 (3, 3).
        basis: derivative of the vertices at rest, (V, 3, B).
        carried: how the joints' own motion moves what turns with them, camera axes, (5, 3, B).
        carries: joints for which that is not zero, bool (5,).
        first: first column.
        out: float32 or float64 (K, 3, P).
    """
    number, count = basis.dtype.type, basis.shape[2]
    for k in range(len(vertices)):
        v = vertices[k]
        turn = head_from_rest[k]
        for c in range(3):
            x = number(rotation[c, 0] * turn[0, 0] + rotation[c, 1] * turn[1, 0] + rotation[c, 2] * turn[2, 0])
            y = number(rotation[c, 0] * turn[0, 1] + rotation[c, 1] * turn[1, 1] + rotation[c, 2] * turn[2, 1])
            z = number(rotation[c, 0] * turn[0, 2] + rotation[c, 1] * turn[1, 2] + rotation[c, 2] * turn[2, 2])
            row = out[k, c, first : first + count]
            by_x, by_y, by_z = basis[v, 0], basis[v, 1], basis[v, 2]
            for b in range(count):
                row[b] = x * by_x[b] + y * by_y[b] + z * by_z[b]
            for m in range(first_weight[v], first_weight[v + 1]):
                if carries[joint[m]]:
                    w, extra = number(weight[m]), carried[joint[m], c]
                    for b in range(count):
                        row[b] += w * extra[b]


@numba.njit(cache=True, nogil=True, fastmath=True)
def turn_joints(
    vertices,
    first_weight,
    joint,
    weight,
    rest,
    pose_basis,
    rotations,
    joints,
    posed_joints,
    axes,
    features_jacobian,
    head_from_rest,
    rotation,
    out,
):  # pragma: no cover - compiled
    """Write what the joint angles do to vertices, to columns 6 to 17 of ``out`` (K, 3, P)."""
    by_angle, lever, corrected = np.empty((3, 12)), np.empty(3), np.empty((3, 12))
    for k in range(len(vertices)):
        v = vertices[k]
        _correct(pose_basis[v], features_jacobian, corrected)
        for a in range(12):
            x, y, z = corrected[0, a], corrected[1, a], corrected[2, a]
            for c in range(3):
                turn = head_from_rest[k, c]
                by_angle[c, a] = turn[0] * x + turn[1] * y + turn[2] * z
        for m in range(first_weight[v], first_weight[v + 1]):
            j, w = joint[m], weight[m]
            x, y, z = rest[v, 0] - joints[j, 0], rest[v, 1] - joints[j, 1], rest[v, 2] - joints[j, 2]
            for c in range(3):
                lever[c] = w * (rotations[j, c, 0] * x + rotations[j, c, 1] * y + rotations[j, c, 2] * z)
            if j >= 2:
                _add_axes(by_angle, 3 * (j - 1), axes[j - 1], lever)
            if j >= 1:
                for c in range(3):
                    lever[c] += w * (posed_joints[j, c] - posed_joints[1, c])
                _add_axes(by_angle, 0, axes[0], lever)
        for c in range(3):
            x, y, z = rotation[c, 0], rotation[c, 1], rotation[c, 2]
            for a in range(12):
                out[k, c, 6 + a] = x * by_angle[0, a] + y * by_angle[1, a] + z * by_angle[2, a]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _correct(pose_basis, features_jacobian, out):  # pragma: no cover - compiled
    """Write how a vertex at rest moves with the joint angles by its pose correctives (3, 36), out (3, 12)."""
    for c in range(3):
        for j in range(4):
            for angle in range(3):
                total = 0.0
                for f in range(9):
                    total += pose_basis[c, 9 * j + f] * features_jacobian[j, angle, f]
                out[c, 3 * j + angle] = total


@numba.njit(cache=True, nogil=True, fastmath=True)
def _add_axes(by_angle, column, axes, lever):  # pragma: no cover - compiled
    """Add axis x lever for three axes (columns) to three columns of ``by_angle`` (3, 12)."""
    for angle in range(3):
        x, y, z = axes[0, angle], axes[1, angle], axes[2, angle]
        by_angle[0, column + angle] += y * lever[2] - z * lever[1]
        by_angle[1, column + angle] += z * lever[0] - x * lever[2]
        by_angle[2, column + angle] += x * lever[1] - y * lever[0]


@numba.njit(cache=True, nogil=True, fastmath=True)
def move_rigidly(vertices, verts_cam, translation, focal, out):  # pragma: no cover - compiled
    """Write what rotation, translation and camera do to vertices, to six columns and the last three of ``out``."""
    camera = out.shape[2] - 3
    for k in range(len(vertices)):
        v, rows = vertices[k], out[k]
        x, y, z = verts_cam[v, 0] - translation[0], verts_cam[v, 1] - translation[1], verts_cam[v, 2] - translation[2]
        for c in range(3):
            for p in range(3):
                rows[c, p], rows[c, 3 + p], rows[c, camera + p] = 0.0, 1.0 if c == p else 0.0, 0.0
        rows[0, 1], rows[0, 2] = z, -y
        rows[1, 0], rows[1, 2] = -z, x
        rows[2, 0], rows[2, 1] = y, -x
        rows[0, camera], rows[1, camera] = verts_cam[v, 0], verts_cam[v, 1]
        rows[0, camera + 1] = verts_cam[v, 2] / focal[0]
        rows[1, camera + 2] = verts_cam[v, 2] / focal[1]
