"""Who somebody is, as far as landmarks and a network's normals tell together.

Normals are read off the network's map at the landmarks and turned to the front as these are. What they tell, with the
network's habits, is learned from renderings like what the landmarks tell (`priors.identity_anchor`): a network that
draws every face towards its idea of one is no measurement either. Learned anew with
``python -m priors.surface_anchor_calibration`` for every network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from flame.model import HeadModel
from flame.shading import vertex_normals
from flame.surface import SurfacePoints
from priors.evidence import FaceEvidence
from priors.identity_anchor import (
    CAMERA_AXES,
    IdentityAnchor,
    front_from_camera,
    landmark_features,
    load_anchor,
    shows_all,
)
from priors.landmark_topology import NUM_MESH_LANDMARKS

SURFACE_ANCHOR_FILE = Path(__file__).parent / "assets" / "surface_anchor.npz"
NORMAL_MM = 15.0
"""Millimetres that a change of a normal by 1 counts like: then both kinds of features differ as much among people."""
_LEAST_SEEN = 0.8
"""Share of the landmarks at which the network must see the face itself, not hair or a hand."""

NormalsAt = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Returns normals (N, 3) in ray space, and where skin, eyes or mouth are seen, bool (N,), at points (N, 2) of a face's
picture, uint8 (S, S, 3)."""


@dataclass(frozen=True, eq=False)
class SurfaceAnchor:
    """Expect identities from landmarks and normals; where normals cannot be had, from landmarks alone."""

    anchor: IdentityAnchor
    """What was learned of both: features are 3 x 468 coordinates, then 3 x 468 normals."""
    reference_normals: np.ndarray
    """Normals of the mean head at the landmarks, float64 (468, 3), head space."""
    normals_at: NormalsAt
    landmarks_alone: IdentityAnchor | None

    def __call__(self, frames: Sequence[FaceEvidence]) -> np.ndarray:
        """Return the expected identity (I,), standard deviations, of the person in frames; zeros without any."""
        seen = [self.features(frame) for frame in frames if shows_all(frame)]
        found = [each for each in seen if each is not None]
        if not found and self.landmarks_alone is not None:
            return self.landmarks_alone(frames)
        return self.anchor.expected(found)

    def features(self, frame: FaceEvidence) -> tuple[np.ndarray, np.ndarray] | None:
        """Return features (2808,) and turn (2,) of a frame; None where too little of the face is seen."""
        if frame.picture is None or frame.image_from_picture is None:
            return None
        normals = normals_in_image(
            self.normals_at, frame.picture.image, frame.image_from_picture, frame.points_px[:NUM_MESH_LANDMARKS]
        )
        if normals is None:
            return None
        geometry, depth_px = frame.points_px, frame.points_depth_px
        features, turn = landmark_features(self.anchor.reference, geometry, depth_px)
        turned = normal_features(self.anchor.reference, self.reference_normals, geometry, depth_px, normals)
        return np.concatenate((features, turned)), turn


def normals_in_image(
    normals_at: NormalsAt, picture: np.ndarray, image_from_picture: np.ndarray, points_px: np.ndarray
) -> np.ndarray | None:
    """Return what a network says of the normals at points (N, 2) of an image, in its axes (N, 3).

    They are relative to the ray through the picture's middle. None where it sees too little of the face there.
    """
    picture_from_image = cv2.invertAffineTransform(np.asarray(image_from_picture, np.float64))
    local = points_px @ picture_from_image[:, :2].T + picture_from_image[:, 2]
    normals, is_face = normals_at(picture, local)
    if is_face.mean() < _LEAST_SEEN:
        return None
    turn = np.eye(3)
    turn[:2, :2] = image_from_picture[:, :2] / np.hypot(*image_from_picture[:, 0])
    return normals @ turn.T


def normal_features(
    reference: np.ndarray,
    reference_normals: np.ndarray,
    points_px: np.ndarray,
    depth_px: np.ndarray,
    normals: np.ndarray,
) -> np.ndarray:
    """Return normals (468, 3) of the camera's axes, turned to the front, less the mean head's: (1404,), millimetres.

    Other arguments as of ``landmark_features``.
    """
    to_front = front_from_camera(reference, points_px, depth_px).rotation
    return NORMAL_MM * ((normals * CAMERA_AXES) @ to_front.T - reference_normals).ravel()


def normals_at_points(verts: np.ndarray, faces: np.ndarray, points: SurfacePoints) -> np.ndarray:
    """Return the smooth unit normals of a mesh (V, 3) at N surface points (N, 3)."""
    normals = points.on(vertex_normals(verts, faces), faces)
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def anchor_key(head: HeadModel, weights: Path) -> str:
    """Name a head together with a network: an anchor is of both."""
    return f"{head.content_hash}+{hashlib.sha256(weights.read_bytes()).hexdigest()}"


def load_surface_anchor(
    head: HeadModel, points: SurfacePoints, weights: Path, normals_at: NormalsAt, path: Path = SURFACE_ANCHOR_FILE
) -> SurfaceAnchor | None:
    """Return the anchor of a head and a file of weights, None where none was made for them.

    Args:
        head: The head model.
        points: The landmarks' places on it.
        weights: The network's file.
        normals_at: The network.
        path: What was learned.
    """
    anchor = load_anchor(anchor_key(head, weights), path)
    if anchor is None:
        return None
    template, faces = head.template.numpy().astype(np.float64), head.faces.numpy()
    normals = normals_at_points(template, faces, points)[:NUM_MESH_LANDMARKS]
    return SurfaceAnchor(anchor, normals, normals_at, load_anchor(head.content_hash))
