"""Continue a texture to where no frame saw the head: by its mirror image, then smoothly along the surface.

A texture is taken apart into a base, one colour for each vertex, and the detail on top of it. The base is solved for on
the mesh, so it has no seams whatever the layout; the detail fades out beyond what was seen.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import splu

from tracker.texture.texels import Part, TexelTable

_SMOOTHNESS = 0.05
"""Pull between neighbouring vertices, where a vertex that is well seen holds its colour with 1."""
_MIRROR_SHARE = 0.2
"""Weight of what the other side of the head shows, relative to what was seen itself, in the base."""
_FADE = 0.012
"""Distance over which detail fades out, in lengths of the texture's side."""
_FREE = 1e-5
"""Hold of a vertex that nothing is known of on the colour of the skin, so that loose parts have one."""


def vertex_colors(
    table: TexelTable, colors: np.ndarray, confidence: np.ndarray, num_vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean colour (V, C) of the texels around each vertex, and how well it is known, float64 (V,) to 1.

    Hidden parts and eyes are left out.
    """
    share = table.weights.astype(np.float64) * (confidence * (table.part == Part.SKIN))[:, None]
    index = table.vertices.reshape(-1)
    total = np.bincount(index, share.reshape(-1), num_vertices)
    covered = np.bincount(index, (table.weights * (table.part == Part.SKIN)[:, None]).reshape(-1), num_vertices)
    mean = np.stack(
        [
            np.bincount(index, (share * colors[:, channel, None]).reshape(-1), num_vertices)
            for channel in range(colors.shape[1])
        ],
        axis=1,
    )
    return mean / np.maximum(total, 1e-9)[:, None], total / np.maximum(covered, 1e-9)


def laplacian(verts: np.ndarray, faces: np.ndarray) -> csr_matrix:
    """Return the graph Laplacian (V, V) of a mesh, edges weighted by the inverse of their length; rows of unit size."""
    count = len(verts)
    ends = np.concatenate((faces[:, (0, 1)], faces[:, (1, 2)], faces[:, (2, 0)]))
    ends = np.unique(np.sort(ends, axis=1), axis=0)
    length = np.linalg.norm(verts[ends[:, 0]] - verts[ends[:, 1]], axis=1)
    weight = np.median(length) / np.maximum(length, 0.1 * np.median(length))
    both = np.concatenate((ends, ends[:, ::-1]))
    adjacency = coo_matrix((np.tile(weight, 2), both.T), (count, count)).tocsr()
    return csr_matrix(diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency) / 6.0


def spread_over_mesh(
    stiffness: csr_matrix, colors: np.ndarray, weights: np.ndarray, fallback: np.ndarray
) -> np.ndarray:
    """Return colours (V, C) that are near those given where ``weights`` (V,) is large, and smooth elsewhere."""
    system = diags(weights + _FREE) + _SMOOTHNESS * stiffness
    return splu(system.tocsc()).solve(weights[:, None] * colors + _FREE * fallback)


def mirrored_vertices(
    colors: np.ndarray, weights: np.ndarray, mirror: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return colours and weights of vertices to which those of the mirror image are added, with a small weight."""
    if mirror is None:
        return colors, weights
    # The mirror image has a say only where the head itself was not seen.
    other = _MIRROR_SHARE * weights[mirror] * (1 - np.clip(weights, 0, 1))
    total = weights + other
    blended = weights[:, None] * colors + other[:, None] * colors[mirror]
    return blended / np.maximum(total, 1e-9)[:, None], total


def fill_detail(table: TexelTable, detail: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return detail (N, C) that is that of the mirror image where unknown, and fades out beyond both.

    ``known`` (N,) in [0, 1] is how well the detail of each texel is known.
    """
    other = np.where(table.mirror >= 0, known[table.mirror] * (table.part == Part.SKIN), 0.0)
    borrowed = (1 - known) * other
    total = known + borrowed
    mixed = known[:, None] * detail + borrowed[:, None] * detail[table.mirror]
    size = table.size_px
    weight_image = np.zeros((size, size), np.float32)
    image = np.zeros((size, size, detail.shape[1]), np.float32)
    weight_image[table.row, table.column] = total
    image[table.row, table.column] = mixed
    sigma = _FADE * size
    near = cv2.GaussianBlur(image, (0, 0), sigma) / (cv2.GaussianBlur(weight_image, (0, 0), sigma) + 0.15)[..., None]
    return mixed + (1 - total)[:, None] * near[table.row, table.column]
