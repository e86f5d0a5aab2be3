"""Energy terms: evidence and state in, whitened residual and Jacobian out.

Every term is a free function. Residuals are in units of standard deviations, so that terms add without weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from flame.surface import PosedPoints
from priors.evidence import FaceEvidence
from tracker.state import FaceState, View

Term = Callable[[PosedPoints, FaceState, View], tuple[np.ndarray, np.ndarray]]
"""A term of one's own: the rig's points as they are posed in head space, the state and the view in; residuals, float64
(M,), in standard deviations, and their Jacobian with respect to a step of the state, float64 (M, 18 + E), out."""


@dataclass(frozen=True)
class Whitening:
    """Turn pixel errors of N points into standard deviations; made once per frame."""

    points_px: np.ndarray
    """Observed points, float64 (N, 2)."""
    matrices: np.ndarray
    """Inverse square root covariances, float64 (N, 2, 2), 1 / pixels; zero where a point says nothing."""


@dataclass(frozen=True)
class Linearization:
    """Hold whitened residuals of a term and how they change with a step."""

    residual: np.ndarray
    """Float64 (N, 2), standard deviations."""
    error_px: np.ndarray
    """The same before whitening, float64 (N, 2), pixels."""
    by_state: np.ndarray
    """Float64 (2N, 18 + E)."""
    by_points_cam: np.ndarray
    """Float64 (N, 2, 3), standard deviations per metre."""
    by_log_focal: np.ndarray
    """Float64 (2N,)."""


def whiten(evidence: FaceEvidence, scale: float = 1.0) -> Whitening:
    """Prepare correspondences for the solver; ``scale`` multiplies all standard deviations.

    Landmarks of one detector err together, so N of them weigh less than N independent ones: ``scale`` says how much.
    """
    normal, sigma = np.ascontiguousarray(evidence.normal_px), np.ascontiguousarray(evidence.sigma_px)
    return Whitening(evidence.points_px, _whitening_matrices(normal, sigma, scale))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _whitening_matrices(normal, sigma, scale):  # pragma: no cover - compiled
    """Return inverse square root covariances (N, 2, 2) along normals (N, 2) and their tangents, of sigmas (N, 2)."""
    out = np.empty((len(normal), 2, 2))
    for n in range(len(normal)):
        x, y = normal[n, 0], normal[n, 1]
        along = 1.0 / (sigma[n, 0] * scale) if np.isfinite(sigma[n, 0]) else 0.0
        across = 1.0 / (sigma[n, 1] * scale) if np.isfinite(sigma[n, 1]) else 0.0
        out[n, 0, 0], out[n, 0, 1] = x * along, y * along
        out[n, 1, 0], out[n, 1, 1] = -y * across, x * across
    return out


def correspondences(posed: PosedPoints, state: FaceState, view: View, whitening: Whitening) -> Linearization:
    """Compare projected surface points with where they were seen: r = W (project(R x + t) - p)."""
    arrays = _correspondences(
        posed.points_head,
        posed.jacobian,
        state.rotation,
        state.translation,
        view.focal_px,
        view.center_px,
        whitening.points_px,
        whitening.matrices,
    )
    return Linearization(*arrays)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _correspondences(
    points_head, jacobian_head, rotation, translation, focal, center, points_px, matrices
):  # pragma: no cover - compiled
    """Evaluate ``correspondences``; all arrays float64, shapes as there."""
    num_points = points_head.shape[0]
    num_tail = jacobian_head.shape[2]
    residual = np.empty((num_points, 2))
    error_px = np.empty((num_points, 2))
    by_state = np.empty((2 * num_points, 6 + num_tail))
    by_points = np.empty((num_points, 2, 3))
    by_focal = np.empty(2 * num_points)
    relative = np.empty(3)
    for n in range(num_points):
        for c in range(3):
            relative[c] = (
                rotation[c, 0] * points_head[n, 0]
                + rotation[c, 1] * points_head[n, 1]
                + rotation[c, 2] * points_head[n, 2]
            )
        depth = max(relative[2] + translation[2], 1e-3)
        x = (relative[0] + translation[0]) / depth
        y = (relative[1] + translation[1]) / depth
        error_x = focal[0] * x + center[0] - points_px[n, 0]
        error_y = focal[1] * y + center[1] - points_px[n, 1]
        error_px[n, 0], error_px[n, 1] = error_x, error_y
        for k in range(2):
            along_x, along_y = matrices[n, k, 0], matrices[n, k, 1]
            residual[n, k] = along_x * error_x + along_y * error_y
            by_focal[2 * n + k] = focal[0] * along_x * x + focal[1] * along_y * y
            a = focal[0] / depth * along_x
            b = focal[1] / depth * along_y
            d = -(a * x + b * y)
            by_points[n, k, 0], by_points[n, k, 1], by_points[n, k, 2] = a, b, d
            row = by_state[2 * n + k]
            row[0] = d * relative[1] - b * relative[2]
            row[1] = a * relative[2] - d * relative[0]
            row[2] = b * relative[0] - a * relative[1]
            row[3], row[4], row[5] = a, b, d
            head_x = a * rotation[0, 0] + b * rotation[1, 0] + d * rotation[2, 0]
            head_y = a * rotation[0, 1] + b * rotation[1, 1] + d * rotation[2, 1]
            head_z = a * rotation[0, 2] + b * rotation[1, 2] + d * rotation[2, 2]
            for e in range(num_tail):
                row[6 + e] = (
                    head_x * jacobian_head[n, 0, e] + head_y * jacobian_head[n, 1, e] + head_z * jacobian_head[n, 2, e]
                )
    return residual, error_px, by_state, by_points, by_focal


def cauchy_weights(residual: np.ndarray, width: float) -> tuple[np.ndarray, float]:
    """Return the IRLS weights (N,) of points with residuals (N, 2) and their robust cost.

    The cost of a point at distance e is width^2 / 2 * log(1 + (e / width)^2): quadratic near zero, nearly flat for
    points that are plainly wrong.
    """
    return _cauchy_weights(np.ascontiguousarray(residual), width)


@numba.njit(cache=True, nogil=True)
def _cauchy_weights(residual, width):  # pragma: no cover - compiled
    """Evaluate ``cauchy_weights``."""
    weights = np.empty(len(residual))
    cost = 0.0
    for n in range(len(residual)):
        squared = (residual[n, 0] ** 2 + residual[n, 1] ** 2) / width**2
        weights[n] = 1.0 / (1.0 + squared)
        cost += np.log1p(squared)
    return weights, 0.5 * width**2 * cost
