from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame import load_head
from tests.tracker.texture.scenes import Scene
from tracker.frames import Frame
from tracker.texture import texture_files
from tracker.texture.stored import stored_textures, textures_of

SIZE = 64


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(load_head("commons"), (np.full((32, 32, 3), 0.3),), np.zeros(2), size_px=128)


def _refuse() -> Iterator[tuple[int, Frame]]:
    raise AssertionError("the clip is opened again")


def test_texture_is_made_once(tmp_path: Path, scene: Scene) -> None:
    track = scene.track()
    assert stored_textures(track, tmp_path, SIZE) == [None]
    made = textures_of(track, tmp_path, scene.frames, SIZE)[0]
    kept = textures_of(track, tmp_path, _refuse, SIZE)[0]
    assert made is not None and kept is not None
    assert np.array_equal(made.rgb, kept.rgb)


def test_texture_of_another_track_or_size_is_made_anew(tmp_path: Path, scene: Scene) -> None:
    track = scene.track()
    textures_of(track, tmp_path, scene.frames, SIZE)
    for other, size_px in ((replace(track, translation=track.translation * 1.01), SIZE), (track, 2 * SIZE)):
        with pytest.raises(AssertionError, match="opened again"):
            textures_of(other, tmp_path, _refuse, size_px)


def test_missing_file_of_one_of_two_people_is_made_anew(tmp_path: Path, scene: Scene) -> None:
    pair = replace(scene, albedo=2 * scene.albedo, offsets=((-0.1, 0.0, 0.9), (0.1, 0.0, 0.9)))
    first = textures_of(pair.track(), tmp_path, pair.frames, SIZE)
    assert None not in first
    texture_files(tmp_path, 1)[0].unlink()
    assert None not in textures_of(pair.track(), tmp_path, pair.frames, SIZE)
    assert texture_files(tmp_path, 1)[0].is_file()


def test_nothing_is_kept_without_a_folder(scene: Scene) -> None:
    assert textures_of(scene.track(), None, scene.frames, SIZE)[0] is not None
