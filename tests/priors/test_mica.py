"""MICA's anchor: its file loads whole and safely, pictures are aligned as ArcFace has them, few bad ones do no harm."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

from flame.errors import AssetMissingError, InputError, UnsafeFileError
from flame.model import HeadModel
from priors.evidence import FaceEvidence
from priors.mediapipe import MediaPipePrior
from priors.mica import (
    MAX_PICTURES,
    MicaAnchor,
    MicaNetwork,
    MicaPrior,
    ShapeMapping,
    aligned_picture,
    anchored_by_mica,
    geometric_median,
    load_mica,
    similarity,
    with_picture,
)
from priors.networks.arcface import IRESNET_50, IRESNET_100, ArcFace
from tests.priors.mica_files import SMALL, arcface_layout, checkpoint, random_weights, regressor_layout


@pytest.fixture(scope="module")
def content(head: HeadModel) -> dict[str, Any]:
    return checkpoint(head)


@pytest.fixture(scope="module")
def file(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mica") / "mica.tar"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def network(file: Path) -> MicaNetwork:
    return load_mica(file)


@pytest.fixture
def looks(astronaut: np.ndarray, evidence: FaceEvidence) -> FaceEvidence:
    """Return the astronaut's landmarks with her pixels."""
    return with_picture(evidence, astronaut)


def saved(content: dict[str, Any], path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("blocks", [SMALL, IRESNET_50, IRESNET_100])
def test_the_network_has_exactly_the_names_and_shapes_of_the_layout(blocks: tuple[int, ...]):
    with torch.device("meta"):
        stored = {name: tuple(value.shape) for name, value in ArcFace(blocks).state_dict().items()}
    assert stored == dict(arcface_layout(blocks))


def test_every_number_of_the_file_reaches_the_network(content: dict[str, Any], network: MicaNetwork):
    state = network.state_dict()
    for name, value in content["arcface"].items():
        assert torch.equal(state.pop(f"arcface.{name}"), value)
    for name in [name for name, _ in regressor_layout()]:
        assert torch.equal(state.pop(name), content["flameModel"][name])
    assert not state and not network.training


def by_hand(weights: dict[str, Tensor], picture: Tensor) -> Tensor:
    """Compute the small network from its weights alone."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        size = (1, -1, 1, 1) if x.ndim == 4 else (1, -1)
        return (x - mean.reshape(size)) / (var.reshape(size) + 1e-5).sqrt() * scale.reshape(size) + shift.reshape(size)

    def bent(x: Tensor, name: str) -> Tensor:
        return torch.where(x > 0, x, x * weights[f"{name}.weight"].reshape(1, -1, 1, 1))

    x = bent(norm(functional.conv2d(picture, weights["conv1.weight"], padding=1), "bn1"), "prelu")
    for stage, count in enumerate(SMALL, 1):
        for number in range(count):
            block, stride = f"layer{stage}.{number}", 2 if number == 0 else 1
            y = functional.conv2d(norm(x, f"{block}.bn1"), weights[f"{block}.conv1.weight"], padding=1)
            y = bent(norm(y, f"{block}.bn2"), f"{block}.prelu")
            y = norm(functional.conv2d(y, weights[f"{block}.conv2.weight"], stride=stride, padding=1), f"{block}.bn3")
            if number == 0:
                x = norm(
                    functional.conv2d(x, weights[f"{block}.downsample.0.weight"], stride=2), f"{block}.downsample.1"
                )
            x = x + y
    flat = norm(x, "bn2").flatten(1)
    return norm(flat @ weights["fc.weight"].T + weights["fc.bias"], "features")


def test_codes_are_what_the_weights_say_by_hand(content: dict[str, Any], network: MicaNetwork):
    picture = torch.rand(2, 3, 112, 112) * 2 - 1
    features = by_hand(content["arcface"], picture)
    z = features / features.norm(dim=1, keepdim=True)
    flame, x = content["flameModel"], z
    for number in range(4):
        x = x @ flame[f"regressor.network.{number}.weight"].T + flame[f"regressor.network.{number}.bias"]
        x = torch.where(x > 0, x, 0.2 * x)
    expected = x @ flame["regressor.output.weight"].T + flame["regressor.output.bias"]
    with torch.inference_mode():
        np.testing.assert_allclose(network(picture).numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_a_deep_mapping_is_given_the_features_again():
    weights = random_weights(regressor_layout(hidden=6))
    sizes = [(512, 300), *[(300, 300)] * 3, (812, 300), *[(300, 300)] * 2, (300, 300)]
    mapping = ShapeMapping(sizes)
    mapping.load_state_dict({name.removeprefix("regressor."): value for name, value in weights.items()})
    z = torch.randn(2, 512)
    x = z
    for number in range(7):
        x = torch.cat((z, x), 1) if number == 4 else x
        layer = f"regressor.network.{number}"
        x = functional.leaky_relu(functional.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"]), 0.2)
    expected = functional.linear(x, weights["regressor.output.weight"], weights["regressor.output.bias"])
    torch.testing.assert_close(mapping(z), expected)


def test_a_missing_file_is_told_with_its_source_and_licence(tmp_path: Path):
    with pytest.raises(
        AssetMissingError, match=r"no file .*mica\.tar: .*github.com/Zielon/MICA .*no commercial use.*--mica"
    ):
        load_mica(tmp_path / "mica.tar")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("arcface"), "no weights 'arcface'"),
        (lambda c: c["arcface"].pop("layer2.1.conv2.weight"), r"lacks arcface\.layer2\.1\.conv2\.weight \(1 missing"),
        (lambda c: c["arcface"].update({"extra.weight": torch.zeros(3)}), r"has arcface\.extra\.weight"),
        (lambda c: c["flameModel"].update({"decoder.weight": torch.zeros(3)}), r"has decoder\.weight"),
        (lambda c: c["arcface"].update({"fc.bias": torch.zeros(7)}), r"arcface\.fc\.bias has shape \(7,\); \(512,\)"),
        (lambda c: c["flameModel"].pop("regressor.output.weight"), "from 512 features to 300"),
        (lambda c: c["arcface"].update({"bn1.bias": torch.full((64,), torch.nan)}), "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(content: dict[str, Any], tmp_path: Path, change: Any, message: str):
    changed = {**content, "arcface": dict(content["arcface"]), "flameModel": dict(content["flameModel"])}
    change(changed)
    with pytest.raises(InputError, match=message):
        load_mica(saved(changed, tmp_path / "mica.tar"))


class Attack:
    """Ask whoever unpickles it to run a command."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("attacked",)


def test_nothing_in_a_file_is_executed(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeFileError):
        load_mica(saved({**content, "opt": Attack()}, tmp_path / "mica.tar"))
    assert not (tmp_path / "attacked").exists()


def test_the_head_has_to_be_the_one_that_the_file_speaks_of(file: Path, head: HeadModel, toy_head: HeadModel):
    assert load_mica(file, head)
    with pytest.raises(InputError, match="300 shape coefficients of FLAME 2020, which head 'toy' does not have"):
        load_mica(file, toy_head)
    other = replace(head, shape_basis=head.shape_basis.flip(2))
    with pytest.raises(InputError, match="leave --mica out"):
        load_mica(file, other)


def test_without_the_files_own_copy_the_number_of_vertices_tells(tmp_path: Path, head: HeadModel):
    bare = saved(checkpoint(), tmp_path / "mica.tar")
    with pytest.raises(InputError, match="which head 'commons' does not have"):
        load_mica(bare, head)
    like_flame = replace(head, template=torch.zeros(5023, 3), shape_basis=torch.zeros(5023, 3, 300))
    assert load_mica(bare, like_flame)


def test_a_similarity_is_found_from_points():
    points = np.random.default_rng(0).normal(size=(5, 2)) * 40
    turn = 1.7 * np.array(((np.cos(0.6), -np.sin(0.6)), (np.sin(0.6), np.cos(0.6))))
    np.testing.assert_allclose(similarity(points, points @ turn.T + (3, -8)), np.column_stack((turn, (3, -8))))
    mirrored = similarity(points, points * (-1, 1))
    assert np.linalg.det(mirrored[:, :2]) >= 0


@pytest.mark.parametrize(("roll_degrees", "scale"), [(0, 1.0), (35, 0.6), (-70, 1.4)])
def test_pictures_are_aligned_to_where_arcface_expects_eyes_nose_and_mouth(
    astronaut: np.ndarray, evidence: FaceEvidence, prior: MediaPipePrior, roll_degrees: float, scale: float
):
    turn = cv2.getRotationMatrix2D((230.0, 130.0), roll_degrees, scale)
    image = cv2.warpAffine(astronaut, turn, (512, 512), flags=cv2.INTER_AREA)
    points_px = (evidence.points_px - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5
    seen = with_picture(replace(evidence, points_px=points_px), image)
    aligned = aligned_picture(seen)
    assert aligned is not None and aligned.shape == (112, 112, 3)
    found = prior.search(cv2.copyMakeBorder(aligned, 56, 56, 56, 56, cv2.BORDER_REPLICATE))[0].points_px - 56.5
    eyes = [(found[33] + found[133]) / 2, (found[362] + found[263]) / 2]
    five = np.array([*eyes, found[4], found[61], found[291]])
    template = np.array([(38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)])
    # A smile widens the mouth, and no face is the average one.
    assert np.abs(five - template).max() < 6 and np.abs(five.mean(axis=0) - template.mean(axis=0)).max() < 1


def test_without_pixels_or_landmarks_there_is_no_picture(evidence: FaceEvidence, looks: FaceEvidence):
    assert aligned_picture(evidence) is None
    assert aligned_picture(replace(looks, points_px=looks.points_px[:68])) is None


def test_the_network_is_shown_red_first_from_minus_one_to_one(network: MicaNetwork, monkeypatch: pytest.MonkeyPatch):
    shown: list[Tensor] = []
    monkeypatch.setattr(MicaNetwork, "forward", lambda _, x: shown.append(x) or torch.zeros(len(x), 300))
    pictures = np.zeros((1, 112, 112, 3), np.uint8)
    pictures[..., 0] = 255
    MicaAnchor(network).codes(pictures)
    assert shown[0].shape == (1, 3, 112, 112)
    assert (shown[0][0, 0] == 1).all() and (shown[0][0, 1:] == -1).all()


def test_the_anchor_is_the_median_of_a_persons_codes(network: MicaNetwork, looks: FaceEvidence, evidence: FaceEvidence):
    anchor = MicaAnchor(network)
    picture = aligned_picture(looks)
    assert picture is not None
    (code,) = anchor.codes(picture[None])
    assert np.abs(code).max() > 0.01
    np.testing.assert_allclose(anchor([looks, evidence]), code)
    assert not anchor([evidence]).any() and not anchor([]).any()


def test_many_frames_cost_no_more_than_a_few(
    network: MicaNetwork, looks: FaceEvidence, monkeypatch: pytest.MonkeyPatch
):
    sizes: list[int] = []
    monkeypatch.setattr(MicaAnchor, "codes", lambda _, pictures: sizes.append(len(pictures)) or np.zeros((1, 300)))
    MicaAnchor(network)([looks] * 30)
    assert sizes == [MAX_PICTURES]


def test_the_median_is_that_of_a_general_minimiser():
    rng = np.random.default_rng(3)
    codes = rng.normal(size=(7, 4)) * (1, 2, 3, 4)

    def total(x: np.ndarray) -> float:
        return float(np.linalg.norm(codes - x, axis=1).sum())

    twin = minimize(
        total, codes.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 9999}
    )
    np.testing.assert_allclose(geometric_median(codes), twin.x, atol=1e-4)


def test_a_few_bad_codes_do_not_move_the_median_much():
    codes = np.random.default_rng(0).normal(size=(8, 300)) * 0.05
    bad = codes.copy()
    bad[:2] += 10
    assert np.linalg.norm(geometric_median(bad) - geometric_median(codes)) < 1.0
    assert np.linalg.norm(bad.mean(axis=0)) > 40


def test_a_median_may_be_one_of_the_codes():
    np.testing.assert_allclose(geometric_median(np.array([[0.0], [1.0], [50.0]])), [1.0], atol=1e-3)
    np.testing.assert_array_equal(geometric_median(np.ones((3, 5))), np.ones(5))
    np.testing.assert_array_equal(geometric_median(np.array([[2.0, 3.0]])), [2.0, 3.0])


def test_the_wrapped_prior_keeps_pixels_and_sees_the_same(
    astronaut: np.ndarray, prior: MediaPipePrior, head: HeadModel, file: Path
):
    wrapped = anchored_by_mica(prior, head, file)
    assert isinstance(wrapped, MicaPrior) and wrapped.name == "mediapipe" and wrapped.eyes is prior.eyes
    (found,) = wrapped.search(astronaut)
    (plain,) = prior.search(astronaut)
    np.testing.assert_array_equal(found.points_px, plain.points_px)
    (again, nobody) = wrapped.observe(astronaut, [found.region, replace(found.region, center_px=(-900.0, 0.0))])
    assert again is not None and again.picture is not None and nobody is None
    assert with_picture(again, astronaut) is again
    np.testing.assert_array_equal(wrapped.dense(found, 64, 64).mask, prior.dense(plain, 64, 64).mask)
    assert wrapped.identity_anchor is not None and wrapped.identity_anchor([found]).shape == (300,)
