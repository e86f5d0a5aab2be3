"""The Levenberg-Marquardt loop: when to take a step, how far to trust the next one, and when to stop."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

INITIAL_DAMPING = 1e-8
DAMPING_GROWTH = 30.0
MAX_DAMPING = 1e6


class StopReason(enum.Enum):
    """Say why a solve ended."""

    CONVERGED = "no step is expected to lower the energy by more than the tolerance"
    MAX_ITERATIONS = "the largest number of iterations was reached"
    NO_DESCENT = "no step lowered the energy"
    NO_EVIDENCE = "nothing was seen, so the start was kept"


class HasEnergy(Protocol):
    """Hold the energy at a point, and whatever is needed to look for a step from there."""

    @property
    def energy(self) -> float:
        """Return the energy."""
        ...


Point = TypeVar("Point")
Linear = TypeVar("Linear", bound=HasEnergy)


@dataclass(frozen=True)
class Minimum(Generic[Point, Linear]):
    """Hold where a solve ended."""

    point: Point
    linear: Linear
    iterations: int
    reason: StopReason


def minimize(
    start: Point,
    linearize: Callable[[Point], Linear],
    propose: Callable[[Point, Linear, float], tuple[Point, float]],
    *,
    tolerance: float,
    max_iterations: int,
) -> Minimum[Point, Linear]:
    """Go downhill from ``start`` until nothing more is to be gained.

    Args:
        start: where to begin.
        linearize: return energy and normal equations at a point.
        propose: return the point after a step with a damping, and the energy that the step should save.
        tolerance: stop when a step should save less than this share of the energy.
        max_iterations: stop after so many steps, taken or refused.
    """
    point, linear, damping = start, linearize(start), INITIAL_DAMPING
    for iteration in range(1, max_iterations + 1):
        candidate, expected_gain = propose(point, linear, damping)
        if expected_gain < tolerance * linear.energy:
            return Minimum(point, linear, iteration, StopReason.CONVERGED)
        proposed = linearize(candidate)
        if proposed.energy < linear.energy:
            point, linear, damping = candidate, proposed, max(damping / DAMPING_GROWTH, INITIAL_DAMPING)
            continue
        damping *= DAMPING_GROWTH
        if damping > MAX_DAMPING:
            return Minimum(point, linear, iteration, StopReason.NO_DESCENT)
    return Minimum(point, linear, max_iterations, StopReason.MAX_ITERATIONS)
