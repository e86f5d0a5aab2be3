"""What ties a frame to the one before weighs by time: the same motion costs the same at any frame rate."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from configs.schema import EnergyConfig, SmoothnessConfig, SolverConfig
from flame.rotation_kernels import rotation_matrix
from tests.tracker.dense_scenes import UPRIGHT, DenseScene, make_scene
from tests.tracker.test_window_solver import MOTION, TAIL, WIDE, D, Pull
from tracker.dense_solver import DenseModel, frame_problem
from tracker.frame_terms import FramePoint
from tracker.priors import StatePrior
from tracker.reference_energy import ReferenceEnergy
from tracker.reference_problem import Parameters, Unknowns
from tracker.state import FaceState, View
from tracker.window_solver import fit_window

SMOOTH = SmoothnessConfig(**{field.name: 3.0 for field in fields(SmoothnessConfig)})
ONLY_SMOOTH = EnergyConfig(uv=0.0, normal=0.0, identity=0.0, expression=0.0, smoothness=SMOOTH)


@pytest.fixture(scope="module")
def scene(toy_head) -> DenseScene:
    return make_scene(toy_head)


def moving(seconds: float, num_expressions: int = 8) -> FaceState:
    """Return a face that turns, moves and changes at a steady pace."""
    turn = rotation_matrix(0.5 * seconds * np.array([0.6, 0.8, 0.0])) @ UPRIGHT
    place = np.array([0.1 * seconds, 0.0, 0.7 - 0.2 * seconds])
    return FaceState(turn, place, np.linspace(0, 0.3, 12) * seconds, np.linspace(0.1, 1, num_expressions) * seconds)


def motion_cost(scene: DenseScene, rate: float, *, is_twin: bool) -> float:
    """Return what smoothness costs over half a second of that motion."""
    seconds = np.arange(0, 0.5 + 1e-9, 1 / rate)
    model = DenseModel.of(scene.problem.head, num_threads=1)
    total = 0.0
    for before, now in zip(seconds[:-1], seconds[1:], strict=True):
        problem = replace(scene.problem, previous=moving(before), seconds_since_previous=float(now - before))
        state = moving(now)
        if is_twin:
            total += float(ReferenceEnergy(problem, ONLY_SMOOTH).total(Parameters.at(problem, state)))
            continue
        frame = frame_problem(model, problem, ONLY_SMOOTH, Unknowns(), state)
        point = FramePoint(state, View.of(problem.intrinsics), np.zeros(10))
        total += sum(term.at(point).energy for term in frame.terms)
    return total


@pytest.mark.parametrize("is_twin", (False, True))
def test_a_motion_costs_the_same_at_twice_the_frame_rate(scene, is_twin):
    costs = [motion_cost(scene, rate, is_twin=is_twin) for rate in (8.0, 16.0)]
    assert costs[0] > 0.1
    np.testing.assert_allclose(costs, costs[0], rtol=1e-9)


def test_two_short_waits_widen_the_prior_as_much_as_a_long_one():
    prior = StatePrior(np.zeros(TAIL), np.full(TAIL, 4.0), np.full(TAIL, -9.0), np.full(TAIL, 9.0))
    before = FaceState(UPRIGHT, np.zeros(3), np.full(12, 0.2), np.full(TAIL - 12, 0.2))
    # What the walk alone says of a value; the prior's own share is taken away.
    variance = [1 / (prior.near(before, seconds, 6.0).precision - prior.precision) for seconds in (0.02, 0.03, 0.05)]
    np.testing.assert_allclose(variance[0] + variance[1], variance[2], rtol=1e-12)


def test_a_window_is_solved_alike_at_twice_the_frame_rate():
    """The evidence of a second is the same: twice as many frames of half the weight."""
    found = {}
    for rate in (30, 60):
        seconds = np.arange(rate + 1) / rate
        targets = []
        for second in seconds:
            wave = np.zeros(D)
            wave[18:] = 0.2 * np.sin(9 * second) + 0.05 * np.sin(40 * second)
            targets.append(FaceState(UPRIGHT, np.array([0.02 * np.sin(7 * second), 0, 0.6]), wave[6:18], wave[18:]))
        fit = fit_window(
            [Pull(target, 100.0 * 30 / rate) for target in targets],
            targets,
            seconds.tolist(),
            [index > 0 for index in range(len(seconds))],
            MOTION,
            WIDE,
            SolverConfig(tolerance=1e-10),
            20,
        )
        step = rate // 30
        found[rate] = np.array([(each.translation[0], each.expression[0]) for each in fit.states[::step]])
        raw = np.array([(each.translation[0], each.expression[0]) for each in targets[::step]])
        assert np.abs(found[rate] - raw).max() > 0.01
    # At the ends the sampled evidence differs by half a frame.
    difference = np.abs(found[60] - found[30])[3:-3]
    assert (difference < (1e-3, 6e-3)).all()
