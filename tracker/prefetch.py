"""Run an iterator ahead in a thread of its own, a few items at most."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
_END = object()


class Prefetch(Generic[Item]):
    """Iterate over ``source`` while the next ``depth`` items are made in another thread.

    What the source raises is raised here. ``close`` (or leaving a ``with`` block) stops the thread.
    """

    def __init__(self, source: Iterable[Item], depth: int = 4) -> None:
        """Start the thread."""
        self._source = source
        self._queue: queue.Queue = queue.Queue(depth)
        self._is_closed = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch[Item]:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread."""
        self.close()

    def __iter__(self) -> Iterator[Item]:
        """Yield the source's items in order; nothing more once they have ended or after ``close``."""
        while (item := self._queue.get()) is not _END:
            yield item
        # Whoever asks again finds the end again, in place of a queue that nobody fills.
        self._queue.put(_END)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop the thread and wait until it has let go of the source."""
        self._is_closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put(_END)

    def _run(self) -> None:
        """Fill the queue until the source ends or the reader leaves."""
        try:
            for item in self._source:
                self._queue.put(item)
                if self._is_closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the reader's thread
            self._error = error
        finally:
            self._queue.put(_END)
