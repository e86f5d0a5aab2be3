"""GPU back end: pytorch3d's rasteriser, brought to this project's camera and pixel conventions."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch

from flame.camera import Intrinsics


def missing() -> str | None:
    """Say what this back end lacks here, or return None when it can be used."""
    if not torch.cuda.is_available():
        return "no CUDA device is visible to torch"
    if importlib.util.find_spec("pytorch3d") is None:
        return "pytorch3d is not installed (pip install easypytorch3d)"
    return None


def rasterize(
    verts_cam: np.ndarray,
    faces: np.ndarray,
    intrinsics: Intrinsics,
    height: int,
    width: int,
    cull_backfaces: bool,
    near_metres: float,
    *,
    device: str = "cuda",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rasterise a mesh; arguments and results as ``flame.rasterizer.rasterize``, vertices float64, faces int32.

    pytorch3d leaves out pixels whose centre lies exactly on an edge; in everything else the back ends agree.
    """
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    kept = np.flatnonzero((verts_cam[:, 2] > near_metres)[faces].all(axis=1))
    background = np.full((height, width), -1, np.int32)
    if kept.size == 0:
        return background, np.zeros((height, width, 3), np.float32), np.full((height, width), np.inf, np.float32)
    verts_ndc = _ndc_from_cam(verts_cam, intrinsics, height, width)
    mesh = Meshes(
        verts=torch.as_tensor(verts_ndc, dtype=torch.float32, device=device)[None],
        faces=torch.as_tensor(faces[kept], dtype=torch.int64, device=device)[None],
    )
    index, depth, barycentric, _ = rasterize_meshes(
        mesh,
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=True,
        cull_backfaces=cull_backfaces,
        max_faces_per_bin=max(10_000, len(kept)),
    )
    index = index[0, ..., 0].cpu().numpy()
    is_covered = index >= 0
    triangle = np.where(is_covered, kept[index], background).astype(np.int32)
    barycentric = np.where(is_covered[..., None], barycentric[0, :, :, 0].cpu().numpy(), np.float32(0))
    return triangle, barycentric, np.where(is_covered, depth[0, ..., 0].cpu().numpy(), np.float32(np.inf))


def _ndc_from_cam(verts_cam: np.ndarray, intrinsics: Intrinsics, height: int, width: int) -> np.ndarray:
    """Return pytorch3d's screen space: +x left, +y up, the shorter image side spans [-1, 1], z stays in metres."""
    half = min(height, width) / 2
    depth = np.where(verts_cam[:, 2] > 0, verts_cam[:, 2], 1.0)
    x_px = intrinsics.fx * verts_cam[:, 0] / depth + intrinsics.cx
    y_px = intrinsics.fy * verts_cam[:, 1] / depth + intrinsics.cy
    return np.stack(((width / 2 - x_px) / half, (height / 2 - y_px) / half, verts_cam[:, 2]), axis=-1)
