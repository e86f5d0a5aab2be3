"""Random people: identities, expressions, and the turns of neck, jaw and eyes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.arkit import ARKIT_NAMES, expression_from_arkit
from flame.errors import InputError
from flame.mesh_rig import MeshRig
from flame.model import HeadModel

_SPREAD = (0.5, 1.1)
"""Range of the standard deviation of independent identity coefficients."""
_POPULATION_SHARE = 0.5
"""Share of identities drawn from the covariance of a population."""
_PRESETS: tuple[dict[str, float], ...] = (
    {},
    {"mouthSmile": 0.8, "cheekSquint": 0.5, "eyeSquint": 0.3, "mouthDimple": 0.2},
    {"mouthSmile": 1.0, "jawOpen": 0.35, "cheekSquint": 0.8, "mouthUpperUp": 0.4, "eyeSquint": 0.5},
    {"jawOpen": 0.9, "browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.9},
    {"jawOpen": 0.35, "mouthFunnel": 0.4, "mouthLowerDown": 0.3},
    {"jawOpen": 0.15, "mouthStretch": 0.4, "mouthUpperUp": 0.3, "mouthLowerDown": 0.3},
    {"mouthPucker": 0.9, "mouthFunnel": 0.3},
    {"browDown": 0.9, "noseSneer": 0.5, "mouthFrown": 0.5, "eyeSquint": 0.4},
    {"mouthFrown": 0.8, "browInnerUp": 0.7, "mouthShrugLower": 0.5},
    {"eyeBlink": 1.0},
    {"mouthPress": 0.8, "mouthRollLower": 0.5, "mouthRollUpper": 0.4},
    {"cheekPuff": 0.9, "mouthPress": 0.3},
    {"noseSneer": 0.9, "mouthUpperUp": 0.6, "browDown": 0.5},
)
"""Faces that people make, by actions without their side."""
_SIDES = np.array([name.endswith("Left") - 1.0 * name.endswith("Right") for name in ARKIT_NAMES])
_SINGLE_ACTIONS = np.array([index for index, name in enumerate(ARKIT_NAMES) if "Look" not in name])
_JAW_OPEN, _TONGUE_OUT = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("tongueOut")
_BLINKS = np.array([ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index("eyeBlinkRight")])


@dataclass(frozen=True, eq=False)
class Person:
    """Hold somebody's coefficients in one moment."""

    identity: np.ndarray
    """Shape coefficients, float64 (I,), standard deviations."""
    expression: np.ndarray
    """Expression coefficients, float64 (E,)."""
    joint_angles: np.ndarray
    """Axis-angle of neck, jaw, left eye, right eye, float64 (12,), radians."""


class People:
    """Draw random people of a head model."""

    def __init__(self, head: HeadModel) -> None:
        """Prepare a head, which needs ARKit's actions for expressions; others keep a neutral face.

        Raises:
            InputError: the head has no texture coordinates or regions.
        """
        if head.topology is None or head.topology.uv is None or not head.topology.regions:
            raise InputError(
                f"head {head.name!r} has no texture coordinates or no regions; training pictures need both"
            )
        self.head = head
        self.rig = MeshRig.of(head)
        self._has_actions = "mouthPucker" in (head.expression_names or ())
        self._presets = np.array([[_weight(preset, name) for name in ARKIT_NAMES] for preset in _PRESETS])
        self._factor = _population_factor(head)

    def draw(self, rng: np.random.Generator) -> Person:
        """Return a random person."""
        if self._factor is not None and rng.random() < _POPULATION_SHARE:
            identity = self._factor @ rng.standard_normal(self.head.num_shape)
        else:
            identity = rng.uniform(*_SPREAD) * rng.standard_normal(self.head.num_shape)
        expression, joint_angles = np.zeros(self.head.num_expression), np.zeros(12)
        if self._has_actions:
            expression, turns = self._expression(rng)
            for start, name in ((3, "jaw"), (6, "left_eye"), (9, "right_eye")):
                joint_angles[start : start + 3] = turns[name]
        joint_angles[:3] = rng.normal(0, (0.12, 0.14, 0.07))
        gaze = rng.normal(0, (0.09, 0.16))
        joint_angles[6:8] += gaze
        joint_angles[9:11] += gaze
        return Person(identity, expression, joint_angles)

    def _expression(self, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Mix a few faces with single actions and jitter; gaze is drawn elsewhere."""
        values = np.zeros(len(ARKIT_NAMES))
        for _ in range(1 + int(rng.random() < 0.35)):
            preset = self._presets[rng.integers(len(self._presets))] * rng.uniform(0.15, 1.05)
            values += preset * (1 + _SIDES * rng.normal(0, 0.12)) * rng.uniform(0.7, 1.3, len(values))
        single = rng.choice(_SINGLE_ACTIONS, rng.integers(0, 6), replace=False)
        values[single] += 0.6 * rng.random(len(single)) ** 1.5
        if rng.random() < 0.3:
            values[_JAW_OPEN] += rng.uniform(0, 0.7)
        values[_BLINKS] += rng.uniform(-0.05, 0.25)
        if values[_JAW_OPEN] < 0.3:
            values[_TONGUE_OUT] = 0.0
        return expression_from_arkit(self.head, np.clip(values, 0, 1))


def _weight(preset: dict[str, float], name: str) -> float:
    """Return the weight of an action in a face whose actions have no sides."""
    return preset.get(name.removesuffix("Left").removesuffix("Right"), preset.get(name, 0.0))


def _population_factor(head: HeadModel) -> np.ndarray | None:
    """Return a square root of the population's covariance (I, I); None for heads it does not belong to."""
    if head.name != "commons":
        return None
    # Imported here: it brings the landmark detector with it.
    from priors.anchor_calibration import expected_covariance

    values, vectors = np.linalg.eigh(expected_covariance(head))
    return vectors * np.sqrt(np.maximum(values, 0))
