"""The face outline in the image: its points slide along it, so only its normal direction says much."""

from __future__ import annotations

import numpy as np

from priors.landmark_topology import landmark_topology


def outline_normals(points_px: np.ndarray) -> np.ndarray:
    """Return unit directions (478, 2): the outline's normal for its points, (1, 0) for the other landmarks."""
    ring = landmark_topology().oval
    closed = points_px[np.concatenate((ring[-1:], ring, ring[:1]))]
    along = closed[2:] - closed[:-2]
    normal = np.stack((-along[:, 1], along[:, 0]), axis=1)
    length = np.hypot(along[:, :1], along[:, 1:])
    normals = np.zeros_like(points_px)
    normals[:, 0] = 1.0
    normals[ring] = np.where(length > 1e-6, normal / np.maximum(length, 1e-6), (1.0, 0.0))
    return normals
