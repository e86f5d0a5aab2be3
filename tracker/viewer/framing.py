"""Where to look from: through the tracked camera, and freely at the heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flame.camera import Intrinsics
from tracker.viewer.posing import cam_from_head

if TYPE_CHECKING:
    from viser import CameraHandle

    from tracker.result import Track

_FREE_FOV = math.radians(30)
_HEAD_RADIUS_METRES = 0.19
_BEHIND_METRES = 0.28
"""Distance of the picture from the rearmost head's origin: hair and neck stay before it."""
_DISTANCE = 1.3
"""Distance of the free view, where 1 lets the heads just fill the window."""
_YAW, _PITCH = math.radians(-30), math.radians(6)


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """Place a virtual camera in the world; the world's up is -y where nothing else is said."""

    position: np.ndarray
    look_at: np.ndarray
    up: np.ndarray
    fov_radians: float
    """Vertical field of view."""

    def apply(self, camera: CameraHandle) -> None:
        """Move a client's camera here."""
        with camera.client.atomic():
            camera.up_direction = self.up
            camera.position = self.position
            camera.look_at = self.look_at
            camera.fov = self.fov_radians


def through_camera(intrinsics: Intrinsics, world_from_cam: np.ndarray, aspect: float, depth: float) -> Viewpoint:
    """Return the tracked camera's place and axes, with the field of view in which all of its picture is seen.

    What is seen along each ray is the same as in the picture, whatever the field of view and the principal point.

    Args:
        intrinsics: the tracked camera.
        world_from_cam: where it stands (4, 4).
        aspect: width over height of the window.
        depth: distance of what is looked at, metres; orbiting turns about that point.
    """
    across = max(intrinsics.cx, intrinsics.width - intrinsics.cx) / intrinsics.fx
    along = max(intrinsics.cy, intrinsics.height - intrinsics.cy) / intrinsics.fy
    rotation, position = world_from_cam[:3, :3], world_from_cam[:3, 3]
    fov = 2 * math.atan(max(along, across / aspect))
    return Viewpoint(position, position + depth * rotation[:, 2], -rotation[:, 1], fov)


def free_view(centres: np.ndarray) -> Viewpoint:
    """Return a view from a little to the side in which heads at these centres (N, 3), camera space, fill the window."""
    middle = (centres.min(axis=0) + centres.max(axis=0)) / 2
    radius = _HEAD_RADIUS_METRES + float(np.linalg.norm(centres - middle, axis=1).max())
    distance = _DISTANCE * radius / math.sin(_FREE_FOV / 2)
    towards = np.array((math.sin(_YAW) * math.cos(_PITCH), -math.sin(_PITCH), -math.cos(_YAW) * math.cos(_PITCH)))
    return Viewpoint(middle + distance * towards, middle, np.array((0.0, -1.0, 0.0)), _FREE_FOV)


def head_centres(track: Track, frame: int) -> np.ndarray:
    """Return the heads' places in a frame (N, 3), camera space; one at a usual distance where nobody is tracked."""
    tracked = np.flatnonzero(track.is_tracked[:, frame])
    if not len(tracked):
        return np.array([(0.0, 0.0, 0.6)])
    # Between the eyes and the neck, in head space.
    inside = np.array((0.0, 0.01, 0.02, 1.0))
    return np.stack([(cam_from_head(track, frame, person) @ inside)[:3] for person in tracked])


def first_tracked_frame(track: Track) -> int:
    """Return the first frame in which as many people as ever are tracked; 0 where nobody is."""
    return int(track.is_tracked.sum(axis=0).argmax())


def picture_depth(track: Track) -> float:
    """Return how far before the camera the picture stands so that no head reaches it, metres."""
    depths = track.translation[..., 2][track.is_tracked]
    return float(depths.max() if len(depths) else 0.6) + _BEHIND_METRES


def world_from_cam(track: Track, frame: int, person: int | None, anchor: np.ndarray) -> np.ndarray | None:
    """Return where the camera's space stands in the world, (4, 4): as it is, or so that a head stands still.

    Args:
        track: the clip.
        frame: position in it.
        person: whose head stands still, upright, at ``anchor``; None for the camera.
        anchor: place of that head's origin (3,), world.

    Returns:
        None where that person is not tracked in the frame.
    """
    if person is None:
        return np.eye(4)
    if not track.is_tracked[person, frame]:
        return None
    # Head space has y up and z towards the viewer, the world y down and z away.
    world_from_head = np.diag((1.0, -1.0, -1.0, 1.0))
    world_from_head[:3, 3] = anchor
    return world_from_head @ np.linalg.inv(cam_from_head(track, frame, person))
