"""Neck, shoulders and clothes under a head model that ends at the neck, and teeth in its mouth."""

from __future__ import annotations

import numpy as np

from flame.mesh_rig import MeshRig
from flame.model import HeadModel
from flame.surface import JAW, SurfacePoints, kinematics
from flame.surface import NECK as NECK_JOINT
from priors.training.render.sample_kernels import CLOTH, NECK, TEETH

_NUM_RINGS = 8
_UPPER_LIP, _MOUTH_CORNERS = 13, (78, 308)
_ARCH_POINTS, _ARCH_HALF_WIDTH, _ARCH_DEPTH, _BEHIND_LIP = 17, 0.022, 0.026, 0.0095
"""Points along a row of teeth, and its half width, its depth and how far it lies behind the lips, metres."""


class Teeth:
    """Put an upper and a lower row of teeth into a head's mouth; they turn with skull and jaw."""

    def __init__(self, rig: MeshRig, landmarks: SurfacePoints) -> None:
        """Find the mouth of a head by its landmarks; closed mouths hide the teeth."""
        points = landmarks.on(rig.rest, rig.faces)
        lip, corners = points[_UPPER_LIP], points[list(_MOUTH_CORNERS)]
        across = np.linspace(-1, 1, _ARCH_POINTS)
        half = min(_ARCH_HALF_WIDTH, 0.46 * abs(corners[0, 0] - corners[1, 0]) + 0.002)
        z = lip[2] - _BEHIND_LIP - _ARCH_DEPTH * np.abs(across) ** 2.2
        arch = np.stack((half * across, np.zeros_like(z), z), 1)
        edges = (lip[1] + 0.0085, lip[1] - 0.0035), (lip[1] - 0.0015, lip[1] - 0.0115)
        rows = [[arch + (0, y, -0.0016 * jaw) for y in heights] for jaw, heights in enumerate(edges)]
        self._rest = np.array(rows).reshape(2, -1, 3)
        self.num_vertices = self._rest[0].size // 3 * 2
        along = np.arange(_ARCH_POINTS - 1)
        top, low = along, along + _ARCH_POINTS
        strip = np.concatenate((np.stack((top, low, top + 1), 1), np.stack((top + 1, low, low + 1), 1)))
        self.faces = np.concatenate((strip, strip + 2 * _ARCH_POINTS)).astype(np.int32) + rig.num_vertices
        self.materials = np.full(len(self.faces), TEETH, np.int8)
        # Where a point lies in its row, metres from the middle, and how near to the gum, 0 to 1.
        gum = np.repeat((1.0, 0.0, 0.0, 1.0), _ARCH_POINTS)
        length = np.concatenate(((0.0,), np.cumsum(np.linalg.norm(np.diff(arch, axis=0), axis=1))))
        self.texture = np.stack((np.tile(length - length.mean(), 4), gum, np.repeat((0.0, 1.0), 2 * _ARCH_POINTS)), 1)
        near = np.linalg.norm(rig.rest - (lip - (0, 0, _BEHIND_LIP)), axis=1) < 0.02
        self._shape_basis = rig.shape_basis[near].mean(axis=0).astype(np.float64)
        self._rig = rig

    def vertices(self, identity: np.ndarray, expression: np.ndarray, joint_angles: np.ndarray) -> np.ndarray:
        """Return the teeth's vertices (2 rows, 3) in head space for coefficients as `MeshRig.pose` takes them."""
        rig = self._rig
        joints = rig.joints + rig.joint_shape_basis @ identity + rig.joint_expression_basis @ expression
        rotations, posed_joints, *_ = kinematics(joint_angles, joints)
        shift = self._shape_basis @ identity
        parts = [
            (rest + shift - joints[joint]) @ rotations[joint].T + posed_joints[joint]
            for rest, joint in zip(self._rest, (NECK_JOINT, JAW), strict=True)
        ]
        return np.concatenate(parts)


class Body:
    """Continue the open rim of a head's neck downwards."""

    def __init__(self, head: HeadModel, first: int) -> None:
        """Find the rim; heads without one get no body. Its vertices are numbered from ``first``."""
        faces = head.faces.numpy().astype(np.int64)
        self.rim = _rim(faces)
        self.num_vertices = _NUM_RINGS * len(self.rim)
        size, around = len(self.rim), np.arange(len(self.rim))
        rows = [self.rim, *(first + ring * size + around for ring in range(_NUM_RINGS))]
        parts, materials = [], []
        for ring, (upper, lower) in enumerate(zip(rows[:-1], rows[1:], strict=True)):
            nxt_upper, nxt_lower = np.roll(upper, -1), np.roll(lower, -1)
            # The rim runs along its triangles, so the strip below it runs against it.
            parts += [np.stack((nxt_upper, upper, lower), 1), np.stack((nxt_upper, lower, nxt_lower), 1)]
            materials += [np.full(2 * size, NECK if ring < 1 else CLOTH)]
        self.faces = np.concatenate(parts).astype(np.int32) if size else np.zeros((0, 3), np.int32)
        self.materials = np.concatenate(materials).astype(np.int8) if size else np.zeros(0, np.int8)

    def vertices(self, rim: np.ndarray, upright: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the body's vertices (rings x rim, 3) in head space.

        Args:
            rim: the rim's vertices (n, 3), head space, metres.
            upright: rotation (3, 3) from the body's axes (+y up, +z forward) to head space.
            rng: where shoulders, collar and chest come from.
        """
        if not len(rim):
            return np.zeros((0, 3))
        center = rim.mean(axis=0)
        local = (rim - center) @ upright
        angle = np.arctan2(local[:, 2], local[:, 0])
        across, along = np.cos(angle), np.sin(angle)
        width, depth = rng.uniform(0.17, 0.25), rng.uniform(0.09, 0.13)
        slope = rng.uniform(0.03, 0.09)
        collar = rng.uniform(0.003, 0.02)
        rings = [local + (0, -0.012, 0) * np.array(1.0)]
        mean_radius = np.sqrt(local[:, 0] ** 2 + local[:, 2] ** 2)
        height = local[:, 1].min() * rng.uniform(0.2, 0.8)
        collar_ring = np.stack(
            ((mean_radius + collar) * across, 0.5 * local[:, 1] + 0.5 * height - 0.012, (mean_radius + collar) * along),
            1,
        )
        rings.append(collar_ring)
        for step in range(1, _NUM_RINGS - 1):
            t = step / 4
            grow = min(t, 1.0)
            radius_x = (1 - grow) * (mean_radius + 0.02) + grow * width
            radius_z = (1 - grow) * (mean_radius + 0.015) + grow * depth
            drop = -0.03 - slope * grow**1.5 - 0.12 * max(t - 0.75, 0.0) ** 1.2
            y = height * (1 - grow) + drop - 0.03 * np.abs(along) * grow
            rings.append(
                np.stack((radius_x * across, y + 0.3 * (1 - grow) * local[:, 1], radius_z * along - 0.01 * grow), 1)
            )
        return np.concatenate(rings) @ upright.T + center


def _rim(faces: np.ndarray) -> np.ndarray:
    """Return the vertices of the longest open edge loop in order, int64 (n,); none where the mesh is closed."""
    edges = np.concatenate((faces[:, (0, 1)], faces[:, (1, 2)], faces[:, (2, 0)]))
    _, inverse, count = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    follows = dict(edges[count[inverse.reshape(-1)] == 1].tolist())
    loops, seen = [], set()
    for start in follows:
        loop = []
        vertex = start
        while vertex in follows and vertex not in seen:
            seen.add(vertex)
            loop.append(vertex)
            vertex = follows[vertex]
        loops.append(loop)
    return np.array(max(loops, key=len, default=[]), np.int64)
