"""Where a training's figures go: a line of JSON each, TensorBoard where it is installed, and a bar on the terminal."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

METRICS_NAME = "metrics.jsonl"
_SECONDS_BETWEEN_LINES = 60.0
"""Where no terminal shows a bar, a line appears so often."""


class MetricsLog:
    """Write figures by step to ``metrics.jsonl`` and, if it is installed, for TensorBoard."""

    def __init__(self, folder: Path, last_step: int = 0) -> None:
        """Continue the log of a run; what it says of steps after ``last_step``, which are done again, is dropped."""
        self._path = folder / METRICS_NAME
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= last_step]
            self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._board = _tensorboard(folder, last_step)

    def write(self, group: str, step: int, figures: dict[str, float]) -> None:
        """Add figures of a group, ``train`` or ``validation``, at a step."""
        record = {"group": group, "step": step, "time": round(time.time(), 1), **figures}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Write what is still buffered."""
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, float | str]]:
    """Return the records of a run's ``metrics.jsonl``, empty if there is none."""
    path = Path(folder) / METRICS_NAME
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _step_of(line: str) -> float:
    """Return the step of a record; infinite for a line that was cut off."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _tensorboard(folder: Path, last_step: int) -> SummaryWriter | None:
    """Return a writer for TensorBoard, None where it is not installed."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        tell(f"tensorboard is not installed (pip install tensorboard); figures go to {folder / METRICS_NAME} alone")
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=last_step + 1)


class ProgressBar:
    """Show on a terminal how far the training is; elsewhere, print a line a minute."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar = None
        self._last_line = -_SECONDS_BETWEEN_LINES
        if sys.stderr.isatty():
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f} %|{bar}| {postfix}"
            self._bar = tqdm(total=100.0, bar_format=form, desc="training", dynamic_ncols=True)

    def show(self, progress: float, text: str) -> None:
        """Show the share done, in [0, 1], and what there is to say."""
        if self._bar is not None:
            self._bar.n = min(100.0, 100 * progress)
            self._bar.set_postfix_str(text, refresh=True)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            tell(f"{100 * progress:5.1f} %  {text}")

    def close(self) -> None:
        """Leave the terminal as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def tell(text: str) -> None:
    """Print a line for the user, above a bar if one is shown."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
