"""Dense evidence that cannot be meant is refused in one line that says what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from configs.schema import EnergyConfig, SolverConfig
from flame.errors import InputError
from flame.model import HeadModel
from flame.surface import SurfacePoints
from tests.toy_head import make_toy_head
from tests.tracker.dense_scenes import DenseScene, make_scene
from tracker.dense_solver import DenseModel, fit_dense
from tracker.reference_problem import PointEvidence, VertexLookups, look_up_vertices


@pytest.fixture(scope="module")
def scene() -> DenseScene:
    return make_scene(make_toy_head(), 64)


def with_maps(scene: DenseScene, **changes: Any):
    return replace(scene.problem, maps=replace(scene.problem.maps, **changes))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("uv", lambda maps: maps.uv[:32], r"\(32, 64, 2\), \(64, 64, 3\) and \(64, 64\); .* are expected"),
        ("uv", lambda maps: maps.normals, r"texture map.*\(64, 64, 3\)"),
        ("normals", lambda maps: maps.normals[..., :2], r"normal map.*\(64, 64, 2\)"),
        ("mask", lambda maps: maps.mask[None], r"mask have shapes.*\(1, 64, 64\)"),
        ("mask", lambda maps: maps.mask.astype(np.uint8), "the mask holds uint8; it must be bool"),
        ("normal_space", lambda maps: "world", "normal space is 'world'; 'camera' and 'head' are possible"),
        ("normals", lambda maps: (maps.normals + 1) / 2, r"median length is 0\.\d+; unit vectors .* 2 p - 1"),
        ("normals", lambda maps: maps.normals * 255, "median length is 255; unit vectors"),
        ("uv", lambda maps: maps.uv * 255, r"values lie about .*; those of head 'toy' are between"),
    ],
)
def test_maps_that_cannot_be_meant(scene, name, change, message):
    with pytest.raises(InputError, match=message):
        with_maps(scene, **{name: change(scene.problem.maps)})


def test_pixels_that_say_nothing_are_no_fault(scene):
    maps = scene.problem.maps
    uv = maps.uv.copy()
    uv[::3] = np.nan
    with_maps(scene, uv=uv, normals=np.full_like(maps.normals, np.nan))


def test_a_camera_of_another_image(scene):
    camera = replace(scene.problem.intrinsics, width=640, height=480)
    with pytest.raises(InputError, match="640 x 480 pixels and the maps have 64 x 64; give the camera of the maps"):
        replace(scene.problem, intrinsics=camera)


def test_evidence_of_another_size_or_head(scene):
    problem = scene.problem
    count = problem.head.num_vertices
    far = SurfacePoints(np.array([10**6]), np.full((1, 3), 1 / 3))
    for changes, message in (
        ({"foreground": np.ones((64, 65), dtype=bool)}, r"foreground has shape \(64, 65\) and the maps \(64, 64\)"),
        ({"seconds_since_previous": 0.0}, r"0.0 s ago; more than 0"),
        (
            {"lookups": VertexLookups(np.array([count]), np.zeros((1, 2)))},
            f"vertex {count} was looked up .* has {count}",
        ),
        ({"lookups": VertexLookups(np.array([3]), np.zeros((2, 2)))}, r"1 vertices were looked up, at points \(2, 2\)"),
        ({"landmarks": PointEvidence(far, np.zeros((1, 2)))}, "landmarks: triangle 1000000 was named"),
        ({"irises": PointEvidence(far, np.zeros((3, 2)))}, r"irises: 1 points .* at places \(3, 2\)"),
    ):
        with pytest.raises(InputError, match=message):
            replace(problem, **changes)


def test_images_that_say_nothing(scene):
    model = DenseModel.of(scene.problem.head, num_threads=1)
    maps = scene.problem.maps
    none = VertexLookups(np.zeros(0, np.int64), np.zeros((0, 2)))
    bare = replace(scene.problem, lookups=none, landmarks=None, irises=None)
    unseen = replace(maps, mask=np.zeros_like(maps.mask))
    unknown = replace(maps, uv=np.full_like(maps.uv, np.nan), normals=np.full_like(maps.normals, np.nan))
    for silent in (unseen, unknown):
        assert len(look_up_vertices(scene.problem.head, silent, 0.02).vertices) == 0
        problems = [scene.problem, replace(bare, maps=silent)]
        with pytest.raises(InputError, match="image 1 says nothing: its mask is empty or its maps are NaN there"):
            fit_dense(model, problems, [scene.state] * 2, EnergyConfig(), SolverConfig(), 3)


def test_images_and_starts_that_do_not_belong_together(scene):
    model = DenseModel.of(scene.problem.head, num_threads=1)
    other: HeadModel = make_toy_head(num_shape=4)
    short = replace(scene.state, expression=scene.state.expression[:3])
    foreign = replace(scene.problem, head=other, anchor=None)
    for problems, starts, message in (
        ([], [], "0 images and 0 starts"),
        ([scene.problem] * 2, [scene.state], "2 images and 1 starts; every image needs one"),
        ([scene.problem], [short], "start of image 0 has 3 expression coefficients; head 'toy' has 8"),
        ([foreign], [scene.state], "image 0 is of head 'toy' with 138 vertices and 4 identity .* the model is"),
    ):
        with pytest.raises(InputError, match=message):
            fit_dense(model, problems, starts, EnergyConfig(), SolverConfig(), 3)


def test_too_many_coefficients_of_the_anchor(scene):
    model = DenseModel.of(scene.problem.head, num_threads=1)
    problem = replace(scene.problem, anchor=np.zeros(11))
    with pytest.raises(InputError, match=r"anchor coefficients have shape \(11,\); at most \(10,\)"):
        fit_dense(model, [problem], [scene.state], EnergyConfig(), SolverConfig(), 3)
