"""Files of torch.save: tensors and configuration come out as they went in, and nothing in a file is executed."""

from __future__ import annotations

import builtins
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flame.errors import AssetMissingError, InputError, UnsafeFileError, UserError
from priors.networks.torch_file import StoredTensor, Unread, read_torch_file
from tests.priors.networks.released_files import SMALL, as_bytes, as_omegaconf, checkpoint, save


class Call:
    """Be pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def test_tensors_of_every_kind_come_back(tmp_path):
    whole = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "plain": torch.randn(3, 5),
        "view": whole[1, :, 1:3],
        "transposed": whole.transpose(0, 2),
        "scalar": torch.tensor(7, dtype=torch.int64),
        "half": torch.randn(4).half(),
        "bfloat": torch.randn(4).bfloat16(),
        "bool": torch.tensor((True, False)),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    file = read_torch_file(save(tensors, tmp_path / "a.ckpt"))
    assert all(isinstance(value, StoredTensor) for value in file.content.values())
    found = file.tensors(file.content)
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and found[name].is_contiguous()
        torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=0)


def test_omegaconf_becomes_plain_without_being_there(tmp_path):
    values = {"a": 1, "b": {"c": [1.5, "two", None, True]}, "missing": "???", "text": "${a}"}
    data = as_bytes({"cfg": as_omegaconf(values), "plain": {"x": (1, [2])}})
    assert b"omegaconf.dictconfig\nDictConfig" in data and b"omegaconf.nodes\nAnyNode" in data
    (tmp_path / "a.ckpt").write_bytes(data)
    before = set(sys.modules)
    content = read_torch_file(tmp_path / "a.ckpt").content
    assert content == {"cfg": values, "plain": {"x": (1, [2])}}
    assert set(sys.modules) == before and "omegaconf" not in before


def test_bookkeeping_is_kept_out_of_the_way(tmp_path):
    content = {"path": Path("/x"), "type": dict, "number": np.float64(2.0), "device": torch.device("cpu"), "a": 1}
    found = read_torch_file(save(content, tmp_path / "a.ckpt")).content
    assert found.pop("a") == 1
    assert {name: type(value) for name, value in found.items()} == dict.fromkeys(found, Unread)


def dangerous(marker: str) -> dict[str, Any]:
    return {
        "system": Call(os.system, f"touch {marker}"),
        "eval": Call(builtins.eval, f"open({marker!r}, 'w').close()"),
        "popen": Call(subprocess.Popen, ["touch", marker]),
        "getattr": Call(getattr, "text", "upper"),
        "in a state dict": {"net.x": Call(os.system, f"touch {marker}")},
        "as a key": {Call(os.system, f"touch {marker}"): 1},
        "in omegaconf": as_omegaconf({"x": Call(os.system, f"touch {marker}")}),
    }


@pytest.mark.parametrize("kind", list(dangerous("")))
def test_files_that_run_code_are_refused(tmp_path, kind):
    path = save({"x": dangerous(str(tmp_path / "marker"))[kind]}, tmp_path / "bad.ckpt")
    with pytest.raises(UnsafeFileError, match=r"asks to use \S+, which is neither a tensor nor plain .*nothing was"):
        read_torch_file(path)
    assert [each.name for each in tmp_path.iterdir()] == ["bad.ckpt"]


@pytest.mark.parametrize("function", [np.save, torch.load, np.fromfile])
def test_names_of_known_packages_are_not_called_either(tmp_path, function):
    marker = tmp_path / "marker"
    content = read_torch_file(save({"x": Call(function, str(marker))}, tmp_path / "a.ckpt")).content
    assert isinstance(content["x"], Unread) and not marker.exists()


def archive(path: Path, data: bytes, *, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a/data.pkl", data)
        for name, content in members.items():
            file.writestr(f"a/data/{name}", content)
    return path


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQ"


def tensor_pickle(count: int, offset: int, shape: bytes, strides: bytes) -> bytes:
    storage = STORAGE.replace(b"%c", bytes((count,)))
    body = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K" + bytes((offset,)) + shape + strides + b"\x89NtR"
    return b"\x80\x02}X\x01\x00\x00\x00w" + body + b"s."


def test_hand_made_tensors(tmp_path):
    numbers = np.arange(4, dtype="<f4").tobytes()
    good = archive(tmp_path / "good", tensor_pickle(4, 1, b"K\x03\x85", b"K\x01\x85"), **{"0": numbers})
    file = read_torch_file(good)
    assert file.tensors(file.content)["w"].tolist() == [1, 2, 3]
    cases = {
        "beyond": ((4, 2, b"K\x03\x85", b"K\x01\x85"), numbers, "reaches beyond the numbers"),
        "repeated": ((4, 0, b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"), numbers, "repeats its numbers"),
        "short": ((4, 0, b"K\x03\x85", b"K\x01\x85"), numbers[:-4], "size is not the promised one"),
        "backwards": ((4, 0, b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), numbers, "reaches beyond"),
    }
    for name, (layout, content, message) in cases.items():
        file = read_torch_file(archive(tmp_path / name, tensor_pickle(*layout), **{"0": content}))
        with pytest.raises(InputError, match=message):
            file.tensors(file.content)
    squeezed = archive(
        tmp_path / "bomb", tensor_pickle(4, 0, b"K\x03\x85", b"K\x01\x85"), compression=8, **{"0": numbers}
    )
    file = read_torch_file(squeezed)
    with pytest.raises(InputError, match="not the promised one"):
        file.tensors(file.content)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02]q\x00h\x00a.", "refers to itself"),
        (b"\x80\x02X\x01\x00\x00\x00xQ.", "no storage of numbers"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.", "missing 3 required"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00xK\x01sb.", "given attributes"),
        (b"comegaconf.nodes\nAnyNode\n)\x81.", "without content"),
        (b"\x80\x02]r\xff\xff\xff\xffh\x00.", "Memo value not found"),
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        read_torch_file(archive(tmp_path / "a", data))


def test_shared_lists_are_read_once(tmp_path):
    content: Any = ["x"]
    for _ in range(60):
        content = [content, content]
    assert read_torch_file(save(content, tmp_path / "a")).content is not None


def test_other_files_are_named_as_such(tmp_path):
    for name, data, message in (
        ("page", b"<!DOCTYPE html><html>Sign in</html>", "is a web page, not weights"),
        ("text", b"no weights", "no ZIP archive"),
        ("old", pickle.dumps({"a": 1}), "no ZIP archive"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message) as error:
            read_torch_file(tmp_path / name)
        assert "\n" not in str(error.value)
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr("a/other", b"")
    with pytest.raises(InputError, match="no data.pkl"):
        read_torch_file(tmp_path / "zip")
    with pytest.raises(AssetMissingError, match="no such file"):
        read_torch_file(tmp_path / "nothing")


DATA = as_bytes({**checkpoint(SMALL), "state_dict": {"net.a": torch.randn(3, 4)}})


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_files_never_do_worse_than_a_user_error(tmp_path_factory, damage):
    damaged = bytearray(DATA)
    for place, value in damage:
        damaged[place % len(damaged)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    path.write_bytes(bytes(damaged))
    try:
        file = read_torch_file(path)
        state = file.content.get("state_dict") if isinstance(file.content, dict) else None
        file.tensors(state if isinstance(state, dict) else {})
    except UserError as error:
        assert "\n" not in str(error)
