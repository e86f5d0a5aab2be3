"""Draw the README's picture: the sample clip, the tracked head over it, the head alone.

python docs/make_teaser.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import tracker
from flame.shading import head_look
from tracker.frames import open_source
from tracker.overlay import DrawnHead, draw_heads

ROOT = Path(__file__).parents[1]
FRAMES = (28, 70, 94)
TOP, LEFT, SIDE = 0, 120, 400
BACKDROP = 245


def main() -> None:
    """Track the sample and write docs/teaser.jpg."""
    sample = ROOT / "examples" / "sample.mp4"
    track = tracker.track(sample)
    head = track.head_model
    assert head.topology is not None
    regions = {name: np.asarray(mask) for name, mask in head.topology.regions.items()}
    faces = head.faces.numpy()
    look = head_look(head.template.numpy(), faces, regions)
    with open_source(sample) as source:
        images = {frame.index: frame.image for frame in source if frame.index in FRAMES}
    rows = []
    for index in FRAMES:
        drawn = [DrawnHead(track.vertices(index).astype(np.float64), look)]
        image = images[index]
        overlay = draw_heads(image, drawn, faces, track.intrinsics, alpha=0.8)
        empty = np.full_like(image, BACKDROP)
        mesh = draw_heads(empty, drawn, faces, track.intrinsics, alpha=1.0, fade=False)
        tiles = [view[TOP : TOP + SIDE, LEFT : LEFT + SIDE] for view in (image, overlay, mesh)]
        rows.append(np.concatenate(tiles, axis=1))
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    sheet.resize((900, 900), Image.Resampling.LANCZOS).save(ROOT / "docs" / "teaser.jpg", quality=90)


if __name__ == "__main__":
    main()
