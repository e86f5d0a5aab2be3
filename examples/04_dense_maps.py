"""Dense maps of your own: fit the head to texture coordinates and normals that any network has predicted.

Here they are rendered from a random person, and the normals disturbed; put yours in ``DenseMaps`` instead. The paper's
energy is minimised twice: by Levenberg-Marquardt, and by some of the paper's Adam steps.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from configs.presets import PAPER_ENERGY
from configs.schema import AdamConfig, SolverConfig
from flame import HeadModel, load_head
from flame.camera import Intrinsics
from priors.dense_rendering import render_dense_maps
from priors.evidence import DenseMaps
from tracker.adam import fit_adam
from tracker.dense_solver import DenseModel, fit_dense, start_from_lookups
from tracker.reference_problem import DenseProblem, Unknowns, look_up_vertices


def rendered_maps(head: HeadModel, camera: Intrinsics) -> DenseMaps:
    """Return maps of a random person; normals are off by 10 degrees."""
    rng = np.random.default_rng(5)
    verts = head.vertices(shape=torch.as_tensor(rng.normal(size=head.num_shape), dtype=head.dtype)).numpy()
    maps = render_dense_maps(head, verts * (1.0, -1.0, -1.0) + (0.0, 0.03, 0.6), camera)
    normals = maps.normals + rng.normal(0.0, np.radians(10) / np.sqrt(2), maps.normals.shape)
    return DenseMaps(maps.uv, normals / np.linalg.norm(normals, axis=-1, keepdims=True), maps.mask, "camera")


def main() -> None:
    """Fit the maps twice and compare."""
    parser = argparse.ArgumentParser(description="Fit the head to dense maps, by Levenberg-Marquardt and by Adam.")
    parser.add_argument("--steps", type=int, default=50, help="Adam's steps; the paper takes 500 (%(default)s)")
    options = parser.parse_args()
    head, camera = load_head(), Intrinsics.from_fov(30.0, 256, 256)
    maps = rendered_maps(head, camera)
    problem = DenseProblem(head, maps, camera, look_up_vertices(head, maps, PAPER_ENERGY.uv_max_distance))
    unknowns, model = Unknowns(log_focal=False, principal_point=False), DenseModel.of(head)
    start = start_from_lookups(model, problem)
    for most in (2, 40):  # The first time compiles.
        began = time.perf_counter()
        solver = SolverConfig(tolerance=1e-4)
        fit = fit_dense(model, [problem], [start], PAPER_ENERGY, solver, most, unknowns=unknowns)
    seconds = time.perf_counter() - began
    print(f"Levenberg-Marquardt: energy {fit.joint.energy:.1f} in {seconds:.2f} s, {fit.joint.iterations} iterations")
    print(f"  stopped: {fit.joint.reason.value}; strongest identity coefficient {np.abs(fit.shape).max():.1f}")
    began = time.perf_counter()
    adam = fit_adam([problem], [start], PAPER_ENERGY, AdamConfig(steps=options.steps), unknowns=unknowns)
    print(f"Adam: energy {adam.energies[-1]:.1f} in {time.perf_counter() - began:.2f} s, {options.steps} steps")


if __name__ == "__main__":
    main()
