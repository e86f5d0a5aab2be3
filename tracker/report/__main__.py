"""Command line: python -m tracker.report FOLDER [FOLDER ...]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flame.errors import UserError
from tracker.command_line import EXIT_USER_ERROR, Parser, run_command, say, show_steps

_EPILOG = """\
The report is one file, report.html in FOLDER or OUT, that any browser shows without a network: the overlay with its
sound, status, residual, expression and pose over time, who was found, and what went wrong where. What is no longer
there, such as the clip, is left out. Exit status: 0 written, 2 something cannot be read or written, 130 interrupted.
"""


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m tracker.report",
        description="Write a report of a track: a page that shows what was found and what went wrong where.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="output folder of a run of tracker.run")
    parser.add_argument("-o", "--output", metavar="OUT", help="where to write (one FOLDER; default: there)")
    parser.add_argument("--source", metavar="PATH", help="the clip, if it is no longer where it was (one FOLDER)")
    parser.add_argument("--head", metavar="PATH", help="the head model, if it is no longer where it was")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if len(options.folders) > 1:
        if options.source:
            parser.error("--source is the clip of one track; give one FOLDER")
        if options.output:
            parser.error("--output is for one report; give one FOLDER")
    return run_command(lambda: _run(options), lambda: print("interrupted", file=sys.stderr))


def _run(options: argparse.Namespace) -> int:
    """Write every report and say where it is."""
    from tracker.report.writing import write_report

    has_failed = False
    for folder in options.folders:
        try:
            path = write_report(
                Path(folder), options.output, source=options.source, head=options.head, show_steps=show_steps
            )
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            has_failed = True
        else:
            say(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return EXIT_USER_ERROR if has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
