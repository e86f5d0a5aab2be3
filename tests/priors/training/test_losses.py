from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from priors.pixel_kinds import Kind
from priors.training.losses import (
    SIGMA_BOUNDS,
    distance,
    kind_loss,
    likelihood_loss,
    pixel_weights,
    total_loss,
    weighted_mean,
)
from priors.training.settings import LossSettings
from priors.training.validation import angular_error_degrees, evaluate, one_line, position_error, score

PLACE_SCALE = 0.1
SIDE = 6


def make_batch(count: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    kind = rng.integers(-1, 6, (count, SIDE, SIDE))
    valid = (kind >= 1) & (kind <= 4) & (rng.random(kind.shape) < 0.8)
    normals = rng.normal(size=(count, 3, SIDE, SIDE))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    maps = {
        "place": rng.normal(0, 0.05, (count, 3, SIDE, SIDE)),
        "normals": normals,
        "uv": rng.random((count, 2, SIDE, SIDE)),
    }
    tensors = {name: torch.from_numpy((value * valid[:, None]).astype(np.float32)) for name, value in maps.items()}
    return {**tensors, "kind": torch.from_numpy(kind), "valid": torch.from_numpy(valid)}


def make_prediction(count: int = 3, seed: int = 1, *, has_sigma: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(channels: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(count, channels, SIDE, SIDE, generator=generator)

    maps = {"place": draw(3, 0.5), "normals": draw(3, 1.0), "uv": draw(2, 0.3) + 0.5, "kind": draw(6, 1.0)}
    sigmas = {f"log_sigma_{name}": draw(1, 1.0) - 1 for name in ("place", "normals", "uv")}
    return {**maps, **(sigmas if has_sigma else {})}


def twin(predicted: dict[str, np.ndarray], batch: dict[str, np.ndarray], settings: LossSettings) -> float:
    """The loss, pixel by pixel."""
    table = (0, settings.skin_weight, settings.eye_weight, settings.mouth_weight, settings.hair_weight, 0)
    units = {"place": 0.1, "normals": 0.3, "uv": 0.03}
    total, count = 0.0, len(batch["kind"])
    for n in range(count):
        sums, weights, entropy, known = 0.0, 0.0, 0.0, 0
        for y in range(SIDE):
            for x in range(SIDE):
                kind = batch["kind"][n, y, x]
                if kind >= 0:
                    logits = predicted["kind"][n, :, y, x]
                    entropy += math.log(np.exp(logits - logits[kind]).sum())
                    known += 1
                weight = table[kind] if kind >= 0 and batch["valid"][n, y, x] else 0
                weights += weight
                for name in ("place", "normals", "uv"):
                    value, truth = predicted[name][n, :, y, x], batch[name][n, :, y, x]
                    if name == "place":
                        truth = truth / PLACE_SCALE
                    if name == "normals" and settings.is_normalised:
                        value = value / np.linalg.norm(value)
                    r = math.sqrt(((value - truth) ** 2).sum() + 1e-8)
                    if f"log_sigma_{name}" in predicted:
                        low, high = SIGMA_BOUNDS[name]
                        sigma = min(max(math.exp(predicted[f"log_sigma_{name}"][n, 0, y, x]), low), high)
                        plain = getattr(settings, f"plain_{name}") * r / units[name]
                        r = r / sigma + math.log(sigma) + plain
                    sums += weight * getattr(settings, name) * r
        least = 0.05 * SIDE * SIDE
        total += sums / max(weights, least) + settings.kind * entropy / max(known, least)
    return total / count


@pytest.mark.parametrize("has_sigma", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        LossSettings(),
        LossSettings(0.7, 1.3, 0.4, 0.9, 0.2, 0.3, 0.6, False, 0.8, 0.1, 0.5, 0.6),
    ],
    ids=["default", "other"],
)
def test_loss_is_what_a_loop_over_pixels_gives(settings: LossSettings, has_sigma: bool) -> None:
    predicted, batch = make_prediction(has_sigma=has_sigma), make_batch()
    loss, parts = total_loss(predicted, batch, settings, PLACE_SCALE)
    arrays = [{name: value.double().numpy() for name, value in each.items()} for each in (predicted, batch)]
    arrays[1]["kind"] = batch["kind"].numpy()
    assert float(loss) == pytest.approx(twin(arrays[0], arrays[1], settings), rel=1e-5)
    assert set(parts) == {"place", "normals", "uv", "kind"}


def test_paper_loss_is_the_mean_masked_distance() -> None:
    batch = make_batch(1)
    batch["kind"] = torch.where(batch["valid"], int(Kind.SKIN), int(Kind.BACKGROUND))
    predicted = {"uv": make_prediction(1)["uv"]}
    settings = LossSettings(eye_weight=1, mouth_weight=1, hair_weight=1, is_normalised=False)
    loss, _ = total_loss(predicted, batch, settings, PLACE_SCALE)
    mask = batch["valid"].numpy()
    error = np.linalg.norm(predicted["uv"].numpy() - batch["uv"].numpy(), axis=1)[mask]
    assert float(loss) == pytest.approx(error.mean(), rel=1e-5)


def test_labels_without_meaning_do_not_matter() -> None:
    predicted, batch = make_prediction(), make_batch()
    weight = pixel_weights(batch["kind"], batch["valid"], LossSettings())
    assert (weight > 0).any() and (weight[batch["kind"] == Kind.COVER] == 0).all()
    assert (weight[batch["kind"] == -1] == 0).all()
    torch.testing.assert_close(weight[batch["valid"] & (batch["kind"] == Kind.HAIR)].unique(), torch.tensor([0.3]))
    before, _ = total_loss(predicted, batch, LossSettings(), PLACE_SCALE)
    for name in ("place", "normals", "uv"):
        batch[name] = torch.where(weight[:, None] > 0, batch[name], 7.0)
    after, _ = total_loss(predicted, batch, LossSettings(), PLACE_SCALE)
    assert torch.equal(before, after)


def test_likelihood_is_best_where_sigma_is_the_mean_error() -> None:
    errors = torch.rand(4000, generator=torch.Generator().manual_seed(0)) * 0.2
    log_sigma = torch.linspace(-5, 0, 500)
    losses = likelihood_loss(errors[:, None], log_sigma[None], (1e-4, 10)).mean(dim=0)
    assert float(log_sigma[losses.argmin()].exp()) == pytest.approx(float(errors.mean()), rel=0.02)
    bounds = (0.1, 2.0)
    low, high = likelihood_loss(torch.tensor(0.5), torch.tensor((-50.0, 50.0)), bounds)
    assert float(low) == pytest.approx(0.5 / 0.1 + math.log(0.1), rel=1e-5)
    assert float(high) == pytest.approx(0.25 + math.log(2), rel=1e-5)


def test_gradient_is_finite_where_prediction_and_label_agree() -> None:
    value = torch.zeros(1, 3, 2, 2, requires_grad=True)
    distance(value, torch.zeros(1, 3, 2, 2)).sum().backward()
    assert value.grad is not None and (value.grad == 0).all()
    predicted = {name: each.requires_grad_() for name, each in make_prediction().items()}
    batch = make_batch()
    batch["valid"] = torch.zeros_like(batch["valid"])
    batch["kind"] = torch.full_like(batch["kind"], -1)
    loss, _ = total_loss(predicted, batch, LossSettings(), PLACE_SCALE)
    loss.backward()
    assert float(loss) == 0
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in predicted.values())


def test_loss_of_a_batch_is_the_mean_of_its_equal_parts() -> None:
    predicted, batch = make_prediction(6), make_batch(6)
    whole, _ = total_loss(predicted, batch, LossSettings(), PLACE_SCALE)
    parts = [
        total_loss(
            {name: value[start : start + 2] for name, value in predicted.items()},
            {name: value[start : start + 2] for name, value in batch.items()},
            LossSettings(),
            PLACE_SCALE,
        )[0]
        for start in (0, 2, 4)
    ]
    torch.testing.assert_close(whole, sum(parts) / 3, rtol=1e-6, atol=1e-6)


def test_pictures_with_hardly_any_labels_count_less() -> None:
    values, weight = torch.ones(1, 10, 10), torch.zeros(1, 10, 10)
    weight[0, 0, 0] = 1
    assert float(weighted_mean(values, weight)) == pytest.approx(0.2)
    weight[0, :2] = 1
    assert float(weighted_mean(values, weight)) == pytest.approx(1.0)


def test_kinds_of_unknown_pixels_are_left_out() -> None:
    logits = torch.zeros(1, 6, 4, 4)
    kind = torch.full((1, 4, 4), 2)
    logits[:, 2, 0] = 5.0
    kind[:, 1:] = -1
    assert float(kind_loss(logits, kind)) == pytest.approx(math.log(1 + 5 * math.exp(-5)), rel=1e-5)


def test_network_that_predicts_nothing_known_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="nothing of it can be learnt"):
        total_loss({"depth": torch.zeros(3, 1, SIDE, SIDE)}, make_batch(), LossSettings(), PLACE_SCALE)


def test_angles_are_exact_small_and_large() -> None:
    for degrees in (1e-3, 0.5, 11.25, 90.0, 179.0, 180.0):
        angle = math.radians(degrees)
        a = torch.tensor((3.0, 0.0, 0.0)).view(1, 3, 1, 1)
        b = torch.tensor((math.cos(angle), math.sin(angle), 0.0)).view(1, 3, 1, 1)
        assert float(angular_error_degrees(a, b)) == pytest.approx(degrees, rel=1e-3, abs=1e-4)


def test_position_error_is_the_shift_of_the_map() -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")

    def field(dx: float, dy: float) -> torch.Tensor:
        u, v = x + dx, y + dy
        return torch.stack((0.3 + 0.010 * u + 0.004 * v, 0.2 - 0.003 * u + 0.012 * v))[None]

    place = torch.stack((x, y, 0 * x))[None] * 1e-3
    mask = torch.ones(1, 20, 20, dtype=torch.bool)
    found = position_error(field(1.5, -2.0), field(0, 0), place, mask, 0.05)
    assert found.numel() == 18 * 18
    torch.testing.assert_close(found, torch.full_like(found, 2.5), rtol=1e-3, atol=1e-3)
    torn = place.clone()
    torn[:, 2, :, 10:] += 0.1
    assert position_error(field(1, 0), field(0, 0), torn, mask, 0.05).numel() == 18 * 16


class Constant(torch.nn.Module):
    """Predict what it was given."""

    def __init__(self, maps: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.maps


def test_evaluation_counts_visible_skin_only() -> None:
    batch = make_batch()
    batch["image"] = torch.zeros(3, 3, 2 * SIDE, 2 * SIDE)
    skin = batch["valid"] & (batch["kind"] == Kind.SKIN)
    turn = math.radians(20)
    rotation = torch.tensor(((1, 0, 0), (0, math.cos(turn), -math.sin(turn)), (0, math.sin(turn), math.cos(turn))))
    batch["normals"] = torch.zeros_like(batch["normals"])
    batch["normals"][:, 2] = 1.0
    normals = torch.einsum("ij,njhw->nihw", rotation, 4.0 * batch["normals"])
    place = batch["place"] + torch.tensor((0.003, 0.0, 0.004)).view(1, 3, 1, 1)
    far = torch.where(skin[:, None], place, 1.0) / PLACE_SCALE
    logits = torch.nn.functional.one_hot(batch["kind"].clamp(min=0), 6).permute(0, 3, 1, 2).float()
    logits[0] = 0.0
    logits[0, 5] = 1.0
    network = Constant({"normals": torch.where(skin[:, None], normals, 0.1), "place": far, "kind": logits})
    figures = evaluate(network, [batch], LossSettings(), PLACE_SCALE)
    assert figures["normals_mean_deg"] == pytest.approx(20, abs=1e-3)
    assert figures["normals_median_deg"] == pytest.approx(20, abs=1e-3)
    assert figures["normals_within_11.25_percent"] == 0 and figures["normals_within_22.5_percent"] == 100
    assert figures["place_mean_mm"] == pytest.approx(5, abs=1e-3)
    known = batch["kind"] >= 0
    right = (batch["kind"] == 5)[0][known[0]].sum() + known[1:].sum()
    assert figures["kind_accuracy_percent"] == pytest.approx(100 * float(right) / int(known.sum()))
    assert "normals 20.00°" in one_line(figures) and "place 5.00 mm" in one_line(figures)
    assert score(figures) > score({**figures, "normals_mean_deg": 15.0})
    assert score({"loss": 0.4}) == 0.4


def test_weights_of_the_loss_are_as_documented() -> None:
    settings = replace(LossSettings(), place=2.0, normals=0.0, uv=0.0, kind=0.0, plain_place=0.0)
    loss, parts = total_loss(make_prediction(), make_batch(), settings, PLACE_SCALE)
    torch.testing.assert_close(loss, 2 * parts["place"])
