"""Time of the MediaPipe prior against decoding plus MediaPipe's own face mesh, on the same frames.

Run ``python benchmarks/prior.py VIDEO [VIDEO ...]``; without a video, on a moving copy of scikit-image's astronaut.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from flame import load_head
from priors import create_prior
from priors.evidence import FaceRegion


def frames_of_video(path: Path) -> Iterator[np.ndarray]:
    """Decode a video to RGB frames."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def frames_of_photograph(count: int = 150) -> Iterator[np.ndarray]:
    """Move a photograph about."""
    from skimage import data

    photograph = data.astronaut()
    for index in range(count):
        shift = 20 * np.sin(index / 15)
        moved = np.array(((1.0, 0.0, shift), (0.0, 1.0, shift / 2)))
        yield cv2.warpAffine(photograph, moved, (512, 512), borderMode=cv2.BORDER_REFLECT)


def timed(name: str, frames: Iterator[np.ndarray], look: Callable[[np.ndarray], int]) -> float:
    """Run ``look``, which returns the number of faces found, on every frame; return CPU seconds per frame."""
    wall, cpu, found, count = time.perf_counter(), time.process_time(), 0, 0
    for image in frames:
        found += look(image) > 0
        count += 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    per_frame = f"{1000 * wall / count:6.2f} ms wall, {1000 * cpu / count:6.2f} ms CPU a frame"
    sys.stdout.write(f"  {name:28s} {per_frame}, face in {found} of {count} frames\n")
    return cpu / count


def compare(open_frames: Callable[[], Iterator[np.ndarray]]) -> None:
    """Print decoding alone, decoding with MediaPipe's face mesh, and decoding with the prior."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    timed("decode", open_frames(), lambda _: 0)
    mesh = FaceMesh(refine_landmarks=True)

    def look_at_mesh(image: np.ndarray) -> int:
        return len(getattr(mesh.process(image), "multi_face_landmarks", None) or ())

    theirs = timed("decode + face mesh", open_frames(), look_at_mesh)
    mesh.close()
    prior = create_prior("mediapipe", load_head())
    regions: list[FaceRegion] = []

    def look(image: np.ndarray) -> int:
        evidence = [e for e in prior.observe(image, regions) if e is not None and e.presence >= 0.5]
        evidence = evidence or prior.search(image)
        regions[:] = [e.region for e in evidence]
        return len(evidence)

    ours = timed("decode + prior", open_frames(), look)
    sys.stdout.write(f"  CPU time of the prior over that of the face mesh: {ours / theirs:.2f}\n")


def main() -> None:
    """Compare on each video."""
    parser = argparse.ArgumentParser(description="Time the MediaPipe prior.")
    parser.add_argument("video", nargs="*", type=Path)
    options = parser.parse_args()
    if not options.video:
        sys.stdout.write("astronaut\n")
        compare(frames_of_photograph)
    for path in options.video:
        sys.stdout.write(f"{path.name}\n")
        compare(lambda path=path: frames_of_video(path))


if __name__ == "__main__":
    main()
