"""Compiled: the light that samples of a surface send to the camera, and their way into a picture.

Samples are the last axis of float32 arrays, which are handed in one by one: numbers of rows that another module defines
would be compiled in, and the cache of compiled code would not notice when they change. Loops over samples have no
branches and no calls, so that compilers turn them into vector instructions.
"""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def surround(color, normal, point, gloss, opening, count, sh, out):  # pragma: no cover - compiled
    """Write the light of the surroundings that samples send to the camera.

    Args:
        color: reflectance (3, samples).
        normal: unit normals (3, samples), camera space.
        point: positions (3, samples), camera space.
        gloss: strength of what is mirrored (samples,).
        opening: how open the samples are to light (samples,).
        count: how many samples there are.
        sh: harmonics (9, 3).
        out: (3, samples).
    """
    one, two, three, half, zero = np.float32(1), np.float32(2), np.float32(3), np.float32(0.5), np.float32(0)
    base = np.float32(0.028)
    for c in range(3):
        a, b, d, e = sh[0, c], sh[1, c], sh[2, c], sh[3, c]
        g, h, k, m, p = sh[4, c], sh[5, c], sh[6, c], sh[7, c], sh[8, c]
        for i in range(count):
            x, y, z = normal[0, i], normal[1, i], normal[2, i]
            px, py, pz = point[0, i], point[1, i], point[2, i]
            scale = -one / np.sqrt(px * px + py * py + pz * pz)
            ex, ey, ez = px * scale, py * scale, pz * scale
            facing = max(x * ex + y * ey + z * ez, zero)
            light = a + b * y + d * z + e * x + g * x * y + h * y * z + k * (three * z * z - one)
            light = max(light + m * x * z + p * (x * x - y * y), zero)
            # What is mirrored, most at grazing angles: of the surroundings, only their main direction.
            away = one - facing
            mirrored = half * gloss[i] * (base + half * away * away * away * away * away)
            facing *= two
            seen = max(a + b * (facing * y - ey) + d * (facing * z - ez) + e * (facing * x - ex), zero)
            out[c, i] = opening[i] * (color[c, i] * light + mirrored * seen)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def shine(color, normal, point, finish, count, lamp, wrap, is_first, work, out):  # pragma: no cover - compiled
    """Add the light of a lamp that samples send to the camera.

    Args:
        color: reflectance (3, samples).
        normal: unit normals (3, samples), camera space.
        point: positions (3, samples), camera space.
        finish: gloss, its sharpness, softness, openness and share of the first lamp's light, (samples,) each.
        count: how many samples there are.
        lamp: position and colour (6,).
        wrap: how far the lamp reaches round.
        is_first: whether it is the lamp that throws a shadow.
        work: scratch (3, samples).
        out: (3, samples).
    """
    gloss, sharp, softness, opening, lit = finish
    one, zero, eighth = np.float32(1), np.float32(0), np.float32(0.125)
    crease, mirror = np.float32(0.35), np.float32(0.045)
    x0, y0, z0 = lamp[0], lamp[1], lamp[2]
    for i in range(count):
        x, y, z = normal[0, i], normal[1, i], normal[2, i]
        px, py, pz = point[0, i], point[1, i], point[2, i]
        lx, ly, lz = x0 - px, y0 - py, z0 - pz
        scale = one / np.sqrt(lx * lx + ly * ly + lz * lz)
        lx, ly, lz = lx * scale, ly * scale, lz * scale
        scale = one / np.sqrt(px * px + py * py + pz * pz)
        hx, hy, hz = lx - px * scale, ly - py * scale, lz - pz * scale
        scale = one / np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-9))
        cosine = x * lx + y * ly + z * lz
        sharpness = sharp[i]
        # About the power of the half vector's cosine, for a fraction of its cost.
        spec = max(one - eighth * sharpness * (one - (x * hx + y * hy + z * hz) * scale), zero)
        spec = spec * spec
        spec = spec * spec
        spec = spec * spec
        shut = crease + (one - crease) * opening[i]
        shut *= lit[i] if is_first else one
        spec *= mirror * gloss[i] * (sharpness * eighth + one)
        work[0, i], work[1, i], work[2, i] = cosine, shut, spec * shut if cosine > zero else zero
    for c in range(3):
        # Light that enters the skin leaves it redder and farther on.
        reach, strength = np.float32(0.28 - 0.09 * c), lamp[3 + c]
        for i in range(count):
            soft = softness[i] * reach + wrap
            diffuse = max(zero, (work[0, i] + soft) / (one + soft))
            out[c, i] += strength * (color[c, i] * diffuse * work[1, i] + work[2, i])


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def gather(shares, count, pixel, light, layer):  # pragma: no cover - compiled
    """Add up the samples' light (3, samples) as premultiplied light and coverage of pixels (H * W, 4)."""
    for i in range(count):
        share = shares[i]
        for c in range(3):
            layer[pixel[i], c] += share * light[c, i]
        layer[pixel[i], 3] += share


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def develop(layer, backdrop, gain, out):  # pragma: no cover - compiled
    """Lay premultiplied light and coverage (H, W, 4) over a background (sRGB), expose it, and write sRGB (H, W, 3)."""
    knee, one = np.float32(0.75), np.float32(1.0)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            open_share = max(one - layer[row, column, 3], np.float32(0.0))
            for c in range(3):
                value = layer[row, column, c] * gain
                # A soft shoulder: bright light fades to white instead of breaking off.
                if value > knee:
                    value = one - (one - knee) * (one - knee) / (value - knee + one - knee)
                value += open_share * backdrop[row, column, c] * backdrop[row, column, c]
                out[row, column, c] = math.sqrt(min(max(value, np.float32(0.0)), one))
