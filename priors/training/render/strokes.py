"""Compiled brushes with depth: locks of hair and shaded tubes that go before and behind a head."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import ArrayLike

_FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
"""Liberties of the compiler; infinite depths have to stay what they are."""
_WIDEST_HAIRS = 24
"""Hairs side by side in the widest lock."""


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def draw_locks(
    image, kind, depth, points, half_px, colors, shade, seeds, stripes, nearer, code, head_depth
):  # pragma: no cover - compiled
    """Draw N locks of hair of K points each, in place; what lies nearer hides what lies behind.

    Args:
        image: sRGB float32 (H, W, 3).
        kind: uint8 (H, W), set to ``code`` where a lock covers most of a pixel.
        depth: float32 (H, W), metres, infinite where nothing is; lowered to the locks' depth.
        points: float32 (N, K, 3): pixels x and y, depth in metres.
        half_px: half of a lock's width at its points, float32 (N, K), pixels.
        colors: sRGB float32 (N, 3).
        shade: brightness at each point, float32 (N, K).
        seeds: a number in [0, 1] a lock, float32 (N,): where in ``stripes`` it starts.
        stripes: brightness of single hairs side by side, float32 (S,), about 1.
        nearer: how far behind the head's surface a lock is still drawn over it, metres.
        code: value for ``kind``.
        head_depth: float32 (H, W): depth of the head itself.
    """
    for n in range(points.shape[0]):
        first = np.int32(seeds[n] * np.float32(stripes.shape[0] - _WIDEST_HAIRS))
        hairs = stripes[first : first + _WIDEST_HAIRS]
        for k in range(points.shape[1] - 1):
            ends = points[n, k : k + 2], half_px[n, k : k + 2], shade[n, k : k + 2]
            _draw_piece(image, kind, depth, ends, colors[n], hairs, np.float32(nearer), code, head_depth)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _draw_piece(image, kind, depth, ends, color, hairs, nearer, code, head_depth):  # pragma: no cover - compiled
    """Draw one straight piece of a lock: points (2, 3), half widths (2,) and brightnesses (2,) at its ends."""
    height, width = depth.shape
    points, halves, shades = ends
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    ax, ay, az = points[0, 0], points[0, 1], points[0, 2]
    ux, uy, uz = points[1, 0] - ax, points[1, 1] - ay, points[1, 2] - az
    widest = max(halves[0], halves[1]) + half
    top = max(0, int(math.floor(min(ay, ay + uy) - widest)))
    bottom = min(height - 1, int(math.ceil(max(ay, ay + uy) + widest)))
    least, most = min(ax, ax + ux) - widest, max(ax, ax + ux) + widest
    length2 = ux * ux + uy * uy + np.float32(1e-6)
    length = np.sqrt(length2)
    # Neighbouring pieces overlap a little, so that bends stay closed.
    over = np.float32(0.4) * widest / length
    for row in range(top, bottom + 1):
        py = np.float32(row) + half - ay
        low, high = least, most
        if abs(uy) > np.float32(0.05) * length:
            middle, reach = ax + py * ux / uy, abs(widest * length / uy)
            low, high = max(low, middle - reach), min(high, middle + reach)
        for column in range(max(0, int(math.floor(low))), min(width - 1, int(math.ceil(high))) + 1):
            px = np.float32(column) + half - ax
            t = (px * ux + py * uy) / length2
            if t < -over or t > one + over:
                continue
            t = min(max(t, zero), one)
            z = az + t * uz
            if z > depth[row, column] + np.float32(0.0007) or z > head_depth[row, column] + nearer:
                continue
            wide = halves[0] + t * (halves[1] - halves[0])
            offset = (px * uy - py * ux) / length
            alpha = min(wide - abs(offset) + half, one)
            if alpha <= np.float32(0.05):
                continue
            edge = (offset / max(wide, half)) ** 2
            hair = hairs[np.int32(min(max(offset * np.float32(1.3) + np.float32(12), zero), np.float32(23)))]
            # Single hairs reach further than others, so that a lock has no sharp border.
            alpha *= min(max(one - edge * edge * (np.float32(3.6) - np.float32(3.0) * hair), zero), one)
            light = (shades[0] + t * (shades[1] - shades[0])) * hair * (one - np.float32(0.12) * edge)
            for c in range(3):
                old = image[row, column, c]
                image[row, column, c] = old + alpha * (min(color[c] * light, one) - old)
            if alpha > half:
                kind[row, column] = code
                depth[row, column] = min(z, depth[row, column])


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def draw_tubes(
    image, kind, depth, starts, ends, radii, colors, light, nearer, gloss, code
):  # pragma: no cover - compiled
    """Draw N shaded, tapered tubes with round ends, in place, in the order given; depth decides against the rest.

    Args:
        image: sRGB float32 (H, W, 3).
        kind: uint8 (H, W), set to ``code`` where a tube covers most of a pixel.
        depth: float32 (H, W), metres, infinite where nothing is; lowered to the tubes' depth.
        starts: float32 (N, 3): pixels x and y, depth in metres.
        ends: float32 (N, 3), likewise.
        radii: float32 (N, 2), pixels at the start and the end.
        colors: sRGB float32 (N, 3).
        light: float32 (3, 3): direction towards the light (camera space), its linear intensity, ambient intensity.
        nearer: how far behind the surface a tube is still drawn, metres.
        gloss: strength of the highlight.
        code: value for ``kind``.
    """
    for n in range(starts.shape[0]):
        # A tube that goes on from the last one has no round start of its own, which would show as a ring.
        goes_on = n > 0 and ends[n - 1, 0] == starts[n, 0] and ends[n - 1, 1] == starts[n, 1]
        tube = starts[n], ends[n], radii[n], colors[n]
        _draw_tube(image, kind, depth, tube, goes_on, light, nearer, gloss, code)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _draw_tube(image, kind, depth, tube, goes_on, light, nearer, gloss, code):  # pragma: no cover - compiled
    """Draw one tube: its start and end (3,), radii (2,) and colour (3,); without a round start where it goes on."""
    height, width = depth.shape
    start, end, radius_at, color = tube
    ax, ay, az = start[0], start[1], start[2]
    ux, uy, uz = end[0] - ax, end[1] - ay, end[2] - az
    widest = max(radius_at[0], radius_at[1]) + 0.5
    left = max(0, int(math.floor(min(ax, ax + ux) - widest)))
    right = min(width - 1, int(math.ceil(max(ax, ax + ux) + widest)))
    top = max(0, int(math.floor(min(ay, ay + uy) - widest)))
    bottom = min(height - 1, int(math.ceil(max(ay, ay + uy) + widest)))
    length2 = ux * ux + uy * uy + 1e-6
    for row in range(top, bottom + 1):
        py = row + 0.5 - ay
        for column in range(left, right + 1):
            px = column + 0.5 - ax
            t = (px * ux + py * uy) / length2
            if goes_on and t < 0.0:
                continue
            t = min(max(t, 0.0), 1.0)
            dx, dy = px - t * ux, py - t * uy
            radius = max(radius_at[0] + t * (radius_at[1] - radius_at[0]), 0.3)
            distance = math.sqrt(dx * dx + dy * dy)
            alpha = min(radius - distance + 0.5, 1.0)
            z = az + t * uz
            if alpha <= 0.05 or z > depth[row, column] + nearer:
                continue
            reach = min(distance / (radius + 0.5), 1.0)
            nx, ny = dx / (radius + 0.5), dy / (radius + 0.5)
            nz = -math.sqrt(max(1.0 - reach * reach, 0.0))
            facing = max(nx * light[0, 0] + ny * light[0, 1] + nz * light[0, 2], 0.0)
            # Half vector of the light and a camera far away.
            hx, hy, hz = light[0, 0], light[0, 1], light[0, 2] - 1.0
            half = max((nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-6), 0.0)
            shine = gloss * half**30
            for c in range(3):
                lit = color[c] * math.sqrt(light[2, c] * (0.5 - 0.5 * nz) + light[1, c] * facing) + shine
                old = image[row, column, c]
                image[row, column, c] = old + alpha * (min(lit, 1.0) - old)
            if alpha > 0.5:
                kind[row, column] = code
                depth[row, column] = min(z, depth[row, column])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def take_mesh(
    triangle, barycentric, mesh_depth, depth, nearer, faces, attributes, normals, light, rows, columns, values
):  # pragma: no cover - compiled
    """List the pixels in which a mesh is in front, and lower the depth there.

    Args:
        triangle: what each pixel sees of the mesh, int32 (H, W); -1 where nothing.
        barycentric: float32 (H, W, 3).
        mesh_depth: float32 (H, W), metres.
        depth: float32 (H, W), metres, of everything else; changed.
        nearer: how far behind it the mesh still counts as in front, metres.
        faces: int32 (F, 3).
        attributes: float32 (V, C).
        normals: float32 (V, 3), camera space.
        light: direction, intensity, ambient, float32 (3, 3).
        rows: filled with the pixels' rows, int64 (H * W,).
        columns: likewise.
        values: filled with attributes and light, float32 (H * W, C + 3).

    Returns:
        The number of pixels.
    """
    count, channels = 0, attributes.shape[1]
    height, width = triangle.shape
    for row in range(height):
        for column in range(width):
            face = triangle[row, column]
            if face < 0 or mesh_depth[row, column] >= depth[row, column] + nearer:
                continue
            depth[row, column] = mesh_depth[row, column]
            rows[count], columns[count] = row, column
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            wa, wb, wc = barycentric[row, column, 0], barycentric[row, column, 1], barycentric[row, column, 2]
            for k in range(channels):
                values[count, k] = wa * attributes[a, k] + wb * attributes[b, k] + wc * attributes[c, k]
            nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
            ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
            nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
            scale = 1 / (math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-6)
            # Seen from inside, as through the opening of a hood, the surface shows its other side.
            if nz > 0.3:
                scale = -scale
            facing = max((nx * light[0, 0] + ny * light[0, 1] + nz * light[0, 2]) * scale, 0.0)
            for k in range(3):
                values[count, channels + k] = math.sqrt(facing * light[1, k] + light[2, k])
            count += 1
    return count


def tube_chain(points: np.ndarray, radii: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return starts and ends, (N - 1, 3), and radii (N - 1, 2), float32, of the tubes that join N points in a row."""
    points, wide = np.asarray(points, np.float32), np.asarray(radii, np.float32)
    return points[:-1], points[1:], np.stack((wide[:-1], wide[1:]), axis=-1)
