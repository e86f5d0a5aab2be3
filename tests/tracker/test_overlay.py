"""Heads, labels, points and panels drawn over images."""

from __future__ import annotations

import numpy as np
import pytest

from flame.camera import Intrinsics, project
from flame.errors import InputError
from flame.shading import HeadLook, head_look
from tracker.overlay import PANEL_NAMES, DrawnHead, draw_head, draw_heads, draw_label, draw_points, panels

CAMERA = Intrinsics.from_fov(40.0, 160, 120)


def ball(x, z, radius=0.1, num_rings=14, num_segments=24):
    """Return a sphere of outward triangles, open at its poles, and its faces."""
    rings, segments = np.meshgrid(
        np.linspace(0.1, np.pi - 0.1, num_rings), np.arange(num_segments) * 2 * np.pi / num_segments, indexing="ij"
    )
    unit = np.stack((np.sin(rings) * np.cos(segments), np.cos(rings), np.sin(rings) * np.sin(segments)), -1)
    index = np.arange(num_rings * num_segments).reshape(num_rings, num_segments)
    a, b = index[:-1], index[1:]
    c, d = np.roll(b, -1, axis=1), np.roll(a, -1, axis=1)
    faces = np.concatenate((np.stack((a, c, b), -1).reshape(-1, 3), np.stack((a, d, c), -1).reshape(-1, 3)))
    return radius * unit.reshape(-1, 3) + (x, 0, z), faces


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)


def disc(x, z, radius=0.1, margin_px=0.0):
    """Return the pixels whose centre is inside the outline of a ball, grown by a margin."""
    rows, columns = np.mgrid[:120, :160] + 0.5
    return np.hypot(columns - 80 - CAMERA.fx * x / z, rows - 60) < CAMERA.fx * radius / z + margin_px


def test_draws_on_a_copy_only_where_the_head_is(image):
    verts, faces = ball(0.0, 0.8)
    before = image.copy()
    out = draw_head(image, verts, faces, CAMERA)
    assert out.dtype == np.uint8 and out.shape == image.shape
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(out[~disc(0, 0.8, margin_px=3)], image[~disc(0, 0.8, margin_px=3)])
    assert (out != image).any(axis=-1)[disc(0, 0.8, margin_px=-4)].mean() > 0.95


def test_alpha_lets_the_image_show_through(image):
    verts, faces = ball(0.0, 0.8)
    inside = disc(0, 0.8, margin_px=-4)
    opaque = draw_head(image, verts, faces, CAMERA, alpha=1.0).astype(float)
    half = draw_head(image, verts, faces, CAMERA, alpha=0.5)
    np.testing.assert_allclose(half[inside], (image[inside] + opaque[inside]) / 2, atol=1.01)
    np.testing.assert_array_equal(draw_head(image, verts, faces, CAMERA, alpha=0.0), image)
    faded = draw_head(image, verts, faces, CAMERA, alpha=1.0, opacity_per_vertex=np.full(len(verts), 0.5))
    np.testing.assert_array_equal(faded, half)


def test_colour_and_vertex_colours_agree(image):
    verts, faces = ball(0.0, 0.8)
    color = (0.2, 0.6, 0.9)
    one = draw_head(image, verts, faces, CAMERA, color=color)
    each = draw_head(image, verts, faces, CAMERA, vertex_colors=np.tile(color, (len(verts), 1)))
    np.testing.assert_array_equal(one, each)
    assert (draw_head(image, verts, faces, CAMERA) != one).any()


@pytest.mark.parametrize("mode", ["mesh", "normals", "wire"])
def test_every_mode_draws(image, mode):
    verts, faces = ball(0.0, 0.8)
    assert (draw_head(image, verts, faces, CAMERA, mode=mode) != image).any()


def test_an_unknown_mode_is_refused(image):
    with pytest.raises(InputError, match="unknown drawing mode 'solid'"):
        draw_head(image, *ball(0.0, 0.8), CAMERA, mode="solid")  # pyright: ignore[reportArgumentType]


def test_the_nearer_head_is_on_top_in_either_order(image):
    near, faces = ball(0.02, 0.7)
    far, _ = ball(-0.05, 1.0)
    num_verts = len(near)
    looks = [HeadLook(np.tile(c, (num_verts, 1)), np.ones(num_verts), np.ones((num_verts, 2))) for c in np.eye(3)[:2]]
    heads = [DrawnHead(near, looks[0]), DrawnHead(far, looks[1])]
    one, other = (draw_heads(image, order, faces, CAMERA, alpha=1.0) for order in (heads, heads[::-1]))
    np.testing.assert_array_equal(one, other)
    both = disc(0.02, 0.7, margin_px=-4) & disc(-0.05, 1.0, margin_px=-4)
    assert both.sum() > 200
    red, green = one[both].astype(float).mean(axis=0)[:2]
    assert red > 2 * green


def test_no_heads_leave_the_image_as_it_is(image):
    np.testing.assert_array_equal(draw_heads(image, [], ball(0, 1)[1], CAMERA), image)


def test_fading_follows_the_look(image):
    verts, faces = ball(0.0, 0.8)
    look = head_look(verts * (1, -1, -1), faces, {})
    rim = (look.opacity == 0).nonzero()[0]
    assert len(rim) == 48
    faded = draw_heads(image, [DrawnHead(verts, look)], faces, CAMERA)
    whole = draw_heads(image, [DrawnHead(verts, look)], faces, CAMERA, fade=False)
    columns, rows = np.floor(project(verts[rim], CAMERA)).astype(int).T
    change_faded = np.abs(faded[rows, columns].astype(int) - image[rows, columns]).mean()
    change_whole = np.abs(whole[rows, columns].astype(int) - image[rows, columns]).mean()
    assert change_faded < 0.5 * change_whole


def test_labels_stay_inside_the_image(image):
    verts, faces = ball(0.0, 0.25)
    labelled = draw_heads(image, [DrawnHead(verts, label="lost")], faces, CAMERA)
    plain = draw_heads(image, [DrawnHead(verts, label="lost")], faces, CAMERA, labels=False)
    changed = np.argwhere((labelled != plain).any(axis=-1))
    assert len(changed) > 100 and changed.max(axis=0)[0] < 40
    for corner in ((-50, -50), (500, 500)):
        tagged = image.copy()
        draw_label(tagged, "ok", corner)
        assert (tagged != image).any()
    tiny = np.zeros((6, 9, 3), np.uint8)
    draw_label(tiny, "a label wider than the image", (0, 0))


def test_convention_a_dot_is_centred_on_its_point():
    canvas = np.zeros((9, 9, 3), np.uint8)
    dot = draw_points(canvas, np.array([(4.5, 3.5)]), np.array([(250, 100, 0)]), radius_px=1.0)
    assert dot[3, 4].tolist() == [250, 100, 0] and canvas.sum() == 0
    rows, columns = np.mgrid[:9, :9] + 0.5
    weight = dot[..., 0] / dot[..., 0].sum()
    np.testing.assert_allclose(((columns * weight).sum(), (rows * weight).sum()), (4.5, 3.5), atol=1e-6)


def test_dots_outside_or_without_a_place_are_left_out():
    canvas = np.zeros((9, 9, 3), np.uint8)
    points = np.array([(-5.0, 4), (20, 4), (np.nan, 4), (np.inf, 1e300)])
    assert draw_points(canvas, points, np.full((4, 3), 255)).sum() == 0
    assert draw_points(canvas, np.array([(0.0, 9.0)]), np.full((1, 3), 255)).sum() > 0


def test_panels_stand_side_by_side_at_the_original_height(image):
    verts, faces = ball(0.0, 0.8)
    heads = [DrawnHead(verts, label="ok")]
    row = panels(image, heads, faces, CAMERA)
    assert row.shape == (120, 160 * len(PANEL_NAMES), 3) and row.dtype == np.uint8
    np.testing.assert_array_equal(row[30:, :160], image[30:])
    np.testing.assert_array_equal(row[30:, 480:640], draw_heads(image, heads, faces, CAMERA)[30:])
    assert (row[60, 160 + 80] == draw_head(image, verts, faces, CAMERA, alpha=1, mode="normals")[60, 80]).all()


def test_panels_show_the_evidence_where_given(image):
    normals = np.zeros((120, 160, 3))
    normals[60:] = (0, 0, -1)
    row = panels(
        image, [], ball(0, 1)[1], CAMERA, normals_cam=normals, points_px=np.array([(80.5, 70.5), (20.5, 40.5)])
    )
    assert row[50, 240].tolist() == [0, 0, 0] and row[100, 240].tolist() == [128, 128, 255]
    dark = (image * np.float32(0.25)).astype(np.uint8)
    changed = np.argwhere((row[30:, 320:480] != dark[30:]).any(axis=-1)) + (30, 0)
    assert {(70, 80), (40, 20)} <= {tuple(place) for place in changed.tolist()} and len(changed) < 30


def test_wide_images_are_cut_to_strips_or_shrunk(image):
    heads, faces = [DrawnHead(ball(0.0, 0.8)[0])], ball(0.0, 0.8)[1]
    strips = panels(image, heads, faces, CAMERA, focus_px=100.0, max_width=400)
    assert strips.shape == (120, 400, 3)
    np.testing.assert_array_equal(strips[30:, :80], image[30:, 60:140])
    at_border = panels(image, heads, faces, CAMERA, focus_px=2.0, max_width=400)
    np.testing.assert_array_equal(at_border[30:, :80], image[30:, :80])
    shrunk = panels(image, heads, faces, CAMERA, max_width=400)
    assert shrunk.shape == (120, 400, 3)
    assert (shrunk[-20:] == shrunk[-1, 0]).all()


def test_a_grid_shows_whole_images_in_their_size(image):
    verts, faces = ball(0.0, 0.8)
    heads = [DrawnHead(verts, label="ok")]
    grid = panels(image, heads, faces, CAMERA, layout="grid")
    row = panels(image, heads, faces, CAMERA)
    assert grid.shape == (240, 480, 3) and grid.dtype == np.uint8
    for index in range(len(PANEL_NAMES)):
        top, left = 120 * (index // 3), 160 * (index % 3)
        panel = grid[top : top + 120, left : left + 160]
        np.testing.assert_array_equal(panel[30:], row[30:, 160 * index : 160 * (index + 1)])


def test_the_last_panel_of_a_grid_turns_every_head_about_itself(image):
    near, faces = ball(-0.12, 0.8, radius=0.05)
    far, _ = ball(0.12, 0.8, radius=0.05)
    # Long towards the camera: turned, they are wide.
    heads = [DrawnHead((verts - (x, 0, 0.8)) * (0.3, 1, 1) + (x, 0, 0.8)) for verts, x in ((near, -0.12), (far, 0.12))]
    grid = panels(np.zeros_like(image), heads, faces, CAMERA, layout="grid")
    straight, turned = (part[60] != part[-1, 0] for part in (grid[120:, 160:320], grid[120:, 320:]))
    for half in (slice(0, 80), slice(80, 160)):
        columns = [np.flatnonzero(line.any(axis=-1)[half]) for line in (straight, turned)]
        assert len(columns[1]) > 1.6 * len(columns[0])
        assert abs(columns[0].mean() - columns[1].mean()) < 4


def test_large_grids_are_made_smaller_and_odd_ones_even(image):
    head = [DrawnHead(ball(0.0, 0.8)[0])]
    small = panels(image, head, ball(0.0, 0.8)[1], CAMERA, layout="grid", max_width=240)
    assert small.shape == (120, 240, 3)
    odd = panels(np.ascontiguousarray(image[:119, :159]), head, ball(0.0, 0.8)[1], CAMERA, layout="grid")
    assert odd.shape == (238, 478, 3)
    assert panels(np.ascontiguousarray(image[:119]), head, ball(0.0, 0.8)[1], CAMERA).shape == (120, 800, 3)


def test_panels_say_what_is_missing_and_refuse_unknown_layouts(image):
    faces = ball(0.0, 0.8)[1]
    said, plain = (panels(image, [], faces, CAMERA, note=note) for note in ("lost", ""))
    changed = np.flatnonzero((said != plain).any(axis=(0, 2)))
    assert 480 <= changed.min() and changed.max() < 640
    with pytest.raises(InputError, match="layout 'pile'"):
        panels(image, [], faces, CAMERA, layout="pile")  # pyright: ignore[reportArgumentType]
