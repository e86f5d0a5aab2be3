"""Find faces anywhere in an image with MediaPipe's short-range and full-range detectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from priors.evidence import FaceRegion
from priors.face_landmarker import REGION_SCALE
from priors.tensor_graph import TensorGraph

NUM_KEYPOINTS = 6
_VALUES_PER_BOX = 4 + 2 * NUM_KEYPOINTS
MIN_SCORE = 0.5
MAX_OVERLAP = 0.3
"""Intersection over union from which two detections are taken for the same face."""


@dataclass(frozen=True)
class Detection:
    """Place a face that a detector has found."""

    region: FaceRegion
    """The region in which landmarks are to be looked for."""
    score: float
    """The detector's probability."""


@dataclass(frozen=True)
class DetectorLayout:
    """Describe a detector network: its file, input and anchors."""

    model: str
    size_px: int
    anchor_layers: tuple[tuple[int, int], ...]
    """Per layer: cells along one side of the image, anchors in each cell."""

    def anchors(self) -> np.ndarray:
        """Return the anchors' centres in units of the input's side, float64 (anchors, 2)."""
        layers = []
        for cells, repeats in self.anchor_layers:
            centers = (np.arange(cells) + 0.5) / cells
            grid = np.stack(np.meshgrid(centers, centers), axis=-1).reshape(-1, 2)
            layers.append(np.repeat(grid, repeats, axis=0))
        return np.concatenate(layers)


SHORT_RANGE = DetectorLayout("face_detection/face_detection_short_range.tflite", 128, ((16, 2), (8, 6)))
FULL_RANGE = DetectorLayout("face_detection/face_detection_full_range_sparse.tflite", 192, ((48, 1),))


class FaceDetector:
    """Look for faces with one of the detector networks."""

    def __init__(self, layout: DetectorLayout) -> None:
        """Load the network.

        Raises:
            AssetMissingError: when the installed MediaPipe wheel does not carry the network.
        """
        self._graph = TensorGraph(layout.model, layout.size_px, 2, (-1.0, 1.0))
        self._anchors = layout.anchors()
        self.size_px = layout.size_px

    def __call__(self, image: np.ndarray, *, roll_rad: float = 0.0, min_score: float = MIN_SCORE) -> list[Detection]:
        """Find faces in an RGB image, uint8 (height, width, 3), best first.

        Args:
            image: the image, or the part of it to search.
            roll_rad: turn the image by this angle first, so that a face rolled clockwise by it stands upright.
            min_score: the least probability that is reported.
        """
        canvas, image_from_canvas = _fit_square(image, self.size_px, roll_rad)
        numbers = self._graph(canvas).astype(np.float64)
        boxes, scores = _split(numbers, len(self._anchors))
        kept = np.flatnonzero(scores >= min_score)
        decoded = boxes[kept] / self.size_px
        decoded[:, 0:2] += self._anchors[kept]
        decoded[:, 4:] += np.tile(self._anchors[kept], NUM_KEYPOINTS)
        merged = _suppress(decoded, scores[kept])
        return [Detection(_region(box * self.size_px, image_from_canvas), score) for box, score in merged]


def _split(numbers: np.ndarray, num_anchors: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the network's output into boxes (anchors, 16) and probabilities (anchors,)."""
    boxes = numbers[: num_anchors * _VALUES_PER_BOX].reshape(num_anchors, _VALUES_PER_BOX)
    logits = np.clip(numbers[num_anchors * _VALUES_PER_BOX :], -50.0, 50.0)
    return boxes, 1.0 / (1.0 + np.exp(-logits))


def _fit_square(image: np.ndarray, size_px: int, roll_rad: float) -> tuple[np.ndarray, np.ndarray]:
    """Scale (and turn) a whole image into a black square; return it and ``image_from_canvas``, float64 (2, 3)."""
    height, width = image.shape[:2]
    cosine, sine = math.cos(roll_rad), math.sin(roll_rad)
    turned_width = width * abs(cosine) + height * abs(sine)
    turned_height = width * abs(sine) + height * abs(cosine)
    scale = max(turned_width, turned_height) / size_px
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    reduction = max(1, int(scale))
    # Bilinear sampling alone would skip pixels of large images and lose small faces.
    small = image if reduction == 1 else _reduce(image, reduction)
    reduced_x, reduced_y = width / small.shape[1], height / small.shape[0]
    image_from_canvas = np.empty((2, 3))
    image_from_canvas[:, :2] = scale * rotation
    image_from_canvas[:, 2] = np.array([width, height]) / 2 - scale * size_px / 2 * rotation.sum(axis=1)
    small_from_canvas = image_from_canvas / np.array([[reduced_x], [reduced_y]])
    small_from_canvas[:, 2] += small_from_canvas[:, :2].sum(axis=1) * 0.5 - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    canvas = cv2.warpAffine(small, small_from_canvas, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return canvas, image_from_canvas


def _reduce(image: np.ndarray, factor: int) -> np.ndarray:
    """Shrink an image by averaging."""
    height, width = image.shape[:2]
    size = (max(1, width // factor), max(1, height // factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _suppress(boxes: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Merge overlapping boxes by their score-weighted mean, best first (MediaPipe's weighted suppression)."""
    order = np.argsort(-scores, kind="stable")
    merged = []
    while len(order):
        overlap = _overlaps(boxes[order[0]], boxes[order])
        overlap[0] = 1.0
        same = order[overlap > MAX_OVERLAP]
        weights = scores[same] / scores[same].sum()
        merged.append((weights @ boxes[same], float(scores[order[0]])))
        order = order[overlap <= MAX_OVERLAP]
    return merged


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return intersection over union of a box (centre x, y, width, height, …) with others (n, …)."""
    low = np.maximum(box[:2] - box[2:4] / 2, others[:, :2] - others[:, 2:4] / 2)
    high = np.minimum(box[:2] + box[2:4] / 2, others[:, :2] + others[:, 2:4] / 2)
    shared = np.prod(np.maximum(high - low, 0.0), axis=1)
    union = np.prod(box[2:4]) + np.prod(others[:, 2:4], axis=1) - shared
    return shared / np.maximum(union, 1e-12)


def _region(box: np.ndarray, image_from_canvas: np.ndarray) -> FaceRegion:
    """Turn a box with keypoints, in canvas pixels, into the region in which landmarks are looked for."""
    linear, offset = image_from_canvas[:, :2], image_from_canvas[:, 2]
    center = linear @ box[:2] + offset
    right_eye, left_eye = box[4:6], box[6:8]
    across = linear @ (left_eye - right_eye)
    size = REGION_SCALE * max(box[2], box[3]) * math.sqrt(abs(np.linalg.det(linear)))
    return FaceRegion((float(center[0]), float(center[1])), float(size), math.atan2(across[1], across[0]))


def region_overlap(first: FaceRegion, second: FaceRegion) -> float:
    """Return intersection over union of two regions, taken as upright squares."""
    box = np.array([*first.center_px, first.size_px, first.size_px])
    other = np.array([[*second.center_px, second.size_px, second.size_px]])
    return float(_overlaps(box, other)[0])


def distinct(detections: Sequence[Detection], known: Sequence[FaceRegion] = ()) -> list[Detection]:
    """Keep the best of detections that overlap each other, and none that overlaps a known region."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda d: -d.score):
        taken = [*known, *(other.region for other in kept)]
        if all(region_overlap(detection.region, region) <= MAX_OVERLAP for region in taken):
            kept.append(detection)
    return kept
