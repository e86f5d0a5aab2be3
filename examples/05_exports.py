"""Files for other programs: an animated head for Blender and the web, ARKit curves, and a format of your own."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import tracker
from tracker.export import export

SAMPLE = Path(__file__).parent / "sample.mp4"


def write_jaw_angles(track: tracker.Track, path: Path) -> None:
    """Write how far the jaw is open, degrees, at each time: formats of your own need only the track."""
    degrees = np.degrees(np.linalg.norm(track.jaw[0], axis=-1))
    np.savetxt(path, np.column_stack((track.pts_seconds, degrees)), fmt="%.4f", delimiter=",", header="seconds,degrees")


def main() -> None:
    """Track a clip and export it."""
    parser = argparse.ArgumentParser(description="Track a clip and write files for other programs.")
    parser.add_argument("video", nargs="?", default=SAMPLE, help="clip to track (the sample)")
    parser.add_argument("-o", "--output", type=Path, default=Path("output/exports"), help="folder (%(default)s)")
    parser.add_argument("--max-frames", type=int, default=None, help="stop after so many frames")
    options = parser.parse_args()
    track = tracker.track(options.video, options.output, overlay=False, max_frames=options.max_frames)
    for done in export(options.output, ["glb", "arkit"]):
        print(f"{done.format.name}: {', '.join(str(path) for path in done.paths)}, for {done.format.readers}")
    with (options.output / "export" / "arkit" / "arkit.csv").open() as stream:
        smiles = [float(row["MouthSmileLeft"]) for row in csv.DictReader(stream)]
    print(f"the smile goes from {min(smiles):.2f} to {max(smiles):.2f} in {len(smiles)} frames")
    write_jaw_angles(track, options.output / "jaw.csv")
    print(f"the jaw: {options.output / 'jaw.csv'}")


if __name__ == "__main__":
    main()
