"""Presets and settings: every mistake is refused with a line that helps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import configs
from configs import PRESETS, Config, load_preset, override, preset_for_prior
from flame.errors import InputError

ROOT = Path(configs.__file__).parent.parent


def test_default_preset_is_the_default_configuration():
    assert load_preset("default") == Config()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load(name):
    assert isinstance(load_preset(name), Config)


def test_priors_with_networks_have_a_preset_of_their_own():
    assert preset_for_prior("mediapipe") == load_preset("default")
    assert preset_for_prior("commons") == preset_for_prior("pixel3dmm") == load_preset("network")
    assert load_preset("network").solver.evidence == "dense"


def test_override_changes_one_setting_only():
    config = override(Config(), ["solver.max_iterations=3", "solver.tolerance=1e-6"])
    assert config.solver.max_iterations == 3
    assert config.solver.tolerance == 1e-6
    assert config.scout == Config().scout


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("solver.max_iteration=3", "did you mean 'solver.max_iterations'"),
        ("sover.max_iterations=3", "did you mean 'solver'"),
        ("solver.max_iterations=many", "must be a whole number"),
        ("solver.tolerance=small", "must be a number"),
        ("solver.max_iterations", "write section.key=value"),
        ("max_iterations=3", "write section.key=value"),
    ],
)
def test_wrong_settings_are_refused(assignment, message):
    with pytest.raises(InputError, match=message):
        override(Config(), [assignment])


def test_misspelt_preset_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'careful'"):
        load_preset("carefull")


def test_every_setting_is_read_somewhere():
    sources = [path for folder in ("tracker", "priors") for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    for section in dataclasses.fields(Config):
        for key in dataclasses.fields(getattr(Config(), section.name)):
            assert f".{key.name}" in text, f"{section.name}.{key.name} is never read"


def test_a_setting_that_is_a_word_takes_its_words_only():
    assert override(Config(), ["smoothing.method=quadratic"]).smoothing.method == "quadratic"
    with pytest.raises(
        InputError, match="'smoothing.method' is 'windw'; did you mean 'window'.*; allowed: window, quadr"
    ):
        override(Config(), ["smoothing.method=windw"])
