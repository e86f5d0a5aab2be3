"""The overlay as a report carries it: the video itself where it is small and plays everywhere, else a smaller one."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from PIL import Image

MAX_BYTES = 20_000_000
"""A clip that is carried as it is, or made smaller, is no larger (a third more in the page)."""
_MAX_SIDE = 1280
_MIN_SIDE = 320
_MIN_BITS_PER_SECOND = 100_000
"""Below, frames are left out."""
_BITS_PER_PIXEL = 0.04
_CRF = "27"
_SOUND_SHARE = 0.3
_USUAL_SOUND_BITS = 128_000
_MPEG_CLOCK = Fraction(1, 90_000)
_JPEG_QUALITY = 86


@dataclass(frozen=True)
class CarriedClip:
    """Hold the clip of a page."""

    mime: str
    """``video/mp4`` or ``image/jpeg``."""
    base64: str
    width: int
    height: int
    first_seconds: float
    """The first picture's time in this video."""
    note: str = ""
    """What was changed."""

    @property
    def is_video(self) -> bool:
        """Return whether it moves."""
        return self.mime.startswith("video/")


def carry_image(image: np.ndarray, note: str = "") -> CarriedClip:
    """Return an RGB uint8 picture (H, W, 3) for a page, made smaller where it is large."""
    picture = Image.fromarray(image)
    picture.thumbnail((2 * _MAX_SIDE, 2 * _MAX_SIDE))
    return CarriedClip("image/jpeg", as_jpeg(np.asarray(picture)), picture.width, picture.height, 0.0, note)


def as_jpeg(image: np.ndarray, quality: int = _JPEG_QUALITY) -> str:
    """Return an RGB uint8 picture (H, W, 3) as JPEG in base64."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=quality, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def carry_video(path: Path, max_bytes: int = MAX_BYTES) -> CarriedClip | None:
    """Return a video for a page; None where it cannot be read."""
    try:
        with av.open(str(path.absolute())) as source:
            stream = source.streams.video[0]
            first = next(source.decode(stream))
            width, height = stream.codec_context.width, stream.codec_context.height
            plays_everywhere = stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
            first_seconds = float(first.pts * stream.time_base)
            seconds = float(source.duration or 0) / av.time_base
        if plays_everywhere and path.stat().st_size <= max_bytes:
            return CarriedClip("video/mp4", base64.b64encode(path.read_bytes()).decode(), width, height, first_seconds)
        content, size = _made_smaller(path, seconds, max_bytes)
    except (FFmpegError, OSError, StopIteration, IndexError):
        return None
    note = f"made smaller for this page, {size[0]} x {size[1]} pixels; the full one is {path.name}"
    return CarriedClip("video/mp4", base64.b64encode(content).decode(), *size, first_seconds, note)


@dataclass(frozen=True)
class _Plan:
    """Say how a video becomes smaller."""

    size: tuple[int, int]
    """Width and height, even."""
    bits_per_second: int
    """Of the pictures, at most."""
    step: int
    """Every such frame stays."""
    has_sound: bool

    @staticmethod
    def of(stream: VideoStream, sound: AudioStream | None, seconds: float, max_bytes: int) -> _Plan:
        """Divide the bytes that there are among sound, size and frames."""
        budget = 0.85 * 8 * max_bytes / max(seconds, 1.0)
        sound_bits = (sound.codec_context.bit_rate or _USUAL_SOUND_BITS) if sound is not None else 0
        has_sound = 0 < sound_bits <= _SOUND_SHARE * budget
        bits = budget - (sound_bits if has_sound else 0)
        step = max(1, math.ceil(_MIN_BITS_PER_SECOND / bits))
        width, height = stream.codec_context.width, stream.codec_context.height
        pixels = bits / (_BITS_PER_PIXEL * float(stream.average_rate or 30) / step)
        side = min(max(math.sqrt(pixels / (width * height)) * max(width, height), _MIN_SIDE), _MAX_SIDE)
        scale = min(1.0, side / max(width, height))
        size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
        return _Plan(size, int(bits), step, has_sound)


def _made_smaller(path: Path, seconds: float, max_bytes: int) -> tuple[bytes, tuple[int, int]]:
    """Encode a video again to fit, with its times and, where there is room for it, its sound."""
    memory = io.BytesIO()
    with av.open(str(path.absolute())) as source:
        stream = source.streams.video[0]
        sound = source.streams.audio[0] if source.streams.audio else None
        plan = _Plan.of(stream, sound, seconds, max_bytes)
        # Milliseconds, the usual unit, would round when a video that begins late begins.
        timescale = max((stream.time_base or _MPEG_CLOCK).denominator, 1000)
        with av.open(memory, "w", format="mp4", options={"movie_timescale": str(timescale)}) as output:
            encoder = _add_encoder(output, stream, plan)
            copied = output.add_stream_from_template(sound) if sound is not None and plan.has_sound else None
            number = 0
            for packet in source.demux([stream] if copied is None else [stream, sound]):
                if packet.stream is sound and copied is not None:
                    if packet.size:
                        packet.stream = copied
                        output.mux(packet)
                    continue
                for frame in packet.decode():
                    number += 1
                    if number % plan.step == 1 or plan.step == 1:
                        small = frame.reformat(*plan.size, format="yuv420p")
                        small.pts, small.time_base = frame.pts, stream.time_base
                        output.mux(encoder.encode(small))
            output.mux(encoder.encode(None))
    return memory.getvalue(), plan.size


def _add_encoder(output: OutputContainer, stream: VideoStream, plan: _Plan) -> VideoStream:
    """Add the smaller video's stream, with the colours of the larger one's."""
    bits = plan.bits_per_second
    options = {"crf": _CRF, "preset": "veryfast", "maxrate": str(bits), "bufsize": str(4 * bits)}
    rate = Fraction(stream.average_rate or 30) / plan.step
    added = output.add_stream("libx264", rate=min(rate, Fraction(240)).limit_denominator(1000), options=options)
    codec, before = added.codec_context, stream.codec_context
    codec.width, codec.height, codec.pix_fmt = *plan.size, "yuv420p"
    codec.time_base = added.time_base = stream.time_base or _MPEG_CLOCK
    codec.color_primaries, codec.color_trc = before.color_primaries, before.color_trc
    codec.colorspace, codec.color_range = before.colorspace, before.color_range
    if before.sample_aspect_ratio is not None:
        codec.sample_aspect_ratio = before.sample_aspect_ratio
    return added
