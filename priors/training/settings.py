"""Presets of the training: plain data, stored in every run so that it can be continued and repeated."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from flame.errors import InputError

NORMAL_SPACES = ("ray", "head", "camera")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class AugmentationSettings:
    """Say how often, and how strongly, pictures are changed while they are learnt from; chances are in [0, 1]."""

    flip: float = 0.5
    """Chance of the mirror image, with mirrored labels."""
    warp: float = 0.6
    """Chance of a small similarity: turn, scale, shift."""
    max_turn_degrees: float = 5.0
    max_scale: float = 0.08
    """Largest relative change of size."""
    max_shift: float = 0.04
    """Largest shift over the picture's side."""
    colour: float = 0.8
    """Chance of another gain per channel, brightness, contrast, gamma and saturation."""
    grey: float = 0.07
    """Chance of a picture without colours."""
    blur: float = 0.25
    """Chance of a blur: out of focus, moved, or enlarged from fewer pixels."""
    compression: float = 0.2
    """Chance of strong JPEG compression."""
    noise: float = 0.35
    """Chance of a sensor's noise."""
    erase: float = 0.3
    """Chance of patches of noise or of another part of the picture, whose pixels lose their labels."""


NO_AUGMENTATION = AugmentationSettings(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class LossSettings:
    """Weigh what a network must learn; see ``losses``."""

    place: float = 1.0
    normals: float = 1.0
    uv: float = 1.0
    kind: float = 0.5
    plain_place: float = 1.0
    """Weight of the plain distance beside the likelihood, so that doubtful pixels are learnt as well."""
    plain_normals: float = 1.0
    plain_uv: float = 1.0
    is_normalised: bool = True
    """Whether predicted normals are brought to unit length before they are compared."""
    skin_weight: float = 1.0
    eye_weight: float = 0.5
    mouth_weight: float = 0.2
    hair_weight: float = 0.3
    """How much pixels of each kind count for places and normals; background and covers count nothing."""


@dataclass(frozen=True)
class OptimiserSettings:
    """Say how steps are made."""

    method: Literal["adamw", "adam"] = "adamw"
    rate: float = 1e-3
    """Learning rate of everything but the backbone."""
    backbone_rate: float = 1e-4
    """Learning rate of parameters whose name begins with ``backbone.``."""
    weight_decay: float = 0.02
    """Not for biases and normalisation."""
    warm_up_steps: int = 100
    decay: Literal["cosine", "none"] = "cosine"
    """How the learning rate falls to zero over the steps or minutes given."""
    max_gradient: float = 1.0
    """Longer gradients are shortened to this length; 0 for no limit."""
    ema: float = 0.999
    """Share of the averaged weights kept per step, reached slowly; 0 for none."""


@dataclass(frozen=True)
class TrainingSettings:
    """Hold everything that decides what comes out of a training but its data."""

    preset: str
    network: Any
    """Configuration of the network, a frozen dataclass that ``priors.networks.build_network`` knows."""
    normal_space: Literal["ray", "head", "camera"] = "ray"
    batch: int = 32
    """Samples per step over all processes and accumulated parts."""
    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the network's arithmetic on CUDA; weights and losses stay float32."""
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)


def load_preset(name: str) -> TrainingSettings:
    """Return the preset called ``name``.

    ``compact``: a small network that learns on a CPU in an hour. ``paper-normals`` and ``paper-uv``: the recipe of
    Pixel3DMM (arXiv 2505.00615, section 4): masked distance, Adam, batch 40, learning rate 1e-4, backbone 1e-5.

    Raises:
        InputError: there is no such preset.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"preset '{name}' is not known{hint}; allowed: {', '.join(PRESETS)}")
    if name == "compact":
        from priors.networks.compact import CompactConfig

        return TrainingSettings("compact", CompactConfig())
    return _paper(name)


PRESETS = ("compact", "paper-normals", "paper-uv")


def _paper(name: str) -> TrainingSettings:
    """Return the paper's recipe for one of its two networks."""
    from priors.networks.vit import ViTSurfaceConfig

    return TrainingSettings(
        name,
        ViTSurfaceConfig(outputs=("normals",) if name == "paper-normals" else ("uv",)),
        normal_space="head",
        batch=40,
        precision="bfloat16",
        loss=LossSettings(kind=0.0, is_normalised=False, eye_weight=1.0, mouth_weight=1.0, hair_weight=1.0),
        optimiser=OptimiserSettings(
            method="adam",
            rate=1e-4,
            backbone_rate=1e-5,
            weight_decay=0.0,
            warm_up_steps=0,
            decay="none",
            max_gradient=0.0,
        ),
    )


def override(settings: TrainingSettings, assignments: Iterable[str]) -> TrainingSettings:
    """Return settings with assignments such as ``optimiser.rate=3e-4`` applied.

    Raises:
        InputError: an assignment is malformed, its key is not known, or its value has the wrong type.
    """
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise InputError(f"setting '{assignment}' is malformed; write key=value, e.g. optimiser.rate=3e-4")
        settings = _assign(settings, path.strip(), path.strip().split("."), text.strip())
    _check(settings)
    return settings


def _assign(section: Any, path: str, names: list[str], text: str) -> Any:
    """Return a section with the value at the end of ``names`` replaced by what ``text`` says."""
    fields = {item.name: getattr(section, item.name) for item in dataclasses.fields(section)}
    if names[0] not in fields:
        near = difflib.get_close_matches(names[0], fields, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"setting '{path}' is not known{hint}; allowed there: {', '.join(fields)}")
    current = fields[names[0]]
    if dataclasses.is_dataclass(current) != (len(names) > 1):
        raise InputError(f"setting '{path}' is malformed; write section.key=value, e.g. optimiser.rate=3e-4")
    value = _assign(current, path, names[1:], text) if len(names) > 1 else _parse(path, text, current)
    return dataclasses.replace(section, **{names[0]: value})


def _parse(path: str, text: str, current: Any) -> Any:
    """Return ``text`` as the type of the current value."""
    if isinstance(current, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(current, tuple) and isinstance(value, list):
        return tuple(value)
    if current is None:
        return value
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(current):
        raise InputError(f"setting '{path}' is '{text}'; it must be written like {json.dumps(current)}")
    return value


def _check(settings: TrainingSettings) -> None:
    """Refuse values with which nothing can be trained."""
    choices = (
        ("normal_space", settings.normal_space, NORMAL_SPACES),
        ("precision", settings.precision, PRECISIONS),
        ("optimiser.method", settings.optimiser.method, ("adamw", "adam")),
        ("optimiser.decay", settings.optimiser.decay, ("cosine", "none")),
    )
    for name, value, allowed in choices:
        if value not in allowed:
            raise InputError(f"setting '{name}' is '{value}'; allowed: {', '.join(allowed)}")
    if settings.batch < 1:
        raise InputError(f"setting 'batch' is {settings.batch}; it must be at least 1")
    if not 0 <= settings.optimiser.ema < 1:
        raise InputError(f"setting 'optimiser.ema' is {settings.optimiser.ema}; it must be at least 0 and below 1")
    if settings.optimiser.rate <= 0:
        raise InputError(f"setting 'optimiser.rate' is {settings.optimiser.rate}; it must be above 0")


def as_plain(settings: TrainingSettings) -> dict[str, Any]:
    """Return the settings as JSON would hold them."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))
