"""ArcFace's network: a face of 112 x 112 pixels in, a direction that tells people apart out.

The residual network of J. Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019: blocks
of norm, convolution, norm, PReLU, convolution, norm; no pooling; the last 7 x 7 map goes through one linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

INPUT_PX = 112
FEATURES = 512
IRESNET_50, IRESNET_100 = (3, 4, 14, 3), (3, 13, 30, 3)
"""Blocks per stage of the two usual sizes, named after their layers."""
_WIDTHS = (64, 128, 256, 512)
_LAST_PX = INPUT_PX // 2 ** len(_WIDTHS)


class _Block(nn.Module):
    """Add what two convolutions make of the input to it."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.prelu = nn.PReLU(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.downsample: nn.Module | None = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for maps (B, C, H, W)."""
        change = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return change + (x if self.downsample is None else self.downsample(x))


class ArcFace(nn.Module):
    """Turn pictures (B, 3, 112, 112), RGB in [-1, 1], into features (B, 512), not normalised."""

    def __init__(self, blocks: Sequence[int] = IRESNET_100) -> None:
        """Build a network with so many blocks in each of its four stages."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.prelu = nn.PReLU(_WIDTHS[0])
        inner = _WIDTHS[0]
        for number, (count, outer) in enumerate(zip(blocks, _WIDTHS, strict=True), 1):
            first = _Block(inner, outer, 2)
            self.add_module(
                f"layer{number}", nn.Sequential(first, *(_Block(outer, outer, 1) for _ in range(count - 1)))
            )
            inner = outer
        self.bn2 = nn.BatchNorm2d(inner)
        self.fc = nn.Linear(inner * _LAST_PX**2, FEATURES)
        self.features = nn.BatchNorm1d(FEATURES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return features (B, 512)."""
        x = self.prelu(self.bn1(self.conv1(pictures)))
        for number in range(1, len(_WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.features(self.fc(torch.flatten(self.bn2(x), 1)))
