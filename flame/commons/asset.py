"""Write the commons head's asset file: plain arrays, bases as 16-bit integers with one scale per column."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FORMAT_VERSION = 1


def quantise(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round columns (N, V, 3) to int16 with a scale each, so that ``value = q * scale``: (N, 3V), (N,).

    A column that is zero gets scale 0.
    """
    flat = basis.reshape(len(basis), -1)
    scale = (np.abs(flat).max(axis=1) / 32767.0).astype(np.float32)
    divisor = np.where(scale > 0, scale, 1.0).astype(np.float64)
    return np.rint(flat / divisor[:, None]).astype(np.int16), scale


def write_asset(path: Path, arrays: dict[str, np.ndarray], bases: dict[str, np.ndarray]) -> int:
    """Write arrays and quantised bases to a compressed ``.npz``; return its size in bytes.

    Args:
        path: The file to write.
        arrays: Stored under their own names.
        bases: Columns (N, V, 3), metres; stored as ``<name>_q`` and ``<name>_scale``.
    """
    stored = dict(arrays)
    for name, basis in bases.items():
        stored[f"{name}_q"], stored[f"{name}_scale"] = quantise(basis)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, format_version=np.int32(FORMAT_VERSION), **stored)
    return path.stat().st_size
