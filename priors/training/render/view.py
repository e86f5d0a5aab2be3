"""Where a camera stands, how a head is turned, and the crop that a network will see of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flame.camera import Intrinsics, project
from priors.face_crop import FaceCrop, ray_from_cam

_HEAD_METRES = 0.30
"""What a crop shows of the world, about, metres."""
_NEAREST, _FARTHEST = 0.35, 3.0
"""Range of the distance between camera and head, metres."""
_SENSOR_PX = 1000.0
_CAM_FROM_HEAD_AXES = np.diag((1.0, -1.0, -1.0))
_MOST_ROLL_RAD = math.radians(12)


@dataclass(frozen=True, eq=False)
class View:
    """Hold a head's pose in the camera of a crop."""

    rotation: np.ndarray
    """Rotation of cam_from_head, float64 (3, 3)."""
    translation: np.ndarray
    """Translation of cam_from_head, float64 (3,), metres."""
    intrinsics: Intrinsics
    """The crop's camera; its principal point is mostly outside the crop's middle."""
    turn_degrees: tuple[float, float, float]
    """Yaw (positive: to its left), pitch (positive: down) and roll against the ray through the crop's middle."""


def random_turn(rng: np.random.Generator) -> np.ndarray:
    """Return yaw, pitch and roll of a head, float64 (3,), radians: mostly near the front, some in profile."""
    yaw = rng.normal(0, 22) if rng.random() < 0.7 else rng.uniform(-80, 80)
    pitch = rng.normal(3, 11)
    turn = np.array((np.clip(yaw, -85, 85), np.clip(pitch, -35, 35), rng.normal(0, 8)))
    return np.radians(turn)


def place_head(landmarks: np.ndarray, rng: np.random.Generator, size_px: int) -> View:
    """Put a head with landmarks (478, 3), head space, before a random camera, and cut the crop around it.

    The crop is the one that `FaceCrop.around` cuts from the whole photograph, jittered as detectors jitter.
    """
    turn = random_turn(rng)
    distance = math.exp(rng.uniform(math.log(_NEAREST), math.log(_FARTHEST)))
    # The face lies anywhere in the photograph: up to about a crop's side from its middle.
    off_axis = rng.uniform(-1, 1, 2) * rng.random() * _HEAD_METRES / distance
    center = landmarks.mean(axis=0)
    camera = Intrinsics(_SENSOR_PX, _SENSOR_PX, 0.0, 0.0, 1, 1)
    towards = ray_from_cam(Intrinsics(1.0, 1.0, 0.0, 0.0, 0, 0), (float(off_axis[0]), float(off_axis[1])))
    rotation = towards.T @ _CAM_FROM_HEAD_AXES @ _rotation(turn)
    translation = distance * np.array((*off_axis, 1.0)) - rotation @ center
    crop = _jittered(FaceCrop.around(project(landmarks @ rotation.T + translation, camera), size_px), rng)
    upright = crop.crop_cam_from_cam()
    intrinsics = crop.intrinsics(camera)
    rotation, translation = upright @ rotation, upright @ translation
    seen = _CAM_FROM_HEAD_AXES @ ray_from_cam(intrinsics) @ rotation
    yaw = math.atan2(seen[0, 2], seen[2, 2])
    pitch, roll = math.asin(np.clip(-seen[1, 2], -1, 1)), math.atan2(seen[1, 0], seen[1, 1])
    return View(rotation, translation, intrinsics, (math.degrees(yaw), math.degrees(pitch), math.degrees(roll)))


def _rotation(turn: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) of a yaw, pitch and roll in head axes."""
    (cos_y, cos_x, cos_z), (sin_y, sin_x, sin_z) = np.cos(turn), np.sin(turn)
    yaw = ((cos_y, 0, sin_y), (0, 1, 0), (-sin_y, 0, cos_y))
    pitch = ((1, 0, 0), (0, cos_x, -sin_x), (0, sin_x, cos_x))
    roll = np.array(((cos_z, -sin_z, 0), (sin_z, cos_z, 0), (0, 0, 1)))
    return roll @ yaw @ pitch


def _jittered(crop: FaceCrop, rng: np.random.Generator) -> FaceCrop:
    """Return the square moved, resized and turned a little."""
    middle = crop.image_from_crop @ (crop.size_px / 2, crop.size_px / 2, 1.0)
    side = crop.side_px * math.exp(rng.uniform(-0.12, 0.12))
    middle = middle + rng.uniform(-0.06, 0.06, 2) * side
    roll = crop.roll_rad + float(np.clip(rng.normal(0, math.radians(4)), -_MOST_ROLL_RAD, _MOST_ROLL_RAD))
    return FaceCrop.of(middle, side, roll, crop.size_px)
