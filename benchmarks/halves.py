"""Measure how well the identities from the two halves of a clip agree.

    python benchmarks/halves.py [CLIP ...]

Each half is scouted and solved on its own. Printed is the mean distance of corresponding vertices of the two neutral
heads in head space, without any alignment, millimetres: over the face, and over the whole head.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from configs import load_preset
from tracker.camera_guess import guess_camera
from tracker.clip import Span, Toolkit, identify, load_toolkit, probe, scout


def half_identities(path: Path, toolkit: Toolkit) -> list[np.ndarray]:
    """Return the neutral vertices (V, 3), metres, that each half of a clip gives; none for a half without a face."""
    info = probe(path)
    camera = guess_camera(info, toolkit.model.config.regularization)
    middle_seconds = info.duration_seconds / 2
    heads = []
    for span in (Span(None, middle_seconds), Span(middle_seconds, None)):
        people = identify(toolkit, scout(toolkit, info, span, 1, camera), camera.freedom)
        if people:
            basis = toolkit.head.shape_basis.numpy().astype(np.float64)
            heads.append(toolkit.head.template.numpy() + basis @ people[0].shape)
    return heads


def main() -> None:
    """Print one row per clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", default=[Path("examples/sample.mp4")])
    toolkit = load_toolkit("commons", "mediapipe", load_preset("default"))
    topology = toolkit.head.topology
    assert topology is not None
    face = np.asarray(topology.regions["face"])
    print(f"{'clip':32s} {'face mm':>8s} {'head mm':>8s}")
    for path in parser.parse_args().clips:
        heads = half_identities(path, toolkit)
        if len(heads) < 2:
            print(f"{path.name:32s} a half shows no face")
            continue
        distance_mm = 1e3 * np.linalg.norm(heads[0] - heads[1], axis=1)
        print(f"{path.name:32s} {distance_mm[face].mean():8.2f} {distance_mm.mean():8.2f}", flush=True)


if __name__ == "__main__":
    main()
