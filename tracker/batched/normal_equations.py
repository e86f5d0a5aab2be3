"""Energy and normal equations of B frames at once: robust correspondences and a Gaussian over joints and expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flame.rotation import matrix_from_axis_angle
from flame.surface import NUM_JOINT_ANGLES
from tracker.batched.rig import BatchedRig
from tracker.priors import StatePrior
from tracker.state import NUM_RIGID, ROTATION, TRANSLATION, FaceState, View
from tracker.terms import Whitening

_NEAREST_METRES = 1e-3


@dataclass(frozen=True)
class BatchedFrames:
    """Hold what is known of B frames: evidence of N points, cameras, priors over T = 12 + E values."""

    points_px: torch.Tensor
    """Observed points, (B, N, 2)."""
    matrices: torch.Tensor
    """Inverse square root covariances, (B, N, 2, 2), 1 / pixels; zero where a point says nothing."""
    focal_px: torch.Tensor
    """Focal lengths, (B, 2)."""
    center_px: torch.Tensor
    """Principal points, (B, 2)."""
    mean: torch.Tensor
    """Expected values, (B, T)."""
    precision: torch.Tensor
    """Inverse variances, (B, T)."""
    lower: torch.Tensor
    """Lower bounds, (B, T)."""
    upper: torch.Tensor
    """Upper bounds, (B, T)."""

    @staticmethod
    def of(
        whitenings: Sequence[Whitening],
        priors: Sequence[StatePrior],
        views: Sequence[View],
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> BatchedFrames:
        """Put frames side by side; points that are not finite, or whose matrix is not, say nothing."""

        def stack(arrays: Sequence[np.ndarray]) -> torch.Tensor:
            return torch.from_numpy(np.stack(arrays)).to(device, dtype)

        points_px = stack([each.points_px for each in whitenings])
        matrices = stack([each.matrices for each in whitenings])
        is_usable = torch.isfinite(points_px).all(dim=-1) & torch.isfinite(matrices).flatten(2).all(dim=-1)
        return BatchedFrames(
            points_px=torch.where(is_usable[..., None], points_px, 0.0),
            matrices=torch.where(is_usable[..., None, None], matrices, 0.0),
            focal_px=stack([view.focal_px for view in views]),
            center_px=stack([view.center_px for view in views]),
            mean=stack([prior.mean for prior in priors]),
            precision=stack([prior.precision for prior in priors]),
            lower=stack([prior.lower for prior in priors]),
            upper=stack([prior.upper for prior in priors]),
        )

    @property
    def has_evidence(self) -> torch.Tensor:
        """Return which frames have any point that says something, bool (B,)."""
        return (self.matrices != 0).flatten(1).any(dim=1)


@dataclass(frozen=True)
class BatchedStates:
    """Hold the unknowns of B frames; see ``FaceState``."""

    rotation: torch.Tensor
    """Rotations of cam_from_head, (B, 3, 3)."""
    translation: torch.Tensor
    """Translations of cam_from_head, (B, 3), metres."""
    values: torch.Tensor
    """Joint angles and expression coefficients, (B, 12 + E)."""

    @staticmethod
    def of(states: Sequence[FaceState], device: torch.device | str, dtype: torch.dtype) -> BatchedStates:
        """Put states side by side."""
        arrays = (
            np.stack([getattr(state, name) for state in states]) for name in ("rotation", "translation", "values")
        )
        return BatchedStates(*(torch.from_numpy(array).to(device, dtype) for array in arrays))

    def to_states(self) -> list[FaceState]:
        """Return the states one by one, float64."""
        rotation, translation, values = (
            tensor.double().cpu().numpy() for tensor in (self.rotation, self.translation, self.values)
        )
        return [
            FaceState(rotation[b], translation[b], values[b, :NUM_JOINT_ANGLES], values[b, NUM_JOINT_ANGLES:])
            for b in range(len(values))
        ]

    def step(self, delta: torch.Tensor, frames: BatchedFrames) -> BatchedStates:
        """Return the states after steps (B, 18 + E); the values are kept within their bounds."""
        return BatchedStates(
            rotation=matrix_from_axis_angle(delta[:, ROTATION]) @ self.rotation,
            translation=self.translation + delta[:, TRANSLATION],
            values=torch.clamp(self.values + delta[:, NUM_RIGID:], frames.lower, frames.upper),
        )


@dataclass(frozen=True)
class BatchedNormal:
    """Hold the normal equations of B frames; D = 18 + E."""

    energy: torch.Tensor
    """(B,)."""
    hessian: torch.Tensor
    """(B, D, D)."""
    gradient: torch.Tensor
    """(B, D)."""
    error_px: torch.Tensor
    """Projected minus observed points, (B, N, 2), pixels."""


def linearize(rig: BatchedRig, frames: BatchedFrames, states: BatchedStates, robust_width: float) -> BatchedNormal:
    """Evaluate energy and normal equations; the energy is that of ``tracker.solver.fit_frame``."""
    pose = rig.pose(states.values)
    relative = torch.bmm(pose.points_head, states.rotation.transpose(1, 2))
    placed = relative + states.translation[:, None]
    depth = placed[..., 2:].clamp(min=_NEAREST_METRES)
    on_plane = placed[..., :2] / depth
    error_px = frames.focal_px[:, None] * on_plane + frames.center_px[:, None] - frames.points_px
    residual = (frames.matrices @ error_px[..., None])[..., 0]
    squared = (residual * residual).sum(dim=-1) / robust_width**2
    root = torch.rsqrt(1.0 + squared)[..., None]
    by_plane = frames.matrices * (frames.focal_px[:, None] / depth * root)[:, :, None]
    by_depth = -(by_plane * on_plane[:, :, None]).sum(dim=-1, keepdim=True)
    by_points_cam = torch.cat((by_plane, by_depth), dim=-1)
    by_points_head = (by_points_cam.flatten(1, 2) @ states.rotation).view_as(by_points_cam)
    by_turn = torch.linalg.cross(relative[:, :, None], by_points_cam)
    by_values = rig.pull_back(pose, by_points_head)
    jacobian = torch.cat((by_turn, by_points_cam, by_values), dim=-1).flatten(1, 2)
    hessian = torch.bmm(jacobian.transpose(1, 2), jacobian)
    gradient = torch.bmm(jacobian.transpose(1, 2), (residual * root).flatten(1)[..., None])[..., 0]
    deviation = states.values - frames.mean
    pull = deviation * frames.precision
    gradient[:, NUM_RIGID:] += pull
    hessian.diagonal(dim1=1, dim2=2)[:, NUM_RIGID:] += frames.precision
    energy = 0.5 * robust_width**2 * torch.log1p(squared).sum(dim=1) + 0.5 * (pull * deviation).sum(dim=1)
    return BatchedNormal(energy, hessian, gradient, error_px)
