"""Read heads from files: scans in ``.npz``, avatars with blend shapes in ``.glb``."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from flame.errors import InputError

_COMPONENTS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@dataclass(frozen=True)
class Mesh:
    """Hold a mesh with N vertices, its colours and how it deforms."""

    vertices: np.ndarray
    """Float64 (N, 3), metres."""
    faces: np.ndarray
    """Int64 (M, 3)."""
    uv: np.ndarray | None = None
    """Texture coordinates, float64 (N, 2), origin bottom left."""
    texture: np.ndarray | None = None
    """RGB, uint8 (height, width, 3)."""
    shapes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Displacements (N, 3) of blend shapes at weight 1, by name."""

    def posed(self, weights: Mapping[str, float]) -> np.ndarray:
        """Return vertices (N, 3) with blend shapes applied; names that this mesh lacks are ignored."""
        moved = [weight * self.shapes[name] for name, weight in weights.items() if name in self.shapes]
        return self.vertices + sum(moved, np.zeros_like(self.vertices))


def read_scan_mesh(path: Path) -> Mesh:
    """Read a scan: ``v`` in millimetres and ``f`` of an ``.npz``, with ``uv`` and a picture of the same name if any."""
    with np.load(path, allow_pickle=False) as data:
        if "v" not in data or "f" not in data or data["v"].ndim != 2:
            raise InputError(f"{path} is no scan: arrays v (points, 3) in millimetres and f are needed")
        uv = data["uv"].astype(np.float64) if "uv" in data else None
        vertices, faces = data["v"].astype(np.float64) * 1e-3, data["f"].astype(np.int64)
    picture = cv2.imread(str(path.with_suffix(".png"))) if uv is not None else None
    return Mesh(vertices, faces, uv, None if picture is None else picture[..., ::-1].copy())


def read_avatar(path: Path) -> dict[str, Mesh]:
    """Read the meshes of a binary glTF file by name: one primitive each, blend shapes by name, base colours."""
    raw = path.read_bytes()
    if raw[:4] != b"glTF":
        raise InputError(f"{path} is no binary glTF file")
    length = struct.unpack("<I", raw[12:16])[0]
    document, binary = json.loads(raw[20 : 20 + length]), raw[28 + length :]
    return {mesh["name"]: _mesh(document, binary, mesh) for mesh in document["meshes"]}


def _mesh(document: dict, binary: bytes, mesh: dict) -> Mesh:
    """Read the first primitive of a mesh."""
    primitive = mesh["primitives"][0]
    attributes = primitive["attributes"]
    vertices = _array(document, binary, attributes["POSITION"]).astype(np.float64)
    uv = _array(document, binary, attributes["TEXCOORD_0"]).astype(np.float64) * (1.0, -1.0) + (0.0, 1.0)
    names = mesh.get("extras", {}).get("targetNames", [])
    targets = [_array(document, binary, target["POSITION"]) for target in primitive.get("targets", [])]
    return Mesh(
        vertices,
        _array(document, binary, primitive["indices"]).astype(np.int64).reshape(-1, 3),
        uv,
        _texture(document, binary, document["materials"][primitive["material"]]),
        {name: target.astype(np.float64) for name, target in zip(names, targets, strict=False)},
    )


def _array(document: dict, binary: bytes, index: int) -> np.ndarray:
    """Read an accessor, sparse ones too, (count, width)."""
    accessor = document["accessors"][index]
    width, kind = _WIDTHS[accessor["type"]], _COMPONENTS[accessor["componentType"]]
    values = np.zeros((accessor["count"], width), kind)
    if "bufferView" in accessor:
        values = _numbers(document, binary, accessor, kind, accessor["count"], width)
    if "sparse" in accessor:
        sparse = accessor["sparse"]
        count, places = sparse["count"], sparse["indices"]
        rows = _numbers(document, binary, places, _COMPONENTS[places["componentType"]], count, 1)
        values = values.copy()
        values[rows[:, 0]] = _numbers(document, binary, sparse["values"], kind, count, width)
    return values


def _numbers(document: dict, binary: bytes, place: dict, kind: type, count: int, width: int) -> np.ndarray:
    """Read numbers (count, width) at a place in a buffer view, which may be interleaved."""
    view = document["bufferViews"][place["bufferView"]]
    offset = view.get("byteOffset", 0) + place.get("byteOffset", 0)
    size = np.dtype(kind).itemsize
    stride = view.get("byteStride", size * width)
    return np.ndarray((count, width), kind, binary, offset, (stride, size))


def _texture(document: dict, binary: bytes, material: dict) -> np.ndarray | None:
    """Decode the base colour of a material."""
    reference = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
    if reference is None:
        return None
    image = document["images"][document["textures"][reference["index"]]["source"]]
    view = document["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    encoded = np.frombuffer(binary, np.uint8, view["byteLength"], start)
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1].copy()
