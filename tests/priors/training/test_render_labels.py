"""Labels against plain ray casting: every triangle is intersected with the ray through a pixel's centre."""

from __future__ import annotations

import numpy as np
import pytest

from flame.camera import Intrinsics
from flame.loading import load_head
from flame.shading import vertex_normals
from priors.pixel_kinds import Kind
from priors.training.labels import LabelMaps
from priors.training.render.labelling import covered, cut_at_border
from priors.training.render.renderer import Renderer
from priors.training.render.view import place_head


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(load_head("commons"), 128, 64)


def cast_ray(verts: np.ndarray, faces: np.ndarray, direction: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Return the nearest triangle that a ray from the origin enters from the front, and where on it."""
    a, b, c = verts[faces[:, 0]], verts[faces[:, 1]], verts[faces[:, 2]]
    edge_b, edge_c = b - a, c - a
    across = np.cross(direction, edge_c)
    determinant = np.einsum("fi,fi->f", edge_b, across)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.einsum("fi,fi->f", -a, across) / determinant
        turned = np.cross(-a, edge_b)
        v = turned @ direction / determinant
        t = np.einsum("fi,fi->f", edge_c, turned) / determinant
    hit = (determinant > 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    if not hit.any():
        return None
    nearest = int(np.flatnonzero(hit)[t[hit].argmin()])
    return nearest, np.array((1 - u[nearest] - v[nearest], u[nearest], v[nearest]))


def posed_scene(renderer: Renderer, seed: int) -> tuple[np.ndarray, np.ndarray, Intrinsics]:
    """Return vertices and normals of a random scene in camera space, and its camera."""
    rng = np.random.default_rng(seed)
    person, rig = renderer.people.draw(rng), renderer.people.rig
    posed = rig.pose(person.identity, person.expression, person.joint_angles, np.eye(3), np.zeros(3))
    view = place_head(renderer.landmarks.on(posed.verts_cam, rig.faces), rng, 128)
    verts = renderer.stage.vertices(posed.verts_cam, person, view.rotation, rng)
    verts_cam = verts @ view.rotation.T + view.translation
    return verts_cam, vertex_normals(verts_cam, renderer.stage.mesh.faces), view.intrinsics.scale(0.5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_labels_are_what_rays_meet(renderer: Renderer, seed: int):
    verts, normals, camera = posed_scene(renderer, seed)
    mesh = renderer.stage.mesh
    labels = mesh.labels(verts, normals, camera)
    pixels = np.random.default_rng(seed).integers(0, 64, (120, 2))
    num_checked = 0
    for row, column in pixels:
        ray = np.array(((column + 0.5 - camera.cx) / camera.fx, (row + 0.5 - camera.cy) / camera.fy, 1.0))
        found = cast_ray(verts, mesh.faces, ray)
        if found is None:
            assert labels.kind[row, column] == Kind.BACKGROUND and not labels.valid[row, column]
            continue
        triangle, weights = found
        if weights.min() < 1e-3:
            continue  # on an edge; rounding decides between neighbours
        assert labels.kind[row, column] == mesh.kinds[triangle]
        assert labels.valid[row, column] == (triangle < len(mesh.uv_faces))
        if labels.valid[row, column]:
            corners = mesh.faces[triangle]
            np.testing.assert_allclose(labels.place[row, column], weights @ mesh.template[corners], atol=1e-4)
            np.testing.assert_allclose(labels.uv[row, column], weights @ mesh.uv[mesh.uv_faces[triangle]], atol=1e-4)
            normal = weights @ normals[corners]
            np.testing.assert_allclose(labels.normals_cam[row, column], normal / np.linalg.norm(normal), atol=1e-4)
            num_checked += 1
    assert num_checked > 25


def test_facts_place_the_labelled_surface_in_the_picture(renderer: Renderer):
    drawn = renderer.draw(5, 1)
    camera = Intrinsics(**drawn.meta["intrinsics"])
    assert (camera.width, camera.height) == (128, 128)
    identity, expression, angles = (np.array(drawn.meta[name]) for name in ("identity", "expression", "joint_angles"))
    cam_from_head = np.array(drawn.meta["cam_from_head"])
    rig = renderer.people.rig
    posed = rig.pose(identity, expression, angles, cam_from_head[:3, :3], cam_from_head[:3, 3])
    faces = rig.faces
    labels = renderer.stage.mesh.labels(
        np.concatenate((posed.verts_cam, np.full((len(renderer.stage.mesh.faces), 3), -1.0))),
        np.zeros((len(posed.verts_cam) + len(renderer.stage.mesh.faces), 3)),
        camera.scale(0.5),
    )
    both = labels.valid & drawn.labels.valid
    assert both.sum() > 200
    assert np.abs(labels.place[both] - drawn.labels.place[both]).max() < 1e-3
    neck = np.array(drawn.meta["cam_from_neck"])
    np.testing.assert_allclose(neck @ neck.T, np.eye(3), atol=1e-9)
    assert faces.max() < len(posed.verts_cam)


def test_pictures_depend_on_seed_and_number_only(renderer: Renderer):
    first = [renderer.draw(11, number) for number in (0, 1)]
    again = Renderer(renderer.head, 128, 64).draw(11, 1)
    np.testing.assert_array_equal(first[1].image, again.image)
    np.testing.assert_array_equal(first[1].labels.place, again.labels.place)
    assert first[1].meta == again.meta
    assert (first[0].image != again.image).any() and (renderer.draw(12, 1).image != again.image).any()


def test_pictures_show_many_kinds_of_people(renderer: Renderer):
    drawn = [renderer.draw(3, number) for number in range(24)]
    kinds = np.concatenate([d.labels.kind.ravel() for d in drawn])
    assert set(np.unique(kinds)) == {int(kind) for kind in Kind}
    assert np.ptp([d.meta["skin_tone"] for d in drawn]) > 6
    assert np.ptp([d.meta["turn_degrees"][0] for d in drawn]) > 60
    for each in drawn:
        labels, skin = each.labels, each.labels.kind == Kind.SKIN
        assert each.image.dtype == np.uint8 and each.image.shape == (128, 128, 3)
        assert labels.valid[skin].all() and not labels.valid[labels.kind == Kind.COVER].any()
        lengths = np.linalg.norm(labels.normals_cam, axis=-1)
        np.testing.assert_allclose(lengths[labels.valid], 1, atol=1e-5)
        assert (lengths[~labels.valid] == 0).all() and (labels.uv[~labels.valid] == 0).all()


def make_labels() -> LabelMaps:
    place = np.zeros((8, 8, 3), np.float32)
    normals = np.zeros((8, 8, 3), np.float32)
    normals[..., 2] = -1
    return LabelMaps(place, np.full((8, 8, 2), 0.5, np.float32), normals, np.full((8, 8), Kind.SKIN, np.uint8))


def test_hair_keeps_the_surface_and_other_covers_hide_it():
    cover = np.full((16, 16), 255, np.uint8)
    cover[:4], cover[4:8], cover[8:10] = Kind.HAIR, Kind.COVER, Kind.BACKGROUND
    cover[10, 0] = Kind.COVER  # a quarter of its block
    labels = covered(make_labels(), cover)
    assert (labels.kind[:2] == Kind.HAIR).all() and labels.valid[:2].all()
    assert (labels.kind[2:4] == Kind.COVER).all() and not labels.valid[2:4].any()
    assert (labels.kind[4] == Kind.BACKGROUND).all() and (labels.uv[2:5] == 0).all()
    assert (labels.kind[5:] == Kind.SKIN).all() and labels.valid[5:].all()


def test_where_the_photograph_ends_nothing_is_labelled():
    sides = set()
    for seed in range(12):
        image, labels = cut_at_border(np.full((16, 16, 3), 9, np.uint8), make_labels(), np.random.default_rng(seed))
        gone = ~labels.valid
        assert 0 < gone.sum() <= 24 and (labels.kind[gone] == Kind.BACKGROUND).all()
        black = (image == 0).all(axis=-1)
        if black.any():
            np.testing.assert_array_equal(black, np.kron(gone, np.ones((2, 2), bool)))
        sides.add((bool(gone[0, 3]), bool(gone[-1, 3]), bool(gone[3, 0]), bool(gone[3, -1])))
    assert len(sides) == 4
