from __future__ import annotations

import numpy as np

from priors.landmark_topology import (
    LEFT_IRIS,
    NUM_LANDMARKS,
    NUM_MESH_LANDMARKS,
    RIGHT_IRIS,
    attention_network_outputs,
    landmark_topology,
)


def test_mirror_is_an_involution_that_swaps_known_pairs():
    mirror = landmark_topology().mirror
    assert np.array_equal(mirror[mirror], np.arange(NUM_LANDMARKS))
    known = {33: 263, 133: 362, 61: 291, 127: 356, 234: 454, 70: 300, 48: 278, 468: 473, 469: 476, 470: 475}
    assert {left: int(mirror[left]) for left in known} == known
    assert all(mirror[i] == i for i in (10, 152, 0, 17, 1, 4, 168, 6))


def test_mirror_maps_groups_onto_their_partners():
    topology = landmark_topology()
    for name, partner in (("left_eye", "right_eye"), ("left_brow", "right_brow"), ("lips", "lips"), ("oval", "oval")):
        assert set(topology.mirror[topology.groups[name]]) == set(topology.groups[partner])


def test_triangles_form_one_consistently_oriented_surface_with_four_holes():
    triangles = landmark_topology().triangles
    assert triangles.shape == (852, 3)
    assert np.array_equal(np.unique(triangles), np.arange(NUM_MESH_LANDMARKS))
    directed = {(int(t[i]), int(t[(i + 1) % 3])) for t in triangles for i in range(3)}
    assert len(directed) == 3 * len(triangles)
    boundary = [edge for edge in directed if edge[::-1] not in directed]
    assert len(boundary) == 36 + 2 * 16 + 20


def test_outline_is_a_closed_ring():
    ring = landmark_topology().oval
    assert len(set(ring.tolist())) == 36
    assert set(ring.tolist()) == set(landmark_topology().groups["oval"].tolist())


def test_network_outputs_cover_every_landmark():
    outputs = attention_network_outputs()
    assert [output.values_per_point for output in outputs] == [3, 2, 2, 2, 2, 2]
    covered = np.unique(np.concatenate([output.indices for output in outputs]))
    assert np.array_equal(covered, np.arange(NUM_LANDMARKS))
    assert tuple(outputs[4].indices) == RIGHT_IRIS or tuple(outputs[4].indices) == LEFT_IRIS
