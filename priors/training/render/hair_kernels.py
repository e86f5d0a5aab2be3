"""Compiled parts of the hair: locks that grow, their light, and the ground colour of scalp and beard."""

from __future__ import annotations

import math

import numba
import numpy as np

_FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
"""Liberties of the compiler where a NaN has to stay one."""


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True, inline="always")
def _push_out(radius, x, y, z, clearance):  # pragma: no cover - compiled
    """Return the share by which an offset from the skull's centre has to grow to clear the skin; 0 where it does."""
    rows, columns = radius.shape
    reach = math.sqrt(x * x + y * y + z * z) + 1e-6
    row = int(math.acos(min(max(y / reach, -1.0), 1.0)) * (rows / math.pi))
    column = int((math.atan2(x, z) + math.pi) * (columns / (2 * math.pi)))
    skin = radius[min(row, rows - 1), min(column, columns - 1)]
    return max(skin + clearance - reach, 0.0) / reach


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def grow_locks(
    roots, directions, steps, falls, waves, phases, clearance, openings, is_free, center, radius, least_height, count
):  # pragma: no cover - compiled
    """Let N locks grow by ``count`` - 1 steps over a head; returns their points, float32 (N, count, 3), wear space.

    Args:
        roots: where they start, float32 (N, 3).
        directions: where they start to, unit float32 (N, 3).
        steps: length of a step, float32 (N,), metres.
        falls: added to the direction at each step, float32 (N, 3).
        waves: amplitude of the waves along the lock, float32 (N, 3), metres.
        phases: where the waves start, float32 (N,).
        clearance: how far above the skin the lock lies, float32 (N,), metres.
        openings: half of the width of the face that stays free, float32 (N,), metres.
        is_free: which locks may hang before the face (fringe), bool (N,).
        center: the skull's centre, float32 (3,).
        radius: distance of the skin from it by direction, float32 (rows from up, columns around).
        least_height: below it the head's shape is not minded, metres.
        count: points a lock.
    """
    points = np.empty((roots.shape[0], count, 3), np.float32)
    for n in range(roots.shape[0]):
        x, y, z = roots[n, 0], roots[n, 1], roots[n, 2]
        dx, dy, dz = directions[n, 0], directions[n, 1], directions[n, 2]
        points[n, 0, 0], points[n, 0, 1], points[n, 0, 2] = x, y, z
        step = steps[n]
        for k in range(1, count):
            dx, dy, dz = dx + falls[n, 0], dy + falls[n, 1], dz + falls[n, 2]
            scale = step / (math.sqrt(dx * dx + dy * dy + dz * dz) + 1e-6)
            wave = math.cos(phases[n] + 1.3 * k)
            mx = x + scale * dx + wave * waves[n, 0]
            my = y + scale * dy + wave * waves[n, 1]
            mz = z + scale * dz + wave * waves[n, 2]
            if my > least_height:
                ox, oy, oz = mx - center[0], my - center[1], mz - center[2]
                out = _push_out(radius, ox, oy, oz, clearance[n] * min(1.0, 0.3 + 0.7 * k / 3))
                mx, my, mz = mx + ox * out, my + oy * out, mz + oz * out
            if my < 0.035 and mz > -0.045 and not is_free[n] and abs(mx) < openings[n]:
                missing = 0.6 * (openings[n] - abs(mx))
                mx += missing if mx >= 0 else -missing
            dx, dy, dz = mx - x, my - y, mz - z
            scale = 1.0 / (math.sqrt(dx * dx + dy * dy + dz * dz) + 1e-6)
            dx, dy, dz = dx * scale, dy * scale, dz * scale
            x, y, z = mx, my, mz
            points[n, k, 0], points[n, k, 1], points[n, k, 2] = x, y, z
    return points


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def place_locks(locks, shifts, layers, center, matrix, camera, light, shine):  # pragma: no cover - compiled
    """Carry locks to the picture and light them.

    Args:
        locks: float32 (N, K, 3), wear space.
        shifts: added in camera space, float32 (N, 3), metres.
        layers: 0 next to the skin (darker), 1 outermost, float32 (N,).
        center: the skull's centre, float32 (3,).
        matrix: camera from wear space, float32 (4, 3).
        camera: fx, fy, cx, cy, float32 (4,).
        light: direction, intensity, ambient, float32 (3, 3).
        shine: strength of the highlight.

    Returns:
        Pixels and depth, float32 (N, K, 3), and brightness, float32 (N, K).
    """
    num, count = locks.shape[:2]
    points = np.empty((num, count, 3), np.float32)
    shade = np.empty((num, count), np.float32)
    direct = (light[1, 0] + light[1, 1] + light[1, 2]) / 3
    ambient = (light[2, 0] + light[2, 1] + light[2, 2]) / 3
    hx, hy, hz = light[0, 0], light[0, 1], light[0, 2] - 1
    scale = 1 / (math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-6)
    hx, hy, hz = hx * scale, hy * scale, hz * scale
    for n in range(num):
        for k in range(count):
            for c in range(3):
                value = matrix[3, c] + shifts[n, c]
                for a in range(3):
                    value += locks[n, k, a] * matrix[a, c]
                points[n, k, c] = value
        for k in range(count):
            ox, oy, oz = np.float32(0), np.float32(0), np.float32(0)
            for a in range(3):
                offset = locks[n, k, a] - center[a]
                ox, oy, oz = ox + offset * matrix[a, 0], oy + offset * matrix[a, 1], oz + offset * matrix[a, 2]
            scale = 1 / (math.sqrt(ox * ox + oy * oy + oz * oz) + 1e-6)
            before, after = max(k - 1, 0), min(k + 1, count - 1)
            tx, ty = points[n, after, 0] - points[n, before, 0], points[n, after, 1] - points[n, before, 1]
            tz = points[n, after, 2] - points[n, before, 2]
            along = (tx * hx + ty * hy + tz * hz) / (math.sqrt(tx * tx + ty * ty + tz * tz) + 1e-6)
            facing = max((ox * light[0, 0] + oy * light[0, 1] + oz * light[0, 2]) * scale, 0.0)
            glint = max(1 - along * along, 0.0) ** 12 * max((ox * hx + oy * hy + oz * hz) * scale, 0.0)
            lit = math.sqrt(ambient + direct * facing) * (0.65 + 0.35 * layers[n])
            shade[n, k] = lit * (1 + shine * glint)
        for k in range(count):
            depth = max(points[n, k, 2], 0.05)
            points[n, k, 0] = points[n, k, 0] / depth * camera[0] + camera[2]
            points[n, k, 1] = points[n, k, 1] / depth * camera[1] + camera[3]
    return points, shade


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def paint_scalp(image, kind, place, speckle, knots, color, brightness_of_one, line, code):  # pragma: no cover
    """Colour the skin behind the hairline, in place.

    Args:
        image: sRGB float32 (H, W, 3).
        kind: uint8 (H, W).
        place: wear space, float32 (H, W, 3); NaN where no head is.
        speckle: noise, float32 (H, W).
        knots: the hairline as rows of height and z, float32 (2, M), heights rising.
        color: sRGB float32 (3,).
        brightness_of_one: mean of a pixel's channels that stands for full light.
        line: how much further up the hairline lies, metres.
        code: value for ``kind`` where hair is dense.
    """
    for row in range(kind.shape[0]):
        for column in range(kind.shape[1]):
            y = place[row, column, 1]
            # A NaN fails the comparison.
            if not y > -0.085:
                continue
            x, z = abs(place[row, column, 0]), place[row, column, 2]
            if x > 0.070 and -0.108 < z < -0.058 and -0.055 < y < 0.016:
                continue
            k = 1
            while k < knots.shape[1] - 1 and knots[0, k] < y:
                k += 1
            share = (y - knots[0, k - 1]) / (knots[0, k] - knots[0, k - 1])
            noise = speckle[row, column]
            behind = knots[1, k - 1] + share * (knots[1, k] - knots[1, k - 1]) - z - line + 0.004 * noise
            alpha = 0.95 * min(behind / 0.012, 1.0)
            if alpha <= 0.02:
                continue
            pixel = image[row, column]
            light = (pixel[0] + pixel[1] + pixel[2]) / (3 * brightness_of_one)
            light *= min(max(0.85 + 0.18 * noise, 0.4), 1.4)
            for c in range(3):
                pixel[c] += alpha * (min(color[c] * light, 1.0) - pixel[c])
            if alpha > 0.5:
                kind[row, column] = code
