"""``insta``: the data set that INSTA trains on, a folder per person.

Names and keys are those of INSTA's ``scripts/transforms.py``, ``scripts/postprocess.py`` and its reader,
``nerf_loader.cu``::

    transforms.json, transforms_{train,test,val}.json
    images/%05d.png      RGBA, the head's opacity as alpha
    depth/%05d.png       uint16, millimetres
    seg_mask/%05d.png    RGB; red says which part, in the numbers of INSTA's face parsing
    meshes/%05d.obj      vertices before the camera, metres
    flame/exp/%05d.txt   the 100 expression coefficients, one a line
    canonical.obj

``transform_matrix`` is the inverse of OpenCV's world-to-camera matrix: no axis is flipped. The last frames are for
tests (350 of them, or 35 % of a short clip) and the last 20 for validation. Cameras, pictures and meshes are those of
``metrical-tracker``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tracker.export.avatar_frames import HeadPicture, PictureWriter, as_bytes, head_pictures
from tracker.export.face_parts import part_notes, part_of_triangles, parts_seen
from tracker.export.flame_pose import NUM_VERTICES
from tracker.export.job import ExportJob, Written
from tracker.export.mesh_files import obj_text
from tracker.export.steady_head import SteadyHead, head_notes

TEST_FRAMES, VAL_FRAMES = 350, 20
_TEST_SHARE = 0.35


def write(job: ExportJob) -> Written:
    """Write the data set of every person.

    Raises:
        UserError: the clip or the matting cannot be used, or the head has too many coefficients.
        OSError: a file cannot be written.
    """
    heads = {person: SteadyHead.of(job, person) for person in job.people}
    parts = part_of_triangles(job.track.head_model)
    sets = {person: _DataSet.start(job.person_folder(person), head, parts) for person, head in heads.items()}
    with PictureWriter() as pictures:
        for picture in head_pictures(job, {person: head.view for person, head in heads.items()}, "insta"):
            sets[picture.person].add(picture, pictures)
    for each in sets.values():
        each.finish()
    counts = {person: len(each.frames) for person, each in sets.items()}
    notes = (*head_notes(job, heads, counts), *part_notes(job.track.head_model))
    if job.track.head_model.num_vertices == NUM_VERTICES:
        notes = (*notes, "run INSTA's scripts/simplification.py -i FOLDER once: it makes INSTA's meshes of FLAME's")
    few = min(counts.values())
    if few < 1000:
        notes = (*notes, f"INSTA advises 1000 frames or more; there are {few}")
    return Written(tuple(sets[person].folder for person, count in counts.items() if count), notes)


@dataclass(frozen=True, eq=False)
class _DataSet:
    """Collect the data set of one person."""

    folder: Path
    head: SteadyHead
    parts: np.ndarray
    """Number of the part of each triangle, uint8 (F,)."""
    frames: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def start(folder: Path, head: SteadyHead, parts: np.ndarray) -> _DataSet:
        """Prepare a person's folder."""
        for name in ("images", "depth", "seg_mask", "meshes", "flame/exp"):
            (folder / name).mkdir(parents=True)
        head.write_canonical(folder / "canonical.obj")
        return _DataSet(folder, head, parts)

    def add(self, picture: HeadPicture, pictures: PictureWriter) -> None:
        """Add a frame."""
        name, head = f"{picture.number:05d}", self.head
        row = head.row(picture.position)
        entry = {
            "transform_matrix": np.linalg.inv(head.view_from_steady[row]).tolist(),
            "file_path": f"images/{name}.png",
            "mesh_path": f"meshes/{name}.obj",
            "exp_path": f"flame/exp/{name}.txt",
            "depth_path": f"depth/{name}.png",
            "seg_mask_path": f"seg_mask/{name}.png",
        }
        alpha = as_bytes(picture.alpha)
        # What cannot be seen is black: it compresses to nothing.
        rgba = np.concatenate((picture.image * (alpha > 0)[..., None], alpha[..., None]), axis=-1)
        pictures.add(self.folder / entry["file_path"], rgba)
        pictures.add(self.folder / entry["depth_path"], head.depth_mm(picture))
        faces = head.model.faces.cpu().numpy()
        mask = np.zeros((*alpha.shape, 3), np.uint8)
        mask[..., 0] = parts_seen(picture, head.view, faces, self.parts)
        pictures.add(self.folder / entry["seg_mask_path"], mask)
        (self.folder / entry["mesh_path"]).write_text(obj_text(head.vertices(picture), faces))
        lines = "".join(f"{value:.8f}\n" for value in head.motion.expression[row])
        (self.folder / entry["exp_path"]).write_text(lines)
        self.frames.append(entry)

    def finish(self) -> None:
        """Write which frames there are."""
        test = min(TEST_FRAMES, math.floor(_TEST_SHARE * len(self.frames)))
        split = len(self.frames) - test
        for part, frames in (
            ("", self.frames),
            ("_train", self.frames[:split]),
            ("_test", self.frames[split:]),
            ("_val", self.frames[-VAL_FRAMES:]),
        ):
            content = {**self._lens(), "frames": frames}
            (self.folder / f"transforms{part}.json").write_text(json.dumps(content, indent=4, sort_keys=True))

    def _lens(self) -> dict[str, float]:
        """Return the camera's numbers; ``x_fov`` is in degrees, ``camera_angle_x`` in radians."""
        lens = self.head.view.intrinsics
        angle_x = 2 * math.atan(lens.width / (2 * lens.fx))
        angle_y = 2 * math.atan(lens.height / (2 * lens.fy))
        return {
            **{"w": float(lens.width), "h": float(lens.height), "cx": lens.cx, "cy": lens.cy},
            **{"fl_x": lens.fx, "fl_y": lens.fy, "camera_angle_x": angle_x, "camera_angle_y": angle_y},
            **{"x_fov": math.degrees(angle_x), "y_fov": math.degrees(angle_y), "integer_depth_scale": 1 / 1000},
        }
