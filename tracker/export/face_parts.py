"""Which part of the face a pixel shows, in the numbers of INSTA's face parsing."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from flame.model import HeadModel
from flame.rasterizer import rasterize
from tracker.export.avatar_frames import HeadPicture, View


class Part(IntEnum):
    """Name parts by the red channel of INSTA's masks (``scripts/patches/face-parsing``)."""

    BACKGROUND = 0
    HAIR = 80
    NECK = 110
    LOWER_LIP = 120
    UPPER_LIP = 130
    MOUTH = 140
    NOSE = 150
    EARS = 180
    RIGHT_EYE = 200
    LEFT_EYE = 210
    SKIN = 250


MOUTH_PARTS = (Part.MOUTH, Part.UPPER_LIP, Part.LOWER_LIP)

_REGIONS = (
    *(("face", Part.SKIN), ("ears", Part.EARS), ("boundary", Part.NECK), ("neck", Part.NECK), ("scalp", Part.HAIR)),
    ("nose", Part.NOSE),
    *(("inner_mouth", Part.MOUTH), ("lips", Part.UPPER_LIP)),
    *(("left_eye", Part.LEFT_EYE), ("right_eye", Part.RIGHT_EYE)),
)
"""The head model's regions and what they are; later ones cover earlier ones."""


def part_of_triangles(model: HeadModel) -> np.ndarray:
    """Return the part that each triangle is of, uint8 (F,); skin where the head model does not know."""
    faces = model.faces.cpu().numpy()
    parts = np.full(len(faces), Part.SKIN, np.uint8)
    regions = {} if model.topology is None else model.topology.regions
    for name, part in _REGIONS:
        if name in regions:
            parts[regions[name][faces].sum(axis=1) >= 2] = part
    if "lips" in regions:
        height = model.template.detach().cpu().numpy()[:, 1]
        is_lower = height[faces].mean(axis=1) < height[regions["lips"]].mean()
        parts[(parts == Part.UPPER_LIP) & is_lower] = Part.LOWER_LIP
    return parts


def part_notes(model: HeadModel) -> tuple[str, ...]:
    """Say which parts of the face are missing in masks."""
    if model.topology is not None and "lips" in model.topology.regions:
        return ()
    return (
        f"the parts of head {model.name!r} are not known, so masks show neither mouth nor eyes: "
        "put FLAME_masks.pkl beside the head's file",
    )


def parts_seen(picture: HeadPicture, view: View, faces: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the part that each pixel shows, uint8 (h, w): the mesh's, or hair where the picture alone says head.

    Args:
        picture: a matted picture.
        view: its camera.
        faces: the mesh's triangles (F, 3).
        parts: the part of each triangle (F,).
    """
    triangle = rasterize(picture.verts_view, faces, view.intrinsics, cull_backfaces=True).triangle
    seen = np.where(triangle >= 0, parts[triangle], Part.HAIR)
    return np.where(picture.alpha > 0.5, seen, Part.BACKGROUND).astype(np.uint8)
