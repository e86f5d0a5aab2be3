"""Write a video that keeps the times and the sound of the source it was made from.

H.264 in MP4 with its index in front (plays while it downloads), BT.709, limited range. Even sizes are yuv420p, which
every player shows. A picture with an odd width or height is written at exactly that size as yuv444p, since 4:2:0
cannot: VLC, mpv, ffmpeg, Chrome and Firefox show it; QuickTime, Safari and hardware players usually do not.
"""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from tracker.audio_track import AudioTrack, open_audio
from tracker.errors import OutputError
from tracker.frames import SourceInfo
from tracker.output_files import output_error

_CRF, _PRESET = "18", "veryfast"
_MAX_NOMINAL_RATE = 240
_MIN_TIMESCALE = 1000
_FALLBACK_RATE = Fraction(30)
# ITU-T H.273 codes and swscale's names for them.
_BT709, _SWS_BT709, _RANGE_LIMITED, _RANGE_FULL = 1, 1, 1, 2


class VideoWriter:
    """Write pictures at the source's own timestamps, variable rates included, with the source's sound.

    The file appears under its name when `close` is called (also by leaving a `with` block through an exception or
    Ctrl-C: what was written until then plays); before, it is `.<name>.part` beside it. Without any picture there is no
    file. The sound ends with the last picture.
    """

    def __init__(
        self, path: Path | str, info: SourceInfo, height: int, width: int, *, start_seconds: float | None = None
    ) -> None:
        """Begin a video of pictures with the given size in pixels.

        With `start_seconds` (the start that the source was opened with) the first picture written, and the sound at
        its moment, become time zero; without, all times stay as they are.

        Raises:
            OutputError: the folder is not there or not writable.
        """
        self.path = Path(path)
        self.num_frames = 0
        self._info, self._height, self._width = info, height, width
        self._is_cut = bool(start_seconds)
        self._origin = 0.0
        self._last_pts = -1
        self._last_seconds = 0.0
        self._reformatter = VideoReformatter()
        self._audio: AudioTrack | None = None
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._pixel_format = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
        self._is_open = True
        try:
            # PyAV opens the file with the first packet, too late to say that it cannot be written.
            self._part.open("wb").close()
            self._container = av.open(str(self._part.absolute()), "w", format="mp4", options=self._muxer_options())
            self._stream = self._add_stream()
        except OSError as error:
            raise output_error(self.path, error) from error

    def _muxer_options(self) -> dict[str, str]:
        # A first picture after zero becomes an edit in units of the movie's timescale: milliseconds would round it.
        timescale = max(self._info.time_base.denominator, _MIN_TIMESCALE)
        return {"movflags": "+faststart", "movie_timescale": str(timescale)}

    def _add_stream(self) -> VideoStream:
        rate = self._info.frame_rate or _FALLBACK_RATE
        options = {"crf": _CRF, "preset": _PRESET}
        stream = self._container.add_stream("libx264", rate=min(rate, Fraction(_MAX_NOMINAL_RATE)), options=options)
        codec = stream.codec_context
        codec.width, codec.height, codec.pix_fmt = self._width, self._height, self._pixel_format
        codec.time_base = stream.time_base = self._info.time_base
        codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
        codec.color_range = _RANGE_LIMITED
        codec.sample_aspect_ratio = self._info.pixel_aspect_ratio
        return stream

    def write(self, image: np.ndarray, pts_seconds: float) -> None:
        """Append a (height, width, 3) uint8 RGB picture shown from a moment of the source's clock on, in seconds.

        Raises:
            ValueError: another size than announced, or a time that is not later than the one before.
            OutputError: the disk is full, or the file cannot be written.
        """
        if image.shape != (self._height, self._width, 3) or image.dtype != np.uint8:
            raise ValueError(f"expected ({self._height}, {self._width}, 3) uint8, got {image.shape} {image.dtype}")
        if not self._is_open:
            raise ValueError(f"{self.path}: the video is closed already")
        if not self.num_frames:
            self._begin(pts_seconds)
        pts = round(Fraction(pts_seconds - self._origin) / self._info.time_base)
        if self.num_frames and pts <= self._last_pts:
            raise ValueError(f"times must increase, got {pts_seconds} s after {self._last_seconds} s")
        frame = self._to_yuv(image)
        frame.pts, frame.time_base = pts, self._info.time_base
        self._last_pts, self._last_seconds = pts, pts_seconds
        self.num_frames += 1
        self._encode(frame)
        if self._audio is not None:
            self._audio.advance(pts_seconds)

    def _begin(self, pts_seconds: float) -> None:
        if self._is_cut:
            self._origin = pts_seconds
        self._audio = open_audio(self._info, self._container, self._mux, self._origin)

    def _to_yuv(self, image: np.ndarray) -> VideoFrame:
        return self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"),
            format=self._pixel_format,
            dst_colorspace=_SWS_BT709,
            src_color_range=_RANGE_FULL,
            dst_color_range=_RANGE_LIMITED,
        )

    def _encode(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._mux(packet)

    def _mux(self, packet: Packet) -> None:
        try:
            self._container.mux(packet)
        except OSError as error:
            self._give_up()
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Finish the file and give it its name; closing again does nothing.

        Raises:
            OutputError: the disk is full, or the file cannot be written; then there is no file.
        """
        if not self._is_open:
            return
        if not self.num_frames:
            self._give_up()
            return
        self._encode(None)
        if self._audio is not None:
            self._audio.advance(self._last_seconds + self._frame_interval())
            self._audio.close()
        self._is_open = False
        try:
            self._container.close()
            self._part.replace(self.path)
        except OSError as error:
            self._part.unlink(missing_ok=True)
            raise output_error(self.path, error) from error

    def _frame_interval(self) -> float:
        return float(1 / (self._info.frame_rate or _FALLBACK_RATE))

    def _give_up(self) -> None:
        """Close without a result."""
        self._is_open = False
        with contextlib.suppress(OSError, ValueError):
            self._container.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the file, also after an exception."""
        if isinstance(error, OutputError):
            self._give_up()
        else:
            self.close()
