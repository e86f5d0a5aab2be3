"""The working solver's terms of the dense energy: values and derivatives are those of the slow twin, term by term."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from configs.schema import EnergyConfig, SmoothnessConfig
from flame.loading import load_head
from priors.evidence import NormalSpace
from tests.toy_head import make_toy_head
from tests.tracker.dense_scenes import DenseScene, make_scene
from tracker.dense_solver import DenseModel, frame_problem, identity_prior
from tracker.dense_term import DenseTerm, Detail, LinearDense
from tracker.frame_terms import FramePoint
from tracker.joint_solver import Shared
from tracker.reference_energy import ReferenceEnergy
from tracker.reference_problem import DenseProblem, Parameters, Unknowns
from tracker.state import FaceState, View

OFF = EnergyConfig(uv=0.0, normal=0.0, identity=0.0, expression=0.0)
EXACT = Detail(normal_floor=1e-9, uv_floor=1e-12, projection_floor_px=1e-9, vertex_step=1)
"""Norms are not rounded off, so the gradient is the energy's own."""
ALL = Unknowns(neck=True, eyes=True)
SMOOTH = tuple(f"smooth_{field.name}" for field in fields(SmoothnessConfig))
IMAGE = ("uv", "normal", "uv_pixel", "silhouette", "landmarks", "correspondences", "iris", "eye_closure")
PRIORS = ("expression", "jaw", "neck", "eyes", "eye_symmetry", "identity", "identity_zero", "mirror", "principal_point")
CASES = {
    **{name: replace(OFF, **{name: 1.0}) for name in (*IMAGE, *PRIORS)},
    **{name: replace(OFF, smoothness=SmoothnessConfig(**{name.removeprefix("smooth_"): 1.0})) for name in SMOOTH},
    "capped": replace(OFF, uv=1.0, uv_cap=0.02, normal=1.0, normal_cap=0.3),
    "all": EnergyConfig(
        uv_pixel=500.0, silhouette=500.0, landmarks=5e3, correspondences=4.0, iris=5e3, eye_closure=5e3, mirror=5e3,
        identity_zero=0.1, principal_point=3.0, jaw=0.1, neck=0.1, eyes=0.1, eye_symmetry=0.1,
        smoothness=SmoothnessConfig(jaw=2.0),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes() -> dict[str, DenseScene]:
    head = make_toy_head()
    # Some state before, so that its changes cost something.
    return {space: earlier(make_scene(head, normal_space=space, neck=(0.1, -0.2, 0.05))) for space in spaces()}


@pytest.fixture(scope="module")
def model(scenes) -> DenseModel:
    return DenseModel.of(scenes["camera"].problem.head, num_threads=1, dtype=np.float64)


def spaces() -> tuple[NormalSpace, NormalSpace]:
    return "camera", "head"


def earlier(scene: DenseScene) -> DenseScene:
    """Return the scene with a state before that is another one."""
    before = scene.beside(seed=8).state()
    return replace(scene, problem=replace(scene.problem, previous=before, seconds_since_previous=0.05))


def parameters_beside(scene: DenseScene, seed: int = 3) -> Parameters:
    """Return parameters near the truth; their rotation is all in the base, where a solver's step begins."""
    beside = scene.beside(seed=seed)
    shift = beside.principal_point.numpy()
    return Parameters.at(scene.problem, beside.state(), beside.shape.numpy(), float(beside.log_focal), shift)


def frame_point(problem: DenseProblem, at: Parameters) -> FramePoint:
    """Return the same parameters as the working solver has them."""
    return FramePoint(at.state(), View.of(at.intrinsics(problem.intrinsics, problem.size_px)), at.shape.numpy())


def solver_energy_and_gradient(
    model: DenseModel, problem: DenseProblem, energy: EnergyConfig, at: Parameters
) -> tuple[float, dict[str, np.ndarray]]:
    """Return the working solver's energy, up to a constant, and its gradient by groups of unknowns."""
    point = frame_point(problem, at)
    frame = frame_problem(model, problem, energy, ALL, point.state, EXACT)
    shared = identity_prior(model, problem, energy, ALL)
    linear = [term.at(point) for term in frame.terms]
    gradient = np.sum([term.quadratic().gradient for term in linear], axis=0)
    num_own = point.state.num_parameters
    gradient[6:num_own] += frame.prior.precision * (point.state.values - frame.prior.mean)
    shift_px = (problem.size_px * at.principal_point).tolist()
    deviation = shared.deviation(Shared(point.shape, float(at.log_focal), (shift_px[0], shift_px[1])))
    pull = shared.precision @ deviation
    gradient[num_own:] += pull
    total = sum(term.energy for term in linear) + frame.prior.energy(point.state) + 0.5 * float(deviation @ pull)
    names = ("rotation", "translation", "neck", "jaw", "eyes", "expression", "shape", "log_focal")
    sizes = [getattr(at, name).numel() for name in names]
    parts = np.split(gradient, np.cumsum(sizes))
    return total, {**dict(zip(names, parts, strict=False)), "principal_point": problem.size_px * parts[-1]}


def assert_gradient_is_the_twin_s(scene: DenseScene, model: DenseModel, energy: EnergyConfig) -> None:
    """Compare with central differences of the twin's energy, what pixels see being held fast."""
    reference, at, step = ReferenceEnergy(scene.problem, energy), parameters_beside(scene), 1e-6
    seen = reference.look(at)
    _, gradient = solver_energy_and_gradient(model, scene.problem, energy, at)
    generator = torch.Generator().manual_seed(0)
    largest = max(float(np.abs(values).max()) for values in gradient.values())
    assert largest > 0
    for name, values in gradient.items():
        start = getattr(at, name)
        direction = torch.randn(start.shape, generator=generator, dtype=start.dtype)
        ends = [
            float(reference.total(replace(at, **{name: start + sign * step * direction}), seen)) for sign in (1, -1)
        ]
        found = (ends[0] - ends[1]) / (2 * step)
        assert float(values @ direction.numpy()) == pytest.approx(found, rel=1e-4, abs=1e-6 * largest), name


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_each_term(scenes, model, name):
    assert_gradient_is_the_twin_s(scenes["camera"], model, CASES[name])


@pytest.mark.parametrize("name", ("normal", "all"))
def test_gradient_with_normals_in_head_space(scenes, model, name):
    assert_gradient_is_the_twin_s(scenes["head"], model, CASES[name])


def doubted(scene: DenseScene) -> DenseScene:
    """Return the scene with pixels and lookups that count more and less."""
    rng, maps, lookups = np.random.default_rng(6), scene.problem.maps, scene.problem.lookups
    trusts = rng.uniform(0.1, 2.0, (2, *maps.mask.shape)).astype(np.float32)
    maps = replace(maps, uv_trust=trusts[0], normal_trust=trusts[1])
    lookups = replace(lookups, trust=rng.uniform(0.1, 2.0, len(lookups.vertices)))
    return replace(scene, problem=replace(scene.problem, maps=maps, lookups=lookups))


@pytest.mark.parametrize("name", ("uv", "normal", "uv_pixel", "capped"))
def test_doubtful_pixels_and_lookups_count_less(scenes, model, name):
    scene, energy = doubted(scenes["camera"]), CASES[name]
    assert_gradient_is_the_twin_s(scene, model, energy)
    at = parameters_beside(scene)
    found, plain = (
        dense_term(model, each.problem, energy).at(frame_point(each.problem, at)).energy
        for each in (scene, scenes["camera"])
    )
    assert found == pytest.approx(float(ReferenceEnergy(scene.problem, energy).total(at)), rel=1e-9)
    assert abs(found / plain - 1) > 1e-3


def test_maps_without_normals_still_say_what_their_texture_says(scenes, model):
    scene, energy = scenes["camera"], CASES["all"]
    maps = scene.problem.maps
    textured = replace(
        scene, problem=replace(scene.problem, maps=replace(maps, normals=np.full_like(maps.normals, np.nan)))
    )
    assert_gradient_is_the_twin_s(textured, model, energy)
    at = parameters_beside(textured)
    found, _ = solver_energy_and_gradient(model, textured.problem, energy, at)
    without, _ = solver_energy_and_gradient(model, textured.problem, replace(energy, uv_pixel=0.0), at)
    reference = ReferenceEnergy(textured.problem, energy)
    expected = float(reference.terms(at)["uv_pixel"])
    assert found - without == pytest.approx(expected, rel=1e-6)


def test_gradient_on_the_full_head():
    scene = make_scene(load_head(dtype=torch.float64), 96)
    model = DenseModel.of(scene.problem.head, num_threads=1, dtype=np.float64)
    energy = EnergyConfig(uv_pixel=2000.0, silhouette=500.0, landmarks=5000.0, mirror=5000.0)
    reference, at = ReferenceEnergy(scene.problem, energy), parameters_beside(scene)
    seen = reference.look(at)
    _, gradient = solver_energy_and_gradient(model, scene.problem, energy, at)
    generator = torch.Generator().manual_seed(0)
    # On slivers seen edge-on larger steps would cross kinks of the L1 norm.
    steps = {name: 1e-8 * torch.randn(getattr(at, name).shape, generator=generator).double() for name in gradient}
    ends = [
        float(
            reference.total(
                replace(at, **{name: getattr(at, name) + sign * step for name, step in steps.items()}), seen
            )
        )
        for sign in (1, -1)
    ]
    expected = sum(float(values @ steps[name].numpy()) for name, values in gradient.items())
    assert expected == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-4)


@pytest.mark.parametrize("space", spaces())
@pytest.mark.parametrize("name", ("all", "capped"))
def test_energy_is_the_twin_s(scenes, model, space, name):
    problem, energy = scenes[space].problem, CASES[name]
    differences = []
    for seed in (3, 4):
        at = parameters_beside(scenes[space], seed)
        total, _ = solver_energy_and_gradient(model, problem, energy, at)
        terms = ReferenceEnergy(problem, energy).terms(at)
        linear = dense_term(model, problem, energy).at(frame_point(problem, at))
        for term in ("uv", "normal", "uv_pixel", "silhouette"):
            if getattr(energy, term):
                assert linear.energies[term] == pytest.approx(float(terms[term]), rel=1e-9)
        differences.append(total - sum(float(value) for value in terms.values()))
    # The anchor's and the mirror's own least value is left out.
    assert differences[0] == pytest.approx(differences[1], abs=1e-9 * sum(float(v) for v in terms.values()))


def dense_term(model: DenseModel, problem: DenseProblem, energy: EnergyConfig, detail: Detail = EXACT) -> DenseTerm:
    return DenseTerm.of(problem, model.rig, model.surface, energy, detail)


def linear_dense(scene: DenseScene, model: DenseModel, energy: EnergyConfig, detail: Detail = EXACT) -> LinearDense:
    at = parameters_beside(scene)
    return dense_term(model, scene.problem, energy, detail).at(frame_point(scene.problem, at))


def test_hessian_of_lookups_is_that_of_re_weighted_squares(scenes, model):
    problem, at = scenes["camera"].problem, parameters_beside(scenes["camera"])
    linear = linear_dense(scenes["camera"], model, CASES["uv"])
    point = frame_point(problem, at)
    state, lookups = point.state, problem.lookups
    posed = model.rig.pose(point.shape, state.expression, state.joint_angles, state.rotation, state.translation)
    moves = model.rig.jacobian(posed, point.view.focal_px, lookups.vertices)
    x, y, z = posed.verts_cam[lookups.vertices].T
    fx, fy = point.view.focal_px
    zero = np.zeros_like(z)
    by_place = np.stack((np.stack((fx / z, zero, -fx * x / z**2), -1), np.stack((zero, fy / z, -fy * y / z**2), -1)), 1)
    rows = by_place @ moves
    error = point.view.project(posed.verts_cam[lookups.vertices]) - lookups.points_px
    weight = 1 / np.linalg.norm(error, axis=1) / len(lookups.vertices) / problem.size_px
    expected = np.einsum("n,nkp,nkq->pq", weight, rows, rows)
    found = linear.quadratic().hessian
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("space", spaces())
@pytest.mark.parametrize("name", ("normal", "uv_pixel", "capped"))
def test_a_step_along_the_gradient_saves_what_the_model_says(scenes, model, space, name):
    """The model lies above the energy, so a step to its minimum along a line saves at least that much."""
    scene = scenes[space]
    at = parameters_beside(scene)
    point = frame_point(scene.problem, at)
    term = dense_term(model, scene.problem, CASES[name])
    linear = term.at(point)
    quadratic = linear.quadratic()
    assert np.linalg.eigvalsh(quadratic.hessian).min() > -1e-9 * np.abs(quadratic.hessian).max()
    num_own = point.state.num_parameters
    free = np.full(num_own - 6, np.inf)
    for columns in (slice(0, 3), slice(3, 6), slice(9, 12), slice(18, num_own), slice(num_own, -3)):
        direction = np.zeros(len(quadratic.gradient))
        direction[columns] = -quadratic.gradient[columns]
        bend = float(direction @ quadratic.hessian @ direction)
        if bend <= 0:
            continue
        gain = 0.5 * float(direction @ direction) ** 2 / bend
        step = direction * float(direction @ direction) / bend
        state = point.state.step(step[:num_own], -free, free)
        saved = linear.energy - term.at(FramePoint(state, point.view, point.shape + step[num_own:-3])).energy
        assert saved > 0.8 * gain - 1e-9 * linear.energy


def test_threads_change_nothing_but_rounding(scenes):
    scene = scenes["head"]
    alone, together = (DenseModel.of(scene.problem.head, num_threads=count) for count in (1, 2))
    assert alone.pool is None and together.pool is not None
    results = []
    for each in (alone, together):
        at = frame_point(scene.problem, parameters_beside(scene))
        term = frame_problem(each, scene.problem, CASES["all"], ALL, at.state).terms[0]
        results.append(term.at(at))
    assert results[0].energy == pytest.approx(results[1].energy, rel=1e-12)
    quadratics = [result.quadratic() for result in results]
    together.pool.shutdown()
    for name in ("hessian", "gradient"):
        first, second = (getattr(each, name) for each in quadratics)
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-5 * np.abs(first).max())


def test_single_precision_is_close(scenes, model):
    rough = DenseModel.of(scenes["head"].problem.head, num_threads=1)
    quadratics = [linear_dense(scenes["head"], each, CASES["all"]).quadratic() for each in (rough, model)]
    for name in ("hessian", "gradient"):
        first, second = (getattr(each, name) for each in quadratics)
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-4 * np.abs(second).max())


def test_one_vertex_in_two_tells_about_the_same_curvature(scenes, model):
    whole, half = (
        linear_dense(scenes["camera"], model, CASES["normal"], replace(EXACT, vertex_step=step)) for step in (1, 2)
    )
    assert half.energy == whole.energy
    np.testing.assert_array_equal(half.quadratic().gradient, whole.quadratic().gradient)
    ratio = np.trace(half.quadratic().hessian[:6, :6]) / np.trace(whole.quadratic().hessian[:6, :6])
    assert 0.5 < ratio < 2.0


def test_a_head_out_of_the_picture_breaks_nothing(scenes, model):
    problem = scenes["camera"].problem
    state = scenes["camera"].state
    for translation in ((5.0, 0.0, 0.7), (0.0, 0.0, -0.7)):
        away = FaceState(state.rotation, np.array(translation), state.joint_angles, state.expression)
        point = FramePoint(away, View.of(problem.intrinsics), np.zeros(model.rig.num_shapes))
        linear = dense_term(model, problem, CASES["all"]).at(point)
        quadratic = linear.quadratic()
        assert np.isfinite(linear.energy)
        assert np.isfinite(quadratic.hessian).all() and np.isfinite(quadratic.gradient).all()
