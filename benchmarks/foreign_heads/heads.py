"""Heads with known truth: surface points of the face's skin, landmarks, and the commons head registered to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flame.closest_point import ClosestPoint
from flame.commons.fitting import FitOptions, find_start, fit_scan
from flame.commons.mesh import averaging_matrix, boundary_vertices, vertex_normals
from flame.commons.population import held_out, read_faces
from flame.commons.report import linear_head
from flame.landmarks import NOW
from flame.model import HeadModel
from flame.surface import SurfacePoints
from flame.surface_error import similarity_of
from foreign_heads.files import Mesh, read_avatar, read_scan_mesh

POPULATION = "d5_population45"
AVATAR = "d6_arkit_avatar"
SMILE = "d1_laser_smile"
OTHER_SCANS = ("d2_dummyhead", "d3_hrtf_head")
NEUTRAL = "neutral"
AVATAR_POSES: Mapping[str, Mapping[str, float]] = {
    NEUTRAL: {},
    "smile": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4},
    "jaw open": {"jawOpen": 0.6},
    "pucker": {"mouthPucker": 0.9},
    "frown": {"browDownLeft": 0.8, "browDownRight": 0.8, "mouthFrownLeft": 0.7, "mouthFrownRight": 0.7},
    "surprise": {"browInnerUp": 0.9, "eyeWideLeft": 0.6, "eyeWideRight": 0.6, "jawOpen": 0.35},
}
"""ARKit coefficients of the avatar's pictures."""

_NUM_POINTS = 3000
_MAX_SNAP, _MAX_GAP = 0.003, 0.006
_REGISTRATION_STAGES = (30.0, 5.0, 1.5, 1.0)
_REGISTRATION_ROUNDS = 3


@dataclass(frozen=True)
class Truth:
    """Hold what is true of a head in one pose, in the frame of the registered head."""

    points: np.ndarray
    """Points on the face's skin, evenly spread (N, 3), metres."""
    normals: np.ndarray
    """Their unit normals (N, 3)."""
    landmarks: np.ndarray
    """The seven landmarks of the benchmarks (7, 3), metres."""


@dataclass(frozen=True)
class ForeignHead:
    """Hold a head that is not the model."""

    name: str
    group: str
    """The set that it belongs to."""
    parts: tuple[Mesh, ...]
    """Meshes in the model's frame; the first is the face, in its topology."""
    skin: SurfacePoints
    """Points of the face that are compared."""
    landmarks: SurfacePoints
    """The seven landmarks on the face's mesh."""
    registered: np.ndarray
    """The commons head's vertices (V, 3), metres, lying on the first part's surface where that is a face."""
    poses: Mapping[str, Mapping[str, float]]
    """Blend-shape weights by the pose's name."""
    has_own_colors: bool = False
    """Whether pictures show the parts themselves, not the registered head painted."""

    def truth(self, pose: str) -> Truth:
        """Return the true points in a pose."""
        face = self.parts[0]
        vertices = face.posed(self.poses[pose])
        points, landmarks = (surface.on(vertices, face.faces) for surface in (self.skin, self.landmarks))
        normals = self.skin.on(vertex_normals(vertices, face.faces), face.faces)
        return Truth(points, normals / np.linalg.norm(normals, axis=1, keepdims=True), landmarks)


def population_heads(path: Path, model: HeadModel, *, kept: bool = True) -> Iterator[ForeignHead]:
    """Yield the faces of a population file: those held out of all calibration, or the others."""
    shapes, faces = read_faces(path)
    for index in np.flatnonzero(held_out(len(shapes)) == kept):
        mesh = Mesh(shapes[index], faces)
        yield _registered(f"{index}", path.stem, {"face": mesh}, model, FitOptions(False), {NEUTRAL: {}})


def scanned_head(path: Path, model: HeadModel, *, pose: str = NEUTRAL) -> ForeignHead:
    """Read one scan; ``pose`` names what its face does."""
    with np.load(path, allow_pickle=False) as data:
        is_metric = bool(data["metric"])
    mesh = read_scan_mesh(path)
    return _registered(path.stem, path.stem, {"face": mesh}, model, FitOptions(not is_metric), {pose: {}})


def avatar_head(path: Path, model: HeadModel) -> ForeignHead:
    """Read an avatar with ARKit blend shapes; its glasses are taken off."""
    meshes = read_avatar(path)
    words = ("Head", "EyeLeft", "EyeRight", "Teeth", "Hair")
    parts = {word: mesh for word in words for name, mesh in meshes.items() if name.endswith(word)}
    return _registered(path.stem, path.stem, parts, model, FitOptions(False), AVATAR_POSES)


def random_heads(model: HeadModel, count: int, seed: int = 5) -> Iterator[ForeignHead]:
    """Yield random heads of the model itself, for want of better."""
    generator = np.random.default_rng(seed)
    assert model.topology is not None
    faces = model.topology.faces
    landmarks = model.topology.landmarks(NOW)
    for index in range(count):
        shape = torch.as_tensor(generator.normal(0.0, 1.0, model.num_shape), dtype=model.dtype)
        vertices = model.vertices(shape=shape).numpy().astype(np.float64)
        skin = _spread(vertices, faces, _skin_triangles(model), _NUM_POINTS)
        mesh = Mesh(vertices, faces)
        yield ForeignHead(f"{index}", "random heads", (mesh,), skin, landmarks, vertices, {NEUTRAL: {}})


def _registered(
    name: str,
    group: str,
    parts: dict[str, Mesh],
    model: HeadModel,
    options: FitOptions,
    poses: Mapping[str, Mapping[str, float]],
) -> ForeignHead:
    """Register the commons head to the first part and bring all parts into its frame."""
    face = next(iter(parts.values()))
    head = linear_head(model, with_expression=NEUTRAL not in poses)
    quick = FitOptions(options.free_scale, _REGISTRATION_STAGES, _REGISTRATION_ROUNDS)
    fit = fit_scan(head, face.vertices, face.faces, find_start(head, face.vertices), quick)
    move = similarity_of(face.vertices, fit.scan)
    moved = tuple(
        Mesh(
            move(part.vertices),
            part.faces,
            part.uv,
            part.texture,
            {key: move.scale * shape @ move.rotation.T for key, shape in part.shapes.items()},
        )
        for part in parts.values()
    )
    assert model.topology is not None
    on_scan = ClosestPoint(moved[0].vertices, moved[0].faces)
    vertices = _snapped(head.vertices(fit.coefficients), on_scan, model)
    landmarks = on_scan(model.topology.landmarks(NOW).on(vertices, model.topology.faces)).surface
    skin = _spread(moved[0].vertices, moved[0].faces, _skin_of_scan(moved[0], vertices, model), _NUM_POINTS)
    return ForeignHead(name, group, moved, skin, landmarks, vertices, poses, has_own_colors=len(moved) > 1)


def _snapped(vertices: np.ndarray, on_scan: ClosestPoint, model: HeadModel) -> np.ndarray:
    """Move the face's vertices onto a scan's surface, smoothly; lids and the inside of the mouth stay as fitted."""
    assert model.topology is not None
    faces = model.topology.faces
    match = on_scan(vertices)
    at_edge = np.isin(on_scan.faces, boundary_vertices(on_scan.faces)).any(axis=1)[match.triangle]
    movable = model.topology.region("face") & ~model.topology.region("eyelids", "inner_mouth") & ~at_edge
    movable &= match.distance < _MAX_SNAP
    share = movable.astype(np.float64)
    average = averaging_matrix(faces, len(vertices))
    for _ in range(2):
        share = np.minimum(share, average @ share)
    return vertices + share[:, None] * (match.point - vertices)


def _skin_triangles(model: HeadModel) -> np.ndarray:
    """Return which of the model's triangles are skin of the face away from eyes and mouth cavity, bool (F,)."""
    assert model.topology is not None
    topology = model.topology
    is_inside = topology.region("inner_mouth") & ~topology.region("lips")
    allowed = topology.region("face") & ~topology.region("eyelids", "eyes", "eye_sockets") & ~is_inside
    return allowed[topology.faces].all(axis=1)


def _skin_of_scan(scan: Mesh, registered: np.ndarray, model: HeadModel) -> np.ndarray:
    """Return which triangles of a scan lie on the skin of the registered head's face, bool (M,)."""
    assert model.topology is not None
    faces = model.topology.faces
    match = ClosestPoint(registered, faces)(scan.vertices)
    corners = registered[faces[match.triangle]]
    planes = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cosine = (planes * vertex_normals(scan.vertices, scan.faces)).sum(axis=1) / np.linalg.norm(planes, axis=1)
    is_skin = _skin_triangles(model)[match.triangle] & (cosine > 0.3) & (match.distance < _MAX_GAP)
    return is_skin[scan.faces].all(axis=1)


def _spread(vertices: np.ndarray, faces: np.ndarray, chosen: np.ndarray, count: int) -> SurfacePoints:
    """Return points evenly spread over the chosen triangles: every triangle gets its share of the area."""
    triangles = np.flatnonzero(chosen)
    corners = vertices[faces[triangles]]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    generator = np.random.default_rng(0)
    places = (np.arange(count) + generator.uniform(size=count)) / count * area.sum()
    picked = np.searchsorted(np.cumsum(area), places).clip(max=len(triangles) - 1)
    first, second = np.sqrt(generator.uniform(size=count)), generator.uniform(size=count)
    weights = np.column_stack((1 - first, first * (1 - second), first * second))
    return SurfacePoints(triangles[picked], weights)
