"""Compiled loops over texels: take their colours out of a frame, and fuse those of many frames robustly."""

from __future__ import annotations

import math

import numba
import numpy as np

MIN_COSINE = 0.15
"""Surfaces that turn away from the camera further than this are not sampled."""
_DEPTH_TOLERANCE_METRES = 0.0015
_COSINE_POWER = 2.0
_DEPTH_STEP_METRES = 0.008
"""A step in depth between neighbouring pixels that counts as an outline."""


@numba.njit(cache=True, nogil=True, error_model="numpy")
def outlines(triangle, inverse_depth, part, first, outer, inner):  # pragma: no cover - compiled
    """Mark pixels at outlines of a head with 0, others with 1, in ``outer`` and ``inner``, uint8 (H, W).

    ``outer`` are the silhouette and the far side of steps in depth, ``inner`` borders of parts and the near side of
    steps; triangles of this head begin at ``first`` and are as many as ``part`` has.
    """
    height, width = triangle.shape
    for row in range(height):
        for column in range(width):
            here = triangle[row, column] - first
            kind = part[here] if 0 <= here < len(part) else 255
            for step in range(2):
                next_row, next_column = row + step, column + 1 - step
                if next_row >= height or next_column >= width:
                    continue
                there = triangle[next_row, next_column] - first
                other = part[there] if 0 <= there < len(part) else 255
                if kind == 255 and other == 255:
                    continue
                if kind == 255 or other == 255:
                    outer[row, column] = 0
                    outer[next_row, next_column] = 0
                    continue
                if kind != other:
                    inner[row, column] = 0
                    inner[next_row, next_column] = 0
                    continue
                step_metres = 1.0 / inverse_depth[row, column] - 1.0 / inverse_depth[next_row, next_column]
                if step_metres > _DEPTH_STEP_METRES:
                    outer[row, column] = 0
                    inner[next_row, next_column] = 0
                elif step_metres < -_DEPTH_STEP_METRES:
                    outer[next_row, next_column] = 0
                    inner[row, column] = 0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _bilinear(image, x, y, channel):  # pragma: no cover - compiled
    x, y = x - 0.5, y - 0.5
    column, row = int(math.floor(x)), int(math.floor(y))
    u, v = x - column, y - row
    upper = (1.0 - u) * image[row, column, channel] + u * image[row, column + 1, channel]
    lower = (1.0 - u) * image[row + 1, column, channel] + u * image[row + 1, column + 1, channel]
    return (1.0 - v) * upper + v * lower


@numba.njit(cache=True, nogil=True, error_model="numpy")
def collect(
    verts, normals, vertices, weights, part, hidden, triangle_part, camera, image, triangle, inverse_depth, first,
    trust, trust_inner, quality, out
):  # pragma: no cover - compiled  # fmt: skip
    """Write sRGB and the root of the weight of every texel in one frame to ``out``, uint8 (N, 4), which is 0 before.

    ``trust`` (H, W) is the weight of pixels away from outlines and background, ``trust_inner`` that of pixels away from
    borders of parts, ``camera`` fx, fy, cx, cy of ``image``.
    """
    height, width = triangle.shape
    fx, fy, cx, cy = camera
    for i in range(len(vertices)):
        if part[i] == hidden:
            continue
        x, y, z, nx, ny, nz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for corner in range(3):
            v, share = vertices[i, corner], weights[i, corner]
            x += share * verts[v, 0]
            y += share * verts[v, 1]
            z += share * verts[v, 2]
            nx += share * normals[v, 0]
            ny += share * normals[v, 1]
            nz += share * normals[v, 2]
        if z <= 0.01:
            continue
        length = math.sqrt((nx * nx + ny * ny + nz * nz) * (x * x + y * y + z * z)) + 1e-20
        cosine = -(nx * x + ny * y + nz * z) / length
        if cosine < MIN_COSINE:
            continue
        column_px, row_px = fx * x / z + cx, fy * y / z + cy
        if not (1.0 <= column_px < width - 1.0 and 1.0 <= row_px < height - 1.0):
            continue
        row, column = int(row_px), int(column_px)
        here = triangle[row, column] - first
        if not (0 <= here < len(triangle_part)) or triangle_part[here] != part[i]:
            continue
        tangent = math.sqrt(1.0 - cosine * cosine) / cosine
        if z > 1.0 / inverse_depth[row, column] + _DEPTH_TOLERANCE_METRES + 1.5 * tangent * z / fx:
            continue
        weight = quality * trust[row, column] * trust_inner[row, column]
        weight *= ((cosine - MIN_COSINE) / (1.0 - MIN_COSINE)) ** _COSINE_POWER
        code = int(255.0 * math.sqrt(min(weight, 1.0)) + 0.5)
        if code == 0:
            continue
        for channel in range(3):
            out[i, channel] = int(_bilinear(image, column_px, row_px, channel) + 0.5)
        out[i, 3] = code


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _weighted_median(values, weights, order, count, total):  # pragma: no cover - compiled
    """Return the weighted median of the first ``count`` values; ``order`` is scratch."""
    for i in range(count):
        order[i] = i
    for i in range(1, count):
        item = order[i]
        j = i - 1
        while j >= 0 and values[order[j]] > values[item]:
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = item
    passed = 0.0
    for i in range(count):
        passed += weights[order[i]]
        if passed >= 0.5 * total:
            return values[order[i]]
    return values[order[count - 1]]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fuse(samples, inverse_shading, vertices, shares, linear, width, sharpness, out, confidence):  # pragma: no cover
    """Fuse samples (N, K, 4) into roots of linear albedo ``out`` (N, 3), and the sum of weights ``confidence`` (N,).

    Each sample is divided by its frame's shading, given inverted at vertices (K, V, 3). The weighted median of each
    channel is the start; then samples count the less the further they are from it (in units of ``width``), and the more
    the better they are seen and the sharper their frame is, ``sharpness`` (K,).
    """
    count_frames = samples.shape[1]
    values = np.empty((3, count_frames))
    weights = np.empty(count_frames)
    emphasis = np.empty(count_frames)
    order = np.empty(count_frames, np.int64)
    for i in range(len(samples)):
        count, total = 0, 0.0
        for k in range(count_frames):
            code = samples[i, k, 3]
            if code == 0:
                continue
            weights[count] = (code / 255.0) ** 2
            emphasis[count] = sharpness[k] * weights[count] ** 2
            total += weights[count]
            for channel in range(3):
                inverse = 0.0
                for corner in range(3):
                    inverse += shares[i, corner] * inverse_shading[k, vertices[i, corner], channel]
                values[channel, count] = math.sqrt(linear[samples[i, k, channel]] * inverse)
            count += 1
        if count == 0:
            continue
        red = _weighted_median(values[0], weights, order, count, total)
        green = _weighted_median(values[1], weights, order, count, total)
        blue = _weighted_median(values[2], weights, order, count, total)
        sum_r, sum_g, sum_b, norm, agreeing = 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(count):
            dr, dg, db = values[0, k] - red, values[1, k] - green, values[2, k] - blue
            square = (dr * dr + dg * dg + db * db) / (width * width)
            trust = 1.0 / ((1.0 + square) * (1.0 + square))
            agreeing += weights[k] * trust
            share = trust * emphasis[k]
            sum_r += share * values[0, k]
            sum_g += share * values[1, k]
            sum_b += share * values[2, k]
            norm += share
        out[i, 0], out[i, 1], out[i, 2] = sum_r / norm, sum_g / norm, sum_b / norm
        confidence[i] = agreeing
