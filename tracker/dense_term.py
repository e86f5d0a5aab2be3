"""Dense evidence as one term of a frame: vertices where the texture map shows them, normals and texture by the pixel.

The energies are those of ``tracker.reference_energy``, which says the same slowly in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

from configs.schema import EnergyConfig
from flame.mesh_rig import MeshRig
from flame.rasterizer import NEAR_METRES, cpu, rasterize
from flame.rotation_kernels import left_jacobian
from flame.shading import vertex_normals
from flame.surface import NECK
from priors.dense_surface import DenseSurface
from tracker.dense_kernels import (
    NUM_CURVATURES,
    MapCamera,
    PixelEvidence,
    PixelNorms,
    SeenSurface,
    add_pixels,
)
from tracker.dense_outline import OutlineEvidence, add_outline
from tracker.dense_rows import stack_rows
from tracker.frame_terms import FramePoint, Quadratic
from tracker.projection_kernels import add_projections
from tracker.reference_energy import SEAM_UV_DISTANCE
from tracker.reference_problem import DenseProblem
from tracker.reference_raster import HIDDEN_BEHIND_METRES
from tracker.state import View

(_SSYRK,) = scipy.linalg.get_blas_funcs(("syrk",), dtype=np.float32)
(_DSYRK,) = scipy.linalg.get_blas_funcs(("syrk",), dtype=np.float64)
_NO_CAP = 1e30
_NUM_PARTS = 4


@dataclass(frozen=True)
class Detail:
    """Say how finely the evidence is looked at: a coarse look finds the way, a fine one the place."""

    pixel_step: int = 1
    """Use one pixel in so many rows and columns."""
    normal_floor: float = 2e-3
    """Difference of normals below which the norm is rounded off."""
    uv_floor: float = 1e-5
    """Difference of texture coordinates below which the norm is rounded off."""
    projection_floor_px: float = 0.02
    """Distance in the image below which the norm is rounded off."""
    vertex_step: int = 2
    """Estimate curvature from one vertex in so many; neighbours say nearly the same, and the energy is not touched."""


FINE = Detail()
COARSE = Detail(pixel_step=4, normal_floor=0.1, uv_floor=1e-3, projection_floor_px=1.0)
SHARP = Detail(normal_floor=2e-4, uv_floor=1e-6, projection_floor_px=2e-3, vertex_step=1)
"""For evidence that is nearly exact: there residuals fall below the floors of ``FINE``, where squares would let priors
and wrong lookups win."""


@dataclass(frozen=True, eq=False)
class DenseTerm:
    """Be everything that dense maps say of one frame."""

    rig: MeshRig
    """The whole head, with R shape directions."""
    energy: EnergyConfig
    size_px: int
    """Longer side of the maps, the unit of image distances."""
    shape_px: tuple[int, int]
    """Height and width of the maps."""
    pixels: np.ndarray
    """Row and column of the pixels used, int32 (K, 2)."""
    normals: np.ndarray
    """Observed normals in the map's axes, float64 (K, 3)."""
    texture: np.ndarray
    """Observed texture coordinates, float64 (K, 2), NaN where there are none."""
    normal_trust: np.ndarray
    """How much each pixel's normal counts, float64 (K,)."""
    texture_trust: np.ndarray
    """The same of the texture coordinates."""
    is_head_space: bool
    """Whether the normals' axes are the head's, with the rotations of root and neck undone."""
    surface: DenseSurface
    """The head's texture coordinates, and which triangles say nothing."""
    vertices: np.ndarray
    """Vertices found in the texture map, int32 (L,)."""
    points_px: np.ndarray
    """Where, float64 (L, 2)."""
    lookup_trust: np.ndarray
    """How much each counts, float64 (L,)."""
    outline: OutlineEvidence | None
    """The foreground's boundary, where it is known and wanted."""
    detail: Detail
    pool: ThreadPoolExecutor | None = None
    """Threads among which the sums are divided; None does them in one."""

    @staticmethod
    def of(
        problem: DenseProblem,
        rig: MeshRig,
        surface: DenseSurface,
        energy: EnergyConfig,
        detail: Detail = FINE,
        pool: ThreadPoolExecutor | None = None,
    ) -> DenseTerm:
        """Prepare the evidence of one image for a rig of its head."""
        maps = problem.maps
        step, trust = detail.pixel_step, problem.lookups.trust
        is_seen = maps.mask & np.isfinite(maps.normals).all(axis=-1)
        if not is_seen.any():
            # Without any normals the texture coordinates' own pixels are the ones to take the mean over.
            is_seen, energy = maps.mask & np.isfinite(maps.uv).all(axis=-1), replace(energy, normal=0.0)
        rows, columns = step * np.stack(np.nonzero(is_seen[::step, ::step]))
        return DenseTerm(
            rig=rig,
            energy=energy,
            size_px=problem.size_px,
            shape_px=(maps.mask.shape[0], maps.mask.shape[1]),
            pixels=np.column_stack((rows, columns)).astype(np.int32),
            normals=np.nan_to_num(maps.normals[rows, columns].astype(np.float64)),
            texture=maps.uv[rows, columns].astype(np.float64),
            normal_trust=_trust_at(maps.normal_trust, rows, columns),
            texture_trust=_trust_at(maps.uv_trust, rows, columns),
            is_head_space=maps.normal_space == "head",
            surface=surface,
            vertices=problem.lookups.vertices.astype(np.int32),
            points_px=problem.lookups.points_px.astype(np.float64),
            lookup_trust=np.ones(len(problem.lookups.vertices)) if trust is None else trust.astype(np.float64),
            outline=(
                OutlineEvidence.of(problem.foreground, rig.faces)
                if energy.silhouette > 0 and problem.foreground is not None
                else None
            ),
            detail=detail,
            pool=pool,
        )

    @property
    def uses_pixels(self) -> bool:
        """Return whether any term speaks of pixels."""
        return len(self.pixels) > 0 and (self.energy.normal > 0 or self.energy.uv_pixel > 0)

    @property
    def needs_depth(self) -> bool:
        """Return whether the rasteriser has to say what is seen."""
        return self.uses_pixels or self.energy.uv_cap > 0 or self.outline is not None

    def at(self, point: FramePoint) -> LinearDense:
        """Evaluate the term at a point."""
        return LinearDense(self, point)


class LinearDense:
    """Be a ``DenseTerm`` at one point."""

    def __init__(self, term: DenseTerm, point: FramePoint) -> None:
        """Pose the head, look where it is seen and sum up all pixels and vertices."""
        self._term, self._point = term, point
        state, view = point.state, point.view
        self._posed = term.rig.pose(
            point.shape, state.expression, state.joint_angles, state.rotation, state.translation
        )
        verts_cam = self._posed.verts_cam
        self._normals_cam = vertex_normals(verts_cam, term.rig.faces)
        self._force = np.zeros((len(verts_cam), 6))
        self._curvature = np.zeros((len(verts_cam), NUM_CURVATURES))
        self._triangle = np.zeros((0, 0), np.int32)
        is_hidden = np.zeros(len(verts_cam), dtype=bool)
        if term.needs_depth:
            height, width = (-(-side // term.detail.pixel_step) for side in term.shape_px)
            step = term.detail.pixel_step
            camera = sampled(view, step).intrinsics(width, height)
            corners = cpu.project_corners(verts_cam, camera)
            self._triangle, inverse_depth, _ = cpu.visibility(
                corners, term.rig.faces, height, width, False, NEAR_METRES
            )
            if term.energy.uv_cap > 0:
                is_hidden = hidden_vertices(verts_cam, corners, inverse_depth)
        self.energies = {
            "uv": self._add_vertices(is_hidden),
            **self._add_pixels(),
            "silhouette": self._add_outline(),
        }
        self.energy = sum(self.energies.values())

    @property
    def residual_px(self) -> np.ndarray:
        """Return the distances of projected vertices from where the texture map shows them, float64 (L,), pixels."""
        projected = self._point.view.project(self._posed.verts_cam[self._term.vertices])
        return np.linalg.norm(projected - self._term.points_px, axis=1)

    def _add_vertices(self, is_hidden: np.ndarray) -> float:
        """Add L_uv and return its energy."""
        term, view = self._term, self._point.view
        count = len(term.vertices)
        if count == 0 or term.energy.uv == 0:
            return 0.0
        return add_projections(
            term.vertices,
            term.points_px,
            term.energy.uv / count / term.size_px * term.lookup_trust,
            self._posed.verts_cam,
            is_hidden,
            view.focal_px,
            view.center_px,
            term.energy.uv_cap * term.size_px or _NO_CAP,
            term.detail.projection_floor_px,
            self._force,
            self._curvature,
        )

    def _add_pixels(self) -> dict[str, float]:
        """Add L_n and the texture term by pixels and return their energies."""
        term, view = self._term, self._point.view
        if not term.uses_pixels:
            return {"normal": 0.0, "uv_pixel": 0.0}
        parts = _parts(term.pool, len(term.pixels))
        forces = [self._force] + [np.zeros_like(self._force) for _ in parts[1:]]
        curvatures = [self._curvature] + [np.zeros_like(self._curvature) for _ in parts[1:]]

        surface = SeenSurface(
            self._triangle,
            term.detail.pixel_step,
            term.rig.faces,
            term.surface.is_excluded,
            self._posed.verts_cam,
            self._normals_cam,
            term.surface.uv,
            term.surface.uv_faces,
        )
        camera = MapCamera(view.focal_px, view.center_px, self._map_from_cam)

        def add(index: int) -> tuple[float, float]:
            part = parts[index]
            evidence = PixelEvidence(
                term.pixels[part],
                term.normals[part],
                term.texture[part],
                term.normal_trust[part],
                term.texture_trust[part],
            )
            return add_pixels(evidence, surface, camera, self._norms, forces[index], curvatures[index])

        energies = _each(term.pool, add, len(parts))
        for force, curvature in zip(forces[1:], curvatures[1:], strict=True):
            self._force += force
            self._curvature += curvature
        normal_energy, uv_energy = np.sum(energies, axis=0).tolist()
        return {"normal": normal_energy, "uv_pixel": uv_energy}

    def _add_outline(self) -> float:
        """Add the silhouette and return its energy."""
        term, view = self._term, self._point.view
        if term.outline is None:
            return 0.0
        height, width = term.shape_px
        return add_outline(
            term.outline,
            self._posed.verts_cam,
            term.rig.faces,
            view,
            rasterize(self._posed.verts_cam, term.rig.faces, view.intrinsics(width, height)),
            term.energy.silhouette / term.size_px,
            term.detail.projection_floor_px,
            self._force,
            self._curvature,
        )

    @property
    def _norms(self) -> PixelNorms:
        """Return what one pixel's differences cost."""
        energy, detail, count = self._term.energy, self._term.detail, len(self._term.pixels)
        return PixelNorms(
            normal_weight=energy.normal / count,
            normal_cap=float(energy.normal_cap or _NO_CAP),
            normal_floor=float(detail.normal_floor),
            uv_weight=energy.uv_pixel / count,
            uv_seam=SEAM_UV_DISTANCE,
            uv_floor=float(detail.uv_floor),
        )

    @cached_property
    def _map_from_cam(self) -> np.ndarray:
        """Return the rotation from camera axes to those of the normal map."""
        if not self._term.is_head_space:
            return np.eye(3)
        return (self._posed.rotation @ self._posed.joint_rotations[NECK]).T.copy()

    def _turning(self) -> np.ndarray:
        """Return how fast the normal map's axes turn with the first nine parameters, (9, 3), camera axes."""
        turning = np.zeros((9, 3))
        if self._term.is_head_space:
            turning[:3] = np.eye(3)
            turning[6:] = (self._posed.rotation @ left_jacobian(self._posed.joint_angles[:3])).T
        return turning

    def quadratic(self) -> Quadratic:
        """Return the quadratic model."""
        rows, gradient = self._rows()
        triangle = (_SSYRK if rows.dtype == np.float32 else _DSYRK)(1.0, rows.T, lower=1).astype(np.float64)
        return Quadratic(triangle + np.tril(triangle, -1).T, gradient)

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows whose square is the Hessian, and the gradient."""
        rig = self._term.rig
        rings = rig.rings
        active = np.flatnonzero(self._curvature.any(axis=1))
        needed = np.zeros(rig.num_vertices, dtype=bool)
        needed[active] = True
        turning = active[self._curvature[active, 9:].any(axis=1)]
        if len(turning):
            needed[ring_members(rings.start, rings.neighbour, turning)] = True
        vertices = np.flatnonzero(needed)
        row_of_vertex = np.full(rig.num_vertices, -1, np.int32)
        row_of_vertex[vertices] = np.arange(len(vertices))
        jacobian = np.empty((len(vertices), 3, rig.num_parameters), rig.shape_basis.dtype)
        parts = _parts(self._term.pool, len(vertices))

        def move(index: int) -> None:
            part = parts[index]
            jacobian[part] = rig.jacobian(self._posed, self._point.view.focal_px, vertices[part])

        _each(self._term.pool, move, len(parts))
        step = self._term.detail.vertex_step
        rows = np.zeros((6 * -(-len(active) // step), rig.num_parameters), jacobian.dtype)
        active, parts = active.astype(np.int32), _parts(self._term.pool, len(active), step)

        def stack(index: int) -> np.ndarray:
            part = parts[index]
            return stack_rows(
                active[part],
                row_of_vertex,
                jacobian,
                self._force,
                self._curvature,
                self._posed.verts_cam,
                self._normals_cam,
                rings,
                self._turning(),
                step,
                rows[6 * (part.start // step) : 6 * -(-part.stop // step)],
            )

        return rows, np.sum(_each(self._term.pool, stack, len(parts)), axis=0)


def _trust_at(trust: np.ndarray | None, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return how much pixels count, float64 (K,)."""
    return np.ones(len(rows)) if trust is None else trust[rows, columns].astype(np.float64)


def _parts(pool: ThreadPoolExecutor | None, count: int, step: int = 1) -> list[slice]:
    """Divide a range for the threads of a pool, at multiples of ``step``."""
    num_parts = 1 if pool is None else _NUM_PARTS
    edges = [count * part // num_parts // step * step for part in range(num_parts)] + [count]
    return [slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def _each(pool: ThreadPoolExecutor | None, function: Callable[[int], Any], count: int) -> list[Any]:
    """Call a function for 0, 1, …, in the threads of a pool if there is one."""
    return [function(index) for index in range(count)] if pool is None else list(pool.map(function, range(count)))


def sampled(view: View, pixel_step: int) -> View:
    """Return the view whose pixels have their centres at those of every so many-th pixel, from the first on."""
    return View(view.focal_px / pixel_step, (view.center_px - 0.5) / pixel_step + 0.5)


def ring_members(start: np.ndarray, neighbour: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Return all neighbours of some vertices."""
    chosen = np.zeros(len(start) - 1, dtype=bool)
    chosen[vertices] = True
    return neighbour[np.repeat(chosen, np.diff(start))]


def hidden_vertices(verts_cam: np.ndarray, corners_px: np.ndarray, inverse_depth: np.ndarray) -> np.ndarray:
    """Return which vertices (V, 3) lie behind what the rasteriser sees at their place, bool (V,).

    Args:
        verts_cam: vertices in camera space.
        corners_px: their places in the image and inverse depths (V, 3).
        inverse_depth: nearest inverse depth by pixel (H, W), 0 for none.
    """
    height, width = inverse_depth.shape
    columns, rows = (np.floor(corners_px[:, axis]).astype(np.int64) for axis in (0, 1))
    is_inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows = (np.where(is_inside, index, 0) for index in (columns, rows))
    seen = inverse_depth[rows, columns]
    is_behind = (seen > 0) & (seen * (verts_cam[:, 2] - HIDDEN_BEHIND_METRES) > 1)
    return (is_inside & is_behind) | (corners_px[:, 2] <= 0)
