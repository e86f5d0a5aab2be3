from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.schema import AdamConfig, EnergyConfig
from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from priors.evidence import NormalSpace
from tests.tracker.dense_scenes import UPRIGHT, DenseScene, make_scene, vertices_head
from tracker.adam import fit_adam
from tracker.reference_problem import Unknowns
from tracker.state import FaceState


def neutral_start(scene: DenseScene) -> FaceState:
    """Return a neutral mean head somewhat beside the right place."""
    return FaceState(UPRIGHT, np.array((0.0, 0.0, 0.66)), np.zeros(12), np.zeros(scene.problem.head.num_expression))


def posed_error_mm(scene: DenseScene, state: FaceState, shape: np.ndarray) -> float:
    verts_cam = state.points_cam(vertices_head(scene.problem.head, state, shape))
    return 1e3 * float(np.linalg.norm(verts_cam - scene.verts_cam, axis=1).mean())


@pytest.mark.parametrize("space", ("camera", "head"))
def test_known_parameters_are_recovered(toy_head: HeadModel, space: NormalSpace) -> None:
    scene = make_scene(toy_head, normal_space=space, is_subpixel=True)
    energy = EnergyConfig(identity=1e-4, expression=1e-4, uv_pixel=2000.0)
    unknowns = Unknowns(log_focal=False, principal_point=False)
    start = neutral_start(scene)
    fit = fit_adam(
        [scene.problem],
        [start],
        energy,
        AdamConfig(steps=150, identity_rate=2e-2, expression_rate=1e-2),
        unknowns=unknowns,
    )
    assert fit.energies[-1] < 0.1 * fit.energies[0]
    before = posed_error_mm(scene, start, np.zeros_like(fit.shape))
    after = posed_error_mm(scene, fit.states[0], fit.shape)
    assert after < 0.1 * before
    assert after < 2.5


def test_full_head_with_the_papers_settings() -> None:
    scene = make_scene(load_head(), 96)
    told: list[tuple[int, float]] = []
    fit = fit_adam(
        [scene.problem],
        [neutral_start(scene)],
        EnergyConfig(),
        AdamConfig(steps=25),
        on_step=lambda step, energy: told.append((step, energy)),
    )
    assert fit.energies[-1] < 0.7 * fit.energies[0]
    assert len(fit.energies) == 26
    assert told == list(zip(range(1, 26), fit.energies[:-1], strict=True))
    assert set(fit.terms) == {"uv", "normal", "identity", "expression"}
    assert sum(fit.terms.values()) == pytest.approx(fit.energies[-1])
    assert fit.seconds > 0
    assert fit.shape.shape == (scene.problem.head.num_shape,)
    np.testing.assert_allclose(fit.states[0].rotation @ fit.states[0].rotation.T, np.eye(3), atol=1e-5)


def test_what_is_no_unknown_stays(toy_head: HeadModel) -> None:
    scene = make_scene(toy_head)
    start = neutral_start(scene)
    paper = fit_adam([scene.problem], [start], EnergyConfig(), AdamConfig(steps=3))
    state = paper.states[0]
    assert not state.joint_angles[[0, 1, 2, 6, 7, 8, 9, 10, 11]].any()
    assert state.joint_angles[3:6].any()
    assert paper.log_focal != 0
    assert paper.principal_point.any()
    assert paper.cameras[0].fx == pytest.approx(scene.problem.intrinsics.fx * np.exp(paper.log_focal))
    held = Unknowns(rotation=False, shape=False, jaw=False, log_focal=False, principal_point=False)
    fit = fit_adam([scene.problem], [start], EnergyConfig(), AdamConfig(steps=3), unknowns=held)
    np.testing.assert_array_equal(fit.states[0].rotation, UPRIGHT)
    assert not fit.shape.any()
    assert not fit.states[0].joint_angles.any()
    assert fit.cameras == (scene.problem.intrinsics,)
    assert fit.states[0].expression.any()


def test_images_share_identity_and_camera(toy_head: HeadModel) -> None:
    """Two copies of an image say what one says twice as loudly, but the person is counted once."""
    scene = make_scene(toy_head)
    energy = EnergyConfig(identity=3.0, identity_zero=1.0, mirror=10.0, principal_point=5.0)
    start, shape, shift = scene.state, scene.shape, np.array((0.02, -0.01))
    none = AdamConfig(steps=0)
    once, twice = (
        fit_adam([scene.problem] * count, [start] * count, energy, none, shape=shape, principal_point=shift)
        for count in (1, 2)
    )
    shared = {"identity_zero", "principal_point", "mirror", "identity"} & once.terms.keys()
    assert {"identity_zero", "principal_point"} <= shared
    for name, value in once.terms.items():
        assert twice.terms[name] == pytest.approx(value if name in shared else 2 * value)
    moved = fit_adam([scene.problem] * 2, [start, neutral_start(scene)], energy, AdamConfig(steps=3))
    assert len(moved.states) == len(moved.cameras) == 2
    assert not np.allclose(moved.states[0].translation, moved.states[1].translation)
    assert moved.shape.any()


def test_two_images_are_fitted_together(toy_head: HeadModel) -> None:
    turned = matrix_from_axis_angle(np.array((0.0, -0.3, 0.0))) @ UPRIGHT
    scenes = [make_scene(toy_head, is_subpixel=True), make_scene(toy_head, is_subpixel=True, rotation=turned)]
    starts = [replace(neutral_start(scene), rotation=scene.state.rotation) for scene in scenes]
    fit = fit_adam(
        [scene.problem for scene in scenes],
        starts,
        EnergyConfig(identity=1e-4, expression=1e-4, uv_pixel=2000.0),
        AdamConfig(steps=80, identity_rate=2e-2, expression_rate=1e-2),
        unknowns=Unknowns(log_focal=False, principal_point=False),
    )
    assert fit.energies[-1] < 0.2 * fit.energies[0]
    for scene, start, state in zip(scenes, starts, fit.states, strict=True):
        before = posed_error_mm(scene, start, np.zeros_like(fit.shape))
        assert posed_error_mm(scene, state, fit.shape) < 0.5 * before


def test_no_steps_evaluate_the_start(toy_head: HeadModel) -> None:
    scene = make_scene(toy_head)
    energy = replace(EnergyConfig(), uv=0.0, normal=0.0)
    anchored = replace(scene.problem, anchor=scene.shape)
    fit = fit_adam([anchored], [scene.state], energy, AdamConfig(steps=0), shape=scene.shape)
    assert len(fit.energies) == 1
    np.testing.assert_array_equal(fit.shape, scene.shape)
    assert fit.energies[0] == pytest.approx(0.01 * float(np.square(scene.state.expression).sum()), rel=1e-3)
    assert torch.is_grad_enabled()


def test_every_image_needs_a_start(toy_head: HeadModel) -> None:
    scene = make_scene(toy_head)
    for count in (0, 2):
        with pytest.raises(InputError, match=f"{count} images and 1 starts"):
            fit_adam([scene.problem] * count, [scene.state], EnergyConfig(), AdamConfig(steps=1))
