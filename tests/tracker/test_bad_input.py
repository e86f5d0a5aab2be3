"""Everything a user can do wrong gives one clear line and exit status 2 (or the result of what can be read)."""

from __future__ import annotations

import errno
import os
import pickle
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.tracker.clips import write_sound
from tests.tracker.face_clips import portrait, wall, write_video
from tracker import Track, output_files
from tracker.run import main


def refused(outcome) -> str:
    """Return the one line that a run printed besides its exit status 2."""
    assert outcome.status == 2 and outcome.out == ""
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    return outcome.err


# Inputs


def test_no_such_file(cli, tmp_path):
    Path("video.mp4").write_bytes(b"x")
    assert "vidoe.mp4: no such file; did you mean video.mp4?" in refused(cli("vidoe.mp4"))
    assert "other.mov: no such file; check the name" in refused(cli("other.mov"))
    assert "a/b.mp4: no such file, and no folder a; check the path" in refused(cli("a/b.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_an_address(cli):
    assert "addresses are not read; download the file first" in refused(cli("https://example.org/video.mp4"))


@pytest.mark.parametrize("name", ["empty.mp4", "empty.png"])
def test_an_empty_file(cli, name):
    Path(name).touch()
    assert f"{name}: the file is empty (0 bytes); give a video, an image" in refused(cli(name))


@pytest.mark.parametrize("name", ["text.mp4", "text.mkv", "text"])
def test_text_that_calls_itself_a_video(cli, name):
    Path(name).write_text("Dear diary,\nthis is no video.\n" * 50)
    assert re.search(rf"{name}: (this is text|a text or playlist file|not a video)", refused(cli(name)))


def test_text_that_calls_itself_an_image(cli):
    Path("text.png").write_text("this is no image")
    assert "text.png: not an image, whatever its name says" in refused(cli("text.png"))


def test_noise_that_calls_itself_a_video(cli):
    Path("noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    assert "noise.mp4: not a video in a known format" in refused(cli("noise.mp4"))


def test_a_video_without_its_index(cli, face_clip):
    content = face_clip.read_bytes()
    Path("cut.mp4").write_bytes(content[: content.index(b"moov") - 4])
    assert "cut.mp4: the video is cut off: its index (moov) is missing" in refused(cli("cut.mp4"))


def test_a_video_that_is_cut_off_gives_what_is_there(cli, tmp_path):
    write_video(tmp_path / "whole.mkv", [portrait(index) for index in range(16)])
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: int(0.8 * len(content))])
    outcome = cli("cut.mkv", "-o", "out")
    assert outcome.status == 0 and re.search(r"note +.*(cut off|damaged)", outcome.out)
    assert 8 <= len(Track.load(tmp_path / "out")) < 16


def test_an_image_that_is_cut_off(cli, tmp_path):
    cv2.imwrite("whole.jpg", portrait())
    Path("cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:2000])
    assert "cut.jpg: the image cannot be decoded" in refused(cli("cut.jpg"))


def test_sound_only(cli, tmp_path):
    write_sound(tmp_path / "sound.m4a")
    assert "sound.m4a: holds only sound; give a file that has a picture" in refused(cli("sound.m4a"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.mp4", "holds no picture stream"), ("none.mkv", "begins like a video, but no frame of it can be read")],
)
def test_a_video_without_frames(cli, name, message):
    with av.open(name, "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.codec_context.width = stream.codec_context.height = 64
        stream.codec_context.pix_fmt = "yuv420p"
        output.start_encoding()
    assert f"{name}: {message}" in refused(cli(name))


def test_a_folder_without_images(cli, tmp_path):
    Path("folder").mkdir()
    assert "folder: a folder without images (found: nothing)" in refused(cli("folder"))
    Path("folder/notes.txt").write_text("hello")
    assert "folder: a folder without images (found: notes.txt)" in refused(cli("folder"))


def test_a_folder_of_images_of_different_sizes(cli):
    Path("folder").mkdir()
    for size in (32, 48):
        cv2.imwrite(f"folder/{size}.png", wall(size, size))
    assert "folder: images of different sizes (32.png is 32x32, 48.png is 48x48)" in refused(cli("folder"))


def test_a_folder_of_images_that_cannot_be_read(cli):
    Path("folder").mkdir()
    Path("folder/a.png").write_text("no image")
    assert "folder: none of its 1 images can be read" in refused(cli("folder"))


def test_a_pipe(cli):
    os.mkfifo("pipe.mp4")
    assert "pipe.mp4: not a regular file; give a video" in refused(cli("pipe.mp4"))


def test_an_image_format_that_is_not_read(cli):
    Path("photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert "photo.heic: .heic images are not read; save it as JPEG or PNG first" in refused(cli("photo.heic"))


def test_a_name_that_is_no_text(cli):
    name = os.fsdecode(b"\xff\xfe.mp4")
    assert "no such file" in refused(cli(name))


# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--faces", "0"], r"--faces 0: it must be from 1 to 16\."),
        (["--faces", "-1"], r"--faces -1: it must be from 1 to 16\."),
        (["--faces", "99"], r"--faces 99: it must be from 1 to 16\."),
        (["--faces", "two"], r"argument --faces: invalid int value: 'two'"),
        (["--faces"], r"argument --faces: expected one argument"),
        (["--faces", "2", "--same-person"], r"--same-person and --faces 2 contradict each other; use --faces 1\."),
        (["--panels", "--no-overlay"], r"--panels and --no-overlay contradict each other; leave one out\."),
        (["--fov", "0"], r"--fov 0: it must be from 1 to 170 degrees\."),
        (["--fov", "180"], r"--fov 180: it must be from 1 to 170 degrees\."),
        (["--fov", "nan"], r"--fov nan: it must be from 1 to 170 degrees\."),
        (["--fov", "inf"], r"--fov inf: it must be from 1 to 170 degrees\."),
        (["--start", "-1"], r"--start -1: the start is a time in seconds from 0 on"),
        (["--start", "nan"], r"--start nan: the start is a time"),
        (["--start", "inf"], r"--start inf: the start is a time"),
        (["--end", "nan"], r"--end nan: the end must be later than the start \(0 s\)"),
        (["--end", "0"], r"--end 0: the end must be later than the start \(0 s\)"),
        (["--start", "2", "--end", "1"], r"--end 1: the end must be later than the start \(2 s\)"),
        (["--max-frames", "0"], r"--max-frames 0: at least one frame is needed"),
        (["--max-frames", "1.5"], r"argument --max-frames: invalid int value: '1.5'"),
        (["--prior", "magic"], r"unknown prior 'magic'; choose one of: mediapipe"),
        (["--device", "tpu"], r"argument --device: invalid choice: 'tpu' \(choose from .*cuda.*\)"),
        (["--preset", "carefull"], r"preset 'carefull' is not known; did you mean 'careful'\?; allowed: default, fast"),
        (
            ["--set", "solver.max_iteration=3"],
            r"'solver.max_iteration' is not known; did you mean 'solver.max_iterations'",
        ),
        (["--set", "solvr.max_iterations=3"], r"unknown section 'solvr'; did you mean 'solver'\?"),
        (["--set", "solver.max_iterations"], r"'solver.max_iterations' is malformed; write section.key=value"),
        (["--set", "solver.max_iterations=many"], r"'solver.max_iterations' is 'many'; it must be a whole number"),
        (["--set", "smoothing.half_width_seconds=nan"], r"'smoothing.half_width_seconds' is 'nan'; it must be"),
        (["--set", "solver.max_iterations=-1"], r"'solver.max_iterations' is '-1'; it must be"),
        (["--set", "regularization.identity=0"], r"'regularization.identity' is '0'; it must be a number above 0\."),
        (["--set", "overlay.opacity=2"], r"is '2'; it must be a number of at least 0 and at most 1\."),
        (["--face", "2"], r"unknown option --face 2; did you mean --faces\?"),
        (["--no-overlays"], r"unknown option --no-overlays; did you mean --no-overlay\?"),
        (["--panel=1"], r"unknown option --panel=1; did you mean --panels\?"),
    ],
)
def test_options_that_cannot_be_meant(cli, face_clip, arguments, message, tmp_path):
    assert re.search(message, refused(cli(face_clip, *arguments)))
    assert list(tmp_path.iterdir()) == []


def test_no_input(cli):
    assert "the following arguments are required: INPUT" in refused(cli())


def test_cuda_where_there_is_none(cli, face_clip, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert (
        "cuda rasteriser cannot be used: no CUDA device is visible to torch; choose the cpu or auto back end"
        in refused(cli(face_clip, "--device", "cuda"))
    )


@pytest.mark.parametrize("arguments", [["--start", "100"], ["--start", "1.3", "--end", "1.31"]])
def test_a_range_without_frames(cli, face_clip, arguments):
    message = refused(cli(face_clip, "-o", "out", *arguments))
    assert re.search(r"face.mp4: no frame between .* it lasts 1\.33\d* s: change --start or --end", message)


def test_a_start_in_an_image(cli):
    cv2.imwrite("photo.png", wall())
    assert "photo.png: a single image has no time; leave out --start 1" in refused(cli("photo.png", "--start", 1))


# Head models


def test_no_such_head(cli, face_clip):
    assert "no such head file: flame.pkl; FLAME is downloaded from" in refused(cli(face_clip, "--head", "flame.pkl"))
    assert "no such head file" in refused(cli(face_clip, "--head", "."))


@pytest.mark.parametrize("name", ["head.pkl", "head.npz"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 garbage", b"\x80\x04garbage"])
def test_a_head_that_cannot_be_read(cli, face_clip, name, content):
    Path(name).write_bytes(content)
    assert name in refused(cli(face_clip, "--head", name))


@pytest.mark.parametrize("content", [{}, [1, 2], {"v_template": np.zeros((4, 3))}, "text"])
def test_a_pickle_that_is_no_head(cli, face_clip, content):
    Path("head.pkl").write_bytes(pickle.dumps(content))
    assert "head.pkl" in refused(cli(face_clip, "--head", "head.pkl"))


class _Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_a_head_that_asks_to_run_code_is_refused_and_nothing_is_run(cli, face_clip):
    Path("head.pkl").write_bytes(pickle.dumps({"v_template": _Attack()}))
    assert re.search(r"head\.pkl.*(system|run)", refused(cli(face_clip, "--head", "head.pkl")))
    assert not Path("attacked").exists()


def test_a_head_without_permission(cli, face_clip, monkeypatch):
    Path("head.pkl").write_bytes(b"x")
    _forbid(monkeypatch, "head.pkl")
    assert "head.pkl cannot be opened (Permission denied); check its permissions" in refused(
        cli(face_clip, "--head", "head.pkl")
    )


# Outputs


def _forbid(monkeypatch: pytest.MonkeyPatch, name: str, code: int = errno.EACCES) -> None:
    """Let opening a file of a name fail, for everybody (tests may run as root, who may do everything)."""
    real = Path.open

    def fail(self, *arguments, **keywords):
        if name in self.name:
            raise OSError(code, os.strerror(code), str(self))
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", fail)


def test_the_output_is_a_file(cli, face_clip):
    Path("out").write_text("mine")
    assert "out: cannot be made, a file is in its way; choose another folder with -o" in refused(
        cli(face_clip, "-o", "out")
    )
    assert "out/deep: cannot be made, a file is in its way" in refused(cli(face_clip, "-o", "out/deep"))
    assert Path("out").read_text() == "mine"


def test_the_output_may_not_be_written(cli, face_clip, monkeypatch):
    _forbid(monkeypatch, ".write-test")
    assert "out: no permission to write there; choose another folder with -o" in refused(cli(face_clip, "-o", "out"))


def test_a_place_where_no_folder_can_be_made(cli, face_clip):
    assert re.search(r"/proc/out: .*choose another.* with -o", refused(cli(face_clip, "-o", "/proc/out")))


@pytest.mark.parametrize("name", ["overlay.mp4", "overlay.png"])
def test_the_input_is_never_overwritten(cli, face_clip, name):
    if name.endswith("png"):
        cv2.imwrite(name, portrait())
    else:
        Path(name).write_bytes(face_clip.read_bytes())
    before = Path(name).read_bytes()
    assert f"{name}: the results in . would overwrite it; choose another folder with -o." in refused(
        cli(name, "-o", ".")
    )
    assert Path(name).read_bytes() == before


def test_frames_of_a_folder_are_never_overwritten(cli):
    Path("frames").mkdir()
    cv2.imwrite("frames/overlay.png", wall())
    assert "would overwrite it" in refused(cli("frames", "-o", "frames"))


def test_the_disk_is_full_when_the_track_is_saved(cli, face_clip, monkeypatch, tmp_path):
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output_files.os, "fsync", fail)
    message = refused(cli(face_clip, "-o", "out", "--max-frames", 2))
    assert "out/track.npz: the disk is full; free some space or choose another folder with -o" in message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["overlay.mp4"]


def test_the_disk_is_full_when_the_overlay_is_written(cli, face_clip, monkeypatch):
    from tracker.video_writer import VideoWriter

    def fail(self, packet) -> None:
        self._give_up()
        raise output_files.output_error(self.path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr(VideoWriter, "_mux", fail)
    assert "out/overlay.mp4: the disk is full; free some space" in refused(cli(face_clip, "-o", "out"))
    assert sorted(path.name for path in Path("out").iterdir()) == ["track.json", "track.npz"]


def test_the_folder_vanishes_while_it_is_written(cli, face_clip, monkeypatch):
    real = Track.save

    def save(self, folder) -> None:
        for path in Path(folder).iterdir():
            path.unlink()
        Path(folder).rmdir()
        real(self, folder)

    monkeypatch.setattr(Track, "save", save)
    assert "out" in refused(cli(face_clip, "-o", "out", "--max-frames", 2, "--no-overlay"))


def test_a_bug_keeps_its_traceback(face_clip, monkeypatch, tmp_path):
    def fail(*_arguments) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tracker.api.load_toolkit", fail)
    with pytest.raises(ZeroDivisionError):
        main([str(face_clip), "-o", str(tmp_path / "out")])
