"""Fitting dense maps: the face that was rendered comes back, from one image or several, alone or with landmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs.schema import AdamConfig, EnergyConfig, SolverConfig
from flame.camera import project
from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from flame.surface import SurfacePoints
from tests.tracker.dense_scenes import UPRIGHT, DenseScene, make_scene, vertices_head, with_exact_lookups
from tracker.adam import fit_adam
from tracker.dense_solver import DenseFit, DenseModel, fit_dense, moved_to_lookups, start_from_lookups
from tracker.joint_solver import Shared
from tracker.levenberg_marquardt import StopReason
from tracker.reference_energy import ReferenceEnergy
from tracker.reference_problem import DenseProblem, Parameters, PointEvidence, Unknowns
from tracker.state import FaceState

SOLVER = SolverConfig(tolerance=1e-5)
WEAK = EnergyConfig(identity=1e-6, expression=1e-6, uv_pixel=2000.0)
KNOWN_CAMERA = Unknowns(log_focal=False, principal_point=False)
NUM_SHAPES = 20


@pytest.fixture(scope="module")
def toy(toy_head) -> DenseModel:
    return DenseModel.of(toy_head, num_threads=1)


@pytest.fixture(scope="module")
def full() -> DenseModel:
    """Return the head that comes with the tracker, with its first shape directions only."""
    head = load_head()
    return DenseModel.of(head, num_threads=1).along(np.eye(head.num_shape)[:, :NUM_SHAPES])


def beside(scene: DenseScene) -> FaceState:
    """Return a neutral face in another place, upright."""
    return FaceState(UPRIGHT, np.array((0.0, 0.0, 0.66)), np.zeros(12), np.zeros(scene.problem.head.num_expression))


def error_mm(scene: DenseScene, state: FaceState, shape: np.ndarray) -> float:
    whole = np.concatenate((shape, np.zeros(scene.problem.head.num_shape - len(shape))))
    verts_cam = state.points_cam(vertices_head(scene.problem.head, state, whole))
    return 1e3 * float(np.linalg.norm(verts_cam - scene.verts_cam, axis=1).mean())


def twin_energy(problem: DenseProblem, energy: EnergyConfig, state: FaceState, shape: np.ndarray) -> float:
    return float(ReferenceEnergy(problem, energy).total(Parameters.at(problem, state, shape)))


@pytest.mark.parametrize("space", ("camera", "head"))
def test_exact_maps_give_the_face_back(toy, space):
    scene = make_scene(toy.head, normal_space=space, is_subpixel=True)
    problem = replace(scene.problem, anchor=None)
    start = beside(scene)
    fit = fit_dense(toy, [problem], [start], WEAK, SOLVER, 80, unknowns=KNOWN_CAMERA)
    assert fit.joint.reason is StopReason.CONVERGED
    assert error_mm(scene, start, np.zeros(10)) > 20
    assert error_mm(scene, fit.states[0], fit.shape) < 0.1
    np.testing.assert_allclose(fit.shape, scene.shape, atol=0.02)
    np.testing.assert_allclose(fit.states[0].expression, scene.state.expression, atol=0.02)
    expected = twin_energy(problem, WEAK, fit.states[0], fit.shape)
    assert fit.joint.energy == pytest.approx(expected, rel=1e-4)


def test_a_head_that_moved_further_than_the_cap_is_followed(full):
    scene = make_scene(full.head, num_shapes=NUM_SHAPES)
    scene = replace(scene, problem=with_exact_lookups(scene))
    turn = matrix_from_axis_angle(np.array((0.03, -0.06, 0.02)))
    start = replace(scene.state, rotation=turn @ scene.state.rotation, translation=scene.state.translation + 0.03)
    energy = replace(WEAK, uv_cap=4 / 256)
    shape, known = scene.shape[:NUM_SHAPES], replace(KNOWN_CAMERA, shape=False)
    lookups = scene.problem.lookups
    wrong = np.random.default_rng(0).random(len(lookups.vertices)) < 0.1
    disturbed = np.where(wrong[:, None], lookups.points_px[::-1], lookups.points_px)
    problem = replace(scene.problem, lookups=replace(lookups, points_px=disturbed))
    moved = moved_to_lookups(full, problem, start, Shared(shape))
    assert error_mm(scene, start, shape) > 40
    assert error_mm(scene, moved, shape) < 1
    fit = fit_dense(full, [problem], [start], energy, SOLVER, 20, unknowns=known, start=Shared(shape), is_warm=True)
    assert error_mm(scene, fit.states[0], fit.shape) < 0.3


def test_the_energy_is_lower_than_where_the_paper_s_optimiser_ends(toy):
    scene = make_scene(toy.head)
    energy, start = EnergyConfig(), beside(scene)
    ours = fit_dense(toy, [scene.problem], [start], energy, SOLVER, 60, unknowns=KNOWN_CAMERA)
    paper = fit_adam([scene.problem], [start], energy, AdamConfig(steps=20), unknowns=KNOWN_CAMERA)
    energies = [twin_energy(scene.problem, energy, found.states[0], found.shape) for found in (ours, paper)]
    assert energies[0] < energies[1]


def test_images_of_one_person_give_identity_and_focal_length(full):
    turns = ((0.0, -0.5, 0.0), (0.1, 0.6, 0.0))
    scenes = [
        make_scene(full.head, 96, rotation=matrix_from_axis_angle(np.array(turn)) @ UPRIGHT, num_shapes=NUM_SHAPES)
        for turn in turns
    ]
    # A camera whose focal lengths are taken for a tenth longer than they are.
    problems = [with_exact_lookups(scene) for scene in scenes]
    problems = [replace(problem, intrinsics=problem.intrinsics.zoom(1.1)) for problem in problems]
    starts = [replace(beside(scene), rotation=scene.state.rotation) for scene in scenes]
    energy = replace(WEAK, uv_pixel=0.0)
    unknowns = Unknowns(principal_point=False)
    fit = fit_dense(full, problems, starts, energy, replace(SOLVER, tolerance=1e-3), 300, unknowns=unknowns)
    assert fit.joint.reason is StopReason.CONVERGED
    assert fit.log_focal == pytest.approx(-np.log(1.1), abs=6e-3)
    for scene, state in zip(scenes, fit.states, strict=True):
        # The distance is as uncertain as the focal length.
        assert error_mm(scene, state, fit.shape) < 5.0
    assert fit.shape.shape == (NUM_SHAPES,)
    assert np.abs(fit.shape - scenes[0].shape[:NUM_SHAPES]).max() < 0.25


def irises_of(scene: DenseScene, gaze: np.ndarray) -> PointEvidence:
    """Return where the foremost points of both eyes are seen when they have turned."""
    head = scene.problem.head
    topology, faces = head.topology, head.faces.numpy()
    assert topology is not None
    ahead = head.template.numpy()[faces][..., 2].mean(axis=1)
    eyes = [np.flatnonzero(topology.region(name)[faces].all(axis=1)) for name in ("left_eye", "right_eye")]
    points = SurfacePoints(np.array([eye[np.argmax(ahead[eye])] for eye in eyes]), np.full((2, 3), 1 / 3))
    turned = replace(scene.state, joint_angles=np.concatenate((scene.state.joint_angles[:6], gaze)))
    verts_cam = turned.points_cam(vertices_head(head, turned, scene.shape))
    return PointEvidence(points, project(points.on(verts_cam, faces), scene.problem.intrinsics))


def test_texture_irises_and_silhouette_are_fitted_together(full):
    turn = matrix_from_axis_angle(np.array((0.0, -0.4, 0.0))) @ UPRIGHT
    scene = make_scene(full.head, 96, rotation=turn, num_shapes=NUM_SHAPES)
    gaze = np.array([0.1, -0.2, 0.0, 0.1, -0.25, 0.0])
    exact = with_exact_lookups(scene)
    maps = replace(exact.maps, normals=np.full_like(exact.maps.normals, np.nan))
    problem = replace(exact, maps=maps, irises=irises_of(scene, gaze))
    energy = EnergyConfig(normal=0.0, identity=1e-6, expression=1e-4, silhouette=100.0, iris=1e4, eyes=1e-2)
    start = start_from_lookups(full, problem)
    assert error_mm(scene, start, np.zeros(NUM_SHAPES)) < 10
    unknowns = replace(KNOWN_CAMERA, eyes=True)
    fit = fit_dense(full, [problem], [start], energy, replace(SOLVER, tolerance=1e-3), 20, unknowns=unknowns)
    assert error_mm(scene, fit.states[0], fit.shape) < 2.5
    # Turning about the line of sight moves no iris.
    np.testing.assert_allclose(fit.states[0].joint_angles[[6, 7, 9, 10]], gaze[[0, 1, 3, 4]], atol=0.05)
    assert fit.joint.reason is StopReason.CONVERGED


def test_landmarks_alone_go_through_the_same_code(toy):
    scene = make_scene(toy.head)
    nothing = replace(scene.problem.maps, mask=np.zeros_like(scene.problem.maps.mask))
    lookups = replace(scene.problem.lookups, vertices=np.zeros(0, np.int64), points_px=np.zeros((0, 2)))
    problem = replace(scene.problem, maps=nothing, lookups=lookups, irises=None, lids=None, anchor=None)
    energy = EnergyConfig(landmarks=1e5, identity=0.1, expression=0.1, jaw=0.1)
    fit = fit_dense(toy, [problem], [beside(scene)], energy, SOLVER, 40, unknowns=KNOWN_CAMERA)
    assert fit.joint.reason is StopReason.CONVERGED
    assert np.median(fit.joint.frames[0].residual_px) < 0.1


@pytest.mark.parametrize("is_bounded", (True, False))
def test_expressions_keep_within_their_bounds(toy_head, is_bounded):
    model = DenseModel.of(toy_head, is_bounded=is_bounded, num_threads=1)
    scene = make_scene(toy_head, strength=5.0, is_subpixel=True)
    assert scene.state.expression.max() > 1.3
    fit = fit_dense(model, [scene.problem], [beside(scene)], WEAK, SOLVER, 60, unknowns=KNOWN_CAMERA)
    expression = fit.states[0].expression
    if is_bounded:
        assert expression.min() >= -0.2 and expression.max() == 1.2
    else:
        assert expression.max() > 1.3


def test_what_is_no_unknown_stays(toy):
    scene = make_scene(toy.head)
    start = replace(beside(scene), joint_angles=np.linspace(0.01, 0.12, 12))
    held = Unknowns(jaw=False, expression=False, shape=False, log_focal=False, principal_point=False)
    fit = fit_dense(toy, [scene.problem], [start], WEAK, SOLVER, 20, unknowns=held)
    np.testing.assert_array_equal(fit.states[0].values, start.values)
    assert not fit.shape.any()
    assert fit.log_focal == 0.0 and fit.center_shift_px == (0.0, 0.0)
    assert not np.allclose(fit.states[0].translation, start.translation)


def test_a_person_who_is_known_is_fitted_without_shape_directions(toy):
    scene = make_scene(toy.head, is_subpixel=True)
    person = toy.of_person(scene.shape)
    unknowns = replace(KNOWN_CAMERA, shape=False)
    fit = fit_dense(person, [scene.problem], [beside(scene)], WEAK, SOLVER, 60, unknowns=unknowns)
    assert fit.shape.shape == (0,)
    assert error_mm(scene, fit.states[0], scene.shape) < 0.1


def test_few_iterations_are_told(toy):
    scene = make_scene(toy.head)
    fit = fit_dense(toy, [scene.problem], [beside(scene)], WEAK, SOLVER, 2, unknowns=KNOWN_CAMERA, is_warm=True)
    assert (fit.joint.reason, fit.joint.iterations) == (StopReason.MAX_ITERATIONS, 2)
    done = fit_dense(
        toy, [scene.problem], [scene.state], WEAK, SolverConfig(tolerance=0.5), 5, unknowns=KNOWN_CAMERA, is_warm=True
    )
    assert isinstance(done, DenseFit)
    assert done.joint.reason is StopReason.CONVERGED


def test_the_pose_is_found_among_wrong_lookups(toy_head: HeadModel):
    scene = make_scene(toy_head, is_subpixel=True)
    model = DenseModel.of(toy_head, num_threads=1)
    points_px = scene.problem.lookups.points_px.copy()
    points_px[::4] = np.random.default_rng(0).uniform(0, 64, points_px[::4].shape)
    problem = replace(scene.problem, lookups=replace(scene.problem.lookups, points_px=points_px))
    start = start_from_lookups(model, problem)
    assert error_mm(scene, start, np.zeros(10)) < 15
    few = replace(problem.lookups, vertices=problem.lookups.vertices[:5], points_px=points_px[:5])
    with pytest.raises(InputError, match="shows 5 vertices .* at least 12"):
        start_from_lookups(model, replace(problem, lookups=few))
    shuffled = np.random.default_rng(1).permutation(points_px)
    with pytest.raises(InputError, match="agree on no pose"):
        start_from_lookups(model, replace(problem, lookups=replace(problem.lookups, points_px=shuffled)))
