"""Pictures of where the pipeline fails worst: photo, fitted head, and how far true points are from it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from flame.camera import Intrinsics, project, transform
from flame.surface_error import SurfaceError
from foreign_heads.photos import Photo
from tracker.overlay import draw_head, draw_label, draw_points

_PANEL_PX, _DOT_PX = 256, 2.0
_FULL_SCALE_MM = 6.0
_TURNED_AWAY = 0.1
_DIMMED = 0.35
_NUM_COLORS = 256
"""A palette of so many colours is enough for a picture of heads, and small."""


@dataclass(frozen=True)
class Case:
    """Hold one photo and what came of it."""

    photo: Photo
    verts_cam: np.ndarray
    """Fitted head as the camera of the fit sees it (V, 3), metres."""
    camera: Intrinsics
    """The camera of the fit."""
    posed: SurfaceError
    neutral: SurfaceError | None


class Worst:
    """Keep the cases with the largest posed errors."""

    def __init__(self, count: int) -> None:
        """Keep so many."""
        self._count, self._heap, self._number = count, [], 0

    def offer(self, case: Case) -> None:
        """Keep a case if it is among the worst so far."""
        self._number += 1
        heapq.heappush(self._heap, (case.posed.l1_mm, self._number, case))
        if len(self._heap) > self._count:
            heapq.heappop(self._heap)

    @property
    def cases(self) -> list[Case]:
        """Return the cases, the worst first."""
        return [case for _, _, case in sorted(self._heap, reverse=True)]


def save_cases(path: Path, cases: Sequence[Case], faces: np.ndarray) -> None:
    """Write a picture with one row a case: photo, overlay, distances of true points from the fitted surface."""
    picture = Image.fromarray(np.concatenate([_row(case, faces) for case in cases]))
    picture.quantize(_NUM_COLORS, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def _row(case: Case, faces: np.ndarray) -> np.ndarray:
    """Return the three panels of a case side by side."""
    image = case.photo.image
    overlay = draw_head(image, case.verts_cam, faces, case.camera)
    errors = _error_map(case)
    panels = [
        cv2.resize(each, (_PANEL_PX, _PANEL_PX), interpolation=cv2.INTER_AREA) for each in (image, overlay, errors)
    ]
    row = np.ascontiguousarray(np.concatenate(panels, axis=1))
    neutral = "" if case.neutral is None else f"neutral L1 {case.neutral.l1_mm:.1f}, "
    text = f"{neutral}posed L1 {case.posed.l1_mm:.1f} mm, {case.posed.close_percent:.0f} % within 2.5 mm"
    draw_label(row, text, (6, 6))
    return row


def _error_map(case: Case) -> np.ndarray:
    """Return the photo, dimmed, with the true points that can be seen: blue is exact, red 6 mm off or more."""
    photo = case.photo
    truth = photo.head.truth(photo.pose)
    points_cam = transform(photo.cam_from_head, truth.points)
    normals_cam = truth.normals @ photo.cam_from_head[:3, :3].T
    towards = -(normals_cam * points_cam).sum(axis=1) / np.linalg.norm(points_cam, axis=1)
    seen = towards > _TURNED_AWAY
    distance_mm = 1e3 * np.linalg.norm(case.posed.offsets, axis=1)
    levels = (255 * np.clip(distance_mm / _FULL_SCALE_MM, 0, 1)).astype(np.uint8)
    colors = cv2.applyColorMap(levels[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
    dimmed = (_DIMMED * photo.image).astype(np.uint8)
    return draw_points(dimmed, project(points_cam[seen], photo.intrinsics), colors[seen], radius_px=_DOT_PX)
