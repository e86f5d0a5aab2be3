"""What each pixel of a training picture shows: the maps that networks learn to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flame.errors import InputError

_UV_STEPS = 65535
_NORMAL_STEPS = 127


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Hold the labels of an image of h x w pixels."""

    place: np.ndarray
    """Where on the rest mean head (head space, metres) the pixel's surface point lies, float32 (h, w, 3); NaN where
    none is seen."""
    uv: np.ndarray
    """Texture coordinates, origin bottom left, float32 (h, w, 2); 0 where ``place`` is NaN."""
    normals_cam: np.ndarray
    """Unit normals of the posed head in camera space, float32 (h, w, 3); 0 where ``place`` is NaN."""
    kind: np.ndarray
    """What the pixel shows, uint8 (h, w), values of `Kind`."""

    @property
    def valid(self) -> np.ndarray:
        """Return where the head's surface is labelled, bool (h, w)."""
        return np.isfinite(self.place[..., 0])

    def quantised(self) -> dict[str, np.ndarray]:
        """Return the maps as stored: place float16, uv uint16, normal int8, kind uint8."""
        return {
            "place": self.place.astype(np.float16),
            "uv": np.rint(np.clip(self.uv, 0, 1) * _UV_STEPS).astype(np.uint16),
            "normal": np.rint(np.clip(self.normals_cam, -1, 1) * _NORMAL_STEPS).astype(np.int8),
            "kind": self.kind.astype(np.uint8),
        }

    @staticmethod
    def from_quantised(arrays: Mapping[str, np.ndarray]) -> LabelMaps:
        """Return the maps from stored arrays; normals are made unit again.

        Raises:
            InputError: an array is missing or the sizes differ.
        """
        missing = [name for name in ("place", "uv", "normal", "kind") if name not in arrays]
        if missing:
            raise InputError(f"the labels lack {missing[0]!r}; they have: {', '.join(sorted(arrays))}")
        size = arrays["kind"].shape
        for name, channels in (("place", (3,)), ("uv", (2,)), ("normal", (3,))):
            if arrays[name].shape != (*size, *channels):
                raise InputError(f"the labels' {name!r} has shape {arrays[name].shape}; {(*size, *channels)} is needed")
        normals = arrays["normal"].astype(np.float32)
        length = np.sqrt(np.einsum("...c,...c", normals, normals))[..., None]
        return LabelMaps(
            place=arrays["place"].astype(np.float32),
            uv=arrays["uv"].astype(np.float32) * np.float32(1 / _UV_STEPS),
            normals_cam=normals / np.maximum(length, 1),
            kind=arrays["kind"],
        )
