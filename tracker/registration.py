"""Registered frames: real pictures with the labels of the head that was fitted to them, for training networks.

A clip is tracked, one identity per person for all of it. Frames that are clearly seen and well fitted are
kept, at most so many per person, spread over pose and expression; around each the square is cut in which networks look
at a face, and the fitted head is drawn in its camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from flame.camera import Intrinsics, transform
from flame.errors import InputError
from flame.model import HeadModel
from flame.rotation_kernels import rotation_matrix
from priors.evidence import FaceEvidence
from priors.face_crop import FaceCrop
from priors.foreground import ForegroundSegmenter
from priors.training.labels import LabelMaps
from tracker.api import Options, Progress, track
from tracker.clip import Toolkit, probe
from tracker.registration_labels import LabelPainter
from tracker.result import Track
from tracker.state import FaceState
from tracker.status import FrameStatus


@dataclass(frozen=True)
class RegistrationConfig:
    """Say which frames are kept, and how large pictures and labels are."""

    image_px: int = 256
    """Side of the pictures, pixels."""
    labels_px: int = 128
    """Side of the label maps, pixels; the pictures' side is a multiple of it."""
    every: int = 1
    """Consider one frame in so many."""
    frames_per_person: int = 150
    """Frames kept of one person of one clip."""
    min_face_px: float = 90.0
    """Larger extent of the landmarks in the original image, pixels."""
    max_residual_percent: float = 2.5
    """Median distance of the landmarks from the fitted head, percent of the interocular distance."""
    min_presence: float = 0.9
    """Probability that a face is there."""
    min_visibility: float = 0.75
    """Visible share of the face."""
    min_sharpness: float = 0.4
    """Share of the sharpness that is usual for the person in the clip; blurred frames are left out."""

    def __post_init__(self) -> None:
        """Refuse sizes and counts that cannot be meant.

        Raises:
            InputError: a value is out of range.
        """
        if self.labels_px < 16 or self.image_px % self.labels_px:
            raise InputError(
                f"--size {self.image_px} --labels {self.labels_px}: the size has to be a multiple of the labels' side, "
                "which is at least 16"
            )
        if self.every < 1 or self.frames_per_person < 1:
            raise InputError(f"--every {self.every} --per-person {self.frames_per_person}: both have to be at least 1")


@dataclass(frozen=True, eq=False)
class RegisteredFrame:
    """Hold one picture of a face with the labels of its fitted head."""

    picture: np.ndarray
    """RGB, uint8 (S, S, 3)."""
    labels: LabelMaps
    """What its pixels show, at the size of the labels."""
    intrinsics: Intrinsics
    """Camera of the picture."""
    cam_from_head: np.ndarray
    """Root of the head in that camera, float64 (4, 4), metres."""
    cam_from_neck: np.ndarray
    """Rotation of the head including its neck, float64 (3, 3)."""
    identity: np.ndarray
    """Identity coefficients, float64 (I,)."""
    state: FaceState
    """Joint angles and expression; its pose is that in the original image's camera."""
    clip: str
    """Name of the clip's file."""
    person: int
    """Number of the person in the clip."""
    frame_index: int
    """Number of the frame in the clip."""

    def facts(self, head_hash: str, seed: int = 0) -> dict[str, Any]:
        """Return what a shard stores beside picture and labels."""
        return {
            "source": "registered",
            "seed": seed,
            "head_hash": head_hash,
            "intrinsics": asdict(self.intrinsics),
            "cam_from_head": self.cam_from_head.tolist(),
            "cam_from_neck": self.cam_from_neck.tolist(),
            "identity": self.identity.tolist(),
            "expression": self.state.expression.tolist(),
            "joint_angles": self.state.joint_angles.tolist(),
            "clip": self.clip,
            "person": self.person,
            "frame_index": self.frame_index,
        }


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Hold one face of one frame that may be kept."""

    crop: FaceCrop
    picture: np.ndarray
    state: FaceState
    is_inside: np.ndarray
    """Which pixels of the picture lie within the image, bool (S, S)."""
    frame_index: int
    sharpness: float

    @property
    def feature(self) -> np.ndarray:
        """Return pose and expression as one vector, to tell frames apart by."""
        return np.concatenate((2.0 * self.state.rotation[2], self.state.joint_angles, self.state.expression))


@dataclass
class _Collector:
    """Gather what may be kept while a clip is tracked."""

    config: RegistrationConfig
    pixel_aspect: float
    """Width of a pixel over its height: a turned crop is a camera's picture only where pixels are square."""
    people: dict[int, list[_Candidate]] = field(default_factory=dict)
    num_frames: int = 0

    def __call__(self, progress: Progress) -> None:
        """Take the faces of one tracked frame."""
        self.num_frames += 1
        frame = progress.frame
        if frame.frame.index % self.config.every:
            return
        image = frame.frame.image
        if self.pixel_aspect != 1:
            size = (round(image.shape[1] * self.pixel_aspect), image.shape[0])
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        for person, (face, evidence) in enumerate(zip(frame.faces, frame.evidence, strict=True)):
            if evidence is None or face.state is None or face.status != FrameStatus.OK:
                continue
            if 100 * face.residual_px > self.config.max_residual_percent * face.interocular_px:
                continue
            points_px = evidence.points_px * (self.pixel_aspect, 1.0)
            crop = FaceCrop.around(points_px, self.config.image_px)
            if self._is_clear(evidence, points_px, crop):
                picture, is_inside = crop.cut(image), crop.cut(np.full_like(image, 255))[..., 0] == 255
                kept = _Candidate(crop, picture, face.state, is_inside, frame.frame.index, sharpness(picture))
                self.people.setdefault(person, []).append(kept)

    def _is_clear(self, evidence: FaceEvidence, points_px: np.ndarray, crop: FaceCrop) -> bool:
        """Return whether a face with landmarks at points (478, 2), square pixels, is large enough and well seen."""
        face_px = float(np.ptp(points_px @ _upright(crop), axis=0).max())
        return (
            evidence.presence >= self.config.min_presence
            and evidence.visibility >= self.config.min_visibility
            and face_px >= self.config.min_face_px
        )

    def chosen(self) -> Iterator[tuple[int, _Candidate]]:
        """Yield the frames to keep, with the number of the person."""
        for person, candidates in sorted(self.people.items()):
            usual = float(np.median([candidate.sharpness for candidate in candidates]))
            sharp = [each for each in candidates if each.sharpness >= self.config.min_sharpness * usual]
            features = np.array([candidate.feature for candidate in sharp])
            for index in spread(features, self.config.frames_per_person):
                yield person, sharp[index]


def register_clip(
    path: str | Path, toolkit: Toolkit, painter: LabelPainter, options: Options, config: RegistrationConfig
) -> list[RegisteredFrame]:
    """Track a clip and return its registered frames, ordered by person and frame.

    Args:
        path: video, image or folder of images.
        toolkit: head and prior; the prior's landmarks have to be MediaPipe's.
        painter: what draws the labels of the same head.
        options: how to track; ``head``, ``prior`` and ``config`` have to be those of the toolkit.
        config: which frames to keep.

    Raises:
        UserError: the input cannot be tracked.
    """
    collector = _Collector(config, float(probe(path).pixel_aspect_ratio))
    tracked = track(path, on_frame=collector, toolkit=toolkit, **_fields(options))
    segmenter = ForegroundSegmenter()
    found = []
    for person, candidate in collector.chosen():
        frame = _register(candidate, tracked, person, toolkit.head, painter, segmenter, config)
        found.append(frame)
    return sorted(found, key=lambda frame: (frame.person, frame.frame_index))


def _fields(options: Options) -> dict[str, Any]:
    """Return options as keywords."""
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def _register(
    candidate: _Candidate,
    tracked: Track,
    person: int,
    head: HeadModel,
    painter: LabelPainter,
    segmenter: ForegroundSegmenter,
    config: RegistrationConfig,
) -> RegisteredFrame:
    """Draw the labels of one frame."""
    state, identity = candidate.state, tracked.identity[person].astype(np.float64)
    cam_from_head = np.eye(4)
    turn = candidate.crop.crop_cam_from_cam()
    cam_from_head[:3, :3], cam_from_head[:3, 3] = turn @ state.rotation, turn @ state.translation
    camera = tracked.intrinsics
    camera = replace(camera, fx=camera.fy, cx=camera.cx * camera.fy / camera.fx)
    intrinsics = candidate.crop.intrinsics(camera)
    verts_cam = transform(cam_from_head, vertices_of(head, identity, state))
    small = intrinsics.scale(config.labels_px / config.image_px)
    share = segmenter(candidate.picture, config.labels_px)
    share = np.where(
        cv2.resize(candidate.is_inside.astype(np.uint8), share.shape, interpolation=cv2.INTER_AREA), share, 0
    )
    labels = painter.paint(verts_cam, small, candidate.picture, share)
    neck = rotation_matrix(np.ascontiguousarray(state.joint_angles[:3]))
    return RegisteredFrame(
        picture=candidate.picture,
        labels=labels,
        intrinsics=intrinsics,
        cam_from_head=cam_from_head,
        cam_from_neck=cam_from_head[:3, :3] @ neck,
        identity=identity,
        state=state,
        clip=Path(tracked.info["source"]["path"]).name,
        person=person,
        frame_index=candidate.frame_index,
    )


def vertices_of(head: HeadModel, identity: np.ndarray, state: FaceState) -> np.ndarray:
    """Return the vertices (V, 3) of a head in a state, float64, metres, head space."""
    names = ("neck", "jaw", "left_eye", "right_eye")
    angles = dict(zip(names, torch.from_numpy(state.joint_angles.reshape(4, 3)).to(head.dtype), strict=True))
    with torch.no_grad():
        vertices = head.vertices(
            shape=torch.from_numpy(identity).to(head.dtype),
            expression=torch.from_numpy(state.expression).to(head.dtype),
            **angles,
        )
    return vertices.numpy().astype(np.float64)


def sharpness(picture: np.ndarray) -> float:
    """Return how sharp the middle of a picture, uint8 (S, S, 3), is: high frequencies over all contrast."""
    quarter = len(picture) // 4
    middle = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[quarter:-quarter, quarter:-quarter].astype(np.float32)
    return float(cv2.Laplacian(middle, cv2.CV_32F).std() / max(float(middle.std()), 1e-3))


def spread(features: np.ndarray, count: int) -> list[int]:
    """Return the rows of features (N, D) that are farthest from each other, at most ``count``, in order."""
    if len(features) <= count:
        return list(range(len(features)))
    middle = features - np.median(features, axis=0)
    chosen = [int(np.argmin((middle**2).sum(axis=1)))]
    distance = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return sorted(set(chosen))


def _upright(crop: FaceCrop) -> np.ndarray:
    """Return what turns points (N, 2) of the image, multiplied from the right, upright."""
    return crop.crop_cam_from_cam()[:2, :2].T


def describe_people(frames: Sequence[RegisteredFrame]) -> str:
    """Return how many frames of how many people there are, for a line of progress."""
    people = {frame.person for frame in frames}
    return f"{len(frames)} frames of {len(people)} {'person' if len(people) == 1 else 'people'}"
