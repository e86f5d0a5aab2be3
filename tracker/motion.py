"""How a face is expected to move from frame to frame: velocities of the head, joint angles and expressions that drift.

The head's pose moves at a velocity that does a random walk (white acceleration, an integrated Wiener process); joint
angles and expressions do a random walk themselves. What counts is the time between frames, not their number: the
covariance of a change over dt is the continuous process's, so that the chain of twice as many frames, half as far
apart, expects the same motion.

With every frame come Z = D + 6 numbers: a step of its state (D = 18 + E, see ``FaceState``), then the change of its
velocity (turn, radians/s, and translation, metres/s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import SmoothingConfig
from flame.rotation_kernels import small_turn_vector
from flame.surface import NUM_JOINT_ANGLES
from tracker.priors import StatePrior, are_lids
from tracker.state import NUM_RIGID, FaceState

_MIN_SECONDS = 1e-3
_NECK_CHANGE = 0.02
"""In the neck's standard deviations: what one camera cannot tell from the head's turn hardly changes."""


@dataclass(frozen=True)
class Paired:
    """Hold a Z x Z matrix that couples every number with itself, and a pose's numbers with their velocities."""

    diagonal: np.ndarray
    """Float64 (Z,)."""
    upper: np.ndarray
    """Pose rows, velocity columns, float64 (6,)."""
    lower: np.ndarray
    """Velocity rows, pose columns, float64 (6,)."""

    @staticmethod
    def of(tail: np.ndarray, pose: np.ndarray, upper: np.ndarray, lower: np.ndarray, velocity: np.ndarray) -> Paired:
        """Put a matrix together from its parts: tail (12 + E,), the others (6,)."""
        return Paired(np.concatenate((pose, tail, velocity)), upper, lower)

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return diagonal, upper and lower, for compiled functions."""
        return self.diagonal, self.upper, self.lower

    def add_to(self, matrix: np.ndarray) -> None:
        """Add this to a matrix (Z, Z)."""
        size = len(self.diagonal)
        matrix.flat[:: size + 1] += self.diagonal
        pose = np.arange(NUM_RIGID)
        matrix[pose, size - NUM_RIGID + pose] += self.upper
        matrix[size - NUM_RIGID + pose, pose] += self.lower

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Return this matrix times a vector (Z,)."""
        out = self.diagonal * vector
        out[:NUM_RIGID] += self.upper * vector[-NUM_RIGID:]
        out[-NUM_RIGID:] += self.lower * vector[:NUM_RIGID]
        return out

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """Return this matrix, transposed, times a vector (Z,)."""
        out = self.diagonal * vector
        out[:NUM_RIGID] += self.lower * vector[-NUM_RIGID:]
        out[-NUM_RIGID:] += self.upper * vector[:NUM_RIGID]
        return out


@dataclass(frozen=True)
class Link:
    """Hold the energy e^T P e / 2 between two frames, with e = z_after - F z_before + offset."""

    precision: Paired
    """P: the inverse covariance of a change."""
    cross: Paired
    """F^T P: minus the Hessian's block with rows of the frame before and columns of the frame after."""
    before: Paired
    """F^T P F: what is added to the Hessian of the frame before."""
    offset: np.ndarray
    """e where neither frame takes a step, float64 (Z,)."""

    @property
    def energy(self) -> float:
        """Return the energy where neither frame takes a step."""
        return 0.5 * float(self.offset @ self.precision.times(self.offset))


@dataclass(frozen=True)
class Motion:
    """Hold how fast a face changes, as the square roots of the processes' intensities."""

    pose: np.ndarray
    """Change of the head's velocity within a second: turn, radians/s, and translation, metres/s, float64 (6,)."""
    tail: np.ndarray
    """Change of joint angles (radians) and expression coefficients within a second, float64 (12 + E,)."""

    @staticmethod
    def of(config: SmoothingConfig, prior: StatePrior, expression_names: Sequence[str] = ()) -> Motion:
        """Return the motion that the configuration expects; joints and expressions in units of their prior.

        Lids are quicker than the rest, as the eyes are.
        """
        share = np.full(len(prior.precision), config.expression_change)
        share[:NUM_JOINT_ANGLES] = np.repeat((_NECK_CHANGE, config.jaw_change, config.lid_change), (3, 3, 6))
        if expression_names:
            share[NUM_JOINT_ANGLES:][are_lids(expression_names)] = config.lid_change
        pose = np.repeat((config.turn_change, config.move_change), 3)
        return Motion(pose, share / np.sqrt(prior.precision))

    def link(
        self, before: FaceState, after: FaceState, seconds: float, velocities: tuple[np.ndarray, np.ndarray]
    ) -> Link:
        """Couple two frames ``seconds`` apart, at whose ``velocities`` (6,) of the head the steps begin.

        Turns from frame to frame are small: a step's turn adds to the turn between the frames.
        """
        dt = max(seconds, _MIN_SECONDS)
        tail, pose = 1.0 / (self.tail**2 * dt), 1.0 / (self.pose**2 * dt)
        precision = Paired.of(tail, 12 * pose / dt**2, -6 * pose / dt, -6 * pose / dt, 4 * pose)
        cross = Paired.of(tail, 12 * pose / dt**2, -6 * pose / dt, 6 * pose / dt, -2 * pose)
        at_before = Paired.of(tail, 12 * pose / dt**2, 6 * pose / dt, 6 * pose / dt, 4 * pose)
        turn = small_turn_vector(after.rotation @ before.rotation.T)
        moved = np.concatenate((turn, after.translation - before.translation)) - dt * velocities[0]
        offset = np.concatenate((moved, after.values - before.values, velocities[1] - velocities[0]))
        return Link(precision, cross, at_before, offset)
