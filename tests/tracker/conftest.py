"""Fixtures of the tracker's tests: clips of a real face, and the command line run in this process."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from configs import load_preset
from tests.tracker.clips import Sound
from tests.tracker.face_clips import RATE, portrait, wall, write_video
from tracker import api, run
from tracker.clip import Toolkit, load_toolkit
from tracker.result import Track

NUM_FRAMES = 16


@dataclass(frozen=True)
class Outcome:
    """Hold what a run of the command line gave back."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the session's clips."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="session")
def face_clip(clip_folder: Path) -> Path:
    """Return 16 frames of a face, with sound."""
    images = [portrait(index, NUM_FRAMES) for index in range(NUM_FRAMES)]
    return write_video(clip_folder / "face.mp4", images, sound=Sound(seconds=NUM_FRAMES / RATE))


@pytest.fixture(scope="session")
def gap_clip(clip_folder: Path) -> Path:
    """Return a face for 6 frames, nobody for 8, the face again for 10."""
    images = [*(portrait(i) for i in range(6)), *([wall()] * 8), *(portrait(i) for i in range(10))]
    return write_video(clip_folder / "gap.mp4", images)


@pytest.fixture(scope="session")
def late_clip(clip_folder: Path) -> Path:
    """Return a clip whose only face is in its last tenth."""
    images = [*([wall()] * 90), *(portrait(index) for index in range(10))]
    return write_video(clip_folder / "late.mp4", images)


@pytest.fixture(scope="session")
def pair_clip(clip_folder: Path) -> Path:
    """Return 8 frames of two faces side by side, the right one a little smaller."""
    images = []
    for index in range(8):
        right = wall()
        right[14:238, 16:240] = portrait(index, 8, size=224, is_mirrored=True)
        images.append(np.concatenate((portrait(index, 8), right), axis=1))
    return write_video(clip_folder / "pair.mp4", images)


@pytest.fixture(scope="session")
def empty_clip(clip_folder: Path) -> Path:
    """Return 12 frames without a face."""
    return write_video(clip_folder / "nobody.mp4", [wall()] * 12)


@pytest.fixture(scope="session")
def toolkit() -> Toolkit:
    """Return the commons head and the MediaPipe prior, loaded."""
    return load_toolkit("commons", "mediapipe", load_preset("default"))


@pytest.fixture(scope="session")
def face_track(face_clip: Path, toolkit: Toolkit) -> Track:
    """Return the track of the face clip; share it, do not change it."""
    return api.track(face_clip, toolkit=toolkit)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that runs the command line in this process, in an empty folder, with heads loaded once."""
    monkeypatch.setattr(api, "load_toolkit", _load_toolkit)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        try:
            status = run.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            # An interrupted command line turns deaf before it ends; this process goes on.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return Outcome(status, *capfd.readouterr())

    return call


def _load_toolkit(head: str, *others: object) -> Toolkit:
    """Load a head file anew every time: files of one name differ from test to test."""
    return _load_commons_once(*others) if head == "commons" else load_toolkit(head, *others)


@functools.lru_cache(maxsize=4)
def _load_commons_once(*others: object) -> Toolkit:
    return load_toolkit("commons", *others)
