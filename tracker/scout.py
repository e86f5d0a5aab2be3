"""Scout a clip: look at a few frames, tell people apart, find each one's identity and the camera's focal length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from configs.schema import Config
from flame.camera import Intrinsics
from flame.surface import NUM_JOINT_ANGLES, SurfaceRig
from priors.evidence import FaceEvidence, Prior
from tracker.faces import Anchor, region_distance
from tracker.priors import StatePrior
from tracker.solver import FrameFit, JointFit, Shared, SharedPrior, fit_frame, fit_joint
from tracker.state import FaceState
from tracker.terms import Whitening, whiten

_SAME_PERSON_DISTANCE = 3.0
"""A face further than this many face sizes from where a person was last scouted is somebody else."""


@dataclass(frozen=True)
class Glimpse:
    """Hold one face of one scouted frame."""

    evidence: FaceEvidence
    pts_seconds: float
    center_px: np.ndarray
    """Principal point of the frame's camera, float64 (2,), pixels."""
    focal_px: float
    """Expected focal length, pixels."""


@dataclass(frozen=True)
class Person:
    """Hold what scouting found out about one person."""

    shape: np.ndarray
    """Identity coefficients, float64 (I,), standard deviations."""
    anchors: tuple[Anchor, ...]
    """Where the person was seen."""
    num_keyframes: int
    """Frames that the identity rests on."""
    residual_percent: float
    """Median residual over the keyframes, percent of the interocular distance."""


@dataclass(frozen=True)
class Scouted:
    """Hold the people of a clip and its camera."""

    people: tuple[Person, ...]
    intrinsics: Intrinsics


@dataclass(frozen=True)
class FittingModel:
    """Bundle the head as the solver needs it."""

    rig: SurfaceRig
    """The prior's surface points with the full identity basis."""
    prior: StatePrior
    config: Config


def expected_intrinsics(width: int, height: int, fov_degrees: float | None, config: Config) -> Intrinsics:
    """Return centred intrinsics from the given field of view, or from the one that is expected."""
    return Intrinsics.from_fov(fov_degrees or config.regularization.default_fov_degrees, width, height)


def spread_seconds(duration_seconds: float, num_frames: int, config: Config) -> list[float]:
    """Return the times at which to scout a clip, evenly spread, at the middle of equal parts."""
    count = max(1, min(config.scout.candidates, math.ceil(num_frames / config.scout.frames_per_candidate)))
    return [(index + 0.5) / count * duration_seconds for index in range(count)]


def look(
    prior: Prior, image: np.ndarray, pts_seconds: float, intrinsics: Intrinsics, max_faces: int, config: Config
) -> list[Glimpse]:
    """Find the faces of one frame; the largest first."""
    center_px = np.array([intrinsics.cx, intrinsics.cy])
    return [
        Glimpse(evidence, pts_seconds, center_px, intrinsics.fx)
        for evidence in prior.search(image, max_faces=max_faces)
        if evidence.presence >= config.status.min_presence
    ]


def group_by_person(frames: Sequence[Sequence[Glimpse]], max_people: int) -> list[list[Glimpse]]:
    """Tell people apart by where they are from one scouted frame to the next; those seen largest and most come first."""
    people: list[list[Glimpse]] = []
    for glimpses in frames:
        free = list(people)
        for glimpse in glimpses:
            ranked = sorted(free, key=lambda person: region_distance(person[-1].evidence.region, glimpse.evidence.region))
            near = ranked[0] if ranked else None
            if near and region_distance(near[-1].evidence.region, glimpse.evidence.region) < _SAME_PERSON_DISTANCE:
                near.append(glimpse)
                free = [person for person in free if person is not near]
            else:
                people.append([glimpse])
    people.sort(key=lambda person: -sum(glimpse.evidence.region.size_px for glimpse in person))
    return people[:max_people]


def initial_state(rig: SurfaceRig, evidence: FaceEvidence, focal_px: float, center_px: np.ndarray) -> FaceState:
    """Return the neutral face in the pose that explains the evidence best (perspective-n-point)."""
    joint_angles, expression = np.zeros(NUM_JOINT_ANGLES), np.zeros(rig.num_expressions)
    points_head = rig.pose(joint_angles, expression).points_head
    use = np.isfinite(evidence.sigma_px).all(axis=1)
    camera = np.array([[focal_px, 0, center_px[0]], [0, focal_px, center_px[1]], [0, 0, 1]])
    ok, axis_angle, translation = cv2.solvePnP(
        points_head[use], evidence.points_px[use], camera, None, flags=cv2.SOLVEPNP_SQPNP
    )
    rotation = cv2.Rodrigues(axis_angle)[0]
    translation = translation.ravel()
    if not ok or translation[2] <= 0:
        rotation, translation = _facing_the_camera(points_head, evidence.points_px, focal_px, center_px)
    return FaceState(rotation, translation, joint_angles, expression)


def _facing_the_camera(
    points_head: np.ndarray, points_px: np.ndarray, focal_px: float, center_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the upright frontal pose at the distance that gives the observed size."""
    rotation = np.diag([1.0, -1.0, -1.0])
    depth = focal_px * float(points_head[:, :2].std() / max(points_px.std(axis=0).mean(), 1e-6))
    offset = (points_px.mean(axis=0) - center_px) / focal_px * depth
    translation = np.array([*offset, depth]) - rotation @ points_head.mean(axis=0)
    return rotation, translation


def solve_people(
    model: FittingModel, people: Sequence[Sequence[Glimpse]], intrinsics: Intrinsics, *, focal_is_known: bool
) -> Scouted:
    """Find everybody's identity, and the focal length from the person who is seen best."""
    directions = model.rig.observable_shape_directions(model.config.scout.observable_mm * 1e-3)
    reduced = replace(model, rig=model.rig.with_shape_basis(directions))
    found = []
    for index, glimpses in enumerate(people):
        fixed = focal_is_known or index > 0
        fit, keyframes = _solve_person(reduced, glimpses, intrinsics.fx, focal_is_known=fixed)
        focal_px = float(np.exp(fit.shared.log_focal))
        intrinsics = replace(intrinsics, fx=focal_px, fy=focal_px)
        found.append(
            Person(
                shape=directions @ fit.shared.shape,
                anchors=tuple(Anchor(glimpse.pts_seconds, glimpse.evidence.region) for glimpse in glimpses),
                num_keyframes=len(keyframes),
                residual_percent=_median_residual_percent(reduced.rig, fit, keyframes, model.config),
            )
        )
    return Scouted(tuple(found), intrinsics)


def _solve_person(
    model: FittingModel, glimpses: Sequence[Glimpse], focal_px: float, *, focal_is_known: bool
) -> tuple[JointFit, list[Glimpse]]:
    """Fit every glimpse alone with the mean head, choose keyframes, solve them together."""
    config = model.config
    scale = config.solver.sigma_scale
    fits = []
    for glimpse in glimpses:
        start = initial_state(model.rig, glimpse.evidence, focal_px, glimpse.center_px)
        fits.append(
            fit_frame(
                model.rig,
                whiten(glimpse.evidence, scale),
                start,
                model.prior,
                focal_px,
                glimpse.center_px,
                config.solver,
                config.solver.max_iterations_warm,
            )
        )
    chosen = choose_keyframes(fits, glimpses, config.scout.keyframes)
    keyframes = [glimpses[index] for index in chosen]
    regularization = config.regularization
    fit = fit_joint(
        model.rig,
        [whiten(glimpse.evidence, scale) for glimpse in keyframes],
        [fits[index].state for index in chosen],
        Shared(np.zeros(model.rig.num_shapes), math.log(focal_px)),
        model.prior,
        SharedPrior(
            identity_sigma=regularization.identity,
            log_focal_mean=math.log(focal_px),
            log_focal_sigma=0.0 if focal_is_known else regularization.log_focal,
        ),
        [glimpse.center_px for glimpse in keyframes],
        config.solver,
        config.scout.iterations,
    )
    return fit, keyframes


def choose_keyframes(fits: Sequence[FrameFit], glimpses: Sequence[Glimpse], count: int) -> list[int]:
    """Choose frames spread over pose and expression: start at the surest, add the farthest from those chosen."""
    features = np.array(
        [np.concatenate((2.0 * fit.state.rotation[2], fit.state.joint_angles, fit.state.expression)) for fit in fits]
    )
    sureness = np.array([glimpse.evidence.presence * glimpse.evidence.visibility for glimpse in glimpses])
    error = np.array([np.median(fit.residual_px) for fit in fits]) / [g.evidence.region.size_px for g in glimpses]
    chosen = [int(np.argmax(sureness - 10 * error))]
    distance = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < min(count, len(fits)):
        chosen.append(int(np.argmax(distance * sureness)))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
        distance[chosen] = -1.0
    return sorted(chosen)


def _median_residual_percent(rig: SurfaceRig, fit: JointFit, keyframes: Sequence[Glimpse], config: Config) -> float:
    """Return the median residual of a joint solution in percent of the interocular distance."""
    person = rig.with_shape(fit.shared.shape)
    focal_px = float(np.exp(fit.shared.log_focal))
    percents = []
    for state, glimpse in zip(fit.states, keyframes, strict=True):
        points_cam = state.points_cam(person.pose(state.joint_angles, state.expression).points_head)
        projected = focal_px * points_cam[:, :2] / points_cam[:, 2:] + glimpse.center_px
        error = np.linalg.norm(projected - glimpse.evidence.points_px, axis=1)
        percents.append(100 * float(np.median(error)) / interocular_px(person, state, focal_px))
    return float(np.median(percents))


def interocular_px(rig: SurfaceRig, state: FaceState, focal_px: float) -> float:
    """Return the distance of the eyeballs' centres in pixels as if seen from the front at the face's depth."""
    distance_m = float(np.linalg.norm(rig.joints[3] - rig.joints[4]))
    return focal_px * distance_m / max(float(state.translation[2]), 1e-3)


__all__ = [
    "FittingModel",
    "Glimpse",
    "Person",
    "Scouted",
    "Whitening",
    "choose_keyframes",
    "expected_intrinsics",
    "group_by_person",
    "initial_state",
    "interocular_px",
    "look",
    "solve_people",
    "spread_seconds",
]
