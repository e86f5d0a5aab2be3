"""Named landmarks on a head's surface: how they are stored beside a head model, and sets that other fields know."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flame.model import HeadModel
from flame.surface import SurfacePoints

MEDIAPIPE = "mediapipe"
"""Landmark set of MediaPipe's 478 face landmarks, found by ``priors.landmark_embedding``."""
NOW = "now"
"""The seven landmarks of the NoW and NeRSemble benchmarks: the outer and inner corner of the subject's right eye, the
inner and outer corner of the left eye, the base of the nose, and the right and left corner of the mouth."""

_FORMAT_VERSION = 1
_NOW_FROM_MEDIAPIPE = (33, 133, 362, 263, 2, 61, 291)


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Place a detector's N landmarks on one head."""

    points: SurfacePoints
    """Where the landmarks lie."""
    spread_m: np.ndarray
    """How far pictures scatter round that place (median distance), float64 (N,), metres; 0 if by construction."""
    head_hash: str
    """``content_hash`` of the head that the embedding belongs to."""


def embedding_path(head_file: Path) -> Path:
    """Return the file beside a head model's file that holds the embedding of MediaPipe's landmarks."""
    return head_file.with_name(f"{head_file.stem}.mediapipe_landmarks.npz")


def read_embedding(path: Path) -> LandmarkEmbedding | None:
    """Read a stored embedding; None where there is none that this version understands."""
    try:
        with np.load(path, allow_pickle=False) as data:
            if int(data["format_version"]) != _FORMAT_VERSION:
                return None
            points = SurfacePoints(data["triangles"].astype(np.int64), data["barycentric"].astype(np.float64))
            return LandmarkEmbedding(points, data["spread_m"].astype(np.float64), str(data["head_hash"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def write_embedding(path: Path, embedding: LandmarkEmbedding) -> None:
    """Store an embedding; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    try:
        np.savez_compressed(
            partial,
            format_version=np.int32(_FORMAT_VERSION),
            triangles=embedding.points.triangles.astype(np.int32),
            barycentric=embedding.points.barycentric,
            spread_m=embedding.spread_m,
            head_hash=embedding.head_hash,
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def with_stored_landmarks(head: HeadModel, head_file: Path) -> HeadModel:
    """Return the head with the landmark sets ``mediapipe`` and ``now`` where its embedding lies beside its file."""
    embedding = read_embedding(embedding_path(head_file))
    if embedding is None or head.topology is None or embedding.head_hash != head.content_hash:
        return head
    topology = head.topology.with_landmarks(MEDIAPIPE, embedding.points)
    topology = topology.with_landmarks(NOW, embedding.points.take(np.array(_NOW_FROM_MEDIAPIPE)))
    return replace(head, topology=topology)
