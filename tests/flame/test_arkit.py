"""ARKit coefficients: names, both directions, and errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flame import HeadModel, InputError, load_head
from flame.arkit import ARKIT_NAMES, arkit_coefficients, expression_from_arkit

OPPOSITES = (
    ("jawLeft", "jawRight"),
    *((f"eyeLookUp{side}", f"eyeLookDown{side}") for side in ("Left", "Right")),
    *((f"eyeLookIn{side}", f"eyeLookOut{side}") for side in ("Left", "Right")),
)
INDEX = {name: index for index, name in enumerate(ARKIT_NAMES)}


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons", dtype=torch.float64)


def without_opposites(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    for first, second in OPPOSITES:
        smaller = np.where(values[..., INDEX[first]] < values[..., INDEX[second]], INDEX[first], INDEX[second])
        np.put_along_axis(values, smaller[..., None], 0.0, axis=-1)
    return values


def test_convention_names_are_apples_52_in_their_order():
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52
    assert ARKIT_NAMES[0] == "eyeBlinkLeft"
    assert ARKIT_NAMES[14:18] == ("jawForward", "jawLeft", "jawRight", "jawOpen")
    assert ARKIT_NAMES[-1] == "tongueOut"


@given(values=arrays(np.float64, (3, 52), elements=st.floats(0.0, 1.0)))
def test_reading_back_gives_the_coefficients(commons: HeadModel, values: np.ndarray):
    values = without_opposites(values)
    expression, joints = expression_from_arkit(commons, values)
    np.testing.assert_allclose(arkit_coefficients(commons, expression, **joints), values, atol=1e-12)


@given(
    expression=arrays(np.float64, (2, 41), elements=st.floats(-1.0, 2.0)),
    turns=arrays(np.float64, (3, 2, 2), elements=st.floats(-0.3, 0.3)),
)
def test_parameters_survive_the_way_through_coefficients(commons: HeadModel, expression: np.ndarray, turns: np.ndarray):
    names = ("jaw", "left_eye", "right_eye")
    joints = {name: np.append(turn, np.zeros((2, 1)), axis=1) for name, turn in zip(names, turns, strict=True)}
    joints["jaw"][:, 0] = np.abs(joints["jaw"][:, 0])
    values = arkit_coefficients(commons, expression, **joints)
    assert (values[:, [INDEX[name] for pair in OPPOSITES for name in pair]] >= 0).all()
    again, joints_again = expression_from_arkit(commons, values)
    np.testing.assert_allclose(again, expression, atol=1e-12)
    for name, turn in joints.items():
        np.testing.assert_allclose(joints_again[name], turn, atol=1e-12)


def test_mapping_and_array_say_the_same(commons: HeadModel):
    values = np.zeros((4, 52))
    values[:, INDEX["jawOpen"]] = np.linspace(0, 1, 4)
    values[:, INDEX["mouthSmileLeft"]] = 0.5
    expression, joints = expression_from_arkit(commons, values)
    by_name, joints_by_name = expression_from_arkit(commons, {"jawOpen": np.linspace(0, 1, 4), "mouthSmileLeft": 0.5})
    np.testing.assert_array_equal(expression, by_name)
    np.testing.assert_array_equal(joints["jaw"], joints_by_name["jaw"])
    assert joints["jaw"].shape == (4, 3) and joints["jaw"][3, 0] > joints["jaw"][2, 0] > 0


def test_missing_rotations_are_none(commons: HeadModel):
    values = arkit_coefficients(commons, np.zeros((5, commons.num_expression)), jaw=np.array([0.1, 0.0, 0.0]))
    assert values.shape == (5, 52)
    assert (values[:, INDEX["jawOpen"]] > 0).all()
    assert np.count_nonzero(values) == 5


def test_a_roll_of_the_jaw_is_not_an_action(commons: HeadModel):
    values = arkit_coefficients(commons, np.zeros(commons.num_expression), jaw=np.array([0.0, 0.0, 0.2]))
    assert not values.any()


def test_unknown_name_is_refused(commons: HeadModel):
    with pytest.raises(InputError, match="'jawopen' is no ARKit action"):
        expression_from_arkit(commons, {"jawopen": 1.0})


def test_wrong_length_is_refused(commons: HeadModel):
    with pytest.raises(InputError, match=r"shape \(51,\); \(\.\.\., 52\) is needed"):
        expression_from_arkit(commons, np.zeros(51))
    with pytest.raises(InputError, match="needs \\(\\.\\.\\., 41\\)"):
        arkit_coefficients(commons, np.zeros(40))


def test_head_without_actions_is_refused(commons: HeadModel):
    plain = replace(commons, expression_names=None, joint_actions=())
    with pytest.raises(InputError, match="has no ARKit action 'eyeBlinkLeft' \\(52 of 52 are missing\\)"):
        expression_from_arkit(plain, {"jawOpen": 1.0})
