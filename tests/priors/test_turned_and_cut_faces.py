"""Faces that are hard to see whole: turned in the image, turned away, larger than the image."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.shading import Lighting
from priors.evidence import FaceEvidence, FaceRegion
from priors.face_landmarker import FaceLandmarker, Landmarks
from priors.face_search import FaceSearch
from priors.landmark_embedding import look_at_face
from priors.mediapipe import MediaPipePrior
from priors.painted_head import PALETTES, PaintedHead
from priors.presence import PresenceJudge, profile_share
from priors.rough_pose import RoughPose

LOW_VISIBILITY = 0.5
"""Below this, frames are of low confidence (``configs.schema.StatusConfig``)."""


def rolled(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn a picture clockwise about its middle, on a larger canvas; return it and the map of points, (2, 3)."""
    height, width = image.shape[:2]
    side = math.ceil(math.hypot(height, width))
    turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), -degrees, 1.0)
    turn[:, 2] += ((side - width) / 2, (side - height) / 2)
    corners = turn.copy()
    corners[:, 2] += 0.5 - turn[:, :2].sum(axis=1) * 0.5
    return cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_CUBIC), corners


@pytest.mark.parametrize("degrees", [-180, -150, -120, -90, -60, -30, 30, 60, 90, 120, 150])
@pytest.mark.parametrize("is_thorough", [True, False])
def test_a_rolled_face_gives_rolled_landmarks(prior: MediaPipePrior, astronaut, evidence, degrees, is_thorough):
    image, turned_from_upright = rolled(astronaut, degrees)
    found = prior.search(image, is_thorough=is_thorough)
    if not is_thorough and not found:
        assert abs(degrees) > 50  # a glance may miss what lies on its side, but finds nothing wrong there
        return
    expected = evidence.points_px @ turned_from_upright[:, :2].T + turned_from_upright[:, 2]
    error = np.linalg.norm(found[0].points_px - expected, axis=1) / evidence.region.size_px
    assert np.median(error) < 0.02
    roll = found[0].region.roll_rad - evidence.region.roll_rad - math.radians(degrees)
    assert math.remainder(roll, 2 * math.pi) == pytest.approx(0.0, abs=0.1)


@pytest.fixture(scope="module")
def painted(head: HeadModel) -> PaintedHead:
    """Return the mean head with paint on it."""
    return PaintedHead(head)


def seen_at(prior: MediaPipePrior, painted: PaintedHead, yaw: float, pitch: float, palette: int) -> FaceEvidence | None:
    """Return what is seen of a head that is turned (degrees)."""
    camera = Intrinsics.from_fov(30.0, 480, 480)
    verts_cam = look_at_face(painted.template, painted, yaw, pitch, 1.0)
    image, _, _ = painted.render(verts_cam, camera, palette=PALETTES[palette], lighting=Lighting())
    return next(iter(prior.search(image)), None)


@pytest.mark.parametrize("palette", range(len(PALETTES)))
@pytest.mark.parametrize("yaw", [-40, 0, 40])
def test_a_face_turned_halfway_is_seen_well(prior, painted, yaw, palette):
    found = seen_at(prior, painted, yaw, 0, palette)
    assert found is not None and found.visibility > 0.9


@pytest.mark.parametrize("palette", range(len(PALETTES)))
@pytest.mark.parametrize("pitch", [-10, 0, 10])
@pytest.mark.parametrize("yaw", [-80, -70, 70, 80])
def test_a_profile_is_never_taken_for_well_seen(prior, painted, yaw, pitch, palette):
    found = seen_at(prior, painted, yaw, pitch, palette)
    assert found is None or found.visibility < LOW_VISIBILITY


@given(yaw=st.floats(-1.5, 1.5), pitch=st.floats(-1.5, 1.5))
def test_the_turn_is_that_of_the_line_of_sight(yaw, pitch):
    turn = RoughPose(yaw, pitch, 1000.0, 0.0).turn_rad
    assert max(abs(yaw), abs(pitch)) - 1e-6 <= turn <= abs(yaw) + abs(pitch) + 1e-6
    assert 0 < profile_share(turn) <= profile_share(0.9 * turn) <= 1


def cropped(image: np.ndarray, region: FaceRegion, share: float, shift: tuple[float, float] = (0.0, 0.0)):
    """Cut a square out of a picture, ``share`` of the face's size wide; return it and its top left corner."""
    side = share * region.size_px / 1.5
    left, top = (
        round(center + offset * side - side / 2) for center, offset in zip(region.center_px, shift, strict=True)
    )
    left, top = max(left, 0), max(top, 0)
    return np.ascontiguousarray(image[top : top + round(side), left : left + round(side)]), np.array((left, top))


@pytest.mark.parametrize("share", [1.0, 0.87, 0.77])
def test_a_face_larger_than_the_image_is_seen_where_it_is_seen(prior, astronaut, evidence, share):
    image, corner = cropped(astronaut, evidence.region, share)
    (found,) = prior.search(image)
    is_inside = ((found.points_px >= 0) & (found.points_px <= image.shape[1::-1])).all(axis=1)
    error = np.linalg.norm(found.points_px + corner - evidence.points_px, axis=1) / evidence.region.size_px
    assert np.median(error[is_inside]) < 0.02
    assert np.isinf(found.sigma_px[~is_inside]).all()
    assert is_inside.mean() > 0.75 and found.visibility > LOW_VISIBILITY


@pytest.mark.parametrize("shift", [(0.0, -0.4), (0.35, 0.0), (-0.35, 0.0)])
def test_what_shows_little_of_a_face_is_not_taken_for_well_seen(prior, astronaut, evidence, shift):
    image, _ = cropped(astronaut, evidence.region, 0.8, shift)
    assert all(found.visibility < 0.65 for found in prior.search(image))


def test_nothing_is_lost_of_a_face_inside_the_image(prior, astronaut):
    (found,) = prior.search(astronaut)
    lids = np.isinf(found.sigma_px).any(axis=1)
    assert found.visibility > 0.9 and not lids.any()


@pytest.mark.parametrize(
    ("first", "presence", "second", "expected"),
    [(12.0, 0.95, 0.0, True), (17.0, 0.95, 0.0, True), (17.0, 0.8, 17.0, True), (17.0, 0.8, 14.0, False)]
    + [(12.0, 0.8, 17.0, False), (17.0, 0.4, 17.0, False)],
)
def test_a_new_face_in_doubt_has_to_be_sure_twice(monkeypatch, first, presence, second, expected):
    def reading(logit: float) -> Landmarks:
        return Landmarks(np.zeros((478, 2)), np.zeros(478), logit, FaceRegion((8.0, 8.0), 16.0, 0.0), 0.0)

    monkeypatch.setattr(FaceLandmarker, "__call__", lambda *_: reading(second))
    judge = PresenceJudge(FaceSearch(), FaceLandmarker())
    assert judge.believes(np.zeros((16, 16, 3), np.uint8), reading(first), presence) is expected
