"""Photographs of foreign heads with the truth beside them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from flame.camera import Intrinsics, transform
from flame.closest_point import ClosestPoint
from flame.model import HeadModel
from flame.rasterizer import interpolate, rasterize
from flame.shading import Lighting, shade, vertex_normals
from foreign_heads.files import Mesh
from foreign_heads.heads import ForeignHead
from priors.painted_head import PALETTES, PaintedHead, Palette

IMAGE_PX = 512
_FACE_METRES = 0.24
_CAM_FROM_HEAD_AXES = np.diag((1.0, -1.0, -1.0))
_MAX_TEXTURE_GAP = 0.004


@dataclass(frozen=True)
class Photo:
    """Hold a picture and how it was taken."""

    image: np.ndarray
    """RGB, uint8 (height, width, 3)."""
    intrinsics: Intrinsics
    cam_from_head: np.ndarray
    """True pose of the head, float64 (4, 4), metres."""
    head: ForeignHead
    pose: str

    @property
    def registered_cam(self) -> np.ndarray:
        """Return the registered commons head as the camera sees it (V, 3), metres; exact for painted heads."""
        return transform(self.cam_from_head, self.head.registered)


@dataclass(frozen=True)
class Angles:
    """Say from where a head is photographed, degrees."""

    yaw: float
    pitch: float
    roll: float = 0.0


def frontal_angles(generator: np.random.Generator) -> Angles:
    """Draw the angles of a single, frontal photo."""
    return Angles(generator.uniform(-20, 20), generator.uniform(-10, 10), generator.uniform(-5, 5))


def spread_angles(generator: np.random.Generator) -> list[Angles]:
    """Return eight angles spread over 40 degrees to either side and 15 up and down."""
    yaws = np.linspace(-40, 40, 8) + generator.uniform(-4, 4, 8)
    pitches = generator.permutation(np.linspace(-15, 15, 8))
    return [
        Angles(yaw, pitch, generator.uniform(-5, 5)) for yaw, pitch in zip(yaws.clip(-40, 40), pitches, strict=True)
    ]


class Studio:
    """Take photographs of heads."""

    def __init__(self, model: HeadModel) -> None:
        """Prepare to paint the commons head."""
        self._painted = PaintedHead(model)
        self._target = self._painted.eye_centers.mean(axis=0) + (0.0, -0.03, 0.0)

    def camera(self, generator: np.random.Generator) -> Intrinsics:
        """Draw the camera of one person's photos."""
        return Intrinsics.from_fov(generator.uniform(30, 50), IMAGE_PX, IMAGE_PX)

    def photograph(
        self, head: ForeignHead, pose: str, angles: Angles, camera: Intrinsics, generator: np.random.Generator
    ) -> Photo:
        """Take one photo: random size in the image, light and, for painted heads, skin."""
        share = generator.uniform(0.45, 0.65)
        distance = camera.fx * _FACE_METRES / (share * IMAGE_PX)
        turn = Rotation.from_euler("ZYX", (angles.roll, angles.yaw, angles.pitch), degrees=True).as_matrix()
        cam_from_head = np.eye(4)
        cam_from_head[:3, :3] = _CAM_FROM_HEAD_AXES @ turn
        aim = np.array((*generator.uniform(-0.03, 0.03, 2), distance))
        cam_from_head[:3, 3] = aim - cam_from_head[:3, :3] @ self._target
        lighting = Lighting(key_direction=tuple(generator.normal((0.0, 0.4, 0.8), 0.35)))
        palette = PALETTES[generator.integers(len(PALETTES))]
        if head.has_own_colors:
            image = _draw(head, pose, cam_from_head, camera, lighting, palette)
        else:
            verts_cam = transform(cam_from_head, head.registered)
            image, fragments, _ = self._painted.render(verts_cam, camera, palette=palette, lighting=lighting)
            if head.parts[0].texture is not None:
                self._add_texture(image, fragments, head)
        return Photo(image, camera, cam_from_head, head, pose)

    def _add_texture(self, image: np.ndarray, fragments, head: ForeignHead) -> None:
        """Show a scan's own colours where it covers the registered head, in place."""
        scan = head.parts[0]
        assert scan.uv is not None and scan.texture is not None
        match = ClosestPoint(scan.vertices, scan.faces)(head.registered)
        covered = (match.distance < _MAX_TEXTURE_GAP) & ~self._painted.is_mouth_inside
        uv = match.surface.on(scan.uv, scan.faces)
        seen = interpolate(fragments, self._painted.faces, np.column_stack((uv, covered)).astype(np.float32))
        colors = _lookup(scan.texture, seen[..., :2])
        share = np.clip(4 * seen[..., 2:] - 3, 0, 1) * fragments.mask[..., None]
        image[:] = (share * colors + (1 - share) * image + 0.5).astype(np.uint8)


def _draw(
    head: ForeignHead,
    pose: str,
    cam_from_head: np.ndarray,
    camera: Intrinsics,
    lighting: Lighting,
    palette: Palette,
) -> np.ndarray:
    """Draw the parts of a head in their own colours."""
    image = np.empty((IMAGE_PX, IMAGE_PX, 3), np.float32)
    image[:] = 255 * np.asarray(palette.background)
    depth = np.full((IMAGE_PX, IMAGE_PX), np.inf)
    for part in head.parts:
        verts_cam = transform(cam_from_head, part.posed(head.poses[pose]))
        fragments = rasterize(verts_cam, part.faces.astype(np.int32), camera)
        nearer = fragments.mask & (fragments.depth < depth)
        depth[nearer] = fragments.depth[nearer]
        image[nearer] = 255 * _colors(part, verts_cam, fragments, lighting)[nearer]
    return (image + 0.5).astype(np.uint8)


def _colors(part: Mesh, verts_cam: np.ndarray, fragments, lighting: Lighting) -> np.ndarray:
    """Return the lit colours of one part (height, width, 3) in [0, 1]."""
    faces = part.faces.astype(np.int32)
    uv = part.uv if part.uv is not None else np.zeros((len(verts_cam), 2))
    values = np.column_stack((vertex_normals(verts_cam, faces), verts_cam, uv)).astype(np.float32)
    seen = interpolate(fragments, faces, values)
    normals = seen[..., :3].astype(np.float64)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    albedo = np.full(normals.shape, 0.6) if part.texture is None else _lookup(part.texture, seen[..., 6:8]) / 255.0
    points = np.where(fragments.mask[..., None], seen[..., 3:6], (0.0, 0.0, 1.0)).astype(np.float64)
    return shade(normals, albedo, points_cam=points, lighting=lighting)


def _lookup(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return the colours of texture coordinates (height, width, 2), origin bottom left."""
    height, width = texture.shape[:2]
    columns = (uv[..., 0] * width - 0.5).astype(np.float32)
    rows = ((1 - uv[..., 1]) * height - 0.5).astype(np.float32)
    return cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
