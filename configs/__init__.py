"""Typed configuration and presets."""

from configs.presets import PRESETS, load_preset, override, preset_for_prior
from configs.schema import (
    Config,
    OverlayConfig,
    RegularizationConfig,
    ScoutConfig,
    SmoothingConfig,
    SolverConfig,
    StatusConfig,
)

__all__ = [
    "PRESETS",
    "Config",
    "OverlayConfig",
    "RegularizationConfig",
    "ScoutConfig",
    "SmoothingConfig",
    "SolverConfig",
    "StatusConfig",
    "load_preset",
    "override",
    "preset_for_prior",
]
