"""Presets by name, and overrides such as ``solver.max_iterations=20`` with misspelt keys refused."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable

from configs.schema import Config, RegularizationConfig, ScoutConfig, SmoothingConfig, SolverConfig
from flame.errors import InputError

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
}
"""``default``; ``fast`` and ``careful`` trade time for accuracy; ``raw`` leaves the frames unsmoothed."""


_ABOVE_ZERO = frozenset(
    {
        *(f"regularization.{item.name}" for item in dataclasses.fields(RegularizationConfig)),
        *("solver.robust_width", "solver.sigma_scale"),
        *("scout.candidates", "scout.frames_per_candidate", "scout.keyframes"),
    }
) - {"regularization.log_focal"}
"""Settings by which something is divided, or of which at least one is needed; a focal length may well be fixed."""
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


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Return the configuration with ``section.key=value`` assignments applied.

    Raises:
        InputError: an assignment is malformed, its key is not known, or its value has the wrong type.
    """
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        section_name, dot, key = path.strip().partition(".")
        if not separator or not dot:
            raise InputError(
                f"setting '{assignment}' is malformed; write section.key=value, e.g. solver.tolerance=1e-4."
            )
        sections = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
        if section_name not in sections:
            raise InputError(
                f"setting '{path}' has an unknown section '{section_name}'{_suggestion(section_name, sections)}; "
                f"allowed: {', '.join(sections)}."
            )
        section = sections[section_name]
        keys = [item.name for item in dataclasses.fields(section)]
        if key not in keys:
            raise InputError(
                f"setting '{path}' is not known{_suggestion(key, keys, section_name + '.')}; "
                f"allowed in {section_name}: {', '.join(keys)}."
            )
        value = _parse(path, text.strip(), getattr(section, key))
        config = dataclasses.replace(config, **{section_name: dataclasses.replace(section, **{key: value})})
    return config


def _suggestion(found: str, allowed: Iterable[str], prefix: str = "") -> str:
    """Return ``; did you mean …?`` when a known word is near, else nothing."""
    near = difflib.get_close_matches(found, list(allowed), n=1)
    return f"; did you mean '{prefix}{near[0]}'?" if near else ""


def _parse(path: str, text: str, current: int | float) -> int | float:
    """Return ``text`` as the type of the current value."""
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
