"""Heads cut out of pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from flame import load_head
from flame.camera import Intrinsics, project
from flame.errors import InputError
from flame.model import HeadModel
from priors.head_matting import (
    HeadLocator,
    HeadPlace,
    MattingContext,
    MediaPipeMatting,
    find_matting,
    head_alpha,
    neighbours,
)
from tests.toy_head import make_toy_head
from tests.tracker.face_clips import SIZE, portrait

CAMERA = Intrinsics.from_fov(40.0, 240, 200)
FACING = np.diag((1.0, -1.0, -1.0))


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons")


def turned(degrees: float) -> np.ndarray:
    """Return the rotation of an upright head that faces the camera, turned clockwise in the picture."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1))) @ FACING


def place(head: HeadModel, at: tuple[float, float, float] = (0, 0, 0.7), degrees: float = 0.0) -> HeadPlace:
    """Return where a head is that faces the camera."""
    turn = turned(degrees)
    verts = head.template.double().numpy() @ turn.T + at
    found = HeadLocator(head)(verts, turn[:, 1], CAMERA)
    assert found is not None
    return found


def everybody(image: np.ndarray, _context: MattingContext) -> np.ndarray:
    return np.ones(image.shape[:2], np.float32)


PICTURE = np.zeros((200, 240, 3), np.uint8)


@pytest.mark.parametrize("degrees", [0, 35, -80, 150])
@pytest.mark.parametrize("head_name", ["commons", "toy"])
def test_the_neck_is_cut_across_and_turns_with_the_head(head_name: str, degrees: float, commons: HeadModel):
    head = commons if head_name == "commons" else make_toy_head()
    where = place(head, degrees=degrees)
    assert np.allclose(where.up, (np.sin(np.radians(degrees)), -np.cos(np.radians(degrees))), atol=0.05)
    assert abs(np.degrees(where.roll_rad) - degrees) < 3
    alpha = head_alpha(everybody, PICTURE, MattingContext(0, 0, where))
    rows, columns = np.nonzero(alpha > 0.99)
    height_px = (np.stack((columns, rows), axis=1) + 0.5 - where.neck_px) @ where.up
    # Kept down to the line, gone below it, and the head itself is whole.
    assert -0.02 * where.extent_px < height_px.min() < 0.05 * where.extent_px
    assert alpha[where.is_covered].min() == 1
    below = where.neck_px - 0.1 * where.extent_px * where.up
    assert alpha[int(below[1]), int(below[0])] == 0


def test_the_rim_is_the_front_of_the_neck(commons: HeadModel):
    verts = commons.template.double().numpy()
    camera_px = place(commons).neck_px
    neck = commons.topology.region("neck")  # pyright: ignore
    pixels = project(verts[neck] @ FACING.T + (0, 0, 0.7), CAMERA)
    chin_px = project(verts[[verts[:, 2].argmax()]] @ FACING.T + (0, 0, 0.7), CAMERA)[0]
    assert abs(camera_px[0] - pixels[:, 0].mean()) < 2
    assert chin_px[1] < camera_px[1] <= pixels[:, 1].max()


def test_a_head_that_looks_down_keeps_its_chin(commons: HeadModel):
    cos, sin = np.cos(np.radians(50)), np.sin(np.radians(50))
    nod = np.array(((1, 0, 0), (0, cos, -sin), (0, sin, cos)))
    turn = FACING @ nod
    where = HeadLocator(commons)(commons.template.double().numpy() @ turn.T + (0, 0, 0.7), turn[:, 1], CAMERA)
    assert where is not None
    alpha = head_alpha(everybody, PICTURE, MattingContext(0, 0, where))
    assert alpha[where.is_covered].min() == 1


def test_people_share_the_picture(commons: HeadModel):
    places = [place(commons, (-0.09, 0, 0.8)), place(commons, (0.09, 0, 0.7)), None]
    alphas = [
        head_alpha(everybody, PICTURE, MattingContext(0, person, where, neighbours(places, person)))
        for person, where in enumerate(places)
        if where is not None
    ]
    # Nothing is given twice, and of what both meshes cover the nearer one gets it.
    assert (alphas[0] + alphas[1]).max() < 1.02
    both = places[0].is_covered & places[1].is_covered  # pyright: ignore
    assert both.any() and alphas[1][both].min() > 0.9 and alphas[0][both].max() < 0.1
    assert alphas[0][:, :60].max() == 1 and alphas[1][:, :60].max() == 0


def test_islands_and_what_is_far_from_the_head_are_left_out(commons: HeadModel):
    where = place(commons, (0, 0, 1.2))
    left, top = where.vertices_px.min(axis=0).astype(int)

    def with_island(image: np.ndarray, context: MattingContext) -> np.ndarray:
        alpha = context.head.is_covered.astype(np.float32)
        alpha[top : top + 6, left - 14 : left - 8] = 1
        return alpha

    alpha = head_alpha(with_island, PICTURE, MattingContext(0, 0, where))
    assert alpha[top : top + 6, left - 14 : left - 8].max() == 0
    assert alpha[where.is_covered].min() == 1
    assert head_alpha(everybody, PICTURE, MattingContext(0, 0, where))[:, :20].max() == 0
    nothing = head_alpha(lambda image, context: np.zeros(image.shape[:2]), PICTURE, MattingContext(0, 0, where))
    assert nothing.shape == PICTURE.shape[:2] and nothing.max() == 0


def test_a_head_behind_the_camera_is_nowhere(commons: HeadModel):
    verts = commons.template.double().numpy() @ FACING.T
    assert HeadLocator(commons)(verts + (0, 0, 0.05), FACING[:, 1], CAMERA) is None
    aside = HeadLocator(commons)(verts + (3.0, 0, 0.7), FACING[:, 1], CAMERA)
    assert aside is not None and not aside.is_covered.any()


def portrait_place(commons: HeadModel) -> HeadPlace:
    """Return about where the photograph's head is."""
    camera = Intrinsics.from_fov(30.0, SIZE, SIZE)
    verts = commons.template.double().numpy() @ FACING.T + (0.0, 0.01, 0.85)
    found = HeadLocator(commons)(verts, FACING[:, 1], camera)
    assert found is not None
    return found


def test_a_photographs_head_is_found_with_its_hair(commons: HeadModel):
    where, image = portrait_place(commons), portrait()
    alpha = head_alpha(MediaPipeMatting(), image, MattingContext(0, 0, where))
    assert alpha.dtype == np.float32 and alpha.shape == (SIZE, SIZE) and 0 <= alpha.min() and alpha.max() <= 1
    assert alpha[where.is_covered].mean() > 0.95
    # The hair stands out above and beside the mesh; the wall behind and the suit below do not count.
    hair = (alpha > 0.9) & ~where.is_covered
    assert hair.sum() > 0.15 * where.is_covered.sum()
    assert alpha[:8, :40].max() < 0.05 and alpha[-8:].max() < 0.05


def test_the_matting_is_steady_from_frame_to_frame(commons: HeadModel):
    matting, where = MediaPipeMatting(), portrait_place(commons)
    rng = np.random.default_rng(1)
    masks = []
    for frame in range(4):
        noisy = np.clip(portrait() + rng.normal(0, 4, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
        masks.append(head_alpha(matting, noisy, MattingContext(frame, 0, where)) > 0.5)
    for before, after in zip(masks, masks[1:], strict=False):
        assert (before & after).sum() / (before | after).sum() > 0.97


def test_large_and_cut_off_heads_are_matted_in_the_pictures_size(commons: HeadModel):
    image = np.full((90, 700, 3), 128, np.uint8)
    camera = Intrinsics.from_fov(40.0, 700, 90)
    verts = commons.template.double().numpy() @ FACING.T + (-0.1, 0, 0.3)
    where = HeadLocator(commons)(verts, FACING[:, 1], camera)
    assert where is not None
    alpha = head_alpha(MediaPipeMatting(), image, MattingContext(0, 0, where))
    assert alpha.shape == (90, 700) and np.isfinite(alpha).all()


def test_mattings_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert isinstance(find_matting("mediapipe"), MediaPipeMatting)
    (tmp_path / "my_matting.py").write_text("def cut(image, context):\n    return image\n\nNUMBER = 3\n")
    (tmp_path / "my_broken_matting.py").write_text("raise RuntimeError('no such device')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_matting("my_matting:cut").__name__ == "cut"  # pyright: ignore
    sys.modules.pop("my_matting", None)
    for name, reason in (
        ("rvm", "is not known"),
        ("my_matting:", "is not known"),
        ("my_matting:other", "does not exist in my_matting"),
        ("my_matting:NUMBER", "is not a function"),
        ("no_such_module:cut", "cannot be imported"),
        ("my_broken_matting:cut", "no such device"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            find_matting(name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("wrong", [np.ones((3, 3), np.float32), np.ones((200, 240), np.uint8), None])
def test_a_matting_that_returns_something_else_is_told(wrong: object, commons: HeadModel):
    context = MattingContext(0, 0, place(commons))
    with pytest.raises(InputError, match="has to return float32"):
        head_alpha(lambda image, context: wrong, PICTURE, context)  # pyright: ignore


def test_a_matting_that_raises_is_told_in_one_line(commons: HeadModel):
    def fail(_image: np.ndarray, _context: MattingContext) -> np.ndarray:
        raise ValueError("no such\ndevice")

    with pytest.raises(InputError, match=r"the matting failed: ValueError no such device \(.*_matting.py, line"):
        head_alpha(fail, PICTURE, MattingContext(0, 0, place(commons)))
