"""Who somebody is, as far as landmarks tell: the expected identity, with which fitting begins.

A detector's landmarks are no measurements of 478 independent points: the network draws every face towards its own
idea of one, and errs alike in all pictures of a person. So what it makes of faces of known shape is learned from
renderings of the head model (`priors.anchor_calibration`), as a linear map with noise,

    features = forward @ identity + person + frame,

where ``person`` is shared by all pictures of somebody and ``frame`` is not. With a Gaussian population of identities
the expected identity, given features averaged over n unlike pictures, is

    cross @ inverse(signal + person_noise + frame_noise / n) @ features.

It is the mean of a prior, not a result: the solver goes on from there with all that it knows about pose, expression and
camera. Only the shipped head has an anchor; for another one ``load_anchor`` returns None, and the mean head serves.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np

from flame.surface_error import Similarity, similarity_of
from priors.evidence import FaceEvidence
from priors.landmark_topology import NUM_LANDMARKS, NUM_MESH_LANDMARKS, landmark_topology

ANCHOR_FILE = Path(__file__).parent / "assets" / "identity_anchor.npz"
CAMERA_AXES = (1.0, -1.0, -1.0)
"""Signs of the camera's axes in head space, of a head that looks into the camera."""
_WIDEST_RAD = (0.85, 0.45)
"""Yaw and pitch that landmarks may suggest; what is turned farther was not learned from."""
_MOST_CUT_OFF = 0.05
"""Share of the landmarks that may lie beyond the image's border, where the detector only guesses."""
_LEAST_FACE_PX = 100.0
"""Side of the face's square below which the detector sees less than what was learned from; half the least of that."""
_ALIKE_RAD = 0.17
"""Pictures turned by less than this against each other err alike."""
_UNLIKE_SHARE = 0.2
"""Share of the variance by which even pictures from the same side err independently."""


@dataclass(frozen=True, eq=False)
class IdentityAnchor:
    """Hold what was learned; M features (3 x 468 landmark coordinates), K components, I identity coefficients."""

    reference: np.ndarray
    """The landmarks on the mean head, float64 (468, 3), metres, head space."""
    pose_effect: np.ndarray
    """Expected features by functions of the turn, float64 (7, M), millimetres."""
    components: np.ndarray
    """Directions in which features are looked at, float64 (K, M)."""
    cross: np.ndarray
    """Covariance of identity and components, float64 (I, K), standard deviations times millimetres."""
    signal: np.ndarray
    """Covariance of the components that identities bring about, float64 (K, K), square millimetres."""
    person_noise: np.ndarray
    """Covariance of what all pictures of a person share beside that, float64 (K, K), square millimetres."""
    frame_noise: np.ndarray
    """Covariance of what differs from picture to picture, float64 (K, K), square millimetres."""

    def __call__(self, frames: Sequence[FaceEvidence]) -> np.ndarray:
        """Return the expected identity (I,), standard deviations, of the person in frames; zeros without any."""
        return self.expected(
            [
                landmark_features(self.reference, frame.points_px, frame.points_depth_px)
                for frame in frames
                if shows_all(frame)
            ]
        )

    def expected(self, seen: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return the expected identity (I,) given features (M,) and turns (2,) of some frames; zeros without any."""
        found = [(features, turn) for features, turn in seen if (np.abs(turn) <= _WIDEST_RAD).all()]
        if not found:
            return np.zeros(len(self.cross))
        features, turns = (np.stack(column) for column in zip(*found, strict=True))
        weights, count = unlike_frames(turns)
        deviation = weights @ (features - pose_terms(turns) @ self.pose_effect)
        covariance = self.signal + self.person_noise + self.frame_noise / count
        return self.cross @ np.linalg.solve(covariance, self.components @ deviation)


def landmark_features(
    reference: np.ndarray, points_px: np.ndarray, depth_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return landmarks turned to the front and brought to the mean head's size, and how they were turned.

    Args:
        reference: The landmarks on the mean head (468, 3), metres, head space.
        points_px: Landmarks (478, 2), pixels.
        depth_px: Their relative depth (478,), pixels, towards the camera negative.

    Returns:
        Deviations from the reference (1404,), millimetres, and yaw and pitch (2,), radians.
    """
    points = np.column_stack((points_px, depth_px))[:NUM_MESH_LANDMARKS] * CAMERA_AXES
    to_front = front_from_camera(reference, points_px, depth_px)
    # Where the camera is, seen from the head: that does not change as the head, or the camera, rolls.
    across, up, towards = to_front.rotation[:, 2]
    turn = np.array((np.arctan2(-across, np.hypot(up, towards)), np.arctan2(up, towards)))
    return 1e3 * (to_front(points) - reference).ravel(), turn


def front_from_camera(reference: np.ndarray, points_px: np.ndarray, depth_px: np.ndarray) -> Similarity:
    """Return what brings landmarks, times CAMERA_AXES, to the reference; arguments as of ``landmark_features``."""
    points = np.column_stack((points_px, depth_px))[:NUM_MESH_LANDMARKS] * CAMERA_AXES
    rigid = _rigid_landmarks()
    return similarity_of(points[rigid], reference[rigid])


def pose_terms(turns: np.ndarray) -> np.ndarray:
    """Return functions (N, 7) of yaw and pitch (N, 2), radians, by which the detector's idea of a face changes."""
    yaw, pitch = turns.T
    return np.column_stack((np.ones_like(yaw), yaw, pitch, yaw**2, pitch**2, yaw * pitch, yaw**3))


def unlike_frames(turns: np.ndarray) -> tuple[np.ndarray, float]:
    """Weigh frames by how much each adds, and count how many independent ones they are worth.

    Frames err alike when they see a face from the same side: a still clip is worth hardly more than one picture.

    Returns:
        Weights (N,) that sum to one, and the count.
    """
    squared = ((turns[:, None] - turns[None]) ** 2).sum(axis=2)
    alike = (1 - _UNLIKE_SHARE) * np.exp(-0.5 * squared / _ALIKE_RAD**2) + _UNLIKE_SHARE * np.eye(len(turns))
    amounts = np.linalg.solve(alike, np.ones(len(turns)))
    amounts = np.maximum(amounts, 0.0)
    weights = amounts / amounts.sum()
    return weights, float(1.0 / (weights @ alike @ weights))


def shows_all(frame: FaceEvidence) -> bool:
    """Return whether a frame has the detector's landmarks, large enough and nearly all within the image."""
    if len(frame.points_px) != NUM_LANDMARKS or frame.region.size_px < _LEAST_FACE_PX:
        return False
    is_cut_off = ~np.isfinite(frame.sigma_px[:NUM_MESH_LANDMARKS]).all(axis=1)
    return bool(is_cut_off.mean() <= _MOST_CUT_OFF)


def load_anchor(key: str, path: Path = ANCHOR_FILE) -> IdentityAnchor | None:
    """Return the anchor made for a head, by its ``content_hash``, None where there is none."""
    return _read(path, key)


@lru_cache(maxsize=4)
def _read(path: Path, head_hash: str) -> IdentityAnchor | None:
    """Read a file if it belongs to a head."""
    try:
        with np.load(path, allow_pickle=False) as data:
            if str(data["head_hash"]) != head_hash:
                return None
            return IdentityAnchor(*(data[item.name].astype(np.float64) for item in fields(IdentityAnchor)))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def save_anchor(anchor: IdentityAnchor, head_hash: str, provenance: str, path: Path = ANCHOR_FILE) -> None:
    """Write an anchor; the components in half precision, which costs them nothing."""
    arrays = {item.name: getattr(anchor, item.name).astype(np.float32) for item in fields(IdentityAnchor)}
    arrays["components"] = arrays["components"].astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays, head_hash=np.array(head_hash), provenance=np.array(provenance))


@lru_cache(maxsize=1)
def _rigid_landmarks() -> np.ndarray:
    """Return the landmarks that neither move nor slide: all but lips and outline."""
    topology = landmark_topology()
    return np.setdiff1d(np.arange(NUM_MESH_LANDMARKS), np.concatenate((topology.groups["lips"], topology.oval)))
