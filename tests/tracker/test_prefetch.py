"""Reading ahead in a thread: order, errors, and a thread that ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tracker.prefetch import Prefetch


class Counting:
    """Count up to a limit, then end or raise; knows how far it got."""

    def __init__(self, limit: int, error: BaseException | None = None) -> None:
        self.limit, self.error = limit, error
        self.num_made = 0

    def __iter__(self) -> Iterator[int]:
        while self.num_made < self.limit:
            self.num_made += 1
            yield self.num_made - 1
        if self.error is not None:
            raise self.error


def num_threads() -> int:
    """Return the number of threads once those that are about to end have ended."""
    time.sleep(0.02)
    return threading.active_count()


@pytest.mark.parametrize("limit", [0, 1, 4, 5, 100])
def test_items_come_in_order_and_all_of_them(limit):
    with Prefetch(Counting(limit)) as items:
        assert list(items) == list(range(limit))


def test_no_more_than_depth_items_are_made_ahead():
    source = Counting(100)
    with Prefetch(source, depth=3) as items:
        time.sleep(0.1)
        assert source.num_made <= 4
        assert next(iter(items)) == 0


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_is_raised_where_the_items_are_read(error):
    read = []
    with pytest.raises(type(error)), Prefetch(Counting(3, error)) as items:
        for item in items:
            read.append(item)
    assert read == [0, 1, 2]


@pytest.mark.parametrize("num_read", [0, 1, 7])
def test_closing_early_stops_the_thread(num_read):
    before = threading.active_count()
    source = Counting(10**9)
    with Prefetch(source) as items:
        for _, _item in zip(range(num_read), items, strict=False):
            pass
    assert num_threads() == before
    made = source.num_made
    time.sleep(0.05)
    assert source.num_made == made


def test_closing_leaves_the_source_free_to_be_closed():
    def numbers() -> Iterator[int]:
        yield from range(10**9)

    source = numbers()
    with Prefetch(source) as items:
        next(iter(items))
    source.close()


def test_whoever_asks_after_the_end_finds_the_end():
    items = Prefetch(Counting(3))
    assert list(items) == [0, 1, 2]
    assert list(items) == []
    items.close()
    assert list(items) == []


def test_whoever_asks_after_closing_finds_the_end():
    items = Prefetch(Counting(10**9))
    items.close()
    items.close()
    assert list(items) == []


def test_two_in_a_row_stop_together():
    before = threading.active_count()
    with Prefetch(Counting(10**9)) as first, Prefetch(10 * item for item in first) as second:
        assert [item for _, item in zip(range(5), second, strict=False)] == [0, 10, 20, 30, 40]
    assert num_threads() == before
