"""``metrical-tracker``: what that tracker writes, as INSTA's scripts and FlashAvatar read it, a folder per person.

Names, keys and shapes are those of ``save_checkpoint`` in metrical-tracker's ``tracker.py``::

    checkpoint/%05d.frame   torch.save of numpy arrays, float32 where not said otherwise:
        flame   exp (1,100) shape (1,300) tex (1,140) sh (1,9,3) eyes (1,12) eyelids (1,2) jaw (1,6)
        camera  R (1,6) t (1,3) fl (1,1) pp (1,2), PyTorch3D's, in its normalised device coordinates
        opencv  R (1,3,3) t (1,3) K (1,3,3)
        img_size [h, w] int64, frame_id '%05d', global_step int
    input/%05d.png          the picture, 512 x 512
    mesh/%05d.ply           vertices before the camera, metres
    depth/%05d.png          uint16, millimetres along the camera's axis, 0 where there is no head
    canonical.obj           the neutral head with its jaw 12 degrees open

and beside it the pictures that FlashAvatar's ``scene/__init__.py`` reads, counted from 1: the folder is both its
``dataset/NAME`` and its ``metrical-tracker/output/NAME``::

    imgs/%05d.jpg, alpha/%05d.jpg, parsing/%05d_neckhead.png, parsing/%05d_mouth.png

The head is fixed and the camera moves; the pictures are squares around the head, seen by a camera that is turned
towards it, so that the principal point is in the middle for readers (FlashAvatar) that take it to be there. Rotations
of six numbers are the first two rows of the matrix; ``eyes`` holds the subject's left eye first, as FLAME's joints do.
PyTorch3D's camera has +x to the left and +y up and is applied to rows, ``x_cam = x R + t``; a focal length of 1 is half
of the picture's side.

There is no neck joint: what the neck turns, the camera takes over. Texture, light and eyelids are not estimated: zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from flame.camera import Intrinsics, project, transform
from flame.model import HeadModel
from flame.rasterizer import rasterize
from tracker.export.avatar_frames import (
    HeadPicture,
    PictureWriter,
    View,
    as_bytes,
    head_boxes,
    head_pictures,
    obj_text,
    square_view,
)
from tracker.export.face_parts import MOUTH_PARTS, part_notes, part_of_triangles, parts_seen
from tracker.export.flame_pose import FlameMotion, flame_motion, rotation_6d
from tracker.export.gaussian_avatars import NUM_VERTICES
from tracker.export.job import ExportJob, Written

SIZE_PX = 512
"""Side of the pictures, on which FlashAvatar insists."""
FLASH_AVATAR_TEST = 500
"""Frames at the end that FlashAvatar does not train on."""
CANONICAL_JAW_RAD = math.radians(12)

_NUM_TEXTURE = 140
_PYTORCH3D_FROM_OPENCV = np.diag((-1.0, -1.0, 1.0))
_DEPTH_SCALE = 1000.0
_SEEN_NECK_RAD = 1e-3
"""Neck rotations below this are rounding."""


def write(job: ExportJob) -> Written:
    """Write the tracker's output for every person.

    Raises:
        UserError: the clip or the matting cannot be used, or the head has too many coefficients.
        OSError: a file cannot be written.
    """
    heads = {person: SteadyHead.of(job, person) for person in job.people}
    folders = {person: job.person_folder(person) for person in heads}
    for person, folder in folders.items():
        for name in ("checkpoint", "input", "mesh", "depth", "imgs", "alpha", "parsing"):
            (folder / name).mkdir(parents=True)
        heads[person].write_canonical(folder / "canonical.obj")
    counts = dict.fromkeys(heads, 0)
    parts = part_of_triangles(job.track.head_model)
    views = {person: head.view for person, head in heads.items()}
    with PictureWriter() as pictures:
        for picture in head_pictures(job, views, "metrical-tracker"):
            folder, head = folders[picture.person], heads[picture.person]
            _add(folder, head, picture, pictures)
            _add_for_flash_avatar(folder, head, picture, pictures, parts)
            counts[picture.person] += 1
    model = job.track.head_model
    notes = (*head_notes(job, heads, counts), *_code_notes(job, heads), *part_notes(model))
    few = min(counts.values())
    if few <= FLASH_AVATAR_TEST:
        notes = (*notes, f"FlashAvatar keeps the last {FLASH_AVATAR_TEST} frames for tests; there are only {few}")
    return Written(tuple(folders[person] for person, count in counts.items() if count), notes)


@dataclass(frozen=True, eq=False)
class SteadyHead:
    """Hold a person's head as formats with a fixed head and a moving camera see it."""

    model: HeadModel
    """The head model."""
    view: View
    """The square around the head."""
    motion: FlameMotion
    """What FLAME is told."""
    view_from_steady: np.ndarray
    """Rigid transforms from the head, its neck held straight, to the view's camera space, (N, 4, 4), metres."""

    @staticmethod
    def of(job: ExportJob, person: int) -> SteadyHead:
        """Prepare a person's view and cameras.

        Raises:
            InputError: the head has too many coefficients.
        """
        motion = flame_motion(job.track, person)
        view = square_view(job.track.intrinsics, head_boxes(job, person), SIZE_PX)
        transforms = motion.cam_from_steady.copy()
        transforms[:, :3] = view.view_from_cam @ transforms[:, :3]
        return SteadyHead(job.track.head_model, view, motion, transforms)

    def row(self, position: int) -> int:
        """Return which frame of the motion is at a position of the track."""
        return int(np.searchsorted(self.motion.positions, position))

    def vertices(self, picture: HeadPicture) -> np.ndarray:
        """Return the vertices before the camera, float64 (V, 3): seen by the frame's camera they are the track's."""
        return transform(np.linalg.inv(self.view_from_steady[self.row(picture.position)]), picture.verts_view)

    def vertices_of_codes(self, row: int) -> np.ndarray:
        """Return the vertices that FLAME makes of the codes, float64 (V, 3), head space: the neck is straight."""
        motion = self.motion
        parts = {
            "expression": motion.expression[row, : self.model.num_expression],
            "jaw": motion.jaw[row],
            "left_eye": motion.eyes[row, :3],
            "right_eye": motion.eyes[row, 3:],
            "shape": motion.shape[: self.model.num_shape],
        }
        with torch.no_grad():
            return (
                self.model.vertices(**{name: torch.from_numpy(part) for name, part in parts.items()}).double().numpy()
            )

    def write_canonical(self, path: Path) -> None:
        """Write the neutral head with its jaw somewhat open."""
        shape = torch.from_numpy(self.motion.shape[: self.model.num_shape])
        with torch.no_grad():
            verts = self.model.vertices(shape=shape, jaw=torch.tensor((CANONICAL_JAW_RAD, 0, 0))).double().numpy()
        path.write_text(obj_text(verts, self.model.faces.cpu().numpy()))

    def depth_mm(self, picture: HeadPicture) -> np.ndarray:
        """Return the depth of the mesh in the view, uint16 (h, w), millimetres; 0 where it is not."""
        found = rasterize(picture.verts_view, self.model.faces.cpu().numpy(), self.view.intrinsics)
        depth = np.where(found.mask, found.depth, 0) * _DEPTH_SCALE
        return np.clip(np.round(depth), 0, np.iinfo(np.uint16).max).astype(np.uint16)

    def code_error(self, job: ExportJob, person: int) -> tuple[float, float]:
        """Return by how much the codes' vertices miss the track's where the neck turns most: metres, pixels."""
        row = int(np.abs(self.motion.neck).sum(axis=1).argmax())
        position = int(self.motion.positions[row])
        exact = job.track.vertices(position, person).astype(np.float64) @ self.view.view_from_cam.T
        coded = transform(self.view_from_steady[row], self.vertices_of_codes(row))
        # Only what the neck carries can follow the camera.
        is_carried = self.model.skin_weights.cpu().numpy()[:, 0] < 1e-6
        apart_px = project(coded, self.view.intrinsics) - project(exact, self.view.intrinsics)
        apart_m = np.linalg.norm(coded - exact, axis=1)
        return float(apart_m[is_carried].max()), float(np.linalg.norm(apart_px[is_carried], axis=1).max())


def frame_file(head: SteadyHead, row: int, number: int) -> dict[str, Any]:
    """Return the content of a ``.frame`` file."""
    motion, lens = head.motion, head.view.intrinsics
    turn, shift = head.view_from_steady[row, :3, :3], head.view_from_steady[row, :3, 3]
    eyes = Rotation.from_rotvec(motion.eyes[row].reshape(2, 3)).as_matrix()
    jaw = Rotation.from_rotvec(motion.jaw[row]).as_matrix()
    return {
        "flame": {
            "exp": _row(motion.expression[row]),
            "shape": _row(motion.shape),
            "tex": _row(np.zeros(_NUM_TEXTURE)),
            "sh": _row(np.zeros((9, 3))),
            "eyes": _row(rotation_6d(eyes).reshape(-1)),
            "eyelids": _row(np.zeros(2)),
            "jaw": _row(rotation_6d(jaw)),
        },
        "camera": _pytorch3d(turn, shift, lens),
        "opencv": {"R": _row(turn), "t": _row(shift), "K": _row(lens.matrix)},
        "img_size": np.array((lens.height, lens.width), np.int64),
        "frame_id": f"{number:05d}",
        "global_step": number,
    }


def _pytorch3d(turn: np.ndarray, shift: np.ndarray, lens: Intrinsics) -> dict[str, np.ndarray]:
    """Return an OpenCV camera as PyTorch3D's ``PerspectiveCameras`` in normalised device coordinates."""
    half = min(lens.width, lens.height) / 2
    from_right = (_PYTORCH3D_FROM_OPENCV @ turn).T
    return {
        "R": _row(rotation_6d(from_right)),
        "t": _row(_PYTORCH3D_FROM_OPENCV @ shift),
        "fl": _row(np.array((lens.fx / half,))),
        "pp": _row(np.array(((lens.width / 2 - lens.cx) / half, (lens.height / 2 - lens.cy) / half))),
    }


def _add(folder: Path, head: SteadyHead, picture: HeadPicture, pictures: PictureWriter) -> None:
    """Write a frame."""
    name = f"{picture.number:05d}"
    pictures.add(folder / "input" / f"{name}.png", picture.image)
    pictures.add(folder / "depth" / f"{name}.png", head.depth_mm(picture))
    (folder / "mesh" / f"{name}.ply").write_bytes(ply_bytes(head.vertices(picture), head.model.faces.cpu().numpy()))
    torch.save(frame_file(head, head.row(picture.position), picture.number), folder / "checkpoint" / f"{name}.frame")


def _add_for_flash_avatar(
    folder: Path, head: SteadyHead, picture: HeadPicture, pictures: PictureWriter, parts: np.ndarray
) -> None:
    """Write a frame's pictures for FlashAvatar."""
    name = f"{picture.number + 1:05d}"
    alpha = as_bytes(picture.alpha)
    seen = parts_seen(picture, head.view, head.model.faces.cpu().numpy(), parts)
    pictures.add(folder / "imgs" / f"{name}.jpg", picture.image)
    pictures.add(folder / "alpha" / f"{name}.jpg", alpha)
    pictures.add(folder / "parsing" / f"{name}_neckhead.png", np.where(alpha > 0, 255, 0).astype(np.uint8))
    pictures.add(
        folder / "parsing" / f"{name}_mouth.png", np.where(np.isin(seen, MOUTH_PARTS), 255, 0).astype(np.uint8)
    )


def ply_bytes(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    """Return a mesh, vertices (V, 3) and triangles (F, 3), as a binary PLY file with vertices in their order."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, faces
    return header.encode() + vertices.astype("<f4").tobytes() + rows.tobytes()


def head_notes(job: ExportJob, heads: dict[int, SteadyHead], counts: dict[int, int]) -> tuple[str, ...]:
    """Say what was left out, and who can read this head."""
    notes = []
    for person, count in counts.items():
        who = f"person {person}: " if job.track.num_people > 1 else ""
        if count < len(job.track):
            notes.append(f"{who}{len(job.track) - count} of {len(job.track)} frames without this person are left out")
    zooms = [f"{zoom:.2f}" for zoom in sorted(head.view.zoom for head in heads.values())]
    scale = zooms[0] if zooms[0] == zooms[-1] else f"{zooms[0]} to {zooms[-1]}"
    notes.append(f"pictures are {SIZE_PX} px squares around the head, at {scale} times the clip's scale")
    vertices = job.track.head_model.num_vertices
    if vertices != NUM_VERTICES:
        notes.append(
            f"INSTA and FlashAvatar know FLAME's {NUM_VERTICES} vertices, this head has {vertices}: "
            "export with --convert-to and your FLAME file for them"
        )
    return tuple(notes)


def _code_notes(job: ExportJob, heads: dict[int, SteadyHead]) -> tuple[str, ...]:
    """Say what the codes cannot."""
    notes = []
    for person, head in heads.items():
        if np.abs(head.motion.neck).max() < _SEEN_NECK_RAD:
            continue
        who = f"person {person}: " if job.track.num_people > 1 else ""
        metres, pixels = head.code_error(job, person)
        notes.append(
            f"{who}the format has no neck joint, the camera turns instead; above the neck the codes miss "
            f"the tracked head by up to {1000 * metres:.2f} mm, {pixels:.2f} px (mesh/ is exact)"
        )
    return (*notes, "texture, light and eyelids are zeros: they are not estimated")


def _row(values: np.ndarray) -> np.ndarray:
    """Return float32 values with a leading dimension of 1."""
    return np.ascontiguousarray(values, np.float32)[None]
