"""Fixtures for all tests."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

from flame.model import HeadModel
from tests.toy_head import make_toy_head

settings.register_profile("project", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def restore_random_state() -> Iterator[None]:
    """Leave the global random generators as the test found them, and start it from a fixed state."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - it is the legacy state
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - code under test may use it
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002 - as above
    torch.set_rng_state(states[2])


@pytest.fixture(scope="session")
def toy_head() -> HeadModel:
    """Return the small symmetric head of `tests.toy_head`, float64."""
    return make_toy_head()
