from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame import load_head
from flame.errors import InputError
from tests.tracker.texture.scenes import Scene
from tracker.result import Track
from tracker.texture import HeadTexture, load_texture, save_texture, texture_files, texture_key


@pytest.fixture(scope="module")
def track() -> Track:
    return Scene(load_head("commons"), (np.ones((8, 8, 3)),), np.zeros(3)).track()


@pytest.fixture
def texture() -> HeadTexture:
    rng = np.random.default_rng(1)
    return HeadTexture(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), rng.random((64, 64), dtype=np.float32))


def test_saved_texture_comes_back(tmp_path: Path, texture: HeadTexture) -> None:
    picture, _ = save_texture(tmp_path, 1, texture, "key")
    assert picture == tmp_path / "texture" / "person_1.png"
    assert sorted(path.name for path in (tmp_path / "texture").iterdir()) == ["person_1.png", "person_1_confidence.png"]
    loaded = load_texture(tmp_path, 1, "key")
    assert loaded is not None
    assert np.array_equal(loaded.rgb, texture.rgb)
    assert np.abs(loaded.confidence - texture.confidence).max() < 0.003


def test_texture_of_another_track_is_not_taken(tmp_path: Path, texture: HeadTexture) -> None:
    save_texture(tmp_path, 0, texture, "key")
    assert load_texture(tmp_path, 0, "other") is None
    assert load_texture(tmp_path, 1, "key") is None


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_file_counts_as_none(tmp_path: Path, texture: HeadTexture, which: int) -> None:
    save_texture(tmp_path, 0, texture, "key")
    path = texture_files(tmp_path, 0)[which]
    path.write_bytes(path.read_bytes()[:200])
    assert load_texture(tmp_path, 0, "key") is None


def test_key_follows_whatever_changes_the_texture(track: Track) -> None:
    moved = replace(track, translation=track.translation + 0.001)
    other_source = replace(track, info={"source": {"sha256": "1"}})
    other_camera = replace(track, intrinsics=track.intrinsics.zoom(1.1))
    keys = [texture_key(track, 512), texture_key(track, 1024), texture_key(track, 512, 8)]
    keys += [texture_key(other, 512) for other in (moved, other_source, other_camera)]
    assert len(set(keys)) == len(keys)
    assert texture_key(replace(track), 512) == keys[0]


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError):
        HeadTexture(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.float32))
    with pytest.raises(InputError):
        HeadTexture(np.zeros((4, 4, 3), np.uint8), np.zeros((5, 5), np.float32))
