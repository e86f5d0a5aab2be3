"""Loading heads: every layout found in the wild gives the same head; every fault is one clear line."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from flame import load_head
from flame.errors import AssetMissingError, InputError, UnsafeFileError, UserError
from flame.model import HeadModel
from flame.saving import flame_arrays, save_flame_pkl
from flame.topology import Topology
from tests.flame.flame_files import (
    ChumpyExpression,
    python2_pickle,
    write_commons,
    write_flame2020,
    write_flame2023,
    write_flame2023_open,
    write_flame_npz,
    write_flame_object_npz,
)
from tests.tolerances import assert_close
from tests.toy_head import random_coefficients

LAYOUTS: dict[str, tuple[str, Callable[[HeadModel, Path], Path]]] = {
    "2020": ("generic_model.pkl", write_flame2020),
    "2020 protocol 0": ("generic_model.pkl", lambda model, path: write_flame2020(model, path, protocol=0)),
    "2020 protocol 1": ("generic_model.pkl", lambda model, path: write_flame2020(model, path, protocol=1)),
    "2023": ("flame2023.pkl", write_flame2023),
    "2023 Open": ("flame2023_Open.pkl", write_flame2023_open),
    "npz": ("flame2023.npz", write_flame_npz),
    "npz with objects": ("flame2023.npz", write_flame_object_npz),
    "npz named pkl": ("flame.pkl", lambda model, path: write_flame_npz(model, path.with_suffix(".npz")).rename(path)),
}


def _topology(model: HeadModel) -> Topology:
    assert model.topology is not None
    return model.topology


def _assert_same_head(loaded: HeadModel, original: HeadModel, dtype: torch.dtype) -> None:
    values = {name: value.to(dtype) for name, value in random_coefficients(original, (3,)).items()}
    assert_close(loaded.vertices(**values).double(), original.vertices(**random_coefficients(original, (3,))), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_flame_layout_gives_the_same_head(tmp_path, toy_head, layout, dtype):
    name, write = LAYOUTS[layout]
    path = write(toy_head, tmp_path / name)
    loaded = load_head(path, dtype=dtype)
    _assert_same_head(loaded, toy_head, dtype)
    assert (loaded.name, loaded.dtype, loaded.has_jaw) == (path.stem, dtype, True)
    assert (loaded.num_shape, loaded.num_expression, loaded.parents) == (300, 100, (-1, 0, 1, 1, 1))
    assert torch.equal(loaded.faces, toy_head.faces)
    topology = _topology(loaded)
    np.testing.assert_array_equal(topology.mirror, toy_head.topology.mirror)  # type: ignore[arg-type]
    assert topology.uv is None and not topology.regions and loaded.expression_names is None


def test_the_same_numbers_have_the_same_hash_in_every_layout(tmp_path, toy_head):
    paths = [write(toy_head, tmp_path / f"{index}_{name}") for index, (name, write) in enumerate(LAYOUTS.values())]
    hashes = {load_head(path, dtype=dtype).content_hash for path in paths for dtype in (torch.float32, torch.float64)}
    assert len(hashes) == 1


@pytest.mark.parametrize("by_name", [True, False])
def test_head_without_jaw(tmp_path, toy_head, by_name):
    model = toy_head
    if not by_name:
        weights = toy_head.skin_weights.clone()
        weights[:, 1] += weights[:, 2]
        weights[:, 2] = 0
        model = replace(toy_head, skin_weights=weights)
    loaded = load_head(write_flame2023(model, tmp_path / ("flame2023_no_jaw.pkl" if by_name else "model.pkl")))
    assert not loaded.has_jaw
    assert_close(loaded.vertices(jaw=torch.tensor((0.3, 0.0, 0.0))), loaded.template)


def test_masks_beside_the_file_give_regions(tmp_path, toy_head):
    topology = toy_head.topology
    masks = {"face": "face", "left_eyeball": "left_eye", "right_eyeball": "right_eye", "lips": "lips"}
    content = {theirs: np.flatnonzero(topology.region(ours)) for theirs, ours in masks.items()}
    (tmp_path / "FLAME_masks.pkl").write_bytes(python2_pickle(content))
    loaded = load_head(write_flame2020(toy_head, tmp_path / "generic_model.pkl"))
    regions = _topology(loaded).regions
    for name in ("face", "left_eye", "right_eye", "lips", "eyes"):
        np.testing.assert_array_equal(regions[name], topology.region(name))
    content["face"][0] = 10_000
    (tmp_path / "FLAME_masks.pkl").write_bytes(python2_pickle(content))
    with pytest.raises(InputError, match=r"FLAME_masks.pkl: 'face' has indices from .* to 10000; 0 to \d+ exist"):
        load_head(tmp_path / "generic_model.pkl")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_commons_format(tmp_path, toy_head, dtype):
    loaded = load_head(write_commons(toy_head, tmp_path / "head.npz"), dtype=dtype)
    for name in ("template", "shape_basis", "expression_basis", "pose_basis", "joint_regressor", "skin_weights"):
        assert_close(getattr(loaded, name).double(), getattr(toy_head, name), torch.float32)
    assert (loaded.name, loaded.dtype, loaded.parents) == ("toy", dtype, toy_head.parents)
    assert (loaded.expression_names, loaded.licence, loaded.source) == (
        toy_head.expression_names,
        toy_head.licence,
        toy_head.source,
    )
    assert loaded.expression_bounds is not None
    assert_close(loaded.expression_bounds.double(), toy_head.expression_bounds, torch.float32)
    for ours, theirs in zip(loaded.joint_actions, toy_head.joint_actions, strict=True):
        assert (ours.name, ours.joint) == (theirs.name, theirs.joint)
        np.testing.assert_allclose(ours.axis_angle, theirs.axis_angle, atol=1e-7)
    assert _topology(loaded).regions.keys() == toy_head.topology.regions.keys()
    for name in ("faces", "mirror", "uv", "uv_faces"):
        np.testing.assert_array_equal(getattr(loaded.topology, name), getattr(toy_head.topology, name))
    assert loaded.content_hash == load_head(tmp_path / "head.npz").content_hash


def test_shipped_head():
    head = load_head()
    assert head.name == "commons" and head.topology is not None
    assert head.joint_regressor.shape == (5, head.num_vertices)
    assert {"face", "lips", "eyes", "ears", "scalp", "neck", "inner_mouth"} <= set(head.topology.regions)


def test_missing_files_say_where_heads_come_from(tmp_path):
    message = (
        "no such head file: .*generic_model.pkl; FLAME is downloaded from https://flame.is.tue.mpg.de .*--head commons"
    )
    with pytest.raises(AssetMissingError, match=message):
        load_head(tmp_path / "generic_model.pkl")
    with pytest.raises(AssetMissingError, match="no such head file"):
        load_head(tmp_path)


def _changed(model: HeadModel, **changes: Any) -> dict[str, Any]:
    content = {**flame_arrays(model), **changes}
    return {key: value for key, value in content.items() if value is not None}


def _faults(count: int) -> dict[str, tuple[dict[str, Any], str]]:
    return {
        "no template": ({"v_template": None}, r"has no 'v_template'; it has: J, J_regressor, bs_style"),
        "no regressor": ({"J_regressor": None}, r"has no 'J_regressor'"),
        "flat template": ({"v_template": np.zeros(9)}, r"'v_template' has shape \(9,\); \(any, 3\) is needed"),
        "whole body": ({"posedirs": np.zeros((9, 3, 207))}, rf"shape \(9, 3, 207\); \({count}, 3, 36\) is needed"),
        "more joints": ({"kintree_table": np.zeros((2, 24), int)}, r"shape \(2, 24\); \(2, 5\) is needed"),
        "huge sparse": ({"J_regressor": sparse.coo_matrix((10**9, 10**9))}, r"shape \(1000000000, 1000000000\)"),
        "objects": ({"f": np.array([[None] * 3])}, r"'f' holds object; that is not the kind of number needed here"),
        "face index": ({"f": np.array([[0, 1, 5000]])}, rf"'f' has indices from 0 to 5000; 0 to {count - 1} exist"),
        "not finite": ({"v_template": np.full((count, 3), np.nan)}, r"'v_template' holds values that are not finite"),
        "weights": ({"weights": np.ones((count, 5))}, r"the rows of 'weights' do not sum to one"),
        "parents": (
            {"kintree_table": np.array([[-1, 0, 3, 1, 1]] * 2)},
            r"parents are \(0, 3, 1, 1\); each has to be an",
        ),
    }


@pytest.mark.parametrize("fault", list(_faults(0)))
@pytest.mark.parametrize("suffix", ["pkl", "npz"])
def test_faults_in_flame_files_are_named(tmp_path, toy_head, fault, suffix):
    changes, message = _faults(toy_head.num_vertices)[fault]
    content, path = _changed(toy_head, **changes), tmp_path / f"model.{suffix}"
    if suffix == "pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        np.savez(path, **content)
    with pytest.raises(InputError, match=rf"^\S*model.{suffix}:? .*{message}") as error:
        load_head(path)
    assert "\n" not in str(error.value)


def test_text_in_place_of_an_array(tmp_path, toy_head):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(_changed(toy_head, weights="text")))
    with pytest.raises(InputError, match="'weights' is a str; an array is needed"):
        load_head(path)


def test_chumpy_expressions_are_an_error_only_where_needed(tmp_path, toy_head):
    path = tmp_path / "model.pkl"
    path.write_bytes(
        python2_pickle(_changed(toy_head, J=ChumpyExpression(), J_regressor=toy_head.joint_regressor.numpy()))
    )
    load_head(path)
    path.write_bytes(python2_pickle(_changed(toy_head, shapedirs=ChumpyExpression(), J_regressor=None)))
    with pytest.raises(InputError, match="'shapedirs' is a chumpy.ch.MatVecMult, which holds no plain array"):
        load_head(path)


COMMONS_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"format_version": np.int32(9)}, "has format version 9; this program reads version 1"),
    "no uv": ({"uv": None}, "has no 'uv'; it has: "),
    "mirror": ({"mirror": np.zeros(3, int)}, r"'mirror' has shape \(3,\); \(\d+\) is needed"),
    "scale": ({"shape_basis_scale": np.zeros(3)}, r"'shape_basis_scale' has shape \(3,\); \(10\) is needed"),
    "action": (
        {"arkit_joint_index": np.array([2, 3, 7])},
        "'arkit_joint_index' has indices from 2 to 7; 0 to 4 exist",
    ),
    "name": ({"name": np.float32(1)}, "'name' holds float32"),
}


@pytest.mark.parametrize("fault", list(COMMONS_FAULTS))
def test_faults_in_commons_files_are_named(tmp_path, toy_head, fault):
    changes, message = COMMONS_FAULTS[fault]
    with pytest.raises(InputError, match=f"head.npz:? .*{message}"):
        load_head(write_commons(toy_head, tmp_path / "head.npz", **changes))


def test_mirror_maps_are_checked(tmp_path, toy_head):
    rolled = np.roll(np.arange(toy_head.num_vertices), 1)
    with pytest.raises(InputError, match="'mirror' is not its own inverse"):
        load_head(write_commons(toy_head, tmp_path / "head.npz", mirror=rolled))


class _Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("suffix", ["pkl", "npz"])
def test_files_that_run_code_are_refused(tmp_path, toy_head, suffix):
    content, path = _changed(toy_head, weights=_Attack(tmp_path / "marker")), tmp_path / f"model.{suffix}"
    if suffix == "pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        np.savez(path, **content)
    with pytest.raises(UnsafeFileError, match=r"model\.\S+.* asks to use posix.system.*nothing was executed"):
        load_head(path)
    assert not (tmp_path / "marker").exists()


def test_damaged_archives(tmp_path, toy_head):
    path = write_flame_npz(toy_head, tmp_path / "model.npz")
    content = path.read_bytes()
    for damaged in (b"", content[:1000], content[:-30], content[:5000] + b"\0" * 50 + content[5050:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model.npz is not a readable .npz file \(.+\)"):
            load_head(path)


@pytest.fixture(scope="module")
def archives(tmp_path_factory, toy_head) -> tuple[Path, list[bytes]]:
    """Return a scratch path and the bytes of a plain and of a compressed archive."""
    path = tmp_path_factory.mktemp("archives") / "head.npz"
    plain = write_commons(toy_head, path).read_bytes()
    with np.load(path) as data:
        np.savez_compressed(path, **data)
    return path, [plain, path.read_bytes()]


@given(st.booleans(), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=30))
def test_damaged_archives_never_do_worse_than_a_user_error(archives, is_compressed, damage):
    path, contents = archives
    damaged = bytearray(contents[is_compressed])
    for place, value in damage:
        damaged[int(place * (len(damaged) - 1))] = value
    path.write_bytes(bytes(damaged))
    try:
        load_head(path)
    except UserError as error:
        assert "\n" not in str(error)


def test_other_content_is_named(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match="holds a list; a head file holds a dictionary of arrays"):
        load_head(path)


def test_saved_files_load_back(tmp_path, toy_head):
    save_flame_pkl(toy_head, tmp_path / "toy.pkl")
    _assert_same_head(load_head(tmp_path / "toy.pkl", dtype=torch.float64), toy_head, torch.float64)
