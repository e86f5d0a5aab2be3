"""Whether landmarks lie on a real face: the landmark network's score, the shape, and in doubt a close look.

The weights for low scores are those of logistic regressions on 859 looks at real faces of 12 to 80 pixels (shrunk,
blurred, compressed) and 524 looks at what detectors wrongly offered: lettering, textures, objects, animals. Faces that
are well seen score between 16 and 36, other things below 12; but wrong readings of a face score up to 22, too: on its
side or upside down, or half of it read as a whole one. Those are told apart by weights from 671 right and 67 wrong
readings of faces that are cut by the image's border; tried on pictures that were left out, one right reading in 16 and
one wrong reading in 20 fall on the wrong side of 0.9, and 2 % and 16 % on the wrong side of 0.5.
"""

from __future__ import annotations

import math

import numpy as np

from priors.evidence import FaceRegion
from priors.face_detector import FaceDetector
from priors.face_landmarker import REGION_SCALE, FaceLandmarker, Landmarks, crop_region
from priors.face_search import FaceSearch

PRESENCE_THRESHOLD = 0.5
"""Presence from which a face is taken as really there."""
NEW_FACE_THRESHOLD = 0.9
"""Presence from which a face that was not known is believed."""

_SURE_LOGIT, _HOPELESS_LOGIT = 16.0, -6.0
_SURE_SLOPE, _SURE_MIDDLE = 0.9, 12.0
_CLEAR_LOGIT, _STEADY_PERCENT = 25.0, 0.3
"""A score from which, and an unrest up to which, landmarks are right: so were all 606 such of 3528 readings, in four
turns each, of 38 pictures rolled by multiples of 15 degrees. Wrong readings scored up to 28 and moved by 0.2 to 18
percent at a second look, but the seven that scored more than 25 by 1 percent and more."""
_SURROUNDING = 2.5
"""Side of the square shown to a detector over that of the landmark region."""
_SIZE_RANGE_PX, _MIDDLE_SIZE_PX = (12.0, 80.0), 40.0
# A face that was there in the frame before is likely to be there still: one and a half units of log-odds.
_QUICK = {"logit": 0.188, "short_range": 13.38, "residual_mm": -1.528, "log_size": -3.834, "constant": -0.5 + 1.5}
_THOROUGH = {
    "logit": 0.055,
    "short_range": 10.47,
    "full_range": 11.64,
    "residual_mm": -0.818,
    "unrest_percent": -1.615,
    "log_size": -6.241,
    "constant": -5.318,
}
_LIKENESS = {"residual_mm": -0.95, "short_range": 6.86, "full_range": 6.87, "constant": 1.43}
_CLEAR_LOGIT_BY_SIZE = ((16.0, 24.0, 32.0, 48.0), (5.0, 7.0, 14.0, 24.0))
"""Sizes in pixels and the landmark network's score of faces of that size that nothing covers.

From 32 pixels on the median; below, blur lowers the score as much as a cover does, and the least usual score is taken.
"""
_CLEAR_LOGIT_LOSS, _LOSS_YAW_RAD, _MOST_LOSS = 16.0, 0.81, 0.72
"""How much less it is for a face turned that far, growing with the cube of the turn.

The loss ends at that share of it, at 42 degrees: whatever reads more and scores less still is turned further than it
reads. Heads turned by 55 degrees score 12 to 22, by 75 degrees 4 to 14.
"""

_PROFILE_DEGREES, _PROFILE_SHARES = (49.5, 51.5, 58.0), (1.0, 0.5, 0.2)
"""Turns as the landmarks read them, and how much of the face they still describe; see `profile_share`."""

_LEAST_CLEAR_LOGIT = 4.0
_FLATNESS_RANGE = (0.5, 0.66)
"""Between what real faces have at most (0.42) and what line drawings have at least (0.69)."""


class PresenceJudge:
    """Turn what the networks say into the probability that a face is there."""

    def __init__(self, search: FaceSearch, landmarker: FaceLandmarker) -> None:
        """Take the networks for a close look."""
        self._search = search
        self._landmarker = landmarker

    def quick(self, image: np.ndarray, landmarks: Landmarks, residual_m: float) -> float:
        """Return the probability of a face where one was seen in the frame before.

        Args:
            image: the image in which the landmarks were found.
            landmarks: what the landmark network found.
            residual_m: how far the landmarks are from the shape of a face, see ``RoughPose``.
        """
        shaded = _shaded(landmarks)
        if landmarks.logit >= _SURE_LOGIT:
            return shaded * _sigmoid(_SURE_SLOPE * (landmarks.logit - _SURE_MIDDLE))
        if landmarks.logit <= _HOPELESS_LOGIT:
            return _sigmoid(landmarks.logit)
        features = self._features(landmarks, residual_m)
        features["short_range"] = detector_score(self._search.short_range, image, landmarks.region)
        return shaded * _weigh(_QUICK, features)

    def thorough(self, image: np.ndarray, landmarks: Landmarks, residual_m: float) -> float:
        """Return the probability of a face, read the right way, where none was known; arguments as in `quick`."""
        if landmarks.logit <= _HOPELESS_LOGIT:
            return self.quick(image, landmarks, residual_m)
        features = self._close_features(image, landmarks, residual_m)
        if landmarks.logit >= _SURE_LOGIT:
            return _shaded(landmarks) * _sigmoid(_weighted(_LIKENESS, features))
        features["unrest_percent"] = self._unrest_percent(image, landmarks)
        return _shaded(landmarks) * _weigh(_THOROUGH, features)

    def likeness(self, image: np.ndarray, landmarks: Landmarks, residual_m: float) -> float:
        """Return log-odds by which readings of one face compare, the higher the likelier; arguments as in `quick`."""
        return _weighted(_LIKENESS, self._close_features(image, landmarks, residual_m))

    def is_clear(self, image: np.ndarray, landmarks: Landmarks) -> bool:
        """Return whether there is no doubt that landmarks lie on a face the right way: sure, and the same again."""
        return landmarks.logit >= _CLEAR_LOGIT and self._unrest_percent(image, landmarks) <= _STEADY_PERCENT

    def believes(self, image: np.ndarray, landmarks: Landmarks, presence: float) -> bool:
        """Return whether a face that was not known is taken as one; what the landmark network is sure of needs less.

        It has to be sure twice. Of 95 doubtful readings of cut faces that it was sure of once, the only wrong one,
        upside down, scored 14 at the second look; that costs none of the right ones, whose presence is above the higher
        threshold wherever they score less than 16 then.
        """
        if presence >= NEW_FACE_THRESHOLD or presence < PRESENCE_THRESHOLD or landmarks.logit < _SURE_LOGIT:
            return presence >= NEW_FACE_THRESHOLD
        return self._landmarker(image, landmarks.region).logit >= _SURE_LOGIT

    def _unrest_percent(self, image: np.ndarray, landmarks: Landmarks) -> float:
        """Return how far landmarks move when they are looked for where they are, percent of the region's side."""
        again = self._landmarker(image, landmarks.region)
        unrest_px = np.sqrt(((again.points_px - landmarks.points_px) ** 2).sum(axis=1).mean())
        return 100 * float(unrest_px) / landmarks.region.size_px

    def _close_features(self, image: np.ndarray, landmarks: Landmarks, residual_m: float) -> dict[str, float]:
        features = self._features(landmarks, residual_m)
        features["short_range"] = detector_score(self._search.short_range, image, landmarks.region)
        features["full_range"] = detector_score(self._search.full_range, image, landmarks.region)
        return features

    @staticmethod
    def _features(landmarks: Landmarks, residual_m: float) -> dict[str, float]:
        size = min(max(landmarks.region.size_px / REGION_SCALE, _SIZE_RANGE_PX[0]), _SIZE_RANGE_PX[1])
        log_size = math.log(size / _MIDDLE_SIZE_PX)
        return {"logit": landmarks.logit, "residual_mm": 1000 * residual_m, "log_size": log_size, "constant": 1.0}


def visible_share(landmarks: Landmarks, yaw_rad: float) -> float:
    """Return roughly how much of the face is seen, 0 to 1: the landmark network's score over that of an open face.

    Measured with skin-coloured patches on real faces: nothing covered 0.7 to 1, mouth 0.9, lower half 0.7, palm 0.55,
    spread fingers 0.2, all 0. Faces of less than some 30 pixels say little about it.
    """
    sizes, logits = _CLEAR_LOGIT_BY_SIZE
    clear = float(np.interp(landmarks.region.size_px / REGION_SCALE, sizes, logits))
    clear -= _CLEAR_LOGIT_LOSS * min(_MOST_LOSS, abs(yaw_rad / _LOSS_YAW_RAD) ** 3)
    return min(1.0, max(0.0, landmarks.logit / max(clear, _LEAST_CLEAR_LOGIT)))


def profile_share(turn_rad: float) -> float:
    """Return roughly how much of a turned face its landmarks still describe, 0 to 1, by the turn that they suggest.

    ``turn_rad`` is the angle between where the face looks and the camera.

    Landmarks follow a head up to some 55 degrees. From there on they say less and less of the turn: on rendered heads
    turned by 60, 65, 70 and 80 degrees they read 54, 57, 58 and 58, and a head fitted to them is turned 4, 8, 12 and 20
    degrees too little. The share falls below one half at a reading that 19 of 20 heads turned by 65 degrees exceed.
    """
    return float(np.interp(abs(math.degrees(turn_rad)), _PROFILE_DEGREES, _PROFILE_SHARES))


def _shaded(landmarks: Landmarks) -> float:
    """Return 1 for pictures with shades, 0 for line drawings, of which the networks are as sure as of faces."""
    low, high = _FLATNESS_RANGE
    return min(1.0, max(0.0, (high - landmarks.flatness) / (high - low)))


def detector_score(detector: FaceDetector, image: np.ndarray, region: FaceRegion) -> float:
    """Return a detector's score, 0 to 1, for a face of this size at this place, seen with its surroundings."""
    surrounding = FaceRegion(region.center_px, region.size_px * _SURROUNDING, region.roll_rad)
    crop, _ = crop_region(image, surrounding, detector.size_px)
    expected = detector.size_px / _SURROUNDING
    found = detector(crop, min_score=0.01)
    return max((d.score for d in found if _is_near(d.region, detector.size_px / 2, expected)), default=0.0)


def _is_near(region: FaceRegion, middle: float, expected_size: float) -> bool:
    offset = math.hypot(region.center_px[0] - middle, region.center_px[1] - middle)
    return offset < 0.35 * expected_size and 0.5 < region.size_px / expected_size < 2.0


def _weigh(weights: dict[str, float], features: dict[str, float]) -> float:
    return _sigmoid(_weighted(weights, features))


def _weighted(weights: dict[str, float], features: dict[str, float]) -> float:
    return sum(weight * features[name] for name, weight in weights.items())


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, value))))
