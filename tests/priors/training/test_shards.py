from __future__ import annotations

import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flame.errors import AssetMissingError, InputError
from priors.pixel_kinds import Kind
from priors.training.labels import LabelMaps
from priors.training.shards import INDEX_NAME, ShardIndex, ShardReader, encode_sample, shard_name, write_shard

IMAGE_PX, LABELS_PX = 32, 16


def make_sample(number: int) -> tuple[np.ndarray, LabelMaps, dict]:
    rng = np.random.default_rng(number)
    image = np.full((IMAGE_PX, IMAGE_PX, 3), rng.integers(0, 256, 3), np.uint8)
    valid = rng.random((LABELS_PX, LABELS_PX)) < 0.6
    place = rng.uniform(-0.15, 0.15, (LABELS_PX, LABELS_PX, 3)).astype(np.float32)
    normals = rng.standard_normal((LABELS_PX, LABELS_PX, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    uv = rng.random((LABELS_PX, LABELS_PX, 2)).astype(np.float32)
    place[~valid], normals[~valid], uv[~valid] = np.nan, 0, 0
    kind = np.where(valid, Kind.SKIN, Kind.BACKGROUND).astype(np.uint8)
    return image, LabelMaps(place, uv, normals, kind), {"number": number, "name": "Zoë"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    entries = []
    for shard, numbers in enumerate((range(3), range(3, 5))):
        samples = [encode_sample(*make_sample(number)) for number in numbers]
        entries.append(write_shard(tmp_path / shard_name(shard), 3 * shard, samples))
    ShardIndex("abc", IMAGE_PX, LABELS_PX, 7, 3, {"a": 1}, "made for tests", tuple(entries)).write(tmp_path)
    return tmp_path


def test_samples_come_back_up_to_quantisation(folder: Path):
    reader = ShardReader(folder)
    reader.check()
    assert len(reader) == 5
    for number in (4, 0, 2, 3, 1):
        image, labels, meta = reader.read(number)
        true_image, true_labels, true_meta = make_sample(number)
        assert image.dtype == np.uint8 and np.abs(image.astype(int) - true_image).max() <= 4
        assert meta == true_meta
        np.testing.assert_array_equal(labels.valid, true_labels.valid)
        np.testing.assert_array_equal(labels.kind, true_labels.kind)
        np.testing.assert_allclose(labels.place, true_labels.place, atol=1e-4)
        np.testing.assert_allclose(labels.uv, true_labels.uv, atol=1 / 65535)
        np.testing.assert_allclose(labels.normals_cam, true_labels.normals_cam, atol=0.01)
        lengths = np.linalg.norm(labels.normals_cam[labels.valid], axis=-1)
        np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_the_layout_is_that_of_webdataset(folder: Path):
    with tarfile.open(folder / "shard-000001.tar") as archive:
        names = archive.getnames()
    assert names == [f"{key:08d}.{extension}" for key in (3, 4) for extension in ("jpg", "npz", "json")]
    index = json.loads((folder / INDEX_NAME).read_text())
    assert index["count"] == 5 and [shard["count"] for shard in index["shards"]] == [3, 2]
    assert index["head_hash"] == "abc" and index["note"] == "made for tests"


def test_the_same_samples_give_the_same_bytes(folder: Path, tmp_path: Path):
    again = write_shard(tmp_path / "again.tar", 0, [encode_sample(*make_sample(number)) for number in range(3)])
    assert again.sha256 == ShardReader(folder).index.shards[0].sha256


def test_readers_serve_threads_and_can_be_sent_to_processes(folder: Path):
    reader = pickle.loads(pickle.dumps(ShardReader(folder)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: reader.read(number)[2]["number"], [0, 1, 2, 3, 4] * 4))
    assert found == [0, 1, 2, 3, 4] * 4


def test_a_failed_shard_leaves_nothing(tmp_path: Path):
    def samples():
        yield encode_sample(*make_sample(0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "shard.tar", 0, samples())
    assert list(tmp_path.iterdir()) == []


def test_damage_is_named(folder: Path):
    path = folder / "shard-000000.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="shard-000000.tar differs from what was written"):
        ShardReader(folder).check()
    path.write_bytes(content[:-512])
    with pytest.raises(InputError, match=r"has \d+ bytes, its index says \d+"):
        ShardReader(folder)
    path.unlink()
    with pytest.raises(AssetMissingError, match="shard-000000.tar is missing"):
        ShardReader(folder)


def test_what_is_no_data_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="there is no sample 5; .* has 5"):
        ShardReader(folder).read(5)
    with pytest.raises(AssetMissingError, match=r"no training data in .*priors\.training\.render"):
        ShardReader(tmp_path / "empty")
    index = json.loads((folder / INDEX_NAME).read_text())
    (folder / INDEX_NAME).write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(InputError, match="version 99; this program reads version 1"):
        ShardReader(folder)
    (folder / INDEX_NAME).write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        ShardReader(folder)


def test_label_arrays_have_to_fit():
    arrays = make_sample(0)[1].quantised()
    with pytest.raises(InputError, match="lack 'uv'"):
        LabelMaps.from_quantised({name: array for name, array in arrays.items() if name != "uv"})
    with pytest.raises(InputError, match="'normal' has shape"):
        LabelMaps.from_quantised({**arrays, "normal": arrays["normal"][:4]})
