"""What a fitted head says about the pixels of a real picture: place, texture coordinates, normals, and what they show.

The head explains skin that landmarks have seen. Everything else is told from the pixels: the background by a network
that knows people, hair, beards and clothes by their colour, which is not that of the face's skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.rasterizer import interpolate, rasterize
from flame.shading import vertex_normals
from flame.surface import SurfacePoints
from priors.landmark_topology import NUM_MESH_LANDMARKS, landmark_topology
from priors.pixel_kinds import Kind
from priors.training.augmentation import UNKNOWN
from priors.training.labels import LabelMaps

REACH_M = 0.025
"""Skin further from every landmark is where the fit only guesses; nothing is said of its place."""
_PROTECTED_M = 0.012
"""Skin this close to brows, lids and lips keeps its kind whatever its colour."""
_BACKGROUND, _PERSON = 0.3, 0.7
"""Probabilities of a person below and above which a pixel is certain."""
_COLOR_REACH = 4.0
"""Robust standard deviations within which a colour is the skin's."""
_LEAST_SPREAD, _MOST_SPREAD = np.array((10.0, 3.0, 3.5)), np.array((14.0, 6.0, 7.0))
"""Limits of the standard deviations of skin in CIE lightness, a and b."""
_DARK = 0.62
"""Lightness over that of clear skin below which a pixel is something else."""
_HAIR_BESIDE = 0.15
"""How far hair may stand out beside the head, over the picture's side."""
_LEAST_CORE = 30
"""Pixels of clear skin without which colours say nothing."""


@dataclass(frozen=True, eq=False)
class LabelPainter:
    """Hold what is the same for all pictures of one head model."""

    template: np.ndarray
    """The mean head at rest, float64 (V, 3), metres, head space."""
    faces: np.ndarray
    """Triangles, int32 (F, 3)."""
    uv: np.ndarray
    """Texture coordinates, float64 (VT, 2)."""
    uv_faces: np.ndarray
    """Rows of ``uv`` at each triangle's corners, int32 (F, 3)."""
    part: np.ndarray
    """``Kind`` of each triangle, uint8 (F,): skin, eye or mouth."""
    marks: np.ndarray
    """What each vertex is used for, float32 (V, 4): in reach of landmarks, protected, clear skin, and neck."""

    @staticmethod
    def of(head: HeadModel, landmarks: SurfacePoints) -> LabelPainter:
        """Prepare a head model with texture coordinates, regions, and MediaPipe's landmarks on it."""
        topology = head.topology
        assert topology is not None and topology.uv is not None and topology.uv_faces is not None
        template = head.template.detach().cpu().numpy().astype(np.float64)
        faces = head.faces.detach().cpu().numpy()
        places = landmarks.on(template, faces)[:NUM_MESH_LANDMARKS]
        return LabelPainter(
            template,
            faces.astype(np.int32),
            topology.uv.astype(np.float64),
            np.ascontiguousarray(topology.uv_faces, np.int32),
            _parts(head),
            _marks(head, template, places),
        )

    def paint(
        self,
        verts_cam: np.ndarray,
        intrinsics: Intrinsics,
        picture: np.ndarray,
        person: np.ndarray,
    ) -> LabelMaps:
        """Return the labels of a picture of a head.

        Args:
            verts_cam: the fitted head's vertices (V, 3) in the picture's camera, metres.
            intrinsics: camera at the size of the labels.
            picture: RGB, uint8 (S, S, 3); S a multiple of the labels' side.
            person: probability that a pixel of the labels shows a person, float32 (h, w); 0 beyond the image.
        """
        fragments = rasterize(verts_cam, self.faces, intrinsics)
        is_seen = fragments.mask & ~_faces_away(verts_cam, self.faces)[fragments.triangle]
        place = interpolate(fragments, self.faces, self.template)
        normals = interpolate(fragments, self.faces, vertex_normals(verts_cam, self.faces))
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        uv = interpolate(fragments, self.uv_faces, self.uv)
        in_reach, is_protected, is_clear, is_neck = np.moveaxis(
            interpolate(fragments, self.faces, self.marks) > 0.5, -1, 0
        )
        part = np.where(is_seen, self.part[fragments.triangle], Kind.BACKGROUND).astype(np.uint8)
        colors = cv2.resize(picture, (intrinsics.width, intrinsics.height), interpolation=cv2.INTER_AREA)
        looks_alike = _like_skin(colors, (part == Kind.SKIN) & is_clear & (person > _PERSON))
        kind = part.copy()
        is_other = (part == Kind.SKIN) & ~is_protected & ~looks_alike
        kind[is_other] = Kind.HAIR
        # A collar, or hair before the neck. And what is like skin far from the face is a bald head, or fair hair.
        kind[is_other & is_neck] = UNKNOWN
        kind[(part == Kind.SKIN) & looks_alike & ~in_reach & ~is_neck] = UNKNOWN
        is_head = part != Kind.BACKGROUND
        kind[(person > _BACKGROUND) & ~is_head] = UNKNOWN
        kind[_hair_around(part, person)] = Kind.HAIR
        kind[is_head & (person < _PERSON)] = UNKNOWN
        kind[is_head & (person < _BACKGROUND)] = Kind.BACKGROUND
        is_told = is_seen & in_reach & (kind != UNKNOWN) & (kind != Kind.BACKGROUND) & _shrunk(person > 0.5)
        return LabelMaps(
            place=np.where(is_told[..., None], place, np.nan).astype(np.float32),
            uv=np.where(is_told[..., None], uv, 0).astype(np.float32),
            normals_cam=np.where(is_told[..., None], normals, 0).astype(np.float32),
            kind=kind,
        )


def _parts(head: HeadModel) -> np.ndarray:
    """Return the ``Kind`` of each triangle, uint8 (F,)."""
    assert head.topology is not None
    regions, faces = head.topology.regions, head.faces.detach().cpu().numpy()
    nothing = np.zeros(head.num_vertices, dtype=bool)
    is_skin = regions.get("face", nothing) | regions.get("lips", nothing)
    is_mouth = (regions.get("inner_mouth", nothing) | regions.get("tongue", nothing)) & ~is_skin
    part = np.full(len(faces), Kind.SKIN, dtype=np.uint8)
    part[is_mouth[faces].any(axis=1)] = Kind.MOUTH
    part[regions.get("eyes", nothing)[faces].any(axis=1)] = Kind.EYE
    return part


def _marks(head: HeadModel, template: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return which vertices landmarks reach, are protected, clear skin, or neck, float32 (V, 4)."""
    assert head.topology is not None
    regions, groups = head.topology.regions, landmark_topology().groups
    nothing = np.zeros(head.num_vertices, dtype=bool)

    def near(landmarks: np.ndarray, reach_m: float) -> np.ndarray:
        offsets = template[:, None] - landmarks[None]
        return np.einsum("vlc,vlc->vl", offsets, offsets).min(axis=1) < reach_m**2

    names = ("left_eye", "right_eye", "left_brow", "right_brow", "lips")
    features = places[np.concatenate([groups[name] for name in names])]
    is_protected = near(features, _PROTECTED_M) | regions.get("eyelids", nothing) | regions.get("lips", nothing)
    is_clear = regions.get("face", ~nothing) & ~is_protected & near(places, 0.5 * REACH_M)
    is_clear &= ~near(places[groups["oval"]], REACH_M)
    is_protected |= regions.get("nose", nothing)
    marks = (near(places, REACH_M), is_protected, is_clear, regions.get("neck", nothing))
    return np.stack(marks, axis=1).astype(np.float32)


def _like_skin(colors: np.ndarray, is_core: np.ndarray) -> np.ndarray:
    """Return which pixels of a picture, uint8 (h, w, 3), have the colour of those in the core, bool (h, w)."""
    if is_core.sum() < _LEAST_CORE:
        return np.ones(is_core.shape, dtype=bool)
    lab = cv2.cvtColor(colors.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    skin = lab[is_core]
    middle = np.median(skin, axis=0)
    spread = np.clip(1.4826 * np.median(np.abs(skin - middle), axis=0), _LEAST_SPREAD, _MOST_SPREAD)
    distance = np.sqrt((((lab - middle) / spread) ** 2).sum(axis=-1))
    is_alike = (distance < _COLOR_REACH) & (lab[..., 0] > _DARK * middle[0])
    # Single pixels are noise, and the border of hair is frayed.
    return cv2.medianBlur(is_alike.astype(np.uint8), 3) > 0


def _hair_around(part: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Return where a person is seen beside the head, above the chin: hair, bool (h, w)."""
    rows = np.flatnonzero(((part == Kind.MOUTH) | (part == Kind.EYE)).any(axis=1))
    if not len(rows):
        return np.zeros(part.shape, dtype=bool)
    side = 2 * round(_HAIR_BESIDE * len(part)) + 1
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    is_near = cv2.dilate((part != Kind.BACKGROUND).astype(np.uint8), around) > 0
    is_hair = (person > _PERSON) & (part == Kind.BACKGROUND) & is_near
    is_hair[rows.max() + 1 :] = False
    return is_hair


def _shrunk(mask: np.ndarray) -> np.ndarray:
    """Return a mask without its outermost pixels."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=(1,)) > 0


def _faces_away(verts_cam: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return which triangles show the camera their back, bool (F,)."""
    a, b, c = np.moveaxis(np.asarray(verts_cam, np.float64)[faces], 1, 0)
    return np.einsum("fc,fc->f", a, np.cross(b - a, c - a)) >= 0
