"""What landmarks cost the solver, for ``solver.py``: a frame of a streamed clip, and many frames solved together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import load_preset
from configs.schema import Config, SolverConfig
from flame import load_head
from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfacePoints, SurfaceRig, build_surface_rig
from tracker.camera_guess import guess_camera
from tracker.clip import Span, cast, identify, load_toolkit, probe, scout
from tracker.faces import FaceFollower, Sighting
from tracker.frame_terms import LandmarkTerm, cauchy
from tracker.joint_solver import FrameProblem, Shared, SharedPrior, fit_joint
from tracker.scout import FittingModel, anchors
from tracker.state import FaceState, View
from tracker.stream import PersonStream
from tracker.terms import Whitening

NUM_POINTS, JOINT_ITERATIONS = 478, 3
_VIEW = View(np.array((900.0, 900.0)), np.array((320.0, 240.0)))
_FACING = np.diag((1.0, -1.0, -1.0))
_NOISE_PX = 0.5


@dataclass(frozen=True)
class StreamCost:
    """Hold what streaming a clip costs beside looking at its pictures."""

    num_frames: int
    milliseconds: float
    """Median CPU time of a frame that starts from the one before, one thread."""
    mean_milliseconds: float
    """Mean CPU time of all frames, starts and restarts included."""
    iterations: float
    """Median."""


def stream_cost(path: Path, max_frames: int) -> StreamCost:
    """Observe a clip with the default prior and settings, then time the solver alone on what was seen."""
    toolkit = load_toolkit("commons", "mediapipe", load_preset("default"))
    config, info, span = toolkit.model.config, probe(path), Span(max_frames=max_frames)
    camera = guess_camera(info, config.regularization)
    seen = scout(toolkit, info, span, 1, camera)
    people = cast(toolkit, identify(toolkit, seen, camera.freedom), camera)
    follower = FaceFollower(toolkit.prior, [anchors(glimpses) for glimpses in seen] or [[]], config.status)
    sightings: list[tuple[Sighting, float]] = []
    with span.open(path) as source:
        for frame in source:
            sightings.append((follower.observe(frame.image, frame.pts_seconds)[0], frame.pts_seconds))
    milliseconds, iterations = np.zeros(0), np.zeros(0)
    for _ in range(2):  # The first time compiles.
        stream = PersonStream(people.people[0], toolkit.model, people.intrinsics)
        timed = [_timed(stream, sighting, pts_seconds) for sighting, pts_seconds in sightings]
        milliseconds, iterations = np.array(timed).T
    warm = np.array([sighting.is_continuous for sighting, _ in sightings])
    return StreamCost(
        len(timed), float(np.median(milliseconds[warm])), float(milliseconds.mean()), float(np.median(iterations[warm]))
    )


def _timed(stream: PersonStream, sighting: Sighting, pts_seconds: float) -> tuple[float, int]:
    """Solve a frame; return CPU milliseconds and iterations."""
    began = time.process_time()
    frame = stream.solve(sighting, pts_seconds)
    return 1e3 * (time.process_time() - began), frame.iterations


def joint_milliseconds(counts: Sequence[int]) -> list[float]:
    """Return CPU milliseconds a frame of joint solves of so many frames.

    Identity in the directions that one camera sees, pose, joints and expressions of every frame, 478 points each with
    noise of half a pixel, from neutral faces in the picture's middle; always the same number of iterations.
    """
    model = _point_model()
    rig = model.around(np.zeros(model.rig.num_shapes))
    frames = [_frame(model, rig, seed) for seed in range(max(counts))]
    start = FaceState(_FACING, np.array((0.0, 0.0, 0.7)), np.zeros(12), np.zeros(model.rig.num_expressions))
    solver = SolverConfig(tolerance=0.0)
    shared = Shared(np.zeros(rig.num_shapes))
    prior = SharedPrior.around_zero(len(shared.shape), model.config.regularization.identity)

    def solve(count: int) -> float:
        began = time.process_time()
        fit_joint(frames[:count], [start] * count, shared, prior, solver, JOINT_ITERATIONS)
        return 1e3 * (time.process_time() - began) / count

    solve(2)  # The first time compiles.
    # The shortest is the quickest measured, and the likeliest to be disturbed.
    return [
        float(np.median([solve(count) for _ in range(max(1, min(3, max(counts) // count // 3)))])) for count in counts
    ]


def _point_model() -> FittingModel:
    head = load_head()
    assert head.topology is not None and head.expression_bounds is not None
    triangles = head.topology.region_triangles("face", "eyes")
    triangles = np.random.default_rng(0).choice(triangles, NUM_POINTS, replace=False)
    rig = build_surface_rig(head, SurfacePoints(triangles, np.full((NUM_POINTS, 3), 1 / 3)))
    return FittingModel.of(rig, head.expression_bounds.double().numpy(), Config(), head.expression_names or ())


def _frame(model: FittingModel, rig: SurfaceRig, seed: int) -> FrameProblem:
    """Return what a camera sees of an average face in some pose and expression."""
    rng = np.random.default_rng(seed)
    joint_angles = np.zeros(12)
    joint_angles[3] = 0.25 * rng.random()
    state = FaceState(
        rotation_matrix(0.25 * rng.normal(size=3)) @ _FACING,
        np.array((0.0, 0.0, 0.65)) + 0.03 * rng.normal(size=3),
        joint_angles,
        np.clip(rng.random(rig.num_expressions) - 0.6, 0, 1),
    )
    points_px = _VIEW.project(state.points_cam(rig.pose(state.joint_angles, state.expression).points_head))
    points_px += _NOISE_PX * rng.normal(size=points_px.shape)
    whitening = Whitening(points_px, np.tile(np.eye(2) / _NOISE_PX, (NUM_POINTS, 1, 1)))
    return FrameProblem(_VIEW, (LandmarkTerm(rig, whitening, cauchy(model.config.solver.robust_width)),), model.prior)
