"""Draw the picture sheets of the model card: ``python -m flame.commons.pictures [FOLDER]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from flame.arkit import ARKIT_NAMES, expression_from_arkit
from flame.camera import Intrinsics
from flame.commons.visible_faults import camera_from_head
from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.render import render
from flame.shading import HeadLook, head_look

BACKGROUND = 245
TEXT_COLOR = (70, 70, 70)
PALETTE = 128
"""Colours of a stored sheet, so that it stays small."""
NUM_MODES_SHOWN = 12
DEVIATIONS = (-2.0, 2.0)
NUM_RANDOM = 20


@dataclass(frozen=True)
class Tile:
    """Describe one picture of a sheet."""

    label: str
    vertices: np.ndarray
    """Posed head (V, 3), metres, head space."""
    yaw_degrees: float = 0.0


def draw_sheet(model: HeadModel, tiles: Sequence[Tile], columns: int, size_px: int, fov_degrees: float) -> np.ndarray:
    """Draw heads in a grid, each with its label, uint8 (H, W, 3).

    Raises:
        InputError: The model has no regions.
    """
    if model.topology is None:
        raise InputError(f"head {model.name!r} has no regions by which it could be painted")
    template = model.template.numpy()
    look = head_look(template, model.faces.numpy(), model.topology.regions)
    centre = template[model.topology.region("face")].mean(axis=0)
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * size_px, columns * size_px, 3), BACKGROUND, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * size_px, index % columns * size_px
        view = sheet[top : top + size_px, left : left + size_px]
        view[:] = _draw(model, tile, look, centre, size_px, fov_degrees)
    return sheet


def _draw(
    model: HeadModel, tile: Tile, look: HeadLook, centre: np.ndarray, size_px: int, fov_degrees: float
) -> np.ndarray:
    """Draw one tile, uint8 (size, size, 3)."""
    image = np.full((size_px, size_px, 3), BACKGROUND, np.uint8)
    intrinsics = Intrinsics.from_fov(fov_degrees, size_px, size_px)
    in_camera = camera_from_head(tile.vertices, centre, tile.yaw_degrees, 0.0)
    layer = render(
        in_camera, model.faces.numpy(), intrinsics, colors=look.colors, iris_metres=look.iris_metres, supersampling=3
    )
    layer.over(image)
    scale = min(0.4, 0.4 * (size_px - 8) / (7.6 * max(len(tile.label), 1)))
    cv2.putText(image, tile.label, (4, size_px - 6), cv2.FONT_HERSHEY_SIMPLEX, scale, TEXT_COLOR, 1, cv2.LINE_AA)
    return image


def identity_tiles(model: HeadModel) -> list[Tile]:
    """Return the mean, the first modes at minus and plus two standard deviations, and random heads."""
    template = model.template.numpy()
    basis = model.shape_basis.numpy()
    tiles = [Tile("mean", template, yaw) for yaw in (0.0, -35.0, -85.0, 35.0)]
    for mode in range(NUM_MODES_SHOWN):
        for deviation in DEVIATIONS:
            tiles.append(Tile(f"mode {mode + 1}: {deviation:+.0f} sd", template + deviation * basis[..., mode], -25.0))
    generator = np.random.default_rng(1)
    for index in range(NUM_RANDOM):
        shape = generator.standard_normal(model.num_shape)
        tiles.append(Tile(f"random {index + 1}", template + basis @ shape, -25.0 if index % 2 else 0.0))
    return tiles


def expression_tiles(model: HeadModel) -> list[Tile]:
    """Return all 52 ARKit actions at weight 1, and two that belong together."""
    wanted = {name: {name: 1.0} for name in ARKIT_NAMES}
    wanted["jawOpen + mouthClose"] = {"jawOpen": 1.0, "mouthClose": 1.0}
    wanted["both eyes closed"] = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
    tiles = []
    for label, coefficients in wanted.items():
        expression, joints = expression_from_arkit(model, coefficients)
        rotations = {name: torch.as_tensor(turn, dtype=model.dtype) for name, turn in joints.items()}
        posed = model.vertices(expression=torch.as_tensor(expression, dtype=model.dtype), **rotations)
        tiles.append(Tile(label, posed.numpy(), -10.0))
    return tiles


def save_sheet(sheet: np.ndarray, path: Path) -> None:
    """Write a sheet with few colours."""
    Image.fromarray(sheet).quantize(PALETTE).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m flame.commons.pictures", description="Draw the model card's sheets."
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs"))
    folder = parser.parse_args(arguments).folder
    model = load_head("commons", dtype=torch.float64)
    folder.mkdir(parents=True, exist_ok=True)
    save_sheet(draw_sheet(model, identity_tiles(model), 8, 200, 27.0), folder / "commons_identity.png")
    save_sheet(draw_sheet(model, expression_tiles(model), 9, 168, 17.0), folder / "commons_expressions.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
