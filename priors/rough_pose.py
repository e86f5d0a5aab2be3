"""A quick estimate of how a face is turned and how large it is, from landmarks with relative depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from priors.landmark_topology import NUM_MESH_LANDMARKS, landmark_topology


@dataclass(frozen=True)
class RoughPose:
    """Describe a face as a turned and scaled copy of a reference shape."""

    yaw_rad: float
    """Turn to the subject's left, radians, 0 when facing the camera."""
    pitch_rad: float
    """Nod downwards, radians."""
    px_per_metre: float
    """Size of the face in the image."""
    residual_m: float
    """Root mean square distance of the landmarks from the copy, metres on the head."""

    @property
    def turn_rad(self) -> float:
        """Return the angle between where the face looks and the direction to the camera, radians, 0 to pi."""
        return math.acos(max(-1.0, min(1.0, math.cos(self.yaw_rad) * math.cos(self.pitch_rad))))


class PoseEstimator:
    """Fit a similarity between the landmarks and their places on a head."""

    def __init__(self, reference: np.ndarray) -> None:
        """Take the landmarks' places on the head, (478, 3), metres, head space."""
        topology = landmark_topology()
        # Lips and outline move or slide; what is left is nearly rigid.
        soft = np.concatenate((topology.groups["lips"], topology.oval))
        self._rigid = np.setdiff1d(np.arange(NUM_MESH_LANDMARKS), soft)
        camera_axes = reference[self._rigid] * (1.0, -1.0, -1.0)
        self._reference = camera_axes - camera_axes.mean(axis=0)
        self._energy = float((self._reference**2).sum())

    def __call__(self, points_px: np.ndarray, depth_px: np.ndarray) -> RoughPose:
        """Return the pose of landmarks (478, 2) with relative depth (478,), both in pixels."""
        points = np.empty(self._reference.shape)
        points[:, :2], points[:, 2] = points_px[self._rigid], depth_px[self._rigid]
        points -= points.sum(axis=0) / len(points)
        u, singular, vt = np.linalg.svd(points.T @ self._reference)
        signs = np.array((1.0, 1.0, np.sign(np.linalg.det(u @ vt))))
        rotation = (u * signs) @ vt
        scale = float((singular * signs).sum() / self._energy)
        # Of the best copy, what is left of the squared distances is |p|^2 / s^2 - |q|^2.
        rest = max(float(np.vdot(points, points)) / max(scale, 1e-9) ** 2 - self._energy, 0.0)
        # The face looks along -z of its own camera-like axes.
        forward = -rotation[:, 2]
        yaw = math.atan2(forward[0], math.hypot(forward[1], forward[2]))
        pitch = math.atan2(forward[1], -forward[2])
        return RoughPose(yaw, pitch, scale, math.sqrt(rest / len(points)))
