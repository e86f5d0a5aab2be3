"""Colours of painted eyes."""

from __future__ import annotations

import numpy as np
import pytest

from flame import load_head
from tracker.texture.eyes import eye_texels, luminance, paint_eyes
from tracker.texture.texels import Part, TexelTable

SIZE = 256


def painted_iris(iris: tuple[float, float, float]) -> np.ndarray:
    """Return the colour that is painted where frames show an iris of this linear colour in a white of 0.5."""
    head = load_head("commons")
    table = TexelTable.of(head, SIZE)
    assert table is not None
    template = head.template.numpy().astype(np.float64)
    seen = np.full((len(table), 3), 0.5)
    places = [eye_texels(table, template, part) for part in (Part.LEFT_EYE, Part.RIGHT_EYE)]
    for place in places:
        seen[place.index[place.radius < 0.0059]] = iris
    index, colors = paint_eyes(table, template, seen, np.ones(len(table)), 0.35)
    radius = np.concatenate([place.radius for place in places])
    assert len(index) == len(radius)
    return np.median(colors[(radius > 0.003) & (radius < 0.0045)], axis=0)


def test_light_irises_keep_their_hue() -> None:
    seen = np.array((0.20, 0.27, 0.40))
    found = painted_iris((0.20, 0.27, 0.40))
    np.testing.assert_allclose(found / luminance(found), seen / luminance(seen), rtol=0.05)


def test_dark_irises_are_brown_whatever_is_reflected_in_them() -> None:
    # A screen's light in glasses makes what is seen of a dark iris bluish.
    found = painted_iris((0.039, 0.040, 0.055))
    assert found[0] > 1.3 * found[1] > 1.3 * found[2]
    assert luminance(found) == pytest.approx(0.041, rel=0.2)
