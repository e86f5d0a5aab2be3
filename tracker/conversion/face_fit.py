"""What a face does on another head: expression, jaw, neck and place of one frame, from where surface points are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from configs.schema import RegularizationConfig
from flame.model import HeadModel
from flame.rotation import axis_angle_from_matrix
from flame.rotation_kernels import rotation_matrix, small_turn_vector
from flame.surface import SurfaceRig
from tracker.active_set import bounded_step
from tracker.conversion.neutral import EFFECTIVE_POINTS, NeutralFit
from tracker.priors import StatePrior, state_prior
from tracker.state import FIRST_EXPRESSION, NUM_RIGID, FaceState

_SIGMA_M = (1e-5, 1e-4)
"""How well a head can follow, metres: as well as it fits the neutral face, within these limits."""
_REGULARIZATION = RegularizationConfig(expression=1.0, lid=1.0, free_expression=2.0)
"""Points say nearly all; this only settles what they leave open."""
_NECK, _JAW = slice(0, 3), slice(3, 6)
_EYES = (slice(6, 9), slice(9, 12))
_EYE_COLUMNS = slice(6, 12)
_MAX_STEPS, _MAX_TRIES = 12, 6
_SETTLED_M = 1e-5
"""A step that moves the points less (root mean square) is the last one."""


@dataclass(frozen=True, eq=False)
class FrameGoal:
    """Say where a face is in one frame, in the head space of the track's own model."""

    points: np.ndarray
    """Surface points, float64 (N, 3), metres."""
    eye_turns: np.ndarray
    """Rotations of left and right eye from where they are at rest in the neck's frame, float64 (2, 3, 3)."""
    gaze: np.ndarray
    """Unit vectors along which they look, float64 (2, 3)."""
    neck: np.ndarray
    """The neck's rotation, axis-angle (3,)."""
    jaw: np.ndarray
    """The jaw's rotation, axis-angle (3,)."""


class FaceFitter:
    """Fit one person on the target head frame by frame, each from where the one before ended."""

    def __init__(
        self, model: HeadModel, rig: SurfaceRig, neutral: NeutralFit, weight: np.ndarray, rest_gaze: np.ndarray
    ) -> None:
        """Take the person's neutral face.

        Args:
            model: the target head.
            rig: its corresponding points (N) at the mean identity.
            neutral: the person on it, with the offset of these points.
            weight: what each point counts (N,).
            rest_gaze: unit vectors along which the target's unturned eyes look (2, 3).
        """
        shaped = rig.with_shape(neutral.shape)
        # With what identities cannot say added at rest, the neutral face has no expression, and motion alone is fitted.
        self._rig = replace(shaped, rest=shaped.rest + shaped.weight[:, None] * neutral.offset[shaped.point])
        self._sigma_m = float(np.clip(neutral.sigma_m, *_SIGMA_M))
        self._root_weight = np.sqrt(EFFECTIVE_POINTS * weight / weight.sum()) / self._sigma_m
        self._rest_gaze = rest_gaze
        self._source_from_target = neutral.rotation
        self._has_jaw = model.has_jaw
        bounds = np.tile((-np.inf, np.inf), (model.num_expression, 1))
        if model.expression_bounds is not None:
            bounds = model.expression_bounds.detach().cpu().numpy().astype(np.float64)
        self._prior = _without_eyes(state_prior(_REGULARIZATION, bounds, model.expression_names or ()), model.has_jaw)
        self._start = FaceState(
            neutral.rotation, neutral.translation, np.zeros(12), np.clip(np.zeros(len(bounds)), *bounds.T)
        )

    def fit(self, goal: FrameGoal) -> FaceState:
        """Return the state of the target head, placed in the source's head space."""
        prior = self._expected(goal)
        state = self._looking(self._start, goal)
        equations = self._equations(state, goal, prior)
        damping = 0.0
        for _ in range(_MAX_STEPS):
            for _ in range(_MAX_TRIES):
                delta, _ = bounded_step(equations.hessian, equations.gradient, state, prior, damping)
                tried = self._looking(state.step(delta, prior.lower, prior.upper), goal)
                is_settled = self._sigma_m * equations.motion(delta) < _SETTLED_M
                if is_settled:
                    break
                after = self._equations(tried, goal, prior)
                if after.energy <= equations.energy * (1 + 1e-9) + 1e-9:
                    equations = after
                    break
                damping = max(4 * damping, 1e-3)
            else:
                break
            state, damping = tried, damping / 8 if damping > 1e-6 else 0.0
            if is_settled:
                break
        self._start = state
        return state

    def _expected(self, goal: FrameGoal) -> StatePrior:
        """Return the prior of a frame: neck and jaw are expected to turn as on the source."""
        mean = self._prior.mean.copy()
        mean[_NECK] = self._source_from_target.T @ goal.neck
        if self._has_jaw:
            mean[_JAW] = self._source_from_target.T @ goal.jaw
        return replace(self._prior, mean=mean)

    def _looking(self, state: FaceState, goal: FrameGoal) -> FaceState:
        """Return the state with eyes that look where they should, given the head's and the neck's rotation."""
        angles = state.joint_angles.copy()
        source_from_neck = state.rotation @ rotation_matrix(np.ascontiguousarray(angles[_NECK]))
        for eye, rest, turn, gaze in zip(_EYES, self._rest_gaze, goal.eye_turns, goal.gaze, strict=True):
            # The eye turns as on the source, and then by the little that is missing to look along the same line.
            carried = source_from_neck.T @ turn @ source_from_neck
            missing = shortest_turn(carried @ rest, source_from_neck.T @ gaze)
            angles[eye] = small_turn_vector(rotation_matrix(missing) @ carried)
        return replace(state, joint_angles=angles)

    def _equations(self, state: FaceState, goal: FrameGoal, prior: StatePrior) -> _Equations:
        """Return energy and normal equations at a state; eyes are not among what is solved for."""
        posed = self._rig.pose(state.joint_angles, state.expression)
        points, weight = posed.points_head, self._root_weight
        # In the axes of the target head, which all columns but six are in.
        gap = points - (goal.points - state.translation) @ state.rotation
        jacobian = np.empty((len(points), 3, NUM_RIGID + posed.jacobian.shape[2]), np.float32)
        for axis in range(3):
            jacobian[:, :, axis] = np.cross(state.rotation[axis], points) * weight[:, None]
            jacobian[:, :, 3 + axis] = state.rotation[axis] * weight[:, None]
        np.multiply(posed.jacobian, weight[:, None, None], out=jacobian[:, :, NUM_RIGID:], casting="same_kind")
        jacobian[:, :, NUM_RIGID:FIRST_EXPRESSION][:, :, _EYE_COLUMNS] = 0.0
        jacobian = jacobian.reshape(-1, jacobian.shape[2])
        residual = (gap * weight[:, None]).ravel()
        hessian = (jacobian.T @ jacobian).astype(np.float64)
        gradient = (residual.astype(np.float32) @ jacobian).astype(np.float64)
        deviation = state.values - prior.mean
        tail = np.arange(NUM_RIGID, len(hessian))
        hessian[tail, tail] += prior.precision
        gradient[NUM_RIGID:] += prior.precision * deviation
        energy = 0.5 * float(residual @ residual) + 0.5 * float((prior.precision * deviation) @ deviation)
        # The eyes follow from the rest.
        gradient[NUM_RIGID:FIRST_EXPRESSION][_EYE_COLUMNS] = 0.0
        return _Equations(energy, hessian, gradient, jacobian)


@dataclass(frozen=True, eq=False)
class _Equations:
    """Hold a frame's energy, its normal equations and what they are made of."""

    energy: float
    hessian: np.ndarray
    gradient: np.ndarray
    jacobian: np.ndarray

    def motion(self, delta: np.ndarray) -> float:
        """Return how far a step moves the points, weighted root mean square, in their standard deviations."""
        moved = self.jacobian @ delta.astype(np.float32)
        return float(np.sqrt(moved @ moved / EFFECTIVE_POINTS))


def _without_eyes(prior: StatePrior, has_jaw: bool) -> StatePrior:
    """Return a prior that leaves eyes alone (they follow from the gaze) and locks a jaw that is not there."""
    precision, lower, upper = prior.precision.copy(), prior.lower.copy(), prior.upper.copy()
    precision[_EYE_COLUMNS] = 1e-12
    lower[_EYE_COLUMNS], upper[_EYE_COLUMNS] = -np.inf, np.inf
    if not has_jaw:
        lower[_JAW], upper[_JAW] = 0.0, 0.0
    return replace(prior, precision=precision, lower=lower, upper=upper)


def shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the axis-angle vector (3,) of the smallest rotation from one unit vector (3,) to another."""
    axis, cosine = np.cross(start, end), float(start @ end)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-12:
        return np.zeros(3)
    return axis * (np.arctan2(sine, cosine) / sine)


def placed_in_camera(state: FaceState, cam_from_source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rotation (axis-angle, 3) and translation (3,) of cam_from_head for a state in the source's head space."""
    turn = cam_from_source[:3, :3]
    shift = turn @ state.translation + cam_from_source[:3, 3]
    return axis_angle_from_matrix(turn @ state.rotation), shift
