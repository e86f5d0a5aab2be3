"""Decoded frames to upright standard-range RGB: matrices, ranges, alpha, rotation, high dynamic range.

YUV to RGB uses the matrix and the range that the frame is tagged with; an untagged frame is taken as players take it:
BT.709 from 720 lines (or 1280 columns) on, BT.601 below, limited range. Transparent pixels are laid over white.

PQ (SMPTE ST 2084) and HLG (ARIB STD-B67) frames are tone mapped per channel: signal -> light (BT.2100), in units of
the 203 cd/m2 of reference white (BT.2408) -> a curve that keeps everything below half of reference white and rolls the
rest, up to 1000 cd/m2, into the range -> BT.2020 to BT.709 primaries -> sRGB curve. All curves are tables; one 3x3
product is the only arithmetic on pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from tracker.frames.types import SourceInfo, Transfer

# Values of AVColorSpace, AVColorRange and AVColorTransferCharacteristic (ITU-T H.273), and of swscale's SWS_CS_*.
_MATRIX_RGB, _MATRIX_BT709, _MATRIX_UNSPECIFIED, _MATRIX_FCC = 0, 1, 2, 4
_MATRIX_SMPTE240M, _MATRIX_BT2020_NCL, _MATRIX_BT2020_CL = 7, 9, 10
_SWS_BT709, _SWS_FCC, _SWS_BT601, _SWS_SMPTE240M, _SWS_BT2020 = 1, 4, 5, 7, 9
_SWS_FROM_MATRIX = {
    _MATRIX_BT709: _SWS_BT709,
    _MATRIX_FCC: _SWS_FCC,
    _MATRIX_SMPTE240M: _SWS_SMPTE240M,
    _MATRIX_BT2020_NCL: _SWS_BT2020,
    _MATRIX_BT2020_CL: _SWS_BT2020,
}
_RANGE_LIMITED, _RANGE_FULL = 1, 2
_TRANSFER_PQ, _TRANSFER_HLG = 16, 18
_FULL_RANGE_FORMATS = ("yuvj", "rgb", "bgr", "gbr", "rgba", "bgra", "argb", "abgr", "0rgb", "0bgr", "pal8")

_REFERENCE_WHITE_NITS = 203.0
_PEAK_NITS = 1000.0
_KNEE = 0.5
_TABLE_BITS = 12
# ITU-R BT.2087: linear BT.2020 to linear BT.709.
_BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)


@dataclass(frozen=True)
class Orientation:
    """Right-angle turn and flips that make a stored picture upright: transpose first, then the flips."""

    is_transposed: bool = False
    is_flipped_x: bool = False
    is_flipped_y: bool = False

    @property
    def is_mirrored(self) -> bool:
        """Tell whether left and right are swapped besides the turn."""
        return self.is_transposed ^ self.is_flipped_x ^ self.is_flipped_y

    @property
    def rotation_degrees(self) -> int:
        """Return the clockwise turn; where the picture is mirrored too, the turn before the left-right flip."""
        flip_x = self.is_flipped_x ^ self.is_mirrored
        if self.is_transposed:
            return 90 if flip_x else 270
        return 180 if flip_x else 0

    @classmethod
    def from_turn(cls, rotation_degrees: int, is_mirrored: bool) -> Orientation:
        """Build the inverse of the two properties: turn clockwise, then flip left-right where mirrored."""
        return cls(
            is_transposed=rotation_degrees in (90, 270),
            is_flipped_x=(rotation_degrees in (90, 180)) ^ is_mirrored,
            is_flipped_y=rotation_degrees in (180, 270),
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the upright picture, contiguous."""
        if self.is_transposed:
            image = image.swapaxes(0, 1)
        if self.is_flipped_x:
            image = image[:, ::-1]
        if self.is_flipped_y:
            image = image[::-1]
        return np.ascontiguousarray(image)


def orientation_of(frame: VideoFrame) -> Orientation:
    """Read the display matrix (nine 16.16 integers, row vectors: x' = a x + c y, y' = b x + d y) to right angles."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        return Orientation(is_transposed=True, is_flipped_x=c < 0, is_flipped_y=b < 0)
    return Orientation(is_flipped_x=a < 0, is_flipped_y=d < 0)


def transfer_of(color_trc: int) -> Transfer:
    """Name the curve of a stream's transfer tag (ITU-T H.273 code)."""
    return {_TRANSFER_PQ: "pq", _TRANSFER_HLG: "hlg"}.get(int(color_trc), "sdr")  # type: ignore[return-value]


class RgbConverter:
    """Turn decoded frames of one stream into upright RGB uint8 arrays of one size.

    A frame of another size (streams may change in the middle) is resampled to the first one's.
    """

    def __init__(self, info: SourceInfo) -> None:
        """Take size, turn and curve from what the probe found."""
        self._orientation = Orientation.from_turn(info.rotation_degrees, info.is_mirrored)
        self._width, self._height = info.width, info.height
        if self._orientation.is_transposed:
            self._width, self._height = info.height, info.width
        self._transfer: Transfer = info.transfer
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return the (height, width, 3) uint8 picture, after rotation."""
        has_alpha = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
        if self._transfer != "sdr":
            rgb = tone_map(self._reformat(frame, "rgb48le"), self._transfer)
        elif has_alpha:
            rgb = over_white(self._reformat(frame, "rgba"))
        else:
            rgb = self._reformat(frame, "rgb24")
        return self._orientation.apply(rgb)

    def _reformat(self, frame: VideoFrame, pixel_format: str) -> np.ndarray:
        converted = self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format=pixel_format,
            src_colorspace=_source_matrix(frame),
            dst_colorspace=_SWS_BT601,
            src_color_range=_source_range(frame),
            dst_color_range=_RANGE_FULL,
        )
        return converted.to_ndarray()


def _source_matrix(frame: VideoFrame) -> int:
    matrix = int(frame.colorspace)
    if matrix in (_MATRIX_UNSPECIFIED, _MATRIX_RGB):
        return _SWS_BT709 if frame.height >= 720 or frame.width >= 1280 else _SWS_BT601
    return _SWS_FROM_MATRIX.get(matrix, _SWS_BT601)


def _source_range(frame: VideoFrame) -> int:
    tagged = int(frame.color_range)
    if tagged in (_RANGE_LIMITED, _RANGE_FULL):
        return tagged
    return _RANGE_FULL if frame.format.name.startswith(_FULL_RANGE_FORMATS) else _RANGE_LIMITED


def over_white(rgba: np.ndarray) -> np.ndarray:
    """Lay a (height, width, 4) uint8 picture with straight alpha over white; returns (height, width, 3) uint8."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha.astype(np.uint16)
    return ((rgba[..., :3] * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def tone_map(signal: np.ndarray, transfer: Transfer) -> np.ndarray:
    """Map a (height, width, 3) uint16 full-scale BT.2020 signal to (height, width, 3) uint8 sRGB."""
    light = _light_table(transfer)[signal >> (16 - _TABLE_BITS)]
    linear = cv2.transform(light, _BT709_FROM_BT2020)
    levels = np.clip(linear * (2**_TABLE_BITS - 1) + 0.5, 0, 2**_TABLE_BITS - 1).astype(np.uint16)
    return _encoding_table()[levels]


@lru_cache(maxsize=2)
def _light_table(transfer: Transfer) -> np.ndarray:
    signal = np.linspace(0.0, 1.0, 2**_TABLE_BITS)
    nits = _pq_nits(signal) if transfer == "pq" else _hlg_nits(signal)
    relative = np.minimum(nits, _PEAK_NITS) / _REFERENCE_WHITE_NITS
    excess = np.maximum(relative - _KNEE, 0.0) / (1.0 - _KNEE)
    white = (_PEAK_NITS / _REFERENCE_WHITE_NITS - _KNEE) / (1.0 - _KNEE)
    rolled = excess * (1.0 + excess / white**2) / (1.0 + excess)
    return (np.minimum(relative, _KNEE) + (1.0 - _KNEE) * rolled).astype(np.float32)


def _pq_nits(signal: np.ndarray) -> np.ndarray:
    """Return the light in cd/m2 of a PQ signal in [0, 1] (BT.2100 table 4)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    return 10000.0 * (np.maximum(root - c1, 0.0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg_nits(signal: np.ndarray) -> np.ndarray:
    """Return the light in cd/m2 of an HLG signal in [0, 1] on a 1000 cd/m2 display (BT.2100 table 5).

    The display's system gamma of 1.2 acts on each channel here, not on luminance.
    """
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3.0, (np.exp((signal - c) / a) + b) / 12.0)
    return _PEAK_NITS * scene**1.2


@lru_cache(maxsize=1)
def _encoding_table() -> np.ndarray:
    linear = np.linspace(0.0, 1.0, 2**_TABLE_BITS)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255.0).astype(np.uint8)
