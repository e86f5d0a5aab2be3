"""The unknowns of one face in one frame, and how a solver's step changes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.camera import Intrinsics
from flame.rotation_kernels import rotation_matrix
from flame.surface import NUM_JOINT_ANGLES

ROTATION = slice(0, 3)
TRANSLATION = slice(3, 6)
NUM_RIGID = 6
FIRST_EXPRESSION = 6 + NUM_JOINT_ANGLES


@dataclass(frozen=True)
class View:
    """Describe the camera of a frame as the solver needs it."""

    focal_px: np.ndarray
    """Focal lengths in units of pixel width and pixel height, float64 (2,)."""
    center_px: np.ndarray
    """Principal point, float64 (2,), pixels."""

    @staticmethod
    def of(intrinsics: Intrinsics) -> View:
        """Return the view of a camera."""
        return View(np.array([intrinsics.fx, intrinsics.fy]), np.array([intrinsics.cx, intrinsics.cy]))

    def intrinsics(self, width: int, height: int) -> Intrinsics:
        """Return the camera of an image of this size, pixels."""
        (fx, fy), (cx, cy) = self.focal_px.tolist(), self.center_px.tolist()
        return Intrinsics(fx, fy, cx, cy, width, height)

    @property
    def matrix(self) -> np.ndarray:
        """Return the camera matrix, float64 (3, 3)."""
        (fx, fy), (cx, cy) = self.focal_px, self.center_px
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    def zoomed(self, log_factor: float) -> View:
        """Return the view with its focal lengths multiplied by exp(log_factor)."""
        return View(self.focal_px * np.exp(log_factor), self.center_px)

    def shifted(self, shift_px: tuple[float, float]) -> View:
        """Return the view with its principal point moved."""
        return View(self.focal_px, self.center_px + np.asarray(shift_px))

    def project(self, points_cam: np.ndarray) -> np.ndarray:
        """Project camera-space points (N, 3), metres, to pixels (N, 2); see ``flame.camera.project``."""
        return self.focal_px * points_cam[:, :2] / points_cam[:, 2:] + self.center_px


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
