"""Compiled z-buffer: one pass decides which triangle each pixel sees, a second computes where on it."""

from __future__ import annotations

import math

import numba
import numpy as np

from flame.camera import Intrinsics

SUBPIXELS = 16384.0
"""Corners are rounded to this fraction of a pixel.

Edge functions of triangles up to 4096 pixels wide then have no rounding error, and neighbours agree about every pixel,
those on corners and edges included.
"""


def rasterize(
    verts_cam: np.ndarray,
    faces: np.ndarray,
    intrinsics: Intrinsics,
    height: int,
    width: int,
    cull_backfaces: bool,
    near_metres: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rasterise a mesh; arguments and results as ``flame.rasterizer.rasterize``, vertices float64, faces int32."""
    corners_px = project_corners(verts_cam, intrinsics)
    triangle, inverse_depth, box = visibility(corners_px, faces, height, width, cull_backfaces, near_metres)
    barycentric = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    _resolve(corners_px, faces, triangle, box, barycentric, depth)
    return triangle, barycentric, depth


def project_corners(verts_cam: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """Return x, y in pixels, rounded to ``SUBPIXELS``, and the inverse depth of each vertex, float64 (V, 3).

    A vertex at depth 0 or less gets the inverse depth 0.
    """
    return _project(verts_cam, intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy)


def visibility(
    corners_px: np.ndarray, faces: np.ndarray, height: int, width: int, cull_backfaces: bool, near_metres: float
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """Return the nearest triangle of each pixel (-1: none), the inverse depth there (0: none) and the box they lie in.

    The box is (left, top, right, bottom) in whole pixels, right and bottom exclusive.
    """
    triangle = np.full((height, width), -1, np.int32)
    inverse_depth = np.zeros((height, width), np.float32)
    box = _fill(corners_px, faces, cull_backfaces, 1.0 / near_metres, triangle, inverse_depth)
    return triangle, inverse_depth, box


def interpolate(triangle: np.ndarray, barycentric: np.ndarray, faces: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Interpolate attributes (V, C) where ``triangle`` is not -1; float32 (H, W, C)."""
    out = np.zeros((*triangle.shape, attributes.shape[1]), np.float32)
    _interpolate(triangle, barycentric, faces, attributes, out)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _project(verts_cam, fx, fy, cx, cy):  # pragma: no cover - compiled
    corners = np.zeros((verts_cam.shape[0], 3))
    for v in range(verts_cam.shape[0]):
        if verts_cam[v, 2] > 0:
            inverse = 1.0 / verts_cam[v, 2]
            corners[v, 0] = math.floor((fx * verts_cam[v, 0] * inverse + cx) * SUBPIXELS + 0.5) / SUBPIXELS
            corners[v, 1] = math.floor((fy * verts_cam[v, 1] * inverse + cy) * SUBPIXELS + 0.5) / SUBPIXELS
            corners[v, 2] = inverse
    return corners


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _edge(ax, ay, bx, by):  # pragma: no cover - compiled
    """Return an edge function as (x0, y0, dx, dy, 1 / dx, bound), for a triangle that is wound clockwise on screen.

    The function, dx * (x - x0) + dy * (y - y0), is computed from the same end whichever triangle asks, so that two
    triangles get exactly opposite values on a shared edge. A point is inside where it is above ``bound``: a value of 0,
    on the edge, is inside for top and left edges only.
    """
    bound = -1e-300 if (ay == by and bx > ax) or by < ay else 0.0
    dx, dy = ay - by, bx - ax
    inverse = 1.0 / dx if dx != 0.0 else 0.0
    if ax < bx or (ax == bx and ay < by):
        return ax, ay, dx, dy, inverse, bound
    return bx, by, dx, dy, inverse, bound


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _is_inside(edge, y_part, x):  # pragma: no cover - compiled
    return edge[2] * (x - edge[0]) + y_part > edge[5]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _narrow(edge, y_part, low, high):  # pragma: no cover - compiled
    """Narrow the columns [low, high) to the inner side of an edge, generously: the ends are tested afterwards."""
    crossing = edge[0] - y_part * edge[4]
    if edge[2] > 0:
        low = max(low, crossing - 0.500001)
    elif edge[2] < 0:
        high = min(high, crossing + 0.500001)
    return low, high


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _row_span(edge_a, edge_b, edge_c, y, left, right):  # pragma: no cover - compiled
    """Return the first column inside the triangle and the one after the last; equal where there is none."""
    part_a, part_b, part_c = edge_a[3] * (y - edge_a[1]), edge_b[3] * (y - edge_b[1]), edge_c[3] * (y - edge_c[1])
    low, high = _narrow(edge_a, part_a, float(left), float(right))
    low, high = _narrow(edge_b, part_b, low, high)
    low, high = _narrow(edge_c, part_c, low, high)
    if low > high:
        return 0, 0
    first, last = int(math.ceil(low)), int(math.floor(high))
    # One branch for all three tests: short-circuiting costs more in mispredictions than it saves.
    while first < last:
        x = first + 0.5
        if _is_inside(edge_a, part_a, x) & _is_inside(edge_b, part_b, x) & _is_inside(edge_c, part_c, x):
            break
        first += 1
    while first < last:
        x = last - 0.5
        if _is_inside(edge_a, part_a, x) & _is_inside(edge_b, part_b, x) & _is_inside(edge_c, part_c, x):
            break
        last -= 1
    return first, last


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fill_triangle(f, ax, ay, az, bx, by, bz, cx, cy, cz, box, triangle, inverse_depth):  # pragma: no cover - compiled
    """Draw a triangle, wound clockwise on screen, into the z-buffer; z is the inverse depth, linear on screen."""
    left, top, right, bottom = box
    edge_a, edge_b, edge_c = _edge(ax, ay, bx, by), _edge(bx, by, cx, cy), _edge(cx, cy, ax, ay)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    slope_x = ((bz - az) * (cy - ay) - (cz - az) * (by - ay)) / area
    slope_y = ((cz - az) * (bx - ax) - (bz - az) * (cx - ax)) / area
    farthest, nearest = min(az, bz, cz), max(az, bz, cz)
    for row in range(top, bottom):
        y = row + 0.5
        first, last = _row_span(edge_a, edge_b, edge_c, y, left, right)
        z_row = az + slope_y * (y - ay) + slope_x * (0.5 - ax)
        for column in range(first, last):
            # The slopes of a sliver are noise; its depth is still between its corners'.
            z = np.float32(min(max(z_row + slope_x * column, farthest), nearest))
            if z > inverse_depth[row, column]:
                inverse_depth[row, column] = z
                triangle[row, column] = f


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _pixel_range(low, high, size):  # pragma: no cover - compiled
    """Return the first pixel with its centre in [low, high] and the one after the last, of ``size`` pixels."""
    first = int(math.ceil(min(max(low - 0.5, 0.0), float(size))))
    return first, int(math.floor(min(max(high - 0.5, -1.0), size - 1.0))) + 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fill(corners, faces, cull_backfaces, inverse_near, triangle, inverse_depth):  # pragma: no cover - compiled
    height, width = triangle.shape
    box_left, box_top, box_right, box_bottom = width, height, 0, 0
    for f in range(faces.shape[0]):
        ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = corners[ia, 0], corners[ia, 1], corners[ia, 2]
        bx, by, bz = corners[ib, 0], corners[ib, 1], corners[ib, 2]
        cx, cy, cz = corners[ic, 0], corners[ic, 1], corners[ic, 2]
        if not (0 < az < inverse_near and 0 < bz < inverse_near and 0 < cz < inverse_near):
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if not (0 < abs(area) < np.inf) or (cull_backfaces and area > 0):
            continue
        left, right = _pixel_range(min(ax, bx, cx), max(ax, bx, cx), width)
        top, bottom = _pixel_range(min(ay, by, cy), max(ay, by, cy), height)
        if left >= right or top >= bottom:
            continue
        box_left, box_top = min(box_left, left), min(box_top, top)
        box_right, box_bottom = max(box_right, right), max(box_bottom, bottom)
        if area < 0:
            bx, by, bz, cx, cy, cz = cx, cy, cz, bx, by, bz
        box = (left, top, right, bottom)
        _fill_triangle(f, ax, ay, az, bx, by, bz, cx, cy, cz, box, triangle, inverse_depth)
    return box_left, box_top, box_right, box_bottom


@numba.njit(cache=True, nogil=True, error_model="numpy")
def weights_at(corners, ia, ib, ic, x, y):  # pragma: no cover - compiled
    """Return the perspective-correct weights of a triangle's corners at pixel (x, y), and the inverse depth there."""
    ax, ay = corners[ia, 0] - x, corners[ia, 1] - y
    bx, by = corners[ib, 0] - x, corners[ib, 1] - y
    cx, cy = corners[ic, 0] - x, corners[ic, 1] - y
    wa, wb, wc = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    screen = wa + wb + wc
    wa, wb, wc = wa * corners[ia, 2], wb * corners[ib, 2], wc * corners[ic, 2]
    total = wa + wb + wc
    return wa / total, wb / total, wc / total, total / screen


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resolve(corners, faces, triangle, box, barycentric, depth):  # pragma: no cover - compiled
    left, top, right, bottom = box
    for row in range(top, bottom):
        for column in range(left, right):
            f = triangle[row, column]
            if f < 0:
                continue
            wa, wb, wc, inverse = weights_at(corners, faces[f, 0], faces[f, 1], faces[f, 2], column + 0.5, row + 0.5)
            barycentric[row, column, 0] = wa
            barycentric[row, column, 1] = wb
            barycentric[row, column, 2] = wc
            depth[row, column] = 1.0 / inverse


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _interpolate(triangle, barycentric, faces, attributes, out):  # pragma: no cover - compiled
    height, width = triangle.shape
    for row in range(height):
        for column in range(width):
            f = triangle[row, column]
            if f < 0:
                continue
            ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
            wa, wb, wc = barycentric[row, column, 0], barycentric[row, column, 1], barycentric[row, column, 2]
            for channel in range(out.shape[2]):
                out[row, column, channel] = (
                    wa * attributes[ia, channel] + wb * attributes[ib, channel] + wc * attributes[ic, channel]
                )
