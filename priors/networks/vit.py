"""The paper's network on DINOv2: a vision transformer, four more blocks, three up-convolutions, a linear read-out.

Written from Pixel3DMM, arXiv 2505.00615, section 3.1. Its pictures have 512 x 512 pixels and its tokens form a grid of
32 x 32, while DINOv2 cuts a picture into patches of 14 pixels. Here the picture is resized so that there is one patch
per token (512 to 448 pixels): resizing the features of a finer grid instead would blur them and cost more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from flame.errors import InputError
from priors.networks.blocks import PIXELS_PER_TOKEN, Normalise, TransformerBlock, UpConvolutions, token_grid

Output = Literal["normals", "uv"]
OUTPUT_CHANNELS: dict[Output, int] = {"normals": 3, "uv": 2}
"""What the network can predict, and how many channels that has."""
BACKBONES = (
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch14_dinov2",
    "vit_base_patch14_reg4_dinov2",
)
"""Backbones of timm that may be used; ``reg4`` has four register tokens."""
_PATCH_PX = 14
_UV_MIDDLE = 0.5


@dataclass(frozen=True)
class ViTSurfaceConfig:
    """Set up the paper's network."""

    outputs: tuple[Output, ...] = ("normals",)
    """What is predicted; several outputs share the backbone and have a head each."""
    has_confidence: bool = False
    """Whether each output comes with the logarithm of its standard deviation."""
    backbone: str = "vit_base_patch14_reg4_dinov2"
    """One of `BACKBONES`."""
    backbone_width: int | None = None
    """Width of the backbone's tokens; None: its own. Smaller ones, untrained, are for trials."""
    backbone_depth: int | None = None
    """Blocks of the backbone; None: its own."""
    image_px: int = 512
    """Side of the pictures that positions are learned for; others work, too, multiples of 16."""
    width: int = 256
    """Width of a head's tokens."""
    num_blocks: int = 4
    """Transformer blocks of a head."""
    num_heads: int = 8
    """Attention heads of these blocks."""
    kind: str = "vit"
    """Tells configurations of different networks apart."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            InputError: as said.
        """
        unknown = [name for name in self.outputs if name not in OUTPUT_CHANNELS]
        if unknown or not self.outputs:
            raise InputError(f"the network cannot predict {unknown}; choose some of: {', '.join(OUTPUT_CHANNELS)}")
        if self.backbone not in BACKBONES:
            raise InputError(f"backbone {self.backbone!r} is not known; choose one of: {', '.join(BACKBONES)}")
        if self.image_px % PIXELS_PER_TOKEN:
            raise InputError(f"pictures of {self.image_px} pixels: a multiple of {PIXELS_PER_TOKEN} is needed")
        if self.width % self.num_heads:
            raise InputError(f"a width of {self.width} cannot be divided among {self.num_heads} attention heads")


class ViTSurface(nn.Module):
    """Predict normals, texture coordinates, or both, for every pixel of a face's crop."""

    def __init__(self, config: ViTSurfaceConfig, *, is_pretrained: bool = False) -> None:
        """Build the network; ``is_pretrained`` fetches DINOv2's weights through timm, which needs a network.

        Raises:
            InputError: the weights cannot be fetched, or a backbone of another size was asked for.
        """
        super().__init__()
        self.config = config
        self.normalise = Normalise()
        self.backbone = _backbone(config, is_pretrained)
        self.heads = nn.ModuleDict(
            {
                name: SurfaceHead(
                    int(self.backbone.num_features),
                    config.width,
                    config.num_blocks,
                    config.num_heads,
                    OUTPUT_CHANNELS[name] + config.has_confidence,
                )
                for name in config.outputs
            }
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return maps of pictures (B, 3, S, S), RGB in [0, 1], each at the pictures' size.

        ``normals`` (B, 3, S, S), not normalised; ``uv`` (B, 2, S, S), origin bottom left; with confidence
        ``log_sigma_normals`` and ``log_sigma_uv`` (B, 1, S, S).

        Raises:
            InputError: the sides are no multiples of 16.
        """
        grid = token_grid(image)
        resized = functional.interpolate(
            self.normalise(image), [_PATCH_PX * side for side in grid], mode="bilinear", antialias=True
        )
        tokens = self.backbone.forward_features(resized)[:, self.backbone.num_prefix_tokens :]
        maps: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            predicted = head(tokens, grid)
            count = predicted.shape[1] - self.config.has_confidence
            values = predicted[:, :count]
            maps[name] = values + _UV_MIDDLE if name == "uv" else values
            if self.config.has_confidence:
                maps[f"log_sigma_{name}"] = predicted[:, count:]
        return maps

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the backbone and of the heads, which the paper trains at different rates."""
        return {"backbone": list(self.backbone.parameters()), "head": list(self.heads.parameters())}


class SurfaceHead(nn.Module):
    """Turn a grid of tokens into maps of pixels: projection, transformer blocks, up-convolutions, linear read-out."""

    def __init__(self, num_features: int, width: int, num_blocks: int, num_heads: int, num_channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(num_features, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.grow = UpConvolutions(width, num_channels)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Return maps (B, channels, 16 h, 16 w) from tokens (B, h * w, features) in rows of a grid (h, w)."""
        tokens = self.project(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        features = self.norm(tokens).transpose(1, 2)
        return self.grow(features.unflatten(2, (grid[0], grid[1])))


def _backbone(config: ViTSurfaceConfig, is_pretrained: bool) -> Any:
    """Return timm's vision transformer without a classifier, its positions laid out for the pictures' size."""
    import timm

    sizes = {"embed_dim": config.backbone_width, "depth": config.backbone_depth}
    changed: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    if is_pretrained and changed:
        raise InputError("pretrained weights are those of the backbone's own size; leave width and depth at None")
    side_px = config.image_px // PIXELS_PER_TOKEN * _PATCH_PX
    try:
        return timm.create_model(
            config.backbone,
            pretrained=is_pretrained,
            num_classes=0,
            img_size=side_px,
            dynamic_img_size=True,
            **changed,
        )
    except (OSError, RuntimeError) as error:
        if not is_pretrained:
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the weights of {config.backbone} cannot be fetched ({reason}); connect to the network once, or train "
            "from scratch"
        ) from error
