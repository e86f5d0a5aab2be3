"""Command line: ``python -m priors.training.render --out DIR --count N``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from flame.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Render labelled pictures of random heads into shards; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Pictures are spread over processes; threads inside them would only get in each other's way.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from tqdm import tqdm

    from priors.training.render.production import RenderOptions, render_shards

    wanted = RenderOptions(
        out=options.out,
        count=options.count,
        image_px=options.size,
        labels_px=options.labels,
        seed=options.seed,
        jobs=options.jobs,
        head=options.head,
        samples_per_shard=options.per_shard,
        backend=options.backend,
    )
    started = time.perf_counter()
    try:
        with tqdm(total=options.count, unit=" pictures", dynamic_ncols=True, disable=None) as bar:

            def advance(count: int) -> None:
                bar.update(count)

            index = render_shards(wanted, advance)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: the finished shards in {options.out} can be used; the same command continues\n")
        return 130
    seconds = time.perf_counter() - started
    size = sum(shard.bytes for shard in index.shards) / 1e6
    sys.stdout.write(
        f"{options.out}: {index.count} pictures of {index.image_px} px, labels of {index.labels_px} px, "
        f"{len(index.shards)} shards, {size:.0f} MB; {seconds:.0f} s\n"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m priors.training.render", description="Render labelled training pictures of random heads."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards; an unfinished one is continued")
    parser.add_argument("--count", type=int, default=1000, help="number of pictures (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures, pixels (default: %(default)s)")
    parser.add_argument("--labels", type=int, default=128, help="side of the label maps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same pictures (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes (default: %(default)s)")
    parser.add_argument("--head", default="commons", help="head model: commons or a file (default: %(default)s)")
    parser.add_argument("--per-shard", type=int, default=250, help="pictures in a shard (default: %(default)s)")
    parser.add_argument("--backend", default="cpu", choices=("cpu", "cuda", "auto"), help="rasteriser")
    return parser


if __name__ == "__main__":
    sys.exit(main())
