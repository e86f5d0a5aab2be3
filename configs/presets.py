"""Presets by name, and overrides such as ``solver.max_iterations=20`` with misspelt keys refused."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from configs.schema import (
    SMOOTHING_METHODS,
    AdamConfig,
    Config,
    EnergyConfig,
    RegularizationConfig,
    ScoutConfig,
    SmoothingConfig,
    SmoothnessConfig,
    SolverConfig,
)
from flame.errors import InputError

PAPER_ENERGY = EnergyConfig()
"""Pixel3DMM, arXiv 2505.00615: L_uv, L_n, identity and expression."""

RELEASED_ENERGY = EnergyConfig(
    uv_cap=20 / 256,
    uv_pixel=2000.0,
    normal=1000.0,
    normal_cap=3 * 0.33,
    silhouette=500.0,
    landmarks=5e3,
    eye_closure=5e5,
    iris=5e4,
    identity=0.2,
    identity_zero=0.05,
    expression=0.05,
    jaw=0.01,
    neck=0.1,
    eyes=0.01,
    eye_symmetry=0.1,
    mirror=5000.0,
    principal_point=1.0,
    smoothness=SmoothnessConfig(
        expression=50.0, eyes=10.0, jaw=50.0, neck=1000.0, rotation=2000.0, translation=15200.0
    ),
)
"""The weights of the paper's released tracker. It measures some residuals in other units (a hundredfold texture
distance, the two first rows of rotation matrices); what is said here in radians and shares of the image is the same to
first order, but for that factor, which only ever multiplies a weight."""

DENSE_ENERGY = EnergyConfig(
    uv=2000.0,
    uv_cap=4 / 256,
    uv_is_subpixel=True,
    uv_pixel=4000.0,
    normal=1000.0,
    normal_cap=3 * 0.33,
    iris=5e4,
    identity=0.005,
    expression=0.01,
    eyes=0.01,
)
"""Our own, for maps that are right but for noise: texture coordinates count by the pixel, too, and priors for so little
that exact maps outvote them. Vertices near the outline that cannot be seen find wrong pixels, hence the narrow cap."""

_LANDMARK_MAPS_ENERGY = replace(DENSE_ENERGY, uv_cap=20 / 256, normal=200.0, identity=0.15, expression=0.05)
"""For maps drawn from landmarks, whose faults are large and shared by all pixels: priors count for more."""

NETWORK_ENERGY = replace(
    DENSE_ENERGY, uv=500.0, uv_pixel=0.0, normal=1000.0, correspondences=400.0, identity=20.0, expression=1.0
)
"""For maps of networks, which err by some degrees and pixels, and as one: landmarks say where the face is, maps how its
surface runs, and the identity stays near what both suggest by themselves."""

PRESETS: dict[str, Config] = {
    "default": Config(),
    "fast": Config(
        solver=SolverConfig(max_iterations=8, max_iterations_warm=3),
        scout=ScoutConfig(candidates=12, keyframes=8, iterations=8),
    ),
    "careful": Config(
        solver=SolverConfig(max_iterations=30, max_iterations_warm=15, tolerance=1e-5),
        scout=ScoutConfig(candidates=64, frames_per_candidate=4, keyframes=32, iterations=30),
    ),
    "raw": Config(smoothing=SmoothingConfig(half_width_seconds=0.0)),
    "dense": Config(
        solver=SolverConfig(evidence="dense", tolerance=1e-3),
        smoothing=SmoothingConfig(method="quadratic"),
        energy=_LANDMARK_MAPS_ENERGY,
    ),
    "network": Config(
        solver=SolverConfig(evidence="dense", dense_px=128, tolerance=1e-3),
        smoothing=SmoothingConfig(method="quadratic"),
        energy=NETWORK_ENERGY,
    ),
    "paper": Config(
        solver=SolverConfig(evidence="dense", method="adam", dense_px=512),
        scout=ScoutConfig(candidates=4, keyframes=1),
        energy=PAPER_ENERGY,
        smoothing=SmoothingConfig(half_width_seconds=0.0),
    ),
    "released": Config(
        solver=SolverConfig(evidence="dense", method="adam"),
        adam=AdamConfig(
            steps=200,
            identity_rate=2e-3,
            expression_rate=5e-3,
            focal_rate=5e-3,
        ),
        energy=RELEASED_ENERGY,
        smoothing=SmoothingConfig(half_width_seconds=0.0),
    ),
}
"""``default``; ``fast`` and ``careful`` trade time for accuracy; ``raw`` leaves the frames unsmoothed. ``dense`` fits
texture and normal maps instead of landmarks, such as the default prior draws them; ``network`` those that a network
predicts. ``paper`` and ``released`` do so as the paper and its released tracker do, by gradient steps; they are for
comparison, and take many seconds a frame."""


PRESET_OF_PRIOR = {"pixel3dmm": "network", "commons": "network"}
"""Presets of priors for which ``default`` is not made."""

_ABOVE_ZERO = frozenset(
    {
        *(f"regularization.{item.name}" for item in dataclasses.fields(RegularizationConfig)),
        *("solver.robust_width", "solver.sigma_scale"),
        *("solver.dense_px", "adam.steps", "energy.correspondence_width"),
        *("scout.candidates", "scout.frames_per_candidate", "scout.keyframes"),
        *(f"smoothing.{item.name}" for item in dataclasses.fields(SmoothingConfig) if item.name.endswith("_change")),
    }
) - {"regularization.log_focal"}
"""Settings by which something is divided, or of which at least one is needed; a focal length may well be fixed."""
_CHOICES = {
    "smoothing.method": SMOOTHING_METHODS,
    "solver.evidence": ("landmarks", "dense", "dense-identity"),
    "solver.method": ("levenberg-marquardt", "adam"),
}
"""Values of settings that are words."""
_AT_MOST = {
    "regularization.default_fov_degrees": 170.0,
    "overlay.opacity": 1.0,
    **dict.fromkeys(("status.min_presence", "status.low_presence", "status.min_visibility"), 1.0),
}


def load_preset(name: str) -> Config:
    """Return the preset called ``name``.

    Raises:
        InputError: there is no such preset; the message names the nearest.
    """
    if name not in PRESETS:
        raise InputError(f"preset '{name}' is not known{_suggestion(name, PRESETS)}; allowed: {', '.join(PRESETS)}.")
    return PRESETS[name]


def preset_for_prior(prior: str) -> Config:
    """Return the preset that makes use of what a prior says: its landmarks, or its network's maps."""
    return PRESETS[PRESET_OF_PRIOR.get(prior, "default")]


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Return the configuration with ``section.key=value`` assignments applied.

    Raises:
        InputError: an assignment is malformed, its key is not known, or its value has the wrong type.
    """
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        path = path.strip()
        if not separator or "." not in path:
            raise InputError(
                f"setting '{assignment}' is malformed; write section.key=value, e.g. solver.tolerance=1e-4."
            )
        config = _assign(config, path, path.split("."), text.strip())
    return config


_Section = TypeVar("_Section")


def _assign(section: _Section, path: str, names: list[str], text: str) -> _Section:
    """Return a section with the value at the end of ``names`` replaced by what ``text`` says."""
    assert dataclasses.is_dataclass(section) and not isinstance(section, type)
    place = path.split(".")[: -len(names)]
    fields = {item.name: getattr(section, item.name) for item in dataclasses.fields(section)}
    if names[0] not in fields:
        if not place:
            raise InputError(
                f"setting '{path}' has an unknown section '{names[0]}'{_suggestion(names[0], fields)}; "
                f"allowed: {', '.join(fields)}."
            )
        prefix = ".".join(place)
        raise InputError(
            f"setting '{path}' is not known{_suggestion(names[0], fields, prefix + '.')}; "
            f"allowed in {prefix}: {', '.join(fields)}."
        )
    current = fields[names[0]]
    if dataclasses.is_dataclass(current) != (len(names) > 1):
        kind = "holds settings of its own" if dataclasses.is_dataclass(current) else "holds none of its own"
        raise InputError(f"setting '{path}' is malformed: '{'.'.join((*place, names[0]))}' {kind}.")
    value = _assign(current, path, names[1:], text) if len(names) > 1 else _parse(path, text, current)
    return dataclasses.replace(section, **{names[0]: value})


def _suggestion(found: str, allowed: Iterable[str], prefix: str = "") -> str:
    """Return ``; did you mean …?`` when a known word is near, else nothing."""
    near = difflib.get_close_matches(found, list(allowed), n=1)
    return f"; did you mean '{prefix}{near[0]}'?" if near else ""


def _parse(path: str, text: str, current: int | float | str) -> int | float | str:
    """Return ``text`` as the type of the current value."""
    if isinstance(current, str):
        allowed = _CHOICES[path]
        if text not in allowed:
            hint = _suggestion(text, allowed)
            raise InputError(f"setting '{path}' is '{text}'{hint}; allowed: {', '.join(allowed)}.")
        return text
    if isinstance(current, bool):
        if text not in ("true", "false"):
            raise InputError(f"setting '{path}' is '{text}'; allowed: true, false.")
        return text == "true"
    kind = type(current)
    try:
        value = kind(text)
    except ValueError:
        value = None
    most = _AT_MOST.get(path, math.inf)
    is_inside = value is not None and math.isfinite(value) and 0 <= value <= most
    if value is None or not is_inside or (value == 0 and path in _ABOVE_ZERO):
        name = {int: "a whole number", float: "a number"}[kind]
        start = "above 0" if path in _ABOVE_ZERO else "of at least 0"
        end = f" and at most {most:g}" if math.isfinite(most) else ""
        raise InputError(f"setting '{path}' is '{text}'; it must be {name} {start}{end}.")
    return value
