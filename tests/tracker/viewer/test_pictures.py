"""Pictures are read ahead in a thread, kept for a while, and belong to their frames."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from flame.camera import Intrinsics
from tests.tracker.clips import even_seconds, picture, write_clip
from tests.tracker.export.tracks import small_track
from tracker.viewer.pictures import PictureCache, PictureReader

NUM_FRAMES = 90


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, even_seconds(NUM_FRAMES, 10))
    return path


def track_of(first: int = 0, last: int = NUM_FRAMES, size: tuple[int, int] = (64, 48)):
    track = small_track(
        frames=last - first,
        seconds_per_frame=0.1,
        first_seconds=first / 10,
        intrinsics=Intrinsics.from_fov(45, *size),
    )
    return dataclasses.replace(track, frame_index=np.arange(first, last))


def wait_for(reader: PictureReader, position: int, seconds: float = 20.0) -> np.ndarray:
    reader.want(position)
    end = time.monotonic() + seconds
    while (found := reader.get(position)) is None:
        assert time.monotonic() < end and reader.problem is None, reader.problem
        time.sleep(0.005)
    return found


def assert_shows(image: np.ndarray, index: int) -> None:
    assert np.abs(image.astype(int) - picture(index)).mean() < 6, f"not picture {index}"


def test_forwards_backwards_and_far_jumps_show_the_right_pictures(clip):
    reader = PictureReader(track_of(), clip)
    for position in (0, 1, 2, 3, 30, 31, 89, 5, 88, 0, 60):
        assert_shows(wait_for(reader, position), position)
    reader.close()


def test_a_cut_of_the_clip_is_aligned_by_frame_number(clip):
    reader = PictureReader(track_of(20, 50), clip)
    for position in (0, 7, 29, 3):
        assert_shows(wait_for(reader, position), 20 + position)
    reader.close()


def test_the_next_pictures_are_there_before_they_are_wanted(clip):
    reader = PictureReader(track_of(), clip)
    wait_for(reader, 40)
    end = time.monotonic() + 20
    while reader.latest_between(40, 60) != 52:
        assert time.monotonic() < end
        time.sleep(0.01)
    reader.close()


def test_frames_without_picture_are_told(clip):
    track = track_of(0, NUM_FRAMES + 4)
    reader = PictureReader(track, clip)
    wait_for(reader, NUM_FRAMES - 1)
    reader.want(NUM_FRAMES + 2)
    end = time.monotonic() + 20
    while reader.problem_of(NUM_FRAMES + 2) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert "cannot be decoded" in str(reader.problem_of(NUM_FRAMES + 2))
    assert reader.problem is None and reader.problem_of(3) is None
    assert_shows(wait_for(reader, 3), 3)
    reader.close()


def test_large_pictures_are_made_smaller(clip):
    reader = PictureReader(track_of(), clip, max_side_px=32)
    assert wait_for(reader, 0).shape == (24, 32, 3)
    reader.close()


@pytest.mark.parametrize(
    ("size", "name", "words"),
    [
        ((64, 48), "moved.mp4", "is not at"),
        ((640, 480), "clip.mp4", "another clip; give the right one with --source"),
        ((64, 48), None, "say where it is with --source"),
    ],
)
def test_without_the_clip_there_is_a_reason(clip, size, name, words):
    reader = PictureReader(track_of(size=size), None if name is None else clip.with_name(name))
    reader.want(0)
    end = time.monotonic() + 20
    while reader.problem is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert words in reader.problem
    assert reader.problem_of(0) == reader.problem
    reader.close()


def test_the_clip_is_found_from_another_folder_and_known_by_its_content(clip, monkeypatch):
    monkeypatch.chdir("/")
    source = {"path": clip.name, "absolute_path": str(clip)}
    reader = PictureReader(dataclasses.replace(track_of(), info={"source": source}), None)
    assert_shows(wait_for(reader, 3), 3)
    reader.close()
    reader = PictureReader(dataclasses.replace(track_of(), info={"source": {**source, "sha256": "00"}}), None)
    reader.want(0)
    end = time.monotonic() + 20
    while reader.problem is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert "is not the clip that was tracked" in reader.problem
    reader.close()


def test_the_cache_forgets_what_was_used_longest_ago():
    cache = PictureCache(max_bytes=3 * 300)
    for position in range(3):
        cache.put(position, np.full((10, 10, 3), position, np.uint8))
    assert cache.get(0) is not None
    cache.put(3, np.zeros((10, 10, 3), np.uint8))
    assert [position in cache for position in range(4)] == [True, False, True, True]
    cache.put(3, np.ones((10, 10, 3), np.uint8))
    assert [position in cache for position in range(4)] == [True, False, True, True]
    assert cache.latest_between(0, 2) == 2
    assert cache.latest_between(1, 1) is None


def test_one_picture_larger_than_the_cache_is_kept():
    cache = PictureCache(max_bytes=10)
    cache.put(0, np.zeros((10, 10, 3), np.uint8))
    assert 0 in cache
