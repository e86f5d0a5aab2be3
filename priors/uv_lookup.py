"""Find where a texture-coordinate map shows given texture coordinates: exactly, fast, and between pixels if wanted.

For a target T the pixel is p* = argmin_p |T - U(p)| (Pixel3DMM, arXiv 2505.00615, section 3.3). Pixels are sorted once
into a grid of cells in texture space; a search looks at cells in growing rings until no nearer pixel can exist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import torch

from flame.errors import InputError
from flame.topology import Topology

_PIXELS_PER_CELL = 2.0
_MAX_CELLS_ALONG = 2048
_SEAM_STEP = 3.0
"""A neighbour whose coordinates differ by so many times the median step is across a seam or an edge in depth."""
_MIN_NEIGHBOURS = 4
_SHARE_AHEAD = 0.25
"""Share of the slope beyond the target in a sub-pixel step; measured on rendered maps (see ``_refine``)."""
_MAX_MOVE_PX = 1.0
_BATCH_DISTANCES = 1 << 25
"""Distances that ``find_batch`` holds at once; 8 bytes each, twice over."""


@dataclass(frozen=True)
class UvMatches:
    """Hold where N texture coordinates were found."""

    points_px: np.ndarray
    """Pixel centres, or points between them, float64 (N, 2), column then row, pixels of the map; NaN if not found."""
    distance: np.ndarray
    """Distance of the nearest pixel in texture space, float64 (N,); infinite where nothing was found."""
    is_found: np.ndarray
    """Whether a pixel lies nearer than the largest distance, bool (N,)."""


@dataclass(frozen=True)
class UvMatchesBatch:
    """Hold where N texture coordinates were found in each of B maps; fields as in ``UvMatches``."""

    points_px: torch.Tensor
    """Pixel centres, float64 (B, N, 2); NaN if not found."""
    distance: torch.Tensor
    """Float64 (B, N); infinite where nothing was found."""
    is_found: torch.Tensor
    """Bool (B, N)."""


@dataclass(frozen=True)
class UvCopies:
    """List vertices with their texture coordinates, L pairs; a vertex on a seam appears several times."""

    vertex: np.ndarray
    """Vertex of each pair, int64 (L,), ascending."""
    uv: np.ndarray
    """Texture coordinates, float64 (L, 2), origin bottom left."""

    def best(self, matches: UvMatches) -> np.ndarray:
        """Return the pairs that were found, of each vertex the one with the nearest pixel: int64 indices, ascending."""
        order = np.lexsort((matches.distance, self.vertex))
        order = order[matches.is_found[order]]
        is_first = np.diff(self.vertex[order], prepend=-1) != 0
        return order[is_first]


def uv_copies(topology: Topology, is_wanted: np.ndarray | None = None) -> UvCopies:
    """List the texture coordinates of all vertices, or of those wanted, bool (V,).

    Raises:
        InputError: the head has no texture coordinates.
    """
    if topology.uv is None or topology.uv_faces is None:
        raise InputError("this head has no texture coordinates; dense texture maps need a head that has them")
    pairs = np.unique(np.column_stack((topology.faces.ravel(), topology.uv_faces.ravel())), axis=0)
    if is_wanted is not None:
        pairs = pairs[is_wanted[pairs[:, 0]]]
    return UvCopies(pairs[:, 0].astype(np.int64), topology.uv[pairs[:, 1]].astype(np.float64))


class UvLookup:
    """Answer where a map shows given texture coordinates."""

    def __init__(self, uv_map: np.ndarray, mask: np.ndarray) -> None:
        """Index the pixels of a map (H, W, 2) where the mask, bool (H, W), is true and both coordinates are finite.

        Raises:
            InputError: the shapes do not fit.
        """
        if uv_map.ndim != 3 or uv_map.shape[2] != 2 or mask.shape != uv_map.shape[:2]:
            raise InputError(f"a UV map must be (H, W, 2) and its mask (H, W); got {uv_map.shape} and {mask.shape}")
        dtype = uv_map.dtype if uv_map.dtype in (np.float32, np.float64) else np.float32
        self._uv_map = np.ascontiguousarray(uv_map, dtype=dtype)
        self._mask = np.ascontiguousarray(mask, dtype=np.bool_)
        self._cells, self._lower, self._cell_size = _grid(self._uv_map, self._mask)
        self._starts, self._pixels, self._uv = _sort(
            self._uv_map, self._mask, self._cells, self._lower, self._cell_size
        )

    @property
    def num_pixels(self) -> int:
        """Return the number of pixels that can be found."""
        return len(self._pixels)

    def find(self, uv: np.ndarray, max_distance: float, is_subpixel: bool = False) -> UvMatches:
        """Find texture coordinates (N, 2): the nearest pixel of each, of equally near ones the first in reading order.

        Args:
            uv: texture coordinates looked for.
            max_distance: only pixels nearer than this in texture space count.
            is_subpixel: place points between pixels where the map around the nearest pixel is smooth enough to say
                where; at most about a pixel away from it.
        """
        targets = np.ascontiguousarray(uv, dtype=np.float64).reshape(-1, 2)
        pixels, squared = _nearest(
            targets, max_distance, self._starts, self._pixels, self._uv, self._cells, self._lower, self._cell_size
        )
        is_found = pixels >= 0
        rows, columns = np.divmod(pixels, max(self._mask.shape[1], 1))
        points_px = np.column_stack((columns + 0.5, rows + 0.5))
        points_px[~is_found] = np.nan
        if is_subpixel:
            _refine(self._uv_map, self._mask, targets, pixels, points_px)
        return UvMatches(points_px, np.sqrt(squared), is_found)


def find_batch(uv_maps: torch.Tensor, masks: torch.Tensor, uv: torch.Tensor, max_distance: float) -> UvMatchesBatch:
    """Find texture coordinates (N, 2) in maps (B, H, W, 2) with masks, bool (B, H, W), all on one device.

    The result is that of ``UvLookup.find`` without sub-pixel refinement, by comparing with every pixel: for a GPU.
    """
    targets = uv.to(uv_maps.device, torch.float64)
    flat = uv_maps.reshape(len(uv_maps), -1, 2).double()
    is_valid = masks.reshape(len(masks), -1) & torch.isfinite(flat).all(dim=-1)
    flat = torch.where(is_valid[..., None], flat, torch.inf)
    chunk = max(1, _BATCH_DISTANCES // max(flat.shape[1], 1))
    pixels = torch.zeros((len(flat), len(targets)), dtype=torch.int64, device=flat.device)
    squared = torch.full(pixels.shape, torch.inf, dtype=torch.float64, device=flat.device)
    for image in range(len(flat)):
        u, v = flat[image].unbind(dim=-1)
        for first in range(0, len(targets), chunk):
            part = targets[first : first + chunk]
            # Squares and sum apart, so that no fused operation rounds otherwise than on another device.
            distances = (part[:, :1] - u).square_() + (part[:, 1:] - v).square_()
            nearest = distances.argmin(dim=1)
            pixels[image, first : first + chunk] = nearest
            squared[image, first : first + chunk] = distances.gather(1, nearest[:, None])[:, 0]
    is_found = squared < max_distance * max_distance
    rows, columns = pixels // uv_maps.shape[2], pixels % uv_maps.shape[2]
    points_px = torch.stack((columns, rows), dim=-1).double() + 0.5
    return UvMatchesBatch(
        torch.where(is_found[..., None], points_px, torch.nan),
        torch.where(is_found, squared, torch.inf).sqrt(),
        is_found,
    )


def _grid(uv_map: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the number of cells along u and v, the grid's lower corner and the side of a cell.

    The grid spans what the map holds of the unit square; border cells reach to infinity.
    """
    count, lower, upper = _extent(uv_map, mask)
    lower, upper = np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)
    extent = np.maximum(upper - lower, 0.0)
    longest = float(extent.max(initial=0.0))
    if count == 0 or longest == 0.0:
        return np.ones(2, dtype=np.int64), lower, 1.0
    area = max(float(extent[0] * extent[1]), longest * longest / count)
    size = max(math.sqrt(area * _PIXELS_PER_CELL / count), longest / _MAX_CELLS_ALONG)
    return np.maximum(np.ceil(extent / size), 1).astype(np.int64), lower, size


@numba.njit(cache=True, nogil=True)
def _extent(uv_map, mask):  # pragma: no cover - compiled
    """Return the number of valid pixels and the least and largest coordinates among them."""
    count = 0
    lower, upper = np.full(2, np.inf), np.full(2, -np.inf)
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            u, v = np.float64(uv_map[row, column, 0]), np.float64(uv_map[row, column, 1])
            if mask[row, column] and math.isfinite(u) and math.isfinite(v):
                count += 1
                lower[0], lower[1] = min(lower[0], u), min(lower[1], v)
                upper[0], upper[1] = max(upper[0], u), max(upper[1], v)
    return count, lower, upper


@numba.njit(cache=True, nogil=True, inline="always")
def _cell_along(value, lower, size, cells):  # pragma: no cover - compiled
    """Return the cell along one axis; everything beyond the grid belongs to its border."""
    place = (value - lower) / size
    if not place > 0.0:
        return 0
    return np.int64(min(place, cells - 1.0))


@numba.njit(cache=True, nogil=True)
def _sort(uv_map, mask, cells, lower, size):  # pragma: no cover - compiled
    """Sort the valid pixels by cell: where each cell starts (C + 1,), pixel numbers (P,) and coordinates (P, 2)."""
    height, width = mask.shape
    cell_of = np.full(height * width, -1, dtype=np.int32)
    starts = np.zeros(cells[0] * cells[1] + 2, dtype=np.int64)
    for row in range(height):
        for column in range(width):
            u, v = np.float64(uv_map[row, column, 0]), np.float64(uv_map[row, column, 1])
            if mask[row, column] and math.isfinite(u) and math.isfinite(v):
                cell = _cell_along(v, lower[1], size, cells[1]) * cells[0] + _cell_along(u, lower[0], size, cells[0])
                cell_of[row * width + column] = cell
                starts[cell + 2] += 1
    for cell in range(2, len(starts)):
        starts[cell] += starts[cell - 1]
    count = starts[-1]
    pixels = np.empty(count, dtype=np.int32)
    uv = np.empty((count, 2), dtype=uv_map.dtype)
    for pixel in range(height * width):
        cell = cell_of[pixel]
        if cell >= 0:
            place = starts[cell + 1]
            starts[cell + 1] = place + 1
            pixels[place] = pixel
            uv[place, 0], uv[place, 1] = (
                uv_map[pixel // width, pixel % width, 0],
                uv_map[pixel // width, pixel % width, 1],
            )
    return starts[:-1], pixels, uv


@numba.njit(cache=True, nogil=True)
def _nearest(targets, max_distance, starts, pixels, uv, cells, lower, size):  # pragma: no cover - compiled
    """Return the nearest pixel of each target (N,), -1 if none is near enough, and its squared distance (N,)."""
    found = np.full(len(targets), -1, dtype=np.int64)
    squared = np.full(len(targets), np.inf)
    for n in range(len(targets)):
        u, v = targets[n, 0], targets[n, 1]
        if not (math.isfinite(u) and math.isfinite(v)):
            continue
        i, j = _cell_along(u, lower[0], size, cells[0]), _cell_along(v, lower[1], size, cells[1])
        best, winner = max_distance * max_distance, np.int64(-1)
        for ring in range(max(cells[0], cells[1])):
            for row in range(max(j - ring, 0), min(j + ring, cells[1] - 1) + 1):
                is_border = ring == 0 or row == j - ring or row == j + ring
                for column in range(i - ring, i + ring + 1, 1 if is_border else 2 * ring):
                    if 0 <= column < cells[0]:
                        cell = row * cells[0] + column
                        best, winner = _search(u, v, starts[cell], starts[cell + 1], pixels, uv, best, winner)
            reach = min(
                _reach(u, i, ring, lower[0], size, cells[0]),
                _reach(v, j, ring, lower[1], size, cells[1]),
            )
            if reach > 0.0 and reach * reach > best:
                break
        if winner >= 0:
            found[n], squared[n] = winner, best
    return found, squared


@numba.njit(cache=True, nogil=True, inline="always")
def _search(u, v, start, stop, pixels, uv, best, winner):  # pragma: no cover - compiled
    """Return the least squared distance and its pixel after looking through one cell."""
    for place in range(start, stop):
        du, dv = u - np.float64(uv[place, 0]), v - np.float64(uv[place, 1])
        distance = du * du + dv * dv
        if distance < best or (distance == best and pixels[place] < winner):
            best, winner = distance, np.int64(pixels[place])
    return best, winner


@numba.njit(cache=True, nogil=True, inline="always")
def _reach(value, cell, ring, lower, size, cells):  # pragma: no cover - compiled
    """Return the distance along one axis below which everything has been seen once ``ring`` rings have been searched.

    It is a little short, since rounding may put a pixel on a cell's border into the neighbouring cell.
    """
    reach = np.inf
    if cell - ring > 0:
        reach = min(reach, value - (lower + (cell - ring) * size))
    if cell + ring < cells - 1:
        reach = min(reach, lower + (cell + ring + 1) * size - value)
    return reach - 1e-9 * size


@numba.njit(cache=True, nogil=True)
def _refine(uv_map, mask, targets, pixels, points_px):  # pragma: no cover - compiled
    """Move found points (N, 2) from pixel centres to where the map equals the targets if it goes on as around there.

    Two Newton steps from the nearest pixel, the first with central differences. Targets are vertices, where the map of
    a triangle mesh has a kink, and the pixel lies on this side of it: so the second step believes the differences on
    the side that it comes from more than those beyond.
    """
    window, has = np.empty((3, 3, 2)), np.empty((3, 3), dtype=np.bool_)
    move, ahead, slopes = np.empty(2), np.empty(2), np.empty((2, 2))
    for n in range(len(targets)):
        if pixels[n] < 0:
            continue
        row, column = pixels[n] // mask.shape[1], pixels[n] % mask.shape[1]
        _look_around(uv_map, mask, row, column, window, has)
        error_u, error_v = targets[n, 0] - window[1, 1, 0], targets[n, 1] - window[1, 1, 1]
        ahead[:] = 0.5
        if not (_slopes(window, has, ahead, slopes) and _solve(slopes, error_u, error_v, move)):
            continue
        for axis in range(2):
            ahead[axis] = _SHARE_AHEAD if move[axis] > 0.0 else 1.0 - _SHARE_AHEAD
        x, y = move[0], move[1]
        _slopes(window, has, ahead, slopes)
        if _solve(slopes, error_u, error_v, move) and max(abs(move[0]), abs(move[1])) <= _MAX_MOVE_PX:
            x, y = move[0], move[1]
        factor = _MAX_MOVE_PX / max(abs(x), abs(y), _MAX_MOVE_PX)
        points_px[n, 0] += factor * x
        points_px[n, 1] += factor * y


@numba.njit(cache=True, nogil=True)
def _look_around(uv_map, mask, row, column, window, has):  # pragma: no cover - compiled
    """Read the 3 x 3 coordinates around a pixel, and which of them continue it rather than lie across a seam."""
    steps = np.full((3, 3), np.inf)
    sorted_steps = np.empty(9)
    count = 0
    for i in range(3):
        for j in range(3):
            r, c = row + i - 1, column + j - 1
            has[i, j] = False
            if 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and mask[r, c]:
                window[i, j, 0], window[i, j, 1] = uv_map[r, c, 0], uv_map[r, c, 1]
                du, dv = window[i, j, 0] - uv_map[row, column, 0], window[i, j, 1] - uv_map[row, column, 1]
                step = math.sqrt((du * du + dv * dv) / max(abs(i - 1) + abs(j - 1), 1))
                if math.isfinite(step) and not (i == 1 and j == 1):
                    steps[i, j] = step
                    sorted_steps[count] = step
                    count += 1
    if count >= _MIN_NEIGHBOURS:
        limit = _SEAM_STEP * np.median(sorted_steps[:count])
        for i in range(3):
            for j in range(3):
                has[i, j] = math.isfinite(steps[i, j]) and steps[i, j] <= limit


@numba.njit(cache=True, nogil=True)
def _slopes(window, has, ahead, slopes):  # pragma: no cover - compiled
    """Write the derivatives of (u, v) by (x, y) as slopes[:, axis]; return whether both axes have a neighbour.

    Where both neighbours of an axis are there, that in the positive direction counts with the share ``ahead``.
    """
    for axis in range(2):
        after = (1, 2) if axis == 0 else (2, 1)
        before = (1, 0) if axis == 0 else (0, 1)
        share = ahead[axis]
        if not has[before]:
            share = 1.0
        elif not has[after]:
            share = 0.0
        if not (has[after] or has[before]):
            return False
        for k in range(2):
            forward = window[after[0], after[1], k] - window[1, 1, k] if has[after] else 0.0
            backward = window[1, 1, k] - window[before[0], before[1], k] if has[before] else 0.0
            slopes[k, axis] = share * forward + (1.0 - share) * backward
    return True


@numba.njit(cache=True, nogil=True)
def _solve(slopes, error_u, error_v, move):  # pragma: no cover - compiled
    """Write the move (2,) in pixels that makes up for an error in texture space; return whether there is one."""
    determinant = slopes[0, 0] * slopes[1, 1] - slopes[0, 1] * slopes[1, 0]
    if determinant == 0.0:
        return False
    move[0] = (slopes[1, 1] * error_u - slopes[0, 1] * error_v) / determinant
    move[1] = (slopes[0, 0] * error_v - slopes[1, 0] * error_u) / determinant
    return math.isfinite(move[0]) and math.isfinite(move[1])
