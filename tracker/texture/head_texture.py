"""What a fused texture is, and its files: a picture, and how well each of its texels was seen.

The files of a person are ``texture/person_0.png`` (sRGB, what programs read) and ``texture/person_0_confidence.png``
(8 bits). Both carry a key in a text field, a hash of everything that the texture was computed from, so that the texture
of an earlier track of the same folder is not taken for that of the present one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, PngImagePlugin

from flame.errors import InputError
from tracker.output_files import make_output_folder, write_atomically

if TYPE_CHECKING:
    from tracker.result import Track

TEXTURE_FOLDER = "texture"
_METHOD_VERSION = 4
"""Raised when the fusion changes, so that stored textures are made anew."""
_KEY_FIELD = "texture-key"
_POSE_ARRAYS = (
    *("identity", "expression", "neck", "jaw", "left_eye", "right_eye", "rotation", "translation", "status"),
    *("residual_px", "interocular_px", "frame_index"),
)


@dataclass(frozen=True, eq=False)
class HeadTexture:
    """Hold the texture of one person, the first row at the top (v = 1), as picture files have it."""

    rgb: np.ndarray
    """Albedo-like colour, sRGB uint8 (S, S, 3)."""
    confidence: np.ndarray
    """How well each texel was seen, float32 (S, S) in [0, 1]; 0 where it is filled in."""

    def __post_init__(self) -> None:
        """Check shapes and types."""
        size = len(self.rgb)
        if self.rgb.shape != (size, size, 3) or self.rgb.dtype != np.uint8:
            raise InputError(f"a texture is (S, S, 3) uint8; found {self.rgb.shape} {self.rgb.dtype}")
        if self.confidence.shape != (size, size):
            raise InputError(f"the confidence of a texture of {size} px has the shape {self.confidence.shape}")

    @property
    def size_px(self) -> int:
        """Return the length of a side, texels."""
        return len(self.rgb)


def texture_key(track: Track, size_px: int, max_frames: int | None = None) -> str:
    """Return a hash of what the textures of a track depend on: track, head, source, size and method."""
    digest = hashlib.sha256()
    source = track.info.get("source") or {}
    camera = dataclasses.asdict(track.intrinsics)
    settings = [_METHOD_VERSION, size_px, max_frames, track.head_hash, camera, source.get("sha256")]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name in _POSE_ARRAYS:
        array = np.ascontiguousarray(getattr(track, name))
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def texture_files(folder: str | Path, person: int) -> tuple[Path, Path]:
    """Return where the picture and the confidence of a person's texture lie in an output folder."""
    parent = Path(folder) / TEXTURE_FOLDER
    return parent / f"person_{person}.png", parent / f"person_{person}_confidence.png"


def save_texture(folder: str | Path, person: int, texture: HeadTexture, key: str) -> tuple[Path, Path]:
    """Write a person's texture into an output folder, each file in one atomic step; return the two paths.

    Raises:
        OutputError: the folder cannot be written.
    """
    paths = texture_files(folder, person)
    make_output_folder(paths[0].parent)
    confidence = np.rint(255 * texture.confidence.clip(0, 1)).astype(np.uint8)
    # The picture comes last: where it is, the confidence is there, too.
    for path, pixels in ((paths[1], confidence), (paths[0], texture.rgb)):
        fields = PngImagePlugin.PngInfo()
        fields.add_text(_KEY_FIELD, key)
        with write_atomically(path) as stream:
            Image.fromarray(pixels).save(stream, format="PNG", pnginfo=fields)
    return paths


def load_texture(folder: str | Path, person: int, key: str) -> HeadTexture | None:
    """Read a person's texture from an output folder; None where there is none with this key, or it is damaged."""
    pictures = [_read_png(path, key) for path in texture_files(folder, person)]
    if pictures[0] is None or pictures[1] is None:
        return None
    try:
        return HeadTexture(pictures[0], (pictures[1] / 255.0).astype(np.float32))
    except InputError:
        return None


def _read_png(path: Path, key: str) -> np.ndarray | None:
    """Return the pixels of a file that carries the key; None for any other."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            return np.array(image) if image.info.get(_KEY_FIELD) == key else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
