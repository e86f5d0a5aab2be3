"""Train a tiny network as one of several processes; started by a test: two_processes.py DATA OUT PARTS."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from priors.networks.compact import CompactConfig
from priors.training.batches import BatchLoader, BatchShape, DataSet
from priors.training.distributed import joined_processes
from priors.training.settings import OptimiserSettings, TrainingSettings
from priors.training.shards import ShardReader
from priors.training.trainer import Plan, Trainer

STEPS = 4


class TinyNetwork(torch.nn.Module):
    """Predict normals, places and kinds at half size; no statistics over a batch, so that it may be shared."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.last = torch.nn.Conv2d(8, 14, 3, padding=1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.last(torch.tanh(self.first(image))).split((3, 3, 1, 1, 6), dim=1)
        return dict(zip(("place", "normals", "log_sigma_place", "log_sigma_normals", "kind"), maps, strict=True))


def make_trainer(processes, folder: Path, parts: int = 1, steps: int = STEPS) -> Trainer:
    """Return a trainer of the tiny network, the same in every process."""
    torch.manual_seed(4 + processes.rank)
    settings = TrainingSettings(
        "tiny", CompactConfig(input_px=64), batch=8, optimiser=OptimiserSettings(rate=1e-2, warm_up_steps=1)
    )
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(TinyNetwork(), settings, Plan(steps=steps, parts=parts), processes, folder=folder, head_hash="none")


def make_loader(data: Path) -> BatchLoader:
    """Return what it learns from."""
    settings = TrainingSettings("tiny", CompactConfig())
    shape = BatchShape(64, 32)
    return BatchLoader([DataSet(ShardReader(data))], shape, augmentation=settings.augmentation, workers=1)


if __name__ == "__main__":
    data, out, parts = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    with joined_processes("cpu") as here:
        trainer = make_trainer(here, out, parts)
        trainer.run(make_loader(data))
        torch.save(trainer.network.state_dict(), out / f"rank-{here.rank}.pt")
