"""Clips of a head with a known texture, drawn by the tests' own renderer: turning, lit from a side, partly covered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.rasterizer import interpolate, rasterize
from flame.shading import vertex_normals
from tracker.frames import Frame
from tracker.result import Track
from tracker.status import FrameStatus
from tracker.texture.srgb import linear_from_srgb, srgb_from_linear

BACKGROUND = (0, 200, 0)
OCCLUDER = (10, 20, 230)


def painted_texture(size_px: int = 512) -> np.ndarray:
    """Return linear albedo (S, S, 3), first row at v = 1: skin with smooth changes, dark spots and a bright bar."""
    rng = np.random.default_rng(3)
    row, column = (np.indices((size_px, size_px)) + 0.5) / size_px
    skin = np.array((0.42, 0.26, 0.19))
    smooth = cv2.GaussianBlur(rng.normal(size=(size_px, size_px, 3)).astype(np.float32), (0, 0), size_px / 24)
    albedo = skin * (1 + 0.05 * smooth / smooth.std())
    for _ in range(300):
        x, y = rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.52)
        near = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 0.005**2))
        albedo *= 1 - 0.55 * near[..., None]
    return np.clip(albedo, 0.01, 0.9)


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip of people who turn their heads."""

    head: HeadModel
    albedo: tuple[np.ndarray, ...]
    """Linear albedo of each person (S, S, 3)."""
    yaw_degrees: np.ndarray
    """Turn of the heads in each frame (T,)."""
    offsets: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.55),)
    """Where each person is, camera space, metres."""
    size_px: int = 256
    ambient: float = 0.45
    lamp: tuple[float, float, float] = (0.75, 0.55, 0.45)
    """Light of a lamp at the left, per channel."""
    gains: np.ndarray | None = None
    """Exposure of each frame (T,)."""
    lost: tuple[int, ...] = ()
    """Frames that the track says are lost; they show nothing but noise."""
    covered: tuple[int, ...] = ()
    """Frames with a blue bar over the face."""
    drawn: list[int] = field(default_factory=list)
    """Positions of frames that were asked for."""

    @property
    def intrinsics(self) -> Intrinsics:
        """Return the camera."""
        return Intrinsics.from_fov(30.0, self.size_px, self.size_px)

    def track(self) -> Track:
        """Return the exact track."""
        count, people = len(self.yaw_degrees), len(self.offsets)
        shape = (people, count)
        rotation = np.zeros((*shape, 3))
        for frame, yaw in enumerate(self.yaw_degrees):
            # Camera space is head space turned by half a circle about x; the turn of the head comes first.
            flip = np.diag((1.0, -1.0, -1.0))
            turn = cv2.Rodrigues(np.array((0.0, np.radians(yaw), 0.0)))[0]
            rotation[:, frame] = cv2.Rodrigues(flip @ turn)[0][:, 0]
        status = np.full(shape, FrameStatus.OK, np.int8)
        status[:, list(self.lost)] = FrameStatus.LOST
        zeros = np.zeros((*shape, 3), np.float32)
        translation = np.repeat(np.array(self.offsets, np.float64)[:, None], count, axis=1)
        for array in (rotation, translation):
            array[:, list(self.lost)] = np.nan
        return Track(
            identity=np.zeros((people, self.head.num_shape), np.float32),
            expression=np.zeros((*shape, self.head.num_expression), np.float32),
            neck=zeros,
            jaw=zeros,
            left_eye=zeros,
            right_eye=zeros,
            rotation=rotation,
            translation=translation,
            status=status,
            residual_px=np.full(shape, 0.5, np.float32),
            interocular_px=np.full(shape, 60.0, np.float32),
            presence=np.ones(shape, np.float32),
            frame_index=np.arange(count),
            pts_seconds=np.arange(count) / 25.0,
            intrinsics=self.intrinsics,
            head=self.head.source if self.head.name != "commons" else "commons",
            head_hash=self.head.content_hash,
        )

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """Yield position and picture of every frame."""
        track = self.track()
        vars(track)["head_model"] = self.head
        for position in range(len(self.yaw_degrees)):
            self.drawn.append(position)
            yield position, Frame(position, position / 25.0, self._draw(track, position))

    def _draw(self, track: Track, position: int) -> np.ndarray:
        size = self.size_px
        if position in self.lost:
            return np.random.default_rng(position).integers(0, 255, (size, size, 3)).astype(np.uint8)
        depth = np.full((size, size), np.inf, np.float32)
        picture = np.broadcast_to(linear_from_srgb(np.array(BACKGROUND) / 255), (*depth.shape, 3)).copy()
        for person, albedo in enumerate(self.albedo):
            color, its_depth = self._shaded(track.vertices(position, person), albedo)
            is_nearer = its_depth < depth
            picture[is_nearer], depth[is_nearer] = color[is_nearer], its_depth[is_nearer]
        gain = 1.0 if self.gains is None else self.gains[position]
        image = np.rint(255 * srgb_from_linear(gain * picture)).astype(np.uint8)
        if position in self.covered:
            image[int(0.45 * size) : int(0.62 * size), : int(0.7 * size)] = OCCLUDER
        return image

    def _shaded(self, verts_cam: np.ndarray, albedo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return linear colour and depth."""
        topology = self.head.topology
        assert topology is not None and topology.uv is not None and topology.uv_faces is not None
        faces = self.head.faces.numpy()
        fragments = rasterize(verts_cam, faces, self.intrinsics, cull_backfaces=True)
        uv = interpolate(fragments, topology.uv_faces, topology.uv)
        normals = interpolate(fragments, faces, vertex_normals(verts_cam, faces))
        normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-9)
        lamp = np.array((-0.75, -0.35, -0.56))
        facing = np.clip((normals @ lamp + 0.3) / 1.3, 0, None)
        light = self.ambient + facing[..., None] * np.array(self.lamp)
        side = len(albedo)
        at_x = (uv[..., 0] * side - 0.5).astype(np.float32)
        at_y = ((1 - uv[..., 1]) * side - 0.5).astype(np.float32)
        color = cv2.remap(albedo.astype(np.float32), at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return color * light, fragments.depth
