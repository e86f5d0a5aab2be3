"""Hair, glasses, hats, hands and other things on rendered heads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from flame.camera import Intrinsics, project
from flame.loading import load_head
from flame.shading import STUDIO
from priors.landmark_embedding import look_at_face, pose_vertices
from priors.painted_head import PALETTES, PaintedHead
from priors.pixel_kinds import Kind
from priors.training.render.canvas import Canvas
from priors.training.render.covers import UNTOUCHED, CoverChances, HeadFrame, HeadGuide, Light, add_covers
from priors.training.render.glasses import GlassesStyle, draw_glasses
from priors.training.render.hair import HairStyle, draw_hair, random_style, under_hat
from priors.training.render.head_frame import SKULL_CENTER, hair_height
from priors.training.render.strokes import draw_tubes, tube_chain

SIZE = 128
BACKGROUND = (0.2, 0.5, 0.3)
NAMES = [field.name for field in fields(CoverChances)]


@dataclass(frozen=True)
class Scene:
    image: np.ndarray
    place: np.ndarray
    depth: np.ndarray
    landmarks_px: np.ndarray
    frame: HeadFrame
    light: Light

    def covered(self, seed: int, *names: str) -> tuple[np.ndarray, np.ndarray]:
        chances = CoverChances(**{name: float(name in names) for name in NAMES})
        return add_covers(
            self.image,
            self.place,
            self.depth,
            self.landmarks_px,
            self.frame,
            self.light,
            np.random.default_rng(seed),
            chances,
        )

    @property
    def canvas(self) -> Canvas:
        return Canvas.of(self.image, self.place, self.depth, self.landmarks_px, self.frame, self.light)

    @property
    def wear(self) -> np.ndarray:
        return self.frame.guide.wear_from_place(self.place)


@pytest.fixture(scope="module")
def guide() -> HeadGuide:
    return HeadGuide(load_head("commons"))


@pytest.fixture(scope="module")
def scenes(guide: HeadGuide) -> dict[float, Scene]:
    """Return the shipped head from three sides, by yaw in degrees."""
    head = load_head("commons")
    painted = PaintedHead(head)
    found = {}
    assert head.topology is not None
    for yaw in (-40.0, 0.0, 40.0):
        verts = look_at_face(pose_vertices(head, np.zeros(4)), painted, yaw, 5.0, 0.85)
        intrinsics = Intrinsics.from_fov(20, SIZE, SIZE)
        image, fragments, place = painted.render(verts, intrinsics, palette=PALETTES[0], lighting=STUDIO)
        shown = image.astype(np.float32) / 255
        shown[~fragments.mask] = BACKGROUND
        place = np.where(fragments.mask[..., None], place, np.nan).astype(np.float32)
        landmarks = head.topology.landmarks("mediapipe").on(verts, head.faces.numpy())
        light = Light(np.array((-0.4, -0.5, -0.77)), np.full(3, 0.7), np.full(3, 0.35))
        frame = HeadFrame.of(guide, verts, intrinsics)
        found[yaw] = Scene(shown, place, fragments.depth, project(landmarks, intrinsics), frame, light)
    return found


@pytest.fixture(scope="module")
def front(scenes: dict[float, Scene]) -> Scene:
    return scenes[0.0]


def test_the_fitted_frame_lies_on_the_head(front, guide):
    fitted = front.frame.to_cam(guide.verts[guide.fit_vertices])
    posed = front.frame.verts_cam[guide.fit_vertices]
    assert np.linalg.norm(fitted - posed, axis=1).max() < 1e-5
    pixels = front.frame.to_pixels(guide.verts[guide.fit_vertices])
    np.testing.assert_allclose(pixels[:, :2], project(posed, front.frame.intrinsics), atol=1e-2)
    assert front.frame.down @ np.array((0, -1, 0)) > 0.98


def test_the_skull_table_knows_how_far_the_skin_is(guide):
    skin = guide.verts[guide.outer & (guide.verts[:, 1] > 0.03)]
    radius = np.linalg.norm(skin - SKULL_CENTER, axis=1)
    assert np.abs(guide.skin_radius(skin) - radius).mean() < 0.003


def test_the_hairline_separates_scalp_from_face():
    head = load_head("commons")
    assert head.topology is not None
    guide = HeadGuide(head)
    assert (hair_height(guide.verts[head.topology.region("nose", "lips", "eyelids")]) < -0.02).all()
    top = head.topology.region("scalp") & (guide.verts[:, 1] > 0.06)
    assert (hair_height(guide.verts[top]) > 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_same_seed_gives_the_same_picture(scenes, seed):
    scene = scenes[40.0]
    first, second = scene.covered(seed, *NAMES), scene.covered(seed, *NAMES)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    other = scene.covered(seed + 100, *NAMES)
    assert np.abs(first[0] - other[0]).mean() > 0.01


def test_inputs_are_left_alone_and_outputs_are_in_range(front):
    image, place, depth = front.image.copy(), front.place.copy(), front.depth.copy()
    for seed in range(12):
        covered, kind = front.covered(seed, *NAMES)
        assert covered.dtype == np.float32
        assert kind.dtype == np.uint8
        assert np.isfinite(covered).all()
        assert 0 <= covered.min() <= covered.max() <= 1
        assert set(np.unique(kind)) <= {Kind.BACKGROUND, Kind.HAIR, Kind.COVER, UNTOUCHED}
    np.testing.assert_array_equal(front.image, image)
    np.testing.assert_array_equal(front.place, place)
    np.testing.assert_array_equal(front.depth, depth)


def test_without_chances_nothing_changes(front):
    covered, kind = front.covered(0)
    np.testing.assert_array_equal(covered, front.image)
    assert (kind == UNTOUCHED).all()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("clothes", {Kind.BACKGROUND}),
        ("hair", {Kind.HAIR}),
        ("beard", {Kind.HAIR}),
        ("headwear", {Kind.COVER}),
        ("glasses", {Kind.COVER}),
        ("mask", {Kind.COVER}),
        ("hand", {Kind.COVER}),
        ("thing", {Kind.COVER}),
    ],
)
def test_each_thing_has_its_kind_and_marks_what_it_changes(scenes, name, allowed):
    drawn = 0
    for seed, scene in enumerate([*scenes.values()] * 4):
        covered, kind = scene.covered(seed, name)
        touched = kind != UNTOUCHED
        assert set(np.unique(kind[touched])) <= allowed
        changed = np.abs(covered - scene.image).max(axis=2) > 0.25
        if name not in ("glasses", "beard"):  # clear lenses and stubble change the picture without hiding anything
            assert (changed & ~touched).sum() <= 0.06 * changed.sum() + 3
        drawn += touched.sum() > 10
    assert drawn >= 8


def long_hair(**changes: object) -> HairStyle:
    values = {
        "color": np.array((0.8, 0.1, 0.1)),
        "comb": "parted",
        "length": 0.3,
        "fringe": 0.3,
        "volume": 0.02,
        "lift": 0.2,
        "gravity": 0.4,
        "curl": 0.0,
        "opening": 0.06,
        "part": 0.0,
        "line": 0.0,
        "width": 0.006,
        "count": 500,
        "mess": 0.05,
        "knot": "none",
    }
    return HairStyle(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def test_long_hair_frames_the_face_and_falls_before_the_background(front):
    canvas = front.canvas
    draw_hair(canvas, np.random.default_rng(1), long_hair())
    is_hair = canvas.kind == Kind.HAIR
    wear, on_head = front.wear, np.isfinite(front.place[..., 0])
    middle = (np.abs(wear[..., 0]) < 0.025) & (np.abs(wear[..., 1] + 0.03) < 0.04) & (wear[..., 2] > 0)
    scalp = on_head & (hair_height(np.nan_to_num(wear)) > 0.02)
    assert is_hair[middle].mean() < 0.05
    assert is_hair[scalp].mean() > 0.95
    # Beside the jaw, on both sides, down to below the chin.
    chin = front.landmarks_px[152]
    rows = np.arange(SIZE) + 0.5
    for columns in (np.arange(SIZE) < chin[0] - 5, np.arange(SIZE) > chin[0] + 5):
        beside = is_hair[:, columns] & ~on_head[:, columns]
        assert beside[rows > chin[1]].sum() > 30
    assert canvas.image[is_hair][:, 0].mean() > 2 * canvas.image[is_hair][:, 1].mean()


def test_hair_that_hangs_before_the_face_covers_it_and_hair_behind_the_head_does_not(front):
    over = front.canvas
    draw_hair(over, np.random.default_rng(2), long_hair(comb="forward", opening=0.0, fringe=0.29))
    wear = front.wear
    face = (np.abs(wear[..., 0]) < 0.04) & (wear[..., 1] < 0.02) & (wear[..., 1] > -0.1) & (wear[..., 2] > 0)
    assert (over.kind[face] == Kind.HAIR).mean() > 0.25
    behind = front.canvas
    draw_hair(behind, np.random.default_rng(2), long_hair(comb="back", opening=0.09, fringe=0.3))
    assert (behind.kind[face] == Kind.HAIR).mean() < 0.05


def test_hair_under_a_hat_lies_flat():
    for seed in range(20):
        style = under_hat(random_style(np.random.default_rng(seed)))
        assert style.volume <= 0.005
        assert style.knot == "none"
        assert style.comb != "out"


def test_a_beard_leaves_lips_and_eyes_free(front):
    wear = front.wear
    lips = (np.abs(wear[..., 0]) < 0.018) & (np.abs(wear[..., 1] + 0.073) < 0.006)
    upper = wear[..., 1] > -0.01
    chin = (np.abs(wear[..., 0]) < 0.01) & (wear[..., 1] < -0.095) & (wear[..., 1] > -0.11) & (wear[..., 2] > 0)
    bearded = 0
    for seed in range(25):
        _, kind = front.covered(seed, "beard")
        is_hair = kind == Kind.HAIR
        assert not is_hair[upper].any()
        bearded += is_hair[chin].mean() > 0.8
        if not is_hair[chin].any():
            assert is_hair[lips].mean() < 0.2
    assert 3 <= bearded <= 20


def glasses(**changes: object) -> GlassesStyle:
    values = {
        "half_width": 0.025,
        "half_height": 0.02,
        "power": 2.5,
        "taper": 0.1,
        "spacing": 0.032,
        "drop": 0.003,
        "forward": 0.028,
        "wrap": 0.1,
        "rim": 0.002,
        "color": np.array((0.1, 0.1, 0.6), np.float32),
        "tint": np.zeros(3, np.float32),
        "opacity": 0.0,
        "reflection": 0.0,
    }
    return GlassesStyle(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def test_clear_lenses_show_the_eyes_and_dark_ones_hide_them(scenes):
    for scene in scenes.values():
        clear, dark = scene.canvas, scene.canvas
        draw_glasses(clear, np.random.default_rng(3), glasses())
        draw_glasses(dark, np.random.default_rng(3), glasses(opacity=0.95))
        for pupil in (468, 473):
            column, row = np.floor(scene.landmarks_px[pupil]).astype(int)
            if np.linalg.norm(scene.wear[row, column] - scene.frame.guide.verts, axis=1).min() > 0.01:
                continue
            assert clear.kind[row, column] == UNTOUCHED
            np.testing.assert_array_equal(clear.image[row, column], scene.image[row, column])
            assert dark.kind[row, column] == Kind.COVER
            assert dark.image[row, column].max() < 0.15
        assert (clear.kind == Kind.COVER).sum() > 40


def test_the_head_hides_the_far_temple_of_turned_glasses(scenes):
    scene = scenes[40.0]
    worn, floating = scene.canvas, replace(scene, depth=np.full_like(scene.depth, np.inf)).canvas
    for canvas in (worn, floating):
        draw_glasses(canvas, np.random.default_rng(4), glasses(rim=0.003))
    hidden = (floating.kind == Kind.COVER) & (worn.kind != Kind.COVER)
    assert hidden.sum() > 15
    assert not ((worn.kind == Kind.COVER) & (floating.kind != Kind.COVER)).any()
    # What is hidden lies where the head is nearer than the far temple, at its far ear.
    ears = scene.frame.to_pixels(np.array(((-0.077, 0.012, -0.06), (0.077, 0.012, -0.06))))
    assert (scene.depth[hidden] < ears[:, 2].max()).all()


def test_a_hat_covers_the_top_and_not_the_face(front):
    wear = front.wear
    face = (np.abs(wear[..., 0]) < 0.03) & (wear[..., 1] < -0.02) & (wear[..., 1] > -0.09) & (wear[..., 2] > 0)
    for seed in range(20):
        _, kind = front.covered(seed, "headwear")
        assert (kind[face] == Kind.COVER).mean() < 0.02


def test_clothes_lie_below_the_face_and_beside_the_neck(front):
    below_chin = np.arange(SIZE)[:, None] + 0.5 > front.landmarks_px[152, 1]
    for seed in range(10):
        _, kind = front.covered(seed, "clothes")
        drawn = kind == Kind.BACKGROUND
        assert drawn[-1].mean() > 0.5
        assert (drawn & ~below_chin).mean() < 0.05


def test_tubes_respect_depth_unless_they_are_in_front_of_everything():
    light = np.array(((0, 0, -1), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), np.float32)
    points = np.array(((4.0, 16.0, 1.0), (28.0, 16.0, 1.0)))
    starts, ends, radii = tube_chain(points, (3.0, 3.0))
    color = np.ones((1, 3), np.float32)

    def drawn(depth_of_wall: float, nearer: float) -> np.ndarray:
        image, kind = np.zeros((32, 32, 3), np.float32), np.full((32, 32), UNTOUCHED, np.uint8)
        depth = np.full((32, 32), depth_of_wall, np.float32)
        draw_tubes(image, kind, depth, starts, ends, radii, color, light, nearer, 0.0, int(Kind.COVER))
        return kind == Kind.COVER

    assert drawn(2.0, 0.0)[16, 16]
    assert not drawn(0.5, 0.0).any()
    assert drawn(0.5, float("inf"))[16, 16]
    area = drawn(2.0, 0.0)
    rows, columns = np.nonzero(area)
    # A tube with round ends: 24 px long, 6 px wide.
    assert area.sum() == pytest.approx(24 * 6 + np.pi * 9, abs=12)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (13, 18, 1, 30)


def test_a_head_without_landmarks_out_of_sight_does_no_harm(toy_head):
    guide = HeadGuide(toy_head)
    assert guide.bridge is None
    verts = toy_head.template.numpy() * (1, -1, -1) + (0, 0, 1)
    frame = HeadFrame.of(guide, verts, Intrinsics.from_fov(20, 64, 64))
    light = Light(np.array((0.0, 0.0, -1.0)), np.full(3, 0.7), np.full(3, 0.3))
    nothing = np.full((64, 64, 3), np.nan, np.float32), np.full((64, 64), np.inf, np.float32)
    scene = Scene(np.full((64, 64, 3), 0.5, np.float32), *nothing, np.full((478, 2), 32.0), frame, light)
    for seed in range(6):
        image, kind = scene.covered(seed, *NAMES)
        assert np.isfinite(image).all()
        assert (kind != UNTOUCHED).any()
