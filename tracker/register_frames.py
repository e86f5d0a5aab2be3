"""Make training data of clips: python -m tracker.register_frames CLIP [CLIP ...] --out DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from flame.errors import InputError, UserError

if TYPE_CHECKING:
    from tracker.registration import RegisteredFrame, RegistrationConfig

EXIT_USER_ERROR = 2
EXIT_NO_FRAMES = 3
SAMPLES_PER_SHARD = 200

_EPILOG = """\
Every clip is tracked, with the default prior unless another is named. Frames in which the head is clearly seen and well
fitted are kept, spread over pose and expression, cut out upright, and stored with the labels of the fitted head, in the
format of python -m priors.training.render. The labels speak of skin that landmarks reach: further than 25 mm from any
of them there are none. Use only clips that you may use for training, and say so with --note.

Exit status: 0 frames were written, 2 an input or an option cannot be used, 3 no frame was good enough.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tracker.register_frames",
        description="Make training data of clips: real pictures with the labels of the heads fitted to them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="video, GIF, image, or folder of images")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the shards; has to be new or empty")
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="side of the pictures (default: 256)")
    parser.add_argument("--labels", type=int, default=128, metavar="PX", help="side of the labels (default: 128)")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="consider one frame in K (default: 1)")
    parser.add_argument("--faces", type=int, default=1, metavar="N", help="people per clip at most (default: 1)")
    parser.add_argument(
        "--per-person", type=int, default=150, metavar="N", help="frames kept of one person of a clip (default: 150)"
    )
    parser.add_argument("--min-face", type=float, default=90, metavar="PX", help="smallest face (default: 90)")
    parser.add_argument(
        "--max-residual",
        type=float,
        default=2.5,
        metavar="PERCENT",
        help="worst fit, of the eye distance (default: 2.5)",
    )
    parser.add_argument(
        "--prior", default="mediapipe", metavar="NAME", help="what the fit rests on (default: mediapipe)"
    )
    parser.add_argument(
        "--weights", metavar="PATH", help="networks for --prior commons, to register with what was learnt"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="order of the samples (default: 0)")
    parser.add_argument("--note", default="", metavar="TEXT", help="origin and licence of the clips, kept in the index")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        return _run(options)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USER_ERROR


def _run(arguments: argparse.Namespace) -> int:
    """Register every clip and write the shards."""
    from tracker.api import Options
    from tracker.clip import load_toolkit
    from tracker.registration import RegistrationConfig, describe_people, register_clip
    from tracker.registration_labels import LabelPainter

    config = RegistrationConfig(
        image_px=arguments.size,
        labels_px=arguments.labels,
        every=arguments.every,
        frames_per_person=arguments.per_person,
        min_face_px=arguments.min_face,
        max_residual_percent=arguments.max_residual,
    )
    out = _new_folder(Path(arguments.out))
    options = Options(prior=arguments.prior, weights=arguments.weights, faces=arguments.faces, overlay=False)
    toolkit = load_toolkit(options.head, options.prior, options.settings, weights=options.weights)
    painter = LabelPainter.of(toolkit.head, toolkit.prior.surface)
    frames: list[RegisteredFrame] = []
    for clip in arguments.clips:
        found = register_clip(clip, toolkit, painter, options, config)
        sys.stdout.write(f"{Path(clip).name}: {describe_people(found)}\n")
        sys.stdout.flush()
        frames += found
    if not frames:
        sys.stderr.write(f"no frame was good enough; nothing was written to {out}\n")
        return EXIT_NO_FRAMES
    count = write_frames(out, frames, toolkit.head.content_hash, config, arguments.note, arguments.seed)
    sys.stdout.write(f"{count} frames in {out}\n")
    return 0


def _new_folder(out: Path) -> Path:
    """Create the folder for the shards.

    Raises:
        InputError: it cannot be created, or has files in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_taken = any(out.iterdir())
    except OSError as error:
        raise InputError(f"--out {out} cannot be used ({error.strerror}); name another folder") from error
    if is_taken:
        raise InputError(f"--out {out} has files in it; name a new folder, or delete it first")
    return out


def write_frames(
    out: Path, frames: Sequence[RegisteredFrame], head_hash: str, config: RegistrationConfig, note: str, seed: int = 0
) -> int:
    """Write registered frames, shuffled by the seed, as shards with an index; return how many."""
    import numpy as np

    from priors.training.shards import ShardIndex, encode_sample, shard_name, write_shard

    order = np.random.default_rng(seed).permutation(len(frames))
    shards = []
    for number, start in enumerate(range(0, len(frames), SAMPLES_PER_SHARD)):
        chosen = [frames[index] for index in order[start : start + SAMPLES_PER_SHARD]]
        encoded = (encode_sample(frame.picture, frame.labels, frame.facts(head_hash, seed)) for frame in chosen)
        shards.append(write_shard(out / shard_name(number), start, encoded))
    index = ShardIndex(
        head_hash=head_hash,
        image_px=config.image_px,
        labels_px=config.labels_px,
        seed=seed,
        samples_per_shard=SAMPLES_PER_SHARD,
        configuration={"source": "registered", "clips": sorted({frame.clip for frame in frames}), **asdict(config)},
        note=note,
        shards=tuple(shards),
    )
    index.write(out)
    return index.count


if __name__ == "__main__":
    sys.exit(main())
