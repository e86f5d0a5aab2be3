"""Write checkpoints in the layout of the released Pixel3DMM networks, with random weights and small sizes.

OmegaConf is imitated: its containers are pickled under its names and with its attributes, whether it is installed or
not.
"""

from __future__ import annotations

import collections
import io
import pickle
import types
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from priors.networks.released import ReleasedConfig, ReleasedNetwork

SMALL = ReleasedConfig(
    backbone="vit_small_patch16_224.dino",
    backbone_width=36,
    backbone_depth=1,
    width=32,
    num_layers=1,
    num_heads=4,
    num_views=2,
    view_width=8,
    has_position_grid=True,
)
"""The released architecture, small."""


class Metadata:
    """Stand for what OmegaConf notes of a value."""

    pickled_as = ("omegaconf.base", "Metadata")

    def __init__(self) -> None:
        self.ref_type, self.object_type, self.optional, self.key, self.flags = typing.Any, None, True, None, None


class ContainerMetadata(Metadata):
    """Stand for what OmegaConf notes of a container."""

    pickled_as = ("omegaconf.base", "ContainerMetadata")

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.object_type = kind
        self.resolver_cache = collections.defaultdict(dict)
        self.key_type = self.element_type = typing.Any
        self.flags_root = False


class AnyNode:
    """Stand for a value in an OmegaConf container; knows its parent."""

    pickled_as = ("omegaconf.nodes", "AnyNode")

    def __init__(self, value: Any, parent: Any) -> None:
        self._val, self._parent, self._metadata, self._flags_cache = value, parent, Metadata(), None


class DictConfig:
    """Stand for OmegaConf's dictionary."""

    pickled_as = ("omegaconf.dictconfig", "DictConfig")

    def __init__(self, values: Mapping[str, Any], parent: Any = None) -> None:
        self._metadata, self._parent = ContainerMetadata(dict), parent
        self._content = {key: as_omegaconf(value, self) for key, value in values.items()}


class ListConfig:
    """Stand for OmegaConf's list."""

    pickled_as = ("omegaconf.listconfig", "ListConfig")

    def __init__(self, values: list[Any], parent: Any = None) -> None:
        self._metadata, self._parent = ContainerMetadata(list), parent
        self._content = [as_omegaconf(value, self) for value in values]


def as_omegaconf(value: Any, parent: Any = None) -> Any:
    if isinstance(value, Mapping):
        return DictConfig(value, parent)
    return ListConfig(value, parent) if isinstance(value, list) else AnyNode(value, parent)


_PurePythonPickler: Any = vars(pickle)["_Pickler"]


class _NamedPickler(_PurePythonPickler):
    """Write classes under the names that they stand for."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, type) and "pickled_as" in vars(obj):
            module, global_name = obj.pickled_as  # type: ignore[attr-defined]
            self.write(f"c{module}\n{global_name}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)


PICKLE_MODULE: Any = types.SimpleNamespace(Pickler=_NamedPickler, __name__="named_pickle")


def save(content: Any, path: Path) -> Path:
    """Write as ``torch.save`` does."""
    torch.save(content, path, pickle_module=PICKLE_MODULE)
    return path


def random_weights(config: ReleasedConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return weights under the release's names, those that are not used included."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=generator)

    weights = {f"net.{name}": normal(*value.shape) for name, value in ReleasedNetwork(config).state_dict().items()}
    features, width = config.backbone_width or 0, config.width
    extra = {
        "vertex_weight_mask": normal(1, 5023, 3),
        "net.dir_norm.norm.weight": normal(features),
        "net.dir_norm.mlp.1.weight": normal(2 * features, 32),
        "net.dir_norm_uv.mlp.1.bias": normal(2 * features),
        "net.uv_enc_mlp.1.weight": normal(features, 24),
        "net.vol_decoder.norm.weight": normal(width),
        "net.vol_decoder.norm.bias": normal(width),
    }
    return {**weights, **extra}


def configuration(config: ReleasedConfig) -> dict[str, Any]:
    """Return the release's configuration of an architecture, with some of the settings that do not matter here."""
    return {
        "n_views": config.num_views,
        "exp_name": "test",
        "train": {"batch_size": 8, "betas": [0.9, 0.95], "lr": 4e-4, "use_rand_views": False, "note": None},
        "model": {
            "encoder_backbone": config.backbone,
            "feature_map_type": "DINO",
            "finetune_backbone": True,
            "prediction_type": config.outputs[0] if len(config.outputs) == 1 else list(config.outputs),
            "embedding_dim": config.width,
            "vol_embedding_out_dim": 80,
            "num_layers": config.num_layers,
            "num_heads": config.num_heads,
            "view_embed_dim": config.view_width,
            "use_pos_enc": config.has_position_grid,
            "conv_dec": config.has_up_convolutions,
            "pred_conf": config.has_confidence,
            "pred_disentangled": config.is_disentangled,
            "use_uv_enc": False,
        },
    }


def checkpoint(config: ReleasedConfig, seed: int = 0) -> dict[str, Any]:
    """Return the content of a checkpoint as the training program stores it."""
    weights = random_weights(config, seed)
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4), "exp_avg_sq": torch.zeros(4)}}
    return {
        "epoch": 4,
        "global_step": 1234,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": collections.OrderedDict(weights),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 5}}}},
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.1), "dirpath": "/somewhere"}},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.95), "params": [0]}]}],
        "lr_schedulers": [{"last_epoch": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"cfg": as_omegaconf(configuration(config))},
    }


def write_released(folder: Path, config: ReleasedConfig = SMALL) -> Path:
    """Write ``uv.ckpt`` and ``normals.ckpt`` of an architecture into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save(checkpoint(replace(config, outputs=("uv_map",)), seed=1), folder / "uv.ckpt")
    save(checkpoint(replace(config, outputs=("normals",)), seed=2), folder / "normals.ckpt")
    return folder


def as_bytes(content: Any) -> bytes:
    """Return a file of ``torch.save`` as bytes."""
    stream = io.BytesIO()
    torch.save(content, stream, pickle_module=PICKLE_MODULE)
    return stream.getvalue()
