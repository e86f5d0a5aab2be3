from __future__ import annotations

import numpy as np
import pytest

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.shading import vertex_normals
from priors.pixel_kinds import Kind
from priors.training.render.labelling import LabelledMesh
from priors.training.render.light import random_light
from priors.training.render.textured import flat_light, render_mesh
from tests.toy_head import make_toy_head

CAMERA = Intrinsics(180.0, 180.0, 32.0, 32.0, 64, 64)


def make_mesh() -> tuple[LabelledMesh, np.ndarray]:
    head = make_toy_head()
    topology = head.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    faces = head.faces.numpy().astype(np.int32)
    template = head.template.numpy()
    kinds = np.where(topology.regions["eyes"][faces].all(axis=1), Kind.EYE, Kind.SKIN).astype(np.uint8)
    mesh = LabelledMesh(faces, kinds, template, topology.uv, topology.uv_faces.astype(np.int32))
    return mesh, 1.1 * template * (1, -1, -1) + (0, 0, 0.8)


def checkerboard(size: int = 512, fields: int = 16) -> np.ndarray:
    rows, columns = np.indices((size, size)) * fields // size
    return np.where(((rows + columns) % 2 == 0)[..., None], (230, 40, 40), (30, 60, 200)).astype(np.uint8)


def test_a_checkerboard_lies_where_its_coordinates_say():
    mesh, verts_cam = make_mesh()
    texture = checkerboard()
    image, labels = render_mesh(verts_cam, mesh, texture, CAMERA, flat_light())
    rows = np.clip(((1 - labels.uv[..., 1]) * 512).astype(int), 0, 511)
    columns = np.clip((labels.uv[..., 0] * 512).astype(int), 0, 511)
    expected = texture[rows, columns]
    position = np.stack((rows, columns), -1) % 32
    in_field = labels.valid & (position > 6).all(axis=-1) & (position < 26).all(axis=-1)
    assert in_field.sum() > 200
    is_red = image[..., 0] > image[..., 2]
    assert (is_red == (expected[..., 0] > expected[..., 2]))[in_field].mean() > 0.985
    assert (image[~labels.valid & (labels.kind == Kind.BACKGROUND)].max(axis=-1) > 0).mean() < 0.2


def test_labels_speak_of_the_template_not_of_the_mesh():
    mesh, verts_cam = make_mesh()
    labels = render_mesh(verts_cam, mesh, checkerboard(), CAMERA, flat_light(), labels_px=32)[1]
    assert labels.kind.shape == (32, 32) and set(np.unique(labels.kind)) >= {Kind.BACKGROUND, Kind.SKIN}
    seen = labels.place[labels.valid]
    assert seen.max(axis=0) == pytest.approx(mesh.template.max(axis=0), abs=0.03)
    assert (seen[:, 2] > -0.02).all()
    normals = vertex_normals(verts_cam, mesh.faces)
    assert labels.normals_cam[labels.valid].min() >= normals.min() - 1e-6


def test_lamps_light_the_side_they_stand_on():
    mesh, verts_cam = make_mesh()
    grey = np.full((8, 8, 3), 180, np.uint8)
    background = np.full((64, 64, 3), 0.25, np.float32)
    light = flat_light()._replace(
        sh=0.05 * flat_light().sh,
        positions=np.array(((1.0, 0.0, 0.0),), np.float32),
        colors=np.ones((1, 3), np.float32),
    )
    image, labels = render_mesh(verts_cam, mesh, grey, CAMERA, light, background=background)
    left, right = image[:, :32][labels.valid[:, :32]], image[:, 32:][labels.valid[:, 32:]]
    assert right.mean() > 1.7 * left.mean()
    np.testing.assert_allclose(image[0, 0], 0.25, atol=1e-3)


def test_random_lights_are_finite_and_differ():
    mesh, verts_cam = make_mesh()
    lights = [random_light(np.random.default_rng(seed), verts_cam, mesh.faces) for seed in range(20)]
    assert {len(light.lamps()) for light in lights} == {0, 1, 2, 3}
    assert all(np.isfinite(light.sh).all() and np.isfinite(light.lamps()).all() for light in lights)


def test_wrong_shapes_are_refused():
    mesh, verts_cam = make_mesh()
    wide = Intrinsics(180.0, 180.0, 32.0, 32.0, 80, 64)
    with pytest.raises(InputError, match="80 x 64; training pictures are square"):
        render_mesh(verts_cam, mesh, checkerboard(), wide, flat_light())
    with pytest.raises(InputError, match="the texture has shape"):
        render_mesh(verts_cam, mesh, checkerboard()[..., 0], CAMERA, flat_light())
    with pytest.raises(InputError, match="the background has shape"):
        render_mesh(verts_cam, mesh, checkerboard(), CAMERA, flat_light(), background=np.zeros((3, 3, 3)))
    with pytest.raises(InputError, match="unknown rasteriser back end"):
        render_mesh(verts_cam, mesh, checkerboard(), CAMERA, flat_light(), backend="gl")  # type: ignore[arg-type]
