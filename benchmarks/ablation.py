"""Measure what each part of the evidence is worth, as in Pixel3DMM's ablation: photos of heads that are not the model.

    python benchmarks/ablation.py [--heads DIR] [--set NAME ...] [--photos N] [--weights FILE]

The heads, the photos and the errors are those of ``benchmarks/accuracy.py``; every row sees the same photos.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accuracy import SETS, Evaluator, Figures, heads_of
from foreign_heads.photos import Photo, Studio, frontal_angles

from configs import override, preset_for_prior
from flame import HeadModel, load_head
from tracker.clip import Toolkit, load_toolkit

_NO_TEXTURE = ("energy.uv=0", "energy.uv_pixel=0")
_NO_POINTS = ("energy.correspondences=0",)


@dataclass(frozen=True)
class Variant:
    """Say what one row of the table sees."""

    name: str
    prior: str = "commons"
    settings: tuple[str, ...] = ()
    has_anchor: bool = True

    def toolkit(self, weights: Path | None) -> Toolkit:
        """Load what it needs."""
        config = override(preset_for_prior(self.prior), self.settings)
        toolkit = load_toolkit("commons", self.prior, config, weights=weights if self.prior == "commons" else None)
        if self.has_anchor:
            return toolkit
        return replace(toolkit, model=replace(toolkit.model, identity_anchor=None))


VARIANTS = (
    Variant("landmarks only", "mediapipe"),
    Variant("landmarks only, no anchor", "mediapipe", has_anchor=False),
    Variant("texture only", settings=("energy.normal=0", *_NO_POINTS)),
    Variant("normals only", settings=(*_NO_TEXTURE, *_NO_POINTS)),
    Variant("texture and normals", settings=_NO_POINTS),
    Variant("landmarks and texture", settings=("energy.normal=0",)),
    Variant("landmarks and normals", settings=_NO_TEXTURE),
    Variant("commons, as shipped"),
    Variant("the same, no anchor", has_anchor=False),
)


def photographs(folder: Path | None, names: Sequence[str], model: HeadModel, num_photos: int) -> list[Photo]:
    """Take photos of the heads of some sets, with the same dice as in ``accuracy``."""
    studio, photos = Studio(load_head("commons")), []
    for name in names:
        for index, head in enumerate(heads_of(name, folder, model)):
            generator = np.random.default_rng((11, index))
            camera = studio.camera(generator)
            photos += [
                studio.photograph(head, pose, frontal_angles(generator), camera, generator)
                for pose in head.poses
                for _ in range(num_photos)
            ]
    return photos


def row(name: str, found: Sequence[Figures]) -> str:
    """Format the means over sets, so that a set of many heads counts no more than one scan."""
    groups = sorted({one.head.group for one in found})
    posed = [
        [(one.posed.l1_mm, one.posed.close_percent) for one in found if one.head.group == group] for group in groups
    ]
    neutral = [
        [one.neutral.l1_mm for one in found if one.head.group == group and one.neutral is not None] for group in groups
    ]
    l1, close = np.mean([np.mean(each, axis=0) for each in posed], axis=0)
    known = [np.mean(each) for each in neutral if each]
    each = "  ".join(
        f"{group.split('_')[0]} {np.mean(values, axis=0)[0]:.2f}" for group, values in zip(groups, posed, strict=True)
    )
    return f"{name:28s} {l1:8.2f} {close:6.1f} {np.mean(known):10.2f}   {each}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, metavar="DIR", help="folder of heads that are not the model")
    parser.add_argument("--set", nargs="*", metavar="NAME", help=f"sets to measure (default: {', '.join(SETS)})")
    parser.add_argument("--photos", type=int, default=1, help="photos a pose (default: 1)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="network (default: the shipped one)")
    options = parser.parse_args()
    model = load_head("commons", dtype=torch.float64)
    names = (options.set or SETS) if options.heads is not None else ("random heads",)
    photos = photographs(options.heads, names, model, options.photos)
    print(f"{len(photos)} photos\n{'what':28s} {'posed L1':>8s} {'R2.5':>6s} {'neutral L1':>10s}   posed L1 by set")
    mean: list[Figures] = []
    for variant in VARIANTS:
        evaluator = Evaluator(variant.toolkit(options.weights))
        if not mean:
            mean = [evaluator.mean_head(photo.head, photo.pose) for photo in photos]
            print(row("mean head", mean), flush=True)
        print(row(variant.name, [one for photo in photos for one in evaluator.tracked([photo])]), flush=True)


if __name__ == "__main__":
    main()
