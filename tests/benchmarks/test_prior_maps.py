"""The benchmark of dense maps: what is exact scores zero, known errors are found, nothing unseen is counted."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.prior_maps import Atlas, MapErrors, at_label_size, groups_of, main, map_errors, measure, yaw_degrees
from flame import load_head
from flame.camera import Intrinsics, transform
from flame.model import HeadModel
from flame.rasterizer import interpolate, rasterize
from priors.dense_rendering import render_dense_maps
from priors.dense_surface import DenseSurface
from priors.evidence import DenseMaps
from priors.face_crop import ray_from_cam
from priors.pixel_kinds import Kind
from priors.training.labels import LabelMaps
from priors.training.shards import ShardIndex, encode_sample, shard_name, write_shard

CAMERA = Intrinsics(600.0, 600.0, 150.0, 100.0, 256, 256)
"""A crop's camera: its axis does not meet the crop's middle."""
TURN = np.diag((1.0, -1.0, -1.0)) @ Rotation.from_euler("y", 20, degrees=True).as_matrix()


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def atlas(head: HeadModel) -> Atlas:
    return Atlas.of(head)


@pytest.fixture(scope="module")
def pose() -> np.ndarray:
    cam_from_head = np.eye(4)
    cam_from_head[:3, :3], cam_from_head[:3, 3] = TURN, (-0.02, 0.04, 0.6)
    return cam_from_head


@pytest.fixture(scope="module")
def sample(head: HeadModel, pose: np.ndarray) -> tuple[np.ndarray, LabelMaps, dict]:
    """Return a grey picture with the labels of the mean head."""
    template = head.template.numpy().astype(np.float64)
    verts_cam, small = transform(pose, template), CAMERA.scale(0.5)
    maps = render_dense_maps(head, verts_cam, small)
    faces = head.faces.numpy()
    place = interpolate(rasterize(verts_cam, faces, small), faces, template)
    place[~maps.mask] = np.nan
    labels = LabelMaps(
        place, np.nan_to_num(maps.uv), np.nan_to_num(maps.normals), np.where(maps.mask, Kind.SKIN, 0).astype(np.uint8)
    )
    facts = {
        "intrinsics": asdict(CAMERA),
        "cam_from_head": pose.tolist(),
        "cam_from_neck": pose[:3, :3].tolist(),
        "skin_tone": 4.5,
    }
    return np.full((256, 256, 3), 128, np.uint8), labels, facts


def exact(head: HeadModel, pose: np.ndarray, side: int) -> DenseMaps:
    """Return the exact maps of the mean head in the camera of the sample, at some size."""
    verts_cam = transform(pose, head.template.numpy().astype(np.float64))
    return render_dense_maps(head, verts_cam, CAMERA.scale(side / 256))


def test_the_atlas_leads_back_to_the_place(head: HeadModel, atlas: Atlas):
    surface = DenseSurface.of(head)
    skin = np.flatnonzero(~surface.is_excluded)
    rng = np.random.default_rng(0)
    triangles = rng.choice(skin, 500)
    weights = rng.dirichlet((2, 2, 2), 500)
    template, faces = head.template.numpy().astype(np.float64), head.faces.numpy()
    places = np.einsum("nk,nkc->nc", weights, template[faces[triangles]])
    uv = np.einsum("nk,nkc->nc", weights, surface.uv[surface.uv_faces[triangles]])
    distance_mm = 1e3 * np.linalg.norm(atlas(uv) - places, axis=1)
    assert np.median(distance_mm) < 1e-3 and (distance_mm < 0.5).mean() > 0.98
    assert np.isnan(atlas(np.array(((np.nan, 0.5), (2.0, 0.5))))).all()


def test_known_errors_are_found(atlas: Atlas, sample):
    _, labels, _ = sample
    chosen = labels.valid & (labels.place[..., 2] > 0.05) & (np.abs(labels.place[..., 0]) < 0.03)
    place, normals, uv = labels.place[chosen], labels.normals_cam[chosen], labels.uv[chosen]
    axis = np.cross(normals, (0.3, 0.5, -0.2))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    turned = Rotation.from_rotvec(np.radians(25) * axis).apply(normals)
    errors = map_errors(uv, turned, place + (0.003, 0.0, 0.004), normals, 1000.0, atlas)
    np.testing.assert_allclose(errors.angle_degrees, 25, atol=1e-2)
    figures = errors.figures()
    assert figures["normal_within_22.5_percent"] == 0 and figures["normal_within_30_percent"] == 100
    assert figures["uv_median_mm"] == pytest.approx(5, abs=0.1) and figures["uv_median_px"] == pytest.approx(5, abs=0.1)


def test_no_pixels_give_no_figures():
    figures = MapErrors.joined([]).figures()
    assert all(np.isnan(value) for value in figures.values())


@pytest.mark.parametrize("space", ["camera", "ray"])
@pytest.mark.parametrize("side", [128, 256])
def test_exact_maps_score_zero_in_any_space_and_size(
    head: HeadModel, atlas: Atlas, pose, sample, space: str, side: int
):
    maps = exact(head, pose, side)
    if space == "ray":
        middle = (side / 2, side / 2)
        turn = ray_from_cam(CAMERA.scale(side / 256))
        maps = replace(maps, normals=maps.normals @ turn.T.astype(np.float32), normal_space="ray", axis_px=middle)
    scores = measure(iter([sample]), {"exact": lambda _: maps}, atlas)
    figures = scores["all", "exact", "each"].figures()
    assert figures["normal_median_degrees"] < (0.1 if side == 128 else 2.0)
    assert figures["uv_median_mm"] < (0.05 if side == 128 else 1.0)
    assert figures["covers_percent"] > 97
    assert ("yaw 15 to 30", "exact", "each") in scores and ("medium skin", "exact", "common") in scores


def test_pixels_that_all_speak_of_are_compared_separately(head: HeadModel, atlas: Atlas, pose, sample):
    whole = exact(head, pose, 128)
    half = replace(whole, mask=whole.mask & (np.arange(128) < 60))
    found = measure(iter([sample]), {"whole": lambda _: whole, "half": lambda _: half, "none": lambda _: None}, atlas)
    assert found["all", "none", "each"].figures()["covers_percent"] == 0
    assert found["all", "whole", "common"].num_covered == 0
    both = measure(iter([sample]), {"whole": lambda _: whole, "half": lambda _: half}, atlas)
    covered = both["all", "half", "each"].num_covered
    assert 0 < covered == both["all", "whole", "common"].num_covered < both["all", "whole", "each"].num_covered


def test_maps_of_another_size_are_read_at_the_middle_of_blocks():
    uv = np.zeros((4, 4, 2), np.float32)
    uv[..., 0], uv[..., 1] = np.meshgrid(np.arange(4), np.arange(4))
    maps = DenseMaps(uv, np.tile(np.float32((0, 0, -1)), (4, 4, 1)), np.ones((4, 4), dtype=bool))
    found, _ = at_label_size(maps, Intrinsics(10, 10, 1, 1, 2, 2))
    np.testing.assert_array_equal(found[..., 0], [[1, 3], [1, 3]])


def test_pose_is_counted_from_the_ray():
    facing = np.diag((1.0, -1.0, -1.0))
    centred = Intrinsics(500, 500, 128, 128, 256, 256)
    assert yaw_degrees(facing, centred) == pytest.approx(0, abs=1e-6)
    assert yaw_degrees(facing @ Rotation.from_euler("y", -40, degrees=True).as_matrix(), centred) == pytest.approx(40)
    aside = replace(centred, cx=128 - 500 * np.tan(np.radians(20)))
    assert yaw_degrees(facing, aside) == pytest.approx(20)
    assert groups_of({"clip": "a.mp4", "skin_tone": 8.0}, 50.0) == ["all", "yaw 45 and more", "dark skin", "a"]


def test_one_command_measures_weights_on_shards(head: HeadModel, sample, tmp_path: Path, capsys):
    from priors.networks import build_network
    from priors.networks.compact import CompactConfig
    from priors.networks.weights import WeightsCard, save_network

    folder, weights = tmp_path / "data", tmp_path / "random.safetensors"
    folder.mkdir()
    entry = write_shard(folder / shard_name(0), 0, [encode_sample(*sample)] * 2)
    ShardIndex(head.content_hash, 256, 128, 0, 2, shards=(entry,)).write(folder)
    config = CompactConfig()
    save_network(weights, build_network(config), WeightsCard(config, "ray", head.content_hash))
    out = tmp_path / "figures.json"
    main([str(folder), "--prior", "commons", "--weights", str(weights), "--limit", "1", "--json", str(out)])
    assert "commons" in capsys.readouterr().out
    (records,) = json.loads(out.read_text()).values()
    main([str(folder), str(folder), "--prior", "commons", "--weights", str(weights), "--json", str(out)])
    figures = json.loads(out.read_text())
    assert figures["all folders"][0]["pictures"] == 2 * figures[str(folder)][0]["pictures"] == 4
    assert {"group", "prior", "pixels", "pictures", "covers_percent", "normal_mean_degrees", "uv_mean_px"} <= set(
        records[0]
    )
    assert records[0]["group"] == "all" and records[0]["pictures"] == 1
