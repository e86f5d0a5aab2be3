"""Pictures of tracked frames: what priors predict is shown in the camera's axes, whatever axes they speak in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

from flame.camera import Intrinsics
from flame.rotation_kernels import rotation_matrix
from priors.evidence import DenseMaps, FaceEvidence, FacePicture, NormalSpace
from priors.face_crop import ray_from_cam
from tests.tracker.scripted_faces import evidence_of, pose
from tracker.api import Options
from tracker.camera_guess import guess_camera
from tracker.clip import Cast, Toolkit, TrackedFrame, probe
from tracker.frames import Frame, open_source
from tracker.pictures import Painter
from tracker.scout import nobody
from tracker.state import FaceState, View
from tracker.status import FrameStatus
from tracker.stream import FaceFrame

AXIS_PX = (90.0, 40.0)


@dataclass
class Scripted:
    """Draw the same maps of every face."""

    maps: DenseMaps

    def dense(self, _evidence: FaceEvidence, _height: int, _width: int) -> DenseMaps:
        return self.maps


@pytest.fixture(scope="module")
def frame(face_clip) -> Frame:
    with open_source(face_clip) as source:
        return next(iter(source))


def maps_of(frame: Frame, camera: Intrinsics, state: FaceState, space: NormalSpace) -> DenseMaps:
    """Return normals that are the same in the camera's axes, told in another space."""
    height, width = frame.image.shape[:2]
    normals = np.random.default_rng(0).normal(size=(height, width, 3)) + (0, 0, -3)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    mask = np.zeros((height, width), dtype=bool)
    mask[20:90, 30:120] = True
    neck = state.rotation @ rotation_matrix(state.joint_angles[:3])
    told = {"camera": normals, "ray": normals @ ray_from_cam(camera, AXIS_PX).T, "head": normals @ neck}[space]
    told = np.where(mask[..., None], told, np.nan)
    return DenseMaps(told[..., :2], told, mask, space, AXIS_PX if space == "ray" else None)


def test_predicted_normals_are_shown_in_the_camera_s_axes(face_clip, frame: Frame, toolkit: Toolkit):
    height, width = frame.image.shape[:2]
    camera = Intrinsics.from_fov(40.0, width, height)
    state = pose(toolkit.model.rig, (0.2, 0.4, -0.1), (0.05, 0.0, 0.8))
    state = replace(state, joint_angles=np.concatenate(((0.1, -0.2, 0.05), state.joint_angles[3:])))
    evidence = evidence_of(toolkit.model.rig, state, view=View.of(camera))
    face = FaceFrame(FrameStatus.OK, 0.0, False, state, 1.0, 60.0, 1.0, 1)
    guess = guess_camera(probe(face_clip), toolkit.model.config.regularization)
    cast = Cast((nobody(toolkit.model),), camera, guess)
    pictures = {}
    for space in ("camera", "ray", "head"):
        seeing = replace(toolkit, prior=Scripted(maps_of(frame, camera, state, space)))  # pyright: ignore
        painter = Painter.of_run(seeing, cast, Options(panels=True))
        pictures[space] = painter.paint(TrackedFrame(frame, (face,), (evidence,))).astype(int)
    assert np.abs(pictures["camera"] - pictures["ray"]).max() <= 1
    assert np.abs(pictures["camera"] - pictures["head"]).max() <= 1


def test_a_network_s_map_shows_vertices_where_landmarks_were_shown(face_clip, frame: Frame, toolkit: Toolkit):
    height, width = frame.image.shape[:2]
    camera = Intrinsics.from_fov(40.0, width, height)
    state = pose(toolkit.model.rig, (0.0, 0.1, 0.0), (0.0, 0.0, 0.8))
    evidence = evidence_of(toolkit.model.rig, state, view=View.of(camera))
    drawn = toolkit.prior.dense(evidence, height, width)
    face = FaceFrame(FrameStatus.OK, 0.0, False, state, 1.0, 60.0, 1.0, 1)
    cast = Cast((nobody(toolkit.model),), camera, guess_camera(probe(face_clip), toolkit.model.config.regularization))
    seeing = replace(toolkit, prior=Scripted(drawn))  # pyright: ignore
    painter = Painter.of_run(seeing, cast, Options(panels=True))
    looked_at = replace(evidence, picture=FacePicture(np.zeros((8, 8, 3), np.uint8)))
    landmarks, vertices = (
        painter.paint(TrackedFrame(frame, (face,), (seen,)))[:, 2 * width : 3 * width] for seen in (evidence, looked_at)
    )
    assert (landmarks != vertices).any()
    # The map is drawn from the landmarks' surface: its vertices lie on it, and nowhere else.
    bright = (vertices > 130).any(axis=-1)
    bright[:30] = False
    assert bright.sum() > 500
    near = cv2.dilate(drawn.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not (bright & ~near).any()
