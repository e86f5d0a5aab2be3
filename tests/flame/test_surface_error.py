from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flame.closest_point import ClosestPoint, closest_on_mesh
from flame.surface_error import similarity_of, surface_error


@pytest.fixture(scope="module")
def bumpy() -> tuple[np.ndarray, np.ndarray]:
    """Return a bumpy half ellipsoid, head-sized: no similarity maps it onto itself."""
    steps = np.linspace(-1, 1, 33)
    x, y = (grid.ravel() for grid in np.meshgrid(steps, steps))
    z = 0.09 * np.sqrt(1.6 - 0.7 * x**2 - 0.7 * y**2) + 0.006 * np.sin(5 * x + 1) * np.cos(4 * y)
    corner = (np.arange(32)[:, None] * 33 + np.arange(32)).ravel()
    faces = np.concatenate(
        (np.stack((corner, corner + 1, corner + 34), 1), np.stack((corner, corner + 34, corner + 33), 1))
    )
    return np.column_stack((0.07 * x, 0.1 * y, z)), faces


def points_on(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return corners.mean(axis=1), normals / np.linalg.norm(normals, axis=1, keepdims=True)


def landmarks_of(vertices: np.ndarray) -> np.ndarray:
    return vertices[[70, 200, 400, 544, 700, 880, 1000]]


def test_similarity_is_recovered_from_points():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(7, 3))
    rotation = Rotation.from_rotvec((0.3, -1.0, 0.4)).as_matrix()
    found = similarity_of(points, 1.7 * points @ rotation.T + (1.0, 2.0, 3.0))
    assert found.scale == pytest.approx(1.7)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-12)
    np.testing.assert_allclose(found.inverse(found(points)), points, atol=1e-12)


def test_the_same_surface_turned_and_scaled_has_no_error(bumpy: tuple[np.ndarray, np.ndarray]):
    vertices, faces = bumpy
    points, normals = points_on(vertices, faces)
    turned = 1.3 * vertices @ Rotation.from_rotvec((0.2, 0.5, -0.3)).as_matrix().T + (0.1, 0.0, -0.4)
    # Landmarks that are some millimetres off leave the rest to the closest points.
    wrong = landmarks_of(turned) + np.random.default_rng(1).normal(0, 0.003, (7, 3))
    error = surface_error(points, normals, landmarks_of(vertices), turned, faces, wrong)
    assert error.l1_mm < 0.01
    assert error.close_percent == 100
    assert error.normal_consistency == pytest.approx(1.0, abs=1e-3)
    assert error.aligned.scale == pytest.approx(1 / 1.3, rel=1e-3)


def test_l1_adds_the_components_and_the_error_goes_one_way(bumpy: tuple[np.ndarray, np.ndarray]):
    vertices, faces = bumpy
    points, normals = points_on(vertices, faces)
    dented = vertices.copy()
    dented[500:560, 2] -= 0.006
    error = surface_error(points, normals, landmarks_of(vertices), dented, faces, landmarks_of(dented))
    assert error.l1_mm == pytest.approx(1e3 * np.abs(error.offsets).sum(axis=1).mean())
    assert error.l2_mm < error.l1_mm < np.sqrt(3) * error.l2_mm
    distance = np.linalg.norm(error.offsets, axis=1)
    assert error.close_percent == pytest.approx(100 * (distance <= 0.0025).mean())
    assert 0 < (distance > 0.0025).sum() < 0.2 * len(distance)
    # Surface that the truth does not cover costs nothing.
    half = points[:, 1] < 0.02
    truth = points[half], normals[half], landmarks_of(vertices)
    assert surface_error(*truth, vertices, faces, landmarks_of(vertices)).l1_mm < 0.01


def test_closest_points_are_sought_among_chosen_triangles_only(bumpy: tuple[np.ndarray, np.ndarray]):
    vertices, faces = bumpy
    chosen = np.arange(100, 300)
    queries = np.random.default_rng(2).normal(0, 0.1, (50, 3))
    among = ClosestPoint(vertices, faces, chosen)(queries)
    anywhere = closest_on_mesh(queries, vertices, faces)
    assert np.isin(among.triangle, chosen).all()
    assert (among.distance >= anywhere.distance - 1e-12).all()
    np.testing.assert_allclose(among.surface.on(vertices, faces), among.point, atol=1e-12)
