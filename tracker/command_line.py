"""What the project's commands have in common: how they speak of mistakes, how they end, and how they show progress."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from flame.errors import UserError
from tracker.system_check import check_python_packages, check_system_libraries

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

Item = TypeVar("Item")


class Parser(argparse.ArgumentParser):
    """Say in one line what is wrong with a command line."""

    def error(self, message: str) -> NoReturn:
        """Print the error with a suggestion and end with the status of user errors."""
        unknown, _, rest = message.partition(": ")[2].partition(" ")
        if message.startswith("unrecognized arguments"):
            near = difflib.get_close_matches(unknown.partition("=")[0], list(self._option_string_actions), n=1)
            message = f"unknown option {unknown}" + (f" {rest}" if rest else "")
            message += f"; did you mean {near[0]}?" if near else ""
        if message.endswith(": expected one argument"):
            # What begins with a minus sign and is no plain number is taken for another option.
            option = message.removeprefix("argument ").partition(":")[0].rpartition("/")[2]
            message += f"; one that begins with - is written {option}=VALUE"
        self.exit(EXIT_USER_ERROR, f"error: {message} ({self.prog} --help lists the options)\n")


class Interruption:
    """Know whether Ctrl-C or a kill has come, also where a library swallows the exception."""

    def __init__(self) -> None:
        """Begin without one."""
        self.has_come = False

    def check(self) -> None:
        """End the command where an interruption has come.

        Raises:
            KeyboardInterrupt: one has.
        """
        if self.has_come:
            raise KeyboardInterrupt


def run_command(
    run: Callable[[], int], on_interrupt: Callable[[], None], interruption: Interruption | None = None
) -> int:
    """Run a command and return its exit status: a user's mistake is one line and status 2, an interruption 130.

    Args:
        run: the command; it returns its exit status.
        on_interrupt: says what is left of an interrupted command.
        interruption: is told when one comes.
    """
    state = interruption or Interruption()
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that are no text here.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _answering_signals(state):
            check_python_packages()
            check_system_libraries()
            return run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except (KeyboardInterrupt, SystemError) as error:
        # Ctrl-C inside compiled code comes out as a SystemError.
        if isinstance(error, SystemError) and not state.has_come:
            raise
        on_interrupt()
        return EXIT_INTERRUPTED


@contextlib.contextmanager
def _answering_signals(state: Interruption) -> Iterator[None]:
    """Let a kill end a command as Ctrl-C does; what is ignored (after ``nohup`` or ``&``) stays ignored."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        state.has_come = True
        raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    heard = {each: handler for each, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for each in heard:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in heard.items():
            # Whoever presses again after an interruption gets what happens anyway: the end of the program.
            signal.signal(each, signal.SIG_IGN if state.has_come else handler)


def show_steps(items: Iterable[Item], count: int, label: str) -> Iterable[Item]:
    """Return the items, while a bar on the terminal shows rate and time left; nothing where there is no terminal."""
    from tqdm import tqdm

    return tqdm(items, total=count, desc=label, unit=" frames", dynamic_ncols=True, leave=False, disable=None)


def say(text: str) -> None:
    """Print for the user; a reader that has left, such as ``head``, stops nothing."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is still buffered would be tried again at the end of the program.
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
