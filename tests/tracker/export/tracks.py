"""Small tracks made by hand, for tests of what is written from tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flame import load_head
from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.saving import save_flame_pkl
from tests.toy_head import make_toy_head
from tracker.result import Track
from tracker.status import FrameStatus

SIZE = 192, 256
"""Height and width of the pictures, pixels."""


def toy_head_file(folder: Path) -> Path:
    """Write the toy head as a FLAME file and return its path."""
    path = folder / "toy_flame.pkl"
    if not path.exists():
        save_flame_pkl(make_toy_head(), path)
    return path


def small_track(
    head: str | Path = "commons",
    *,
    people: int = 1,
    frames: int = 6,
    lost: tuple[tuple[int, int], ...] = (),
    intrinsics: Intrinsics | None = None,
    seconds_per_frame: float = 0.04,
    first_seconds: float = 0.0,
    seed: int = 3,
    source: Path | None = None,
) -> Track:
    """Return a track with smooth random motion of all parameters; ``lost`` lists (person, frame) without a face."""
    rng = np.random.default_rng(seed)
    model = load_head(head)
    height, width = SIZE
    time = np.linspace(0.0, 1.0, frames)
    status = np.full((people, frames), FrameStatus.OK, np.int8)
    for at in lost:
        status[at] = FrameStatus.LOST
    arrays = _parameters(rng, model, people, time)
    for values in arrays.values():
        if values.shape[:2] == (people, frames):
            values[status != FrameStatus.OK] = np.nan
    return Track(
        **arrays,
        identity=rng.normal(0.0, 0.7, (people, model.num_shape)).astype(np.float32),
        status=status,
        residual_px=np.where(status == FrameStatus.OK, 0.7, np.nan).astype(np.float32),
        interocular_px=np.where(status == FrameStatus.OK, 40.0, np.nan).astype(np.float32),
        presence=np.where(status == FrameStatus.OK, 0.98, 0.1).astype(np.float32),
        frame_index=np.arange(frames),
        pts_seconds=first_seconds + seconds_per_frame * np.arange(frames),
        intrinsics=intrinsics or Intrinsics.from_fov(45.0, width, height),
        head=str(head),
        head_hash=model.content_hash,
        expression_names=tuple(model.expression_names or ()),
        info={} if source is None else {"source": {"path": str(source)}},
    )


def _parameters(rng: np.random.Generator, model: HeadModel, people: int, time: np.ndarray) -> dict[str, np.ndarray]:
    """Return parameters per person and frame that wave slowly."""

    def wave(size: int, scale: float) -> np.ndarray:
        phase, rate = rng.uniform(0, 2 * np.pi, (2, people, 1, size))
        return scale * np.sin(phase + rate * time[None, :, None])

    expression = np.abs(wave(model.num_expression, 0.6))
    jaw = np.abs(wave(3, 0.15)) * (1.0, 0.2, 0.1)
    # Turned by half about x: the head stands upright before an OpenCV camera and looks at it.
    turn = wave(3, 0.25)
    facing = np.stack([_facing(turn[person]) for person in range(people)])
    place = wave(3, 0.02) + (0.0, 0.0, 0.6)
    place[..., 0] += 0.2 * (np.arange(people)[:, None] - (people - 1) / 2)
    return {
        "expression": expression.astype(np.float32),
        "neck": wave(3, 0.1).astype(np.float32),
        "jaw": jaw.astype(np.float32),
        "left_eye": wave(3, 0.15).astype(np.float32),
        "right_eye": wave(3, 0.15).astype(np.float32),
        "rotation": facing,
        "translation": place,
    }


def _facing(turns: np.ndarray) -> np.ndarray:
    """Return axis-angles (T, 3) of heads that look at the camera but for small turns (T, 3)."""
    import cv2

    half_turn = np.diag((1.0, -1.0, -1.0))
    return np.stack([cv2.Rodrigues(half_turn @ cv2.Rodrigues(turn)[0])[0][:, 0] for turn in turns])
