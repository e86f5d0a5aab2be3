"""Read back from a track how it was made."""

from __future__ import annotations

import dataclasses
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from configs.schema import Config

if TYPE_CHECKING:
    from tracker.api import Options
    from tracker.result import Track

Settings = TypeVar("Settings")


def recorded_config(track: Track) -> Config:
    """Return the configuration that a track was made with; what it does not tell is as it is by default."""
    return _known(Config, track.info.get("settings", {}).get("config"))


def recorded_options(track: Track) -> Options:
    """Return the options that a track was made with; what it does not tell is as it is by default.

    The device is this machine's choice: a track that was made with a GPU is of use without one.

    Raises:
        InputError: an option is one that this program refuses.
    """
    from tracker.api import Options

    told = dict(track.info.get("settings", {}), config=recorded_config(track))
    names = {field.name for field in dataclasses.fields(Options)}
    values: dict[str, Any] = {}
    for name in names & told.keys():
        # JSON knows no tuples.
        values[name] = tuple(told[name]) if isinstance(told[name], list) else told[name]
    values["device"] = "auto"
    return Options(**values)


def _known(kind: type[Settings], told: Any) -> Settings:
    """Build a configuration from what JSON tells of its fields; those of other versions of the program are left out."""
    if not isinstance(told, dict):
        return kind()
    values: dict[str, Any] = {}
    for name, part in typing.get_type_hints(kind).items():
        if name in told:
            values[name] = _known(part, told[name]) if _is_settings(part) else told[name]
    return kind(**values)


def _is_settings(kind: Any) -> bool:
    """Return whether a type of a field is a configuration itself."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)
