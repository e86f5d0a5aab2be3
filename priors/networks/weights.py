"""Weights of our own networks on disk: one safetensors file that says in its header which network it fills.

The format holds nothing but numbers and text, so a file from anybody can be read without running anything in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flame.errors import AssetMissingError, InputError
from priors.networks import build_network, config_from

if TYPE_CHECKING:
    from torch import nn

_KEY = "pixel3dmm-tracker"
_VERSION = 1


@dataclass(frozen=True)
class WeightsCard:
    """Say which network a file of weights fills, and what it learnt."""

    network: Any
    """Configuration of the network; see ``priors.networks.build_network``."""
    normal_space: str
    """Space of its normals: ``ray``, ``head`` or ``camera``."""
    head_hash: str
    """``content_hash`` of the head whose places and texture coordinates it speaks."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained and measured; JSON values."""


def save_network(path: str | Path, network: nn.Module, card: WeightsCard, *, is_half: bool = False) -> None:
    """Store a network's weights, as float16 if wanted; the file appears whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    from safetensors.torch import save

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().cpu()
        tensor = tensor.half() if is_half and tensor.is_floating_point() else tensor
        return tensor.clone(memory_format=torch.contiguous_format)

    values = {"version": _VERSION, **dataclasses.asdict(card)}
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        tensors = {name: stored(tensor) for name, tensor in network.state_dict().items()}
        partial.write_bytes(save(tensors, metadata={"format": "pt", _KEY: json.dumps(values)}))
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}); check the folder and the disk") from error
    finally:
        partial.unlink(missing_ok=True)


def load_card(path: str | Path) -> WeightsCard:
    """Read what a file of weights says of itself.

    Raises:
        AssetMissingError: there is no such file.
        InputError: it is no file of weights of ours, or of a network that this version does not have.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise AssetMissingError(f"weights {path} are not there; training writes them as RUN/best.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no safetensors file ({error}); give RUN/best.safetensors of a training") from error
    if text is None:
        raise InputError(f"{path} holds weights of another program; give RUN/best.safetensors of a training")
    try:
        values = json.loads(text)
        version = values["version"]
        if version != _VERSION:
            raise InputError(f"{path} has format version {version}; this program reads version {_VERSION}")
        config = config_from(values["network"])
        return WeightsCard(config, values["normal_space"], values["head_hash"], values["summary"])
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} has a damaged header ({error}); write it again") from error


def load_network(path: str | Path) -> nn.Module:
    """Return the network that a file describes, filled with its weights, float32, ready to predict on the CPU.

    Raises:
        AssetMissingError: there is no such file.
        InputError: it is no file of weights of ours, or its weights do not fill its network.
    """
    network = build_network(load_card(path).network)
    fill_network(network, path)
    return network.eval()


def fill_network(network: nn.Module, path: str | Path) -> None:
    """Give a network the weights in a file, every one and no other.

    Raises:
        AssetMissingError: there is no such file.
        InputError: the file cannot be read, or its weights are those of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise AssetMissingError(f"weights {path} are not there")
    try:
        network.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file ({error})") from error
    except RuntimeError as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{path} holds weights of another network ({line}…)") from error
