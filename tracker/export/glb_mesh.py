"""The surface of a rigged head as glTF 2.0 wants it: one row per vertex and texture coordinate, four joints a vertex.

Written from the glTF 2.0 specification (Khronos), §3.7.2 meshes, §3.7.2.2 morph targets and §3.7.3.3 skinned mesh
attributes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flame.errors import InputError
from flame.shading import PERSON_COLORS, head_look, vertex_normals
from tracker.export.glb_buffers import GlbBuffers

if TYPE_CHECKING:
    from tracker.export.rig import RiggedHead
    from tracker.texture import HeadTexture

_UNMOVED_METRES = 1e-8
"""Morph targets leave out offsets up to this: over a hundred targets they sum up to less than a hundredth of 0.1 mm."""

_UNTURNED = 0.01
"""Morph targets leave out changes of unit normals up to this, half a degree."""

_IRIS_AND_PUPIL = ((0.0058, (0.30, 0.25, 0.21)), (0.0024, (0.03, 0.03, 0.03)))
"""Radii in metres, and sRGB colours."""

_MIN_WEIGHT = 1e-6
"""Skin weights below this are none: they move a vertex by a ten-thousandth of a millimetre at most."""


@dataclass(frozen=True, eq=False)
class SplitMesh:
    """Hold a triangle mesh whose rows have one texture coordinate each: the V vertices, then their copies at seams."""

    vertex: np.ndarray
    """Our vertex of each row, int64 (R,); the first V rows are the vertices in order."""
    faces: np.ndarray
    """Rows at the corners of the triangles, int64 (F, 3)."""
    uv: np.ndarray | None
    """Texture coordinates of the rows, float32 (R, 2), origin top left; None without any."""


def split_at_seams(
    num_vertices: int, faces: np.ndarray, uv: np.ndarray | None, uv_faces: np.ndarray | None
) -> SplitMesh:
    """Give every vertex with several texture coordinates a row for each.

    Args:
        num_vertices: V.
        faces: vertices at the corners of triangles (F, 3).
        uv: texture coordinates (VT, 2), origin bottom left, or None.
        uv_faces: rows of ``uv`` at the corners (F, 3), or None.
    """
    if uv is None or uv_faces is None:
        return SplitMesh(np.arange(num_vertices), faces, None)
    corners = faces.reshape(-1).astype(np.int64) * len(uv) + uv_faces.reshape(-1)
    pairs, pair_of_corner = np.unique(corners, return_inverse=True)
    vertex_of_pair, uv_of_pair = np.divmod(pairs, len(uv))
    used, first_pair = np.unique(vertex_of_pair, return_index=True)
    is_copy = np.ones(len(pairs), dtype=bool)
    is_copy[first_pair] = False
    row_of_pair = np.empty(len(pairs), dtype=np.int64)
    row_of_pair[first_pair] = used
    row_of_pair[is_copy] = num_vertices + np.arange(is_copy.sum())
    vertex = np.concatenate((np.arange(num_vertices), vertex_of_pair[is_copy]))
    row_uv = np.zeros((len(vertex), 2), np.float32)
    row_uv[row_of_pair] = uv[uv_of_pair] * (1, -1) + (0, 1)
    return SplitMesh(vertex, row_of_pair[pair_of_corner].reshape(faces.shape), row_uv)


def joints_and_weights(skin_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the joints that move each vertex, uint8 (V, 4 or 8), and their shares, float32, the largest first.

    There are 8 where some vertex hangs on more than 4 joints: the specification lets readers take the first four
    only, which are the most important ones.

    Args:
        skin_weights: share of each joint (V, J); rows sum to one.

    Raises:
        InputError: a share is negative, which glTF cannot express.
    """
    if skin_weights.min() < -_MIN_WEIGHT:
        raise InputError(f"the head has negative skin weights ({skin_weights.min():.3g}), which GLB cannot express.")
    weights = np.where(skin_weights > _MIN_WEIGHT, skin_weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    slots = 4 if (weights > 0).sum(axis=1).max() <= 4 else 8
    order = np.argsort(-weights, axis=1, kind="stable")[:, :slots]
    shares = np.take_along_axis(weights, order, axis=1)
    padding = ((0, 0), (0, slots - shares.shape[1]))
    joints = np.pad(np.where(shares > 0, order, 0), padding).astype(np.uint8)
    return joints, np.pad(shares, padding).astype(np.float32)


def head_primitive(buffers: GlbBuffers, rig: RiggedHead, split: SplitMesh, colors: np.ndarray | None) -> dict[str, Any]:
    """Store the surface of a head; return the document's primitive, without its material.

    Args:
        buffers: where numbers are stored.
        rig: the head.
        split: its mesh, split at seams.
        colors: sRGB colours of the vertices (V, 3), or None where a texture tells them.
    """
    normals = _unit_normals(rig.rest_vertices, rig.faces)
    attributes = {
        "POSITION": buffers.vertices(rig.rest_vertices[split.vertex].astype(np.float32), bounds=True),
        "NORMAL": buffers.vertices(normals[split.vertex].astype(np.float32)),
    }
    if split.uv is not None:
        attributes["TEXCOORD_0"] = buffers.vertices(split.uv)
    if colors is not None:
        linear = np.hstack((light_from_srgb(colors), np.ones((len(colors), 1))))
        attributes["COLOR_0"] = buffers.vertices(np.round(255 * linear[split.vertex]).astype(np.uint8), normalized=True)
    joints, weights = joints_and_weights(rig.skin_weights)
    for number, start in enumerate(range(0, joints.shape[1], 4)):
        attributes[f"JOINTS_{number}"] = buffers.vertices(joints[split.vertex, start : start + 4])
        attributes[f"WEIGHTS_{number}"] = buffers.vertices(weights[split.vertex, start : start + 4])
    # Attributes of vertices cannot be 32-bit whole numbers; float32 holds them exactly up to 2^24.
    attributes["_VERTEX"] = buffers.vertices(split.vertex.astype(np.float32))
    primitive = {"attributes": attributes, "indices": buffers.indices(split.faces, len(split.vertex)), "mode": 4}
    targets = []
    for deltas in rig.morph_deltas:
        turned = _unit_normals(rig.rest_vertices + deltas, rig.faces) - normals
        targets.append(
            {
                "POSITION": buffers.offsets(deltas[split.vertex], _UNMOVED_METRES, bounds=True),
                "NORMAL": buffers.offsets(turned[split.vertex], _UNTURNED),
            }
        )
    if targets:
        primitive["targets"] = targets
    return primitive


def painted(rig: RiggedHead, regions: Mapping[str, np.ndarray], person: int) -> np.ndarray:
    """Return sRGB colours of the vertices (V, 3) of a head without texture: clay, lips, eyes with irises."""
    look = head_look(rig.rest_vertices, rig.faces, regions, PERSON_COLORS[person % len(PERSON_COLORS)])
    colors, from_pupil = look.colors.copy(), np.linalg.norm(look.iris_metres, axis=1)
    for radius, color in _IRIS_AND_PUPIL:
        colors[from_pupil < radius] = color
    return colors


def jpeg(texture: HeadTexture) -> bytes:
    """Encode a texture."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(texture.rgb).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def _unit_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals (V, 3), outward; of vertices without a surface, ahead."""
    normals = vertex_normals(vertices, faces)
    normals[np.abs(normals).max(axis=1) == 0] = (0, 0, 1)
    return normals


def light_from_srgb(srgb: np.ndarray) -> np.ndarray:
    """Return sRGB colours in [0, 1] as linear ones, which vertices carry in glTF and USD (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
