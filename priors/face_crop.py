"""The upright square of an image in which a network looks at a face, and what can be known from it alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from flame.camera import Intrinsics
from priors.landmark_topology import NUM_MESH_LANDMARKS

CROP_PX = 256
"""Side of the picture that networks of our own look at."""
MARGIN = 1.6
"""Side of the square over the larger extent of the landmarks: room for the skull, the ears and the neck."""
SHIFT_UP = 0.08
"""The landmarks end at the forehead: how far the square is moved up, over its side."""
_ROLL_FROM, _ROLL_TO = 33, 263
"""Landmarks at the outer corners of the right and the left eye."""


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """Name a square of an image that is upright for a face, and the side of the picture that it becomes."""

    image_from_crop: np.ndarray
    """Similarity from pixels of the picture to those of the image, float64 (2, 3)."""
    size_px: int = CROP_PX
    """Side of the picture."""

    @staticmethod
    def of(center_px: np.ndarray, side_px: float, roll_rad: float, size_px: int = CROP_PX) -> FaceCrop:
        """Return the square with this middle (2,) and side, pixels of the image, turned clockwise by ``roll_rad``."""
        scale = side_px / size_px
        turn = scale * np.array(((math.cos(roll_rad), -math.sin(roll_rad)), (math.sin(roll_rad), math.cos(roll_rad))))
        corner_px = np.asarray(center_px, np.float64) - turn @ np.full(2, size_px / 2)
        return FaceCrop(np.column_stack((turn, corner_px)), size_px)

    @staticmethod
    def around(landmarks_px: np.ndarray, size_px: int = CROP_PX) -> FaceCrop:
        """Return the square around a head with these landmarks (478 or 468, 2), pixels of the image."""
        points = np.asarray(landmarks_px, np.float64)[:NUM_MESH_LANDMARKS]
        across = points[_ROLL_TO] - points[_ROLL_FROM]
        roll_rad = math.atan2(across[1], across[0])
        to_upright = np.array(((math.cos(roll_rad), math.sin(roll_rad)), (-math.sin(roll_rad), math.cos(roll_rad))))
        upright = points @ to_upright.T
        low, high = upright.min(axis=0), upright.max(axis=0)
        side_px = MARGIN * max(float((high - low).max()), 1.0)
        center = (low + high) / 2 - (0.0, SHIFT_UP * side_px)
        return FaceCrop.of(to_upright.T @ center, side_px, roll_rad, size_px)

    @property
    def roll_rad(self) -> float:
        """Return by how much the square is turned clockwise in the image."""
        return math.atan2(self.image_from_crop[1, 0], self.image_from_crop[0, 0])

    @property
    def side_px(self) -> float:
        """Return the side of the square, pixels of the image."""
        return self.size_px * math.hypot(self.image_from_crop[0, 0], self.image_from_crop[1, 0])

    @property
    def crop_from_image(self) -> np.ndarray:
        """Return the similarity from pixels of the image to those of the picture, float64 (2, 3)."""
        return cv2.invertAffineTransform(self.image_from_crop)

    def cut(self, image: np.ndarray, *, is_extended: bool = False) -> np.ndarray:
        """Return the picture, uint8 (size, size, 3); black where the square leaves the image.

        Args:
            image: RGB, uint8 (height, width, 3).
            is_extended: repeat the image's border there instead.
        """
        # A square that shrinks is sampled several times per pixel, and the samples averaged.
        factor = min(8, max(1, math.ceil(self.side_px / self.size_px - 0.25)))
        fine = replace(self, image_from_crop=self.image_from_crop * (1 / factor, 1 / factor, 1), size_px=self.size_px)
        side = self.size_px * factor
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        border = cv2.BORDER_REPLICATE if is_extended else cv2.BORDER_CONSTANT
        crop = _between_centers(fine.image_from_crop)
        picture = cv2.warpAffine(image, crop, (side, side), flags=flags, borderMode=border)
        if factor == 1:
            return picture
        return cv2.resize(picture, (self.size_px, self.size_px), interpolation=cv2.INTER_AREA)

    def intrinsics(self, camera: Intrinsics) -> Intrinsics:
        """Return the picture's camera, whose axes are those of the image's camera turned by `crop_cam_from_cam`."""
        scale = self.size_px / self.side_px
        cx, cy = self.crop_from_image @ (camera.cx, camera.cy, 1.0)
        return Intrinsics(camera.fx * scale, camera.fy * scale, float(cx), float(cy), self.size_px, self.size_px)

    def crop_cam_from_cam(self) -> np.ndarray:
        """Return the rotation (3, 3) about the optical axis that the camera makes with the square."""
        cos, sin = math.cos(self.roll_rad), math.sin(self.roll_rad)
        return np.array(((cos, sin, 0.0), (-sin, cos, 0.0), (0.0, 0.0, 1.0)))


def ray_from_cam(intrinsics: Intrinsics, point_px: tuple[float, float] | None = None) -> np.ndarray:
    """Return the smallest rotation (3, 3) that takes a pixel's ray, by default the middle's, onto +z.

    A network that sees only a crop cannot know where in the whole image it lies. Directions relative to the ray through
    the crop's middle do not depend on that, but for perspective.
    """
    x_px, y_px = (intrinsics.width / 2, intrinsics.height / 2) if point_px is None else point_px
    ray = np.array(((x_px - intrinsics.cx) / intrinsics.fx, (y_px - intrinsics.cy) / intrinsics.fy, 1.0))
    x, y, z = ray / np.linalg.norm(ray)
    # Rodrigues' formula with the axis ray x z.
    return np.array(
        (
            (1 - x * x / (1 + z), -x * y / (1 + z), -x),
            (-x * y / (1 + z), 1 - y * y / (1 + z), -y),
            (x, y, z),
        )
    )


def _between_centers(a_from_b: np.ndarray) -> np.ndarray:
    """Return a similarity (2, 3) between pixel edges for a library that counts from the first pixel's centre."""
    shift = a_from_b[:, :2] @ np.full(2, 0.5) - 0.5
    return np.column_stack((a_from_b[:, :2], a_from_b[:, 2] + shift))
