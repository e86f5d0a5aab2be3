"""Close the lips of the mean head, which the source leaves apart by half a millimetre towards the corners."""

from __future__ import annotations

import numpy as np

from flame.commons.kernels import REFLECT

STEP = 0.001
"""Distance between the places along the mouth where the gap is measured, metres."""
OVERLAP = 1e-4
"""Overlap of the closed lips, metres: a gap is closed until they touch."""
REACH = 0.004
"""Standard deviation of the distance from the line between the lips over which vertices follow, metres."""
SAMPLES = 60
"""Random points on each triangle of the lips by which the gap is measured."""


def close_lips(
    vertices: np.ndarray, faces: np.ndarray, mirror: np.ndarray, lips: np.ndarray, jaw_weight: np.ndarray
) -> np.ndarray:
    """Move upper and lower lip together where they are apart; return the vertices (V, 3), symmetric.

    Args:
        vertices: The mean head (V, 3), metres, symmetric.
        faces: Triangles (F, 3).
        mirror: Mirror map (V,).
        lips: Mask of the lips (V,).
        jaw_weight: How much each vertex follows the jaw (V,): what tells the lower lip from the upper.
    """
    below = jaw_weight > 0.5
    upper = _surface_points(vertices, faces[(lips & ~below)[faces].all(axis=1)])
    lower = _surface_points(vertices, faces[(lips & below)[faces].all(axis=1)])
    places = np.arange(0.0, np.abs(vertices[lips, 0]).max() - STEP, STEP)
    line = np.array([_line_at(place, upper, lower) for place in places])
    x = np.abs(vertices[:, 0])
    gap = np.interp(x, places, line[:, 0], right=0.0)
    middle = np.stack((np.interp(x, places, line[:, 1]), np.interp(x, places, line[:, 2])), axis=1)
    squared = ((vertices[:, 1:] - middle) ** 2).sum(axis=1)
    lift = np.where(below, 0.5, -0.5) * gap * np.exp(-0.5 * squared / REACH**2)
    moved = vertices.copy()
    moved[:, 1] += lift
    return 0.5 * (moved + moved[mirror] * REFLECT)


def _surface_points(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return random points on triangles, with the sign of x dropped (N, 3)."""
    weights = np.random.default_rng(0).dirichlet([0.5, 0.5, 0.5], SAMPLES)
    points = np.einsum("sk,tkc->tsc", weights, vertices[faces]).reshape(-1, 3)
    return points * np.where(points[:, :1] < 0, REFLECT, 1.0)


def _line_at(place: float, upper: np.ndarray, lower: np.ndarray) -> tuple[float, float, float]:
    """Return by how much to close the lips at a distance from the midline, and height and depth of their line there."""
    near_upper = upper[np.abs(upper[:, 0] - place) < STEP]
    near_lower = lower[np.abs(lower[:, 0] - place) < STEP]
    top, bottom = near_upper[near_upper[:, 1].argmin()], near_lower[near_lower[:, 1].argmax()]
    gap = top[1] - bottom[1]
    return gap + OVERLAP if gap > 0 else 0.0, 0.5 * (top[1] + bottom[1]), 0.5 * (top[2] + bottom[2])
