"""Videos through PyAV: opening with clear errors, the table of timestamps, and decoding in order."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from flame.errors import InputError
from tracker.frames.colors import RgbConverter, orientation_of, transfer_of
from tracker.frames.types import Frame, SourceInfo

log = logging.getLogger(__name__)

_NOT_VIDEO_FORMATS = frozenset({"tty", "srt", "webvtt", "ass", "lrc", "concat", "hls", "sdp"})
_VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"RIFF", b"OggS", b"FLV\x01")
_PROBE_BYTES = 4096
_TRUNCATION_SECONDS = 0.25
_FEW_SEEKS = 2


@dataclass
class ReadReport:
    """What went wrong while frames were read; grows as reading goes on."""

    problems: list[str] = field(default_factory=list)
    """One line each, for the user."""
    num_skipped: int = 0
    """Frames that could not be decoded and were left out."""


@dataclass(frozen=True)
class TimestampTable:
    """Presentation timestamps of a stream, read from its packets without decoding."""

    shown: np.ndarray
    """(frames,) int64, sorted: timestamps of the frames that a player shows."""
    keys: np.ndarray
    """(keyframes,) int64, sorted: timestamps where decoding can start."""

    def index_of(self, pts: int) -> int:
        """Return the position of the frame with this timestamp, or of the first one after it."""
        return int(np.searchsorted(self.shown, pts))

    def key_before(self, pts: int) -> int | None:
        """Return the last keyframe at or before a timestamp; None where there is none."""
        position = int(np.searchsorted(self.keys, pts, side="right")) - 1
        return int(self.keys[position]) if position >= 0 else None


def open_container(path: Path) -> InputContainer:
    """Open a file as a container.

    Raises:
        InputError: the file is none, or may not be read; says what it looks like instead.
    """
    try:
        # Absolute: of a relative name with a colon in it, FFmpeg takes the first part for a protocol.
        container = av.open(str(path.absolute()), mode="r", metadata_errors="replace")
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read this file; change its permissions") from error
    except (FFmpegError, OSError, ValueError) as error:
        raise InputError(_explain_unopened(path)) from error
    if container.format.name in _NOT_VIDEO_FORMATS:
        container.close()
        raise InputError(f"{path}: a text or playlist file, not a video; give a video, an image or a folder of images")
    return container


def _explain_unopened(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_PROBE_BYTES)
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free", b"skip"):
        return (
            f"{path}: the video is cut off: its index (moov) is missing, so nothing of it can be decoded; "
            "copy it again, or repair the recording"
        )
    if head and all(byte >= 32 or byte in b"\t\n\r\f\x1b" for byte in head):
        return f"{path}: this is text, whatever its name says; give a video, an image or a folder of images"
    if head.startswith(_VIDEO_STARTS):
        return f"{path}: begins like a video, but no frame of it can be read; it is empty or damaged: copy it again"
    return f"{path}: not a video in a known format; give a video, an image or a folder of images"


def pick_stream(container: InputContainer, path: Path) -> VideoStream:
    """Choose the picture stream: the first that is no cover art.

    Raises:
        InputError: the file holds no picture.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    content = "only sound" if container.streams.audio else "no picture stream"
    raise InputError(f"{path}: holds {content}; give a file that has a picture")


def probe_video(path: Path) -> SourceInfo:
    """Describe a video from its header and its first decodable frame.

    Raises:
        InputError: no video, no picture, or no frame that can be decoded.
    """
    with open_container(path) as container:
        stream = pick_stream(container, path)
        first = next((frame for frame in _decode(container, stream, ReadReport()) if frame is not None), None)
        if first is None:
            raise InputError(f"{path}: no frame of this video can be decoded; it is empty or damaged")
        orientation = orientation_of(first)
        width, height = first.width, first.height
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        if orientation.is_transposed:
            width, height, aspect = height, width, 1 / aspect
        rate = stream.average_rate or stream.guessed_rate
        duration = _duration_seconds(container, stream)
        return SourceInfo(
            path=path,
            kind="video",
            width=width,
            height=height,
            frame_rate=rate,
            num_frames=stream.frames or (round(duration * rate) if rate and duration else None),
            duration_seconds=duration,
            has_audio=bool(container.streams.audio),
            time_base=stream.time_base or Fraction(1, 90000),
            start_offset_seconds=_start_offset_seconds(container),
            rotation_degrees=orientation.rotation_degrees,
            is_mirrored=orientation.is_mirrored,
            pixel_aspect_ratio=aspect,
            transfer=transfer_of(stream.codec_context.color_trc),
            bit_depth=max(part.bits for part in first.format.components),
            codec=stream.codec_context.name,
        )


def _start_offset_seconds(container: InputContainer) -> float:
    streams = (*container.streams.video, *container.streams.audio)
    starts = [stream.start_time * stream.time_base for stream in streams if stream.start_time and stream.time_base]
    return float(min(starts)) if (container.start_time or 0) > 0 and starts else 0.0


def _duration_seconds(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _decode(container: InputContainer, stream: VideoStream, report: ReadReport) -> Iterator[VideoFrame | None]:
    """Decode in order of presentation; None stands for a frame that is there and cannot be decoded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            report.problems.append(f"reading stopped early: the file is damaged ({error.strerror})")
            packet = None
        try:
            frames = stream.decode(packet)
        except EOFError:
            return
        except FFmpegError:
            yield None
            if packet is None:
                return
            continue
        for frame in frames:
            yield None if frame.is_corrupt else frame
        if packet is None:
            return


def read_table(path: Path, until_pts: int | None = None) -> TimestampTable | None:
    """Read a video's timestamps without decoding; None where they are missing, repeated or go back (some AVI, MPEG-TS).

    With `until_pts` the reading stops at the first keyframe after it; the table is complete up to there.
    """
    shown: list[int] = []
    keys: list[int] = []
    last_dts: int | None = None
    with open_container(path) as container:
        stream = pick_stream(container, path)
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                goes_back = last_dts is not None and packet.dts is not None and packet.dts < last_dts
                if packet.pts is None or goes_back:
                    return None
                last_dts = packet.dts
                if packet.is_keyframe:
                    keys.append(packet.pts)
                    if until_pts is not None and packet.pts > until_pts:
                        break
                if not packet.is_discard:
                    shown.append(packet.pts)
        except FFmpegError:
            log.debug("%s: the table of timestamps ends early", path)
    table = TimestampTable(np.sort(np.array(shown, dtype=np.int64)), np.sort(np.array(keys, dtype=np.int64)))
    return table if np.all(np.diff(table.shown) > 0) else None


def stored_pts(seconds: float, info: SourceInfo) -> int:
    """Convert a time on our clock to the first stored timestamp at or after it."""
    exact = (Fraction(seconds) + Fraction(info.start_offset_seconds)) / info.time_base
    nearest = round(exact)
    return nearest if pts_to_seconds(nearest, info) >= seconds else nearest + 1


def pts_to_seconds(pts: int, info: SourceInfo) -> float:
    """Convert a stored timestamp to seconds on our clock."""
    seconds = float(pts * info.time_base)
    return seconds - info.start_offset_seconds if info.start_offset_seconds else seconds


def stream_video(
    info: SourceInfo, start_seconds: float, end_seconds: float, report: ReadReport
) -> Generator[Frame, None, None]:
    """Decode the frames with `start_seconds <= pts_seconds < end_seconds`, one at a time."""
    table = read_table(info.path, stored_pts(start_seconds, info)) if start_seconds > 0 else None
    key = table.key_before(stored_pts(start_seconds, info)) if table is not None else None
    if table is not None and key is not None:
        index = _index_after_seek(info, key, table)
        if index is not None:
            yield from _stream_from(info, (key, index), start_seconds, end_seconds, report)
            return
    yield from _stream_from(info, None, start_seconds, end_seconds, report)


def _index_after_seek(info: SourceInfo, key: int, table: TimestampTable) -> int | None:
    """Return the index of the first frame decoded after seeking to a keyframe; None if the seek lands behind it."""
    with open_container(info.path) as container:
        stream = pick_stream(container, info.path)
        container.seek(key, stream=stream)
        first = next(_decode(container, stream, ReadReport()), None)
        if first is None or first.pts is None or first.pts > max(key, int(table.shown[0])):
            return None
        return table.index_of(first.pts)


def _stream_from(
    info: SourceInfo, key_and_index: tuple[int, int] | None, start: float, end: float, report: ReadReport
) -> Iterator[Frame]:
    """Decode from a keyframe whose first frame has a known index, or from the beginning."""
    to_rgb = RgbConverter(info)
    clock = _Clock(info)
    key, first_index = key_and_index or (None, 0)
    last_end = 0.0
    with open_container(info.path) as container:
        stream = pick_stream(container, info.path)
        stream.thread_type = "AUTO"
        if key is not None:
            container.seek(key, stream=stream)
        try:
            for index, frame in enumerate(_decode(container, stream, report), start=first_index):
                if frame is None:
                    report.num_skipped += 1
                    continue
                pts_seconds = clock.seconds(frame)
                if pts_seconds >= end:
                    return
                last_end = pts_seconds + float((frame.duration or 0) * info.time_base)
                if pts_seconds >= start:
                    yield Frame(index, pts_seconds, to_rgb(frame))
            _report_truncation(container, stream, last_end, report)
        finally:
            clock.report(report)
            if report.num_skipped:
                report.problems.append(f"{report.num_skipped} damaged frames were left out")


def decode_wanted(info: SourceInfo, table: TimestampTable, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Decode the frames with the given timestamps (sorted, from the table), seeking between groups of pictures.

    What is not found where the container's seeking leads is looked for from the beginning (some MPEG-TS and AVI).
    """
    groups: dict[int, set[int]] = {}
    for pts in wanted:
        key = table.key_before(pts)
        groups.setdefault(int(table.shown[0]) if key is None else key, set()).add(pts)
    with open_container(info.path) as container:
        stream = pick_stream(container, info.path)
        # Frame threads have to fill up anew after every seek, which does not pay where seeks are many.
        stream.thread_type = "AUTO" if len(groups) <= _FEW_SEEKS else "SLICE"
        for key, members in groups.items():
            container.seek(key, stream=stream)
            yield from _decode_members(container, stream, members)
    missing = set().union(*groups.values())
    if missing:
        with open_container(info.path) as container:
            yield from _decode_members(container, pick_stream(container, info.path), missing)


def _decode_members(container: InputContainer, stream: VideoStream, left: set[int]) -> Iterator[tuple[int, VideoFrame]]:
    # H.264 marks frames that no other frame needs; they are decoded only where wanted. HEVC's mark depends on the
    # temporal layer, so there everything is decoded.
    may_skip = stream.codec_context.name == "h264"
    last = max(left)
    for packet in container.demux(stream):
        if may_skip:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in left or not packet.size else "NONREF"
        try:
            frames = stream.decode(packet if packet.size else None)
        except FFmpegError:
            frames = []
        for frame in frames:
            if frame.pts in left and not frame.is_corrupt:
                left.discard(frame.pts)
                yield frame.pts, frame
            if not left or (frame.pts is not None and frame.pts > last):
                return


def _report_truncation(container: InputContainer, stream: VideoStream, last_end: float, report: ReadReport) -> None:
    duration = _duration_seconds(container, stream)
    if stream.duration is None and container.streams.audio:
        return
    if duration - last_end > max(_TRUNCATION_SECONDS, 0.02 * duration):
        report.problems.append(f"the video is cut off: only {last_end:.2f} s of {duration:.2f} s are there")


class _Clock:
    """Seconds for decoded frames: the stored timestamps, made strictly increasing where a file's are not."""

    def __init__(self, info: SourceInfo) -> None:
        self._info = info
        self._last: float | None = None
        self._interval = float(1 / info.frame_rate) if info.frame_rate else 1 / 30
        self._num_replaced = 0

    def seconds(self, frame: VideoFrame) -> float:
        pts = frame.pts if frame.pts is not None else frame.dts
        last = self._last
        if pts is None:
            self._num_replaced += 1
            seconds = 0.0 if last is None else last + self._interval
        else:
            seconds = pts_to_seconds(pts, self._info)
            if last is not None and seconds <= last:
                self._num_replaced += 1
                seconds = last + (float(self._info.time_base) if last - seconds < self._interval else self._interval)
        self._last = seconds
        return seconds

    def report(self, report: ReadReport) -> None:
        if self._num_replaced:
            report.problems.append(f"{self._num_replaced} frames had no timestamp or one that goes back; replaced")
