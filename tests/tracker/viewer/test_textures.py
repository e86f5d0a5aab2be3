"""Textures of the viewer are those of the output folder where they are complete, else fused from the clip."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.tracker.clips import even_seconds, write_clip
from tests.tracker.export.tracks import SIZE, small_track
from tracker.texture import HeadTexture, save_texture, texture_files, texture_key
from tracker.viewer.clip import Clip
from tracker.viewer.textures import FUSED_PX, Textures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An output folder of two people whose textures are stored."""
    source = tmp_path / "clip.mp4"
    write_clip(source, even_seconds(2, 25), height=SIZE[0], width=SIZE[1])
    track = small_track(people=2, frames=2, source=source)
    folder = tmp_path / "clip_track"
    folder.mkdir()
    track.save(folder)
    texture = HeadTexture(np.full((FUSED_PX,) * 2 + (3,), 120, np.uint8), np.ones((FUSED_PX,) * 2, np.float32))
    for person in range(2):
        save_texture(folder, person, texture, texture_key(track, FUSED_PX))
    return folder


def loaded(clip: Clip) -> Textures:
    """Return a clip's textures when the work is done."""
    textures = Textures(clip, lambda: None)
    textures.start()
    end = time.monotonic() + 60
    while textures.progress is not None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return textures


def refuse(*_: object) -> list[HeadTexture | None]:
    raise AssertionError("fused again")


def test_stored_textures_are_not_fused_again(folder, monkeypatch):
    monkeypatch.setattr("tracker.texture.fusing.fuse_textures", refuse)
    textures = loaded(Clip.load(folder))
    assert sorted(textures.heads) == [0, 1] and textures.problem is None


def test_where_one_persons_texture_is_missing_it_is_made(folder, monkeypatch):
    texture_files(folder, 1)[0].unlink()
    read = []

    def fuse(track, frames, size_px):
        read.extend(position for position, _ in frames)
        return [HeadTexture(np.zeros((size_px, size_px, 3), np.uint8), np.zeros((size_px, size_px), np.float32))] * 2

    monkeypatch.setattr("tracker.texture.fusing.fuse_textures", fuse)
    assert sorted(loaded(Clip.load(folder)).heads) == [0, 1]
    assert read == [0, 1]
    assert texture_files(folder, 1)[0].is_file()


def test_a_clip_that_is_gone_is_told(folder):
    texture_files(folder, 0)[0].unlink()
    textures = loaded(Clip.load(folder, source=folder / "moved.mp4"))
    assert textures.heads == {}
    assert "moved.mp4; say where it is with --source" in str(textures.problem)


def test_the_viewer_can_be_started_from_another_folder_than_the_tracker(folder, monkeypatch):
    texture_files(folder, 0)[0].unlink()
    source = folder.parent / "clip.mp4"
    track = dataclasses.replace(
        small_track(people=2, frames=2), info={"source": {"path": "clip.mp4", "absolute_path": str(source)}}
    )
    monkeypatch.chdir(os.sep)
    monkeypatch.setattr("tracker.texture.fusing.fuse_textures", lambda track, frames, size: [None for _ in frames])
    assert loaded(Clip(track)).problem == "nobody is seen well enough for a texture"


def test_closing_ends_the_reading(folder, monkeypatch):
    texture_files(folder, 0)[0].unlink()
    textures = Textures(Clip.load(folder), lambda: None)

    def fuse(track, frames, size_px):
        textures.close()
        return [None for _ in frames]

    monkeypatch.setattr("tracker.texture.fusing.fuse_textures", fuse)
    textures.start()
    end = time.monotonic() + 60
    while textures.progress is not None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert textures.heads == {} and textures.problem is None
    textures.start()
    assert textures.progress is None
