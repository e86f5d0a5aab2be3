"""Pictures of textured heads, for reports and documentation."""

from __future__ import annotations

import numpy as np

from flame.camera import Intrinsics
from flame.rasterizer import Fragments, interpolate, rasterize
from flame.shading import STUDIO, Lighting, shade, vertex_normals

_BACKGROUND = (38, 40, 44)


def render_textured(
    verts_cam: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    uv_faces: np.ndarray,
    texture: np.ndarray,
    intrinsics: Intrinsics,
    *,
    lighting: Lighting | None = None,
    image: np.ndarray | None = None,
    supersampling: int = 2,
) -> np.ndarray:
    """Render a textured mesh, uint8 RGB (H, W, 3) of the intrinsics' size.

    Args:
        verts_cam: vertices in camera space, metres, (V, 3).
        faces: triangles (F, 3), anticlockwise seen from outside.
        uv: texture coordinates (VT, 2), origin at the bottom left.
        uv_faces: rows of ``uv`` at the triangles' corners (F, 3).
        texture: sRGB uint8 (S, S, 3), the first row at v = 1, as in ``HeadTexture.rgb``.
        intrinsics: the camera.
        lighting: light on the head, such as ``flame.shading.STUDIO``; without it the texture's colours are shown.
        image: RGB uint8 (H, W, 3) to draw over; a plain dark ground without it.
        supersampling: samples of a pixel along each axis.
    """
    fine = intrinsics.scale(supersampling)
    fragments = rasterize(verts_cam, faces, fine, cull_backfaces=True)
    coordinates = interpolate(fragments, uv_faces, np.asarray(uv, np.float32))
    colors = sample_texture(texture, coordinates) / np.float32(255)
    if lighting is not None:
        colors = _lit(colors, fragments, verts_cam, faces, lighting)
    if image is None:
        image = np.full((intrinsics.height, intrinsics.width, 3), _BACKGROUND, np.uint8)
    ground = np.repeat(np.repeat(image, supersampling, axis=0), supersampling, axis=1)
    picture = np.where(fragments.mask[..., None], 255 * colors, ground)
    blocks = picture.reshape(intrinsics.height, supersampling, intrinsics.width, supersampling, 3)
    return np.rint(blocks.mean(axis=(1, 3))).clip(0, 255).astype(np.uint8)


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Look a texture (S, S, C), first row at v = 1, up at coordinates (..., 2), bilinearly; float32 (..., C)."""
    height, width = texture.shape[:2]
    x = np.clip(uv[..., 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[..., 1]) * height - 0.5, 0, height - 1)
    column, row = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    right, down = (x - column)[..., None].astype(np.float32), (y - row)[..., None].astype(np.float32)
    upper = texture[row, column] * (1 - right) + texture[row, column + 1] * right
    lower = texture[row + 1, column] * (1 - right) + texture[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down


def _lit(
    colors: np.ndarray, fragments: Fragments, verts_cam: np.ndarray, faces: np.ndarray, lighting: Lighting = STUDIO
) -> np.ndarray:
    """Return the colours (H, W, 3) under a light."""
    normals = interpolate(fragments, faces, vertex_normals(verts_cam, faces))[fragments.mask]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    points = interpolate(fragments, faces, np.asarray(verts_cam, np.float32))[fragments.mask]
    lit = np.array(colors)
    lit[fragments.mask] = shade(normals, colors[fragments.mask], points_cam=points, lighting=lighting)
    return lit
