"""Priors: what looks at a frame and says where on the head's surface things are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flame.errors import InputError

if TYPE_CHECKING:
    from flame.model import HeadModel
    from flame.rasterizer import Backend
    from priors.evidence import Prior

__all__ = ["PRIOR_NAMES", "create_prior"]

PRIOR_NAMES = ("mediapipe",)
"""Names that `create_prior` takes."""


def create_prior(name: str, head: HeadModel, backend: Backend = "cpu") -> Prior:
    """Create a prior by name for a head model; ``backend`` rasterises its dense maps.

    Raises:
        InputError: there is no prior of that name.
        AssetMissingError: the prior's networks are not installed.
    """
    if name not in PRIOR_NAMES:
        raise InputError(f"unknown prior {name!r}; choose one of: {', '.join(PRIOR_NAMES)}")
    from priors.mediapipe import MediaPipePrior

    return MediaPipePrior(head, backend)
