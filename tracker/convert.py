"""Command line: python -m tracker.convert FOLDER --head PATH."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flame.errors import InputError, UserError
from tracker.command_line import Parser, run_command, say, show_steps

if TYPE_CHECKING:
    from tracker.conversion import Conversion
    from tracker.result import Track

_EPILOG = """\
examples:
  python -m tracker.convert video_track --head flame2023.pkl      writes video_track_flame2023/
  python -m tracker.convert video_track_flame2023 --head commons -o back

Each person's neutral face and then every frame are fitted anew; camera, times and status stay. OUT gets track.npz and
track.json, which every command that takes the output folder of a run takes, too. Which points of the two heads are the
same is found once, some seconds, and kept beside the head's file.

Exit status: 0 converted, 2 something cannot be read, used or written, 130 interrupted.
"""


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m tracker.convert",
        description="Carry a track over to another head model, and say how far the faces are apart.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER", help="output folder of a run of tracker.run")
    parser.add_argument("--head", required=True, metavar="commons|PATH", help="head model to convert to")
    parser.add_argument("-o", "--output", metavar="OUT", help="output folder (default: FOLDER_ and the head's name)")
    parser.add_argument("--track-head", metavar="PATH", help="the track's own head model, if it is no longer there")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: _run(options), _interrupted)


def _run(options: argparse.Namespace) -> int:
    """Convert, write, and say how well it went."""
    from flame import load_head
    from tracker.conversion import convert_track
    from tracker.output_files import make_output_folder
    from tracker.result import Track

    track = Track.load(options.folder, head=options.track_head)
    home = Path(options.folder)
    home = home.parent if home.is_file() else home
    out = Path(options.output or f"{home.resolve()}_{Path(options.head).stem}")
    if out.resolve() == home.resolve():
        raise InputError(f"{out} holds the track to convert; choose another folder with -o")
    began = time.perf_counter()
    head = load_head(options.head)
    make_output_folder(out)
    try:
        conversion = convert_track(track, head, show_frames=show_steps)
    except UserError:
        # Only what is empty can be removed.
        with contextlib.suppress(OSError):
            out.rmdir()
        raise
    seconds = time.perf_counter() - began
    conversion.track.save(out)
    say(_summary(track, conversion, out, seconds))
    return 0


def _summary(track: Track, conversion: Conversion, out: Path, seconds: float) -> str:
    """Return the closing lines: frames, error of each person, where the result is."""
    rate = len(track) * track.num_people / max(seconds, 1e-9)
    lines = [f"{track.head} -> {conversion.track.head}"]
    lines.append(f"  frames    {len(track)} in {seconds:.1f} s ({rate:.1f} frames/s, loading included)")
    for person, error in enumerate(conversion.people):
        told = f"  person {person}  " if track.num_people > 1 else "  error     "
        if track.is_tracked[person].any():
            told += f"face {error.median_mm:.2f} mm (median), {error.p95_mm:.2f} mm (95 %), "
            told += f"{error.reprojection_px:.2f} px in the image"
        else:
            told += "never tracked"
        lines.append(told)
    return "\n".join([*lines, f"  written   {out}"])


def _interrupted() -> None:
    """Say what is left of an interrupted conversion."""
    print("interrupted: nothing was written", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
