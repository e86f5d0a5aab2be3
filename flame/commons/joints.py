"""Joints of the commons head: where they are (regressor) and what follows them (skinning weights)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from flame.commons.mesh import boundary_vertices, smooth, surface_distance
from flame.commons.sources import LEFT_EYE, RIGHT_EYE, SKIN, TONGUE, SourceHead

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
PARENTS = (-1, 0, 1, 1, 1)
ROOT, NECK, JAW, LEFT, RIGHT = range(5)
BONES = {ROOT: "neck01", NECK: "neck03", JAW: "jaw"}
"""Bones of the source whose heads are the joints."""

NECK_BLEND_METRES = 0.045
"""Distance from the rim of the neck, along the skin, over which the skin passes from the root to the neck joint."""


def sphere_centre(points: np.ndarray) -> np.ndarray:
    """Return the centre of the sphere that fits points (N, 3) best (3,)."""
    system = np.column_stack((2.0 * points, np.ones(len(points))))
    return np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0][:3]


def joint_regressor(
    source: SourceHead, samples: np.ndarray, bones: dict[int, np.ndarray], still: np.ndarray
) -> np.ndarray:
    """Fit the joint regressor.

    Args:
        source: The source head.
        samples: Rest vertices of sampled heads (N, V, 3), metres.
        bones: For root, neck and jaw, where the source has the joint in each sample (N, 3).
        still: Vertices that no expression moves, bool (V,); only they may place a joint, because programs regress the
            joints from the head with its expression.

    Returns:
        Dense regressor (5, V); rows sum to 1 and have few entries. The rows of the eyes hit the centre of the eyeball's
        sphere for every translation, rotation and scaling of the eyeball.
    """
    regressor = np.zeros((5, len(source.vertices)))
    for joint, places in bones.items():
        regressor[joint] = _midline_row(source, samples, places, still)
    members = np.flatnonzero(source.parts == LEFT_EYE)
    eyeball = source.vertices[members]
    system = np.vstack((eyeball.T, np.ones(len(members))))
    target = np.append(sphere_centre(eyeball), 1.0)
    uniform = np.full(len(members), 1.0 / len(members))
    weights = uniform + np.linalg.lstsq(system, target - system @ uniform, rcond=None)[0]
    regressor[LEFT, members] = weights
    regressor[RIGHT, source.mirror[members]] = weights
    return regressor


def _midline_row(source: SourceHead, samples: np.ndarray, places: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Regress a joint on the midline from pairs of mirrored skin vertices with non-negative weights (V,)."""
    left = still & still[source.mirror] & (source.parts == SKIN) & (source.vertices[:, 0] >= -1e-9)
    candidates = np.flatnonzero(left)
    pairs = candidates[:: max(1, len(candidates) // 400)]
    halves = 0.5 * (samples[:, pairs] + samples[:, source.mirror[pairs]])
    system = halves[..., 1:].transpose(0, 2, 1).reshape(-1, len(pairs))
    sum_weight = 100.0 * np.abs(system).max()
    weights, _ = nnls(
        np.vstack((system, np.full(len(pairs), sum_weight))),
        np.append(places[:, 1:].ravel(), sum_weight),
        maxiter=20000,
    )
    weights[weights < 1e-3] = 0.0
    weights /= weights.sum()
    row = np.zeros(len(source.vertices))
    np.add.at(row, pairs, 0.5 * weights)
    np.add.at(row, source.mirror[pairs], 0.5 * weights)
    return row


def skin_weights(source: SourceHead, jaw_open: np.ndarray, jaw_joint: np.ndarray) -> np.ndarray:
    """Return smooth, symmetric weights of the five joints (V, 5), rows summing to 1.

    Args:
        source: The source head.
        jaw_open: Displacement of the source's ``jawOpen`` action (V, 3), metres.
        jaw_joint: Place of the jaw joint (3,), metres.
    """
    weights = np.zeros((len(source.vertices), 5))
    skin = source.parts == SKIN
    distance = surface_distance(source.vertices, source.faces, boundary_vertices(source.faces))
    ramp = np.clip(1.0 - distance / NECK_BLEND_METRES, 0.0, 1.0)
    root = ramp * ramp * (3.0 - 2.0 * ramp)
    root[~skin] = 0.0
    jaw = np.where(source.parts == TONGUE, 1.0, _jaw_share(source, jaw_open, jaw_joint))
    jaw *= 1.0 - root
    for joint, part in ((LEFT, LEFT_EYE), (RIGHT, RIGHT_EYE)):
        weights[source.parts == part, joint] = 1.0
    eyes = weights.sum(axis=1) > 0
    weights[:, ROOT] = np.where(eyes, 0.0, root)
    weights[:, JAW] = np.where(eyes, 0.0, jaw)
    weights[:, NECK] = 1.0 - weights[:, [ROOT, JAW, LEFT, RIGHT]].sum(axis=1)
    return 0.5 * (weights + weights[source.mirror][:, [ROOT, NECK, JAW, RIGHT, LEFT]])


def _jaw_share(source: SourceHead, jaw_open: np.ndarray, jaw_joint: np.ndarray) -> np.ndarray:
    """Return how far each skin vertex follows the jaw when it opens (V,), 0 to 1."""
    lever = (source.vertices - jaw_joint)[:, 1:]
    tangent = np.stack((-lever[:, 1], lever[:, 0]), axis=1)
    turned = (tangent * jaw_open[:, 1:]).sum(axis=1) / np.maximum((tangent**2).sum(axis=1), 1e-4)
    full = np.median(turned[source.parts == TONGUE])
    share = np.clip(turned / full, 0.0, 1.0)
    moved = np.linalg.norm(jaw_open, axis=1)
    share[moved < 1e-4] = 0.0
    skin = source.parts == SKIN
    share[~skin] = 0.0
    smoothed = smooth(share, source.faces, passes=4)
    smoothed[smoothed < 0.02] = 0.0
    return np.where(skin, smoothed, 0.0)
