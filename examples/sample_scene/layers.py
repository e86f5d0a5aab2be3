"""The surfaces that carry the photograph: the face, and a sheet for hair, ears and neck that follows it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flame.camera import project
from flame.rasterizer import rasterize
from flame.rotation import matrix_from_axis_angle
from flame.shading import vertex_normals
from flame.surface import SurfacePoints
from sample_scene.portrait import Portrait

_STEP_PX = 5.0
_BOX = (170.0, -10.0, 490.0, 340.0)
"""Part of the clip that the sheet covers: left, top, right, bottom, pixels."""
_BEHIND_METRES = 0.004
_NECK_FROM_PX, _NECK_TO_PX = 215.0, 292.0
"""Rows between which the neck takes the head's turn: wholly above, not at all below."""


def smoothstep(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """Return 0 below ``low``, 1 above ``high`` and a smooth ramp between them."""
    ramp = np.clip((values - low) / (high - low), 0.0, 1.0)
    return ramp * ramp * (3 - 2 * ramp)


@dataclass(frozen=True)
class Sheet:
    """Hold a grid over the photograph with depth: hair, ears and neck."""

    points_cam: np.ndarray
    """Rest positions, float64 (N, 3), metres, camera space."""
    points_px: np.ndarray
    """Where the points are in the photograph, float64 (N, 2), clip pixels."""
    faces: np.ndarray
    """Int32 (F, 3)."""
    follows: np.ndarray
    """How much of the head's turn each point takes part in, float64 (N,), 0 to 1."""
    under: SurfacePoints
    """The head's surface under those points that are on it."""
    is_on_head: np.ndarray
    """Which points are on it, bool (N,)."""
    shape: tuple[int, int]
    """Rows and columns of the grid."""

    def move(self, change_cam: np.ndarray, turn: np.ndarray, shift: np.ndarray, pivot_cam: np.ndarray) -> np.ndarray:
        """Return the points (N, 3), metres, of a turned head whose surface changed.

        Args:
            change_cam: change of the points under the sheet through expression (M, 3), metres, before the turn.
            turn: axis-angle (3,) about the pivot, radians.
            shift: (3,) metres.
            pivot_cam: (3,) metres.
        """
        change = np.zeros((len(self.points_cam), 4))
        change[self.is_on_head, :3], change[self.is_on_head, 3] = change_cam, 1.0
        spread = cv2.GaussianBlur(change.reshape(*self.shape, 4), (0, 0), 2.0).reshape(-1, 4)
        moved = self.points_cam + self.follows[:, None] * spread[:, :3] / np.maximum(spread[:, 3:], 0.25)
        turns = matrix_from_axis_angle(self.follows[:, None] * turn)
        return np.einsum("nij,nj->ni", turns, moved - pivot_cam) + pivot_cam + self.follows[:, None] * shift


def build_sheet(portrait: Portrait, verts_cam: np.ndarray, faces: np.ndarray) -> Sheet:
    """Lay a grid over the photograph at the depth of the head, continued smoothly beyond it."""
    intrinsics = portrait.track.intrinsics
    columns, rows = np.arange(_BOX[0], _BOX[2], _STEP_PX), np.arange(_BOX[1], _BOX[3], _STEP_PX)
    points_px = np.stack(np.meshgrid(columns, rows), axis=-1)
    shape = (len(rows), len(columns))
    grid = intrinsics.crop(_BOX[0] - _STEP_PX / 2, _BOX[1] - _STEP_PX / 2, 1, 1).scale(1 / _STEP_PX)
    seen = rasterize(verts_cam, faces, grid, height=shape[0], width=shape[1])
    depth = _continued(np.where(seen.mask, seen.depth, 0.0), seen.mask) + _BEHIND_METRES
    points_px = points_px.reshape(-1, 2)
    rays = (points_px - (intrinsics.cx, intrinsics.cy)) / (intrinsics.fx, intrinsics.fy)
    points_cam = np.concatenate((rays, np.ones((len(rays), 1))), axis=1) * depth.reshape(-1, 1)
    index = np.arange(len(points_px)).reshape(shape)
    corners = [part.ravel() for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])]
    quads = np.stack(corners, axis=1)
    follows = 1 - smoothstep(_NECK_FROM_PX, _NECK_TO_PX, points_px[:, 1])
    is_on_head = seen.mask.ravel()
    under = SurfacePoints(seen.triangle.ravel()[is_on_head], seen.barycentric.reshape(-1, 3)[is_on_head])
    all_faces = np.concatenate((quads[:, :3], quads[:, (0, 2, 3)])).astype(np.int32)
    return Sheet(points_cam, points_px, all_faces, follows, under, is_on_head, shape)


def _continued(depth: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """Continue depth (h, w) smoothly where it is not known, and soften its steps."""
    known = is_known.astype(np.float64)
    filled, weight = depth.astype(np.float64), known.copy()
    for sigma in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        spread = cv2.GaussianBlur(weight, (0, 0), sigma)
        mean = cv2.GaussianBlur(filled * weight, (0, 0), sigma) / np.maximum(spread, 1e-12)
        fresh = (weight == 0) & (spread > 1e-3)
        filled[fresh], weight[fresh] = mean[fresh], 1.0
    return cv2.GaussianBlur(filled, (0, 0), 1.2)


def face_opacity(portrait: Portrait, verts_cam: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return how opaque each vertex of the face is drawn, float64 (V,); it fades out where the sheet goes on."""
    topology = portrait.track.head_model.topology
    assert topology is not None
    towards_camera = facing(verts_cam, faces)
    opacity = smoothstep(0.02, 0.3, towards_camera)
    center = topology.region("lips", "eyelids", "nose", "eyes", "eye_sockets", "inner_mouth")
    inside = topology.region("face") | center
    edge = inside.astype(np.float64)
    for _ in range(3):
        edge = np.minimum(edge, _lowest_neighbour(edge, faces) + 0.34)
    opacity = opacity * edge
    near_center = center.astype(np.float64)
    for _ in range(3):
        near_center = np.maximum(near_center, 1 - _lowest_neighbour(1 - near_center, faces) - 0.34)
    return np.maximum(opacity, np.clip(near_center, 0, 1) * inside)


def _lowest_neighbour(values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the lowest value (V,) among each vertex and its neighbours."""
    lowest = values.copy()
    np.minimum.at(lowest, faces.ravel(), np.repeat(values[faces].min(axis=1), 3))
    return lowest


def facing(verts_cam: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the cosine (V,) between each vertex's normal and the direction to the camera."""
    normals = vertex_normals(verts_cam, faces)
    return -np.einsum("vc,vc->v", normals, verts_cam) / np.linalg.norm(verts_cam, axis=1)


def photo_px(portrait: Portrait, verts_cam: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return where each vertex finds its colour in the photograph, float64 (V, 2), clip pixels.

    Nostrils, which the camera does not see into, find theirs at their rim.
    """
    topology = portrait.track.head_model.topology
    assert topology is not None
    found_px = project(verts_cam, portrait.track.intrinsics) + portrait.shift_px
    hidden = topology.region("nose") & (facing(verts_cam, faces) < 0.15)
    for _ in range(60):
        total, count = np.zeros_like(found_px), np.zeros((len(found_px), 1))
        np.add.at(total, faces.ravel(), np.repeat(found_px[faces].sum(axis=1), 3, axis=0))
        np.add.at(count, faces.ravel(), 3.0)
        found_px[hidden] = (total / count)[hidden]
    return found_px
