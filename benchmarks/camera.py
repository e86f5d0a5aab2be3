"""Measure what rolled, turned and cut faces and an unknown focal length do to the pose.

    python benchmarks/camera.py [--media FOLDER]

Photographs are the sample clip's first frame, which is computed from one, and, with ``--media``, all images and the
first frames of all videos in that folder. Nobody knows their true pose: "rotation" is there the median and the largest
angle to the pose that the tracker itself finds in the picture as it is, after the known roll or crop has been undone.
Where a picture shows several people, another one of them may be found: such outcomes, and any others that lie beside
the expected head, count as "elsewhere" and not among the figures. "depth x" is the found distance over the other.
The neck's turn counts as part of the rotation. Rendered rows show painted heads of the model itself, whose true pose
and camera are known; they say little about identities or real skin.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from configs import load_preset
from flame.camera import Intrinsics
from flame.errors import UserError
from flame.rotation_kernels import rotation_matrix
from flame.shading import Lighting
from priors.evidence import FaceRegion
from priors.landmark_embedding import look_at_face
from priors.painted_head import PALETTES, PaintedHead
from tracker import api
from tracker.clip import Toolkit, load_toolkit
from tracker.frames import open_source
from tracker.result import Track

SAMPLE = Path(__file__).resolve().parents[1] / "examples" / "sample.mp4"
FOV_DEGREES = 45.0
ROLLS = (30, -30, 60, -60, 90, -90, 120, -120, 180)
YAWS = (0, 30, 45, 55, 65, 75, 90)
ZOOMS = (1.0, 1.3, 1.5)
"""Width of the face over that of the picture."""
TRUE_FOVS = (35, 45, 60)
RENDERED_PX = 480
ELSEWHERE_M = 0.15
"""Distance, seen from the camera, from the expected head beyond which something else was found."""


class Rows:
    """Gather outcomes of one row and print them."""

    def __init__(self, label: str, kind: str) -> None:
        """Begin a row of ``photo`` or ``rendered`` pictures."""
        self._label, self._kind = label, kind
        self._status: Counter[str] = Counter()
        self._degrees: list[float] = []
        self._depths: list[float] = []

    def add(self, track: Track, true_pose: np.ndarray) -> None:
        """Compare the first face of a track with its pose, float64 (4, 4) or (3, 4)."""
        if not track.is_tracked[0, 0]:
            self._status[track[0].faces[0].status.label] += 1
            return
        found = track.cam_from_head(0)
        beside = found[:2, 3] / found[2, 3] - true_pose[:2, 3] / true_pose[2, 3]
        if np.linalg.norm(beside) * true_pose[2, 3] > ELSEWHERE_M:
            self._status["elsewhere"] += 1
            return
        self._status[track[0].faces[0].status.label] += 1
        cosine = (np.trace(true_pose[:3, :3].T @ face_rotation(track)) - 1) / 2
        self._degrees.append(math.degrees(math.acos(min(1.0, max(-1.0, cosine)))))
        self._depths.append(float(found[2, 3] / true_pose[2, 3]))

    def print(self) -> None:
        """Print the row."""
        counts = ", ".join(f"{count} {label}" for label, count in sorted(self._status.items()))
        figures = ""
        if self._degrees:
            figures = f"{np.median(self._degrees):7.2f} {max(self._degrees):7.2f} {np.median(self._depths):9.3f}"
        sys.stdout.write(f"{self._label:24s} {self._kind:9s} {figures:26s} {counts}\n")
        sys.stdout.flush()


def real_pictures(folder: Path | None) -> Iterator[np.ndarray]:
    """Yield the first frame of the sample and of everything in a folder."""
    paths = [SAMPLE, *sorted(path for path in folder.rglob("*") if path.is_file())] if folder else [SAMPLE]
    for path in paths:
        try:
            with open_source(path) as source:
                yield next(iter(source)).image
        except (UserError, StopIteration):
            continue


def face_rotation(track: Track) -> np.ndarray:
    """Return where the first face looks, float64 (3, 3); turned shoulders and a turned neck may look alike."""
    return track.cam_from_head(0)[:3, :3] @ rotation_matrix(track.neck[0, 0].astype(np.float64))


def face_pose(track: Track) -> np.ndarray:
    """Return the first face's pose, float64 (4, 4), its rotation with the neck's."""
    pose = np.array(track.cam_from_head(0))
    pose[:3, :3] = face_rotation(track)
    return pose


def track_image(toolkit: Toolkit, image: np.ndarray, **camera: Any) -> Track:
    """Track one picture, uint8 (height, width, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))
        return api.track(path, toolkit=toolkit, **camera)


def rolled(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn a picture clockwise about its middle, on a canvas that holds all of it."""
    height, width = image.shape[:2]
    side = math.ceil(math.hypot(height, width))
    turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), -degrees, 1.0)
    turn[:, 2] += ((side - width) / 2, (side - height) / 2)
    return cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_CUBIC)


def about_z(degrees: float) -> np.ndarray:
    """Return a turn in the image plane, float64 (4, 4)."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.eye(4)
    turn[:2, :2] = ((cosine, -sine), (sine, cosine))
    return turn


def measure_real(toolkit: Toolkit, folder: Path | None) -> None:
    """Print rows of rolled and of cut pictures."""
    known = []
    for image in real_pictures(folder):
        focal_px = Intrinsics.from_fov(FOV_DEGREES, image.shape[1], image.shape[0]).fx
        upright = track_image(toolkit, image, focal_px=focal_px)
        if upright.is_tracked[0, 0]:
            known.append((image, focal_px, face_pose(upright)))
    for degrees in ROLLS:
        row = Rows(f"roll {degrees} degrees", "photo")
        for image, focal_px, pose in known:
            row.add(track_image(toolkit, rolled(image, degrees), focal_px=focal_px), about_z(degrees) @ pose)
        row.print()
    for zoom in ZOOMS:
        row = Rows(f"face {zoom:g} x picture", "photo")
        for image, focal_px, pose in known:
            seen = toolkit.prior.search(image)
            if seen:
                row.add(cropped_track(toolkit, image, seen[0].region, zoom, focal_px), pose)
        row.print()


def cropped_track(toolkit: Toolkit, image: np.ndarray, region: FaceRegion, zoom: float, focal_px: float) -> Track:
    """Cut the face out, so that it is ``zoom`` times as large as the picture, and track it with the true camera."""
    half = region.size_px / 3 / zoom
    height, width = image.shape[:2]
    left, top = (max(0, round(center - half)) for center in region.center_px)
    right, bottom = (
        min(most, round(center + half)) for center, most in zip(region.center_px, (width, height), strict=True)
    )
    center = (width / 2 - left, height / 2 - top)
    return track_image(toolkit, image[top:bottom, left:right], focal_px=focal_px, principal_point_px=center)


def measure_rendered(toolkit: Toolkit) -> None:
    """Print rows of heads that are turned away, and of unknown focal lengths."""
    painted = PaintedHead(toolkit.head)
    for yaw in YAWS:
        row = Rows(f"yaw {yaw} degrees", "rendered")
        for image, pose in rendered(painted, yaw, 1.0, 30.0):
            row.add(track_image(toolkit, image, fov_degrees=30.0), pose)
        row.print()
    for fov in TRUE_FOVS:
        row = Rows(f"field of view {fov}, unknown", "rendered")
        found = []
        for image, pose in rendered(painted, 0.0, 0.35, fov):
            track = track_image(toolkit, image)
            row.add(track, pose)
            found.append(track.intrinsics.fov_degrees)
        row.print()
        sys.stdout.write(f"    estimated {', '.join(f'{value:.1f}' for value in found)} degrees, one picture each\n")


def rendered(
    painted: PaintedHead, yaw: float, distance_m: float, fov: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pictures of the mean head in three paints, with the true pose."""
    camera = Intrinsics.from_fov(fov, RENDERED_PX, RENDERED_PX)
    verts_cam = look_at_face(painted.template, painted, yaw, 0.0, distance_m)
    middle_head, middle_cam = painted.template.mean(axis=0), verts_cam.mean(axis=0)
    u, _, vt = np.linalg.svd((verts_cam - middle_cam).T @ (painted.template - middle_head))
    pose = np.eye(4)
    pose[:3, :3] = u @ vt
    pose[:3, 3] = middle_cam - pose[:3, :3] @ middle_head
    for palette in PALETTES[:3]:
        yield painted.render(verts_cam, camera, palette=palette, lighting=Lighting())[0], pose


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure rolled, turned and cut faces and unknown cameras.")
    parser.add_argument("--media", type=Path, help="folder of images and videos to use beside the sample")
    options = parser.parse_args()
    toolkit = load_toolkit("commons", "mediapipe", load_preset("default"))
    sys.stdout.write(f"{'what':24s} {'pictures':9s} {'rotation':>7s} {'most':>7s} {'depth x':>9s}  status\n")
    measure_real(toolkit, options.media)
    measure_rendered(toolkit)


if __name__ == "__main__":
    main()
