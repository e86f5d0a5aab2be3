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

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from flame.camera import Intrinsics
from tracker.export.avatar_frames import HeadPicture, PictureWriter, as_bytes, head_pictures
from tracker.export.face_parts import MOUTH_PARTS, part_notes, part_of_triangles, parts_seen
from tracker.export.flame_pose import NUM_VERTICES, other_version_note, rotation_6d
from tracker.export.job import ExportJob, Written
from tracker.export.mesh_files import ply_bytes
from tracker.export.steady_head import SteadyHead, head_notes

FLASH_AVATAR_TEST = 500
"""Frames at the end that FlashAvatar does not train on."""

_NUM_TEXTURE = 140
_PYTORCH3D_FROM_OPENCV = np.diag((-1.0, -1.0, 1.0))
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
    if job.track.head_model.num_vertices == NUM_VERTICES:
        notes.append(other_version_note(job.track, "FlashAvatar", "generic_model.pkl of FLAME 2020"))
    return (*notes, "texture, light and eyelids are zeros: they are not estimated")


def _row(values: np.ndarray) -> np.ndarray:
    """Return float32 values with a leading dimension of 1."""
    return np.ascontiguousarray(values, np.float32)[None]
