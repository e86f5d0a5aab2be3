"""What a head's rendering shows at a state, and attributes at its pixels as differentiable functions of the vertices.

Rasterising decides which triangle a pixel sees; that choice is piecewise constant, so it is taken as given. Where on
the triangle the pixel's ray falls is not: with camera-space corners a, b, c and the ray d through the pixel, the
perspective-correct weights are ``d . (b x c)``, ``d . (c x a)``, ``d . (a x b)``, up to a common factor. An attribute
is therefore a matrix per triangle times the ray, and gradients flow through the weights as in nvdiffrast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from flame.camera import Intrinsics
from flame.rasterizer import Backend, Fragments, rasterize

HIDDEN_BEHIND_METRES = 0.01
"""A vertex is hidden where the surface in its pixel is nearer by more than this."""

OUTLINE_STEP_PX = 1.5
"""So far outside a silhouette edge the rendering must show background for the edge to lie on the outline."""

NEAREST_METRES = 1e-3
"""Points nearer than this are projected as if they were at this depth."""


@dataclass(frozen=True)
class MeshEdges:
    """Hold the edges that have two triangles and do not touch an open rim (the neck's)."""

    vertices: np.ndarray
    """Ends, int64 (n, 2)."""
    faces: np.ndarray
    """Triangles on both sides, int64 (n, 2)."""


@dataclass(frozen=True)
class Outline:
    """Hold the edges of a head's outline in the image, with their lengths at that state."""

    vertices: np.ndarray
    """Ends, int64 (n, 2)."""
    length_px: np.ndarray
    """Lengths in the image, float64 (n,), pixels."""


def mesh_edges(faces: np.ndarray) -> MeshEdges:
    """Return the inner edges of a mesh with triangles (F, 3)."""
    ends = np.sort(np.concatenate((faces[:, (0, 1)], faces[:, (1, 2)], faces[:, (2, 0)])), axis=1)
    owner = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort((owner, ends[:, 1], ends[:, 0]))
    ends, owner = ends[order], owner[order]
    edges, first, count = np.unique(ends, axis=0, return_index=True, return_counts=True)
    rim = np.unique(edges[count == 1])
    is_inner = (count == 2) & ~np.isin(edges, rim).any(axis=1)
    return MeshEdges(edges[is_inner], np.stack((owner[first], owner[first + 1 - (count == 1)]), axis=1)[is_inner])


def signed_distance_px(foreground: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel's centre from the foreground's boundary, float64 (H, W), negative inside.

    The boundary runs between pixels, half a pixel from their centres; the image's border is none. Without a boundary
    all is 0.
    """
    foreground = np.asarray(foreground, dtype=bool)
    if foreground.all() or not foreground.any():
        return np.zeros(foreground.shape)
    outside = np.asarray(distance_transform_edt(~foreground))
    inside = np.asarray(distance_transform_edt(foreground))
    return np.where(foreground, 0.5 - inside, outside - 0.5)


def render(verts_cam: np.ndarray, faces: np.ndarray, camera: Intrinsics, backend: Backend = "cpu") -> Fragments:
    """Rasterise as the energy sees the head: both sides of the surface are drawn."""
    return rasterize(verts_cam, faces, camera, backend=backend)


def hidden_vertices(verts_cam: np.ndarray, camera: Intrinsics, fragments: Fragments) -> np.ndarray:
    """Return which vertices (V, 3) lie behind the rendered surface or the camera, bool (V,); none outside the image."""
    depth = np.maximum(verts_cam[:, 2], NEAREST_METRES)
    column, row = np.floor(_projected(verts_cam, camera)).T
    height, width = fragments.depth.shape
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = (np.where(is_inside, index, 0).astype(np.int64) for index in (column, row))
    is_behind = fragments.depth[row, column] + HIDDEN_BEHIND_METRES < depth
    return (is_inside & is_behind) | (verts_cam[:, 2] < NEAREST_METRES)


def find_outline(
    verts_cam: np.ndarray, faces: np.ndarray, edges: MeshEdges, camera: Intrinsics, fragments: Fragments
) -> Outline:
    """Find the edges between a triangle that faces the camera and one that does not, with background beside them.

    Both ends must be seen and the middle lie in the image. Contours inside the head's image, as of the nose before the
    cheek, are not on the outline and are left out.
    """
    points = _projected(verts_cam, camera)
    a, b, c = np.moveaxis(verts_cam[faces], 1, 0)
    faces_camera = np.einsum("fc,fc->f", a, np.cross(b - a, c - a)) < 0
    is_front = faces_camera[edges.faces]
    hidden = hidden_vertices(verts_cam, camera, fragments)
    kept = (is_front[:, 0] != is_front[:, 1]) & ~hidden[edges.vertices].any(axis=1)
    ends, front = edges.vertices[kept], np.where(is_front[kept, 0], edges.faces[kept, 0], edges.faces[kept, 1])
    middle = points[ends].mean(axis=1)
    along = points[ends[:, 1]] - points[ends[:, 0]]
    length = np.linalg.norm(along, axis=1)
    across = np.stack((-along[:, 1], along[:, 0]), axis=1) / np.maximum(length, 1e-12)[:, None]
    # Away from the middle of the triangle that faces the camera.
    inward = points[faces[front]].mean(axis=1) - middle
    across *= -np.sign(np.einsum("nk,nk->n", across, inward))[:, None]
    on_image, _ = _at_pixels(fragments.mask, middle)
    outside_image, covered = _at_pixels(fragments.mask, middle + OUTLINE_STEP_PX * across)
    is_outline = on_image & (~outside_image | ~covered) & (length > 0)
    return Outline(ends[is_outline], length[is_outline])


def _at_pixels(mask: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which points (N, 2) lie in the image, and the mask's values there (False outside)."""
    column, row = np.floor(points_px).astype(np.int64).T
    height, width = mask.shape
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return is_inside, is_inside & mask[np.where(is_inside, row, 0), np.where(is_inside, column, 0)]


def _projected(verts_cam: np.ndarray, camera: Intrinsics) -> np.ndarray:
    depth = np.maximum(verts_cam[:, 2:], NEAREST_METRES)
    return verts_cam[:, :2] * (camera.fx, camera.fy) / depth + (camera.cx, camera.cy)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Return columns of values (..., N) at index (M,): (..., M).

    By ``gather``, whose gradient adds up several times faster on a CPU than that of indexing.
    """
    return values.gather(-1, index.expand(*values.shape[:-1], -1))


@dataclass(frozen=True, eq=False)
class RayWeights:
    """Hold for each triangle the vectors whose products with a ray are the corners' weights.

    They are scaled so that the weights sum to about one: the common factor does not matter, but the sign does.
    """

    corners: Tensor
    """(3 corners, 3 axes, F)."""

    def matrices(self, attributes: Tensor) -> Tensor:
        """Return matrices (C, 3 axes, F) that turn a ray into an attribute; corners' attributes are (C, 3 corners, F).

        The product with a ray is the attribute times the sum of the weights.
        """
        return (attributes[:, :, None] * self.corners[None]).sum(1)

    @property
    def sums(self) -> Tensor:
        """Return vectors (3 axes, F) whose product with a ray is the sum of the weights."""
        return self.corners.sum(0)


def ray_weights(corners: Tensor) -> RayWeights:
    """Return the weights' vectors of triangles with corners (3 axes, 3 corners, F) in camera space.

    Edges instead of far corners in the products (b x c = b x (c - b)) keep float32 exact enough.
    """
    a, b, c = corners.unbind(1)
    crosses = torch.stack((_cross(b, c - b), _cross(c, a - c), _cross(a, b - a)))
    with torch.no_grad():
        volume = (crosses.sum(0) * a).sum(0)
        # The weights' sum on the ray through a, divided by its depth, so that the ray's z is 1.
        scale = a[2] / volume
        scale = torch.where(torch.isfinite(scale), scale, torch.zeros_like(scale))
    return RayWeights(crosses * scale)


def area_normals(corners: Tensor, corner_vertices: Tensor, num_vertices: int) -> Tensor:
    """Return unit vertex normals (3, V), area-weighted as in `flame.shading.vertex_normals`.

    Args:
        corners: triangles' corners (3 axes, 3 corners, F).
        corner_vertices: their vertices, int64 (3 F,), the triangles' first corners first.
        num_vertices: V.
    """
    a, b, c = corners.unbind(1)
    area = _cross(b - a, c - a)
    return unit(area.new_zeros(3, num_vertices).index_add(1, corner_vertices, area.repeat(1, 3)))


def unit(vectors: Tensor) -> Tensor:
    """Return vectors (3, N) divided by their lengths; zero stays zero."""
    squared = (vectors * vectors).sum(0)
    return vectors * torch.where(squared > 0, squared, torch.ones_like(squared)).rsqrt()


def at_rays(matrices: Tensor, triangle: Tensor, rays: Tensor) -> Tensor:
    """Return (C, M): matrices (C, 3, F) of the triangles (M,) that pixels see, times rays (2, M) with z = 1."""
    along_x, along_y, ahead = (take(column, triangle) for column in matrices.unbind(1))
    return along_x * rays[0] + along_y * rays[1] + ahead


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.cross(a, b, dim=0)
