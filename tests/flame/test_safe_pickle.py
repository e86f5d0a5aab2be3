"""Pickles from outside: arrays come out as they went in, nothing runs, and damage is one clear line."""

from __future__ import annotations

import builtins
import collections
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import sparse

from flame.errors import AssetMissingError, InputError, UnsafeFileError, UserError
from flame.safe_pickle import UnreadValue, read_pickle, read_pickle_bytes
from tests.flame.flame_files import Chumpy, ChumpyExpression, ChumpySelect, OldSparse, python2_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
DTYPES = ["f4", "f8", ">f8", "i4", "<i8", "u1", "u4", ">u2", "b1", "c16", "S5", "U3"]


class Call:
    """Pickle as a call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


@given(
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    shape=array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    protocol=st.sampled_from(PROTOCOLS),
    is_fortran=st.booleans(),
)
def test_arrays_of_every_kind_round_trip(data, dtype, shape, protocol, is_fortran):
    array = np.asarray(data.draw(arrays(np.dtype(dtype), shape)), order="F" if is_fortran else "C")
    scalars = [] if array.dtype.kind in "SU" else list(array.reshape(-1)[:2])
    result = read_pickle_bytes(pickle.dumps({"a": array, "scalars": scalars}, protocol), "file")
    np.testing.assert_array_equal(result["a"], array)
    assert result["a"].dtype == array.dtype
    np.testing.assert_array_equal(result["scalars"], scalars)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_and_plain_values_round_trip(protocol):
    shared = np.arange(3.0)
    content = {
        "text": "lbs",
        "bytes": b"\x00\xff",
        "none": None,
        "nested": [(1, 2.5, True), {"deep": [shared, shared]}],
        "ordered": collections.OrderedDict(a=1, b=2),
        "objects": np.array([shared, None, "x"], dtype=object),
        "empty": b"",
    }
    result = read_pickle_bytes(pickle.dumps(content, protocol), "file")
    np.testing.assert_array_equal(result["objects"][0], shared)
    assert result["nested"][1]["deep"][0] is result["nested"][1]["deep"][1]
    for key in ("text", "bytes", "none", "ordered", "empty"):
        assert result[key] == content[key]
    assert result["nested"][0] == (1, 2.5, True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "coo_array"])
def test_sparse_matrices_round_trip(protocol, kind):
    dense = np.array([[0.0, 1.5, 0.0], [2.0, 0.0, 0.0]])
    result = read_pickle_bytes(pickle.dumps(getattr(sparse, kind)(dense), protocol), "file")
    np.testing.assert_array_equal(result.toarray(), dense)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python_2_files_with_chumpy_and_old_scipy(protocol):
    numbers = np.linspace(-1, 1, 300).reshape(10, 30)
    content = {
        "ch": Chumpy(numbers),
        "select": ChumpySelect(Chumpy(numbers), np.array([5, 1, 7, 0]), (2, 2)),
        "sparse": OldSparse(np.diag((1.0, 2.0))),
        "array": np.asfortranarray(numbers),
        "expression": ChumpyExpression(),
    }
    data = python2_pickle(content, protocol)
    assert b"chumpy.ch\nCh\n" in data and b"scipy.sparse.csc\ncsc_matrix\n" in data and b"__builtin__\nset" in data
    result = read_pickle_bytes(data, "file")
    np.testing.assert_array_equal(result["ch"], numbers)
    np.testing.assert_array_equal(result["select"], numbers.reshape(-1)[[[5, 1], [7, 0]]])
    np.testing.assert_array_equal(result["sparse"].toarray(), np.diag((1.0, 2.0)))
    np.testing.assert_array_equal(result["array"], numbers)
    assert result["expression"] == UnreadValue("chumpy.ch.MatVecMult")


def test_both_module_paths_of_numpy_are_read():
    data = pickle.dumps(np.arange(4.0), 2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert old in data or new in data
    for path in (old, new):
        np.testing.assert_array_equal(
            read_pickle_bytes(data.replace(old, path).replace(new, path), "f"), np.arange(4.0)
        )


def _dangerous_calls(marker: str) -> dict[str, Any]:
    write = f"open({marker!r}, 'w').close()"
    return {
        "system": Call(os.system, f"touch {marker}"),
        "eval": Call(builtins.eval, write),
        "exec": Call(builtins.exec, write),
        "popen": Call(subprocess.Popen, ["touch", marker]),
        "getattr": Call(getattr, "text", "upper"),
        "import": Call(builtins.__import__, "antigravity"),
        "numpy function": Call(np.save, marker, np.zeros(1)),
        "numpy file": Call(np.fromfile, marker),
        "numpy memmap": Call(np.memmap, f"{marker}.npy", "u1", "w+", 0, (1,)),
        "in a list": [1, {"x": (Call(os.system, f"touch {marker}"),)}],
        "in an object array": np.array([Call(os.system, f"touch {marker}")], dtype=object),
        "as a key": {Call(os.system, f"touch {marker}"): 1},
        "in chumpy": Call(os.system, f"touch {marker}"),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", list(_dangerous_calls("")))
def test_files_that_run_code_are_refused(tmp_path, kind, protocol):
    marker = tmp_path / "marker"
    content = _dangerous_calls(str(marker))[kind]
    with pytest.raises(
        UnsafeFileError, match=r"^bad.pkl asks to use \S+, which is no array type; .*nothing was executed"
    ):
        read_pickle_bytes(pickle.dumps({"v_template": np.zeros(3), "x": content}, protocol), "bad.pkl")
    assert not list(tmp_path.iterdir())


RAW = {
    "global": (b"cos\nsystem\n(S'true'\ntR.", UnsafeFileError, "os.system"),
    "inst": (b"(S'true'\nios\nsystem\n.", UnsafeFileError, "os.system"),
    "obj": (b"(cos\nsystem\nS'true'\no.", UnsafeFileError, "os.system"),
    "dotted builtin": (b"\x80\x04\x8c\x08builtins\x8c\x0bobject.__eq\x93.", UnsafeFileError, "builtins.object.__eq"),
    "dotted chumpy": (b"\x80\x04\x8c\x06chumpy\x8c\x0bCh.__init__\x93.", UnsafeFileError, "chumpy.Ch.__init__"),
    "this module": (b"cflame.safe_pickle\nread_pickle\n.", UnsafeFileError, "flame.safe_pickle.read_pickle"),
    "numpy sibling": (b"cnumpy.core.multiarray\nfromfile\n.", UnsafeFileError, "fromfile"),
    "scipy sibling": (b"cscipy.sparse\nload_npz\n.", UnsafeFileError, "load_npz"),
    "extension": (b"\x80\x02\x82\x01.", InputError, "unregistered extension code 1"),
    "persistent id": (b"Pos.system\n.", InputError, "persistent"),
    "foreign class": (
        b"ccopy_reg\n_reconstructor\n(c_codecs\nencode\nc__builtin__\nobject\nNtR.",
        InputError,
        "unknown class",
    ),
    "codec": (b"c_codecs\nencode\n(S'YQ'\nS'base64'\ntR.", InputError, "unexpected encoding"),
    "bytes of a number": (b"c__builtin__\nbytes\n(I999999999999\ntR.", InputError, "bytes built from a value"),
    "attributes of a function": (b"c_codecs\nencode\n}S'x'\nI1\nsb.", InputError, "given attributes"),
    "attributes of a class": (b"cnumpy\ndtype\n}S'x'\nI1\nsb.", InputError, "__setstate__"),
    "huge numbering": (b"\x80\x02]r\xff\xff\xff\xffh\x00.", InputError, "Memo value not found"),
    "itself": (b"\x80\x02]q\x00h\x00a.", InputError, "refers to itself"),
}


@pytest.mark.parametrize("kind", list(RAW))
def test_hand_made_attacks_are_refused(kind):
    data, error, message = RAW[kind]
    with pytest.raises(error, match=message):
        read_pickle_bytes(data, "bad.pkl")


def test_numpy_state_is_not_given_to_numpy():
    """An object array with raw bytes as content would be read as pointers."""
    dtype = b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt"
        + dtype
        + b"I00\nS'AAAAAAAA'\ntb."
    )
    with pytest.raises(InputError, match="array of objects without a list"):
        read_pickle_bytes(data, "bad.pkl")


@pytest.mark.parametrize("name", ["V8", "f8,i4", "(1000000000,)f8", "M8", "os.system", "f", ""])
def test_unusual_array_types_are_refused(name):
    dtype = f"cnumpy\ndtype\n(S'{name}'\nI0\nI1\ntR".encode()
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt" + dtype + b"I00\nS''\ntb."
    )
    with pytest.raises(InputError, match="arrays of type .* are not read"):
        read_pickle_bytes(data, "bad.pkl")


def test_sparse_indices_out_of_range_are_refused():
    matrix = sparse.csc_matrix(np.eye(3))
    matrix.indices[1] = 1000
    with pytest.raises(InputError, match="bad.pkl is not a readable pickle"):
        read_pickle_bytes(pickle.dumps(matrix), "bad.pkl")


def test_shared_lists_are_read_once():
    content: Any = ["x"]
    for _ in range(60):
        content = [content, content]
    assert read_pickle_bytes(pickle.dumps(content), "file")[0] is not None


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"\x80", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04"])
def test_other_files_are_named_as_such(tmp_path, data):
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"model.pkl is not a readable pickle \(.+\); it may be damaged, or another kind of file"
    ) as error:
        read_pickle(path)
    assert "\n" not in str(error.value)


def test_a_login_page_is_named_as_such():
    with pytest.raises(InputError, match="file is a web page, not a model: the download needs a login in the browser"):
        read_pickle_bytes(b"\n<!DOCTYPE html><html>Sign in</html>", "file")


def test_missing_file(tmp_path):
    with pytest.raises(AssetMissingError, match="no such file: .*model.pkl"):
        read_pickle(tmp_path / "model.pkl")


def _valid_pickles() -> list[bytes]:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "s": sparse.csc_matrix(np.eye(2)), "t": "text"}
    ours = {**arrays, "c": Chumpy(np.ones(2)), "s": OldSparse(np.eye(2))}
    return [pickle.dumps(arrays, protocol) for protocol in PROTOCOLS] + [python2_pickle(ours, p) for p in (0, 1, 2)]


VALID = _valid_pickles()


@pytest.mark.parametrize("index", range(len(VALID)))
def test_truncated_files_are_refused(index):
    """A file that ends within a name reads as one with an unknown name; any other cut is called damage."""
    data = VALID[index]
    for length in range(0, len(data) - 1, 7):
        with pytest.raises((InputError, UnsafeFileError), match="not a readable pickle|no array type"):
            read_pickle_bytes(data[:length], "file")


@settings(max_examples=400)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_files_never_do_worse_than_a_user_error(data, damage):
    damaged = bytearray(data)
    for place, value in damage:
        damaged[place % len(damaged)] = value
    try:
        read_pickle_bytes(bytes(damaged), "file")
    except UserError as error:
        assert "\n" not in str(error)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_do_worse_than_a_user_error(data):
    try:
        read_pickle_bytes(data, "file")
    except UserError:
        return
    assert pickle.STOP in data


def test_reading_imports_nothing():
    data = python2_pickle({"c": Chumpy(np.ones(2)), "s": OldSparse(np.eye(2))})
    before = set(sys.modules)
    read_pickle_bytes(data, "file")
    assert set(sys.modules) == before and "chumpy" not in before
