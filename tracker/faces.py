"""Who is where: follow up to N people through a clip, notice losses and cuts, find people again.

Only evidence is looked at here, never the fitted head, so this stage may run ahead of the solver in its own thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from configs.schema import StatusConfig
from priors.evidence import FaceEvidence, FaceRegion, Prior

SAME_FACE_DISTANCE = 0.5
"""Two regions nearer than this, in face sizes, show one face."""
_MAX_PAUSE_FACTOR = 4
"""Searches in vain are repeated less and less often, down to this share."""
_JUMP_SHARE = 0.35
"""A face that moves by more than this share of its size between frames has not moved: the picture has changed."""


@dataclass(frozen=True)
class Sighting:
    """Hold what was seen of one person in one frame."""

    evidence: FaceEvidence | None
    """None where the person was not found."""
    is_continuous: bool
    """Whether the face was followed from the frame before."""


@dataclass(frozen=True)
class Anchor:
    """Remember where a person was at some time, to tell people apart when they are found again."""

    pts_seconds: float
    region: FaceRegion


@dataclass
class _Slot:
    """Keep what is known of one person while a clip is followed."""

    anchors: Sequence[Anchor]
    region: FaceRegion | None = None
    last: Anchor | None = None
    points_px: np.ndarray | None = field(default=None, repr=False)

    def distance(self, region: FaceRegion, pts_seconds: float) -> float:
        """Return how far a region is from where the person was last or nearest in time, in face sizes."""
        known = [*self.anchors, *([self.last] if self.last else [])]
        if not known:
            return 0.0
        nearest = min(known, key=lambda anchor: abs(anchor.pts_seconds - pts_seconds))
        return region_distance(nearest.region, region)


def region_distance(first: FaceRegion, second: FaceRegion) -> float:
    """Return the distance of two faces' centres in units of the larger face's size."""
    offset = np.subtract(first.center_px, second.center_px)
    return float(np.hypot(*offset)) / max(first.size_px, second.size_px)


class FaceFollower:
    """Follow the people of one clip; call ``observe`` with its frames in order."""

    def __init__(self, prior: Prior, people: Sequence[Sequence[Anchor]], config: StatusConfig) -> None:
        """Prepare to follow one person per entry of ``people``, which says where each was seen while scouting."""
        self._prior = prior
        self._config = config
        self._slots = [_Slot(anchors) for anchors in people]
        self._last_glance_seconds = -np.inf
        self._last_search_seconds = -np.inf
        self._num_vain_searches = 0
        self._observed_seconds = -np.inf

    def observe(self, image: np.ndarray, pts_seconds: float) -> list[Sighting]:
        """Return what is seen of every person in this frame, in the order of ``people``."""
        followed = [slot for slot in self._slots if slot.region is not None]
        regions = [slot.region for slot in followed if slot.region is not None]
        observed = self._prior.observe(image, regions) if regions else []
        found: dict[int, Sighting] = {}
        just_lost = False
        for slot, evidence in zip(followed, observed, strict=True):
            if evidence is None or evidence.presence < self._config.min_presence or self._is_taken(evidence, found):
                slot.region = None
                just_lost = True
                self._num_vain_searches = 0
                continue
            is_continuous = not self._has_jumped(slot, evidence)
            found[self._slots.index(slot)] = Sighting(evidence, is_continuous)
        if len(found) < len(self._slots):
            is_thorough = just_lost or self._search_is_due(pts_seconds)
            if is_thorough or pts_seconds - self._last_glance_seconds >= self._config.glance_seconds:
                self._search(image, pts_seconds, found, is_thorough=is_thorough)
        self._observed_seconds = pts_seconds
        for index, sighting in found.items():
            self._remember(self._slots[index], sighting, pts_seconds)
        return [found.get(index, Sighting(None, False)) for index in range(len(self._slots))]

    def _search_is_due(self, pts_seconds: float) -> bool:
        """Return whether to look for missing people thoroughly: at intervals, and where one was scouted."""
        pause_seconds = self._config.search_seconds * min(2 ** max(self._num_vain_searches - 1, 0), _MAX_PAUSE_FACTOR)
        if pts_seconds - self._last_search_seconds >= pause_seconds:
            return True
        missing = [slot for slot in self._slots if slot.region is None]
        scouted_seconds = [anchor.pts_seconds for slot in missing for anchor in slot.anchors]
        return any(self._observed_seconds < seconds <= pts_seconds for seconds in scouted_seconds)

    def _search(self, image: np.ndarray, pts_seconds: float, found: dict[int, Sighting], *, is_thorough: bool) -> None:
        """Look for missing people in the whole frame and assign who was found to who was missing."""
        self._last_glance_seconds = pts_seconds
        known = [sighting.evidence.region for sighting in found.values() if sighting.evidence]
        missing = [index for index in range(len(self._slots)) if index not in found]
        seen = [
            evidence
            for evidence in self._prior.search(image, known, max_faces=len(missing) + 1, is_thorough=is_thorough)
            if evidence.presence >= self._config.min_presence
        ]
        if is_thorough:
            self._last_search_seconds = pts_seconds
            self._num_vain_searches += 1
        if not seen:
            return
        self._num_vain_searches = 0
        if len(missing) == len(seen) == 1:
            # Nobody to confuse: what scouting says, and may not have said yet, does not matter.
            found[missing[0]] = Sighting(seen[0], is_continuous=False)
            return
        costs = np.array(
            [[self._slots[index].distance(evidence.region, pts_seconds) for evidence in seen] for index in missing]
        )
        sizes = np.array([evidence.region.size_px for evidence in seen])
        rows, columns = linear_sum_assignment(costs + 0.5 * np.log(sizes.max() / sizes))
        for row, column in zip(rows, columns, strict=True):
            found[missing[row]] = Sighting(seen[column], is_continuous=False)

    def _is_taken(self, evidence: FaceEvidence, found: dict[int, Sighting]) -> bool:
        """Return whether two followed regions have run onto one face."""
        return any(
            sighting.evidence is not None
            and region_distance(sighting.evidence.region, evidence.region) < SAME_FACE_DISTANCE
            for sighting in found.values()
        )

    @staticmethod
    def _has_jumped(slot: _Slot, evidence: FaceEvidence) -> bool:
        """Return whether the landmarks moved further than a face can between frames."""
        if slot.points_px is None:
            return True
        moved = np.linalg.norm(evidence.points_px - slot.points_px, axis=1)
        # More than half of them: what the median says, without sorting.
        return 2 * np.count_nonzero(moved > _JUMP_SHARE * evidence.region.size_px) > len(moved)

    @staticmethod
    def _remember(slot: _Slot, sighting: Sighting, pts_seconds: float) -> None:
        """Note where a person is now."""
        if sighting.evidence is None:
            return
        slot.region = sighting.evidence.region
        slot.points_px = sighting.evidence.points_px
        slot.last = Anchor(pts_seconds, sighting.evidence.region)
