"""What became of a face in a frame."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from configs.schema import StatusConfig
    from priors.evidence import FaceEvidence


class FrameStatus(enum.IntEnum):
    """State of one person in one frame; the numbers are what ``track.npz`` stores."""

    OK = 0
    """Seen and fitted."""
    LOW_CONFIDENCE = 1
    """Fitted, but covered, hardly a face, or fitted badly; use with care."""
    LOST = 2
    """Was seen earlier in the clip, not in this frame; parameters are NaN."""
    NO_FACE = 3
    """Not seen so far; parameters are NaN."""

    @property
    def is_tracked(self) -> bool:
        """Return whether the frame has parameters."""
        return self in (FrameStatus.OK, FrameStatus.LOW_CONFIDENCE)

    @property
    def label(self) -> str:
        """Return the word used in files and on screen."""
        return self.name.lower()


STATUS_COLORS = {
    FrameStatus.OK: "#2a9d78",
    FrameStatus.LOW_CONFIDENCE: "#e3a52b",
    FrameStatus.LOST: "#c8483b",
    FrameStatus.NO_FACE: "#8b909a",
}
"""Colours on screen, CSS; they differ in lightness, too, for eyes that tell red from green badly."""


def judge(evidence: FaceEvidence, residual_px: np.ndarray, interocular_px: float, config: StatusConfig) -> FrameStatus:
    """Return ``OK`` or ``LOW_CONFIDENCE`` for a fitted face."""
    residual_percent = 100 * float(np.median(residual_px)) / interocular_px
    doubtful = (
        not np.isfinite(residual_percent)
        or residual_percent > config.max_residual_percent
        or evidence.presence < config.low_presence
        or evidence.visibility < config.min_visibility
    )
    return FrameStatus.LOW_CONFIDENCE if doubtful else FrameStatus.OK
