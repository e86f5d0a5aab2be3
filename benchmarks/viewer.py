"""Time the viewer: ``python -m benchmarks.viewer [FOLDER]``, FOLDER being the output of a run of tracker.run.

Makes a track of 10 000 frames by repeating the one in FOLDER (the sample's truth without it) and prints

- the seconds from the start of ``python -m tracker.view`` until its page is served, and until the first head is seen in
  a headless Chromium that was running before (without one, the first figure alone), each the best of several;
- the processor time of one update (posing, colours, handing over) for every surface;
- updates a second that are sent to one Chromium while the clip plays at twice its speed, and how many it draws; without
  a GPU the drawing is what takes long.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

from tests.tracker.viewer.browser import CHROMIUM, Page, open_page
from tracker.result import Track
from tracker.view import Viewer, view
from tracker.viewer.clip import Clip
from tracker.viewer.scene import SURFACES

NUM_FRAMES = 10_000
SAMPLE = Path("examples/sample_truth")
_PER_FRAME_AXIS = 1
_WATCH_DRAWS = """
window.firstHead = 0; window.draws = 0;
const drawElements = WebGL2RenderingContext.prototype.drawElements;
WebGL2RenderingContext.prototype.drawElements = function (mode, count, ...rest) {
    drawElements.call(this, mode, count, ...rest);
    if (count > 10000) { window.draws += 1; window.firstHead ||= Date.now(); }
};
"""
"""Note when the page draws its first mesh of a head's size, and count how often it draws one."""


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLE, help="output folder of a run (the sample)")
    parser.add_argument("--rounds", type=int, default=3, help="openings of which the best counts")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each playback")
    options = parser.parse_args()
    track = Track.load(options.folder)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "long_track").mkdir()
        repeated(track, NUM_FRAMES).save(folder / "long_track")
        opening(folder, options.rounds)
    update_costs(options.folder)
    if CHROMIUM is not None:
        playback(options.folder, options.seconds)


def repeated(track: Track, num_frames: int) -> Track:
    """Return a track of ``num_frames``: this one again and again, its times and numbers going on."""
    rounds = -(-num_frames // len(track))
    step = float(np.median(np.diff(track.pts_seconds))) if len(track) > 1 else 1 / 25
    length = float(track.pts_seconds[-1] - track.pts_seconds[0]) + step
    arrays = {}
    for name in (each.name for each in dataclasses.fields(track)):
        value = getattr(track, name)
        if isinstance(value, np.ndarray) and value.ndim >= 2 and value.shape[1] == len(track) and name != "identity":
            arrays[name] = np.concatenate([value] * rounds, axis=_PER_FRAME_AXIS)[:, :num_frames]
    counts = np.arange(rounds)[:, None]
    arrays["pts_seconds"] = (track.pts_seconds[None] + counts * length).ravel()[:num_frames]
    arrays["frame_index"] = (track.frame_index[None] + counts * len(track)).ravel()[:num_frames]
    return dataclasses.replace(track, **arrays)


def opening(folder: Path, rounds: int) -> None:
    """Print how long it takes to open a long track."""
    served, seen = [], []
    for number in range(rounds):
        if CHROMIUM is None:
            served.append(_open_once(folder / "long_track", None)[0])
            continue
        profile = folder / f"browser_{number}"
        with open_page("about:blank", profile) as page:
            times = _open_once(folder / "long_track", page)
            served.append(times[0])
            seen.append(times[1])
    print(f"{NUM_FRAMES} frames: page served after {min(served):.2f} s", end="")
    print(f", first head seen after {min(seen):.2f} s" if seen else " (no Chromium: not looked at)")


def _open_once(folder: Path, page: Page | None) -> tuple[float, float]:
    """Return the seconds until the page is served, and until a head is drawn in a browser."""
    command = [sys.executable, "-m", "tracker.view", str(folder), "--no-browser", "--port", "0"]
    if page is not None:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH_DRAWS)
    start = time.time()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        with urllib.request.urlopen(url) as answer:
            answer.read()
        served = time.time() - start
        if page is None:
            return served, float("nan")
        page.call("Page.navigate", url=url)
        page.wait_for("window.firstHead > 0", 120)
        return served, page.evaluate("window.firstHead") / 1e3 - start
    finally:
        process.terminate()
        process.wait(timeout=20)


def update_costs(folder: Path) -> None:
    """Print the processor time of updates without pictures and browser."""
    for surface in SURFACES:
        with Viewer([Clip.load(folder, source=folder / "none")], port=0) as viewer:
            player = viewer.player
            player.set_look(surface=surface)
            while player.textures.progress is not None:
                time.sleep(0.05)
            count = min(len(player.clip.track), 100)
            wishes = player._wishes  # benchmarks look inside
            player._draw(0, wishes, True)
            start = time.thread_time()
            for frame in range(count):
                player._draw(frame, wishes, True)
            cost = 1e3 * (time.thread_time() - start) / count
            note = f" ({player.textures.problem})" if surface == "texture" and player.textures.problem else ""
            print(f"an update, {surface}: {cost:.2f} ms of processor time{note}")


def playback(folder: Path, seconds: float) -> None:
    """Print how many updates a second one browser takes."""
    with tempfile.TemporaryDirectory() as scratch, view(folder, port=0, browser=False) as viewer:
        player = viewer.player
        with open_page("about:blank", Path(scratch)) as page:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH_DRAWS)
            page.call("Page.navigate", url=viewer.url)
            page.wait_for("window.firstHead > 0", 120)
            player.set_speed(2.0)
            for surface in ("clay", "normals", "texture"):
                player.set_look(surface=surface)
                while player.textures.progress is not None:
                    time.sleep(0.05)
                time.sleep(1)
                player.play()
                sent, drawn, start = player.num_drawn, page.evaluate("window.draws"), time.perf_counter()
                time.sleep(seconds)
                passed = time.perf_counter() - start
                sent, drawn = player.num_drawn - sent, page.evaluate("window.draws") - drawn
                player.pause()
                print(f"playing, {surface}: {sent / passed:.1f} updates/s sent, {drawn / passed:.1f} heads/s drawn")


if __name__ == "__main__":
    main()
