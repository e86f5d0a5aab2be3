"""Evidence: what a prior says about a frame, in terms of the head's surface.

The solver sees only evidence; which detector or network it came from does not matter to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from flame.surface import SurfacePoints

if TYPE_CHECKING:
    from priors.prior_surface import MapSurface

NormalSpace = Literal["camera", "head", "ray"]
"""Axes of normals: the camera's; the head's with the rotations of root and neck undone; or the camera's turned by the
smallest rotation that takes the ray of one pixel onto +z, which is what a look at a crop alone can tell."""


@dataclass(frozen=True)
class FaceRegion:
    """Place a face in an image: a square, turned in the image plane, in pixels of the original image."""

    center_px: tuple[float, float]
    """Centre of the square."""
    size_px: float
    """Side length of the square."""
    roll_rad: float
    """Angle by which the face is turned clockwise in the image; 0 is upright."""


@dataclass(frozen=True)
class DenseMaps:
    """Per-pixel evidence at the size of the image it was asked for."""

    uv: np.ndarray
    """Texture coordinates, float32 (height, width, 2), origin bottom left; NaN outside the mask or without any."""
    normals: np.ndarray
    """Unit normals in ``normal_space``, float32 (height, width, 3); NaN outside the mask."""
    mask: np.ndarray
    """True where the face is seen, bool (height, width)."""
    normal_space: NormalSpace = "camera"
    """Axes of the normals."""
    axis_px: tuple[float, float] | None = None
    """The pixel whose ray the axes of space ``ray`` are aligned with."""
    uv_trust: np.ndarray | None = None
    """How much each pixel's texture coordinates count, float32 (height, width), 1 for ordinary ones; None: all 1."""
    normal_trust: np.ndarray | None = None
    """The same of the normals."""


@dataclass(frozen=True, eq=False)
class FacePicture:
    """Hold the pixels of one face, for networks that look at it later."""

    image: np.ndarray
    """RGB, uint8 (S, S, 3)."""


@dataclass(frozen=True)
class FaceEvidence:
    """Describe one face in one frame: where N known surface points are seen, and how well."""

    points_px: np.ndarray
    """Observed points, float64 (N, 2), pixels of the original image."""
    sigma_px: np.ndarray
    """Standard deviations, float64 (N, 2): along ``normal_px`` and across it; infinite where a point says nothing."""
    normal_px: np.ndarray
    """Unit directions, float64 (N, 2): the outline's normal for points that slide along it, (1, 0) for the others."""
    presence: float
    """Probability in [0, 1] that a face is really there and seen."""
    visibility: float
    """Share in [0, 1] of the face that is seen and not covered."""
    region: FaceRegion
    """Where the face is; the place to look in the next frame."""
    points_depth_px: np.ndarray
    """Relative depth of the points as the detector gives it, float64 (N,), pixels, towards the camera negative."""
    picture: FacePicture | None = None
    """The face's pixels, where the prior has networks that look at them."""
    image_from_picture: np.ndarray | None = None
    """Similarity from pixels of the picture to those of the image, float64 (2, 3)."""


@dataclass(frozen=True)
class EyePoints:
    """Say which of a prior's surface points lie on the eyes, as rows of ``Prior.surface``."""

    irises: np.ndarray
    """Middles of the irises, int64 (2,)."""
    upper_lids: np.ndarray
    """Points on upper lids, int64 (N,)."""
    lower_lids: np.ndarray
    """The points below them, int64 (N,)."""
    contours: np.ndarray
    """Points round the openings of both eyes, int64 (M,)."""


class Prior(Protocol):
    """Look at frames and return evidence on the surface of one head model."""

    name: str
    eyes: EyePoints | None
    """Which points lie on the eyes, where the prior knows."""
    surface: SurfacePoints
    """The N surface points that the evidence speaks of."""
    map_surface: MapSurface
    """Topology and normal space of what the dense maps are made from; they are always those of the prior's head."""
    identity_anchor: Callable[[Sequence[FaceEvidence]], np.ndarray] | None
    """Expects the identity coefficients (I,) of a person seen in some frames; None where nothing was learned of it."""

    def observe(self, image: np.ndarray, regions: Sequence[FaceRegion] = ()) -> list[FaceEvidence | None]:
        """Look at a frame where faces are expected; one entry per region, None where no face was found.

        Args:
            image: RGB, uint8 (height, width, 3).
            regions: where each known face was, newest first unknown faces are not searched for here.
        """
        ...

    def search(
        self,
        image: np.ndarray,
        known: Sequence[FaceRegion] = (),
        max_faces: int = 1,
        *,
        is_thorough: bool = True,
    ) -> list[FaceEvidence]:
        """Find faces anywhere in a frame that do not coincide with ``known`` ones; the largest first.

        Without ``is_thorough`` only faces that are easily seen are found, in a fraction of the time.
        """
        ...

    def dense(self, evidence: FaceEvidence, height: int, width: int) -> DenseMaps:
        """Rasterise the evidence to dense maps of the original image's size."""
        ...
