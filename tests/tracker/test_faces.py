"""Following people: losses, cuts, swaps and people who come back; with a prior that sees scripted faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from configs.schema import StatusConfig
from flame.surface import SurfacePoints
from priors.evidence import DenseMaps, FaceEvidence, FaceRegion
from tracker.faces import Anchor, FaceFollower, region_distance

IMAGE = np.zeros((8, 8, 3), np.uint8)


def face(x: float, size: float = 100.0, presence: float = 1.0) -> FaceEvidence:
    """Return the evidence of a face centred at x."""
    shape = np.array([[-0.3, 0.0], [0.3, 0.0], [0.0, 0.4]]) * size
    return FaceEvidence(
        points_px=shape + [x, 200.0],
        sigma_px=np.ones((3, 2)),
        normal_px=np.tile([1.0, 0.0], (3, 1)),
        presence=presence,
        visibility=1.0,
        region=FaceRegion((x, 200.0), size, 0.0),
        points_depth_px=np.zeros(3),
    )


class ScriptedPrior:
    """See the faces of a script, one list a frame; faces are found where they are looked for, within half a face."""

    name = "scripted"
    surface = SurfacePoints(np.zeros(3, np.int64), np.full((3, 3), 1 / 3))

    def __init__(self) -> None:
        self.faces: list[FaceEvidence] = []
        self.num_searches = 0

    def observe(self, image: np.ndarray, regions: Sequence[FaceRegion] = ()) -> list[FaceEvidence | None]:
        near = [[f for f in self.faces if region_distance(f.region, region) < 0.5] for region in regions]
        return [
            min(fs, key=lambda f: region_distance(f.region, r), default=None)
            for fs, r in zip(near, regions, strict=True)
        ]

    def search(
        self,
        image: np.ndarray,
        known: Sequence[FaceRegion] = (),
        max_faces: int = 1,
        *,
        is_thorough: bool = True,
    ) -> list[FaceEvidence]:
        self.num_searches += is_thorough
        unknown = [f for f in self.faces if all(region_distance(f.region, region) > 0.5 for region in known)]
        return sorted(unknown, key=lambda f: -f.region.size_px)[:max_faces]

    def dense(self, evidence: FaceEvidence, height: int, width: int) -> DenseMaps:
        raise NotImplementedError


def follow(
    script: list[list[FaceEvidence]], people: list[list[Anchor]], rate: float = 30.0
) -> list[list[float | None]]:
    """Return where every person was seen (x of the centre), frame by frame."""
    prior = ScriptedPrior()
    follower = FaceFollower(prior, people, StatusConfig())
    places = []
    for index, faces in enumerate(script):
        prior.faces = faces
        sightings = follower.observe(IMAGE, index / rate)
        places.append([s.evidence.region.center_px[0] if s.evidence else None for s in sightings])
    return places


def anchor(x: float, seconds: float = 0.0) -> list[Anchor]:
    return [Anchor(seconds, FaceRegion((x, 200.0), 100.0, 0.0))]


def test_a_face_is_followed():
    places = follow([[face(100 + 5 * i)] for i in range(10)], [anchor(100)])
    assert places == [[100 + 5 * i] for i in range(10)]


def test_a_face_found_again_elsewhere_is_a_break():
    prior = ScriptedPrior()
    follower = FaceFollower(prior, [anchor(100)], StatusConfig())
    continuous = []
    for index, x in enumerate([100, 102, 500, 502]):
        prior.faces = [face(x)]
        continuous.append(follower.observe(IMAGE, index / 30)[0].is_continuous)
    assert continuous == [False, True, False, True]


def test_a_jump_within_the_region_is_a_break():
    prior = ScriptedPrior()
    follower = FaceFollower(prior, [anchor(100)], StatusConfig())
    continuous = []
    for index, x in enumerate([100, 145, 146]):
        prior.faces = [face(x)]
        continuous.append(follower.observe(IMAGE, index / 30)[0].is_continuous)
    assert continuous == [False, False, True]


def test_a_lost_face_is_lost_and_found_again():
    script = [[face(100)]] * 3 + [[]] * 40 + [[face(300)]] * 20
    places = follow(script, [anchor(100)])
    assert places[2] == [100]
    assert all(place == [None] for place in places[3:43])
    assert places[-1] == [300]


def test_an_unlikely_face_is_not_followed():
    places = follow([[face(100)], [face(100, presence=0.2)], [face(100, presence=0.2)]], [anchor(100)])
    assert places == [[100], [None], [None]]


def test_missing_people_are_not_searched_in_every_frame():
    prior = ScriptedPrior()
    follower = FaceFollower(prior, [anchor(100)], StatusConfig(search_seconds=0.5))
    for index in range(30 * 8):
        follower.observe(IMAGE, index / 30)
    # At 0 s, then after pauses of 0.5 s and 1 s, and of 2 s from there on.
    assert prior.num_searches == 6


def test_people_keep_their_places():
    script = [[face(100 + i), face(400 - i)] for i in range(20)]
    places = follow(script, [anchor(400), anchor(100)])
    assert places[0] == [400, 100]
    assert places[-1] == [381, 119]


def test_a_person_who_comes_back_gets_the_own_place():
    script = [[face(100), face(400)]] * 3 + [[face(400)]] * 30 + [[face(400), face(110)]] * 30
    places = follow(script, [anchor(100), anchor(400)])
    assert places[2] == [100, 400]
    assert places[20] == [None, 400]
    assert places[-1] == [110, 400]


def test_two_people_never_share_one_face():
    script = [[face(100), face(180)]] * 2 + [[face(140)]] * 3
    places = follow(script, [anchor(100), anchor(180)])
    assert places[1] == [100, 180]
    assert sorted(place is None for place in places[-1]) == [False, True]


def test_distance_is_in_face_sizes():
    assert region_distance(FaceRegion((0, 0), 50, 0), FaceRegion((30, 40), 100, 0)) == pytest.approx(0.5)
