"""Make a folder of shards with several processes; stop at any time, continue later."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame.errors import AssetMissingError, InputError
from flame.loading import load_head
from priors.training.shards import INDEX_NAME, ShardEntry, ShardIndex, encode_sample, shard_name, write_shard

if TYPE_CHECKING:
    from flame.rasterizer import Backend

NOTE = (
    "Rendered from random coefficients of the head model, random paint, light and backgrounds; no photograph of anybody"
    " is in it. The terms are those of the head model: {licence}"
)


@dataclass(frozen=True)
class RenderOptions:
    """Say what to render."""

    out: Path
    """Folder of the shards."""
    count: int = 1000
    """Number of pictures."""
    image_px: int = 256
    """Side of the pictures, pixels."""
    labels_px: int = 128
    """Side of the label maps, pixels; the picture's side is a multiple of it."""
    seed: int = 0
    """What all randomness comes from."""
    jobs: int = 1
    """Number of processes."""
    head: str = "commons"
    """Head model: ``commons`` or a file."""
    samples_per_shard: int = 250
    """Number of pictures in a shard."""
    backend: Backend = "cpu"
    """Rasteriser: cpu, cuda or auto."""

    def check(self) -> None:
        """Refuse what cannot be rendered.

        Raises:
            InputError: a number is out of range.
        """
        for name, least in (("count", 1), ("image_px", 32), ("labels_px", 16), ("jobs", 1), ("samples_per_shard", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; {least} is the least")
        if self.seed < 0:
            raise InputError(f"the seed is {self.seed}; it must be 0 or more")
        if self.image_px % self.labels_px:
            raise InputError(
                f"the picture's side, {self.image_px}, is no multiple of the labels' side, {self.labels_px}"
            )


def render_shards(options: RenderOptions, advance: Callable[[int], None] = lambda _: None) -> ShardIndex:
    """Render what is missing of a folder of shards, and return its index.

    The folder's content depends on head, seed, sizes and count, not on the number of processes nor on interruptions.

    Args:
        options: what to render.
        advance: is told how many more pictures are done; those found in the folder are told at once.

    Raises:
        InputError: an option is out of range, or the folder holds other data.
    """
    options.check()
    index = _start(options)
    spans = dict(_spans(options))
    done = {entry.name: entry for entry in index.shards if _is_whole(options, entry, spans)}
    advance(sum(entry.count for entry in done.values()))
    index = replace(index, shards=_in_order(done))
    index.write(options.out)
    missing = {name: span for name, span in spans.items() if name not in done}
    for entry in _results(options, missing, advance):
        done[entry.name] = entry
        index = replace(index, shards=_in_order(done))
        index.write(options.out)
    return index


def _start(options: RenderOptions) -> ShardIndex:
    """Return the folder's index, or a new one."""
    # Imported late: it brings the rasteriser and the landmark detector with it.
    from priors.training.render.renderer import RENDERER_VERSION

    head = load_head(options.head)
    index = ShardIndex(
        head_hash=head.content_hash,
        image_px=options.image_px,
        labels_px=options.labels_px,
        seed=options.seed,
        samples_per_shard=options.samples_per_shard,
        configuration={"source": "render", "head": head.name, "renderer": RENDERER_VERSION},
        note=NOTE.format(licence=head.licence),
    )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{options.out} cannot be made ({error.strerror}); choose another folder") from error
    _remove_partial(options.out)
    try:
        found = ShardIndex.read(options.out)
    except AssetMissingError:
        return index
    old, new = (_settings(each) for each in (found, index))
    differing = [name for name in new if old.get(name) != new[name]]
    if differing:
        name = differing[0]
        was, now = old.get(name), new[name]
        raise InputError(f"{options.out} holds data of {name} {was!r}, not {now!r}; choose another folder or delete it")
    return found


def _settings(index: ShardIndex) -> dict[str, Any]:
    """Return what all shards of a folder have in common, by name; the configuration's entries stand for themselves."""
    values = asdict(index)
    del values["shards"]
    return {**values.pop("configuration"), **values}


def _spans(options: RenderOptions) -> Iterator[tuple[str, tuple[int, int]]]:
    """Give name, first number and one after the last of each shard."""
    for number, first in enumerate(range(0, options.count, options.samples_per_shard)):
        yield shard_name(number), (first, min(first + options.samples_per_shard, options.count))


def _is_whole(options: RenderOptions, entry: ShardEntry, spans: dict[str, tuple[int, int]]) -> bool:
    """Tell whether a shard of the index is there and not shorter than now wanted; longer folders stay as they are."""
    path = options.out / entry.name
    first, end = spans.get(entry.name, (0, 0))
    return entry.count >= end - first and path.is_file() and path.stat().st_size == entry.bytes


def _in_order(done: dict[str, ShardEntry]) -> tuple[ShardEntry, ...]:
    return tuple(done[name] for name in sorted(done))


def _results(
    options: RenderOptions, missing: dict[str, tuple[int, int]], advance: Callable[[int], None]
) -> Iterator[ShardEntry]:
    """Render shards, in this process or several, and give each when it is done."""
    if options.jobs == 1 or len(missing) <= 1:
        for name, span in missing.items():
            yield _render_shard(options, name, span, advance)
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    workers = min(options.jobs, len(missing))
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(counter,))
    told = 0
    try:
        pending = {pool.submit(_render_in_worker, options, name, span) for name, span in missing.items()}
        while pending:
            finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            advance(counter.value - told)
            told = counter.value
            for future in finished:
                yield future.result()
    except BaseException as error:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        _remove_partial(options.out)
        if isinstance(error, BrokenProcessPool):
            raise InputError("a process ended early, perhaps for lack of memory; use fewer (--jobs)") from error
        raise
    pool.shutdown()


def _remove_partial(folder: Path) -> None:
    """Remove what stopped processes left unfinished; a folder is written by one run at a time."""
    for pattern in ("shard-*.part", f"{INDEX_NAME}.*.part"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


_COUNTER: Any = None
_RENDERERS: dict[tuple[str, int, int, str], Any] = {}


def _begin(counter: Any) -> None:
    """Prepare a worker: interruptions are the parent's business, and libraries keep to one thread."""
    import cv2
    import torch

    global _COUNTER
    _COUNTER = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _render_in_worker(options: RenderOptions, name: str, span: tuple[int, int]) -> ShardEntry:
    def advance(count: int) -> None:
        with _COUNTER.get_lock():
            _COUNTER.value += count

    return _render_shard(options, name, span, advance)


def _render_shard(
    options: RenderOptions, name: str, span: tuple[int, int], advance: Callable[[int], None]
) -> ShardEntry:
    """Render the pictures [first, end) into a shard."""
    from priors.training.render.renderer import Renderer

    key = (options.head, options.image_px, options.labels_px, options.backend)
    if key not in _RENDERERS:
        _RENDERERS[key] = Renderer(load_head(options.head), *key[1:3], backend=options.backend)
    renderer = _RENDERERS[key]

    def samples() -> Iterator[dict[str, bytes]]:
        for number in range(*span):
            drawn = renderer.draw(options.seed, number)
            yield encode_sample(drawn.image, drawn.labels, drawn.meta)
            advance(1)

    return write_shard(options.out / name, span[0], samples())
