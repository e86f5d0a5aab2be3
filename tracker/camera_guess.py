"""What is known of a clip's camera before anybody is seen in it, and what of it is left to be found out.

The focal length is given, or read from EXIF, or expected to be usual; only in the last case it is estimated. The
principal point is the image's centre unless it is given. One camera that sees one face can hardly tell a shifted
principal point from a head that is elsewhere and turned a little, so it is held there; for crops of larger pictures
``regularization.principal_point`` lets it move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from configs.schema import RegularizationConfig
from flame.camera import Intrinsics
from flame.errors import InputError
from tracker.frames import SourceInfo

FocalOrigin = Literal["given", "EXIF", "expected"]
CenterOrigin = Literal["given", "centre"]

_FOV_RANGE_DEGREES = (1.0, 170.0)
_LEAST_CROP_FOV_DEGREES = 0.1
"""Least field of view that a focal length may give: small crops of larger pictures have less than whole pictures."""
_MOST_OFF_AXIS_DEGREES = 85.0
"""How far from the optical axis the middle of a picture may be that was cut out of a larger one."""


@dataclass(frozen=True)
class CameraFreedom:
    """Say how far a camera may be from what is expected; zero holds it there."""

    log_focal_sigma: float
    """Standard deviation of the logarithm of the focal length."""
    center_sigma_px: float
    """Standard deviation of the principal point, pixels."""


HELD = CameraFreedom(0.0, 0.0)
"""A camera that is known."""


@dataclass(frozen=True)
class GivenCamera:
    """Hold what the user says about the camera; None for what is not said."""

    fov_degrees: float | None = None
    """Field of view along the longer image side, degrees."""
    focal_px: float | None = None
    """Focal length, pixels (pixel heights where pixels are not square)."""
    principal_point_px: tuple[float, float] | None = None
    """Where the optical axis meets the image, pixels from its left and top border."""

    def __post_init__(self) -> None:
        """Refuse what no camera is.

        Raises:
            InputError: a value is out of range, or two contradict each other.
        """
        least, most = _FOV_RANGE_DEGREES
        if self.fov_degrees is not None and self.focal_px is not None:
            raise InputError(
                f"--fov {self.fov_degrees:g} and --focal {self.focal_px:g} both set the focal length; leave one out."
            )
        if self.fov_degrees is not None and not least <= self.fov_degrees <= most:
            raise InputError(f"--fov {self.fov_degrees:g}: it must be from {least:g} to {most:g} degrees.")
        if self.focal_px is not None and not (0 < self.focal_px < math.inf):
            raise InputError(f"--focal {self.focal_px:g}: it must be above 0 pixels.")
        point = self.principal_point_px
        if point is not None and not (len(point) == 2 and all(math.isfinite(value) for value in point)):
            found = ",".join(f"{value:g}" for value in point)
            raise InputError(f"--principal-point {found}: it must be two numbers X,Y, pixels from the top left corner.")


@dataclass(frozen=True)
class CameraGuess:
    """Hold the camera that a clip is expected to have, where that comes from, and how sure it is."""

    intrinsics: Intrinsics
    """The expected camera, pixels of the original image."""
    focal_from: FocalOrigin
    """Whether the focal length was given, read from EXIF, or is what is usual."""
    center_from: CenterOrigin
    """Whether the principal point was given, or is the image's centre."""
    freedom: CameraFreedom
    """How far the true camera may be from the expected one."""

    def corrected(self, log_zoom: float, center_shift_px: tuple[float, float]) -> Intrinsics:
        """Return the camera with the corrections that were found."""
        zoomed = self.intrinsics.zoom(math.exp(log_zoom))
        return replace(zoomed, cx=zoomed.cx + center_shift_px[0], cy=zoomed.cy + center_shift_px[1])

    def describe(self, used: Intrinsics) -> dict[str, Any]:
        """Return what ``track.json`` says about the camera that was used: this one, or this one corrected."""
        expected = self.intrinsics
        has_moved = (used.cx, used.cy) != (expected.cx, expected.cy)
        return {
            "fov_degrees": round(used.fov_degrees, 3),
            "focal_from": self.focal_from if used.fy == expected.fy else "solved",
            "principal_point_from": "solved" if has_moved else self.center_from,
        }


NOTHING_GIVEN = GivenCamera()


def guess_camera(info: SourceInfo, config: RegularizationConfig, given: GivenCamera = NOTHING_GIVEN) -> CameraGuess:
    """Return the camera that a source is expected to have.

    What is given counts before EXIF, and EXIF before what is usual. What is given or told by EXIF is held.

    Raises:
        InputError: what is given cannot be the camera of a picture of this size.
    """
    focal_px, focal_from = _focal_px(info, given, config)
    aspect = float(info.pixel_aspect_ratio)
    intrinsics = Intrinsics(focal_px / aspect, focal_px, info.width / 2, info.height / 2, info.width, info.height)
    center_from: CenterOrigin = "centre"
    if given.principal_point_px is not None:
        intrinsics = replace(intrinsics, cx=given.principal_point_px[0], cy=given.principal_point_px[1])
        center_from = "given"
    _check_given(intrinsics, given)
    freedom = CameraFreedom(
        log_focal_sigma=config.log_focal if focal_from == "expected" else 0.0,
        center_sigma_px=config.principal_point * max(info.width, info.height) if center_from == "centre" else 0.0,
    )
    return CameraGuess(intrinsics, focal_from, center_from, freedom)


def _focal_px(info: SourceInfo, given: GivenCamera, config: RegularizationConfig) -> tuple[float, FocalOrigin]:
    """Return the focal length in pixel heights, and where it comes from."""
    if given.focal_px is not None:
        return given.focal_px, "given"
    if given.fov_degrees is None and info.focal_px is not None:
        return info.focal_px, "EXIF"
    fov_degrees = config.default_fov_degrees if given.fov_degrees is None else given.fov_degrees
    along_px = Intrinsics.from_fov(fov_degrees, info.width, info.height).fx
    # The field of view is that of the longer side, whose pixels are as wide as the aspect ratio says.
    focal_px = along_px * float(info.pixel_aspect_ratio) if info.width >= info.height else along_px
    return focal_px, "expected" if given.fov_degrees is None else "given"


def _check_given(camera: Intrinsics, given: GivenCamera) -> None:
    """Refuse a focal length or a principal point, both in pixels, that mean nothing in a picture of this size.

    Raises:
        InputError: one of them is out of range.
    """
    least, most = _LEAST_CROP_FOV_DEGREES, _FOV_RANGE_DEGREES[1]
    if given.focal_px is not None and not least <= camera.fov_degrees <= most:
        raise InputError(
            f"--focal {given.focal_px:g}: with {camera.width} x {camera.height} pixels that is a field of view of "
            f"{camera.fov_degrees:.3g} degrees; it must be from {least:g} to {most:g}."
        )
    off_axis = math.hypot((camera.width / 2 - camera.cx) / camera.fx, (camera.height / 2 - camera.cy) / camera.fy)
    if math.degrees(math.atan(off_axis)) > _MOST_OFF_AXIS_DEGREES:
        raise InputError(
            f"--principal-point {camera.cx:g},{camera.cy:g}: that is too far from a picture of "
            f"{camera.width} x {camera.height} pixels; give pixels from its top left corner."
        )


def common_freedom(guesses: Sequence[CameraGuess]) -> CameraFreedom:
    """Return the freedom of one correction that has to fit several sources with cameras of their own.

    It is that of the surest: where one focal length is known, no common factor may change it. A shift in pixels of one
    picture means nothing in another one.
    """
    if len(guesses) == 1:
        return guesses[0].freedom
    return CameraFreedom(min((guess.freedom.log_focal_sigma for guess in guesses), default=0.0), 0.0)
