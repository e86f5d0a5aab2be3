"""Random people seen by a perfect or by a noisy network: dense maps with a known truth, for ``solver.py``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from configs.schema import EnergyConfig
from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.rotation_kernels import rotation_matrix
from flame.surface_error import similarity_of
from priors.dense_rendering import render_dense_maps, render_foreground
from priors.evidence import DenseMaps
from tracker.reference_problem import DenseProblem, look_up_vertices
from tracker.state import FaceState

NORMAL_DEGREES, UV_PX, OUTLIER_SHARE = 10.0, 3.0, 0.05
"""Noise of a noisy network: root mean squares, independent from pixel to pixel, and the share of pixels that it makes
up altogether."""
_FACING = np.diag((1.0, -1.0, -1.0))
_FOCAL_SHARE = 1.9
_PLACE_METRES = np.array((0.0, 0.03, 0.45))
_ACTIVE_SHARE, _LARGEST_ACTION, _BUMP_SIGMA, _LARGEST_JAW = 0.25, 0.6, 0.5, 0.25
_PITCH_ROLL_DEGREES = 10.0
_CLIP_DEGREES = np.array((8.0, 15.0, 5.0))
_CLIP_METRES = 0.008
_CLIP_SIGMA_FRAMES = 8.0


@dataclass(frozen=True, eq=False)
class Shot:
    """Hold one image of a person, and its truth."""

    state: FaceState
    verts_cam: np.ndarray
    """Vertices (V, 3), camera space, metres."""
    camera: Intrinsics
    maps: DenseMaps
    """What a network says of the image."""

    def problem(self, head: HeadModel, energy: EnergyConfig) -> DenseProblem:
        """Look the vertices up and return what an energy is given; the foreground is never noisy."""
        lookups = look_up_vertices(head, self.maps, energy.uv_max_distance, energy.uv_is_subpixel)
        foreground = render_foreground(head, self.verts_cam, self.camera) if energy.silhouette else None
        return DenseProblem(head, self.maps, self.camera, lookups, foreground)


@dataclass(frozen=True, eq=False)
class Sitter:
    """Hold a person of random identity, and the camera that looks at the person."""

    head: HeadModel
    shape: np.ndarray
    """Identity coefficients, float64 (I,), standard normal."""
    camera: Intrinsics
    is_noisy: bool

    @staticmethod
    def random(head: HeadModel, size_px: int, is_noisy: bool, seed: int) -> Sitter:
        """Invite somebody; the same seed is the same person, whatever the size and the noise."""
        shape = np.random.default_rng((seed, 0)).normal(size=head.num_shape)
        focal_px, middle = _FOCAL_SHARE * size_px, size_px / 2
        return Sitter(head, shape, Intrinsics(focal_px, focal_px, middle, middle, size_px, size_px), is_noisy)

    def shoot(self, state: FaceState, seed: int) -> Shot:
        """Render the maps of a state."""
        verts_cam = state.points_cam(posed_vertices(self.head, state, self.shape))
        maps = render_dense_maps(self.head, verts_cam, self.camera)
        if self.is_noisy:
            maps = with_noise(maps, np.random.default_rng((seed, 1)))
        return Shot(state, verts_cam, self.camera, maps)


def random_state(head: HeadModel, yaw_degrees: float, rng: np.random.Generator) -> FaceState:
    """Return a face with some expression that looks roughly where it is told to."""
    pitch, roll = rng.uniform(-_PITCH_ROLL_DEGREES, _PITCH_ROLL_DEGREES, 2)
    is_action, count = _is_action(head), head.num_expression
    strength = _LARGEST_ACTION * rng.random(count) * (rng.random(count) < _ACTIVE_SHARE)
    expression = _possible(head, np.where(is_action, strength, _BUMP_SIGMA * rng.normal(size=count)))
    return _state(np.array((pitch, yaw_degrees, roll)), np.zeros(3), _LARGEST_JAW * rng.random(), expression)


def random_motion(head: HeadModel, num_frames: int, rng: np.random.Generator) -> list[FaceState]:
    """Return a clip at 30 frames/s: pose, jaw and expressions wander smoothly, each by itself."""
    count = head.num_expression
    waves = gaussian_filter1d(rng.normal(size=(num_frames, 7 + count)), _CLIP_SIGMA_FRAMES, axis=0, mode="wrap")
    waves *= np.sqrt(2 * np.sqrt(np.pi) * _CLIP_SIGMA_FRAMES)
    actions = 0.5 * _LARGEST_ACTION * np.clip(waves[:, 7:] - 0.5, 0, 2)
    expressions = _possible(head, np.where(_is_action(head), actions, _BUMP_SIGMA * waves[:, 7:]))
    jaws = 0.5 * _LARGEST_JAW * np.clip(waves[:, 6], 0, 2)
    return [
        _state(_CLIP_DEGREES * wave[:3], _CLIP_METRES * wave[3:6], jaw, expression)
        for wave, jaw, expression in zip(waves, jaws, expressions, strict=True)
    ]


def with_noise(maps: DenseMaps, rng: np.random.Generator) -> DenseMaps:
    """Return maps as a noisy network might draw them: normals tilted, texture from nearby, some pixels plain wrong."""
    rows, columns = np.nonzero(maps.mask)
    count = len(rows)
    normals = maps.normals[rows, columns].astype(np.float64)
    tilt = rng.normal(0.0, np.radians(NORMAL_DEGREES) / np.sqrt(2), (count, 3))
    tilt -= (tilt * normals).sum(axis=1, keepdims=True) * normals
    angle = np.linalg.norm(tilt, axis=1, keepdims=True)
    normals = np.cos(angle) * normals + np.sin(angle) * tilt / np.maximum(angle, 1e-12)
    offset = np.rint(rng.normal(0.0, UV_PX / np.sqrt(2), (2, count))).astype(int)
    height, width = maps.mask.shape
    there = np.clip(rows + offset[0], 0, height - 1), np.clip(columns + offset[1], 0, width - 1)
    texture = maps.uv[there].astype(np.float64)
    wrong = np.flatnonzero(rng.random(count) < OUTLIER_SHARE)
    texture[wrong] = rng.random((len(wrong), 2))
    anything = rng.normal(size=(len(wrong), 3))
    normals[wrong] = anything / np.linalg.norm(anything, axis=1, keepdims=True)
    noisy = np.full_like(maps.uv, np.nan), np.full_like(maps.normals, np.nan)
    noisy[0][rows, columns], noisy[1][rows, columns] = texture, normals
    return replace(maps, uv=noisy[0], normals=noisy[1], mask=maps.mask & np.isfinite(noisy[0]).all(axis=-1))


def posed_vertices(head: HeadModel, state: FaceState, shape: np.ndarray) -> np.ndarray:
    """Return vertices (V, 3) in head space, metres."""
    neck, jaw, left_eye, right_eye = torch.as_tensor(state.joint_angles, dtype=head.dtype).view(4, 3)
    posed = head.rest(torch.as_tensor(shape, dtype=head.dtype)).pose(
        expression=torch.as_tensor(state.expression, dtype=head.dtype),
        neck=neck,
        jaw=jaw,
        left_eye=left_eye,
        right_eye=right_eye,
    )
    return posed.vertices.numpy().astype(np.float64)


def posed_error_mm(sitter: Sitter, shot: Shot, state: FaceState, shape: np.ndarray) -> float:
    """Return the mean distance of the face's vertices from the truth after similarity alignment."""
    found = state.points_cam(posed_vertices(sitter.head, state, shape))
    return _aligned_error_mm(sitter.head, found, shot.verts_cam)


def neutral_error_mm(sitter: Sitter, shape: np.ndarray) -> float:
    """Return the same of the neutral heads."""
    found, truth = (_neutral_vertices(sitter.head, coefficients) for coefficients in (shape, sitter.shape))
    return _aligned_error_mm(sitter.head, found, truth)


def _aligned_error_mm(head: HeadModel, found: np.ndarray, truth: np.ndarray) -> float:
    assert head.topology is not None
    face = head.topology.regions["face"]
    aligned = similarity_of(found[face], truth[face])(found[face])
    return 1e3 * float(np.linalg.norm(aligned - truth[face], axis=1).mean())


def _neutral_vertices(head: HeadModel, shape: np.ndarray) -> np.ndarray:
    basis = head.shape_basis.numpy().astype(np.float64)
    return head.template.numpy().astype(np.float64) + basis @ shape


def _is_action(head: HeadModel) -> np.ndarray:
    """Return which expressions only go one way, bool (E,)."""
    assert head.expression_bounds is not None
    return head.expression_bounds[:, 0].numpy() >= 0


def _possible(head: HeadModel, expressions: np.ndarray) -> np.ndarray:
    """Return expressions (..., E) within the head's bounds."""
    assert head.expression_bounds is not None
    return np.clip(expressions, *head.expression_bounds.numpy().T)


def _state(degrees: np.ndarray, shift: np.ndarray, jaw: float, expression: np.ndarray) -> FaceState:
    angles = np.zeros(12)
    angles[3] = jaw
    # About the head's own axes: pitch, yaw, roll.
    rotation = _FACING @ rotation_matrix(np.radians(degrees))
    return FaceState(rotation, _PLACE_METRES + shift, angles, expression)
