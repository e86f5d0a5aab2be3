"""Compiled: what paint every pixel of a head shows, from where on the template it lies.

Noise, brows, irises, hairlines and wrinkles are functions of the place, so they have the picture's own resolution.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from flame.rasterizer.cpu import weights_at

SKIN, EYE, INSIDE, TEETH, NECK, CLOTH = 0, 1, 2, 3, 4, 5
"""Materials of triangles."""
NUM_SURFACE = 7
"""Leading columns of attributes: place on the template (3), normal in camera space (3), openness; then masks."""
ROW_COLOR, ROW_NORMAL, ROW_POINT = 0, 3, 6
"""First rows of samples: reflectance, normal and position in camera space; then numbers."""
ROW_GLOSS, ROW_SHARP, ROW_SOFT, ROW_OPEN, ROW_LIT, ROW_SHARE = range(9, 15)
NUM_ROWS = 15
LIPS, STUBBLE, RED, LID, LASH, EARS, OILY, IN_MOUTH = range(7, 15)
PAINT_ROWS = (
    "skin lips hair brow iris sclera makeup cloth cloth_other mouth left_eye right_eye offsets mottle bump "
    "redness freckles stubble lid_shade lash makeup_share lip_share oil brow_shape iris_radius pupil_radius "
    "veins hair_share hair_line cloth_scale wrinkles "
).split()
"""Rows of packed paint; see `priors.training.render.paint.Paint`."""
P_SKIN, P_LIPS, P_HAIR, P_BROW, P_IRIS, P_SCLERA, P_MAKEUP, P_CLOTH, P_CLOTH_OTHER, P_MOUTH = range(10)
P_LEFT_EYE, P_RIGHT_EYE, P_OFFSETS, P_MOTTLE, P_BUMP, P_REDNESS, P_FRECKLES, P_STUBBLE = range(10, 18)
P_LID_SHADE, P_LASH, P_MAKEUP_SHARE, P_LIP_SHARE, P_OIL, P_BROW_SHAPE, P_IRIS_RADIUS = range(18, 25)
P_PUPIL_RADIUS, P_VEINS, P_HAIR_SHARE, P_HAIR_LINE, P_CLOTH_SCALE, P_WRINKLES = range(25, 31)
L_WRAP, L_BIAS, L_FADE, L_BLUR, L_STRENGTH = range(5)
_LEAST_MASK = 0.004
_MASK = 31
"""Side of the noise volume less one: a power of two, less one."""


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _mix_four(v, p, q, r, s, k0, k1, w00, w01, w10, w11, z, c):  # pragma: no cover - compiled
    near = w00 * v[p + k0, c] + w01 * v[q + k0, c] + w10 * v[r + k0, c] + w11 * v[s + k0, c]
    far = w00 * v[p + k1, c] + w01 * v[q + k1, c] + w10 * v[r + k1, c] + w11 * v[s + k1, c]
    return near + z * (far - near)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _noise(volume, x, y, z):  # pragma: no cover - compiled
    """Return four channels of noise at a place in cells, with trilinear interpolation; volume (cells ** 3, 4)."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    x, y, z = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    x0, y0, z0 = int(fx) & _MASK, int(fy) & _MASK, int(fz) & _MASK
    x1, y1, z1 = ((x0 + 1) & _MASK) << 10, ((y0 + 1) & _MASK) << 5, (z0 + 1) & _MASK
    x0, y0 = x0 << 10, y0 << 5
    one = np.float32(1.0)
    w00, w01, w10, w11 = (one - x) * (one - y), (one - x) * y, x * (one - y), x * y
    a = _mix_four(volume, x0 + y0, x0 + y1, x1 + y0, x1 + y1, z0, z1, w00, w01, w10, w11, z, 0)
    b = _mix_four(volume, x0 + y0, x0 + y1, x1 + y0, x1 + y1, z0, z1, w00, w01, w10, w11, z, 1)
    c = _mix_four(volume, x0 + y0, x0 + y1, x1 + y0, x1 + y1, z0, z1, w00, w01, w10, w11, z, 2)
    d = _mix_four(volume, x0 + y0, x0 + y1, x1 + y0, x1 + y1, z0, z1, w00, w01, w10, w11, z, 3)
    return a, b, c, d


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _ramp(value, low, high):  # pragma: no cover - compiled
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _mix(color, paint, row, share):  # pragma: no cover - compiled
    for c in range(3):
        color[c] += share * (paint[row, c] - color[c])


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _brow(paint, x, y, z, grain):  # pragma: no cover - compiled
    """Return how strongly a brow covers a place on the template; ``grain`` is fine noise."""
    unit = paint[P_LEFT_EYE, 0] - paint[P_RIGHT_EYE, 0]
    side = 0 if x > 0 else 1
    if z < paint[P_LEFT_EYE + side, 2]:
        return 0.0
    outward = (
        abs(x - paint[P_LEFT_EYE + side, 0])
        * (1.0 if (x - paint[P_LEFT_EYE + side, 0]) * paint[P_LEFT_EYE + side, 0] > 0 else -1.0)
        / unit
    )
    height = (y - paint[P_LEFT_EYE + side, 1]) / unit
    along = (outward - paint[P_BROW_SHAPE, 0]) / (paint[P_BROW_SHAPE, 1] - paint[P_BROW_SHAPE, 0])
    if along < -0.1 or along > 1.1:
        return 0.0
    bend = (along - 0.62) / 0.62
    middle = (
        paint[P_BROW_SHAPE, 2] + paint[P_BROW_SHAPE, 3] * (1.0 - bend * bend) + paint[P_BROW_SHAPE, 5] * (along - 0.5)
    )
    half = paint[P_BROW_SHAPE, 4] * min(max(1.15 - 0.75 * along, 0.3), 1.0)
    rough = 1.0 + 0.2 * paint[P_BROW_SHAPE, 7] * grain
    across = _ramp(half * rough + 0.024 - abs(height - middle), 0.0, 0.045)
    ends = min(max((along + 0.04 * grain * paint[P_BROW_SHAPE, 7]) / 0.14, 0.0), 1.0)
    ends *= min(max((1.0 - along) / 0.2, 0.0), 1.0)
    return min(across * ends * paint[P_BROW_SHAPE, 6] * (1.0 + 0.25 * paint[P_BROW_SHAPE, 7] * grain), 0.97)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _paint_masks(paint, at, color, coarse, fine, grain):  # pragma: no cover - compiled
    """Paint lids, stubble, lips, brows and lashes over the skin; return the share of the lips."""
    # Most masks are next to nothing on most of the skin.
    if at[LID] > _LEAST_MASK:
        _mix(color, paint, P_MAKEUP, at[LID] * (0.25 * paint[P_LID_SHADE, 0] + 0.75 * paint[P_MAKEUP_SHARE, 0]))
    stubble = at[STUBBLE] * paint[P_STUBBLE, 0]
    if stubble > _LEAST_MASK:
        _mix(color, paint, P_HAIR, min(stubble * max(0.0, 0.55 + 0.16 * fine + 0.12 * coarse), 0.85))
    lips = _ramp(at[LIPS], 0.25, 0.8)
    if lips > 0:
        _mix(color, paint, P_LIPS, lips * paint[P_LIP_SHARE, 0] * (1.0 + 0.08 * fine))
    if at[IN_MOUTH] > 0.3:
        _mix(color, paint, P_MOUTH, _ramp(at[IN_MOUTH], 0.3, 0.9))
    brow = _brow(paint, at[0], at[1], at[2], grain)
    if brow > 0:
        _mix(color, paint, P_BROW, brow)
    if at[LASH] > _LEAST_MASK:
        _mix(color, paint, P_BROW, min(at[LASH] * paint[P_LASH, 0], 0.9) * 0.9)
    return lips


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _wrinkles(paint, x, y, z, phase, coarse):  # pragma: no cover - compiled
    """Return the tilt of lines across the forehead, and from the outer corners of the eyes."""
    above, tilt = y - paint[P_LEFT_EYE, 1], 0.0
    forehead = _ramp(above, 0.022, 0.032) * (1.0 - _ramp(above, 0.055, 0.07)) * _ramp(z, 0.03, 0.05)
    if forehead > 0:
        tilt += forehead * math.sin(y * 700.0 + 1.6 * phase + abs(x) * 40.0) * max(0.0, 0.5 + coarse)
    corner = abs(x) - paint[P_LEFT_EYE, 0]
    crow = _ramp(corner, 0.014, 0.02) * (1.0 - _ramp(corner, 0.028, 0.036)) * (1.0 - _ramp(abs(above), 0.006, 0.018))
    if crow > 0:
        tilt += crow * math.sin(math.atan2(above, corner) * 16.0 + phase)
    return tilt


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def paint_skin(paint, volume, at, color):  # pragma: no cover - compiled
    """Write the reflectance of a point of the skin; return gloss, its sharpness, hair's share, and two tilts."""
    x, y, z = at[0], at[1], at[2]
    o0, o1, o2 = paint[P_OFFSETS, 0], paint[P_OFFSETS, 1], paint[P_OFFSETS, 2]
    n0, r0, _, _ = _noise(volume, x * 33.0 + o0, y * 33.0 + o1, z * 33.0 + o2)
    n1, r1, u1, v1 = _noise(volume, x * 120.0 + o1, y * 120.0 + o2, z * 120.0 + o0)
    n2, r2, u2, v2 = _noise(volume, x * 480.0 + o2, y * 480.0 + o0, z * 480.0 + o1)
    level = 1.0 + paint[P_MOTTLE, 0] * n0 + paint[P_MOTTLE, 1] * n1 + paint[P_MOTTLE, 2] * n2
    red = paint[P_REDNESS, 0] * (at[RED] + 0.25 * r0 + 0.15 * r1)
    color[0] = paint[P_SKIN, 0] * level * (1.0 + 0.10 * red)
    color[1] = paint[P_SKIN, 1] * level * (1.0 - 0.55 * red)
    color[2] = paint[P_SKIN, 2] * level * (1.0 - 0.45 * red)
    if paint[P_FRECKLES, 0] > 0:
        spot = _ramp(r2 + 0.4 * r1, 1.1, 1.9) * (0.3 + at[RED]) * paint[P_FRECKLES, 0]
        for c in range(3):
            color[c] *= 1.0 - min(spot, 0.9) * (0.35 + 0.15 * c)
    lips = _paint_masks(paint, at, color, n1, n2, 0.6 * n2 + 0.6 * r2)
    hair = _hair(paint, at, n1, n2)
    if hair > 0:
        s0, s1, _, _ = _noise(volume, x * 420.0 + o1, y * 90.0 + o0, z * 300.0 + o2)
        streak = 1.0 + 0.35 * s0
        for c in range(3):
            color[c] += hair * (paint[P_HAIR, c] * streak - color[c])
        u2 += 3.0 * hair * s1
    tilt_x = paint[P_BUMP, 0] * u1 + paint[P_BUMP, 1] * u2
    tilt_y = paint[P_BUMP, 0] * v1 + paint[P_BUMP, 1] * v2
    if paint[P_WRINKLES, 0] > 0:
        tilt_y += paint[P_WRINKLES, 0] * _wrinkles(paint, x, y, z, n0, n1)
    gloss = (0.25 + 0.75 * paint[P_OIL, 0] * (0.35 + at[OILY])) * (1.0 - 0.7 * hair) + 0.6 * lips * paint[P_OIL, 0]
    return gloss, 14.0 + 30.0 * paint[P_OIL, 0] + 30.0 * lips, hair, tilt_x, tilt_y


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _hair(paint, at, coarse, fine):  # pragma: no cover - compiled
    """Return how strongly painted hair covers a point of the scalp."""
    if paint[P_HAIR_SHARE, 0] <= 0.02:
        return 0.0
    edge = (
        at[1]
        - paint[P_HAIR_LINE, 0]
        - paint[P_HAIR_LINE, 1] * (at[2] - 0.05)
        + paint[P_HAIR_LINE, 2] * max(0.0, abs(at[0]) - 0.02) * (at[2] > 0.0)
    )
    edge += 0.004 * coarse * paint[P_HAIR_LINE, 3] * 500.0 + paint[P_HAIR_LINE, 3] * fine
    return (
        _ramp(edge, -paint[P_HAIR_LINE, 4], paint[P_HAIR_LINE, 4])
        * paint[P_HAIR_SHARE, 0]
        * max(0.0, 1.0 - 1.6 * at[EARS])
        * min(1.0, 1.0 + 0.12 * fine)
    )


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def paint_eye(paint, volume, at, color):  # pragma: no cover - compiled
    """Write the reflectance of a point of an eyeball."""
    side = 0 if at[0] > 0 else 1
    dx, dy = at[0] - paint[P_LEFT_EYE + side, 0], at[1] - paint[P_LEFT_EYE + side, 1]
    radius = math.sqrt(dx * dx + dy * dy)
    angle = math.atan2(dy, dx)
    ray, vein, _, _ = _noise(volume, 4.0 * math.cos(angle) + 9.0, 4.0 * math.sin(angle), radius * 300.0 + side * 7.0)
    for c in range(3):
        color[c] = paint[P_SCLERA, c]
    red = paint[P_VEINS, 0] * (0.3 + 0.35 * vein) * _ramp(radius, 0.006, 0.012)
    color[1] *= 1.0 - min(max(red, 0.0), 0.6)
    color[2] *= 1.0 - min(max(red, 0.0), 0.6)
    # The upper lid's shadow.
    shade = 1.0 - 0.45 * _ramp(dy, 0.001, 0.0065)
    share = min(max((paint[P_IRIS_RADIUS, 0] - radius) / 5e-4 + 0.5, 0.0), 1.0)
    ring = 1.0 - 0.6 * _ramp(radius / paint[P_IRIS_RADIUS, 0], 0.75, 1.0)
    for c in range(3):
        iris = paint[P_IRIS, c] * ring * max(0.3, 1.0 + 0.3 * ray)
        color[c] += share * (iris - color[c])
        color[c] *= shade * (1.0 - 0.97 * min(max((paint[P_PUPIL_RADIUS, 0] - radius) / 4e-4 + 0.5, 0.0), 1.0))


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def paint_teeth(paint, at, color):  # pragma: no cover - compiled
    """Write the reflectance of a point of the teeth: at its place in the row and its nearness to the gum."""
    width = 0.0085 if at[2] < 0.5 else 0.0058
    part = at[0] / width
    part = abs(part - math.floor(part + 0.5))
    # Between the teeth it is darker, and gum comes down.
    tooth = _ramp(part, 0.0, 0.07)
    gum = _ramp(at[1] + 0.6 * (0.5 - part) * (0.5 - part), 0.70, 0.78)
    side = 1.0 - 0.5 * _ramp(abs(at[0]), 0.008, 0.028)
    for c in range(3):
        color[c] = paint[P_SCLERA, c] * (1.05 - 0.1 * c) * side * (0.55 + 0.45 * tooth)
        color[c] += gum * (1.3 * paint[P_MOUTH, c] - color[c])


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def paint_cloth(paint, volume, at, color):  # pragma: no cover - compiled
    """Write the reflectance of a point of the clothes and return two tilts of their folds."""
    n0, _, u0, v0 = _noise(volume, at[0] * 30.0 + paint[P_OFFSETS, 0], at[1] * 22.0, at[2] * 30.0)
    share = 0.0
    if paint[P_CLOTH_SCALE, 0] > 0:
        s = 1.0 / paint[P_CLOTH_SCALE, 0]
        n1, _, _, _ = _noise(volume, at[0] * s, at[1] * s, at[2] * s + paint[P_OFFSETS, 1])
        share = _ramp(n1 + 0.3 * n0, 0.1, 0.4)
    for c in range(3):
        color[c] = (paint[P_CLOTH, c] + share * (paint[P_CLOTH_OTHER, c] - paint[P_CLOTH, c])) * (1.0 + 0.06 * n0)
    return 0.22 * u0, 0.22 * v0


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _cell(value, last):  # pragma: no cover - compiled
    return np.uint32(min(max(value, np.float32(0)), last))


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _lit(shadow, from_cam, numbers, x, y, z):  # pragma: no cover - compiled
    """Return how much of the shadowed lamp reaches a point in camera space, 0 to 1."""
    if numbers[L_STRENGTH] <= 0:
        return 1.0
    t, x, y, z = from_cam, np.float32(x), np.float32(y), np.float32(z)
    u = t[0, 0] * x + t[0, 1] * y + t[0, 2] * z + t[0, 3]
    v = t[1, 0] * x + t[1, 1] * y + t[1, 2] * z + t[1, 3]
    w = t[2, 0] * x + t[2, 1] * y + t[2, 2] * z + t[2, 3] + numbers[L_BIAS]
    blur, per_fade = numbers[L_BLUR], np.float32(1) / numbers[L_FADE]
    zero, one, last = np.float32(0), np.float32(1), np.float32(shadow.shape[0] - 1)
    # The map's border is empty, and so is what lies beyond it.
    a, b, c = _cell(u - blur, last), _cell(u, last), _cell(u + blur, last)
    shut = zero
    for i in range(-1, 2):
        row = _cell(v + np.float32(i) * blur, last)
        shut += min(max((shadow[row, a] - w) * per_fade, zero), one)
        shut += min(max((shadow[row, b] - w) * per_fade, zero), one)
        shut += min(max((shadow[row, c] - w) * per_fade, zero), one)
    return 1.0 - numbers[L_STRENGTH] * shut / 9.0


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _paint_sample(paint, volume, material, at, color):  # pragma: no cover - compiled
    """Write the reflectance of one sample; return gloss, its sharpness, softness, hair's share, and two tilts."""
    tilt_x = tilt_y = hair = 0.0
    gloss, sharpness, soft = 0.15, 12.0, 0.0
    if material == SKIN or material == NECK:
        gloss, sharpness, hair, tilt_x, tilt_y = paint_skin(paint, volume, at, color)
        soft = 1.0
    elif material == EYE:
        paint_eye(paint, volume, at, color)
        gloss, sharpness = 0.9, 1100.0
    elif material == CLOTH:
        tilt_x, tilt_y = paint_cloth(paint, volume, at, color)
        gloss = 0.05
    elif material == TEETH:
        paint_teeth(paint, at, color)
        gloss, sharpness = 0.9, 60.0
    else:
        for c in range(3):
            color[c] = paint[P_MOUTH, c]
        gloss, sharpness = 0.8, 40.0
    return gloss, sharpness, soft, hair, tilt_x, tilt_y


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _is_smooth(inverse_depth, top, left, n):  # pragma: no cover - compiled
    first = inverse_depth[top, left]
    for i in range(top, top + n):
        for j in range(left, left + n):
            if abs(inverse_depth[i, j] - first) > 0.01 * first:
                return False
    return first > 0


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _write(rows, count, at, color, painted, x, y, z):  # pragma: no cover - compiled
    """Write a sample's reflectance, tilted normal, position and gloss."""
    for c in range(3):
        rows[ROW_COLOR + c, count] = color[c]
    # Tilts are across the line of sight, about.
    length = 1.0 / math.sqrt(at[3] * at[3] + at[4] * at[4] + at[5] * at[5] + 1e-12)
    nx, ny, nz = at[3] * length + painted[4], at[4] * length + painted[5], at[5] * length
    length = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    rows[ROW_NORMAL, count], rows[ROW_NORMAL + 1, count], rows[ROW_NORMAL + 2, count] = (
        nx * length,
        ny * length,
        nz * length,
    )
    rows[ROW_POINT, count], rows[ROW_POINT + 1, count], rows[ROW_POINT + 2, count] = x, y, z
    rows[ROW_GLOSS, count], rows[ROW_SHARP, count] = painted[0], painted[1]
    rows[ROW_SOFT, count], rows[ROW_OPEN, count] = painted[2], at[6]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def sample(surface, camera, paint, lamp, volume, n, rows, pixel, place, hair):  # pragma: no cover - compiled
    """Write what light needs to know of each sample, its pixel, and each pixel's place and share of painted hair.

    ``surface`` is projected vertices, triangles, their materials, the rasterised triangle and inverse depth, and the
    vertices' attributes; ``lamp`` the shadow map and what looks into it.
    ``rows`` is float32 (NUM_ROWS, samples), see ``ROW_COLOR`` and its neighbours; ``pixel`` int32 (samples,); ``place``
    float32 (H, W, 3); ``hair`` float32 (H, W). The rasterised arrays have n x n samples a pixel.

    Returns:
        The number of samples: one, in the middle, for pixels on a surface without a step, n x n for others.
    """
    corners, faces, material, triangle, inverse_depth, attributes = surface
    shadow, from_cam, numbers = lamp
    at, color, count = np.empty(attributes.shape[1], np.float32), np.empty(3, np.float32), 0
    per_x, per_y = 1.0 / camera[0], 1.0 / camera[1]
    height, width = hair.shape
    for row in range(height):
        for column in range(width):
            top, left, bottom, right = row * n, column * n, row * n + n, column * n + n
            smooth = _is_smooth(inverse_depth, top, left, n)
            if smooth:
                bottom, right = top + 1, left + 1
            share, middle = (1.0, 0.5 * n) if smooth else (1.0 / (n * n), 0.5)
            for i in range(top, bottom):
                for j in range(left, right):
                    f = triangle[i, j]
                    if f < 0:
                        continue
                    ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
                    wa, wb, wc, inverse = weights_at(corners, ia, ib, ic, j + middle, i + middle)
                    wa, wb, wc = np.float32(wa), np.float32(wb), np.float32(wc)
                    for k in range(at.shape[0]):
                        at[k] = wa * attributes[ia, k] + wb * attributes[ib, k] + wc * attributes[ic, k]
                    z = 1.0 / inverse
                    x, y = (j + middle - camera[2]) * per_x * z, (i + middle - camera[3]) * per_y * z
                    painted = _paint_sample(paint, volume, material[f], at, color)
                    _write(rows, count, at, color, painted, x, y, z)
                    rows[ROW_LIT, count] = _lit(shadow, from_cam, numbers, x, y, z)
                    rows[ROW_SHARE, count] = share
                    pixel[count] = row * width + column
                    count += 1
                    hair[row, column] += painted[3] * share
                    if material[f] <= INSIDE:
                        for c in range(3):
                            place[row, column, c] = at[c]
    return count
