"""Pictures of a report: who somebody is, from three sides, and frames that deserve a look."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from flame.camera import Intrinsics
from flame.render import render, visible_box
from flame.shading import STUDIO
from tracker.frames import SourceInfo, read_frames_at
from tracker.pictures import Painter, PictureOptions, person_look, shown_faces
from tracker.report.curves import EYE_FROM_CAM

if TYPE_CHECKING:
    from tracker.result import Track
    from tracker.texture import HeadTexture

VIEWS = (("front", 0.0), ("three-quarter", 45.0), ("profile", 90.0))
"""Sides of a head and how far it is turned towards the picture's right, degrees."""

_VIEW_WIDTH, _VIEW_HEIGHT = 420, 520
_VIEW_FOV_DEGREES = 18.0
_VIEW_FILL = 0.92
_BACKDROP = (38, 40, 44)
THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT = 320, 240
_THUMBNAIL_MARGIN = 0.45


def identity_views(track: Track, person: int, texture: HeadTexture | None = None) -> list[np.ndarray]:
    """Return a person's neutral head from the sides of ``VIEWS``, RGB uint8, with a texture where there is one.

    Raises:
        InputError: the head model is not the one that the track was made with.
    """
    import torch

    model = track.head_model
    rest = model.rest(torch.as_tensor(track.identity[person], dtype=model.dtype))
    verts = rest.vertices.numpy().astype(np.float64)
    camera = Intrinsics.from_fov(_VIEW_FOV_DEGREES, _VIEW_WIDTH, _VIEW_HEIGHT)
    turned = []
    for _, degrees in VIEWS:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turn = np.array(((cos, 0.0, sin), (0.0, 1.0, 0.0), (-sin, 0.0, cos)))
        turned.append(verts @ (EYE_FROM_CAM @ turn).T)
        turned[-1] -= (turned[-1].min(axis=0) + turned[-1].max(axis=0)) / 2
    # The widest view decides, so that all are of one scale.
    extent = max((np.ptp(each[:, :2], axis=0) / (_VIEW_WIDTH, _VIEW_HEIGHT)).max() for each in turned)
    nearest = max(-each[:, 2].min() for each in turned)
    distance = camera.fy * extent / _VIEW_FILL + 0.5 * nearest
    views = []
    for each in turned:
        placed = each + (0.0, 0.0, distance)
        views.append(_textured(track, placed, texture, camera) if texture else _plain(track, person, placed, camera))
    return views


def _plain(track: Track, person: int, verts_cam: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Draw a head in its colours."""
    look = person_look(track.head_model, person)
    picture = np.full((camera.height, camera.width, 3), _BACKDROP, np.uint8)
    faces = track.head_model.faces.numpy()
    render(verts_cam, faces, camera, colors=look.colors, iris_metres=look.iris_metres, supersampling=3).over(picture)
    return picture


def _textured(track: Track, verts_cam: np.ndarray, texture: HeadTexture, camera: Intrinsics) -> np.ndarray:
    """Draw a head with its texture."""
    from tracker.texture import render_textured

    model = track.head_model
    topology = model.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    return render_textured(
        verts_cam, model.faces.numpy(), topology.uv, topology.uv_faces, texture.rgb, camera, lighting=STUDIO
    )


def stored_texture(folder: Path, track: Track, person: int) -> HeadTexture | None:
    """Return the texture of a person that lies in the track's output folder; None where there is none of this track."""
    from tracker.texture import load_texture, texture_files, texture_key

    topology = track.head_model.topology
    if topology is None or topology.uv is None or topology.uv_faces is None:
        return None
    try:
        with Image.open(texture_files(folder, person)[0], formats=["PNG"]) as image:
            size_px = image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return load_texture(folder, person, texture_key(track, size_px))


def thumbnails(
    track: Track, info: SourceInfo, wanted: Iterable[tuple[int, int | None]]
) -> dict[tuple[int, int | None], np.ndarray]:
    """Return small pictures of frames, RGB uint8, heads drawn over them.

    Args:
        track: the track.
        info: its clip.
        wanted: positions in the track, each with the person that it is about, or None for everybody.
    """
    wanted = sorted(set(wanted), key=lambda each: each[0])
    painter = Painter(track.head_model, list(track.identity), track.intrinsics, PictureOptions())
    frames = read_frames_at(info, sorted({float(track.pts_seconds[position]) for position, _ in wanted}))
    image_of = {frame.index: frame.image for frame in frames}
    pictures = {}
    for position, about in wanted:
        image = image_of.get(int(track.frame_index[position]))
        if image is None:
            continue
        shown = shown_faces(track, position)
        boxes = [
            visible_box(painter.vertices(person, face.state), track.intrinsics)
            for person, face in enumerate(shown)
            if face.state is not None and about in (None, person)
        ]
        pictures[position, about] = _cut_out(painter.picture(image, shown), [box for box in boxes if box is not None])
    return pictures


def _cut_out(picture: np.ndarray, boxes: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
    """Return the part of a picture round boxes (left, top, right, bottom), or all of it, in a thumbnail's size."""
    height, width = picture.shape[:2]
    left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    if boxes:
        edges = np.array(boxes, float)
        left, top, right, bottom = *edges[:, :2].min(axis=0), *edges[:, 2:].max(axis=0)
        margin = _THUMBNAIL_MARGIN * max(right - left, bottom - top)
        left, top, right, bottom = left - margin, top - margin, right + margin, bottom + margin
    aspect = THUMBNAIL_WIDTH / THUMBNAIL_HEIGHT
    box_width = min(max(right - left, aspect * (bottom - top)), float(width))
    box_height = min(max(bottom - top, (right - left) / aspect), float(height))
    left = min(max((left + right - box_width) / 2, 0), width - box_width)
    top = min(max((top + bottom - box_height) / 2, 0), height - box_height)
    part = Image.fromarray(picture).crop(
        (int(left), int(top), math.ceil(left + box_width), math.ceil(top + box_height))
    )
    part.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT), Image.Resampling.LANCZOS)
    return np.asarray(part)
