"""Carry the sound of a source over into an MP4: copied as it is where MP4 holds its codec, else re-encoded to AAC."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from tracker.frames import SourceInfo

log = logging.getLogger(__name__)

COPIED_CODECS = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus"})
_SEEK_BACK_SECONDS = 1.0
_LEAD_IN_SECONDS = 0.05
_AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000)
_AAC_BITS_PER_CHANNEL = 96_000


class AudioTrack:
    """The sound of a source from one moment on, handed to a muxer piece by piece as the picture goes on.

    Times of `advance` are on the source's clock; in the output, `origin_seconds` becomes zero. Damaged sound ends the
    track with a warning; it never stops the picture.
    """

    def __init__(
        self, info: SourceInfo, output: OutputContainer, mux: Callable[[Packet], None], origin_seconds: float
    ) -> None:
        """Open the source again for its sound and add a stream to the output."""
        self._info, self._mux, self._origin = info, mux, origin_seconds
        self._source = av.open(str(info.path.absolute()), metadata_errors="replace")
        self._stream = self._source.streams.audio[0]
        self._is_copied = self._stream.codec_context.name in COPIED_CODECS
        self._encoder = self._add_stream(output)
        self._packets: Iterator[Packet] = self._read()
        self._pending: Packet | None = next(self._packets, None)

    def _add_stream(self, output: OutputContainer) -> AudioStream:
        if self._is_copied:
            return output.add_stream_from_template(self._stream)
        codec = self._stream.codec_context
        rate = codec.sample_rate if codec.sample_rate in _AAC_RATES else _AAC_RATES[0]
        layout = "mono" if codec.channels == 1 else "stereo"
        encoder = output.add_stream("aac", rate=rate)
        encoder.codec_context.layout = layout
        encoder.codec_context.bit_rate = _AAC_BITS_PER_CHANNEL * (1 if layout == "mono" else 2)
        return encoder

    def advance(self, until_seconds: float) -> None:
        """Hand over the sound that begins before a moment of the source's clock."""
        while self._pending is not None and self._seconds(self._pending) < until_seconds:
            self._hand_over(self._pending)
            self._pending = next(self._packets, None)

    def close(self) -> None:
        """Hand over what an encoder still holds and close the source; sound after the last `advance` is left out."""
        if not self._is_copied:
            for packet in self._encoder.encode(None):
                self._mux(packet)
        self._source.close()

    def _seconds(self, packet: Packet) -> float:
        return float((packet.pts or 0) * packet.time_base) - self._info.start_offset_seconds

    def _read(self) -> Iterator[Packet]:
        """Yield the packets that sound at the origin or after it.

        Copied ones begin a little earlier, since decoders need what comes before; an edit list hides that from the ear.
        """
        lead_in = _LEAD_IN_SECONDS if self._is_copied else 0.0
        try:
            if self._origin > 0:
                start = max(self._origin - _SEEK_BACK_SECONDS, 0.0) + self._info.start_offset_seconds
                self._source.seek(int(start * av.time_base))
            for packet in self._source.demux(self._stream):
                if packet.pts is None or not packet.size:
                    continue
                end_seconds = self._seconds(packet) + float((packet.duration or 0) * packet.time_base)
                if self._origin > 0 and end_seconds <= self._origin - lead_in:
                    continue
                yield packet
        except FFmpegError as error:
            log.warning("%s: the sound is damaged and ends early (%s)", self._info.path, error.strerror)

    def _hand_over(self, packet: Packet) -> None:
        shift = round((self._origin + self._info.start_offset_seconds) / packet.time_base)
        if self._is_copied:
            pts = (packet.pts or 0) - shift
            packet.pts, packet.dts = pts, pts if packet.dts is None else packet.dts - shift
            packet.stream = self._encoder
            self._mux(packet)
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            log.info("%s: a piece of the sound is damaged and is left out", self._info.path)
            return
        for frame in frames:
            frame.pts = None if frame.pts is None else frame.pts - shift
            for encoded in self._encoder.encode(frame):
                self._mux(encoded)


def open_audio(
    info: SourceInfo, output: OutputContainer, mux: Callable[[Packet], None], origin_seconds: float
) -> AudioTrack | None:
    """Open the sound of a source; None where it has none, or none that can be read (which is logged)."""
    if not info.has_audio:
        return None
    try:
        return AudioTrack(info, output, mux, origin_seconds)
    except (FFmpegError, AttributeError, ValueError) as error:
        log.warning("%s: its sound cannot be carried over (%s); the video is written without", info.path, error)
        return None
