"""Who somebody is on another head: identity coefficients from one person's neutral face on the head of the track."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.mesh_rig import MeshRig
from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfacePoints
from flame.surface_error import similarity_of

EFFECTIVE_POINTS = 300.0
"""Neighbouring points err together: all of them count as so many independent ones."""
_EYE_SHARE = 0.03
"""What an eyeball's centre counts, share of all points."""
_FIRST_SIGMA_M = 5e-4
_SIGMA_M = (1e-5, 1e-3)
_ROUNDS, _STEPS = 4, 4
_EYES = (3, 4)


@dataclass(frozen=True)
class NeutralFit:
    """Hold a person's neutral face on the target head."""

    shape: np.ndarray
    """Identity coefficients, float64 (I,), standard deviations."""
    rotation: np.ndarray
    """Rotation of source_from_target head space, float64 (3, 3)."""
    translation: np.ndarray
    """Translation of source_from_target, float64 (3,), metres."""
    offset: np.ndarray
    """What the target's identities cannot say: from its points to the source's, float64 (N, 3), target head space."""
    sigma_m: float
    """How far off the points are (root mean square in each coordinate), metres."""


def fit_neutral(
    rig: MeshRig, places: SurfacePoints, points: np.ndarray, eyes: np.ndarray, weight: np.ndarray
) -> NeutralFit:
    """Fit identity and rigid motion to a neutral face.

    How far identities are held back follows from how well they can fit: the noise is estimated with them.

    Args:
        rig: the target head.
        places: N points of its surface.
        points: where they are on the source's neutral face, float64 (N, 3), metres, source head space.
        eyes: centres of the left and right eyeball there, (2, 3).
        weight: what each point counts (N,).
    """
    joints = list(_EYES)
    rest = np.concatenate((places.on(rig.rest, rig.faces), rig.joints[joints]))
    basis = np.concatenate((_basis_at(rig, places), rig.joint_shape_basis[joints]))
    goal = np.concatenate((points, eyes))
    share = weight / weight.sum()
    share = EFFECTIVE_POINTS * np.concatenate((share, np.full(len(_EYES), _EYE_SHARE)))
    shape = np.zeros(rig.num_shapes)
    start = similarity_of(rest[share > 0], goal[share > 0])
    rotation, translation = start.rotation, goal.mean(axis=0) - start.rotation @ rest.mean(axis=0)
    equations = _Equations(basis, share)
    sigma = _FIRST_SIGMA_M
    for _ in range(_ROUNDS):
        for _ in range(_STEPS):
            local = (goal - translation) @ rotation
            placed = rest + basis @ shape
            step = equations.step(placed, local - placed, sigma, shape)
            # Turn and shift are the target's own, before the motion to the source.
            turn = rotation_matrix(step[:3])
            translation = translation + rotation @ step[3:6]
            rotation = rotation @ turn
            shape = shape + step[6:]
        gap = (goal - translation) @ rotation - rest - basis @ shape
        spread = np.sqrt((share[:, None] * gap**2).sum() / (3 * share.sum()))
        sigma = float(np.clip(spread, *_SIGMA_M))
    return NeutralFit(shape, rotation, translation, gap[: len(places)], sigma)


def _basis_at(rig: MeshRig, places: SurfacePoints) -> np.ndarray:
    """Return the derivatives of surface points by identity, float64 (N, 3, I)."""
    basis = np.zeros((len(places), 3, rig.num_shapes))
    for vertex, share in zip(rig.faces[places.triangles].T, places.barycentric.T, strict=True):
        basis += share[:, None, None] * rig.shape_basis[vertex]
    return basis


class _Equations:
    """Solve Gauss-Newton steps whose identity part stays the same."""

    def __init__(self, basis: np.ndarray, weight: np.ndarray) -> None:
        """Take the derivatives of N points by identity (N, 3, I) and what they count (N,)."""
        self._root = np.sqrt(weight)[:, None]
        self._basis = (basis * self._root[..., None]).reshape(3 * len(basis), -1)
        self._gram = self._basis.T @ self._basis

    def step(self, placed: np.ndarray, gap: np.ndarray, sigma: float, shape: np.ndarray) -> np.ndarray:
        """Return turn (3), shift (3) and change of identity (I) for points that are a gap (N, 3) away from their goals.

        Identities (now ``shape``) are expected within one of zero, gaps within ``sigma``, metres.
        """
        turn = np.stack([np.cross(axis, placed) for axis in np.eye(3)], axis=-1)
        rigid = np.concatenate((turn, np.broadcast_to(np.eye(3), turn.shape)), axis=-1)
        rigid = (rigid * self._root[..., None]).reshape(-1, 6)
        cross = rigid.T @ self._basis
        left = np.block([[rigid.T @ rigid, cross], [cross.T, self._gram]])
        pull = (gap * self._root).ravel()
        right = np.concatenate((rigid.T @ pull, self._basis.T @ pull))
        inner = np.arange(6, len(left))
        left[inner, inner] += sigma**2
        right[6:] -= sigma**2 * shape
        return np.linalg.solve(left, right)
