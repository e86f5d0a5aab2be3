"""Measure the whole pipeline on rendered heads that are not the model: photographs in, heads out, compared with truth.

    python benchmarks/accuracy.py [--heads DIR] [--set NAME ...] [--photos N] [--prior NAME] [--failures FILE]

DIR holds ``d5_population45.npz`` (faces of a population; only those that took no part in any calibration are used),
``d1_laser_smile.npz`` (a textured scan), ``d6_arkit_avatar.glb`` (an artist's head with ARKit shapes) and more scans;
those that are missing are left out. Without DIR the heads are random ones of the commons model, which says less.

The scans' skin is painted over the commons head registered to them, with eyes, brows and hair; scans with colours of
their own show them. Photos are 512 x 512, the camera (30 to 50 degrees) is not told. One photo: yaw within 20 degrees.
Eight photos: one person, yaw to 40 and pitch to 15 degrees either way. A prediction is aligned with the truth by a
similarity (seven landmarks, then iterative closest points); errors go one way, from true points on the face's skin to
the predicted surface, see ``flame.surface_error``. ``mean head`` is the model's mean, aligned in the same way. What
leaks into expression is shown by ``|expr|``, the mean size of the expression coefficients, in rows of neutral faces.

``exact maps`` takes no photo: texture coordinates and normals of the registered head are rendered in the camera of one
frontal photo, which is told, and solved; what is left is what the model cannot show and its prior holds back.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from foreign_heads.exact_maps import ExactMaps
from foreign_heads.failures import Case, Worst, save_cases
from foreign_heads.heads import (
    AVATAR,
    NEUTRAL,
    OTHER_SCANS,
    POPULATION,
    SMILE,
    ForeignHead,
    avatar_head,
    population_heads,
    random_heads,
    scanned_head,
)
from foreign_heads.photos import Photo, Studio, frontal_angles, spread_angles

from configs import override, preset_for_prior
from flame import HeadModel, load_head
from flame.landmarks import NOW
from flame.surface_error import SurfaceError, surface_error
from tracker.api import Options, track_many
from tracker.clip import Toolkit, load_toolkit
from tracker.result import Track

SETS = (POPULATION, SMILE, AVATAR, *OTHER_SCANS)
NUM_RANDOM_HEADS = 10
NUM_FAILURES = 4


@dataclass(frozen=True)
class Figures:
    """Hold the errors of one prediction."""

    head: ForeignHead
    pose: str
    neutral: SurfaceError | None
    """None where the true neutral head is not known."""
    posed: SurfaceError
    activity: float = float("nan")
    """Mean size of the expression coefficients."""


class Evaluator:
    """Run the pipeline on photos and compare with the truth."""

    def __init__(self, toolkit: Toolkit) -> None:
        """Take what the pipeline has loaded."""
        topology = toolkit.head.topology
        assert topology is not None
        self.toolkit, self._topology = toolkit, topology
        self.worst = Worst(NUM_FAILURES)
        self._exact_maps = ExactMaps(toolkit.head)
        self._template = toolkit.head.template.numpy().astype(np.float64)
        self._basis = toolkit.head.shape_basis.numpy().astype(np.float64)

    def error(self, head: ForeignHead, pose: str, vertices: np.ndarray) -> SurfaceError:
        """Compare predicted vertices (V, 3), metres, with a head in a pose."""
        truth = head.truth(pose)
        landmarks = self._topology.landmarks(NOW).on(vertices, self._topology.faces)
        return surface_error(truth.points, truth.normals, truth.landmarks, vertices, self._topology.faces, landmarks)

    def mean_head(self, head: ForeignHead, pose: str) -> Figures:
        """Compare the mean head."""
        neutral = self.error(head, NEUTRAL, self._template) if NEUTRAL in head.poses else None
        return Figures(head, pose, neutral, self.error(head, pose, self._template))

    def identity(self, shape: np.ndarray) -> np.ndarray:
        """Return the neutral vertices (V, 3) of identity coefficients, metres."""
        return self._template + self._basis @ shape

    def tracked(self, photos: Sequence[Photo]) -> list[Figures]:
        """Track photos of one person and compare the posed and the neutral heads; photos without a face drop out."""
        tracks = _track(self.toolkit, photos)
        seen = [(photo, track) for photo, track in zip(photos, tracks, strict=True) if track.is_tracked.any()]
        figures, neutral = [], None
        for photo, track in seen:
            if NEUTRAL in photo.head.poses and neutral is None:
                neutral = self.error(photo.head, NEUTRAL, self.identity(track.identity[0]))
            posed = self.error(photo.head, photo.pose, track.vertices(0, space="head").astype(np.float64))
            figures.append(
                Figures(photo.head, photo.pose, neutral, posed, float(np.abs(track.expression[0, 0]).mean()))
            )
            if len(photos) == 1:
                self.worst.offer(Case(photo, track.vertices(0), track.intrinsics, posed, neutral))
        return figures

    def from_exact_maps(self, photo: Photo) -> Figures:
        """Solve the exact maps of the registered head in a photo's camera and compare."""
        solved = self._exact_maps.solve(photo)
        head, pose = photo.head, photo.pose
        neutral = self.error(head, NEUTRAL, solved.neutral) if NEUTRAL in head.poses else None
        activity = float(np.abs(solved.expression).mean())
        return Figures(head, pose, neutral, self.error(head, pose, solved.posed), activity)


def _track(toolkit: Toolkit, photos: Sequence[Photo]) -> list[Track]:
    """Track photos of one person as files, as a user would."""
    options = Options(same_person=len(photos) > 1, overlay=False, config=toolkit.model.config)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.png" for index in range(len(photos))]
        for path, photo in zip(paths, photos, strict=True):
            cv2.imwrite(str(path), photo.image[..., ::-1])
        return track_many(paths, toolkit=toolkit, options=options)


def heads_of(name: str, folder: Path | None, model: HeadModel) -> Iterator[ForeignHead]:
    """Yield the heads of a set."""
    if folder is None:
        yield from random_heads(model, NUM_RANDOM_HEADS)
    elif name == POPULATION:
        yield from population_heads(folder / f"{name}.npz", model)
    elif name == AVATAR:
        yield avatar_head(folder / f"{name}.glb", model)
    else:
        yield scanned_head(folder / f"{name}.npz", model, pose="smile" if name == SMILE else NEUTRAL)


def measure(
    heads: Iterator[ForeignHead], evaluator: Evaluator, studio: Studio, num_photos: int, seed: int = 11
) -> dict[str, list[Figures]]:
    """Return the figures of the mean head, of single photos, of eight photos and of exact maps."""
    names = ("mean head", "ours, one photo", "ours, eight photos", "ours, exact maps")
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for index, head in enumerate(heads):
        generator = np.random.default_rng((seed, index))
        camera, poses = studio.camera(generator), list(head.poses)
        found["mean head"] += [evaluator.mean_head(head, pose) for pose in poses]
        for pose in poses:
            for _ in range(num_photos):
                photo = studio.photograph(head, pose, frontal_angles(generator), camera, generator)
                found["ours, one photo"] += evaluator.tracked([photo])
        photos = [
            studio.photograph(head, poses[number % len(poses)], angles, camera, generator)
            for number, angles in enumerate(spread_angles(generator))
        ]
        found["ours, eight photos"] += evaluator.tracked(photos)
        # Heads are registered in their first pose.
        photo = studio.photograph(head, poses[0], frontal_angles(generator), camera, generator)
        found["ours, exact maps"].append(evaluator.from_exact_maps(photo))
    return found


HEADER = (
    f"{'set':26s} {'what':20s} {'photos':>6s} | {'neutral L1':>10s} {'vs mean':>8s} {'L2':>6s} {'R2.5':>6s} {'NC':>6s}"
    f" | {'posed L1':>8s} {'vs mean':>8s} {'L2':>6s} {'R2.5':>6s} {'NC':>6s} | {'|expr|':>6s}"
)


def rows(name: str, found: dict[str, list[Figures]]) -> Iterator[str]:
    """Format the figures of a set: for all poses and, where there are several, for neutral and other poses alone."""
    poses = {figures.pose for group in found.values() for figures in group}
    parts = {name: poses}
    if len(poses) > 1:
        parts |= {f"{name}, neutral": {NEUTRAL}, f"{name}, moved": poses - {NEUTRAL}}
    for label, chosen in parts.items():
        base = _summary([one for one in found["mean head"] if one.pose in chosen])
        for what, group in found.items():
            members = [one for one in group if one.pose in chosen]
            if members:
                activity = f"{np.mean([one.activity for one in members]):6.3f}".replace("nan", "  -")
                yield f"{label:26s} {what:20s} {len(members):6d} | {_columns(_summary(members), base)} | {activity}"


def _summary(group: Sequence[Figures]) -> np.ndarray:
    """Return L1, L2, R2.5 and NC of neutral and posed (2, 4); NaN where unknown."""
    names = ("l1_mm", "l2_mm", "close_percent", "normal_consistency")
    neutral = [[getattr(one.neutral, name) for name in names] for one in group if one.neutral is not None]
    posed = [[getattr(one.posed, name) for name in names] for one in group]
    return np.stack((np.mean(neutral, axis=0) if neutral else np.full(4, np.nan), np.mean(posed, axis=0)))


def _columns(values: np.ndarray, base: np.ndarray) -> str:
    """Format both halves of a row."""
    halves = []
    for (l1, l2, close, normals), mean, width in zip(values, base, (10, 8), strict=True):
        change = 100 * (l1 / mean[0] - 1)
        halves.append(f"{l1:{width}.2f} {change:+7.1f}% {l2:6.2f} {close:6.1f} {normals:6.3f}")
    return " | ".join(halves).replace("+nan%", "   -").replace("nan", "  -")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, metavar="DIR", help="folder of heads that are not the model")
    parser.add_argument("--set", nargs="*", metavar="NAME", help=f"sets to measure (default: {', '.join(SETS)})")
    parser.add_argument(
        "--prior", default="mediapipe", choices=("mediapipe", "commons"), help="what looks at the photos"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="network for --prior commons (default: the shipped)"
    )
    parser.add_argument("--photos", type=int, default=3, help="single photos a pose (default: 3)")
    parser.add_argument("--with", nargs="*", default=[], dest="settings", metavar="SECTION.KEY=VALUE", help="settings")
    parser.add_argument("--failures", type=Path, metavar="FILE", help="draw the worst single photos to this .png")
    options = parser.parse_args()
    model = load_head("commons", dtype=torch.float64)
    config = override(preset_for_prior(options.prior), options.settings)
    evaluator = Evaluator(load_toolkit("commons", options.prior, config, weights=options.weights))
    studio = Studio(evaluator.toolkit.head)
    names = options.set or SETS
    if options.heads is None:
        print("no --heads: random heads of the model itself, which says less than heads that are not the model")
        names = ("random heads",)
    print(HEADER)
    for name in names:
        files = [] if options.heads is None else list(options.heads.glob(f"{name}.*"))
        if options.heads is not None and not files:
            print(f"{name:26s} not found in {options.heads}")
            continue
        found = measure(heads_of(name, options.heads, model), evaluator, studio, options.photos)
        print("\n".join(rows(name, found)), flush=True)
    if options.failures is not None:
        save_cases(options.failures, evaluator.worst.cases, model.faces.numpy())


if __name__ == "__main__":
    main()
