"""Time many frames solved at once against one after another: ``python -m benchmarks.batched_solver``.

Frames of the commons head, every one from a neutral face in the picture's middle, 478 points, noise of half a pixel.
Prints frames per second and the largest difference from the streaming solver (which runs on one thread).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from configs import Config
from flame import load_head
from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfacePoints, SurfaceRig, build_surface_rig
from tracker.batched import BatchedRig, minimize_frames
from tracker.batched.normal_equations import BatchedFrames, BatchedStates
from tracker.priors import StatePrior, state_prior
from tracker.solver import fit_frame
from tracker.state import FaceState, View
from tracker.terms import Whitening

VIEW = View(np.array([900.0, 900.0]), np.array([320.0, 240.0]))
FACING = np.diag([1.0, -1.0, -1.0])
NUM_POINTS = 478
CONFIG = Config()


def make_rig() -> tuple[SurfaceRig, StatePrior]:
    """Return points spread over face and eyes, and the default prior."""
    head = load_head()
    assert head.topology is not None and head.expression_bounds is not None
    triangles = head.topology.region_triangles("face", "eyes")
    triangles = np.random.default_rng(0).choice(triangles, NUM_POINTS, replace=False)
    rig = build_surface_rig(head, SurfacePoints(triangles, np.full((NUM_POINTS, 3), 1 / 3)))
    return rig, state_prior(CONFIG.regularization, head.expression_bounds.double().numpy())


def make_frame(rig: SurfaceRig, seed: int) -> Whitening:
    """Return what a camera sees of a face in some pose and expression."""
    rng = np.random.default_rng(seed)
    joint_angles = np.zeros(12)
    joint_angles[3] = 0.25 * rng.random()
    joint_angles[[6, 7, 9, 10]] = rng.uniform(-0.3, 0.3, size=4)
    state = FaceState(
        rotation_matrix(0.25 * rng.normal(size=3)) @ FACING,
        np.array([0.0, 0.0, 0.65]) + 0.03 * rng.normal(size=3),
        joint_angles,
        np.clip(rng.random(rig.num_expressions) - 0.6, 0, 1),
    )
    points_px = VIEW.project(state.points_cam(rig.pose(state.joint_angles, state.expression).points_head))
    points_px += 0.5 * rng.normal(size=points_px.shape)
    return Whitening(points_px, np.tile(2.0 * np.eye(2), (NUM_POINTS, 1, 1)))


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Return the least seconds of three calls, after one that warms up."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    """Print one line for each batch size and floating-point type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--largest", type=int, default=0, help="largest batch; default 1024 on cuda, 64 on cpu")
    options = parser.parse_args()
    device, largest = options.device, options.largest or (1024 if options.device == "cuda" else 64)
    torch.set_num_threads(1)
    rig, prior = make_rig()
    start = FaceState(FACING, np.array([0.0, 0.0, 0.7]), np.zeros(12), np.zeros(rig.num_expressions))
    iterations = CONFIG.solver.max_iterations
    whitenings = [make_frame(rig, seed) for seed in range(largest)]
    fit_frame(rig, whitenings[0], start, prior, VIEW, CONFIG.solver, iterations)
    began = time.perf_counter()
    alone = [fit_frame(rig, item, start, prior, VIEW, CONFIG.solver, iterations) for item in whitenings]
    rate = largest / (time.perf_counter() - began)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread"
    print(f"{NUM_POINTS} points, {18 + rig.num_expressions} unknowns, batches on {name}")
    print(f"{'frames':>7} {'type':>8} {'frames/s':>9} {'x stream':>9} {'expression differs':>19}")
    print(f"{1:>7} {'stream':>8} {rate:>9.0f} {1.0:>9.2f}")
    expected = np.stack([fit.state.values for fit in alone])
    for dtype in (torch.float64, torch.float32):
        batched_rig = BatchedRig.of(rig, device, dtype)
        for count in [2**power for power in range(11) if 2**power <= largest]:
            frames = BatchedFrames.of(whitenings[:count], [prior] * count, [VIEW] * count, device, dtype)
            states = BatchedStates.of([start] * count, device, dtype)
            fit = minimize_frames(batched_rig, frames, states, CONFIG.solver, iterations)
            worst = np.abs(fit.states.values.double().cpu().numpy() - expected[:count]).max()

            def run(f: BatchedFrames = frames, s: BatchedStates = states, r: BatchedRig = batched_rig) -> None:
                minimize_frames(r, f, s, CONFIG.solver, iterations)

            batch_rate = count / seconds_of(run, device)
            kind = str(dtype).removeprefix("torch.")
            print(f"{count:>7} {kind:>8} {batch_rate:>9.0f} {batch_rate / rate:>9.2f} {worst:>19.1e}")


if __name__ == "__main__":
    main()
