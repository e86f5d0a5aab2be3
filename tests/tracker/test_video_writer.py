"""Written videos: the source's own times and sound, exact sizes, whole files or none."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.tracker.clips import VARIABLE_SECONDS, Sound, click_seconds, even_seconds, picture, write_clip
from tracker.errors import OutputError
from tracker.frames import FrameSource, open_source
from tracker.output_files import make_output_folder, write_image
from tracker.video_writer import VideoWriter


def copy_through(source: FrameSource, path: Path) -> Path:
    info = source.info
    with VideoWriter(path, info, info.height, info.width, start_seconds=source.start_seconds) as writer:
        for frame in source:
            writer.write(frame.image, frame.pts_seconds)
    return path


def times_of(path: Path) -> list[float]:
    return [frame.pts_seconds for frame in open_source(path)]


def only_file(path: Path) -> bool:
    return not [entry for entry in path.parent.iterdir() if entry.name.endswith(".part")]


@pytest.mark.parametrize("time_base", [Fraction(1, 1000), Fraction(1, 90000), Fraction(1001, 30000)])
def test_times_are_exactly_the_source_s(tmp_path: Path, time_base: Fraction) -> None:
    seconds = VARIABLE_SECONDS if time_base.numerator == 1 else [float(index * time_base) for index in (0, 1, 2, 5, 9)]
    source = open_source(write_clip(tmp_path / "in.mp4", seconds, time_base=time_base, options={"bf": "2"}))
    expected = times_of(source.info.path)
    path = copy_through(source, tmp_path / "out.mp4")
    assert times_of(path) == expected
    assert open_source(path).info.duration_seconds == pytest.approx(source.info.duration_seconds, abs=0.11)
    assert only_file(path)


def test_gif_times(tmp_path: Path) -> None:
    seconds = (0.0, 0.1, 0.3, 0.35)
    clip = write_clip(
        tmp_path / "in.gif", seconds, codec="gif", pixel_format="rgb8", time_base=Fraction(1, 100), tags={}
    )
    assert times_of(copy_through(open_source(clip), tmp_path / "out.mp4")) == pytest.approx(seconds)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (48, 63), (47, 64)])
def test_size_colours_and_tags(tmp_path: Path, height: int, width: int) -> None:
    info = open_source(write_clip(tmp_path / "in.mp4", aspect=Fraction(16, 15))).info
    path = tmp_path / "out.mp4"
    with VideoWriter(path, info, height, width) as writer:
        for index in range(5):
            writer.write(picture(index, height, width), index / 10)
    source = open_source(path)
    frames = list(source)
    assert max(np.abs(f.image.astype(int) - picture(f.index, height, width)).mean() for f in frames) < 4
    assert source.info.pixel_aspect_ratio == Fraction(16, 15)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.width, codec.height) == ("h264", width, height)
        assert codec.pix_fmt == ("yuv420p" if height % 2 == width % 2 == 0 else "yuv444p")
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)


def test_the_index_is_in_front(tmp_path: Path) -> None:
    data = copy_through(open_source(write_clip(tmp_path / "in.mp4")), tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    ("container", "codec", "expected"),
    [
        ("mp4", "aac", "aac"),
        ("mkv", "aac", "aac"),
        ("ts", "aac", "aac"),
        ("mp4", "libmp3lame", "mp3float"),
        ("webm", "libopus", "opus"),
        ("mov", "pcm_s16le", "aac"),
        ("mkv", "flac", "aac"),
    ],
)
def test_sound_is_carried_over_in_time(tmp_path: Path, container: str, codec: str, expected: str) -> None:
    video = {"codec": "libvpx-vp9"} if container == "webm" else {}
    time_base = Fraction(1, 90000) if container == "ts" else Fraction(1, 1000)
    clip = write_clip(tmp_path / f"in.{container}", sound=Sound(codec), time_base=time_base, **video)  # type: ignore[arg-type]
    source = open_source(clip)
    path = copy_through(source, tmp_path / "out.mp4")
    with av.open(str(path)) as written:
        assert written.streams.audio[0].codec_context.name == expected
    lead = click_seconds(clip) - source.info.start_offset_seconds
    assert click_seconds(path) == pytest.approx(lead, abs=0.003)
    assert times_of(path) == pytest.approx(times_of(clip), abs=1e-9)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le", "libmp3lame"])
@pytest.mark.parametrize("start", [0.2, 0.41, 0.7])
def test_a_cut_begins_at_zero_and_stays_in_time(tmp_path: Path, codec: str, start: float) -> None:
    clip = write_clip(tmp_path / "in.mov", even_seconds(24, 20), sound=Sound(codec))
    source = open_source(clip, start_seconds=start, end_seconds=1.0)
    first = next(iter(source)).pts_seconds
    path = copy_through(source, tmp_path / "out.mp4")
    times = times_of(path)
    assert times[0] == 0.0 and times == pytest.approx([index / 20 for index in range(len(times))])
    assert click_seconds(path) == pytest.approx(click_seconds(clip) - first, abs=0.003)
    with av.open(str(path)) as written:
        last = max(float(frame.pts * frame.time_base) for frame in written.decode(audio=0))
    assert last < times[-1] + 0.08


def test_sound_that_cannot_be_read_leaves_a_silent_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_clip(tmp_path / "in.mp4", sound=Sound()))

    def fail(*_: object) -> None:
        raise av.error.InvalidDataError(1094995529, "Invalid data")

    monkeypatch.setattr("tracker.audio_track.AudioTrack._add_stream", fail)
    path = copy_through(source, tmp_path / "out.mp4")
    assert len(times_of(path)) == 12 and not open_source(path).info.has_audio


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_video_plays(tmp_path: Path, error: type[BaseException]) -> None:
    source = open_source(write_clip(tmp_path / "in.mp4", sound=Sound()))
    path = tmp_path / "out.mp4"
    with pytest.raises(error), VideoWriter(path, source.info, 48, 64) as writer:
        for frame in source:
            writer.write(frame.image, frame.pts_seconds)
            if frame.index == 6:
                raise error
    assert times_of(path) == pytest.approx(even_seconds(7)) and only_file(path)
    assert open_source(path).info.has_audio


def test_names_that_look_like_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "at 12:30 %d é.mp4", sound=Sound())
    path = copy_through(open_source("at 12:30 %d é.mp4"), Path("file:out.mp4"))
    assert times_of(path) == list(even_seconds()) and (tmp_path / "file:out.mp4").is_file()


def test_nothing_written_leaves_no_file(tmp_path: Path) -> None:
    info = open_source(write_clip(tmp_path / "in.mp4", (0.0,))).info
    writer = VideoWriter(tmp_path / "out.mp4", info, 48, 64)
    writer.close()
    writer.close()
    assert not (tmp_path / "out.mp4").exists() and only_file(tmp_path / "out.mp4")


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("old")
    info = open_source(write_clip(tmp_path / "in.mp4", (0.0,))).info
    with VideoWriter(path, info, 48, 64) as writer:
        writer.write(picture(0), 0.0)
        assert path.read_text() == "old"
    assert times_of(path) == [0.0]


def test_wrong_pictures_and_times_are_refused(tmp_path: Path) -> None:
    info = open_source(write_clip(tmp_path / "in.mp4", (0.0,))).info
    with VideoWriter(tmp_path / "out.mp4", info, 48, 64) as writer:
        writer.write(picture(0), 0.5)
        with pytest.raises(ValueError, match=r"expected \(48, 64, 3\) uint8, got \(47, 64, 3\)"):
            writer.write(picture(0, 47), 0.6)
        with pytest.raises(ValueError, match="times must increase, got 0.5 s after 0.5 s"):
            writer.write(picture(0), 0.5)
    with pytest.raises(ValueError, match="closed already"):
        writer.write(picture(0), 0.7)


def test_no_such_folder(tmp_path: Path) -> None:
    info = open_source(write_clip(tmp_path / "in.mp4", (0.0,))).info
    with pytest.raises(OutputError, match="there is no folder .*nowhere"):
        VideoWriter(tmp_path / "nowhere" / "out.mp4", info, 48, 64)


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    (tmp_path / ".out.mp4.part").symlink_to(full)
    source = open_source(write_clip(tmp_path / "in.mp4", sound=Sound()))
    with pytest.raises(OutputError, match="the disk is full; free some space") as caught:
        copy_through(source, tmp_path / "out.mp4")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.mp4").exists() and only_file(tmp_path / "out.mp4")


def test_a_disk_that_fills_up_midway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_clip(tmp_path / "in.mp4"))
    info = source.info
    path = tmp_path / "out.mp4"

    class FullContainer:
        def mux(self, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full"), VideoWriter(path, info, 48, 64) as writer:
        monkeypatch.setattr(writer, "_container", FullContainer())
        for frame in source:
            writer.write(frame.image, frame.pts_seconds)
    assert not path.exists() and only_file(path)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = open_source(write_clip(tmp_path / "in.mp4", (0.0,))).info

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="no permission to write there; choose another folder with -o"):
        VideoWriter(tmp_path / "out.mp4", info, 48, 64)


def test_write_image(tmp_path: Path) -> None:
    write_image(tmp_path / "overlay.png", picture(0))
    (frame,) = open_source(tmp_path / "overlay.png")
    assert np.array_equal(frame.image, picture(0)) and only_file(tmp_path / "overlay.png")
    with pytest.raises(OutputError, match="there is no folder"):
        write_image(tmp_path / "nowhere" / "overlay.png", picture(0))
    with pytest.raises(OutputError, match=".abc is no image format; use .png or .jpg"):
        write_image(tmp_path / "overlay.abc", picture(0))


def test_output_folder(tmp_path: Path) -> None:
    assert make_output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="a file is in its way"):
            make_output_folder(path)
