"""Hold the solver against the paper's optimiser, Adam, on the paper's dense energy, and time what it does all day.

    python benchmarks/solver.py [--size 512] [--threads 1] [--seeds 1] [--parts single photos clip] [--quick]

A head of FLAME's size (5023 vertices, 300 identity and 100 expression coefficients; it is the model, so the error can
go to zero) is rendered with random identity, expression, jaw and pose to maps of texture coordinates and normals.
``exact`` evidence is those maps; ``noisy`` evidence has normals tilted by 10 degrees rms, texture coordinates from 3
pixels rms away, both independent from pixel to pixel, and 5 % of the pixels replaced by random values. The camera is
known. ``single`` is one image; ``photos`` are 8 of one person, yaw to 40 degrees either way; ``clip`` is 300 frames of
smooth random motion at 30 frames/s. Photos and clip have half the size of the single image.

All solvers start from the same pose of the neutral mean head (random sample consensus on the looked-up vertices, row
``start``), with one thread each unless told otherwise:

- ``Adam, paper``: preset ``paper``, 500 steps; ``Adam, released``: preset ``released``, 200 steps. Float32, on the CPU.
- ``ours, paper`` and ``ours, released``: Levenberg-Marquardt on the same energies.
- ``ours, dense``: Levenberg-Marquardt on an energy of our own with weaker priors, texture coordinates by the pixel and
  vertices looked up between pixels (``configs.presets.DENSE_ENERGY``), the same for exact and for noisy maps. Energies
  of different names do not compare.

In the clip we solve identity from 10 frames together and then stream every frame from the one before; with the paper's
energy only the first 60. Adam fits 2 of those, each by itself. Times are extrapolated (``~``) to all frames. The energy
``released`` lacks the terms of the eyes' landmarks and of symmetry, of which these maps and this head say nothing.

Columns: ``energy`` reached, evaluated for everybody by ``tracker.reference_energy`` in float64 (photos: the sum; clip:
the mean over the frames that Adam fits); ``seconds`` of the fit, CPU time where there is one thread, after a warm-up
that compiles, rendering and look-ups left out; seconds an ``image``; iterations (``its``; clip: median of the streamed
frames; a coarse look of at most 5 more comes before a cold start); ``posed`` and ``neutral``: mean distance of the
face's vertices from the truth after similarity alignment, mm, mean over the images; ``faster``: time of Adam on the
same energy (``dense``: on the paper's) over ours at convergence; ``until``: the same, over ours until we are first at
or below Adam's final energy; ``error``: posed error over that of ``Adam, paper`` and over that of ``Adam, released``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from dense_contest import (
    ADAM_PAPER,
    ADAM_RELEASED,
    OURS_DENSE,
    OURS_PAPER,
    Bench,
    Figures,
    Plan,
    Rows,
    combined,
    quick,
    rival_of,
)
from dense_scene import Sitter, random_state
from landmark_costs import JOINT_ITERATIONS, NUM_POINTS, joint_milliseconds, stream_cost
from threadpoolctl import threadpool_limits

SAMPLE = Path(__file__).resolve().parent.parent / "examples" / "sample.mp4"
PARTS = ("single", "photos", "clip")
_LARGEST_YAW_DEGREES, _SINGLE_YAW_DEGREES = 40.0, 15.0
HEADER = (
    f"{'evidence':8s} {'images':7s} {'solver':15s} {'energy':>8s} {'seconds':>9s} {'s/image':>8s} {'its':>4s} "
    f"{'posed':>7s} {'neutral':>7s} {'faster':>7s} {'until':>7s} {'error':>6s} {'':>6s}"
)


def measure(bench: Bench, part: str, is_noisy: bool, seed: int) -> Rows:
    """Measure one part of the table with one random person."""
    plan = bench.plan
    size_px = plan.size_px if part == "single" else plan.size_px // 2
    sitter = Sitter.random(bench.head, size_px, is_noisy, seed)
    if part == "clip":
        return bench.clip(sitter, seed)
    rng = np.random.default_rng((seed, 2))
    yaws = [_SINGLE_YAW_DEGREES]
    if part == "photos":
        yaws = np.linspace(-_LARGEST_YAW_DEGREES, _LARGEST_YAW_DEGREES, plan.num_photos).tolist()
    states = [random_state(bench.head, yaw, rng) for yaw in yaws]
    return bench.compare(sitter, [sitter.shoot(state, seed * 100 + index) for index, state in enumerate(states)])


def print_rows(evidence: str, part: str, rows: Rows, num_images: int) -> None:
    """Print one part of the table."""
    for name, row in rows.items():
        print(_line(evidence, part, name, row, rows, num_images), flush=True)


def _line(evidence: str, part: str, name: str, row: Figures, rows: Rows, num_images: int) -> str:
    def cell(value: float, width: int, digits: int, mark: str = "") -> str:
        return f"{'' if np.isnan(value) else f'{mark}{value:.{digits}f}':>{width}s}"

    is_ours = name.startswith("ours")
    seconds = rows[rival_of(name)].seconds if is_ours else np.nan
    errors = [row.posed_mm / rows[adam].posed_mm if is_ours else np.nan for adam in (ADAM_PAPER, ADAM_RELEASED)]
    extrapolated = "~" if part == "clip" and name != OURS_DENSE else ""
    return (
        f"{evidence:8s} {part:7s} {name:15s} {cell(row.energy, 8, 3)} {cell(row.seconds, 9, 2, extrapolated)} "
        f"{cell(row.seconds / num_images, 8, 3)} {cell(row.iterations, 4, 0)} {cell(row.posed_mm, 7, 3)} "
        f"{cell(row.neutral_mm, 7, 3)} {cell(seconds / row.seconds, 7, 1)} {cell(seconds / row.below_seconds, 7, 1)} "
        f"{cell(errors[0], 6, 3)} {cell(errors[1], 6, 3)}"
    )


def print_bars(exact: Rows, noisy: Rows) -> None:
    """Print how the single images stand against what is asked for."""
    adam, ours = exact[ADAM_PAPER], exact[OURS_PAPER]
    print_bar(
        f"single, exact: Adam's time over ours until we are at or below its energy {adam.energy:.2f} "
        f"(we end at {ours.energy:.2f}, {adam.seconds / ours.seconds:.0f} times faster)",
        adam.seconds / ours.below_seconds,
        50,
        is_least=True,
    )
    print_bar("single, exact: posed error of ours, dense, mm", exact[OURS_DENSE].posed_mm, 0.05)
    for name in (ADAM_PAPER, ADAM_RELEASED):
        print_bar(
            f"single, noisy: posed error of ours, dense, over that of {name}",
            noisy[OURS_DENSE].posed_mm / noisy[name].posed_mm,
            0.8,
        )


def print_bar(what: str, found: float, bar: float, *, is_least: bool = False) -> None:
    """Print one figure and whether it is good enough."""
    is_met = found >= bar if is_least else found <= bar
    print(f"  {'met   ' if is_met else 'MISSED'} {found:8.3f} {'>=' if is_least else '<='} {bar:g}  {what}", flush=True)


def print_landmark_costs(plan: Plan) -> None:
    """Print what landmarks cost, one frame after the other and many together."""
    stream = stream_cost(SAMPLE, plan.num_frames)
    print(f"landmarks, one thread: {SAMPLE.name}, {stream.num_frames} frames streamed with the default prior")
    print_bar(f"CPU milliseconds a frame, median (mean {stream.mean_milliseconds:.2f})", stream.milliseconds, 2)
    print_bar("iterations, median", stream.iterations, 4)
    milliseconds = joint_milliseconds(plan.joint_counts)
    each = ", ".join(f"{count}: {value:.2f}" for count, value in zip(plan.joint_counts, milliseconds, strict=True))
    print(f"joint solve, {NUM_POINTS} points, {JOINT_ITERATIONS} iterations: CPU milliseconds a frame for {each}")
    few, many = plan.joint_counts[0], plan.joint_counts[-1]
    print_bar(f"time a frame of {many} frames over that of {few}", milliseconds[-1] / milliseconds[0], 1.2)


def main() -> None:
    """Print the table, and how it stands against what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the single image's maps, pixels (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every solver (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="random people; medians are printed (%(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts of the table (all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: see that it works")
    options = parser.parse_args()
    plan = Plan(options.size, options.threads, options.seeds)
    plan = quick(plan) if options.quick else plan
    torch.set_num_threads(plan.num_threads)
    with threadpool_limits(plan.num_threads):
        run(plan, options.parts)


def run(plan: Plan, parts: Sequence[str]) -> None:
    """Measure everything."""
    bench = Bench(plan)
    sizes = f"single {plan.size_px} px, photos and clip {plan.size_px // 2} px"
    print(f"{bench.head!r}; {sizes}; {plan.num_threads} of {os.cpu_count()} threads; {plan.num_seeds} random people")
    if plan.adam_share < 1:
        print("quick: Adam takes a tenth of its steps, so the figures mean nothing")
    print(HEADER)
    counts = {"single": 1, "photos": plan.num_photos, "clip": plan.num_frames}
    table: dict[tuple[str, str], Rows] = {}
    for part in parts:
        for evidence in ("exact", "noisy"):
            each = [measure(bench, part, evidence == "noisy", seed) for seed in range(1, plan.num_seeds + 1)]
            rows = {name: combined([found[name] for found in each], np.median) for name in each[0]}
            print_rows(evidence, part, rows, counts[part])
            table[evidence, part] = rows
    if ("exact", "single") in table:
        print_bars(table["exact", "single"], table["noisy", "single"])
    print_landmark_costs(plan)


if __name__ == "__main__":
    main()
