"""Levenberg-Marquardt with IRLS for many independent frames at once; identity and camera are given.

Every frame has its own damping, accepts or refuses its own steps and stops for its own reason, as in
``tracker.solver.fit_frame``, whose result this is to rounding. What frames share is only the work: one product for all.
A GPU waits for the host once in an iteration, to hear whether any frame is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from configs.schema import SolverConfig
from flame.errors import InputError
from flame.surface import SurfaceRig
from tracker.active_set import MAX_ROUNDS
from tracker.batched.normal_equations import BatchedFrames, BatchedNormal, BatchedStates, linearize
from tracker.batched.rig import BatchedRig
from tracker.levenberg_marquardt import DAMPING_GROWTH, INITIAL_DAMPING, MAX_DAMPING, StopReason
from tracker.priors import StatePrior
from tracker.solver import FrameFit
from tracker.state import NUM_RIGID, FaceState, View
from tracker.terms import Whitening

REASONS = (StopReason.MAX_ITERATIONS, StopReason.CONVERGED, StopReason.NO_DESCENT, StopReason.NO_EVIDENCE)
"""What ``BatchedFit.reason`` counts."""
_MAX_ITERATIONS, _CONVERGED, _NO_DESCENT, _NO_EVIDENCE = range(len(REASONS))
_MAX_BATCH = 128

Record = TypeVar("Record", BatchedFrames, BatchedStates, BatchedNormal, "_Search")


@dataclass(frozen=True)
class BatchedFit:
    """Hold the solutions of B frames."""

    states: BatchedStates
    normal: BatchedNormal
    """Energies and normal equations at the solutions."""
    iterations: torch.Tensor
    """Int64 (B,)."""
    reason: torch.Tensor
    """Why each frame stopped, int64 (B,), indices into ``REASONS``."""

    @property
    def residual_px(self) -> torch.Tensor:
        """Return the distance of every point from where it was seen, (B, N), pixels."""
        return torch.linalg.vector_norm(self.normal.error_px, dim=-1)


@dataclass(frozen=True)
class _Search:
    """Hold how far the frames have got that are still at work, or all of them."""

    frame: torch.Tensor
    damping: torch.Tensor
    iterations: torch.Tensor
    reason: torch.Tensor
    is_running: torch.Tensor


def fit_frames(
    rig: SurfaceRig,
    whitenings: Sequence[Whitening],
    starts: Sequence[FaceState],
    priors: StatePrior | Sequence[StatePrior],
    views: View | Sequence[View],
    config: SolverConfig,
    max_iterations: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    max_batch: int = _MAX_BATCH,
) -> list[FrameFit]:
    """Find the states of one person's face in many frames, as ``tracker.solver.fit_frame`` does for one.

    For frames that need not wait for each other: photographs, keyframes, a clip whose starts are known.

    Args:
        rig: the person's surface points.
        whitenings: the evidence of each frame; all frames have the rig's N points, absent ones have zero matrices.
        starts: where to begin.
        priors: one for all frames or one each.
        views: one camera for all frames or one each.
        config: tolerance and robust width.
        max_iterations: most steps of a frame, taken or refused.
        device: where to compute.
        dtype: float64 agrees with the streaming solver; float32 is faster on most GPUs.
        max_batch: frames held at once; a frame takes about 40 N (18 + E) numbers.

    Raises:
        InputError: the sequences differ in length, or a frame has another number of points than the rig.
    """
    count = len(whitenings)
    prior_list = [priors] * count if isinstance(priors, StatePrior) else list(priors)
    view_list = [views] * count if isinstance(views, View) else list(views)
    _check_frames(rig, whitenings, starts, prior_list, view_list)
    batched_rig = BatchedRig.of(rig, device, dtype)
    fits: list[FrameFit] = []
    for first in range(0, count, max_batch):
        part = slice(first, first + max_batch)
        frames = BatchedFrames.of(whitenings[part], prior_list[part], view_list[part], device, dtype)
        start = BatchedStates.of(starts[part], device, dtype)
        fits += _one_by_one(minimize_frames(batched_rig, frames, start, config, max_iterations))
    return fits


def _check_frames(
    rig: SurfaceRig,
    whitenings: Sequence[Whitening],
    starts: Sequence[FaceState],
    priors: Sequence[StatePrior],
    views: Sequence[View],
) -> None:
    """Refuse frames that do not belong together."""
    count = len(whitenings)
    if not (count == len(starts) == len(priors) == len(views)):
        raise InputError(
            f"frames need one start, prior and view each; got {count} frames, {len(starts)} starts, "
            f"{len(priors)} priors, {len(views)} views"
        )
    for whitening in whitenings:
        if len(whitening.points_px) != rig.num_points:
            raise InputError(f"the rig has {rig.num_points} points; a frame has {len(whitening.points_px)}")


def minimize_frames(
    rig: BatchedRig, frames: BatchedFrames, start: BatchedStates, config: SolverConfig, max_iterations: int
) -> BatchedFit:
    """Go downhill in every frame from its start; everything stays on the device of the arguments."""
    states, normal = start, linearize(rig, frames, start, config.robust_width)
    search = _search_all(start, frames.has_evidence)
    all_states, all_normal, all_search = states, normal, search
    for iteration in range(1, max_iterations + 1):
        delta, gain, is_solved = bounded_steps(normal, states, frames, search.damping)
        is_done = search.is_running & is_solved & (gain < config.tolerance * normal.energy)
        candidate = states.step(delta, frames)
        proposed = linearize(rig, frames, candidate, config.robust_width)
        is_better = search.is_running & is_solved & ~is_done & (proposed.energy < normal.energy)
        states, normal = _where(is_better, candidate, states), _where(is_better, proposed, normal)
        search = _advance(search, iteration, is_done, is_better)
        # The one wait for the device in an iteration. Frames that are done are put away when they are the majority.
        num_running = int(search.is_running.sum())
        if 2 * num_running <= len(search.frame):
            all_states, all_normal = _put(all_states, search.frame, states), _put(all_normal, search.frame, normal)
            all_search = _put(all_search, search.frame, search)
            if num_running == 0:
                break
            rows = search.is_running.nonzero()[:, 0]
            states, normal, search = _take(states, rows), _take(normal, rows), _take(search, rows)
            frames = _take(frames, rows)
    all_states, all_normal = _put(all_states, search.frame, states), _put(all_normal, search.frame, normal)
    all_search = _put(all_search, search.frame, search)
    return BatchedFit(all_states, all_normal, all_search.iterations, all_search.reason)


def bounded_steps(
    normal: BatchedNormal, states: BatchedStates, frames: BatchedFrames, damping: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return damped steps (B, D) within bounds, the energy that each should save (B,), and which were solved (B,).

    The rounds are those of ``tracker.active_set.bounded_step``: parameters that cross a bound go to it and stay there.
    A frame whose round changes nothing solves the same system again, so no frame waits for another's.
    """
    hessian, gradient = normal.hessian, normal.gradient
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    # Parameters that nothing speaks of stay where they are.
    stiffness = torch.where(diagonal > 0, diagonal * damping[:, None], 1.0)
    damped = hessian + torch.diag_embed(stiffness)
    room_down, room_up = frames.lower - states.values, frames.upper - states.values
    slope = gradient[:, NUM_RIGID:]
    is_free = torch.ones_like(gradient, dtype=torch.bool)
    is_free[:, NUM_RIGID:] = ~(((room_down >= 0) & (slope > 0)) | ((room_up <= 0) & (slope < 0)))
    delta = torch.zeros_like(gradient)
    is_solved = torch.ones_like(damping, dtype=torch.bool)
    for _ in range(MAX_ROUNDS):
        held = torch.where(is_free, 0.0, delta)
        right = torch.where(is_free, -(gradient + torch.bmm(damped, held[..., None])[..., 0]), 0.0)
        system = torch.where(is_free[:, :, None] & is_free[:, None, :], damped, 0.0)
        system = system + torch.diag_embed((~is_free).to(system.dtype))
        factor, failed_at = torch.linalg.cholesky_ex(system)
        is_solved &= failed_at == 0
        delta = torch.where(is_free, torch.cholesky_solve(right[..., None], factor)[..., 0], held)
        tail = delta[:, NUM_RIGID:]
        crosses = (tail < room_down) | (tail > room_up)
        delta = torch.cat((delta[:, :NUM_RIGID], torch.clamp(tail, room_down, room_up)), dim=1)
        is_free[:, NUM_RIGID:] &= ~crosses
        if delta.device.type == "cpu" and not bool(crosses.any()):
            break
    delta = torch.where(is_solved[:, None], delta, 0.0)
    curvature = torch.bmm(hessian, delta[..., None])[..., 0]
    return delta, -(delta * (gradient + 0.5 * curvature)).sum(dim=1), is_solved


def _search_all(start: BatchedStates, has_evidence: torch.Tensor) -> _Search:
    """Return the search before it has begun; frames without evidence have ended already."""
    count, device = len(start.values), start.values.device
    return _Search(
        frame=torch.arange(count, device=device),
        damping=torch.full((count,), INITIAL_DAMPING, dtype=start.values.dtype, device=device),
        iterations=torch.zeros(count, dtype=torch.int64, device=device),
        reason=torch.where(has_evidence, _MAX_ITERATIONS, _NO_EVIDENCE),
        is_running=has_evidence,
    )


def _advance(search: _Search, iteration: int, is_done: torch.Tensor, is_better: torch.Tensor) -> _Search:
    """Return the search after an iteration; see ``tracker.levenberg_marquardt.minimize``."""
    is_refused = search.is_running & ~is_done & ~is_better
    damping = torch.where(is_better, (search.damping / DAMPING_GROWTH).clamp(min=INITIAL_DAMPING), search.damping)
    damping = torch.where(is_refused, damping * DAMPING_GROWTH, damping)
    is_stuck = is_refused & (damping > MAX_DAMPING)
    reason = torch.where(is_done, _CONVERGED, torch.where(is_stuck, _NO_DESCENT, search.reason))
    iterations = torch.where(search.is_running, iteration, search.iterations)
    return _Search(search.frame, damping, iterations, reason, search.is_running & ~is_done & ~is_stuck)


def _where(choose: torch.Tensor, first: Record, second: Record) -> Record:
    """Return, frame by frame, one of two records."""

    def pick(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.where(choose.view(-1, *[1] * (a.ndim - 1)), a, b)

    names = [field.name for field in dataclasses.fields(first)]
    return type(first)(*(pick(getattr(first, name), getattr(second, name)) for name in names))


def _take(record: Record, rows: torch.Tensor) -> Record:
    """Return some frames of a record."""
    return type(record)(*(getattr(record, field.name)[rows] for field in dataclasses.fields(record)))


def _put(whole: Record, rows: torch.Tensor, part: Record) -> Record:
    """Return a record with some frames replaced."""
    names = [field.name for field in dataclasses.fields(whole)]
    return type(whole)(*(getattr(whole, name).index_copy(0, rows, getattr(part, name)) for name in names))


def _one_by_one(fit: BatchedFit) -> list[FrameFit]:
    """Return the fits as the streaming solver would."""
    residual_px = fit.residual_px.double().cpu().numpy()
    numbers = zip(fit.normal.energy.tolist(), fit.iterations.tolist(), fit.reason.tolist(), strict=True)
    return [
        FrameFit(state, energy, residual_px[index], iterations, REASONS[reason])
        for index, (state, (energy, iterations, reason)) in enumerate(zip(fit.states.to_states(), numbers, strict=True))
    ]
