"""Carry texture coordinates of one topology over to another, by a picture in texture space of where each texel lies.

Networks speak of the topology that they were trained on. For another head, the place that each texel of that topology
has on it is stored once, in one file; texture maps are then looked up in it, and normals in head space are turned by
the rotation between the two heads' axes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame.camera import Intrinsics
from flame.errors import AssetMissingError, InputError
from flame.model import HeadModel
from flame.rasterizer import interpolate, rasterize
from priors.dense_surface import DenseSurface
from priors.networks.flip import UvMirror

TEXTURE_PX = 512
_FORMAT_VERSION = 1
_STEPS = 65535
_MAX_STEP = 0.03
"""Texels whose values differ by more lie on two sides of a seam and are not blended."""


@dataclass(frozen=True, eq=False)
class UvTransfer:
    """Map texture coordinates of a source topology to those of a head."""

    uv: np.ndarray
    """The head's texture coordinates at each texel of the source's texture, float32 (S, S, 2), first row at v = 0; NaN
    where the texel shows no skin, or none that the head has."""
    rotation: np.ndarray
    """Axes of the head from those of the source, float64 (3, 3)."""
    mirror: UvMirror
    """Where mirror images lie in the source's texture."""
    source: str
    """Name of the source topology."""
    head_hash: str
    """``content_hash`` of the head."""

    @staticmethod
    def within(head: HeadModel, source: str, size_px: int = TEXTURE_PX) -> UvTransfer:
        """Return what leaves a head's own texture coordinates as they are, on its skin, and drops all others.

        Raises:
            InputError: the head has no texture coordinates, or none that are symmetric.
        """
        texels = Texels.of(head, size_px)
        places = (np.indices((size_px, size_px)).transpose(1, 2, 0)[..., ::-1] + 0.5) / size_px
        uv = np.where(texels.is_skin[..., None], places, np.nan).astype(np.float32)
        return UvTransfer(_grown(uv, places), np.eye(3), UvMirror.of(head), source, head.content_hash)

    def __call__(self, uv: np.ndarray) -> np.ndarray:
        """Return the head's texture coordinates, float32 (..., 2), of the source's; NaN where there are none."""
        size = len(self.uv)
        place = np.where(np.isfinite(uv), uv, -1.0) * size - 0.5
        is_inside = ((place > -0.5) & (place < size - 0.5)).all(axis=-1)
        low = np.clip(np.floor(place).astype(np.int64), 0, size - 2)
        share = np.clip(place - low, 0.0, 1.0)
        column, row = low[..., 0], low[..., 1]
        corners = [self.uv[row + down, column + right] for down in (0, 1) for right in (0, 1)]
        right, down = share[..., :1], share[..., 1:]
        weights = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
        blended = sum(weight * corner for weight, corner in zip(weights, corners, strict=True))
        with np.errstate(invalid="ignore"):
            spread = np.stack(corners).max(axis=0) - np.stack(corners).min(axis=0)
            is_smooth = (spread < _MAX_STEP).all(axis=-1)
        nearest = self.uv[row + (share[..., 1] > 0.5), column + (share[..., 0] > 0.5)]
        found = np.where(is_smooth[..., None], blended, nearest)
        found[~is_inside] = np.nan
        return found.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Texels:
    """Say which point of a head each texel of its texture shows."""

    triangle: np.ndarray
    """Triangle at each texel, int32 (S, S), first row at v = 0; -1 where there is none."""
    place: np.ndarray
    """Place on the template, float64 (S, S, 3), metres; 0 where there is none."""
    is_skin: np.ndarray
    """Whether the texel shows skin: no eyes, no inside of the mouth, no scalp; bool (S, S)."""

    @staticmethod
    def of(head: HeadModel, size_px: int = TEXTURE_PX) -> Texels:
        """Rasterise a head's texture layout.

        Raises:
            InputError: the head has no texture coordinates.
        """
        surface = DenseSurface.of(head)
        faces = head.faces.detach().cpu().numpy()
        flat = np.column_stack((surface.uv * size_px, np.ones(len(surface.uv))))
        fragments = rasterize(flat, surface.uv_faces, Intrinsics(1.0, 1.0, 0.0, 0.0, size_px, size_px))
        template = head.template.detach().cpu().numpy().astype(np.float64)
        # Corners of their own per triangle: texture and surface number them differently.
        corners = np.arange(3 * len(faces)).reshape(-1, 3)
        place = interpolate(fragments, corners, template[faces].reshape(-1, 3))
        is_skin_vertex = np.zeros(head.num_vertices, dtype=bool)
        is_skin_vertex[surface.copies.vertex] = True
        is_skin = is_skin_vertex[faces].all(axis=1) & ~surface.is_excluded
        return Texels(fragments.triangle, place, fragments.mask & is_skin[fragments.triangle])


def save_transfer(path: Path, transfer: UvTransfer) -> None:
    """Store a transfer; the file appears whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    is_known = np.isfinite(transfer.uv).all(axis=-1)
    stored = np.rint(np.where(is_known[..., None], transfer.uv, 0).clip(0, 1) * _STEPS).astype(np.uint16)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    try:
        np.savez_compressed(
            partial,
            format_version=np.int32(_FORMAT_VERSION),
            uv=stored,
            is_known=is_known,
            rotation=transfer.rotation,
            sum_u=np.float64(transfer.mirror.sum_u),
            source=transfer.source,
            head_hash=transfer.head_hash,
        )
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); check the folder and the disk") from error
    finally:
        partial.unlink(missing_ok=True)


def load_transfer(path: Path, head: HeadModel) -> UvTransfer:
    """Read a transfer to a head.

    Raises:
        AssetMissingError: there is no such file.
        InputError: it is no transfer, or one to another head.
    """
    if not path.is_file():
        raise AssetMissingError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as data:
            version = int(data["format_version"])
            if version != _FORMAT_VERSION:
                raise InputError(f"{path} has format version {version}; this program reads version {_FORMAT_VERSION}")
            uv = data["uv"].astype(np.float32) / np.float32(_STEPS)
            uv[~data["is_known"]] = np.nan
            rotation = data["rotation"].astype(np.float64).reshape(3, 3)
            mirror, source = UvMirror(float(data["sum_u"])), str(data["source"])
            head_hash = str(data["head_hash"])
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise kinds of their own on damage
        raise InputError(f"{path} is no transfer of texture coordinates ({' '.join(str(error).split())})") from error
    if (
        uv.ndim != 3
        or uv.shape[0] != uv.shape[1]
        or uv.shape[2] != 2
        or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3
    ):
        raise InputError(f"{path} is no transfer of texture coordinates (its table has shape {uv.shape})")
    if head_hash != head.content_hash:
        raise InputError(
            f"{path} is for another head than {head.name!r}; make it anew: python -m priors.flame_transfer"
        )
    return UvTransfer(uv, rotation, mirror, source, head_hash)


def _grown(uv: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return a texture (S, S, 2) in which texels beside known ones are known, too, so that its rim can be blended."""
    is_known = np.isfinite(uv).all(axis=-1)
    padded = np.pad(is_known, 1)
    size = len(uv)
    near = np.zeros_like(is_known)
    for down in range(3):
        for right in range(3):
            near |= padded[down : down + size, right : right + size]
    return np.where(near[..., None], places, np.nan).astype(np.float32)
