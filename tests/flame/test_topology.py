"""Regions, mirror maps and landmark sets."""

from __future__ import annotations

import numpy as np
import pytest

from flame.errors import InputError
from flame.surface import SurfacePoints
from flame.topology import Topology, mirror_from_template


def test_mirror_map_is_an_involution_that_reflects(toy_head):
    mirror, template = toy_head.topology.mirror, toy_head.template.numpy()
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_allclose(template[mirror] * (-1, 1, 1), template, atol=1e-12)
    np.testing.assert_allclose(toy_head.topology.mirrored(template), template, atol=1e-12)


def test_mirror_swaps_sides(toy_head):
    topology = toy_head.topology
    np.testing.assert_array_equal(topology.region("left_eye")[topology.mirror], topology.region("right_eye"))
    assert (toy_head.template.numpy()[topology.region("left_eye"), 0] > 0).all()


def test_mirror_is_found_on_a_slightly_asymmetric_head(toy_head):
    rng = np.random.default_rng(0)
    template = toy_head.template.numpy() + rng.normal(0, 3e-4, toy_head.template.shape)
    mirror = mirror_from_template(template)
    assert mirror is not None
    np.testing.assert_array_equal(mirror, toy_head.topology.mirror)


def test_head_without_symmetry_has_no_mirror():
    rng = np.random.default_rng(0)
    assert mirror_from_template(rng.normal(0, 0.1, (50, 3))) is None
    assert mirror_from_template(rng.uniform(0.02, 0.1, (8, 3))) is None


def test_regions_unite(toy_head):
    topology = toy_head.topology
    both = topology.region("left_eye", "right_eye")
    np.testing.assert_array_equal(both, topology.region("eyes"))
    triangles = topology.region_triangles("eyes")
    assert len(triangles) and both[topology.faces[triangles]].all()


def test_seams_have_several_texture_coordinates_per_vertex(toy_head):
    topology = toy_head.topology
    assert topology.uv_faces.shape == topology.faces.shape
    pairs = np.unique(np.stack((topology.faces, topology.uv_faces), -1).reshape(-1, 2), axis=0)
    assert len(pairs) > len(np.unique(topology.faces))
    assert topology.uv.min() >= 0 and topology.uv.max() <= 1


def test_faces_look_outward(toy_head):
    corners = toy_head.template.numpy()[toy_head.faces.numpy()]
    volume = np.einsum("fc,fc->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume > 0


def test_landmark_sets(toy_head):
    points = SurfacePoints(np.array([0, 5]), np.full((2, 3), 1 / 3))
    topology = toy_head.topology.with_landmarks("two", points)
    assert topology.landmarks("two") is points
    assert not toy_head.topology.landmark_sets
    with pytest.raises(InputError, match="no landmark set 'three'; it has: two"):
        topology.landmarks("three")


def test_unknown_names_are_answered_with_the_known_ones():
    topology = Topology(np.zeros((0, 3), dtype=np.int64), {"nose": np.zeros(3, dtype=bool)})
    with pytest.raises(InputError, match="no region 'chin'; it has: nose"):
        topology.region("nose", "chin")
    with pytest.raises(InputError, match="no left-right mirror map"):
        topology.mirrored(np.zeros((3, 3)))
