"""Take the colours of all texels of a head out of one frame after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from flame.camera import Intrinsics
from flame.errors import AssetMissingError
from flame.rasterizer import NEAR_METRES, cpu
from flame.render import visible_box
from flame.shading import vertex_normals
from tracker.texture import kernels
from tracker.texture.texels import Part, TexelTable

_MARGIN_PX = 8
_MAX_PX_PER_TEXEL = 1.3
"""A frame with more pixels to a texel is made smaller first, so that nothing is skipped between texels."""
_OUTLINE_PERCENT = 7.0
"""Width of the strip along outlines that is trusted less, in percent of the eye distance."""
_BORDER_PERCENT = 3.5
"""The same for borders of parts: lids and lips."""
_PERSON = (0.7, 0.95)
"""Probabilities of a person in the picture from which pixels are trusted in part, and wholly."""
_STRIP_PX = 9
"""Width of the square that the network's outline is drawn in by, of its 256 pixels; a head is 160 high."""


@dataclass(frozen=True, eq=False)
class FrameMeshes:
    """The heads of everybody in one frame."""

    verts_cam: tuple[np.ndarray | None, ...]
    """Vertices in camera space, metres, (V, 3) for each person; None for those not tracked."""
    faces: np.ndarray
    """Triangles, int32 (F, 3)."""


@dataclass(eq=False)
class SampleStore:
    """Collect what up to K frames show of one person."""

    table: TexelTable
    max_frames: int
    count: int = 0
    samples: np.ndarray = field(init=False)
    """sRGB and root of the weight, uint8 (N, K, 4)."""
    scores: list[float] = field(default_factory=list)
    """How much details of each frame are to be preferred."""
    normals_cam: list[np.ndarray] = field(default_factory=list)
    """Normals of the vertices in each frame, float32 (V, 3)."""

    def __post_init__(self) -> None:
        """Reserve the memory, which does not depend on the clip's length."""
        self.samples = np.zeros((len(self.table), self.max_frames, 4), np.uint8)

    def add(
        self,
        image: np.ndarray,
        meshes: FrameMeshes,
        person: int,
        intrinsics: Intrinsics,
        quality: float,
        score: float,
        foreground: Foreground,
    ) -> None:
        """Sample one frame, RGB uint8 (H, W, 3); a head outside the image adds nothing.

        ``quality`` in [0, 1] is the weight of the frame, ``score`` how much its details are to be preferred.
        """
        verts_cam = meshes.verts_cam[person]
        box = None if verts_cam is None else visible_box(verts_cam, intrinsics)
        if verts_cam is None or box is None or self.count == self.max_frames:
            return
        view = _view(image, box, intrinsics, self._px_per_texel(verts_cam, meshes.faces, intrinsics))
        triangle, inverse_depth, first = _visibility(meshes, person, view.intrinsics)
        trust, trust_inner = _trust(triangle, inverse_depth, self.table.triangle_part, first, view, verts_cam)
        height, width = view.image.shape[:2]
        is_person = foreground(image, box)[view.rows, view.columns]
        trust *= cv2.resize(is_person, (width, height), interpolation=cv2.INTER_AREA)
        normals_cam = vertex_normals(verts_cam, meshes.faces)
        camera = (view.intrinsics.fx, view.intrinsics.fy, view.intrinsics.cx, view.intrinsics.cy)
        kernels.collect(
            np.ascontiguousarray(verts_cam, np.float64),
            normals_cam,
            self.table.vertices,
            self.table.weights,
            self.table.part,
            int(Part.HIDDEN),
            self.table.triangle_part,
            camera,
            view.image,
            triangle,
            inverse_depth,
            first,
            trust,
            trust_inner,
            float(quality),
            self.samples[:, self.count],
        )
        self.normals_cam.append(normals_cam.astype(np.float32))
        self.scores.append(score)
        self.count += 1

    def _px_per_texel(self, verts_cam: np.ndarray, faces: np.ndarray, intrinsics: Intrinsics) -> float:
        """Return how many pixels, in length, a texel of the skin that faces the camera has in the image (median)."""
        corners_px = cpu.project_corners(np.ascontiguousarray(verts_cam, np.float64), intrinsics)[faces][..., :2]
        u, v = corners_px[:, 1] - corners_px[:, 0], corners_px[:, 2] - corners_px[:, 0]
        area_px = -(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / 2
        covers = (area_px > 0) & (self.table.texel_area > 0) & (self.table.triangle_part == Part.SKIN)
        if not covers.any():
            return 1.0
        density = area_px[covers] / self.table.texel_area[covers]
        order = np.argsort(density)
        passed = np.cumsum(area_px[covers][order])
        return math.sqrt(density[order][np.searchsorted(passed, 0.5 * passed[-1])])


class Foreground:
    """Tell pixels of people from the background, where the network for that is installed."""

    def __init__(self) -> None:
        """Load the network; without it every pixel is trusted."""
        from priors.foreground import ForegroundSegmenter

        try:
            self._segment: ForegroundSegmenter | None = ForegroundSegmenter()
        except AssetMissingError:
            self._segment = None

    def __call__(self, image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
        """Return the trust, float32 (H, W) in [0, 1], in pixels of a box (left, top, right, bottom); 1 outside."""
        trust = np.ones(image.shape[:2], np.float32)
        if self._segment is None:
            return trust
        left, top, right, bottom = box
        side = max(1.6 * max(right - left, bottom - top), 16.0)
        # The network knows heads with shoulders: the square reaches further down than up.
        corner = np.array(((left + right - side) / 2, (top + bottom) / 2 - 0.42 * side))
        scale = 256 / side
        square_from_image = np.array(((scale, 0, -scale * corner[0]), (0, scale, -scale * corner[1])))
        flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        square = cv2.warpAffine(image, square_from_image, (256, 256), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        share = self._segment(square)
        low, high = _PERSON
        certain = np.clip((share - low) / (high - low), 0, 1).astype(np.float32)
        # The network's outline is not exact to the pixel: a strip inside it is not trusted either.
        certain = cv2.blur(cv2.erode(certain, np.ones((_STRIP_PX, _STRIP_PX), np.uint8)), (3, 3))
        if certain.mean() < 0.05:
            # Nobody found at all: the network fails on this picture, and the other tests have to do.
            return trust
        size = (right - left, bottom - top)
        inner_from_square = np.array(((1 / scale, 0, corner[0] - left), (0, 1 / scale, corner[1] - top)))
        trust[top:bottom, left:right] = cv2.warpAffine(certain, inner_from_square, size, flags=cv2.INTER_LINEAR)
        return trust


@dataclass(frozen=True, eq=False)
class _View:
    """The part of a frame that shows a head, made smaller where it has more pixels than the texture texels."""

    image: np.ndarray
    intrinsics: Intrinsics
    rows: slice
    columns: slice


def _view(image: np.ndarray, box: tuple[int, int, int, int], intrinsics: Intrinsics, px_per_texel: float) -> _View:
    """Cut a box out of a frame."""
    height, width = image.shape[:2]
    left, top = max(box[0] - _MARGIN_PX, 0), max(box[1] - _MARGIN_PX, 0)
    right, bottom = min(box[2] + _MARGIN_PX, width), min(box[3] + _MARGIN_PX, height)
    part = image[top:bottom, left:right]
    camera = intrinsics.crop(left, top, right - left, bottom - top)
    if px_per_texel <= _MAX_PX_PER_TEXEL:
        return _View(np.ascontiguousarray(part), camera, slice(top, bottom), slice(left, right))
    factor = _MAX_PX_PER_TEXEL / px_per_texel
    size = (max(round(part.shape[1] * factor), 4), max(round(part.shape[0] * factor), 4))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    across, down = size[0] / part.shape[1], size[1] / part.shape[0]
    camera = replace(
        camera,
        fx=camera.fx * across,
        fy=camera.fy * down,
        cx=camera.cx * across,
        cy=camera.cy * down,
        width=size[0],
        height=size[1],
    )
    return _View(small, camera, slice(top, bottom), slice(left, right))


def _visibility(meshes: FrameMeshes, person: int, intrinsics: Intrinsics) -> tuple[np.ndarray, np.ndarray, int]:
    """Return triangle and inverse depth of each pixel, of all heads together, and the first triangle of a person's."""
    corners, faces, first, num_verts = [], [], 0, 0
    for index, verts_cam in enumerate(meshes.verts_cam):
        if verts_cam is None:
            continue
        if index == person:
            first = sum(len(one) for one in faces)
        corners.append(cpu.project_corners(np.ascontiguousarray(verts_cam, np.float64), intrinsics))
        faces.append(meshes.faces + num_verts)
        num_verts += len(verts_cam)
    triangle, inverse_depth, _ = cpu.visibility(
        np.concatenate(corners),
        np.concatenate(faces).astype(np.int32),
        intrinsics.height,
        intrinsics.width,
        True,
        NEAR_METRES,
    )
    return triangle, inverse_depth, first


def _trust(
    triangle: np.ndarray,
    inverse_depth: np.ndarray,
    triangle_part: np.ndarray,
    first: int,
    view: _View,
    verts_cam: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far pixels can be trusted by their distance from outlines, and from borders of parts, float32."""
    outer, inner = np.ones(triangle.shape, np.uint8), np.ones(triangle.shape, np.uint8)
    kernels.outlines(triangle, inverse_depth, triangle_part, first, outer, inner)
    # Heads are about 6.3 cm from eye to eye.
    strip_px = 0.01 * _OUTLINE_PERCENT * 0.063 * view.intrinsics.fx / float(np.median(verts_cam[:, 2]))
    outer_px = cv2.distanceTransform(outer, cv2.DIST_L2, 3)
    inner_px = cv2.distanceTransform(inner, cv2.DIST_L2, 3)
    trust = np.clip((outer_px - 1.0 - 0.5 * strip_px) / (0.5 + strip_px), 0, 1)
    border_px = strip_px * _BORDER_PERCENT / _OUTLINE_PERCENT
    return trust.astype(np.float32), np.clip((inner_px - 0.5) / (0.5 + border_px), 0, 1).astype(np.float32)
