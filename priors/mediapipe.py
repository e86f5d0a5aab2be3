"""The default prior: MediaPipe's face landmarks with irises as correspondences on the surface of any head model.

The networks ship inside the MediaPipe wheel; nothing is downloaded. Faces are detected once and then looked for where
they were, one network run per face and frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from flame.model import HeadModel
from flame.rasterizer import Backend
from priors.calibration import landmark_errors
from priors.dense import DenseRasterizer
from priors.evidence import DenseMaps, EyePoints, FaceEvidence, FaceRegion
from priors.face_detector import MAX_OVERLAP, region_overlap
from priors.face_landmarker import INPUT_PX, REGION_SCALE, FaceLandmarker, Landmarks
from priors.face_search import FaceSearch
from priors.identity_anchor import load_anchor
from priors.landmark_embedding import load_embedding
from priors.landmark_topology import LEFT_IRIS, RIGHT_IRIS, landmark_topology
from priors.outline import outline_normals
from priors.presence import PRESENCE_THRESHOLD, PresenceJudge, profile_share, visible_share
from priors.prior_surface import ANY_HEAD
from priors.rough_pose import PoseEstimator, RoughPose

__all__ = ["PRESENCE_THRESHOLD", "MediaPipePrior"]

_MIN_PRESENCE = 0.02
_MAX_LOOKS, _SETTLED = 6, 0.3
_CERTAIN = 0.999
_SECOND_LOOK_SHIFT = 0.12
"""A region that moves by more of its size between frames is looked at again, centred."""
_SECOND_LOOK_SIZE = 1.2
_SECOND_LOOK_ROLL_RAD = 0.2
_JITTER_CROP_PX = 0.35
_JITTER_IMAGE_PX = 0.4
"""Noise of the landmarks beside the measured bias: in pixels of the network's input, and of the image."""
_TURNS_RAD = (math.pi / 2, math.pi, -math.pi / 2)
"""How else a new face is looked at when it is in doubt."""
_HOPELESS_LOGIT = -2.0
"""Landmark score below which a candidate is no face, however it is turned."""
_AS_LIKELY = 3.0
"""Readings whose log-odds differ by less are told apart by the landmark network's score, which sees small errors."""
_CLEARLY_VISIBLE, _COVERED_SIGMA = 0.85, 0.07
"""Under cover the network invents landmarks: extra standard deviation, in face sizes, per share that is covered."""
_CUT_OFF_LOSS = 2.0
"""Share of visibility that is lost per share of the landmarks beyond the image's border.

Crops of real faces: with up to a fifth beyond it the pose stays within some 3 degrees of that of the whole face, with a
third it is 7 to 10 degrees off.
"""
_LIDS = (((386, 374), (362, 263), LEFT_IRIS), ((159, 145), (33, 133), RIGHT_IRIS))
"""Per eye: middle of upper and lower lid, corners, iris landmarks."""
_UPPER_LIDS, _LOWER_LIDS = (385, 386, 387, 160, 159, 158), (380, 374, 373, 144, 145, 153)
_OPEN_LIDS, _CLOSED_LIDS = 0.20, 0.08
"""Lid opening over eye width from which an iris is seen well, and below which it is not seen at all."""


class MediaPipePrior:
    """Look for faces with MediaPipe and say where 478 points of the head's surface are seen."""

    name = "mediapipe"
    map_surface = ANY_HEAD

    def __init__(self, head: HeadModel, backend: Backend = "cpu") -> None:
        """Load the networks and the head's landmark embedding; ``backend`` rasterises the dense maps.

        Raises:
            AssetMissingError: the installed MediaPipe wheel does not carry the networks.
        """
        embedding = load_embedding(head)
        self.surface = embedding.points
        self.eyes: EyePoints | None = _eye_points()
        self.identity_anchor: Callable[[Sequence[FaceEvidence]], np.ndarray] | None = load_anchor(head.content_hash)
        self._landmarker = FaceLandmarker()
        self._search = FaceSearch()
        self._judge = PresenceJudge(self._search, self._landmarker)
        self._errors = landmark_errors()
        self._estimate_pose = PoseEstimator(self._errors.reference_m)
        self._rasterize = DenseRasterizer(head, self.surface, backend)

    def observe(self, image: np.ndarray, regions: Sequence[FaceRegion] = ()) -> list[FaceEvidence | None]:
        """Look at a frame, uint8 (height, width, 3), where faces are expected; None where there is none."""
        return [self._observe_one(image, region) for region in regions]

    def _observe_one(self, image: np.ndarray, region: FaceRegion) -> FaceEvidence | None:
        landmarks = self._landmarker(image, region)
        if not _is_inside(landmarks.region, image):
            return None
        if _has_moved(region, landmarks.region):
            landmarks = self._landmarker(image, landmarks.region)
        pose = self._pose(landmarks)
        presence = self._judge.quick(image, landmarks, pose.residual_m)
        if presence < _MIN_PRESENCE or not _is_inside(landmarks.region, image):
            return None
        return self._evidence(image, landmarks, pose, presence)

    def search(
        self,
        image: np.ndarray,
        known: Sequence[FaceRegion] = (),
        max_faces: int = 1,
        *,
        is_thorough: bool = True,
    ) -> list[FaceEvidence]:
        """Find up to ``max_faces`` faces in a frame that are not the ``known`` ones; the largest first.

        Where nobody is known or seen, a thorough search looks at turned, framed and enlarged pictures, too, which takes
        some 0.2 s. Where somebody is, it looks at one enlarged part of the image per call, another one each time.
        """
        found = self._confirmed(image, self._search.whole(image), known)
        if is_thorough and not found and not known:
            found = self._confirmed(
                image, [*self._search.turned(image), *self._search.larger(image), *self._search.all_parts(image)], ()
            )
        elif is_thorough and len(found) < max_faces:
            taken = [*known, *(evidence.region for evidence in found)]
            found += self._confirmed(image, self._search.next_part(image), taken)
        found.sort(key=lambda evidence: -evidence.region.size_px)
        return found[:max_faces]

    def _confirmed(
        self, image: np.ndarray, candidates: Sequence[FaceRegion], known: Sequence[FaceRegion]
    ) -> list[FaceEvidence]:
        """Return what the landmark network takes for faces among candidates; of overlapping ones the most face-like."""
        believed: list[FaceEvidence] = []
        for region in candidates:
            certain = [evidence.region for evidence in believed if evidence.presence > _CERTAIN]
            if _overlaps_any(region, [*known, *certain]):
                continue
            evidence = self._confirm(image, region)
            if evidence is not None and not _overlaps_any(evidence.region, known):
                believed.append(evidence)
        found: list[FaceEvidence] = []
        for evidence in sorted(believed, key=lambda evidence: -evidence.presence):
            if not _overlaps_any(evidence.region, [other.region for other in found]):
                found.append(evidence)
        return found

    def _confirm(self, image: np.ndarray, region: FaceRegion) -> FaceEvidence | None:
        """Look closely at a detector's region; None where that shows no face."""
        landmarks = self._settle(image, region)
        if landmarks is None:
            return None
        if self._judge.is_clear(image, landmarks):
            pose = self._pose(landmarks)
            return self._evidence(image, landmarks, pose, self._judge.quick(image, landmarks, pose.residual_m))
        landmarks = self._right_way_up(image, region, landmarks)
        pose = self._pose(landmarks)
        presence = self._judge.thorough(image, landmarks, pose.residual_m)
        if not self._judge.believes(image, landmarks, presence):
            return None
        return self._evidence(image, landmarks, pose, presence)

    def _pose(self, landmarks: Landmarks) -> RoughPose:
        return self._estimate_pose(landmarks.points_px, landmarks.depth_px)

    def _settle(self, image: np.ndarray, region: FaceRegion) -> Landmarks | None:
        """Look at a region until it stays where the landmarks say that the face is; None where it leaves the image."""
        landmarks = self._landmarker(image, region)
        for _ in range(_MAX_LOOKS - 1):
            if not _is_inside(landmarks.region, image):
                return None
            region = landmarks.region
            landmarks = self._landmarker(image, region)
            if not _has_moved(region, landmarks.region, tolerance=_SETTLED):
                break
        return landmarks if _is_inside(landmarks.region, image) else None

    def _right_way_up(self, image: np.ndarray, region: FaceRegion, landmarks: Landmarks) -> Landmarks:
        """Return what is seen on its side or upside down, if that looks more like a face.

        The networks put landmarks on a face that lies or stands on its head, too, eyes on the mouth and chin on the
        forehead, and may be fairly sure of them: scores up to 25, where the same faces the right way up have 24 to 35.
        """
        if landmarks.logit <= _HOPELESS_LOGIT:
            return landmarks
        # Landmarks of a wrong reading lead astray: the turned looks begin where the detector saw the face.
        turned = [
            self._settle(image, FaceRegion(region.center_px, region.size_px, region.roll_rad + turn_rad))
            for turn_rad in _TURNS_RAD
        ]
        readings = [landmarks, *(reading for reading in turned if reading is not None)]
        likeness = [self._judge.likeness(image, each, self._pose(each).residual_m) for each in readings]
        near = [each for each, value in zip(readings, likeness, strict=True) if value > max(likeness) - _AS_LIKELY]
        return max(near, key=lambda each: each.logit)

    def dense(self, evidence: FaceEvidence, height: int, width: int) -> DenseMaps:
        """Rasterise the evidence to UV, normal and mask maps of the original image's size."""
        return self._rasterize(evidence, height, width)

    def _evidence(self, image: np.ndarray, landmarks: Landmarks, pose: RoughPose, presence: float) -> FaceEvidence:
        crop_px = landmarks.region.size_px / INPUT_PX
        jitter = math.hypot(_JITTER_CROP_PX * crop_px, _JITTER_IMAGE_PX)
        sigma = np.hypot(self._errors.at(pose.yaw_rad) * pose.px_per_metre, jitter)
        visibility = visible_share(landmarks, pose.yaw_rad)
        covered = max(0.0, _CLEARLY_VISIBLE - visibility)
        sigma = np.hypot(sigma, _COVERED_SIGMA * covered * landmarks.region.size_px / REGION_SCALE)
        for lids, corners, iris in _LIDS:
            sigma[list(iris)] *= _lid_factor(landmarks.points_px, lids, corners)
        is_outside = ~_are_inside(landmarks.points_px, image)
        # Beyond the border the network only guesses; inside it stays right to one or two percent of the face.
        sigma[is_outside] = math.inf
        cut_off = min(1.0, _CUT_OFF_LOSS * float(is_outside.mean()))
        visibility *= profile_share(pose.turn_rad) * (1.0 - cut_off)
        return FaceEvidence(
            points_px=landmarks.points_px,
            sigma_px=sigma,
            normal_px=outline_normals(landmarks.points_px),
            presence=presence,
            visibility=visibility,
            region=landmarks.region,
            points_depth_px=landmarks.depth_px,
        )


def _eye_points() -> EyePoints:
    """Return which landmarks lie on the eyes."""
    groups = landmark_topology().groups
    return EyePoints(
        irises=np.array((LEFT_IRIS[0], RIGHT_IRIS[0])),
        upper_lids=np.array(_UPPER_LIDS),
        lower_lids=np.array(_LOWER_LIDS),
        contours=np.union1d(groups["left_eye"], groups["right_eye"]),
    )


def _overlaps_any(region: FaceRegion, others: Sequence[FaceRegion]) -> bool:
    return any(region_overlap(region, other) > MAX_OVERLAP for other in others)


def _has_moved(before: FaceRegion, after: FaceRegion, tolerance: float = 1.0) -> bool:
    """Whether a face lies so far from where it was looked for that a centred look is worth its cost.

    ``tolerance`` scales what is let pass.
    """
    shift = math.hypot(after.center_px[0] - before.center_px[0], after.center_px[1] - before.center_px[1])
    ratio = after.size_px / before.size_px
    roll = math.remainder(after.roll_rad - before.roll_rad, 2 * math.pi)
    return (
        shift > tolerance * _SECOND_LOOK_SHIFT * before.size_px
        or abs(math.log(ratio)) > tolerance * math.log(_SECOND_LOOK_SIZE)
        or abs(roll) > tolerance * _SECOND_LOOK_ROLL_RAD
    )


def _is_inside(region: FaceRegion, image: np.ndarray) -> bool:
    """Whether the region's centre lies in the image and its size is sensible."""
    height, width = image.shape[:2]
    x, y = region.center_px
    return 0 <= x < width and 0 <= y < height and 4.0 < region.size_px < 6.0 * max(height, width)


def _are_inside(points_px: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return which points (N, 2) lie in the image, bool (N,)."""
    return ((points_px >= 0) & (points_px <= image.shape[1::-1])).all(axis=1)


def _lid_factor(points_px: np.ndarray, lids: tuple[int, int], corners: tuple[int, int]) -> float:
    """Return by how much a half-covered iris is less certain: 1 for open lids, infinite for closed ones."""
    width = float(np.linalg.norm(points_px[corners[0]] - points_px[corners[1]]))
    opening = float(np.linalg.norm(points_px[lids[0]] - points_px[lids[1]])) / max(width, 1e-6)
    openness = (opening - _CLOSED_LIDS) / (_OPEN_LIDS - _CLOSED_LIDS)
    return math.inf if openness <= 0 else max(1.0, 1.0 / openness)
