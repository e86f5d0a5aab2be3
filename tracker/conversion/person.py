"""Convert one person: the neutral face once, then frame after frame, and measure what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from flame import HeadModel
from flame.camera import Intrinsics, project, transform
from flame.correspondence import SurfaceCorrespondence
from flame.mesh_rig import MeshRig
from flame.rotation_kernels import rotation_matrix
from flame.surface import SurfacePoints, build_surface_rig
from tracker.conversion.face_fit import FaceFitter, FrameGoal, placed_in_camera
from tracker.conversion.neutral import NeutralFit, fit_neutral
from tracker.result import Track
from tracker.state import FIRST_EXPRESSION, FaceState

FIT_POINTS = 600
"""So many points, spread over the surface, are fitted in each frame."""
JOINTS = ("neck", "jaw", "left_eye", "right_eye")
_EYES = (3, 4)
_FORWARD = np.array((0.0, 0.0, 1.0))
"""Where eyes look at rest; landmarks of the irises are placed by the same rule."""
_BIN_MM, _MAX_MM = 0.005, 25.0

ShowFrames = Callable[[Iterable[int], int, str], Iterable[int]]
"""Shows how far a loop over frames is: the frames, how many, what is done with them."""


@dataclass(frozen=True)
class PersonError:
    """Hold how far a person's face on the new head is from that on the old one, over all tracked frames."""

    median_mm: float
    """Median distance of the face's points, millimetres; NaN where the person is never tracked."""
    p95_mm: float
    """95 percent of the face's points are nearer, millimetres."""
    reprojection_px: float
    """Mean distance of the face's points in the image, pixels."""


@dataclass(frozen=True, eq=False)
class ConvertedPerson:
    """Hold one person's new parameters."""

    identity: np.ndarray
    """Identity coefficients, float64 (I,)."""
    rows: np.ndarray
    """Rotation and translation of cam_from_head, joint angles, expression, float64 (T, 18 + E); NaN where lost."""
    errors: np.ndarray
    """Mean distance of the face's points, millimetres and pixels, float64 (T, 2); NaN where lost."""
    summary: PersonError


class HeadPair:
    """Hold what the conversion of all people from one head to another shares."""

    def __init__(self, source: HeadModel, target: HeadModel, pairs: SurfaceCorrespondence) -> None:
        """Prepare both heads for posing, and the target's corresponding points for fitting."""
        self.source, self.target, self.pairs = source, target, pairs
        self.source_faces = source.faces.detach().cpu().numpy()
        self.target_faces = target.faces.detach().cpu().numpy()
        self.source_rig, self.target_rig = MeshRig.of(source), MeshRig.of(target)
        self.few = pairs.first(FIT_POINTS)
        self.few_rig = build_surface_rig(target, self.few.target)
        is_face = np.flatnonzero(pairs.is_face)
        self._face_source, self._face_target = pairs.source.take(is_face), pairs.target.take(is_face)

    def neutral(self, identity: np.ndarray) -> NeutralFit:
        """Fit the target's identity to the neutral face of a person with an identity (I,) on the source."""
        person = self.source_rig.with_shape(identity)
        points = self.pairs.source.on(person.rest, self.source_faces)
        eyes = person.joints[list(_EYES)]
        return fit_neutral(self.target_rig, self.pairs.target, points, eyes, self.pairs.weight)

    def faces(self, source_vertices: np.ndarray, target_vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the corresponding points of the two faces (N, 3)."""
        before = self._face_source.on(source_vertices, self.source_faces)
        return before, self._face_target.on(target_vertices, self.target_faces)


def convert_person(pair: HeadPair, track: Track, person: int, show_frames: ShowFrames) -> ConvertedPerson:
    """Convert one person of a track."""
    num_frames, target = len(track), pair.target
    rows = np.full((num_frames, FIRST_EXPRESSION + target.num_expression), np.nan)
    errors = _Errors(num_frames, track.intrinsics)
    if not track.is_tracked[person].any():
        return ConvertedPerson(np.zeros(target.num_shape), rows, errors.by_frame, errors.summary())
    identity = track.identity[person].astype(np.float64)
    neutral = pair.neutral(identity)
    few = replace(neutral, offset=neutral.offset[: len(pair.few)])
    fitter = FaceFitter(target, pair.few_rig, few, pair.few.weight, np.stack((_FORWARD, _FORWARD)))
    before, after = _shaped(pair.source_rig, identity), _shaped(pair.target_rig, neutral.shape)
    label = f"person {person}" if track.num_people > 1 else "converting"
    for frame in show_frames(range(num_frames), num_frames, label):
        if not track.is_tracked[person, frame]:
            continue
        angles = _joint_angles(track, person, frame, pair.source.has_jaw)
        vertices = _posed(before, angles, track.expression[person, frame].astype(np.float64))
        state = fitter.fit(_goal(vertices, angles, pair.few.source, pair.source_faces))
        cam_from_head = track.cam_from_head(frame, person)
        rows[frame] = _row(state, cam_from_head)
        fitted = state.points_cam(_posed(after, state.joint_angles, state.expression))
        errors.add(frame, *(transform(cam_from_head, points) for points in pair.faces(vertices, fitted)))
    return ConvertedPerson(neutral.shape, rows, errors.by_frame, errors.summary())


class _Errors:
    """Collect how far a face is from where it should be."""

    def __init__(self, num_frames: int, intrinsics: Intrinsics) -> None:
        self.by_frame = np.full((num_frames, 2), np.nan)
        self._intrinsics = intrinsics
        self._histogram = np.zeros(round(_MAX_MM / _BIN_MM) + 1, np.int64)

    def add(self, frame: int, before: np.ndarray, after: np.ndarray) -> None:
        """Count the points (N, 3) of one frame, camera space, metres."""
        apart_mm = 1e3 * np.linalg.norm(after - before, axis=1)
        apart_px = project(after, self._intrinsics) - project(before, self._intrinsics)
        self.by_frame[frame] = apart_mm.mean(), np.linalg.norm(apart_px, axis=1).mean()
        bins = np.minimum(apart_mm / _BIN_MM, len(self._histogram) - 1).astype(np.int64)
        self._histogram += np.bincount(bins, minlength=len(self._histogram))

    def summary(self) -> PersonError:
        """Sum up all frames."""
        if not self._histogram.any():
            return PersonError(np.nan, np.nan, np.nan)
        share = np.cumsum(self._histogram) / self._histogram.sum()
        median, high = (_BIN_MM * (float(np.searchsorted(share, level)) + 0.5) for level in (0.5, 0.95))
        return PersonError(median, high, float(np.nanmean(self.by_frame[:, 1])))


def _row(state: FaceState, cam_from_source: np.ndarray) -> np.ndarray:
    return np.concatenate((*placed_in_camera(state, cam_from_source), state.values))


def _shaped(rig: MeshRig, shape: np.ndarray) -> MeshRig:
    """Return the rig of one identity, without coefficients for others."""
    return rig.with_shape(shape).with_shape_basis(np.zeros((rig.num_shapes, 0)))


def _joint_angles(track: Track, person: int, frame: int, has_jaw: bool) -> np.ndarray:
    """Return the axis-angle of neck, jaw, left and right eye (12,)."""
    angles = np.concatenate([getattr(track, name)[person, frame] for name in JOINTS]).astype(np.float64)
    if not has_jaw:
        angles[3:6] = 0.0
    return angles


def _posed(rig: MeshRig, angles: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Return the vertices (V, 3) in head space."""
    return rig.pose(np.zeros(rig.num_shapes), expression, angles, np.eye(3), np.zeros(3)).verts_cam


def _goal(vertices: np.ndarray, angles: np.ndarray, points: SurfacePoints, faces: np.ndarray) -> FrameGoal:
    """Say where the face is: points, gaze and the joints' own rotations."""
    neck = rotation_matrix(angles[:3].copy())
    eyes = neck @ np.stack([rotation_matrix(angles[first : first + 3].copy()) for first in (6, 9)])
    return FrameGoal(points.on(vertices, faces), eyes @ neck.T, eyes @ _FORWARD, angles[:3], angles[3:6])
