"""What the dense energy is given (evidence, priors) and what it is a function of (the unknowns), for one image."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from flame.surface import SurfacePoints
from priors.dense_surface import DenseSurface
from priors.evidence import DenseMaps
from priors.uv_lookup import UvLookup
from priors.uv_noise import denoise_uv
from tracker.dense_checks import check_problem
from tracker.state import FaceState
from tracker.terms import Whitening

FRAME_SECONDS = 1 / 30
"""Time between frames at which the weights of smoothness are stated."""


@dataclass(frozen=True)
class PointEvidence:
    """Say where N surface points are seen."""

    points: SurfacePoints
    """Points on the head."""
    points_px: np.ndarray
    """Where they are seen, float (N, 2), pixels of the maps; NaN for points that are not."""


@dataclass(frozen=True)
class CorrespondenceEvidence:
    """Say where N surface points are seen, and how surely."""

    points: SurfacePoints
    """Points on the head."""
    whitening: Whitening
    """Where they are seen, pixels of the maps, and their inverse standard deviations; zero for points that are not."""


@dataclass(frozen=True)
class LidEvidence:
    """Say how far N pairs of points on upper and lower lids are apart in the image."""

    upper: SurfacePoints
    """Points on upper lids."""
    lower: SurfacePoints
    """Points on lower lids, in the same order."""
    offset_px: np.ndarray
    """Upper minus lower point as seen, float (N, 2), pixels of the maps; NaN for pairs that are not seen."""


@dataclass(frozen=True)
class VertexLookups:
    """Say where L vertices are seen, by their texture coordinates; made once per image."""

    vertices: np.ndarray
    """Vertex indices, each at most once, int64 (L,)."""
    points_px: np.ndarray
    """Where they are seen, float64 (L, 2), pixels of the maps."""
    trust: np.ndarray | None = None
    """How much each counts, float64 (L,), 1 for ordinary ones; None: all 1."""


@dataclass(frozen=True, eq=False)
class DenseProblem:
    """Hold what one image says about a head, and what is known beforehand."""

    head: HeadModel
    """The head model; the energy is computed in its floating-point type, on its device."""
    maps: DenseMaps
    """Dense evidence, at the size of ``intrinsics``; pixels with a NaN say nothing."""
    intrinsics: Intrinsics
    """The maps' camera as expected; the unknowns scale its focal lengths and shift its principal point."""
    lookups: VertexLookups
    """Where vertices are seen."""
    foreground: np.ndarray | None = None
    """Where the head (hair left aside) is seen, eyes and mouth included, bool (H, W)."""
    landmarks: PointEvidence | None = None
    """Landmarks."""
    correspondences: CorrespondenceEvidence | None = None
    """All that the prior's surface points say."""
    irises: PointEvidence | None = None
    """Centres of the irises."""
    lids: LidEvidence | None = None
    """Pairs of points on the lids."""
    anchor: np.ndarray | None = None
    """Expected identity coefficients (<= I,); zero where missing."""
    previous: FaceState | None = None
    """State in the frame before."""
    seconds_since_previous: float = FRAME_SECONDS
    """Time since the frame before."""

    def __post_init__(self) -> None:
        """Refuse evidence that cannot be meant.

        Raises:
            InputError: sizes differ, values are in other units, or the evidence speaks of another head.
        """
        check_problem(self)

    @property
    def size_px(self) -> int:
        """Return the longer side of the maps, pixels, the unit of image distances."""
        return max(self.maps.mask.shape)


def look_up_vertices(head: HeadModel, maps: DenseMaps, max_distance: float, is_subpixel: bool = False) -> VertexLookups:
    """Find skin vertices in a map: p* = argmin_p |T_v - U_p|, kept where that distance is below ``max_distance``.

    A vertex on a seam has several texture coordinates; the one that fits best is kept.

    Raises:
        InputError: the head has no texture coordinates.
    """
    copies = DenseSurface.of(head).copies
    matches = UvLookup(denoise_uv(maps.uv, maps.mask) if is_subpixel else maps.uv, maps.mask).find(
        copies.uv, max_distance, is_subpixel
    )
    best = copies.best(matches)
    points_px = matches.points_px[best]
    trust = None
    if maps.uv_trust is not None:
        height, width = maps.mask.shape
        columns, rows = np.clip(points_px.astype(np.int64), 0, (width - 1, height - 1)).T
        trust = maps.uv_trust[rows, columns].astype(np.float64)
    return VertexLookups(copies.vertex[best], points_px, trust)


@dataclass(frozen=True)
class Unknowns:
    """Choose which `Parameters` are solved for; the rest stay as they start. The defaults are the paper's unknowns."""

    rotation: bool = True
    """The head's rotation."""
    translation: bool = True
    """The head's translation."""
    neck: bool = False
    """Neck rotation; one image can hardly tell it from the head's."""
    jaw: bool = True
    """Jaw rotation."""
    eyes: bool = False
    """Rotation of both eyes; dense maps leave the eyes out, so these need irises."""
    expression: bool = True
    """Expression coefficients."""
    shape: bool = True
    """Identity coefficients."""
    log_focal: bool = True
    """Focal length."""
    principal_point: bool = True
    """Principal point."""


@dataclass(frozen=True, eq=False)
class Parameters:
    """Hold the unknowns as tensors.

    The rotation is a small one, in camera axes, on the left of a fixed base: ``R = exp(rotation) @ base_rotation``.
    These are the coordinates of `tracker.state.FaceState.step`, so gradients at ``rotation`` = 0 are the same.
    """

    base_rotation: Tensor
    """Rotation from which ``rotation`` leads away (3, 3); a constant."""
    rotation: Tensor
    """Axis-angle (3,), radians."""
    translation: Tensor
    """Translation of cam_from_head (3,), metres."""
    neck: Tensor
    """Axis-angle (3,), radians."""
    jaw: Tensor
    """Axis-angle (3,), radians."""
    eyes: Tensor
    """Axis-angles of the left and the right eye (6,), radians."""
    expression: Tensor
    """Expression coefficients (E,)."""
    shape: Tensor
    """Identity coefficients (I,)."""
    log_focal: Tensor
    """Logarithm of the factor on the focal lengths (1,)."""
    principal_point: Tensor
    """Offset of the principal point (2,), shares of the maps' longer side."""

    @staticmethod
    def at(
        problem: DenseProblem,
        state: FaceState,
        shape: np.ndarray | None = None,
        log_focal: float = 0.0,
        principal_point: np.ndarray | None = None,
    ) -> Parameters:
        """Return the parameters at a state, in the head's type and on its device; ``shape`` (<= I,) defaults to zero.

        Raises:
            InputError: the state does not belong to the head.
        """
        head = problem.head

        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(np.array(values, np.float64), dtype=head.dtype, device=head.device)

        if state.expression.shape != (head.num_expression,):
            raise InputError(
                f"the state has {state.expression.size} expression coefficients; head {head.name!r} has "
                f"{head.num_expression}"
            )
        return Parameters(
            base_rotation=tensor(state.rotation),
            rotation=tensor(np.zeros(3)),
            translation=tensor(state.translation),
            neck=tensor(state.joint_angles[:3]),
            jaw=tensor(state.joint_angles[3:6]),
            eyes=tensor(state.joint_angles[6:]),
            expression=tensor(state.expression),
            shape=tensor(padded(shape, head.num_shape, "identity")),
            log_focal=tensor(np.full(1, log_focal)),
            principal_point=tensor(np.zeros(2) if principal_point is None else principal_point),
        )

    @property
    def joint_angles(self) -> Tensor:
        """Return the axis-angles of neck, jaw, left eye, right eye (12,), radians."""
        return torch.cat((self.neck, self.jaw, self.eyes))

    def turned(self) -> Tensor:
        """Return the rotation of cam_from_head (3, 3)."""
        return matrix_from_axis_angle(self.rotation) @ self.base_rotation

    def state(self) -> FaceState:
        """Return the face's state, float64."""
        arrays = (self.turned(), self.translation, self.joint_angles, self.expression)
        return FaceState(*(array.detach().cpu().numpy().astype(np.float64) for array in arrays))

    def intrinsics(self, expected: Intrinsics, size_px: int) -> Intrinsics:
        """Return the camera that these parameters make of the expected one."""
        shift = size_px * self.principal_point.detach().cpu().numpy().astype(np.float64)
        camera = expected.zoom(float(self.log_focal.detach().exp()))
        return replace(camera, cx=camera.cx + float(shift[0]), cy=camera.cy + float(shift[1]))

    def with_gradients(self, unknowns: Unknowns) -> Parameters:
        """Return copies of which the chosen ones record gradients."""
        tensors = {field.name: getattr(self, field.name).detach().clone() for field in fields(self)}
        for field in fields(unknowns):
            tensors[field.name].requires_grad_(getattr(unknowns, field.name))
        return Parameters(**tensors)


def padded(values: np.ndarray | None, count: int, word: str) -> np.ndarray:
    """Return coefficients float64 (count,), zero where missing.

    Raises:
        InputError: more coefficients than the head has.
    """
    given = np.zeros(0) if values is None else np.asarray(values, np.float64)
    if given.ndim != 1 or len(given) > count:
        raise InputError(f"{word} coefficients have shape {given.shape}; at most ({count},) is possible")
    return np.concatenate((given, np.zeros(count - len(given))))
