"""Focal length from EXIF: equivalents, sensors, scaled and cropped pictures, nonsense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tracker.frames import probe_source
from tracker.frames.exif import focal_px_of

ORIENTATION, EXIF_IFD = 0x0112, 0x8769
TAGS = {
    "focal_35mm": 0xA405,
    "focal_mm": 0x920A,
    "pixels_x": 0xA002,
    "pixels_y": 0xA003,
    "resolution": 0xA20E,
    "unit": 0xA210,
}


def exif_of(**values: object) -> Image.Exif:
    """Return EXIF with these tags."""
    exif = Image.Exif()
    exif[ORIENTATION] = 1  # without a main tag Pillow writes none into PNG
    exif.get_ifd(EXIF_IFD).update({TAGS[name]: value for name, value in values.items()})
    return exif


def photo(path: Path, image: Image.Image, **values: object) -> Path:
    """Save a picture with these tags."""
    image.save(path, exif=exif_of(**values))
    return path


def test_the_equivalent_compares_diagonals():
    # A phone: 4.25 mm before a 5.66 x 4.24 mm sensor of 4032 x 3024 pixels is told as 26 mm.
    assert focal_px_of(exif_of(focal_35mm=26), 4032, 3024) == pytest.approx(4.25 / 5.66 * 4032, rel=2e-3)
    assert focal_px_of(exif_of(focal_35mm=50), 6000, 4000) == pytest.approx(50 / 36 * 6000)


@given(factor=st.floats(0.1, 1.0), turned=st.booleans())
def test_a_scaled_picture_keeps_its_field_of_view(factor, turned):
    width, height = round(4032 * factor), round(3024 * factor)
    size = (height, width) if turned else (width, height)
    whole = focal_px_of(exif_of(focal_35mm=26), 4032, 3024)
    for tags in (
        {"focal_35mm": 26},
        {"focal_mm": IFDRational(425, 100), "resolution": IFDRational(whole / 4.25).limit_rational(10**6), "unit": 4},
    ):
        if isinstance(tags.get("resolution"), tuple):
            tags["resolution"] = IFDRational(*tags["resolution"])
        found = focal_px_of(exif_of(pixels_x=4032, pixels_y=3024, **tags), *size)
        assert found == pytest.approx(whole * max(size) / 4032, rel=5e-3)


@pytest.mark.parametrize("size", [(2000, 2000), (3024, 1701), (4032, 2000), (1000, 3024)])
def test_a_cropped_picture_tells_nothing(size):
    assert focal_px_of(exif_of(focal_35mm=26, pixels_x=4032, pixels_y=3024), *size) is None


@pytest.mark.parametrize(("unit", "per_unit"), [(2, 25.4), (3, 10.0), (4, 1.0), (None, 25.4)])
def test_a_sensor_tells_the_focal_length(unit, per_unit):
    tags = {"focal_mm": 50.0, "resolution": 160.0 * per_unit}
    exif = exif_of(**tags) if unit is None else exif_of(**tags, unit=unit)
    assert focal_px_of(exif, 5760, 3840) == pytest.approx(8000)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"focal_35mm": 0},
        {"focal_35mm": "wide"},
        {"focal_35mm": 1},
        {"focal_35mm": 60000},
        {"focal_mm": 4.2},
        {"focal_mm": IFDRational(0, 0), "resolution": 100.0},
        {"focal_mm": 4.2, "resolution": 100.0, "unit": 9},
    ],
)
def test_what_cannot_be_is_unknown(tags):
    assert focal_px_of(exif_of(**tags), 640, 480) is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_files_of_all_kinds_are_read(tmp_path, suffix):
    image = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    info = probe_source(photo(tmp_path / f"photo{suffix}", image, focal_35mm=52))
    assert info.focal_px == pytest.approx(52 * 80 / np.hypot(36, 24))


def test_damaged_exif_is_no_focal_length(tmp_path):
    image = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    path = photo(tmp_path / "photo.jpg", image, focal_35mm=52)
    data = bytearray(path.read_bytes())
    start = data.index(b"Exif\0\0") + 6
    data[start + 8 : start + 30] = b"\xff" * 22
    path.write_bytes(bytes(data))
    assert probe_source(path).focal_px is None
