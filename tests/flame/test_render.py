"""Anti-aliased pictures of meshes."""

from __future__ import annotations

import numpy as np
import pytest

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.rasterizer import rasterize
from flame.render import render, visible_box
from flame.shading import NOT_AN_EYE, normals_to_rgb, shade

CAMERA = Intrinsics(40.0, 40.0, 20.0, 15.0, 40, 30)

ANTICLOCKWISE = np.array([[0, 2, 1], [0, 3, 2]])


def rectangle(left, top, right, bottom, depth=1.0):
    """Return a rectangle that faces the camera and covers these pixels."""
    corners_px = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
    rays = np.concatenate(((corners_px - (20, 15)) / 40, np.ones((4, 1))), axis=1)
    return rays * depth, ANTICLOCKWISE


def alpha_of(layer):
    """Return the layer's opacity in the whole image."""
    alpha = np.zeros((30, 40))
    height, width = layer.rgba.shape[:2]
    alpha[layer.top : layer.top + height, layer.left : layer.left + width] = layer.rgba[..., 3]
    return alpha


def test_covers_the_same_pixels_as_the_rasteriser():
    verts, faces = rectangle(5, 6, 17, 21)
    expected = rasterize(verts, faces, CAMERA).mask
    for supersampling in (1, 2, 3):
        np.testing.assert_array_equal(alpha_of(render(verts, faces, CAMERA, supersampling=supersampling)), expected)


@pytest.mark.parametrize(("supersampling", "step"), [(2, 0.5), (4, 0.25)])
def test_edges_are_covered_in_part(supersampling, step):
    verts, faces = rectangle(5 + step, 6, 17 + step, 21)
    alpha = alpha_of(render(verts, faces, CAMERA, supersampling=supersampling))
    np.testing.assert_allclose(alpha[10, 5], 1 - step)
    np.testing.assert_allclose(alpha[10, 17], step)
    np.testing.assert_allclose(alpha.sum(), 12 * 15)


def test_back_faces_are_left_out():
    verts, faces = rectangle(5, 6, 17, 21)
    assert alpha_of(render(verts, faces[:, ::-1], CAMERA)).sum() == 0


@pytest.mark.parametrize("shift", [(100, 0), (0, 100), (-100, -100)])
def test_outside_the_image_is_an_empty_layer(shift):
    left, top = shift
    verts, faces = rectangle(5 + left, 6 + top, 17 + left, 21 + top)
    image = np.full((30, 40, 3), 7, np.uint8)
    for hidden in (verts, -rectangle(5, 6, 17, 21)[0]):
        layer = render(hidden, faces, CAMERA)
        assert layer.rgba.size == 0 and visible_box(hidden, CAMERA) is None
        layer.over(image)
    assert (image == 7).all()


def test_cut_by_the_border():
    verts, faces = rectangle(-9, -7, 50, 3)
    assert visible_box(verts, CAMERA) == (0, 0, 40, 3)
    assert (alpha_of(render(verts, faces, CAMERA))[:3] == 1).all()


def test_colours_are_those_of_the_shading():
    verts, faces = rectangle(19, 14, 21, 16)
    centre = np.array((0, 0, 1.0))
    clay = render(verts, faces, CAMERA, colors=(0.3, 0.5, 0.8)).rgba[0, 0, :3]
    np.testing.assert_allclose(clay, shade(-centre, (0.3, 0.5, 0.8)), atol=0.02)
    normals = render(verts, faces, CAMERA, mode="normals").rgba[0, 0, :3]
    np.testing.assert_allclose(normals, normals_to_rgb(-centre), atol=0.02)
    per_vertex = render(verts, faces, CAMERA, colors=np.tile((0.3, 0.5, 0.8), (4, 1))).rgba[0, 0, :3]
    np.testing.assert_allclose(per_vertex, clay, atol=1e-6)


def test_wire_draws_dark_edges_on_the_clay():
    verts, faces = rectangle(2, 2, 38, 28)
    clay, wire = render(verts, faces, CAMERA).rgba, render(verts, faces, CAMERA, mode="wire").rgba
    np.testing.assert_allclose(wire[18, 4], clay[18, 4])
    assert wire[13, 18, :3].sum() < 0.5 * clay[13, 18, :3].sum()


def test_blends_over_the_image():
    verts, faces = rectangle(5, 6, 17, 21)
    image = np.full((30, 40, 3), 200, np.uint8)
    layer = render(verts, faces, CAMERA, opacity=0.25)
    layer.over(image)
    assert (image[:, 17:] == 200).all() and (image[21:] == 200).all()
    expected = 200 * 0.75 + 255 * layer.rgba[8, 6, :3]
    np.testing.assert_allclose(image[layer.top + 8, layer.left + 6], expected, atol=0.51)


def test_opacity_is_interpolated_between_vertices():
    verts, faces = rectangle(0, 0, 40, 30)
    rgba = render(verts, faces, CAMERA, opacity=np.array((0, 1, 1, 0.0))).rgba
    np.testing.assert_allclose(rgba[10, :, 3], (np.arange(40) + 0.5) / 40, atol=0.01)


def test_an_iris_is_a_dark_disc_on_the_eyeball():
    verts, faces = rectangle(10, 5, 30, 25)
    iris = np.array([(-0.01, 0.01), (0.01, 0.01), (0.01, -0.01), (-0.01, -0.01)])
    white = render(verts, faces, CAMERA, colors=(0.9, 0.9, 0.9)).rgba[..., :3].mean(axis=-1)
    eye = render(verts, faces, CAMERA, colors=(0.9, 0.9, 0.9), iris_metres=iris).rgba[..., :3].mean(axis=-1)
    rows, columns = np.mgrid[:20, :20] + 0.5 - 10
    is_iris = np.hypot(rows, columns) * 0.001 < 0.0045
    assert (eye[is_iris] < 0.75 * white[is_iris]).all()
    corners = np.hypot(rows, columns) * 0.001 > 0.009
    assert (eye[corners] >= white[corners] - 1e-6).all()
    far = render(verts, faces, CAMERA, colors=(0.9, 0.9, 0.9), iris_metres=np.full((4, 2), NOT_AN_EYE))
    np.testing.assert_allclose(far.rgba[..., :3].mean(axis=-1), white)


def test_unknown_modes_are_refused():
    with pytest.raises(InputError, match="unknown drawing mode 'x-ray'; choose mesh, normals, wire"):
        render(*rectangle(5, 6, 17, 21), CAMERA, mode="x-ray")  # pyright: ignore[reportArgumentType]
