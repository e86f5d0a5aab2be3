"""Draw heads from the source's sliders, as rest meshes in head space."""

from __future__ import annotations

import numpy as np
import torch

from flame.commons.joints import BONES
from flame.commons.sources import ETHNICITIES, LOCAL_GROUPS, SKIN, SourceHead

LOCAL_SPREAD = 0.35
"""Standard deviation of a local slider, whose ends are -1 and 1."""
ASYMMETRY = 0.25
"""Standard deviation of the difference between left and right sliders, relative to ``LOCAL_SPREAD``."""


def head_sliders(source: SourceHead) -> list[str]:
    """Return the local sliders that shape head and neck."""
    names = []
    for label in source.model.local_change_labels:
        group = label.removeprefix("l-").removeprefix("r-")
        if group in LOCAL_GROUPS or group.split("-")[0] in LOCAL_GROUPS:
            names.append(label)
    return names


def sample_heads(source: SourceHead, count: int, seed: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Draw random adult heads and the places of their root, neck and jaw bones.

    Returns:
        Rest vertices (count, V, 3) and joint places {joint: (count, 3)}, metres; every head is moved so that the mean
        of its skin is where the source's is.
    """
    generator = np.random.default_rng(seed)
    phenotypes = _phenotypes(generator, count)
    local = _locals(generator, head_sliders(source), count)
    labels = list(source.model.bone_labels)
    meshes, bones = [], []
    for first in range(0, count, 100):
        part = slice(first, first + 100)
        with torch.no_grad():
            output = source.model(
                phenotype_kwargs={name: torch.as_tensor(value[part]) for name, value in phenotypes.items()},
                local_changes_kwargs={name: torch.as_tensor(value[part]) for name, value in local.items()},
                return_bone_ends=True,
            )
        meshes.append(source.vertices_of(output["rest_vertices"].numpy()))
        bones.append(source.from_source(output["rest_bone_heads"].numpy()))
    vertices, heads = np.concatenate(meshes), np.concatenate(bones)
    skin = source.parts == SKIN
    shift = source.vertices[skin].mean(axis=0) - vertices[:, skin].mean(axis=1)
    joints = {joint: heads[:, labels.index(bone)] + shift for joint, bone in BONES.items()}
    return vertices + shift[:, None], joints


def _phenotypes(generator: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Draw the whole-body sliders of adults of all kinds."""
    drawn = {
        "gender": generator.uniform(0.0, 1.0, count),
        "age": 0.5 + 0.5 * generator.beta(1.5, 2.0, count),
        "muscle": generator.beta(3.0, 3.0, count),
        "weight": generator.beta(3.0, 3.0, count),
        "height": generator.beta(4.0, 4.0, count),
        "proportions": generator.beta(3.0, 3.0, count),
    }
    shares = generator.dirichlet([0.6] * len(ETHNICITIES), count)
    drawn.update({name: shares[:, index] for index, name in enumerate(ETHNICITIES)})
    return drawn


def _locals(generator: np.random.Generator, names: list[str], count: int) -> dict[str, np.ndarray]:
    """Draw the local sliders; a left and a right one differ by little."""
    common: dict[str, np.ndarray] = {}
    drawn = {}
    for name in names:
        base = name[2:] if name[:2] in ("l-", "r-") else name
        if base not in common:
            common[base] = generator.normal(0.0, LOCAL_SPREAD, count)
        value = common[base]
        if base != name:
            value = value + generator.normal(0.0, LOCAL_SPREAD * ASYMMETRY, count)
        elif name.endswith("trans-out"):
            value = value * ASYMMETRY
        drawn[name] = np.clip(value, -1.0, 1.0)
    return drawn
