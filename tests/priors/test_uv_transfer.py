"""Texture coordinates of one topology on another head: looked up, stored, found by fitting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame.errors import AssetMissingError, InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from flame.surface import SurfacePoints
from priors.flame_transfer import FoundTransfer, find_transfer, main
from priors.networks.flip import UvMirror
from priors.uv_transfer import UvTransfer, load_transfer, save_transfer
from tests.toy_head import make_toy_head

_TURN = np.array((0.15, 0.0, 0.0))


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons")


@pytest.fixture(scope="module")
def foreign(commons) -> HeadModel:
    """Return a head of another shape, size, pose and texture layout: the commons head in disguise."""
    shape = np.random.default_rng(3).normal(0, 0.4, commons.num_shape) * (np.arange(commons.num_shape) < 60)
    turn = torch.tensor(matrix_from_axis_angle(_TURN)).float()
    rest = commons.template + commons.shape_basis @ torch.tensor(shape).float()
    template = 1.04 * rest @ turn.T + torch.tensor((0.0, 0.03, -0.02))
    uv = commons.topology.uv * np.float32((0.8, 0.7)) + np.float32((0.0963, 0.2))
    return replace(commons, name="foreign", template=template, topology=replace(commons.topology, uv=uv))


@pytest.fixture(scope="module")
def found(foreign, commons) -> FoundTransfer:
    return find_transfer(foreign, commons)


def test_texture_coordinates_are_carried_to_the_same_places(found, foreign, commons):
    transfer, topology = found.transfer, commons.topology
    assert found.gap_m < 1e-3 and found.share > 0.9
    triangles = topology.region_triangles("face")
    weights = np.full((len(triangles), 3), 1 / 3)
    corners = topology.uv_faces[triangles]
    theirs, ours = (np.einsum("nk,nkc->nc", weights, head.topology.uv[corners]) for head in (foreign, commons))
    carried = transfer(theirs)
    is_known = np.isfinite(carried).all(axis=1)
    assert is_known.mean() > 0.8
    places = SurfacePoints(triangles, weights).on(commons.template.double().numpy(), commons.faces.numpy())
    per_metre = np.linalg.norm(np.ptp(ours, axis=0)) / np.linalg.norm(np.ptp(places, axis=0)[:2])
    away_mm = 1e3 * np.linalg.norm(carried - ours, axis=1)[is_known] / per_metre
    assert np.median(away_mm) < 0.2 and np.quantile(away_mm, 0.9) < 1.0
    turn = transfer.rotation @ matrix_from_axis_angle(_TURN)
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 3


def test_the_mirror_is_the_source_s(found):
    assert found.transfer.mirror.sum_u == pytest.approx(0.9926, abs=1e-4) and found.transfer.source == "FLAME"


def test_a_transfer_is_stored_for_one_head(found, commons, tmp_path):
    path = tmp_path / "a.npz"
    save_transfer(path, found.transfer)
    assert path.stat().st_size < 2e6
    again = load_transfer(path, commons)
    np.testing.assert_array_equal(np.isnan(again.uv), np.isnan(found.transfer.uv))
    np.testing.assert_allclose(again.uv, found.transfer.uv, atol=1e-5)
    np.testing.assert_allclose(again.rotation, found.transfer.rotation)
    assert again.mirror == UvMirror(found.transfer.mirror.sum_u) and again.source == "FLAME"
    with pytest.raises(InputError, match="is for another head than 'toy'; make it anew"):
        load_transfer(path, make_toy_head())
    with pytest.raises(AssetMissingError, match="no such file"):
        load_transfer(tmp_path / "b.npz", commons)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="is no transfer of texture coordinates"):
        load_transfer(path, commons)
    with pytest.raises(InputError, match="cannot be written"):
        save_transfer(tmp_path / "none" / "a.npz", found.transfer)


def test_within_a_head_skin_stays_and_the_rest_is_dropped(commons):
    transfer = UvTransfer.within(commons, "commons")
    topology = commons.topology
    middles = topology.uv[topology.uv_faces].mean(axis=1)
    chosen = {name: topology.region_triangles(name) for name in ("nose", "eyes", "tongue")}
    carried = {name: transfer(middles[triangles]) for name, triangles in chosen.items()}
    np.testing.assert_allclose(carried["nose"], middles[chosen["nose"]], atol=1e-5)
    assert np.isnan(carried["eyes"]).all(axis=1).mean() > 0.95
    assert np.isnan(carried["tongue"]).all(axis=1).mean() > 0.95
    outside = transfer(np.array(((-0.2, 0.5), (0.5, 1.7), (np.nan, 0.5), (np.inf, 0.0))))
    assert np.isnan(outside).all()


def test_blending_stops_at_seams():
    uv = np.full((8, 8, 2), 0.1, np.float32)
    uv[:, 4:] = 0.9
    transfer = UvTransfer(uv, np.eye(3), UvMirror(1.0), "a", "b")
    u = np.linspace(0.1, 0.9, 33)
    found = transfer(np.stack((u, np.full(33, 0.5)), axis=-1))[:, 0]
    assert set(np.round(found.astype(float), 4).tolist()) == {0.1, 0.9} and (np.diff(found) >= 0).all()


def test_heads_in_other_units_are_refused(commons):
    large = replace(commons, name="large", template=100 * commons.template)
    with pytest.raises(InputError, match=r"'large' is \d+.\d+ m large and head 'commons' 0.\d+ m; heads are in metres"):
        find_transfer(large, commons)


def test_the_command_line_refuses_other_files(tmp_path, caplog):
    assert main([str(tmp_path / "flame.pkl"), "--weights", str(tmp_path)]) == 2
    assert "error: no such head file" in caplog.text
    caplog.clear()
    assert main(["commons", "--weights", str(tmp_path)]) == 2
    assert "commons has 4570 vertices and 9084 triangles; a file of the FLAME topology" in caplog.text
