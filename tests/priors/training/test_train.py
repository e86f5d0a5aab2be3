from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tests.priors.training.two_processes as tiny
from flame.loading import load_head
from priors.networks.compact import PLACE_SCALE
from priors.networks.weights import load_card, load_network
from priors.training import train as command
from priors.training.batches import BatchShape, DataSet, step_slices
from priors.training.distributed import Processes
from priors.training.logs import read_metrics
from priors.training.run_state import STATE_NAME
from priors.training.settings import OptimiserSettings
from priors.training.shards import ShardIndex, ShardReader
from priors.training.trainer import Plan, Trainer, make_optimiser, rate_factor
from priors.training.validation import evaluate, validation_batches
from tests.priors.training.painted_shards import write_painted

ROOT = Path(__file__).parents[3]
SMALL = ["network.input_px=64", "network.widths=[8,16,24,32,48]", "network.depths=[0,1,1,1,1]"]
SMALL_ARGUMENTS = [word for each in SMALL for word in ("--set", each)]
ALONE = Processes(torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight labelled pictures."""
    return write_painted(tmp_path_factory.mktemp("shards"), load_head("commons"), 8)


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(
        ["--data", str(data), "--out", str(out), "--batch", "8", "--threads", "1", "--workers", "1"]
        + SMALL_ARGUMENTS
        + list(more)
    )


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / STATE_NAME, weights_only=True)
    return {f"{group}.{name}": value for group in ("network", "average") for name, value in state[group].items()}


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def test_eight_pictures_are_learnt_by_heart(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    rates = ["--set", "optimiser.rate=4e-3", "--set", "optimiser.warm_up_steps=10"]
    validation = ["--validation", str(data), "--validate-every", "60"]
    assert run(data, out, "--steps", "100", "--no-augmentation", *rates, *validation) == 0
    figures = [record for record in read_metrics(out) if record["group"] == "validation"]
    assert [record["step"] for record in figures] == [60, 100]
    last = figures[-1]
    assert last["loss"] < -0.5
    assert last["normals_mean_deg"] < 13.5 and last["place_mean_mm"] < 7.0
    assert last["position_median_px"] < 1.0 and last["kind_accuracy_percent"] > 92
    # The weights that are given away are those that were measured.
    card = load_card(out / "best.safetensors")
    assert card.head_hash == load_head("commons").content_hash and card.normal_space == "ray"
    assert card.summary["step"] == 100 and card.summary["data"] == [{"count": 8, "times": 1.0}]
    batches = validation_batches(DataSet(ShardReader(data)), BatchShape(64, 32), 8)
    found = evaluate(load_network(out / "best.safetensors"), batches, command._settings(_options()).loss, PLACE_SCALE)
    assert found == pytest.approx({name: last[name] for name in found}, rel=1e-4)
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert pictures == ["step-0000060.png", "step-0000100.png"]
    assert (out / "tensorboard").is_dir() == (importlib.util.find_spec("tensorboard") is not None)
    assert json.loads((out / "settings.json").read_text())["batch"] == 8
    printed = capsys.readouterr()
    assert "100 steps in" in printed.out and "best.safetensors" in printed.out
    assert "step 60: normals" in printed.err and "samples/s" in printed.err


def _options() -> object:
    return command.build_parser().parse_args(["--data", "x", "--out", "y", "--steps", "1", *SMALL_ARGUMENTS])


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted, crashed = tmp_path / "whole", tmp_path / "parted", tmp_path / "crashed"
    assert run(data, whole, "--steps", "6") == 0
    make_step = Trainer.make_step

    def killed_in_third(self: Trainer, *arguments: object) -> torch.Tensor:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return make_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "make_step", killed_in_third)
        assert run(data, parted, "--steps", "6") == command.EXIT_INTERRUPTED
    assert torch.load(parted / STATE_NAME, weights_only=True)["step"] == 3
    assert run(data, parted, "--steps", "6", "--resume") == 0
    assert_same_weights(weights_of(whole), weights_of(parted))

    def dead_in_fifth(self: Trainer, *arguments: object) -> torch.Tensor:
        if self.step == 4:
            raise MemoryError
        return make_step(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Trainer, "make_step", dead_in_fifth)
        run(data, crashed, "--steps", "6", "--save-minutes", "1e-9")
    assert torch.load(crashed / STATE_NAME, weights_only=True)["step"] == 4
    assert run(data, crashed, "--steps", "6", "--resume") == 0
    assert_same_weights(weights_of(whole), weights_of(crashed))
    assert [record["step"] for record in read_metrics(crashed)] == [1]


def test_a_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_SECONDS_BETWEEN_KEYS", 0.0)
    stops = []
    before = signal.getsignal(signal.SIGTERM)
    with command._answering_signals(lambda: stops.append(1)):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(stops) == 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_resuming_what_was_trained_otherwise_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(data, out, "--steps", "1") == 0
    capsys.readouterr()
    assert run(data, out, "--steps", "2") == command.EXIT_USER_ERROR
    assert "holds a training already; go on with it by --resume" in capsys.readouterr().err
    assert run(data, out, "--steps", "2", "--resume", "--set", "optimiser.rate=0.5") == command.EXIT_USER_ERROR
    assert "was trained otherwise: settings.optimiser.rate was 0.001, now 0.5" in capsys.readouterr().err
    more = tmp_path / "more"
    write_painted(more, load_head("commons"), 2)
    assert run(more, out, "--steps", "2", "--resume") == command.EXIT_USER_ERROR
    assert "data was [{'count': 8, 'times': 1.0}], now [{'count': 2" in capsys.readouterr().err
    assert run(data, tmp_path / "empty", "--steps", "2", "--resume") == command.EXIT_USER_ERROR
    assert "has no last.pt to resume from" in capsys.readouterr().err
    content = (out / STATE_NAME).read_bytes()
    (out / STATE_NAME).write_bytes(content[: len(content) // 2])
    assert run(data, out, "--steps", "2", "--resume") == command.EXIT_USER_ERROR
    assert "last.pt cannot be read" in capsys.readouterr().err
    # From its weights another training may begin.
    assert run(data, tmp_path / "next", "--steps", "1", "--from", str(out / "best.safetensors")) == 0
    state = weights_of(tmp_path / "next")
    start = load_network(out / "best.safetensors").state_dict()
    assert float((state["network.head.weight"] - start["head.weight"]).abs().max()) < 1e-3


def test_parts_of_a_batch_give_the_gradient_of_the_whole(data: Path, tmp_path: Path) -> None:
    gradients = []
    for parts in (1, 2, 8):
        trainer = tiny.make_trainer(ALONE, tmp_path, parts)
        batches = tiny.make_loader(data).batches(step_slices(0, 8, parts))
        trainer.accumulate(batches)
        gradients.append({name: value.grad for name, value in trainer.network.named_parameters()})
    for other in gradients[1:]:
        for name, value in gradients[0].items():
            assert value is not None and float(value.abs().max()) > 0
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_two_processes_learn_what_one_does(data: Path, tmp_path: Path) -> None:
    parts = 2
    alone = tiny.make_trainer(ALONE, tmp_path / "alone")
    alone.run(tiny.make_loader(data))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(ROOT / "tests/priors/training/two_processes.py"), str(data), str(tmp_path / "two"), str(parts)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launch, *script], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / "two" / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same_weights(first, second)
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
    stored = torch.load(tmp_path / "two" / STATE_NAME, weights_only=True)
    assert stored["step"] == tiny.STEPS


def test_half_precision_and_float16_scaling_are_only_for_cuda(data: Path, tmp_path: Path) -> None:
    trainer = tiny.make_trainer(ALONE, tmp_path)
    other = Trainer(
        tiny.TinyNetwork(),
        replace(trainer.settings, precision="float16"),
        trainer.plan,
        ALONE,
        folder=tmp_path,
        head_hash="none",
    )
    other.network.load_state_dict(trainer.network.state_dict())
    losses = [each.make_step(tiny.make_loader(data).batches(step_slices(0, 8, 1)), 0.0) for each in (trainer, other)]
    assert torch.equal(losses[0], losses[1])


def test_steps_on_what_is_no_number_are_left_out(data: Path, tmp_path: Path) -> None:
    trainer = tiny.make_trainer(ALONE, tmp_path)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    batch = next(tiny.make_loader(data).batches(step_slices(0, 8, 1)))
    batch["image"] = batch["image"] * math.nan
    trainer.make_step(iter([batch]), 0.0)
    assert trainer.step == 1
    assert_same_weights(before, trainer.network.state_dict())
    with pytest.raises(command.UserError, match="no number 20 times in a row"):
        for _ in range(20):
            trainer.make_step(iter([batch]), 0.0)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    settings = OptimiserSettings(warm_up_steps=9)
    assert rate_factor(settings, 0, 0.0) == pytest.approx(0.1)
    assert rate_factor(settings, 9, 0.0) == 1
    assert rate_factor(settings, 50, 0.5) == pytest.approx(0.5)
    assert rate_factor(settings, 99, 1.0) == pytest.approx(0)
    assert rate_factor(replace(settings, decay="none"), 99, 0.9) == 1


def test_plan_follows_steps_or_the_clock() -> None:
    assert Plan(steps=10).progress(5, 1e9) == 0.5
    assert Plan(minutes=2).progress(10**9, 30) == 0.25
    assert Plan(minutes=2).progress(0, 500) == 1


def test_minutes_are_used_up(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "elapsed_seconds", property(lambda self: 0.5 * self.step))
    out = tmp_path / "run"
    assert run(data, out, "--minutes", "0.05", "--set", "optimiser.warm_up_steps=0") == 0
    state = torch.load(out / STATE_NAME, weights_only=True)
    assert state["step"] == 6 and state["elapsed_seconds"] == 3.0
    last = [group["lr"] for group in state["optimiser"]["param_groups"]]
    assert last == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * 5 / 6))] * len(last))
    assert (out / "best.safetensors").is_file()


def test_backbone_has_a_rate_of_its_own_and_biases_do_not_decay() -> None:
    network = torch.nn.Module()
    network.backbone = torch.nn.Linear(3, 3)
    network.head = torch.nn.Linear(3, 2)
    optimiser = make_optimiser(network, OptimiserSettings(rate=1e-4, backbone_rate=1e-5, weight_decay=0.1))
    found = {
        id(value): (group["lr"], group["weight_decay"]) for group in optimiser.param_groups for value in group["params"]
    }
    assert found == {
        id(network.backbone.weight): (1e-5, 0.1),
        id(network.backbone.bias): (1e-5, 0.0),
        id(network.head.weight): (1e-4, 0.1),
        id(network.head.bias): (1e-4, 0.0),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no training data in nowhere"),
        (["--preset", "compcat"], "preset 'compcat' is not known; did you mean 'compact'?"),
        (["--batch", "7", "--parts", "2"], "a batch of 7 cannot be shared equally by 1 processes in 2 parts"),
        (["--set", "optimiser.rat=1"], "setting 'optimiser.rat' is not known; did you mean 'rate'?"),
        (["--set", "optimiser.rate=fast"], "setting 'optimiser.rate' is 'fast'; it must be written like 0.001"),
        (["--set", "normal_space=body"], "setting 'normal_space' is 'body'; allowed: ray, head, camera"),
        (["--pretrained"], "there are no pretrained weights for the preset 'compact'"),
        (["--from", "nothing.safetensors"], "weights nothing.safetensors are not there"),
        (["--data", "{data}=often"], "'often' is no number above 0"),
        (["--out", "{data}/index.json"], "cannot be written"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_wrong_options_are_explained_in_a_line(
    arguments: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [each.replace("{data}", str(data)) for each in arguments]
    options = ["--data", str(data), "--out", str(tmp_path / "run"), "--steps", "1", *SMALL_ARGUMENTS, *filled]
    assert command.main(options) == command.EXIT_USER_ERROR
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_shards_of_another_head_or_without_samples_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    index = ShardIndex.read(other)
    replace(index, head_hash="0123456789abcdef").write(other)
    assert run(other, tmp_path / "run", "--steps", "1") == command.EXIT_USER_ERROR
    assert "was made with another head (0123456789ab) than 'commons'" in capsys.readouterr().err
    replace(index, shards=()).write(other)
    assert run(other, tmp_path / "run", "--steps", "1") == command.EXIT_USER_ERROR
    assert "has no samples yet" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --data, --out"),
        (["--data", "x", "--out", "y"], "one of the arguments --minutes --steps is required"),
        (["--data", "x", "--out", "y", "--minutes", "-3"], "'-3' is no number above 0"),
        (["--data", "x", "--out", "y", "--steps", "0"], "'0' is no whole number of at least 1"),
    ],
)
def test_missing_options_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == command.EXIT_USER_ERROR
    assert message in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    for word in ("examples:", "--resume", "torchrun", "best.safetensors", "Exit status", "paper-normals"):
        assert word in text


def test_pictures_show_input_prediction_truth_and_error(data: Path) -> None:
    from priors.training.validation import draw

    batch = next(validation_batches(DataSet(ShardReader(data)), BatchShape(64, 32), 3))
    picture = draw(tiny.TinyNetwork(), batch, PLACE_SCALE, "cpu")
    assert picture.shape == (3 * 32, 7 * 32, 3) and picture.dtype == np.uint8
    seen = batch["valid"][0].numpy()
    true_normals = picture[:32, 2 * 32 : 3 * 32]
    assert (true_normals[~seen] == 0).all() and (true_normals[seen].max(axis=-1) > 0).all()
