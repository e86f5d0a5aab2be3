"""Make evidence of the commons head in poses that are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfaceRig
from priors.evidence import FaceEvidence, FaceRegion
from tracker.state import FaceState, View

VIEW = View(np.array([900.0, 900.0]), np.array([320.0, 240.0]))
FACING = np.diag([1.0, -1.0, -1.0])


def pose(
    rig: SurfaceRig, turn_rad: Sequence[float] = (0, 0, 0), at_m: Sequence[float] = (0, 0, 0.7), jaw_rad: float = 0.0
) -> FaceState:
    """Return a neutral face, turned about the camera's axes and moved, with the jaw opened."""
    joint_angles = np.zeros(12)
    joint_angles[3] = jaw_rad
    rotation = rotation_matrix(np.asarray(turn_rad, np.float64)) @ FACING
    return FaceState(rotation, np.asarray(at_m, np.float64), joint_angles, np.zeros(rig.num_expressions))


def evidence_of(
    rig: SurfaceRig,
    state: FaceState,
    *,
    noise_px: float = 0.0,
    presence: float = 1.0,
    visibility: float = 1.0,
    view: View = VIEW,
    seed: int = 0,
) -> FaceEvidence:
    """Return what a prior that errs by ``noise_px`` would say of a face."""
    points_cam = state.points_cam(rig.pose(state.joint_angles, state.expression).points_head)
    points_px = view.project(points_cam)
    points_px += noise_px * np.random.default_rng(seed).normal(size=points_px.shape)
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    center_px = (float((low + high)[0] / 2), float((low + high)[1] / 2))
    return FaceEvidence(
        points_px=points_px,
        sigma_px=np.ones_like(points_px),
        normal_px=np.tile([1.0, 0.0], (len(points_px), 1)),
        presence=presence,
        visibility=visibility,
        region=FaceRegion(center_px, float(1.5 * (high - low).max()), 0.0),
        points_depth_px=np.zeros(len(points_px)),
    )
