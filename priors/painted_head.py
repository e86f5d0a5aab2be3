"""Simple pictures of a head model that a face detector takes for a face: skin, lips, brows, eyes, hair.

They serve to learn where on a head model a detector puts its landmarks, and how far it errs when the truth is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.rasterizer import Fragments, interpolate, rasterize
from flame.shading import Lighting, shade, vertex_normals

IRIS_RADIUS_M = 0.0059
"""Visible iris radius of adults, nearly the same for everyone."""
_PUPIL_RADIUS_M = 0.0020
_LEFT_EYE, _RIGHT_EYE = 3, 4
_BROW_HEIGHT, _BROW_ARCH = 0.34, 0.055
_BROW_INNER, _BROW_OUTER, _BROW_HALF_WIDTH = -0.25, 0.36, 0.052
"""The brow's middle line and extent relative to the eyeball's centre, in units of the distance between the eyes."""


@dataclass(frozen=True)
class Palette:
    """Colours of a painted head, sRGB in [0, 1]."""

    skin: tuple[float, float, float] = (0.80, 0.61, 0.51)
    lips: tuple[float, float, float] = (0.66, 0.38, 0.36)
    hair: tuple[float, float, float] = (0.20, 0.14, 0.11)
    iris: tuple[float, float, float] = (0.30, 0.20, 0.13)
    background: tuple[float, float, float] = (0.55, 0.58, 0.62)


PALETTES = (
    Palette(),
    Palette((0.56, 0.38, 0.29), (0.46, 0.24, 0.23), (0.07, 0.06, 0.06), (0.14, 0.09, 0.06), (0.75, 0.74, 0.72)),
    Palette((0.90, 0.74, 0.66), (0.78, 0.46, 0.45), (0.42, 0.30, 0.18), (0.32, 0.42, 0.48), (0.30, 0.34, 0.40)),
)
"""A few people to average over."""


class PaintedHead:
    """Hold what the paint needs to know about a head model; `render` makes pictures of it."""

    def __init__(self, head: HeadModel) -> None:
        """Find eyes, lips, brows and hair on the head."""
        self.template = head.template.detach().cpu().numpy().astype(np.float64)
        self.faces = head.faces.detach().cpu().numpy().astype(np.int32)
        weights = head.skin_weights.detach().cpu().numpy()
        joints = (head.joint_regressor @ head.template).detach().cpu().numpy().astype(np.float64)
        self.eye_centers = joints[[_LEFT_EYE, _RIGHT_EYE]]
        self.is_eyeball = weights[:, _LEFT_EYE] + weights[:, _RIGHT_EYE] > 0.5
        regions = head.topology.regions if head.topology is not None else {}
        absent = np.zeros(len(self.template), dtype=bool)
        self.is_mouth_inside = regions.get("inner_mouth", absent) & ~regions.get("lips", absent)
        scalp = regions.get("scalp", absent) & (self.template[:, 1] > self.eye_centers[:, 1].mean() + 0.05)
        masks = (regions.get("lips", absent), self.is_mouth_inside, self.is_eyeball, scalp)
        self._attributes = np.column_stack((self.template, *masks)).astype(np.float32)

    def render(
        self, verts_cam: np.ndarray, intrinsics: Intrinsics, *, palette: Palette, lighting: Lighting
    ) -> tuple[np.ndarray, Fragments, np.ndarray]:
        """Draw the head.

        Args:
            verts_cam: vertices in camera space, (V, 3), metres.
            intrinsics: the camera.
            palette: colours.
            lighting: lamps.

        Returns:
            The picture, uint8 (height, width, 3); what each pixel sees; and the place on the template that it sees,
            float64 (height, width, 3), metres in head space.
        """
        fragments = rasterize(verts_cam, self.faces, intrinsics)
        attributes = interpolate(fragments, self.faces, self._attributes)
        shaded = np.column_stack((vertex_normals(verts_cam, self.faces), verts_cam))
        surface = interpolate(fragments, self.faces, shaded)
        seen = fragments.mask
        image = np.empty((*seen.shape, 3), dtype=np.float32)
        image[:] = palette.background
        color = self._paint(attributes[seen], palette)
        normals = surface[seen][:, :3].astype(np.float64)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        points = surface[seen][:, 3:].astype(np.float64)
        image[seen] = shade(normals, color, points_cam=points, lighting=lighting)
        return (image * 255 + 0.5).astype(np.uint8), fragments, attributes[..., :3].astype(np.float64)

    def _paint(self, attributes: np.ndarray, palette: Palette) -> np.ndarray:
        """Choose the material of each seen point from its attributes (n, 7); returns sRGB (n, 3)."""
        place = attributes[:, :3]
        lips, mouth, eyeball, scalp = attributes[:, 3:].T
        color = np.tile(np.array(palette.skin, dtype=np.float32), (len(place), 1))
        _mix(color, palette.lips, np.clip(lips * 2 - 0.5, 0, 1))
        for center in self.eye_centers:
            _mix(color, palette.hair, np.minimum(self._brow(place, center), 0.85))
        _mix(color, palette.hair, np.clip(scalp * 2 - 0.5, 0, 1))
        _mix(color, (0.16, 0.06, 0.05), mouth > 0.5)
        on_eye = eyeball > 0.5
        color[on_eye] = self._eye(place[on_eye], palette)
        return color

    def _eye(self, place: np.ndarray, palette: Palette) -> np.ndarray:
        """Return the colours of points (n, 3) on the template's eyeballs: white, iris, pupil round the gaze axis."""
        offsets = [np.linalg.norm(place[:, :2] - center[:2], axis=1) for center in self.eye_centers.astype(np.float32)]
        from_axis = np.minimum(*offsets)
        color = np.tile(np.array((0.90, 0.88, 0.86), dtype=np.float32), (len(place), 1))
        _mix(color, palette.iris, np.clip((IRIS_RADIUS_M - from_axis) / 4e-4 + 0.5, 0, 1))
        _mix(color, (0.02, 0.02, 0.02), np.clip((_PUPIL_RADIUS_M - from_axis) / 4e-4 + 0.5, 0, 1))
        return color

    def _brow(self, place: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Return how strongly one eyebrow covers template points (n, 3)."""
        unit = np.linalg.norm(self.eye_centers[0] - self.eye_centers[1])
        outward = (place[:, 0] - center[0]) * np.sign(center[0]) / unit
        height = (place[:, 1] - center[1]) / unit
        along = (outward - _BROW_INNER) / (_BROW_OUTER - _BROW_INNER)
        middle = _BROW_HEIGHT + _BROW_ARCH * (1 - ((along - 0.62) / 0.62) ** 2)
        half_width = _BROW_HALF_WIDTH * np.clip(1.15 - 0.75 * along, 0.3, 1.0)
        across = np.clip((half_width - np.abs(height - middle)) / 0.02 + 0.5, 0, 1)
        ends = np.clip(along / 0.1, 0, 1) * np.clip((1 - along) / 0.1, 0, 1)
        return across * ends * (place[:, 2] > center[2])


def _mix(color: np.ndarray, other: tuple[float, float, float], share: np.ndarray) -> None:
    """Move colours (n, 3) towards another one by a share (n,), in place."""
    touched = np.flatnonzero(share)
    color[touched] += share[touched, None] * (np.array(other, dtype=np.float32) - color[touched])
