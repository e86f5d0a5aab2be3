"""One image: the head in a photograph, and the same person's neutral head as a mesh.

Writes the overlay picture, and two OBJ files: the head as it is in the photograph (camera space) and the neutral head
(head space). Both have the model's vertex order and texture coordinates, so that they are in full correspondence.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import tracker
from flame import HeadModel


def write_obj(path: Path, vertices: np.ndarray, head: HeadModel) -> None:
    """Write vertices (V, 3) with the head's triangles, and its texture coordinates where it has them."""
    faces = head.faces.numpy() + 1
    uv, uv_faces = (None, None) if head.topology is None else (head.topology.uv, head.topology.uv_faces)
    with path.open("w") as file:
        np.savetxt(file, vertices, "v %.6f %.6f %.6f")
        if uv is None or uv_faces is None:
            np.savetxt(file, faces, "f %d %d %d")
            return
        np.savetxt(file, uv, "vt %.6f %.6f")
        corners = np.stack((faces, uv_faces + 1), axis=2).reshape(-1, 6)
        np.savetxt(file, corners, "f %d/%d %d/%d %d/%d")


def main() -> None:
    """Track one image and write meshes."""
    parser = argparse.ArgumentParser(description="Fit a head to one image.")
    parser.add_argument("image", nargs="?", type=Path, help="default: the first frame of the sample clip")
    parser.add_argument("-o", "--output", default="one_image", type=Path)
    arguments = parser.parse_args()

    source = arguments.image or Path(__file__).parent / "sample.mp4"
    track = tracker.track(source, arguments.output, max_frames=1)
    if not track.is_tracked.any():
        raise SystemExit(f"no face was found in {source}")

    head = track.head_model
    neutral = head.vertices(shape=torch.from_numpy(track.identity[0])).numpy()
    write_obj(arguments.output / "posed.obj", track.vertices(0), head)
    write_obj(arguments.output / "neutral.obj", neutral, head)
    residual = 100 * track.residual_px[0, 0] / track.interocular_px[0, 0]
    print(f"residual {residual:.2f} % of the eye distance; wrote {arguments.output}/")


if __name__ == "__main__":
    main()
