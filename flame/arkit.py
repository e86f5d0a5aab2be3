"""ARKit's 52 facial action coefficients, read from and turned into the parameters of a head that knows them.

Most actions are columns of the expression basis under their own name. jawOpen, jawLeft, jawRight and the eight eyeLook
actions are joint rotations: at weight 1 the joint's axis-angle vector is the one stored with the head; weights of
several actions of one joint add up as axis-angle vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flame.errors import InputError
from flame.model import JOINT_NAMES, HeadModel

_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")

ARKIT_NAMES: tuple[str, ...] = (
    *(f"eye{action}Left" for action in _EYE),
    *(f"eye{action}Right" for action in _EYE),
    *("jawForward", "jawLeft", "jawRight", "jawOpen"),
    *("mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight"),
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut"),
)
"""The 52 names in the order of Apple's documentation."""


def expression_from_arkit(
    model: HeadModel, coefficients: Mapping[str, float | np.ndarray] | np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Turn ARKit coefficients into a head's expression and joint rotations.

    Args:
        model: A head that has the ARKit actions, such as the commons head.
        coefficients: Values by name, each a number or an array (...), names left out being zero; or an array (..., 52)
            in the order of `ARKIT_NAMES`.

    Returns:
        Expression coefficients (..., E), and axis-angle rotations (..., 3) in radians under ``jaw``, ``left_eye`` and
        ``right_eye``: the keyword arguments that `HeadModel.vertices` takes.

    Raises:
        InputError: The head has no ARKit actions, a name is unknown, or the array does not end in 52.
    """
    _check_actions(model)
    values = _as_array(coefficients)
    column = {name: index for index, name in enumerate(ARKIT_NAMES)}
    expression = np.zeros((*values.shape[:-1], model.num_expression))
    for index, name in enumerate(model.expression_names or ()):
        if name in column:
            expression[..., index] = values[..., column[name]]
    joints = {name: np.zeros((*values.shape[:-1], 3)) for name in JOINT_NAMES[2:]}
    for action in model.joint_actions:
        joints[JOINT_NAMES[action.joint]] += values[..., column[action.name], None] * np.array(action.axis_angle)
    return expression, joints


def arkit_coefficients(
    model: HeadModel,
    expression: np.ndarray,
    jaw: np.ndarray | None = None,
    left_eye: np.ndarray | None = None,
    right_eye: np.ndarray | None = None,
) -> np.ndarray:
    """Read all 52 ARKit coefficients from a head's expression and joint rotations; inverse of `expression_from_arkit`.

    Of two opposite actions of a joint (jawLeft and jawRight, eyeLookUp and eyeLookDown, In and Out) one is zero.
    Nothing is clipped to 1. Rotations about axes that no action has, such as a roll of the jaw, are not seen.

    Args:
        model: A head that has the ARKit actions.
        expression: Expression coefficients (..., E).
        jaw: Axis-angle rotation of the jaw (..., 3), radians; None is no rotation.
        left_eye: The same for the subject's left eye.
        right_eye: The same for the subject's right eye.

    Returns:
        Coefficients (..., 52) in the order of `ARKIT_NAMES`.

    Raises:
        InputError: The head has no ARKit actions, or the expression does not have its number of coefficients.
    """
    _check_actions(model)
    expression = np.asarray(expression, dtype=np.float64)
    if expression.ndim == 0 or expression.shape[-1] != model.num_expression:
        raise InputError(
            f"expression has shape {expression.shape}; head {model.name!r} needs (..., {model.num_expression})"
        )
    rotations = dict(zip(JOINT_NAMES[2:], (jaw, left_eye, right_eye), strict=True))
    turns = {name: np.zeros(3) if turn is None else np.asarray(turn, np.float64) for name, turn in rotations.items()}
    shape = np.broadcast_shapes(expression.shape[:-1], *(turn.shape[:-1] for turn in turns.values()))
    column = {name: index for index, name in enumerate(ARKIT_NAMES)}
    values = np.zeros((*shape, len(ARKIT_NAMES)))
    for index, name in enumerate(model.expression_names or ()):
        if name in column:
            values[..., column[name]] = expression[..., index]
    for action in model.joint_actions:
        full = np.array(action.axis_angle)
        share = turns[JOINT_NAMES[action.joint]] @ full / (full @ full)
        values[..., column[action.name]] = np.maximum(share, 0.0)
    return values


def _check_actions(model: HeadModel) -> None:
    """Refuse heads without ARKit actions."""
    known = {*(model.expression_names or ()), *(action.name for action in model.joint_actions)}
    missing = [name for name in ARKIT_NAMES if name not in known]
    if missing:
        raise InputError(
            f"head {model.name!r} has no ARKit action {missing[0]!r} ({len(missing)} of 52 are missing); "
            "ARKit coefficients need a head that has them all, such as 'commons'"
        )


def _as_array(coefficients: Mapping[str, float | np.ndarray] | np.ndarray) -> np.ndarray:
    """Return coefficients as an array (..., 52)."""
    if not isinstance(coefficients, Mapping):
        values = np.asarray(coefficients, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != len(ARKIT_NAMES):
            raise InputError(f"ARKit coefficients have shape {values.shape}; (..., {len(ARKIT_NAMES)}) is needed")
        return values
    unknown = [name for name in coefficients if name not in ARKIT_NAMES]
    if unknown:
        raise InputError(f"{unknown[0]!r} is no ARKit action; the 52 names are in flame.arkit.ARKIT_NAMES")
    columns = [np.asarray(coefficients.get(name, 0.0), dtype=np.float64) for name in ARKIT_NAMES]
    return np.stack(np.broadcast_arrays(*columns), axis=-1)
