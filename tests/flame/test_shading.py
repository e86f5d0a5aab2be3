"""Normals, their colours and the studio light."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.rasterizer import rasterize
from flame.shading import (
    NOT_AN_EYE,
    Lighting,
    eye_from_cam,
    head_look,
    normals_to_rgb,
    screen_occlusion,
    shade,
    vertex_normals,
)

SEEDS = st.integers(0, 2**32 - 1)


def grid(size, height_at=lambda x, y: 0 * x, spacing=0.002, depth=0.5):
    """Return a height field in camera space that faces the camera; heights in metres towards it."""
    steps = (np.arange(size) - (size - 1) / 2) * spacing
    y, x = np.meshgrid(steps, steps, indexing="ij")
    verts = np.stack((x, y, depth - height_at(x, y)), axis=-1).reshape(-1, 3)
    index = np.arange(size * size).reshape(size, size)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.stack((np.stack((a, b, c), -1), np.stack((a, c, d), -1))).reshape(-1, 3)
    return verts, faces


def normals_twin(verts, faces):
    normals = np.zeros_like(verts)
    for face in faces:
        a, b, c = verts[face]
        for corner in face:
            normals[corner] += np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_vertex_normals_agree_with_the_twin(seed):
    rng = np.random.default_rng(seed)
    verts, faces = rng.normal(size=(12, 3)), rng.integers(0, 10, (15, 3))
    np.testing.assert_allclose(vertex_normals(verts, faces), normals_twin(verts, faces), atol=1e-9)


def test_convention_faces_that_face_the_camera_have_normals_towards_it():
    verts, faces = grid(4)
    np.testing.assert_allclose(vertex_normals(verts, faces), np.tile((0, 0, -1.0), (16, 1)), atol=1e-12)
    assert rasterize(verts, faces, Intrinsics.from_fov(2.0, 32, 32), cull_backfaces=True).mask.any()


@pytest.mark.parametrize(
    ("normal_cam", "rgb"),
    [
        ((1, 0, 0), (1, 0.5, 0.5)),
        ((0, -1, 0), (0.5, 1, 0.5)),
        ((0, 0, -1), (0.5, 0.5, 1)),
        ((0, 0, 1), (0.5, 0.5, 0)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_convention_normal_colours_are_right_up_towards_the_camera(normal_cam, rgb):
    np.testing.assert_allclose(normals_to_rgb(np.array(normal_cam)), rgb)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_eye_frame_is_a_rotation_that_sends_the_ray_to_minus_z(seed):
    rng = np.random.default_rng(seed)
    point = np.append(rng.uniform(-1, 1, 2), 1.0)
    axes = eye_from_cam(np.eye(3), np.tile(point, (3, 1)))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(eye_from_cam(-point / np.linalg.norm(point), point), (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(eye_from_cam(np.eye(3), np.tile((0, 0, 1.0), (3, 1))), np.diag((1, -1, -1)), atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_shades_are_colours_and_creases_are_darker(seed):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(4, 5, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    lit = shade(normals, rng.uniform(0, 1, (4, 5, 3)))
    assert lit.shape == (4, 5, 3) and lit.dtype == np.float32 and (lit >= 0).all() and (lit <= 1).all()
    assert (shade(normals, occlusion=0.3) <= shade(normals) + 1e-6).all()
    np.testing.assert_array_equal(shade(normals, occlusion=0.3, lighting=Lighting(occlusion=0.0)), shade(normals))


def test_light_comes_from_above_left_and_follows_the_ray():
    up, down, left, right = np.array(((0, -0.8, -0.6), (0, 0.8, -0.6), (-0.8, 0, -0.6), (0.8, 0, -0.6)))
    assert shade(up).sum() > shade(down).sum() + 0.3
    assert shade(left).sum() > shade(right).sum() + 0.1
    ahead, aside = np.array((0, 0, 1.0)), np.array((0.6, 0, 0.8))
    np.testing.assert_allclose(shade(-aside, points_cam=aside), shade(-ahead, points_cam=ahead), atol=1e-6)
    np.testing.assert_allclose(shade(-ahead, points_cam=ahead), shade(-ahead), atol=1e-6)


def test_shade_refuses_what_is_not_a_normal():
    with pytest.raises(InputError, match=r"normals must have the shape \(..., 3\); got \(4, 2\)"):
        shade(np.zeros((4, 2)))


def occlusion_of(verts, faces):
    intrinsics = Intrinsics.from_fov(15.0, 300, 300)
    depth = rasterize(verts, faces, intrinsics).depth
    return screen_occlusion(verts, vertex_normals(verts, faces), 1 / depth, intrinsics)


def test_a_plane_and_a_ridge_are_open_a_groove_is_shut():
    flat = occlusion_of(*grid(41))
    assert (flat > 0.98).all()
    groove = occlusion_of(*grid(41, lambda x, y: -0.01 * np.exp(-((x / 0.006) ** 2)))).reshape(41, 41)
    ridge = occlusion_of(*grid(41, lambda x, y: 0.01 * np.exp(-((x / 0.006) ** 2)))).reshape(41, 41)
    assert groove[20, 20] < 0.6 and groove[20, 8] > 0.9
    assert ridge[20, 20] > 0.98
    assert ((groove > 0) & (groove <= 1)).all()


def test_head_look_paints_regions_and_fades_to_the_rim():
    verts, faces = grid(21)
    template = verts * (1, -1, -1)
    masks = {name: np.zeros(len(verts), bool) for name in ("lips", "eyes", "left_eye")}
    masks["lips"][100:104] = True
    masks["eyes"][200:205] = masks["left_eye"][200:205] = True
    template[200:205] = [(0, 0, 0), (0.01, 0, 0), (-0.01, 0.01, 0), (0, -0.01, 0), (0.0, 0.0, 0.012)]
    look = head_look(template, faces, masks, (0.5, 0.6, 0.7))
    np.testing.assert_allclose(look.colors[0], (0.5, 0.6, 0.7))
    assert (look.colors[100] != look.colors[0]).any() and (look.colors[200:205] > 0.8).all()
    np.testing.assert_allclose(look.iris_metres[204], 0, atol=1e-12)
    assert (look.iris_metres[200:204] == NOT_AN_EYE / 2).all() and (look.iris_metres[0] == NOT_AN_EYE).all()
    opacity = look.opacity.reshape(21, 21)
    assert (opacity[[0, -1]] == 0).all() and opacity[10, 10] > 0.9 and (np.diff(opacity[10, :11]) > -1e-12).all()


def test_a_head_without_regions_is_clay_all_over():
    verts, faces = grid(5)
    look = head_look(verts, faces, {})
    assert (look.colors == look.colors[0]).all() and (look.iris_metres == NOT_AN_EYE).all()
