"""Compiled sums over vertices that were seen somewhere; forces and curvatures as in ``tracker.dense_kernels``."""

from __future__ import annotations

import math

import numba

_FAST = {"reassoc", "contract", "arcp", "nsz"}


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def add_projections(
    vertices, points_px, weights, verts_cam, is_hidden, focal, center, cap_px, floor_px, force, curvature
):  # pragma: no cover - compiled
    """Add the distances of projected vertices from where they were seen: sum w min(|pi(v) - p|, cap).

    Args:
        vertices: vertices that were seen, int32 (L,).
        points_px: where, float64 (L, 2), pixels.
        weights: energy of one pixel of distance, float64 (L,).
        verts_cam: all vertices in camera space, float64 (V, 3), metres.
        is_hidden: vertices that cost the cap, bool (V,).
        focal: focal lengths, float64 (2,), pixels.
        center: principal point, float64 (2,), pixels.
        cap_px: distance from which a vertex costs no more; infinite for none.
        floor_px: distance below which the norm is rounded off for re-weighting.
        force: gradients by motion and turn of each vertex, float64 (V, 6), added to.
        curvature: packed Hessians (see NUM_CURVATURES), float64 (V, 21), added to.

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
        if distance >= cap_px:
            continue
        w = weight / max(distance, floor_px)
        a, b = focal[0] / depth, focal[1] / depth
        _add_plane(force, curvature, v, a, 0.0, -a * x, w, ex)
        _add_plane(force, curvature, v, 0.0, b, -b * y, w, ey)
    return energy


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _add_plane(force, curvature, v, a, b, c, weight, residual):  # pragma: no cover - compiled
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
