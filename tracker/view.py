"""Look at tracks in a browser: python -m tracker.view FOLDER [FOLDER ...]."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flame.errors import AssetMissingError, InputError
from tracker.command_line import Parser, run_command, say
from tracker.system_check import MissingDependencyError

if TYPE_CHECKING:
    from viser import ViserServer

    from tracker.result import Track
    from tracker.viewer.clip import Clip
    from tracker.viewer.player import Player

DEFAULT_PORT = 8080

_EPILOG = """\
examples:
  python -m tracker.view video_track                    open a page with the heads, the pictures and sliders
  python -m tracker.view a_track b_track                choose between them on the page
  python -m tracker.view video_track --source moved/video.mp4

Keys on the page: space plays, arrows step, T looks through the tracked camera, F from the side, W wireframe.
Ctrl-C ends the viewer.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m tracker.view",
        description="Look at tracks in a browser: heads over time, pictures behind them, sliders for every expression.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="output folder of a run of tracker.run")
    parser.add_argument("--source", metavar="CLIP", help="where the clip is now, if it was moved (one FOLDER)")
    parser.add_argument("--head", metavar="PATH", help="where the head model is now, if it was moved")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, metavar="N", help=f"port of the page (default: {DEFAULT_PORT})"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen at (default: 127.0.0.1, this machine alone; 0.0.0.0: whoever can reach it)",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    return parser


class Viewer:
    """A page that is being served; ``close`` ends it. Frames, looks and edits are set through ``player``."""

    def __init__(self, clips: Sequence[Clip], *, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
        """Serve clips, the first one on show.

        Raises:
            InputError: the address or the port cannot be used.
        """
        from tracker.viewer.player import Player

        port = free_port(host, port)
        self._clips = tuple(clips)
        self._names = _distinct([clip.name for clip in clips])
        self._is_closed = threading.Event()
        self._choosing = threading.Lock()
        self.server = _serve(host, port)
        # viser goes on to the next free port where somebody else took this one meanwhile.
        self.port = self.server.get_port()
        self.url = f"http://{'localhost' if host in ('0.0.0.0', '127.0.0.1') else host}:{self.port}"
        try:
            self.player: Player = Player(self.server, self._clips[0])
            """Plays the clip that is on show."""
        except BaseException:
            self.server.stop()
            raise
        self._add_choice(0)

    def open(self, number: int) -> None:
        """Show another clip, by its place in the list."""
        from tracker.viewer.player import Player

        # Two pages may choose at the same time, and one while the viewer is closed.
        with self._choosing:
            if self._is_closed.is_set():
                return
            self.player.close()
            self.server.scene.reset()
            self.server.gui.reset()
            self.player = Player(self.server, self._clips[number])
            self._add_choice(number)
        for client in self.server.get_clients().values():
            self.player.home.apply(client.camera)

    def look_through_camera(self) -> None:
        """Let every page look through the tracked camera."""
        for client in self.server.get_clients().values():
            self.player.through_camera(client.camera.aspect).apply(client.camera)

    def wait(self) -> None:
        """Serve until ``close`` is called, or Ctrl-C."""
        while not self._is_closed.wait(0.5):
            pass

    def close(self) -> None:
        """Stop serving."""
        with self._choosing:
            if self._is_closed.is_set():
                return
            self._is_closed.set()
            self.player.close()
            # What viser prints then says nothing to who closed it.
            with contextlib.redirect_stdout(io.StringIO()):
                self.server.stop()

    def __enter__(self) -> Viewer:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self.close()

    def _add_choice(self, number: int) -> None:
        """Let the page choose between several clips."""
        if len(self._clips) < 2:
            return
        choice = self.server.gui.add_dropdown("Track", self._names, initial_value=self._names[number], order=-1.0)
        choice.on_update(lambda _: self.open(self._names.index(choice.value)))


def view(
    track: Track | str | Path | Sequence[str | Path],
    *,
    source: str | Path | None = None,
    head: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    browser: bool = True,
) -> Viewer:
    """Open a page with a track and return its handle, at once; the page lives until ``close``, or the program's end.

    Args:
        track: a track, its output folder, or several folders.
        source: where the clip is now, if it was moved.
        head: where the head model is now, if it was moved; for folders.
        host: address to listen at.
        port: port of the page; 0 takes any free one.
        browser: open the page in the browser.

    Raises:
        AssetMissingError: there is no track, no head model, or nothing at ``source``.
        InputError: a track, the address or the port cannot be used.
    """
    from tracker.result import Track
    from tracker.viewer.clip import Clip

    moved = None if source is None else Path(source)
    if moved is not None and not moved.exists():
        raise AssetMissingError(f"--source {source}: no such file; give the clip that was tracked")
    if isinstance(track, Track):
        clips = [Clip(track, source=moved)]
    else:
        folders = [track] if isinstance(track, (str, Path)) else list(track)
        if moved is not None and len(folders) > 1:
            raise InputError(f"--source names one clip, but there are {len(folders)} folders; give one folder")
        clips = [Clip.load(folder, source=moved, head=head) for folder in folders]
    viewer = Viewer(clips, host=host, port=port)
    if browser:
        webbrowser.open(viewer.url)
    return viewer


def free_port(host: str, port: int) -> int:
    """Return the port if it is free; any free one for 0.

    Raises:
        InputError: it is in use or not allowed, or this machine does not have the address.
    """
    if not host:
        raise InputError("--host is empty; use 127.0.0.1 or 0.0.0.0")
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: it must be from 0 (any free one) to 65535")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return probe.getsockname()[1]
    except (OSError, UnicodeError) as error:
        # What cannot be a name, such as one with two dots in a row, is a UnicodeError.
        if not isinstance(error, OSError) or isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--host {host}: not an address of this machine; use 127.0.0.1 or 0.0.0.0") from error
        raise InputError(
            f"--port {port}: cannot be used ({error.strerror}); close the other viewer or give another --port"
        ) from error


def _serve(host: str, port: int) -> ViserServer:
    """Start the server without what it prints.

    Raises:
        MissingDependencyError: viser is not installed.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            import viser
        except ImportError as error:
            raise MissingDependencyError(
                f"the viewer needs the Python module viser (this is {sys.executable}); install it with "
                "python -m pip install -c constraints.txt -e ."
            ) from error
        return viser.ViserServer(host=host, port=port, label="Face track", verbose=False)


def _distinct(names: list[str]) -> list[str]:
    """Number names that occur more than once."""
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, start=1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: _run(options), lambda: say("viewer closed"))


def _run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    viewer = view(
        options.folders,
        source=options.source,
        head=options.head,
        host=options.host,
        port=options.port,
        browser=False,
    )
    with viewer:
        say(f"{viewer.url}  (Ctrl-C ends the viewer)")
        if not options.no_browser:
            webbrowser.open(viewer.url)
        viewer.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
