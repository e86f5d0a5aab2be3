"""Bring the maps of a network from its crop to where they are wanted."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from flame.camera import Intrinsics
from priors.evidence import DenseMaps
from priors.face_crop import ray_from_cam

_MAX_UV_STEP = 0.05
"""Texture coordinates that differ more between neighbouring pixels lie on two sides of a seam and are not blended."""


def place_maps(maps: DenseMaps, image_from_map: np.ndarray, height: int, width: int) -> DenseMaps:
    """Resample maps into an image, turning normals of the camera or the ray with it.

    Args:
        maps: Maps of a crop.
        image_from_map: Similarity from pixels of the maps to those of the image, float64 (2, 3).
        height: Height of the image.
        width: Width of the image.
    """
    rows, columns = np.indices((height, width), dtype=np.float32) + np.float32(0.5)
    map_from_image = cv2.invertAffineTransform(np.asarray(image_from_map, np.float64)).astype(np.float32)
    x = map_from_image[0, 0] * columns + map_from_image[0, 1] * rows + map_from_image[0, 2] - np.float32(0.5)
    y = map_from_image[1, 0] * columns + map_from_image[1, 1] * rows + map_from_image[1, 2] - np.float32(0.5)
    mask = cv2.remap(maps.mask.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.5
    normals = _resample(maps.normals, x, y)
    if maps.normal_space != "head":
        roll_rad = math.atan2(image_from_map[1, 0], image_from_map[0, 0])
        cos, sin = np.float32(math.cos(roll_rad)), np.float32(math.sin(roll_rad))
        normals = normals @ np.array(((cos, sin, 0), (-sin, cos, 0), (0, 0, 1)), np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    uv, lowest, highest = _resample(maps.uv, x, y), *_range(maps.uv, x, y)
    nearest = cv2.remap(maps.uv, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=(np.nan,) * 4)
    with np.errstate(invalid="ignore"):
        uv = np.where((highest - lowest > _MAX_UV_STEP).any(axis=-1, keepdims=True), nearest, uv)
    normals[~mask], uv[~mask] = np.nan, np.nan
    axis_px = None
    if maps.axis_px is not None:
        axis = np.asarray(image_from_map) @ (*maps.axis_px, 1.0)
        axis_px = (float(axis[0]), float(axis[1]))
    trusts = [_resample_trust(trust, x, y) for trust in (maps.uv_trust, maps.normal_trust)]
    return DenseMaps(uv, normals, mask, maps.normal_space, axis_px, *trusts)


def with_camera_normals(maps: DenseMaps, intrinsics: Intrinsics) -> DenseMaps:
    """Return maps whose normals, if relative to a ray, are turned to the axes of the maps' camera."""
    if maps.normal_space != "ray":
        return maps
    turn = ray_from_cam(intrinsics, maps.axis_px).astype(np.float32)
    return replace(maps, normals=maps.normals @ turn, normal_space="camera", axis_px=None)


def _resample(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return values (H, W, C) at places (h, w), counted from the first pixel's centre, blended among those known."""
    is_known = np.isfinite(values).all(axis=-1)
    filled = np.where(is_known[..., None], values, 0).astype(np.float32)
    share = cv2.remap(is_known.astype(np.float32), x, y, cv2.INTER_LINEAR)
    total = cv2.remap(filled, x, y, cv2.INTER_LINEAR)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((share > 0)[..., None], total / share[..., None], np.float32(np.nan))


def _resample_trust(trust: np.ndarray | None, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Return trust (H, W) at places (h, w), if there is any."""
    return None if trust is None else cv2.remap(trust, x, y, cv2.INTER_LINEAR)


def _range(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest value (h, w, C) of the pixels that are blended at places (h, w)."""
    is_known = np.isfinite(values).all(axis=-1, keepdims=True)
    ones = np.ones((2, 2), np.uint8)
    # The window of two by two reaches right and down from its anchor, as blending does.
    low = cv2.erode(np.where(is_known, values, 9).astype(np.float32), ones, anchor=(0, 0))
    high = cv2.dilate(np.where(is_known, values, -9).astype(np.float32), ones, anchor=(0, 0))
    return tuple(_at_floor(each, x, y) for each in (low, high))  # pyright: ignore[reportReturnType]


def _at_floor(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the values (h, w, C) of the pixels up and to the left of places (h, w)."""
    columns = np.clip(np.floor(x).astype(np.int32), 0, values.shape[1] - 1)
    rows = np.clip(np.floor(y).astype(np.int32), 0, values.shape[0] - 1)
    return values[rows, columns]
