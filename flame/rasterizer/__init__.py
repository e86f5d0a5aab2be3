"""Triangle rasteriser: which triangle each pixel sees, where on it, and how far away.

One interface, two back ends: ``cpu`` (compiled z-buffer, a few milliseconds for a head) and ``cuda`` (pytorch3d).
Conventions are those of ``flame.camera``: OpenCV camera space in metres, a pixel is sampled at its centre,
(column + 0.5, row + 0.5).

A triangle with any vertex at a depth of ``NEAR_METRES`` or less is dropped whole; nothing is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.rasterizer import cpu, cuda

__all__ = ["NEAR_METRES", "Backend", "Fragments", "check_backend", "interpolate", "rasterize"]

Backend = Literal["cpu", "cuda", "auto"]

NEAR_METRES = 0.01
"""Triangles that reach to this depth or nearer are not drawn."""


@dataclass(frozen=True)
class Fragments:
    """What each pixel sees of a mesh."""

    triangle: np.ndarray
    """Row in ``faces`` of the nearest triangle, int32 (H, W); -1 where there is none."""
    barycentric: np.ndarray
    """Perspective-correct weights of that triangle's vertices, float32 (H, W, 3); 0 in the background."""
    depth: np.ndarray
    """Camera-space z in metres, float32 (H, W); infinite in the background."""

    @property
    def mask(self) -> np.ndarray:
        """Return which pixels the mesh covers, bool (H, W)."""
        return self.triangle >= 0


def rasterize(
    verts_cam: np.ndarray,
    faces: np.ndarray,
    intrinsics: Intrinsics,
    *,
    height: int | None = None,
    width: int | None = None,
    cull_backfaces: bool = False,
    backend: Backend = "cpu",
) -> Fragments:
    """Rasterise a mesh, vertices (V, 3) in camera space and triangles (F, 3), into an image of ``height`` x ``width``.

    The size is that of the intrinsics unless given; it crops or extends the image at the right and bottom, nothing is
    scaled. The top-left fill rule (cpu) gives a pixel on a shared edge to exactly one triangle; at equal depth the
    first face wins. Front faces are those wound anticlockwise as the camera sees them (outward, on a FLAME head).

    Raises:
        InputError: An array has the wrong shape, a face names a missing vertex, or the back end cannot be used.
    """
    verts_cam = np.ascontiguousarray(verts_cam, dtype=np.float64)
    faces = np.ascontiguousarray(faces, dtype=np.int32)
    _check_mesh(verts_cam, faces)
    height = intrinsics.height if height is None else height
    width = intrinsics.width if width is None else width
    if _use_cuda(backend):
        arrays = cuda.rasterize(verts_cam, faces, intrinsics, height, width, cull_backfaces, NEAR_METRES)
    else:
        arrays = cpu.rasterize(verts_cam, faces, intrinsics, height, width, cull_backfaces, NEAR_METRES)
    return Fragments(*arrays)


def interpolate(fragments: Fragments, faces: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Interpolate per-vertex attributes (V, C) over the image, float32 (H, W, C); 0 in the background.

    Attributes with a seam (texture coordinates) take their own faces here: ``interpolate(fragments, uv_faces, uv)``.

    Raises:
        InputError: ``faces`` or ``attributes`` has the wrong shape or a face names a row that is not there.
    """
    attributes = np.ascontiguousarray(attributes, dtype=np.float32)
    faces = np.ascontiguousarray(faces, dtype=np.int32)
    if attributes.ndim != 2:
        raise InputError(f"attributes must have the shape (vertices, channels); got {attributes.shape}")
    _check_faces(faces, len(attributes))
    if int(fragments.triangle.max(initial=-1)) >= len(faces):
        raise InputError(f"the fragments name triangle {fragments.triangle.max()}, but there are {len(faces)} faces")
    return cpu.interpolate(fragments.triangle, fragments.barycentric, faces, attributes)


def _check_mesh(verts_cam: np.ndarray, faces: np.ndarray) -> None:
    if verts_cam.ndim != 2 or verts_cam.shape[1] != 3:
        raise InputError(f"vertices must have the shape (vertices, 3); got {verts_cam.shape}")
    _check_faces(faces, len(verts_cam))


def _check_faces(faces: np.ndarray, num_vertices: int) -> None:
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise InputError(f"faces must have the shape (faces, 3); got {faces.shape}")
    if faces.size and (faces.min() < 0 or faces.max() >= num_vertices):
        raise InputError(f"faces name vertices {faces.min()} to {faces.max()}, but there are {num_vertices} vertices")


def check_backend(backend: str) -> None:
    """Make sure that a back end can be used here.

    Raises:
        InputError: its name is not known, or what it needs is not there.
    """
    _use_cuda(backend)


def _use_cuda(backend: str) -> bool:
    if backend not in ("cpu", "cuda", "auto"):
        raise InputError(f"unknown rasteriser back end {backend!r}; choose cpu, cuda or auto")
    if backend == "cpu":
        return False
    missing = cuda.missing()
    if missing is not None and backend == "cuda":
        raise InputError(f"the cuda rasteriser cannot be used: {missing}; choose the cpu or auto back end")
    return missing is None
