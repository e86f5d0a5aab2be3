"""What the person does: key poses over time, joined smoothly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from flame.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from sample_scene.portrait import Portrait

FRAME_RATE = 30
NUM_FRAMES = 138
_TALK = ((0.0, 0), (1.55, 0), (1.68, 1), (1.8, 0.25), (1.95, 0.9), (2.1, 0.15), (2.28, 1), (2.42, 0.5), (2.58, 0.85))

# Key poses: (seconds, value) per control. Angles in degrees, shifts in millimetres, all relative to the photograph.
_KEYS: dict[str, tuple[tuple[float, float], ...]] = {
    "yaw": ((0, 0), (0.35, 1), (0.95, 19), (1.35, 17), (1.9, 3), (2.4, -5), (3.05, -19), (3.4, -17), (4.2, 0)),
    "pitch": ((0, 0), (0.5, -2), (1.0, 2), (1.6, 3), (2.05, -6), (2.35, 7), (2.7, -2), (3.2, 3), (3.8, -2), (4.6, 0)),
    "roll": ((0, 0), (0.9, -4), (1.5, -2), (2.3, 3), (3.1, 6), (3.6, 3), (4.3, 0)),
    "right": ((0, 0), (1.0, 6), (2.0, 0), (3.1, -7), (4.3, 0)),
    "down": ((0, 0), (1.0, 1.5), (2.1, 0), (2.4, 3), (3.1, 1), (4.3, 0)),
    "nearer": ((0, 0), (1.2, 6), (2.4, 14), (3.4, 4), (4.3, 0)),
    "smile": ((0, 1), (0.5, 0.9), (1.4, 0.3), (2.7, 0.25), (3.1, 0.55), (3.7, 1.1), (4.1, 1), (4.6, 1)),
    "jaw": (*_TALK, (2.72, 0.1), (3.0, 0.0)),
    "funnel": ((0, 0), (1.9, 0), (1.98, 0.45), (2.1, 0.0), (2.5, 0), (2.6, 0.35), (2.75, 0)),
    "pucker": ((0, 0), (1.75, 0), (1.82, 0.4), (1.92, 0.1), (2.38, 0), (2.44, 0.35), (2.54, 0)),
    "brows": ((0, 0), (1.9, 0), (2.15, 0.9), (2.5, 0.7), (2.85, 0), (3.5, 0.0), (3.8, 0.25), (4.3, 0)),
    "gaze_right": ((0, 0), (0.4, 0), (0.5, -12), (0.95, -6), (1.4, 0), (2.6, 0), (2.7, 13), (3.1, 6), (3.6, 0)),
    "gaze_down": ((0, 0), (1.45, 0), (1.55, 5), (1.8, 0), (2.3, 0), (2.4, -4), (2.7, 0), (3.3, 0), (3.4, 6), (3.65, 0)),
}
_BLINK_SECONDS = (0.62, 1.72, 2.86, 3.9)
_JAW_OPEN_RAD = 0.125


@dataclass(frozen=True)
class Performance:
    """Hold the head's parameters in T frames, as a track names them."""

    expression: np.ndarray
    """Float32 (T, E)."""
    jaw: np.ndarray
    """Axis-angle, float32 (T, 3), radians."""
    left_eye: np.ndarray
    """Axis-angle, float32 (T, 3), radians."""
    right_eye: np.ndarray
    """Axis-angle, float32 (T, 3), radians."""
    turn: np.ndarray
    """Axis-angle of the turn from the photograph's pose in camera axes, float64 (T, 3), radians."""
    shift: np.ndarray
    """Shift of the pivot in camera axes, float64 (T, 3), metres."""


def perform(portrait: Portrait) -> Performance:
    """Turn the key poses into parameters of every frame."""
    seconds = np.arange(NUM_FRAMES) / FRAME_RATE
    control = {name: _curve(keys, seconds) for name, keys in _KEYS.items()}
    control = {name: _soften(values) if name in _SLOW else values for name, values in control.items()}
    turn = np.stack((np.radians(control["pitch"]), np.radians(control["yaw"]), np.radians(control["roll"])), axis=1)
    shift = 1e-3 * np.stack((control["right"], control["down"], -control["nearer"]), axis=1)
    # The eyes make up for a part of the head's turn, as eyes do that look at somebody.
    head_yaw, head_pitch = np.radians(control["yaw"]), np.radians(control["pitch"])
    gaze = np.zeros((NUM_FRAMES, 3))
    gaze[:, 0] = np.radians(control["gaze_down"]) - 0.5 * head_pitch
    gaze[:, 1] = np.radians(control["gaze_right"]) + 0.45 * head_yaw
    track = portrait.track
    jaw = track.jaw[0, 0] * np.clip(control["smile"], 0, 1)[:, None] + np.outer(control["jaw"], (_JAW_OPEN_RAD, 0, 0))
    return Performance(
        expression=_expressions(portrait, control, seconds),
        jaw=jaw.astype(np.float32),
        left_eye=(track.left_eye[0, 0] + gaze).astype(np.float32),
        right_eye=(track.right_eye[0, 0] + gaze).astype(np.float32),
        turn=turn,
        shift=shift,
    )


_SLOW = ("yaw", "pitch", "roll", "right", "down", "nearer", "smile")


def _curve(keys: tuple[tuple[float, float], ...], seconds: np.ndarray) -> np.ndarray:
    """Return a control at the given times, (T,): monotone between key poses, constant after the last."""
    times, values = np.array(keys, float).T
    return PchipInterpolator(times, values)(np.minimum(seconds, times[-1]))


def _soften(values: np.ndarray) -> np.ndarray:
    """Round the corners that key poses leave in a curve."""
    window = np.hanning(11)[1:-1]
    padded = np.pad(values, 4, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _expressions(portrait: Portrait, control: dict[str, np.ndarray], seconds: np.ndarray) -> np.ndarray:
    """Return the expression coefficients of every frame, float32 (T, E)."""
    names = list(portrait.track.expression_names)
    base = portrait.track.expression[0, 0]
    weights = np.outer(np.ones(NUM_FRAMES), base)
    mouth = [index for index, name in enumerate(names) if name.startswith(("mouth", "cheek", "nose"))]
    weights[:, mouth] = np.outer(control["smile"], base[mouth])

    def add(name: str, values: np.ndarray) -> None:
        weights[:, names.index(name)] += values

    blink = np.max([_blink(seconds - moment) for moment in _BLINK_SECONDS], axis=0)
    for side in ("Left", "Right"):
        for name in ("eyeWide", "eyeSquint"):
            weights[:, names.index(name + side)] *= 1 - blink
        add(f"eyeBlink{side}", blink)
        add(f"browOuterUp{side}", 0.6 * control["brows"])
        add(f"mouthLowerDown{side}", 0.25 * control["jaw"])
        add(f"mouthUpperUp{side}", 0.1 * control["jaw"])
    add("browInnerUp", control["brows"])
    add("mouthFunnel", control["funnel"])
    add("mouthPucker", control["pucker"])
    bounds = portrait.track.head_model.expression_bounds
    if bounds is not None:
        weights = np.clip(weights, *bounds.numpy().T)
    return weights.astype(np.float32)


def _blink(seconds: np.ndarray) -> np.ndarray:
    """Return how far the lids are closed, given the time from the start of a blink: fast down, slower up."""
    times, closed = (-0.001, 0.0, 0.09, 0.12, 0.27, 0.3), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    return np.interp(seconds, times, closed) ** 1.3


def poses(portrait: Portrait, performance: Performance, pivot_cam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cam_from_head of every frame: axis-angle (T, 3), radians, and translation (T, 3), metres."""
    first = portrait.track.cam_from_head(0)
    turns = matrix_from_axis_angle(performance.turn)
    rotation = axis_angle_from_matrix(turns @ first[:3, :3])
    translation = (turns @ (first[:3, 3] - pivot_cam)) + pivot_cam + performance.shift
    return rotation, translation
