"""Noise of a texture-coordinate map, and a filter that takes out as much as there is.

The pixel nearest to given coordinates in a noisy map is selected for its error: it lies as far off as the noise is
large, and among outliers anywhere. A filter before the lookup averages that out. In an exact map it would only blur, so
its window grows with the noise that is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

_NOISE_FOR_RADIUS_PX = (0.15, 0.6, 1.8)
"""Noise from which windows of 3, 5 and 7 pixels pay, measured on rendered heads: see ``denoise_uv``."""
_SLOPE_STRIDE_PX = 8
_CUT = 4.0
"""Pixels further than this many times the noise from the local plane have no weight (Tukey)."""
_ROUNDS = 2
_MEDIAN_OF_UNIT_NOISE = math.sqrt(math.log(2.0))
"""Median length of a round Gaussian vector whose root mean square length is one."""


@dataclass(frozen=True)
class UvNoise:
    """Hold the noise of a map and the scale that turns it into pixels; both medians over the map."""

    rms_uv: float
    """Root mean square length of a pixel's error, texture coordinates."""
    step_uv: float
    """How far coordinates go from pixel to pixel."""

    @property
    def rms_px(self) -> float:
        """Return the noise in pixels; 0 where the map has no slope."""
        return self.rms_uv / self.step_uv if self.step_uv > 0 else 0.0


def measure_uv_noise(uv_map: np.ndarray, mask: np.ndarray) -> UvNoise:
    """Measure the noise of a map (H, W, 2) inside its mask, bool (H, W), by how pixels differ from their neighbours.

    Noise that neighbouring pixels share does not show.
    """
    uv = np.where(mask[..., None], np.asarray(uv_map, dtype=np.float64), np.nan)
    # Every fourth row is plenty for medians.
    mean = (uv[:-2:4, 1:-1] + uv[2::4, 1:-1] + uv[1:-1:4, :-2] + uv[1:-1:4, 2:]) / 4
    error = np.linalg.norm(uv[1:-1:4, 1:-1] - mean, axis=-1)
    far = _SLOPE_STRIDE_PX
    steps = [
        np.linalg.norm(after - before, axis=-1).ravel()
        for after, before in ((uv[far::4], uv[:-far:4]), (uv[::4, far:], uv[::4, :-far]))
    ]
    step = _finite_median(np.concatenate(steps)) / far
    # The mean of four has noise too: a quarter of the variance.
    return UvNoise(_finite_median(error.ravel()) / (_MEDIAN_OF_UNIT_NOISE * math.sqrt(1.25)), step)


def denoise_uv(uv_map: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the map, float64 (H, W, 2), with the valid pixels moved onto robust local planes as far as noise asks so.

    A map with less than 0.15 px of noise comes back as it is. Pixels far from the plane (outliers, the other side of a
    seam or of an edge in depth) have no weight.
    """
    noise = measure_uv_noise(uv_map, mask)
    uv = np.where(mask[..., None], np.asarray(uv_map, dtype=np.float64), np.nan)
    radius = sum(noise.rms_px >= least for least in _NOISE_FOR_RADIUS_PX)
    if radius == 0:
        return uv
    cut = _CUT * noise.rms_uv
    return _fit_planes(uv, _median_filter(uv), radius, cut, cut + 1.5 * radius * noise.step_uv)


def _finite_median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else 0.0


@numba.njit(cache=True, nogil=True)
def _median_filter(uv):  # pragma: no cover - compiled
    """Return for each valid pixel the medians of both coordinates over the valid pixels around it, 3 x 3."""
    height, width, _ = uv.shape
    out = np.full_like(uv, np.nan)
    values = np.empty(9)
    for row in range(height):
        for column in range(width):
            if not math.isfinite(uv[row, column, 0] + uv[row, column, 1]):
                continue
            for k in range(2):
                count = 0
                for r in range(max(row - 1, 0), min(row + 2, height)):
                    for c in range(max(column - 1, 0), min(column + 2, width)):
                        value = uv[r, c, k]
                        if math.isfinite(value):
                            place = count
                            while place > 0 and values[place - 1] > value:
                                values[place] = values[place - 1]
                                place -= 1
                            values[place] = value
                            count += 1
                out[row, column, k] = values[count // 2]
    return out


@numba.njit(cache=True, nogil=True)
def _fit_planes(uv, start, radius, cut, first_cut):  # pragma: no cover - compiled
    """Return each valid pixel's value on the plane that fits its window best, by weighting again a few times.

    The first weights are taken around the median with no slope, hence the wider cut.
    """
    height, width, _ = uv.shape
    out = np.full_like(uv, np.nan)
    for row in range(height):
        for column in range(width):
            plane = (start[row, column, 0], 0.0, 0.0, start[row, column, 1], 0.0, 0.0)
            if not math.isfinite(plane[0] + plane[3]):
                continue
            for round_ in range(_ROUNDS):
                plane, is_told = _fit_plane(uv, row, column, radius, plane, first_cut if round_ == 0 else cut)
                if not is_told:
                    break
            out[row, column, 0], out[row, column, 1] = plane[0], plane[3]
    return out


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _fit_plane(uv, row, column, radius, plane, cut):  # pragma: no cover - compiled
    """Return value and slopes along x and y of u, then of v, of the plane with Tukey's weights around another plane.

    A window that does not tell a plane gives the other plane back, and false.
    """
    u0, u_x, u_y, v0, v_x, v_y = plane
    n = sx = sy = sxx = sxy = syy = su = sux = suy = sv = svx = svy = 0.0
    per_cut_squared = 1.0 / max(cut * cut, 1e-300)
    for r in range(max(row - radius, 0), min(row + radius + 1, uv.shape[0])):
        for c in range(max(column - radius, 0), min(column + radius + 1, uv.shape[1])):
            x, y, u, v = np.float64(c - column), np.float64(r - row), uv[r, c, 0], uv[r, c, 1]
            error_u, error_v = u - u0 - u_x * x - u_y * y, v - v0 - v_x * x - v_y * y
            share = 1.0 - (error_u * error_u + error_v * error_v) * per_cut_squared
            if share > 0.0:  # false, too, for what is not a number
                w = share * share
                wx, wy = w * x, w * y
                n, sx, sy = n + w, sx + wx, sy + wy
                sxx, sxy, syy = sxx + wx * x, sxy + wx * y, syy + wy * y
                su, sux, suy = su + w * u, sux + wx * u, suy + wy * u
                sv, svx, svy = sv + w * v, svx + wx * v, svy + wy * v
    a00, a01, a02 = sxx * syy - sxy * sxy, sxy * sy - sx * syy, sx * sxy - sxx * sy
    a11, a12, a22 = n * syy - sy * sy, sx * sy - n * sxy, n * sxx - sx * sx
    determinant = n * a00 + sx * a01 + sy * a02
    if determinant < 0.5:
        return plane, False
    scale = 1.0 / determinant
    return (
        (a00 * su + a01 * sux + a02 * suy) * scale,
        (a01 * su + a11 * sux + a12 * suy) * scale,
        (a02 * su + a12 * sux + a22 * suy) * scale,
        (a00 * sv + a01 * svx + a02 * svy) * scale,
        (a01 * sv + a11 * svx + a12 * svy) * scale,
        (a02 * sv + a12 * svx + a22 * svy) * scale,
    ), True
