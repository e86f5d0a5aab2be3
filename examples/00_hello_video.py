"""Hello video: track a clip and read what came out.

``tracker.track`` returns a `Track`: one identity per person and, per frame, expression, jaw, eyes, pose and status.
With an output folder it also writes ``track.npz``, ``track.json`` and an overlay video. See also ``tracker/result.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import tracker
from flame.rotation import matrix_from_axis_angle


def yaw_degrees(rotation: np.ndarray) -> float:
    """Return how far the face is turned to the image's right, given the axis-angle of cam_from_head."""
    out_of_the_face = matrix_from_axis_angle(rotation)[:, 2]
    return float(np.degrees(np.arctan2(out_of_the_face[0], -out_of_the_face[2])))


def main() -> None:
    """Track a video and print a line for every fifth frame."""
    parser = argparse.ArgumentParser(description="Track a video and print yaw, jaw and blinks.")
    parser.add_argument("video", nargs="?", default=Path(__file__).parent / "sample.mp4", type=Path)
    parser.add_argument("-o", "--output", help="folder to write the track and an overlay video to")
    parser.add_argument("--max-frames", type=int)
    arguments = parser.parse_args()

    track = tracker.track(arguments.video, arguments.output, max_frames=arguments.max_frames)

    arkit = track.arkit()  # 52 named curves, each (T,)
    print(" seconds  status           yaw  jawOpen  blink")
    for index in range(0, len(track), 5):
        face = track[index].faces[0]
        yaw = yaw_degrees(track.rotation[0, index])
        jaw_open, blink = arkit["jawOpen"][index], arkit["eyeBlinkLeft"][index]
        print(f"{track.pts_seconds[index]:8.2f}  {face.status.label:14s} {yaw:+5.1f}° {jaw_open:7.2f}  {blink:5.2f}")
    print(f"tracked in {track.is_tracked[0].sum()} of {len(track)} frames")


if __name__ == "__main__":
    main()
