"""The loop: batches in, steps of an optimiser, weights and figures out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flame.errors import InputError
from priors.networks.compact import PLACE_SCALE
from priors.networks.weights import WeightsCard, save_network
from priors.training.batches import BatchLoader, step_slices
from priors.training.distributed import Processes
from priors.training.logs import MetricsLog, ProgressBar, tell
from priors.training.losses import total_loss
from priors.training.run_state import AveragedWeights, random_states, save_state, set_random_states
from priors.training.settings import OptimiserSettings, TrainingSettings, as_plain
from priors.training.validation import draw, evaluate, one_line, score, write_picture

BEST_NAME = "best.safetensors"
_STEPS_PER_FIGURE = 20
_MAX_BAD_STEPS = 20


@dataclass(frozen=True)
class Plan:
    """Say how long a training goes on, and when it looks at itself; nothing here changes a step but its length."""

    steps: int | None = None
    """Steps in all; None: as ``minutes`` says."""
    minutes: float | None = None
    """Wall-clock time in all, over all runs that it took."""
    parts: int = 1
    """Parts that a step's batch is cut into, to save memory."""
    validate_every: int = 500
    """Steps between validations; there is one at the end, too."""
    save_minutes: float = 5.0
    """Time between two saves of the state."""

    def progress(self, step: int, elapsed_seconds: float) -> float:
        """Return the share that is done, 1 at the end."""
        if self.steps is not None:
            return min(1.0, step / max(self.steps, 1))
        assert self.minutes is not None
        return min(1.0, elapsed_seconds / max(60 * self.minutes, 1e-9))


@dataclass
class Outcome:
    """Say what came of a training."""

    step: int
    elapsed_seconds: float
    was_interrupted: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    """Of the last validation."""


def rate_factor(settings: OptimiserSettings, step: int, progress: float) -> float:
    """Return the learning rate of a step, counted from 0, over the settings': warm-up, then down a cosine."""
    warm_up = min(1.0, (step + 1) / (settings.warm_up_steps + 1))
    return warm_up * (0.5 * (1 + math.cos(math.pi * progress)) if settings.decay == "cosine" else 1.0)


def make_optimiser(network: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Return the optimiser, parameters grouped by learning rate and weight decay."""
    groups = []
    for is_backbone, rate in ((False, settings.rate), (True, settings.backbone_rate)):
        named = [value for name, value in network.named_parameters() if name.startswith("backbone.") == is_backbone]
        for is_decayed in (True, False):
            chosen = [value for value in named if value.requires_grad and (value.ndim > 1) == is_decayed]
            if chosen:
                decay = settings.weight_decay if is_decayed else 0.0
                groups.append({"params": chosen, "lr": rate, "base_rate": rate, "weight_decay": decay})
    method = torch.optim.AdamW if settings.method == "adamw" else torch.optim.Adam
    return method(groups, lr=settings.rate)


class Trainer:
    """Train a network; everything that changes while it does so lives here and is stored by `save`."""

    def __init__(
        self,
        network: nn.Module,
        settings: TrainingSettings,
        plan: Plan,
        processes: Processes,
        *,
        folder: Path,
        head_hash: str,
        is_compiled: bool = False,
    ) -> None:
        """Put the network where it computes; nothing is done or written yet.

        Raises:
            InputError: the batch cannot be shared equally.
        """
        shares = plan.parts * processes.world
        if settings.batch % shares:
            raise InputError(
                f"a batch of {settings.batch} cannot be shared equally by {processes.world} processes in {plan.parts} "
                f"parts; choose a multiple of {shares}"
            )
        self.settings, self.plan, self.folder, self.processes = settings, plan, folder, processes
        self.network = network.to(processes.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Now all processes have the first one's weights.
        wrapped = processes.wrapped(self.network)
        self.average = AveragedWeights(self.network, settings.optimiser.ema)
        self._wrapped: nn.Module = torch.compile(wrapped) if is_compiled else wrapped  # type: ignore[assignment]
        self.optimiser = make_optimiser(self.network, settings.optimiser)
        is_cuda = processes.device.type == "cuda"
        self._dtype = getattr(torch, settings.precision) if is_cuda else torch.float32
        self._scaler = torch.amp.grad_scaler.GradScaler(processes.device.type, enabled=self._dtype == torch.float16)
        self.step, self.best = 0, math.inf
        self.extra_state: dict[str, Any] = {}  # more to store beside the state: what the command line must know again
        self._head_hash = head_hash
        self._elapsed, self._started = 0.0, time.monotonic()
        self._num_bad = 0
        self._stop = False

    @property
    def elapsed_seconds(self) -> float:
        """Return the time spent on the training, earlier runs included."""
        return self._elapsed + time.monotonic() - self._started

    def stop(self) -> None:
        """Ask the training to save its state and end after the step under way; safe in a signal handler."""
        self._stop = True

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": random_states(),
            "step": self.step,
            "best": self.best,
            "elapsed_seconds": self.elapsed_seconds,
            "settings": as_plain(self.settings),
            "head_hash": self._head_hash,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` returned."""
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        set_random_states(state["random"])
        if self.processes.rank:
            torch.manual_seed(self.settings.seed + state["step"] + 1000 * self.processes.rank)
        self.step, self.best = state["step"], state["best"]
        self._elapsed, self._started = state["elapsed_seconds"], time.monotonic()

    def save(self) -> None:
        """Store the state; one process does it for all."""
        if self.processes.is_first:
            save_state(self.folder, {**self.extra_state, **self.state()})

    def run(
        self,
        loader: BatchLoader,
        validation: Callable[[], Iterable[dict[str, Tensor]]] | None = None,
    ) -> Outcome:
        """Train until the plan is fulfilled or `stop` is called.

        Args:
            loader: what is learnt from.
            validation: returns the batches to measure with, anew at each call.
        """
        self._started = time.monotonic()
        is_first = self.processes.is_first
        log = MetricsLog(self.folder, self.step) if is_first else None
        bar = ProgressBar() if is_first else None
        slices = step_slices(self.step, self.settings.batch, self.plan.parts, self.processes.rank, self.processes.world)
        batches = loader.batches(slices)
        outcome = Outcome(self.step, self._elapsed)
        try:
            outcome = self._loop(batches, validation, log, bar)
        finally:
            batches.close()  # type: ignore[attr-defined]
            if bar is not None and log is not None:
                bar.close()
                log.close()
        return outcome

    def _loop(
        self,
        batches: Iterator[dict[str, Tensor]],
        validation: Callable[[], Iterable[dict[str, Tensor]]] | None,
        log: MetricsLog | None,
        bar: ProgressBar | None,
    ) -> Outcome:
        """Make steps, look, save."""
        figures: dict[str, float] = {}
        sums, first, since = torch.zeros(()), self.step, time.monotonic()
        saved, is_validated = since, False
        while True:
            # All processes must agree on when to end.
            elapsed, is_stopped = self.processes.maximum(self.elapsed_seconds, float(self._stop))
            progress = self.plan.progress(self.step, elapsed)
            if is_stopped or progress >= 1:
                break
            loss = self.make_step(batches, progress)
            sums = sums.to(loss.device) + loss
            is_validated = False
            if self.step % _STEPS_PER_FIGURE == 0 or self.step == 1:
                steps = self.step - first
                mean = self.processes.mean(float(sums) / steps)
                rate = self.settings.batch * steps / max(time.monotonic() - since, 1e-9)
                self._show(log, bar, mean, rate, elapsed)
                sums, first, since = torch.zeros(()), self.step, time.monotonic()
            paused = time.monotonic()
            if self.step % self.plan.validate_every == 0:
                figures, is_validated = self._validate(validation, log), True
            if time.monotonic() - saved > 60 * self.plan.save_minutes:
                self.save()
                saved = time.monotonic()
            since += time.monotonic() - paused
        if not is_stopped and not is_validated:
            figures = self._validate(validation, log)
        self.save()
        self.processes.wait()
        return Outcome(self.step, self.elapsed_seconds, bool(is_stopped), figures)

    def make_step(self, batches: Iterator[dict[str, Tensor]], progress: float) -> Tensor:
        """Learn from one batch, in parts; return its loss.

        Raises:
            InputError: the loss is no number, many times in a row.
        """
        factor = rate_factor(self.settings.optimiser, self.step, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * group["base_rate"]
        loss = self.accumulate(batches)
        self._scaler.unscale_(self.optimiser)
        limit = self.settings.optimiser.max_gradient
        length = nn.utils.clip_grad_norm_(self.network.parameters(), limit if limit > 0 else math.inf)
        # A step on what is no number would spoil the weights for good. (The scaler looks after its own.)
        is_bad = not self._scaler.is_enabled() and not bool(torch.isfinite(length))
        self._num_bad = self._num_bad + 1 if is_bad else 0
        if self._num_bad >= _MAX_BAD_STEPS:
            raise InputError(
                f"the gradient was no number {_MAX_BAD_STEPS} times in a row at step {self.step}; lower optimiser.rate "
                f"(now {self.settings.optimiser.rate:g}), or look for damaged training data"
            )
        if not is_bad:
            self._scaler.step(self.optimiser)
            self._scaler.update()
        self.step += 1
        if not is_bad:
            self.average.update(self.network, self.step)
        return loss if not is_bad else torch.zeros_like(loss)

    def accumulate(self, batches: Iterator[dict[str, Tensor]]) -> Tensor:
        """Compute the gradient of one step's loss, scaled for float16; return the loss of this process's samples."""
        self.optimiser.zero_grad(set_to_none=True)
        device = self.processes.device
        total = torch.zeros((), device=device)
        for part in range(self.plan.parts):
            batch = {name: value.to(device, non_blocking=True) for name, value in next(batches).items()}
            is_last = part == self.plan.parts - 1
            # Gradients are exchanged once, with the last part.
            later = nullcontext() if is_last or self.processes.world == 1 else self._wrapped.no_sync()  # type: ignore
            with later:
                with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32):
                    predicted = self._wrapped(batch["image"])
                loss, _ = total_loss(predicted, batch, self.settings.loss, PLACE_SCALE)
                self._scaler.scale(loss / self.plan.parts).backward()
            total += loss.detach() / self.plan.parts
        return total

    def _show(self, log: MetricsLog | None, bar: ProgressBar | None, loss: float, rate: float, elapsed: float) -> None:
        """Tell how things stand."""
        if log is None or bar is None:
            return
        learning_rate = max(group["lr"] for group in self.optimiser.param_groups)
        log.write("train", self.step, {"loss": loss, "rate": learning_rate, "samples_per_second": rate})
        progress = self.plan.progress(self.step, elapsed)
        left = elapsed / progress * (1 - progress) if progress > 0 else 0.0
        text = f"step {self.step}, loss {loss:.3f}, {rate:.1f} samples/s, {clock(left)} left"
        bar.show(progress, text)

    def _validate(
        self, validation: Callable[[], Iterable[dict[str, Tensor]]] | None, log: MetricsLog | None
    ) -> dict[str, float]:
        """Measure the averaged weights, draw a picture, keep them if they are the best so far."""
        if not self.processes.is_first:
            self.processes.wait()
            return {}
        figures: dict[str, float] = {}
        if validation is not None:
            first: dict[str, Tensor] = {}

            def watched() -> Iterator[dict[str, Tensor]]:
                for batch in validation():
                    if not first:
                        first.update({name: value[:8] for name, value in batch.items()})
                    yield batch

            network, device = self.average.network, self.processes.device
            figures = evaluate(network, watched(), self.settings.loss, PLACE_SCALE, device)
            tell(f"step {self.step}: {one_line(figures)}")
            if log is not None:
                log.write("validation", self.step, figures)
            picture = draw(network, first, PLACE_SCALE, device)
            write_picture(self.folder / "pictures" / f"step-{self.step:07d}.png", picture)
        value = score(figures) if figures else -float(self.step)
        if value < self.best:
            self.best = value
            self._save_best(figures)
        self.processes.wait()
        return figures

    def _save_best(self, figures: dict[str, float]) -> None:
        """Store the averaged weights with what is known of them."""
        summary = {
            "step": self.step,
            "samples": self.step * self.settings.batch,
            "minutes": round(self.elapsed_seconds / 60, 1),
            "figures": figures,
            "settings": as_plain(self.settings),
            "data": self.extra_state.get("data", []),
        }
        card = WeightsCard(self.settings.network, self.settings.normal_space, self._head_hash, summary)
        save_network(self.folder / BEST_NAME, self.average.network, card)


def clock(seconds: float) -> str:
    """Return a length of time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
