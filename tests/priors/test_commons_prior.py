"""The commons prior: what its network says becomes maps of the head, and the wrong weights are refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.model import HeadModel
from flame.rasterizer import interpolate, rasterize
from priors import create_prior
from priors.commons import CommonsNetwork
from priors.dense_rendering import render_dense_maps
from priors.evidence import FaceEvidence
from priors.face_crop import ray_from_cam
from priors.network_prior import NetworkPrior
from priors.networks import build_network
from priors.networks.compact import PLACE_SCALE, CompactConfig
from priors.networks.weights import WeightsCard, save_network
from tests.toy_head import make_toy_head

TINY = CompactConfig(input_px=64, widths=(4, 6, 8, 10, 12), depths=(0, 1, 1, 1, 1))
CAMERA = Intrinsics(500.0, 500.0, 60.0, 70.0, 128, 128)
"""Of the maps, its principal point off the middle."""


def save(path: Path, head_hash: str, config: CompactConfig = TINY, normal_space: str = "ray") -> Path:
    torch.manual_seed(0)
    save_network(path, build_network(config), WeightsCard(config, normal_space, head_hash))
    return path


@pytest.fixture(scope="module")
def weights(head: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("weights") / "tiny.safetensors", head.content_hash)


@dataclass
class Answers:
    """Be what a perfect network says of one head."""

    maps: dict[str, torch.Tensor]

    def __call__(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.maps


def perfect(head: HeadModel, verts_cam: np.ndarray) -> Answers:
    """Return places on the template, normals relative to the middle's ray, kinds and doubts of a rendered head."""
    faces, template = head.faces.numpy(), head.template.numpy()
    exact = render_dense_maps(head, verts_cam, CAMERA)
    place = interpolate(rasterize(verts_cam, faces, CAMERA), faces, template) / PLACE_SCALE
    normals = exact.normals @ ray_from_cam(CAMERA).T * 3.0
    kind = np.zeros((6, 128, 128))
    kind[1][exact.mask], kind[0][~exact.mask] = 1.0, 1.0
    doubt = np.full((1, 128, 128), np.log(0.24))

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.nan_to_num(values).astype(np.float32))[None]

    return Answers(
        {
            "place": tensor(np.moveaxis(place, -1, 0)),
            "normals": tensor(np.moveaxis(normals, -1, 0)),
            "kind": tensor(kind),
            "log_sigma_normals": tensor(doubt),
            "log_sigma_place": tensor(doubt + np.log(1 / 12)),
        }
    )


def test_a_perfect_network_gives_the_maps_that_rendering_gives(head: HeadModel, weights: Path) -> None:
    verts_cam = head.template.numpy().astype(np.float64) * (1, -1, -1) + (0.01, 0.02, 0.9)
    network = CommonsNetwork(head, weights)
    answers = perfect(head, verts_cam)
    network._network = answers  # pyright: ignore[reportAttributeAccessIssue]
    maps, exact = network(np.zeros((256, 256, 3), np.uint8)), render_dense_maps(head, verts_cam, CAMERA)
    np.testing.assert_array_equal(maps.mask, exact.mask)
    assert maps.normal_space == "ray" and maps.axis_px == (64.0, 64.0)
    np.testing.assert_allclose((maps.normals @ ray_from_cam(CAMERA))[maps.mask], exact.normals[exact.mask], atol=1e-5)
    error = np.linalg.norm(maps.uv - exact.uv, axis=-1)[maps.mask]
    # A millimetre on the face is about 0.004.
    assert np.quantile(error, 0.9) < 1e-3 and np.quantile(error, 0.98) < 5e-3
    assert maps.uv_trust is not None and maps.normal_trust is not None
    np.testing.assert_allclose(maps.uv_trust, 1.0, rtol=1e-5)
    np.testing.assert_allclose(maps.normal_trust, 0.5, rtol=1e-5)


def test_nothing_outside_the_mask(head: HeadModel, weights: Path) -> None:
    maps = CommonsNetwork(head, weights)(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    assert maps.mask.shape == (32, 32)
    assert np.isnan(maps.uv[~maps.mask]).all() and np.isnan(maps.normals[~maps.mask]).all()


def test_faces_keep_their_pixels_and_each_is_looked_at_once(
    head: HeadModel, weights: Path, astronaut: np.ndarray, evidence: FaceEvidence
) -> None:
    prior = create_prior("commons", head, weights=weights)
    assert isinstance(prior, NetworkPrior) and evidence.picture is None
    found = prior.search(astronaut)[0]
    assert found.picture is not None and found.picture.image.shape == (64, 64, 3)
    observed = prior.observe(astronaut, [found.region])[0]
    assert observed is not None
    np.testing.assert_allclose(observed.points_px, evidence.points_px, atol=2.0)
    looks, predict = [], prior._predict
    prior._predict = lambda image: looks.append(image) or predict(image)
    first, second = (prior.dense(observed, 512, 512) for _ in range(2))
    assert len(looks) == 1
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.mask.shape == (512, 512)
    # Landmarks without a picture are drawn as the default prior draws them.
    assert prior.dense(evidence, 512, 512).normal_space == "camera"


def test_the_network_runs_where_it_is_told_to(head: HeadModel, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, landmarks = [], SimpleNamespace(surface=None, eyes=None, identity_anchor=None)

    def network(_head: HeadModel, _weights: Path, device: str) -> SimpleNamespace:
        seen.append(device)
        return SimpleNamespace(input_px=64, normals_at=None)

    monkeypatch.setattr("priors.commons.CommonsNetwork", network)
    monkeypatch.setattr("priors.commons.MediaPipePrior", lambda *_: landmarks)
    for has_gpu, device in ((True, "cuda"), (True, "auto"), (True, "cpu"), (False, "auto")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        create_prior("commons", head, weights=weights, device=device)
    assert seen == ["cuda", "cuda", "cpu", "cpu"]
    with pytest.raises(InputError, match="networks cannot run on device 'cuda': torch finds no GPU; choose auto"):
        create_prior("commons", head, weights=weights, device="cuda")
    with pytest.raises(InputError, match="unknown device 'gpu'; choose auto, cpu or cuda"):
        create_prior("commons", head, weights=weights, device="gpu")


def test_weights_of_another_head_or_network_are_refused(head: HeadModel, tmp_path: Path) -> None:
    path = save(tmp_path / "other.safetensors", make_toy_head().content_hash)
    with pytest.raises(InputError, match="trained for another head than 'commons'.*--prior mediapipe"):
        CommonsNetwork(head, path)
    path = save(tmp_path / "space.safetensors", head.content_hash, normal_space="head")
    with pytest.raises(InputError, match="normals in head space; this prior needs kind 'compact' and space 'ray'"):
        CommonsNetwork(head, path)
