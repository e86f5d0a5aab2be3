"""What the joint solver minimises in one frame: a list of terms, each able to linearise itself.

Evidence from landmarks and from dense maps go through the same interface and add up. Energies are true energies, so the
Hessians are those of quadratics that touch the energy at the present point and lie above its robust norms (IRLS).

A step of one frame has 18 + E numbers of its own (see ``FaceState``), followed by R shape coefficients, the logarithmic
zoom and the shift of the principal point, which frames share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from flame.rotation_kernels import left_jacobian, small_turn_vector
from flame.surface import SurfaceRig
from tracker.state import NUM_RIGID, FaceState, View
from tracker.terms import Linearization, Whitening, correspondences

NUM_CAMERA = 3
"""Shared parameters of the camera: logarithmic zoom, shift of the principal point in x and y (pixels)."""


@dataclass(frozen=True)
class FramePoint:
    """Hold where one frame is linearised."""

    state: FaceState
    view: View
    """The camera with the present zoom and principal point."""
    shape: np.ndarray
    """Shape coefficients, float64 (R,)."""


@dataclass(frozen=True)
class Quadratic:
    """Hold a quadratic model of an energy over a step of P numbers."""

    hessian: np.ndarray
    """Float64 (P, P)."""
    gradient: np.ndarray
    """Float64 (P,)."""


class LinearTerm(Protocol):
    """Be a term at one point."""

    @property
    def energy(self) -> float:
        """Return the energy."""
        ...

    @property
    def residual_px(self) -> np.ndarray:
        """Return distances of projected points from where they were seen, float64 (N,), pixels; N is 0 for some."""
        ...

    def quadratic(self) -> Quadratic:
        """Return the quadratic model; computed when it is asked for, since rejected steps need none."""
        ...


class FrameTerm(Protocol):
    """Be one term of a frame's energy."""

    def at(self, point: FramePoint) -> LinearTerm:
        """Evaluate the term at a point."""
        ...


Kernel = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Robust norm of N points: squared lengths of residuals (N,) in; energies (N,) and IRLS weights (N,) out."""


def cauchy(width: float) -> Kernel:
    """Return the kernel w^2/2 log(1 + e^2/w^2): quadratic near zero, nearly flat for what is plainly wrong."""

    def kernel(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        share = squared / width**2
        return 0.5 * width**2 * np.log1p(share), 1.0 / (1.0 + share)

    return kernel


def squares(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Be the kernel e^2 / 2."""
    return 0.5 * squared, np.ones_like(squared)


@dataclass(frozen=True, eq=False)
class LandmarkTerm:
    """Compare surface points with where they were seen: sum rho(|W (pi(x) - p)|)."""

    rig: SurfaceRig
    """The points, with R shape directions."""
    whitening: Whitening
    kernel: Kernel

    def at(self, point: FramePoint) -> LinearLandmarks:
        """Evaluate the term at a point."""
        person = self.rig.with_shape(point.shape)
        posed = person.pose(point.state.joint_angles, point.state.expression)
        term = correspondences(posed, point.state, point.view, self.whitening)
        energies, weights = self.kernel(np.einsum("nk,nk->n", term.residual, term.residual))
        return LinearLandmarks(float(energies.sum()), term, weights, person, point, self.whitening)


@dataclass(frozen=True, eq=False)
class LinearLandmarks:
    """Be a ``LandmarkTerm`` at one point."""

    energy: float
    term: Linearization
    weights: np.ndarray
    person: SurfaceRig
    point: FramePoint
    whitening: Whitening

    @property
    def residual_px(self) -> np.ndarray:
        """Return the distance of every point from where it was seen, float64 (N,), pixels."""
        return np.linalg.norm(self.term.error_px, axis=1)

    def jacobian(self) -> np.ndarray:
        """Return derivatives of the whitened residuals by a step, float64 (2N, 18 + E + R + 3)."""
        by_points_head = self.term.by_points_cam @ self.point.state.rotation
        by_shape = self.person.shape_jacobian(self.point.state.joint_angles, by_points_head)
        return np.column_stack(
            (
                self.term.by_state,
                by_shape.reshape(len(self.term.by_state), self.person.num_shapes),
                self.term.by_log_focal,
                self.whitening.matrices.reshape(-1, 2),
            )
        )

    def quadratic(self) -> Quadratic:
        """Return the quadratic model."""
        root = np.repeat(np.sqrt(self.weights), 2)
        rows = self.jacobian() * root[:, None]
        return Quadratic(rows.T @ rows, rows.T @ (self.term.residual.ravel() * root))


@dataclass(frozen=True, eq=False)
class VectorTerm:
    """Compare vectors between pairs of surface points with those seen: sum |W ((pi(a) - pi(b)) - (p_a - p_b))|^2 / 2.

    It holds lids together where the landmarks say so, wherever the eye as a whole is.
    """

    rig: SurfaceRig
    """The 2N points, first all ends, then all beginnings; with R shape directions."""
    vectors_px: np.ndarray
    """Observed vectors from beginning to end, float64 (N, 2)."""
    inverse_sigma: float
    """Weight, 1 / pixels."""

    def at(self, point: FramePoint) -> LinearVectors:
        """Evaluate the term at a point."""
        count = len(self.vectors_px)
        origin = np.zeros((2 * count, 2))
        alone = Whitening(origin, np.tile(self.inverse_sigma * np.eye(2), (2 * count, 1, 1)))
        ends = LandmarkTerm(self.rig, alone, squares).at(point)
        residual = ends.term.residual[:count] - ends.term.residual[count:] - self.inverse_sigma * self.vectors_px
        return LinearVectors(0.5 * float((residual**2).sum()), residual, ends)


@dataclass(frozen=True, eq=False)
class LinearVectors:
    """Be a ``VectorTerm`` at one point."""

    energy: float
    residual: np.ndarray
    ends: LinearLandmarks
    residual_px: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def quadratic(self) -> Quadratic:
        """Return the quadratic model."""
        rows = self.ends.jacobian()
        rows = rows[: len(rows) // 2] - rows[len(rows) // 2 :]
        return Quadratic(rows.T @ rows, rows.T @ self.residual.ravel())


@dataclass(frozen=True, eq=False)
class StateTerm:
    """Be a quadratic prior of one frame's own parameters, 1/2 |A x - b|^2, beside the diagonal ``StatePrior``.

    x is the tail of a step (joint angles and expression), or the pose relative to that of a frame before.
    """

    matrix: np.ndarray
    """A over rotation vector, translation, joint angles and expression, float64 (M, 18 + E)."""
    offset: np.ndarray
    """b, float64 (M,)."""
    before: FaceState | None = None
    """The frame to which rotation and translation are relative; None where A has nothing for them."""

    def at(self, point: FramePoint) -> LinearState:
        """Evaluate the term at a point."""
        rigid = np.zeros(NUM_RIGID)
        turn = np.eye(3)
        if self.before is not None:
            from_before = point.state.rotation @ self.before.rotation.T
            rigid[:3] = small_turn_vector(from_before)
            rigid[3:] = point.state.translation - self.before.translation
            turn = np.linalg.inv(left_jacobian(rigid[:3]))
        residual = self.matrix @ np.concatenate((rigid, point.state.values)) - self.offset
        rows = self.matrix.copy()
        rows[:, :3] = self.matrix[:, :3] @ turn
        return LinearState(0.5 * float(residual @ residual), residual, rows, len(point.shape))


@dataclass(frozen=True, eq=False)
class LinearState:
    """Be a ``StateTerm`` at one point."""

    energy: float
    residual: np.ndarray
    rows: np.ndarray
    num_shapes: int
    residual_px: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def quadratic(self) -> Quadratic:
        """Return the quadratic model."""
        rows = np.column_stack((self.rows, np.zeros((len(self.rows), self.num_shapes + NUM_CAMERA))))
        return Quadratic(rows.T @ rows, rows.T @ self.residual)
