"""Figures of a population of real faces, on this head's vertices: mean and principal variations of the face.

They are measured once from registered faces and kept in ``population.npz``, so that the asset can be built without the
faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame.closest_point import closest_on_mesh
from flame.commons.asset import quantise
from flame.commons.fitting import FitOptions, LinearHead, find_start, fit_scan
from flame.commons.kernels import REFLECT
from flame.commons.mesh import boundary_vertices, rigid_motion
from flame.errors import InputError

POPULATION_FILE = Path(__file__).with_name("population.npz")
HELD_OUT_SHARE = 3
"""One face in so many is kept for measuring and is no part of the figures."""
REGISTRATION = FitOptions(free_scale=False, stages=(30.0, 10.0, 3.0, 2.0, 2.0))
MAX_GAP = 0.002
"""Distance from the population's surface up to which a vertex counts as covered by it, metres."""


@dataclass(frozen=True)
class Population:
    """Hold the figures of the population on the covered vertices, metres."""

    members: np.ndarray
    """Covered vertices, symmetric as a set (O,)."""
    mean: np.ndarray
    """Mean place of each (O, 3), symmetric."""
    symmetric: np.ndarray
    """Principal symmetric variations, one standard deviation each (K, O, 3)."""
    antisymmetric: np.ndarray
    """Principal antisymmetric variations, one standard deviation each (L, O, 3)."""


def held_out(count: int) -> np.ndarray:
    """Return which faces of the population are kept for measuring, bool (count,)."""
    chosen = np.random.default_rng(0).permutation(count)[: count // HELD_OUT_SHARE]
    return np.isin(np.arange(count), chosen)


def read_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a population file: faces of one topology, aligned with each other, metres (N, P, 3), and triangles (T, 3).

    Raises:
        InputError: The file does not hold ``v`` (N, P, 3) in millimetres and ``f`` (T, 3).
    """
    with np.load(path, allow_pickle=False) as data:
        if "v" not in data or "f" not in data or data["v"].ndim != 3:
            raise InputError(
                f"{path} is no population file: arrays v (faces, points, 3) in millimetres and f are needed"
            )
        faces, triangles = data["v"].astype(np.float64) * 1e-3, data["f"].astype(np.int64)
    return align(faces, faces[0]), triangles


def align(shapes: np.ndarray, reference: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Move shapes (N, P, 3) rigidly onto their common mean, which starts as ``reference`` (P, 3)."""
    for _ in range(rounds):
        motions = [rigid_motion(shape, reference) for shape in shapes]
        shapes = np.stack([shape @ turn.T + shift for shape, (turn, shift) in zip(shapes, motions, strict=True)])
        reference = shapes.mean(axis=0)
    return shapes


def measure_population(head: LinearHead, mirror: np.ndarray, skipped: np.ndarray, path: Path) -> Population:
    """Register the head to a population file and measure mean and variations on the faces not held out.

    One registration, to the mean face, serves all, because the faces share a topology.

    Args:
        head: Mean and symmetric modes of the source's heads, and the vertices that may be matched.
        mirror: Mirror map (V,).
        skipped: Vertices whose counterpart on the population's faces is not known, bool (V,): the lids.
        path: The population file.
    """
    shapes, triangles = read_faces(path)
    mean = shapes.mean(axis=0)
    fit = fit_scan(head, mean, triangles, find_start(head, mean), REGISTRATION)
    match = closest_on_mesh(head.vertices(fit.coefficients), fit.scan, triangles)
    at_edge = np.isin(triangles, boundary_vertices(triangles)).any(axis=1)[match.triangle]
    covered = head.region & ~skipped & ~at_edge & (match.distance < MAX_GAP)
    members = np.flatnonzero(covered & covered[mirror])
    placed = align(shapes[~held_out(len(shapes))], fit.scan, rounds=1)
    points = np.einsum("ok,nokc->noc", match.barycentric[members], placed[:, triangles[match.triangle[members]]])
    partner = np.searchsorted(members, mirror[members])
    points = align(points, points.mean(axis=0))
    centre = points.mean(axis=0)
    symmetric_mean = 0.5 * (centre + centre[partner] * REFLECT)
    deviations = align(points, symmetric_mean, rounds=1) - symmetric_mean
    deviations -= deviations.mean(axis=0)
    reflected = deviations[:, partner] * REFLECT
    return Population(
        members,
        symmetric_mean,
        _principal(0.5 * (deviations + reflected), 0.99),
        _principal(0.5 * (deviations - reflected), 0.95),
    )


def _principal(fields: np.ndarray, explained: float) -> np.ndarray:
    """Return the principal variations of fields (N, O, 3) that explain a share of their variance (K, O, 3)."""
    flat = fields.reshape(len(fields), -1)
    _, values, vectors = np.linalg.svd(flat, full_matrices=False)
    share = np.cumsum(values**2) / (values**2).sum()
    count = int(np.searchsorted(share, explained)) + 1
    scaled = vectors[:count] * (values[:count, None] / np.sqrt(len(fields)))
    return scaled.reshape(count, -1, 3)


def save_population(population: Population, path: Path = POPULATION_FILE) -> None:
    """Write the figures as 16-bit integers with one scale per field."""
    stored = {"members": population.members.astype(np.int32), "mean": population.mean.astype(np.float32)}
    for name in ("symmetric", "antisymmetric"):
        stored[f"{name}_q"], stored[f"{name}_scale"] = quantise(getattr(population, name))
    np.savez_compressed(path, **stored)


def load_population(path: Path = POPULATION_FILE) -> Population:
    """Read the figures back."""
    with np.load(path, allow_pickle=False) as data:
        fields = [
            (data[f"{name}_q"] * data[f"{name}_scale"][:, None].astype(np.float64)).reshape(
                len(data[f"{name}_q"]), -1, 3
            )
            for name in ("symmetric", "antisymmetric")
        ]
        return Population(data["members"].astype(np.int64), data["mean"].astype(np.float64), *fields)
