"""Streaming: times, order, turn, colours, ranges, damage and every kind of bad input."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flame.errors import AssetMissingError, InputError
from tests.tracker.clips import (
    VARIABLE_SECONDS,
    Sound,
    even_seconds,
    picture,
    set_display_matrix,
    write_clip,
    write_sound,
)
from tracker.frames import Frame, open_source

CODING_LOSS = 4.0
TURNS = {
    "as stored": ((1, 0, 0, 1), lambda image: image, 0, False),
    "90 clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1), 90, False),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2), 180, False),
    "270 clockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1), 270, False),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1], 0, True),
    "upside down mirrored": ((1, 0, 0, -1), lambda image: image[::-1], 180, True),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1), 90, True),
    "transverse": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1), 270, True),
}


def read_all(path: Path, **limits: float) -> list[Frame]:
    with open_source(path, **limits) as source:  # type: ignore[arg-type]
        return list(source)


def difference(image: np.ndarray, expected: np.ndarray) -> float:
    assert image.shape == expected.shape
    return float(np.abs(image.astype(int) - expected).mean())


def rgb_of(y: float, u: float, v: float, matrix: str, is_full: bool) -> np.ndarray:
    red_weight, blue_weight = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}[matrix]
    luma, scale = (y / 255, 255) if is_full else ((y - 16) / 219, 224)
    red = luma + 2 * (1 - red_weight) * (v - 128) / scale
    blue = luma + 2 * (1 - blue_weight) * (u - 128) / scale
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return np.clip(np.array([red, green, blue]) * 255, 0, 255)


@pytest.mark.parametrize("seconds", [even_seconds(), VARIABLE_SECONDS], ids=["constant", "variable"])
def test_times_indices_and_pictures_come_out_as_stored(tmp_path: Path, seconds: tuple[float, ...]) -> None:
    path = write_clip(tmp_path / "clip.mp4", seconds)
    frames = read_all(path)
    assert [frame.pts_seconds for frame in frames] == list(seconds)
    assert [frame.index for frame in frames] == list(range(len(seconds)))
    assert max(difference(frame.image, picture(frame.index)) for frame in frames) < CODING_LOSS
    assert all(frame.image.flags.c_contiguous for frame in frames)


def test_info_describes_the_source(tmp_path: Path) -> None:
    info = open_source(write_clip(tmp_path / "clip.mp4", sound=Sound())).info
    assert (info.kind, info.width, info.height, info.num_frames) == ("video", 64, 48, 12)
    assert info.frame_rate == 10 and info.has_audio and not info.is_hdr and info.bit_depth == 8
    assert info.duration_seconds == pytest.approx(1.2, abs=0.11)


def test_a_late_container_start_counts_as_zero(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.ts", [2.0 + moment for moment in even_seconds()], time_base=Fraction(1, 90000))
    source = open_source(path)
    assert source.info.start_offset_seconds == pytest.approx(2.0)
    assert [frame.pts_seconds for frame in source] == pytest.approx(even_seconds(), abs=1e-9)


def test_iterating_again_starts_again_and_closing_midway_is_fine(tmp_path: Path) -> None:
    source = open_source(write_clip(tmp_path / "clip.mp4"))
    first = next(iter(source))
    again = next(iter(source))
    source.close()
    assert first.index == again.index == 0 and np.array_equal(first.image, again.image)
    assert len(list(source)) == 12


@pytest.mark.parametrize("turn", TURNS)
def test_display_matrix_is_applied(tmp_path: Path, turn: str) -> None:
    matrix, apply, degrees, is_mirrored = TURNS[turn]
    path = write_clip(tmp_path / "clip.mp4", aspect=Fraction(4, 3))
    set_display_matrix(path, *matrix)
    source = open_source(path)
    frame = next(iter(source))
    assert difference(frame.image, apply(picture(0))) < CODING_LOSS
    assert frame.image.shape[:2] == (source.info.height, source.info.width)
    assert (source.info.rotation_degrees, source.info.is_mirrored) == (degrees, is_mirrored)
    assert source.info.pixel_aspect_ratio == (Fraction(3, 4) if degrees in (90, 270) else Fraction(4, 3))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "bgr0"])
def test_odd_sizes(tmp_path: Path, pixel_format: str) -> None:
    tags = {} if pixel_format == "bgr0" else None
    path = write_clip(tmp_path / "odd.mkv", height=47, width=63, codec="ffv1", pixel_format=pixel_format, tags=tags)
    frames = read_all(path)
    assert difference(frames[3].image, picture(3, 47, 63)) < (0.5 if pixel_format == "bgr0" else CODING_LOSS)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize(("matrix", "tag"), [("601", 5), ("601", 6), ("709", 1), ("2020", 9)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv422p10le"])
def test_matrix_and_range_follow_the_tags(
    tmp_path: Path, matrix: str, tag: int, is_full: bool, pixel_format: str
) -> None:
    scale = 4 if "10" in pixel_format else 1
    tags = {"colorspace": tag, "color_range": 2 if is_full else 1}
    path = write_clip(
        tmp_path / "flat.mkv",
        (0.0,),
        codec="ffv1",
        pixel_format=pixel_format,
        tags=tags,
        planes=(120 * scale, 90 * scale, 170 * scale),
    )
    (frame,) = read_all(path)
    assert np.abs(frame.image.reshape(-1, 3) - rgb_of(120, 90, 170, matrix, is_full)).max() < 3


@pytest.mark.parametrize(("height", "width", "matrix"), [(48, 64, "601"), (720, 64, "709"), (48, 1280, "709")])
def test_untagged_video_is_taken_as_players_do(tmp_path: Path, height: int, width: int, matrix: str) -> None:
    path = write_clip(
        tmp_path / "flat.mkv", (0.0,), height=height, width=width, codec="ffv1", tags={}, planes=(120, 90, 170)
    )
    (frame,) = read_all(path)
    assert np.abs(frame.image.reshape(-1, 3) - rgb_of(120, 90, 170, matrix, False)).max() < 3


def test_ten_bit_video(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "ten.mkv", codec="ffv1", pixel_format="yuv420p10le")
    source = open_source(path)
    assert source.info.bit_depth == 10 and not source.info.is_hdr
    assert max(difference(frame.image, picture(frame.index)) for frame in source) < CODING_LOSS


@pytest.mark.parametrize(
    ("curve", "signal", "expected"),
    [
        ("pq", 0.0, 0),
        ("pq", 0.5806888, 225),  # 203 cd/m2, reference white (BT.2408)
        ("pq", 0.4160, 118),  # 18 % of reference white keeps its place: sRGB 118
        ("pq", 0.7518271, 255),  # 1000 cd/m2
        ("pq", 1.0, 255),
        ("hlg", 0.0, 0),
        ("hlg", 0.75, 225),  # reference white (BT.2408)
        ("hlg", 1.0, 255),
    ],
)
def test_high_dynamic_range_is_tone_mapped(tmp_path: Path, curve: str, signal: float, expected: int) -> None:
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": {"pq": 16, "hlg": 18}[curve], "color_range": 1}
    path = write_clip(
        tmp_path / "hdr.mkv",
        (0.0,),
        codec="ffv1",
        pixel_format="yuv420p10le",
        tags=tags,
        planes=(round(64 + 876 * signal), 512, 512),
    )
    source = open_source(path)
    (frame,) = source
    assert source.info.is_hdr and source.info.transfer == curve
    assert np.abs(frame.image.astype(int) - expected).max() <= 3


def test_gif_with_uneven_times(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "clip.gif",
        (0.0, 0.1, 0.3, 0.35),
        codec="gif",
        pixel_format="rgb8",
        time_base=Fraction(1, 100),
        tags={},
    )
    source = open_source(path)
    frames = list(source)
    assert source.info.kind == "video"
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0.0, 0.1, 0.3, 0.35])
    assert difference(frames[0].image, picture(0)) < 25  # 256 colours


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clip with B-frames, several keyframes and uneven times."""
    seconds = [index / 25 + (0.011 if index % 3 == 0 else 0.0) for index in range(40)]
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", seconds, options={"g": "9", "bf": "3"})


@given(start=st.floats(0, 1.5), length=st.floats(0.09, 1.0), max_frames=st.none() | st.integers(1, 9))
def test_a_range_is_a_slice_of_the_whole(long_clip: Path, start: float, length: float, max_frames: int | None) -> None:
    expected = [frame for frame in read_all(long_clip) if start <= frame.pts_seconds < start + length][:max_frames]
    frames = list(open_source(long_clip, start_seconds=start, end_seconds=start + length, max_frames=max_frames))
    assert [(frame.index, frame.pts_seconds) for frame in frames] == [
        (frame.index, frame.pts_seconds) for frame in expected
    ]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, expected, strict=True))


def test_a_start_inside_a_transport_stream(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.ts", time_base=Fraction(1, 90000), options={"g": "4", "bf": "0"})
    frames = read_all(path, start_seconds=0.55)
    assert [frame.index for frame in frames] == list(range(6, 12))
    assert difference(frames[0].image, picture(6)) < CODING_LOSS


def test_timestamps_that_go_back_are_made_to_increase(tmp_path: Path) -> None:
    part = write_clip(tmp_path / "part.ts", time_base=Fraction(1, 90000)).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    source = open_source(tmp_path / "joined.ts")
    seconds = [frame.pts_seconds for frame in source]
    assert len(seconds) == 24 and all(np.diff(seconds) > 0)
    assert any("timestamp" in problem for problem in source.problems)


def test_damaged_frames_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", codec="png", pixel_format="rgb24", tags={})
    with av.open(str(path)) as container:
        positions = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in positions[4:6]:
        data[position : position + size] = bytes(size)
    path.write_bytes(bytes(data))
    source = open_source(path)
    assert [frame.index for frame in source] == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]
    assert source.num_skipped == 2
    assert any("2 damaged frames" in problem for problem in source.problems)


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_never_crashes(tmp_path: Path, seed: int) -> None:
    path = write_clip(tmp_path / "clip.mp4", muxer={"movflags": "+faststart"}, options={"g": "4"})
    data = bytearray(path.read_bytes())
    # The first packet begins with the encoder's settings; the pictures lie behind.
    for position in np.random.default_rng(seed).integers(len(data) - 400, len(data), size=6):
        data[position] ^= 0x5A
    path.write_bytes(bytes(data))
    source = open_source(path)
    assert len(list(source)) >= 3


def test_a_video_that_is_cut_off_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", muxer={"movflags": "+faststart"}, options={"g": "1"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    source = open_source(path)
    assert 3 <= len(list(source)) <= 8
    assert any("cut off" in problem for problem in source.problems)


def test_a_whole_video_has_no_problems(tmp_path: Path) -> None:
    source = open_source(write_clip(tmp_path / "clip.mp4", VARIABLE_SECONDS, sound=Sound()))
    assert len(list(source)) == 12 and source.problems == () and source.num_skipped == 0


def make_no_file(folder: Path) -> Path:
    write_clip(folder / "holiday.mp4", (0.0,))
    return folder / "holidy.mp4"


def make_text(folder: Path) -> Path:
    (folder / "text.mp4").write_text("Dear diary, this is not a video.\n" * 40)
    return folder / "text.mp4"


def make_empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def make_noise(folder: Path) -> Path:
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder / "noise.mp4"


def make_without_index(folder: Path) -> Path:
    path = write_clip(folder / "clip.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 40])
    return path


def make_without_frames(folder: Path) -> Path:
    path = write_clip(folder / "clip.mp4", muxer={"movflags": "+faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 8])
    return path


def make_empty_folder(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    (folder / "pictures" / "notes.txt").write_text("none")
    return folder / "pictures"


def make_text_playlist(folder: Path) -> Path:
    (folder / "diary.txt").write_text("Dear diary\n" * 40)
    return folder / "diary.txt"


BAD_INPUTS = [
    (make_no_file, AssetMissingError, "no such file; did you mean .*holiday.mp4"),
    (lambda folder: folder / "nowhere" / "clip.mp4", AssetMissingError, "no such file, and no folder"),
    (lambda folder: Path("https://example.org/clip.mp4"), InputError, "download the file first"),
    (make_text, InputError, "this is text"),
    (make_text_playlist, InputError, "text"),
    (make_empty, InputError, "the file is empty"),
    (make_noise, InputError, "not a video in a known format|no picture|no frame"),
    (make_without_index, InputError, "cut off: its index"),
    (make_without_frames, InputError, "no frame of this video can be decoded"),
    (lambda folder: write_sound(folder / "song.m4a"), InputError, "holds only sound"),
    (make_empty_folder, InputError, "a folder without images .found: notes.txt."),
    (lambda folder: Path("/dev/null"), InputError, "not a regular file"),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD_INPUTS)
def test_bad_input_is_one_clear_line(tmp_path: Path, make: object, kind: type[Exception], message: str) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(kind, match=message) as caught:
        open_source(path)
    assert "\n" not in str(caught.value) and Path(path).name in str(caught.value)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="no permission to read"):
        open_source(path)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"start_seconds": -1.0}, "--start -1: .* from 0 on"),
        ({"start_seconds": float("nan")}, "--start nan"),
        ({"start_seconds": 1.0, "end_seconds": 0.5}, "--end 0.5: the end must be later than the start .1 s."),
        ({"end_seconds": 0.0}, "--end 0"),
        ({"max_frames": 0}, "--max-frames 0"),
    ],
)
def test_contradictory_ranges(tmp_path: Path, limits: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(write_clip(tmp_path / "clip.mp4", (0.0,)), **limits)  # type: ignore[arg-type]


def test_a_range_without_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="no frame between 90 s and its end; it lasts 1.2 s"):
        read_all(path, start_seconds=90.0)
    with pytest.raises(InputError, match="no frame between 0.11 s and 0.12 s"):
        read_all(path, start_seconds=0.11, end_seconds=0.12)


def test_content_hash_depends_on_content_only(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.mp4", (0.0,))
    copy = tmp_path / "b.mp4"
    copy.write_bytes(first.read_bytes())
    other = write_clip(tmp_path / "c.mp4", (0.0, 0.1))
    hashes = [open_source(path).info.content_sha256 for path in (first, copy, other)]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 64
