"""Expression of the commons head: ARKit actions as basis columns, and as joint rotations with pose correctives.

jawOpen, jawLeft, jawRight and the eight eyeLook actions are joint motion. Each becomes a rotation of its joint about
one axis; what the rotation leaves over is put into the pose basis (FLAME's layout: the entries of R - I of neck, jaw,
left eye, right eye, row-major), in the rest pose, so that the action at weight 1 is the source's exactly. Of the two
directions about one axis (left and right, up and down) the odd part goes with the sine entries and the even part with
the cosine entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.arkit import ARKIT_NAMES
from flame.commons.joints import JAW, LEFT, RIGHT
from flame.commons.sources import LEFT_EYE, RIGHT_EYE, SourceHead

Y_AXIS, X_AXIS = 1, 0
COSINE_ENTRY = {X_AXIS: 4, Y_AXIS: 0}
SINE_ENTRIES = {X_AXIS: ((5, -1.0), (7, 1.0)), Y_AXIS: ((2, 1.0), (6, -1.0))}
"""Row-major entries of a rotation about the axis that are -sine or sine, with their sign."""


@dataclass(frozen=True)
class JointAxis:
    """Two opposite ARKit actions that turn one joint about one axis."""

    joint: int
    axis: int
    positive: str
    """Action that turns by a positive angle."""
    negative: str | None
    """Action that turns the other way; None where there is none."""


JOINT_AXES = (
    JointAxis(JAW, X_AXIS, "jawOpen", None),
    JointAxis(JAW, Y_AXIS, "jawLeft", "jawRight"),
    JointAxis(LEFT, X_AXIS, "eyeLookDownLeft", "eyeLookUpLeft"),
    JointAxis(LEFT, Y_AXIS, "eyeLookOutLeft", "eyeLookInLeft"),
    JointAxis(RIGHT, X_AXIS, "eyeLookDownRight", "eyeLookUpRight"),
    JointAxis(RIGHT, Y_AXIS, "eyeLookInRight", "eyeLookOutRight"),
)
JOINT_ACTIONS = tuple(name for one in JOINT_AXES for name in (one.positive, one.negative) if name)
EXPRESSION_NAMES = tuple(name for name in ARKIT_NAMES if name not in JOINT_ACTIONS)


@dataclass(frozen=True)
class Actions:
    """Hold everything about expression that the asset stores."""

    basis: np.ndarray
    """Displacement at weight 1 of each of ``EXPRESSION_NAMES`` (41, V, 3), metres."""
    pose_basis: np.ndarray
    """Pose correctives (36, V, 3), metres per unit of the feature."""
    axis_angle: dict[str, np.ndarray]
    """Joint rotation at weight 1 of each of ``JOINT_ACTIONS`` (3,), radians."""


def source_actions(source: SourceHead) -> dict[str, np.ndarray]:
    """Return the 52 displacement fields of the source (V, 3), metres, with left and right made mirror images."""
    rest = source.model()["rest_vertices"][0].numpy()
    raw = {}
    for name in ARKIT_NAMES:
        moved = source.model(facial_actions={name: 1.0})["rest_vertices"][0].numpy()
        raw[name] = source.vertices_of(moved - rest, displacement=True)
    right_eye = source.parts == RIGHT_EYE
    result = {}
    for name, field in raw.items():
        reflected = source.reflect(raw[mirrored_name(name)])
        # The source has only the front of the right eyeball: the left eyeball speaks for both.
        result[name] = np.where(right_eye[:, None], reflected, 0.5 * (field + reflected))
        left_eye = source.parts == LEFT_EYE
        result[name][left_eye] = field[left_eye]
    return result


def mirrored_name(name: str) -> str:
    """Return the action that is the mirror image of ``name``, which may be itself."""
    if name.endswith("Left"):
        return name[:-4] + "Right"
    if name.endswith("Right"):
        return name[:-5] + "Left"
    return name


def rotation_about(axis: int, angle: float) -> np.ndarray:
    """Return the rotation by ``angle`` radians about coordinate axis ``axis`` (3, 3)."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[first, first] = rotation[second, second] = np.cos(angle)
    rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
    return rotation


def fit_actions(
    vertices: np.ndarray, fields: dict[str, np.ndarray], weights: np.ndarray, joints: np.ndarray
) -> Actions:
    """Split the source's actions into basis columns, joint rotations and pose correctives.

    Args:
        vertices: The mean head (V, 3), metres.
        fields: Displacement of each ARKit action (V, 3), metres.
        weights: Skinning weights (V, 5).
        joints: Joint places of the mean head (5, 3), metres.
    """
    pose_basis = np.zeros((36, *vertices.shape))
    axis_angle = {}
    for one in JOINT_AXES:
        sides = [(name, sign) for name, sign in ((one.positive, 1.0), (one.negative, -1.0)) if name]
        angles, correctives = [], []
        for name, sign in sides:
            part = (vertices, fields[name], weights[:, one.joint], joints[one.joint], one.axis)
            angle = sign * _best_angle(*part, sign)
            axis_angle[name] = angle * np.eye(3)[one.axis]
            angles.append(angle)
            correctives.append(_corrective(*part, angle))
        sine, cosine = _odd_and_even(angles, correctives)
        first = 9 * (one.joint - 1)
        for entry, entry_sign in SINE_ENTRIES[one.axis]:
            pose_basis[first + entry] += 0.5 * entry_sign * sine
        pose_basis[first + COSINE_ENTRY[one.axis]] += cosine
    basis = np.stack([fields[name] for name in EXPRESSION_NAMES])
    return Actions(basis, pose_basis, axis_angle)


def _best_angle(
    vertices: np.ndarray, field: np.ndarray, weight: np.ndarray, joint: np.ndarray, axis: int, sign: float
) -> float:
    """Return the angle whose rotation of the joint comes closest to a displacement field, radians, positive."""
    moved = weight > 0.3
    lever = vertices[moved] - joint

    def cost(angle: float) -> float:
        turn = rotation_about(axis, sign * angle) - np.eye(3)
        gap = field[moved] - weight[moved, None] * (lever @ turn.T)
        # A shift of the whole part is the corrective's matter; the rotation is chosen to explain its turning.
        shift = gap.mean(axis=0) if moved.sum() < 200 else 0.0
        return float(((gap - shift) ** 2).sum())

    grid = np.radians(np.arange(0.0, 40.0, 0.05))
    return float(grid[np.argmin([cost(angle) for angle in grid])])


def _corrective(
    vertices: np.ndarray, field: np.ndarray, weight: np.ndarray, joint: np.ndarray, axis: int, angle: float
) -> np.ndarray:
    """Return the rest-pose offset that makes the skinned vertices land on the source's (V, 3)."""
    turn = rotation_about(axis, angle) - np.eye(3)
    blended = np.eye(3) + weight[:, None, None] * turn
    lever = vertices - joint
    return np.linalg.solve(blended, (lever + field)[..., None])[..., 0] - lever


def _odd_and_even(angles: list[float], correctives: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Split the correctives of one axis into what goes with the sine and what goes with cosine - 1."""
    if len(angles) == 1:
        return correctives[0] / np.sin(angles[0]), np.zeros_like(correctives[0])
    features = np.array([[np.sin(angle), np.cos(angle) - 1.0] for angle in angles])
    sine, cosine = np.einsum("fa,avc->fvc", np.linalg.inv(features), np.stack(correctives))
    return sine, cosine
