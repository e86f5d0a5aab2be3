"""A small network for one upright face: where on the head each pixel lies, how it is turned, what it shows, how surely.

Residual convolutions in the shape of a U: most of the work is done at 1/4 to 1/32 of the picture's size, the maps come
out at 1/2. Places on the template have no seams, unlike texture coordinates, which follow from them by lookup. Places
and normals are predicted as differences from those of an average head seen from the front, so that the network begins
with a sensible answer wherever a face fills the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from flame.errors import InputError
from priors.pixel_kinds import Kind

PLACE_SCALE = 0.1
"""Metres per unit of the network's places on the template."""
NUM_KINDS = len(Kind)
_STRIDE = 2
_HEADS = {"place": 3, "log_sigma_place": 1, "normals": 3, "log_sigma_normals": 1, "kind": NUM_KINDS}
_PICTURE_MEAN, _PICTURE_STD = 0.45, 0.25


@dataclass(frozen=True)
class CompactConfig:
    """Set the size of a compact network."""

    input_px: int = 256
    """Side of the picture, a multiple of 32."""
    widths: tuple[int, ...] = (16, 32, 64, 128, 224)
    """Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture's size."""
    depths: tuple[int, ...] = (0, 1, 2, 3, 3)
    """Residual blocks at each size on the way down."""
    kind: str = "compact"
    """Tells configurations of different networks apart."""

    def __post_init__(self) -> None:
        """Refuse a side that cannot be halved five times.

        Raises:
            InputError: the side of the picture is no multiple of 32, or there are not five widths and depths.
        """
        if self.input_px % 32 or len(self.widths) != 5 or len(self.depths) != 5:
            raise InputError(
                f"a compact network of {self.input_px} px, {len(self.widths)} widths and {len(self.depths)} depths "
                "cannot be built; the side must be a multiple of 32, and there are 5 widths and 5 depths"
            )


class _Block(nn.Module):
    """Add what two convolutions make of the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(inner)))


def _step(width_in: int, width_out: int, stride: int) -> nn.Sequential:
    """Return a convolution with normalisation and activation."""
    kernel = 3 if stride > 1 else 1
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


class CompactNetwork(nn.Module):
    """Predict maps of an upright face; see the module."""

    def __init__(self, config: CompactConfig) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Sequential(_step(5, widths[0], 2), _step(widths[0], widths[0], 1))
        self.down = nn.ModuleList(
            nn.Sequential(_step(a, b, 2), *(_Block(b) for _ in range(depth)))
            for a, b, depth in zip(widths, widths[1:], config.depths[1:], strict=False)
        )
        self.context = nn.Sequential(nn.Linear(widths[-1], widths[-1]), nn.ReLU(), nn.Linear(widths[-1], widths[-1]))
        self.narrow = nn.ModuleList(_step(b, a, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.merge = nn.ModuleList(_Block(width) for width in widths[1:-1])
        self.last = nn.Sequential(
            nn.Conv2d(widths[0], 2 * widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * widths[0]),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Conv2d(2 * widths[0], sum(_HEADS.values()), 1)
        nn.init.normal_(self.head.weight, std=1e-2)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Predict maps at half the picture's size.

        Args:
            image: RGB in [0, 1], (B, 3, S, S).

        Returns:
            ``place`` (B, 3, S/2, S/2) on the template in units of PLACE_SCALE, ``normals`` (B, 3, ...) in ray space,
            not normalised, ``log_sigma_place`` and ``log_sigma_normals`` (B, 1, ...), ``kind`` logits (B, 6, ...).
        """
        grid = _grid(image)
        levels = [self.stem(torch.cat(((image - _PICTURE_MEAN) / _PICTURE_STD, grid), dim=1))]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        x = functional.relu(x + self.context(x.mean(dim=(2, 3)))[:, :, None, None])
        for index in range(len(levels) - 1, -1, -1):
            wide = functional.interpolate(self.narrow[index](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = levels[index] + wide
            if index > 0:
                x = self.merge[index - 1](x)
        maps = self.head(self.last(x)).split(tuple(_HEADS.values()), dim=1)
        named = dict(zip(_HEADS, maps, strict=True))
        start = functional.avg_pool2d(grid, _STRIDE)
        named["place"] = named["place"] + _average_place(start)
        named["normals"] = named["normals"] + _average_normals(start)
        return named


def _grid(image: Tensor) -> Tensor:
    """Return x and y of pixel centres, -1 to 1, right and down (B, 2, S, S)."""
    height, width = image.shape[-2:]
    x = (torch.arange(width, device=image.device, dtype=image.dtype) + 0.5) * (2 / width) - 1
    y = (torch.arange(height, device=image.device, dtype=image.dtype) + 0.5) * (2 / height) - 1
    grid = torch.stack((x.expand(height, width), y[:, None].expand(height, width)))
    return grid.expand(len(image), 2, height, width)


def _average_place(grid: Tensor) -> Tensor:
    """Return where an ellipsoid of a head's size, seen from the front, has each point of the grid (B, 3, h, w)."""
    x, y = grid[:, :1] * 1.3, (grid[:, 1:] - 0.1) * -1.3
    return torch.cat((x, y, 0.9 * _bulge(grid)), dim=1)


def _average_normals(grid: Tensor) -> Tensor:
    """Return the normals of that ellipsoid in the camera's axes (B, 3, h, w), facing the camera."""
    return torch.cat((grid[:, :1] * 1.2, (grid[:, 1:] - 0.1) * 0.9, -_bulge(grid)), dim=1)


def _bulge(grid: Tensor) -> Tensor:
    return (1 - 0.8 * (grid**2).sum(dim=1, keepdim=True)).clamp(min=0.05).sqrt()
