"""Solvers let loose on the same images: who gets how low, how fast and how near to the truth; for ``solver.py``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from dense_scene import Shot, Sitter, neutral_error_mm, posed_error_mm, random_motion, random_state
from full_size_head import full_size_head

from configs import load_preset
from configs.presets import DENSE_ENERGY
from configs.schema import AdamConfig, EnergyConfig, SolverConfig
from flame.model import HeadModel
from tracker.adam import fit_adam
from tracker.dense_solver import DenseModel, fit_dense, start_from_lookups
from tracker.joint_solver import Shared
from tracker.reference_problem import Unknowns
from tracker.state import FaceState

UNKNOWNS = Unknowns(log_focal=False, principal_point=False)
SOLVER, MAX_ITERATIONS = SolverConfig(tolerance=1e-4), 100
"""How far we go from a cold start."""
ADAM_PAPER, ADAM_RELEASED = "Adam, paper", "Adam, released"
OURS_PAPER, OURS_RELEASED, OURS_DENSE = "ours, paper", "ours, released", "ours, dense"
_PAPER, _RELEASED = "paper", "released"
_NO_STEPS = AdamConfig(steps=0)


@dataclass(frozen=True)
class Plan:
    """Say how much is measured."""

    size_px: int
    num_threads: int
    num_seeds: int
    num_photos: int = 8
    num_frames: int = 300
    num_keyframes: int = 10
    num_watched_frames: int = 60
    """Frames of the clip, from the first on, that we stream with the paper's energy; the rest is extrapolated."""
    num_adam_frames: int = 2
    """Of those, frames that Adam fits."""
    adam_share: float = 1.0
    """Share of Adam's steps that are taken."""
    joint_counts: tuple[int, ...] = (100, 300, 1000)

    def now(self) -> float:
        """Return seconds: of this process's CPU where it has one thread, so that a busy machine disturbs less."""
        return time.process_time() if self.num_threads == 1 else time.perf_counter()


def quick(plan: Plan) -> Plan:
    """Return a plan of about a tenth of the work."""
    return replace(
        plan,
        size_px=plan.size_px // 2,
        num_photos=2,
        num_frames=30,
        num_watched_frames=6,
        num_keyframes=3,
        num_adam_frames=1,
        adam_share=0.1,
        joint_counts=(10, 30, 100),
    )


@dataclass(frozen=True)
class Contender:
    """Be a solver with an energy."""

    name: str
    energy: EnergyConfig
    adam: AdamConfig | None = None
    """None for Levenberg-Marquardt."""


@dataclass(frozen=True)
class Answer:
    """Hold what a solver found, and what it took."""

    states: tuple[FaceState, ...]
    shape: np.ndarray
    seconds: float
    iterations: float


@dataclass(frozen=True)
class Figures:
    """Be a row of the table; NaN where there is nothing to say."""

    energy: float
    seconds: float
    iterations: float
    posed_mm: float
    neutral_mm: float
    below_seconds: float = math.nan
    """Time until the energy is first at or below that of the Adam on the same energy."""


def rival_of(name: str) -> str:
    """Return the name of the Adam that one of ours is timed against."""
    return ADAM_RELEASED if name == OURS_RELEASED else ADAM_PAPER


Rows = dict[str, Figures]
"""Rows of one part of the table by their contender's name."""


class Bench:
    """Hold the head and let solvers loose on shots of it."""

    def __init__(self, plan: Plan, head: HeadModel | None = None) -> None:
        """Prepare the head, by default the one of full size, and compile."""
        self.plan = plan
        self.head = (head or full_size_head()).to(dtype=torch.float64)
        self._single_precision = self.head.to(dtype=torch.float32)
        self.model = DenseModel.of(self.head, num_threads=plan.num_threads)
        self.contenders = tuple(self._contenders())
        sitter = Sitter.random(self.head, 64, True, 0)
        shots = [sitter.shoot(random_state(self.head, 0.0, np.random.default_rng(0)), 0)]
        for contender in self.contenders:
            few = replace(contender, adam=contender.adam and replace(contender.adam, steps=2))
            self.solve(few, shots, self.starts(shots))

    def _contenders(self) -> list[Contender]:
        presets = {name: load_preset(name) for name in (_PAPER, _RELEASED)}
        adams = [Contender(f"Adam, {name}", each.energy, self._adam(each.adam)) for name, each in presets.items()]
        ours = [Contender(f"ours, {name}", preset.energy) for name, preset in presets.items()]
        return [*adams, *ours, Contender(OURS_DENSE, DENSE_ENERGY)]

    def _adam(self, adam: AdamConfig) -> AdamConfig:
        return replace(adam, steps=max(1, round(adam.steps * self.plan.adam_share)))

    def starts(self, shots: Sequence[Shot]) -> list[FaceState]:
        """Return where everybody begins."""
        energy = load_preset(_PAPER).energy
        return [start_from_lookups(self.model, shot.problem(self.head, energy)) for shot in shots]

    def solve(
        self,
        contender: Contender,
        shots: Sequence[Shot],
        starts: Sequence[FaceState],
        max_iterations: int = MAX_ITERATIONS,
    ) -> Answer:
        """Fit one person in some images."""
        energy, adam = contender.energy, contender.adam
        if adam is not None:
            problems = [shot.problem(self._single_precision, energy) for shot in shots]
            began = self.plan.now()
            found = fit_adam(problems, starts, energy, adam, unknowns=UNKNOWNS)
            return Answer(found.states, found.shape, self.plan.now() - began, adam.steps)
        problems = [shot.problem(self.head, energy) for shot in shots]
        began = self.plan.now()
        fit = fit_dense(self.model, problems, starts, energy, SOLVER, max_iterations, unknowns=UNKNOWNS)
        return Answer(fit.states, fit.shape, self.plan.now() - began, fit.joint.iterations)

    def energy(self, contender: Contender, shots: Sequence[Shot], answer: Answer) -> float:
        """Return the energy of an answer as the reference has it."""
        problems = [shot.problem(self.head, contender.energy) for shot in shots]
        return float(fit_adam(problems, answer.states, contender.energy, _NO_STEPS, shape=answer.shape).energies[-1])

    def seconds_until(
        self, contender: Contender, shots: Sequence[Shot], starts: Sequence[FaceState], target: float
    ) -> float:
        """Return the time of the least iterations that reach an energy; NaN if they never do."""
        for max_iterations in range(1, MAX_ITERATIONS + 1):
            answer = self.solve(contender, shots, starts, max_iterations)
            if self.energy(contender, shots, answer) <= target:
                return answer.seconds
            if answer.iterations < max_iterations:
                break
        return math.nan

    def compare(self, sitter: Sitter, shots: Sequence[Shot]) -> Rows:
        """Let everybody fit the same images of one person."""
        starts = self.starts(shots)
        mean = np.zeros(self.head.num_shape)
        rows = {"start": self._figures(sitter, shots, Answer(tuple(starts), mean, math.nan, math.nan))}
        for contender in self.contenders:
            answer = self.solve(contender, shots, starts)
            figures = self._figures(sitter, shots, answer, self.energy(contender, shots, answer))
            if contender.name in (OURS_PAPER, OURS_RELEASED):
                target = rows[rival_of(contender.name)].energy
                if figures.energy <= target:
                    figures = replace(figures, below_seconds=self.seconds_until(contender, shots, starts, target))
            rows[contender.name] = figures
        return rows

    def _figures(self, sitter: Sitter, shots: Sequence[Shot], answer: Answer, energy: float = math.nan) -> Figures:
        errors = [
            posed_error_mm(sitter, shot, state, answer.shape) for shot, state in zip(shots, answer.states, strict=True)
        ]
        neutral_mm = neutral_error_mm(sitter, answer.shape)
        return Figures(energy, answer.seconds, answer.iterations, float(np.mean(errors)), neutral_mm)

    def clip(self, sitter: Sitter, seed: int) -> Rows:
        """Let everybody follow a person through a clip."""
        motion = random_motion(self.head, self.plan.num_frames, np.random.default_rng((seed, 3)))
        count, watched, chosen = self.plan.num_frames, self.plan.num_watched_frames, self.plan.num_adam_frames
        looked_at = [watched * (2 * index + 1) // (2 * chosen) for index in range(chosen)]
        shots = [sitter.shoot(motion[index], index) for index in looked_at]
        rows = {}
        for contender in self.contenders:
            if contender.adam is not None:
                single = [self._compare_one(contender, sitter, shot) for shot in shots]
                figures = combined(single, np.mean)
                rows[contender.name] = replace(figures, seconds=count * figures.seconds)
        for contender in self.contenders:
            if contender.name in (OURS_PAPER, OURS_DENSE):
                rows[contender.name] = self._streamed(
                    contender, sitter, motion, dict(zip(looked_at, shots, strict=True))
                )
        return rows

    def _compare_one(self, contender: Contender, sitter: Sitter, shot: Shot) -> Figures:
        """Let one contender fit one image."""
        answer = self.solve(contender, [shot], self.starts([shot]))
        return self._figures(sitter, [shot], answer, self.energy(contender, [shot], answer))

    def _streamed(
        self, contender: Contender, sitter: Sitter, motion: Sequence[FaceState], looked_at: dict[int, Shot]
    ) -> Figures:
        """Solve identity from a few frames, then every frame from the one before."""
        spread = range(0, len(motion), -(-len(motion) // self.plan.num_keyframes))
        keyframes = [sitter.shoot(motion[index], index) for index in spread]
        joint = self.solve(contender, keyframes, self.starts(keyframes))
        state, start, solver = joint.states[0], Shared(joint.shape), load_preset("dense").solver
        unknowns = replace(UNKNOWNS, shape=False)
        figures = []
        num_frames = len(motion) if contender.name == OURS_DENSE else self.plan.num_watched_frames
        for index, truth in enumerate(motion[:num_frames]):
            shot = looked_at.get(index) or sitter.shoot(truth, index)
            problem = shot.problem(self.head, contender.energy)
            began = self.plan.now()
            fit = fit_dense(
                self.model,
                [problem],
                [state],
                contender.energy,
                solver,
                solver.max_iterations_warm,
                unknowns=unknowns,
                start=start,
                is_warm=True,
            )
            answer = Answer(fit.states, joint.shape, self.plan.now() - began, fit.joint.iterations)
            state = fit.states[0]
            energy = self.energy(contender, [shot], answer) if index in looked_at else math.nan
            figures.append(self._figures(sitter, [shot], answer, energy))
        total = joint.seconds + len(motion) * float(np.mean([each.seconds for each in figures]))
        iterations = float(np.median([each.iterations for each in figures]))
        return replace(combined(figures, np.mean), seconds=total, iterations=iterations)


def combined(figures: Sequence[Figures], average: Callable[[Sequence[float]], np.floating]) -> Figures:
    """Return the average of every column over what is known of it."""
    known = {
        item.name: [value for each in figures if not math.isnan(value := getattr(each, item.name))]
        for item in fields(Figures)
    }
    return Figures(**{name: float(average(values)) if values else math.nan for name, values in known.items()})
