"""FLAME-format export: what ``smplx`` computes from it is what our model computes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame import load_head
from flame.errors import InputError
from flame.model import HeadModel
from flame.saving import flame_arrays, save_flame_pkl
from tests.tolerances import assert_close
from tests.toy_head import random_coefficients

smplx = pytest.importorskip("smplx")


def _smplx_vertices(folder: Path, model: HeadModel, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the vertices that the FLAME class of ``smplx`` gives for the exported head, zero-padded coefficients."""
    save_flame_pkl(model, folder / "FLAME_NEUTRAL.pkl")
    landmarks = {"lmk_face_idx": np.array([0, 1]), "lmk_b_coords": np.full((2, 3), 1 / 3)}
    (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(landmarks))
    other = smplx.FLAME(
        str(folder), num_betas=300, num_expression_coeffs=100, use_face_contour=False, dtype=model.dtype
    )

    def padded(value: torch.Tensor, size: int) -> torch.Tensor:
        return torch.nn.functional.pad(value, (0, size - value.shape[-1]))

    return other(
        betas=padded(values["shape"], 300),
        expression=padded(values["expression"], 100),
        global_orient=values["root"],
        neck_pose=values["neck"],
        jaw_pose=values["jaw"],
        leye_pose=values["left_eye"],
        reye_pose=values["right_eye"],
        transl=values["translation"],
    ).vertices.detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smplx_gives_the_same_vertices(tmp_path, toy_head, dtype):
    model = toy_head.to(dtype=dtype)
    values = random_coefficients(model, (6,))
    difference = _smplx_vertices(tmp_path, model, values) - model.vertices(**values)
    assert difference.norm(dim=-1).max() < 2e-6


def test_smplx_gives_the_same_vertices_where_expressions_move_the_joints(tmp_path, toy_head):
    regressor = torch.full_like(toy_head.joint_regressor, 1 / toy_head.num_vertices)
    model = replace(toy_head, joint_regressor=regressor)
    values = random_coefficients(model, (6,))
    assert model.joint_expression_basis.abs().max() > 1e-5
    difference = _smplx_vertices(tmp_path, model, values) - model.vertices(**values)
    assert difference.norm(dim=-1).max() < 2e-7


def test_smplx_gives_the_same_vertices_for_the_shipped_head(tmp_path):
    model = load_head()
    values = random_coefficients(model, (3,))
    difference = _smplx_vertices(tmp_path, model, values) - model.vertices(**values)
    assert difference.norm(dim=-1).max() < 1e-5


def test_exported_file_holds_only_what_numpy_and_scipy_write(tmp_path, toy_head):
    save_flame_pkl(toy_head, tmp_path / "toy.pkl")
    content = (tmp_path / "toy.pkl").read_bytes()
    assert content[:2] == b"\x80\x02"
    arrays = pickle.loads(content)
    assert set(arrays) == {
        *("v_template", "f", "shapedirs", "posedirs", "J_regressor", "J"),
        *("weights", "kintree_table", "bs_style", "bs_type"),
    }
    assert arrays["shapedirs"].shape == (toy_head.num_vertices, 3, 400)
    np.testing.assert_array_equal(arrays["kintree_table"], [[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]])
    assert not arrays["shapedirs"][..., 10:300].any() and not arrays["shapedirs"][..., 308:].any()


def test_exported_files_are_complete_or_absent(tmp_path, toy_head, monkeypatch):
    path = tmp_path / "toy.pkl"
    save_flame_pkl(toy_head, path)
    before = path.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="cannot write .*toy.pkl: No space left on device"):
        save_flame_pkl(toy_head, path)
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["toy.pkl"]


def test_unwritable_folder(tmp_path, toy_head):
    with pytest.raises(InputError, match="cannot write .*missing/toy.pkl: No such file or directory"):
        save_flame_pkl(toy_head, tmp_path / "missing" / "toy.pkl")


def test_heads_with_more_coefficients_than_the_format_holds(toy_head):
    wide = replace(toy_head, shape_basis=torch.zeros(toy_head.num_vertices, 3, 301))
    with pytest.raises(
        InputError, match="has 301 shape and 8 expression coefficients; FLAME files hold at most 300 and 100"
    ):
        flame_arrays(wide)


def test_round_trip_keeps_the_hash_of_a_full_size_head(tmp_path, toy_head):
    count = toy_head.num_vertices
    full = replace(
        toy_head,
        shape_basis=torch.nn.functional.pad(toy_head.shape_basis, (0, 290)),
        expression_basis=torch.randn(count, 3, 100, dtype=torch.float64),
    )
    save_flame_pkl(full, tmp_path / "full.pkl")
    loaded = load_head(tmp_path / "full.pkl", dtype=torch.float64)
    assert loaded.content_hash == full.content_hash
    assert_close(loaded.expression_basis, full.expression_basis)
