"""Which point of one head's surface is which point of another's, stored once for each pair of heads.

A correspondence is a list of pairs of surface points, so it reads in both directions. It is found by
``flame.correspondence_search`` and kept beside the user's head file, or in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flame.correspondence_search import pair_surfaces
from flame.model import HeadModel
from flame.surface import SurfacePoints

_LOG = logging.getLogger(__name__)
_FORMAT_VERSION = 1
_MODEL_SUFFIXES = {".pkl", ".npz"}


@dataclass(frozen=True, eq=False)
class SurfaceCorrespondence:
    """Pair N points of one head's skin with points of another's; the first ones alone are spread evenly, too."""

    source: SurfacePoints
    """Points of the source head (N)."""
    target: SurfacePoints
    """The same places on the target head (N)."""
    weight: np.ndarray
    """How much a pair counts when one head is fitted to the other, float64 (N,); about one on the face."""
    is_face: np.ndarray
    """Which pairs lie on the face, bool (N,)."""
    source_hash: str
    """``content_hash`` of the source head."""
    target_hash: str
    """``content_hash`` of the target head."""
    gap_m: float
    """Median distance of the two surfaces after laying one on the other by its identity, metres."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.weight)

    def reversed(self) -> SurfaceCorrespondence:
        """Return the same pairs with source and target exchanged."""
        return replace(
            self,
            source=self.target,
            target=self.source,
            source_hash=self.target_hash,
            target_hash=self.source_hash,
        )

    def first(self, count: int) -> SurfaceCorrespondence:
        """Return the first pairs, at most ``count``; they are spread over the whole surface."""
        some = np.arange(min(count, len(self)))
        return replace(
            self,
            source=self.source.take(some),
            target=self.target.take(some),
            weight=self.weight[some],
            is_face=self.is_face[some],
        )


def find_correspondence(source: HeadModel, target: HeadModel) -> SurfaceCorrespondence:
    """Find which points of two heads are the same (some seconds); heads of one mesh correspond vertex by vertex.

    Raises:
        InputError: the heads are too different, or not of one scale.
    """
    paired = pair_surfaces(source, target)
    return SurfaceCorrespondence(
        paired.source,
        paired.target,
        paired.weight,
        paired.is_face,
        source.content_hash,
        target.content_hash,
        paired.gap_m,
    )


def load_correspondence(source: HeadModel, target: HeadModel) -> SurfaceCorrespondence:
    """Return the stored correspondence of two heads where there is one, else find it and store it for the next time.

    It lies beside the file of the head that has one (the source's first), or in the user's cache folder.

    Raises:
        InputError: the heads are too different, or not of one scale.
    """
    paths = correspondence_paths(source, target)
    for path in paths:
        stored = read_correspondence(path, source, target)
        if stored is not None:
            return stored
    _LOG.info("finding the surface of head %r on head %r (once, some seconds)", source.name, target.name)
    found = find_correspondence(source, target)
    for path in paths:
        with contextlib.suppress(OSError):
            write_correspondence(path, found)
            break
    return found


def correspondence_paths(source: HeadModel, target: HeadModel) -> list[Path]:
    """Return where the correspondence of two heads may lie, in either direction: best place first."""
    pair = "_".join(sorted(_key(head) for head in (source, target)))
    files = [Path(head.source) for head in (source, target)]
    beside = [file for file in files if file.suffix in _MODEL_SUFFIXES and file.is_file()]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home) / "pixel3dmm-tracker" / f"correspondence_{pair}.npz"
    return [*(file.with_name(f"{file.stem}.correspondence_{pair}.npz") for file in beside), cache]


def _key(head: HeadModel) -> str:
    """Return what tells a head from others: its numbers, and which regions of it are known, for they decide, too."""
    regions = sorted(head.topology.regions) if head.topology is not None else []
    return hashlib.sha256(" ".join((head.content_hash, *regions)).encode()).hexdigest()[:16]


def write_correspondence(path: Path, correspondence: SurfaceCorrespondence) -> None:
    """Store a correspondence; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    try:
        np.savez_compressed(
            partial,
            format_version=np.int32(_FORMAT_VERSION),
            source_triangles=correspondence.source.triangles.astype(np.int32),
            source_barycentric=correspondence.source.barycentric,
            target_triangles=correspondence.target.triangles.astype(np.int32),
            target_barycentric=correspondence.target.barycentric,
            weight=correspondence.weight,
            is_face=correspondence.is_face,
            source_hash=correspondence.source_hash,
            target_hash=correspondence.target_hash,
            gap_m=np.float64(correspondence.gap_m),
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_correspondence(path: Path, source: HeadModel, target: HeadModel) -> SurfaceCorrespondence | None:
    """Read the stored correspondence of two heads, in either direction; None where the file does not hold it."""
    try:
        with np.load(path, allow_pickle=False) as data:
            if int(data["format_version"]) != _FORMAT_VERSION:
                return None
            stored = SurfaceCorrespondence(
                _points(data, "source"),
                _points(data, "target"),
                data["weight"].astype(np.float64),
                data["is_face"].astype(bool),
                str(data["source_hash"]),
                str(data["target_hash"]),
                float(data["gap_m"]),
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    if (stored.source_hash, stored.target_hash) == (target.content_hash, source.content_hash):
        stored = stored.reversed()
    if (stored.source_hash, stored.target_hash) != (source.content_hash, target.content_hash):
        return None
    is_whole = _fits(stored.source, source, len(stored)) and _fits(stored.target, target, len(stored))
    return stored if is_whole and stored.weight.shape == stored.is_face.shape == (len(stored),) else None


def _points(data: Mapping[str, np.ndarray], side: str) -> SurfacePoints:
    return SurfacePoints(data[f"{side}_triangles"].astype(np.int64), data[f"{side}_barycentric"].astype(np.float64))


def _fits(points: SurfacePoints, head: HeadModel, count: int) -> bool:
    """Return whether points lie on a head: as many as expected, on triangles that it has."""
    if points.triangles.shape != (count,) or points.barycentric.shape != (count, 3) or not count:
        return False
    is_inside = points.triangles.min() >= 0 and points.triangles.max() < len(head.faces)
    return bool(is_inside and np.isfinite(points.barycentric).all())
