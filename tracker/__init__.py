"""Video face tracking: a video in, a FLAME-format head sequence out.

``tracker.track(path)`` runs the tracker, ``tracker.Track.load(folder)`` reads a result back.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker.api import track
    from tracker.result import Track

__all__ = ["Track", "track"]

_HOMES = {"Track": "tracker.result", "track": "tracker.api"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``tracker.system_check`` speaks before OpenCV loads."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
