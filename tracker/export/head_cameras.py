"""Cameras around a head that keeps still: what a moving head before a fixed camera looks like from the head.

The world of these cameras is the head at rest: head space as the skull carries it (+x the person's left, +y up, +z out
of the face, metres). What the neck turns, it turns with the skull, so its rotation belongs to the camera as the head's
pose does; jaw, eyes and expressions still move in this world, and nothing outside of the head keeps still in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flame.camera import Intrinsics, project, transform
from flame.rasterizer import rasterize
from tracker.export.avatar_frames import PictureWriter, View, head_pictures
from tracker.export.flame_pose import cam_from_steady

if TYPE_CHECKING:
    from tracker.export.job import ExportJob
    from tracker.result import Track

IMAGES = "images"
"""The folder of pictures."""

MASKS = "masks"
"""The folder of masks."""

_POINT_FRAMES = 200
"""Frames in which points are looked at, at most; spread over the clip."""

_FACING = 0.3
"""A vertex is seen where its normal's cosine to the line of sight is larger."""

_BEHIND_METRES = 2e-3
"""A vertex is seen where it lies at most so far behind the surface that is drawn at its pixel."""


def cam_from_skull(track: Track, person: int) -> np.ndarray:
    """Return the cameras of all frames, float64 (T, 4, 4), OpenCV axes, metres; NaN where the person is not tracked."""
    cameras = np.full((len(track), 4, 4), np.nan)
    tracked = np.flatnonzero(track.is_tracked[person])
    cameras[tracked] = cam_from_steady(track, person, tracked)
    return cameras


def picture_name(track: Track, frame: int) -> str:
    """Return the file name of a frame's picture: its number in the clip."""
    return f"frame_{track.frame_index[frame]:05d}.png"


@dataclass(frozen=True, eq=False)
class Sighting:
    """Hold the vertices of a head that are seen in one frame."""

    frame: int
    """Position in the track."""
    points_px: np.ndarray
    """Where they are, float64 (N, 2), pixels."""
    points: np.ndarray
    """Which they are: rows of ``HeadPoints.positions``, int64 (N,)."""


@dataclass(frozen=True, eq=False)
class HeadPoints:
    """Hold coloured points on a head, N of its vertices, and where frames of the clip see them."""

    positions: np.ndarray
    """Mean position over the frames that see each, float64 (N, 3), metres, head space."""
    colors: np.ndarray
    """Mean colour over these frames, uint8 (N, 3)."""
    errors_px: np.ndarray
    """Mean distance of the points, seen by these cameras, from where the moving face has them, float64 (N,), pixels."""
    sightings: tuple[Sighting, ...]
    """What single frames see."""


@dataclass(frozen=True, eq=False)
class HeadScene:
    """Hold one person as a scene that keeps still: N pictures, their cameras, and points on the head."""

    person: int
    """Which person."""
    folder: Path
    """The person's folder; pictures are in ``images`` in it, masks in ``masks``."""
    frames: np.ndarray
    """Positions in the track, int64 (N,)."""
    names: tuple[str, ...]
    """File names of the pictures."""
    cam_from_skull: np.ndarray
    """Cameras, float64 (N, 4, 4), OpenCV axes, metres."""
    points: HeadPoints
    """What is seen of the head."""


def write_scenes(job: ExportJob, mask_suffix: str = "") -> list[HeadScene]:
    """Write pictures and masks of the frames that each person is in, and return everybody's scene.

    Args:
        job: what to write, and where.
        mask_suffix: what the names of masks (white: the head, black: the rest) have after those of the pictures.

    Raises:
        UserError: the clip or the matting cannot be used.
    """
    track = job.track
    camera = track.intrinsics
    clip_view = View(camera, np.eye(3), np.eye(3), (camera.width, camera.height))
    collectors = {person: PointCollector(track, person) for person in job.people}
    folders = {person: job.person_folder(person) for person in job.people}
    frames: dict[int, list[int]] = {person: [] for person in job.people}
    for folder in folders.values():
        (folder / IMAGES).mkdir()
        (folder / MASKS).mkdir()
    with PictureWriter() as writer:
        for picture in head_pictures(job, dict.fromkeys(job.people, clip_view), "pictures"):
            folder, name = folders[picture.person], picture_name(track, picture.position)
            writer.add(folder / IMAGES / name, picture.image)
            writer.add(folder / MASKS / (name + mask_suffix), np.where(picture.alpha > 0.5, 255, 0).astype(np.uint8))
            collectors[picture.person].look(picture.position, picture.image, picture.alpha, picture.verts_view)
            frames[picture.person].append(picture.position)
    return [
        HeadScene(
            person=person,
            folder=folders[person],
            frames=np.array(frames[person], np.int64),
            names=tuple(picture_name(track, frame) for frame in frames[person]),
            cam_from_skull=collector.cameras[frames[person]],
            points=collector.points(),
        )
        for person, collector in collectors.items()
    ]


def scene_notes(track: Track, scenes: list[HeadScene]) -> tuple[str, ...]:
    """Return what users of such scenes should know."""
    left_out = [
        f"person {scene.person}: {len(track) - len(scene.frames)} frames without a face are left out"
        for scene in scenes
        if len(scene.frames) < len(track)
    ]
    return (*left_out, "only the head keeps still in these cameras; the masks tell it from what does not")


class PointCollector:
    """Look at the vertices of one person's head in some frames of a clip, and average what is seen."""

    def __init__(self, track: Track, person: int) -> None:
        """Choose the frames and prepare the cameras."""
        self.cameras = cam_from_skull(track, person)
        self._track = track
        tracked = np.flatnonzero(track.is_tracked[person])
        chosen = np.unique(np.linspace(0, len(tracked) - 1, min(_POINT_FRAMES, len(tracked))).round().astype(int))
        self._frames = set(tracked[chosen].tolist())
        count = track.head_model.num_vertices
        self._position_sum, self._color_sum = np.zeros((count, 3)), np.zeros((count, 3))
        self._times_seen = np.zeros(count)
        self._seen: list[tuple[int, np.ndarray, np.ndarray]] = []

    def look(self, frame: int, image: np.ndarray, alpha: np.ndarray, verts_cam: np.ndarray) -> None:
        """Take what a frame shows, RGB uint8 (H, W, 3); frames that were not chosen are passed over.

        Args:
            frame: position in the track.
            image: the picture.
            alpha: opacity of the head in it, float32 (H, W): a mesh's ear before a wall says nothing of the head.
            verts_cam: vertices (V, 3) in camera space, metres.
        """
        if frame not in self._frames:
            return
        faces = self._track.head_model.faces.numpy()
        seen = np.flatnonzero(visible_vertices(verts_cam, faces, self._track.intrinsics))
        rows, columns = project(verts_cam[seen], self._track.intrinsics).astype(int).T[::-1]
        on_head = alpha[rows, columns] > 0.5
        seen, rows, columns = seen[on_head], rows[on_head], columns[on_head]
        points_px = project(verts_cam[seen], self._track.intrinsics)
        skull_from_cam = np.linalg.inv(self.cameras[frame])
        self._position_sum[seen] += transform(skull_from_cam, verts_cam[seen])
        self._color_sum[seen] += image[rows, columns]
        self._times_seen[seen] += 1
        self._seen.append((frame, seen, points_px))

    def points(self) -> HeadPoints:
        """Return the points that some frame saw."""
        used = np.flatnonzero(self._times_seen)
        times = self._times_seen[used, None]
        positions = self._position_sum[used] / times
        row_of = np.full(len(self._times_seen), -1)
        row_of[used] = np.arange(len(used))
        error_sum = np.zeros(len(used))
        sightings = []
        for frame, seen, points_px in self._seen:
            rows = row_of[seen]
            still_px = project(transform(self.cameras[frame], positions[rows]), self._track.intrinsics)
            error_sum[rows] += np.linalg.norm(still_px - points_px, axis=1)
            sightings.append(Sighting(frame, points_px, rows))
        colors = np.clip(np.rint(self._color_sum[used] / times), 0, 255).astype(np.uint8)
        return HeadPoints(positions, colors, error_sum / times[:, 0], tuple(sightings))


def visible_vertices(verts_cam: np.ndarray, faces: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """Tell which vertices (V, 3) of a mesh in camera space a camera sees, bool (V,)."""
    corners = verts_cam[faces]
    normals = np.zeros_like(verts_cam)
    np.add.at(normals, faces, np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, None])
    lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(verts_cam, axis=1)
    cosines = -(normals * verts_cam).sum(axis=1) / np.maximum(lengths, 1e-30)
    is_visible = (cosines > _FACING) & (verts_cam[:, 2] > 0)
    candidates = np.flatnonzero(is_visible)
    points_px = np.floor(project(verts_cam[candidates], intrinsics)).astype(int)
    inside = (points_px >= 0).all(axis=1) & (points_px < (intrinsics.width, intrinsics.height)).all(axis=1)
    depth = rasterize(verts_cam, faces, intrinsics).depth
    drawn = np.full(len(candidates), np.nan)
    drawn[inside] = depth[points_px[inside, 1], points_px[inside, 0]]
    # A pixel at the outline may show the background: what lies there says nothing of the head.
    is_visible[candidates] = np.isfinite(drawn) & (verts_cam[candidates, 2] < drawn + _BEHIND_METRES)
    return is_visible
