"""Count what must not be seen of a head: insides turned out, eyeballs through lids, the mouth through the skin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.model import HeadModel
from flame.rasterizer import rasterize
from flame.topology import Topology

SIZE_PX = 512
FIELD_OF_VIEW_DEGREES = 20.0
DISTANCE_METRES = 0.62
VIEWS_DEGREES = ((0.0, 0.0), (35.0, 0.0), (-35.0, 0.0), (0.0, -25.0))
"""Yaw and pitch of the heads that are looked at."""
LIP_LINE_PX = 5
"""So near to the lips the inside of the mouth may be seen."""
LID_EDGE_RINGS = 2
"""Rings of triangles around the eye sockets that make the edge of the lids."""
INNER_REGIONS = ("face", "eyelids", "eyes", "eye_sockets", "inner_mouth")


@dataclass(frozen=True)
class Faults:
    """Count pixels of faults in one view of one head."""

    inside_out: int
    """Back faces in the face, which show where one surface has passed through another."""
    stray_eye: int
    """Eyeball in front of skin, the edges of the lids excepted, where it lies on."""
    stray_mouth: int
    """Inside of the mouth away from the lips."""
    eyeball: int
    """Eyeball that is seen at all; no fault, but tells how far the lids are closed."""

    @property
    def total(self) -> int:
        """Return the number of faulty pixels."""
        return self.inside_out + self.stray_eye + self.stray_mouth


def camera_from_head(vertices: np.ndarray, centre: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Turn a head (V, 3) about a point by degrees and put it before the camera (V, 3)."""
    turn = Rotation.from_euler("xy", (pitch, yaw), degrees=True).as_matrix()
    return (vertices - centre) @ turn.T * np.array([1.0, -1.0, -1.0]) + np.array([0.0, 0.0, DISTANCE_METRES])


@dataclass(frozen=True)
class _Parts:
    """Hold sets of triangles, bool (F,) each."""

    inner: np.ndarray
    mouth: np.ndarray
    lips: np.ndarray
    eyes: np.ndarray
    skin: np.ndarray


def find_faults(model: HeadModel, heads: Iterable[np.ndarray]) -> list[list[Faults]]:
    """Render each head (V, 3) in each of ``VIEWS_DEGREES`` and count its faults: a list per head, an entry per view.

    Raises:
        InputError: The model has no regions.
    """
    topology = model.topology
    if topology is None:
        raise InputError(f"head {model.name!r} has no regions; faults can be looked for in heads that have them")
    faces = topology.faces
    mouth = topology.region("inner_mouth")[faces].all(axis=1)
    parts = _Parts(
        inner=topology.region(*INNER_REGIONS)[faces].all(axis=1),
        mouth=mouth,
        lips=topology.region("lips")[faces].any(axis=1) & ~mouth,
        eyes=topology.region("eyes")[faces].all(axis=1),
        skin=_skin_beyond_lid_edges(topology),
    )
    centre = model.template.numpy()[topology.region("face")].mean(axis=0)
    return [
        [_faults_in_view(camera_from_head(vertices, centre, yaw, pitch), faces, parts) for yaw, pitch in VIEWS_DEGREES]
        for vertices in heads
    ]


def _faults_in_view(in_camera: np.ndarray, faces: np.ndarray, parts: _Parts) -> Faults:
    """Count the faults of one head (V, 3) as the camera sees it."""
    intrinsics = Intrinsics.from_fov(FIELD_OF_VIEW_DEGREES, SIZE_PX, SIZE_PX)
    triangle = rasterize(in_camera, faces, intrinsics).triangle
    corners = in_camera[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    away = parts.inner & ((normals * corners.mean(axis=1)).sum(axis=1) > 0)
    near_lips = np.asarray(binary_dilation(_seen(parts.lips, triangle), iterations=LIP_LINE_PX))
    eyeball = _seen(parts.eyes, triangle)
    without_eyes = rasterize(in_camera, np.where(parts.eyes[:, None], 0, faces), intrinsics).triangle
    return Faults(
        inside_out=int(_seen(away, triangle).sum()),
        stray_eye=int((eyeball & _seen(parts.skin & np.logical_not(away), without_eyes)).sum()),
        stray_mouth=int((_seen(parts.mouth, triangle) & np.logical_not(near_lips)).sum()),
        eyeball=int(eyeball.sum()),
    )


def _skin_beyond_lid_edges(topology: Topology) -> np.ndarray:
    """Return the triangles (F,) of face and lids, without those at the edge of the eye sockets."""
    edge: np.ndarray = topology.region("eye_sockets")
    for _ in range(LID_EDGE_RINGS):
        edge = np.isin(np.arange(len(edge)), topology.faces[edge[topology.faces].any(axis=1)])
    return (topology.region("face", "eyelids") & ~edge)[topology.faces].all(axis=1)


def _seen(triangles: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the pixels (H, W) whose triangle is in a set (F,)."""
    return (image >= 0) & triangles[image]
