"""Irises and pupils: discs on the eyeballs, so that one sees where a head without texture looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IRIS_METRES, PUPIL_METRES = 0.0059, 0.0022
"""Radii of the iris and the pupil."""
_SPOKES = 28
_LIFT_METRES = 0.00015


@dataclass(frozen=True, eq=False)
class EyeDisc:
    """Place a disc of N points on the front of an eyeball; it moves with the ball's surface."""

    corners: np.ndarray
    """Vertices of the triangle that each point lies on, int64 (N, 3)."""
    weights: np.ndarray
    """Barycentric coordinates of the points, float32 (N, 3)."""
    ball: np.ndarray
    """Vertices of the eyeball, int64."""
    faces: np.ndarray
    """Triangles of the disc, uint32 (M, 3), anticlockwise from the front."""

    @staticmethod
    def on(rest: np.ndarray, faces: np.ndarray, ball: np.ndarray, radius: float) -> EyeDisc | None:
        """Lay a disc on an eyeball; None where the ball has no front to lay it on.

        Args:
            rest: vertices at rest (V, 3), head space: eyes look along +z.
            faces: triangles (F, 3).
            ball: which vertices are the eyeball's, bool (V,).
            radius: of the disc, metres.
        """
        triangles = faces[ball[faces].all(axis=1)]
        if not len(triangles):
            return None
        centre = (rest[ball].min(axis=0) + rest[ball].max(axis=0)) / 2
        first, second, third = (rest[triangles[:, corner], :2] for corner in range(3))
        area = _cross(second - first, third - first)
        is_front = (area > 1e-12) & (rest[triangles].mean(axis=1)[:, 2] > centre[2])
        points = centre[:2] + _disc_points(radius)
        bary = np.full((len(points), len(triangles), 3), -1.0)
        for corner, (start, end) in enumerate(((second, third), (third, first), (first, second))):
            bary[:, is_front, corner] = (
                _cross(end[is_front] - start[is_front], points[:, None] - start[is_front]) / area[is_front]
            )
        best = bary.min(axis=2).argmax(axis=1)
        chosen = bary[np.arange(len(points)), best]
        if chosen.min() < -1e-6:
            return None
        return EyeDisc(triangles[best], chosen.astype(np.float32), np.flatnonzero(ball), _disc_faces())

    def at(self, vertices: np.ndarray, layer: int) -> np.ndarray:
        """Return the points on posed vertices (V, 3), float32 (N, 3), a little above the ball; higher layers on top."""
        points = np.einsum("nkc,nk->nc", vertices[self.corners], self.weights)
        ball = vertices[self.ball]
        centre = (ball.min(axis=0) + ball.max(axis=0)) / 2
        outward = points - centre
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        return points + (_LIFT_METRES * layer) * outward


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _disc_points(radius: float) -> np.ndarray:
    """Return the centre, a ring half-way and the rim, (1 + 2 * spokes, 2)."""
    angle = np.arange(_SPOKES) * (2 * np.pi / _SPOKES)
    ring = radius * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    return np.concatenate((np.zeros((1, 2)), 0.5 * ring, ring))


def _disc_faces() -> np.ndarray:
    here = np.arange(_SPOKES)
    after = (here + 1) % _SPOKES
    inner, outer = 1 + here, 1 + _SPOKES + here
    next_inner, next_outer = 1 + after, 1 + _SPOKES + after
    fan = np.stack((np.zeros_like(here), inner, next_inner), axis=1)
    band = np.concatenate(
        (np.stack((inner, outer, next_outer), axis=1), np.stack((inner, next_outer, next_inner), axis=1))
    )
    return np.concatenate((fan, band)).astype(np.uint32)
