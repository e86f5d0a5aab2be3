"""Find 478 landmarks in a known place of an image with MediaPipe's attention network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from priors.evidence import FaceRegion
from priors.landmark_topology import NUM_LANDMARKS, NUM_MESH_LANDMARKS, attention_network_outputs
from priors.tensor_graph import TensorGraph

MODEL = "face_landmark/face_landmark_with_attention.tflite"
INPUT_PX = 192
REGION_SCALE = 1.5
"""Side of the square that is looked at, over the longer side of the landmarks' bounding box."""
_ROLL_FROM, _ROLL_TO = 33, 263


@dataclass(frozen=True)
class Landmarks:
    """Hold what the network says about one region."""

    points_px: np.ndarray
    """Landmarks in the image, float64 (478, 2)."""
    depth_px: np.ndarray
    """Relative depth, float64 (478,), in pixels of the image, negative towards the camera."""
    logit: float
    """The network's own score that the region shows a face: log-odds, some 20 for a clear one."""
    region: FaceRegion
    """Where the face is according to the landmarks."""
    flatness: float
    """Share of the pixels in the middle of the region that have nearly the commonest brightness, 0 to 1."""


class FaceLandmarker:
    """Look for one face in one region at a time."""

    def __init__(self) -> None:
        """Load the network.

        Raises:
            AssetMissingError: when the installed MediaPipe wheel does not carry the network.
        """
        self._outputs = attention_network_outputs()
        self._graph = TensorGraph(MODEL, INPUT_PX, len(self._outputs) + 1, (0.0, 1.0))

    def __call__(self, image: np.ndarray, region: FaceRegion) -> Landmarks:
        """Return the landmarks of the face in a region of an RGB image, uint8 (height, width, 3)."""
        crop, image_from_crop = crop_region(image, region, INPUT_PX)
        numbers = self._graph(crop).astype(np.float64)
        points = self._assemble(numbers[:-1])
        scale = region.size_px / INPUT_PX
        points_px = points[:, :2] @ image_from_crop[:, :2].T + image_from_crop[:, 2]
        return Landmarks(
            points_px, points[:, 2] * scale, float(numbers[-1]), region_of_landmarks(points_px), _flatness(crop)
        )

    def _assemble(self, numbers: np.ndarray) -> np.ndarray:
        """Merge the network's coarse mesh and its refined lips, eyes and irises into (478, 3) crop pixels."""
        points = np.empty((NUM_LANDMARKS, 3))
        start = 0
        for output in self._outputs:
            end = start + len(output.indices) * output.values_per_point
            points[output.indices, : output.values_per_point] = numbers[start:end].reshape(-1, output.values_per_point)
            start = end
        for output in self._outputs:
            if output.depth_from is not None:
                points[output.indices, 2] = points[output.depth_from, 2].mean()
        return points


def region_of_landmarks(points_px: np.ndarray) -> FaceRegion:
    """Return the region to look at, from the landmarks of a face, (N >= 468, 2)."""
    across = points_px[_ROLL_TO] - points_px[_ROLL_FROM]
    roll = math.atan2(across[1], across[0])
    cosine, sine = math.cos(roll), math.sin(roll)
    image_from_upright = np.array([[cosine, -sine], [sine, cosine]])
    upright = points_px[:NUM_MESH_LANDMARKS] @ image_from_upright
    low, high = upright.min(axis=0), upright.max(axis=0)
    center = image_from_upright @ ((low + high) / 2)
    return FaceRegion((float(center[0]), float(center[1])), float(REGION_SCALE * (high - low).max()), roll)


def crop_region(image: np.ndarray, region: FaceRegion, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a turned square out of an image and scale it to ``size_px``.

    Returns:
        The crop, uint8 (size_px, size_px, 3), and the affine map ``image_from_crop``, float64 (2, 3), in pixels.
    """
    scale = region.size_px / size_px
    cosine, sine = scale * math.cos(region.roll_rad), scale * math.sin(region.roll_rad)
    half = size_px / 2
    image_from_crop = np.array(
        [
            [cosine, -sine, region.center_px[0] - (cosine - sine) * half],
            [sine, cosine, region.center_px[1] - (sine + cosine) * half],
        ]
    )
    # OpenCV puts pixel centres at whole numbers.
    index_map = image_from_crop.copy()
    index_map[:, 2] += image_from_crop[:, :2].sum(axis=1) * 0.5 - 0.5
    crop = cv2.warpAffine(
        image,
        index_map,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return crop, image_from_crop


def _flatness(crop: np.ndarray) -> float:
    """Return how uniform the middle of a crop is: photographs 0.1 to 0.4, line drawings 0.7 to 1."""
    quarter = len(crop) // 4
    middle = crop[quarter:-quarter:2, quarter:-quarter:2, 1]
    return float(np.bincount((middle >> 3).ravel(), minlength=32).max() / middle.size)
