from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from priors.face_crop import FaceCrop, ray_from_cam
from priors.training.render.paint import PAINT_ROWS, Paint, random_paint
from priors.training.render.people import People
from priors.training.render.view import place_head
from tests.toy_head import make_toy_head


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons")


@pytest.fixture(scope="module")
def people(commons: HeadModel) -> People:
    return People(commons)


def test_people_differ_and_stay_human(people: People, commons: HeadModel):
    drawn = [people.draw(np.random.default_rng(seed)) for seed in range(60)]
    spread = np.std([person.identity for person in drawn], axis=0)
    assert 0.3 < np.median(spread) < 1.2
    expressions = np.array([person.expression for person in drawn])
    assert expressions.min() >= 0 and expressions.max() <= 1
    assert (expressions.max(axis=0) > 0.1).mean() > 0.8
    assert np.mean([person.joint_angles[3] > 0.05 for person in drawn]) > 0.2  # open jaws
    gaze = np.array([person.joint_angles[6:] for person in drawn]).reshape(-1, 2, 3)
    assert np.corrcoef(gaze[:, 0, 1], gaze[:, 1, 1])[0, 1] > 0.7  # eyes look the same way


def test_vertices_are_those_of_the_model(people: People, commons: HeadModel):
    person = people.draw(np.random.default_rng(3))
    posed = people.rig.pose(person.identity, person.expression, person.joint_angles, np.eye(3), np.zeros(3))
    turns = person.joint_angles.reshape(4, 3)
    names = ("neck", "jaw", "left_eye", "right_eye")
    expected = commons.vertices(
        shape=torch.from_numpy(person.identity),
        expression=torch.from_numpy(person.expression),
        **{name: torch.from_numpy(turn) for name, turn in zip(names, turns, strict=True)},
    )
    np.testing.assert_allclose(posed.verts_cam, expected.numpy(), atol=2e-5)


def test_heads_without_a_texture_are_refused():
    with pytest.raises(InputError, match="'toy' has no texture coordinates"):
        People(replace(make_toy_head(), topology=None))


def test_heads_without_actions_keep_a_neutral_face():
    person = People(replace(make_toy_head(), expression_names=None)).draw(np.random.default_rng(0))
    assert not person.expression.any() and person.identity.any()


def test_the_crop_is_the_one_that_landmarks_give(commons: HeadModel):
    topology = commons.topology
    assert topology is not None
    points = topology.landmarks("mediapipe").on(commons.template.numpy().astype(np.float64), topology.faces)
    turns, off_axis = [], []
    for seed in range(80):
        view = place_head(points, np.random.default_rng(seed), 256)
        cam = points @ view.rotation.T + view.translation
        assert cam[:, 2].min() > 0.2
        k = view.intrinsics
        pixels = cam[:, :2] / cam[:, 2:] * (k.fx, k.fy) + (k.cx, k.cy)
        crop = FaceCrop.around(pixels, 256)
        middle = crop.image_from_crop @ (128, 128, 1)
        assert abs(np.log(crop.side_px / 256)) < 0.2 and np.abs(middle - 128).max() < 0.08 * 256
        assert abs(np.degrees(crop.roll_rad)) < 12.5
        facing = ray_from_cam(k) @ view.rotation @ (0, 0, 1)
        yaw = np.radians(view.turn_degrees[0])
        assert facing[0] == pytest.approx(np.sin(yaw) * np.hypot(facing[0], facing[2]), abs=1e-6)
        turns.append(view.turn_degrees)
        off_axis.append(abs(k.cx - 128) / 256)
    yaws = np.abs(np.array(turns)[:, 0])
    assert 10 < np.median(yaws) < 35 and yaws.max() > 60
    assert np.ptp(np.array(turns)[:, 1]) > 25 and max(off_axis) > 0.4


def test_paint_is_packed_in_the_order_of_the_kernels():
    assert set(PAINT_ROWS) == set(Paint._fields)
    paint, tone = random_paint(np.random.default_rng(0), np.array(((0.03, 0.03, 0.03), (-0.03, 0.03, 0.03))))
    packed = paint.packed()
    assert 0 <= tone <= 9 and packed.dtype == np.float32 and np.isfinite(packed).all()
    np.testing.assert_array_equal(packed[PAINT_ROWS.index("skin"), :3], paint.skin)
    assert packed[PAINT_ROWS.index("wrinkles"), 0] == np.float32(paint.wrinkles)
