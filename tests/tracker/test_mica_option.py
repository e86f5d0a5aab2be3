"""``--mica``: the identity that MICA sees is what fitting begins with; what does not fit is told in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from configs import load_preset
from flame import load_head
from priors.mica import MicaAnchor
from tests.priors.mica_files import checkpoint
from tracker import api
from tracker.clip import Toolkit, load_toolkit
from tracker.frames import open_source
from tracker.result import Track


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return random weights that speak of the shipped head."""
    path = tmp_path_factory.mktemp("mica") / "mica.tar"
    torch.save(checkpoint(load_head()), path)
    return path


@pytest.fixture(scope="module")
def anchored(file: Path) -> Toolkit:
    return load_toolkit("commons", "mediapipe", load_preset("default"), mica=file)


def test_the_identity_that_mica_sees_is_expected(face_clip: Path, face_track: Track, anchored: Toolkit, tmp_path: Path):
    anchor = anchored.model.identity_anchor
    assert isinstance(anchor, MicaAnchor)
    tracked = api.track(face_clip, tmp_path / "out", toolkit=anchored, mica=Path("somewhere/mica.tar"), overlay=False)
    with open_source(face_clip) as source:
        code = anchor([anchored.prior.search(frame.image)[0] for frame in source][::4])
    assert np.linalg.norm(code) > 1

    def likeness(identity: np.ndarray) -> float:
        return float(identity @ code / np.linalg.norm(identity) / np.linalg.norm(code))

    assert likeness(tracked.identity[0]) > 0.9 > 0.5 > abs(likeness(face_track.identity[0]))
    assert tracked.is_tracked.all()
    settings = Track.load(tmp_path / "out").info["settings"]
    assert settings["mica"] == "somewhere/mica.tar"
    # No configuration was given: the one that was used is told.
    assert settings["config"]["solver"]["evidence"] == "landmarks"


def test_a_missing_file_ends_the_run_in_one_line(cli, face_clip: Path):
    outcome = cli(face_clip, "--mica", "mica.tar")
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("error: no file mica.tar: mica.tar comes from https://github.com/Zielon/MICA")
    assert "no commercial use" in line


def test_another_head_is_refused_in_one_line(cli, face_clip: Path, tmp_path: Path):
    torch.save(checkpoint(), tmp_path / "mica.tar")
    outcome = cli(face_clip, "--mica", tmp_path / "mica.tar")
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert "shape coefficients of FLAME 2020, which head 'commons' does not have; use --head generic_model.pkl" in line
