"""Make small videos, sounds and images for the tests, each with known content."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

VARIABLE_SECONDS = (0.0, 0.04, 0.1, 0.3, 0.35, 0.36, 0.7, 1.0, 1.001, 1.4, 1.45, 2.0)
TAGS_BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
_SAMPLE_RATE = 48000


@dataclass(frozen=True)
class Sound:
    """A click at a known moment in silence."""

    codec: str = "aac"
    seconds: float = 1.2
    click_seconds: float = 0.75
    click_length: int = 480


def even_seconds(count: int = 12, rate: int = 10) -> tuple[float, ...]:
    """Return the times of a constant frame rate."""
    return tuple(index / rate for index in range(count))


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return frame `index`: smooth, different in every corner, and different from its neighbours."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 30 + 180 * x / (width - 1)
    green = 40 + 170 * y / (height - 1)
    blue = np.full_like(red, 60 + (index * 37) % 150)
    return np.stack([red, green, blue], axis=2).round().astype(np.uint8)


def write_clip(
    path: Path,
    seconds: Sequence[float] = even_seconds(),
    *,
    height: int = 48,
    width: int = 64,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str | None = None,
    time_base: Fraction = Fraction(1, 1000),
    tags: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    sound: Sound | None = None,
    planes: tuple[int, int, int] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write `picture(0), picture(1), …` at the given times; with `planes`, flat frames of these samples instead."""
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=10, options=options or {})
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, pixel_format
        context.time_base = stream.time_base = time_base
        if aspect:
            context.sample_aspect_ratio = aspect
        tags = TAGS_BT709 if tags is None else tags
        for name, value in tags.items():
            setattr(context, name, value)
        sound_stream = output.add_stream(sound.codec, rate=_SAMPLE_RATE, layout="mono") if sound else None
        for index, moment in enumerate(seconds):
            if planes is None:
                frame = _convert(picture(index, height, width), pixel_format, tags)
            else:
                frame = _flat_frame(planes, height, width, pixel_format)
            frame.pts, frame.time_base = round(Fraction(moment) / time_base), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None and sound_stream is not None:
            for sound_frame in sound_frames(sound):
                output.mux(sound_stream.encode(sound_frame))
            output.mux(sound_stream.encode(None))
    return path


def _convert(image: np.ndarray, pixel_format: str, tags: dict[str, int]) -> av.VideoFrame:
    matrix = {1: 1, 9: 9}.get(tags.get("colorspace", 0), 5)
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format=pixel_format, dst_colorspace=matrix, src_color_range=2, dst_color_range=tags.get("color_range", 1)
    )


def _flat_frame(planes: tuple[int, int, int], height: int, width: int, pixel_format: str) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, pixel_format)
    sample = np.uint16 if "10" in pixel_format else np.uint8
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(np.full(plane.buffer_size // sample().itemsize, value, dtype=sample).tobytes())
    return frame


def sound_frames(sound: Sound) -> list[av.AudioFrame]:
    samples = np.zeros((1, round(sound.seconds * _SAMPLE_RATE)), dtype=np.float32)
    click = round(sound.click_seconds * _SAMPLE_RATE)
    samples[0, click : click + sound.click_length] = 0.8 * np.sin(np.arange(sound.click_length) * 0.3)
    frames = []
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(samples[:, start : start + 1024].copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _SAMPLE_RATE, start, Fraction(1, _SAMPLE_RATE)
        frames.append(frame)
    return frames


def write_sound(path: Path, sound: Sound | None = None) -> Path:
    """Write a file that holds sound only."""
    sound = sound or Sound()
    with av.open(str(path), "w") as output:
        stream = output.add_stream(sound.codec, rate=_SAMPLE_RATE, layout="mono")
        for frame in sound_frames(sound):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def click_seconds(path: Path) -> float:
    """Return the moment at which the sound of a file first becomes loud."""
    with av.open(str(path)) as source:
        for frame in source.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(np.float64))
            samples = samples / (1.0 if frame.format.name.startswith("fl") else 32768.0)
            loud = np.flatnonzero(samples.reshape(len(frame.layout.channels), -1)[0] > 0.25)
            if loud.size:
                return float(frame.pts * frame.time_base) + float(loud[0]) / frame.sample_rate
    raise AssertionError(f"{path}: silent")


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Put a display matrix into an MP4's track header, which is where phones put it (ISO 14496-12, tkhd)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[start : start + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
