"""What a network is told to make small.

Places, texture coordinates and normals: where the network says how sure it is, the likelihood of the distance r between
prediction and truth with an expected distance sigma of its own, r / sigma + log sigma, as of a Laplace distribution,
and beside it the plain distance; where it does not, the masked distance of Pixel3DMM (arXiv 2505.00615, section 3.2).
What a pixel shows: cross-entropy.

Every mean is one of pictures: sums over a picture's pixels are divided by that picture's weights alone. So the loss of
a large batch is the mean of the losses of its equal parts, on one process or several.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from priors.training.settings import LossSettings

UNKNOWN_KIND = -1
"""Pixels of this kind say nothing about what they show."""
SIGMA_BOUNDS = {"place": (0.005, 3.0), "normals": (0.01, 2.0), "uv": (5e-4, 1.0)}
"""Smallest and largest expected distance: units of the network's places (0.1 m), of unit vectors, of the texture."""
_PLAIN_UNIT = {"place": 0.1, "normals": 0.3, "uv": 0.03}
"""Distances that count 1 in the plain part."""
_MIN_SHARE = 0.05
"""Pictures with fewer labelled pixels count for less, as if so many of their pixels were labelled."""
_MIN_DISTANCE_SQUARED = 1e-8


def total_loss(
    predicted: dict[str, Tensor], batch: dict[str, Tensor], settings: LossSettings, place_scale: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss and its parts by name, each before weighting.

    Args:
        predicted: maps of a network, any precision; see ``priors.networks``.
        batch: labels of the same size; see ``batches``.
        settings: weights.
        place_scale: metres per unit of predicted places.

    Raises:
        ValueError: the network predicts nothing that can be learnt.
    """
    predicted = {name: value.float() for name, value in predicted.items()}
    weight = pixel_weights(batch["kind"], batch["valid"], settings)
    targets = {"place": batch["place"] / place_scale, "normals": batch["normals"], "uv": batch["uv"]}
    parts: dict[str, Tensor] = {}
    total = weight.new_zeros(())
    for name in ("place", "normals", "uv"):
        if name not in predicted:
            continue
        value = predicted[name]
        if name == "normals" and settings.is_normalised:
            value = functional.normalize(value, dim=1, eps=1e-4)
        error = distance(value, targets[name])
        log_sigma = predicted.get(f"log_sigma_{name}")
        if log_sigma is None:
            parts[name] = weighted_mean(error, weight)
            total = total + getattr(settings, name) * parts[name]
            continue
        parts[name] = weighted_mean(likelihood_loss(error, log_sigma[:, 0], SIGMA_BOUNDS[name]), weight)
        plain = weighted_mean(error, weight) / _PLAIN_UNIT[name]
        total = total + getattr(settings, name) * (parts[name] + getattr(settings, f"plain_{name}") * plain)
    if "kind" in predicted:
        parts["kind"] = kind_loss(predicted["kind"], batch["kind"])
        total = total + settings.kind * parts["kind"]
    if not parts:
        raise ValueError(f"the network predicts {sorted(predicted)}; nothing of it can be learnt")
    return total, parts


def pixel_weights(kind: Tensor, valid: Tensor, settings: LossSettings) -> Tensor:
    """Return how much each pixel counts for places, texture coordinates and normals, float32 (B, h, w)."""
    table = kind.new_tensor(
        (0.0, settings.skin_weight, settings.eye_weight, settings.mouth_weight, settings.hair_weight, 0.0),
        dtype=torch.float32,
    )
    return table[kind.clamp(min=0)] * (valid & (kind >= 0))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the distance between vectors (B, C, h, w), (B, h, w); its gradient is finite where they are equal."""
    return ((a - b).square().sum(dim=1) + _MIN_DISTANCE_SQUARED).sqrt()


def likelihood_loss(error: Tensor, log_sigma: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return error / sigma + log sigma, whose minimum is where sigma is the expected error; sigma is held in bounds."""
    low, high = (float(torch.tensor(bound).log()) for bound in bounds)
    log_sigma = log_sigma.clamp(low, high)
    return error * torch.exp(-log_sigma) + log_sigma


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over pictures of the weighted mean over pixels (B, h, w)."""
    least = _MIN_SHARE * weight[0].numel()
    return ((values * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=least)).mean()


def kind_loss(logits: Tensor, kind: Tensor) -> Tensor:
    """Return the cross-entropy of kinds, logits (B, K, h, w) and int64 (B, h, w), pixels of unknown kind left out."""
    losses = functional.cross_entropy(logits, kind, ignore_index=UNKNOWN_KIND, reduction="none")
    return weighted_mean(losses, (kind != UNKNOWN_KIND).float())
