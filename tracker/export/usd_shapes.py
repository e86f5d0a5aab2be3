"""Blend shapes whose weights programs do not cut off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tracker.export.rig import HeadMotion, RiggedHead

OPPOSITE = "_minus"
"""Ends the name of a blend shape that stands for the negative weights of another."""


def with_positive_correctives(rig: RiggedHead, motion: HeadMotion) -> tuple[RiggedHead, HeadMotion]:
    """Return the same head and motion with pose correctives whose weights are never negative.

    USD allows any weight, but programs that make shape keys of their own from blend shapes (as Blender 5.0 does) keep
    them from 0 to 1. A corrective's weight is an entry of ``R_j - I``: from -1 to 1 off the diagonal, so it becomes two
    blend shapes, each other's opposite; never above 0 on the diagonal, so there the opposite alone is left. Expressions
    stay as they are: they have meanings, and where they are bounded it is by 0 and 1.
    """
    count = rig.num_expressions
    names, deltas = list(rig.morph_names[:count]), list(rig.morph_deltas[:count])
    weights = list(motion.morph_weights.T[:count])
    correctives = zip(rig.morph_names, rig.morph_deltas, motion.morph_weights.T, strict=True)
    for name, delta, weight in list(correctives)[count:]:
        row, column = name[-2:]
        if row != column:
            names.append(name)
            deltas.append(delta)
            weights.append(np.maximum(weight, 0))
        names.append(name + OPPOSITE)
        deltas.append(-delta)
        weights.append(np.maximum(-weight, 0))
    if not names:
        return rig, motion
    return (
        replace(rig, morph_names=tuple(names), morph_deltas=np.stack(deltas)),
        replace(motion, morph_weights=np.stack(weights, axis=1)),
    )


def is_within_sliders(motion: HeadMotion) -> bool:
    """Return whether all weights are from 0 to 1."""
    return bool(((motion.morph_weights >= 0) & (motion.morph_weights <= 1)).all())
