"""Compiled sums over pixels for dense evidence.

Every term is reduced to a force and a curvature per vertex, on six numbers: how the vertex moves and how its normal
turns, both in camera axes. A pixel sees a mixture of three vertices; its curvature is given to them by their shares,
which is never less than the mixture's own (Jensen), so a step found with it never overshoots, and 100 000 pixels cost
the linear algebra no more than 100.

Over a triangle with corners a, b, c, a point of the surface that moves by d leaves a pixel to another one: the pixel's
attribute A changes by ((D a - A_a + A) h^T - D) d, with the gradient D of A over the triangle and h = g / (g . a) for
its normal g. All but A is the triangle's. So pixels are summed by triangle, as numbers that do not depend on it, and
carried over to the vertices once. For normals even A drops out, because a unit normal does not change along itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

NUM_CURVATURES = 21
"""Entries of a symmetric 6 x 6 matrix, lower triangle by rows."""

_UNCOVERED, _SILENT = -1, -2
"""Slots of pixels that see no triangle, or one that says nothing."""
_NUM_CORNERS = 24
"""What is looked up by triangle: corners' cross products, normals in the map's axes, texture coordinates."""
_NORMAL, _TEXTURE = 9, 18
"""Where normals and texture coordinates begin in these."""
_NUM_SUMS = 48
"""What is summed by triangle: for each corner 6 + 3 of the normals, then for each corner 4 + 3 of the texture."""
_TEXTURE_SUMS = 27
"""Where the sums of the texture begin."""
_FAST = {"reassoc", "contract", "arcp", "nsz"}


class PixelEvidence(NamedTuple):
    """Hold what K pixels show."""

    pixels: np.ndarray
    """Row and column, int32 (K, 2)."""
    normals: np.ndarray
    """Observed unit normals in the map's axes, float64 (K, 3)."""
    texture: np.ndarray
    """Observed texture coordinates, float64 (K, 2), NaN where there are none."""
    normal_trust: np.ndarray
    """Factors on the cost of the normals, float64 (K,)."""
    texture_trust: np.ndarray
    """Factors on the cost of the texture coordinates, float64 (K,)."""


class SeenSurface(NamedTuple):
    """Hold the head as it is posed, and which of its triangles pixels see."""

    triangle: np.ndarray
    """Nearest triangle of each pixel that was rasterised, int32 (H, W), -1 for none."""
    pixel_step: int
    """Rows and columns from one such pixel to the next."""
    faces: np.ndarray
    """Triangles, int32 (F, 3)."""
    is_excluded: np.ndarray
    """Triangles that say nothing, bool (F,)."""
    verts_cam: np.ndarray
    """Vertices in camera space, float64 (V, 3), metres."""
    vert_normals_cam: np.ndarray
    """Their unit normals, float64 (V, 3)."""
    uv: np.ndarray
    """Texture coordinates, float64 (VT, 2)."""
    uv_faces: np.ndarray
    """Rows of ``uv`` at the triangles' corners, int32 (F, 3)."""


class MapCamera(NamedTuple):
    """Hold the camera of the maps."""

    focal: np.ndarray
    """Focal lengths, float64 (2,), pixels."""
    center: np.ndarray
    """Principal point, float64 (2,), pixels."""
    map_from_cam: np.ndarray
    """Rotation from camera axes to the axes of the normal map, float64 (3, 3)."""


class PixelNorms(NamedTuple):
    """Hold what one pixel's differences cost; all are floats, since each combination of types is compiled anew."""

    normal_weight: float
    """Weight of one pixel's normal."""
    normal_cap: float
    """Difference of normals (L1) from which a pixel costs no more; infinite for none."""
    normal_floor: float
    """Difference of a component below which the norm is rounded off for re-weighting."""
    uv_weight: float
    """Weight of one pixel's texture coordinates."""
    uv_seam: float
    """Difference from which rendered and observed coordinates lie on two sides of a seam and say nothing."""
    uv_floor: float
    """Difference below which the norm is rounded off for re-weighting."""


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def add_pixels(evidence, surface, camera, norms, force, curvature):  # pragma: no cover - compiled
    """Add the normal and the texture term of all pixels.

    Args:
        evidence: the K pixels, a ``PixelEvidence``.
        surface: the head, a ``SeenSurface``.
        camera: a ``MapCamera``.
        norms: a ``PixelNorms``.
        force: gradients by motion and turn of each vertex, float64 (V, 6), added to.
        curvature: packed Hessians (see NUM_CURVATURES), float64 (V, 21), added to.

    Returns:
        The energies of the normals and of the texture.
    """
    pixels, normals, texture, normal_trust, texture_trust = evidence
    triangle, pixel_step, faces, is_excluded, verts_cam, vert_normals_cam, uv, uv_faces = surface
    focal, center, map_from_cam = camera
    normal_weight, normal_cap, normal_floor, uv_weight, uv_seam, uv_floor = norms
    normal_energy, uv_energy = 0.0, 0.0
    slots, seen = _slots(pixels, pixel_step, triangle, is_excluded)
    corners = _corners(seen, faces, verts_cam, vert_normals_cam, map_from_cam, uv, uv_faces)
    sums = np.zeros((len(seen), _NUM_SUMS))
    for k in range(len(pixels)):
        slot = slots[k]
        if slot == _UNCOVERED:
            total = abs(normals[k, 0]) + abs(normals[k, 1]) + abs(normals[k, 2])
            normal_energy += normal_weight * normal_trust[k] * min(total, normal_cap)
        if slot < 0:
            continue
        x, y = (pixels[k, 1] + 0.5 - center[0]) / focal[0], (pixels[k, 0] + 0.5 - center[1]) / focal[1]
        shares = _shares(corners, slot, x, y)
        if normal_weight > 0:
            normal_energy += _add_normal(
                corners, slot, shares, normals, k, normal_weight * normal_trust[k], normal_cap, normal_floor, sums
            )
        if uv_weight > 0 and not np.isnan(texture[k, 0]):
            weight = uv_weight * texture_trust[k]
            uv_energy += _add_texture(corners, slot, shares, texture, k, weight, uv_seam, uv_floor, sums)
    for slot in range(len(seen)):
        face = faces[seen[slot]]
        _carry_over(face, verts_cam, corners[slot], sums[slot], map_from_cam, force, curvature)
    return normal_energy, uv_energy


@numba.njit(cache=True, nogil=True)
def _slots(pixels, pixel_step, triangle, is_excluded):  # pragma: no cover - compiled
    """Number the triangles that pixels see: the number by pixel, int32 (K,), and the triangle by number, int32 (T,)."""
    slots = np.empty(len(pixels), np.int32)
    slot_of = np.full(len(is_excluded), _UNCOVERED, np.int32)
    seen = np.empty(len(is_excluded), np.int32)
    count = 0
    for k in range(len(pixels)):
        f = triangle[pixels[k, 0] // pixel_step, pixels[k, 1] // pixel_step]
        if f < 0:
            slots[k] = _UNCOVERED
            continue
        if slot_of[f] == _UNCOVERED:
            slot_of[f] = _SILENT
            if not is_excluded[f]:
                slot_of[f] = count
                seen[count] = f
                count += 1
        slots[k] = slot_of[f]
    return slots, seen[:count]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _corners(seen, faces, verts_cam, vert_normals_cam, map_from_cam, uv, uv_faces):  # pragma: no cover - compiled
    """Gather what pixels need of each triangle, float64 (T, 24).

    The corners' shares in a ray's hit are as its products with the cross products of the other two corners.
    """
    out = np.empty((len(seen), _NUM_CORNERS))
    for slot in range(len(seen)):
        f, row = seen[slot], out[slot]
        for k in range(3):
            p, q = verts_cam[faces[f, (k + 1) % 3]], verts_cam[faces[f, (k + 2) % 3]]
            row[3 * k] = p[1] * q[2] - p[2] * q[1]
            row[3 * k + 1] = p[2] * q[0] - p[0] * q[2]
            row[3 * k + 2] = p[0] * q[1] - p[1] * q[0]
            n = vert_normals_cam[faces[f, k]]
            for i in range(3):
                row[_NORMAL + 3 * k + i] = (
                    map_from_cam[i, 0] * n[0] + map_from_cam[i, 1] * n[1] + map_from_cam[i, 2] * n[2]
                )
            # Texture coordinates of the first corner, and from there to the others.
            for i in range(2):
                origin = uv[uv_faces[f, 0], i] if k > 0 else 0.0
                row[_TEXTURE + 2 * k + i] = uv[uv_faces[f, k], i] - origin
    return out


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _shares(corners, slot, x, y):  # pragma: no cover - compiled
    """Return the shares of a triangle's corners in what a ray (x, y, 1) hits."""
    a = corners[slot, 0] * x + corners[slot, 1] * y + corners[slot, 2]
    b = corners[slot, 3] * x + corners[slot, 4] * y + corners[slot, 5]
    c = corners[slot, 6] * x + corners[slot, 7] * y + corners[slot, 8]
    whole = 1.0 / (a + b + c)
    return a * whole, b * whole, c * whole


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _add_normal(corners, slot, shares, seen, k, weight, cap, floor, sums):  # pragma: no cover - compiled
    """Add one pixel's normal to a triangle's sums and return its energy.

    With P = I - n n^T for the unit normal n = m / |m| and IRLS weights W, the sums are of P W P / |m|^2 and
    P W (n - seen) / |m|, by the corners' shares a, b, c.
    """
    a, b, c = shares
    x = a * corners[slot, 9] + b * corners[slot, 12] + c * corners[slot, 15]
    y = a * corners[slot, 10] + b * corners[slot, 13] + c * corners[slot, 16]
    z = a * corners[slot, 11] + b * corners[slot, 14] + c * corners[slot, 17]
    inverse = 1.0 / math.sqrt(max(x * x + y * y + z * z, 1e-18))
    x, y, z = x * inverse, y * inverse, z * inverse
    ex, ey, ez = x - seen[k, 0], y - seen[k, 1], z - seen[k, 2]
    total = abs(ex) + abs(ey) + abs(ez)
    if total >= cap:
        return weight * cap
    wx, wy, wz = weight / max(abs(ex), floor), weight / max(abs(ey), floor), weight / max(abs(ez), floor)
    px, py, pz = wx * x, wy * y, wz * z
    twice = x * px + y * py + z * pz
    # P W P = W - p n^T - n p^T with p = W n - (n . W n) n / 2.
    qx, qy, qz = px - 0.5 * twice * x, py - 0.5 * twice * y, pz - 0.5 * twice * z
    square = inverse * inverse
    xx, xy, yy = (wx - 2 * x * qx) * square, -(x * qy + qx * y) * square, (wy - 2 * y * qy) * square
    xz, yz, zz = -(x * qz + qx * z) * square, -(y * qz + qy * z) * square, (wz - 2 * z * qz) * square
    along = px * ex + py * ey + pz * ez
    fx, fy, fz = (wx * ex - along * x) * inverse, (wy * ey - along * y) * inverse, (wz * ez - along * z) * inverse
    spread = abs(a) + abs(b) + abs(c)
    for corner in range(3):
        share = a if corner == 0 else (b if corner == 1 else c)
        reach, first = spread * abs(share), 9 * corner
        sums[slot, first] += reach * xx
        sums[slot, first + 1] += reach * xy
        sums[slot, first + 2] += reach * yy
        sums[slot, first + 3] += reach * xz
        sums[slot, first + 4] += reach * yz
        sums[slot, first + 5] += reach * zz
        sums[slot, first + 6] += share * fx
        sums[slot, first + 7] += share * fy
        sums[slot, first + 8] += share * fz
    return weight * total


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _add_texture(corners, slot, shares, seen, k, weight, seam, floor, sums):  # pragma: no cover - compiled
    """Add one pixel's texture coordinates to a triangle's sums and return their energy.

    With the IRLS weight w, the error e and the place t in the texture from the first corner, the sums are of w, w t,
    w |t|^2, w e and w (t . e), by the corners' shares a, b, c.
    """
    a, b, c = shares
    tu = b * corners[slot, 20] + c * corners[slot, 22]
    tv = b * corners[slot, 21] + c * corners[slot, 23]
    eu, ev = tu + corners[slot, 18] - seen[k, 0], tv + corners[slot, 19] - seen[k, 1]
    distance = math.sqrt(eu * eu + ev * ev)
    if not distance < seam:
        return 0.0
    w = weight / max(distance, floor)
    square, along = tu * tu + tv * tv, tu * eu + tv * ev
    spread = (abs(a) + abs(b) + abs(c)) * w
    for corner in range(3):
        share = a if corner == 0 else (b if corner == 1 else c)
        reach, first = spread * abs(share), _TEXTURE_SUMS + 7 * corner
        share *= w
        sums[slot, first] += reach
        sums[slot, first + 1] += reach * tu
        sums[slot, first + 2] += reach * tv
        sums[slot, first + 3] += reach * square
        sums[slot, first + 4] += share * eu
        sums[slot, first + 5] += share * ev
        sums[slot, first + 6] += share * along
    return weight * distance


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _carry_over(face, verts_cam, at, sums, map_from_cam, force, curvature):  # pragma: no cover - compiled
    """Carry a triangle's sums over to its vertices."""
    by_place, slope = np.empty((5, 3)), np.empty(3)
    if not _attributes_by_place(face, verts_cam, at, by_place, slope):
        return
    by_motion, product = np.empty((3, 6)), np.empty((3, 6))
    for i in range(3):
        for j in range(3):
            by_motion[i, j], by_motion[i, 3 + j] = by_place[i, j], map_from_cam[i, j]
    for corner in range(3):
        v = face[corner]
        _add_normal_sums(sums[9 * corner : 9 * corner + 9], by_motion, product, force[v], curvature[v])
        first = _TEXTURE_SUMS + 7 * corner
        if sums[first] > 0:
            _add_texture_sums(sums[first : first + 7], by_place[3], by_place[4], slope, force[v], curvature[v])


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _attributes_by_place(face, verts_cam, at, out, slope):  # pragma: no cover - compiled
    """Write how a pixel's normal (3 rows, map axes) and texture (2) change with the surface's motion, out (5, 3).

    These hold for a pixel at the first corner; elsewhere the attribute's difference from there, times ``slope`` (3,),
    is to be added.

    Returns:
        Whether the triangle has an area and is not seen edge-on.
    """
    a, b, c = verts_cam[face[0]], verts_cam[face[1]], verts_cam[face[2]]
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    gx, gy, gz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    squared, volume = gx * gx + gy * gy + gz * gz, gx * a[0] + gy * a[1] + gz * a[2]
    if squared == 0.0 or volume == 0.0:
        return False
    slope[0], slope[1], slope[2] = gx / volume, gy / volume, gz / volume
    # Gradients of the second and the third corner's share; the first one's is what they lack to zero.
    bx, by, bz = (vy * gz - vz * gy) / squared, (vz * gx - vx * gz) / squared, (vx * gy - vy * gx) / squared
    cx, cy, cz = (gy * uz - gz * uy) / squared, (gz * ux - gx * uz) / squared, (gx * uy - gy * ux) / squared
    for i in range(5):
        if i < 3:
            first, second = at[_NORMAL + 3 + i] - at[_NORMAL + i], at[_NORMAL + 6 + i] - at[_NORMAL + i]
        else:
            first, second = at[_TEXTURE + i - 1], at[_TEXTURE + i + 1]
        x, y, z = first * bx + second * cx, first * by + second * cy, first * bz + second * cz
        along = x * a[0] + y * a[1] + z * a[2]
        if i < 3:
            along -= at[_NORMAL + i]
        out[i, 0], out[i, 1], out[i, 2] = along * slope[0] - x, along * slope[1] - y, along * slope[2] - z
    return True


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _add_normal_sums(sums, by_motion, product, force, curvature):  # pragma: no cover - compiled
    """Add G^T K G to a packed 6 x 6 matrix and G^T f to a force, for G (3, 6) and K and f packed in sums (9,)."""
    for j in range(6):
        x, y, z = by_motion[0, j], by_motion[1, j], by_motion[2, j]
        product[0, j] = sums[0] * x + sums[1] * y + sums[3] * z
        product[1, j] = sums[1] * x + sums[2] * y + sums[4] * z
        product[2, j] = sums[3] * x + sums[4] * y + sums[5] * z
        force[j] += sums[6] * x + sums[7] * y + sums[8] * z
    position = 0
    for i in range(6):
        x, y, z = by_motion[0, i], by_motion[1, i], by_motion[2, i]
        for j in range(i + 1):
            curvature[position] += x * product[0, j] + y * product[1, j] + z * product[2, j]
            position += 1


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _add_texture_sums(sums, by_u, by_v, slope, force, curvature):  # pragma: no cover - compiled
    """Add the squares of weighted rows (by_u + t_u slope, by_v + t_v slope) to a packed matrix and a force."""
    position = 0
    for i in range(3):
        # Half of what is added twice.
        cross_i = by_u[i] * sums[1] + by_v[i] * sums[2] + 0.5 * slope[i] * sums[3]
        for j in range(i + 1):
            cross_j = by_u[j] * sums[1] + by_v[j] * sums[2] + 0.5 * slope[j] * sums[3]
            square = (by_u[i] * by_u[j] + by_v[i] * by_v[j]) * sums[0]
            curvature[position] += square + cross_i * slope[j] + cross_j * slope[i]
            position += 1
        force[i] += by_u[i] * sums[4] + by_v[i] * sums[5] + slope[i] * sums[6]
