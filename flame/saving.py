"""Write heads as files that other programs for FLAME read."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
from scipy import sparse
from torch import Tensor

from flame.errors import InputError
from flame.model import NUM_POSE_FEATURES, HeadModel

NUM_SHAPE_COLUMNS, NUM_EXPRESSION_COLUMNS = 300, 100
"""Columns of ``shapedirs`` in FLAME files; readers such as ``smplx`` cut files with fewer down to 10 + 10."""


def save_flame_pkl(model: HeadModel, path: str | Path) -> None:
    """Write a head as a FLAME-format pickle: numpy arrays and one scipy matrix, as ``smplx.FLAME`` loads them.

    ``shapedirs`` has 300 identity columns, then 100 expression columns; what the head has fewer is filled with zeros.
    The file appears under its name only when it is complete.

    Raises:
        InputError: the head has more coefficients than the format holds, or the file cannot be written.
    """
    content = pickle.dumps(flame_arrays(model), protocol=2)
    path = Path(path)
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            Path(part).chmod(0o644)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def flame_arrays(model: HeadModel) -> dict[str, object]:
    """Return the dictionary that a FLAME file holds, float64, lengths in metres.

    Raises:
        InputError: the head has more coefficients than the format holds.
    """
    if model.num_shape > NUM_SHAPE_COLUMNS or model.num_expression > NUM_EXPRESSION_COLUMNS:
        raise InputError(
            f"head {model.name!r} has {model.num_shape} shape and {model.num_expression} expression coefficients; "
            f"FLAME files hold at most {NUM_SHAPE_COLUMNS} and {NUM_EXPRESSION_COLUMNS}"
        )
    directions = np.zeros((model.num_vertices, 3, NUM_SHAPE_COLUMNS + NUM_EXPRESSION_COLUMNS))
    directions[..., : model.num_shape] = _numbers(model.shape_basis)
    directions[..., NUM_SHAPE_COLUMNS : NUM_SHAPE_COLUMNS + model.num_expression] = _numbers(model.expression_basis)
    correctives = _numbers(model.pose_basis).reshape(NUM_POSE_FEATURES, model.num_vertices, 3)
    parents = np.array((np.iinfo(np.uint32).max, *model.parents[1:]), dtype=np.uint32)
    return {
        "v_template": _numbers(model.template),
        "f": model.faces.cpu().numpy().astype(np.uint32),
        "shapedirs": directions,
        "posedirs": np.ascontiguousarray(np.moveaxis(correctives, 0, -1)),
        "J_regressor": sparse.csc_matrix(_numbers(model.joint_regressor)),
        "J": _numbers(model.joint_regressor @ model.template),
        "weights": _numbers(model.skin_weights),
        "kintree_table": np.stack((parents, np.arange(len(parents), dtype=np.uint32))),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)
