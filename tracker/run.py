"""Command line: python -m tracker.run INPUT [INPUT ...]."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flame.errors import UserError
from tracker.command_line import EXIT_USER_ERROR, Interruption, Parser, run_command, say, show_steps
from tracker.export.arguments import add_export_options, add_panel_options, describe, export_options
from tracker.export.formats import FORMATS, Format, find_formats

if TYPE_CHECKING:
    from configs import Config
    from tracker.api import Options, Progress
    from tracker.result import Track

EXIT_NO_FACE = 3

_EPILOG = """\
examples:
  python -m tracker.run video.mp4                       track one face, write video_track/
  python -m tracker.run group.mp4 --faces 3 -o out      track up to three people
  python -m tracker.run photo1.jpg photo2.jpg --same-person --no-overlay
                                                        one identity from several photos
  python -m tracker.run video.mp4 --export glb,arkit --report
                                                        for Blender and Unreal, and a page to look at
  python -m tracker.run video.mp4 --set smoothing.half_width_seconds=0

The output folder holds track.npz (parameters per person and frame), track.json (the same head matter, readable) and
overlay.mp4 (overlay.png for an image); those of an earlier run are replaced. Several inputs get one folder each inside
OUT, and one that cannot be tracked does not stop the others. Ctrl-C ends a run early; what was tracked is written.

Exit status: 0 tracked, 2 an input or an option cannot be used, 3 no face was found in an input, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m tracker.run",
        description="Track faces: fit a FLAME-format head to every frame of a video, an image or a folder of images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="video, GIF, image, or folder of images")
    parser.add_argument("-o", "--output", metavar="OUT", help="output folder (default: INPUT's name + _track, here)")
    parser.add_argument("--head", default="commons", metavar="commons|PATH", help="head model (default: commons)")
    _add_prior(parser)
    parser.add_argument("--faces", type=int, default=1, metavar="N", help="people to track at most (default: 1)")
    parser.add_argument("--same-person", action="store_true", help="all inputs show one person: one identity for all")
    parser.add_argument("--start", type=float, metavar="S", help="begin at this time, seconds")
    parser.add_argument("--end", type=float, metavar="S", help="stop before this time, seconds")
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after so many frames")
    parser.add_argument("--fov", type=float, metavar="DEG", help="field of view along the longer side, if known")
    parser.add_argument("--focal", type=float, metavar="PX", help="the same as a focal length in pixels")
    parser.add_argument(
        "--principal-point", type=_point, metavar="X,Y", help="optical centre, pixels (default: the image's centre)"
    )
    parser.add_argument("--no-overlay", action="store_true", help="write parameters only")
    add_panel_options(parser)
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where networks run and dense maps are drawn"
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="default, fast, careful or raw: fit landmarks; network, dense, paper or released: fit the prior's maps "
        "(default: network with --prior pixel3dmm or commons, else default)",
    )
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="change a setting of a preset"
    )
    parser.add_argument(
        "--export",
        action="append",
        default=[],
        metavar="NAME[,NAME...]",
        help=f"write {', '.join(FORMATS)} or all into OUT/export; python -m tracker.export does so afterwards and "
        "tells what each is",
    )
    parser.add_argument(
        "--report", action="store_true", help="write report.html, a page that shows what was found and what went wrong"
    )
    add_export_options(parser)
    return parser


def _add_prior(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose what looks at the frames."""
    parser.add_argument(
        "--prior",
        default="mediapipe",
        metavar="NAME",
        help="what looks at the frames. mediapipe, the default: landmarks; pixel3dmm: the paper's networks, normals "
        "and texture coordinates of every pixel, needs --weights, a FLAME file as --head and, for videos, a GPU; "
        "commons: a small network that does the same for the commons head",
    )
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="networks for --prior. pixel3dmm: the folder with uv.ckpt and normals.ckpt (CC BY-NC 4.0: no commercial "
        "use), from https://huggingface.co/SimonGiebenhain/Pixel3dmm; commons: a file of your own training",
    )
    parser.add_argument(
        "--mica",
        metavar="FILE",
        help="mica.tar from https://github.com/Zielon/MICA (no commercial use): expect the identity that MICA sees; "
        "for heads of FLAME 2020",
    )


def _point(text: str) -> tuple[float, float]:
    """Read a place in the image, ``X,Y``.

    Raises:
        argparse.ArgumentTypeError: it is no pair of numbers.
    """
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not X,Y in pixels, e.g. 960,540") from error
    return x, y


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    # Damaged EXIF counts as none; what the pictures' reader has to say about it helps nobody.
    warnings.filterwarnings("ignore", message="Corrupt EXIF data")
    interruption = Interruption()
    report = _Report(interruption)

    def run() -> int:
        with _quiet_sources():
            return _run(options, report)

    return run_command(run, report.interrupt, interruption)


@contextlib.contextmanager
def _quiet_sources() -> Iterator[None]:
    """Keep what is wrong with a source for its summary; said at once, too, it would tear the progress bar apart."""
    log = logging.getLogger("tracker.frames")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _run(arguments: argparse.Namespace, report: _Report) -> int:
    """Track every input and print a summary of each."""
    from configs import override
    from tracker.api import Options, track_many

    options = Options(
        head=arguments.head,
        prior=arguments.prior,
        weights=arguments.weights,
        mica=arguments.mica,
        faces=arguments.faces,
        same_person=arguments.same_person,
        start_seconds=arguments.start,
        end_seconds=arguments.end,
        max_frames=arguments.max_frames,
        fov_degrees=arguments.fov,
        focal_px=arguments.focal,
        principal_point_px=arguments.principal_point,
        overlay=not arguments.no_overlay,
        panels=arguments.panels,
        layout=arguments.layout,
        device=arguments.device,
        config=override(_preset(arguments.preset, arguments.prior), arguments.settings),
    )
    exports = _Exports(arguments, report)
    inputs = [Path(item) for item in arguments.inputs]
    folders = output_folders(inputs, arguments.output)
    report.begin(options, arguments.output or ", ".join(str(folder) for folder in folders))
    try:
        tracks = track_many(
            inputs, folders, on_frame=report.advance, on_done=exports.finish, on_error=report.fail, options=options
        )
    finally:
        report.close()
    if report.num_failed:
        if len(inputs) > 1:
            print(f"error: {report.num_failed} of {len(inputs)} inputs could not be tracked", file=sys.stderr)
        return EXIT_USER_ERROR
    if exports.num_failed:
        return EXIT_USER_ERROR
    return 0 if all(track.is_tracked.any() for track in tracks) else EXIT_NO_FACE


def _preset(name: str | None, prior: str) -> Config:
    """Return the preset of a name, or the one made for the prior."""
    from configs import load_preset, preset_for_prior

    return preset_for_prior(prior) if name is None else load_preset(name)


def output_folders(inputs: Sequence[Path], output: str | None) -> list[Path]:
    """Return one output folder per input: OUT itself for one input, a folder inside OUT for each of several."""
    used: Counter[str] = Counter()
    names = []
    for path in inputs:
        name = f"{path.resolve().stem}_track"
        used[name] += 1
        names.append(name if used[name] == 1 else f"{name}_{used[name]}")
    if output is None:
        return [Path(name) for name in names]
    return [Path(output)] if len(inputs) == 1 else [Path(output) / name for name in names]


class _Exports:
    """Write what ``--export`` and ``--report`` ask for as soon as an input is tracked."""

    def __init__(self, arguments: argparse.Namespace, report: _Report) -> None:
        """Check the formats and their options before anything is tracked.

        Raises:
            InputError: a format is not known, or an option cannot be meant.
        """
        from tracker.export.writing import check_options

        self.num_failed = 0
        self._names = [each.name for each in find_formats(arguments.export)] if arguments.export else []
        self._options = export_options(arguments)
        check_options(**self._options)
        self._wants_report = arguments.report
        self._report = report

    def finish(self, track: Track, folder: Path | None) -> None:
        """Print what came out of an input, then write and tell its exports."""
        self._report.finish(track, folder)
        if folder is None:
            return
        # The input is tracked, whatever becomes of its exports.
        if self._names and track.is_tracked.any():
            with self._telling("export"):
                self._export(folder)
        if self._wants_report:
            from tracker.report import write_report

            with self._telling("report"):
                say(f"  report    {write_report(folder, show_steps=show_steps)}")
        self._report.restart_clock()

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Print why something cannot be written, and go on."""
        try:
            yield
        except UserError as error:
            print(f"error: {what}: {error}", file=sys.stderr)
            self.num_failed += 1

    def _export(self, folder: Path) -> None:
        """Write the formats."""
        from tracker.export.writing import export

        export(
            folder,
            self._names,
            on_done=lambda exported: say(describe(exported)),
            on_error=self._fail,
            show_steps=show_steps,
            **self._options,
        )

    def _fail(self, which: Format, error: UserError) -> None:
        """Print why a format cannot be written."""
        print(f"error: {which.name}: {error}", file=sys.stderr)
        self.num_failed += 1


class _Report:
    """Show frames per second and time left, one bar per input, and a summary or an error after each."""

    def __init__(self, interruption: Interruption) -> None:
        """Show nothing yet."""
        self.num_failed = 0
        self._interruption = interruption
        self._options: Options | None = None
        self._place = ""
        self._num_frames = 0
        self._bar = None
        self._started = time.perf_counter()

    def begin(self, options: Options, place: str) -> None:
        """Take the options of the run and where its results go."""
        self._interruption.check()
        self._options, self._place = options, place
        if sys.stderr.isatty():
            print("loading (the very first run compiles, too: up to a minute)", file=sys.stderr)

    def advance(self, progress: Progress) -> None:
        """Show one frame more; nothing where no terminal shows it."""
        from tqdm import tqdm

        from tracker.summary import expected_frames

        assert self._options is not None
        self._interruption.check()
        self._num_frames += 1
        if self._bar is None:
            total = expected_frames(progress, self._options)
            name = progress.path.name or str(progress.path)
            self._bar = tqdm(total=total, unit=" frames", desc=name, dynamic_ncols=True, disable=None)
        self._bar.update()

    def finish(self, track: Track, folder: Path | None) -> None:
        """Close the bar and print what came out of the input."""
        from tracker.summary import summary

        self.close()
        say(summary(track, folder, time.perf_counter() - self._started))
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure the next input from now on."""
        self._started = time.perf_counter()

    def fail(self, _path: Path, error: UserError) -> None:
        """Close the bar and print why an input cannot be tracked."""
        self.close()
        print(f"error: {error}", file=sys.stderr)
        self.num_failed += 1
        self.restart_clock()

    def interrupt(self) -> None:
        """Close the bar and print what is left of the run."""
        self.close()
        left = f"what was tracked until now is in {self._place}" if self._num_frames else "nothing was tracked yet"
        print(f"interrupted: {left}", file=sys.stderr)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


if __name__ == "__main__":
    sys.exit(main())
