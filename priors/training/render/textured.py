"""Draw any mesh that is registered to a head's topology, such as a scan, with its own texture, and label it."""

from __future__ import annotations

import cv2
import numpy as np

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.rasterizer import Backend, Fragments, check_backend, interpolate, rasterize
from flame.shading import screen_occlusion, vertex_normals
from priors.training.labels import LabelMaps
from priors.training.render.color import linear_from_srgb
from priors.training.render.exposure import SampleBuffer, develop
from priors.training.render.labelling import LabelledMesh
from priors.training.render.light import Light
from priors.training.render.sample_kernels import (
    ROW_COLOR,
    ROW_GLOSS,
    ROW_LIT,
    ROW_NORMAL,
    ROW_OPEN,
    ROW_POINT,
    ROW_SHARE,
    ROW_SHARP,
    ROW_SOFT,
)

_SAMPLES = 2
_GLOSS, _SHARPNESS = 0.3, 20.0


def render_mesh(
    verts_cam: np.ndarray,
    mesh: LabelledMesh,
    texture: np.ndarray,
    intrinsics: Intrinsics,
    light: Light,
    *,
    gain: float = 1.0,
    background: np.ndarray | None = None,
    labels_px: int | None = None,
    backend: Backend = "cpu",
) -> tuple[np.ndarray, LabelMaps]:
    """Draw a mesh with its own texture, and its labels.

    Args:
        verts_cam: vertices in camera space, (V, 3), metres.
        mesh: its triangles, texture coordinates, kinds and template.
        texture: reflectance, sRGB uint8 (h, w, 3), first row at the top (v = 1).
        intrinsics: the camera of a square picture.
        light: the light; `flat_light` shows the texture as it is.
        gain: exposure, times the light.
        background: sRGB float32 (S, S, 3); black by default.
        labels_px: side of the label maps; the picture's by default.
        backend: rasteriser.

    Returns:
        The picture, sRGB float32 (S, S, 3), and its labels.

    Raises:
        InputError: an array or the picture has the wrong shape, or the back end cannot be used.
    """
    size = intrinsics.width
    labels_px = size if labels_px is None else labels_px
    _check(texture, intrinsics, background)
    check_backend(backend)
    normals = vertex_normals(verts_cam, mesh.faces)
    buffer = SampleBuffer(size, _SAMPLES)
    count = _sample(verts_cam, normals, mesh, texture, intrinsics.scale(_SAMPLES), buffer, backend)
    backdrop = np.zeros((size, size, 3), np.float32) if background is None else background
    image = develop(buffer.lit(count, light), backdrop, gain)
    return image, mesh.labels(verts_cam, normals, intrinsics.scale(labels_px / size), backend)


def flat_light() -> Light:
    """Return light that comes from everywhere alike and shows a surface's own colours."""
    sh = np.zeros((9, 3), np.float32)
    sh[0] = 1
    none = np.zeros((0, 3), np.float32)
    shadow = np.zeros((1, 1), np.float32), np.zeros((3, 4), np.float32)
    return Light(sh, none, none, 0.0, *shadow, 0.0, 1.0, 0.0, 0.0)


def _check(texture: np.ndarray, intrinsics: Intrinsics, background: np.ndarray | None) -> None:
    size = (intrinsics.height, intrinsics.width)
    if size[0] != size[1]:
        raise InputError(f"the picture is {size[1]} x {size[0]}; training pictures are square")
    if texture.ndim != 3 or texture.shape[2] != 3 or texture.dtype != np.uint8:
        raise InputError(f"the texture has shape {texture.shape} and type {texture.dtype}; uint8 (h, w, 3) is needed")
    if background is not None and background.shape != (*size, 3):
        raise InputError(f"the background has shape {background.shape}; {(*size, 3)} is needed")


def _sample(
    verts_cam: np.ndarray,
    normals: np.ndarray,
    mesh: LabelledMesh,
    texture: np.ndarray,
    fine: Intrinsics,
    buffer: SampleBuffer,
    backend: Backend,
) -> int:
    """Fill the buffer with all samples of the textured triangles; return their number."""
    fragments = rasterize(verts_cam, mesh.faces, fine, cull_backfaces=True, backend=backend)
    seen = fragments.mask & (fragments.triangle < len(mesh.uv_faces))
    inverse = np.where(fragments.mask, 1 / fragments.depth, 0).astype(np.float32)
    openness = screen_occlusion(np.asarray(verts_cam, np.float64), normals, inverse, fine)
    surface = interpolate(fragments, mesh.faces, np.column_stack((normals, verts_cam, openness)))[seen].T
    inner = np.minimum(fragments.triangle, len(mesh.uv_faces) - 1)
    uv = interpolate(Fragments(inner, fragments.barycentric, fragments.depth), mesh.uv_faces, mesh.uv)
    height, width = texture.shape[:2]
    # Texture coordinates run between the texture's edges, the library's between the centres of its outer texels.
    columns, lines = uv[..., 0] * width - np.float32(0.5), (1 - uv[..., 1]) * height - np.float32(0.5)
    color = cv2.remap(texture, columns, lines, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[seen]
    count, rows = len(color), buffer.rows
    rows[ROW_COLOR : ROW_COLOR + 3, :count] = linear_from_srgb(color.T / np.float32(255))
    rows[ROW_NORMAL : ROW_NORMAL + 3, :count] = surface[:3] / np.linalg.norm(surface[:3], axis=0)
    rows[ROW_POINT : ROW_POINT + 3, :count] = surface[3:6]
    rows[ROW_OPEN, :count] = surface[6]
    constants = ((ROW_GLOSS, _GLOSS), (ROW_SHARP, _SHARPNESS), (ROW_SOFT, 1), (ROW_LIT, 1), (ROW_SHARE, _SAMPLES**-2))
    for row, value in constants:
        rows[row, :count] = value
    pixel = np.arange(buffer.image_px**2, dtype=np.int32).reshape(buffer.image_px, -1)
    buffer.pixel[:count] = np.kron(pixel, np.ones((_SAMPLES, _SAMPLES), np.int32))[seen]
    return count
