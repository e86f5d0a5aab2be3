"""Load heads: the commons head that ships with the package, and FLAME files that the user has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flame.head_files import HeadArrays, read_head_arrays
from flame.landmarks import with_stored_landmarks
from flame.model import HeadModel


def load_head(name_or_path: str | Path = "commons", dtype: torch.dtype = torch.float32) -> HeadModel:
    """Load a head model: the shipped ``commons`` head, or a file.

    Files are FLAME 2020, 2023, 2023 Open or the variants without jaw, as ``.pkl`` (Python 2 and chumpy included) or
    ``.npz``, and heads in the commons format. Nothing in a file is executed. ``FLAME_masks.pkl`` beside a FLAME file
    gives its regions, ``head_template.obj`` its texture coordinates, landmarks found earlier (``flame.landmarks``) its
    landmark sets.

    Raises:
        AssetMissingError: there is no such file; the message says where FLAME comes from.
        InputError: the file is damaged or lacks something; the message says what.
        UnsafeFileError: the file asks to run code.
    """
    arrays = read_head_arrays(name_or_path)
    return with_stored_landmarks(_as_model(arrays, dtype), arrays.path)


def _as_model(arrays: HeadArrays, dtype: torch.dtype) -> HeadModel:
    bounds = arrays.expression_bounds
    return HeadModel(
        name=arrays.name,
        template=_tensor(arrays.template, dtype),
        faces=torch.from_numpy(arrays.faces),
        shape_basis=_tensor(arrays.shape_directions, dtype).permute(1, 2, 0),
        expression_basis=_tensor(arrays.expression_directions, dtype).permute(1, 2, 0),
        pose_basis=_tensor(arrays.pose_basis, dtype),
        joint_regressor=_tensor(arrays.joint_regressor, dtype),
        skin_weights=_tensor(arrays.skin_weights, dtype),
        parents=arrays.parents,
        topology=arrays.topology,
        expression_names=arrays.expression_names,
        expression_bounds=None if bounds is None else _tensor(bounds, dtype),
        joint_actions=arrays.joint_actions,
        has_jaw=arrays.has_jaw,
        licence=arrays.licence,
        source=arrays.source,
    )


def _tensor(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))).to(dtype)
