"""Texture coordinates from FLAME's OBJ: matched triangle by triangle, whatever their order; other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.obj_layout import TEMPLATE_OBJ, read_obj_layout
from flame.saving import flame_arrays


def write_obj(path: Path, head: HeadModel, *, is_shuffled: bool, suffix: str = "") -> Path:
    """Write a head as an OBJ; shuffled, its triangles come in another order and begin at other corners."""
    topology = head.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    order = np.arange(len(topology.faces))
    turns = np.zeros(len(order), dtype=int)
    if is_shuffled:
        rng = np.random.default_rng(0)
        order, turns = rng.permutation(order), rng.integers(0, 3, len(order))
    lines = ["# a head", "mtllib template.mtl"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in head.template.tolist()]
    lines += [f"vt {u:.7f} {v:.7f}" for u, v in topology.uv.tolist()]
    for row, turn in zip(order, turns, strict=True):
        corners = zip(np.roll(topology.faces[row], turn), np.roll(topology.uv_faces[row], turn), strict=True)
        lines.append("f " + " ".join(f"{vertex + 1}/{texture + 1}{suffix}" for vertex, texture in corners))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(("is_shuffled", "suffix"), [(False, ""), (True, ""), (True, "/7")])
def test_triangles_find_their_texture_coordinates(toy_head, tmp_path, is_shuffled, suffix):
    path = write_obj(tmp_path / "a.obj", toy_head, is_shuffled=is_shuffled, suffix=suffix)
    uv, uv_faces = read_obj_layout(path, toy_head.topology.faces)
    np.testing.assert_allclose(uv[uv_faces], toy_head.topology.uv[toy_head.topology.uv_faces], atol=1e-6)


def test_a_flame_file_takes_the_layout_beside_it(toy_head, tmp_path):
    np.savez(tmp_path / "flame.npz", **flame_arrays(toy_head))
    bare = load_head(tmp_path / "flame.npz")
    write_obj(tmp_path / TEMPLATE_OBJ, toy_head, is_shuffled=True)
    head = load_head(tmp_path / "flame.npz")
    assert bare.topology is not None and bare.topology.uv is None
    topology = head.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    np.testing.assert_allclose(
        topology.uv[topology.uv_faces], toy_head.topology.uv[toy_head.topology.uv_faces], atol=1e-6
    )
    assert head.content_hash == bare.content_hash


def test_other_files_are_refused(toy_head, tmp_path):
    faces = toy_head.topology.faces
    path = write_obj(tmp_path / "a.obj", toy_head, is_shuffled=False)
    with pytest.raises(InputError, match=r"has \d+ triangles and \d+ texture coordinates; \d+ triangles fit"):
        read_obj_layout(path, faces[1:])
    with pytest.raises(InputError, match="is of another mesh than the head"):
        read_obj_layout(path, faces[:, [0, 0, 1]])
    for text, message in (
        ("f 1 2 3\n", "no OBJ file of triangles with texture coordinates"),
        ("f 1/1 2/2 3/3 4/4\n", "has 0 triangles|no OBJ file"),
        ("vt a b\n", "no OBJ file"),
        ("\x00\xff", "has 0 triangles and 0 texture"),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(InputError, match=message):
            read_obj_layout(path, faces)
    path.write_text("vt 0 0\n" + "f 1/1 2/1 3/9\n" * len(faces), "utf-8")
    with pytest.raises(InputError, match="names texture coordinates that it does not have"):
        read_obj_layout(path, faces)
