"""Networks that say for every pixel of a face's crop where on the head it lies and how the surface is turned there.

A network is a ``torch.nn.Module``: pictures (B, 3, S, S), RGB in [0, 1], in; a dictionary of maps out. Of ``normals``
(B, 3, h, w, not normalised), ``uv`` (B, 2, h, w, in [0, 1], origin bottom left), ``place`` (B, 3, h, w) and their
``log_sigma_...`` (B, 1, h, w) each gives what it has. Every network has a frozen configuration of its own, whose field
``kind`` tells it apart.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flame.errors import InputError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NETWORKS", "build_network", "config_from"]

NETWORKS = {
    "compact": ("priors.networks.compact", "CompactConfig", "CompactNetwork"),
    "released": ("priors.networks.released", "ReleasedConfig", "ReleasedNetwork"),
    "vit": ("priors.networks.vit", "ViTSurfaceConfig", "ViTSurface"),
}
"""Module, configuration and network by kind."""


def build_network(config: Any) -> nn.Module:
    """Build the network that a configuration describes, with random weights.

    Raises:
        InputError: it is the configuration of no network.
    """
    module, config_name, network_name = _entry(getattr(config, "kind", type(config).__name__))
    if not isinstance(config, getattr(module, config_name)):
        raise InputError(f"{type(config).__name__} configures no network of kind {config.kind!r}; {config_name} does")
    return getattr(module, network_name)(config)


def config_from(values: Mapping[str, Any]) -> Any:
    """Return the configuration whose fields were stored, as by ``dataclasses.asdict`` and JSON.

    Raises:
        InputError: the kind is not known, or a field is.
    """
    module, config_name, _ = _entry(values.get("kind"))
    kind = getattr(module, config_name)
    names = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise InputError(f"a network of kind {values['kind']!r} has no setting {', '.join(unknown)}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _entry(kind: Any) -> tuple[Any, str, str]:
    """Return the module of a kind of network, and the names in it."""
    if kind not in NETWORKS:
        raise InputError(f"there is no network of kind {kind!r}; choose one of: {', '.join(NETWORKS)}")
    module_name, config_name, network_name = NETWORKS[kind]
    return importlib.import_module(module_name), config_name, network_name
