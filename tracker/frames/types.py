"""What a source is and what one frame of it is; the clock that every time in this package refers to.

The clock. `pts_seconds` is the container's presentation timestamp in seconds, as float64, counted from the start of the
container (what a player's position bar shows, and what ffmpeg's `-ss` means). Most files start at zero, so nothing is
subtracted; where the container says that it starts later (MPEG-TS often does), that start is subtracted and kept in
`SourceInfo.start_offset_seconds`, so that `pts_seconds + start_offset_seconds` is the stored timestamp. Start and end
of a range are on the same clock and select `start <= pts_seconds < end`.

Pixels. Frames are upright (rotation and mirror metadata applied), RGB, uint8, sRGB-like. Pixels that are not square
stay as they are stored, so that results refer to the original image; `SourceInfo.pixel_aspect_ratio` says their shape.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

Transfer = Literal["sdr", "pq", "hlg"]
_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Frame:
    """One upright picture of a source."""

    index: int
    """Position in the source, from 0, counted from the source's first frame also when reading starts later."""
    pts_seconds: float
    """Presentation time on the clock of this module, in seconds."""
    image: np.ndarray
    """(height, width, 3) uint8 RGB, contiguous."""

    def __post_init__(self) -> None:
        """Check the picture's shape and type."""
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"a frame is (height, width, 3) uint8, got {self.image.shape} {self.image.dtype}")

    def __repr__(self) -> str:
        """Show the size in place of the pixels."""
        height, width = self.image.shape[:2]
        return f"Frame(index={self.index}, pts_seconds={self.pts_seconds:.6f}, image={width}x{height})"


@dataclass(frozen=True)
class SourceInfo:
    """What is known about a source before its frames are read."""

    path: Path
    kind: Literal["video", "images", "image"]
    """A video (also a GIF), a folder of images, or one image."""
    width: int
    """Pixels, after rotation."""
    height: int
    """Pixels, after rotation."""
    frame_rate: Fraction | None
    """Average frames per second; for a folder the assumed rate; None for one image. The timestamps decide, not this."""
    num_frames: int | None
    """From the header or the folder: an estimate for a video, which may hold fewer decodable frames."""
    duration_seconds: float
    """From the header; 0 where unknown and for one image."""
    has_audio: bool = False
    time_base: Fraction = Fraction(1, 90000)
    """Unit of the stored timestamps, in seconds."""
    start_offset_seconds: float = 0.0
    """What was subtracted from the stored timestamps."""
    rotation_degrees: int = 0
    """Clockwise turn that the metadata asks for and that has been applied: 0, 90, 180 or 270."""
    is_mirrored: bool = False
    """The metadata asks for a left-right flip after the turn; it has been applied."""
    pixel_aspect_ratio: Fraction = Fraction(1)
    """Width of one pixel divided by its height, after rotation; 1 for square pixels."""
    transfer: Transfer = "sdr"
    """Curve of the stored signal; `pq` and `hlg` are high dynamic range and are tone mapped to the standard range."""
    bit_depth: int = 8
    codec: str = ""
    focal_px: float | None = None
    """Focal length in pixels, from EXIF; None where it is not told."""
    image_paths: tuple[Path, ...] = field(default=(), repr=False)
    """Files of a folder in order; empty for a video."""

    @property
    def is_hdr(self) -> bool:
        """Tell whether the stored range is high, that is, whether the frames have been tone mapped."""
        return self.transfer != "sdr"

    @cached_property
    def content_sha256(self) -> str:
        """Hash the content: the file's bytes; for a folder every name and its file's bytes. Computed at first use."""
        digest = hashlib.sha256()
        if self.kind != "images":
            _update_digest(digest, self.path)
            return digest.hexdigest()
        for image_path in self.image_paths:
            digest.update(f"{image_path.name}\0{image_path.stat().st_size}\0".encode())
            _update_digest(digest, image_path)
        return digest.hexdigest()


def _update_digest(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
