"""Write head files in the layouts that are found in the wild, with the numbers of a given head."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from flame.model import HeadModel
from flame.saving import flame_arrays


class Chumpy:
    """Stand for a chumpy array: pickled under chumpy's name with the attributes that chumpy keeps."""

    pickled_as = ("chumpy.ch", "Ch")

    def __init__(self, numbers: np.ndarray) -> None:
        self.x = numbers
        self._dirty_vars: set[str] = set()
        self._itr = None
        self._status = "new"


class ChumpySelect:
    """Stand for a chumpy selection from another array."""

    pickled_as = ("chumpy.reordering", "Select")

    def __init__(self, source: Chumpy, indices: np.ndarray, shape: tuple[int, ...]) -> None:
        self.a, self.idxs, self.preferred_shape = source, indices, shape
        self._dirty_vars = {"a"}


class ChumpyExpression:
    """Stand for a chumpy expression whose numbers are computed, not kept."""

    pickled_as = ("chumpy.ch", "MatVecMult")

    def __init__(self) -> None:
        self.mtx = None


class OldSparse:
    """Stand for a scipy matrix of the years in which its class lived in ``scipy.sparse.csc``."""

    pickled_as = ("scipy.sparse.csc", "csc_matrix")

    def __init__(self, dense: np.ndarray) -> None:
        matrix = sparse.csc_matrix(dense)
        self.data, self.indices, self.indptr = matrix.data, matrix.indices, matrix.indptr
        self._shape, self.maxprint, self._has_sorted_indices = matrix.shape, 50, True


_PurePythonPickler: Any = vars(pickle)["_Pickler"]
"""The pickler whose opcodes can be overridden one by one; the compiled one allows no such thing."""


class Python2Pickler(_PurePythonPickler):
    """Write pickles as Python 2 did: byte strings for text and for array content, old module names."""

    dispatch = dict(_PurePythonPickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        """Write a Python 2 ``str``."""
        raw = value.encode("latin1") if isinstance(value, str) else value
        if not self.bin:
            self.write(b"S" + repr(raw)[1:].encode("ascii") + b"\n")
        elif len(raw) < 256:
            self.write(b"U" + bytes((len(raw),)) + raw)
        else:
            self.write(b"T" + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch[str] = save_string
    dispatch[bytes] = save_string

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Write the name of a class, or the name it pretends to have."""
        if hasattr(obj, "pickled_as"):
            self.write("c{}\n{}\n".format(*obj.pickled_as).encode("ascii"))
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch[type] = save_global


def python2_pickle(content: Any, protocol: int = 2) -> bytes:
    """Return a pickle such as Python 2 wrote."""
    stream = io.BytesIO()
    Python2Pickler(stream, protocol).dump(content)
    return stream.getvalue()


def write_flame2020(model: HeadModel, path: Path, protocol: int = 2) -> Path:
    """Write ``generic_model.pkl`` of 2020 and before: Python 2, chumpy arrays, an old sparse matrix, int64 tree."""
    arrays = _dense(model)
    arrays["shapedirs"] = Chumpy(arrays["shapedirs"])
    arrays["v_template"] = ChumpySelect(
        Chumpy(arrays["v_template"][::-1].copy()),
        np.arange(3 * model.num_vertices).reshape(-1, 3)[::-1].reshape(-1),
        (model.num_vertices, 3),
    )
    arrays["posedirs"] = np.asfortranarray(arrays["posedirs"])
    arrays["J"] = ChumpyExpression()
    arrays["J_regressor"] = OldSparse(arrays["J_regressor"])
    path.write_bytes(python2_pickle(arrays, protocol))
    return path


def write_flame2023(model: HeadModel, path: Path) -> Path:
    """Write ``flame2023.pkl``: Python 3, plain arrays, a sparse matrix; float32 posedirs and uint32 tree."""
    arrays = _dense(model)
    arrays["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"])
    arrays["kintree_table"] = flame_arrays(model)["kintree_table"]
    path.write_bytes(pickle.dumps(arrays, protocol=4))
    return path


def write_flame2023_open(model: HeadModel, path: Path) -> Path:
    """Write ``flame2023_Open.pkl``: Python 2 strings, chumpy template, dense regressor."""
    arrays = _dense(model)
    arrays["v_template"] = Chumpy(arrays["v_template"])
    path.write_bytes(python2_pickle(arrays))
    return path


def write_flame_npz(model: HeadModel, path: Path) -> Path:
    """Write plain arrays only."""
    np.savez(path, **_dense(model))
    return path


def write_flame_object_npz(model: HeadModel, path: Path) -> Path:
    """Write what ``np.savez(**pickle.load(...))`` gives: the sparse matrix becomes a pickled array of one object."""
    np.savez(path, **flame_arrays(model))  # type: ignore[arg-type]
    return path


def write_commons(model: HeadModel, path: Path, **changes: np.ndarray | None) -> Path:
    """Write the format of the shipped head; ``changes`` replace arrays, None drops one."""
    topology = model.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    assert topology.mirror is not None and model.expression_names and model.expression_bounds is not None
    regressor = model.joint_regressor.numpy()
    rows, columns = np.nonzero(regressor)
    actions = model.joint_actions
    pose = model.pose_basis.unflatten(-1, (-1, 3)).permute(1, 2, 0)
    arrays: dict[str, Any] = {
        "format_version": np.int32(1),
        "name": np.str_(model.name),
        "template": model.template.numpy().astype(np.float32),
        "faces": model.faces.numpy().astype(np.int32),
        "uv": topology.uv,
        "uv_faces": topology.uv_faces.astype(np.int32),
        **_quantised("shape_basis", model.shape_basis.numpy()),
        **_quantised("expression_basis", model.expression_basis.numpy()),
        **_quantised("pose_basis", pose.numpy()),
        "expression_names": np.array(model.expression_names),
        "expression_lower": model.expression_bounds[:, 0].numpy().astype(np.float32),
        "expression_upper": model.expression_bounds[:, 1].numpy().astype(np.float32),
        "joint_regressor_rows": rows.astype(np.int32),
        "joint_regressor_cols": columns.astype(np.int32),
        "joint_regressor_values": regressor[rows, columns].astype(np.float32),
        "skin_weights": model.skin_weights.numpy().astype(np.float32),
        "parents": np.array(model.parents, dtype=np.int32),
        "mirror": topology.mirror.astype(np.int32),
        "region_names": np.array(list(topology.regions)),
        "region_masks": np.stack(list(topology.regions.values())),
        "arkit_joint_names": np.array([action.name for action in actions]),
        "arkit_joint_index": np.array([action.joint for action in actions], dtype=np.int32),
        "arkit_joint_axis_angle": np.array([action.axis_angle for action in actions], dtype=np.float32),
        "licence": np.str_(model.licence),
        "source": np.str_(model.source),
    }
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def _dense(model: HeadModel) -> dict[str, Any]:
    arrays: dict[str, Any] = flame_arrays(model)
    tree = np.array([(-1, *model.parents[1:]), range(5)], dtype=np.int64)
    return {**arrays, "J_regressor": model.joint_regressor.numpy(), "kintree_table": tree}


def _quantised(key: str, basis: np.ndarray) -> dict[str, np.ndarray]:
    modes = np.moveaxis(basis, -1, 0).reshape(basis.shape[-1], -1)
    scale = (np.abs(modes).max(axis=1) / 32767).astype(np.float32)
    scale[scale == 0] = 1
    return {f"{key}_q": np.round(modes / scale[:, None]).astype(np.int16), f"{key}_scale": scale}
