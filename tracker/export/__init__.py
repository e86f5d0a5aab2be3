"""Write tracks as files that other people's programs read.

``export("video_track", ["glb", "arkit"])`` does what ``python -m tracker.export video_track glb arkit`` does on the
command line. Each format is written into a folder of its own, ``export/NAME``, which appears when everything in it is
there; an earlier one is replaced then and not before. The formats: ``tracker.export.formats``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker.export.formats import FORMATS, Format
    from tracker.export.job import ExportJob, ExportOptions, Written
    from tracker.export.writing import Exported, export

__all__ = ["FORMATS", "ExportJob", "ExportOptions", "Exported", "Format", "Written", "export"]

_HOMES = {
    "FORMATS": "tracker.export.formats",
    "Format": "tracker.export.formats",
    "ExportJob": "tracker.export.job",
    "ExportOptions": "tracker.export.job",
    "Written": "tracker.export.job",
    "Exported": "tracker.export.writing",
    "export": "tracker.export.writing",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that command lines speak before heavy libraries load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
