"""Keep what must not be cut in two whole, however often Ctrl-C is pressed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and a polite kill."""


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block has ended; those that came are delivered then.

    Signals reach Python's main thread alone, so in other threads there is nothing to do. When the block ends with an
    exception, that one counts and the signals are dropped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if handler is None else handler)
    for number in dict.fromkeys(came):
        signal.raise_signal(number)
