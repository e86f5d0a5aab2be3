"""Dense evidence with a known truth, rendered from a head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from flame.camera import Intrinsics, project
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from flame.surface import SurfacePoints
from priors.dense_rendering import render_dense_maps, render_foreground
from priors.evidence import NormalSpace
from tracker.reference_problem import (
    CorrespondenceEvidence,
    DenseProblem,
    LidEvidence,
    Parameters,
    PointEvidence,
    VertexLookups,
    look_up_vertices,
)
from tracker.state import FaceState
from tracker.terms import Whitening

UPRIGHT = np.diag((1.0, -1.0, -1.0))
"""Rotation of cam_from_head of a head that looks into the camera."""


@dataclass(frozen=True)
class DenseScene:
    """Hold a problem and its answer."""

    problem: DenseProblem
    state: FaceState
    shape: np.ndarray
    verts_cam: np.ndarray

    def truth(self) -> Parameters:
        return Parameters.at(self.problem, self.state, self.shape)

    def beside(self, scale: float = 1.0, seed: int = 3) -> Parameters:
        """Return parameters near the truth, the rotation some way from its base."""
        rng = np.random.default_rng(seed)
        head = self.problem.head
        sizes = {"rotation": 0.04, "translation": 0.004, "neck": 0.05, "jaw": 0.08, "eyes": 0.1, "expression": 0.2}
        sizes |= {"shape": 0.4, "log_focal": 0.03, "principal_point": 0.01}
        truth = self.truth()
        values = {"base_rotation": truth.base_rotation}
        for name, size in sizes.items():
            value = getattr(truth, name)
            step = torch.as_tensor(scale * size * rng.normal(size=value.shape), dtype=head.dtype)
            values[name] = value + step
        return Parameters(**values)


def vertices_head(head: HeadModel, state: FaceState, shape: np.ndarray) -> np.ndarray:
    neck, jaw, left, right = torch.as_tensor(state.joint_angles, dtype=head.dtype).view(4, 3)
    shaped = head.rest(torch.as_tensor(shape, dtype=head.dtype))
    expression = torch.as_tensor(state.expression, dtype=head.dtype)
    posed = shaped.pose(expression=expression, neck=neck, jaw=jaw, left_eye=left, right_eye=right)
    return posed.vertices.double().numpy()


def make_scene(
    head: HeadModel,
    size: int = 64,
    *,
    normal_space: NormalSpace = "camera",
    rotation: np.ndarray | None = None,
    neck: tuple[float, float, float] = (0.0, 0.0, 0.0),
    strength: float = 1.0,
    is_subpixel: bool = False,
    num_shapes: int | None = None,
) -> DenseScene:
    """Render a head with a random face; ``strength`` scales identity, expression and jaw.

    With ``num_shapes``, only so many of the first identity coefficients are not zero.
    """
    rng = np.random.default_rng(5)
    camera = Intrinsics.from_fov(26.0, size, size)
    angles = np.concatenate((neck, (0.1 * strength, 0.02 * strength, 0.0), np.zeros(6)))
    expression = strength * rng.uniform(0.0, 0.4, head.num_expression)
    shape = strength * rng.normal(0.0, 0.7, head.num_shape)
    if num_shapes is not None:
        shape[num_shapes:] = 0.0
    cam_from_head = matrix_from_axis_angle(np.array((0.1, 0.25, 0.05))) @ UPRIGHT if rotation is None else rotation
    state = FaceState(cam_from_head, np.array((0.01, -0.005, 0.68)), angles, expression)
    verts_cam = state.points_cam(vertices_head(head, state, shape))
    cam_from_neck = cam_from_head @ matrix_from_axis_angle(np.asarray(neck))
    maps = render_dense_maps(head, verts_cam, camera, normal_space=normal_space, cam_from_neck=cam_from_neck)
    problem = DenseProblem(
        head=head,
        maps=maps,
        intrinsics=camera,
        lookups=look_up_vertices(head, maps, 0.02, is_subpixel),
        foreground=render_foreground(head, verts_cam, camera),
        anchor=shape,
        previous=state,
    )
    return DenseScene(_with_points(problem, verts_cam), state, shape, verts_cam)


def with_exact_lookups(scene: DenseScene) -> DenseProblem:
    """Return the problem with its vertices looked up where they really are, and nothing known beforehand."""
    lookups, camera = scene.problem.lookups, scene.problem.intrinsics
    points_px = project(scene.verts_cam[lookups.vertices], camera)
    is_right = np.linalg.norm(points_px - lookups.points_px, axis=1) < 1.5
    exact = VertexLookups(lookups.vertices[is_right], points_px[is_right])
    return replace(scene.problem, lookups=exact, anchor=None, previous=None)


def _with_points(problem: DenseProblem, verts_cam: np.ndarray) -> DenseProblem:
    """Add points all over the head, seen where they are; one landmark is not seen."""
    head, camera = problem.head, problem.intrinsics
    faces = head.faces.numpy()
    surface = SurfacePoints(np.arange(0, len(faces), max(len(faces) // 8, 1)), np.empty(0))
    weights = np.random.default_rng(2).dirichlet(np.ones(3), len(surface))
    surface = SurfacePoints(surface.triangles, weights)
    points_px = project(surface.on(verts_cam, faces), camera)
    seen_px = points_px.copy()
    seen_px[1] = np.nan
    # Some are surer than others, and one is not seen.
    sizes = np.linspace(0.0, 2.0, len(surface))
    half = len(surface) // 2
    first, second = np.arange(half), np.arange(half, 2 * half)
    return replace(
        problem,
        landmarks=PointEvidence(surface, seen_px),
        correspondences=CorrespondenceEvidence(surface, Whitening(points_px, sizes[:, None, None] * np.eye(2))),
        irises=PointEvidence(surface.take(first[:2]), points_px[:2]),
        lids=LidEvidence(surface.take(first), surface.take(second), points_px[first] - points_px[second]),
    )
