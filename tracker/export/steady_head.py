"""A head that is held still while the camera moves, as metrical-tracker and INSTA see it: cameras, meshes, depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flame.camera import project, transform
from flame.model import HeadModel
from flame.rasterizer import rasterize
from tracker.export.avatar_frames import HeadPicture, View, head_boxes, square_view
from tracker.export.flame_pose import NUM_VERTICES, FlameMotion, cam_from_steady, flame_motion
from tracker.export.job import ExportJob
from tracker.export.mesh_files import obj_text

SIZE_PX = 512
"""Side of the pictures, on which FlashAvatar insists."""
CANONICAL_JAW_RAD = math.radians(12)
"""How far the jaw of the canonical head is open."""

_DEPTH_SCALE = 1000.0


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
        transforms = cam_from_steady(job.track, person, motion.positions)
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
