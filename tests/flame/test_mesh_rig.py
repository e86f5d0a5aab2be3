"""The rig of all vertices: the head model's own positions, and derivatives that are those of finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame.loading import load_head
from flame.mesh_rig import NUM_CAMERA, NUM_RIGID, MeshRig, PosedMesh, VertexRings
from flame.model import HeadModel
from flame.rotation_kernels import rotation_matrix
from flame.shading import vertex_normals

STEP = 1e-6
FOCAL = np.array([900.0, 850.0])
GROUPS = {"rotation": 3, "translation": 3, "neck": 3, "jaw": 3, "left_eye": 3, "right_eye": 3}


@pytest.fixture(scope="module")
def moving_head(toy_head: HeadModel) -> HeadModel:
    """Return a head whose expressions move its joints, too, as FLAME's do not but others may."""
    generator = torch.Generator().manual_seed(3)
    regressor = toy_head.joint_regressor + 0.01 * torch.rand(
        toy_head.joint_regressor.shape, generator=generator, dtype=torch.float64
    )
    head = replace(toy_head, joint_regressor=regressor)
    assert (head.joint_expression_basis != 0).any()
    return head


def values(rig: MeshRig, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return shape, expression, joint angles, rotation and translation."""
    rng = np.random.default_rng(seed)
    rotation = rotation_matrix(rng.normal(size=3)) @ np.diag([1.0, -1.0, -1.0])
    shape, expression = rng.normal(size=rig.num_shapes), rng.normal(size=rig.num_expressions)
    return shape, expression, 0.4 * rng.normal(size=12), rotation, np.array([0.1, -0.05, 0.7])


def of_model(head: HeadModel, shape, expression, joint_angles, rotation, translation) -> np.ndarray:
    """Return the head model's vertices in camera space."""
    angles = torch.as_tensor(joint_angles, dtype=head.dtype).view(4, 3)
    turns = dict(zip(("neck", "jaw", "left_eye", "right_eye"), angles, strict=True))
    given = {"shape": shape, "expression": expression}
    coefficients = {name: torch.as_tensor(value, dtype=head.dtype) for name, value in given.items()}
    return head.vertices(**coefficients, **turns).double().numpy() @ rotation.T + translation


def stepped(rig: MeshRig, at: PosedMesh, delta: np.ndarray) -> np.ndarray:
    """Return the vertices after a step of all parameters but the camera's."""
    turn = rotation_matrix(np.ascontiguousarray(delta[:3])) @ at.rotation
    first_shape = 18 + rig.num_expressions
    posed = rig.pose(
        at.shape + delta[first_shape : first_shape + rig.num_shapes],
        at.expression + delta[18:first_shape],
        at.joint_angles + delta[6:18],
        turn,
        at.translation + delta[3:6],
    )
    return posed.verts_cam


def columns(rig: MeshRig, group: str) -> range:
    """Return which columns of the Jacobian belong to a group."""
    first_shape = 18 + rig.num_expressions
    if group == "expression":
        return range(18, first_shape)
    if group == "shape":
        return range(first_shape, first_shape + rig.num_shapes)
    first = 3 * list(GROUPS).index(group)
    return range(first, first + 3)


@pytest.mark.parametrize("seed", range(3))
def test_vertices_are_those_of_the_head_model(moving_head, seed):
    rig = MeshRig.of(moving_head, np.float64)
    at = values(rig, seed)
    np.testing.assert_allclose(rig.pose(*at).verts_cam, of_model(moving_head, *at), atol=1e-12)


def test_single_precision_is_right_to_micrometres():
    head = load_head()
    rig = MeshRig.of(head)
    at = values(rig)
    assert rig.shape_basis.dtype == np.float32
    np.testing.assert_allclose(rig.pose(*at).verts_cam, of_model(head.to(dtype=torch.float64), *at), atol=3e-6)


@pytest.mark.parametrize("group", [*GROUPS, "expression", "shape"])
def test_jacobian_equals_finite_differences(moving_head, group):
    rig = MeshRig.of(moving_head, np.float64)
    posed = rig.pose(*values(rig, 1))
    vertices = np.arange(0, rig.num_vertices, 2)
    jacobian = rig.jacobian(posed, FOCAL, vertices)
    assert jacobian.shape == (len(vertices), 3, rig.num_parameters)
    for column in columns(rig, group):
        delta = np.zeros(rig.num_parameters)
        delta[column] = STEP
        expected = (stepped(rig, posed, delta) - stepped(rig, posed, -delta)) / (2 * STEP)
        np.testing.assert_allclose(jacobian[:, :, column], expected[vertices], atol=2e-9)


def test_the_camera_s_columns_move_the_image_as_the_camera_does(toy_head):
    rig = MeshRig.of(toy_head, np.float64)
    posed = rig.pose(*values(rig, 2))
    jacobian = rig.jacobian(posed, FOCAL, np.arange(rig.num_vertices))[:, :, -NUM_CAMERA:]
    depth = posed.verts_cam[:, 2:]
    in_image = FOCAL[:, None] * jacobian[:, :2] / depth[..., None]
    np.testing.assert_allclose(in_image[:, :, 0], FOCAL * posed.verts_cam[:, :2] / depth, rtol=1e-12)
    np.testing.assert_allclose(in_image[:, :, 1:], np.tile(np.eye(2), (rig.num_vertices, 1, 1)), rtol=1e-12)
    assert not jacobian[:, 2].any()


def test_rows_are_written_where_they_are_wanted(toy_head):
    rig = MeshRig.of(toy_head)
    posed = rig.pose(*values(rig))
    some = np.array([7, 3, 50])
    out = np.full((3, 3, rig.num_parameters), np.nan, np.float32)
    assert rig.jacobian(posed, FOCAL, some, out) is out
    np.testing.assert_array_equal(out, rig.jacobian(posed, FOCAL, np.arange(rig.num_vertices))[some])


def test_a_person_and_shape_directions_are_other_ways_to_the_same_head(toy_head):
    rig = MeshRig.of(toy_head, np.float64)
    rng = np.random.default_rng(4)
    person, step, directions = rng.normal(size=10), rng.normal(size=4), rng.normal(size=(10, 4))
    _, *rest = values(rig)
    whole = rig.pose(person + directions @ step, *rest)
    part = rig.with_shape(person).with_shape_basis(directions).pose(step, *rest)
    np.testing.assert_allclose(part.verts_cam, whole.verts_cam, atol=1e-12)
    rows = rig.jacobian(whole, FOCAL, np.arange(20))
    reduced = rig.with_shape(person).with_shape_basis(directions).jacobian(part, FOCAL, np.arange(20))
    shapes = slice(18 + rig.num_expressions, -NUM_CAMERA)
    np.testing.assert_allclose(reduced[..., shapes], rows[..., shapes] @ directions, atol=1e-12)


def test_no_shape_directions_are_no_columns(toy_head):
    rig = MeshRig.of(toy_head)
    person = rig.with_shape(np.ones(10)).with_shape_basis(np.zeros((10, 0)))
    assert person.num_shapes == 0
    assert person.num_parameters == NUM_RIGID + 12 + rig.num_expressions + NUM_CAMERA
    _, *rest = values(rig)
    posed = person.pose(np.zeros(0), *rest)
    np.testing.assert_allclose(posed.verts_cam, rig.pose(np.ones(10), *rest).verts_cam, atol=1e-6)
    assert np.isfinite(person.jacobian(posed, FOCAL, np.arange(5))).all()


def normals_by_rings(rings: VertexRings, verts: np.ndarray) -> np.ndarray:
    """Return twice the vertices' area normals, by the definition in ``VertexRings``."""
    out = np.zeros_like(verts)
    for vertex in range(len(verts)):
        ring = slice(rings.start[vertex], rings.start[vertex + 1])
        edges = verts[rings.after[ring]] - verts[rings.before[ring]]
        out[vertex] = np.cross(verts[rings.neighbour[ring]], edges).sum(axis=0)
    return out


@pytest.mark.parametrize("has_rim", (False, True))
def test_rings_give_the_area_normals(toy_head, has_rim):
    faces = toy_head.faces.numpy()
    # Without its lowest triangles the head has an open rim, and vertices that no triangle has.
    faces = faces[toy_head.template.numpy()[faces][..., 1].max(axis=1) > -0.05] if has_rim else faces
    verts = toy_head.template.numpy() + 0.3
    area = normals_by_rings(VertexRings.of(faces, len(verts)), verts)
    used = np.unique(faces)
    length = np.linalg.norm(area[used], axis=1, keepdims=True)
    np.testing.assert_allclose(area[used] / length, vertex_normals(verts, faces)[used], atol=1e-6)
    assert not np.delete(area, used, axis=0).any()
