"""The solvers' benchmark, end to end on the toy head: small maps, few frames, a fraction of Adam's steps."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from flame.model import HeadModel

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def solver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script; it finds its neighbours where scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("solver")


@pytest.fixture
def contest(solver: ModuleType) -> ModuleType:
    return importlib.import_module("dense_contest")


@pytest.fixture
def bench(solver: ModuleType, contest: ModuleType, toy_head: HeadModel):
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plan = contest.Plan(
        size_px=256,
        num_threads=1,
        num_seeds=1,
        num_photos=2,
        num_frames=3,
        num_keyframes=2,
        num_watched_frames=2,
        num_adam_frames=1,
        adam_share=0.02,
    )
    yield contest.Bench(plan, toy_head)
    torch.set_num_threads(num_threads)


def test_every_part_gives_its_rows(solver: ModuleType, contest: ModuleType, bench, capsys: pytest.CaptureFixture[str]):
    """Adam is given few steps, so ours must be lower everywhere and nearer with exact maps, there nearly right."""
    adams = {contest.ADAM_PAPER, contest.ADAM_RELEASED}
    ours = {contest.OURS_PAPER, contest.OURS_RELEASED, contest.OURS_DENSE}
    expected = {
        "single": adams | ours | {"start"},
        "photos": adams | ours | {"start"},
        "clip": adams | ours - {contest.OURS_RELEASED},
    }
    combinations = [("single", False), ("single", True), ("photos", False), ("clip", False)]
    table = {(part, is_noisy): solver.measure(bench, part, is_noisy, 1) for part, is_noisy in combinations}
    for (part, is_noisy), rows in table.items():
        assert rows.keys() == expected[part]
        paper, mine = rows[contest.ADAM_PAPER], rows[contest.OURS_PAPER]
        assert mine.energy < paper.energy
        assert rows[contest.OURS_DENSE].posed_mm < 0.5 * paper.posed_mm
        if part != "clip":
            assert mine.below_seconds > 0
        if not is_noisy:
            assert mine.posed_mm < paper.posed_mm
            assert rows[contest.OURS_DENSE].posed_mm < 0.2 * paper.posed_mm
        solver.print_rows("noisy" if is_noisy else "exact", part, rows, 2)
    solver.print_bars(table["single", False], table["single", True])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == sum(len(rows) for rows in table.values()) + 4


def test_noise_is_as_large_as_it_says(solver: ModuleType, toy_head: HeadModel):
    scene = importlib.import_module("dense_scene")
    sitters = [scene.Sitter.random(toy_head, 96, is_noisy, 3) for is_noisy in (False, True)]
    state = scene.random_state(toy_head, 10.0, np.random.default_rng(0))
    exact, noisy = (sitter.shoot(state, 0) for sitter in sitters)
    np.testing.assert_array_equal(exact.verts_cam, noisy.verts_cam)
    both = exact.maps.mask & noisy.maps.mask
    cosine = np.clip((exact.maps.normals[both] * noisy.maps.normals[both]).sum(axis=1), -1, 1)
    degrees = np.degrees(np.arccos(cosine))
    wrong = np.linalg.norm(exact.maps.uv[both] - noisy.maps.uv[both], axis=1) > 0.25
    # A Rayleigh distribution's median is this share of its root mean square.
    assert np.median(degrees) == pytest.approx(np.sqrt(np.log(2)) * scene.NORMAL_DEGREES, rel=0.1)
    assert 0.3 * scene.OUTLIER_SHARE < wrong.mean() < 1.5 * scene.OUTLIER_SHARE
