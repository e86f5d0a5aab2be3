"""Make the sample clip: the portrait of Eileen Collins in motion, with its true parameters.

The photograph is fitted with the project's own tracker, laid on the fitted head, animated and drawn again. The clip
goes to ``examples/sample.mp4``, the parameters it was drawn from, as a track, to ``examples/sample_truth/``.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from sample_scene.motion import FRAME_RATE, NUM_FRAMES, Performance, perform, poses
from sample_scene.portrait import HEIGHT, WIDTH, Portrait, load_portrait
from sample_scene.stage import Stage, build_stage, draw, with_noise
from tqdm import tqdm

from tracker import Track
from tracker.status import FrameStatus

_CRF = "17"


def truth(portrait: Portrait, stage: Stage, performance: Performance) -> Track:
    """Return the parameters that the clip is drawn from."""
    photo = portrait.track
    rotation, translation = poses(portrait, performance, stage.pivot_cam)

    def repeated(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[:, :1], NUM_FRAMES, axis=1)

    depth_ratio = photo.translation[0, 0, 2] / translation[None, :, 2]
    return Track(
        identity=photo.identity,
        expression=performance.expression[None],
        neck=repeated(photo.neck),
        jaw=performance.jaw[None],
        left_eye=performance.left_eye[None],
        right_eye=performance.right_eye[None],
        rotation=rotation[None],
        translation=translation[None],
        status=np.full((1, NUM_FRAMES), FrameStatus.OK, np.int8),
        residual_px=np.zeros((1, NUM_FRAMES), np.float32),
        interocular_px=(repeated(photo.interocular_px) * depth_ratio).astype(np.float32),
        presence=np.ones((1, NUM_FRAMES), np.float32),
        frame_index=np.arange(NUM_FRAMES),
        pts_seconds=np.arange(NUM_FRAMES) / FRAME_RATE,
        intrinsics=photo.intrinsics,
        head=photo.head,
        head_hash=photo.head_hash,
        expression_names=photo.expression_names,
        info={"made_by": "examples/make_sample.py"},
    )


def write_clip(path: Path, stage: Stage, performance: Performance, known: Track) -> None:
    """Draw every frame and encode them as H.264."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAME_RATE), options={"crf": _CRF, "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
        for frame in tqdm(range(NUM_FRAMES), unit=" frames"):
            picture = draw(stage, performance, frame, known.vertices(frame).astype(np.float64))
            encoded = av.VideoFrame.from_ndarray(with_noise(picture, noise), format="rgb24")
            container.mux(stream.encode(encoded.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)))
        container.mux(stream.encode(None))


def main() -> None:
    """Make the clip."""
    parser = argparse.ArgumentParser(description="Make the sample clip and its true parameters.")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder (default: this one)")
    folder = parser.parse_args().output
    portrait = load_portrait()
    stage, performance = build_stage(portrait), perform(portrait)
    known = truth(portrait, stage, performance)
    (folder / "sample_truth").mkdir(parents=True, exist_ok=True)
    known.save(folder / "sample_truth")
    write_clip(folder / "sample.mp4", stage, performance, known)
    size_mb = (folder / "sample.mp4").stat().st_size / 1e6
    print(f"{folder / 'sample.mp4'}: {NUM_FRAMES} frames, {size_mb:.2f} MB; truth in {folder / 'sample_truth'}/")


if __name__ == "__main__":
    main()
