"""Painted heads: colours come out of the page's tone curve as they went in, and the files are glTF."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tracker.export.glb_reader import GlbFile, read_glb
from tests.tracker.export.tracks import small_track
from tracker.texture import HeadTexture
from tracker.texture.srgb import linear_from_srgb, srgb_from_linear
from tracker.viewer.clip import Clip
from tracker.viewer.controls import Edits
from tracker.viewer.eyes import IRIS_METRES, EyeDisc
from tracker.viewer.painting import (
    before_tone_mapping,
    coloured_glb,
    encode_texture,
    textured_glb,
    tone_mapped,
)
from tracker.viewer.textures import PaintedHead, colors_at, split_edges


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(small_track(frames=2))


def test_srgb_and_back():
    values = np.linspace(0, 1, 256)
    np.testing.assert_allclose(srgb_from_linear(linear_from_srgb(values)), values, atol=1e-9)


def test_the_inverse_tone_curve_gives_back_skin_and_greys():
    rng = np.random.default_rng(5)
    grey = np.repeat(np.linspace(0.02, 0.97, 40)[:, None], 3, axis=1)
    skin = np.array((0.78, 0.60, 0.50)) * rng.uniform(0.3, 1.15, (60, 1))
    for colors in (grey, skin.clip(0, 0.97)):
        shown = srgb_from_linear(tone_mapped(before_tone_mapping(colors)))
        np.testing.assert_allclose(shown, colors, atol=0.012)


def test_colours_of_normals_are_told_apart():
    rng = np.random.default_rng(3)
    normals = rng.normal(size=(2000, 3))
    colors = 0.5 + 0.5 * normals / np.linalg.norm(normals, axis=1, keepdims=True)
    error = np.abs(srgb_from_linear(tone_mapped(before_tone_mapping(colors))) - colors)
    assert np.median(error) < 0.01
    assert error.max() < 0.25


def test_colours_out_of_reach_keep_their_hue():
    pure = np.eye(3)
    shown = srgb_from_linear(tone_mapped(before_tone_mapping(pure)))
    np.testing.assert_array_equal(shown.argmax(axis=1), np.arange(3))
    assert (np.sort(shown, axis=1)[:, 1] < 0.55).all()


def test_coloured_heads_read_back(clip, tmp_path):
    vertices = clip.vertices(0, 0, Edits())
    colors = np.random.default_rng(0).uniform(0, 1, vertices.shape)
    data = coloured_glb(vertices, clip.head.faces, before_tone_mapping(colors))
    glb = read(data, tmp_path)
    (primitive,) = glb.document["meshes"][0]["primitives"]
    np.testing.assert_array_equal(glb.numbers(primitive["attributes"]["POSITION"]), vertices)
    np.testing.assert_array_equal(glb.numbers(primitive["indices"]).reshape(-1, 3), clip.head.faces)
    stored = glb.numbers(primitive["attributes"]["COLOR_0"])
    factor = glb.document["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"]
    np.testing.assert_allclose(stored * factor[0], before_tone_mapping(colors), atol=1e-5)


def test_textured_heads_carry_their_texture_the_right_way_up(clip, tmp_path):
    topology = clip.head.topology
    texture = np.full((64, 64, 3), 90, np.uint8)
    texture[:32] = (200, 150, 130)
    corners = np.zeros(len(topology.uv), np.int64)
    corners[topology.uv_faces.ravel()] = clip.head.faces.ravel()
    vertices = clip.vertices(0, 0, Edits())[corners]
    data = textured_glb(vertices, topology.uv_faces, topology.uv, encode_texture(texture, 32))
    glb = read(data, tmp_path)
    (primitive,) = glb.document["meshes"][0]["primitives"]
    stored = glb.numbers(primitive["attributes"]["TEXCOORD_0"])
    np.testing.assert_allclose(stored[:, 1], 1 - topology.uv[:, 1], atol=1e-6)
    image = np.asarray(Image.open(io.BytesIO(glb.view(glb.document["images"][0]["bufferView"]))))
    assert image.shape == (32, 32, 3)
    shown = srgb_from_linear(tone_mapped(linear_from_srgb(image / 255.0) * 6.0))
    np.testing.assert_allclose(255 * shown[4], np.tile((200, 150, 130), (32, 1)), atol=8)
    np.testing.assert_allclose(255 * shown[28], 90, atol=8)


def test_split_triangles_cover_the_same_surface():
    faces = np.array(((0, 1, 2), (2, 1, 3)))
    points = np.array(((0.0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 1)))
    edges, fine = split_edges(faces, 4)
    assert len(edges) == 5 and fine.shape == (8, 3)
    finer = np.concatenate((points, points[edges].mean(axis=1)))

    def vector_areas(vertices, triangles):
        first, second, third = (vertices[triangles[:, corner]] for corner in range(3))
        return np.cross(second - first, third - first) / 2

    coarse = vector_areas(points, faces)
    # Each of the four parts has a quarter of its triangle's area, and looks the same way.
    np.testing.assert_allclose(vector_areas(finer, fine).reshape(4, 2, 3), np.tile(coarse / 4, (4, 1, 1)), atol=1e-12)


def test_colours_are_taken_where_the_texture_has_them():
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:16, 48:] = (250, 100, 50)
    colors = colors_at(rgb, np.array(((0.9, 0.9), (0.9, 0.1), (0.1, 0.9), (1.0, 1.0))))
    np.testing.assert_allclose(255 * colors[[0, 3]], np.tile((250, 100, 50), (2, 1)))
    assert (colors[1:3] == 0).all()


def test_a_still_head_carries_its_picture_and_a_moving_one_does_not(clip, tmp_path):
    texture = HeadTexture(np.full((32, 32, 3), 120, np.uint8), np.ones((32, 32), np.float32))
    painted = PaintedHead.of(clip, texture)
    vertices = clip.vertices(0, 0, Edits())
    still = painted.files(vertices, clip.head.faces, False)
    moving = painted.files(vertices, clip.head.faces, True)
    assert still.base == moving.base and still.detail is not None and moving.detail is None
    files = (still.base, still.detail)
    assert [bool(read(each, tmp_path).document.get("images")) for each in files] == [False, True]
    # The picture lies a little above the coloured mesh, so that it hides it.
    lifted = read(still.detail, tmp_path).numbers(0)
    distance = np.linalg.norm(lifted - vertices[painted.vertex_of_uv], axis=1)
    assert 0 < np.median(distance) < 5e-4


def read(data: bytes, folder: Path) -> GlbFile:
    (folder / "head.glb").write_bytes(data)
    return read_glb(folder / "head.glb")


def test_irises_lie_on_the_eyeballs_and_turn_with_them(clip):
    ball = clip.head.skin_weights[:, 3] > 0.5
    rest = clip.rig(0).rest
    disc = EyeDisc.on(rest, clip.head.faces, ball, IRIS_METRES)
    assert disc is not None
    centre = (rest[ball].min(axis=0) + rest[ball].max(axis=0)) / 2
    points = disc.at(rest, 1)
    rim = np.linalg.norm(points[-28:, :2] - centre[:2], axis=1)
    np.testing.assert_allclose(rim, IRIS_METRES, atol=2e-4)
    assert (points[:, 2] > centre[2] + 0.008).all()
    edits = Edits()
    edits.set(0, clip.controls["left_eye.y"], 30.0)
    edits.set(0, clip.controls["left_eye.x"], 0.0)
    turned = disc.at(clip.rig(0).pose(clip.parameters(0, 0, edits)), 1)
    edits.set(0, clip.controls["left_eye.y"], -30.0)
    other = disc.at(clip.rig(0).pose(clip.parameters(0, 0, edits)), 1)
    # Towards the subject's left is +x.
    assert turned[0, 0] - other[0, 0] > 0.010
