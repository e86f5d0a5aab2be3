"""Solve heads from exact dense maps: what is left when the evidence is perfect and only the model is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from configs.presets import DENSE_ENERGY
from configs.schema import SolverConfig
from flame.model import HeadModel
from foreign_heads.photos import Photo
from priors.dense_rendering import render_dense_maps
from tracker.dense_solver import DenseModel, fit_dense, start_from_lookups
from tracker.reference_problem import DenseProblem, Unknowns, look_up_vertices

_ENERGY = replace(DENSE_ENERGY, iris=0.0, eyes=0.0)
"""The tracker's own for good maps; eyes are not on them."""
_SOLVER, _ITERATIONS = SolverConfig(tolerance=1e-4), 30


@dataclass(frozen=True)
class Solved:
    """Hold what exact maps gave."""

    neutral: np.ndarray
    """Neutral head (V, 3), metres, head space."""
    posed: np.ndarray
    """Head with expression and jaw (V, 3), metres, head space."""
    expression: np.ndarray
    """Expression coefficients (E,)."""
    jaw_rad: float
    """Angle by which the jaw is open."""


class ExactMaps:
    """Render maps of the registered head in a photo's camera and solve them."""

    def __init__(self, head: HeadModel) -> None:
        """Prepare a head for the solver."""
        self._head, self._model = head, DenseModel.of(head, num_threads=1)

    def solve(self, photo: Photo, *, is_camera_known: bool = True) -> Solved:
        """Solve one photo; the maps show the registered head, whatever the photo's own geometry."""
        head = self._head
        maps = render_dense_maps(head, photo.registered_cam, photo.intrinsics)
        lookups = look_up_vertices(head, maps, _ENERGY.uv_max_distance, _ENERGY.uv_is_subpixel)
        problem = DenseProblem(head, maps, photo.intrinsics, lookups)
        unknowns = Unknowns(log_focal=not is_camera_known, principal_point=False)
        start = start_from_lookups(self._model, problem)
        fit = fit_dense(self._model, [problem], [start], _ENERGY, _SOLVER, _ITERATIONS, unknowns=unknowns)
        state, shape = fit.states[0], _tensor(fit.shape, head)
        return Solved(
            neutral=head.vertices(shape=shape).numpy().astype(np.float64),
            posed=head.vertices(
                shape=shape, expression=_tensor(state.expression, head), jaw=_tensor(state.joint_angles[3:6], head)
            )
            .numpy()
            .astype(np.float64),
            expression=state.expression,
            jaw_rad=float(state.joint_angles[3]),
        )


def _tensor(values: np.ndarray, head: HeadModel) -> torch.Tensor:
    return torch.as_tensor(values, dtype=head.dtype)
