"""Heads cut out of pictures: hair included, other people and everything below the neck left out.

A matting is any function ``matting(image, context) -> alpha``: an RGB picture, uint8 (H, W, 3), and a `MattingContext`
that says where the head is, to its opacity, float32 (H, W) in [0, 1]. It need not know about necks or neighbours: what
it returns is cut along the neck and shared out among the people in the picture by `head_alpha`. ``find_matting`` finds
one by name: ``mediapipe``, the network for people in the MediaPipe wheel looking at a square around the head, its edges
refined along the picture's; or ``module:function`` of the user's own.
"""

from __future__ import annotations

import importlib
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import cv2
import numpy as np

from flame.camera import Intrinsics, project
from flame.errors import InputError, UserError
from flame.model import HeadModel
from flame.rasterizer import NEAR_METRES, rasterize
from flame.render import visible_box
from priors.face_crop import FaceCrop
from priors.foreground import ForegroundSegmenter

DEFAULT = "mediapipe"

_SIDE = 2.2
"""Side of the square that the network looks at over the extent of the head: it knows people by their shoulders."""
_SHIFT_UP = 0.06
"""How far the square is moved up, over the extent of the head: hair."""
_MOST_PX = 640
"""Longest side of the picture of that square; larger heads are matted at this size."""
_EDGE_SHARE, _EDGE_EPS = 0.012, 4e-4
"""Radius of the guided filter over the side of the square, and its regularisation (colours in [0, 1])."""
_SURE_LOW, _SURE_HIGH = 0.15, 0.85
"""Opacities that count as 0 and as 1."""
_SOLID = 0.6
"""Opacity that connects parts of a head to each other."""
_HAIR_REACH, _HAIR_FADE = 0.42, 0.1
"""How far from the mesh hair is looked for, and over how much its opacity ends there, over the extent of the head."""
_NECK_SOFTNESS = 0.02
"""Width of the edge along the neck over the extent of the head."""
_ROOT_WEIGHT = 0.5
"""Vertices with more than this share in the root stay where the shoulders are: they do not belong to the head."""


@dataclass(frozen=True, eq=False)
class HeadPlace:
    """Say where a head is in a picture."""

    vertices_px: np.ndarray
    """Vertices of its mesh in the picture, float64 (V, 2), pixels."""
    is_covered: np.ndarray
    """Pixels that its mesh covers, without the part below the neck's joint, bool (H, W)."""
    depth_metres: float
    """Its distance along the camera's axis, metres."""
    neck_px: np.ndarray
    """A point of the line that ends the neck (2,), pixels."""
    up: np.ndarray
    """Unit vector in the picture (2,) that points from the neck to the head."""

    @cached_property
    def extent_px(self) -> float:
        """Return the larger side of the mesh's bounding box."""
        return float(np.ptp(self.vertices_px, axis=0).max())

    @cached_property
    def center_px(self) -> np.ndarray:
        """Return the middle of the mesh's bounding box (2,)."""
        return (self.vertices_px.min(axis=0) + self.vertices_px.max(axis=0)) / 2

    @property
    def roll_rad(self) -> float:
        """Return by how much the head is turned clockwise in the picture."""
        return float(np.arctan2(self.up[0], -self.up[1]))


@dataclass(frozen=True, eq=False)
class MattingContext:
    """Say whose head is wanted."""

    frame: int
    """Position of the picture in the track; pictures come in order."""
    person: int
    """Number of the person."""
    head: HeadPlace
    """Where the head is."""
    others: tuple[HeadPlace, ...] = ()
    """Where other people's heads are."""


Matting = Callable[[np.ndarray, MattingContext], np.ndarray]


class HeadLocator:
    """Find where heads of one model are in pictures."""

    def __init__(self, head: HeadModel) -> None:
        """Find the rim of the head's neck."""
        self._faces = head.faces.cpu().numpy()
        rest = head.template.detach().cpu().numpy().astype(np.float64)
        self._rim_front = _rim_front(rest, self._faces)
        is_below = head.skin_weights.detach().cpu().numpy()[:, 0] > _ROOT_WEIGHT
        self._upper_faces = self._faces[~is_below[self._faces].any(axis=1)]

    def __call__(self, verts_cam: np.ndarray, up_cam: np.ndarray, intrinsics: Intrinsics) -> HeadPlace | None:
        """Return where a head is, None if a part of it is behind the camera.

        Args:
            verts_cam: its vertices (V, 3), metres, camera space.
            up_cam: the direction of its +y axis in camera space (3,).
            intrinsics: the picture's camera.
        """
        verts_cam = np.asarray(verts_cam, np.float64)
        if (verts_cam[:, 2] <= NEAR_METRES).any():
            return None
        neck_cam = verts_cam[self._rim_front].mean(axis=0)
        neck_px, above_px = project(np.stack((neck_cam, neck_cam + 0.01 * up_cam)), intrinsics)
        up = above_px - neck_px
        length = float(np.hypot(*up))
        # Seen along its axis a neck has no direction in the picture.
        up = up / length if length > 1e-6 else np.array((0.0, -1.0))
        covered = np.zeros((intrinsics.height, intrinsics.width), bool)
        box = visible_box(verts_cam, intrinsics)
        if box is not None:
            left, top, right, bottom = box
            part = intrinsics.crop(left, top, right - left, bottom - top)
            covered[top:bottom, left:right] = rasterize(verts_cam, self._upper_faces, part).mask
        vertices_px = project(verts_cam, intrinsics)
        return HeadPlace(vertices_px, covered, float(np.median(verts_cam[:, 2])), neck_px, up)


def head_alpha(matting: Matting, image: np.ndarray, context: MattingContext) -> np.ndarray:
    """Return a head's opacity, float32 (H, W) in [0, 1]: a matting's, without neighbours, islands and what is below.

    Raises:
        InputError: the matting fails, or returns something else than an opacity of the picture's size.
    """
    alpha = np.asarray(_ask(matting, image, context))
    if alpha.shape != image.shape[:2] or alpha.dtype.kind != "f":
        raise InputError(
            f"the matting returned {alpha.dtype} {alpha.shape}; it has to return float32 {image.shape[:2]}, 0 to 1"
        )
    alpha = np.nan_to_num(np.clip(alpha, 0, 1)).astype(np.float32)
    height, width = alpha.shape
    rows, columns = _support(alpha)
    if rows.stop <= rows.start:
        return alpha
    part, head = alpha[rows, columns], context.head
    covered = head.is_covered[rows, columns]
    part *= np.maximum(_above_neck(head, rows, columns), covered)
    part *= np.clip((_HAIR_REACH - _distance(covered) / head.extent_px) / _HAIR_FADE + 1, 0, 1)
    for other in context.others:
        part *= _share(head, other, rows, columns)
    keep = _connected(part, covered)
    result = np.zeros((height, width), np.float32)
    result[rows, columns] = part * keep
    return result


def _ask(matting: Matting, image: np.ndarray, context: MattingContext) -> object:
    """Return what a matting returns; where one of the user's raises, say what and where in one line.

    Raises:
        InputError: it raises.
    """
    if isinstance(matting, MediaPipeMatting):
        return matting(image, context)
    try:
        return matting(image, context)
    except UserError:
        raise
    except Exception as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        reason = " ".join([type(error).__name__, *str(error).split()])
        where = f"{last.filename}, line {last.lineno}"
        raise InputError(f"the matting failed: {reason} ({where})") from error


class MediaPipeMatting:
    """Cut people out with the network in the MediaPipe wheel, looking at a square around the head."""

    def __init__(self) -> None:
        """Load the network.

        Raises:
            AssetMissingError: when the installed MediaPipe wheel does not carry the network.
        """
        self._segment = ForegroundSegmenter()

    def __call__(self, image: np.ndarray, context: MattingContext) -> np.ndarray:
        """Return the opacity of the people around a head, float32 (H, W); nothing outside the square around it."""
        head = context.head
        side_px = _SIDE * head.extent_px
        size_px = int(np.clip(round(side_px), 64, _MOST_PX))
        center = head.center_px + head.up * (_SHIFT_UP * head.extent_px)
        # Measured: the network is surer of people who lean than of rooms that do, and black borders mislead it.
        quarter_turns = round(head.roll_rad / (math.pi / 2)) * (math.pi / 2)
        crop = FaceCrop.of(center, side_px, quarter_turns, size_px)
        picture = crop.cut(image, is_extended=True)
        alpha = refine_edges(picture, self._segment(picture, size_px))
        return _paste(crop, alpha, image.shape[0], image.shape[1])


def refine_edges(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return an opacity (S, S) with its edges moved onto those of the picture, RGB uint8 (S, S, 3), float32.

    A guided filter (K. He et al., "Guided image filtering", 2013); what is nearly 0 or 1 becomes so.
    """
    side = len(picture)
    radius = max(2, round(_EDGE_SHARE * side))
    guide = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    fine = cv2.ximgproc.guidedFilter(guide, alpha.astype(np.float32), radius, _EDGE_EPS)
    return np.clip((fine - _SURE_LOW) / (_SURE_HIGH - _SURE_LOW), 0, 1)


def _paste(crop: FaceCrop, values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return values of a square (S, S) where it is in an image (height, width), 0 around it."""
    turn = crop.image_from_crop[:, :2]
    # The library counts from the first pixel's centre.
    shift = crop.image_from_crop[:, 2] + turn @ np.full(2, 0.5) - 0.5
    return cv2.warpAffine(values, np.column_stack((turn, shift)), (width, height), flags=cv2.INTER_LINEAR)


def find_matting(name: str) -> Matting:
    """Return the matting of a name: ``mediapipe``, or a function ``module:function``, imported.

    Raises:
        InputError: there is none of this name, or it cannot be imported.
        AssetMissingError: the installed MediaPipe wheel does not carry the network.
    """
    if name == DEFAULT:
        return MediaPipeMatting()
    module_name, colon, function_name = name.partition(":")
    if not colon or not module_name or not function_name:
        raise InputError(f"matting '{name}' is not known; give {DEFAULT}, or module:function of your own.")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of the user's may raise anything while it is imported
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"matting '{name}': {module_name} cannot be imported ({reason}).") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "is not a function" if hasattr(module, function_name) else "does not exist"
        raise InputError(f"matting '{name}': {function_name} {found} in {module_name}.")
    return cast("Matting", function)


def _rim_front(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the vertices of the front of the neck's rim: the foremost of the mesh's lowest open edge, indices (N,)."""
    edges = np.sort(np.concatenate((faces[:, :2], faces[:, 1:], faces[:, ::2])), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    rim = np.unique(unique[count == 1])
    low = vertices[:, 1].min()
    if len(rim):
        # Eyes and mouth may be open, too: the neck is the loop that reaches down to the mesh's lowest vertices.
        rim = _loops_reaching(unique[count == 1], vertices[:, 1] <= low + 1e-6)
    if not len(rim):
        rim = np.flatnonzero(vertices[:, 1] <= low + 0.05 * np.ptp(vertices[:, 1]))
    front = vertices[rim, 2].max()
    return rim[vertices[rim, 2] >= front - 2e-3]


def _loops_reaching(edges: np.ndarray, is_wanted: np.ndarray) -> np.ndarray:
    """Return vertices of the connected chains of edges (E, 2) that touch a wanted vertex, bool (V,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = (len(is_wanted),) * 2
    _, label = connected_components(coo_matrix((np.ones(len(edges)), edges.T), shape=size), directed=False)
    touched = np.intersect1d(np.flatnonzero(is_wanted), edges)
    return np.intersect1d(np.flatnonzero(np.isin(label, label[touched])), edges)


def _support(alpha: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns in which an opacity is not 0."""
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _above_neck(head: HeadPlace, rows: slice, columns: slice) -> np.ndarray:
    """Return 1 above the line that ends the neck and 0 below, soft along it, float32."""
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - np.float32(head.neck_px[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - np.float32(head.neck_px[1])
    height_px = x * np.float32(head.up[0]) + y * np.float32(head.up[1])
    return np.clip(0.5 + height_px / (_NECK_SOFTNESS * head.extent_px), 0, 1)


def _share(head: HeadPlace, other: HeadPlace, rows: slice, columns: slice) -> np.ndarray:
    """Return which pixels belong rather to this head than to another, float32 in [0, 1], soft between them.

    What a mesh covers is the nearer head's; hair and what else is around goes to the head that it is closer to,
    measured in extents of the heads.
    """
    own, foreign = head.is_covered, other.is_covered
    if head.depth_metres <= other.depth_metres:
        foreign = foreign & ~own
    else:
        own = own & ~foreign
    to_own, to_foreign = _distance(own) / head.extent_px, _distance(foreign) / other.extent_px
    share = np.clip(0.5 + (to_foreign - to_own) / _NECK_SOFTNESS, 0, 1)
    return share[rows, columns].astype(np.float32)


def _distance(mask: np.ndarray) -> np.ndarray:
    """Return how far every pixel is from a mask, pixels; far everywhere from an empty one."""
    if not mask.any():
        return np.full(mask.shape, 1e6, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)


def _connected(alpha: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return 1 where an opacity hangs together with the head's mesh, 0 on islands, soft at their edges."""
    solid = (alpha > _SOLID).astype(np.uint8)
    _, label = cv2.connectedComponents(solid, connectivity=8)
    touched = np.unique(label[covered & (solid > 0)])
    kept = np.isin(label, touched[touched > 0]).astype(np.uint8)
    # The faint edge of a part belongs to it.
    reach = 2 * max(2, round(_EDGE_SHARE * max(alpha.shape))) + 1
    return cv2.dilate(kept, np.ones((reach, reach), np.uint8)).astype(np.float32)


def neighbours(places: Sequence[HeadPlace | None], person: int) -> tuple[HeadPlace, ...]:
    """Return where everybody else's head is."""
    return tuple(place for number, place in enumerate(places) if place is not None and number != person)
