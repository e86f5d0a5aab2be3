"""Exact dense maps of a posed head: what perfect networks would say of it. For tests, benchmarks and training."""

from __future__ import annotations

import numpy as np

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.model import HeadModel
from flame.rasterizer import Backend, interpolate, rasterize
from flame.shading import vertex_normals
from priors.dense_surface import DenseSurface
from priors.evidence import DenseMaps, NormalSpace


def render_dense_maps(
    head: HeadModel,
    verts_cam: np.ndarray,
    intrinsics: Intrinsics,
    *,
    normal_space: NormalSpace = "camera",
    cam_from_neck: np.ndarray | None = None,
    backend: Backend = "cpu",
) -> DenseMaps:
    """Render texture coordinates and smooth normals of a head at the size of the intrinsics.

    The mask leaves out eyes, the mouth's inside and surfaces seen from behind (through the open neck). Texture
    coordinates follow the topology's own triangles, so nothing is blended across seams.

    Args:
        head: the head model.
        verts_cam: its vertices (V, 3), camera space, metres.
        intrinsics: the camera.
        normal_space: axes of the normals; ``head`` needs ``cam_from_neck``.
        cam_from_neck: rotation (3, 3) of cam_from_head times that of the neck, which head space undoes.
        backend: rasteriser back end.

    Raises:
        InputError: the head has no texture coordinates, ``cam_from_neck`` is missing, or an array has the wrong shape.
    """
    if normal_space == "head" and cam_from_neck is None:
        raise InputError("normals in head space need cam_from_neck, the rotation of the head including its neck")
    surface = DenseSurface.of(head)
    faces = head.faces.detach().cpu().numpy()
    fragments = rasterize(verts_cam, faces, intrinsics, backend=backend)
    mask = fragments.mask & ~(surface.is_excluded | _faces_away(verts_cam, faces))[fragments.triangle]
    vert_normals = vertex_normals(verts_cam, faces)
    if normal_space == "head":
        vert_normals = vert_normals @ np.asarray(cam_from_neck, np.float64)
    normals = interpolate(fragments, faces, vert_normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    uv = interpolate(fragments, surface.uv_faces, surface.uv)
    normals[~mask], uv[~mask] = np.nan, np.nan
    return DenseMaps(uv, normals, mask, normal_space)


def render_foreground(
    head: HeadModel, verts_cam: np.ndarray, intrinsics: Intrinsics, backend: Backend = "cpu"
) -> np.ndarray:
    """Return which pixels the whole head covers, eyes and mouth included, bool (H, W)."""
    return rasterize(verts_cam, head.faces.detach().cpu().numpy(), intrinsics, backend=backend).mask


def _faces_away(verts_cam: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return which triangles show the camera their back, bool (F,)."""
    a, b, c = np.moveaxis(np.asarray(verts_cam, np.float64)[faces], 1, 0)
    return np.einsum("fc,fc->f", a, np.cross(b - a, c - a)) >= 0
