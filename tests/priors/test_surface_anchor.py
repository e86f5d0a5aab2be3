"""The identity that landmarks and normals suggest together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame.model import HeadModel
from flame.rotation_kernels import rotation_matrix
from flame.shading import vertex_normals
from priors.evidence import FaceEvidence, FacePicture
from priors.face_crop import FaceCrop
from priors.identity_anchor import CAMERA_AXES, IdentityAnchor, load_anchor, save_anchor
from priors.landmark_embedding import load_embedding
from priors.landmark_topology import NUM_MESH_LANDMARKS
from priors.surface_anchor import (
    NORMAL_MM,
    SurfaceAnchor,
    anchor_key,
    load_surface_anchor,
    normal_features,
    normals_at_points,
    normals_in_image,
)
from priors.surface_anchor_calibration import normal_map, reference_normals

NUM_FEATURES = 6 * NUM_MESH_LANDMARKS


@pytest.fixture(scope="module")
def landmarks(head: HeadModel) -> np.ndarray:
    """Return the landmarks on the mean head (478, 3), metres."""
    return load_embedding(head).points.on(head.template.numpy().astype(np.float64), head.faces.numpy())


@pytest.fixture(scope="module")
def anchor(landmarks: np.ndarray) -> IdentityAnchor:
    """Return an anchor with two components, one of the first landmark's x, one of the first normal's."""
    components = np.zeros((2, NUM_FEATURES))
    components[0, 0] = components[1, NUM_FEATURES // 2] = 1.0
    eye = np.eye(2)
    return IdentityAnchor(
        landmarks[:NUM_MESH_LANDMARKS], np.zeros((7, NUM_FEATURES)), components, eye, eye, 0.5 * eye, 0.5 * eye
    )


def seen_from(landmarks: np.ndarray, turn: np.ndarray, evidence: FaceEvidence) -> FaceEvidence:
    """Return evidence of a head in head space axes, turned and seen from far away at 3000 pixels a metre."""
    points = (landmarks @ turn.T) * CAMERA_AXES * 3000
    crop = FaceCrop.around(points[:, :2] + 400)
    return replace(
        evidence,
        points_px=points[:, :2] + 400,
        points_depth_px=points[:, 2],
        sigma_px=np.ones((478, 2)),
        region=replace(evidence.region, size_px=700.0),
        picture=FacePicture(np.zeros((256, 256, 3), np.uint8)),
        image_from_picture=crop.image_from_crop,
    )


def test_the_mean_head_s_own_normals_are_no_feature_however_it_is_turned(head, landmarks, evidence) -> None:
    mean = reference_normals(head)
    for angles in ((0.0, 0.0, 0.0), (0.2, -0.4, 0.1), (-0.3, 0.5, 0.9)):
        turn = rotation_matrix(np.array(angles))
        frame = seen_from(landmarks, turn, evidence)
        seen = (mean @ turn.T) * CAMERA_AXES
        features = normal_features(landmarks[:NUM_MESH_LANDMARKS], mean, frame.points_px, frame.points_depth_px, seen)
        np.testing.assert_allclose(features, 0, atol=1e-9)


def test_normals_are_read_where_the_landmarks_are_and_turned_with_the_picture(landmarks, evidence) -> None:
    frame = seen_from(landmarks, rotation_matrix(np.array((0.0, 0.0, 0.5))), evidence)
    points_px = frame.points_px[:NUM_MESH_LANDMARKS]
    asked = []

    def normals_at(picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(points)
        return np.tile((1.0, 0.0, 0.0), (len(points), 1)), np.ones(len(points), bool)

    assert frame.picture is not None and frame.image_from_picture is not None
    normals = normals_in_image(normals_at, frame.picture.image, frame.image_from_picture, points_px)
    crop = FaceCrop(frame.image_from_picture)
    np.testing.assert_allclose(np.column_stack((asked[0], np.ones(468))) @ crop.image_from_crop.T, points_px, atol=1e-6)
    # What points right in the upright picture points along the face's own horizontal in the image.
    assert normals is not None
    expected = (np.cos(crop.roll_rad), np.sin(crop.roll_rad), 0.0)
    np.testing.assert_allclose(normals, np.broadcast_to(expected, normals.shape), atol=1e-9)
    assert abs(crop.roll_rad) > 0.3


def test_both_kinds_of_features_count(anchor, head, landmarks, evidence) -> None:
    mean = reference_normals(head)
    frame = seen_from(landmarks, np.eye(3), evidence)

    def normals_at(picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = mean.copy()
        seen[0, 0] += 2.0 / NORMAL_MM
        return seen * CAMERA_AXES, np.ones(len(points), bool)

    both = SurfaceAnchor(anchor, mean, normals_at, None)
    # Signal 1 against noise 1: half of what is seen is believed.
    np.testing.assert_allclose(both([frame]), (0.0, 1.0), atol=0.01)


def test_covered_faces_and_other_priors_evidence_fall_back_on_landmarks(anchor, head, landmarks, evidence) -> None:
    mean, frame = reference_normals(head), seen_from(landmarks, np.eye(3), evidence)

    def covered(picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return mean * CAMERA_AXES, np.arange(len(points)) < 300

    alone = load_anchor(head.content_hash)
    assert alone is not None
    found = SurfaceAnchor(anchor, mean, covered, alone)([frame])
    np.testing.assert_array_equal(found, alone([frame]))
    without = replace(frame, picture=None)
    np.testing.assert_array_equal(SurfaceAnchor(anchor, mean, covered, alone)([without]), alone([without]))
    np.testing.assert_array_equal(SurfaceAnchor(anchor, mean, covered, None)([without]), np.zeros(2))


def test_normals_change_with_identity_as_the_map_says(head: HeadModel) -> None:
    basis = head.shape_basis.numpy()[:, :, :3]
    columns = normal_map(head, basis)
    step = np.array((0.02, -0.01, 0.03))
    moved = head.vertices(shape=torch.as_tensor(np.pad(step, (0, head.num_shape - 3)), dtype=head.dtype)).numpy()
    points = load_embedding(head).points
    normals = normals_at_points(moved.astype(np.float64), head.faces.numpy(), points)[:NUM_MESH_LANDMARKS]
    change = NORMAL_MM * (normals - reference_normals(head)).ravel()
    assert np.abs(change - columns @ step).max() < 0.02 * np.abs(change).max()
    assert vertex_normals(moved, head.faces.numpy()).shape == moved.shape


def test_an_anchor_is_of_a_head_and_a_network(anchor, head: HeadModel, tmp_path: Path) -> None:
    weights, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    weights.write_bytes(b"one")
    other.write_bytes(b"two")
    save_anchor(anchor, anchor_key(head, weights), "a test", tmp_path / "anchor.npz")
    points = load_embedding(head).points

    def normals_at(picture: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError

    kept = load_surface_anchor(head, points, weights, normals_at, tmp_path / "anchor.npz")
    assert kept is not None and kept.landmarks_alone is not None
    np.testing.assert_allclose(kept.reference_normals, reference_normals(head), atol=1e-12)
    assert load_surface_anchor(head, points, other, normals_at, tmp_path / "anchor.npz") is None
