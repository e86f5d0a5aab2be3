"""Surface points and their rig: the rig is exact, and its derivatives are those of the full model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flame.model import HeadModel
from flame.surface import SurfacePoints, SurfaceRig, build_surface_rig

NUM_POINTS = 25
STEP = 1e-6


@pytest.fixture(scope="module")
def points(toy_head: HeadModel) -> SurfacePoints:
    """Return random points on the toy head."""
    rng = np.random.default_rng(1)
    barycentric = rng.dirichlet((1, 1, 1), NUM_POINTS)
    return SurfacePoints(rng.integers(0, len(toy_head.faces), NUM_POINTS), barycentric)


@pytest.fixture(scope="module")
def rig(toy_head: HeadModel, points: SurfacePoints) -> SurfaceRig:
    """Return the rig of these points."""
    return build_surface_rig(toy_head, points)


def full_model(
    head: HeadModel, points: SurfacePoints, shape: np.ndarray, joint_angles: np.ndarray, expression: np.ndarray
) -> np.ndarray:
    """Pose the whole head and look at the points: the slow, obvious way."""
    names = ("neck", "jaw", "left_eye", "right_eye")
    joints = {name: torch.from_numpy(joint_angles[3 * i : 3 * i + 3].copy()) for i, name in enumerate(names)}
    verts = head.vertices(shape=torch.from_numpy(shape), expression=torch.from_numpy(expression), **joints)
    return points.on(verts.numpy(), head.faces.numpy())


def random_parameters(rig: SurfaceRig, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shape, joint angles and expression."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=rig.num_shapes), 0.4 * rng.normal(size=12), rng.normal(size=rig.num_expressions)


@given(seed=st.integers(0, 10_000))
def test_rig_equals_the_full_model(toy_head, points, rig, seed):
    shape, joint_angles, expression = random_parameters(rig, seed)
    posed = rig.with_shape(shape).pose(joint_angles, expression)
    np.testing.assert_allclose(
        posed.points_head, full_model(toy_head, points, shape, joint_angles, expression), atol=1e-9
    )


def test_jacobian_equals_finite_differences_of_the_full_model(toy_head, points, rig):
    shape, joint_angles, expression = random_parameters(rig, 3)
    posed = rig.with_shape(shape).pose(joint_angles, expression)
    start = np.concatenate((joint_angles, expression))
    for index in range(len(start)):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved[index] += sign * STEP
            ends.append(full_model(toy_head, points, shape, moved[:12], moved[12:]))
        np.testing.assert_allclose(posed.jacobian[:, :, index], (ends[0] - ends[1]) / (2 * STEP), atol=1e-8)


def test_shape_jacobian_equals_finite_differences_of_the_full_model(toy_head, points, rig):
    shape, joint_angles, expression = random_parameters(rig, 4)
    identity = np.tile(np.eye(3), (NUM_POINTS, 1, 1))
    jacobian = rig.with_shape(shape).shape_jacobian(joint_angles, identity)
    expression = np.zeros_like(expression)
    for index in range(rig.num_shapes):
        ends = []
        for sign in (1, -1):
            moved = shape.copy()
            moved[index] += sign * STEP
            ends.append(full_model(toy_head, points, moved, joint_angles, expression))
        np.testing.assert_allclose(jacobian[:, :, index], (ends[0] - ends[1]) / (2 * STEP), atol=1e-8)


def rest_points(rig: SurfaceRig, shape: np.ndarray) -> np.ndarray:
    """Return the points of the resting face."""
    return rig.with_shape(shape).pose(np.zeros(12), np.zeros(rig.num_expressions)).points_head


def size_of(points_head: np.ndarray) -> float:
    """Return half the points' squared distances from their centre."""
    return 0.5 * float(((points_head - points_head.mean(axis=0)) ** 2).sum())


def test_shape_directions_show_all_but_the_size(rig):
    directions = rig.observable_shape_directions(1e-9)
    np.testing.assert_allclose(directions.T @ directions, np.eye(directions.shape[1]), atol=1e-12)
    by_shape = [
        (size_of(rest_points(rig, STEP * unit)) - size_of(rest_points(rig, -STEP * unit))) / (2 * STEP)
        for unit in np.eye(rig.num_shapes)
    ]
    size = np.array(by_shape) / np.linalg.norm(by_shape)
    np.testing.assert_allclose(directions.T @ size, 0, atol=1e-6)
    shape = random_parameters(rig, 5)[0]
    shape -= size * (size @ shape)
    seen = directions @ (directions.T @ shape)
    np.testing.assert_allclose(rest_points(rig, seen), rest_points(rig, shape), atol=1e-6)


def test_points_take_and_count(points):
    taken = points.take(np.array([3, 1]))
    assert len(points) == NUM_POINTS
    assert len(taken) == 2
    np.testing.assert_array_equal(taken.triangles, points.triangles[[3, 1]])
