"""One process or several: who takes which part, and what they tell one another.

``torchrun --nproc-per-node N -m priors.training.train …`` starts several; alone, a process is the only one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Processes:
    """Know this process among those of a training."""

    device: torch.device
    """Where this process computes."""
    rank: int = 0
    """Number of this process."""
    world: int = 1
    """How many there are."""

    @property
    def is_first(self) -> bool:
        """Return whether this process writes files and talks to the user."""
        return self.rank == 0

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network such that gradients are averaged over all processes."""
        if self.world == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def maximum(self, *values: float) -> list[float]:
        """Return the largest of all processes' values, one by one."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor.tolist()

    def mean(self, value: float) -> float:
        """Return the mean of all processes' values."""
        if self.world == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return tensor.item() / self.world

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def joined_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that ``torchrun`` has started, or stand alone; they part in the end.

    Args:
        device: ``cpu``, ``cuda``, or ``auto``: CUDA where there is one; each process of a machine has its own card.
    """
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    where = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if world == 1:
        yield Processes(where)
        return
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Processes(where, rank, world)
    finally:
        distributed.destroy_process_group()
