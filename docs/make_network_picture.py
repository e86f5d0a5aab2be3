"""Draw the commons network's picture: unseen renderings, what the network says of them, and how far it is off.

python docs/make_network_picture.py [WEIGHTS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from flame import load_head
from flame.camera import Intrinsics
from flame.shading import normals_to_rgb
from priors.commons import WEIGHTS_FILE, CommonsNetwork
from priors.face_crop import ray_from_cam
from priors.pixel_kinds import Kind
from priors.training.render.renderer import Renderer

ROOT = Path(__file__).parents[1]
SEED, NUMBERS = 4242, (0, 3, 5, 8, 9, 12)
TILE = 192


def uv_colors(uv: np.ndarray) -> np.ndarray:
    """Return colours of texture coordinates (H, W, 2): stripes of a checkerboard over red and green."""
    known = np.nan_to_num(uv)
    checks = (np.floor(known * 24).astype(int).sum(axis=-1) % 2)[..., None] * 0.25
    colors = np.concatenate((known, np.full((*known.shape[:2], 1), 0.4)), axis=-1) * 0.75 + checks
    return np.where(np.isfinite(uv).all(axis=-1, keepdims=True), colors, 0)


def main() -> None:
    """Write docs/commons_network.jpg: picture, normals predicted and true, texture predicted and true, trust."""
    head = load_head("commons")
    network = CommonsNetwork(head, Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS_FILE)
    renderer, rows = Renderer(head), []
    for number in NUMBERS:
        drawn = renderer.draw(SEED, number)
        maps = network(drawn.image)
        turn = ray_from_cam(Intrinsics(**drawn.meta["intrinsics"]))
        shown = maps.mask[..., None]
        true_uv = np.where((drawn.labels.kind == Kind.SKIN)[..., None], drawn.labels.uv, np.nan)
        assert maps.normal_trust is not None
        tiles = (
            drawn.image / 255,
            np.where(shown, normals_to_rgb(np.nan_to_num(maps.normals @ turn)), 0),
            normals_to_rgb(drawn.labels.normals_cam),
            uv_colors(maps.uv),
            uv_colors(true_uv),
            np.repeat(np.where(shown, maps.normal_trust[..., None] / 2, 0), 3, axis=-1),
        )
        sized = [cv2.resize(np.asarray(tile, np.float32), (TILE, TILE), interpolation=cv2.INTER_AREA) for tile in tiles]
        rows.append(np.concatenate(sized, axis=1))
    sheet = np.clip(np.concatenate(rows), 0, 1)
    Image.fromarray((255 * sheet + 0.5).astype(np.uint8)).save(ROOT / "docs" / "commons_network.jpg", quality=88)


if __name__ == "__main__":
    main()
