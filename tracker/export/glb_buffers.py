"""The binary half of a glTF 2.0 file: accessors over one buffer, and the GLB container.

Written from the glTF 2.0 specification (Khronos, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html): §3.6
buffers, views and accessors, §3.6.2.3 sparse accessors, §4.4 the GLB container.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from flame.errors import InputError

_COMPONENT_TYPES = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_ELEMENT_TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
_VERTEX_TARGET, _INDEX_TARGET = 34962, 34963

_MAGIC, _VERSION = 0x46546C67, 2
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
_MAX_BYTES = 2**32 - 1
"""The container tells its length in 32 bits."""


class GlbBuffers:
    """Collect numbers and pictures of a file; equal ones are stored once."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.accessors: list[dict[str, Any]] = []
        """As in the document, in the order of their indices."""
        self.views: list[dict[str, Any]] = []
        """Buffer views, likewise."""
        self._parts: list[bytes] = []
        self._size = 0
        self._known: dict[tuple[Any, ...], int] = {}

    def numbers(self, array: np.ndarray, *, bounds: bool = False) -> int:
        """Store animation keys, matrices or other numbers (N, ...) that are no vertex data; return the accessor.

        Args:
            array: N scalars, vectors of 2 to 4 or 4 x 4 matrices; uint8, uint16, uint32 or float32.
            bounds: whether lowest and highest values are told, as some uses require.
        """
        return self._dense(array, None, bounds=bounds)

    def vertices(self, array: np.ndarray, *, bounds: bool = False, normalized: bool = False) -> int:
        """Store an attribute of N vertices (N, ...); return the accessor.

        Args:
            array: as for `numbers`.
            bounds: as for `numbers`.
            normalized: whether whole numbers stand for fractions, 255 for 1.
        """
        return self._dense(array, _VERTEX_TARGET, bounds=bounds, normalized=normalized)

    def indices(self, faces: np.ndarray, num_vertices: int) -> int:
        """Store vertex indices of triangles (F, 3), as small as the number of vertices allows; return the accessor."""
        return self._dense(faces.reshape(-1).astype(_index_type(num_vertices)), _INDEX_TARGET)

    def offsets(self, array: np.ndarray, unmoved: float, *, bounds: bool = False) -> int:
        """Store what a morph target adds to N vertices (N, 3), float32; return the accessor.

        Only vertices that are moved are written where that is smaller.

        Args:
            array: offsets.
            unmoved: offsets up to this count as none.
            bounds: as for `numbers`.
        """
        is_moved = np.abs(array).max(axis=1) > unmoved
        is_moved[np.abs(array).max(axis=1).argmax()] = True  # a sparse accessor holds one element at least
        moved = np.flatnonzero(is_moved).astype(_index_type(len(array)))
        values = np.ascontiguousarray(array[moved], np.float32)
        if moved.nbytes + values.nbytes >= array.astype(np.float32).nbytes:
            return self.vertices(array.astype(np.float32), bounds=bounds)
        accessor = _accessor(np.where(is_moved[:, None], array, 0).astype(np.float32), bounds=bounds)
        accessor["sparse"] = {
            "count": len(moved),
            "indices": {"bufferView": self.view(moved.tobytes()), "componentType": _COMPONENT_TYPES[str(moved.dtype)]},
            "values": {"bufferView": self.view(values.tobytes())},
        }
        return self._add(("sparse", json.dumps(accessor)), accessor)

    def view(self, content: bytes, target: int | None = None) -> int:
        """Store bytes, such as an encoded picture; return the buffer view.

        Args:
            content: what to store.
            target: what a graphics card uses them for.
        """
        key = ("view", hashlib.sha256(content).digest(), target)
        if key not in self._known:
            view: dict[str, Any] = {"buffer": 0, "byteOffset": self._size, "byteLength": len(content)}
            if target is not None:
                view["target"] = target
            padded = content + bytes(-len(content) % 4)
            self._parts.append(padded)
            self._size += len(padded)
            self.views.append(view)
            self._known[key] = len(self.views) - 1
        return self._known[key]

    def write(self, path: Path, document: dict[str, Any]) -> None:
        """Write a GLB file.

        Args:
            path: where.
            document: the glTF document without buffers, views and accessors, which are added.

        Raises:
            InputError: the container cannot hold as much.
            ValueError: the document holds a number that is not finite.
        """
        document = {
            **document,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": self._size}],
        }
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        size = 12 + 8 + len(text) + 8 + self._size
        if size > _MAX_BYTES:
            raise InputError(f"a GLB file holds at most {_MAX_BYTES} bytes, this one would have {size}; cut the clip.")
        with path.open("wb") as stream:
            stream.write(struct.pack("<III", _MAGIC, _VERSION, size))
            stream.write(struct.pack("<II", len(text), _JSON_CHUNK) + text)
            stream.write(struct.pack("<II", self._size, _BINARY_CHUNK))
            stream.writelines(self._parts)

    def _dense(self, array: np.ndarray, target: int | None, *, bounds: bool = False, normalized: bool = False) -> int:
        """Store an array with all its elements; return the accessor."""
        accessor = _accessor(array, bounds=bounds)
        accessor["bufferView"] = self.view(np.ascontiguousarray(array).tobytes(), target)
        if normalized:
            accessor["normalized"] = True
        return self._add(("dense", json.dumps(accessor)), accessor)

    def _add(self, key: tuple[Any, ...], accessor: dict[str, Any]) -> int:
        """Return the index of an accessor, which is added if it is new."""
        if key not in self._known:
            self.accessors.append(accessor)
            self._known[key] = len(self.accessors) - 1
        return self._known[key]


def _accessor(array: np.ndarray, *, bounds: bool) -> dict[str, Any]:
    """Describe the elements of an array (N, ...), little-endian."""
    accessor: dict[str, Any] = {
        "componentType": _COMPONENT_TYPES[str(array.dtype)],
        "count": len(array),
        "type": _ELEMENT_TYPES[array.shape[1:]],
    }
    if bounds:
        rows = array.reshape(len(array), -1)
        accessor["min"], accessor["max"] = rows.min(axis=0).tolist(), rows.max(axis=0).tolist()
    return accessor


def _index_type(count: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest type that counts so many; its highest value is reserved."""
    return np.uint16 if count < 2**16 else np.uint32
