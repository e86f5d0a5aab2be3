from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priors.evidence import FaceEvidence, FaceRegion
from priors.face_landmarker import FaceLandmarker, crop_region, region_of_landmarks
from priors.landmark_topology import landmark_topology


def _moved(region: FaceRegion, scale: float, roll_rad: float, shift: np.ndarray) -> tuple[np.ndarray, FaceRegion]:
    cosine, sine = scale * math.cos(roll_rad), scale * math.sin(roll_rad)
    affine = np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])
    center = affine[:, :2] @ region.center_px + affine[:, 2]
    return affine, FaceRegion((center[0], center[1]), region.size_px * scale, region.roll_rad + roll_rad)


def _warp(image: np.ndarray, affine: np.ndarray, size: int) -> np.ndarray:
    index_map = affine.copy()
    index_map[:, 2] += affine[:, :2].sum(axis=1) * 0.5 - 0.5
    return cv2.warpAffine(image, index_map, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("roll_degrees", [0, 37, 90, 180, -120])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_landmarks_move_with_the_image(
    landmarker: FaceLandmarker, astronaut: np.ndarray, evidence: FaceEvidence, roll_degrees: float, scale: float
):
    region = evidence.region
    turn = math.radians(roll_degrees)
    there = np.array([350.0, 360.0])
    rotation = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    affine, moved = _moved(region, scale, turn, there - rotation @ region.center_px)
    image = _warp(astronaut, affine, 700)
    expected = landmarker(astronaut, region).points_px @ affine[:, :2].T + affine[:, 2]
    distance = np.linalg.norm(landmarker(image, moved).points_px - expected, axis=1)
    assert distance.mean() < 0.008 * moved.size_px


def test_landmarks_of_the_mirrored_image_are_the_mirrored_landmarks(
    landmarker: FaceLandmarker, astronaut: np.ndarray, evidence: FaceEvidence
):
    region = evidence.region
    mirrored = FaceRegion((512 - region.center_px[0], region.center_px[1]), region.size_px, -region.roll_rad)
    there = landmarker(np.ascontiguousarray(astronaut[:, ::-1]), mirrored).points_px[landmark_topology().mirror]
    offset = there * (-1.0, 1.0) + (512.0, 0.0) - landmarker(astronaut, region).points_px
    assert np.linalg.norm(offset, axis=1).mean() < 0.01 * region.size_px
    # A wrong rule for pixel centres would show as a common shift of a pixel of the network's input.
    assert abs(offset.mean(axis=0)[0]) < 0.2 * region.size_px / 192


def test_refined_region_is_stable(landmarker: FaceLandmarker, astronaut: np.ndarray, evidence: FaceEvidence):
    again = landmarker(astronaut, evidence.region).region
    assert np.hypot(*np.subtract(again.center_px, evidence.region.center_px)) < 0.02 * again.size_px
    assert again.size_px == pytest.approx(evidence.region.size_px, rel=0.03)


@settings(max_examples=40)
@given(x=st.floats(50, 250), y=st.floats(50, 150), size=st.floats(20, 120), roll=st.floats(-math.pi, math.pi))
def test_crop_shows_what_its_map_says(x: float, y: float, size: float, roll: float):
    columns, rows = np.meshgrid(np.arange(300) + 0.5, np.arange(200) + 0.5)
    image = np.stack((columns * 0.8, rows, np.zeros_like(rows)), axis=-1)
    crop, image_from_crop = crop_region(image.astype(np.float32), FaceRegion((x, y), size, roll), 32)
    for row, column in ((16, 16), (10, 20)):
        place = image_from_crop[:, :2] @ (column + 0.5, row + 0.5) + image_from_crop[:, 2]
        inside = 1 < place[0] < 299 and 1 < place[1] < 199
        if inside:
            assert crop[row, column, :2] == pytest.approx(place * (0.8, 1.0), abs=0.05)


@settings(max_examples=40)
@given(roll=st.floats(-3.1, 3.1), scale=st.floats(0.2, 5), x=st.floats(-100, 100), y=st.floats(-100, 100))
def test_region_turns_and_scales_with_the_landmarks(
    evidence: FaceEvidence, roll: float, scale: float, x: float, y: float
):
    before = region_of_landmarks(evidence.points_px)
    affine, expected = _moved(before, scale, roll, np.array((x, y)))
    after = region_of_landmarks(evidence.points_px @ affine[:, :2].T + affine[:, 2])
    assert after.center_px == pytest.approx(expected.center_px, abs=1e-6)
    assert after.size_px == pytest.approx(expected.size_px)
    assert math.remainder(after.roll_rad - expected.roll_rad, 2 * math.pi) == pytest.approx(0.0, abs=1e-9)
