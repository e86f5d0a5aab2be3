"""The photograph: cropped, fitted with the project's own tracker, and divided into person and background."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import skimage.data

from configs import load_preset
from flame.camera import project
from flame.surface import SurfacePoints
from priors.evidence import FaceEvidence
from tracker import Track
from tracker.api import track as track_photo
from tracker.clip import load_toolkit

HEIGHT, WIDTH = 480, 640
DETAIL = 2
"""Pixels of the texture per pixel of the clip."""
_CROP = (slice(0, 300), slice(20, 420))
_FOV_DEGREES = 38.0
_RING_ROW = 225
"""Row of the clip below which the suit's ring begins close to the neck."""
_NOSTRIL_PX, _NOSTRIL_RADIUS_PX = (314.0, 208.4), 4.0
"""A nostril that the fitted nose would squeeze to a sharp dark point; it is softened."""
_HEADROOM = 120
"""Rows added above the photograph, texture pixels, so that the hair can move there."""

# Drawn by hand over the crop, x and y in pixels of the clip: what is surely head and neck, and what may be.
_SURELY_PERSON = (
    *(238, 92, 278, 66, 292, 42, 335, 34, 400, 60, 430, 110, 432, 165, 398, 200, 385, 190, 380, 262, 345, 280),
    *(300, 276, 268, 256, 258, 200, 225, 165, 222, 110),
)
_PERHAPS_PERSON = (
    *(205, 120, 225, 50, 265, 20, 335, 12, 410, 32, 452, 100, 452, 165, 412, 226, 396, 232, 388, 300, 330, 310),
    *(268, 304, 256, 280, 250, 225, 228, 205, 205, 160),
)


@dataclass(frozen=True)
class Portrait:
    """Hold the photograph and what is known of it; textures are float32 RGB with headroom above."""

    texture: np.ndarray
    """The photograph, (H, W, 3), 0 to 255."""
    background: np.ndarray
    """The photograph with head and neck painted over, (H, W, 3)."""
    matte: np.ndarray
    """Opacity of head and neck, (H, W), 0 to 1."""
    track: Track
    """The head fitted to the photograph, one frame; its camera is the clip's."""
    shift_px: np.ndarray
    """What to add to each projected vertex to meet the photograph, float64 (V, 2), clip pixels."""
    evidence: FaceEvidence
    """Where the detector saw the face's points."""
    surface: SurfacePoints
    """The points that the detector saw, on the head."""

    def texture_px(self, points_px: np.ndarray) -> np.ndarray:
        """Return clip pixels (..., 2) in pixels of the textures."""
        return points_px * DETAIL + np.array((0.0, _HEADROOM))


def load_portrait() -> Portrait:
    """Load the photograph, fit the head and cut the person out."""
    crop = skimage.data.astronaut()[_CROP]
    photo = cv2.resize(crop, (WIDTH, HEIGHT), interpolation=cv2.INTER_LANCZOS4)
    toolkit = load_toolkit("commons", "mediapipe", load_preset("default"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.png"
        cv2.imwrite(str(path), photo[..., ::-1])
        track = track_photo(path, toolkit=toolkit, fov_degrees=_FOV_DEGREES)
    evidence = toolkit.prior.search(photo)[0]
    surface = toolkit.prior.surface
    detailed = cv2.resize(crop, (DETAIL * WIDTH, DETAIL * HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    sharp = np.clip(detailed + 0.6 * (detailed - cv2.GaussianBlur(detailed, (0, 0), 2.0)), 0, 255)
    sharp = _softened(sharp)
    matte, background = _cut_out(photo, sharp)
    return Portrait(
        texture=_with_headroom(sharp),
        background=_with_headroom(background),
        matte=cv2.copyMakeBorder(matte, _HEADROOM, 0, 0, 0, cv2.BORDER_CONSTANT, value=(0.0,)),
        track=track,
        shift_px=_registration(track, evidence, surface),
        evidence=evidence,
        surface=surface,
    )


def _softened(texture: np.ndarray) -> np.ndarray:
    """Return the photograph with its nostril softened."""
    rows, columns = np.mgrid[: texture.shape[0], : texture.shape[1]] / DETAIL
    squared = (columns - _NOSTRIL_PX[0]) ** 2 + (rows - _NOSTRIL_PX[1]) ** 2
    cover = np.exp(-squared / _NOSTRIL_RADIUS_PX**2)[..., None].astype(np.float32)
    return texture + cover * (cv2.GaussianBlur(texture, (0, 0), 5.0) - texture)


def _with_headroom(texture: np.ndarray) -> np.ndarray:
    """Continue a texture upwards."""
    return cv2.copyMakeBorder(texture, _HEADROOM, 0, 0, 0, cv2.BORDER_REFLECT)


def _cut_out(photo: np.ndarray, detailed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the opacity of head and neck and the photograph without them, both in the detailed size."""
    labels = np.full(photo.shape[:2], cv2.GC_BGD, np.uint8)
    for corners, label in ((_PERHAPS_PERSON, cv2.GC_PR_FGD), (_SURELY_PERSON, cv2.GC_FGD)):
        cv2.fillPoly(labels, [np.array(corners, np.int32).reshape(-1, 2)], (label,))
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(photo, labels, (0, 0, 1, 1), *models, 6, cv2.GC_INIT_WITH_MASK)
    is_person = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    is_person = cv2.morphologyEx(is_person, cv2.MORPH_OPEN, np.ones((3, 3)))
    size = (detailed.shape[1], detailed.shape[0])
    matte = cv2.GaussianBlur(cv2.resize(is_person, size, interpolation=cv2.INTER_LINEAR), (0, 0), 2.0)
    hole = cv2.dilate(is_person, np.ones((5, 5))).astype(np.uint8)
    hole[:_RING_ROW] = cv2.dilate(hole, np.ones((13, 13)))[:_RING_ROW]
    filled = cv2.inpaint(photo, hole, 8, cv2.INPAINT_TELEA)
    smooth = cv2.resize(filled, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    cover = cv2.GaussianBlur(cv2.resize(hole.astype(np.float32), size), (0, 0), 3.0)[..., None]
    return matte, detailed * (1 - cover) + smooth * cover


def _registration(track: Track, evidence: FaceEvidence, surface: SurfacePoints) -> np.ndarray:
    """Spread the detector's residuals smoothly over the head: a thin membrane pulled by springs, (V, 2) clip pixels."""
    head = track.head_model
    faces = head.faces.numpy()
    points_px = project(track.vertices(0).astype(np.float64), track.intrinsics)
    residual = evidence.points_px - surface.on(points_px, faces)
    slides = evidence.sigma_px[:, 1] > 2 * evidence.sigma_px[:, 0]
    along_normal = np.einsum("nk,nk->n", residual, evidence.normal_px)[:, None] * evidence.normal_px
    residual = np.where(slides[:, None], along_normal, residual)
    use = np.isfinite(evidence.sigma_px[:, 0])
    num_vertices, rows = len(points_px), np.flatnonzero(use)
    corners = np.repeat(np.arange(len(rows)), 3), faces[surface.triangles[rows]].ravel()
    weights = surface.barycentric[rows].ravel()
    springs = scipy.sparse.csr_matrix((weights, corners), shape=(len(rows), num_vertices))
    edges = np.unique(np.sort(np.concatenate((faces[:, :2], faces[:, 1:], faces[:, ::2])), axis=1), axis=0)
    adjacency = scipy.sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(num_vertices,) * 2).tocsr()
    adjacency = adjacency + adjacency.T
    laplacian = scipy.sparse.diags(np.asarray(adjacency.sum(axis=1))[:, 0]) - adjacency
    system = springs.T @ springs + 0.05 * laplacian + 1e-4 * scipy.sparse.identity(num_vertices)
    return scipy.sparse.linalg.splu(system.tocsc()).solve(springs.T @ residual[rows])
