"""The paper's optimiser: Adam on the dense energy, a fixed number of steps. The solver is held to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from configs.schema import AdamConfig, EnergyConfig
from flame.camera import Intrinsics
from flame.errors import InputError
from flame.rasterizer import Backend
from tracker.reference_energy import ReferenceEnergy
from tracker.reference_problem import DenseProblem, Parameters, Unknowns
from tracker.state import FaceState

OnStep = Callable[[int, float], object]
"""Told after every step its number, from 1, and the energy before it."""


@dataclass(frozen=True, eq=False)
class AdamFit:
    """Hold where Adam ended."""

    states: tuple[FaceState, ...]
    """Pose, joint angles and expression in each image."""
    shape: np.ndarray
    """Identity coefficients, float64 (I,)."""
    cameras: tuple[Intrinsics, ...]
    """Camera of each image's maps."""
    log_focal: float
    """Logarithm of the factor on the expected focal lengths."""
    principal_point: np.ndarray
    """Offset from the expected principal points, float64 (2,), shares of the maps' longer side."""
    energies: np.ndarray
    """Energy before each step and after the last, float64 (steps + 1,)."""
    terms: dict[str, float]
    """Weighted terms after the last step, by name, summed over the images."""
    seconds: float
    """Time that the steps took, preparation of the evidence included."""


def fit_adam(
    problems: Sequence[DenseProblem],
    starts: Sequence[FaceState],
    energy: EnergyConfig,
    adam: AdamConfig,
    *,
    shape: np.ndarray | None = None,
    log_focal: float = 0.0,
    principal_point: np.ndarray | None = None,
    unknowns: Unknowns | None = None,
    backend: Backend = "cpu",
    on_step: OnStep | None = None,
) -> AdamFit:
    """Fit one person in one or more images by Adam; visibility is looked up anew in every step.

    The energy is that of `tracker.dense_solver.fit_dense`: the sum over the images, with what speaks of identity and
    principal point, which they share, counted once. No steps evaluate the start.

    Args:
        problems: what each image says; the anchor of the first is the person's.
        starts: where to begin, one state per image.
        energy: weights of the terms.
        adam: steps and learning rates.
        shape: identity coefficients (<= I,) to begin with; zero where missing.
        log_focal: logarithm of the factor on the focal lengths to begin with.
        principal_point: its offset to begin with, shares of the maps' longer side; zero by default.
        unknowns: what is solved for; by default what the paper solves for.
        backend: rasteriser back end.
        on_step: told of every step.

    Raises:
        InputError: there is no image or not one start for each, a state does not belong to the head, the rasteriser's
            back end cannot be used, or there are too many identity coefficients.
    """
    if len(problems) != len(starts) or not problems:
        raise InputError(f"{len(problems)} images and {len(starts)} starts; give at least one, as many of each")
    began = time.perf_counter()
    references = [
        ReferenceEnergy(problem, _without_shared(energy) if index else energy, backend)
        for index, problem in enumerate(problems)
    ]
    frames = _shared(
        [
            Parameters.at(problem, start, shape, log_focal, principal_point).with_gradients(unknowns or Unknowns())
            for problem, start in zip(problems, starts, strict=True)
        ]
    )
    energies = np.empty(adam.steps + 1)
    optimizer = torch.optim.Adam(_groups(frames, adam), foreach=True)
    for step in range(adam.steps):
        energies[step] = _descend(references, frames, optimizer)
        if on_step is not None:
            on_step(step + 1, float(energies[step]))
    terms = _terms(references, frames)
    energies[-1] = sum(terms.values())
    return _result(problems, frames, energies, terms, time.perf_counter() - began)


def _result(
    problems: Sequence[DenseProblem],
    frames: Sequence[Parameters],
    energies: np.ndarray,
    terms: dict[str, float],
    seconds: float,
) -> AdamFit:
    """Bring what was found out of torch."""
    cameras = [
        frame.intrinsics(problem.intrinsics, problem.size_px) for frame, problem in zip(frames, problems, strict=True)
    ]
    return AdamFit(
        states=tuple(frame.state() for frame in frames),
        shape=frames[0].shape.detach().cpu().numpy().astype(np.float64),
        cameras=tuple(cameras),
        log_focal=float(frames[0].log_focal.detach()),
        principal_point=frames[0].principal_point.detach().cpu().numpy().astype(np.float64),
        energies=energies,
        terms=terms,
        seconds=seconds,
    )


def _without_shared(energy: EnergyConfig) -> EnergyConfig:
    """Return the energy of a further image of a person, whose identity the first has already paid for."""
    return replace(energy, identity=0.0, identity_zero=0.0, mirror=0.0, principal_point=0.0)


def _shared(frames: Sequence[Parameters]) -> list[Parameters]:
    """Return the parameters of the images of one person, with one identity, focal factor and principal point."""
    first = frames[0]
    return [
        replace(frame, shape=first.shape, log_focal=first.log_focal, principal_point=first.principal_point)
        for frame in frames
    ]


def _descend(
    references: Sequence[ReferenceEnergy], frames: Sequence[Parameters], optimizer: torch.optim.Optimizer
) -> float:
    """Take one step and return the energy before it; one image's graph after the other, to save memory."""
    optimizer.zero_grad()
    energy = 0.0
    for reference, frame in zip(references, frames, strict=True):
        total = reference.total(frame)
        total.backward()
        energy += float(total.detach())
    optimizer.step()
    return energy


def _terms(references: Sequence[ReferenceEnergy], frames: Sequence[Parameters]) -> dict[str, float]:
    """Return the weighted terms by name, summed over the images."""
    sums: dict[str, float] = {}
    with torch.no_grad():
        for reference, frame in zip(references, frames, strict=True):
            for name, value in reference.terms(frame).items():
                sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def _groups(frames: Sequence[Parameters], adam: AdamConfig) -> list[dict[str, object]]:
    """Return the tensors that are solved for, each once, with their learning rates."""
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
    groups: list[dict[str, object]] = []
    for name, rate in rates.items():
        tensors: dict[int, Tensor] = {id(tensor): tensor for tensor in (getattr(frame, name) for frame in frames)}
        solved = [tensor for tensor in tensors.values() if tensor.requires_grad]
        if solved:
            groups.append({"params": solved, "lr": rate})
    return groups
