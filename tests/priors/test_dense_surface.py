"""What dense maps speak of: skin with all its texture coordinates, no eyes, no inside of the mouth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from priors.dense_surface import DenseSurface


def test_vertices_on_a_seam_have_all_their_texture_coordinates(toy_head: HeadModel) -> None:
    surface, topology = DenseSurface.of(toy_head), toy_head.topology
    assert topology is not None and topology.uv_faces is not None
    faces = toy_head.faces.numpy()
    is_skin = topology.region("face") | topology.region("ears") | topology.region("neck")
    is_skin &= ~topology.region("scalp")
    expected = {
        (int(vertex), *surface.uv[row].tolist())
        for vertex, row in zip(faces.ravel(), topology.uv_faces.ravel(), strict=True)
        if is_skin[vertex]
    }
    copies = surface.copies
    found = {(int(vertex), *uv.tolist()) for vertex, uv in zip(copies.vertex, copies.uv, strict=True)}
    assert found == expected
    assert np.bincount(copies.vertex).max() == 2
    assert (np.diff(copies.vertex) >= 0).all()


def test_eyes_say_nothing(toy_head: HeadModel) -> None:
    surface, topology = DenseSurface.of(toy_head), toy_head.topology
    assert topology is not None
    is_eye = topology.region("eyes")
    assert not is_eye[surface.copies.vertex].any()
    np.testing.assert_array_equal(surface.is_excluded, is_eye[toy_head.faces.numpy()].any(axis=1))


def test_lips_are_kept_and_the_inside_of_the_mouth_is_not() -> None:
    head = load_head()
    surface, topology = DenseSurface.of(head), head.topology
    assert topology is not None
    seen = np.zeros(head.num_vertices, dtype=bool)
    seen[surface.copies.vertex] = True
    lips, inside = topology.region("lips"), topology.region("inner_mouth")
    assert seen[lips].all()
    assert not seen[inside & ~lips].any()
    assert not surface.is_excluded[lips[head.faces.numpy()].all(axis=1)].any()


def test_a_head_without_texture_coordinates_is_refused(toy_head: HeadModel) -> None:
    assert toy_head.topology is not None
    bare = replace(toy_head, topology=replace(toy_head.topology, uv=None, uv_faces=None))
    with pytest.raises(InputError, match="head 'toy' has no texture coordinates.* use a head with UV"):
        DenseSurface.of(bare)
