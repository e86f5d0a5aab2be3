"""Measure a network on labelled pictures that it has not learnt from, and draw what it predicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from priors.pixel_kinds import Kind
from priors.training.batches import BatchShape, DataSet, as_arrays, read_picture, stack
from priors.training.losses import total_loss
from priors.training.settings import LossSettings

ANGLES_DEGREES = (11.25, 22.5, 30.0)
"""Angular errors whose share is told, as is usual for predicted normals."""
_MAX_STEP_M, _MAX_STEP_UV = 0.02, 0.05
"""Where labels change more over two pixels there is an edge in depth or a seam, and no slope."""
_MAX_POSITION_PX = 50.0
_TILE_ANGLE_DEGREES, _TILE_PLACE_M = 40.0, 0.03
"""Errors drawn in the brightest colour."""


def validation_batches(data: DataSet, shape: BatchShape, count: int, batch: int = 16) -> Iterator[dict[str, Tensor]]:
    """Return up to ``count`` samples spread evenly over a data set, unchanged, in batches."""
    total = len(data.source)
    numbers = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
    for start in range(0, len(numbers), batch):
        pictures = (read_picture(data.source, int(number)) for number in numbers[start : start + batch])
        yield stack([as_arrays(picture, shape) for picture in pictures])


@torch.no_grad()
def evaluate(
    network: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    losses: LossSettings,
    place_scale: float,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Return figures by name over all pixels of visible skin.

    ``normals_...``: angular error in degrees, shares in percent, ``normals_surer_half_mean_deg`` over the half of the
    pixels of which the network is surer, ``normals_hair_mean_deg`` below hair. ``place_...``: distance on the template
    in millimetres. ``position_...``: how far away in the picture the predicted texture coordinates (or places) are
    seen, in pixels. ``kind_accuracy_percent`` over all pixels. ``loss``: as in training.
    """
    was_training = network.training
    network.eval()
    found: dict[str, list[Tensor]] = defaultdict(list)
    for batch in batches:
        batch = {name: value.to(device) for name, value in batch.items()}
        predicted = {name: value.float() for name, value in network(batch["image"]).items()}
        found["loss"].append(total_loss(predicted, batch, losses, place_scale)[0][None].cpu())
        for name, values in _errors(predicted, batch, place_scale).items():
            found[name].append(values.cpu())
    network.train(was_training)
    return _figures({name: torch.cat(values).double().numpy() for name, values in found.items()})


def score(figures: dict[str, float]) -> float:
    """Return one number to choose the best weights by, smaller is better: errors over typical ones."""
    typical = {"normals_mean_deg": 10.0, "place_mean_mm": 5.0, "position_mean_px": 3.0}
    terms = [figures[name] / unit for name, unit in typical.items() if name in figures]
    return sum(terms) if terms else figures["loss"]


def one_line(figures: dict[str, float]) -> str:
    """Return figures for reading, one line."""
    parts = []
    if "normals_mean_deg" in figures:
        shares = "/".join(f"{figures[f'normals_within_{angle:g}_percent']:.1f}" for angle in ANGLES_DEGREES)
        mean, median = figures["normals_mean_deg"], figures["normals_median_deg"]
        parts.append(f"normals {mean:.2f}° median {median:.2f}° within 11.25/22.5/30° {shares} %")
    if "place_mean_mm" in figures:
        parts.append(f"place {figures['place_mean_mm']:.2f} mm median {figures['place_median_mm']:.2f}")
    if "position_mean_px" in figures:
        parts.append(f"position {figures['position_mean_px']:.2f} px median {figures['position_median_px']:.2f}")
    if "kind_accuracy_percent" in figures:
        parts.append(f"kind {figures['kind_accuracy_percent']:.1f} %")
    return ", ".join([*parts, f"loss {figures['loss']:.3f}"])


def _errors(predicted: dict[str, Tensor], batch: dict[str, Tensor], place_scale: float) -> dict[str, Tensor]:
    """Return errors of single pixels, each (n,)."""
    kind = batch["kind"]
    skin, hair = (batch["valid"] & (kind == each) for each in (Kind.SKIN, Kind.HAIR))
    found = {}
    if "normals" in predicted:
        angle = angular_error_degrees(predicted["normals"], batch["normals"])
        found["angle"], found["hair_angle"] = angle[skin], angle[hair]
        if "log_sigma_normals" in predicted:
            found["sigma"] = predicted["log_sigma_normals"][:, 0][skin]
    pixel = batch["image"].shape[-1] / kind.shape[-1]
    if "place" in predicted:
        place = predicted["place"] * place_scale
        found["place"] = (place - batch["place"]).norm(dim=1)[skin] * 1000
        if "uv" not in predicted:
            found["position"] = pixel * position_error(place, batch["place"], batch["place"], skin, _MAX_STEP_M)
    if "uv" in predicted:
        found["position"] = pixel * position_error(predicted["uv"], batch["uv"], batch["place"], skin, _MAX_STEP_UV)
    if "kind" in predicted:
        known = kind >= 0
        found["is_kind"] = (predicted["kind"].argmax(dim=1) == kind)[known]
    return found


def angular_error_degrees(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle between vectors (B, 3, h, w) of any length, (B, h, w)."""
    a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
    # Exact for small angles, too, unlike the arc cosine.
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)))


def position_error(predicted: Tensor, target: Tensor, place: Tensor, mask: Tensor, max_step: float) -> Tensor:
    """Return how many pixels away the map of labels shows what was predicted, to first order, (n,), at most 50.

    Args:
        predicted: values (B, C, h, w) that change over the surface: texture coordinates or places.
        target: labels of the same.
        place: places (B, 3, h, w), metres, that tell edges in depth.
        mask: pixels that count, bool (B, h, w); those at its border have no slope and are left out.
        max_step: larger changes of a label over two pixels are seams.
    """
    right, down = _slopes(target)
    near = [(each.norm(dim=1) < _MAX_STEP_M / 2) for each in _slopes(place)]
    smooth = [(each.norm(dim=1) < max_step / 2) for each in (right, down)]
    mask = mask[:, 1:-1, 1:-1] & mask[:, 1:-1, :-2] & mask[:, 1:-1, 2:] & mask[:, :-2, 1:-1] & mask[:, 2:, 1:-1]
    mask = mask & near[0] & near[1] & smooth[0] & smooth[1]
    error = (predicted - target)[:, :, 1:-1, 1:-1]
    right, down, error = (each.permute(0, 2, 3, 1)[mask].double() for each in (right, down, error))
    # Least squares for the step in pixels that explains the error.
    xx, xy, yy = (right * right).sum(1), (right * down).sum(1), (down * down).sum(1)
    ex, ey = (right * error).sum(1), (down * error).sum(1)
    determinant = (xx * yy - xy * xy).clamp(min=1e-18)
    x, y = (yy * ex - xy * ey) / determinant, (xx * ey - xy * ex) / determinant
    return torch.hypot(x, y).clamp(max=_MAX_POSITION_PX)


def _slopes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the change per pixel to the right and down, (B, C, h - 2, w - 2)."""
    right = (values[:, :, 1:-1, 2:] - values[:, :, 1:-1, :-2]) / 2
    return right, (values[:, :, 2:, 1:-1] - values[:, :, :-2, 1:-1]) / 2


def _figures(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Return means, medians and shares of errors of single pixels."""
    figures = {"loss": float(found["loss"].mean())}
    angle = found.get("angle", np.zeros(0))
    if len(angle):
        figures["normals_mean_deg"] = float(angle.mean())
        figures["normals_median_deg"] = float(np.median(angle))
        for limit in ANGLES_DEGREES:
            figures[f"normals_within_{limit:g}_percent"] = 100 * float((angle < limit).mean())
        if "sigma" in found:
            surer = np.argsort(found["sigma"])[: max(1, len(angle) // 2)]
            figures["normals_surer_half_mean_deg"] = float(angle[surer].mean())
    if len(found.get("hair_angle", ())):
        figures["normals_hair_mean_deg"] = float(found["hair_angle"].mean())
    for name, unit in (("place", "mm"), ("position", "px")):
        values = found.get(name, np.zeros(0))
        if len(values):
            figures[f"{name}_mean_{unit}"] = float(values.mean())
            figures[f"{name}_median_{unit}"] = float(np.median(values))
    if len(found.get("is_kind", ())):
        figures["kind_accuracy_percent"] = 100 * float(found["is_kind"].mean())
    return figures


@torch.no_grad()
def draw(network: nn.Module, batch: dict[str, Tensor], place_scale: float, device: torch.device | str) -> np.ndarray:
    """Return a picture, uint8 RGB, a row per sample: input, then predicted, true and error of normals and of places."""
    was_training = network.training
    network.eval()
    predicted = {name: value.float().cpu() for name, value in network(batch["image"].to(device)).items()}
    network.train(was_training)
    side = batch["kind"].shape[-1]
    seen = batch["valid"].numpy()[..., None]
    image = functional.interpolate(batch["image"], (side, side), mode="area")
    columns = [_channels_last(image)]
    if "normals" in predicted:
        normals = _channels_last(functional.normalize(predicted["normals"], dim=1))
        angle = angular_error_degrees(predicted["normals"], batch["normals"]).numpy()
        columns += _tiles(normals, _channels_last(batch["normals"]), seen, angle / _TILE_ANGLE_DEGREES, (1, -1, -1))
    if "place" in predicted:
        place, truth = _channels_last(predicted["place"] * place_scale), _channels_last(batch["place"])
        error = np.linalg.norm(place - truth, axis=-1) / _TILE_PLACE_M
        columns += _tiles(place / 0.12, truth / 0.12, seen, error, (1, 1, 1))
    if "uv" in predicted:
        uv, truth = _channels_last(predicted["uv"]), _channels_last(batch["uv"])
        third = np.full((*uv.shape[:3], 1), -1.0)
        error = np.linalg.norm(uv - truth, axis=-1) / 0.1
        wide = [np.concatenate((2 * each - 1, third), axis=-1) for each in (uv, truth)]
        columns += _tiles(wide[0], wide[1], seen, error, (1, 1, 1))
    rows = np.concatenate(columns, axis=2)
    return (np.clip(rows.reshape(-1, *rows.shape[2:]), 0, 1) * 255 + 0.5).astype(np.uint8)


def _channels_last(values: Tensor) -> np.ndarray:
    return values.permute(0, 2, 3, 1).numpy()


def _tiles(
    predicted: np.ndarray, truth: np.ndarray, seen: np.ndarray, error: np.ndarray, signs: tuple[int, int, int]
) -> list[np.ndarray]:
    """Return three columns of values in [-1, 1] as colours, the error from black over red and yellow to white."""
    heat = np.clip(3 * error[..., None] - (0, 1, 2), 0, 1) * seen
    shown = [np.where(mask, 0.5 + 0.5 * values * signs, 0.0) for values, mask in ((predicted, True), (truth, seen))]
    return [*shown, heat]


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Store a picture, uint8 RGB, as PNG."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])
