"""Command line: python -m priors.training.train --data FOLDER [FOLDER ...] --out RUN (--minutes M | --steps N)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from flame.errors import InputError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from flame.model import HeadModel
    from priors.training.batches import BatchShape, DataSet
    from priors.training.distributed import Processes
    from priors.training.settings import TrainingSettings
    from priors.training.trainer import Outcome, Trainer

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
_SECONDS_BETWEEN_KEYS = 0.5

_DESCRIPTION = "Train a network to predict, for every pixel of a face, normals and where on the head it lies."
_EPILOG = """\
examples:
  python -m priors.training.render --out data --count 20000       make labelled pictures of random heads
  python -m priors.training.train --data data --validation unseen --out run --minutes 60
                                                                  the compact network, an hour on this machine
  python -m priors.training.train --data data --validation unseen --out run --minutes 60 --resume
                                                                  go on after Ctrl-C, a kill or a power cut
  python -m priors.training.train --data rendered real=3 --validation unseen --out run2 --steps 3000 \\
      --from run/best.safetensors --set optimiser.rate=3e-4       learn more from what was learnt; real ones 3 x
  torchrun --nproc-per-node 2 -m priors.training.train --preset paper-normals --pretrained --data data --out run3 \\
      --steps 200000 --parts 2                                    the paper's recipe on two cards

RUN afterwards holds best.safetensors (averaged weights, the best by validation; priors.networks.weights.load_network
reads it), last.pt (everything needed to go on exactly), metrics.jsonl and tensorboard/ (figures; tensorboard --logdir
RUN), pictures/ (input, predicted, true, error) and settings.json. The learning rate falls to zero at the end of the
steps or minutes given, so give what you have. The same seed, data and steps give the same weights on the same machine.

Exit status: 0 trained, 2 an option or the data cannot be used, 130 interrupted (the state is saved).
"""


class _Parser(argparse.ArgumentParser):
    """Say in one line what is wrong with the command line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and end with the status of user errors."""
        self.exit(EXIT_USER_ERROR, f"error: {message} (python -m priors.training.train --help lists the options)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
        prog="python -m priors.training.train",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--preset", default="compact", metavar="NAME", help="compact (default), paper-normals or paper-uv")
    add("--data", nargs="+", required=True, metavar="DIR[=TIMES]", help="folders of shards; TIMES through per epoch")
    add("--validation", metavar="DIR", help="shards to measure with, of heads that are not in the data")
    add("--out", required=True, type=Path, metavar="RUN", help="folder for weights, state, figures and pictures")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=_positive, metavar="M", help="train for so long, resumed runs in all")
    length.add_argument("--steps", type=_count, metavar="N", help="train for so many steps, resumed runs in all")
    add("--resume", action="store_true", help="go on with the training in RUN; all else must be as it was")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--from", dest="weights", type=Path, metavar="FILE", help="begin with these weights")
    start.add_argument("--pretrained", action="store_true", help="paper presets: fetch DINOv2's weights (network)")
    add("--head", default="commons", metavar="commons|PATH", help="head that the labels speak of (default: commons)")
    add("--batch", type=_count, metavar="B", help="samples per step over all processes (default: the preset's)")
    add("--parts", type=_count, default=1, metavar="P", help="cut a step's batch into parts to save memory")
    add("--seed", type=int, help="seed of weights, order and changes (default: 0)")
    add("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE", help="change a preset's setting")
    add("--no-augmentation", action="store_true", help="learn from the pictures as they are")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)")
    add("--threads", type=_count, metavar="T", help="CPU threads of the network's arithmetic (default: all)")
    add("--workers", type=_count, default=2, metavar="W", help="threads that load and change samples (default: 2)")
    add("--compile", action="store_true", help="compile the network first (minutes; worth it on CUDA)")
    add("--validate-every", type=_count, default=500, metavar="K", help="steps between validations (default: 500)")
    add("--validation-count", type=_count, default=200, metavar="N", help="samples to measure with (default: 200)")
    add("--save-minutes", type=_positive, default=5.0, metavar="M", help="time between saves of last.pt (default: 5)")
    return parser


def _count(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    # Threads that wait for one another should sleep: samples are loaded on the same cores. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from priors.training.distributed import joined_processes

    try:
        with joined_processes(options.device) as processes:
            outcome = train(options, processes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted before the state could be saved", file=sys.stderr)
        return EXIT_INTERRUPTED
    if processes.is_first:
        print(_summary(outcome, options), flush=True)
    return EXIT_INTERRUPTED if outcome.was_interrupted else 0


def train(options: argparse.Namespace, processes: Processes) -> Outcome:
    """Train as the command line says.

    Raises:
        UserError: something that the user gave cannot be used.
    """
    import cv2
    import torch

    from priors.training.batches import BatchLoader
    from priors.training.trainer import Trainer

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)  # Samples are loaded in threads of their own.
    settings = _settings(options)
    head, data, validation = _open_data(options)
    torch.manual_seed(settings.seed)
    network = _network(settings, options)
    shape, outputs = _shape(network, settings)
    trainer = Trainer(
        network,
        settings,
        _plan(options),
        processes,
        folder=options.out,
        head_hash=head.content_hash,
        is_compiled=options.compile,
    )
    trainer.extra_state = {"data": [{"count": len(each.source), "times": each.times} for each in data]}
    _begin(trainer, options, settings)
    uv_flip, may_flip = _flip(head, outputs)
    loader = BatchLoader(
        data,
        shape,
        seed=settings.seed,
        augmentation=settings.augmentation,
        uv_flip=uv_flip,
        may_flip=may_flip,
        workers=options.workers,
    )
    _introduce(options, settings, network, data, processes)
    with _answering_signals(trainer.stop):
        return trainer.run(loader, _validation(validation, shape, options.validation_count))


def _settings(options: argparse.Namespace) -> TrainingSettings:
    """Return the preset with the command line's changes."""
    from priors.training.settings import NO_AUGMENTATION, load_preset, override

    settings = load_preset(options.preset)
    if options.no_augmentation:
        settings = replace(settings, augmentation=NO_AUGMENTATION)
    changes = [f"batch={options.batch}"] if options.batch is not None else []
    changes += [f"seed={options.seed}"] if options.seed is not None else []
    return override(settings, [*changes, *options.changes])


def _plan(options: argparse.Namespace) -> Any:
    """Return how long to train and when to look."""
    from priors.training.trainer import Plan

    return Plan(options.steps, options.minutes, options.parts, options.validate_every, options.save_minutes)


def _open_data(options: argparse.Namespace) -> tuple[HeadModel, list[DataSet], DataSet | None]:
    """Open the folders of shards and check that they speak of the head.

    Raises:
        UserError: one is missing or empty, damaged, or made with another head.
    """
    from flame.loading import load_head
    from priors.training.batches import DataSet, parse_data
    from priors.training.shards import ShardReader

    head = load_head(options.head)
    opened = []
    for text in [*options.data, *([options.validation] if options.validation else [])]:
        folder, times = (Path(text), 1.0) if Path(text).is_dir() else parse_data(text)
        reader = ShardReader(folder)
        if reader.index.head_hash != head.content_hash:
            raise InputError(
                f"{folder} was made with another head ({reader.index.head_hash[:12]}) than '{options.head}' "
                f"({head.content_hash[:12]}); give that head with --head, or make the data again"
            )
        if not len(reader):
            raise InputError(f"{folder} has no samples yet; wait until its first shard is written")
        opened.append(DataSet(reader, times))
    return head, opened[: len(options.data)], opened[len(options.data)] if options.validation else None


def _network(settings: TrainingSettings, options: argparse.Namespace) -> nn.Module:
    """Build the network, with the weights that the user asked for."""
    from priors.networks import build_network
    from priors.networks.weights import fill_network, load_card

    if options.pretrained:
        from priors.networks.vit import ViTSurface, ViTSurfaceConfig

        if not isinstance(settings.network, ViTSurfaceConfig):
            raise InputError(
                f"there are no pretrained weights for the preset '{options.preset}'; leave --pretrained out"
            )
        return ViTSurface(settings.network, is_pretrained=True)
    network = build_network(settings.network)
    if options.weights is not None:
        card = load_card(options.weights)
        if card.network != settings.network:
            raise InputError(f"{options.weights} fills another network ({card.network}) than {settings.network}")
        fill_network(network, options.weights)
    return network


def _shape(network: nn.Module, settings: TrainingSettings) -> tuple[BatchShape, frozenset[str]]:
    """Return the size of pictures and labels, and what the network predicts, by trying it once."""
    import torch

    from priors.training.batches import BatchShape

    config = settings.network
    image_px = config.input_px if hasattr(config, "input_px") else config.image_px
    network.eval()
    with torch.no_grad():
        predicted = network(torch.zeros(1, 3, image_px, image_px))
    network.train()
    labels_px = next(iter(predicted.values())).shape[-1]
    return BatchShape(image_px, labels_px, settings.normal_space), frozenset(predicted)


def _begin(trainer: Trainer, options: argparse.Namespace, settings: TrainingSettings) -> None:
    """Take up the run that is to be resumed, or begin a new folder.

    Raises:
        UserError: the folder has a run that is not to be resumed, or the run was another one.
    """
    from priors.training.run_state import STATE_NAME, differences, load_state
    from priors.training.settings import as_plain

    folder = options.out
    if not options.resume:
        if (folder / STATE_NAME).exists():
            raise InputError(f"{folder} holds a training already; go on with it by --resume, or choose another --out")
        if trainer.processes.is_first:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "settings.json").write_text(json.dumps(as_plain(settings), indent=1) + "\n", "utf-8")
            except OSError as error:
                raise InputError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
        trainer.processes.wait()
        return
    state = load_state(folder)
    asked = {"settings": as_plain(settings), "head_hash": trainer.state()["head_hash"], **trainer.extra_state}
    different = differences({name: state.get(name) for name in asked}, asked)
    if different:
        raise InputError(
            f"{folder} was trained otherwise: {'; '.join(different[:3])}; resume with what it was, or begin anew with "
            f"--from {folder / 'best.safetensors'}"
        )
    trainer.restore(state)


def _flip(head: HeadModel, outputs: frozenset[str]) -> tuple[Callable | None, bool]:
    """Return how texture coordinates are mirrored, and whether pictures may be."""
    if "uv" not in outputs:
        return None, True
    from priors.networks.flip import UvMirror
    from priors.training.logs import tell

    try:
        return UvMirror.of(head), True
    except InputError as error:
        tell(f"no mirror images: {error}")
        return None, False


def _validation(
    data: DataSet | None, shape: BatchShape, count: int
) -> Callable[[], Iterable[dict[str, Tensor]]] | None:
    """Return what yields the batches to measure with."""
    if data is None:
        return None
    from priors.training.validation import validation_batches

    known = data
    return lambda: validation_batches(known, shape, count)


@contextlib.contextmanager
def _answering_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C or a kill end the training after the step under way; a second one ends the program at once."""
    from priors.training.logs import tell

    asked: list[float] = []

    def answer(number: int, _frame: FrameType | None) -> None:
        # torchrun sends a SIGTERM after what the terminal has sent already; that is not a second Ctrl-C.
        if asked and number == signal.SIGINT and time.monotonic() - asked[0] > _SECONDS_BETWEEN_KEYS:
            raise KeyboardInterrupt
        if not asked:
            tell("ending after this step; the state is saved (once more ends at once)")
        asked.append(time.monotonic())
        stop()

    before = {each: signal.signal(each, answer) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _introduce(
    options: argparse.Namespace,
    settings: TrainingSettings,
    network: nn.Module,
    data: Sequence[DataSet],
    processes: Processes,
) -> None:
    """Say what is about to happen."""
    if not processes.is_first:
        return
    from priors.training.logs import tell

    millions = sum(value.numel() for value in network.parameters()) / 1e6
    counts = " + ".join(f"{len(each.source)}{f' x {each.times:g}' if each.times != 1 else ''}" for each in data)
    where = f"{processes.device.type}" + (f", {processes.world} processes" if processes.world > 1 else "")
    length = f"{options.steps} steps" if options.steps else f"{options.minutes:g} minutes"
    tell(
        f"{settings.preset}: {millions:.2f} million weights, {counts} samples, batch {settings.batch}, {length}, "
        f"{where}; results in {options.out}"
    )


def _summary(outcome: Outcome, options: argparse.Namespace) -> str:
    """Return what came of the training, a few lines."""
    from priors.training.run_state import STATE_NAME
    from priors.training.trainer import BEST_NAME, clock
    from priors.training.validation import one_line

    lines = [f"{outcome.step} steps in {clock(outcome.elapsed_seconds)}"]
    if outcome.figures:
        lines.append(f"last validation: {one_line(outcome.figures)}")
    if (options.out / BEST_NAME).is_file():
        lines.append(f"weights: {options.out / BEST_NAME}")
    if outcome.was_interrupted:
        lines.append(f"interrupted; the state is in {options.out / STATE_NAME}: the same command with --resume goes on")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
