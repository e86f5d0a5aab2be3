"""Ctrl-C and kills: whatever was tracked is left in files that can be used."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tracker.face_clips import portrait, read_video, write_video
from tracker import Track, clip, command_line, interruption
from tracker.faces import FaceFollower
from tracker.interruption import held_back
from tracker.pictures import Painter
from tracker.stream import PersonStream
from tracker.video_writer import VideoWriter

ROOT = Path(__file__).parents[2]
NUM_FRAMES = 24


@pytest.fixture(scope="module")
def clip_24(clip_folder) -> Path:
    """Return 24 frames of a face."""
    return write_video(clip_folder / "moving.mp4", [portrait(index, NUM_FRAMES) for index in range(NUM_FRAMES)])


@pytest.fixture(autouse=True)
def hear_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C be heard, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, at: int, number: int, times: int = 1) -> None:
    """Send a signal to this process in the call number ``at`` of a function, before its work."""
    real, calls = getattr(owner, name), []

    def press(*arguments, **keywords):
        calls.append(name)
        if len(calls) == at:
            for _ in range(times):
                signal.raise_signal(number)
        return real(*arguments, **keywords)

    monkeypatch.setattr(owner, name, press)


def check_usable(folder: Path, *, at_least: int = 1) -> Track:
    """Load what an interrupted run has left."""
    track = Track.load(folder)
    assert at_least <= len(track) <= NUM_FRAMES
    assert track.info["is_complete"] is False
    pictures = read_video(folder / "overlay.mp4")
    assert 0 <= len(track) - len(pictures) <= 1
    assert sorted(path.name for path in folder.iterdir()) == ["overlay.mp4", "track.json", "track.npz"]
    return track


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("owner", "name"), [(Painter, "paint"), (VideoWriter, "_encode"), (PersonStream, "solve"), (clip, "TrackedFrame")]
)
def test_what_was_tracked_is_left(cli, clip_24, monkeypatch, tmp_path, owner, name, number):
    press_at(monkeypatch, owner, name, 12, number)
    outcome = cli(clip_24, "-o", "out")
    assert (outcome.status, outcome.out) == (130, "")
    assert outcome.err == "interrupted: what was tracked until now is in out\n"
    assert len(check_usable(tmp_path / "out", at_least=3)) < NUM_FRAMES
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_threads_end_with_the_run(cli, clip_24, monkeypatch):
    before = threading.active_count()
    press_at(monkeypatch, Painter, "paint", 5, signal.SIGINT)
    assert cli(clip_24, "-o", "out").status == 130
    time.sleep(0.1)
    assert threading.active_count() == before


@pytest.mark.parametrize(("owner", "name"), [(Track, "save"), (VideoWriter, "close")])
def test_pressing_again_while_the_files_are_finished_changes_nothing(cli, clip_24, monkeypatch, tmp_path, owner, name):
    press_at(monkeypatch, Painter, "paint", 9, signal.SIGINT)
    press_at(monkeypatch, owner, name, 1, signal.SIGINT, times=3)
    outcome = cli(clip_24, "-o", "out")
    assert outcome.status == 130 and "Traceback" not in outcome.err
    check_usable(tmp_path / "out", at_least=8)


def test_pressing_while_a_complete_run_is_saved_keeps_it_complete(cli, clip_24, monkeypatch, tmp_path):
    press_at(monkeypatch, Track, "save", 1, signal.SIGINT)
    assert cli(clip_24, "-o", "out").status == 130
    track = Track.load(tmp_path / "out")
    assert track.info["is_complete"] is True and len(track) == NUM_FRAMES
    assert len(read_video(tmp_path / "out" / "overlay.mp4")) == NUM_FRAMES


@pytest.mark.parametrize(("owner", "name"), [(clip.Lookout, "at"), (clip, "solve_person"), (clip, "read_frames_at")])
def test_pressing_while_the_clip_is_scouted(cli, clip_24, monkeypatch, tmp_path, owner, name):
    press_at(monkeypatch, owner, name, 1, signal.SIGINT)
    outcome = cli(clip_24, "-o", "out")
    assert (outcome.status, outcome.out, outcome.err) == (130, "", "interrupted: nothing was tracked yet\n")
    assert not (tmp_path / "out" / "track.npz").exists()


def test_an_interruption_that_a_library_swallows_counts_all_the_same(cli, clip_24, monkeypatch, tmp_path):
    def swallow(*_arguments) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(command_line, "check_system_libraries", swallow)
    assert cli(clip_24, "-o", "out").status == 130
    assert not (tmp_path / "out").exists()


def test_an_interruption_of_compiled_code_counts_all_the_same(cli, clip_24, monkeypatch, tmp_path):
    real, calls = PersonStream.solve, []

    def solve(self, *arguments):
        calls.append(1)
        if len(calls) == 12:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                raise SystemError("returned a result with an exception set") from error
        return real(self, *arguments)

    monkeypatch.setattr(PersonStream, "solve", solve)
    assert cli(clip_24, "-o", "out").status == 130
    check_usable(tmp_path / "out", at_least=3)


def test_inputs_that_were_finished_stay_finished(cli, face_clip, clip_24, monkeypatch, tmp_path):
    press_at(monkeypatch, Painter, "paint", 16 + 5, signal.SIGINT)
    outcome = cli(face_clip, clip_24, "-o", "out")
    assert outcome.status == 130 and outcome.out.count("  files     ") == 1
    assert Track.load(tmp_path / "out" / "face_track").info["is_complete"] is True
    check_usable(tmp_path / "out" / "moving_track", at_least=4)


def test_an_error_in_a_thread_leaves_what_was_tracked(cli, clip_24, monkeypatch, tmp_path):
    real, calls = FaceFollower.observe, []

    def observe(self, *arguments):
        calls.append(1)
        if len(calls) == 15:
            raise MemoryError
        return real(self, *arguments)

    monkeypatch.setattr(FaceFollower, "observe", observe)
    with pytest.raises(MemoryError):
        cli(clip_24, "-o", "out")
    check_usable(tmp_path / "out", at_least=5)


def test_signals_are_held_back_until_the_end_of_a_block():
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached.append("end")
    assert reached == ["end"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_each_signal_is_answered_as_it_would_have_been():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
                signal.raise_signal(number)
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, ignored)


def test_errors_pass_through_a_block_that_holds_signals_back():
    with pytest.raises(ValueError, match="mine"), held_back():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_have_nothing_to_hold_back():
    reached = []

    def work() -> None:
        with interruption.held_back():
            reached.append("inside")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reached == ["inside"]


@pytest.fixture(scope="module")
def long_clip(clip_folder) -> Path:
    """Return 1200 frames of a face: more than any of these tests waits for."""
    return write_video(clip_folder / "long.mp4", [portrait(index % 60, 60, size=192) for index in range(60)] * 20)


def start(clip_path: Path, folder: Path, save_every_seconds: float = 10.0) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    program = (
        "import signal, sys, tracker.outputs, tracker.run; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"tracker.outputs._SAVE_EVERY_SECONDS = {save_every_seconds}; sys.exit(tracker.run.main())"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(clip_path), "-o", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90.0) -> None:
    """Wait for something to happen while a process runs."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_pressed_twice_in_a_process_of_its_own(long_clip, tmp_path):
    process = start(long_clip, tmp_path / "out")
    wait_until(lambda: (tmp_path / "out" / ".overlay.mp4.part").exists(), process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == f"interrupted: what was tracked until now is in {tmp_path / 'out'}\n"
    track = Track.load(tmp_path / "out")
    assert 0 < len(track) < 1200 and 0 <= len(track) - len(read_video(tmp_path / "out" / "overlay.mp4")) <= 1


def test_a_hard_kill_leaves_the_last_saved_track(long_clip, tmp_path):
    process = start(long_clip, tmp_path / "out", save_every_seconds=0.2)
    wait_until(lambda: (tmp_path / "out" / "track.json").exists(), process)
    time.sleep(1.0)
    process.kill()
    process.communicate(timeout=60)
    track = Track.load(tmp_path / "out")
    assert 0 < len(track) < 1200 and track.info["is_complete"] is False
    assert not (tmp_path / "out" / "overlay.mp4").exists()
