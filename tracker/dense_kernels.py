"""Compiled sums over pixels and vertices for dense evidence.

Every term is reduced to a force and a curvature per vertex, on six numbers: how the vertex moves and how its normal
turns, both in camera axes. A pixel sees a mixture of three vertices; its curvature is given to them by their shares,
which is never less than the mixture's own (Jensen), so a step found with it never overshoots, and 100 000 pixels cost
the linear algebra no more than 100.
"""

from __future__ import annotations

import math

import numba
import numpy as np

NUM_CURVATURES = 21
"""Entries of a symmetric 6 x 6 matrix, lower triangle by rows."""


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")
def add_pixels(
    pixels,
    normals,
    texture,
    pixel_step,
    triangle,
    faces,
    is_excluded,
    verts_cam,
    vert_normals_cam,
    uv,
    uv_faces,
    focal,
    center,
    map_from_cam,
    normal_weight,
    normal_cap,
    normal_floor,
    uv_weight,
    uv_seam,
    uv_floor,
    wants_derivatives,
    force,
    curvature,
):  # pragma: no cover - compiled
    """Add the normal and the texture term of all pixels.

    Args:
        pixels: row and column of the K pixels with evidence, int32 (K, 2).
        normals: observed unit normals in the map's axes, float64 (K, 3).
        texture: observed texture coordinates, float64 (K, 2), NaN where there are none.
        triangle: nearest triangle of each pixel, int32 (H, W), -1 for none.
        faces: triangles (F, 3); is_excluded: triangles that say nothing, bool (F,).
        verts_cam, vert_normals_cam: vertices and their unit normals in camera space, float64 (V, 3).
        uv, uv_faces: texture coordinates (VT, 2) and their rows at the triangles' corners (F, 3).
        focal, center: the camera, (2,) each.
        map_from_cam: rotation from camera axes to the axes of the normal map, (3, 3).
        normal_weight, uv_weight: weights of one pixel.
        normal_cap: residual from which a pixel costs no more; infinite for none.
        uv_seam: residual from which rendered and observed coordinates lie on two sides of a seam and say nothing.
        normal_floor, uv_floor: residuals below which the norms are rounded off for re-weighting.
        wants_derivatives: whether to add to force and curvature.
        force: float64 (V, 6); curvature: float64 (V, 21); both added to.

    Returns:
        The energies of the normals and of the texture.
    """
    normal_energy, uv_energy = 0.0, 0.0
    ray, g, point, mixed, n, residual = (np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3))
    shares, grad, leaning, slide = np.empty(3), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    by_point, turned, derivative, packed = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 6)), np.empty(21)
    pull, uv_by_point, texture_by_place = np.empty(6), np.empty((2, 3)), np.empty((2, 3))
    weights = np.empty(3)
    for k in range(len(pixels)):
        row, column = pixels[k, 0], pixels[k, 1]
        f = triangle[row // pixel_step, column // pixel_step]
        if f < 0:
            total = abs(normals[k, 0]) + abs(normals[k, 1]) + abs(normals[k, 2])
            normal_energy += normal_weight * min(total, normal_cap)
            continue
        if is_excluded[f]:
            continue
        ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
        ray[0] = (column + 0.5 - center[0]) / focal[0]
        ray[1] = (row + 0.5 - center[1]) / focal[1]
        ray[2] = 1.0
        _barycentric(verts_cam[ia], verts_cam[ib], verts_cam[ic], ray, g, point, shares, grad)
        facing = g[0] * ray[0] + g[1] * ray[1] + g[2]
        for c in range(3):
            mixed[c] = (
                shares[0] * vert_normals_cam[ia, c]
                + shares[1] * vert_normals_cam[ib, c]
                + shares[2] * vert_normals_cam[ic, c]
            )
        length = math.sqrt(mixed[0] ** 2 + mixed[1] ** 2 + mixed[2] ** 2)
        if length < 1e-9:
            continue
        for c in range(3):
            n[c] = mixed[c] / length
        total = 0.0
        for c in range(3):
            residual[c] = (
                map_from_cam[c, 0] * n[0] + map_from_cam[c, 1] * n[1] + map_from_cam[c, 2] * n[2] - normals[k, c]
            )
            total += abs(residual[c])
        normal_energy += normal_weight * min(total, normal_cap)
        has_normal = total < normal_cap and normal_weight > 0
        u, v = 0.0, 0.0
        distance = np.inf
        has_texture = uv_weight > 0 and not np.isnan(texture[k, 0])
        if has_texture:
            ta, tb, tc = uv_faces[f, 0], uv_faces[f, 1], uv_faces[f, 2]
            u = shares[0] * uv[ta, 0] + shares[1] * uv[tb, 0] + shares[2] * uv[tc, 0] - texture[k, 0]
            v = shares[0] * uv[ta, 1] + shares[1] * uv[tb, 1] + shares[2] * uv[tc, 1] - texture[k, 1]
            distance = math.sqrt(u * u + v * v)
            has_texture = distance < uv_seam
            if has_texture:
                uv_energy += uv_weight * distance
        if not wants_derivatives or not (has_normal or has_texture):
            continue
        # A point of the surface that moves by d leaves the pixel to another one, slide d away within the triangle.
        for i in range(3):
            for j in range(3):
                slide[i, j] = ray[i] * g[j] / facing - (1.0 if i == j else 0.0)
        derivative[:] = 0.0
        packed[:] = 0.0
        pull[:] = 0.0
        if has_normal:
            for i in range(3):
                for j in range(3):
                    leaning[i, j] = (
                        vert_normals_cam[ia, i] * grad[0, j]
                        + vert_normals_cam[ib, i] * grad[1, j]
                        + vert_normals_cam[ic, i] * grad[2, j]
                    )
            for i in range(3):
                for j in range(3):
                    by_point[i, j] = (
                        leaning[i, 0] * slide[0, j] + leaning[i, 1] * slide[1, j] + leaning[i, 2] * slide[2, j]
                    )
            for i in range(3):
                along = map_from_cam[i, 0] * n[0] + map_from_cam[i, 1] * n[1] + map_from_cam[i, 2] * n[2]
                for j in range(3):
                    turned[i, j] = (map_from_cam[i, j] - along * n[j]) / length
            for i in range(3):
                for j in range(3):
                    derivative[i, j] = (
                        turned[i, 0] * by_point[0, j] + turned[i, 1] * by_point[1, j] + turned[i, 2] * by_point[2, j]
                    )
                    derivative[i, 3 + j] = turned[i, j]
                weights[i] = normal_weight / max(abs(residual[i]), normal_floor)
            _accumulate(derivative, residual, weights, 3, packed, pull)
        if has_texture:
            for i in range(2):
                for j in range(3):
                    texture_by_place[i, j] = (
                        uv[uv_faces[f, 0], i] * grad[0, j]
                        + uv[uv_faces[f, 1], i] * grad[1, j]
                        + uv[uv_faces[f, 2], i] * grad[2, j]
                    )
            for i in range(2):
                for j in range(3):
                    uv_by_point[i, j] = (
                        texture_by_place[i, 0] * slide[0, j]
                        + texture_by_place[i, 1] * slide[1, j]
                        + texture_by_place[i, 2] * slide[2, j]
                    )
            weight = uv_weight / max(distance, uv_floor)
            position = 0
            for i in range(3):
                for j in range(i + 1):
                    packed[position] += weight * (
                        uv_by_point[0, i] * uv_by_point[0, j] + uv_by_point[1, i] * uv_by_point[1, j]
                    )
                    position += 1
                pull[i] += weight * (uv_by_point[0, i] * u + uv_by_point[1, i] * v)
        for corner in range(3):
            vertex, share = faces[f, corner], shares[corner]
            if share > 0:
                for i in range(6):
                    force[vertex, i] += share * pull[i]
                for i in range(NUM_CURVATURES):
                    curvature[vertex, i] += share * packed[i]
    return normal_energy, uv_energy


@numba.njit(
    cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy", inline="always"
)
def _barycentric(a, b, c, ray, g, point, shares, grad):  # pragma: no cover - compiled
    """Write where a ray meets a triangle: normal g (not unit), point, corner shares and their gradients (3, 3)."""
    abx, aby, abz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    acx, acy, acz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    g[0], g[1], g[2] = aby * acz - abz * acy, abz * acx - abx * acz, abx * acy - aby * acx
    squared = g[0] * g[0] + g[1] * g[1] + g[2] * g[2]
    depth = (g[0] * a[0] + g[1] * a[1] + g[2] * a[2]) / (g[0] * ray[0] + g[1] * ray[1] + g[2] * ray[2])
    for i in range(3):
        point[i] = depth * ray[i]
    for k in range(3):
        if k == 0:
            sx, sy, sz = c[0] - b[0], c[1] - b[1], c[2] - b[2]
            ox, oy, oz = b[0], b[1], b[2]
        elif k == 1:
            sx, sy, sz = a[0] - c[0], a[1] - c[1], a[2] - c[2]
            ox, oy, oz = c[0], c[1], c[2]
        else:
            sx, sy, sz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
            ox, oy, oz = a[0], a[1], a[2]
        grad[k, 0] = (g[1] * sz - g[2] * sy) / squared
        grad[k, 1] = (g[2] * sx - g[0] * sz) / squared
        grad[k, 2] = (g[0] * sy - g[1] * sx) / squared
        shares[k] = grad[k, 0] * (point[0] - ox) + grad[k, 1] * (point[1] - oy) + grad[k, 2] * (point[2] - oz)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, inline="always")
def _accumulate(derivative, residual, weights, count, packed, pull):  # pragma: no cover - compiled
    """Add weighted squares of derivative rows (count, 6) to a packed 6 x 6 matrix and their pull (6,)."""
    position = 0
    for i in range(6):
        for j in range(i + 1):
            value = 0.0
            for r in range(count):
                value += weights[r] * derivative[r, i] * derivative[r, j]
            packed[position] += value
            position += 1
        value = 0.0
        for r in range(count):
            value += weights[r] * derivative[r, i] * residual[r]
        pull[i] += value


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")
def add_projections(
    vertices,
    points_px,
    weights,
    verts_cam,
    is_hidden,
    focal,
    center,
    cap_px,
    floor_px,
    wants_derivatives,
    force,
    curvature,
):  # pragma: no cover - compiled
    """Add the distances of projected vertices from where they were seen: sum w min(|pi(v) - p|, cap).

    Args:
        vertices: int (L,); points_px: float64 (L, 2); weights: float64 (L,).
        verts_cam: all vertices in camera space (V, 3); is_hidden: bool (V,), these cost the cap.
        focal, center: the camera, (2,) each.
        cap_px: distance from which a vertex costs no more; infinite for none.
        floor_px: distance below which the norm is rounded off for re-weighting.
        wants_derivatives: whether to add to force (V, 6) and curvature (V, 21).

    Returns:
        The energy.
    """
    energy = 0.0
    for k in range(len(vertices)):
        v = vertices[k]
        weight = weights[k]
        if is_hidden[v]:
            energy += weight * cap_px
            continue
        depth = max(verts_cam[v, 2], 1e-3)
        x, y = verts_cam[v, 0] / depth, verts_cam[v, 1] / depth
        ex = focal[0] * x + center[0] - points_px[k, 0]
        ey = focal[1] * y + center[1] - points_px[k, 1]
        distance = math.sqrt(ex * ex + ey * ey)
        energy += weight * min(distance, cap_px)
        if not wants_derivatives or distance >= cap_px:
            continue
        w = weight / max(distance, floor_px)
        a, b = focal[0] / depth, focal[1] / depth
        add_plane(force, curvature, v, a, 0.0, -a * x, w, ex)
        add_plane(force, curvature, v, 0.0, b, -b * y, w, ey)
    return energy


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, inline="always")
def add_plane(force, curvature, v, a, b, c, weight, residual):  # pragma: no cover - compiled
    """Add weight / 2 * (residual + (a, b, c) . d)^2 of the motion d of vertex v."""
    force[v, 0] += weight * a * residual
    force[v, 1] += weight * b * residual
    force[v, 2] += weight * c * residual
    curvature[v, 0] += weight * a * a
    curvature[v, 1] += weight * b * a
    curvature[v, 2] += weight * b * b
    curvature[v, 3] += weight * c * a
    curvature[v, 4] += weight * c * b
    curvature[v, 5] += weight * c * c


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")
def stack_rows(
    active,
    row_of_vertex,
    jacobian,
    force,
    curvature,
    verts_cam,
    vert_normals_cam,
    start,
    neighbour,
    after,
    before,
    turning,
    step,
    rows,
):  # pragma: no cover - compiled
    """Turn per-vertex forces and curvatures into rows whose square is the Hessian, and the gradient.

    Args:
        active: vertices that any term speaks of, int (K,).
        row_of_vertex: row of ``jacobian`` of each vertex, int (V,).
        jacobian: how vertices move with a step, float32 (N, 3, P); the last three columns move no normals.
        force, curvature: (V, 6), (V, 21).
        verts_cam, vert_normals_cam: (V, 3).
        start, neighbour, after, before: rings of the vertices.
        turning: how fast the normal map's axes turn with each of the first nine columns, in camera axes, (9, 3).
        step: write rows of one vertex in so many, with as many times the weight.
        rows: written to, (6 K / step, P), zeros before, with H = rows^T rows.

    Returns:
        The gradient, float64 (P,).
    """
    num_parameters = jacobian.shape[2]
    gradient = np.zeros(num_parameters)
    q = np.zeros((6, num_parameters), jacobian.dtype)
    factor = np.zeros((6, 6))
    scale = math.sqrt(step)
    for k in range(len(active)):
        v = active[k]
        moves = jacobian[row_of_vertex[v]]
        q[:] = 0
        for c in range(3):
            for p in range(num_parameters):
                q[c, p] = moves[c, p]
        turns_normal = curvature[v, 9] + curvature[v, 14] + curvature[v, 20] > 0
        if turns_normal:
            _add_normal_rows(
                q, v, row_of_vertex, jacobian, verts_cam, vert_normals_cam, start, neighbour, after, before, turning
            )
        if k % step == 0:
            _factor(curvature[v], factor)
            for i in range(6):
                row = rows[6 * (k // step) + i]
                for j in range(i, 6 if turns_normal else 3):
                    share = jacobian.dtype.type(factor[j, i] * scale)
                    if share != 0:
                        for p in range(num_parameters):
                            row[p] += share * q[j, p]
        for i in range(6 if turns_normal else 3):
            pull = force[v, i]
            for p in range(num_parameters):
                gradient[p] += pull * q[i, p]
    return gradient


@numba.njit(
    cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy", inline="always"
)
def _add_normal_rows(
    q, v, row_of_vertex, jacobian, verts_cam, vert_normals_cam, start, neighbour, after, before, turning
):  # pragma: no cover - compiled
    """Write how a vertex's unit normal turns to rows 3 to 5 of ``q``."""
    num_moving = jacobian.shape[2] - 3
    area = np.zeros(3)
    for e in range(start[v], start[v + 1]):
        w, s, r = neighbour[e], after[e], before[e]
        gx = verts_cam[s, 0] - verts_cam[r, 0]
        gy = verts_cam[s, 1] - verts_cam[r, 1]
        gz = verts_cam[s, 2] - verts_cam[r, 2]
        x, y, z = verts_cam[w, 0], verts_cam[w, 1], verts_cam[w, 2]
        area[0] += y * gz - z * gy
        area[1] += z * gx - x * gz
        area[2] += x * gy - y * gx
        cross = jacobian[row_of_vertex[w]]
        fx, fy, fz = jacobian.dtype.type(gx), jacobian.dtype.type(gy), jacobian.dtype.type(gz)
        for p in range(num_moving):
            q[3, p] += cross[1, p] * fz - cross[2, p] * fy
            q[4, p] += cross[2, p] * fx - cross[0, p] * fz
            q[5, p] += cross[0, p] * fy - cross[1, p] * fx
    n = vert_normals_cam[v]
    # Half of the sum over neighbours, since every triangle is seen from two of them.
    length = 0.5 * (area[0] * n[0] + area[1] * n[1] + area[2] * n[2])
    scale = jacobian.dtype.type(1.0 / max(length, 1e-12))
    nx, ny, nz = jacobian.dtype.type(n[0]), jacobian.dtype.type(n[1]), jacobian.dtype.type(n[2])
    for p in range(num_moving):
        x, y, z = q[3, p] * scale, q[4, p] * scale, q[5, p] * scale
        along = x * nx + y * ny + z * nz
        q[3, p], q[4, p], q[5, p] = x - along * nx, y - along * ny, z - along * nz
    for p in range(9):
        tx, ty, tz = turning[p, 0], turning[p, 1], turning[p, 2]
        q[3, p] -= jacobian.dtype.type(ty * n[2] - tz * n[1])
        q[4, p] -= jacobian.dtype.type(tz * n[0] - tx * n[2])
        q[5, p] -= jacobian.dtype.type(tx * n[1] - ty * n[0])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _factor(packed, factor):  # pragma: no cover - compiled
    """Write the Cholesky factor (6, 6) of a packed positive semi-definite matrix; directions without weight get 0."""
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
