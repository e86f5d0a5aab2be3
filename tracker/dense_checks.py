"""Refuse dense evidence that cannot be meant, with one line that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flame.errors import InputError
from flame.model import HeadModel
from priors.evidence import DenseMaps
from tracker.state import FaceState

if TYPE_CHECKING:
    from tracker.reference_problem import DenseProblem

_SAMPLES = 64
"""Values are looked at in so many rows and columns at most."""
_LENGTHS = (0.9, 1.1)
"""Median length of normals; pictures that store (n + 1) / 2 lie far outside."""
_BEYOND = 0.5
"""So far may texture coordinates lie outside the head's own, in units of their extent."""


def check_problem(problem: DenseProblem) -> None:
    """Refuse a problem whose parts do not belong together.

    Raises:
        InputError: sizes differ, values are in other units, or the evidence speaks of another head.
    """
    maps, camera, head = problem.maps, problem.intrinsics, problem.head
    _check_shapes(maps)
    height, width = maps.mask.shape
    if (camera.width, camera.height) != (width, height):
        raise InputError(
            f"the camera is that of {camera.width} x {camera.height} pixels and the maps have {width} x {height}; "
            "give the camera of the maps"
        )
    if problem.foreground is not None and problem.foreground.shape != maps.mask.shape:
        raise InputError(f"the foreground has shape {problem.foreground.shape} and the maps {maps.mask.shape}")
    if not problem.seconds_since_previous > 0:
        raise InputError(f"the frame before was {problem.seconds_since_previous} s ago; more than 0 is possible")
    _check_values(maps, head)
    _check_points(problem)


def check_fit(head: HeadModel, problems: Sequence[DenseProblem], starts: Sequence[FaceState]) -> None:
    """Refuse images of another head, images without a start, and images that say nothing.

    Raises:
        InputError: as said.
    """
    if len(problems) != len(starts) or not problems:
        raise InputError(f"{len(problems)} images and {len(starts)} starts; every image needs one, and one at least")
    for index, (problem, start) in enumerate(zip(problems, starts, strict=True)):
        other = problem.head
        if other is not head and (other.num_vertices, other.num_shape) != (head.num_vertices, head.num_shape):
            raise InputError(
                f"image {index} is of head {other.name!r} with {other.num_vertices} vertices and {other.num_shape} "
                f"identity coefficients; the model is {head.name!r} with {head.num_vertices} and {head.num_shape}"
            )
        if start.expression.shape != (head.num_expression,):
            raise InputError(
                f"the start of image {index} has {start.expression.size} expression coefficients; head {head.name!r} "
                f"has {head.num_expression}"
            )
        if not _says_anything(problem):
            raise InputError(
                f"image {index} says nothing: its mask is empty or its maps are NaN there, no vertex was found in its "
                "texture map, and it has no landmarks"
            )


def _check_shapes(maps: DenseMaps) -> None:
    height_width = maps.mask.shape
    if maps.mask.ndim != 2 or maps.uv.shape != (*height_width, 2) or maps.normals.shape != (*height_width, 3):
        raise InputError(
            f"texture map, normal map and mask have shapes {maps.uv.shape}, {maps.normals.shape} and "
            f"{maps.mask.shape}; (H, W, 2), (H, W, 3) and (H, W) are expected"
        )
    if maps.mask.dtype != np.bool_:
        raise InputError(f"the mask holds {maps.mask.dtype}; it must be bool, True where the face is seen")
    if maps.normal_space not in ("camera", "head"):
        raise InputError(f"the normal space is {maps.normal_space!r}; 'camera' and 'head' are possible")


def _check_values(maps: DenseMaps, head: HeadModel) -> None:
    rows, columns = (np.arange(0, side, max(1, side // _SAMPLES)) for side in maps.mask.shape)
    chosen = np.ix_(rows, columns)
    normals, uv = (_told(values[chosen], maps.mask[chosen]) for values in (maps.normals, maps.uv))
    if len(normals):
        length = float(np.median(np.linalg.norm(normals, axis=1)))
        if not _LENGTHS[0] <= length <= _LENGTHS[1]:
            raise InputError(
                f"the normals' median length is {length:.3g}; unit vectors are expected "
                "(from a picture that stores (n + 1) / 2, take 2 p - 1)"
            )
    topology = head.topology
    if len(uv) and topology is not None and topology.uv is not None:
        lower, upper = topology.uv.min(axis=0), topology.uv.max(axis=0)
        margin = _BEYOND * (upper - lower)
        middle = np.median(uv, axis=0)
        if (middle < lower - margin).any() or (middle > upper + margin).any():
            raise InputError(
                f"the texture map's values lie about ({middle[0]:.3g}, {middle[1]:.3g}); those of head {head.name!r} "
                f"are between ({lower[0]:.3g}, {lower[1]:.3g}) and ({upper[0]:.3g}, {upper[1]:.3g}), origin bottom left"
            )


def _check_points(problem: DenseProblem) -> None:
    head, lookups = problem.head, problem.lookups
    if lookups.points_px.shape != (len(lookups.vertices), 2):
        raise InputError(f"{len(lookups.vertices)} vertices were looked up, at points {lookups.points_px.shape}")
    if len(lookups.vertices) and not 0 <= lookups.vertices.min() <= lookups.vertices.max() < head.num_vertices:
        raise InputError(
            f"vertex {lookups.vertices.max()} was looked up and head {head.name!r} has {head.num_vertices}: "
            "look up the vertices of this head"
        )
    surfaces = []
    for word, evidence in (("landmarks", problem.landmarks), ("irises", problem.irises)):
        if evidence is not None:
            surfaces.append((word, evidence.points, evidence.points_px))
    if problem.lids is not None:
        surfaces += [("lids", points, problem.lids.offset_px) for points in (problem.lids.upper, problem.lids.lower)]
    for word, points, points_px in surfaces:
        if points_px.shape != (len(points), 2):
            raise InputError(f"{word}: {len(points)} points on the head were seen at places {points_px.shape}")
        if len(points) and points.triangles.max() >= len(head.faces):
            raise InputError(
                f"{word}: triangle {points.triangles.max()} was named and head {head.name!r} has {len(head.faces)}"
            )


def _told(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the finite values (M, C) within a mask."""
    inside = values[mask]
    return inside[np.isfinite(inside).all(axis=1)]


def _says_anything(problem: DenseProblem) -> bool:
    maps = problem.maps
    points = [evidence.points_px for evidence in (problem.landmarks, problem.irises) if evidence is not None]
    if len(problem.lookups.vertices) or any(np.isfinite(each).all(axis=1).any() for each in points):
        return True
    return bool((maps.mask & (np.isfinite(maps.normals).all(axis=2) | np.isfinite(maps.uv).all(axis=2))).any())
