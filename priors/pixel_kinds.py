"""What a pixel of a picture of a head may show, as labels say it and networks predict it."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """Tell what a pixel shows."""

    BACKGROUND = 0
    """Anything behind the head; clothes and shoulders, too."""
    SKIN = 1
    """The head's surface, brows and lips included."""
    EYE = 2
    """An eyeball."""
    MOUTH = 3
    """The inside of the mouth."""
    HAIR = 4
    """Scalp hair or a beard over the head; the labels are those of the surface below, where there is one."""
    COVER = 5
    """A thing in front: a hand, glasses, a cup; no other labels."""
