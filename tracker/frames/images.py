"""Single images and folders of images: reading, ordering, and what EXIF tells."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flame.errors import InputError
from tracker.frames.colors import over_white
from tracker.frames.exif import focal_px_of
from tracker.frames.types import SourceInfo

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
FOLDER_FRAME_RATE = Fraction(30)
_UNREADABLE_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".cr2", ".nef", ".arw", ".dng"})
_SNIFFED_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_EXIF_ORIENTATION = 0x0112
_TURNS_BY_EXIF = {1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True)}
_TURNS_BY_EXIF |= {5: (90, True), 6: (90, False), 7: (270, True), 8: (270, False)}
_READ_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def is_image(path: Path) -> bool:
    """Tell by its name, or else by its first bytes, whether a file is taken as a still image."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with Image.open(path, formats=_SNIFFED_FORMATS):
            return True
    except _READ_ERRORS:
        return False


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Order names as people do: `frame2` before `frame10`, case ignored."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def list_images(folder: Path) -> tuple[Path, ...]:
    """List the images of a folder in natural order; hidden files and folders inside are left out.

    Raises:
        InputError: the folder holds no image, or may not be read.
    """
    try:
        entries = sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural_key)
    except PermissionError as error:
        raise InputError(f"{folder}: no permission to list this folder; change its permissions") from error
    images = tuple(entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    if images:
        return images
    found = ", ".join(entry.name for entry in entries[:3]) or "nothing"
    raise InputError(
        f"{folder}: a folder without images (found: {found}{', …' if len(entries) > 3 else ''}); "
        f"give a folder with {', '.join(sorted(IMAGE_SUFFIXES))} files, or a video file"
    )


def read_image(path: Path) -> np.ndarray:
    """Read an image as (height, width, 3) uint8 RGB, upright by its EXIF orientation.

    16-bit images keep their high byte, grey ones are repeated, transparent pixels are laid over white.

    Raises:
        InputError: the file is no image that can be read.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            return _to_rgb(upright)
    except _READ_ERRORS as error:
        raise InputError(_unreadable(path, error)) from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        samples = np.asarray(image).astype(np.int64)
        grey = np.clip(samples // 256 if samples.max(initial=0) > 255 else samples, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return over_white(np.asarray(image.convert("RGBA")))
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _unreadable(path: Path, error: BaseException) -> str:
    if not path.stat().st_size:
        return f"{path}: the file is empty (0 bytes); give an image or a video"
    if isinstance(error, PermissionError):
        return f"{path}: no permission to read this file; change its permissions"
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: not an image, whatever its name says; give a {', '.join(sorted(IMAGE_SUFFIXES))} file"
    return f"{path}: the image cannot be decoded ({error}); it is probably damaged: save it again or leave it out"


def probe_image(path: Path) -> SourceInfo:
    """Describe a single image; its pixels are decoded once to be sure that they can be.

    Raises:
        InputError: the file is no image that can be read.
    """
    height, width = read_image(path).shape[:2]
    with Image.open(path) as image:
        exif, codec = image.getexif(), (image.format or "").lower()
        focal_px = focal_px_of(exif, *image.size)
    turn, is_mirrored = _TURNS_BY_EXIF.get(exif.get(_EXIF_ORIENTATION, 1), (0, False))
    return SourceInfo(
        path=path,
        kind="image",
        width=width,
        height=height,
        frame_rate=None,
        num_frames=1,
        duration_seconds=0.0,
        rotation_degrees=turn,
        is_mirrored=is_mirrored,
        codec=codec,
        focal_px=focal_px,
        image_paths=(path,),
    )


def probe_folder(folder: Path) -> SourceInfo:
    """Describe a folder of frames: natural order, `FOLDER_FRAME_RATE` frames per second, all of one size.

    Raises:
        InputError: no image, no readable image, or images of different sizes.
    """
    paths = list_images(folder)
    first: SourceInfo | None = None
    for path in paths:
        size = _upright_size(path)
        if size is None:
            continue
        if first is None:
            first = probe_image(path)
        elif size != (first.width, first.height):
            raise InputError(
                f"{folder}: images of different sizes ({first.path.name} is {first.width}x{first.height}, {path.name} "
                f"is {size[0]}x{size[1]}); a folder is taken as the frames of one video: give single photos one by one"
            )
    if first is None:
        raise InputError(f"{folder}: none of its {len(paths)} images can be read; are the files damaged?")
    return SourceInfo(
        path=folder,
        kind="images",
        width=first.width,
        height=first.height,
        frame_rate=FOLDER_FRAME_RATE,
        num_frames=len(paths),
        duration_seconds=len(paths) / float(FOLDER_FRAME_RATE),
        time_base=1 / FOLDER_FRAME_RATE,
        codec=first.codec,
        focal_px=first.focal_px,
        image_paths=paths,
    )


def _upright_size(path: Path) -> tuple[int, int] | None:
    """Read (width, height) from the header, turned as EXIF asks; None where the header cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except _READ_ERRORS:
        return None
    return (height, width) if is_turned else (width, height)


def refuse_unreadable_kind(path: Path) -> None:
    """Stop at still-image formats that no decoder here reads.

    Raises:
        InputError: the name ends like such a format.
    """
    if path.suffix.lower() in _UNREADABLE_SUFFIXES:
        raise InputError(f"{path}: {path.suffix.lower()} images are not read; save it as JPEG or PNG first")
