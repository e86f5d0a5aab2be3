"""A prior whose dense maps come from a network: faces and landmarks from MediaPipe, pixels kept for the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from flame.surface import SurfacePoints
from priors.evidence import DenseMaps, EyePoints, FaceEvidence, FacePicture, FaceRegion
from priors.face_crop import FaceCrop
from priors.mediapipe import MediaPipePrior
from priors.placed_maps import place_maps
from priors.prior_surface import MapSurface

Predictor = Callable[[np.ndarray], DenseMaps]
"""Draws the maps of an upright face, RGB uint8 (S, S, 3), at a size of its own."""


class NetworkPrior:
    """Find faces and landmarks with the default prior, and draw dense maps of them with a network when asked."""

    def __init__(
        self, name: str, landmarks: MediaPipePrior, predict: Predictor, picture_px: int, map_surface: MapSurface
    ) -> None:
        """Combine a landmark prior with a network that looks at pictures of ``picture_px`` squared.

        ``map_surface`` is what the network speaks of.
        """
        self.name = name
        self.map_surface = map_surface
        self.surface: SurfacePoints = landmarks.surface
        self.eyes: EyePoints | None = landmarks.eyes
        self.identity_anchor: Callable[[Sequence[FaceEvidence]], np.ndarray] | None = landmarks.identity_anchor
        self._landmarks, self._predict, self._picture_px = landmarks, predict, picture_px
        self._drawn: WeakKeyDictionary[FacePicture, DenseMaps] = WeakKeyDictionary()

    def observe(self, image: np.ndarray, regions: Sequence[FaceRegion] = ()) -> list[FaceEvidence | None]:
        """Look at a frame, uint8 (height, width, 3), where faces are expected; None where there is none."""
        found = self._landmarks.observe(image, regions)
        return [None if evidence is None else self._with_picture(evidence, image) for evidence in found]

    def search(
        self,
        image: np.ndarray,
        known: Sequence[FaceRegion] = (),
        max_faces: int = 1,
        *,
        is_thorough: bool = True,
    ) -> list[FaceEvidence]:
        """Find faces in a frame that are not the ``known`` ones, as the landmark prior does."""
        found = self._landmarks.search(image, known, max_faces, is_thorough=is_thorough)
        return [self._with_picture(evidence, image) for evidence in found]

    def dense(self, evidence: FaceEvidence, height: int, width: int) -> DenseMaps:
        """Draw the network's maps at the size of the evidence's image; the network looks at a picture only once."""
        if evidence.picture is None or evidence.image_from_picture is None:
            return self._landmarks.dense(evidence, height, width)
        maps = self._drawn.get(evidence.picture)
        if maps is None:
            maps = self._drawn[evidence.picture] = self._predict(evidence.picture.image)
        picture_from_map = self._picture_px / maps.mask.shape[0]
        return place_maps(maps, evidence.image_from_picture * (picture_from_map, picture_from_map, 1), height, width)

    def _with_picture(self, evidence: FaceEvidence, image: np.ndarray) -> FaceEvidence:
        crop = FaceCrop.around(evidence.points_px, self._picture_px)
        return replace(evidence, picture=FacePicture(crop.cut(image)), image_from_picture=crop.image_from_crop)
