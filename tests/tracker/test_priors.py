"""What a face is expected to do: which expressions are looser, and bounds."""

from __future__ import annotations

import numpy as np

from configs.schema import RegularizationConfig
from flame.loading import load_head
from flame.surface import NUM_JOINT_ANGLES
from tracker.priors import are_lids, state_prior

CONFIG = RegularizationConfig(expression=0.3, lid=0.9, free_expression=0.7)
NAMES = ("jawOpen", "eyeBlinkLeft", "browInnerUp", "component7")
BOUNDS = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [-np.inf, np.inf]])


def sigma(names: tuple[str, ...]) -> np.ndarray:
    return state_prior(CONFIG, BOUNDS, names).precision[NUM_JOINT_ANGLES:] ** -0.5


def test_lids_are_looser_than_other_actions_and_what_has_no_bounds_has_its_own_width():
    np.testing.assert_allclose(sigma(NAMES), (0.3, 0.9, 0.3, 0.7))


def test_without_names_nothing_is_a_lid():
    np.testing.assert_allclose(sigma(()), (0.3, 0.3, 0.3, 0.7))


def test_the_shipped_head_s_lids():
    names = load_head().expression_names or ()
    lids = [name for name, is_lid in zip(names, are_lids(names), strict=True) if is_lid]
    assert len(lids) == len(
        [name for name in names if name.startswith(("eyeBlink", "eyeSquint", "eyeWide", "eyeLook"))]
    )
    assert {"eyeBlinkLeft", "eyeBlinkRight"} <= set(lids)


def test_bounds_are_the_head_s():
    prior = state_prior(CONFIG, BOUNDS, NAMES)
    np.testing.assert_array_equal(prior.lower[NUM_JOINT_ANGLES:], BOUNDS[:, 0])
    np.testing.assert_array_equal(prior.upper[NUM_JOINT_ANGLES:], BOUNDS[:, 1])
