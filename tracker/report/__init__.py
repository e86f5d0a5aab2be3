"""A report of a track: one HTML file that shows the clip, what was found in it, and what went wrong where."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker.report.writing import FILE_NAME, write_report

__all__ = ["FILE_NAME", "write_report"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that the command line speaks before heavy libraries load."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("tracker.report.writing"), name)
