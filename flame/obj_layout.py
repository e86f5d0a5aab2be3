"""Texture coordinates of a head from the OBJ file that comes with FLAME's texture space."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flame.errors import InputError

TEMPLATE_OBJ = "head_template.obj"
"""Looked for beside a FLAME file; DECA's data folder and FLAME's texture space have it."""


def read_obj_layout(path: Path, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read the texture coordinates of a mesh's triangles.

    Args:
        path: the OBJ file; its triangles may be in another order than the mesh's, and turned.
        faces: vertex indices of the mesh's triangles, int64 (F, 3).

    Returns:
        Texture coordinates, float32 (VT, 2), origin bottom left, and the row at each triangle's corners, int64 (F, 3).

    Raises:
        InputError: the file cannot be read, or is of another mesh.
    """
    coordinates: list[list[float]] = []
    corners: list[list[tuple[int, int]]] = []
    try:
        for line in path.read_text("utf-8", errors="replace").splitlines():
            word, _, rest = line.partition(" ")
            if word == "vt":
                coordinates.append([float(number) for number in rest.split()[:2]])
            elif word == "f":
                corners.append([_corner(item) for item in rest.split()])
        uv = np.array(coordinates, dtype=np.float32).reshape(-1, 2)
        table = np.array(corners, dtype=np.int64).reshape(-1, 3, 2) - 1
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is no OBJ file of triangles with texture coordinates ({error})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions and the disk") from error
    if not len(uv) or len(table) != len(faces) or not np.isfinite(uv).all():
        raise InputError(
            f"{path} has {len(table)} triangles and {len(uv)} texture coordinates; {len(faces)} triangles fit"
        )
    if table[..., 1].min() < 0 or table[..., 1].max() >= len(uv):
        raise InputError(f"{path} names texture coordinates that it does not have")
    by_vertex = np.take_along_axis(table[..., 1], np.argsort(table[..., 0], axis=1), axis=1)
    row_of = {tuple(triangle): row for row, triangle in enumerate(np.sort(table[..., 0], axis=1).tolist())}
    rows = [row_of.get(tuple(triangle), -1) for triangle in np.sort(faces, axis=1).tolist()]
    if min(rows) < 0:
        raise InputError(f"{path} is of another mesh than the head; take the one that comes with FLAME")
    # Corners are put in order of their vertices, looked up, and put back.
    place = np.argsort(np.argsort(faces, axis=1), axis=1)
    return uv, np.take_along_axis(by_vertex[rows], place, axis=1)


def _corner(item: str) -> tuple[int, int]:
    """Return vertex and texture coordinate of ``v/vt`` or ``v/vt/vn``."""
    parts = item.split("/")
    return int(parts[0]), int(parts[1])
