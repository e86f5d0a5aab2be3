"""Collect the frames of a run and turn them into a ``Track`` at any moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.rotation import axis_angle_from_matrix
from tracker.result import Track
from tracker.scout import Person
from tracker.stream import FaceFrame

_JOINT_NAMES = ("neck", "jaw", "left_eye", "right_eye")


class Recorder:
    """Grow a track frame by frame; a frame costs some hundred bytes."""

    def __init__(self, head: str, model: HeadModel, people: Sequence[Person], intrinsics: Intrinsics) -> None:
        """Start an empty track of these people."""
        self._head = head
        self._model = model
        self._people = people
        self._intrinsics = intrinsics
        self._frame_index: list[int] = []
        self._pts_seconds: list[float] = []
        self._parameters: list[np.ndarray] = []
        self._quality: list[np.ndarray] = []

    def __len__(self) -> int:
        """Return the number of frames so far."""
        return len(self._pts_seconds)

    def add(self, frame_index: int, pts_seconds: float, faces: Sequence[FaceFrame]) -> None:
        """Append a frame with one entry per person."""
        num_expressions = self._model.expression_basis.shape[-1]
        self._frame_index.append(frame_index)
        self._pts_seconds.append(pts_seconds)
        self._parameters.append(np.array([_flatten(face, num_expressions) for face in faces]))
        self._quality.append(
            np.array([(face.status, face.residual_px, face.interocular_px, face.presence) for face in faces])
        )

    def track(self, info: dict[str, Any]) -> Track:
        """Return what has been collected."""
        num_people, num_frames = len(self._people), len(self)
        num_expressions = self._model.expression_basis.shape[-1]
        parameters = _stack(self._parameters, num_people, num_frames, 18 + num_expressions)
        quality = _stack(self._quality, num_people, num_frames, 4)
        joints = {
            name: parameters[..., 6 + 3 * index : 9 + 3 * index].astype(np.float32)
            for index, name in enumerate(_JOINT_NAMES)
        }
        num_shapes = self._model.shape_basis.shape[-1]
        return Track(
            identity=np.array([person.shape for person in self._people], np.float32).reshape(num_people, num_shapes),
            expression=parameters[..., 18:].astype(np.float32),
            rotation=parameters[..., :3],
            translation=parameters[..., 3:6],
            status=quality[..., 0].astype(np.int8),
            residual_px=quality[..., 1].astype(np.float32),
            interocular_px=quality[..., 2].astype(np.float32),
            presence=quality[..., 3].astype(np.float32),
            frame_index=np.array(self._frame_index, np.int64),
            pts_seconds=np.array(self._pts_seconds, np.float64),
            intrinsics=self._intrinsics,
            head=self._head,
            head_hash=self._model.content_hash,
            expression_names=tuple(self._model.expression_names or ()),
            info=info,
            **joints,
        )


def _flatten(face: FaceFrame, num_expressions: int) -> np.ndarray:
    """Return rotation (axis-angle), translation, joint angles, expression, float64 (18 + E,)."""
    if face.state is None:
        return np.full(18 + num_expressions, np.nan)
    state = face.state
    return np.concatenate((axis_angle_from_matrix(state.rotation), state.translation, state.values))


def _stack(rows: list[np.ndarray], num_people: int, num_frames: int, width: int) -> np.ndarray:
    """Return frames x people x width as (P, T, width), also when there are none."""
    stacked = np.array(rows, np.float64).reshape(num_frames, num_people, width)
    return np.ascontiguousarray(stacked.transpose(1, 0, 2))
