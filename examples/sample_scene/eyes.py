"""The eyes: painted, since the photograph shows only what its gaze and its lids let see."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from flame.rasterizer import Fragments, interpolate
from sample_scene.portrait import Portrait

_IRIS_METRES, _PUPIL_METRES = 0.0062, 0.0026
_WHITE = np.array((214.0, 200.0, 192.0))
_IRIS, _RING, _PUPIL = np.array((86.0, 58.0, 36.0)), np.array((38.0, 25.0, 17.0)), np.array((13.0, 9.0, 8.0))


@dataclass(frozen=True)
class Eyes:
    """Hold what the paint of the eyes depends on."""

    is_eye: np.ndarray
    """Which vertices are an eyeball's, bool (V,)."""
    local: np.ndarray
    """Position from the eyeball's centre, along its own axes, float64 (V, 3), metres; zero elsewhere."""
    masks: tuple[np.ndarray, np.ndarray]
    """Left and right eyeball, bool (V,) each."""

    def paint(self, color: np.ndarray, fragments: Fragments, faces: np.ndarray, at_rest: np.ndarray) -> None:
        """Paint the pixels of a picture (h, w, 3) that show an eyeball, in place.

        Args:
            color: float32 (h, w, 3), 0 to 255.
            fragments: what its pixels show.
            faces: the head's triangles (F, 3), the first that the fragments name.
            at_rest: vertices (V, 3) without the head's turn: lids and light stay there while the gaze moves.
        """
        fixed = np.zeros_like(at_rest)
        for mask in self.masks:
            fixed[mask] = at_rest[mask] - at_rest[mask].mean(axis=0)
        eyeballs = np.flatnonzero(self.is_eye[faces].all(axis=1))
        shows = np.isin(fragments.triangle, eyeballs)
        if not shows.any():
            return
        only_eyes = replace(fragments, triangle=np.where(shows, fragments.triangle, -1))
        values = interpolate(only_eyes, faces, np.concatenate((self.local, fixed), axis=1))[shows]
        color[shows] = _paint(values[:, :3], values[:, 3:])


def _paint(local: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Return the colour of points of an eyeball (N, 3)."""
    radius = np.linalg.norm(local[:, :2], axis=1)
    soft = 0.0010

    def within(limit: float) -> np.ndarray:
        return np.clip((limit - radius) / soft + 0.5, 0, 1)[:, None]

    color = np.tile(_WHITE, (len(local), 1))
    color *= 1 - 0.25 * np.clip(np.abs(local[:, :1]) / 0.013, 0, 1) ** 2
    ring = np.clip(radius / _IRIS_METRES * 3.0 - 1.9, 0, 1)[:, None]
    iris = _IRIS + ring * (_RING - _IRIS)
    color += within(_IRIS_METRES) * (iris - color)
    color += within(_PUPIL_METRES) * (_PUPIL - color)
    # The upper lid shades the eye; a catch light stays where the lamp puts it.
    shade = np.clip((fixed[:, 1:2] + 0.0065) / 0.006, 0, 1)
    color *= 0.55 + 0.45 * shade
    glint = np.exp(-(((fixed[:, 0] + 0.0012) / 0.0013) ** 2 + ((fixed[:, 1] + 0.0022) / 0.0013) ** 2))
    return color + np.clip(1.5 * glint, 0, 1)[:, None] * (235.0 - color)


def build_eyes(portrait: Portrait) -> Eyes:
    """Find the eyeballs and the axes along which they look."""
    head = portrait.track.head_model
    assert head.topology is not None
    with torch.no_grad():
        rest = head.rest(torch.from_numpy(portrait.track.identity[0])).vertices.numpy().astype(np.float64)
    masks = head.topology.region("left_eye"), head.topology.region("right_eye")
    local = np.zeros_like(rest)
    for mask in masks:
        local[mask] = rest[mask] - 0.5 * (rest[mask].min(axis=0) + rest[mask].max(axis=0))
    return Eyes(masks[0] | masks[1], local, masks)


@dataclass(frozen=True)
class Lids:
    """Hold the skin that a closing upper lid unfolds; the photograph shows it only as a dark crease."""

    colors: np.ndarray
    """Colour of the skin, float32 (V, 3), 0 to 255."""
    cover: np.ndarray
    """How much of it each vertex takes when the left lid is closed, and the right one, float64 (2, V)."""


def build_lids(portrait: Portrait, colors: np.ndarray) -> Lids:
    """Take the skin's colour from between lid and brow.

    Args:
        portrait: the photograph.
        colors: its colour at each vertex, (V, 3).
    """
    head = portrait.track.head_model
    assert head.topology is not None and head.expression_names is not None
    edge_or_inside = head.topology.region("eyelids", "eye_sockets")
    skin, cover = np.zeros_like(colors), np.zeros((2, len(colors)))
    template = head.template.numpy()
    below = (np.abs(np.abs(template[:, 0]) - 0.033) < 0.012) & (np.abs(template[:, 1] - 0.008) < 0.01)
    cheek = np.median(colors[below & head.topology.region("face")], axis=0)
    for side, name in enumerate(("eyeBlinkLeft", "eyeBlinkRight")):
        way = -head.expression_basis[:, 1, head.expression_names.index(name)].numpy()
        above = (way > 0.0003) & (way < 0.0015) & ~edge_or_inside
        cover[side] = 0.9 * np.clip((way - 0.0006) / 0.0024, 0, 1) * ~edge_or_inside
        lightest = colors[above][np.argsort(colors[above].sum(axis=1))[-len(colors[above]) // 4 :]].mean(axis=0)
        skin[way > 0.0003] = 0.5 * lightest + 0.5 * cheek
    return Lids(skin.astype(np.float32), cover)
