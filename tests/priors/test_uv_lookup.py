"""Lookups in texture-coordinate maps: the pixel is the nearest one, whatever the map; refined points lie closer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flame import load_head
from flame.camera import Intrinsics, project
from flame.errors import InputError
from flame.rasterizer import interpolate, rasterize
from flame.rotation_kernels import rotation_matrix
from flame.topology import Topology
from priors.uv_lookup import UvLookup, UvMatches, find_batch, uv_copies

DELTA = 0.00707


def nearest_by_comparing_all(uv_map: np.ndarray, mask: np.ndarray, uv: np.ndarray, max_distance: float) -> UvMatches:
    flat = uv_map.reshape(-1, 2).astype(np.float64)
    flat = np.where((mask.ravel() & np.isfinite(flat).all(axis=1))[:, None], flat, np.inf)
    points_px, squared = np.full((len(uv), 2), np.nan), np.full(len(uv), np.inf)
    for n, target in enumerate(uv):
        distances = ((target - flat) ** 2).sum(axis=1) if len(flat) else np.array([np.inf])
        pixel = int(np.argmin(distances))
        if distances[pixel] < max_distance * max_distance:
            squared[n] = distances[pixel]
            points_px[n] = pixel % mask.shape[1] + 0.5, pixel // mask.shape[1] + 0.5
    return UvMatches(points_px, np.sqrt(squared), np.isfinite(squared))


def assert_same(actual: UvMatches, expected: UvMatches) -> None:
    np.testing.assert_array_equal(actual.is_found, expected.is_found)
    np.testing.assert_array_equal(actual.points_px, expected.points_px)
    np.testing.assert_allclose(actual.distance, expected.distance, rtol=1e-15, atol=0)


def assert_all_agree(uv_map: np.ndarray, mask: np.ndarray, uv: np.ndarray, max_distance: float) -> None:
    expected = nearest_by_comparing_all(uv_map, mask, uv, max_distance)
    assert_same(UvLookup(uv_map, mask).find(uv, max_distance), expected)
    if mask.size:
        tensors = torch.from_numpy(uv_map)[None], torch.from_numpy(mask)[None], torch.from_numpy(uv)
        batch = find_batch(*tensors, max_distance)
        assert_same(UvMatches(*(getattr(batch, f)[0].numpy() for f in ("points_px", "distance", "is_found"))), expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    steps=st.sampled_from((0, 1, 2, 7, 10**6)),
    share_valid=st.sampled_from((0.0, 0.1, 0.7, 1.0)),
    scale=st.sampled_from((1e-7, 0.02, 1.0, 3.0)),
    max_distance=st.sampled_from((0.0, 1e-3, 0.05, 1.0, np.inf)),
    dtype=st.sampled_from((np.float32, np.float64)),
)
def test_the_nearest_pixel_is_found_in_any_map(seed, height, width, steps, share_valid, scale, max_distance, dtype):
    rng = np.random.default_rng(seed)
    # Few distinct values make many pixels equally near, also just on the borders of cells.
    uv_map = rng.integers(0, steps + 1, (height, width, 2)) / max(steps, 1) * scale + rng.choice((0.0, 0.3, -1.0))
    mask = rng.random((height, width)) < share_valid
    uv_map[rng.random((height, width)) < 0.1] = np.nan
    uv = rng.integers(0, 2 * steps + 1, (15, 2)) / max(2 * steps, 1) * scale * 1.2 + rng.choice((0.0, 0.3, -1.0))
    uv = np.concatenate((uv, rng.normal(size=(5, 2)), [[np.nan, 0.5]]))
    assert_all_agree(uv_map.astype(dtype), mask, uv, max_distance)


def test_uneven_maps_with_values_far_outside_are_searched_too():
    rng = np.random.default_rng(1)
    uv_map = rng.random((60, 80, 2)) ** 6
    uv_map[::7, ::3] = rng.normal(size=uv_map[::7, ::3].shape) * 1e3
    uv_map[5, 5] = np.inf
    uv = np.concatenate((rng.random((200, 2)), rng.normal(size=(50, 2)) * 500))
    for max_distance in (0.01, np.inf):
        assert_all_agree(uv_map.astype(np.float32), np.ones((60, 80), dtype=bool), uv, max_distance)


def test_empty_maps_and_no_targets_find_nothing():
    nothing = UvLookup(np.zeros((0, 0, 2)), np.zeros((0, 0), dtype=bool)).find(np.zeros((3, 2)), np.inf, True)
    assert not nothing.is_found.any()
    assert np.isnan(nothing.points_px).all()
    lookup = UvLookup(np.zeros((4, 4, 2)), np.zeros((4, 4), dtype=bool))
    assert lookup.num_pixels == 0
    assert lookup.find(np.zeros((0, 2)), 1.0).points_px.shape == (0, 2)


def test_one_pixel_is_found_at_its_centre():
    uv_map = np.full((5, 7, 2), 0.25, dtype=np.float32)
    mask = np.zeros((5, 7), dtype=bool)
    mask[3, 4] = True
    found = UvLookup(uv_map, mask).find(np.array([[0.26, 0.25], [0.9, 0.9]]), 0.02, is_subpixel=True)
    np.testing.assert_array_equal(found.points_px[0], (4.5, 3.5))
    np.testing.assert_array_equal(found.is_found, (True, False))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="UV map"):
        UvLookup(np.zeros((4, 4, 3)), np.zeros((4, 4), dtype=bool))
    with pytest.raises(InputError, match="UV map"):
        UvLookup(np.zeros((4, 4, 2)), np.zeros((4, 5), dtype=bool))


@given(seed=st.integers(0, 2**32 - 1))
def test_points_between_pixels_are_exact_on_affine_maps(seed):
    rng = np.random.default_rng(seed)
    slopes = rng.normal(size=(2, 2)) * 0.01
    slopes += np.sign(np.linalg.det(slopes)) * np.diag((0.01, 0.01))  # never nearly singular
    if np.linalg.cond(slopes) > 5:
        slopes = np.diag((0.01, -0.01))
    columns, rows = np.meshgrid(np.arange(20) + 0.5, np.arange(16) + 0.5)
    uv_map = np.stack((columns, rows), axis=-1) @ slopes.T + 0.5
    places_px = rng.uniform((1.5, 1.5), (18.5, 14.5), size=(30, 2))
    lookup = UvLookup(uv_map, np.ones((16, 20), dtype=bool))
    coarse = lookup.find(places_px @ slopes.T + 0.5, np.inf)
    found = lookup.find(places_px @ slopes.T + 0.5, np.inf, is_subpixel=True)
    within = np.abs(places_px - coarse.points_px).max(axis=1) < 1
    np.testing.assert_allclose(found.points_px[within], places_px[within], atol=1e-9)
    assert np.abs(found.points_px - coarse.points_px).max() <= 1 + 1e-12


def test_points_between_pixels_do_not_mix_both_sides_of_a_seam():
    columns, rows = np.meshgrid(np.arange(12) + 0.5, np.arange(8) + 0.5)
    uv_map = np.stack((columns, rows), axis=-1) * 0.01
    uv_map[:, 6:, 0] += 0.4
    target = np.array([[6.2 * 0.01, 4.1 * 0.01], [6.3 * 0.01 + 0.4, 4.1 * 0.01]])
    found = UvLookup(uv_map, np.ones((8, 12), dtype=bool)).find(target, 0.1, is_subpixel=True)
    np.testing.assert_allclose(found.points_px, [[6.2, 4.1], [6.3, 4.1]], atol=1e-9)


def test_missing_neighbours_leave_the_point_at_its_pixel():
    uv_map = np.full((9, 9, 2), np.nan)
    uv_map[4, 3:6] = np.array([[0.3, 0.4], [0.31, 0.4], [0.32, 0.4]])
    mask = np.isfinite(uv_map).all(axis=2)
    found = UvLookup(uv_map, mask).find(np.array([[0.313, 0.401]]), 0.1, is_subpixel=True)
    np.testing.assert_array_equal(found.points_px, [[4.5, 4.5]])


def rendered_head(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Topology]:
    """Return UV map, mask, the vertices' true pixels, which of them plainly face the camera, and the topology."""
    head = load_head()
    topology = head.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    verts_head, faces = head.template.double().numpy(), head.faces.numpy()
    rotation = rotation_matrix(np.array([0.1, 0.3, 0.05])) @ np.diag([1.0, -1.0, -1.0])
    verts_cam = (verts_head - verts_head.mean(axis=0)) @ rotation.T + (0.0, 0.0, 0.8)
    intrinsics = Intrinsics.from_fov(24.0, size, size)
    fragments = rasterize(verts_cam, faces, intrinsics, cull_backfaces=True)
    uv_map = interpolate(fragments, topology.uv_faces, topology.uv)
    points_px = project(verts_cam, intrinsics)
    columns, rows = np.clip(points_px.astype(int), 0, size - 1).T
    corners = verts_cam[faces]
    normals = np.zeros_like(verts_cam)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    facing = -(normals * verts_cam).sum(axis=1) > 0.5 * np.linalg.norm(normals, axis=1) * np.linalg.norm(
        verts_cam, axis=1
    )
    is_seen = facing & (verts_cam[:, 2] < fragments.depth[rows, columns] + 5e-4) & topology.region("face")
    return uv_map, fragments.mask, points_px, is_seen, topology


def test_vertices_of_a_rendered_head_are_found_to_a_tenth_of_a_pixel():
    uv_map, mask, points_px, is_seen, topology = rendered_head(512)
    copies = uv_copies(topology, is_seen)
    lookup = UvLookup(uv_map, mask)
    rms = []
    for is_subpixel in (False, True):
        matches = lookup.find(copies.uv, DELTA, is_subpixel)
        kept = copies.best(matches)
        assert len(kept) > 0.98 * is_seen.sum() > 500
        assert (np.diff(copies.vertex[kept]) > 0).all()
        errors = np.linalg.norm(matches.points_px[kept] - points_px[copies.vertex[kept]], axis=1)
        rms.append(np.sqrt(np.mean(errors**2)))
    assert 0.3 < rms[0] < 0.6
    assert rms[1] < 0.1


def test_copies_list_every_vertex_and_the_best_keeps_the_nearest():
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    uv = np.array([[0.1, 0.1], [0.2, 0.1], [0.1, 0.2], [0.7, 0.7], [0.8, 0.7], [0.9, 0.9]], dtype=np.float32)
    topology = Topology(faces, uv=uv, uv_faces=np.array([[0, 1, 2], [3, 4, 5]]))
    copies = uv_copies(topology)
    np.testing.assert_array_equal(copies.vertex, (0, 1, 1, 2, 2, 3))
    matches = UvMatches(
        np.zeros((6, 2)),
        np.array([0.3, 0.2, 0.1, np.inf, 0.5, np.inf]),
        np.array([True, True, True, False, True, False]),
    )
    np.testing.assert_array_equal(copies.best(matches), (0, 2, 4))
    np.testing.assert_array_equal(uv_copies(topology, np.array([False, True, False, True])).vertex, (1, 1, 3))


def test_a_head_without_texture_coordinates_is_refused():
    with pytest.raises(InputError, match="texture coordinates"):
        uv_copies(Topology(np.zeros((0, 3), dtype=np.int64)))
