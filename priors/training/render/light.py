"""Random light: surroundings as spherical harmonics, one to three lamps, and the shadow of the first."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flame.rasterizer import cpu

SHADOW_PX = 128
"""Side of the shadow map."""
_SH_NAMES = 9
_CONVOLVED = np.array((1.0, 2 / 3, 2 / 3, 2 / 3, 0.25, 0.25, 0.25, 0.25, 0.25))
"""What a matt surface keeps of each harmonic."""
_WARMTH = np.array((0.22, 0.02, -0.24))
"""Logarithm of the colour of light that is warmer by one."""


class Light(NamedTuple):
    """Hold the light of a scene; camera space, linear intensities."""

    sh: np.ndarray
    """Light on a matt surface by its normal: second-order harmonics with their factors, float32 (9, 3)."""
    positions: np.ndarray
    """Lamps, float32 (L, 3), metres."""
    colors: np.ndarray
    """Their intensity at the head, float32 (L, 3)."""
    wrap: float
    """How far the lamps reach round: 0 a point, 1 a large soft box."""
    shadow: np.ndarray
    """Closeness to the first lamp of what it sees, float32 (SHADOW_PX, SHADOW_PX)."""
    shadow_from_cam: np.ndarray
    """Column, row and closeness in the shadow map from camera space, float32 (3, 4)."""
    shadow_bias: float
    shadow_fade: float
    """Closeness over which a shadow becomes full."""
    shadow_blur: float
    """Distance of the looks into the shadow map, its pixels."""
    shadow_strength: float

    def lamps(self) -> np.ndarray:
        """Return position and colour of each lamp, float32 (L, 6)."""
        return np.concatenate((self.positions, self.colors), axis=1, dtype=np.float32)

    def numbers(self) -> np.ndarray:
        """Return what the kernels need to look into the shadow map, float32 (5,)."""
        numbers = (self.wrap, self.shadow_bias, self.shadow_fade, self.shadow_blur, self.shadow_strength)
        return np.array(numbers, np.float32)


def random_light(
    rng: np.random.Generator, verts_cam: np.ndarray, corners: np.ndarray, background: np.ndarray | None = None
) -> Light:
    """Return random light on a head.

    Args:
        rng: where randomness comes from.
        verts_cam: vertices of all that throws shadows, float64 (V, 3), metres.
        corners: its triangles, int32 (F, 3).
        background: linear colour (3,) of what is behind, which tints the surroundings.
    """
    center = np.einsum("vc->c", verts_cam) / len(verts_cam)
    to_camera = -center / np.linalg.norm(center)
    ambient = math.exp(rng.uniform(math.log(0.12), math.log(1.0)))
    tint = np.exp(_WARMTH * rng.normal(0, 0.5) + rng.normal(0, 0.03, 3))
    if background is not None and rng.random() < 0.6:
        tint = 0.75 * tint + 0.25 * background / max(float(background.mean()), 0.1)
    sh = _surroundings(rng, to_camera) * ambient * tint
    count = int(rng.choice((0, 1, 2, 3), p=(0.12, 0.43, 0.3, 0.15)))
    positions, colors = np.empty((count, 3)), np.empty((count, 3))
    for lamp in range(count):
        direction = _direction(rng, to_camera, behind=lamp > 0 and rng.random() < 0.35)
        far = math.exp(rng.uniform(math.log(0.5), math.log(6.0)))
        positions[lamp] = center + direction * far
        strength = math.exp(rng.normal(-0.35, 0.55)) * (1.0 if lamp == 0 else rng.uniform(0.15, 0.8))
        colors[lamp] = strength * np.exp(_WARMTH * rng.normal(0.1, 0.7) + rng.normal(0, 0.03, 3))
        if rng.random() < 0.04:
            colors[lamp] *= np.exp(rng.normal(0, 0.8, 3))
    strength = float(rng.uniform(0.55, 1.0)) if count else 0.0
    shadow, from_cam = _shadow(verts_cam, corners, positions[0] - center if count else None)
    return Light(
        sh=sh.astype(np.float32),
        positions=positions.astype(np.float32),
        colors=colors.astype(np.float32),
        wrap=float(rng.random() ** 2 * 0.5),
        shadow=shadow,
        shadow_from_cam=from_cam.astype(np.float32),
        shadow_bias=0.006,
        shadow_fade=float(rng.uniform(0.004, 0.03)),
        shadow_blur=float(rng.uniform(0.6, 3.5)),
        shadow_strength=strength,
    )


def _surroundings(rng: np.random.Generator, to_camera: np.ndarray) -> np.ndarray:
    """Return harmonics (9, 3) of mean 1: light from above, from random sides, and a little colour of its own."""
    up = np.array((0.0, -1.0, 0.0))
    towards = up * rng.uniform(0.1, 1.0) + to_camera * rng.uniform(-0.2, 0.7) + rng.normal(0, 0.45, 3)
    first = towards[[1, 2, 0]][:, None] * rng.uniform(0.3, 1.0) * np.exp(rng.normal(0, 0.06, (3, 3)))
    second = rng.normal(0, 0.3, (5, 1)) + rng.normal(0, 0.05, (5, 3))
    second[2] *= 0.5
    sh = np.concatenate((np.ones((1, 3)), first, second)) * _CONVOLVED[:, None]
    # Nothing takes light away.
    return sh


def _direction(rng: np.random.Generator, to_camera: np.ndarray, *, behind: bool) -> np.ndarray:
    """Return a random direction towards a lamp: mostly above and on the camera's side."""
    while True:
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        direction[1] = -abs(direction[1]) if rng.random() < 0.85 else direction[1]
        facing = float(direction @ to_camera)
        if (-0.7 < facing < -0.1) if behind else facing > -0.1:
            return direction


def _shadow(verts_cam: np.ndarray, faces: np.ndarray, towards: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return what a far lamp sees of a mesh: closeness (SHADOW_PX, SHADOW_PX), and its place from camera space."""
    if towards is None:
        return np.zeros((1, 1), np.float32), np.zeros((3, 4))
    z = towards / np.linalg.norm(towards)
    x = np.cross((0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0), z)
    x /= np.linalg.norm(x)
    axes = np.stack((x, np.cross(z, x), z))
    seen = verts_cam @ axes.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    scale = (SHADOW_PX - 4) / max(high[0] - low[0], high[1] - low[1])
    from_cam = np.empty((3, 4))
    from_cam[:, :3] = axes * np.array((scale, scale, 1.0))[:, None]
    from_cam[:, 3] = 2 - low[0] * scale, 2 - low[1] * scale, 1 - low[2]
    corners = seen * (scale, scale, 1.0) + from_cam[:, 3]
    closeness = cpu.visibility(corners, faces, SHADOW_PX, SHADOW_PX, False, 0.01)[1]
    return closeness, from_cam
