"""Identity of the commons head: mean and 300 modes, from the source's sliders, a Gaussian process and real faces.

The covariance of the face is ``POPULATION_SHARE`` x (the population's, carried on to the rest of the head) + the
source's, shrunk + the Gaussian process. It is split into a symmetric and an antisymmetric part, made coherent at eyes
and mouth, freed of rigid motion of the face, and cut off at 300 modes where a metric that asks most of the face's
normal direction says least is lost. Coefficients have unit standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame.commons.coherence import couple_eyes, couple_mouth, deepen_cavity, eyes_of, mouth_of, remove_rigid
from flame.commons.kernels import carrier, low_rank_factors
from flame.commons.lips import close_lips
from flame.commons.mesh import rigid_motion, smooth, vertex_areas, vertex_normals
from flame.commons.population import Population, align
from flame.commons.sources import SourceHead

NUM_MODES = 300
POPULATION_SHARE = 0.6
SOURCE_VARIANCE = {1: 0.15, -1: 0.30}
"""How much of the variance of the source's sampled heads is kept, symmetric (1) and antisymmetric (-1)."""
PROCESS_VARIANCE = {1: 1.0, -1: 0.12}
"""Share of the Gaussian process in the symmetric and in the antisymmetric part."""
SOURCE_MODES = {1: 150, -1: 40}
INDUCING_POINTS = 400
OBSERVATION_NOISE = 3e-4
"""How exactly the population's figures hold on a vertex, metres."""
TANGENTIAL = 0.25
"""Weight of displacement along the surface, relative to displacement out of it, in choosing the modes."""
IMPORTANCE = (
    *(("face", 1.0), ("lips", 1.5), ("nose", 1.5), ("eyelids", 1.5), ("ears", 0.1), ("scalp", 0.1)),
    *(("neck", 0.05), ("eyes", 0.01), ("eye_sockets", 0.01), ("inner_mouth", 0.01)),
)
"""Weight of an area of each region in choosing the modes; later ones win."""


@dataclass(frozen=True)
class SourceStatistics:
    """Hold mean and principal modes of the source's sampled heads, aligned on the face."""

    mean: np.ndarray
    """Symmetric mean (V, 3), metres."""
    modes: dict[int, np.ndarray]
    """Symmetric (1) and antisymmetric (-1) modes, one standard deviation each (K, V, 3), metres."""


@dataclass(frozen=True)
class Identity:
    """Hold mean and modes of the head."""

    mean: np.ndarray
    """Mean head (V, 3), metres."""
    modes: np.ndarray
    """Displacement of one standard deviation of each coefficient (300, V, 3), metres."""
    num_symmetric: int
    """So many modes are symmetric; the others, after them, are antisymmetric."""


def source_statistics(source: SourceHead, samples: np.ndarray, face: np.ndarray) -> SourceStatistics:
    """Align sampled heads (N, V, 3) on the face (V,) and take their principal modes."""
    mean = source.vertices
    for _ in range(2):
        motions = [rigid_motion(sample[face], mean[face]) for sample in samples]
        aligned = np.stack([sample @ turn.T + shift for sample, (turn, shift) in zip(samples, motions, strict=True)])
        mean = aligned.mean(axis=0)
        mean = 0.5 * (mean + source.reflect(mean))
    deviations = aligned - mean
    reflected = source.reflect(deviations)
    modes = {}
    for parity in (1, -1):
        flat = (0.5 * (deviations + parity * reflected)).reshape(len(samples), -1)
        values, vectors = np.linalg.eigh(flat @ flat.T)
        vectors = vectors[:, ::-1][:, : SOURCE_MODES[parity]]
        modes[parity] = (vectors.T @ flat / np.sqrt(len(samples))).reshape(-1, *mean.shape)
    return SourceStatistics(mean, modes)


def build_identity(
    source: SourceHead,
    statistics: SourceStatistics,
    population: Population,
    regions: dict[str, np.ndarray],
    jaw_weight: np.ndarray,
) -> Identity:
    """Combine the three sources of variation into the mean and 300 modes.

    Args:
        source: The source head.
        statistics: Mean and modes of the source's sampled heads.
        population: Figures of a population of faces.
        regions: Vertex masks by name.
        jaw_weight: How much each vertex follows the jaw (V,).
    """
    on = carrier(statistics.mean, source.faces, source.mirror, regions)
    process = low_rank_factors(on, source.mirror, regions["face"], INDUCING_POINTS)
    factors = {
        parity: np.concatenate(
            (
                np.sqrt(SOURCE_VARIANCE[parity]) * statistics.modes[parity],
                np.sqrt(PROCESS_VARIANCE[parity]) * process[0 if parity == 1 else 1],
            )
        )
        for parity in (1, -1)
    }
    mean = _mean_head(source, statistics, population, regions, factors[1], jaw_weight)
    eyes = eyes_of(mean, source.faces, source.parts, regions)
    mouth = mouth_of(mean, source.faces, regions)
    root_metric = np.sqrt(_area_weights(source, mean, regions))
    normals = vertex_normals(mean, source.faces)
    found = {}
    for parity, variations in ((1, population.symmetric), (-1, population.antisymmetric)):
        carried = extend(factors[parity], population.members, variations)
        factor = np.concatenate((np.sqrt(POPULATION_SHARE) * carried, factors[parity]))
        factor = couple_mouth(couple_eyes(factor, mean, eyes), mouth)
        factor = remove_rigid(factor, mean, np.flatnonzero(regions["face"]))
        factor = 0.5 * (factor + parity * source.reflect(factor))
        found[parity] = _principal(factor, root_metric, normals)
    values = np.concatenate((found[1][0], found[-1][0]))
    kept = np.argsort(-values)[:NUM_MODES]
    num_symmetric = int((kept < len(found[1][0])).sum())
    modes = np.concatenate((found[1][1][:num_symmetric], found[-1][1][: NUM_MODES - num_symmetric]))
    return Identity(mean, modes, num_symmetric)


def extend(factor: np.ndarray, members: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Carry displacements of some vertices (K, O, 3) on to all (K, V, 3): their conditional mean under a factor."""
    known = factor[:, members].reshape(len(factor), -1)
    system = known @ known.T + OBSERVATION_NOISE**2 * np.eye(len(factor))
    amounts = np.linalg.solve(system, known @ values.reshape(len(values), -1).T)
    return np.tensordot(amounts.T, factor, axes=1)


def _mean_head(
    source: SourceHead,
    statistics: SourceStatistics,
    population: Population,
    regions: dict[str, np.ndarray],
    factor: np.ndarray,
    jaw_weight: np.ndarray,
) -> np.ndarray:
    """Return the source's mean head with the population's mean face (V, 3)."""
    start = statistics.mean
    offset = align(population.mean[None], start[population.members], rounds=1)[0] - start[population.members]
    shift = extend(factor, population.members, offset[None])
    shift = couple_eyes(shift, start, eyes_of(start, source.faces, source.parts, regions))
    shift = couple_mouth(shift, mouth_of(start, source.faces, regions))[0]
    mean = start + 0.5 * (shift + source.reflect(shift))
    mean = close_lips(mean, source.faces, source.mirror, regions["lips"], jaw_weight)
    return deepen_cavity(mean, mouth_of(mean, source.faces, regions))


def _area_weights(source: SourceHead, mean: np.ndarray, regions: dict[str, np.ndarray]) -> np.ndarray:
    """Return the weight of each vertex in choosing the modes (V,)."""
    importance = np.full(len(mean), 0.05)
    for name, value in IMPORTANCE:
        importance[regions[name]] = value
    importance = smooth(importance, source.faces, passes=3)
    return 0.5 * (importance + importance[source.mirror]) * vertex_areas(mean, source.faces)


def _principal(factor: np.ndarray, root_metric: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading modes of a factor (R, V, 3) in the metric of the face, and how much each matters."""
    out_of_surface = (factor * normals).sum(axis=2) * root_metric
    along = (np.sqrt(TANGENTIAL) * root_metric[:, None] * factor).reshape(len(factor), -1)
    values, vectors = np.linalg.eigh(out_of_surface @ out_of_surface.T + along @ along.T)
    values, vectors = values[::-1][:NUM_MODES], vectors[:, ::-1][:, :NUM_MODES]
    modes = np.tensordot(vectors.T, factor, axes=1)
    largest = np.abs(modes).reshape(len(modes), -1).argmax(axis=1)
    signs = np.sign(modes.reshape(len(modes), -1)[np.arange(len(modes)), largest])
    return values, modes * signs[:, None, None]
