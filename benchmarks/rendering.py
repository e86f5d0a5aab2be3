"""Time the rendering of training pictures: ``python benchmarks/rendering.py``.

Prints the processor time of one picture and of its parts, and pictures per second of whole runs with 1 and 2 processes
(drawing, encoding and writing; starting the processes is left out).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

from flame.loading import load_head
from priors.training.render.production import RenderOptions, render_shards
from priors.training.render.renderer import Renderer

PARTS = {
    "person": "people.py:draw",
    "vertices": "mesh_rig.py:pose",
    "background": "backgrounds.py:random_background",
    "lamps and shadow": "light.py:random_light",
    "rasterise and paint": "stage.py:sample",
    "light": "exposure.py:lit",
    "hair, glasses, hands": "covers.py:add_covers",
    "labels": "labelling.py:labels",
    "camera's effects": "photo_effects.py:degrade",
}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="pictures of each measurement")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures")
    parser.add_argument("--labels", type=int, default=128, help="side of the label maps")
    options = parser.parse_args()
    one_picture(options.count, options.size, options.labels)
    for jobs in (1, 2):
        rate = pictures_per_second(options.count, options.size, options.labels, jobs)
        print(f"{jobs} process{'es' if jobs > 1 else ''}: {rate:.1f} pictures/s")


def one_picture(count: int, size: int, labels: int) -> None:
    """Print the milliseconds of processor time that a picture and its parts take."""
    renderer = Renderer(load_head("commons"), size, labels)
    for number in range(20):
        renderer.draw(1, number)
    start = time.process_time()
    for number in range(count):
        renderer.draw(2, number)
    print(
        f"a picture of {size} px: {1e3 * (time.process_time() - start) / count:.1f} ms of processor time, of it about"
    )
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    for number in range(count):
        renderer.draw(2, number)
    profile.disable()
    totals: dict[str, float] = {}
    for (file, _, function), (_, _, _, total, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        name = f"{Path(file).name}:{function}"
        totals[name] = max(totals.get(name, 0.0), total)
    for part, function in PARTS.items():
        print(f"  {part:22s} {1e3 * totals.get(function, 0.0) / count:5.1f} ms")


def pictures_per_second(count: int, size: int, labels: int, jobs: int) -> float:
    """Return the rate between the first picture that is done and the last."""
    times: list[tuple[float, int]] = []

    def advance(done: int) -> None:
        if done:
            times.append((time.perf_counter(), done))

    with tempfile.TemporaryDirectory() as folder:
        per_shard = max(1, count // 8)
        wanted = RenderOptions(Path(folder) / "data", count, size, labels, jobs=jobs, samples_per_shard=per_shard)
        render_shards(wanted, advance)
    after_first = sum(done for _, done in times[1:])
    return after_first / max(times[-1][0] - times[0][0], 1e-9)


if __name__ == "__main__":
    main()
