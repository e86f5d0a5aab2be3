"""Solving frames together: the same as a dense solve, within bounds, by time, at constant cost."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from configs.schema import SmoothingConfig, SolverConfig
from flame.rotation_kernels import rotation_matrix
from tracker.active_set import MAX_ROUNDS
from tracker.motion import Link, Motion, Paired
from tracker.priors import StatePrior
from tracker.state import NUM_RIGID, FaceState
from tracker.window_solver import Chain, fit_window

NUM_EXPRESSIONS = 3
TAIL = 12 + NUM_EXPRESSIONS
D = NUM_RIGID + TAIL
Z = D + NUM_RIGID
MOTION = Motion(np.full(6, 0.3), np.full(TAIL, 0.5))
FREE = (np.full(TAIL, -np.inf), np.full(TAIL, np.inf))
WIDE = StatePrior(np.zeros(TAIL), np.ones(TAIL), np.full(TAIL, -9.0), np.full(TAIL, 9.0))


def state(seed: int, scale: float = 0.02) -> FaceState:
    """Return a face near neutral, facing the camera."""
    values = scale * np.random.default_rng(seed).normal(size=D)
    turn = rotation_matrix(values[:3]) @ np.diag([1.0, -1.0, -1.0])
    return FaceState(turn, values[3:6] + [0, 0, 0.6], values[6:18], values[18:])


def equations(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a Hessian that is positive definite, and a gradient."""
    rng = np.random.default_rng(seed)
    jacobian = rng.normal(size=(2 * D, D))
    return jacobian.T @ jacobian, 5 * rng.normal(size=D)


def dense(paired: Paired) -> np.ndarray:
    """Return a matrix in full."""
    return np.array([paired.times(row) for row in np.eye(Z)]).T


def whole_system(
    frames: list[tuple[np.ndarray, np.ndarray]], links: list[Link | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Put the Hessian and the gradient of all frames into one matrix, from the definition of the links' energy."""
    hessian, gradient = np.zeros((len(frames) * Z,) * 2), np.zeros(len(frames) * Z)
    for index, (own, slope) in enumerate(frames):
        first = index * Z
        hessian[first : first + D, first : first + D] += own
        hessian[first + D : first + Z, first + D : first + Z] += 0.01 * np.eye(NUM_RIGID)
        gradient[first : first + D] += slope
        link = links[index]
        if link is not None:
            precision = dense(link.precision)
            forward = np.linalg.solve(precision, dense(link.cross).T)
            both = np.concatenate((-forward, np.eye(Z)), axis=1)
            rows = slice(first - Z, first + Z)
            hessian[rows, rows] += both.T @ precision @ both
            gradient[rows] += both.T @ precision @ link.offset
    return hessian, gradient


def make_links(states: list[FaceState], seconds: np.ndarray, broken: tuple[int, ...] = ()) -> list[Link | None]:
    """Tie frames together, except the broken ones to their predecessor."""
    still = (np.zeros(NUM_RIGID), np.zeros(NUM_RIGID))
    links: list[Link | None] = [None]
    for index in range(1, len(states)):
        dt = float(seconds[index] - seconds[index - 1])
        link = MOTION.link(states[index - 1], states[index], dt, still)
        links.append(None if index in broken else link)
    return links


def solve_chain(frames, links, room=FREE) -> np.ndarray:
    """Return all steps, (T, Z)."""
    chain = Chain()
    for (hessian, gradient), link in zip(frames, links, strict=True):
        chain.append(hessian, gradient, room, link)
    return np.array(chain.solve())


@pytest.mark.parametrize("broken", [(), (3,), (1, 4)])
def test_it_equals_a_dense_solve(broken):
    seconds = np.cumsum([0.0, 0.03, 0.05, 0.01, 0.2, 0.04])
    frames, states = [equations(i) for i in range(6)], [state(i) for i in range(6)]
    links = make_links(states, seconds, broken)
    hessian, gradient = whole_system(frames, links)
    expected = -np.linalg.solve(hessian, gradient)
    np.testing.assert_allclose(solve_chain(frames, links).ravel(), expected, rtol=1e-6, atol=1e-9)


def test_it_equals_a_dense_solve_within_bounds():
    frames, states = [equations(i) for i in range(5)], [state(i) for i in range(5)]
    links = make_links(states, np.arange(5) / 30)
    room = (np.full(TAIL, -0.02), np.full(TAIL, 0.03))
    hessian, gradient = whole_system(frames, links)
    root = np.linalg.cholesky(hessian).T
    limits = np.full((2, 5, Z), [[[-np.inf]], [[np.inf]]])
    limits[0, :, NUM_RIGID:D], limits[1, :, NUM_RIGID:D] = room
    found = lsq_linear(root, -np.linalg.solve(root.T, gradient), limits.reshape(2, -1), tol=1e-14)
    steps = solve_chain(frames, links, room)
    assert (np.isclose(steps[:, NUM_RIGID:D], room[0]) | np.isclose(steps[:, NUM_RIGID:D], room[1])).sum() > 5

    def energy(vector: np.ndarray) -> float:
        return float(gradient @ vector + 0.5 * vector @ hessian @ vector)

    assert energy(steps.ravel()) <= energy(found.x) * (1 - 2e-3)
    assert (steps[:, NUM_RIGID:D] >= room[0]).all() and (steps[:, NUM_RIGID:D] <= room[1]).all()


def test_forgetting_frames_changes_nothing_for_those_that_follow():
    frames, states = [equations(i) for i in range(7)], [state(i) for i in range(7)]
    links = make_links(states, np.arange(7) / 30)
    chain = Chain()
    for index, ((hessian, gradient), link) in enumerate(zip(frames, links, strict=True)):
        chain.append(hessian, gradient, FREE, link)
        if index > 3:
            chain.forget()
    np.testing.assert_allclose(chain.solve()[-1], solve_chain(frames, links)[-1], rtol=1e-8, atol=1e-12)
    assert len(chain) == 4


def test_the_oldest_step_is_that_of_all_steps():
    frames, states = [equations(i) for i in range(5)], [state(i) for i in range(5)]
    links = make_links(states, np.arange(5) / 30)
    room = (np.full(TAIL, -0.02), np.full(TAIL, 0.03))
    chain = Chain()
    for (hessian, gradient), link in zip(frames, links, strict=True):
        chain.append(hessian, gradient, room, link)
    np.testing.assert_allclose(chain.solve_oldest(MAX_ROUNDS, 5), solve_chain(frames, links, room)[0], rtol=1e-9)


def test_gradients_of_a_link_are_those_of_finite_differences():
    before, after, still = state(1), state(2), (np.zeros(NUM_RIGID), np.zeros(NUM_RIGID))
    link = MOTION.link(before, after, 0.04, still)
    by_before, by_after = -link.cross.times(link.offset), link.precision.times(link.offset)
    small, lower, upper = 1e-6, np.full(TAIL, -9.0), np.full(TAIL, 9.0)

    def energy(step: np.ndarray, faster: np.ndarray, *, of_before: bool) -> float:
        if of_before:
            return MOTION.link(before.step(step, lower, upper), after, 0.04, (faster, still[1])).energy
        return MOTION.link(before, after.step(step, lower, upper), 0.04, (still[0], faster)).energy

    for of_before, gradient in ((True, by_before), (False, by_after)):
        found = np.zeros(Z)
        for index, unit in enumerate(np.eye(Z) * small):
            rise = energy(unit[:D], unit[D:], of_before=of_before) - energy(-unit[:D], -unit[D:], of_before=of_before)
            found[index] = rise / (2 * small)
        # A turn of some hundredths of a radian between the frames is taken for a vector.
        np.testing.assert_allclose(found[:3], gradient[:3], rtol=0.05, atol=0.05 * np.abs(gradient[:3]).max())
        np.testing.assert_allclose(found[3:], gradient[3:], rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


def test_a_change_over_two_intervals_is_that_over_both_together():
    """The chain's covariance does not depend on how often one looks."""
    resting = state(0)
    still = (np.zeros(NUM_RIGID), np.zeros(NUM_RIGID))

    def covariance_and_map(seconds: float) -> tuple[np.ndarray, np.ndarray]:
        link = MOTION.link(resting, resting, seconds, still)
        precision = dense(link.precision)
        return np.linalg.inv(precision), np.linalg.solve(precision, dense(link.cross).T)

    (first, _), (second, forward), (whole, _) = (covariance_and_map(each) for each in (0.03, 0.05, 0.08))
    np.testing.assert_allclose(forward @ first @ forward.T + second, whole, rtol=1e-8, atol=1e-15)


@dataclass(frozen=True)
class Pull:
    """Pull a face towards a state."""

    target: FaceState
    stiffness: float = 100.0

    def __call__(self, at: FaceState) -> Pulled:
        """Return the energy at a state."""
        turn = MOTION.link(self.target, at, 1.0, (np.zeros(6), np.zeros(6))).offset[:3]
        offset = np.concatenate((turn, at.translation - self.target.translation, at.values - self.target.values))
        return Pulled(
            0.5 * self.stiffness * float(offset @ offset), self.stiffness * np.eye(D), self.stiffness * offset
        )


@dataclass(frozen=True)
class Pulled:
    """Hold the energy of a pull, and its derivatives."""

    energy: float
    hessian: np.ndarray
    gradient: np.ndarray


def fit(targets: list[FaceState], seconds: np.ndarray, is_continuous: list[bool] | None = None):
    """Solve noisy frames together."""
    continuous = is_continuous or [index > 0 for index in range(len(targets))]
    pulls = [Pull(target) for target in targets]
    return fit_window(pulls, targets, seconds.tolist(), continuous, MOTION, WIDE, SolverConfig(tolerance=1e-10), 20)


def numbers(states) -> np.ndarray:
    """Return one expression of every frame."""
    return np.array([each.expression[0] for each in states])


def test_noise_is_lowered_and_steady_motion_kept():
    seconds = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.06, 40))
    moving = []
    for index, second in enumerate(seconds):
        noisy = state(index)
        moving.append(FaceState(noisy.rotation, np.array([0.3 * second, 0, 0.6]), noisy.joint_angles, noisy.expression))
    found = fit(moving, seconds)
    np.testing.assert_allclose([each.translation[0] for each in found.states], 0.3 * seconds, atol=2e-3)
    np.testing.assert_allclose(found.velocities[5:-5, 3], 0.3, atol=0.02)
    roughness = np.diff(numbers(found.states), 2).std() / np.diff(numbers(moving), 2).std()
    assert roughness < 0.3


def test_a_break_stays_sharp():
    targets = [state(0)] * 6 + [state(1, scale=0.3)] * 6
    found = fit(targets, np.arange(12) / 30, [index not in (0, 6) for index in range(12)])
    np.testing.assert_allclose(numbers(found.states), numbers(targets), atol=1e-9)
    joined = fit(targets, np.arange(12) / 30)
    assert abs(numbers(joined.states)[6] - numbers(targets)[6]) > 1e-3


def test_a_long_pause_hardly_couples():
    targets = [state(0), state(0), state(1, scale=0.3), state(1, scale=0.3)]
    near = fit(targets, np.array([0.0, 0.03, 0.06, 0.09]))
    far = fit(targets, np.array([0.0, 0.03, 60.0, 60.03]))
    errors = [np.abs(numbers(each.states) - numbers(targets)).max() for each in (near, far)]
    assert errors[1] < 0.01 * errors[0]


def test_time_per_frame_does_not_grow_with_their_number():
    def seconds_per_frame(count: int) -> float:
        targets = [state(index) for index in range(count)]
        started = time.process_time()
        fit_window(
            [Pull(target) for target in targets],
            targets,
            (np.arange(count) / 30).tolist(),
            [index > 0 for index in range(count)],
            MOTION,
            WIDE,
            SolverConfig(tolerance=0.0),
            2,
        )
        return (time.process_time() - started) / count

    seconds_per_frame(10)
    # Generous: the machine that tests this does other things, too.
    assert min(seconds_per_frame(600) for _ in range(2)) < 1.6 * min(seconds_per_frame(60) for _ in range(3))


def test_lids_are_quicker_than_the_rest():
    config = SmoothingConfig()
    motion = Motion.of(config, WIDE, ("eyeBlinkLeft", "mouthFunnel", "browDownLeft"))
    np.testing.assert_allclose(
        motion.tail[12:], (config.lid_change, config.expression_change, config.expression_change)
    )
