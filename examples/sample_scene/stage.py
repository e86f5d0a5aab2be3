"""Draw the scene: background, sheet, face, mouth and eyes, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from flame.camera import Intrinsics, transform
from flame.rasterizer import Fragments, interpolate, rasterize
from flame.rotation_kernels import rotation_matrix
from sample_scene.eyes import Eyes, Lids, build_eyes, build_lids
from sample_scene.layers import Sheet, build_sheet, face_opacity, photo_px
from sample_scene.motion import Performance
from sample_scene.mouth import Teeth, build_teeth, cavity_color, lower_face_painted_over
from sample_scene.portrait import DETAIL, HEIGHT, WIDTH, Portrait

_NOISE = 1.6
"""Standard deviation of the sensor's noise, grey levels of 255."""


@dataclass(frozen=True)
class Stage:
    """Hold all that is drawn, at rest in the photograph's pose."""

    portrait: Portrait
    verts_cam: np.ndarray
    """The head as fitted to the photograph, float64 (V, 3), metres."""
    faces: np.ndarray
    """Triangles of the head that are drawn, int32 (F, 3)."""
    pivot_cam: np.ndarray
    """The neck's joint, about which the head turns, (3,), metres."""
    sheet: Sheet
    sheet_texture: np.ndarray
    """The photograph as the sheet shows it, float32 (H, W, 3)."""
    photo_px: np.ndarray
    """Where each vertex of the head finds its colour, (V, 2), clip pixels."""
    opacity: np.ndarray
    """(V,)."""
    cavity: np.ndarray
    """Colour of the mouth's inside and how much it covers, float32 (V, 4)."""
    eyes: Eyes
    lids: Lids
    teeth: Teeth


def build_stage(portrait: Portrait) -> Stage:
    """Prepare the surfaces and their colours."""
    head = portrait.track.head_model
    verts_cam = portrait.track.vertices(0).astype(np.float64)
    faces = head.faces.numpy().astype(np.int32)
    topology = head.topology
    assert topology is not None
    with torch.no_grad():
        joints_head = head.rest(torch.from_numpy(portrait.track.identity[0])).joints.numpy()
    hidden = topology.region("neck", "ears", "scalp")
    spot = photo_px(portrait, verts_cam, faces)
    return Stage(
        portrait=portrait,
        verts_cam=verts_cam,
        faces=faces[~hidden[faces].all(axis=1)],
        pivot_cam=transform(portrait.track.cam_from_head(0), joints_head[1:2].astype(np.float64))[0],
        sheet=build_sheet(portrait, verts_cam, faces),
        sheet_texture=lower_face_painted_over(portrait, verts_cam, faces),
        photo_px=spot,
        opacity=face_opacity(portrait, verts_cam, faces),
        cavity=cavity_color(portrait),
        eyes=build_eyes(portrait),
        lids=build_lids(portrait, _look_up(portrait.texture, portrait, spot[None])[0]),
        teeth=build_teeth(portrait, verts_cam),
    )


def draw(stage: Stage, performance: Performance, frame: int, verts_cam: np.ndarray) -> np.ndarray:
    """Return one frame of the clip, float32 RGB (H, W, 3), 0 to 255, given the head's vertices in it (V, 3), metres."""
    portrait, pivot_cam = stage.portrait, stage.pivot_cam
    turn, shift = performance.turn[frame], performance.shift[frame]
    turned = rotation_matrix(turn)
    at_rest = (verts_cam - pivot_cam - shift) @ turned + pivot_cam
    change = stage.sheet.under.on(at_rest - stage.verts_cam, portrait.track.head_model.faces.numpy())
    picture = portrait.background[-DETAIL * HEIGHT :].copy()
    _draw_sheet(picture, stage, stage.sheet.move(change, turn, shift, pivot_cam))
    teeth_cam = (stage.teeth.points_cam - pivot_cam) @ turned.T + pivot_cam + shift
    _draw_face(picture, stage, verts_cam, at_rest, teeth_cam, _paint_over(stage, performance.expression[frame]))
    return cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def with_noise(picture: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Return a picture (H, W, 3) as a sensor would see it, uint8."""
    grain = cv2.GaussianBlur(noise.standard_normal(picture.shape).astype(np.float32), (0, 0), 0.6)
    return np.clip(picture + _NOISE * grain / grain.std() + 0.5, 0, 255).astype(np.uint8)


def _fine(portrait: Portrait) -> Intrinsics:
    """Return the camera at the size in which the clip is drawn before it is made smaller."""
    return portrait.track.intrinsics.scale(DETAIL)


def _look_up(texture: np.ndarray, portrait: Portrait, points_px: np.ndarray) -> np.ndarray:
    """Sample a texture at clip pixels (h, w, 2)."""
    spot = (portrait.texture_px(points_px) - 0.5).astype(np.float32)
    return cv2.remap(texture, spot[..., 0], spot[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _draw_sheet(picture: np.ndarray, stage: Stage, sheet_cam: np.ndarray) -> None:
    """Blend hair, ears and neck over the picture, in place."""
    portrait, sheet = stage.portrait, stage.sheet
    fragments = rasterize(sheet_cam, sheet.faces, _fine(portrait))
    spot = interpolate(fragments, sheet.faces, sheet.points_px)
    opacity = _look_up(portrait.matte, portrait, spot) * fragments.mask
    picture += opacity[..., None] * (_look_up(stage.sheet_texture, portrait, spot) - picture)


def _paint_over(stage: Stage, expression: np.ndarray) -> np.ndarray:
    """Return the colour of mouth and closing lids and how much it covers the photograph, float32 (V, 4)."""
    names = stage.portrait.track.expression_names
    closed = np.array([expression[names.index(f"eyeBlink{side}")] for side in ("Left", "Right")])
    paint = stage.cavity.copy()
    cover = (closed @ stage.lids.cover).astype(np.float32)
    paint[cover > 0, :3], paint[cover > 0, 3] = stage.lids.colors[cover > 0], cover[cover > 0]
    return paint


def _draw_face(
    picture: np.ndarray,
    stage: Stage,
    verts_cam: np.ndarray,
    at_rest: np.ndarray,
    teeth_cam: np.ndarray,
    paint: np.ndarray,
) -> None:
    """Blend the face with eyes and mouth over the picture, in place."""
    portrait, teeth = stage.portrait, stage.teeth
    faces = np.concatenate((stage.faces, teeth.faces + len(verts_cam)))
    part, box = _cropped(rasterize(np.concatenate((verts_cam, teeth_cam)), faces, _fine(portrait)))
    of_head = np.column_stack((stage.photo_px, stage.opacity, paint))
    of_teeth = np.column_stack((teeth.points_px, np.ones(len(teeth_cam)), np.zeros((len(teeth_cam), 4))))
    values = interpolate(part, faces, np.concatenate((of_head, of_teeth)))
    skin, bite = (_look_up(texture, portrait, values[..., :2]) for texture in (portrait.texture, teeth.texture))
    color = np.where((part.triangle >= len(stage.faces))[..., None], bite, skin)
    color += values[..., 6:7] * (values[..., 3:6] - color)
    stage.eyes.paint(color, part, stage.faces, at_rest)
    opacity = values[..., 2:3] * part.mask[..., None]
    picture[box] += opacity * (color - picture[box])


def _cropped(fragments: Fragments) -> tuple[Fragments, tuple[slice, slice]]:
    """Return the part of the picture where the mesh is, and which part that is."""
    rows, columns = np.nonzero(fragments.mask)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    return Fragments(fragments.triangle[box], fragments.barycentric[box], fragments.depth[box]), box
