"""Frames solved together: each ends where the streaming solver ends, whatever the others do."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from configs import Config
from flame.errors import InputError
from flame.model import HeadModel
from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfacePoints, SurfaceRig, build_surface_rig
from tests.toy_head import make_toy_head
from tracker.batched import BatchedRig, fit_frames
from tracker.batched.normal_equations import BatchedFrames, BatchedNormal, BatchedStates, linearize
from tracker.batched.solver import bounded_steps
from tracker.levenberg_marquardt import StopReason
from tracker.priors import StatePrior, state_prior
from tracker.solver import FrameFit, fit_frame, normal_equations
from tracker.state import FaceState, View
from tracker.terms import Whitening

VIEW = View(np.array([900.0, 850.0]), np.array([320.0, 240.0]))
CONFIG = Config().solver
EXACT = replace(CONFIG, tolerance=1e-12)
FACING = np.diag([1.0, -1.0, -1.0])


def on_every_triangle(head: HeadModel) -> SurfaceRig:
    num_triangles = len(head.faces)
    return build_surface_rig(head, SurfacePoints(np.arange(num_triangles), np.full((num_triangles, 3), 1 / 3)))


@pytest.fixture(scope="module")
def rig() -> SurfaceRig:
    return on_every_triangle(make_toy_head()).with_shape(np.random.default_rng(2).normal(size=10))


@pytest.fixture(scope="module")
def prior(rig) -> StatePrior:
    return state_prior(Config().regularization, np.tile([0.0, 1.0], (rig.num_expressions, 1)))


def random_state(rig: SurfaceRig, seed: int, turn: float = 0.25) -> FaceState:
    rng = np.random.default_rng(seed)
    joint_angles = rng.uniform(-0.3, 0.3, size=12) * ([0.2] * 3 + [1, 0.1, 0.1] + [1, 1, 0.1] * 2)
    rotation = rotation_matrix(turn * rng.normal(size=3)) @ FACING
    translation = np.array([0.03, -0.02, 0.6]) + 0.03 * rng.normal(size=3)
    return FaceState(rotation, translation, joint_angles, np.clip(rng.random(rig.num_expressions) - 0.3, 0, 1))


def see(rig: SurfaceRig, state: FaceState, seed: int, sigma_px: float = 0.7, view: View = VIEW) -> Whitening:
    rng = np.random.default_rng(seed)
    points_px = view.project(state.points_cam(rig.pose(state.joint_angles, state.expression).points_head))
    points_px = points_px + sigma_px * rng.normal(size=points_px.shape)
    points_px[rng.random(len(points_px)) < 0.05] += 40.0
    tilts = np.stack([np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in rng.random(len(points_px))])
    return Whitening(points_px, tilts * (np.array([1.0, 0.5])[:, None] / sigma_px))


def neutral(rig: SurfaceRig) -> FaceState:
    return FaceState(FACING, np.array([0.0, 0.0, 0.7]), np.zeros(12), np.zeros(rig.num_expressions))


def assert_same_fit(actual: FrameFit, expected: FrameFit, atol: float) -> None:
    assert (actual.reason, actual.iterations) == (expected.reason, expected.iterations)
    assert actual.energy == pytest.approx(expected.energy, rel=atol)
    np.testing.assert_allclose(actual.residual_px, expected.residual_px, rtol=0, atol=1e3 * atol)
    for name in ("rotation", "translation", "values"):
        np.testing.assert_allclose(getattr(actual.state, name), getattr(expected.state, name), rtol=0, atol=atol)


def is_same_fit(actual: FrameFit, expected: FrameFit, atol: float) -> bool:
    try:
        assert_same_fit(actual, expected, atol)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("has_correctives", [True, False])
def test_energy_and_normal_equations_are_those_of_single_frames(rig, prior, has_correctives):
    if not has_correctives:
        rig = replace(rig, pose_basis=0 * rig.pose_basis, has_pose_basis=np.zeros_like(rig.has_pose_basis))
    # The eyes' turns, the jaw and joints that move with the expression all take part.
    rig = replace(rig, joint_expression_basis=1e-3 * np.random.default_rng(4).normal(size=(5, 3, rig.num_expressions)))
    states = [random_state(rig, seed) for seed in range(3)]
    whitenings = [see(rig, state, seed) for seed, state in enumerate(states)]
    frames = BatchedFrames.of(whitenings, [prior] * 3, [VIEW] * 3, "cpu", torch.float64)
    together = linearize(BatchedRig.of(rig), frames, BatchedStates.of(states, "cpu", torch.float64), 3.0)
    for index, (whitening, state) in enumerate(zip(whitenings, states, strict=True)):
        alone = normal_equations(rig, whitening, state, prior, VIEW, 3.0)
        assert float(together.energy[index]) == pytest.approx(alone.energy, rel=1e-12)
        for name in ("hessian", "gradient", "error_px"):
            expected = getattr(alone, name)
            np.testing.assert_allclose(getattr(together, name)[index], expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("config", [CONFIG, EXACT], ids=["loose", "exact"])
def test_every_frame_ends_where_the_streaming_solver_ends(rig, prior, config):
    # Easy and hard starts, another camera, a prior of its own, and too few iterations for the hardest.
    states = [random_state(rig, seed, turn=0.1 * seed) for seed in range(8)]
    views = [View(VIEW.focal_px * (1 + 0.1 * seed), VIEW.center_px + seed) for seed in range(8)]
    whitenings = [
        see(rig, state, seed, view=view) for seed, (state, view) in enumerate(zip(states, views, strict=True))
    ]
    priors = [prior.near(state, 0.04, 6.0) if seed % 3 == 0 else prior for seed, state in enumerate(states)]
    starts = [states[seed] if seed % 4 == 0 else neutral(rig) for seed in range(8)]
    together = fit_frames(rig, whitenings, starts, priors, views, config, 12, max_batch=5)
    alone = [fit_frame(rig, *problem, config, 12) for problem in zip(whitenings, starts, priors, views, strict=True)]
    assert len({fit.iterations for fit in alone}) > 2
    same = [is_same_fit(*fits, atol=1e-8) for fits in zip(together, alone, strict=True)]
    # Where an expression is at its bound and nothing pulls, rounding decides what is held; the way may then differ, but
    # not by more than the tolerance where it leads.
    assert sum(same) >= len(same) - 1
    for one, other in zip(together, alone, strict=True):
        assert one.energy == pytest.approx(other.energy, rel=max(config.tolerance, 1e-8))


def test_refused_steps_are_damped_as_in_the_streaming_solver(rig, prior):
    # Seen from so far aside that the first steps overshoot; six are refused, and the damping falls again after them.
    truth = random_state(rig, 10, turn=1.5)
    problem = (see(rig, truth, 10), neutral(rig), prior, VIEW, EXACT, 30)
    (together,) = fit_frames(rig, [problem[0]], [problem[1]], *problem[2:])
    assert_same_fit(together, fit_frame(rig, *problem), atol=1e-7)


def test_frames_do_not_affect_each_other(rig, prior):
    states = [random_state(rig, seed, turn=0.1 * seed) for seed in range(8)]
    whitenings = [see(rig, state, seed) for seed, state in enumerate(states)]
    whitenings[3] = replace(whitenings[3], points_px=np.full_like(whitenings[3].points_px, np.nan))
    arguments = (prior, VIEW, EXACT, 30)
    together = fit_frames(rig, whitenings, [neutral(rig)] * 8, *arguments)
    for whitening, fit in zip(whitenings, together, strict=True):
        assert_same_fit(fit_frames(rig, [whitening], [neutral(rig)], *arguments)[0], fit, atol=1e-9)


def test_bounds_are_kept_and_reached(rig, prior):
    states = [replace(random_state(rig, seed), expression=np.full(rig.num_expressions, 1.6)) for seed in range(3)]
    whitenings = [see(rig, state, seed, sigma_px=0.1) for seed, state in enumerate(states)]
    outside = replace(neutral(rig), expression=np.full(rig.num_expressions, -0.3))
    fits = fit_frames(rig, whitenings, [neutral(rig), neutral(rig), outside], prior, VIEW, CONFIG, 40)
    for fit in fits:
        assert (fit.state.values >= prior.lower).all()
        assert (fit.state.values <= prior.upper).all()
        assert fit.state.expression.max() == 1.0
    alone = fit_frame(rig, whitenings[2], outside, prior, VIEW, CONFIG, 40)
    assert_same_fit(fits[2], alone, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_frames_without_evidence_keep_their_start_and_say_so(rig, prior, dtype):
    seen = see(rig, random_state(rig, 1), 1)
    nothing = replace(seen, matrices=np.zeros_like(seen.matrices))
    unknown = replace(seen, points_px=np.full_like(seen.points_px, np.nan))
    infinite = replace(seen, matrices=np.full_like(seen.matrices, np.inf))
    start = random_state(rig, 5)
    bad = [nothing, unknown, infinite]
    fits = fit_frames(rig, [*bad, seen], [start] * 4, prior, VIEW, CONFIG, 30, dtype=dtype)
    for fit in fits[:3]:
        assert (fit.reason, fit.iterations) == (StopReason.NO_EVIDENCE, 0)
        assert np.isfinite(fit.residual_px).all()
        for name in ("rotation", "translation", "values"):
            np.testing.assert_allclose(getattr(fit.state, name), getattr(start, name), atol=1e-6)
    assert np.median(fits[3].residual_px) < 2
    assert fits[3].reason is StopReason.CONVERGED


def test_one_point_says_too_little_but_breaks_nothing(rig, prior):
    seen = see(rig, random_state(rig, 1), 1)
    alone = np.zeros_like(seen.matrices)
    alone[7] = seen.matrices[7]
    for dtype in (torch.float64, torch.float32):
        (fit,) = fit_frames(rig, [replace(seen, matrices=alone)], [neutral(rig)], prior, VIEW, CONFIG, 20, dtype=dtype)
        assert fit.residual_px[7] < 1.0
        assert np.isfinite(fit.state.values).all()


def test_single_precision_ends_close_by(rig, prior):
    states = [random_state(rig, seed) for seed in range(6)]
    whitenings = [see(rig, state, seed) for seed, state in enumerate(states)]
    arguments = (rig, whitenings, [neutral(rig)] * 6, prior, VIEW, replace(CONFIG, tolerance=1e-5), 30)
    for single, double in zip(fit_frames(*arguments, dtype=torch.float32), fit_frames(*arguments), strict=True):
        assert single.energy == pytest.approx(double.energy, rel=1e-3)
        np.testing.assert_allclose(single.state.translation, double.state.translation, atol=1e-4)
        np.testing.assert_allclose(single.state.rotation, double.state.rotation, atol=2e-3)


def test_no_frames_give_no_fits(rig, prior):
    assert fit_frames(rig, [], [], prior, VIEW, CONFIG, 5) == []


def test_frames_that_do_not_fit_together_are_refused(rig, prior):
    whitening = see(rig, neutral(rig), 0)
    with pytest.raises(InputError, match="one start, prior and view each"):
        fit_frames(rig, [whitening], [], prior, VIEW, CONFIG, 5)
    short = Whitening(whitening.points_px[:5], whitening.matrices[:5])
    with pytest.raises(InputError, match="points"):
        fit_frames(rig, [short], [neutral(rig)], prior, VIEW, CONFIG, 5)


def test_an_iteration_stays_on_the_gpu(rig):
    """Trace an iteration with tensors that have a device but no values: any look at a value would raise."""

    def on_gpu(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float32, device="cuda")

    real = BatchedRig.of(rig, dtype=torch.float32)
    num_frames, num_points, num_values = 4, rig.num_points, 12 + rig.num_expressions
    with FakeTensorMode():
        moved = replace(real, base=on_gpu(*real.base.shape), basis=on_gpu(*real.basis.shape))
        frames = BatchedFrames(
            on_gpu(num_frames, num_points, 2),
            on_gpu(num_frames, num_points, 2, 2),
            *(on_gpu(num_frames, 2) for _ in range(2)),
            *(on_gpu(num_frames, num_values) for _ in range(4)),
        )
        states = BatchedStates(on_gpu(num_frames, 3, 3), on_gpu(num_frames, 3), on_gpu(num_frames, num_values))
        normal = linearize(moved, frames, states, 3.0)
        delta, gain, is_solved = bounded_steps(normal, states, frames, on_gpu(num_frames))
        results: list[BatchedNormal | BatchedStates] = [normal, states.step(delta, frames)]
        tensors = [getattr(each, field.name) for each in results for field in dataclasses.fields(each)]
        assert all(tensor.device.type == "cuda" for tensor in (*tensors, delta, gain, is_solved))
        assert all(tensor.dtype == torch.float32 for tensor in (*tensors, delta, gain))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gpu_gives_the_same_fits(rig, prior, dtype):
    if not torch.cuda.is_available() and not os.environ.get("FAIL_WITHOUT_CUDA"):
        pytest.skip("no CUDA device")
    states = [random_state(rig, seed, turn=0.1 * seed) for seed in range(8)]
    whitenings = [see(rig, state, seed) for seed, state in enumerate(states)]
    arguments = (rig, whitenings, [neutral(rig)] * 8, prior, VIEW, CONFIG, 30)
    atol = 1e-6 if dtype == torch.float64 else 2e-2
    for on_gpu, on_cpu in zip(fit_frames(*arguments, device="cuda", dtype=dtype), fit_frames(*arguments), strict=True):
        np.testing.assert_allclose(on_gpu.state.translation, on_cpu.state.translation, atol=atol)
        assert on_gpu.energy == pytest.approx(on_cpu.energy, rel=max(atol, 1e-6))
