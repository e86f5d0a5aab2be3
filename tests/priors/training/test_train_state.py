"""What a training leaves on disk: state, weights, figures."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flame.errors import AssetMissingError, InputError
from priors.networks.compact import CompactConfig, CompactNetwork
from priors.networks.weights import WeightsCard, load_card, load_network, save_network
from priors.training.logs import MetricsLog, ProgressBar, read_metrics
from priors.training.run_state import STATE_NAME, AveragedWeights, differences, load_state, save_state
from priors.training.settings import PRESETS, LossSettings, as_plain, load_preset, override

CONFIG = CompactConfig(input_px=32, widths=(8, 8, 8, 8, 8), depths=(0, 1, 1, 1, 1))
CARD = WeightsCard(CONFIG, "ray", "abc", {"step": 3, "figures": {"loss": 0.5}})


def small_network() -> CompactNetwork:
    torch.manual_seed(2)
    network = CompactNetwork(CONFIG)
    network.stem[0][1].num_batches_tracked += 7
    return network.eval()


@pytest.mark.parametrize("is_half", [False, True])
def test_weights_come_back_with_their_network(tmp_path: Path, is_half: bool) -> None:
    network = small_network().to(memory_format=torch.channels_last)
    path = tmp_path / "w.safetensors"
    save_network(path, network, CARD, is_half=is_half)
    again = load_network(path)
    assert load_card(path) == CARD and not again.training
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before, after = network(image), again(image)
    tolerance = 2e-2 if is_half else 1e-6
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=tolerance, rtol=0)
    assert all(value.dtype == torch.float32 for value in again.parameters())
    assert int(again.state_dict()["stem.0.1.num_batches_tracked"]) == 7
    assert path.stat().st_mode & 0o044, "others may read it, as any file"
    assert [item.name for item in tmp_path.iterdir()] == ["w.safetensors"]


def test_files_that_are_no_weights_of_ours_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    with pytest.raises(AssetMissingError, match="are not there"):
        load_network(path)
    path.write_bytes(b"no weights at all, of anything")
    with pytest.raises(InputError, match="is no safetensors file"):
        load_network(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="weights of another program"):
        load_network(path)
    header = {"version": 1, "network": {"kind": "huge"}, "normal_space": "ray", "head_hash": "", "summary": {}}
    for change, message in (({}, "no network of kind 'huge'"), ({"version": 9}, "format version 9")):
        save_file({"a": torch.zeros(2)}, path, metadata={"pixel3dmm-tracker": json.dumps({**header, **change})})
        with pytest.raises(InputError, match=message):
            load_network(path)
    save_file({"a": torch.zeros(2)}, path, metadata={"pixel3dmm-tracker": "{}"})
    with pytest.raises(InputError, match="damaged header"):
        load_network(path)
    save_network(path, small_network(), replace(CARD, network=replace(CONFIG, widths=(8, 8, 8, 8, 16))))
    with pytest.raises(InputError, match="weights of another network"):
        load_network(path)


def test_state_is_read_without_running_anything(tmp_path: Path) -> None:
    save_state(tmp_path, {"step": 4, "values": [torch.arange(3)]})
    assert load_state(tmp_path)["step"] == 4
    assert [item.name for item in tmp_path.iterdir()] == [STATE_NAME]

    class Harmful:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"version": 1, "step": Harmful()}, tmp_path / STATE_NAME)
    with pytest.raises(InputError, match="cannot be read"):
        load_state(tmp_path)
    (tmp_path / STATE_NAME).write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(InputError, match="cannot be read"):
        load_state(tmp_path)
    torch.save({"version": 99}, tmp_path / STATE_NAME)
    with pytest.raises(InputError, match="version 99"):
        load_state(tmp_path)


def test_average_reaches_back_further_as_steps_go_by() -> None:
    network = torch.nn.BatchNorm1d(1)
    average = AveragedWeights(network, 0.5)
    expected = 1.0
    for step in range(1, 40):
        with torch.no_grad():
            network.weight.fill_(float(step))
        network.num_batches_tracked.fill_(step)
        average.update(network, step)
        decay = min(0.5, step / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.network.weight) == pytest.approx(expected, rel=1e-5)
    assert int(average.network.num_batches_tracked) == 39
    last = AveragedWeights(network, 0.0)
    with torch.no_grad():
        network.weight.fill_(5.0)
    last.update(network, 100)
    assert float(last.network.weight) == 5


def test_figures_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in (1, 20, 40):
        log.write("train", step, {"loss": 1.0 / step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"group": "train", "st')
    log = MetricsLog(tmp_path, last_step=20)
    log.write("validation", 25, {"loss": 0.1})
    log.close()
    assert [(record["group"], record["step"]) for record in read_metrics(tmp_path)] == [
        ("train", 1),
        ("train", 20),
        ("validation", 25),
    ]
    assert read_metrics(tmp_path / "nothing") == []


def test_without_tensorboard_figures_go_to_the_file_and_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    log = MetricsLog(tmp_path)
    log.write("train", 1, {"loss": 2.0})
    log.close()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install tensorboard" in error and "metrics.jsonl" in error
    assert read_metrics(tmp_path)[0]["loss"] == 2.0


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    for percent in range(100):
        bar.show(percent / 100, f"step {percent}")
    bar.close()
    assert capsys.readouterr().err == "  0.0 %  step 0\n"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_stored_and_changed(name: str) -> None:
    settings = load_preset(name)
    plain = as_plain(settings)
    assert json.loads(json.dumps(plain)) == plain and plain["preset"] == name
    changed = override(settings, ["batch=3", "optimiser.rate=1", "loss.place=0", "augmentation.flip=0.25"])
    assert (changed.batch, changed.optimiser.rate, changed.loss.place) == (3, 1.0, 0.0)
    assert differences(plain, as_plain(changed)) == [
        f"augmentation.flip was {settings.augmentation.flip}, now 0.25",
        f"batch was {settings.batch}, now 3",
        "loss.place was 1.0, now 0.0",
        f"optimiser.rate was {settings.optimiser.rate}, now 1.0",
    ]


def test_paper_presets_are_the_paper() -> None:
    for name, output in (("paper-normals", "normals"), ("paper-uv", "uv")):
        settings = load_preset(name)
        assert settings.network.outputs == (output,) and settings.batch == 40
        assert settings.optimiser.method == "adam" and settings.optimiser.decay == "none"
        assert (settings.optimiser.rate, settings.optimiser.backbone_rate) == (1e-4, 1e-5)
        assert settings.loss == LossSettings(
            kind=0.0, is_normalised=False, eye_weight=1.0, mouth_weight=1.0, hair_weight=1.0
        )


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("batch", "is malformed; write key=value"),
        ("batch=0", "must be at least 1"),
        ("batch=2.5", "must be written like 32"),
        ("loss=3", "is malformed; write section.key=value"),
        ("optimiser.ema=1", "must be at least 0 and below 1"),
        ("optimiser.method=sgd", "allowed: adamw, adam"),
        ("precision=half", "allowed: float32, bfloat16, float16"),
        ("optimiser.rate=-1", "must be above 0"),
        ("loss.is_normalised=1", "must be written like true"),
    ],
)
def test_bad_assignments_are_explained(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(load_preset("compact"), [assignment])
