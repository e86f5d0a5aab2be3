"""Command line: python -m tracker.run INPUT [INPUT ...]."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from flame.errors import UserError
from tracker.system_check import check_python_packages, check_system_libraries

if TYPE_CHECKING:
    from tracker.api import Options, Progress
    from tracker.result import Track

EXIT_USER_ERROR = 2
EXIT_NO_FACE = 3
EXIT_INTERRUPTED = 130

_EPILOG = """\
examples:
  python -m tracker.run video.mp4                       track one face, write video_track/
  python -m tracker.run group.mp4 --faces 3 -o out      track up to three people
  python -m tracker.run photo1.jpg photo2.jpg --same-person --no-overlay
                                                        one identity from several photos
  python -m tracker.run video.mp4 --set smoothing.half_width_seconds=0

The output folder holds track.npz (parameters per person and frame), track.json (the same head matter, readable) and
overlay.mp4 (overlay.png for an image). Exit status: 0 tracked, 2 the input or an option cannot be used, 3 no face was
found, 130 interrupted (what was tracked until then is written).
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tracker.run",
        description="Track faces: fit a FLAME-format head to every frame of a video, an image or a folder of images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="video, GIF, image, or folder of images")
    parser.add_argument("-o", "--output", metavar="OUT", help="output folder (default: INPUT's name + _track, here)")
    parser.add_argument("--head", default="commons", metavar="commons|PATH", help="head model (default: commons)")
    parser.add_argument("--prior", default="mediapipe", help="what looks at the frames (default: mediapipe)")
    parser.add_argument("--faces", type=int, default=1, metavar="N", help="people to track at most (default: 1)")
    parser.add_argument("--same-person", action="store_true", help="all inputs show one person: one identity for all")
    parser.add_argument("--start", type=float, metavar="S", help="begin at this time, seconds")
    parser.add_argument("--end", type=float, metavar="S", help="stop before this time, seconds")
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after so many frames")
    parser.add_argument("--fov", type=float, metavar="DEG", help="field of view along the longer side, if known")
    parser.add_argument("--no-overlay", action="store_true", help="write parameters only")
    parser.add_argument("--panels", action="store_true", help="overlay: input, normals, vertices, overlay, mesh")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where pictures are drawn")
    parser.add_argument("--preset", default="default", metavar="NAME", help="default, fast, careful or raw")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="change one setting of a preset"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        check_python_packages()
        check_system_libraries()
        signal.signal(signal.SIGTERM, _interrupt)
        return _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted: what was tracked until now is written", file=sys.stderr)
        return EXIT_INTERRUPTED


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Let a kill end the run as Ctrl-C does."""
    raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    """Track every input and print a summary of each."""
    from configs import load_preset, override
    from tracker.api import Options, track_many

    options = Options(
        head=arguments.head,
        prior=arguments.prior,
        faces=arguments.faces,
        same_person=arguments.same_person,
        start_seconds=arguments.start,
        end_seconds=arguments.end,
        max_frames=arguments.max_frames,
        fov_degrees=arguments.fov,
        overlay=not arguments.no_overlay,
        panels=arguments.panels,
        device=arguments.device,
        config=override(load_preset(arguments.preset), arguments.settings),
    )
    inputs = [Path(item) for item in arguments.inputs]
    folders = output_folders(inputs, arguments.output)
    bar = _ProgressBar(options)
    try:
        tracks = track_many(inputs, folders, on_frame=bar.update, on_done=bar.finish, options=options)
    finally:
        bar.close()
    return 0 if all(track.is_tracked.any() for track in tracks) else EXIT_NO_FACE


def output_folders(inputs: Sequence[Path], output: str | None) -> list[Path]:
    """Return one output folder per input: OUT itself for one input, a folder inside OUT for each of several."""
    names = [f"{path.resolve().stem}_track" for path in inputs]
    for index, name in enumerate(names):
        repeats = names[:index].count(name)
        names[index] = f"{name}_{repeats + 1}" if repeats else name
    if output is None:
        return [Path(name) for name in names]
    return [Path(output)] if len(inputs) == 1 else [Path(output) / name for name in names]


class _ProgressBar:
    """Show frames per second and time left, one bar per input, and a summary after each."""

    def __init__(self, options: Options) -> None:
        """Show nothing yet."""
        self._options = options
        self._bar = None
        self._started = time.perf_counter()

    def update(self, progress: Progress) -> None:
        """Advance by one frame."""
        from tqdm import tqdm

        if self._bar is None:
            total = _expected_frames(progress, self._options)
            self._bar = tqdm(total=total, unit=" frames", desc=progress.path.name, dynamic_ncols=True)
        self._bar.update()

    def finish(self, track: Track, folder: Path | None) -> None:
        """Close the bar and print what came out of the input."""
        self.close()
        print(summary(track, folder, time.perf_counter() - self._started))
        self._started = time.perf_counter()

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _expected_frames(progress: Progress, options: Options) -> int | None:
    """Return how many frames the bar should expect."""
    if options.start_seconds is not None or options.end_seconds is not None:
        return options.max_frames
    counts = [count for count in (progress.num_frames, options.max_frames) if count is not None]
    return min(counts, default=None)


def summary(track: Track, folder: Path | None, seconds: float) -> str:
    """Return the closing lines of one input: frames, tracked, residual, speed, files, and what was wrong with it."""
    import numpy as np

    lines = [f"{track.info['source']['path']}"]
    rate = len(track) / max(seconds, 1e-9)
    lines.append(f"  frames    {len(track)} in {seconds:.1f} s ({rate:.1f} frames/s, loading and scouting included)")
    for person in range(track.num_people):
        good = track.is_tracked[person]
        percent = 100 * track.residual_px[person][good] / track.interocular_px[person][good]
        counts = ", ".join(f"{count} {label}" for label, count in track.status_counts(person).items() if count)
        residual = f"; residual {np.median(percent):.2f} % of the eye distance" if good.any() else ""
        lines.append(f"  person {person}  tracked in {good.sum()} of {len(track)} frames ({counts}){residual}")
    if not track.is_tracked.any():
        lines.append("  no face was found in any frame; the track is empty")
    lines.extend(f"  note      {problem}" for problem in track.info["source"]["problems"])
    if folder is not None:
        names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        lines.append(f"  files     {folder}/: {', '.join(names)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
