"""Load the released Pixel3DMM checkpoints: every weight that the network needs, none silently left over.

The architecture is what the checkpoint's own configuration (``hyper_parameters["cfg"]``) says, not what the release's
configuration files say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flame.errors import AssetMissingError, InputError
from priors.networks.released import PATCH_PX, ReleasedConfig, ReleasedNetwork, ReleasedSurface
from priors.networks.torch_file import StoredTensor, read_torch_file

UV_FILE, NORMALS_FILE = "uv.ckpt", "normals.ckpt"
_WHERE = (
    "the networks of Pixel3DMM are at https://huggingface.co/SimonGiebenhain/Pixel3dmm, licence CC BY-NC 4.0 (no "
    f"commercial use); put {UV_FILE} and {NORMALS_FILE} into one folder and name it with --weights DIR"
)
_PREFIX = "net."
_BACKBONE_PREFIX = "net.img_encoder.model."
_LAYER = re.compile(r"net\.vol_decoder\.layers\.(\d+)\.")
_BLOCK = re.compile(r"net\.img_encoder\.model\.blocks\.(\d+)\.")
UNUSED = {
    "vertex_weight_mask": "weights of vertices in training",
    "net.dir_norm.": "ray directions, which no released network is given",
    "net.dir_norm_uv.": "the same with encoded texture coordinates",
    "net.uv_enc_mlp.": "the same",
    "net.vol_decoder.norm.": "a normalisation that is never applied",
    "net.img_encoder.model.head.": "the backbone's classifier",
    "net.facial_components": "tokens for head parameters, used with another backbone only",
    "net.head_": "head parameters from those tokens",
}
"""Beginnings of names in a checkpoint that the maps do not need, and what they are."""
_UNUSED_WITHOUT_UP_CONVOLUTIONS = ("net.t_conv",)


def load_released(weights: str | Path) -> ReleasedSurface:
    """Load the two released networks from a folder.

    Raises:
        AssetMissingError: a file is not there; the message says where it comes from and its licence.
        InputError: a file is damaged, or of another architecture.
        UnsafeFileError: a file asks to run code.
    """
    folder = Path(weights)
    missing = [name for name in (UV_FILE, NORMALS_FILE) if not (folder / name).is_file()]
    if missing:
        raise AssetMissingError(f"{folder} has no {' and no '.join(missing)}: {_WHERE}")
    return ReleasedSurface(
        load_released_network(folder / UV_FILE, "uv_map"), load_released_network(folder / NORMALS_FILE, "normals")
    )


def load_released_network(path: str | Path, output: str) -> ReleasedNetwork:
    """Load one released network that has to predict ``output``: ``uv_map`` or ``normals``.

    Raises:
        UserError: as ``load_released`` does.
    """
    path = Path(path)
    file = read_torch_file(path)
    stored = _stored_weights(file.content, path)
    config = read_config(file.content, stored, path)
    if output not in config.outputs:
        raise InputError(f"{path} predicts {', '.join(config.outputs)}, not {output}: are the files confused?")
    with torch.device("meta"):
        network = ReleasedNetwork(config)
    needed = {f"{_PREFIX}{name}": value for name, value in network.state_dict().items()}
    _check_names(stored, needed, config, path)
    weights = file.tensors({name: stored[name] for name in needed})
    floats = {name.removeprefix(_PREFIX): value.float() for name, value in weights.items()}
    _check_finite(floats, path)
    network.load_state_dict(floats, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def read_config(content: Any, stored: Mapping[str, StoredTensor], path: Path) -> ReleasedConfig:
    """Return the architecture that a checkpoint's configuration and its weights' shapes tell.

    Raises:
        InputError: something is missing, or the architecture is none of the released ones.
    """
    settings = _Settings(_configuration(content, path), str(path))
    backbone = settings.of("model.feature_map_type", str)
    if backbone != "DINO":
        raise InputError(f"{path} looks at pictures by {backbone!r}; networks with 'DINO' are read")
    if settings.of("model.use_uv_enc", bool, False):
        raise InputError(f"{path} needs encoded texture coordinates beside the picture, which nobody can give it")
    num_layers, width = settings.of("model.num_layers", int), settings.of("model.embedding_dim", int)
    positions = _shape(stored, f"{_BACKBONE_PREFIX}pos_embed", path)
    patches = _shape(stored, f"{_BACKBONE_PREFIX}patch_embed.proj.weight", path)
    if len(positions) != 3 or len(patches) != 4 or patches[2:] != (PATCH_PX, PATCH_PX):
        raise InputError(f"{path}: its backbone cuts patches of {patches[2:]} pixels; {PATCH_PX} are expected")
    if round((positions[1] - 1) ** 0.5) ** 2 != positions[1] - 1:
        raise InputError(f"{path}: its backbone has {positions[1]} positions, which are no square and a class token")
    if num_layers != _count(stored, _LAYER):
        raise InputError(f"{path} says it has {num_layers} layers; there are weights of {_count(stored, _LAYER)}")
    num_views = settings.of("n_views", int, 1)
    return ReleasedConfig(
        outputs=_outputs(settings),
        backbone=settings.of("model.encoder_backbone", str),
        backbone_width=positions[2],
        backbone_depth=_count(stored, _BLOCK),
        position_tokens=positions[1],
        width=width,
        num_layers=num_layers,
        num_heads=settings.of("model.num_heads", int),
        num_views=num_views,
        view_width=settings.of("model.view_embed_dim", int) if num_views > 1 else 0,
        has_position_grid=settings.of("model.use_pos_enc", bool, False),
        has_up_convolutions=settings.of("model.conv_dec", bool, False),
        has_confidence=settings.of("model.pred_conf", bool, False),
        is_disentangled=settings.of("model.pred_disentangled", bool, False),
    )


@dataclass(frozen=True)
class _Settings:
    """Give the values of a nested configuration by dotted name, checked."""

    values: Mapping[str, Any]
    label: str

    def find(self, name: str) -> Any:
        """Return a value, None where there is none."""
        value: Any = self.values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def of(self, name: str, kind: type, default: Any = None) -> Any:
        """Return a value of a kind; the default where there is none."""
        value = self.find(name)
        value = default if value is None else value
        if type(value) is not kind:
            found = "is not there" if value is None else f"is {value!r}"
            raise InputError(f"{self.label}: {name!r} of its configuration {found}; {kind.__name__} is needed")
        return value


def _configuration(content: Any, path: Path) -> Mapping[str, Any]:
    """Return the configuration with which a checkpoint was trained."""
    held = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    held = held.get("cfg", held) if isinstance(held, Mapping) else None
    if not isinstance(held, Mapping) or not isinstance(held.get("model"), Mapping):
        raise InputError(f"{path} holds no configuration (hyper_parameters.cfg.model), so its architecture is unknown")
    return held


def _outputs(settings: _Settings) -> tuple[str, ...]:
    """Return what is predicted: the release names one thing, or several in a list."""
    value = settings.find("model.prediction_type")
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{settings.label}: 'model.prediction_type' of its configuration is {value!r}; names are needed"
        )
    return tuple(names)


def _stored_weights(content: Any, path: Path) -> dict[str, StoredTensor]:
    weights = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        raise InputError(f"{path} holds no weights (state_dict); it is no checkpoint of Pixel3DMM")
    odd = [str(name) for name, value in weights.items() if not isinstance(value, StoredTensor)]
    if odd:
        raise InputError(f"{path}: {odd[0]} is no tensor")
    return {str(name): value for name, value in weights.items()}


def _shape(stored: Mapping[str, StoredTensor], name: str, path: Path) -> tuple[int, ...]:
    if name not in stored:
        raise InputError(f"{path} has no weights {name}; it is no checkpoint of Pixel3DMM's networks")
    return stored[name].shape


def _count(stored: Mapping[str, StoredTensor], pattern: re.Pattern[str]) -> int:
    """Return how many numbered modules there are weights of."""
    return len({match[1] for match in map(pattern.match, stored) if match})


def _check_names(
    stored: Mapping[str, StoredTensor], needed: Mapping[str, Tensor], config: ReleasedConfig, path: Path
) -> None:
    """Refuse a checkpoint that lacks weights, has them in other shapes, or has some whose purpose is not known."""
    missing = sorted(set(needed) - set(stored))
    if missing:
        raise InputError(f"{path} lacks {len(missing)} weights that its configuration asks for: {_some(missing)}")
    known = (*UNUSED, *(() if config.has_up_convolutions else _UNUSED_WITHOUT_UP_CONVOLUTIONS))
    unknown = sorted(name for name in stored if name not in needed and not name.startswith(known))
    if unknown:
        raise InputError(
            f"{path} has {len(unknown)} weights that this architecture does not know: {_some(unknown)}; its maps would "
            "not be those of its authors"
        )
    for name, value in needed.items():
        if stored[name].shape != tuple(value.shape):
            raise InputError(f"{path}: {name} has shape {stored[name].shape}; {tuple(value.shape)} is needed")


def _check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name} holds values that are not finite")


def _some(names: list[str]) -> str:
    """Return the first few names."""
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
