"""Scout a clip: look at a few frames, tell people apart, find each one's identity and the camera's focal length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from configs.schema import Config, StatusConfig
from flame.surface import LEFT_EYE, NUM_JOINT_ANGLES, RIGHT_EYE, SurfaceRig
from priors.evidence import FaceEvidence, Prior
from tracker.camera_guess import HELD, CameraFreedom
from tracker.dense_fitting import DenseFitting, shows_face
from tracker.faces import SAME_FACE_DISTANCE, Anchor, region_distance
from tracker.frame_terms import LandmarkTerm, cauchy
from tracker.frames import Frame
from tracker.joint_solver import FrameProblem, JointFit, Shared, SharedPrior, fit_joint
from tracker.priors import StatePrior, state_prior
from tracker.solver import FrameFit, fit_frame
from tracker.state import FaceState, View
from tracker.terms import whiten

_SAME_PERSON_DISTANCE = 3.0
"""A face further than this many face sizes from where a person was last scouted is somebody else."""
_NO_DISTORTION = np.zeros(4)
_MIN_POINTS = 6
"""Fewer points leave the pose ambiguous."""


@dataclass(frozen=True)
class Glimpse:
    """Hold one face of one scouted frame."""

    evidence: FaceEvidence
    pts_seconds: float
    view: View
    """The camera that is expected, before its focal length is known."""


@dataclass(frozen=True)
class Person:
    """Hold what scouting found out about one person."""

    shape: np.ndarray
    """Identity coefficients, float64 (I,), standard deviations."""
    num_keyframes: int
    """Frames that the identity rests on."""
    residual_percent: float
    """Median residual over the keyframes, percent of the interocular distance."""
    log_zoom: float = 0.0
    """Logarithm of the factor from the expected to the solved focal length."""
    center_shift_px: tuple[float, float] = (0.0, 0.0)
    """From the expected to the solved principal point, pixels."""


@dataclass(frozen=True)
class FittingModel:
    """Bundle the head as the solver needs it."""

    rig: SurfaceRig
    """The prior's surface points with the full identity basis of I directions."""
    directions: np.ndarray
    """The R identity directions that one camera can see, float64 (I, R)."""
    prior: StatePrior
    config: Config
    dense: DenseFitting | None = None
    """What fits dense maps, where they are the evidence."""
    identity_anchor: Callable[[Sequence[FaceEvidence]], np.ndarray] | None = None
    """The prior's; without one the mean head is expected."""

    def expected_identity(self, glimpses: Sequence[Glimpse]) -> np.ndarray:
        """Return the identity coefficients (I,) that the landmarks of one person's glimpses suggest by themselves."""
        if self.identity_anchor is None:
            return np.zeros(self.rig.num_shapes)
        status = self.config.status
        clear = [
            glimpse.evidence
            for glimpse in glimpses
            if glimpse.evidence.presence >= status.low_presence and glimpse.evidence.visibility >= status.min_visibility
        ]
        return self.identity_anchor(clear)

    def around(self, shape: np.ndarray) -> SurfaceRig:
        """Return the rig that begins at identity coefficients (I,) and changes along the R directions."""
        return self.rig.with_shape(shape).with_shape_basis(self.directions)

    @staticmethod
    def of(
        rig: SurfaceRig, expression_bounds: np.ndarray, config: Config, expression_names: Sequence[str] = ()
    ) -> FittingModel:
        """Prepare a rig with expression bounds (E, 2), and names if there are any, for fitting."""
        directions = rig.observable_shape_directions(config.scout.observable_mm * 1e-3)
        prior = state_prior(config.regularization, expression_bounds, expression_names)
        return FittingModel(rig, directions, prior, config)


def spread_seconds(start_seconds: float, end_seconds: float, num_frames: int, config: Config) -> list[float]:
    """Return the times at which to scout a clip, at the middle of equal parts."""
    count = max(1, min(config.scout.candidates, math.ceil(num_frames / config.scout.frames_per_candidate)))
    step = (end_seconds - start_seconds) / count
    return [start_seconds + (index + 0.5) * step for index in range(count)]


@dataclass(frozen=True)
class Lookout:
    """Look at single frames of a clip for a number of people."""

    prior: Prior
    view: View
    """The camera that is expected."""
    max_people: int
    status: StatusConfig

    def over(
        self, frames: Iterable[Frame], seen: Sequence[list[Glimpse]] = (), *, is_thorough: bool
    ) -> list[list[Glimpse]]:
        """Return ``seen`` and what is seen in some further frames, one list a frame."""
        found = list(seen)
        for frame in frames:
            found.append(self.at(frame, found[-1] if found else (), is_thorough=is_thorough))
        return found

    def at(self, frame: Frame, before: Sequence[Glimpse] = (), *, is_thorough: bool) -> list[Glimpse]:
        """Find the faces of one frame; the largest first.

        ``before`` are the faces of the frame scouted before. Most clips show them at nearly the same place again, and a
        look there costs a fraction of a search; only where it fails, the whole frame is searched. And only when
        everybody wanted was seen before, nobody can be missed by looking at the same places.
        """
        places = [glimpse.evidence.region for glimpse in before[: self.max_people]]
        seen: list[FaceEvidence] = []
        if len(places) == self.max_people:
            found = self.prior.observe(frame.image, places)
            seen = [evidence for evidence in found if evidence and evidence.presence >= self.status.low_presence]
        if len(seen) < self.max_people or _collide(seen):
            found = self.prior.search(frame.image, max_faces=self.max_people + 1, is_thorough=is_thorough)
            seen = [evidence for evidence in found if evidence.presence >= self.status.min_presence]
        return [Glimpse(evidence, frame.pts_seconds, self.view) for evidence in seen]


def _collide(faces: Sequence[FaceEvidence]) -> bool:
    """Return whether two looks have ended at one face."""
    regions = [face.region for face in faces]
    return any(
        region_distance(first, second) < SAME_FACE_DISTANCE
        for index, first in enumerate(regions)
        for second in regions[:index]
    )


def group_by_person(frames: Sequence[Sequence[Glimpse]], max_people: int) -> list[list[Glimpse]]:
    """Tell people apart by where they are from one scouted frame to the next; those seen largest and most first."""
    people: list[list[Glimpse]] = []
    for glimpses in frames:
        free = list(people)
        for glimpse in glimpses:
            nearest = min(free, key=lambda person: _distance(person[-1], glimpse), default=None)
            if nearest and _distance(nearest[-1], glimpse) < _SAME_PERSON_DISTANCE:
                nearest.append(glimpse)
                free = [person for person in free if person is not nearest]
            else:
                people.append([glimpse])
    people.sort(key=lambda person: -sum(glimpse.evidence.region.size_px for glimpse in person))
    return people[:max_people]


def anchors(glimpses: Sequence[Glimpse]) -> list[Anchor]:
    """Return where and when a person was seen."""
    return [Anchor(glimpse.pts_seconds, glimpse.evidence.region) for glimpse in glimpses]


def _distance(first: Glimpse, second: Glimpse) -> float:
    """Return the distance of two glimpses' faces in face sizes."""
    return region_distance(first.evidence.region, second.evidence.region)


def initial_state(rig: SurfaceRig, evidence: FaceEvidence, view: View) -> FaceState:
    """Return the neutral face in the pose that explains the evidence best (perspective-n-point)."""
    joint_angles, expression = np.zeros(NUM_JOINT_ANGLES), np.zeros(rig.num_expressions)
    points_head = rig.pose(joint_angles, expression).points_head
    use = np.isfinite(evidence.sigma_px).all(axis=1)
    pose = _solve_pose(points_head[use], evidence.points_px[use], view) if use.sum() >= _MIN_POINTS else None
    rotation, translation = pose or _facing_the_camera(points_head, evidence.points_px, view)
    return FaceState(rotation, translation, joint_angles, expression)


def _solve_pose(points_head: np.ndarray, points_px: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray] | None:
    """Return rotation and translation; None where the points tell none in front of the camera."""
    try:
        ok, axis_angle, translation = cv2.solvePnP(
            points_head, points_px, view.matrix, _NO_DISTORTION, flags=cv2.SOLVEPNP_SQPNP
        )
    except cv2.error:  # points that lie in one place
        return None
    return (cv2.Rodrigues(axis_angle)[0], translation[:, 0]) if ok and translation[2, 0] > 0 else None


def _facing_the_camera(points_head: np.ndarray, points_px: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return rotation and translation of the upright frontal pose at the distance that gives the observed size."""
    rotation = np.diag([1.0, -1.0, -1.0])
    depth = float(view.focal_px[0] * points_head[:, :2].std() / max(points_px.std(axis=0).mean(), 1e-6))
    offset = (points_px.mean(axis=0) - view.center_px) / view.focal_px * depth
    return rotation, np.array([*offset, depth]) - rotation @ points_head.mean(axis=0)


def solve_person(model: FittingModel, glimpses: Sequence[Glimpse], freedom: CameraFreedom = HELD) -> Person:
    """Find one person's identity, and what is free of the camera, from all glimpses of the person."""
    config, expected = model.config, model.expected_identity(glimpses)
    rig = model.around(expected)
    whitenings = [whiten(glimpse.evidence, config.solver.sigma_scale) for glimpse in glimpses]
    fits = [
        fit_frame(
            rig,
            whitening,
            initial_state(rig, glimpse.evidence, glimpse.view),
            model.prior,
            glimpse.view,
            config.solver,
            config.solver.max_iterations_warm,
        )
        for whitening, glimpse in zip(whitenings, glimpses, strict=True)
    ]
    chosen = choose_keyframes(fits, glimpses, config.scout.keyframes)
    kernel = cauchy(config.solver.robust_width)
    fit = fit_joint(
        [
            FrameProblem(glimpses[index].view, (LandmarkTerm(rig, whitenings[index], kernel),), model.prior)
            for index in chosen
        ],
        [fits[index].state for index in chosen],
        Shared(np.zeros(rig.num_shapes)),
        SharedPrior.around_zero(
            rig.num_shapes,
            _identity_sigma(config, expected, len(chosen)),
            log_zoom_sigma=freedom.log_focal_sigma,
            center_sigma_px=freedom.center_sigma_px,
        ),
        config.solver,
        config.scout.iterations,
    )
    person = Person(
        shape=expected + model.directions @ fit.shared.shape,
        num_keyframes=len(chosen),
        residual_percent=_median_residual_percent(rig, fit, [glimpses[index].view for index in chosen]),
        log_zoom=fit.shared.log_zoom,
        center_shift_px=fit.shared.center_shift_px,
    )
    if model.dense is None:
        return person
    return _with_dense_identity(model.dense, person, expected, fit, [glimpses[index] for index in chosen], freedom)


def _identity_sigma(config: Config, expected: np.ndarray, num_keyframes: int) -> float:
    """Return how far identity coefficients may be from what is expected, standard deviations.

    An identity that the landmarks themselves suggest has made use of what they share. To fit them again is to fit what
    the detector makes of this face, the more surely the more frames there are: N of them count as the root of N.
    """
    sigma = config.regularization.identity
    return sigma * num_keyframes**-0.25 if expected.any() else sigma


def _with_dense_identity(
    dense: DenseFitting,
    person: Person,
    expected: np.ndarray,
    fit: JointFit,
    glimpses: Sequence[Glimpse],
    freedom: CameraFreedom,
) -> Person:
    """Return the person with the identity that the dense maps of the keyframes show; poses begin at the landmarks'.

    Without any keyframe in which the maps show the face, what the landmarks say remains.
    """
    problems = [
        replace(dense.problem(glimpse.evidence, fit.shared.view(glimpse.view)), anchor=expected) for glimpse in glimpses
    ]
    seen = [index for index, problem in enumerate(problems) if shows_face(problem)]
    if not seen:
        return person
    found = dense.identify(
        [problems[index] for index in seen],
        [fit.states[index] for index in seen],
        focal_is_known=freedom.log_focal_sigma == 0,
    )
    return replace(person, shape=found.shape, log_zoom=person.log_zoom + found.log_zoom)


def nobody(model: FittingModel) -> Person:
    """Return the stand-in for a person whom scouting did not find: the average shape."""
    return Person(np.zeros(model.rig.num_shapes), num_keyframes=0, residual_percent=math.nan)


def choose_keyframes(fits: Sequence[FrameFit], glimpses: Sequence[Glimpse], count: int) -> list[int]:
    """Choose frames spread over pose and expression: start at the surest, add the farthest from those chosen."""
    features = np.array(
        [np.concatenate((2.0 * fit.state.rotation[2], fit.state.joint_angles, fit.state.expression)) for fit in fits]
    )
    sureness = np.array([glimpse.evidence.presence * glimpse.evidence.visibility for glimpse in glimpses])
    sizes_px = np.array([glimpse.evidence.region.size_px for glimpse in glimpses])
    error = np.array([np.median(fit.residual_px) for fit in fits]) / sizes_px
    chosen = [int(np.argmax(sureness - 10 * error))]
    distance = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < min(count, len(fits)):
        worth = distance * sureness
        worth[chosen] = -1.0
        chosen.append(int(np.argmax(worth)))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return sorted(chosen)


def _median_residual_percent(rig: SurfaceRig, fit: JointFit, views: Sequence[View]) -> float:
    """Return the median residual of a joint solution in percent of the interocular distance."""
    person = rig.with_shape(fit.shared.shape)
    percents = [
        100 * float(np.median(frame.residual_px)) / interocular_px(person, state, fit.shared.view(view))
        for frame, state, view in zip(fit.frames, fit.states, views, strict=True)
    ]
    return float(np.median(percents))


def interocular_px(rig: SurfaceRig, state: FaceState, view: View) -> float:
    """Return the distance of the eyeballs' centres in pixels as if seen from the front at the head's depth."""
    distance_m = float(np.linalg.norm(rig.joints[LEFT_EYE] - rig.joints[RIGHT_EYE]))
    return float(view.focal_px[0]) * distance_m / max(float(state.translation[2]), 1e-3)
