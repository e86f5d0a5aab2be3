"""Make short clips of a real face, moved in a known way: the public-domain photograph that ships with scikit-image."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import skimage.data

from tests.tracker.clips import Sound, sound_frames

RATE = 12
SIZE = 256
_FACE_CENTER_PX, _FACE_REACH_PX = (225.0, 115.0), 150.0


@functools.lru_cache(maxsize=1)
def photograph() -> np.ndarray:
    """Return the photograph, uint8 RGB (512, 512, 3)."""
    return skimage.data.astronaut()


def roll_degrees(index: int, count: int) -> float:
    """Return by how much the picture is turned clockwise in a frame."""
    return 8.0 * math.sin(2 * math.pi * index / count)


def zoom(index: int, count: int) -> float:
    """Return the size of the face in a frame, relative to the first."""
    return 1.0 + 0.12 * math.sin(math.pi * index / count) ** 2


def portrait(index: int = 0, count: int = 16, *, size: int = SIZE, is_mirrored: bool = False) -> np.ndarray:
    """Return a square frame of the moving photograph, uint8 RGB; first and last frames almost agree."""
    scale = size / (2 * _FACE_REACH_PX) * zoom(index, count)
    turn = cv2.getRotationMatrix2D(_FACE_CENTER_PX, -roll_degrees(index, count), scale)
    drift = 0.03 * size * math.sin(2 * math.pi * index / count)
    turn[:, 2] += (size / 2 + drift - _FACE_CENTER_PX[0], size / 2 - _FACE_CENTER_PX[1])
    image = cv2.warpAffine(photograph(), turn, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(image[:, ::-1]) if is_mirrored else image


def wall(height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Return a frame without anybody."""
    return np.repeat(np.linspace(90, 150, width, dtype=np.uint8)[None, :, None], height, axis=0).repeat(3, axis=2)


def write_video(path: Path, images: Sequence[np.ndarray], *, rate: int = RATE, sound: Sound | None = None) -> Path:
    """Write pictures as H.264 at a constant rate; odd sizes as 4:4:4."""
    height, width = images[0].shape[:2]
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "veryfast"})
        stream.codec_context.width, stream.codec_context.height = width, height
        stream.codec_context.pix_fmt = "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, rate)
        sound_stream = output.add_stream(sound.codec, rate=48000, layout="mono") if sound else None
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None and sound_stream is not None:
            for sound_frame in sound_frames(sound):
                output.mux(sound_stream.encode(sound_frame))
            output.mux(sound_stream.encode(None))
    return path


def read_video(path: Path) -> list[np.ndarray]:
    """Decode all pictures of a video."""
    with av.open(str(path)) as source:
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
