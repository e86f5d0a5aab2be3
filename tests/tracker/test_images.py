"""Single images and folders: order, orientation, depth, transparency, EXIF, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from flame.errors import InputError
from tests.tracker.clips import picture, write_clip
from tracker.frames import open_source, read_image

ORIENTATION, FOCAL_35MM, EXIF_IFD = 0x0112, 0xA405, 0x8769
TURNS = {1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True), 5: (90, True), 6: (90, False)}
TURNS |= {7: (270, True), 8: (270, False)}


def save(path: Path, image: np.ndarray) -> Path:
    Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    stored = Image.fromarray(picture(0))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    (frame,) = open_source(tmp_path / "photo.png")
    info = open_source(tmp_path / "photo.png").info
    tagged = Image.open(tmp_path / "photo.png")
    assert np.array_equal(frame.image, np.asarray(ImageOps.exif_transpose(tagged)))
    assert frame.image.shape == (info.height, info.width, 3)
    assert (info.rotation_degrees, info.is_mirrored) == TURNS[orientation]
    turned = np.rot90(picture(0), -info.rotation_degrees // 90)
    assert np.array_equal(frame.image, turned[:, ::-1] if info.is_mirrored else turned)


def test_focal_length_from_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[FOCAL_35MM] = 52
    Image.fromarray(picture(0)).save(tmp_path / "photo.jpg", exif=exif)
    assert open_source(tmp_path / "photo.jpg").info.focal_px == pytest.approx(52 * np.hypot(64, 48) / np.hypot(36, 24))
    assert open_source(save(tmp_path / "plain.jpg", picture(0))).info.focal_px is None


def test_an_image_is_one_frame_without_time(tmp_path: Path) -> None:
    source = open_source(save(tmp_path / "photo.png", picture(2)))
    (frame,) = source
    assert (frame.index, frame.pts_seconds, source.info.kind) == (0, 0.0, "image")
    assert source.info.frame_rate is None and source.info.num_frames == 1
    assert np.array_equal(frame.image, picture(2))


def write_grey_16(path: Path) -> None:
    cv2.imwrite(str(path), picture(0)[..., 0].astype(np.uint16) * 257)


def write_rgb_16(path: Path) -> None:
    cv2.imwrite(str(path), picture(0)[..., ::-1].astype(np.uint16) * 257)


def write_palette(path: Path) -> None:
    Image.fromarray(picture(0)).quantize(256).save(path)


@pytest.mark.parametrize(
    ("write", "expected", "tolerance"),
    [
        (write_grey_16, np.repeat(picture(0)[..., :1], 3, axis=2), 0.01),
        (write_rgb_16, picture(0), 0.01),
        (lambda path: Image.fromarray(picture(0)[..., 0]).save(path), np.repeat(picture(0)[..., :1], 3, axis=2), 0.01),
        (write_palette, picture(0), 8.0),
    ],
    ids=["16-bit grey", "16-bit colour", "8-bit grey", "palette"],
)
def test_every_depth_becomes_rgb(
    tmp_path: Path, write: Callable[[Path], None], expected: np.ndarray, tolerance: float
) -> None:
    write(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png")
    assert image.dtype == np.uint8 and image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() <= tolerance


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 4), dtype=np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    pixels[0, 1] = (100, 0, 200, 51)
    save(tmp_path / "cut.png", pixels)
    image = read_image(tmp_path / "cut.png")
    assert image[0, 0].tolist() == [10, 20, 30] and image[1, 2].tolist() == [255, 255, 255]
    assert image[0, 1].tolist() == [224, 204, 244]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "print.jpg").astype(int) - picture(0)).mean() < 5


def test_an_image_with_a_video_name_is_an_image(tmp_path: Path) -> None:
    save(tmp_path / "photo.jpg", picture(0)).rename(tmp_path / "photo.mp4")
    assert open_source(tmp_path / "photo.mp4").info.kind == "image"


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for index in (10, 2, 1, 30):
        save(tmp_path / f"Frame_{index}.png", picture(index))
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_text("not a frame")
    source = open_source(tmp_path)
    frames = list(source)
    assert [np.array_equal(frame.image, picture(index)) for frame, index in zip(frames, (1, 2, 10, 30), strict=True)]
    assert source.info.frame_rate == Fraction(30) and source.info.num_frames == 4
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0, 1 / 30, 2 / 30, 3 / 30])


def test_a_range_of_a_folder(tmp_path: Path) -> None:
    for index in range(6):
        save(tmp_path / f"{index}.png", picture(index))
    frames = list(open_source(tmp_path, start_seconds=0.06, end_seconds=0.15, max_frames=2))
    assert [frame.index for frame in frames] == [2, 3]


def test_a_damaged_image_in_a_folder_is_left_out(tmp_path: Path) -> None:
    for index in range(4):
        save(tmp_path / f"{index}.png", picture(index))
    (tmp_path / "1.png").write_bytes(b"not a picture")
    data = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(data[: len(data) // 2])
    source = open_source(tmp_path)
    assert [frame.index for frame in source] == [0, 3]
    assert source.num_skipped == 2 and "1.png" in source.problems[0]


def test_images_of_different_sizes_are_no_video(tmp_path: Path) -> None:
    save(tmp_path / "1.png", picture(0))
    save(tmp_path / "2.png", picture(0, 32, 32))
    with pytest.raises(InputError, match="different sizes .1.png is 64x48, 2.png is 32x32."):
        open_source(tmp_path)


def write_text(path: Path) -> None:
    path.write_text("hello")


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("note.png", write_text, "not an image, whatever its name says"),
        ("clip.png", lambda path: write_clip(path, (0.0,), container="mp4"), "not an image, whatever its name says"),
        ("half.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30)), "not an image|cannot be decoded"),
        ("empty.jpg", lambda path: path.touch(), "the file is empty"),
        ("photo.heic", write_text, ".heic images are not read"),
    ],
)
def test_bad_images_are_one_clear_line(
    tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_of_damaged_images(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_text("no")
    with pytest.raises(InputError, match="none of its 1 images can be read"):
        open_source(tmp_path)


def test_a_single_image_has_no_later_time(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a single image has no time"):
        open_source(save(tmp_path / "photo.png", picture(0)), start_seconds=1.0)
