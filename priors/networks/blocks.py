"""Parts that the surface networks share: picture normalisation, attention blocks, growing a token grid to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flame.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB in [0, 1] that the pretrained backbones expect to be taken out."""
NUM_UP_CONVOLUTIONS = 3
_CELL_PX = 2
"""Side of the block of pixels that one cell of the last feature map becomes."""
PIXELS_PER_TOKEN = _CELL_PX * 2**NUM_UP_CONVOLUTIONS
"""Side of the block of pixels that a token becomes: 32 x 32 tokens are 512 x 512 pixels."""


class Normalise(nn.Module):
    """Take a mean and a standard deviation, by default ImageNet's, out of pictures (B, 3, S, S) in [0, 1]."""

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        # On the CPU even where modules are built without memory: no checkpoint brings these numbers.
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(tuple(values), device="cpu").view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the pictures with zero mean and unit variance, roughly."""
        return (image - self.mean) / self.std


class Attention(nn.Module):
    """Attend from every token to every token; parameters are named as in ``torch.nn.MultiheadAttention``."""

    def __init__(self, width: int, num_heads: int, *, has_bias: bool) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width)) if has_bias else None
        self.out_proj = nn.Linear(width, width, bias=has_bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, width) mixed by attention."""
        batch, count, width = tokens.shape
        projected = functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.view(batch, count, 3, self._num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, count, width))


class TransformerBlock(nn.Module):
    """Apply attention and a two-layer perceptron, each to the normalised tokens and added to them (pre-norm)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, has_bias=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, width)."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class UpConvolutions(nn.Module):
    """Double a feature map's side three times, then read a block of pixels out of every cell."""

    def __init__(self, width: int, num_channels: int) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, stride=2) for _ in range(NUM_UP_CONVOLUTIONS))
        self.pixels = nn.Linear(width, _CELL_PX**2 * num_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return maps (B, channels, 16 h, 16 w) from features (B, width, h, w)."""
        for layer in self.up:
            features = functional.gelu(layer(features))
        return unpatchify(self.pixels(features.permute(0, 2, 3, 1)), _CELL_PX)


def unpatchify(cells: Tensor, side_px: int) -> Tensor:
    """Lay out cells (B, h, w, side * side * C), stored row, column, channel, as maps (B, C, side * h, side * w)."""
    batch, height, width, _ = cells.shape
    blocks = cells.view(batch, height, width, side_px, side_px, -1)
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height * side_px, width * side_px)


def token_grid(image: Tensor, multiple: int = PIXELS_PER_TOKEN) -> tuple[int, int]:
    """Return how many tokens a picture (B, 3, H, W) becomes along its height and width.

    Raises:
        InputError: its sides are no multiples of the pixels that a token becomes.
    """
    height, width = image.shape[-2:]
    if height % multiple or width % multiple or not height or not width:
        raise InputError(
            f"the network was given pictures of {width} x {height} pixels; it needs multiples of {multiple}"
        )
    return height // multiple, width // multiple
