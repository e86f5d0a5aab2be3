"""Find where FLAME's texture lies on another head, so that networks which speak of FLAME can serve it.

The other head is fitted to FLAME's mean face by its identity coefficients; each texel of FLAME's texture then shows
the point of the fitted head that lies closest. Run ``python -m priors.flame_transfer FLAME.pkl --weights DIR``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame.closest_point import ClosestPoint
from flame.commons.fitting import FitOptions, LinearHead, find_start, fit_scan
from flame.errors import InputError, UserError
from flame.loading import load_head
from flame.model import HeadModel
from flame.obj_layout import TEMPLATE_OBJ
from flame.surface_error import similarity_of
from priors.dense_surface import DenseSurface
from priors.networks.flip import UvMirror
from priors.pixel3dmm import transfer_file
from priors.prior_surface import FLAME
from priors.uv_transfer import TEXTURE_PX, Texels, UvTransfer, save_transfer

_LOG = logging.getLogger(__name__)
_MODES = 120
_MAX_GAP_METRES = 0.008
"""Texels farther from the fitted head show nothing that it has."""
_MAX_MEDIAN_METRES = 0.003


@dataclass(frozen=True)
class FoundTransfer:
    """Hold a transfer and how well the two heads were laid on each other."""

    transfer: UvTransfer
    gap_m: float
    """Median distance of the source's skin from the fitted head, metres."""
    share: float
    """Share of the source's skin that has a place on the head."""


def find_transfer(source: HeadModel, head: HeadModel, source_name: str = FLAME.topology) -> FoundTransfer:
    """Find where the texture of one head lies on another.

    Raises:
        InputError: a head has no texture coordinates, or the heads are too different.
    """
    skin = _skin_of(source)
    scan, scan_faces = _part(source, skin)
    linear = LinearHead(
        mean=_numbers(head.template),
        modes=np.moveaxis(_numbers(head.shape_basis)[..., :_MODES], -1, 0),
        faces=head.faces.detach().cpu().numpy(),
        region=_skin_of(head),
    )
    size_m, other_m = (float(np.linalg.norm(np.ptp(points, axis=0))) for points in (scan, linear.mean[linear.region]))
    if not 0.5 < size_m / other_m < 2:
        raise InputError(
            f"head {source.name!r} is {size_m:.2f} m large and head {head.name!r} {other_m:.2f} m; heads are in metres"
        )
    fit = fit_scan(linear, scan, scan_faces, find_start(linear, scan), FitOptions(free_scale=True))
    moved = similarity_of(scan, fit.scan)
    texels = Texels.of(source)
    surface = DenseSurface.of(head)
    shown = np.flatnonzero(linear.region[linear.faces].all(axis=1) & ~surface.is_excluded)
    match = ClosestPoint(linear.vertices(fit.coefficients), linear.faces, shown)(moved(texels.place[texels.is_skin]))
    corners = surface.uv[surface.uv_faces[match.triangle]]
    found = np.einsum("nk,nkc->nc", match.barycentric, corners)
    found[match.distance > _MAX_GAP_METRES] = np.nan
    gap_m = float(np.median(match.distance))
    if not gap_m <= _MAX_MEDIAN_METRES:
        raise InputError(
            f"head {source.name!r} and head {head.name!r} lie {1e3 * gap_m:.1f} mm apart after fitting; they are too "
            "different, or one of them has not +y up and +z out of the face"
        )
    uv = np.full((TEXTURE_PX, TEXTURE_PX, 2), np.nan, np.float32)
    uv[texels.is_skin] = found
    transfer = UvTransfer(uv, moved.rotation, UvMirror.of(source), source_name, head.content_hash)
    return FoundTransfer(transfer, gap_m, float(np.isfinite(found[:, 0]).mean()))


def _skin_of(head: HeadModel) -> np.ndarray:
    """Return which vertices are skin, bool (V,)."""
    is_skin = np.zeros(head.num_vertices, dtype=bool)
    is_skin[DenseSurface.of(head).copies.vertex] = True
    return is_skin


def _part(head: HeadModel, is_kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices that are kept, (N, 3), and the triangles between them, (M, 3)."""
    faces = head.faces.detach().cpu().numpy()
    index = np.cumsum(is_kept) - 1
    return _numbers(head.template)[is_kept], index[faces[is_kept[faces].all(axis=1)]]


def _numbers(tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Find and store the transfer from a FLAME file to a head."""
    parser = argparse.ArgumentParser(prog="python -m priors.flame_transfer", description=__doc__)
    parser.add_argument("flame", metavar="FLAME", help=f"FLAME .pkl or .npz; {TEMPLATE_OBJ} has to lie beside it")
    parser.add_argument("--head", default="commons", metavar="commons|PATH", help="head to carry over to")
    parser.add_argument("--weights", required=True, type=Path, metavar="DIR", help="folder of the networks' weights")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        source, head = load_head(options.flame), load_head(options.head)
        if not FLAME.is_of(source):
            raise InputError(
                f"{options.flame} has {source.num_vertices} vertices and {len(source.faces)} triangles; a file of the "
                f"{FLAME} is needed"
            )
        found = find_transfer(source, head)
        path = options.weights / transfer_file(head)
        save_transfer(path, found.transfer)
    except UserError as error:
        _LOG.error("error: %s", error)
        return 2
    _LOG.info("%s: %.1f mm between the heads, %.0f %% of the skin", path, 1e3 * found.gap_m, 100 * found.share)
    return 0


if __name__ == "__main__":
    sys.exit(main())
