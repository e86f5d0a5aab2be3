"""The identity that landmarks suggest: features, what many frames are worth, learning, and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from flame.model import HeadModel
from priors.anchor_calibration import (
    Photos,
    expected_covariance,
    expression_map,
    geometric_map,
    learn,
    reference_landmarks,
    size_gradient,
)
from priors.evidence import FaceEvidence, FaceRegion
from priors.identity_anchor import (
    ANCHOR_FILE,
    IdentityAnchor,
    landmark_features,
    load_anchor,
    pose_terms,
    save_anchor,
    unlike_frames,
)
from priors.landmark_topology import NUM_LANDMARKS, NUM_MESH_LANDMARKS

COUNT = 12
"""Identity coefficients of the small worlds of these tests."""
SHRUNK = 0.7
"""By so much the detector of these tests makes faces more alike."""


@pytest.fixture(scope="module")
def reference(head: HeadModel) -> np.ndarray:
    """Return the landmarks on the mean head (468, 3), metres."""
    return reference_landmarks(head)


@pytest.fixture(scope="module")
def geometry(head: HeadModel) -> np.ndarray:
    """Return how features move with the first identity coefficients (1404, COUNT), millimetres."""
    return geometric_map(head)[:, :COUNT]


@pytest.fixture(scope="module")
def photos(geometry: np.ndarray) -> Photos:
    """Return 100 people's photos, three each, by a detector that shrinks, leans with yaw, and errs a little."""
    generator = np.random.default_rng(2)
    identities = np.repeat(generator.normal(size=(100, COUNT)), 3, axis=0)
    turns = generator.uniform(-0.5, 0.5, (300, 2))
    features = SHRUNK * identities @ geometry.T + turns[:, :1] + 0.02 * generator.normal(size=(300, len(geometry)))
    return Photos(features, turns, np.repeat(np.arange(100), 3), identities)


@pytest.fixture(scope="module")
def anchor(photos: Photos, reference: np.ndarray, geometry: np.ndarray) -> IdentityAnchor:
    """Return what is learned from these photos."""
    return learn(photos, reference, geometry, np.eye(COUNT), np.zeros((1404, 1)))[0]


def seen(points: np.ndarray, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, scale: float = 900.0):
    """Return landmarks (468, 3), metres, seen from afar: pixels (478, 2) and depth (478,)."""
    turned = points @ Rotation.from_euler("ZYX", (roll, yaw, pitch)).as_matrix().T
    placed = np.zeros((NUM_LANDMARKS, 3))
    placed[:NUM_MESH_LANDMARKS] = scale * turned * (1.0, -1.0, -1.0) + (300.0, 200.0, 40.0)
    return placed[:, :2], placed[:, 2]


def frame(points: np.ndarray, **turn: float) -> FaceEvidence:
    """Return landmarks (468, 3), metres, as evidence."""
    points_px, depth_px = seen(points, **turn)
    ones = np.ones((len(points_px), 2))
    return FaceEvidence(points_px, ones, ones, 1.0, 1.0, FaceRegion((300.0, 200.0), 200.0, 0.0), depth_px)


def person(reference: np.ndarray, geometry: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """Return the landmarks that the detector of these tests sees on somebody, turned to the front, metres."""
    return reference + 1e-3 * SHRUNK * (geometry @ identity).reshape(-1, 3)


# Features


@settings(max_examples=20)
@given(st.floats(-0.7, 0.7), st.floats(-0.3, 0.3), st.floats(-3, 3), st.floats(50, 3000))
def test_features_do_not_depend_on_place_size_or_turn(reference, yaw, pitch, roll, scale):
    points = reference * (1.02, 0.99, 1.0) + 2e-3 * np.sin(700 * reference[:, [1, 2, 0]])
    features, _ = landmark_features(reference, *seen(points))
    again, turn = landmark_features(reference, *seen(points, yaw, pitch, roll, scale))
    np.testing.assert_allclose(again, features, atol=1e-6)
    assert abs(turn[0] - yaw) < 0.1 and abs(turn[1] - pitch) < 0.1


def test_the_mean_head_has_no_features(reference):
    features, turn = landmark_features(reference, *seen(reference, yaw=0.3, pitch=-0.2))
    np.testing.assert_allclose(features, 0, atol=1e-6)
    np.testing.assert_allclose(turn, (0.3, -0.2), atol=1e-9)


# What frames are worth


def test_frames_from_one_side_count_as_little_more_than_one():
    weights, count = unlike_frames(np.zeros((10, 2)))
    np.testing.assert_allclose(weights, 0.1)
    assert 1 < count < 1.3


def test_frames_from_all_sides_count_each():
    assert unlike_frames(np.array(((-1.0, 0.0), (0.0, 0.0), (1.0, 0.0))))[1] == pytest.approx(3, rel=1e-3)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-0.8, 0.8), st.floats(-0.4, 0.4)), min_size=1, max_size=12))
def test_frames_are_weighed(turns):
    weights, count = unlike_frames(np.array(turns))
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all() and 1 - 1e-9 <= count <= len(turns) + 1e-9


# Learning and expecting


def test_the_map_is_learned(anchor, photos, geometry):
    # Under a unit covariance of identities the cross-covariance is the map itself.
    forward = anchor.components.T @ anchor.cross.T
    assert np.linalg.norm(forward - SHRUNK * geometry) < 0.1 * np.linalg.norm(SHRUNK * geometry)
    lean = pose_terms(photos.turns) @ anchor.pose_effect - photos.turns[:, :1]
    assert np.abs(lean.mean(axis=1)).max() < 0.1


def test_what_a_persons_photos_share_is_told_from_what_they_do_not(reference, geometry, photos):
    generator = np.random.default_rng(3)
    axes = np.linalg.qr(generator.normal(size=(1404, 2)))[0].T
    habit = np.repeat(generator.normal(size=100), 3)
    noisy = photos.features + 40 * habit[:, None] * axes[0] + 20 * generator.normal(size=(300, 1)) * axes[1]
    learned, explained = learn(replace(photos, features=noisy), reference, geometry, np.eye(COUNT), np.zeros((1404, 1)))
    assert 0 < explained < 0.5
    shared, alone = (
        learned.components.T @ noise @ learned.components for noise in (learned.person_noise, learned.frame_noise)
    )
    assert [np.sqrt(axis @ shared @ axis) for axis in axes] == pytest.approx((40, 0), abs=10)
    assert [np.sqrt(axis @ alone @ axis) for axis in axes] == pytest.approx((0, 20), abs=8)


def test_what_an_expression_could_do_says_less_about_identity(anchor, photos, reference, geometry):
    identity = np.eye(COUNT)[0]
    moves_alike = 10 * geometry[:, :1]
    careful = learn(photos, reference, geometry, np.eye(COUNT), moves_alike)[0]
    faces = [frame(person(reference, geometry, identity))]
    assert np.linalg.norm(careful(faces)) < 0.7 * np.linalg.norm(anchor(faces))


def test_sides_move_together(head):
    assert head.expression_names is not None
    names = list(head.expression_names)
    moves = expression_map(head)
    left, right = names.index("mouthSmileLeft"), names.index("mouthSmileRight")
    assert np.linalg.norm(moves[:, left]) > 2 * np.linalg.norm(moves[:, right])


def test_an_identity_is_expected_as_it_is(anchor, reference, geometry):
    identity = np.random.default_rng(5).normal(size=COUNT)
    points = person(reference, geometry, identity)
    found = anchor([frame(points), frame(points, yaw=0.4)])
    assert np.linalg.norm(found - identity) < 0.25 * np.linalg.norm(identity)


def test_more_unlike_frames_lead_farther_from_the_mean(anchor, reference, geometry):
    points = person(reference, geometry, np.full(COUNT, 0.7))
    unsure = replace(anchor, frame_noise=anchor.frame_noise + 0.3 * anchor.signal)
    one, alike, unlike = (
        np.linalg.norm(unsure([frame(points, yaw=yaw) for yaw in yaws]))
        for yaws in ((0.0,), (0.0, 0.01, -0.01), (0.0, 0.4, -0.4))
    )
    assert 0 < one < alike < unlike
    assert alike - one < 0.3 * (unlike - one)


def test_of_nothing_the_mean_head_is_expected(anchor, reference):
    other = frame(reference)
    cut_off = frame(reference + 1e-3)
    cut_off.sigma_px[:60] = np.inf
    frames = [
        replace(other, points_px=other.points_px[:68], points_depth_px=other.points_depth_px[:68]),
        cut_off,
        frame(1.05 * reference + (0.0, 1e-3, 0.0), yaw=1.2),
    ]
    for chosen in ([], *([each] for each in frames), frames):
        assert anchor(chosen).shape == (COUNT,) and not anchor(chosen).any()


def test_small_faces_say_nothing(anchor, reference, geometry):
    clear = frame(reference + 1e-3 * (geometry @ np.ones(geometry.shape[1])).reshape(-1, 3))
    small = replace(clear, region=replace(clear.region, size_px=60.0))
    assert anchor([clear]).any()
    np.testing.assert_array_equal(anchor([clear, small]), anchor([clear]))
    np.testing.assert_array_equal(anchor([small]), 0.0)


def test_a_few_points_beyond_the_border_do_no_harm(anchor, reference, geometry):
    whole = frame(person(reference, geometry, np.ones(COUNT)))
    cut = replace(whole, sigma_px=whole.sigma_px.copy())
    cut.sigma_px[:5] = np.inf
    np.testing.assert_array_equal(anchor([whole]), anchor([cut]))


# The shipped anchor, and files


def test_faces_of_the_population_are_expected(head):
    covariance = expected_covariance(head)
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
    spread = np.linalg.eigvalsh(covariance)
    assert spread[1] > 0.1 and 0.5 < spread[-1] < 3
    # Nobody is larger than anybody else.
    growth = size_gradient(head)
    assert growth @ covariance @ growth < 1e-12 * (growth @ growth)


def test_the_shipped_anchor_makes_somebody_of_a_photograph(head, evidence):
    shipped = load_anchor(head.content_hash)
    assert shipped is not None and ANCHOR_FILE.stat().st_size < 500_000
    identity = shipped([evidence])
    assert identity.shape == (head.num_shape,) and 0.5 < np.linalg.norm(identity) < 8


def test_another_head_has_no_anchor(toy_head, head, tmp_path):
    assert load_anchor(toy_head.content_hash) is None
    assert load_anchor(head.content_hash, tmp_path / "nothing.npz") is None
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    assert load_anchor(head.content_hash, tmp_path / "broken.npz") is None


def test_an_anchor_is_kept(anchor, head, reference, geometry, tmp_path: Path):
    save_anchor(anchor, head.content_hash, "made for tests", tmp_path / "anchor.npz")
    kept = load_anchor(head.content_hash, tmp_path / "anchor.npz")
    assert kept is not None
    faces = [frame(person(reference, geometry, np.ones(COUNT)))]
    np.testing.assert_allclose(kept(faces), anchor(faces), atol=0.02)
