"""Sliders of a head: which there are, where they stand in a tracked frame, and what moving them changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tracker.viewer.posing import JOINTS, FaceParameters

if TYPE_CHECKING:
    from flame.head_files import HeadArrays
    from tracker.result import Track

_EXPRESSION = "expression"
_GROUPS = (
    ("eye", "Eyes: lids"),
    ("brow", "Brows"),
    ("jaw", "Jaw"),
    ("mouth", "Mouth"),
    ("cheek", "Cheeks and nose"),
    ("nose", "Cheeks and nose"),
    ("tongue", "Tongue"),
)
_FOLDER_SIZE = 20
"""Expressions without names go into folders of so many."""
_UNBOUNDED = 3.0
"""Range of coefficients without bounds: standard deviations."""
_EYE_TURNS = (("down, up", "down (+) or up (-)", 0), ("sideways", "to the subject's left (+) or right (-)", 1))
_JOINT_TURNS: Mapping[str, tuple[tuple[str, str, int], ...]] = {
    "jaw": (("open", "open (+)", 0), ("sideways", "to the subject's left (+) or right (-)", 1), ("twist", "twist", 2)),
    "left_eye": _EYE_TURNS,
    "right_eye": _EYE_TURNS,
    "neck": (
        ("nod", "nod: down (+) or up (-)", 0),
        ("turn", "turn: to the subject's left (+) or right (-)", 1),
        ("tilt", "tilt", 2),
    ),
}
"""Turns of each joint: what the slider is called, what it means, and the axis."""
_JOINT_FOLDERS = {"jaw": "Jaw", "left_eye": "Eyes: gaze", "right_eye": "Eyes: gaze", "neck": "Neck"}
_JOINT_DEGREES = {"jaw": (-10.0, 35.0), "left_eye": (-35.0, 35.0), "right_eye": (-35.0, 35.0), "neck": (-45.0, 45.0)}
_AXES = "xyz"


@dataclass(frozen=True)
class Control:
    """Describe one slider."""

    name: str
    """The coefficient's name, or joint and axis such as ``jaw.x``."""
    label: str
    """What the page calls it."""
    folder: str
    """Where it is found."""
    part: str
    """``expression`` or a joint's name."""
    index: int
    """Which coefficient, or which axis of the rotation."""
    low: float
    """Lowest value, coefficients or degrees."""
    high: float
    """Highest value, coefficients or degrees."""
    hint: str
    """What it moves."""

    @property
    def is_angle(self) -> bool:
        """Tell whether values are degrees."""
        return self.part != _EXPRESSION

    def value_in(self, parameters: FaceParameters) -> float:
        """Return where the slider stands for these parameters."""
        if self.is_angle:
            return math.degrees(float(parameters.joints[self.part][self.index]))
        return float(parameters.expression[self.index])


def controls_of(track: Track, head: HeadArrays) -> tuple[Control, ...]:
    """Return the sliders of a track's head, folder by folder; wide enough for every value in the track."""
    names = head.expression_names or tuple(f"expression_{index:03d}" for index in range(track.expression.shape[2]))
    bounds = head.expression_bounds
    if bounds is None:
        bounds = np.tile((-_UNBOUNDED, _UNBOUNDED), (len(names), 1))
    tracked = track.expression[track.is_tracked]
    low, high = bounds.T
    if len(tracked):
        low, high = np.minimum(low, tracked.min(axis=0)), np.maximum(high, tracked.max(axis=0))
    controls = [
        Control(name, name, _folder_of(name, index), _EXPRESSION, index, _floor(low[index]), _ceil(high[index]), hint)
        for index, (name, hint) in enumerate((name, _hint(name)) for name in names)
    ]
    for joint, turns in _JOINT_TURNS.items():
        if joint == "jaw" and not head.has_jaw:
            continue
        for label, hint, axis in turns:
            controls.append(_joint_control(track, joint, axis, label, hint))
    folders = list(dict.fromkeys(("Eyes: gaze", *(folder for _, folder in _GROUPS))))
    order = {folder: place for place, folder in enumerate(folders)}
    return tuple(sorted(controls, key=lambda control: order.get(control.folder, len(order))))


def _joint_control(track: Track, joint: str, axis: int, label: str, hint: str) -> Control:
    low, high = _JOINT_DEGREES[joint]
    angles = np.degrees(getattr(track, joint)[track.is_tracked][:, axis])
    if len(angles):
        low, high = min(low, float(angles.min())), max(high, float(angles.max()))
    words = joint.replace("_", " ")
    return Control(
        name=f"{joint}.{_AXES[axis]}",
        label=f"{words} {label}",
        folder=_JOINT_FOLDERS[joint],
        part=joint,
        index=axis,
        low=_floor(low),
        high=_ceil(high),
        hint=f"{words} {hint}, degrees",
    )


def _floor(value: float) -> float:
    return math.floor(float(value) * 20) / 20


def _ceil(value: float) -> float:
    return math.ceil(float(value) * 20) / 20


def _folder_of(name: str, index: int) -> str:
    for start, folder in _GROUPS:
        if name.startswith(start):
            return folder
    first = index - index % _FOLDER_SIZE
    return f"Expression {first:03d} to {first + _FOLDER_SIZE - 1:03d}"


def _hint(name: str) -> str:
    if name.startswith("expression_"):
        return "FLAME's expression space has no names: units are standard deviations"
    return "ARKit's action: 0 is rest, 1 is the full movement"


@dataclass
class Edits:
    """Remember which sliders of which person were moved; they hold in every frame until they are reset."""

    values: dict[int, dict[str, float]] = field(default_factory=dict)
    """Value of each edited control, by its name, by person."""

    def set(self, person: int, control: Control, value: float) -> None:
        """Hold a control at a value, in its own unit."""
        self.values.setdefault(person, {})[control.name] = float(value)

    def reset(self, person: int | None = None) -> None:
        """Follow the track again: one person, or all."""
        if person is None:
            self.values.clear()
        else:
            self.values.pop(person, None)

    def names(self, person: int) -> tuple[str, ...]:
        """Return the edited controls of a person."""
        return tuple(self.values.get(person, ()))

    def apply(self, person: int, parameters: FaceParameters, controls: Mapping[str, Control]) -> FaceParameters:
        """Return the parameters with a person's edits in place of what was tracked."""
        edited = self.values.get(person)
        if not edited:
            return parameters
        expression = np.array(parameters.expression)
        joints = {name: np.array(parameters.joints[name]) for name in JOINTS}
        for name, value in tuple(edited.items()):
            control = controls[name]
            if control.is_angle:
                joints[control.part][control.index] = math.radians(value)
            else:
                expression[control.index] = value
        return FaceParameters(expression, joints)
