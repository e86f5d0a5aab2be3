"""The rasteriser against a slow, obvious twin, against pytorch3d, and against pinned conventions."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flame.camera import Intrinsics, project
from flame.errors import InputError
from flame.rasterizer import NEAR_METRES, Fragments, cuda, interpolate, rasterize
from flame.rasterizer.cpu import SUBPIXELS

IDENTITY_CAMERA = Intrinsics(1.0, 1.0, 0.0, 0.0, 4, 3)
"""A camera whose pixel coordinates at depth 1 are the points' own x and y."""


def twin(verts_cam, faces, intrinsics, cull_backfaces=False):
    """Rasterise with numpy, triangle after triangle over the whole image; pixels on an edge may go either way."""
    height, width = intrinsics.height, intrinsics.width
    rows, columns = np.mgrid[:height, :width] + 0.5
    triangle = np.full((height, width), -1)
    barycentric = np.zeros((height, width, 3))
    depth = np.full((height, width), np.inf)
    for index, face in enumerate(faces):
        corners = verts_cam[face]
        if (corners[:, 2] <= NEAR_METRES).any():
            continue
        corners = snap_to_subpixels(corners, intrinsics)
        # The ray through a pixel is a combination of the corners: the weights solve a 3 x 3 system.
        rays = np.stack(
            (
                (columns - intrinsics.cx) / intrinsics.fx,
                (rows - intrinsics.cy) / intrinsics.fy,
                np.ones_like(rows),
            ),
            axis=-1,
        )
        is_back = np.linalg.det(corners) > 0
        if abs(np.linalg.det(corners)) < 1e-12 or (cull_backfaces and is_back):
            continue
        weights = rays @ np.linalg.inv(corners)
        z = 1 / weights.sum(axis=-1)
        inside = (weights >= 0).all(axis=-1) & (z < depth)
        triangle[inside], depth[inside] = index, z[inside]
        barycentric[inside] = (weights * z[..., None])[inside]
    return Fragments(triangle, barycentric, depth)


def snap_to_subpixels(points_cam, intrinsics):
    """Move points so that their projections lie on the rasteriser's grid, at the same depth."""
    points_px = np.round(project(points_cam, intrinsics) * SUBPIXELS) / SUBPIXELS
    rays = (points_px - (intrinsics.cx, intrinsics.cy)) / (intrinsics.fx, intrinsics.fy)
    return np.concatenate((rays, np.ones((len(rays), 1))), axis=1) * points_cam[:, 2:]


def from_pixels(points_px, depth=1.0):
    """Place points given in pixels at a depth in front of ``IDENTITY_CAMERA``."""
    points_px = np.asarray(points_px, dtype=np.float64)
    return np.concatenate((points_px, np.ones((len(points_px), 1))), axis=1) * np.reshape(depth, (-1, 1))


def random_mesh(seed, num_triangles):
    """Return independent random triangles in front of a 32 x 24 camera, some crossing its border and its near plane."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform((-0.4, -0.3, 0.5), (0.4, 0.3, 2.0), (num_triangles, 1, 3))
    verts = centre + rng.normal(0, rng.uniform(0.02, 0.6), (num_triangles, 3, 3))
    return verts.reshape(-1, 3), np.arange(3 * num_triangles).reshape(-1, 3), Intrinsics(30.0, 33.0, 15.2, 12.9, 32, 24)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_triangles=st.integers(1, 30), cull=st.booleans())
def test_agrees_with_the_twin(seed, num_triangles, cull):
    verts, faces, intrinsics = random_mesh(seed, num_triangles)
    fast = rasterize(verts, faces, intrinsics, cull_backfaces=cull)
    slow = twin(verts, faces, intrinsics, cull_backfaces=cull)
    # Two surfaces that meet in a pixel within float32 may swap.
    same = fast.triangle == slow.triangle
    assert same.mean() > 0.99
    covered = same & fast.mask
    np.testing.assert_allclose(fast.depth[covered], slow.depth[covered], rtol=2e-6)
    np.testing.assert_allclose(fast.barycentric[covered], slow.barycentric[covered], atol=2e-6)
    differing = ~same
    np.testing.assert_allclose(fast.depth[differing], slow.depth[differing], rtol=1e-5)


def test_background_is_empty_and_types_are_fixed():
    fragments = rasterize(np.zeros((0, 3)), np.zeros((0, 3), int), IDENTITY_CAMERA)
    assert fragments.triangle.dtype == np.int32
    assert fragments.barycentric.dtype == fragments.depth.dtype == np.float32
    assert fragments.triangle.shape == (3, 4) and (fragments.triangle == -1).all()
    assert (fragments.barycentric == 0).all() and np.isinf(fragments.depth).all() and not fragments.mask.any()


def test_convention_pixel_centre_is_at_one_half():
    verts = from_pixels([(1.4, 1.4), (1.6, 1.4), (1.5, 1.7)])
    fragments = rasterize(verts, [[0, 1, 2]], IDENTITY_CAMERA)
    assert np.argwhere(fragments.mask).tolist() == [[1, 1]]
    assert not rasterize(verts + [0.4, 0, 0], [[0, 1, 2]], IDENTITY_CAMERA).mask.any()


def test_convention_top_left_edges_are_inside_bottom_right_are_not():
    square = from_pixels([(0.5, 0.5), (2.5, 0.5), (2.5, 2.5), (0.5, 2.5)])
    for faces in ([[0, 1, 2], [0, 2, 3]], [[2, 1, 0], [3, 2, 0]], [[1, 2, 3], [1, 3, 0]]):
        covered = rasterize(square, faces, IDENTITY_CAMERA).mask
        np.testing.assert_array_equal(covered, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])


def test_convention_front_faces_run_anticlockwise_on_screen():
    anticlockwise = from_pixels([(0, 0), (0, 3), (4, 0)])
    assert rasterize(anticlockwise, [[0, 1, 2]], IDENTITY_CAMERA, cull_backfaces=True).mask.any()
    assert not rasterize(anticlockwise, [[0, 2, 1]], IDENTITY_CAMERA, cull_backfaces=True).mask.any()
    assert rasterize(anticlockwise, [[0, 2, 1]], IDENTITY_CAMERA).mask.any()


def test_at_equal_depth_the_first_face_wins():
    verts = from_pixels([(0, 0), (0, 3), (4, 0)])
    assert set(np.unique(rasterize(verts, [[0, 1, 2], [0, 1, 2]], IDENTITY_CAMERA).triangle)) == {-1, 0}


@pytest.mark.parametrize("snap", [0.5, 0.25, 0.0])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_triangulated_square_covers_each_pixel_exactly_once(seed, snap):
    """Draw every triangle alone and count; vertices on pixel centres and repeated coordinates are the hard cases."""
    from scipy.spatial import Delaunay

    rng = np.random.default_rng(seed)
    size = 12
    points = rng.uniform(-2, size + 2, (40, 2))
    if snap:
        points = np.round(points / snap) * snap
    border = [(-3, -3), (-3, size + 3), (size + 3, -3), (size + 3, size + 3)]
    points = np.unique(np.concatenate((points, border)), axis=0)
    faces = Delaunay(points).simplices
    verts = from_pixels(points, depth=rng.uniform(0.5, 2, (len(points), 1)))
    camera = Intrinsics(1.0, 1.0, 0.0, 0.0, size, size)
    count = sum(rasterize(verts, face[None, rng.permutation(3)], camera).mask.astype(int) for face in faces)
    np.testing.assert_array_equal(count, 1)


def test_triangles_at_the_near_plane_are_dropped_whole():
    verts = from_pixels([(0, 0), (0, 3), (4, 0)], depth=[[1.0], [1.0], [NEAR_METRES]])
    assert not rasterize(verts, [[0, 1, 2]], IDENTITY_CAMERA).mask.any()
    verts[2] *= 1.01
    assert rasterize(verts, [[0, 1, 2]], IDENTITY_CAMERA).mask.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_vertices_that_are_not_finite_or_far_away_do_no_harm(bad):
    strange = [[bad, 0, 1], [0, bad, 1], [0, 0, bad], [bad, bad, bad]]
    verts = np.concatenate((from_pixels([(0, 0), (0, 3), (4, 0)]), strange))
    faces = [[0, 1, 2], [0, 1, 3], [3, 4, 0], [4, 5, 1], [6, 0, 1], [5, 1, 2]]
    fragments = rasterize(verts, faces, IDENTITY_CAMERA)
    assert fragments.triangle.shape == (3, 4) and fragments.triangle[0, 0] >= 0


def test_slivers_keep_their_depth_between_their_corners():
    rng = np.random.default_rng(3)
    start, end = rng.uniform(0, 24, (2, 300, 2))
    corners = np.stack((start, end, (start + end) / 2 + rng.normal(0, 1e-7, (300, 2))), axis=1).reshape(-1, 2)
    verts = from_pixels(corners, depth=rng.uniform(0.5, 2, (900, 1)))
    depth = rasterize(verts, np.arange(900).reshape(-1, 3), Intrinsics(1.0, 1.0, 0.0, 0.0, 24, 24)).depth
    assert ((depth >= 0.5) & (depth <= 2) | np.isinf(depth)).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_linear_fields_are_interpolated_exactly(seed):
    """Interpolating the vertices themselves gives points that project onto their own pixel at the stated depth."""
    verts, faces, intrinsics = random_mesh(seed, 20)
    fragments = rasterize(verts, faces, intrinsics)
    points = interpolate(fragments, faces, verts)[fragments.mask].astype(np.float64)
    rows, columns = np.nonzero(fragments.mask)
    np.testing.assert_allclose(points[:, 2], fragments.depth[fragments.mask], rtol=1e-5)
    np.testing.assert_allclose(project(points, intrinsics), np.stack((columns, rows), -1) + 0.5, atol=2e-3)
    np.testing.assert_allclose(fragments.barycentric[fragments.mask].sum(-1), 1, atol=1e-6)


def test_interpolate_takes_faces_of_its_own_for_seams():
    verts = from_pixels([(0, 0), (0, 3), (4, 0)])
    fragments = rasterize(verts, [[0, 1, 2]], IDENTITY_CAMERA)
    uv = np.array([[9.0, 9.0], [0.2, 0.3], [0.2, 0.3], [0.2, 0.3]])
    values = interpolate(fragments, [[1, 2, 3]], uv)
    np.testing.assert_allclose(values[fragments.mask], np.tile([0.2, 0.3], (fragments.mask.sum(), 1)), rtol=1e-6)
    assert values.dtype == np.float32 and (values[~fragments.mask] == 0).all()


def test_size_can_differ_from_the_intrinsics():
    verts = from_pixels([(0, 0), (0, 30), (40, 0)])
    whole = rasterize(verts, [[0, 1, 2]], IDENTITY_CAMERA, height=10, width=12)
    assert whole.triangle.shape == (10, 12)
    np.testing.assert_array_equal(whole.triangle[:3, :4], rasterize(verts, [[0, 1, 2]], IDENTITY_CAMERA).triangle)


def sphere(num_rings=8, num_segments=12, radius=0.1):
    """Return a sphere of outward triangles in front of the camera, off centre."""
    rings, segments = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, num_rings), np.arange(num_segments) * 2 * np.pi / num_segments, indexing="ij"
    )
    verts = np.stack((np.sin(rings) * np.cos(segments), np.cos(rings), np.sin(rings) * np.sin(segments)), -1)
    verts = verts.reshape(-1, 3)
    index = np.arange(num_rings * num_segments).reshape(num_rings, num_segments)
    a, b = index[:-1], index[1:]
    c, d = np.roll(b, -1, axis=1), np.roll(a, -1, axis=1)
    faces = np.concatenate((np.stack((a, c, b), -1).reshape(-1, 3), np.stack((a, d, c), -1).reshape(-1, 3)))
    return radius * verts + (0.03, -0.02, 0.6), faces


def check_against_pytorch3d(device, cull, size):
    """Compare the back ends on a mesh and camera in general position; pixels within float32 of an edge may differ."""
    verts, faces = sphere()
    intrinsics = Intrinsics(70.3, 64.1, size[0] / 2 + 1.7, size[1] / 2 - 2.3, *size)
    ours = rasterize(verts, faces, intrinsics, cull_backfaces=cull)
    arguments = (np.ascontiguousarray(verts), faces.astype(np.int32), intrinsics, size[1], size[0], cull, NEAR_METRES)
    theirs = Fragments(*cuda.rasterize(*arguments, device=device))
    assert (theirs.triangle.dtype, theirs.barycentric.dtype, theirs.depth.dtype) == (np.int32, np.float32, np.float32)
    same = ours.triangle == theirs.triangle
    assert ours.mask.sum() > 100 and same.mean() > 0.995
    both = same & ours.mask
    np.testing.assert_allclose(theirs.barycentric[both], ours.barycentric[both], atol=2e-4)
    np.testing.assert_allclose(theirs.depth[same], ours.depth[same], rtol=1e-5)
    assert (theirs.barycentric[~theirs.mask] == 0).all()


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("size", [(32, 24), (24, 32)])
def test_pytorch3d_shares_the_conventions(cull, size):
    pytest.importorskip("pytorch3d")
    check_against_pytorch3d("cpu", cull, size)


@pytest.mark.needs_cuda
def test_cuda_agrees_with_cpu():
    if not torch.cuda.is_available() and not os.environ.get("FAIL_WITHOUT_CUDA"):
        pytest.skip("no CUDA device")
    verts, faces = sphere()
    intrinsics = Intrinsics.from_fov(40.0, 64, 48)
    ours, theirs = rasterize(verts, faces, intrinsics), rasterize(verts, faces, intrinsics, backend="cuda")
    assert (ours.triangle == theirs.triangle).mean() > 0.995
    check_against_pytorch3d("cuda", True, (64, 48))


def test_pytorch3d_drops_triangles_at_the_near_plane():
    verts = from_pixels([(0, 0), (0, 3), (4, 0)], depth=[[1.0], [1.0], [NEAR_METRES]])
    faces = np.array([[0, 1, 2]], np.int32)
    arrays = cuda.rasterize(verts, faces, IDENTITY_CAMERA, 3, 4, False, NEAR_METRES, device="cpu")
    assert not Fragments(*arrays).mask.any()


def test_auto_draws_what_cpu_draws():
    verts, faces = sphere()
    intrinsics = Intrinsics.from_fov(40.0, 32, 24)
    auto, cpu = rasterize(verts, faces, intrinsics, backend="auto"), rasterize(verts, faces, intrinsics)
    assert (auto.triangle == cpu.triangle).mean() > 0.99


def test_errors_say_what_was_found(monkeypatch):
    verts, faces = sphere()
    with pytest.raises(InputError, match=r"vertices must have the shape \(vertices, 3\); got \(96, 2\)"):
        rasterize(verts[:, :2], faces, IDENTITY_CAMERA)
    with pytest.raises(InputError, match=r"faces must have the shape \(faces, 3\); got \(168, 2\)"):
        rasterize(verts, faces[:, :2], IDENTITY_CAMERA)
    with pytest.raises(InputError, match="faces name vertices 0 to 95, but there are 50 vertices"):
        rasterize(verts[:50], faces, IDENTITY_CAMERA)
    with pytest.raises(InputError, match="unknown rasteriser back end 'gpu'; choose cpu, cuda or auto"):
        rasterize(verts, faces, IDENTITY_CAMERA, backend="gpu")  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="cuda rasteriser cannot be used: no CUDA device is visible to torch; choose"):
        rasterize(verts, faces, IDENTITY_CAMERA, backend="cuda")
    fragments = rasterize(verts, faces, Intrinsics.from_fov(40.0, 32, 24))
    with pytest.raises(InputError, match=r"attributes must have the shape \(vertices, channels\); got \(96,\)"):
        interpolate(fragments, faces, verts[:, 0])
    with pytest.raises(InputError, match="fragments name triangle"):
        interpolate(fragments, faces[:3], verts)
