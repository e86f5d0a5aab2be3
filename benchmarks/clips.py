"""Measure the whole pipeline on clips: share tracked, residual, speed against decoding + MediaPipe alone.

    python benchmarks/clips.py [CLIP ...] [--faces N] [--repeats N]

Every clip is run in three ways in one process, after a warm-up, in turns: decoding + MediaPipe FaceMesh alone (irises
on), the tracker without overlay, the tracker with overlay. Loading of libraries and models is not counted, scouting and
identity are. ``ratio`` is the median time of the tracker without overlay over that of decoding + MediaPipe alone,
``CPU`` the same of the processor time of all threads, which other programs on the machine disturb less. Quote these;
absolute times depend on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import load_preset
from flame.errors import UserError
from tracker.api import Options, track_many
from tracker.clip import Toolkit, load_toolkit
from tracker.frames import open_source
from tracker.result import Track


@dataclass(frozen=True)
class Cost:
    """Hold what a run took."""

    wall_seconds: float
    cpu_seconds: float
    """Processor time of all threads."""

    @staticmethod
    def median(costs: Sequence[Cost]) -> Cost:
        """Return the medians of several runs of the same."""
        return Cost(
            statistics.median(cost.wall_seconds for cost in costs),
            statistics.median(cost.cpu_seconds for cost in costs),
        )


@dataclass(frozen=True)
class Measurement:
    """Hold the figures of one clip."""

    name: str
    track: Track
    alone: Cost
    """Decoding + MediaPipe."""
    plain: Cost
    """The tracker without overlay."""
    overlay: Cost
    """The tracker with overlay."""

    def row(self) -> str:
        """Return the figures as one line of a table."""
        track = self.track
        size = f"{track.intrinsics.width}x{track.intrinsics.height}"
        is_tracked = track.is_tracked.any(axis=0) if track.num_people else np.zeros(len(track), bool)
        percent = 100 * track.residual_px / track.interocular_px
        residual = f"{np.nanmedian(percent):.2f}" if np.isfinite(percent).any() else "-"
        return (
            f"{self.name:32s} {size:>10s} {len(track):6d} {is_tracked.sum():8d} {residual:>9s} "
            f"{len(track) / self.plain.wall_seconds:8.1f} {len(track) / self.overlay.wall_seconds:8.1f} "
            f"{len(track) / self.alone.wall_seconds:8.1f} {self.plain.wall_seconds / self.alone.wall_seconds:6.2f} "
            f"{self.plain.cpu_seconds / self.alone.cpu_seconds:6.2f}"
        )


HEADER = (
    f"{'clip':32s} {'size':>10s} {'frames':>6s} {'tracked':>8s} {'residual%':>9s} "
    f"{'frames/s':>8s} {'+overlay':>8s} {'MP alone':>8s} {'ratio':>6s} {'CPU':>6s}"
)


@contextlib.contextmanager
def stopwatch() -> Iterator[list[Cost]]:
    """Yield a list that holds the block's cost once it has ended."""
    costs: list[Cost] = []
    started, cpu_started = time.perf_counter(), time.process_time()
    yield costs
    costs.append(Cost(time.perf_counter() - started, time.process_time() - cpu_started))


def decode_and_mediapipe(path: Path, num_faces: int) -> Cost:
    """Return what decoding and MediaPipe FaceMesh alone take for a clip."""
    import mediapipe as mp

    face_mesh = mp.solutions.face_mesh.FaceMesh(max_num_faces=num_faces, refine_landmarks=True)
    with stopwatch() as costs, open_source(path) as source:
        for frame in source:
            face_mesh.process(frame.image)
    face_mesh.close()
    return costs[0]


def track_clip(path: Path, toolkit: Toolkit, options: Options) -> tuple[Track, Cost]:
    """Track a clip and return what that takes, writing included."""
    with tempfile.TemporaryDirectory() as folder, stopwatch() as costs:
        (track,) = track_many([path], [folder], toolkit=toolkit, options=options)
    return track, costs[0]


def measure(path: Path, num_faces: int, toolkit: Toolkit, repeats: int = 1) -> Measurement:
    """Run one clip in all three ways, in turns."""
    alone, plain, overlay = [], [], []
    for _ in range(max(repeats, 1)):
        alone.append(decode_and_mediapipe(path, num_faces))
        track, cost = track_clip(path, toolkit, Options(faces=num_faces, overlay=False))
        plain.append(cost)
        overlay.append(track_clip(path, toolkit, Options(faces=num_faces))[1])
    return Measurement(path.name, track, Cost.median(alone), Cost.median(plain), Cost.median(overlay))


def main() -> None:
    """Print one row per clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", default=[Path("examples/sample.mp4")])
    parser.add_argument("--faces", type=int, default=1, metavar="N")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="runs of each kind, of which the median counts"
    )
    arguments = parser.parse_args()
    toolkit = load_toolkit("commons", "mediapipe", load_preset("default"))
    measure(arguments.clips[0], arguments.faces, toolkit)
    print(HEADER)
    for path in arguments.clips:
        try:
            print(measure(path, arguments.faces, toolkit, arguments.repeats).row(), flush=True)
        except UserError as error:
            print(f"{path.name}: {error}")


if __name__ == "__main__":
    main()
