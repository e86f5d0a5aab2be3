from __future__ import annotations

import numpy as np

from flame.camera import Intrinsics
from flame.shading import STUDIO
from tracker.texture import render_textured
from tracker.texture.pictures import sample_texture

VERTS = np.array(((-0.1, -0.1, 1.0), (0.1, -0.1, 1.0), (0.1, 0.1, 1.0), (-0.1, 0.1, 1.0)))
FACES = np.array(((0, 3, 2), (0, 2, 1)))
UV = np.array(((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)), np.float32)
CAMERA = Intrinsics(200.0, 200.0, 32.0, 32.0, 64, 64)


def _quadrants() -> np.ndarray:
    texture = np.zeros((16, 16, 3), np.uint8)
    texture[:8, :8], texture[:8, 8:], texture[8:, :8], texture[8:, 8:] = (200, 0, 0), (0, 200, 0), (0, 0, 200), 100
    return texture


def test_first_row_of_the_texture_is_at_the_top() -> None:
    picture = render_textured(VERTS, FACES, UV, FACES, _quadrants(), CAMERA)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert picture[20, 20].tolist() == [200, 0, 0]
    assert picture[20, 44].tolist() == [0, 200, 0]
    assert picture[44, 20].tolist() == [0, 0, 200]
    assert picture[44, 44].tolist() == [100, 100, 100]


def test_picture_below_shows_where_no_head_is() -> None:
    below = np.full((64, 64, 3), 7, np.uint8)
    picture = render_textured(VERTS, FACES, UV, FACES, _quadrants(), CAMERA, image=below)
    assert (picture[:8] == 7).all()
    assert (below == 7).all()


def test_light_changes_the_colour_but_not_the_pattern() -> None:
    plain = render_textured(VERTS, FACES, UV, FACES, _quadrants(), CAMERA)
    lit = render_textured(VERTS, FACES, UV, FACES, _quadrants(), CAMERA, lighting=STUDIO)
    assert (plain[20, 20] != lit[20, 20]).any()
    assert lit[20, 20].argmax() == 0
    assert lit[20, 44].argmax() == 1


def test_texture_is_blended_between_texels_and_held_at_its_rim() -> None:
    texture = np.array([[[0.0], [10.0]], [[20.0], [30.0]]])
    places = np.array(((0.5, 0.5), (0.25, 0.75), (0.0, 1.0), (1.0, 0.0)))
    assert np.allclose(sample_texture(texture, places)[:, 0], (15, 0, 0, 30))
