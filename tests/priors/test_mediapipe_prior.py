from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from flame.errors import AssetMissingError, InputError
from flame.model import HeadModel
from priors import PRIOR_NAMES, create_prior
from priors.evidence import FaceEvidence, FaceRegion
from priors.landmark_topology import LEFT_IRIS, NUM_LANDMARKS, RIGHT_IRIS, landmark_topology
from priors.mediapipe import PRESENCE_THRESHOLD, MediaPipePrior
from priors.tensor_graph import TensorGraph


def _on_gray(photograph: np.ndarray, face_px: float, size: tuple[int, int], place: tuple[int, int]) -> np.ndarray:
    """Paste the shrunk photograph, whose face is 109 pixels high, into a gray picture."""
    scale = face_px / 109
    small = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image = np.full((*size, 3), 120, np.uint8)
    top, left = place
    image[top : top + len(small), left : left + small.shape[1]] = small
    return image


def test_face_is_found_with_confidence(evidence: FaceEvidence):
    assert evidence.presence > 0.99
    assert evidence.visibility > 0.9
    assert evidence.region.center_px == pytest.approx((224, 124), abs=6)
    assert abs(evidence.region.roll_rad) < 0.2


def test_evidence_keeps_its_contract(prior: MediaPipePrior, evidence: FaceEvidence):
    assert len(prior.surface) == NUM_LANDMARKS
    assert evidence.points_px.shape == evidence.sigma_px.shape == evidence.normal_px.shape == (NUM_LANDMARKS, 2)
    assert evidence.points_depth_px.shape == (NUM_LANDMARKS,)
    for array in (evidence.points_px, evidence.sigma_px, evidence.normal_px, evidence.points_depth_px):
        assert array.dtype == np.float64
    assert np.isfinite(evidence.points_px).all()
    assert (evidence.sigma_px > 0).all()
    assert np.linalg.norm(evidence.normal_px, axis=1) == pytest.approx(1.0)
    outline = np.isin(np.arange(NUM_LANDMARKS), landmark_topology().oval)
    assert (evidence.normal_px[~outline] == (1.0, 0.0)).all()
    assert (evidence.sigma_px[~outline, 0] == evidence.sigma_px[~outline, 1]).all()


def test_outline_is_less_certain_than_lips_and_lids(evidence: FaceEvidence):
    groups = landmark_topology().groups
    sigma = {name: np.median(evidence.sigma_px[indices]) for name, indices in groups.items()}
    assert sigma["oval"] > 1.5 * max(sigma["lips"], sigma["left_eye"], sigma["right_eye"])


def test_nose_tip_is_nearer_than_the_outline(evidence: FaceEvidence):
    assert evidence.points_depth_px[4] < evidence.points_depth_px[landmark_topology().oval].min()


@pytest.mark.parametrize(("face_px", "size"), [(40, (480, 640)), (24, (480, 640)), (45, (1080, 1920))])
def test_small_face_is_found(prior: MediaPipePrior, astronaut: np.ndarray, face_px: float, size: tuple[int, int]):
    image = _on_gray(astronaut, face_px, size, (60, 100))
    found = prior.search(image)
    assert len(found) == 1
    scale = face_px / 109
    expected = np.array((100.0, 60.0)) + scale * np.array((224.0, 124.0))
    assert found[0].region.center_px == pytest.approx(expected, abs=0.1 * face_px)
    assert abs(found[0].region.roll_rad) < 0.3


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_face_lying_on_its_side_or_head_is_found(prior: MediaPipePrior, astronaut: np.ndarray, turns: int):
    found = prior.search(np.ascontiguousarray(np.rot90(astronaut, -turns)))
    assert len(found) == 1
    assert math.remainder(found[0].region.roll_rad - turns * math.pi / 2, 2 * math.pi) == pytest.approx(0.0, abs=0.3)


def test_two_faces_are_found_the_largest_first_and_known_ones_left_out(prior: MediaPipePrior, astronaut: np.ndarray):
    image = _on_gray(astronaut, 100, (520, 900), (10, 10))
    image[10:300, 600:890] = _on_gray(astronaut, 60, (290, 290), (0, 0))
    # The smaller face shows only in an enlarged part, one of which is searched at each call.
    found = max((prior.search(image, max_faces=4) for _ in range(6)), key=len)
    assert [evidence.region.center_px[0] < 450 for evidence in found] == [True, False]
    rest = max((prior.search(image, known=[found[0].region], max_faces=4) for _ in range(6)), key=len)
    assert [evidence.region.center_px[0] < 450 for evidence in rest] == [False]
    assert len(prior.search(image, max_faces=1)) == 1


def _noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8)


def _gradient() -> np.ndarray:
    row = np.linspace(0, 255, 480).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (360, 480, 3)))


def _drawing() -> np.ndarray:
    image = np.full((512, 512, 3), 255, np.uint8)
    cv2.ellipse(image, (256, 256), (130, 160), 0, 0, 360, (0, 0, 0), 3)
    for x in (200, 312):
        cv2.ellipse(image, (x, 220), (26, 12), 0, 0, 360, (0, 0, 0), 2)
        cv2.circle(image, (x, 220), 8, (0, 0, 0), -1)
        cv2.ellipse(image, (x, 195), (34, 12), 0, 180, 360, (0, 0, 0), 4)
    cv2.line(image, (256, 230), (246, 285), (0, 0, 0), 2)
    cv2.ellipse(image, (256, 330), (46, 18), 0, 10, 170, (0, 0, 0), 3)
    return image


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(_noise(), id="noise"),
        pytest.param(_gradient(), id="gradient"),
        pytest.param(np.zeros((270, 480, 3), np.uint8), id="black"),
        pytest.param(np.full((40, 60, 3), 200, np.uint8), id="tiny blank"),
        pytest.param(_drawing(), id="line drawing"),
        pytest.param(data.coffee(), id="coffee"),
        pytest.param(data.chelsea(), id="cat"),
    ],
)
def test_nothing_is_found_where_no_face_is(prior: MediaPipePrior, image: np.ndarray):
    assert prior.search(np.ascontiguousarray(image), max_faces=3) == []


def test_face_that_has_gone_is_not_tracked(prior: MediaPipePrior, astronaut: np.ndarray, evidence: FaceEvidence):
    blank = np.full_like(astronaut, 127)
    observed = prior.observe(blank, [evidence.region])[0]
    assert observed is None or observed.presence < PRESENCE_THRESHOLD


def test_one_entry_per_region(prior: MediaPipePrior, astronaut: np.ndarray, evidence: FaceEvidence):
    elsewhere = FaceRegion((60.0, 420.0), 100.0, 0.0)
    observed = prior.observe(astronaut, [elsewhere, evidence.region])
    assert len(observed) == 2
    assert observed[0] is None or observed[0].presence < PRESENCE_THRESHOLD
    assert observed[1] is not None
    assert prior.observe(astronaut) == []


def test_face_that_has_moved_is_looked_at_again(prior: MediaPipePrior, astronaut: np.ndarray, evidence: FaceEvidence):
    region = evidence.region
    off = FaceRegion((region.center_px[0] + 0.22 * region.size_px, region.center_px[1]), 1.2 * region.size_px, 0.3)
    observed = prior.observe(astronaut, [off])[0]
    assert observed is not None
    distance = np.linalg.norm(observed.points_px - evidence.points_px, axis=1)
    assert distance.mean() < 0.02 * region.size_px


def test_cover_lowers_visibility_and_raises_sigma(prior: MediaPipePrior, astronaut: np.ndarray, evidence: FaceEvidence):
    x, y = (round(c) for c in evidence.region.center_px)
    covered = astronaut.copy()
    for offset in (-27, -9, 9, 27):
        cv2.line(covered, (x + offset - 8, y - 30), (x + offset + 8, y + 80), (176, 128, 112), 13)
    observed = prior.observe(cv2.GaussianBlur(covered, (0, 0), 0.8), [evidence.region])[0]
    if observed is not None:
        assert observed.visibility < 0.7 * evidence.visibility
        assert np.median(observed.sigma_px) > 1.3 * np.median(evidence.sigma_px)


def test_irises_of_closed_eyes_say_nothing(
    prior: MediaPipePrior, astronaut: np.ndarray, evidence: FaceEvidence, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("priors.mediapipe._CLOSED_LIDS", 0.9)
    monkeypatch.setattr("priors.mediapipe._OPEN_LIDS", 1.0)
    closed = prior.observe(astronaut, [evidence.region])[0]
    assert closed is not None
    irises = [*LEFT_IRIS, *RIGHT_IRIS]
    assert np.isinf(closed.sigma_px[irises]).all()
    assert np.isfinite(np.delete(closed.sigma_px, irises, axis=0)).all()
    assert np.isfinite(evidence.sigma_px).all()


def test_dense_maps_agree_with_the_landmarks(prior: MediaPipePrior, head: HeadModel, evidence: FaceEvidence):
    maps = prior.dense(evidence, 512, 512)
    assert maps.uv.shape == (512, 512, 2) and maps.normals.shape == (512, 512, 3) and maps.mask.shape == (512, 512)
    assert maps.uv.dtype == maps.normals.dtype == np.float32 and maps.mask.dtype == bool
    assert 4000 < maps.mask.sum() < 12000
    assert np.isnan(maps.uv[~maps.mask]).all() and np.isnan(maps.normals[~maps.mask]).all()
    normals = maps.normals[maps.mask]
    assert np.linalg.norm(normals, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert (normals[:, 2] < 0.2).mean() > 0.97
    assert head.topology is not None and head.topology.uv is not None and head.topology.uv_faces is not None
    corners = head.topology.uv[head.topology.uv_faces[prior.surface.triangles]]
    expected = np.einsum("nkc,nk->nc", corners, prior.surface.barycentric)
    for landmark in (4, 50, 280, 151, 199):
        column, row = np.floor(evidence.points_px[landmark]).astype(int)
        assert maps.uv[row, column] == pytest.approx(expected[landmark], abs=0.02)


def test_dense_normals_face_left_on_the_left(prior: MediaPipePrior, evidence: FaceEvidence):
    normals = prior.dense(evidence, 512, 512).normals
    right_cheek, left_cheek = (np.floor(evidence.points_px[i]).astype(int) for i in (123, 352))
    assert normals[right_cheek[1], right_cheek[0], 0] < -0.2
    assert normals[left_cheek[1], left_cheek[0], 0] > 0.2


def test_unknown_prior_is_refused_by_name(head: HeadModel):
    with pytest.raises(InputError, match=r"unknown prior 'mediapip'; choose one of: mediapipe"):
        create_prior("mediapip", head)
    assert "mediapipe" in PRIOR_NAMES


def test_missing_network_names_the_remedy():
    with pytest.raises(AssetMissingError, match=r"install mediapipe==0\.10\.21"):
        TensorGraph("face_landmark/no_such.tflite", 192, 1, (0.0, 1.0))


def test_head_in_double_precision_is_served(head: HeadModel, prior: MediaPipePrior):
    twin = create_prior("mediapipe", head.to(dtype=torch.float64))
    assert np.array_equal(twin.surface.triangles, prior.surface.triangles)
