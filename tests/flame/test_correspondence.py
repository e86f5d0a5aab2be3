"""Which points of two heads are the same: found, stored, read, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame import correspondence as module
from flame.correspondence import (
    SurfaceCorrespondence,
    correspondence_paths,
    find_correspondence,
    load_correspondence,
    read_correspondence,
    write_correspondence,
)
from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.surface import SurfacePoints
from flame.topology import Topology
from tests.disguised_head import disguised
from tests.toy_head import make_toy_head


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons")


@pytest.fixture(scope="module")
def foreign(commons) -> tuple[HeadModel, SurfacePoints]:
    return disguised(commons)


@pytest.fixture(scope="module")
def found(commons, foreign) -> SurfaceCorrespondence:
    return find_correspondence(commons, foreign[0])


def on(points: SurfacePoints, head: HeadModel) -> np.ndarray:
    return points.on(head.template.double().numpy(), head.faces.numpy())


def test_points_of_another_mesh_are_found(found, commons, foreign):
    head, truth = foreign
    # Where the points found on the disguised head lie on the head that it is made from.
    faces = head.faces.numpy()[found.target.triangles]
    places = np.einsum("nk,nkc->nc", found.target.barycentric, on(truth, commons)[faces])
    away_mm = 1e3 * np.linalg.norm(places - on(found.source, commons), axis=1)
    assert np.median(away_mm[found.is_face]) < 0.4 and np.quantile(away_mm[found.is_face], 0.95) < 1.5
    regions = commons.topology.regions
    vertex = commons.faces.numpy()[found.source.triangles][np.arange(len(found)), found.source.barycentric.argmax(1)]
    for name in ("lips", "eyelids", "nose"):
        assert np.median(away_mm[regions[name][vertex]]) < 0.4, name
    assert found.gap_m < 5e-4 and found.is_face.sum() > 1500
    assert not regions["eyes"][vertex].any()
    assert not (regions["inner_mouth"] & ~regions["lips"] & ~regions["face"])[vertex].any()


def test_the_first_pairs_are_spread_over_the_face(found, commons):
    few = found.first(300)
    assert len(few) == 300 and few.is_face.sum() > 150
    face, all_face = (on(each.source.take(np.flatnonzero(each.is_face)), commons) for each in (few, found))
    gaps = np.linalg.norm(all_face[:, None] - face[None], axis=-1).min(axis=1)
    assert gaps.max() < 0.02
    assert len(found.first(10**6)) == len(found)


def test_one_mesh_corresponds_vertex_by_vertex(commons):
    other = replace(commons, template=1.01 * commons.template, shape_basis=commons.shape_basis[..., :20])
    pairs = find_correspondence(commons, other)
    assert pairs.gap_m == 0 and len(pairs) == commons.num_vertices - commons.topology.region("eyes").sum()
    assert np.array_equal(pairs.source.triangles, pairs.target.triangles)
    np.testing.assert_allclose(on(pairs.target, other), 1.01 * on(pairs.source, commons), atol=1e-7)


def test_reversed_twice_is_the_same(found):
    back = found.reversed()
    assert back.source is found.target and back.source_hash == found.target_hash
    assert back.reversed().source is found.source


def test_it_is_found_once_and_kept_beside_the_head_s_file(found, commons, foreign, tmp_path, monkeypatch):
    calls = []

    def counted(source: HeadModel, target: HeadModel) -> SurfaceCorrespondence:
        calls.append(1)
        return replace(found, source_hash=source.content_hash, target_hash=target.content_hash)

    monkeypatch.setattr(module, "find_correspondence", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "mine.pkl"
    file.touch()
    mine = replace(foreign[0], source=str(file))
    first = load_correspondence(commons, mine)
    again = load_correspondence(commons, mine)
    back = load_correspondence(mine, commons)
    assert calls == [1]
    assert [path.name.split(".")[0] for path in tmp_path.glob("*.npz")] == ["mine"]
    np.testing.assert_array_equal(again.weight, first.weight)
    np.testing.assert_allclose(on(back.source, mine), on(first.target, mine))
    assert (back.source_hash, back.target_hash) == (mine.content_hash, commons.content_hash)
    load_correspondence(commons, foreign[0])
    assert calls == [1, 1] and len(list((tmp_path / "cache").rglob("*.npz"))) == 1
    assert not list(tmp_path.rglob("*.part*"))


def test_it_is_found_anew_when_more_is_known_of_a_head(commons, foreign, tmp_path):
    file = tmp_path / "mine.pkl"
    file.touch()
    plain = replace(foreign[0], source=str(file), topology=None)
    topology = Topology(faces=plain.faces.numpy(), regions={"face": np.ones(plain.num_vertices, bool)})
    masked = replace(plain, topology=topology)
    assert plain.content_hash == masked.content_hash
    assert correspondence_paths(commons, plain) == correspondence_paths(plain, commons)
    assert correspondence_paths(commons, plain)[0] != correspondence_paths(commons, masked)[0]


def test_a_file_of_other_heads_or_a_damaged_one_is_as_good_as_none(found, commons, foreign, tmp_path):
    path, head = tmp_path / "a.npz", foreign[0]
    assert read_correspondence(path, commons, head) is None
    write_correspondence(path, found)
    assert read_correspondence(path, commons, head) is not None
    other = replace(head, template=head.template + 0.001)
    assert read_correspondence(path, commons, other) is None
    assert read_correspondence(path, other, commons) is None
    whole = path.read_bytes()
    for content in (whole[:700], b"", b"no archive at all", whole[:-100] + bytes(100)):
        path.write_bytes(content)
        assert read_correspondence(path, commons, head) is None
    triangles = found.target.triangles.copy()
    triangles[0] = len(head.faces)
    write_correspondence(path, replace(found, target=SurfacePoints(triangles, found.target.barycentric)))
    assert read_correspondence(path, commons, head) is None


def test_pickled_content_is_not_read(found, commons, foreign, tmp_path):
    path = tmp_path / "a.npz"
    write_correspondence(path, found)
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["weight"] = np.array([{"a": 1}] * len(found), dtype=object)
    np.savez(path, **arrays)
    assert read_correspondence(path, commons, foreign[0]) is None


def test_it_is_kept_in_memory_where_nothing_can_be_written(found, commons, foreign, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(module, "find_correspondence", lambda _source, _target: found)
    assert load_correspondence(commons, foreign[0]) is found
    assert correspondence_paths(commons, foreign[0])[0].is_relative_to(Path(blocked))


def test_heads_that_do_not_match_are_refused(commons, foreign):
    head = foreign[0]
    with pytest.raises(InputError, match=r"the eyes of head 'large' are \d\.\d+ m apart, 0.04 to 0.09 are allowed"):
        find_correspondence(commons, replace(head, name="large", template=10 * head.template))
    with pytest.raises(InputError, match="too different"):
        find_correspondence(commons, make_toy_head(torch.float32))
    turned = torch.tensor(((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)))
    with pytest.raises(InputError, match="too different"):
        find_correspondence(commons, replace(head, template=head.template @ turned.T))
