"""Random access gives what streaming gives: the same pictures, times and indices, by either reader."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flame.errors import AssetMissingError
from tests.tracker.clips import VARIABLE_SECONDS, even_seconds, picture, set_display_matrix, write_clip
from tracker.frames import Frame, frame_seconds, open_source, read_frames_at

B_FRAMES = {"g": "5", "bf": "2"}
HDR = {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1}


def make_turned(path: Path) -> Path:
    write_clip(path)
    set_display_matrix(path, 0, 1, -1, 0)
    return path


def make_joined(path: Path) -> Path:
    part = write_clip(path, time_base=Fraction(1, 90000)).read_bytes()
    path.write_bytes(part + part)
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    for index in range(7):
        Image.fromarray(picture(index)).save(path / f"frame{index}.png")
    return path


def make_image(path: Path) -> Path:
    Image.fromarray(picture(0)).save(path)
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    "constant.mp4": lambda path: write_clip(path),
    "b_frames.mp4": lambda path: write_clip(path, even_seconds(30, 25), options=B_FRAMES),
    "variable.mp4": lambda path: write_clip(path, VARIABLE_SECONDS, options=B_FRAMES),
    "variable.mkv": lambda path: write_clip(path, VARIABLE_SECONDS, options=B_FRAMES),
    "turned.mp4": make_turned,
    "hevc.mp4": lambda path: write_clip(
        path, even_seconds(30, 25), codec="libx265", options={"x265-params": "log-level=0"}
    ),
    "ten_bit.mkv": lambda path: write_clip(path, codec="ffv1", pixel_format="yuv420p10le"),
    "hdr.mkv": lambda path: write_clip(path, codec="ffv1", pixel_format="yuv420p10le", tags=HDR),
    "odd.mkv": lambda path: write_clip(path, height=47, width=63, codec="ffv1", pixel_format="yuv444p"),
    "mpeg4.avi": lambda path: write_clip(path, codec="mpeg4", time_base=Fraction(1, 10), options=B_FRAMES),
    "stream.ts": lambda path: write_clip(path, time_base=Fraction(1, 90000), options=B_FRAMES),
    "joined.ts": make_joined,
    "clip.gif": lambda path: write_clip(path, codec="gif", pixel_format="rgb8", time_base=Fraction(1, 100), tags={}),
    "folder": make_folder,
    "image.png": make_image,
}


@pytest.fixture(scope="module", params=MAKERS)
def source_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp("clips") / request.param)


def assert_same(frame: Frame, expected: Frame) -> None:
    assert (frame.index, frame.pts_seconds) == (expected.index, expected.pts_seconds)
    assert frame.image.shape == expected.image.shape
    assert np.abs(frame.image.astype(int) - expected.image).mean() < 1.5


@pytest.mark.parametrize("reader", ["auto", "pyav", "decord"])
def test_same_as_streaming(source_path: Path, reader: str) -> None:
    if reader == "decord":
        pytest.importorskip("decord")
    streamed = list(open_source(source_path))
    assert frame_seconds(source_path).tolist() == [frame.pts_seconds for frame in streamed]
    order = np.random.default_rng(3).permutation(len(streamed)).tolist()
    frames = read_frames_at(source_path, [streamed[index].pts_seconds for index in order], reader=reader)  # type: ignore[arg-type]
    assert len(frames) == len(order)
    for frame, index in zip(frames, order, strict=True):
        assert_same(frame, streamed[index])


@pytest.fixture(scope="module")
def variable_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "variable.mp4", VARIABLE_SECONDS, options=B_FRAMES)


@given(seconds=st.lists(st.floats(-1.0, 3.0), max_size=6))
def test_the_frame_on_show_at_any_time(variable_clip: Path, seconds: list[float]) -> None:
    frames = read_frames_at(variable_clip, seconds)
    assert [frame.index for frame in frames] == [
        max((i for i, begin in enumerate(VARIABLE_SECONDS) if begin <= moment + 1e-6), default=0) for moment in seconds
    ]


def test_decord_is_left_aside_where_it_differs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("decord")
    path = write_clip(tmp_path / "hdr.mkv", codec="ffv1", pixel_format="yuv420p10le", tags=HDR)
    with caplog.at_level(logging.INFO):
        read_frames_at(path, [0.0, 0.5], reader="decord")
    assert "PyAV reads it" in caplog.text or "PyAV does" in caplog.text


def test_a_damaged_frame_is_left_out(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", codec="png", pixel_format="rgb24", tags={})
    data = bytearray(path.read_bytes())
    marks = [position for position in range(len(data)) if data[position : position + 4] == b"\x89PNG"]
    data[marks[5] : marks[6]] = bytes(marks[6] - marks[5])
    path.write_bytes(bytes(data))
    assert [frame.index for frame in read_frames_at(path, [0.4, 0.5, 0.6])] == [4, 6]


def test_nothing_asked_nothing_read(variable_clip: Path) -> None:
    assert read_frames_at(variable_clip, []) == []


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(AssetMissingError, match="no such file"):
        read_frames_at(tmp_path / "none.mp4", [0.0])
