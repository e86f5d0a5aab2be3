from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame.errors import InputError
from flame.landmarks import read_embedding, write_embedding
from flame.model import HeadModel
from priors import landmark_embedding
from priors.landmark_embedding import (
    LandmarkEmbedding,
    embed_landmarks,
    load_embedding,
    shipped_path,
)
from priors.landmark_topology import LEFT_IRIS, NUM_LANDMARKS, RIGHT_IRIS, landmark_topology
from priors.painted_head import PaintedHead


@pytest.fixture(scope="module")
def embedding(head: HeadModel) -> LandmarkEmbedding:
    return load_embedding(head)


@pytest.fixture(scope="module")
def places(head: HeadModel, embedding: LandmarkEmbedding) -> np.ndarray:
    return embedding.points.on(head.template.numpy().astype(np.float64), head.faces.numpy())


def test_shipped_embedding_belongs_to_the_shipped_head(head: HeadModel):
    stored = read_embedding(shipped_path())
    assert stored is not None, "make it with: python -m priors.landmark_embedding"
    assert stored.head_hash == head.content_hash, "the head has changed: run python -m priors.landmark_embedding"


def test_embedding_is_symmetric(places: np.ndarray):
    reflected = places[landmark_topology().mirror] * (-1.0, 1.0, 1.0)
    assert np.abs(places - reflected).max() < 1e-4


def test_embedding_is_on_the_surface(head: HeadModel, embedding: LandmarkEmbedding):
    points = embedding.points
    assert len(points) == NUM_LANDMARKS
    assert (points.barycentric >= -1e-12).all()
    assert points.barycentric.sum(axis=1) == pytest.approx(1.0)
    assert points.triangles.min() >= 0 and points.triangles.max() < len(head.faces)


def test_landmarks_lie_in_the_regions_they_are_named_after(head: HeadModel, embedding: LandmarkEmbedding):
    assert head.topology is not None
    groups = landmark_topology().groups
    corners = head.topology.faces[embedding.points.triangles]
    for group, region, share in (
        ("lips", "lips", 0.9),
        ("left_iris", "left_eye", 1.0),
        ("right_iris", "right_eye", 1.0),
    ):
        inside = head.topology.region(region)[corners[groups[group]]].any(axis=1)
        assert inside.mean() >= share, group
    eyeballs = head.topology.region("eyes")[corners].all(axis=1)
    assert set(np.flatnonzero(eyeballs)) == {*LEFT_IRIS, *RIGHT_IRIS}


def test_face_is_in_order(places: np.ndarray):
    x, y, z = places.T
    assert x[33] < x[133] < -0.005 and 0.005 < x[362] < x[263]
    assert y[10] > y[70] > y[159] > y[145] > y[4] > y[13] >= y[14] > y[17] > y[152]
    assert z[4] > z[[33, 263, 152, 10]].max()
    assert x[LEFT_IRIS[1]] > x[LEFT_IRIS[0]] > x[LEFT_IRIS[3]] and y[LEFT_IRIS[2]] > y[LEFT_IRIS[0]] > y[LEFT_IRIS[4]]


def test_irises_are_round_the_gaze_axis(head: HeadModel, places: np.ndarray):
    centers = PaintedHead(head).eye_centers
    for center, iris in zip(centers, (LEFT_IRIS, RIGHT_IRIS), strict=True):
        offsets = places[list(iris)] - center
        assert np.abs(offsets[0, :2]).max() < 3e-4
        assert np.linalg.norm(offsets[1:, :2], axis=1) == pytest.approx(0.0059, abs=5e-4)


def test_scatter_is_small_where_the_face_has_features(embedding: LandmarkEmbedding):
    groups = landmark_topology().groups
    for name in ("lips", "left_eye", "right_eye", "left_brow"):
        assert np.median(embedding.spread_m[groups[name]]) < 0.003


@pytest.fixture(scope="module")
def few_views() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(landmark_embedding, "_NUM_IDENTITIES", 1)
    yield
    patch.undo()


@pytest.mark.usefixtures("few_views")
def test_same_head_gives_the_same_embedding(head: HeadModel, embedding: LandmarkEmbedding, places: np.ndarray):
    first, second = embed_landmarks(head), embed_landmarks(head)
    assert np.array_equal(first.points.triangles, second.points.triangles)
    assert np.array_equal(first.points.barycentric, second.points.barycentric)
    # Even 18 pictures of one person place the landmarks where all pictures do.
    few = first.points.on(head.template.numpy().astype(np.float64), head.faces.numpy())
    assert np.median(np.linalg.norm(few - places, axis=1)) < 0.003


def test_embedding_is_computed_once_and_kept(
    head: HeadModel, embedding: LandmarkEmbedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def computed(asked: HeadModel) -> LandmarkEmbedding:
        calls.append(asked)
        return replace(embedding, head_hash=asked.content_hash)

    monkeypatch.setattr(landmark_embedding, "embed_landmarks", computed)
    file = tmp_path / "mine.npz"
    file.touch()
    other = replace(head, template=head.template * 1.01, source=str(file))
    load_embedding(other)
    load_embedding(other)
    assert len(calls) == 1
    assert (tmp_path / "mine.mediapipe_landmarks.npz").is_file()


def test_embedding_goes_to_the_cache_folder_where_the_head_has_no_file(
    head: HeadModel, embedding: LandmarkEmbedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    other = replace(head, template=head.template * 1.02, source="somewhere")
    monkeypatch.setattr(
        landmark_embedding, "embed_landmarks", lambda asked: replace(embedding, head_hash=asked.content_hash)
    )
    load_embedding(other)
    stored = list(tmp_path.rglob("*.npz"))
    assert [other.content_hash[:16] in path.name for path in stored] == [True]
    assert not list(tmp_path.rglob("*.part*"))


def test_damaged_file_is_as_good_as_none(embedding: LandmarkEmbedding, tmp_path: Path):
    path = tmp_path / "embedding.npz"
    write_embedding(path, embedding)
    stored = read_embedding(path)
    assert stored is not None and np.array_equal(stored.points.triangles, embedding.points.triangles)
    path.write_bytes(path.read_bytes()[:500])
    assert read_embedding(path) is None
    assert read_embedding(tmp_path / "absent.npz") is None


@pytest.mark.usefixtures("few_views")
def test_head_that_is_no_face_is_refused(head: HeadModel):
    upside_down = replace(head, template=head.template * 0.001)
    with pytest.raises(InputError, match="no landmarks found on head 'commons'"):
        embed_landmarks(upside_down)


def test_command_refuses_a_missing_head():
    command = [sys.executable, "-m", "priors.landmark_embedding", "--head", "absent.pkl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no such head file: absent.pkl")
