"""Light on a head: normals, their colours, and a soft studio light that shows shape.

Directions of light and of shaded normals are in the *eye frame*: +x right, +y up, +z from the surface to the camera. It
turns with the ray, so that a head at the image's border is lit like one in its middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.palette import CLAY as CLAY
from flame.palette import PERSON_COLORS as PERSON_COLORS

NOT_AN_EYE = 1.0
"""Stands in ``HeadLook.iris_metres`` for vertices that are not on an eyeball, metres."""

_IRIS_METRES, _PUPIL_METRES = 0.0059, 0.0021
"""Radii of the iris and the pupil."""

_RINGS_METRES = (0.003, 0.007, 0.014, 0.026)
"""Distances at which a vertex looks for what shuts it from the light: a lip, a lid, a nostril, an eye socket."""

_SPOKES = 8
"""Directions in which it looks on each ring."""


@dataclass(frozen=True)
class Lighting:
    """A studio of a key light, a fill light, a dome and a rim; directions in the eye frame, intensities linear."""

    key_direction: tuple[float, float, float] = (-0.55, 0.58, 0.60)
    """Towards the key light."""
    key: tuple[float, float, float] = (1.16, 1.10, 1.02)
    """Intensity of the key light."""
    fill_direction: tuple[float, float, float] = (0.85, 0.05, 0.52)
    """Towards the fill light."""
    fill: tuple[float, float, float] = (0.16, 0.19, 0.25)
    """Intensity of the fill light."""
    sky: tuple[float, float, float] = (0.21, 0.235, 0.27)
    """Light of the dome's top."""
    ground: tuple[float, float, float] = (0.10, 0.085, 0.075)
    """Light from below."""
    rim: tuple[float, float, float] = (0.34, 0.38, 0.44)
    """Light on surfaces that turn away from the camera."""
    wrap: float = 0.15
    """How far the key light reaches round the terminator: 0 is a point light, 1 a very large soft box."""
    sheen: float = 0.08
    """Strength of the broad highlight that clay and skin have."""
    occlusion: float = 1.0
    """How much creases and sockets are darkened, 0 to 1."""

    def packed(self) -> np.ndarray:
        """Return float64 (9, 3) for ``shade_point``: the fields in order, numbers in a row, the highlight's axis."""
        key, fill = (np.divide(d, np.linalg.norm(d)) for d in (self.key_direction, self.fill_direction))
        half = key + (0.0, 0.0, 1.0)
        half /= np.linalg.norm(half)
        numbers = (self.wrap, self.sheen, self.occlusion)
        return np.array((key, self.key, fill, self.fill, self.sky, self.ground, self.rim, numbers, half))


@dataclass(frozen=True, eq=False)
class HeadLook:
    """How a head of V vertices is painted: computed once, used for every frame."""

    colors: np.ndarray
    """Material, sRGB (V, 3)."""
    opacity: np.ndarray
    """1 on the face, fading out over the back of the head and towards the rim of the neck, (V,)."""
    iris_metres: np.ndarray
    """x and y of eyeballs' vertices from the pupil's centre, seen from the front, (V, 2); NOT_AN_EYE elsewhere."""


STUDIO = Lighting()
"""The default light."""


def head_look(
    template: np.ndarray,
    faces: np.ndarray,
    regions: Mapping[str, np.ndarray],
    color: tuple[float, float, float] = CLAY,
) -> HeadLook:
    """Paint a head, rest vertices (V, 3) in head space, by its regions (masks (V,) by name); absent ones are left out.

    Eyeballs (``left_eye``, ``right_eye``) become white with a dark iris, lips and the inside of the mouth reddish.
    """
    template, clay = np.asarray(template, dtype=np.float64), np.asarray(color, dtype=np.float64)
    colors, opacity = np.tile(clay, (len(template), 1)), np.ones(len(template))
    paints = {
        "lips": clay * (0.97, 0.88, 0.87),
        "inner_mouth": clay * (0.50, 0.36, 0.35),
        "tongue": clay * (0.58, 0.41, 0.40),
        "eyes": np.array((0.90, 0.90, 0.89)),
    }
    for name, paint in paints.items():
        if name in regions:
            colors[regions[name]] = paint
    for name, value in (("scalp", 0.55), ("ears", 0.9), ("neck", 0.35)):
        if name in regions:
            opacity[regions[name]] = value
    iris = np.full((len(template), 2), NOT_AN_EYE)
    for name in ("left_eye", "right_eye"):
        if name in regions and np.any(regions[name]):
            ball = template[regions[name]]
            centre = (ball.min(axis=0) + ball.max(axis=0)) / 2
            # The back of the ball would otherwise get an iris too.
            is_front = (ball[:, 2] > centre[2])[:, None]
            iris[regions[name]] = np.where(is_front, ball[:, :2] - centre[:2], 0.5 * NOT_AN_EYE)
    return HeadLook(colors, _fade(opacity, faces), iris)


def _fade(opacity: np.ndarray, faces: np.ndarray, num_rounds: int = 10) -> np.ndarray:
    """Smooth opacities (V,) over the surface and let them fall to 0 at the mesh's open rims."""
    ends = np.concatenate((faces[:, (0, 1)], faces[:, (1, 2)], faces[:, (2, 0)]))
    edges, count = np.unique(np.sort(ends, axis=1), axis=0, return_counts=True)
    rim = np.unique(edges[count == 1])
    both = np.concatenate((edges, edges[:, ::-1]))
    degree = np.bincount(both[:, 0], minlength=len(opacity)) + 1.0
    for _ in range(num_rounds):
        opacity = opacity.copy()
        opacity[rim] = 0
        opacity = (opacity + np.bincount(both[:, 0], opacity[both[:, 1]], len(opacity))) / degree
    opacity[rim] = 0
    return opacity


def vertex_normals(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals (V, 3) float64, outward where faces are, as area-weighted means of the triangles' normals.

    A vertex of no triangle, or only of triangles without area, gets 0.
    """
    return _vertex_normals(np.ascontiguousarray(verts, np.float64), np.ascontiguousarray(faces, np.int32))


def normals_to_rgb(normals_cam: np.ndarray) -> np.ndarray:
    """Colour camera-space normals (..., 3) as is usual in the field, float32 (..., 3) in [0, 1].

    Red: right; green: up; blue: towards the camera; each from 0 (opposite) over 0.5 to 1. A zero normal (nothing) is
    black.
    """
    normals_cam = np.asarray(normals_cam, np.float32)
    rgb = np.clip(normals_cam * np.array((0.5, -0.5, -0.5), np.float32) + np.float32(0.5), 0, 1)
    return np.where((normals_cam == 0).all(axis=-1, keepdims=True), np.float32(0), rgb)


def eye_from_cam(normals_cam: np.ndarray, points_cam: np.ndarray) -> np.ndarray:
    """Turn camera-space normals (..., 3) at points (..., 3) into the eye frame of each point's ray."""
    ray = points_cam / np.linalg.norm(points_cam, axis=-1, keepdims=True)
    # The smallest rotation that takes the ray onto +z: Rodrigues' formula with the axis ray x z.
    x, y, z = np.moveaxis(normals_cam, -1, 0)
    rx, ry, rz = np.moveaxis(ray, -1, 0)
    along = rx * x + ry * y
    tilt = along / (1 + rz)
    return np.stack((x - rx * (tilt + z), -(y - ry * (tilt + z)), -(along + rz * z)), axis=-1)


def shade(
    normals_cam: np.ndarray,
    color: np.ndarray | tuple[float, float, float] = CLAY,
    *,
    points_cam: np.ndarray | None = None,
    occlusion: np.ndarray | float = 1.0,
    lighting: Lighting = STUDIO,
) -> np.ndarray:
    """Light a matt surface with normals (..., 3); returns sRGB float32 (..., 3) in [0, 1].

    ``color`` is the material (sRGB, one or one a normal); ``occlusion`` 1 where the surface is open to the light, 0 in
    the deepest crease. Without ``points_cam`` (..., 3) the camera is taken to be far away.

    Raises:
        InputError: The last axis of the normals is not 3.
    """
    normals_cam = np.asarray(normals_cam, np.float64)
    if normals_cam.shape[-1:] != (3,):
        raise InputError(f"normals must have the shape (..., 3); got {normals_cam.shape}")
    if points_cam is None:
        normals_eye = normals_cam * (1.0, -1.0, -1.0)
    else:
        normals_eye = eye_from_cam(normals_cam, np.asarray(points_cam, np.float64))
    shape = normals_eye.shape
    albedo = linear_from_srgb(np.broadcast_to(np.asarray(color, np.float64), shape)).reshape(-1, 3)
    open_to_light = np.broadcast_to(np.asarray(occlusion, np.float64), shape[:-1]).reshape(-1)
    return _shade(lighting.packed(), normals_eye.reshape(-1, 3), albedo, open_to_light).reshape(shape)


def linear_from_srgb(srgb: np.ndarray) -> np.ndarray:
    """Return light intensities from display values, in [0, 1], by a plain square, which ``shade`` undoes."""
    return np.square(srgb)


def screen_occlusion(
    verts_cam: np.ndarray, normals_cam: np.ndarray, inverse_depth: np.ndarray, intrinsics: Intrinsics
) -> np.ndarray:
    """Return how open each vertex (V, 3) is to the light, float64 (V,): 1 free, 0 deep in a crease.

    Looks at the surface in ``inverse_depth`` (H, W; 1 / metres, 0 background) on rings around each vertex; cheap,
    because it is done for vertices, and without noise. Vertices behind that surface get values without a meaning.
    """
    camera = np.array([intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy])
    verts_cam = np.ascontiguousarray(verts_cam, np.float64)
    radii = np.array(_RINGS_METRES)[:, None, None]
    # Every other ring is turned by half a step.
    angles = (np.arange(_SPOKES) + 0.5 * (np.arange(len(radii))[:, None] % 2)) * (2 * math.pi / _SPOKES)
    spokes = radii * np.stack((np.cos(angles), np.sin(angles)), axis=-1)
    return _screen_occlusion(verts_cam, normals_cam, inverse_depth, camera, spokes, 1.5 * _RINGS_METRES[-1])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _vertex_normals(verts, faces):  # pragma: no cover - compiled
    normals = np.zeros((verts.shape[0], 3))
    for f in range(faces.shape[0]):
        ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = verts[ib, 0] - verts[ia, 0], verts[ib, 1] - verts[ia, 1], verts[ib, 2] - verts[ia, 2]
        vx, vy, vz = verts[ic, 0] - verts[ia, 0], verts[ic, 1] - verts[ia, 1], verts[ic, 2] - verts[ia, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (ia, ib, ic):
            normals[corner, 0] += nx
            normals[corner, 1] += ny
            normals[corner, 2] += nz
    for v in range(verts.shape[0]):
        length = math.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        if length > 0:
            normals[v] /= length
    return normals


@numba.njit(cache=True, nogil=True, error_model="numpy")
def shade_point(light, x, y, z, red, green, blue, openness):  # pragma: no cover - compiled
    """Return the sRGB colour of a matt point; ``light`` is packed, the normal in the eye frame, the material linear."""
    openness = 1.0 - light[7, 2] * (1.0 - openness)
    wrap = light[7, 0]
    key = max(0.0, (light[0, 0] * x + light[0, 1] * y + light[0, 2] * z + wrap) / (1.0 + wrap))
    # A crease shuts out the dome wholly, a lamp only in part.
    key *= 0.4 + 0.6 * openness
    fill = max(0.0, light[2, 0] * x + light[2, 1] * y + light[2, 2] * z) * openness
    up = 0.5 + 0.5 * y
    away = 1.0 - max(0.0, z)
    rim = away * away * away * (0.3 + 0.7 * up) * openness
    half = max(0.0, light[8, 0] * x + light[8, 1] * y + light[8, 2] * z) ** 2
    half *= half
    half *= half
    gloss = light[7, 1] * half * half * openness
    sky, ground = up * openness, (1.0 - up) * openness
    r = key * light[1, 0] + fill * light[3, 0] + sky * light[4, 0] + ground * light[5, 0] + rim * light[6, 0]
    g = key * light[1, 1] + fill * light[3, 1] + sky * light[4, 1] + ground * light[5, 1] + rim * light[6, 1]
    b = key * light[1, 2] + fill * light[3, 2] + sky * light[4, 2] + ground * light[5, 2] + rim * light[6, 2]
    r, g, b = min(red * r + gloss, 1.0), min(green * g + gloss, 1.0), min(blue * b + gloss, 1.0)
    return math.sqrt(max(r, 0.0)), math.sqrt(max(g, 0.0)), math.sqrt(max(b, 0.0))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def shade_eye(light, x, y, z, red, green, blue, openness, radius):  # pragma: no cover - compiled
    """Return the sRGB colour of a point of an eyeball at a distance, in metres, from the axis of its pupil."""
    soft = 0.0004
    white = min(max((radius - _IRIS_METRES) / soft + 0.5, 0.0), 1.0)
    iris = min(max((radius - _PUPIL_METRES) / soft + 0.5, 0.0), 1.0) * 0.06
    # A darker ring where the iris meets the white.
    iris *= 1.0 - 0.6 * min(max(radius / _IRIS_METRES * 3.0 - 2.0, 0.0), 1.0)
    tint = 0.02 + iris
    red, green, blue = tint + white * (red - tint), tint + white * (green - tint), tint + white * (blue - tint)
    r, g, b = shade_point(light, x, y, z, red, green, blue, openness)
    # The catch light sits lower than the key light would put it, so that the lid does not hide it.
    glint = 0.8 * min(max((0.93 * z + 0.22 * y - 0.29 * x - 0.984) / 0.008, 0.0), 1.0)
    return min(r + glint, 1.0), min(g + glint, 1.0), min(b + glint, 1.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _shade(light, normals_eye, albedo, openness):  # pragma: no cover - compiled
    out = np.empty(normals_eye.shape, np.float32)
    for i in range(normals_eye.shape[0]):
        n, a = normals_eye[i], albedo[i]
        out[i, 0], out[i, 1], out[i, 2] = shade_point(light, n[0], n[1], n[2], a[0], a[1], a[2], openness[i])
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _screen_occlusion(verts, normals, inverse_depth, camera, spokes, reach):  # pragma: no cover - compiled
    height, width = inverse_depth.shape
    openness = np.ones(verts.shape[0])
    for v in range(verts.shape[0]):
        z = verts[v, 2]
        nx, ny, nz = normals[v, 0], normals[v, 1], normals[v, 2]
        # Vertices that turn away count where they share a triangle with others that do not, as inside the lips.
        if not (z > 0 and nx * verts[v, 0] + ny * verts[v, 1] + nz * z < 0.7 * z):
            continue
        x_px, y_px = camera[0] * verts[v, 0] / z + camera[2], camera[1] * verts[v, 1] / z + camera[3]
        row, column = int(math.floor(y_px)), int(math.floor(x_px))
        is_inside = 0 <= row < height and 0 <= column < width
        if is_inside and inverse_depth[row, column] * (z - reach) > 1.0:
            continue
        shut, per_x, per_y, slope_x, slope_y = 0.0, 1.0 / camera[0], 1.0 / camera[1], camera[0] / z, camera[1] / z
        for ring in range(spokes.shape[0]):
            for spoke in range(spokes.shape[1]):
                column = int(math.floor(x_px + spokes[ring, spoke, 0] * slope_x))
                row = int(math.floor(y_px + spokes[ring, spoke, 1] * slope_y))
                if not (0 <= column < width and 0 <= row < height) or inverse_depth[row, column] <= 0:
                    continue
                z_there = 1.0 / inverse_depth[row, column]
                dx = (column + 0.5 - camera[2]) * per_x * z_there - verts[v, 0]
                dy = (row + 0.5 - camera[3]) * per_y * z_there - verts[v, 1]
                dz = z_there - z
                over = nx * dx + ny * dy + nz * dz
                squared = dx * dx + dy * dy + dz * dz
                # Most taps look at something too far away, or below the surface: settled without a root.
                if over <= 0 or squared >= reach * reach:
                    continue
                distance = math.sqrt(squared) + 1e-9
                height_over = over / distance - 0.08
                if height_over > 0 and distance < reach:
                    shut += height_over * (1.0 - distance / reach)
        shut /= spokes.shape[0] * spokes.shape[1]
        openness[v] = 1.0 / (1.0 + 7.0 * shut + 40.0 * shut * shut)
    return openness
