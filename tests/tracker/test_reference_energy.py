from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from configs.schema import EnergyConfig, SmoothnessConfig
from flame.camera import Intrinsics
from flame.loading import load_head
from flame.model import HeadModel
from flame.rasterizer import interpolate, rasterize
from flame.rotation import matrix_from_axis_angle
from flame.shading import vertex_normals
from priors.dense_surface import DenseSurface
from priors.evidence import NormalSpace
from tests.toy_head import make_toy_head
from tests.tracker.dense_scenes import UPRIGHT, DenseScene, make_scene, vertices_head
from tracker.reference_energy import ReferenceEnergy
from tracker.reference_problem import Parameters, Unknowns, VertexLookups, look_up_vertices
from tracker.reference_raster import find_outline, hidden_vertices, mesh_edges, signed_distance_px

OFF = EnergyConfig(uv=0.0, normal=0.0, identity=0.0, expression=0.0)
ALL = Unknowns(neck=True, eyes=True)
PLAIN_TERMS = tuple(
    field.name
    for field in fields(EnergyConfig)
    if field.name
    not in ("uv_max_distance", "uv_cap", "uv_is_subpixel", "normal_cap", "correspondence_width", "smoothness")
)
SMOOTH_TERMS = tuple(f"smooth_{field.name}" for field in fields(SmoothnessConfig))


def only(name: str, weight: float = 1.0) -> EnergyConfig:
    """Return an energy of one term."""
    if name.startswith("smooth_"):
        return replace(OFF, smoothness=SmoothnessConfig(**{name.removeprefix("smooth_"): weight}))
    return replace(OFF, **{name: weight})


@pytest.fixture(scope="module")
def toy_scene() -> DenseScene:
    return make_scene(make_toy_head())


@pytest.fixture(scope="module")
def neck_scene() -> DenseScene:
    return make_scene(make_toy_head(), normal_space="head", neck=(0.1, -0.2, 0.05))


@pytest.fixture(scope="module")
def commons_scene() -> DenseScene:
    return make_scene(load_head(dtype=torch.float64), 96)


def gradients(scene: DenseScene, energy: EnergyConfig, at: Parameters) -> dict[str, torch.Tensor]:
    parameters = at.with_gradients(ALL)
    ReferenceEnergy(scene.problem, energy).total(parameters).backward()
    found = {field.name: getattr(parameters, field.name).grad for field in fields(ALL)}
    return {name: torch.zeros(0) if value is None else value for name, value in found.items()}


def assert_gradient_is_that_of_differences(scene: DenseScene, energy: EnergyConfig, step: float = 1e-6) -> None:
    """Compare derivatives along a random direction of each group of unknowns with central differences."""
    reference = ReferenceEnergy(scene.problem, energy)
    at = scene.beside()
    seen = reference.look(at)
    parameters = at.with_gradients(ALL)
    total = reference.total(parameters, seen)
    total.backward()
    generator = torch.Generator().manual_seed(0)
    for name in (field.name for field in fields(ALL)):
        value = getattr(at, name)
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        ends = [
            float(reference.total(replace(at, **{name: value + sign * step * direction}), seen)) for sign in (1, -1)
        ]
        gradient = getattr(parameters, name).grad
        analytic = 0.0 if gradient is None else float((gradient * direction).sum())
        assert analytic == pytest.approx(
            (ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=2e-8 * max(1.0, float(total.detach()))
        )


@pytest.mark.parametrize("name", (*PLAIN_TERMS, *SMOOTH_TERMS))
def test_gradient_of_each_term(toy_scene: DenseScene, name: str) -> None:
    assert_gradient_is_that_of_differences(toy_scene, only(name))


def test_gradient_of_normals_in_head_space(neck_scene: DenseScene) -> None:
    assert_gradient_is_that_of_differences(neck_scene, only("normal"))


def test_gradient_of_capped_terms(toy_scene: DenseScene) -> None:
    assert_gradient_is_that_of_differences(toy_scene, replace(OFF, uv=1.0, uv_cap=0.02, normal=1.0, normal_cap=0.3))


def test_gradient_on_the_full_head(commons_scene: DenseScene) -> None:
    energy = EnergyConfig(uv_pixel=2000.0, silhouette=500.0, landmarks=5000.0, mirror=5000.0)
    # On slivers seen edge-on the weights are so steep that larger steps cross kinks of the L1 norm.
    assert_gradient_is_that_of_differences(commons_scene, energy, step=1e-8)


@pytest.mark.parametrize("name", ("normal", "uv_pixel", "landmarks", "iris", "eye_closure", "identity", *SMOOTH_TERMS))
def test_exact_evidence_costs_nothing_at_the_truth(toy_scene: DenseScene, name: str) -> None:
    # Maps are float32, and the rasteriser rounds corners to a fraction of a pixel.
    reference = ReferenceEnergy(toy_scene.problem, only(name))
    assert float(reference.total(toy_scene.truth())) < 1e-5
    assert float(reference.total(toy_scene.beside())) > 100 * float(reference.total(toy_scene.truth()))


def test_normals_in_head_space_cost_nothing_at_the_truth(neck_scene: DenseScene) -> None:
    assert float(ReferenceEnergy(neck_scene.problem, only("normal")).total(neck_scene.truth())) < 1e-5


def test_lookups_at_pixel_centres_err_by_less_than_half_a_diagonal(commons_scene: DenseScene) -> None:
    errors = {}
    for is_subpixel in (False, True):
        lookups = look_up_vertices(commons_scene.problem.head, commons_scene.problem.maps, 0.00707, is_subpixel)
        problem = replace(commons_scene.problem, lookups=lookups)
        reference = ReferenceEnergy(problem, only("uv"))
        errors[is_subpixel] = 96 * float(reference.total(commons_scene.truth()))
    assert errors[False] < 0.71
    assert errors[True] < 0.5 * errors[False]


def test_silhouette_is_smallest_at_the_truth(commons_scene: DenseScene) -> None:
    reference = ReferenceEnergy(commons_scene.problem, only("silhouette"))
    truth = commons_scene.truth()
    at_truth = float(reference.total(truth))
    assert 96 * at_truth < 0.35
    for axis, shift in ((0, 0.01), (0, -0.01), (1, 0.01), (1, -0.01), (2, 0.05), (2, -0.05)):
        moved = replace(truth, translation=truth.translation + shift * torch.eye(3, dtype=torch.float64)[axis])
        assert float(reference.total(moved)) > at_truth * 1.2


@pytest.mark.parametrize("name", (*PLAIN_TERMS, *SMOOTH_TERMS))
def test_each_weight_switches_its_own_term(toy_scene: DenseScene, name: str) -> None:
    beside = toy_scene.beside()
    once = ReferenceEnergy(toy_scene.problem, only(name)).terms(beside)
    thrice = ReferenceEnergy(toy_scene.problem, only(name, 3.0)).terms(beside)
    assert list(once) == [name]
    assert float(once[name]) > 0
    assert float(thrice[name]) == pytest.approx(3 * float(once[name]))


def test_total_is_the_sum_of_the_terms(toy_scene: DenseScene) -> None:
    energy = replace(EnergyConfig(), **dict.fromkeys(PLAIN_TERMS, 1.5), smoothness=SmoothnessConfig(jaw=2.0))
    reference, beside = ReferenceEnergy(toy_scene.problem, energy), toy_scene.beside()
    terms = reference.terms(beside)
    assert set(terms) == {*PLAIN_TERMS, "smooth_jaw"}
    assert float(reference.total(beside)) == pytest.approx(sum(float(value) for value in terms.values()))
    assert float(ReferenceEnergy(toy_scene.problem, OFF).total(beside)) == 0.0


def test_terms_without_evidence_are_left_out(toy_scene: DenseScene) -> None:
    points = dict.fromkeys(("landmarks", "correspondences", "irises", "lids"))
    bare = replace(toy_scene.problem, foreground=None, previous=None, **points)
    bare = replace(bare, lookups=VertexLookups(np.empty(0, np.int64), np.empty((0, 2))))
    bare = replace(bare, maps=replace(bare.maps, uv=np.full_like(bare.maps.uv, np.nan)))
    energy = replace(EnergyConfig(), **dict.fromkeys(PLAIN_TERMS, 1.0), smoothness=SmoothnessConfig(jaw=2.0))
    found = set(ReferenceEnergy(bare, energy).terms(toy_scene.beside()))
    absent = {"uv", "uv_pixel", "silhouette", "landmarks", "correspondences", "iris", "eye_closure"}
    assert found == set(PLAIN_TERMS) - absent


@pytest.mark.parametrize("space", ("camera", "head"))
def test_normal_and_texture_terms_by_hand(space: NormalSpace) -> None:
    scene = make_scene(make_toy_head(), normal_space=space, neck=(0.0, 0.2, 0.1))
    beside = replace(scene.beside(), log_focal=torch.zeros(1), principal_point=torch.zeros(2))
    problem, head = scene.problem, scene.problem.head
    state = beside.state()
    faces, surface = head.faces.numpy(), DenseSurface.of(head)
    verts_cam = state.points_cam(vertices_head(head, state, beside.shape.numpy()))
    fragments = rasterize(verts_cam, faces, problem.intrinsics)
    normals = interpolate(fragments, faces, vertex_normals(verts_cam, faces)).astype(np.float64)
    normals[fragments.mask] /= np.linalg.norm(normals[fragments.mask], axis=-1, keepdims=True)
    if space == "head":
        normals = normals @ state.rotation @ matrix_from_axis_angle(state.joint_angles[:3])
    error = np.abs(normals - problem.maps.normals).sum(axis=-1)
    uv_error = np.linalg.norm(interpolate(fragments, surface.uv_faces, surface.uv) - problem.maps.uv, axis=-1)
    uv_error[~fragments.mask | (uv_error >= 0.1)] = 0.0
    is_excluded = fragments.mask & surface.is_excluded[fragments.triangle]
    error[is_excluded], uv_error[is_excluded] = 0.0, 0.0
    mask = problem.maps.mask
    terms = ReferenceEnergy(problem, replace(OFF, normal=1.0, uv_pixel=1.0)).terms(beside)
    assert float(terms["normal"]) == pytest.approx(error[mask].mean(), rel=1e-4)
    assert float(terms["uv_pixel"]) == pytest.approx(uv_error[mask].mean(), rel=1e-4)


def test_vertices_are_those_of_the_head_model(toy_head: HeadModel) -> None:
    scene = make_scene(toy_head, neck=(0.1, 0.0, 0.1))
    for head in (toy_head, replace(toy_head, has_jaw=False)):
        reference = ReferenceEnergy(replace(scene.problem, head=head), OFF)
        beside = scene.beside()
        expected = vertices_head(head, beside.state(), beside.shape.numpy())
        neutral = reference.posed_vertices.neutral(beside.shape)
        found = reference.posed_vertices.posed(neutral, beside.shape, beside.expression, beside.joint_angles)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_both_normal_spaces_pull_alike(toy_head: HeadModel) -> None:
    # Facing the camera, head axes are camera axes with two signs changed, which the L1 norm does not see.
    found = []
    for space in ("camera", "head"):
        scene = make_scene(toy_head, normal_space=space, rotation=UPRIGHT)
        beside = scene.beside()
        beside = replace(beside, rotation=torch.zeros(3, dtype=torch.float64), neck=torch.zeros(3, dtype=torch.float64))
        found.append(gradients(scene, only("normal"), beside))
    for name in ("shape", "expression", "jaw", "translation", "log_focal", "principal_point"):
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-5, atol=1e-7)


def test_head_space_is_independent_of_the_pose(toy_head: HeadModel) -> None:
    # Half a turn about the camera's axis turns the picture, and in head space nothing else.
    turned = np.diag((-1.0, -1.0, 1.0))
    upright = make_scene(toy_head, normal_space="head", rotation=UPRIGHT)
    state = replace(upright.state, translation=turned @ upright.state.translation, rotation=turned @ UPRIGHT)
    problem = upright.problem
    maps = replace(
        problem.maps, **{name: getattr(problem.maps, name)[::-1, ::-1] for name in ("uv", "normals", "mask")}
    )
    energy = only("normal")
    at_turned = Parameters.at(problem, state, upright.shape)
    assert float(ReferenceEnergy(replace(problem, maps=maps), energy).total(at_turned)) < 2e-3
    in_camera = replace(maps, normal_space="camera")
    assert float(ReferenceEnergy(replace(problem, maps=in_camera), energy).total(at_turned)) > 0.1


def test_pixels_that_the_head_misses_cost_their_normals(toy_scene: DenseScene) -> None:
    truth = toy_scene.truth()
    away = replace(truth, translation=truth.translation + torch.tensor((5.0, 0.0, 0.0), dtype=torch.float64))
    norms = np.abs(toy_scene.problem.maps.normals[toy_scene.problem.maps.mask]).sum(axis=-1)
    for cap, expected in ((0.0, norms.mean()), (1.2, np.minimum(norms, 1.2).mean())):
        reference = ReferenceEnergy(toy_scene.problem, replace(only("normal"), normal_cap=cap))
        assert float(reference.total(away)) == pytest.approx(expected, rel=1e-5)


def test_caps_limit_what_a_vertex_or_pixel_costs(toy_scene: DenseScene) -> None:
    points_px = toy_scene.problem.lookups.points_px.copy()
    points_px[::4] += 30.0
    problem = replace(toy_scene.problem, lookups=replace(toy_scene.problem.lookups, points_px=points_px))
    truth = toy_scene.truth()
    free = float(ReferenceEnergy(problem, only("uv")).total(truth))
    capped = float(ReferenceEnergy(problem, replace(only("uv"), uv_cap=0.05)).total(truth))
    assert free > 0.1
    assert capped < 0.05
    normals = replace(problem.maps, normals=-problem.maps.normals)
    wrong = ReferenceEnergy(replace(problem, maps=normals), replace(only("normal"), normal_cap=0.99))
    assert float(wrong.total(truth)) == pytest.approx(0.99)


def test_hidden_vertices_cost_the_cap(toy_scene: DenseScene) -> None:
    head = toy_scene.problem.head
    back = np.flatnonzero(head.template[:, 2].numpy() < -0.07)
    points_px = np.full((len(back), 2), 30.0)
    problem = replace(toy_scene.problem, lookups=VertexLookups(back, points_px))
    reference = ReferenceEnergy(problem, replace(only("uv"), uv_cap=0.5))
    assert float(reference.total(toy_scene.truth())) == pytest.approx(0.5)
    parameters = toy_scene.truth().with_gradients(ALL)
    reference.total(parameters).backward()
    assert parameters.translation.grad is not None
    assert not parameters.translation.grad.any()


def test_texture_across_a_seam_costs_nothing(toy_scene: DenseScene) -> None:
    other_side = replace(toy_scene.problem.maps, uv=toy_scene.problem.maps.uv + np.float32(0.4))
    reference = ReferenceEnergy(replace(toy_scene.problem, maps=other_side), only("uv_pixel"))
    assert float(reference.total(toy_scene.beside())) == 0.0


def test_a_seam_vertex_is_looked_up_once_where_it_fits_best(toy_head: HeadModel) -> None:
    scene = make_scene(toy_head, 128, rotation=matrix_from_axis_angle(np.array((0.0, 1.4, 0.0))) @ UPRIGHT)
    topology, lookups = toy_head.topology, scene.problem.lookups
    assert topology is not None
    assert topology.uv_faces is not None
    pairs = np.unique(np.stack((toy_head.faces.numpy().ravel(), topology.uv_faces.ravel()), axis=1), axis=0)
    seam = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
    assert len(np.unique(lookups.vertices)) == len(lookups.vertices)
    seen = np.isin(lookups.vertices, seam)
    assert seen.sum() >= 3
    verts_px = scene.verts_cam[lookups.vertices][:, :2] / scene.verts_cam[lookups.vertices][:, 2:]
    verts_px = verts_px * scene.problem.intrinsics.fx + 64
    hidden = hidden_vertices(
        scene.verts_cam,
        scene.problem.intrinsics,
        rasterize(scene.verts_cam, toy_head.faces.numpy(), scene.problem.intrinsics),
    )[lookups.vertices]
    distance = np.linalg.norm(verts_px - lookups.points_px, axis=1)
    assert np.median(distance[seen & ~hidden]) < 1.0


def test_float32_agrees_with_float64(commons_scene: DenseScene) -> None:
    energy = EnergyConfig(uv_pixel=2000.0, silhouette=500.0, landmarks=5000.0, mirror=5000.0)
    single = replace(commons_scene.problem, head=commons_scene.problem.head.to(dtype=torch.float32))
    beside = commons_scene.beside()
    values = [getattr(beside, field.name).float() for field in fields(Parameters)]
    reference = ReferenceEnergy(commons_scene.problem, energy)
    seen = reference.look(beside)
    expected = reference.terms(beside, seen)
    seen = replace(seen, outline_share=seen.outline_share.float())
    found = ReferenceEnergy(single, energy).terms(Parameters(*values), seen)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4)


def test_signed_distance_runs_through_the_boundary() -> None:
    foreground = np.zeros((6, 8), dtype=bool)
    foreground[:, :3] = True
    np.testing.assert_allclose(signed_distance_px(foreground), np.tile(np.arange(8) + 0.5 - 3, (6, 1)))
    assert not signed_distance_px(np.ones((4, 4), dtype=bool)).any()
    assert not signed_distance_px(np.zeros((4, 4), dtype=bool)).any()


def test_edges_at_an_open_rim_are_left_out() -> None:
    # A fan of six triangles: the spokes' outer ends lie on the rim.
    ring = np.arange(1, 7)
    fan = np.stack((np.zeros(6, np.int64), ring, np.roll(ring, -1)), axis=1)
    assert len(mesh_edges(fan).vertices) == 0
    tetrahedron = np.array(((0, 1, 2), (0, 2, 3), (0, 3, 1), (1, 3, 2)))
    edges = mesh_edges(tetrahedron)
    assert len(edges.vertices) == 6
    for ends, sides in zip(edges.vertices, edges.faces, strict=True):
        assert all(set(ends) <= set(tetrahedron[side]) for side in sides)


def test_outline_lies_on_the_boundary_of_the_rendering(commons_scene: DenseScene) -> None:
    head, camera = commons_scene.problem.head, commons_scene.problem.intrinsics
    faces = head.faces.numpy()
    fragments = rasterize(commons_scene.verts_cam, faces, camera)
    outline = find_outline(commons_scene.verts_cam, faces, mesh_edges(faces), camera, fragments)
    assert outline.length_px.sum() > 96
    middle = commons_scene.verts_cam[outline.vertices].mean(axis=1)
    column, row = np.floor(middle[:, :2] * camera.fx / middle[:, 2:] + 48).astype(int).T
    assert np.percentile(np.abs(signed_distance_px(fragments.mask)[row, column]), 95) < 1.6


def test_camera_follows_the_parameters(toy_scene: DenseScene) -> None:
    shifted = replace(
        toy_scene.truth(),
        log_focal=torch.log(torch.tensor((2.0,), dtype=torch.float64)),
        principal_point=torch.tensor((0.25, -0.5), dtype=torch.float64),
    )
    camera = shifted.intrinsics(Intrinsics(100.0, 110.0, 30.0, 32.0, 64, 60), 64)
    assert camera == Intrinsics(200.0, 220.0, 46.0, 0.0, 64, 60)
