"""Command line: python -m tracker.export FOLDER NAME [NAME ...]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flame.errors import UserError
from tracker.command_line import EXIT_USER_ERROR, Parser, run_command, say, show_steps
from tracker.export.arguments import (
    add_export_options,
    add_panel_options,
    describe,
    export_options,
    list_formats,
)
from tracker.export.formats import Format

_EPILOG = f"""\
formats:
{list_formats()}

Lost frames: hold repeats the last tracked pose, gap shows nobody, skip leaves the frame out.

examples:
  python -m tracker.export video_track glb              video_track/export/glb/track.glb
  python -m tracker.export video_track arkit,usd obj    several, joined or not
  python -m tracker.export video_track gaussian-avatars --convert-to flame2023.pkl
  python -m tracker.export video_track video --panels --layout grid

Each format gets a folder of its own in OUT, which appears when it is complete; an earlier one is replaced then. Formats
with pictures read the clip again. Exit status: 0 written, 2 something cannot be read, written or used, 130 interrupted.
"""


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m tracker.export",
        description="Write a track as files that other people's programs read.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER", help="output folder of a run of tracker.run")
    parser.add_argument("names", nargs="+", metavar="NAME", help="formats, see below")
    parser.add_argument("-o", "--output", metavar="OUT", help="where to write (default: FOLDER/export)")
    parser.add_argument("--source", metavar="PATH", help="the clip, if it is no longer where it was")
    parser.add_argument("--head", metavar="PATH", help="the head model, if it is no longer where it was")
    add_panel_options(parser)
    add_export_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: _run(options), _interrupted)


def _run(options: argparse.Namespace) -> int:
    """Write every format and say where it is."""
    from tracker.export.writing import export

    failed: list[str] = []

    def fail(which: Format, error: UserError) -> None:
        failed.append(which.name)
        print(f"error: {which.name}: {error}", file=sys.stderr)

    export(
        options.folder,
        options.names,
        options.output,
        head=options.head,
        on_done=lambda exported: say(describe(exported)),
        on_error=fail,
        show_steps=show_steps,
        **export_options(options),
    )
    return EXIT_USER_ERROR if failed else 0


def _interrupted() -> None:
    """Say what is left of an interrupted export."""
    print("interrupted: formats that were complete are kept", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
