"""Labelled pictures of painted heads, simple and quick to make, for tests of the training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.rasterizer import interpolate
from flame.shading import STUDIO, vertex_normals
from priors.painted_head import PALETTES, PaintedHead
from priors.pixel_kinds import Kind
from priors.training.labels import LabelMaps
from priors.training.shards import ShardIndex, encode_sample, shard_name, write_shard

SIDE = 64


def rotation_from_angles(yaw: float, pitch: float) -> np.ndarray:
    """Return a turn of the head about its own up and right axes."""
    c, s = math.cos(yaw), math.sin(yaw)
    around_y = np.array(((c, 0, s), (0, 1, 0), (-s, 0, c)))
    c, s = math.cos(pitch), math.sin(pitch)
    return np.array(((1, 0, 0), (0, c, -s), (0, s, c))) @ around_y


class PaintedSamples:
    """Draw labelled pictures of one head, turned."""

    def __init__(self, head: HeadModel) -> None:
        self.head = head
        self._painted = PaintedHead(head)

    def draw(
        self, yaw: float, pitch: float, *, side: int = SIDE, palette: int = 0, mirrored: bool = False
    ) -> tuple[np.ndarray, LabelMaps, dict[str, Any]]:
        """Return picture, labels and facts of the head turned by angles in radians; off the optical axis."""
        topology = self.head.topology
        assert topology is not None and topology.uv is not None and topology.uv_faces is not None
        center = (self._painted.template.max(axis=0) + self._painted.template.min(axis=0)) / 2
        extent = float(np.ptp(self._painted.template, axis=0).max())
        rotation = rotation_from_angles(yaw, pitch)
        cam_from_head = np.diag((1.0, -1.0, -1.0)) @ rotation
        camera = Intrinsics(2.2 * side, 2.2 * side, 0.42 * side, 0.55 * side, side, side)
        if mirrored:
            flip = np.diag((-1.0, 1.0, 1.0))
            cam_from_head = flip @ cam_from_head @ flip
            camera = Intrinsics(camera.fx, camera.fy, side - camera.cx, camera.cy, side, side)
        depth = 3 * extent
        shift = np.array(((side / 2 - camera.cx) / camera.fx, (side / 2 - camera.cy) / camera.fy, 1.0)) * depth
        verts = (self._painted.template - center) @ cam_from_head.T + shift
        image, fragments, place = self._painted.render(verts, camera, palette=PALETTES[palette], lighting=STUDIO)
        mask = fragments.mask
        normals = interpolate(fragments, self._painted.faces, vertex_normals(verts, self._painted.faces))
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        corners = topology.uv[topology.uv_faces[np.maximum(fragments.triangle, 0)]]
        uv = np.einsum("hwkc,hwk->hwc", corners, fragments.barycentric)
        labels = LabelMaps(
            np.where(mask[..., None], place, np.nan).astype(np.float32),
            np.where(mask[..., None], uv, 0).astype(np.float32),
            np.where(mask[..., None], normals, 0).astype(np.float32),
            np.where(mask, Kind.SKIN, Kind.BACKGROUND).astype(np.uint8),
        )
        facts = {
            "intrinsics": {name: getattr(camera, name) for name in ("fx", "fy", "cx", "cy", "width", "height")},
            "cam_from_neck": cam_from_head.tolist(),
            "source": "render",
        }
        return image, labels, facts


def write_painted(folder: Path, head: HeadModel, count: int, side: int = SIDE, seed: int = 0) -> Path:
    """Write a folder of samples with random turns; labels have half the pictures' side."""
    from priors.training.batches import resized_labels

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    drawn = PaintedSamples(head)
    samples = []
    for number in range(count):
        yaw, pitch = rng.uniform(-0.6, 0.6), rng.uniform(-0.3, 0.3)
        image, labels, facts = drawn.draw(yaw, pitch, side=side, palette=number % len(PALETTES))
        samples.append(encode_sample(image, resized_labels(labels, side // 2), facts))
    half = -(-count // 2)
    shards = []
    for number, start in enumerate(range(0, count, half)):
        shards.append(write_shard(folder / shard_name(number), start, samples[start : start + half]))
    ShardIndex(head.content_hash, side, side // 2, seed, half, shards=tuple(shards)).write(folder)
    return folder
