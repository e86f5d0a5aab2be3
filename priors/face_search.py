"""Where to look for faces in a whole image, from the likely and cheap to the unlikely and dear."""

from __future__ import annotations

import math
import threading

import cv2
import numpy as np

from priors.evidence import FaceRegion
from priors.face_detector import FULL_RANGE, SHORT_RANGE, Detection, FaceDetector, distinct

_MIN_SCORE = 0.3
"""Least detector score of a candidate; the landmark network and a close look decide."""
_TURNS_RAD = (math.pi / 2, -math.pi / 2, math.pi)
"""The detectors themselves find heads rolled by up to about 50 degrees."""
_PART_SHARE = 0.6
_PARTS_ALONG, _PARTS_ACROSS = 3, 2
_BORDER_SHARE = 0.4
"""Black border, share of the shorter side, with which faces are searched that are larger than the image."""


class FaceSearch:
    """Offer candidates for faces."""

    def __init__(self) -> None:
        """Load the detectors.

        Raises:
            AssetMissingError: the installed MediaPipe wheel does not carry the networks.
        """
        self.short_range = FaceDetector(SHORT_RANGE)
        self.full_range = FaceDetector(FULL_RANGE)
        # Every thread goes round the parts on its own, so that what one sees does not depend on what others do.
        self._round = threading.local()

    def whole(self, image: np.ndarray) -> list[FaceRegion]:
        """Return candidates, best first, in the whole image, uint8 (height, width, 3)."""
        return self._detect(image)

    def turned(self, image: np.ndarray) -> list[FaceRegion]:
        """Return candidates in the image turned on its sides and head."""
        return [region for roll_rad in _TURNS_RAD for region in self._detect(image, roll_rad=roll_rad)]

    def larger(self, image: np.ndarray) -> list[FaceRegion]:
        """Return candidates that reach beyond the image, which the detectors miss without a border around it."""
        border = round(_BORDER_SHARE * min(image.shape[:2]))
        framed = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        found = self.short_range(framed, min_score=_MIN_SCORE) + self.full_range(framed, min_score=_MIN_SCORE)
        return [_moved(detection, -border, -border).region for detection in distinct(found)]

    def all_parts(self, image: np.ndarray) -> list[FaceRegion]:
        """Return candidates in enlarged overlapping parts, so that faces too small for the whole image are seen."""
        found = [detection for corner in self._corners(image) for detection in self._detect_in_part(image, *corner)]
        return [detection.region for detection in distinct(found)]

    def next_part(self, image: np.ndarray) -> list[FaceRegion]:
        """Return candidates in one enlarged part of the image, the next one at each call."""
        corners = self._corners(image)
        self._round.part = (getattr(self._round, "part", -1) + 1) % len(corners)
        return [detection.region for detection in distinct(self._detect_in_part(image, *corners[self._round.part]))]

    def _detect(self, image: np.ndarray, *, roll_rad: float = 0.0) -> list[FaceRegion]:
        found = self.short_range(image, roll_rad=roll_rad, min_score=_MIN_SCORE)
        found += self.full_range(image, roll_rad=roll_rad, min_score=_MIN_SCORE)
        return [detection.region for detection in distinct(found)]

    @staticmethod
    def _corners(image: np.ndarray) -> list[tuple[int, int]]:
        """Return the top left corners, as (top, left), of the overlapping squares that are searched enlarged."""
        height, width = image.shape[:2]
        side = _part_side(image)
        rows, columns = (_PARTS_ACROSS, _PARTS_ALONG) if width >= height else (_PARTS_ALONG, _PARTS_ACROSS)
        tops = np.linspace(0, height - side, rows).astype(int).tolist()
        lefts = np.linspace(0, width - side, columns).astype(int).tolist()
        return [(top, left) for top in tops for left in lefts]

    def _detect_in_part(self, image: np.ndarray, top: int, left: int) -> list[Detection]:
        side = _part_side(image)
        part = image[top : top + side, left : left + side]
        return [_moved(detection, left, top) for detection in self.full_range(part, min_score=_MIN_SCORE)]


def _part_side(image: np.ndarray) -> int:
    return max(1, round(_PART_SHARE * min(image.shape[:2])))


def _moved(detection: Detection, left: float, top: float) -> Detection:
    region = detection.region
    center = (region.center_px[0] + left, region.center_px[1] + top)
    return Detection(FaceRegion(center, region.size_px, region.roll_rad), detection.score)
