"""Which frames of a track a texture is made from: good ones, spread over poses and expressions.

The choice needs only the track, so that all other frames pass by undecoded into nothing and memory stays constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flame.rotation_kernels import rotation_matrix
from tracker.status import FrameStatus

if TYPE_CHECKING:
    from tracker.result import Track

_LOW_CONFIDENCE = 0.25
"""Quality of a frame of low confidence, where a good one has 1."""
_RESIDUAL_PERCENT = 3.0
"""Residual, in percent of the eye distance, that halves the quality."""
_BLUR_PERCENT = 1.5
"""Movement between two frames, in percent of the eye distance, that halves the quality."""
_TURN = 3.0
"""Weight of the direction of view (unit vectors) in the distance of two frames; expressions are about 1 apart."""
_TIME = 0.15
"""Weight of the time (0 to 1 over the clip): even a still face is taken from frames far apart."""
_PROXIES = np.array(((0.07, 0.0, 0.0), (-0.07, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, -0.06, 0.08)))
"""Points of a head whose movement in the image stands for its blur, metres, head space."""


def frame_quality(track: Track, person: int) -> np.ndarray:
    """Return how useful each frame is, float64 (T,) in [0, 1]; 0 where the person is not tracked."""
    status = track.status[person]
    quality = np.select((status == FrameStatus.OK, status == FrameStatus.LOW_CONFIDENCE), (1.0, _LOW_CONFIDENCE), 0.0)
    eyes_px = np.maximum(track.interocular_px[person].astype(np.float64), 1e-6)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.nan_to_num(100 * track.residual_px[person] / eyes_px, nan=_RESIDUAL_PERCENT)
        blur = 100 * _movement_px(track, person) / eyes_px
        size = eyes_px / np.nanmax(np.where(quality > 0, eyes_px, np.nan), initial=1e-6)
    quality = quality / (1 + (residual / _RESIDUAL_PERCENT) ** 2) / (1 + (blur / _BLUR_PERCENT) ** 2)
    is_finite = np.isfinite(track.translation[person]).all(axis=1) & np.isfinite(track.rotation[person]).all(axis=1)
    return np.where((quality > 0) & is_finite, quality * np.nan_to_num(size), 0.0)


def frame_preference(track: Track, person: int) -> np.ndarray:
    """Return how much a frame's details are to be preferred, float64 (T,): of good quality, frontal, at rest."""
    features = _features(track, person)
    frontal = np.clip(features[:, 2] / _TURN, 0, 1) ** 2
    effort = np.linalg.norm(np.nan_to_num(track.expression[person].astype(np.float64)), axis=1)
    effort += np.linalg.norm(np.nan_to_num(track.jaw[person].astype(np.float64)), axis=1) / 0.2
    usual = np.median(effort[track.is_tracked[person]]) if track.is_tracked[person].any() else 1.0
    return frame_quality(track, person) * (0.2 + frontal) / (1 + (effort / max(float(usual), 1e-6)) ** 2)


def choose_frames(track: Track, person: int, count: int) -> np.ndarray:
    """Return positions in the track of up to ``count`` frames, ascending int64; empty when the person is never seen.

    The best frame comes first; each further one is the best compromise of quality and distance from those chosen, in
    direction of view, expression and time.
    """
    quality = frame_quality(track, person)
    candidates = np.flatnonzero(quality > 0.02 * quality.max(initial=0.0))
    if len(candidates) <= count:
        return candidates
    features = _features(track, person)[candidates]
    worth = np.sqrt(quality[candidates])
    # A frontal frame with much to see is the anchor.
    chosen = [int(np.argmax(worth * (0.5 + 0.5 * np.clip(features[:, 2] / _TURN, 0, 1))))]
    distance = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < count:
        best = int(np.argmax(distance * worth))
        if distance[best] <= 0:
            break
        chosen.append(best)
        distance = np.minimum(distance, np.linalg.norm(features - features[best], axis=1))
    return candidates[np.sort(chosen)]


def _features(track: Track, person: int) -> np.ndarray:
    """Return what tells frames apart, (T, C): direction of the camera seen from the face, expression, jaw, time."""
    num_frames = len(track)
    towards = np.zeros((num_frames, 3))
    for frame in np.flatnonzero(track.is_tracked[person]):
        cam_from_face = rotation_matrix(track.rotation[person, frame]) @ rotation_matrix(
            track.neck[person, frame].astype(np.float64)
        )
        towards[frame] = -track.translation[person, frame] @ cam_from_face
    towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-9)
    expression = np.nan_to_num(track.expression[person].astype(np.float64))
    spread = np.sqrt(expression.var(axis=0).sum()) + 1e-6
    jaw = np.nan_to_num(track.jaw[person].astype(np.float64)) / 0.3
    time = _TIME * np.linspace(0, 1, num_frames)[:, None]
    return np.concatenate((_TURN * towards, 0.35 * expression / spread, 0.35 * jaw, time), axis=1)


def _movement_px(track: Track, person: int) -> np.ndarray:
    """Return how far a head moves in the image from frame to frame, float64 (T,); 0 where that is not known."""
    num_frames = len(track)
    points_px = np.full((num_frames, len(_PROXIES), 2), np.nan)
    camera = track.intrinsics
    for frame in np.flatnonzero(track.is_tracked[person]):
        turned = _PROXIES @ rotation_matrix(track.rotation[person, frame]).T + track.translation[person, frame]
        points_px[frame] = turned[:, :2] / turned[:, 2:] * (camera.fx, camera.fy)
    is_next = np.diff(track.frame_index) == 1
    steps = np.linalg.norm(np.diff(points_px, axis=0), axis=2).mean(axis=1)
    steps = np.where(is_next, np.nan_to_num(steps), 0.0)
    padded = np.concatenate(((0.0,), steps, (0.0,)))
    return np.maximum(padded[:-1], padded[1:])
