"""Carry tracks over from one head model to another: the vertices stay, the parameters are fitted anew."""

from __future__ import annotations

from tracker.conversion.track_conversion import Conversion, PersonError, convert_track

__all__ = ["Conversion", "PersonError", "convert_track"]
