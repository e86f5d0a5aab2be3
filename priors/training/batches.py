"""Batches to learn from: samples of one or several folders, shuffled anew every epoch, changed, stacked.

The n-th sample of a training, and how it is changed, follow from the seed and n alone: not from the number of threads
or processes that load, nor from where a training was interrupted.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from flame.camera import Intrinsics
from flame.errors import InputError
from priors.face_crop import ray_from_cam
from priors.training.augmentation import UNKNOWN, LabelledPicture, UvFlip, augment
from priors.training.labels import LabelMaps
from priors.training.losses import UNKNOWN_KIND
from priors.training.settings import NO_AUGMENTATION, AugmentationSettings

_AHEAD = 3
"""Batches prepared while one is learnt from."""
_MAX_BLOCK_M = 0.01
"""Labels of a block of pixels are averaged only if their places lie so near one another."""
_MAX_BLOCK_UV = 0.05
"""Larger differences of texture coordinates within a block are seams."""


class SampleSource(Protocol):
    """What a batch needs of a folder of samples; ``shards.ShardReader`` gives it."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def read(self, number: int) -> tuple[np.ndarray, LabelMaps, dict[str, Any]]:
        """Return picture uint8 (S, S, 3), labels and other facts of a sample; safe in several threads."""
        ...


@dataclass(frozen=True)
class DataSet:
    """Name a folder of samples and how often it is gone through per epoch."""

    source: SampleSource
    times: float = 1.0
    """Samples drawn per epoch over samples there are; a fraction takes another part in every epoch."""


@dataclass(frozen=True)
class BatchShape:
    """Say what pictures and labels of a batch look like."""

    image_px: int
    labels_px: int
    normal_space: str = "ray"


def parse_data(text: str) -> tuple[Path, float]:
    """Read ``FOLDER`` or ``FOLDER=TIMES``.

    Raises:
        InputError: the number is none, or not above 0.
    """
    folder, separator, times = text.rpartition("=")
    if not separator:
        return Path(text), 1.0
    try:
        value = float(times)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"data '{text}': '{times}' is no number above 0; write FOLDER or FOLDER=TIMES, e.g. real=3")
    return Path(folder), value


class SampleOrder:
    """Say which sample comes when: data sets mixed and shuffled in every epoch."""

    def __init__(self, counts: Sequence[int], times: Sequence[float], seed: int) -> None:
        """Take the number of samples of each data set and how often each is gone through per epoch."""
        self._counts, self._seed = list(counts), seed
        self._drawn = [max(1, round(count * share)) for count, share in zip(counts, times, strict=True)]
        self.epoch_length = sum(self._drawn)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Return data set and sample of the n-th draw since the beginning."""
        epoch, position = divmod(number, self.epoch_length)
        which, sample = self._epoch(epoch)[position]
        return int(which), int(sample)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """Return data set and sample of an epoch's draws, int32 (n, 2)."""
        rng = np.random.default_rng((self._seed, 1, epoch))
        rows = []
        for which, (count, drawn) in enumerate(zip(self._counts, self._drawn, strict=True)):
            turns = [rng.permutation(count) for _ in range(-(-drawn // count))]
            samples = np.concatenate(turns)[:drawn]
            rows.append(np.column_stack((np.full(drawn, which), samples)))
        order = np.concatenate(rows).astype(np.int32)
        return order[rng.permutation(len(order))]


class BatchLoader:
    """Load, change and stack samples in background threads; the heavy parts run outside Python's lock."""

    def __init__(
        self,
        data: Sequence[DataSet],
        shape: BatchShape,
        *,
        seed: int = 0,
        augmentation: AugmentationSettings = NO_AUGMENTATION,
        uv_flip: UvFlip | None = None,
        may_flip: bool = True,
        workers: int = 2,
    ) -> None:
        """Take data sets, what batches look like, and how samples are changed (see ``augmentation.augment``)."""
        self._data, self._shape, self._seed = list(data), shape, seed
        self._augmentation, self._uv_flip, self._may_flip = augmentation, uv_flip, may_flip
        self._workers = workers
        self.order = SampleOrder([len(each.source) for each in data], [each.times for each in data], seed)

    def batches(self, slices: Iterator[range]) -> Iterator[dict[str, Tensor]]:
        """Return batches of the samples with these numbers, in order, several prepared ahead.

        Batches hold ``image`` float32 (B, 3, S, S) in [0, 1] in channels-last memory; ``place`` (B, 3, h, w) metres;
        ``normals`` (B, 3, h, w); ``uv`` (B, 2, h, w); ``kind`` int64 (B, h, w), -1 unknown; ``valid`` bool (B, h, w).
        Where there is no label, values are 0.
        """
        executor = ThreadPoolExecutor(max(1, self._workers), thread_name_prefix="samples")
        waiting: deque[Future[dict[str, Tensor]]] = deque()
        try:
            while True:
                for numbers in itertools.islice(slices, max(0, _AHEAD - len(waiting))):
                    samples = [executor.submit(self.sample, number) for number in numbers]
                    # Begun in order, so what this waits for is done or under way, even with one thread.
                    waiting.append(executor.submit(_stack_ready, samples))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def sample(self, number: int) -> dict[str, np.ndarray]:
        """Return the n-th sample of the training, changed, as arrays with channels last."""
        which, index = self.order[number]
        picture = read_picture(self._data[which].source, index)
        rng = np.random.default_rng((self._seed, 2, number))
        picture = augment(picture, self._augmentation, rng, self._uv_flip, may_flip=self._may_flip)
        return as_arrays(picture, self._shape)


def step_slices(first_step: int, batch: int, parts: int, rank: int = 0, world: int = 1) -> Iterator[range]:
    """Return the sample numbers of the batches of one process, without end: ``parts`` batches per step.

    The samples of a step are the same however many parts and processes share them.
    """
    share = batch // (parts * world)
    for step in itertools.count(first_step):
        for part in range(parts):
            start = step * batch + (part * world + rank) * share
            yield range(start, start + share)


def read_picture(source: SampleSource, index: int) -> LabelledPicture:
    """Return a sample of a source with its camera.

    Raises:
        InputError: the sample does not say what its camera is.
    """
    image, labels, meta = source.read(index)
    try:
        intrinsics = Intrinsics(**meta["intrinsics"])
        rotation = np.array(meta["cam_from_neck"], dtype=np.float32).reshape(3, 3)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"sample {index} of the training data lacks its camera ({error}); make it again") from error
    return LabelledPicture(image, labels, intrinsics, rotation)


def as_arrays(picture: LabelledPicture, shape: BatchShape) -> dict[str, np.ndarray]:
    """Return a sample as arrays of the sizes and in the normal space that a network asks for."""
    image = picture.image
    if image.shape[0] != shape.image_px:
        is_smaller = shape.image_px < image.shape[0]
        method = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
        image = cv2.resize(image, (shape.image_px, shape.image_px), interpolation=method)
    labels = resized_labels(picture.labels, shape.labels_px)
    valid = labels.valid
    normals = labels.normals_cam @ space_from_cam(picture, shape.normal_space).T
    kind = labels.kind.astype(np.int64)
    kind[kind == UNKNOWN] = UNKNOWN_KIND
    place = np.where(valid[..., None], labels.place, np.float32(0))
    return {"image": image, "place": place, "normals": normals, "uv": labels.uv, "kind": kind, "valid": valid}


def space_from_cam(picture: LabelledPicture, normal_space: str) -> np.ndarray:
    """Return the rotation, float32 (3, 3), from the camera's axes to the space in which normals are learnt."""
    if normal_space == "camera":
        return np.eye(3, dtype=np.float32)
    if normal_space == "head":
        return picture.cam_from_neck.T
    return ray_from_cam(picture.intrinsics).astype(np.float32)


def resized_labels(labels: LabelMaps, side: int) -> LabelMaps:
    """Return labels at another size: blocks averaged where they are of one kind and one surface, else unlabelled.

    Raises:
        InputError: the sizes are no multiples of one another.
    """
    size = labels.kind.shape[0]
    if side == size:
        return labels
    if side > size:
        if side % size:
            raise InputError(f"labels of {size} pixels cannot be enlarged to {side}; make data of {side} pixels")
        arrays = [
            np.repeat(np.repeat(each, side // size, axis=0), side // size, axis=1)
            for each in (labels.place, labels.uv, labels.normals_cam, labels.kind)
        ]
        return LabelMaps(*arrays)
    if size % side:
        raise InputError(f"labels of {size} pixels cannot be reduced to {side}; make data of {side} pixels")
    step = size // side

    def blocks(values: np.ndarray) -> np.ndarray:
        cut = values.reshape(side, step, side, step, -1).swapaxes(1, 2)
        return cut.reshape(side, side, step * step, -1)

    place, kind = blocks(labels.place), blocks(labels.kind)[..., 0]
    is_whole = (np.ptp(place, axis=2) < _MAX_BLOCK_M).all(axis=-1) & (kind == kind[..., :1]).all(axis=-1)
    middle = (step // 2) * (step + 1)
    normals = blocks(labels.normals_cam).mean(axis=2)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    uv = blocks(labels.uv)
    # Across a seam texture coordinates have no mean.
    is_seam = (np.ptp(uv, axis=2) > _MAX_BLOCK_UV).any(axis=-1, keepdims=True)
    uv = np.where(is_seam, uv[:, :, middle], uv.mean(axis=2))
    return LabelMaps(
        place=np.where(is_whole[..., None], place.mean(axis=2), np.float32(np.nan)),
        uv=np.where(is_whole[..., None], uv, np.float32(0)),
        normals_cam=np.where(is_whole[..., None], normals, np.float32(0)),
        kind=np.ascontiguousarray(kind[..., middle]),
    )


def _stack_ready(samples: Sequence[Future[dict[str, np.ndarray]]]) -> dict[str, Tensor]:
    """Return samples as one batch once they are loaded."""
    return stack([sample.result() for sample in samples])


def stack(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Return samples as one batch of tensors, channels second; see ``BatchLoader.batches``."""
    batch = {name: torch.from_numpy(np.stack([each[name] for each in samples])) for name in samples[0]}
    image = batch.pop("image").permute(0, 3, 1, 2).to(torch.float32).div_(255)
    maps = {name: batch[name].permute(0, 3, 1, 2) for name in ("place", "normals", "uv")}
    return {"image": image, **maps, "kind": batch["kind"], "valid": batch["valid"]}
