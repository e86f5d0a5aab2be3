"""The dense energy of Pixel3DMM (arXiv 2505.00615), and the terms its release adds, in plain differentiable torch.

It is written to be read: one expression per term, gradients by autograd. The working solver minimises the same energy
with Jacobians of its own and is tested against this one.

With image distances in shares of the maps' longer side S and means over lookups, pixels or points:

- ``uv``: mean over looked-up vertices of ``|p* - pi(v)| / S``; capped, if there is a cap, and then a vertex hidden at
  the present state costs the cap.
- ``normal``: mean over evidence pixels of ``|N - n|_1`` with the rendered smooth normal n, capped. A pixel that the
  head does not cover has n = 0; a pixel on the eyes or in the mouth costs nothing.
- ``uv_pixel``: mean over the same pixels of ``|U - u|``; one that the head's skin does not cover, or with a seam
  between U and u, costs nothing.
Each pixel's, and each lookup's, cost is multiplied by how far the maps trust it, where they say so.
- ``silhouette``: mean over the outline, by length, of the distance from the foreground's boundary. The lengths are held
  constant in gradients: to first order the area between two outlines changes by displacement alone.
- ``correspondences``: mean over the prior's points of the Cauchy norm of their distances in standard deviations.
- ``landmarks``, ``iris``, ``eye_closure``: mean squared distances. The other terms are sums of squares.

What the rasteriser decides (triangles of pixels, hidden vertices, the outline) is a `Visibility`; the energy is
differentiable, and smooth but for the norms, while that is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from configs.schema import EnergyConfig
from flame.model import JAW, HeadModel
from flame.rasterizer import Backend, Fragments, check_backend
from flame.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from flame.skinning import joint_transforms, skin
from flame.surface import SurfacePoints
from priors.dense_surface import DenseSurface
from tracker.reference_problem import (
    FRAME_SECONDS,
    CorrespondenceEvidence,
    DenseProblem,
    Parameters,
    PointEvidence,
    padded,
)
from tracker.reference_raster import (
    NEAREST_METRES,
    MeshEdges,
    area_normals,
    at_rays,
    find_outline,
    hidden_vertices,
    mesh_edges,
    ray_weights,
    render,
    signed_distance_px,
    take,
)

SEAM_UV_DISTANCE = 0.1
"""Rendered and predicted texture coordinates that differ by more lie on two sides of a seam."""


@dataclass(frozen=True, eq=False)
class Visibility:
    """Hold what the rasteriser says about a state."""

    normal_pixels: Tensor
    """Which of the pixels with normals the head's skin covers, int64 (M,)."""
    normal_triangles: Tensor
    """Triangles that those pixels see, int64 (M,)."""
    uncovered_pixels: Tensor
    """Which of the pixels with normals nothing covers, int64 (m,)."""
    uv_pixels: Tensor
    """Which of the pixels with texture coordinates the head's skin covers, int64 (M',)."""
    uv_triangles: Tensor
    """Triangles that those pixels see, int64 (M',)."""
    hidden_lookups: Tensor
    """Which of the looked-up vertices are hidden, bool (L,)."""
    outline: Tensor
    """Ends of the outline's edges, int64 (n, 2)."""
    outline_share: Tensor
    """Shares of those edges in the outline's length (n,)."""


class PosedVertices:
    """Pose a head's vertices as `flame.model` does, with the bases laid out for one matrix-vector product each."""

    def __init__(self, head: HeadModel) -> None:
        """Lay out the bases."""
        self.head = head
        tail = torch.cat((head.expression_basis.flatten(0, 1), head.pose_basis.T), 1)
        self._shape_basis = head.shape_basis.flatten(0, 1)
        self._tail_basis = tail.contiguous()
        joint_shape = torch.einsum("jv,vci->jci", head.joint_regressor, head.shape_basis)
        self._joint_basis = torch.cat((joint_shape, head.joint_expression_basis), -1).flatten(0, 1)
        self._joints = (head.joint_regressor @ head.template).flatten()
        self._eye = torch.eye(3, dtype=head.dtype, device=head.device)

    def neutral(self, shape: Tensor) -> Tensor:
        """Return vertices at rest (V, 3), metres."""
        return self.head.template + torch.mv(self._shape_basis, shape).view(-1, 3)

    def posed(self, neutral: Tensor, shape: Tensor, expression: Tensor, joint_angles: Tensor) -> Tensor:
        """Return vertices (V, 3) in head space under expression (E,) and joint angles (12,)."""
        angles = torch.cat((joint_angles.new_zeros(3), joint_angles)).view(5, 3)
        if not self.head.has_jaw:
            angles = torch.cat((angles[:JAW], torch.zeros_like(angles[:1]), angles[JAW + 1 :]))
        rotations = matrix_from_axis_angle(angles)
        features = (rotations[1:] - self._eye).flatten()
        rest = neutral + torch.mv(self._tail_basis, torch.cat((expression, features))).view(-1, 3)
        joints = self._joints + torch.mv(self._joint_basis, torch.cat((shape, expression)))
        return skin(rest, joint_transforms(rotations, joints.view(5, 3), self.head.parents), self.head.skin_weights)


@dataclass(frozen=True, eq=False)
class _Mesh:
    """Hold the vertices at some parameters, and the camera."""

    neutral: Tensor
    """(V, 3), at rest."""
    verts_cam: Tensor
    """(V, 3), camera space."""
    map_from_cam: Tensor | None
    """(3, 3), rotation from camera axes to those of the predicted normals; None where they are the same."""
    focal_px: Tensor
    """(2,), focal lengths."""
    center_px: Tensor
    """(2,), principal point."""

    def project(self, points_cam: Tensor) -> Tensor:
        """Project points (N, 3) to pixels (N, 2)."""
        return self.focal_px * points_cam[:, :2] / points_cam[:, 2:].clamp_min(NEAREST_METRES) + self.center_px


class ReferenceEnergy:
    """Evaluate the energy of one problem; evidence is gathered and laid out once."""

    def __init__(self, problem: DenseProblem, energy: EnergyConfig, backend: Backend = "cpu") -> None:
        """Prepare the evidence of the terms whose weights are not 0.

        Raises:
            InputError: the rasteriser's back end cannot be used, or the head has no texture
                coordinates, or the anchor has too many coefficients.
        """
        check_backend(backend)
        head, camera = problem.head, problem.intrinsics
        self.problem, self.energy, self.posed_vertices = problem, energy, PosedVertices(head)
        self._backend: Backend = backend
        self._size, self._faces = float(problem.size_px), head.faces.detach().cpu().numpy()
        self._focal_px = self._tensor((camera.fx, camera.fy))
        self._center_px = self._tensor((camera.cx, camera.cy))
        self._corner_vertices = self._index(self._faces.T.ravel())
        surface = DenseSurface.of(head)
        self._excluded = surface.is_excluded
        self._uv_corners = self._tensor(surface.uv[surface.uv_faces]).permute(2, 1, 0).contiguous()
        maps = problem.maps
        has_normal, has_uv = (maps.mask & np.isfinite(values).all(-1) for values in (maps.normals, maps.uv))
        # Without any normals the texture coordinates' own pixels are the ones to take the mean over.
        has_uv &= has_normal if has_normal.any() else True
        self._normal_pixels, self._normals, self._normal_rays = self._evidence(maps.normals, has_normal)
        self._uv_pixels, self._uv, self._uv_rays = self._evidence(maps.uv, has_uv)
        self._num_pixels = max(len(self._normal_pixels) or len(self._uv_pixels), 1)
        self._lookup_vertices = self._index(problem.lookups.vertices)
        self._lookup_px = self._tensor(problem.lookups.points_px)
        lookup_trust, normal_trust, uv_trust = problem.lookups.trust, maps.normal_trust, maps.uv_trust
        self._lookup_trust = self._tensor(np.ones(len(self._lookup_px)) if lookup_trust is None else lookup_trust)
        self._normal_trust = self._trust(normal_trust, self._normal_pixels)
        self._uv_trust = self._trust(uv_trust, self._uv_pixels)
        self._anchor = self._tensor(padded(problem.anchor, head.num_shape, "anchor"))
        has_outline = bool(energy.silhouette) and problem.foreground is not None
        self._edges: MeshEdges | None = mesh_edges(self._faces) if has_outline else None
        if problem.foreground is not None and has_outline:
            self._distance_px = self._tensor(signed_distance_px(problem.foreground))

    def terms(self, parameters: Parameters, visibility: Visibility | None = None) -> dict[str, Tensor]:
        """Return the weighted terms by their names in `EnergyConfig` (smoothness as ``smooth_...``), scalars.

        Terms with weight 0 or without evidence are left out. ``visibility`` defaults to that of the parameters.
        """
        mesh = self._mesh(parameters)
        seen = self._look(mesh, parameters) if visibility is None else visibility
        terms = {**self._image_terms(mesh, seen), **self._point_terms(mesh)}
        terms.update(self._prior_terms(mesh, parameters))
        return {**terms, **self._smooth_terms(parameters)}

    def total(self, parameters: Parameters, visibility: Visibility | None = None) -> Tensor:
        """Return the energy, the sum of the terms."""
        return torch.stack([*self.terms(parameters, visibility).values(), parameters.shape.new_zeros(())]).sum()

    def look(self, parameters: Parameters) -> Visibility:
        """Return what the rasteriser says about a state."""
        with torch.no_grad():
            return self._look(self._mesh(parameters), parameters)

    def _tensor(self, values: object) -> Tensor:
        array = np.ascontiguousarray(values, np.float64)
        return torch.as_tensor(array, dtype=self.problem.head.dtype, device=self.problem.head.device)

    def _index(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values, np.int64), device=self.problem.head.device)

    def _evidence(self, values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
        """Return the pixels of the mask (M,), the values there (C, M), and the pixels' rays (2, M)."""
        pixels = np.flatnonzero(mask)
        row, column = np.divmod(pixels, values.shape[1])
        camera = self.problem.intrinsics
        rays = (column + 0.5 - camera.cx) / camera.fx, (row + 0.5 - camera.cy) / camera.fy
        return pixels, self._tensor(values.reshape(-1, values.shape[2])[pixels].T), self._tensor(np.stack(rays))

    def _trust(self, trust: np.ndarray | None, pixels: np.ndarray) -> Tensor:
        """Return how much chosen pixels (M,) count (M,)."""
        return self._tensor(np.ones(len(pixels)) if trust is None else trust.reshape(-1)[pixels])

    def _mesh(self, parameters: Parameters) -> _Mesh:
        """Pose the head and project it."""
        shape, expression, angles = parameters.shape, parameters.expression, parameters.joint_angles
        neutral = self.posed_vertices.neutral(shape)
        verts_head = self.posed_vertices.posed(neutral, shape, expression, angles)
        verts_cam = verts_head @ parameters.turned().T + parameters.translation
        map_from_cam = None
        if self.problem.maps.normal_space == "head":
            map_from_cam = (parameters.turned() @ matrix_from_axis_angle(parameters.neck)).T
        focal_px = self._focal_px * parameters.log_focal.exp()
        center_px = self._center_px + self._size * parameters.principal_point
        return _Mesh(neutral, verts_cam, map_from_cam, focal_px, center_px)

    def _look(self, mesh: _Mesh, parameters: Parameters) -> Visibility:
        camera = parameters.intrinsics(self.problem.intrinsics, self.problem.size_px)
        verts_cam = mesh.verts_cam.detach().cpu().numpy().astype(np.float64)
        fragments = render(verts_cam, self._faces, camera, self._backend)
        normal_pixels, normal_triangles, uncovered = self._covered(fragments, self._normal_pixels)
        uv_pixels, uv_triangles = normal_pixels[:0], normal_triangles[:0]
        if self.energy.uv_pixel:
            uv_pixels, uv_triangles, _ = self._covered(fragments, self._uv_pixels)
        hidden = np.zeros(len(self.problem.lookups.vertices), dtype=bool)
        if self.energy.uv_cap:
            hidden = hidden_vertices(verts_cam, camera, fragments)[self.problem.lookups.vertices]
        ends, length = np.empty((0, 2), np.int64), np.empty(0)
        if self._edges is not None:
            outline = find_outline(verts_cam, self._faces, self._edges, camera, fragments)
            ends, length = outline.vertices, outline.length_px
        return Visibility(
            normal_pixels,
            normal_triangles,
            uncovered,
            uv_pixels,
            uv_triangles,
            torch.as_tensor(hidden, device=self.problem.head.device),
            self._index(ends),
            self._tensor(length / max(length.sum(), 1e-12)),
        )

    def _covered(self, fragments: Fragments, pixels: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Return which pixels skin covers, the triangles there, and which pixels nothing covers."""
        triangle = fragments.triangle.reshape(-1)[pixels]
        covered = np.flatnonzero((triangle >= 0) & ~self._excluded[triangle])
        return self._index(covered), self._index(triangle[covered]), self._index(np.flatnonzero(triangle < 0))

    def _image_terms(self, mesh: _Mesh, seen: Visibility) -> dict[str, Tensor]:
        energy, terms = self.energy, {}
        if energy.uv and len(self._lookup_vertices):
            terms["uv"] = energy.uv * self._uv_term(mesh, seen)
        needs_normals, needs_uv = bool(energy.normal and len(self._normal_pixels)), len(seen.uv_pixels) > 0
        if needs_normals or needs_uv:
            corners = take(mesh.verts_cam.T, self._corner_vertices).unflatten(-1, (3, -1))
            weights = ray_weights(corners)
            if needs_normals:
                normals = area_normals(corners, self._corner_vertices, len(mesh.verts_cam))
                normals = normals if mesh.map_from_cam is None else mesh.map_from_cam @ normals
                at_corners = take(normals, self._corner_vertices).unflatten(-1, (3, -1))
                matrices = self._for_map_rays(weights.matrices(at_corners), mesh)
                terms["normal"] = energy.normal * self._normal_term(matrices, seen)
            if needs_uv:
                matrices = torch.cat((weights.matrices(self._uv_corners), weights.sums[None]))
                terms["uv_pixel"] = energy.uv_pixel * self._uv_pixel_term(self._for_map_rays(matrices, mesh), seen)
        if self._edges is not None:
            terms["silhouette"] = energy.silhouette * self._silhouette_term(mesh, seen)
        return terms

    def _for_map_rays(self, matrices: Tensor, mesh: _Mesh) -> Tensor:
        """Return matrices (C, 3, F) that take the expected camera's rays, from ones for the present camera."""
        zoom, shift = self._focal_px / mesh.focal_px, (self._center_px - mesh.center_px) / mesh.focal_px
        along_x, along_y, ahead = matrices.unbind(1)
        ahead = ahead + shift[0] * along_x + shift[1] * along_y
        return torch.stack((zoom[0] * along_x, zoom[1] * along_y, ahead), 1)

    def _uv_term(self, mesh: _Mesh, seen: Visibility) -> Tensor:
        error_px = mesh.project(mesh.verts_cam[self._lookup_vertices]) - self._lookup_px
        error = torch.linalg.vector_norm(error_px, dim=-1) / self._size
        if self.energy.uv_cap:
            error = error.clamp_max(self.energy.uv_cap).masked_fill(seen.hidden_lookups, self.energy.uv_cap)
        return (self._lookup_trust * error).mean()

    def _normal_term(self, matrices: Tensor, seen: Visibility) -> Tensor:
        rays, predicted = (array.index_select(1, seen.normal_pixels) for array in (self._normal_rays, self._normals))
        rendered = at_rays(matrices, seen.normal_triangles, rays)
        rendered = rendered * (rendered * rendered).sum(0).clamp_min(1e-24).rsqrt()
        error = (predicted - rendered).abs().sum(0)
        uncovered = self._normals[:, seen.uncovered_pixels].abs().sum(0)
        if self.energy.normal_cap:
            error, uncovered = error.clamp_max(self.energy.normal_cap), uncovered.clamp_max(self.energy.normal_cap)
        error = error * self._normal_trust[seen.normal_pixels]
        uncovered = uncovered * self._normal_trust[seen.uncovered_pixels]
        return (error.sum() + uncovered.sum()) / self._num_pixels

    def _uv_pixel_term(self, matrices: Tensor, seen: Visibility) -> Tensor:
        rendered = at_rays(matrices, seen.uv_triangles, self._uv_rays[:, seen.uv_pixels])
        error = torch.linalg.vector_norm(rendered[:2] / rendered[2] - self._uv[:, seen.uv_pixels], dim=0)
        error = error.masked_fill(error.detach() >= SEAM_UV_DISTANCE, 0.0)
        return (error * self._uv_trust[seen.uv_pixels]).sum() / self._num_pixels

    def _silhouette_term(self, mesh: _Mesh, seen: Visibility) -> Tensor:
        middle = mesh.project(mesh.verts_cam[seen.outline.flatten()]).view(-1, 2, 2).mean(1)
        height, width = self._distance_px.shape
        x = (middle[:, 0] - 0.5).clamp(0, width - 1)
        y = (middle[:, 1] - 0.5).clamp(0, height - 1)
        left = x.detach().floor().long().clamp_max(max(width - 2, 0))
        top = y.detach().floor().long().clamp_max(max(height - 2, 0))
        right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
        upper = torch.lerp(self._distance_px[top, left], self._distance_px[top, right], x - left)
        lower = torch.lerp(self._distance_px[bottom, left], self._distance_px[bottom, right], x - left)
        return (seen.outline_share * torch.lerp(upper, lower, y - top).abs()).sum() / self._size

    def _point_terms(self, mesh: _Mesh) -> dict[str, Tensor]:
        energy, problem, terms = self.energy, self.problem, {}
        for name, weight, evidence in (
            ("landmarks", energy.landmarks, problem.landmarks),
            ("iris", energy.iris, problem.irises),
        ):
            if weight and evidence is not None:
                terms[name] = weight * self._mean_square(self._points_px(mesh, evidence.points), evidence)
        if energy.correspondences and problem.correspondences is not None:
            terms["correspondences"] = energy.correspondences * self._robust_mean(mesh, problem.correspondences)
        if energy.eye_closure and problem.lids is not None:
            lids = problem.lids
            offset = self._points_px(mesh, lids.upper) - self._points_px(mesh, lids.lower)
            evidence = PointEvidence(lids.upper, lids.offset_px)
            terms["eye_closure"] = energy.eye_closure * self._mean_square(offset, evidence)
        return terms

    def _points_px(self, mesh: _Mesh, points: SurfacePoints) -> Tensor:
        corners = mesh.verts_cam[self.problem.head.faces[self._index(points.triangles)]]
        return mesh.project((self._tensor(points.barycentric)[..., None] * corners).sum(1))

    def _robust_mean(self, mesh: _Mesh, evidence: CorrespondenceEvidence) -> Tensor:
        """Return the mean of w^2 / 2 log(1 + e^2 / w^2) of whitened distances e."""
        error_px = self._points_px(mesh, evidence.points) - self._tensor(evidence.whitening.points_px)
        squared = (self._tensor(evidence.whitening.matrices) @ error_px[:, :, None]).square().sum((1, 2))
        width = self.energy.correspondence_width
        return (0.5 * width**2 * torch.log1p(squared / width**2)).mean()

    def _mean_square(self, points_px: Tensor, evidence: PointEvidence) -> Tensor:
        """Return the mean squared distance, in shares of the size, of the points that are seen."""
        is_seen = np.isfinite(evidence.points_px).all(axis=-1)
        error = points_px[self._index(np.flatnonzero(is_seen))] - self._tensor(evidence.points_px[is_seen])
        return error.square().sum() / (max(int(is_seen.sum()), 1) * self._size**2)

    def _prior_terms(self, mesh: _Mesh, parameters: Parameters) -> dict[str, Tensor]:
        energy = self.energy
        left, right = parameters.eyes.view(2, 3)
        differences = {
            "identity": parameters.shape - self._anchor,
            "identity_zero": parameters.shape,
            "expression": parameters.expression,
            "jaw": parameters.jaw,
            "neck": parameters.neck,
            "eyes": parameters.eyes,
            "eye_symmetry": left - right,
            "principal_point": parameters.principal_point,
        }
        weights = {name: getattr(energy, name) for name in differences}
        terms = {name: weights[name] * value.square().sum() for name, value in differences.items() if weights[name]}
        mirror = None if self.problem.head.topology is None else self.problem.head.topology.mirror
        if energy.mirror and mirror is not None:
            reflected = mesh.neutral[self._index(mirror)] * mesh.neutral.new_tensor((-1.0, 1.0, 1.0))
            terms["mirror"] = energy.mirror * (mesh.neutral - reflected).square().sum(1).mean()
        return terms

    def _smooth_terms(self, parameters: Parameters) -> dict[str, Tensor]:
        previous, weights = self.problem.previous, self.energy.smoothness
        if previous is None:
            return {}
        angles = parameters.joint_angles - self._tensor(previous.joint_angles)
        turn = parameters.turned() @ self._tensor(previous.rotation).T
        changes = {
            "expression": parameters.expression - self._tensor(previous.expression),
            "eyes": angles[6:],
            "jaw": angles[3:6],
            "neck": angles[:3],
            "rotation": axis_angle_from_matrix(turn) if weights.rotation else turn,
            "translation": parameters.translation - self._tensor(previous.translation),
        }
        pace = FRAME_SECONDS / self.problem.seconds_since_previous
        return {
            f"smooth_{name}": pace * getattr(weights, name) * change.square().sum()
            for name, change in changes.items()
            if getattr(weights, name)
        }
