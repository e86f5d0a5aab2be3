"""The face outline in the image: its points slide along it, so only its normal direction says much."""

from __future__ import annotations

import numpy as np

from priors.landmark_topology import landmark_topology


def outline_normals(points_px: np.ndarray) -> np.ndarray:
    """Return unit directions (478, 2): the outline's normal for its points, (1, 0) for the other landmarks."""
    ring = landmark_topology().oval
    along = points_px[np.roll(ring, -1)] - points_px[np.roll(ring, 1)]
    normal = np.column_stack((-along[:, 1], along[:, 0]))
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normals = np.tile((1.0, 0.0), (len(points_px), 1))
    normals[ring] = np.where(length > 1e-6, normal / np.maximum(length, 1e-6), (1.0, 0.0))
    return normals
