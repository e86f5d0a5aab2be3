from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.schema import AdamConfig, EnergyConfig
from flame.loading import load_head
from flame.model import HeadModel
from priors.evidence import NormalSpace
from tests.tracker.dense_scenes import UPRIGHT, DenseScene, make_scene, vertices_head
from tracker.adam import fit_adam
from tracker.reference_problem import Parameters, Unknowns
from tracker.state import FaceState


def neutral_start(scene: DenseScene) -> Parameters:
    """Return a neutral mean head somewhat beside the right place."""
    head = scene.problem.head
    state = FaceState(UPRIGHT, np.array((0.0, 0.0, 0.66)), np.zeros(12), np.zeros(head.num_expression))
    return Parameters.at(scene.problem, state)


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
        scene.problem,
        start,
        energy,
        AdamConfig(steps=150, identity_rate=2e-2, expression_rate=1e-2),
        unknowns=unknowns,
    )
    assert fit.energies[-1] < 0.1 * fit.energies[0]
    before = posed_error_mm(scene, start.state(), start.shape.numpy())
    after = posed_error_mm(scene, fit.state, fit.shape)
    assert after < 0.1 * before
    assert after < 2.5


def test_full_head_with_the_papers_settings() -> None:
    scene = make_scene(load_head(), 96)
    told: list[tuple[int, float]] = []
    fit = fit_adam(
        scene.problem,
        neutral_start(scene),
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
    np.testing.assert_allclose(fit.state.rotation @ fit.state.rotation.T, np.eye(3), atol=1e-5)


def test_what_is_no_unknown_stays(toy_head: HeadModel) -> None:
    scene = make_scene(toy_head)
    start = neutral_start(scene)
    paper = fit_adam(scene.problem, start, EnergyConfig(), AdamConfig(steps=3))
    assert not paper.state.joint_angles[[0, 1, 2, 6, 7, 8, 9, 10, 11]].any()
    assert paper.state.joint_angles[3:6].any()
    assert paper.log_focal != 0
    assert paper.principal_point.any()
    assert paper.camera.fx == pytest.approx(scene.problem.intrinsics.fx * np.exp(paper.log_focal))
    held = Unknowns(rotation=False, shape=False, jaw=False, log_focal=False, principal_point=False)
    fit = fit_adam(scene.problem, start, EnergyConfig(), AdamConfig(steps=3), unknowns=held)
    np.testing.assert_array_equal(fit.state.rotation, UPRIGHT)
    assert not fit.shape.any()
    assert not fit.state.joint_angles.any()
    assert fit.camera == scene.problem.intrinsics
    assert fit.state.expression.any()


def test_the_start_is_left_as_it_is(toy_head: HeadModel) -> None:
    scene = make_scene(toy_head)
    start = neutral_start(scene)
    fit_adam(scene.problem, start, EnergyConfig(), AdamConfig(steps=2))
    assert not start.shape.any()
    assert not start.shape.requires_grad
    assert not start.rotation.any()


def test_no_steps_evaluate_the_start(toy_head: HeadModel) -> None:
    scene = make_scene(toy_head)
    energy = replace(EnergyConfig(), uv=0.0, normal=0.0)
    fit = fit_adam(scene.problem, scene.truth(), energy, AdamConfig(steps=0))
    assert len(fit.energies) == 1
    np.testing.assert_array_equal(fit.shape, scene.shape)
    assert fit.energies[0] == pytest.approx(0.01 * float(np.square(scene.state.expression).sum()), rel=1e-3)
    assert torch.is_grad_enabled()
