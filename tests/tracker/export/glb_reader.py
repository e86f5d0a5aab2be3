"""A reader of GLB files for tests, written from the glTF 2.0 specification: accessors, nodes, animations, skinning."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

_TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@dataclass(frozen=True, eq=False)
class GlbFile:
    """Hold the document and the binary chunk of a file."""

    document: dict[str, Any]
    binary: bytes

    def view(self, index: int) -> bytes:
        view = self.document["bufferViews"][index]
        start = view.get("byteOffset", 0)
        return self.binary[start : start + view["byteLength"]]

    def numbers(self, index: int) -> np.ndarray:
        """Return an accessor's elements, (N,) or (N, size), as they are stored."""
        accessor = self.document["accessors"][index]
        dtype, size, count = _TYPES[accessor["componentType"]], _SIZES[accessor["type"]], accessor["count"]
        values = np.zeros(count * size, dtype)
        if "bufferView" in accessor:
            values = np.frombuffer(self.view(accessor["bufferView"]), dtype, count * size).copy()
        values = values.reshape(count, size)
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            indices, replaced = sparse["indices"], sparse["values"]
            rows = np.frombuffer(self.view(indices["bufferView"]), _TYPES[indices["componentType"]], sparse["count"])
            values[rows] = np.frombuffer(self.view(replaced["bufferView"]), dtype, sparse["count"] * size).reshape(
                -1, size
            )
        return values[:, 0] if size == 1 else values

    def named(self, kind: str, name: str) -> tuple[int, dict[str, Any]]:
        """Return index and entry of one of the document's lists by name."""
        ((index, entry),) = [(k, entry) for k, entry in enumerate(self.document[kind]) if entry.get("name") == name]
        return index, entry

    def attribute(self, mesh_name: str, attribute: str) -> np.ndarray:
        (primitive,) = self.named("meshes", mesh_name)[1]["primitives"]
        return self.numbers(primitive["attributes"][attribute])

    def key_seconds(self) -> np.ndarray:
        (inputs,) = {sampler["input"] for sampler in self.document["animations"][0]["samplers"]}
        return self.numbers(inputs)

    def world_vertices(self, mesh_name: str, seconds: float | None = None) -> np.ndarray:
        """Return morphed and skinned vertices of a mesh (R, 3) at a time of the first animation, or as they rest."""
        mesh_index, mesh = self.named("meshes", mesh_name)
        ((node_index, node),) = [
            (k, node) for k, node in enumerate(self.document["nodes"]) if node.get("mesh") == mesh_index
        ]
        (primitive,) = mesh["primitives"]
        vertices = self.numbers(primitive["attributes"]["POSITION"]).astype(np.float64)
        weights = self._property(node_index, "weights", seconds, mesh.get("weights", ()))
        for weight, target in zip(weights, primitive.get("targets", ()), strict=True):
            vertices += weight * self.numbers(target["POSITION"])
        skin = self.document["skins"][node["skin"]]
        inverse = self.numbers(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)
        matrices = np.stack([self._world(joint, seconds) for joint in skin["joints"]]) @ inverse
        blended = np.zeros((len(vertices), 4, 4))
        number = 0
        while f"JOINTS_{number}" in primitive["attributes"]:
            joints = self.numbers(primitive["attributes"][f"JOINTS_{number}"])
            shares = self.numbers(primitive["attributes"][f"WEIGHTS_{number}"])
            blended += (matrices[joints] * shares[..., None, None]).sum(axis=1)
            number += 1
        return np.einsum("vrc,vc->vr", blended[:, :3, :3], vertices) + blended[:, :3, 3]

    def _world(self, node_index: int, seconds: float | None) -> np.ndarray:
        """Return the global transform of a node."""
        matrix = self._local(node_index, seconds)
        for parent, node in enumerate(self.document["nodes"]):
            if node_index in node.get("children", ()):
                return self._world(parent, seconds) @ matrix
        return matrix

    def _local(self, node_index: int, seconds: float | None) -> np.ndarray:
        node = self.document["nodes"][node_index]
        turn = self._property(node_index, "rotation", seconds, node.get("rotation", (0, 0, 0, 1)))
        place = self._property(node_index, "translation", seconds, node.get("translation", (0, 0, 0)))
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(turn).as_matrix(), place
        return matrix

    def _property(self, node_index: int, path: str, seconds: float | None, at_rest: Any) -> np.ndarray:
        """Return a property of a node at a time, by linear interpolation, or as it rests."""
        if seconds is None:
            return np.asarray(at_rest, np.float64)
        animation = self.document["animations"][0]
        for channel in animation["channels"]:
            if channel["target"] == {"node": node_index, "path": path}:
                sampler = animation["samplers"][channel["sampler"]]
                assert sampler["interpolation"] == "LINEAR"
                keys = self.numbers(sampler["input"]).astype(np.float64)
                values = self.numbers(sampler["output"]).astype(np.float64).reshape(len(keys), -1)
                if path == "rotation":
                    return Slerp(keys, Rotation.from_quat(values))(seconds).as_quat()
                return np.array([np.interp(seconds, keys, column) for column in values.T])
        return np.asarray(at_rest, np.float64)


def read_glb(path: Path) -> GlbFile:
    """Read a file and check its container."""
    content = path.read_bytes()
    magic, version, size = struct.unpack_from("<4sII", content)
    assert (magic, version, size) == (b"glTF", 2, len(content))
    text_size, text_kind = struct.unpack_from("<I4s", content, 12)
    binary_size, binary_kind = struct.unpack_from("<I4s", content, 20 + text_size)
    assert text_kind == b"JSON" and binary_kind == b"BIN\0"
    assert text_size % 4 == binary_size % 4 == 0 and 28 + text_size + binary_size == size
    document = json.loads(content[20 : 20 + text_size])
    assert document["buffers"] == [{"byteLength": binary_size}]
    return GlbFile(document, content[28 + text_size :])
