"""The network of the released Pixel3DMM checkpoints, as they are: not the paper's DINOv2, and blocks of their own.

A vision transformer with patches of 16 pixels and one class token makes 32 x 32 tokens of 512 x 512 pixels. A smaller
transformer follows whose blocks take the residual from the *normalised* stream, then three transposed convolutions and
a linear read-out without activation. Modules are named as in the checkpoints. Facts from the public sources of
Pixel3DMM (SimonGiebenhain/pixel3dmm at 98b5d79); the code is our own.

``ReleasedNetwork`` speaks the release's conventions; ``ReleasedSurface`` turns them into those of `priors.networks`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flame.errors import InputError
from priors.networks.blocks import Attention, Normalise, token_grid, unpatchify

RELEASED_IMAGE_PX = 512
_BACKBONE = re.compile(r"vit_(tiny|small|base|large)_patch16_224(\.[a-z0-9_]+)?")
PATCH_PX = 16
_CHANNELS = {"pos_map": 3, "uv_map": 2, "normals": 3, "albedo": 3, "nocs": 3}
"""What checkpoints can predict, in the order of their channels."""
_SECOND_OUTPUT = {"pos_map": "pos_map_can", "uv_map": "disps", "normals": "normals_can"}
"""What is predicted besides when a checkpoint is ``pred_disentangled``; as many channels again."""


@dataclass(frozen=True)
class ReleasedConfig:
    """Set up the network as a checkpoint's own configuration says."""

    outputs: tuple[str, ...] = ("normals",)
    """The checkpoint's ``prediction_type``."""
    backbone: str = "vit_base_patch16_224.dino"
    """Vision transformer of timm."""
    backbone_width: int | None = None
    """Width of its tokens as found in the weights; None: its own."""
    backbone_depth: int | None = None
    """Its blocks as found in the weights; None: its own."""
    position_tokens: int = 197
    """Learned positions, the class token's included."""
    width: int = 256
    """``embedding_dim``."""
    num_layers: int = 2
    num_heads: int = 8
    num_views: int = 1
    """``n_views``: pictures that were looked at together in training; one is, here."""
    view_width: int = 16
    """``view_embed_dim``."""
    has_position_grid: bool = False
    """``use_pos_enc``."""
    has_up_convolutions: bool = True
    """``conv_dec``."""
    has_confidence: bool = False
    """``pred_conf``."""
    is_disentangled: bool = False
    """``pred_disentangled``."""
    kind: str = "released"
    """Tells configurations of different networks apart."""

    def __post_init__(self) -> None:
        """Refuse what is no released architecture.

        Raises:
            InputError: as said.
        """
        unknown = [name for name in self.outputs if name not in _CHANNELS]
        if unknown or not self.outputs:
            raise InputError(f"a checkpoint that predicts {unknown} is not known; known: {', '.join(_CHANNELS)}")
        if not _BACKBONE.fullmatch(self.backbone):
            raise InputError(
                f"the checkpoint's backbone is {self.backbone!r}; the released networks have "
                "vit_small_patch16_224.dino or vit_base_patch16_224.dino"
            )
        if self.num_heads < 1 or self.width % self.num_heads:
            raise InputError(f"a width of {self.width} cannot be divided among {self.num_heads} attention heads")

    @property
    def channels(self) -> dict[str, int]:
        """Return the channels of each output, in order."""
        found = {}
        for name, count in _CHANNELS.items():
            if name in self.outputs:
                found[name] = count
                if self.is_disentangled and name in _SECOND_OUTPUT:
                    found[_SECOND_OUTPUT[name]] = count
        return found


class ReleasedNetwork(nn.Module):
    """Predict what a released checkpoint predicts, in its own conventions."""

    def __init__(self, config: ReleasedConfig) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.config = config
        self.img_encoder = _ImageEncoder(config)
        features, width = self.img_encoder.num_features, config.width
        side = RELEASED_IMAGE_PX // PATCH_PX
        self.patch_pos_enc = nn.Parameter(torch.zeros(1, features, side, side)) if config.has_position_grid else None
        self.view_embed = None
        if config.num_views > 1:
            self.view_embed = nn.Parameter(torch.zeros(1, config.num_views, config.view_width, 1, 1))
            features += config.view_width
        self.vol_decoder = _VolTransformer(features, width, config.num_layers, config.num_heads)
        self._side_px = 2 if config.has_up_convolutions else PATCH_PX
        if config.has_up_convolutions:
            self.t_conv1, self.t_conv2, self.t_conv3 = (_doubling(width) for _ in range(3))
        self.token_2_patch_content = nn.Linear(width, self._side_px**2 * sum(config.channels.values()))
        if config.has_confidence:
            self.t_conv3_conf = _doubling(width)
            self.token_2_patch_conf = nn.Linear(width, self._side_px**2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return raw maps of pictures (B, 3, S, S), RGB in [0, 1]: ``uv_map``, ``normals`` …, and ``confidence``.

        Raises:
            InputError: the sides are no multiples of 16, or others than 512 where positions are learned for that.
        """
        grid = token_grid(image, PATCH_PX)
        features = self.img_encoder(image).transpose(1, 2).unflatten(2, grid)
        if self.patch_pos_enc is not None:
            if grid != tuple(self.patch_pos_enc.shape[-2:]):
                raise InputError(f"this checkpoint looks at pictures of {RELEASED_IMAGE_PX} pixels only")
            features = features + self.patch_pos_enc
        if self.view_embed is not None:
            view = self.view_embed[:, 0].expand(len(features), -1, *grid)
            features = torch.cat((features, view), dim=1)
        features = self.vol_decoder(features.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, grid)
        confidence = None
        if self.config.has_up_convolutions:
            features = functional.gelu(self.t_conv2(functional.gelu(self.t_conv1(features))))
            if self.config.has_confidence:
                confidence = functional.gelu(self.t_conv3_conf(features))
            features = functional.gelu(self.t_conv3(features))
        predicted = self._pixels(self.token_2_patch_content, features)
        channels = self.config.channels
        maps = dict(zip(channels, predicted.split(list(channels.values()), dim=1), strict=True))
        if confidence is not None:
            maps["confidence"] = self._pixels(self.token_2_patch_conf, confidence)
        return maps

    def _pixels(self, read: nn.Module, features: Tensor) -> Tensor:
        return unpatchify(read(features.permute(0, 2, 3, 1)), self._side_px)


class ReleasedSurface(nn.Module):
    """Run the released networks and return ``uv`` and ``normals`` in the conventions of `priors.networks`.

    Texture coordinates have their origin bottom left; normals are in head space, rotations of root and neck undone.
    """

    def __init__(self, uv: ReleasedNetwork | None, normals: ReleasedNetwork | None) -> None:
        """Take the network of ``uv.ckpt``, that of ``normals.ckpt``, or both."""
        super().__init__()
        self.uv, self.normals = uv, normals

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return maps of pictures (B, 3, 512, 512), RGB in [0, 1]."""
        maps = {}
        if self.uv is not None:
            maps["uv"] = uv_from_raw(self.uv(image)["uv_map"])
        if self.normals is not None:
            maps["normals"] = normals_from_raw(self.normals(image)["normals"])
        return maps


def uv_from_raw(raw: Tensor) -> Tensor:
    """Return texture coordinates (B, 2, h, w), origin bottom left, from the release's: in [-1, 1], origin top left."""
    u, v = ((raw + 1) / 2).unbind(dim=1)
    return torch.stack((u, 1 - v), dim=1)


def raw_from_uv(uv: Tensor) -> Tensor:
    """Return the release's texture map of one with its origin bottom left, (B, 2, h, w)."""
    u, v = uv.unbind(dim=1)
    return 2 * torch.stack((u, 1 - v), dim=1) - 1


def normals_from_raw(raw: Tensor) -> Tensor:
    """Return normals (B, 3, h, w) in head space from the release's order (x, -z, -y)."""
    x, minus_z, minus_y = raw.unbind(dim=1)
    return torch.stack((x, -minus_y, -minus_z), dim=1)


def raw_from_normals(normals: Tensor) -> Tensor:
    """Return the release's normal map of one in head space, (B, 3, h, w)."""
    x, y, z = normals.unbind(dim=1)
    return torch.stack((x, -z, -y), dim=1)


class _ImageEncoder(nn.Module):
    """Make tokens of pictures by timm's vision transformer, as the checkpoint has it."""

    def __init__(self, config: ReleasedConfig) -> None:
        import timm

        super().__init__()
        sizes = {"embed_dim": config.backbone_width, "depth": config.backbone_depth}
        # Positions are learned for a picture size of their own, and resampled for others.
        options: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        options["img_size"] = round((config.position_tokens - 1) ** 0.5) * PATCH_PX
        self.model: Any = timm.create_model(
            config.backbone, pretrained=False, num_classes=0, dynamic_img_size=True, **options
        )
        self.num_features = int(self.model.num_features)
        self.normalise = Normalise(self.model.pretrained_cfg["mean"], self.model.pretrained_cfg["std"])

    def forward(self, image: Tensor) -> Tensor:
        """Return tokens (B, N, features) in reading order, without the class token."""
        return self.model.forward_features(self.normalise(image))[:, 1:]


class _GroupAttBlock(nn.Module):
    """Apply two units of attention and perceptron; each continues from the normalised stream, not from its input."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))
        self.self_attn, self.self_attn2 = (Attention(width, num_heads, has_bias=False) for _ in range(2))
        self.mlp, self.mlp2 = (_perceptron(width) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm1(tokens)
        tokens = tokens + self.self_attn(tokens)
        tokens = tokens + self.mlp(self.norm2(tokens))
        tokens = self.norm3(tokens)
        tokens = tokens + self.self_attn2(tokens)
        return tokens + self.mlp2(self.norm4(tokens))


class _VolTransformer(nn.Module):
    """Narrow the tokens, then apply the blocks; no normalisation at the end."""

    def __init__(self, num_features: int, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(num_features, width)
        self.layers = nn.ModuleList(_GroupAttBlock(width, num_heads) for _ in range(num_layers))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.down_proj(tokens)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


def _perceptron(width: int) -> nn.Sequential:
    # The release has dropouts of probability zero at places 2 and 4.
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width))


def _doubling(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, 2, stride=2)
