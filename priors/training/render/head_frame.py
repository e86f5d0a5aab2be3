"""Where a posed head is, for whatever is put on it: hair, glasses, hats, clothes.

Things worn are shaped in *wear space*: the axes of head space, the origin midway between the eyeballs' centres, metres
of a head whose eyes are 60 mm apart. An affine map fitted to the posed vertices carries them to the camera, so that
they follow the width and length of each head as well as its pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from flame.camera import Intrinsics
from flame.landmarks import MEDIAPIPE
from flame.model import HeadModel

EYE_DISTANCE_M = 0.06
"""Distance between the eyeballs' centres in wear space."""
SKULL_CENTER = np.array((0.0, 0.02, -0.085))
"""A point inside the head, wear space, that every part of scalp, face and neck can be seen from."""
LINE_HEIGHT = (-0.20, -0.085, -0.065, -0.035, -0.005, 0.012, 0.03, 0.05, 0.066, 0.08, 0.092, 0.30)
"""Heights of wear space, rising, at which `LINE_FRONT` gives the hairline seen from the side."""
LINE_FRONT = (-0.30, -0.16, -0.125, -0.095, -0.062, -0.05, -0.036, -0.016, 0.0, 0.018, 0.05, 0.30)
"""Up to which z hair grows at those heights, wear space."""
BRIDGE_LANDMARKS = (168, 6)
"""Landmarks on the bridge of the nose."""
_LEFT_EYE, _RIGHT_EYE = 3, 4
_SHELL_ROWS, _SHELL_COLUMNS = 48, 96
_FIT_POINTS = 400
_LEAST_HEIGHT = -0.03
"""Vertices below this height in wear space move with jaw, lips and neck, and do not say where the skull is."""


@dataclass(frozen=True)
class Light:
    """A lamp far away and light from everywhere."""

    direction_cam: np.ndarray
    """Unit vector towards the lamp, camera space, (3,)."""
    direct: np.ndarray
    """Its intensity, linear RGB (3,)."""
    ambient: np.ndarray
    """Light from all around, linear RGB (3,)."""

    @property
    def packed(self) -> np.ndarray:
        """Return direction, intensity and ambient light as rows, float32 (3, 3)."""
        return np.stack((self.direction_cam, self.direct, self.ambient)).astype(np.float32)

    def on(self, normals_cam: np.ndarray) -> np.ndarray:
        """Return the factors, float32 (..., 3), by which unit normals (..., 3) scale a surface's display values."""
        facing = np.maximum(normals_cam @ np.asarray(self.direction_cam, np.float32), 0)[..., None]
        return np.sqrt(facing * np.asarray(self.direct, np.float32) + np.asarray(self.ambient, np.float32))


class HeadGuide:
    """Hold what there is to know about a head model's shape for dressing it; computed once a model."""

    def __init__(self, head: HeadModel) -> None:
        """Find eyes, skull and scalp on the head."""
        template = head.template.detach().cpu().numpy().astype(np.float64)
        joints = (head.joint_regressor @ head.template).detach().cpu().numpy().astype(np.float64)
        eyes = joints[[_LEFT_EYE, _RIGHT_EYE]]
        self.origin = eyes.mean(axis=0)
        """Midpoint of the eyes in head space, (3,), metres."""
        self.scale = EYE_DISTANCE_M / float(np.linalg.norm(eyes[0] - eyes[1]))
        """Wear space over head space."""
        self.faces = head.faces.detach().cpu().numpy().astype(np.int64)
        self.verts = (template - self.origin) * self.scale
        """The template in wear space, (V, 3)."""
        regions = head.topology.regions if head.topology is not None else {}
        inner = np.zeros(len(template), dtype=bool)
        for name in ("eyes", "inner_mouth", "tongue", "eye_sockets", "ears"):
            inner |= regions.get(name, inner)
        weights = head.skin_weights.detach().cpu().numpy()
        inner |= weights[:, [_LEFT_EYE, _RIGHT_EYE]].sum(axis=1) > 0.5
        self.outer = ~inner
        sets = head.topology.landmark_sets if head.topology is not None else {}
        self.bridge: np.ndarray | None = None
        """Where landmarks lie on the bridge of the nose, wear space, (n, 3); None where they are not known."""
        if MEDIAPIPE in sets:
            on_head = sets[MEDIAPIPE].on(template, head.faces.detach().cpu().numpy())
            self.bridge = (on_head[list(BRIDGE_LANDMARKS)] - self.origin) * self.scale
        self._fit_vertices()
        self._fit_shell()
        self._find_scalp()

    def _fit_vertices(self) -> None:
        """Choose vertices of the rigid part and prepare the least-squares fit of the affine map."""
        rigid = np.flatnonzero(self.outer & (self.verts[:, 1] > _LEAST_HEIGHT))
        self.fit_vertices = rigid[:: max(1, len(rigid) // _FIT_POINTS)]
        design = np.column_stack((self.verts[self.fit_vertices], np.ones(len(self.fit_vertices))))
        self.fit_inverse = np.linalg.pinv(design)
        rim = np.flatnonzero(self.verts[:, 1] < self.verts[self.outer, 1].min() + 0.02)
        self.neck_vertices = rim

    def _fit_shell(self) -> None:
        """Tabulate how far the head reaches from the skull's centre in every direction."""
        latitude = (np.arange(_SHELL_ROWS) + 0.5) / _SHELL_ROWS * np.pi
        longitude = (np.arange(_SHELL_COLUMNS) + 0.5) / _SHELL_COLUMNS * 2 * np.pi - np.pi
        directions = shell_directions(latitude[:, None], longitude[None, :])
        offsets = self.verts[self.outer] - SKULL_CENTER
        radii = np.linalg.norm(offsets, axis=1)
        distance, nearest = KDTree(offsets / radii[:, None]).query(directions, k=6)
        weights = 1 / (distance + 0.02) ** 2
        self.radius = ((radii[nearest] * weights).sum(axis=-1) / weights.sum(axis=-1)).astype(np.float32)
        """Distance from the skull's centre to the skin, float32 (rows by angle from up, columns by angle), metres."""

    def _find_scalp(self) -> None:
        """List the triangles that may bear hair, and their areas."""
        centers = self.verts[self.faces].mean(axis=1)
        ok = self.outer[self.faces].all(axis=1) & (hair_height(centers) > -0.03)
        self.scalp_triangles = np.flatnonzero(ok)
        a, b, c = np.moveaxis(self.verts[self.faces[ok]], 1, 0)
        cross = np.cross(b - a, c - a)
        area = np.linalg.norm(cross, axis=1)
        self.scalp_share = np.cumsum(area) / max(float(area.sum()), 1e-12)
        self.scalp_normals = cross / np.maximum(area, 1e-12)[:, None]

    def skin_radius(self, points: np.ndarray) -> np.ndarray:
        """Return how far the skin lies from the skull's centre in the direction of points (..., 3) of wear space."""
        x, y, z = np.moveaxis(points - SKULL_CENTER.astype(points.dtype), -1, 0)
        length = np.sqrt(x * x + y * y + z * z) + 1e-6
        rows = np.arccos(np.clip(y / length, -1, 1)) * (_SHELL_ROWS / np.pi)
        columns = (np.arctan2(x, z) + np.pi) * (_SHELL_COLUMNS / (2 * np.pi))
        return self.radius[
            np.minimum(rows.astype(np.int32), _SHELL_ROWS - 1), np.minimum(columns.astype(np.int32), _SHELL_COLUMNS - 1)
        ]

    def wear_from_place(self, place: np.ndarray) -> np.ndarray:
        """Return template places (..., 3), metres in head space, in wear space, float32."""
        wear = np.subtract(place, self.origin.astype(np.float32), dtype=np.float32)
        wear *= np.float32(self.scale)
        return wear


@dataclass(frozen=True)
class HeadFrame:
    """A posed head in a picture."""

    guide: HeadGuide
    """The head model's shape."""
    verts_cam: np.ndarray
    """Posed vertices in camera space, (V, 3), metres."""
    intrinsics: Intrinsics
    """The camera."""
    cam_from_wear: np.ndarray
    """Affine map (4, 3): rows for x, y, z and the constant; ``points_cam = [points, 1] @ cam_from_wear``."""

    @staticmethod
    def of(guide: HeadGuide, verts_cam: np.ndarray, intrinsics: Intrinsics) -> HeadFrame:
        """Fit the map from wear space to the rigid part of posed vertices (V, 3), metres in camera space."""
        fitted = guide.fit_inverse @ verts_cam[guide.fit_vertices]
        return HeadFrame(guide, verts_cam, intrinsics, fitted)

    def to_cam(self, points: np.ndarray) -> np.ndarray:
        """Return camera-space points (..., 3), metres, of points in wear space, float32."""
        matrix = self.cam_from_wear.astype(np.float32)
        return np.asarray(points, np.float32) @ matrix[:3] + matrix[3]

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Return pixel x, pixel y and depth in metres, float32 (..., 3), of points (..., 3) in wear space."""
        return self.cam_to_pixels(self.to_cam(points))

    def cam_to_pixels(self, points_cam: np.ndarray) -> np.ndarray:
        """Return pixel x, pixel y and depth in metres, float32 (..., 3), of camera-space points (..., 3)."""
        camera = self.intrinsics
        out = np.array(points_cam, dtype=np.float32)
        depth = np.maximum(out[..., 2], 0.05)
        out[..., 0] = out[..., 0] / depth * np.float32(camera.fx) + np.float32(camera.cx)
        out[..., 1] = out[..., 1] / depth * np.float32(camera.fy) + np.float32(camera.cy)
        return out

    @property
    def down(self) -> np.ndarray:
        """Return the camera's down direction in wear space, unit (3,)."""
        direction = np.linalg.solve(self.cam_from_wear[:3].T, np.array((0.0, 1.0, 0.0)))
        return direction / np.linalg.norm(direction)

    @property
    def px_per_metre(self) -> float:
        """Return how many pixels a metre of wear space is at the eyes."""
        size = abs(np.linalg.det(self.cam_from_wear[:3])) ** (1 / 3)
        return float(self.intrinsics.fx * size / max(self.cam_from_wear[3, 2], 0.05))


def shell_directions(from_up: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return unit vectors (..., 3) of wear space; ``from_up`` from +y, ``around`` from +z towards +x, radians."""
    sine = np.sin(from_up)
    return np.stack(np.broadcast_arrays(sine * np.sin(around), np.cos(from_up), sine * np.cos(around)), axis=-1)


def hair_height(points: np.ndarray) -> np.ndarray:
    """Return how far points (..., 3) of wear space lie behind a common hairline, metres; negative before it."""
    return np.interp(points[..., 1], LINE_HEIGHT, LINE_FRONT) - points[..., 2]
