"""Time the rasteriser and the overlay on the commons head: ``python -m benchmarks.rasterizer``.

Prints median and fastest milliseconds; both run on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from flame import load_head
from flame.camera import Intrinsics, project
from flame.rasterizer import interpolate, rasterize
from flame.shading import head_look, vertex_normals
from tracker.overlay import DrawnHead, draw_heads

# Image width and height, and the height of the head, all in pixels.
SIZES = ((256, 256, 230), (512, 512, 460), (1280, 720, 300), (1920, 1080, 400), (1920, 1080, 1000))


def measure_ms(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the median and the least milliseconds of a call, after one call that compiles."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times)), min(times)


def main() -> None:
    """Print one line for each image size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100, help="runs of which the median is shown")
    repeats = parser.parse_args().repeats
    head = load_head("commons")
    template, faces = head.template.double().numpy(), head.faces.numpy().astype(np.int32)
    look = head_look(template, faces, head.topology.regions if head.topology else {})
    verts_cam = template * (1, -1, -1) + (0, 0, 0.8)
    normals = vertex_normals(verts_cam, faces)
    print(f"{len(template)} vertices, {len(faces)} triangles; milliseconds: median (fastest)\n")
    print(f"{'image':>11} {'head px':>8} {'rasterise':>14} {'culled':>14} {'interpolate':>14} {'overlay':>14}")
    for width, height, head_px in SIZES:
        intrinsics = Intrinsics.from_fov(40.0, width, height)
        top, bottom = project(verts_cam, intrinsics)[:, 1].min(), project(verts_cam, intrinsics)[:, 1].max()
        intrinsics = intrinsics.zoom(head_px / (bottom - top))
        image = np.full((height, width, 3), 128, np.uint8)
        fragments = rasterize(verts_cam, faces, intrinsics)
        tasks = (
            lambda k=intrinsics: rasterize(verts_cam, faces, k),
            lambda k=intrinsics: rasterize(verts_cam, faces, k, cull_backfaces=True),
            lambda f=fragments: interpolate(f, faces, normals),
            lambda k=intrinsics, i=image: draw_heads(i, [DrawnHead(verts_cam, look)], faces, k),
        )
        cells = ["{:.1f} ({:.1f})".format(*measure_ms(task, repeats)) for task in tasks]
        print(f"{width:>6}x{height:<4} {head_px:>8} " + " ".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
