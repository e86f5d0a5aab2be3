"""Photos of one person: one identity from all of them.

A single photograph leaves depth open; several views of the same person settle it. With ``same_person`` the identity is
solved over all inputs together, and every track carries the same coefficients.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tracker.api import Options, track_many
from tracker.frames import probe_source, read_frames_at

_SAMPLE_SECONDS = (0.0, 1.0, 2.2, 3.1)


def photos_from(video: Path, folder: Path) -> list[Path]:
    """Save four frames of a clip as photographs."""
    paths = []
    for frame in read_frames_at(probe_source(video), _SAMPLE_SECONDS):
        paths.append(folder / f"photo_{len(paths)}.png")
        Image.fromarray(frame.image).save(paths[-1])
    return paths


def main() -> None:
    """Find one identity from several photographs, and from each alone."""
    parser = argparse.ArgumentParser(description="Fit one head to several photographs of one person.")
    parser.add_argument("photos", nargs="*", type=Path, help="default: four frames of the sample clip")
    with tempfile.TemporaryDirectory() as folder:
        photos = parser.parse_args().photos or photos_from(Path(__file__).parent / "sample.mp4", Path(folder))
        together = track_many(photos, options=Options(same_person=True))
        alone = track_many(photos)

    identity = together[0].identity
    print(f"one identity for all {len(photos)} photos: {all((track.identity == identity).all() for track in together)}")
    for photo, one, all_of_them in zip(photos, alone, together, strict=True):
        difference = np.linalg.norm(one.identity - identity)
        residuals = [100 * float(track.residual_px[0, 0] / track.interocular_px[0, 0]) for track in (one, all_of_them)]
        print(f"{photo.name}: residual alone {residuals[0]:.2f} %, together {residuals[1]:.2f} %; ", end="")
        print(f"identities differ by {difference:.1f} standard deviations")


if __name__ == "__main__":
    main()
