"""The paper's optimiser: Adam on the dense energy, a fixed number of steps. The solver is held to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from configs.schema import AdamConfig, EnergyConfig
from flame.camera import Intrinsics
from flame.rasterizer import Backend
from tracker.reference_energy import ReferenceEnergy
from tracker.reference_problem import DenseProblem, Parameters, Unknowns
from tracker.state import FaceState

OnStep = Callable[[int, float], object]
"""Told after every step its number, from 1, and the energy before it."""


@dataclass(frozen=True, eq=False)
class AdamFit:
    """Hold where Adam ended."""

    state: FaceState
    """Pose, joint angles and expression."""
    shape: np.ndarray
    """Identity coefficients, float64 (I,)."""
    camera: Intrinsics
    """Camera of the maps."""
    log_focal: float
    """Logarithm of the factor on the expected focal lengths."""
    principal_point: np.ndarray
    """Offset from the expected principal point, float64 (2,), shares of the maps' longer side."""
    energies: np.ndarray
    """Energy before each step and after the last, float64 (steps + 1,)."""
    terms: dict[str, float]
    """Weighted terms after the last step, by name."""
    seconds: float
    """Time that the steps took, preparation of the evidence included."""


def fit_adam(
    problem: DenseProblem,
    start: Parameters,
    energy: EnergyConfig,
    adam: AdamConfig,
    *,
    unknowns: Unknowns | None = None,
    backend: Backend = "cpu",
    on_step: OnStep | None = None,
) -> AdamFit:
    """Minimise the energy from ``start`` (see `Parameters.at`) by Adam; visibility is looked up anew in every step.

    Raises:
        InputError: the rasteriser's back end cannot be used, or the anchor has too many coefficients.
    """
    began = time.perf_counter()
    reference = ReferenceEnergy(problem, energy, backend)
    parameters = start.with_gradients(Unknowns() if unknowns is None else unknowns)
    optimizer = torch.optim.Adam(_groups(parameters, adam), foreach=True)
    energies = np.empty(adam.steps + 1)
    for step in range(adam.steps):
        optimizer.zero_grad()
        total = reference.total(parameters)
        total.backward()
        optimizer.step()
        energies[step] = float(total.detach())
        if on_step is not None:
            on_step(step + 1, float(energies[step]))
    with torch.no_grad():
        terms = {name: float(value) for name, value in reference.terms(parameters).items()}
    energies[-1] = sum(terms.values())
    return AdamFit(
        state=parameters.state(),
        shape=parameters.shape.detach().cpu().numpy().astype(np.float64),
        camera=parameters.intrinsics(problem.intrinsics, problem.size_px),
        log_focal=float(parameters.log_focal.detach()),
        principal_point=parameters.principal_point.detach().cpu().numpy().astype(np.float64),
        energies=energies,
        terms=terms,
        seconds=time.perf_counter() - began,
    )


def _groups(parameters: Parameters, adam: AdamConfig) -> list[dict[str, object]]:
    rates = {
        "shape": adam.identity_rate,
        "expression": adam.expression_rate,
        "neck": adam.joint_rate,
        "jaw": adam.joint_rate,
        "eyes": adam.joint_rate,
        "rotation": adam.rotation_rate,
        "translation": adam.translation_rate,
        "log_focal": adam.focal_rate,
        "principal_point": adam.principal_point_rate,
    }
    tensors = {name: getattr(parameters, name) for name in rates}
    return [{"params": [tensor], "lr": rates[name]} for name, tensor in tensors.items() if tensor.requires_grad]
