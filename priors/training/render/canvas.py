"""The picture that covers are drawn on, with the depth that decides what hides what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.rasterizer import rasterize
from flame.shading import vertex_normals
from priors.pixel_kinds import Kind
from priors.training.render.head_frame import HeadFrame, Light
from priors.training.render.strokes import draw_locks, draw_tubes, take_mesh

UNTOUCHED = 255
"""Kind of a pixel on which nothing has been drawn."""
_STRIPES = np.clip(np.random.default_rng(5).normal(1.0, 0.22, 512), 0.5, 1.6).astype(np.float32)
"""Brightness of hairs lying side by side."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """Hold a picture being covered; the arrays are changed in place."""

    image: np.ndarray
    """sRGB float32 (H, W, 3)."""
    kind: np.ndarray
    """What has been drawn, uint8 (H, W): values of ``Kind``, or UNTOUCHED."""
    depth: np.ndarray
    """Depth of the nearest thing so far, float32 (H, W), metres; infinite where there is nothing."""
    head_depth: np.ndarray
    """Depth of the head alone, float32 (H, W)."""
    place: np.ndarray
    """Wear-space place of the head's surface on the rest head, float32 (H, W, 3); NaN where there is none."""
    frame: HeadFrame
    """The posed head."""
    light: Light
    """The light."""
    landmarks_px: np.ndarray
    """The 478 landmarks, (478, 2), pixels."""
    skin: np.ndarray
    """The subject's skin, sRGB (3,), as it would look under light of unit intensity."""

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width, pixels."""
        return self.kind.shape[0], self.kind.shape[1]

    @staticmethod
    def of(
        image: np.ndarray,
        place: np.ndarray,
        depth: np.ndarray,
        landmarks_px: np.ndarray,
        frame: HeadFrame,
        light: Light,
    ) -> Canvas:
        """Start from a rendered head: picture, template places (NaN: none), depth; see `covers.add_covers`."""
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.inf).astype(np.float32)
        image = np.array(image, dtype=np.float32, order="C")
        wear = frame.guide.wear_from_place(np.asarray(place, np.float32))
        return Canvas(
            image,
            np.full(depth.shape, UNTOUCHED, np.uint8),
            depth.copy(),
            depth,
            wear,
            frame,
            light,
            np.asarray(landmarks_px, np.float32),
            _skin_color(image, wear, light),
        )

    def draw_tubes(
        self,
        starts: np.ndarray,
        ends: np.ndarray,
        radii: np.ndarray,
        colors: np.ndarray,
        *,
        nearer: float = 0.0,
        gloss: float = 0.1,
        code: int = Kind.COVER,
    ) -> None:
        """Draw shaded tubes; see `strokes.draw_tubes`. ``nearer`` of infinity puts them in front of everything."""
        count = len(starts)
        colors = np.ascontiguousarray(np.broadcast_to(np.asarray(colors, np.float32), (count, 3)))
        starts, ends, radii = (np.ascontiguousarray(array, np.float32) for array in (starts, ends, radii))
        light = self.light.packed
        draw_tubes(
            self.image, self.kind, self.depth, starts, ends, radii, colors, light, float(nearer), gloss, int(code)
        )

    def draw_locks(
        self,
        points_px: np.ndarray,
        half_px: np.ndarray,
        colors: np.ndarray,
        shade: np.ndarray,
        seeds: np.ndarray,
        *,
        nearer: float = 0.006,
    ) -> None:
        """Draw locks of hair; see `strokes.draw_locks`."""
        draw_locks(
            self.image,
            self.kind,
            self.depth,
            np.ascontiguousarray(points_px, np.float32),
            np.ascontiguousarray(half_px, np.float32),
            np.ascontiguousarray(colors, np.float32),
            np.ascontiguousarray(shade, np.float32),
            np.ascontiguousarray(seeds, np.float32),
            _STRIPES,
            float(nearer),
            int(Kind.HAIR),
            self.head_depth,
        )

    def draw_mesh(
        self,
        verts_cam: np.ndarray,
        faces: np.ndarray,
        attributes: np.ndarray,
        *,
        nearer: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Rasterise a mesh against the depth so far, without painting it; lowers the depth where it is in front.

        Args:
            verts_cam: vertices (V, 3), metres, camera space.
            faces: triangles (F, 3).
            attributes: values to interpolate (V, C).
            nearer: how far behind other things it still counts as in front, metres.

        Returns:
            Rows and columns of its pixels (n,), and per pixel attributes and light, float32 (n, C + 3); None if unseen.
        """
        fragments = rasterize(verts_cam, faces, self.frame.intrinsics)
        attributes = np.ascontiguousarray(attributes, np.float32)
        rows, columns = np.empty((2, fragments.triangle.size), np.int64)
        values = np.empty((fragments.triangle.size, attributes.shape[1] + 3), np.float32)
        count = take_mesh(
            fragments.triangle,
            fragments.barycentric,
            fragments.depth,
            self.depth,
            float(nearer),
            np.ascontiguousarray(faces, np.int32),
            attributes,
            vertex_normals(verts_cam, faces).astype(np.float32),
            self.light.packed,
            rows,
            columns,
            values,
        )
        return (rows[:count], columns[:count], values[:count]) if count else None

    def paint(
        self, rows: np.ndarray, columns: np.ndarray, colors: np.ndarray, code: int, alpha: np.ndarray | None = None
    ) -> None:
        """Set pixels (n,) to colours (n, 3), or blend by shares ``alpha`` (n,); kinds follow where most is covered."""
        if alpha is None:
            self.image[rows, columns] = np.clip(colors, 0, 1)
            self.kind[rows, columns] = code
            return
        old = self.image[rows, columns]
        self.image[rows, columns] = old + alpha[:, None].astype(np.float32) * (np.clip(colors, 0, 1) - old)
        most = alpha > 0.5
        self.kind[rows[most], columns[most]] = code


def _skin_color(image: np.ndarray, wear: np.ndarray, light: Light) -> np.ndarray:
    """Estimate the skin's colour from the middle of the face, sRGB (3,)."""
    image, wear = image[::3, ::3], wear[::3, ::3]
    # Cheeks and nose; a NaN fails every comparison.
    middle = (np.abs(wear[..., 0]) < 0.06) & (wear[..., 1] < -0.015) & (wear[..., 1] > -0.05) & (wear[..., 2] > -0.03)
    pixels = image[middle]
    if len(pixels) < 20:
        pixels = image[np.isfinite(wear[..., 0])]
    if len(pixels) == 0:
        return np.array((0.75, 0.58, 0.5))
    facing = light.on(np.array((0.0, 0.0, -1.0), np.float32))
    return np.clip(np.median(pixels, axis=0) / np.maximum(facing, 0.2), 0.02, 0.95)
