"""Measure the whole pipeline on clips: share tracked, residual, speed against decoding + MediaPipe alone.

    python benchmarks/clips.py [CLIP ...] [--faces N]

Every clip is run three times in one process, after a warm-up: decoding + MediaPipe FaceMesh alone (irises on),
the tracker without overlay, the tracker with overlay. Loading of libraries and models is not counted, scouting and
identity are. Quote the ratios; absolute times depend on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
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
class Measurement:
    """Hold the figures of one clip."""

    name: str
    track: Track
    alone_seconds: float
    plain_seconds: float
    overlay_seconds: float

    def row(self) -> str:
        """Return the figures as one line of a table."""
        track = self.track
        size = f"{track.intrinsics.width}x{track.intrinsics.height}"
        is_tracked = track.is_tracked.any(axis=0) if track.num_people else np.zeros(len(track), bool)
        percent = 100 * track.residual_px / track.interocular_px
        residual = f"{np.nanmedian(percent):.2f}" if np.isfinite(percent).any() else "-"
        return (
            f"{self.name:32s} {size:>10s} {len(track):6d} {is_tracked.sum():8d} {residual:>9s} "
            f"{len(track) / self.plain_seconds:8.1f} {len(track) / self.overlay_seconds:8.1f} "
            f"{len(track) / self.alone_seconds:8.1f} {self.plain_seconds / self.alone_seconds:6.2f}"
        )


HEADER = (
    f"{'clip':32s} {'size':>10s} {'frames':>6s} {'tracked':>8s} {'residual%':>9s} "
    f"{'frames/s':>8s} {'+overlay':>8s} {'MP alone':>8s} {'ratio':>6s}"
)


@contextlib.contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Yield a list that holds the block's wall-clock seconds once it has ended."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)


def decode_and_mediapipe(path: Path, num_faces: int) -> float:
    """Return the seconds that decoding and MediaPipe FaceMesh alone take for a clip."""
    import mediapipe as mp

    face_mesh = mp.solutions.face_mesh.FaceMesh(max_num_faces=num_faces, refine_landmarks=True)
    with stopwatch() as seconds, open_source(path) as source:
        for frame in source:
            face_mesh.process(frame.image)
    face_mesh.close()
    return seconds[0]


def measure(path: Path, num_faces: int, toolkit: Toolkit) -> Measurement:
    """Run one clip in all three ways."""
    alone_seconds = decode_and_mediapipe(path, num_faces)
    options = Options(faces=num_faces, overlay=False)
    with tempfile.TemporaryDirectory() as folder, stopwatch() as plain:
        (track,) = track_many([path], [folder], toolkit=toolkit, options=options)
    with tempfile.TemporaryDirectory() as folder, stopwatch() as overlay:
        track_many([path], [folder], toolkit=toolkit, options=Options(faces=num_faces))
    return Measurement(path.name, track, alone_seconds, plain[0], overlay[0])


def main() -> None:
    """Print one row per clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", default=[Path("examples/sample.mp4")])
    parser.add_argument("--faces", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    toolkit = load_toolkit("commons", "mediapipe", load_preset("default"))
    measure(arguments.clips[0], arguments.faces, toolkit)
    print(HEADER)
    for path in arguments.clips:
        try:
            print(measure(path, arguments.faces, toolkit).row(), flush=True)
        except UserError as error:
            print(f"{path.name}: {error}")


if __name__ == "__main__":
    main()
