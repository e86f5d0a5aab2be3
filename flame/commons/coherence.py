"""Keep together what belongs together: linear corrections that fit every identity mode to eyes, mouth and pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.commons.joints import sphere_centre
from flame.commons.mesh import surface_distance, vertex_areas
from flame.commons.sources import LEFT_EYE, RIGHT_EYE, SKIN

LID_REACH = 0.010
"""Distance from the eyeball over which skin goes from sliding on the eyeball to moving freely, metres."""
SOCKET_DEPTH = 0.006
"""Distance behind the edge of the lids, along the skin, after which the socket moves as the eyeball does, metres."""

MOUTH_SOFTNESS = 0.006
"""Distance below which face vertices carry the inside of the mouth alike, metres."""
MOUTH_FADE = 0.006
"""Distance from the lips over which the inside of the mouth passes from its own motion to the face's, metres."""
CAVITY_CLEARANCE = 0.005
"""Distance from the skin that the wall of the mouth cavity keeps in the mean head, metres."""


@dataclass(frozen=True)
class Eye:
    """Hold what is needed to move one eye coherently."""

    ball: np.ndarray
    """Vertices of the eyeball (B,)."""
    margin: np.ndarray
    """Vertices of the lids that lie on the eyeball (M,); they say where the eyeball goes."""
    centre: np.ndarray
    """Centre of the eyeball (3,), metres."""
    grip: np.ndarray
    """How much a vertex' motion away from the eyeball is suppressed (V,), 0 to 1."""
    socket: np.ndarray
    """How much a vertex moves as the eyeball does (V,), 0 to 1."""


def eyes_of(vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray, regions: dict[str, np.ndarray]) -> list[Eye]:
    """Describe left and right eye on the mean head (V, 3)."""
    eyes = []
    for part in (LEFT_EYE, RIGHT_EYE):
        ball = np.flatnonzero(parts == part)
        centre = sphere_centre(vertices[ball])
        radius = np.linalg.norm(vertices[ball] - centre, axis=1).mean()
        gap = np.linalg.norm(vertices - centre, axis=1) - radius
        skin = (parts == SKIN) & (np.sign(vertices[:, 0]) == np.sign(centre[0]))
        fade = np.clip(1.0 - np.maximum(gap, 0.0) / LID_REACH, 0.0, 1.0)
        grip = np.where(skin, fade * fade * (3.0 - 2.0 * fade), 0.0)
        margin = np.flatnonzero(skin & regions["eyelids"] & (gap < 0.004))
        inside = surface_distance(vertices, faces, np.flatnonzero(skin & ~regions["eye_sockets"]))
        depth = np.clip(inside / SOCKET_DEPTH, 0.0, 1.0)
        socket = np.where(skin & regions["eye_sockets"], depth * depth * (3.0 - 2.0 * depth), 0.0)
        eyes.append(Eye(ball, margin, centre, grip, socket))
    return eyes


def couple_eyes(fields: np.ndarray, vertices: np.ndarray, eyes: list[Eye]) -> np.ndarray:
    """Make displacement fields (K, V, 3) move each eyeball by shift and scale only, with its lids sliding on it.

    The shift and scale are those that explain the displacement of the lids best. Skin near the eyeball loses the part
    of its displacement that would lift it off the eyeball or push it in; the socket behind the lids follows the
    eyeball.
    """
    result = fields.copy()
    for eye in eyes:
        lever = vertices[eye.margin] - eye.centre
        offset = lever - lever.mean(axis=0)
        shift = fields[:, eye.margin].mean(axis=1)
        growth = ((fields[:, eye.margin] - shift[:, None]) * offset).sum(axis=(1, 2)) / (offset**2).sum()
        shift = shift - growth[:, None] * lever.mean(axis=0)
        near = np.flatnonzero((eye.grip > 0) | (eye.socket > 0))
        direction = vertices[near] - eye.centre
        carried = shift[:, None] + growth[:, None, None] * direction
        unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        own = fields[:, near]
        lift = ((own - carried) * unit).sum(axis=2, keepdims=True) * unit
        sliding = own - eye.grip[near, None] * lift
        result[:, near] = sliding + eye.socket[near, None] * (carried - sliding)
        result[:, eye.ball] = shift[:, None] + growth[:, None, None] * (vertices[eye.ball] - eye.centre)
    return result


def remove_rigid(fields: np.ndarray, vertices: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Remove from fields (K, V, 3) the rigid motion that explains them best on member vertices.

    Head pose is not identity: a coefficient must not turn or shift the face.
    """
    centre = vertices[members].mean(axis=0)
    lever = vertices - centre
    motions = np.concatenate(
        (
            np.tile(np.eye(3)[:, None], (1, len(vertices), 1)),
            np.stack([np.cross(axis, lever) for axis in np.eye(3)]),
        )
    )
    system = motions[:, members].reshape(6, -1)
    amounts = np.linalg.lstsq(system.T, fields[:, members].reshape(len(fields), -1).T, rcond=None)[0]
    return fields - np.tensordot(amounts.T, motions, axes=1)


@dataclass(frozen=True)
class Mouth:
    """Hold what is needed to move mouth cavity and tongue with the face around them."""

    inner: np.ndarray
    """Vertices of cavity and tongue (M,)."""
    outer: np.ndarray
    """Vertices of the face that carry them (N,)."""
    carry: np.ndarray
    """Share of each face vertex in the motion of each inner vertex (M, N), rows summing to 1."""
    share: np.ndarray
    """How far an inner vertex follows the face around it (M,): 0 at the lips, 1 further in."""


def mouth_of(vertices: np.ndarray, faces: np.ndarray, regions: dict[str, np.ndarray]) -> Mouth:
    """Describe the mouth on the mean head (V, 3)."""
    inner = np.flatnonzero(regions["inner_mouth"])
    outer = np.flatnonzero(regions["face"] & ~regions["eyelids"])
    squared = ((vertices[inner, None] - vertices[outer]) ** 2).sum(axis=2)
    carry = vertex_areas(vertices, faces)[outer] / (squared + MOUTH_SOFTNESS**2) ** 2
    along = surface_distance(vertices, faces, np.flatnonzero(regions["lips"]))[inner]
    share = np.clip(along / MOUTH_FADE, 0.0, 1.0)
    return Mouth(inner, outer, carry / carry.sum(axis=1, keepdims=True), share * share * (3.0 - 2.0 * share))


def couple_mouth(fields: np.ndarray, mouth: Mouth) -> np.ndarray:
    """Make displacement fields (K, V, 3) move cavity and tongue with the face, which they would else come through."""
    carried = np.einsum("mn,knc->kmc", mouth.carry, fields[:, mouth.outer], optimize=True)
    result = fields.copy()
    result[:, mouth.inner] += mouth.share[:, None] * (carried - fields[:, mouth.inner])
    return result


def deepen_cavity(vertices: np.ndarray, mouth: Mouth) -> np.ndarray:
    """Move the front of the mouth cavity back from the skin, which it almost touches under the lower lip (V, 3)."""
    gap = np.sqrt(((vertices[mouth.inner, None] - vertices[mouth.outer]) ** 2).sum(axis=2).min(axis=1))
    need = np.clip(CAVITY_CLEARANCE - gap, 0.0, None) * mouth.share
    result = vertices.copy()
    result[mouth.inner, 2] -= need
    return result
