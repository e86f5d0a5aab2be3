"""Write ``mica.tar`` in the layout of MICA's own file, with random weights and few layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flame.model import HeadModel

SMALL = (1, 2, 1, 1)
WIDTHS = (64, 128, 256, 512)


def norm_names(prefix: str, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{prefix}.{name}", (size,)
    yield f"{prefix}.num_batches_tracked", ()


def arcface_layout(blocks: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of ArcFace's weights as they are in ``mica.tar``."""
    yield "conv1.weight", (64, 3, 3, 3)
    yield from norm_names("bn1", 64)
    yield "prelu.weight", (64,)
    inner = 64
    for stage, (count, outer) in enumerate(zip(blocks, WIDTHS, strict=True), 1):
        for number in range(count):
            block = f"layer{stage}.{number}"
            yield from norm_names(f"{block}.bn1", inner)
            yield f"{block}.conv1.weight", (outer, inner, 3, 3)
            yield from norm_names(f"{block}.bn2", outer)
            yield f"{block}.prelu.weight", (outer,)
            yield f"{block}.conv2.weight", (outer, outer, 3, 3)
            yield from norm_names(f"{block}.bn3", outer)
            if number == 0:
                yield f"{block}.downsample.0.weight", (outer, inner, 1, 1)
                yield from norm_names(f"{block}.downsample.1", outer)
            inner = outer
    yield from norm_names("bn2", 512)
    yield "fc.weight", (512, 512 * 7 * 7)
    yield "fc.bias", (512,)
    yield from norm_names("features", 512)


def random_weights(layout: Iterator[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            return torch.rand(shape, generator=generator) + 0.5
        scale = 0.1 if len(shape) == 1 else (2 / np.prod(shape[1:])) ** 0.5
        return scale * torch.randn(shape, generator=generator)

    return OrderedDict((name, draw(name, shape)) for name, shape in layout)


def regressor_layout(hidden: int = 3) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of the mapping's weights; beyond five hidden layers one gets the features again."""
    for number in range(hidden + 1):
        again = hidden > 5 and number == hidden // 2 + 1
        yield f"regressor.network.{number}.weight", (300, 512 if number == 0 else 812 if again else 300)
        yield f"regressor.network.{number}.bias", (300,)
    yield "regressor.output.weight", (300, 300)
    yield "regressor.output.bias", (300,)


def checkpoint(head: HeadModel | None = None, hidden: int = 3) -> dict[str, Any]:
    """Return a checkpoint of a small network in MICA's layout, with what training left in it."""
    flame: dict[str, Any] = random_weights(regressor_layout(hidden))
    if head is not None:
        flame["generator.v_template"] = head.template.clone()
        flame["generator.shapedirs"] = torch.cat((head.shape_basis, head.expression_basis), dim=2)
        flame["generator.neck_pose"] = torch.nn.Parameter(torch.zeros(1, 3))
    parameters = [torch.nn.Parameter(torch.zeros(3))]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    return {
        "flameModel": flame,
        "arcface": random_weights(arcface_layout(SMALL)),
        "opt": optimiser.state_dict(),
        "validator": {"embeddings_lyhm": {"best": np.float64(1.2)}},
        "epoch": 3,
        "global_step": 160000,
        "batch_size": 8,
    }
