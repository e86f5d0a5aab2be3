"""What EXIF tells about the lens: the focal length in pixels.

Tags and units: CIPA DC-008 (Exif 2.32). The 35 mm equivalent compares diagonals: pictures of 4:3 have the field of view
along their diagonal that it has on 36 x 24 mm.
"""

from __future__ import annotations

import math
import struct

from PIL import Image

_IFD = 0x8769
_FOCAL_LENGTH, _FOCAL_35MM = 0x920A, 0xA405
_PIXELS_X, _PIXELS_Y = 0xA002, 0xA003
_PLANE_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_DAMAGED = (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error)
_FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
_SAME_SHAPE = 0.01
"""Sides may differ from the recorded shape by this share, which is what rounding and odd borders do."""
_LEAST_SHARE, _MOST_SHARE = 0.1, 20.0
"""Focal lengths below or above these many longer sides (157 and 3 degrees) are no camera's that sees faces."""


def focal_px_of(exif: Image.Exif, width: int, height: int) -> float | None:
    """Return the focal length in pixels of an image of this size as stored; None where EXIF does not tell it.

    EXIF describes the picture as it was taken. A picture that was scaled since is converted; one whose shape has
    changed was cropped, nobody knows how much of it, and EXIF says nothing. A crop whose program has also rewritten
    the recorded size cannot be recognised.
    """
    try:
        tags = exif.get_ifd(_IFD)
    except _DAMAGED:
        return None
    recorded = (_positive(tags.get(_PIXELS_X)) or width, _positive(tags.get(_PIXELS_Y)) or height)
    if not _has_same_shape((width, height), recorded):
        return None
    focal_35mm = _positive(tags.get(_FOCAL_35MM))
    if focal_35mm is not None:
        focal_px = focal_35mm * math.hypot(width, height) / _FULL_FRAME_DIAGONAL_MM
    else:
        focal_px = _from_sensor(tags)
        if focal_px is None:
            return None
        focal_px *= max(width, height) / max(recorded)
    return focal_px if _LEAST_SHARE <= focal_px / max(width, height) <= _MOST_SHARE else None


def _from_sensor(tags: dict[int, object]) -> float | None:
    """Return the focal length in recorded pixels from that in millimetres and the pixels per length on the sensor."""
    focal_mm, resolution = _positive(tags.get(_FOCAL_LENGTH)), _positive(tags.get(_PLANE_RESOLUTION))
    unit_mm = _UNIT_MM.get(int(_positive(tags.get(_PLANE_UNIT)) or 2))
    if focal_mm is None or resolution is None or unit_mm is None:
        return None
    return focal_mm * resolution / unit_mm


def _positive(value: object) -> float | None:
    """Return a tag's value as a number; None where it is none, or means unknown."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if 0 < number < math.inf else None


def _has_same_shape(size: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether two pictures have sides of one ratio, whichever way up they are."""
    expected = max(size) * min(other) / max(other)
    return abs(expected - min(size)) <= max(1.5, _SAME_SHAPE * min(size))
