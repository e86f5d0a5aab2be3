"""A real face for the priors' tests: scikit-image's public-domain photograph of an astronaut."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from flame import load_head
from flame.model import HeadModel
from priors import create_prior
from priors.evidence import FaceEvidence
from priors.face_landmarker import FaceLandmarker
from priors.mediapipe import MediaPipePrior


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """Return the photograph, uint8 (512, 512, 3)."""
    return data.astronaut()


@pytest.fixture(scope="session")
def head() -> HeadModel:
    """Return the shipped head."""
    return load_head()


@pytest.fixture(scope="session")
def prior(head: HeadModel) -> MediaPipePrior:
    """Return the prior for the shipped head."""
    created = create_prior("mediapipe", head)
    assert isinstance(created, MediaPipePrior)
    return created


@pytest.fixture(scope="session")
def landmarker() -> FaceLandmarker:
    """Return the landmark network."""
    return FaceLandmarker()


@pytest.fixture(scope="session")
def evidence(prior: MediaPipePrior, astronaut: np.ndarray) -> FaceEvidence:
    """Return what the prior sees in the photograph, found once and observed once more."""
    found = prior.search(astronaut)
    observed = prior.observe(astronaut, [found[0].region])[0]
    assert observed is not None
    return observed
