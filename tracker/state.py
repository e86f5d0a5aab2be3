"""The unknowns of one face in one frame, and how a solver's step changes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.rotation_kernels import rotation_matrix
from flame.surface import NUM_JOINT_ANGLES

ROTATION = slice(0, 3)
TRANSLATION = slice(3, 6)
JOINTS = slice(6, 6 + NUM_JOINT_ANGLES)
NUM_RIGID = 6
FIRST_EXPRESSION = 6 + NUM_JOINT_ANGLES


@dataclass(frozen=True)
class FaceState:
    """Hold pose, joint angles and expression of one face in one frame.

    A step is a vector of 18 + E numbers: a rotation about the head's origin in camera axes (radians), a translation
    (metres), the joint angles of neck, jaw, left eye, right eye (axis-angle, radians) and the expression coefficients.
    """

    rotation: np.ndarray
    """Rotation of cam_from_head, float64 (3, 3)."""
    translation: np.ndarray
    """Translation of cam_from_head, float64 (3,), metres."""
    joint_angles: np.ndarray
    """Axis-angle of neck, jaw, left eye, right eye, float64 (12,), radians."""
    expression: np.ndarray
    """Expression coefficients, float64 (E,)."""

    @property
    def num_parameters(self) -> int:
        """Return the length of a step."""
        return FIRST_EXPRESSION + len(self.expression)

    @property
    def values(self) -> np.ndarray:
        """Return joint angles and expression in the order of a step's tail, float64 (12 + E,)."""
        return np.concatenate((self.joint_angles, self.expression))

    def step(self, delta: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> FaceState:
        """Return the state after a step (18 + E,); the tail is kept within bounds (12 + E,)."""
        tail = np.clip(self.values + delta[NUM_RIGID:], lower, upper)
        return FaceState(
            rotation=rotation_matrix(np.ascontiguousarray(delta[ROTATION])) @ self.rotation,
            translation=self.translation + delta[TRANSLATION],
            joint_angles=tail[:NUM_JOINT_ANGLES],
            expression=tail[NUM_JOINT_ANGLES:],
        )

    def points_cam(self, points_head: np.ndarray) -> np.ndarray:
        """Return points (N, 3) of head space in camera space, metres."""
        return points_head @ self.rotation.T + self.translation
