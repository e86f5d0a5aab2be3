"""Pinhole camera, and the one place where the project's conventions are written.

- Lengths are metres, angles radians (degrees only in names that say ``_degrees``), times ``pts_seconds`` from the
  container.
- Head space is FLAME's: +x the subject's left, +y up, +z out of the face.
- Camera space is OpenCV's: +x right, +y down, +z forward.
- Pixels: the image's top-left corner is (0, 0), the first pixel's centre is (0.5, 0.5); the centre of a ``width`` x
  ``height`` image is (width / 2, height / 2).
- Transforms are named ``a_from_b`` and applied as ``points_a = points_b @ a_from_b[:3, :3].T + a_from_b[:3, 3]``.
- Texture coordinates have their origin at the bottom left, as in OBJ files.
- Images are RGB, uint8 outside networks, float32 in [0, 1] inside.
- Rotations are axis-angle vectors or 3 x 3 matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

OPENGL_AXES = (1.0, -1.0, -1.0)
"""What turns camera space into that of OpenGL, glTF and USD (+x right, +y up, looking along -z), and back: the factors
of the three axes."""

Array = TypeVar("Array", "np.ndarray", "torch.Tensor")


@dataclass(frozen=True)
class Intrinsics:
    """Describe a pinhole camera without distortion, in pixels of a ``width`` x ``height`` image."""

    fx: float
    """Focal length in units of pixel width."""
    fy: float
    """Focal length in units of pixel height."""
    cx: float
    """Principal point from the left border, pixels."""
    cy: float
    """Principal point from the top border, pixels."""
    width: int
    """Image width, pixels."""
    height: int
    """Image height, pixels."""

    @staticmethod
    def from_fov(fov_degrees: float, width: int, height: int) -> Intrinsics:
        """Build centred intrinsics with square pixels from the field of view along the longer side, in degrees."""
        focal_px = 0.5 * max(width, height) / math.tan(math.radians(fov_degrees) / 2)
        return Intrinsics(focal_px, focal_px, width / 2, height / 2, width, height)

    def with_pixel_aspect(self, aspect: float) -> Intrinsics:
        """Return the intrinsics for pixels ``aspect`` times as wide as high; the height keeps its focal length."""
        return replace(self, fx=self.fy / aspect)

    @property
    def fov_degrees(self) -> float:
        """Return the field of view along the longer image side, in degrees."""
        focal_px = self.fx if self.width >= self.height else self.fy
        return math.degrees(2 * math.atan(0.5 * max(self.width, self.height) / focal_px))

    @property
    def matrix(self) -> np.ndarray:
        """Return K, float64 (3, 3), so that ``points_px ~ K @ points_cam``."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def crop(self, left: float, top: float, width: int, height: int) -> Intrinsics:
        """Return the intrinsics of the sub-image whose top-left corner is at (left, top) pixels."""
        return replace(self, cx=self.cx - left, cy=self.cy - top, width=width, height=height)

    def zoom(self, factor: float) -> Intrinsics:
        """Return the intrinsics with both focal lengths multiplied by ``factor``."""
        return replace(self, fx=self.fx * factor, fy=self.fy * factor)

    def scale(self, factor: float) -> Intrinsics:
        """Return the intrinsics of the image resized by ``factor`` (corner rule: centres move with the corners)."""
        return Intrinsics(
            self.fx * factor,
            self.fy * factor,
            self.cx * factor,
            self.cy * factor,
            round(self.width * factor),
            round(self.height * factor),
        )


def project(points_cam: Array, intrinsics: Intrinsics) -> Array:
    """Project camera-space points (..., 3), metres, to pixels (..., 2).

    Depth must be positive; callers drop points behind the camera first. Nothing is clamped.
    """
    depth = points_cam[..., 2]
    x_px = intrinsics.fx * points_cam[..., 0] / depth + intrinsics.cx
    y_px = intrinsics.fy * points_cam[..., 1] / depth + intrinsics.cy
    if isinstance(points_cam, np.ndarray):
        return np.stack((x_px, y_px), axis=-1)
    # Only who holds a tensor has imported torch, which takes seconds.
    import torch

    return torch.stack((x_px, y_px), dim=-1)


def transform(a_from_b: Array, points_b: Array) -> Array:
    """Apply rigid transforms (..., 3 or 4, 4) to points (..., N, 3)."""
    rotation, translation = a_from_b[..., :3, :3], a_from_b[..., :3, 3]
    if isinstance(points_b, np.ndarray):
        return points_b @ np.swapaxes(rotation, -1, -2) + translation[..., None, :]
    return points_b @ rotation.transpose(-1, -2) + translation[..., None, :]
