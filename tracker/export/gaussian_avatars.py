"""``gaussian-avatars``: the data set that VHAP writes and GaussianAvatars trains on, a folder per person.

Names, keys and shapes are those of VHAP's ``export_as_nerf_dataset.py`` with its mode ``param`` and of the readers in
GaussianAvatars (``scene/dataset_readers.py``, ``scene/flame_gaussian_model.py``)::

    transforms.json, transforms_{train,val,test}.json, transforms_backup.json, transforms_backup_flame.json
    images/%05d_00.png       the head over white
    fg_masks/%05d_00.png     its opacity
    flame_param/%05d.npz     translation (1,3) rotation (1,3) neck_pose (1,3) jaw_pose (1,3) eyes_pose (1,6)
                             shape (300,) expr (1,100) static_offset (1,V,3)
    canonical_flame_param.npz

What the readers assume and do not say: of the camera only ``camera_angle_x`` and the size count, so the principal
point is in the middle and pixels are square (pictures are padded for that); timesteps count from 0 without holes, and
timestep 0 is a training frame; arrays are float32. ``transform_matrix`` is camera to world with OpenGL's axes. As in
VHAP, FLAME moves in front of one fixed camera, with the mean of its translations at the origin; 70 % of the timesteps
are for training and the rest for tests, and one camera leaves nothing for validation.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flame.camera import OPENGL_AXES
from flame.saving import save_flame_pkl
from tracker.export.avatar_frames import (
    HeadPicture,
    PictureWriter,
    View,
    as_bytes,
    head_pictures,
    over_white,
    padded_view,
)
from tracker.export.flame_pose import NUM_VERTICES, FlameMotion, flame_motion, other_version_note, root_pose
from tracker.export.job import ExportJob, Written

_TRAIN_SHARE = 0.7
_WORLD_FROM_VIEW = np.diag(OPENGL_AXES)
"""OpenCV's camera axes in the world, which has OpenGL's."""
_CANONICAL_JAW = (0.3, 0.0, 0.0)
"""The jaw of the canonical head, open."""


def write(job: ExportJob) -> Written:
    """Write the data set of every person.

    Raises:
        UserError: the clip or the matting cannot be used, or the head has too many coefficients.
        OSError: a file cannot be written.
    """
    view = padded_view(job.track.intrinsics)
    sets = {person: _DataSet.start(job, person, view) for person in job.people}
    with PictureWriter() as pictures:
        for picture in head_pictures(job, dict.fromkeys(sets, view), "gaussian-avatars"):
            sets[picture.person].add(picture, pictures)
    written = {person: each for person, each in sets.items() if each.frames}
    for each in written.values():
        each.finish()
    if job.track.head == "commons":
        # For programs that take any head in FLAME's format.
        save_flame_pkl(job.track.head_model, job.folder / "commons_head.pkl")
    return Written(tuple(each.folder for each in written.values()), _notes(job, view, sets))


@dataclass(frozen=True, eq=False)
class _DataSet:
    """Collect the data set of one person."""

    folder: Path
    view: View
    motion: FlameMotion
    rotation: np.ndarray
    """FLAME's rotations (N, 3), world space."""
    translation: np.ndarray
    """FLAME's translations (N, 3), their mean at the origin."""
    camera: np.ndarray
    """Camera to world, OpenGL's axes (4, 4)."""
    frame_index: np.ndarray
    """Number of each of the track's frames in the clip (T,)."""
    static_offset: np.ndarray
    frames: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def start(job: ExportJob, person: int, view: View) -> _DataSet:
        """Prepare a person's folder."""
        track, folder = job.track, job.person_folder(person)
        for name in ("images", "fg_masks", "flame_param"):
            (folder / name).mkdir(parents=True)
        motion = flame_motion(track, person)
        world_from_head = motion.cam_from_head.copy()
        world_from_head[:, :3] = _WORLD_FROM_VIEW @ view.view_from_cam @ world_from_head[:, :3]
        rotation, translation = root_pose(world_from_head, motion.joints[:, 0])
        mean = translation.mean(axis=0)
        camera = np.eye(4)
        camera[:3, 3] = -mean
        offset = np.zeros((1, track.head_model.num_vertices, 3), np.float32)
        return _DataSet(folder, view, motion, rotation, translation - mean, camera, track.frame_index, offset)

    def add(self, picture: HeadPicture, pictures: PictureWriter) -> None:
        """Add a frame."""
        name = f"{picture.number:05d}"
        row = int(np.searchsorted(self.motion.positions, picture.position))
        entry = {
            "timestep_index": picture.number,
            "timestep_index_original": int(self.frame_index[picture.position]),
            "timestep_id": f"{int(self.frame_index[picture.position]):05d}",
            "camera_index": 0,
            "camera_id": "0",
            **self._lens(),
            "transform_matrix": self.camera.tolist(),
            "file_path": f"images/{name}_00.png",
            "fg_mask_path": f"fg_masks/{name}_00.png",
            "flame_param_path": f"flame_param/{name}.npz",
        }
        pictures.add(self.folder / entry["file_path"], over_white(picture.image, picture.alpha))
        pictures.add(self.folder / entry["fg_mask_path"], as_bytes(picture.alpha))
        motion = self.motion
        self._save(
            entry["flame_param_path"],
            translation=self.translation[row : row + 1],
            rotation=self.rotation[row : row + 1],
            neck_pose=motion.neck[row : row + 1],
            jaw_pose=motion.jaw[row : row + 1],
            eyes_pose=motion.eyes[row : row + 1],
            expr=motion.expression[row : row + 1],
        )
        self.frames.append(entry)

    def finish(self) -> None:
        """Write what is known at the end: the canonical head, and which frames there are."""
        zero = np.zeros((1, 3))
        still = {"translation": zero, "rotation": zero, "neck_pose": zero, "jaw_pose": np.array((_CANONICAL_JAW,))}
        self._save(
            "canonical_flame_param.npz",
            **still,
            eyes_pose=np.zeros((1, 6)),
            expr=np.zeros_like(self.motion.expression[:1]),
        )
        count = len(self.frames)
        train = math.ceil(_TRAIN_SHARE * count)
        everything = range(count)
        self._describe("", self.frames, everything, (0,))
        self._describe("_backup_flame", self.frames, everything, (0,))
        plain = [{key: value for key, value in each.items() if key != "flame_param_path"} for each in self.frames]
        self._describe("_backup", plain, everything, (0,))
        self._describe("_train", self.frames[:train], everything[:train], (0,))
        self._describe("_val", [], everything[:train], ())
        self._describe("_test", self.frames[train:], everything[train:], (0,))

    def _lens(self) -> dict[str, Any]:
        """Return the camera's numbers."""
        lens = self.view.intrinsics
        return {
            "cx": lens.cx,
            "cy": lens.cy,
            "fl_x": lens.fx,
            "fl_y": lens.fy,
            "h": lens.height,
            "w": lens.width,
            "camera_angle_x": 2 * math.atan(lens.width / (2 * lens.fx)),
            "camera_angle_y": 2 * math.atan(lens.height / (2 * lens.fy)),
        }

    def _save(self, path: str, **arrays: np.ndarray) -> None:
        """Write FLAME parameters, with what is the same in all frames."""
        content = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        shape = self.motion.shape.astype(np.float32)
        np.savez(self.folder / path, **content, shape=shape, static_offset=self.static_offset)

    def _describe(self, part: str, frames: list[dict[str, Any]], timesteps: range, cameras: tuple[int, ...]) -> None:
        """Write a list of frames."""
        database = {
            "frames": frames,
            **self._lens(),
            "timestep_indices": list(timesteps),
            "camera_indices": list(cameras),
        }
        (self.folder / f"transforms{part}.json").write_text(json.dumps(database, indent=4))


def _notes(job: ExportJob, view: View, sets: dict[int, _DataSet]) -> tuple[str, ...]:
    """Say what the user should know."""
    notes = []
    for person, each in sets.items():
        lost = len(job.track) - len(each.frames)
        who = f"person {person}: " if job.track.num_people > 1 else ""
        if lost:
            notes.append(f"{who}{lost} of {len(job.track)} frames without this person are left out")
    if not view.is_clip:
        lens = view.intrinsics
        notes.append(
            f"pictures are padded to {lens.width} x {lens.height}, so that the principal point is in their middle and "
            "pixels are square"
        )
    count = job.track.head_model.num_vertices
    if count != NUM_VERTICES:
        beside = "; the head is beside the data as commons_head.pkl" if job.track.head == "commons" else ""
        notes.append(
            f"GaussianAvatars knows FLAME's {NUM_VERTICES} vertices, this head has {count}: "
            f"export with --convert-to and your FLAME file for it{beside}"
        )
    else:
        notes.append(other_version_note(job.track, "GaussianAvatars", "flame2023.pkl (with a jaw)"))
    notes.append("GaussianAvatars: train with --bind_to_mesh --white_background; one camera asks for --sh_degree 0")
    return tuple(notes)
