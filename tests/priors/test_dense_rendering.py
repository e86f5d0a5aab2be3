from __future__ import annotations

import numpy as np
import pytest

from flame.camera import Intrinsics, project
from flame.errors import InputError
from flame.model import HeadModel
from flame.rasterizer import rasterize
from flame.shading import vertex_normals
from priors.dense_rendering import render_dense_maps, render_foreground

CAMERA = Intrinsics.from_fov(26.0, 160, 120)
UPRIGHT = np.diag((1.0, -1.0, -1.0))


@pytest.fixture
def verts_cam(toy_head: HeadModel) -> np.ndarray:
    return toy_head.template.numpy() @ UPRIGHT.T + (0.0, 0.0, 0.8)


def test_pixels_show_the_vertices_that_fall_on_them(toy_head: HeadModel, verts_cam: np.ndarray) -> None:
    maps = render_dense_maps(toy_head, verts_cam, CAMERA)
    assert maps.uv.shape == (120, 160, 2)
    assert maps.normal_space == "camera"
    topology, faces = toy_head.topology, toy_head.faces.numpy()
    assert topology is not None
    assert topology.uv is not None
    face = np.flatnonzero(topology.region("nose"))
    column, row = np.floor(project(verts_cam[face], CAMERA)).astype(int).T
    # The template's front has the first copy of the texture.
    np.testing.assert_allclose(maps.uv[row, column], topology.uv[face], atol=5e-3)
    normals = vertex_normals(verts_cam, faces)[face]
    np.testing.assert_allclose(maps.normals[row, column], normals, atol=0.05)


def test_eyes_are_left_out_but_belong_to_the_foreground(toy_head: HeadModel, verts_cam: np.ndarray) -> None:
    maps, foreground = render_dense_maps(toy_head, verts_cam, CAMERA), render_foreground(toy_head, verts_cam, CAMERA)
    topology = toy_head.topology
    assert topology is not None
    seen = rasterize(verts_cam, toy_head.faces.numpy(), CAMERA).triangle
    shows_eye = (seen >= 0) & topology.region("eyes")[toy_head.faces.numpy()].any(axis=1)[seen]
    assert shows_eye.any()
    np.testing.assert_array_equal(maps.mask, foreground & ~shows_eye)
    for values in (maps.uv, maps.normals):
        np.testing.assert_array_equal(np.isfinite(values).all(axis=-1), maps.mask)
    np.testing.assert_allclose(np.linalg.norm(maps.normals[maps.mask], axis=-1), 1.0, atol=1e-5)


def test_head_space_undoes_the_rotation(toy_head: HeadModel, verts_cam: np.ndarray) -> None:
    in_camera = render_dense_maps(toy_head, verts_cam, CAMERA)
    in_head = render_dense_maps(toy_head, verts_cam, CAMERA, normal_space="head", cam_from_neck=UPRIGHT)
    assert in_head.normal_space == "head"
    np.testing.assert_allclose(in_head.normals, in_camera.normals * (1, -1, -1), atol=1e-6)
    assert np.nanmean(in_head.normals[..., 2]) > 0.5
    with pytest.raises(InputError, match="cam_from_neck"):
        render_dense_maps(toy_head, verts_cam, CAMERA, normal_space="head")


def test_a_surface_seen_from_behind_says_nothing(toy_head: HeadModel, verts_cam: np.ndarray) -> None:
    # Mirrored along the ray, every triangle shows its back.
    inside_out = verts_cam * (-1.0, 1.0, 1.0)
    assert not render_dense_maps(toy_head, inside_out, CAMERA).mask.any()
