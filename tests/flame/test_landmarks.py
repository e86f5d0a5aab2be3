"""Landmark sets of the shipped head: where they are said to be, and only for the head that they were found on."""

from __future__ import annotations

import shutil
from importlib import resources

import numpy as np
import pytest

from flame import load_head
from flame.errors import InputError
from flame.landmarks import MEDIAPIPE, NOW, embedding_path, read_embedding, write_embedding


@pytest.fixture(scope="module")
def asset():
    return resources.files("flame") / "assets" / "commons.npz"


def positions(head, name: str) -> np.ndarray:
    return head.topology.landmarks(name).on(head.template.numpy(), head.faces.numpy())


def test_shipped_head_has_its_landmarks():
    head = load_head()
    assert positions(head, MEDIAPIPE).shape == (478, 3)
    with pytest.raises(InputError, match="it has: mediapipe, now"):
        head.topology.landmarks("dlib")


def test_convention_order_of_the_seven_landmarks():
    right_outer, right_inner, left_inner, left_outer, nose, mouth_right, mouth_left = positions(load_head(), NOW)
    # The subject's right is -x, so the picture's left.
    assert right_outer[0] < right_inner[0] < 0 < left_inner[0] < left_outer[0]
    assert mouth_right[0] < nose[0] < mouth_left[0]
    assert min(right_inner[1], left_inner[1]) > nose[1] > max(mouth_right[1], mouth_left[1])
    assert nose[2] > max(right_outer[2], left_outer[2])


def test_seven_landmarks_are_symmetric():
    points = positions(load_head(), NOW)
    mirrored = points[[3, 2, 1, 0, 4, 6, 5]] * (-1, 1, 1)
    np.testing.assert_allclose(points, mirrored, atol=2e-4)


def test_landmarks_of_another_head_are_not_taken(asset, tmp_path):
    copy = tmp_path / "copy.npz"
    shutil.copy(asset, copy)
    assert not load_head(copy).topology.landmark_sets
    embedding = read_embedding(embedding_path(asset))
    write_embedding(embedding_path(copy), embedding)
    assert set(load_head(copy).topology.landmark_sets) == {MEDIAPIPE, NOW}
    write_embedding(embedding_path(copy), type(embedding)(embedding.points, embedding.spread_m, "another"))
    assert not load_head(copy).topology.landmark_sets
