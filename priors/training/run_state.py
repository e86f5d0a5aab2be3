"""What a training must remember to go on as if it had never stopped, and the running average of its weights."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flame.errors import AssetMissingError, InputError

STATE_NAME = "last.pt"
STATE_VERSION = 1


class AveragedWeights:
    """Keep an exponential average of a network's weights and statistics in a network of its own."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with the network's weights; with a decay of 0 the average is always the last value."""
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 1; early on, the average reaches back a tenth of the way."""
        decay = min(self._decay, step / (10 + step))
        kept, new = self.network.state_dict(), network.state_dict()
        for name, value in kept.items():
            if value.is_floating_point():
                value.lerp_(new[name], 1 - decay)
            else:
                value.copy_(new[name])


def random_states() -> dict[str, Tensor]:
    """Return the states of the generators that networks draw from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor]) -> None:
    """Put generators back into states that `random_states` returned."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Store the state in a run's folder; the file is replaced whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    path = folder / STATE_NAME
    partial = folder / f"{STATE_NAME}.{os.getpid()}.part"
    try:
        torch.save({"version": STATE_VERSION, **state}, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} cannot be written ({error}); check the folder and the disk") from error
    finally:
        partial.unlink(missing_ok=True)


def load_state(folder: Path) -> dict[str, Any]:
    """Read the state of a run; nothing in the file is executed.

    Raises:
        AssetMissingError: the run has none.
        InputError: it is damaged or of another version.
    """
    path = folder / STATE_NAME
    if not path.is_file():
        raise AssetMissingError(f"{folder} has no {STATE_NAME} to resume from; begin without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        version = state["version"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        line = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read ({line}); begin anew with another --out") from error
    if version != STATE_VERSION:
        raise InputError(f"{path} has version {version}; this program reads version {STATE_VERSION}; begin anew")
    return state


def differences(stored: Any, asked: Any, path: str = "") -> list[str]:
    """Return where two nested settings differ, each as ``key: stored, now asked``."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        names = sorted({*stored, *asked})
        return [
            line
            for name in names
            for line in differences(stored.get(name), asked.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if stored == asked else [f"{path} was {stored}, now {asked}"]
