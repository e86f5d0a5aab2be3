"""Dense maps from landmarks: texture coordinates, normals and mask, rasterised from the landmark mesh."""

from __future__ import annotations

import numpy as np

from flame.camera import Intrinsics
from flame.model import HeadModel
from flame.rasterizer import Backend, interpolate, rasterize
from flame.shading import vertex_normals
from flame.surface import SurfacePoints
from priors.evidence import DenseMaps, FaceEvidence
from priors.landmark_topology import NUM_MESH_LANDMARKS, landmark_topology

_CAMERA_DISTANCE = 100.0
"""Distance of the stand-in camera in units of the face's size: so far that the projection is parallel."""


class DenseRasterizer:
    """Draw the landmark mesh of a face, each landmark carrying its place in the head's texture."""

    def __init__(self, head: HeadModel, surface: SurfacePoints, backend: Backend = "cpu") -> None:
        """Look up the texture coordinates of the landmarks' places on the head.

        A triangle of landmarks across a texture seam has no meaningful texture coordinates and is left out of the map.
        """
        self._triangles = landmark_topology().triangles
        self._backend: Backend = backend
        topology = head.topology
        self._has_uv = False
        self._uv = np.full((NUM_MESH_LANDMARKS, 2), np.nan)
        if topology is not None and topology.uv is not None and topology.uv_faces is not None:
            self._has_uv = True
            corners = topology.uv[topology.uv_faces[surface.triangles[:NUM_MESH_LANDMARKS]]].astype(np.float64)
            self._uv = np.einsum("nkc,nk->nc", corners, surface.barycentric[:NUM_MESH_LANDMARKS])
        self._on_seam = self._crosses_seam(head, surface)

    def _crosses_seam(self, head: HeadModel, surface: SurfacePoints) -> np.ndarray:
        """Find landmark triangles that are far larger in the texture than on the head."""
        template = head.template.detach().cpu().numpy().astype(np.float64)
        places = surface.on(template, head.faces.detach().cpu().numpy())[:NUM_MESH_LANDMARKS]
        on_head, in_texture = (_longest_edges(values[self._triangles]) for values in (places, self._uv))
        ratio = in_texture / np.maximum(on_head, 1e-4)
        return ~(ratio < 4 * np.nanmedian(ratio)) if self._has_uv else np.zeros(len(ratio), dtype=bool)

    def __call__(self, evidence: FaceEvidence, height: int, width: int) -> DenseMaps:
        """Return the maps at the size of the original image; for a head without texture coordinates the UV are NaN."""
        size = max(evidence.region.size_px, 1.0)
        points, depth = evidence.points_px[:NUM_MESH_LANDMARKS], evidence.points_depth_px[:NUM_MESH_LANDMARKS]
        verts_cam = np.column_stack((points, depth)) / size
        distance = _CAMERA_DISTANCE + verts_cam[:, 2:]
        placed = np.column_stack((verts_cam[:, :2] * distance, distance))
        intrinsics = Intrinsics(size, size, 0.0, 0.0, width, height)
        fragments = rasterize(placed, self._triangles, intrinsics, cull_backfaces=True, backend=self._backend)
        normals = vertex_normals(verts_cam, self._triangles)
        attributes = np.column_stack((self._uv, normals))
        values = interpolate(fragments, self._triangles, attributes)
        mask = fragments.mask.copy()
        seen_seam = mask & self._on_seam[fragments.triangle]
        normal_map = values[..., 2:]
        normal_map /= np.maximum(np.linalg.norm(normal_map, axis=-1, keepdims=True), 1e-9)
        uv_map = values[..., :2]
        uv_map[~mask | seen_seam] = np.nan
        normal_map[~mask] = np.nan
        return DenseMaps(uv_map, normal_map, mask)


def _longest_edges(corners: np.ndarray) -> np.ndarray:
    """Return the longest edge of triangles (n, 3, C)."""
    return np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(axis=1)
