"""COLMAP model: pictures, cameras around a head that keeps still, and points on it with the places where they are seen.

``images/`` and ``sparse/0/{cameras,images,points3D}.txt`` as COLMAP's documentation says ("Output Format", text
format): one PINHOLE camera; per picture the rotation from world to camera as a quaternion (QW QX QY QZ, Hamilton's
convention) and the translation, camera axes +x right, +y down, +z forward, then a line of the points seen; per point
position, colour, error and track. Identifiers count from 1. Pixel coordinates follow COLMAP's rule, as here: the first
pixel's centre is (0.5, 0.5) ("Database Format", keypoints). ``masks/`` follows its rule for masks: black is ignored,
``frame_00012.png`` has ``frame_00012.png.png``.

The world is the head at rest (``tracker.export.head_cameras``), +x the person's left, +y up, +z out of the face,
metres. Points are the vertices of the head that are seen, at their mean place and in their mean colour; they are looked
at in up to 200 frames spread over the clip, and the pictures of the others have an empty line of points. The error of
a point is how far the moving face carries it from where a still head would have it. Frames without the person are left
out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracker.export.head_cameras import HeadScene, scene_notes, write_scenes
from tracker.export.job import ExportJob, Written

_CAMERAS_HEAD = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
# Number of cameras: 1
"""
_IMAGES_HEAD = """# Image list with two lines of data per image:
#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME
#   POINTS2D[] as (X, Y, POINT3D_ID)
# Number of images: {count}, mean observations per image: {mean:.6g}
"""
_POINTS_HEAD = """# 3D point list with one line of data per point:
#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)
# Number of points: {count}, mean track length: {mean:.6g}
"""


def write(job: ExportJob) -> Written:
    """Write a model per person.

    Raises:
        UserError: the clip or the matting cannot be used.
    """
    scenes = write_scenes(job, mask_suffix=".png")
    camera = job.track.intrinsics
    numbers = " ".join(repr(float(value)) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    for scene in scenes:
        folder = scene.folder / "sparse" / "0"
        folder.mkdir(parents=True)
        line = f"1 PINHOLE {camera.width} {camera.height} {numbers}\n"
        (folder / "cameras.txt").write_text(_CAMERAS_HEAD + line, encoding="ascii", newline="\n")
        _write_images(folder / "images.txt", scene)
        _write_points(folder / "points3D.txt", scene)
    return Written(tuple(scene.folder for scene in scenes), scene_notes(job.track, scenes))


def quaternion_from_matrix(rotations: np.ndarray) -> np.ndarray:
    """Return unit quaternions (N, 4), w x y z with w >= 0, of rotation matrices (N, 3, 3)."""
    from scipy.spatial.transform import Rotation

    xyzw = Rotation.from_matrix(rotations).as_quat(canonical=True)
    return np.roll(xyzw, 1, axis=1)


def _write_images(path: Path, scene: HeadScene) -> None:
    """Write ``images.txt``, two lines a picture."""
    seen = {sighting.frame: sighting for sighting in scene.points.sightings}
    mean = sum(len(sighting.points) for sighting in seen.values()) / max(len(scene.frames), 1)
    quaternions = quaternion_from_matrix(scene.cam_from_skull[:, :3, :3])
    poses = np.concatenate((quaternions, scene.cam_from_skull[:, :3, 3]), axis=1)
    with path.open("w", encoding="ascii", newline="\n") as stream:
        stream.write(_IMAGES_HEAD.format(count=len(scene.frames), mean=mean))
        for number, (frame, name, pose) in enumerate(zip(scene.frames.tolist(), scene.names, poses, strict=True), 1):
            stream.write(f"{number} {' '.join(repr(float(value)) for value in pose)} 1 {name}\n")
            sighting = seen.get(frame)
            if sighting is not None:
                places = zip(sighting.points_px.tolist(), (sighting.points + 1).tolist(), strict=True)
                stream.write(" ".join(f"{x:.4f} {y:.4f} {point}" for (x, y), point in places))
            stream.write("\n")


def _write_points(path: Path, scene: HeadScene) -> None:
    """Write ``points3D.txt``, a line a point."""
    points = scene.points
    number_of = {frame: number for number, frame in enumerate(scene.frames.tolist(), 1)}
    tracks: list[list[str]] = [[] for _ in points.positions]
    for sighting in points.sightings:
        for place, point in enumerate(sighting.points.tolist()):
            tracks[point].append(f"{number_of[sighting.frame]} {place}")
    mean = sum(map(len, tracks)) / max(len(tracks), 1)
    rows = zip(points.positions.tolist(), points.colors.tolist(), points.errors_px.tolist(), tracks, strict=True)
    with path.open("w", encoding="ascii", newline="\n") as stream:
        stream.write(_POINTS_HEAD.format(count=len(tracks), mean=mean))
        for number, ((x, y, z), (red, green, blue), error, track) in enumerate(rows, 1):
            place, color = f"{x:.7f} {y:.7f} {z:.7f}", f"{red} {green} {blue}"
            stream.write(f"{number} {place} {color} {error:.4f} {' '.join(track)}\n")
