"""Read arrays out of pickles from outside without executing anything in them.

A pickle is a program: it names functions and calls them. The unpickler here knows a short list of names, those that
numpy, scipy.sparse and chumpy write for arrays, and each of them is bound to an inert record of this module that merely
keeps what it was given. Only afterwards are the records turned into arrays, by this module's own code. numpy's
``__setstate__`` is never called, since a crafted dtype could make it read raw bytes as objects. Any other name is
refused.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from flame.errors import AssetMissingError, InputError, UnsafeFileError

_DTYPE_NAME = re.compile(r"[|<>=]?[biufcSUO][0-9]+")
_SPARSE_CLASSES = {
    "csc_matrix": sparse.csc_matrix,
    "csr_matrix": sparse.csr_matrix,
    "coo_matrix": sparse.coo_matrix,
    "csc_array": sparse.csc_matrix,
    "csr_array": sparse.csr_matrix,
    "coo_array": sparse.coo_matrix,
}


@dataclass(frozen=True)
class UnreadValue:
    """Stand for a value that is no plain array, such as a chumpy expression; harmless unless it is needed."""

    kind: str
    """The class that the file names."""


def read_pickle(path: str | Path) -> Any:
    """Return the content of a pickle file: dicts, lists, numbers, strings, numpy arrays, scipy sparse matrices.

    Python 2 pickles are read with their strings as Latin-1; chumpy arrays become numpy arrays.

    Raises:
        AssetMissingError: there is no such file.
        UnsafeFileError: the file names something that is not an array type.
        InputError: the file is damaged or no pickle.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AssetMissingError(f"no such file: {path}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions and the disk") from error
    return read_pickle_bytes(data, str(path))


def read_pickle_bytes(data: bytes, label: str) -> Any:
    """Return the content of a pickle given as bytes; ``label`` names it in messages. As `read_pickle` otherwise."""
    if data[:64].lstrip().startswith((b"<!", b"<html", b"<HTML")):
        raise InputError(f"{label} is a web page, not a model: the download needs a login in the browser")
    unpickler = _ArrayUnpickler(io.BytesIO(data), encoding="latin1")
    unpickler.label = label
    try:
        return Resolver(_Record, _plain).resolve(unpickler.load())
    except UnsafeFileError:
        raise
    except (Exception, RecursionError) as error:
        reason = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
        raise InputError(
            f"{label} is not a readable pickle ({reason}); it may be damaged, or another kind of file"
        ) from error


class _Record:
    """Keep the arguments and the state that a pickle gives to an object; do nothing with them."""

    kind = "object"
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Any:
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def value(self, resolver: Resolver) -> Any:
        """Return what this record stands for."""
        return UnreadValue(self.kind)


class _Dtype(_Record):
    kind = "numpy.dtype"

    def dtype(self) -> np.dtype:
        """Return the numpy type, of plain numbers, strings or objects; anything else is refused."""
        name = self.args[0] if self.args else None
        if not isinstance(name, str) or not _DTYPE_NAME.fullmatch(name):
            raise ValueError(f"arrays of type {name!r} are not read")
        if "O" in name:
            return np.dtype(object)
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        return np.dtype(name).newbyteorder(order) if order in ("<", ">") else np.dtype(name)


class _Array(_Record):
    kind = "numpy.ndarray"

    def value(self, resolver: Resolver) -> Any:
        """Build the array from ndarray's pickled state (version, shape, dtype, is_fortran, content)."""
        if not isinstance(self.state, tuple) or len(self.state) not in (4, 5):
            raise ValueError("array without content")
        shape, dtype, is_fortran, content = self.state[-4:]
        return _build_array(shape, dtype, content, bool(is_fortran), resolver)


class _BufferArray(_Record):
    kind = "numpy.ndarray"

    def value(self, resolver: Resolver) -> Any:
        """Build the array from the arguments of numpy's protocol-5 constructor (content, dtype, shape, order)."""
        content, dtype, shape, order = self.args
        return _build_array(shape, dtype, content, order == "F", resolver)


class _Scalar(_Record):
    kind = "numpy scalar"

    def value(self, resolver: Resolver) -> Any:
        dtype, content = self.args
        return _build_array((), dtype, content, False, resolver)[()]


class _NdarrayName(_Record):
    kind = "numpy.ndarray"


class _ObjectName(_Record):
    kind = "object"


class _Sparse(_Record):
    class_name = ""

    def value(self, resolver: Resolver) -> Any:
        """Rebuild a scipy sparse matrix from its attributes, checked by scipy."""
        state = resolver.resolve(self.state)
        if not isinstance(state, dict):
            raise ValueError(f"{self.kind} without content")
        shape = tuple(int(size) for size in state["_shape"])
        build = _SPARSE_CLASSES[self.class_name]
        if self.class_name.startswith("coo"):
            indices = state["coords"] if "coords" in state else (state["row"], state["col"])
            return build((state["data"], indices), shape=shape)
        matrix = build((state["data"], state["indices"], state["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
        return matrix


class _Chumpy(_Record):
    class_name = ""

    def value(self, resolver: Resolver) -> Any:
        """Return the numbers of a chumpy array, or of a selection from one; other expressions stay unread."""
        state = resolver.resolve(self.state)
        if not isinstance(state, dict):
            return UnreadValue(self.kind)
        numbers = state.get("x")
        if isinstance(numbers, np.ndarray):
            return numbers
        source, indices = state.get("a"), state.get("idxs")
        if self.class_name == "Select" and isinstance(source, np.ndarray) and isinstance(indices, np.ndarray):
            selected = source.reshape(-1)[indices.astype(np.int64).reshape(-1)]
            wanted = state.get("preferred_shape")
            return selected if wanted is None else selected.reshape([int(size) for size in wanted])
        return UnreadValue(self.kind)


class _Function:
    """Wrap a stand-in for a function so that a pickle can call it but not change it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a function is given attributes")


class Resolver:
    """Turn records into what they stand for, each once, however often the content refers to it."""

    def __init__(self, record: type, plain: Callable[[Any], Any]) -> None:
        """Know the class of records, whose ``value`` takes this resolver, and what becomes of values without parts."""
        self._record, self._plain = record, plain
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def resolve(self, value: Any) -> Any:
        """Return a value with every record in it replaced.

        Raises:
            ValueError: the content refers to itself.
        """
        if not isinstance(value, (dict, list, tuple, self._record)):
            return self._plain(value)
        key = id(value)
        if key in self._open:
            raise ValueError("the content refers to itself")
        if key not in self._done:
            self._open.add(key)
            self._done[key] = self._replaced(value)
            self._open.discard(key)
        return self._done[key]

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, self._record):
            return value.value(self)
        if isinstance(value, dict):
            return {self.resolve(key): self.resolve(item) for key, item in value.items()}
        return type(value)(self.resolve(item) for item in value)


def _plain(value: Any) -> Any:
    """Return a value that has no parts; names of code stay unread."""
    return UnreadValue("name") if callable(value) else value


class _ArrayUnpickler(pickle._Unpickler):
    """Bind the names that array pickles use to inert records, and refuse every other name.

    The unpickler of the standard library that is written in Python: the compiled one allocates a table as long as the
    largest number in the file, so that a few bytes could ask for all memory.
    """

    label = "the file"

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the stand-in for a global, by exact match against the list of known names."""
        known = _KNOWN_GLOBALS.get((module_name, global_name))
        if known is not None:
            return known
        if module_name.split(".")[:2] == ["scipy", "sparse"] and global_name in _SPARSE_CLASSES:
            return _named(_Sparse, module_name, global_name)
        if module_name.split(".")[0] == "chumpy" and global_name.isidentifier():
            return _named(_Chumpy, module_name, global_name)
        raise UnsafeFileError(
            f"{self.label} asks to use {module_name}.{global_name}, which is no array type; it is refused and nothing "
            "was executed: get the file from its publisher, or convert it to .npz with plain arrays"
        )


def _named(base: type[_Record], module_name: str, global_name: str) -> type[_Record]:
    return type(base.__name__, (base,), {"kind": f"{module_name}.{global_name}", "class_name": global_name})


def _reconstruct_array(*args: Any) -> _Array:
    """Stand in for numpy's ``_reconstruct(subtype, shape, typecode)``; the content follows as state."""
    return _Array(*args)


def _reconstruct_object(cls: Any, base: Any = None, state: Any = None) -> _Record:
    """Stand in for ``copyreg._reconstructor``: make an empty record of a known class."""
    if not (isinstance(cls, type) and issubclass(cls, _Record)) or base not in (None, _ObjectName) or state is not None:
        raise ValueError("object of an unknown class")
    return cls()


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """Stand in for ``_codecs.encode``, which Python 3 uses to write bytes in protocols 0 to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "iso-8859-1"):
        raise ValueError("bytes in an unexpected encoding")
    return text.encode("latin1")


def _empty_bytes(*args: Any) -> bytes:
    """Stand in for ``bytes()``, which Python 3 uses to write an empty value in protocols 0 to 2."""
    if args:
        raise ValueError("bytes built from a value")
    return b""


def _plain_dict(*args: Any) -> dict[Any, Any]:
    """Stand in for ``collections.OrderedDict``."""
    return {key: value for pairs in args for key, value in pairs}


def _plain_set(*args: Any) -> list[Any]:
    """Stand in for ``set``, which chumpy uses for bookkeeping that is not read."""
    return [value for values in args for value in values]


def _known_globals() -> dict[tuple[str, str], Any]:
    known: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _NdarrayName,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Function(_latin1_bytes),
        ("collections", "OrderedDict"): _Function(_plain_dict),
    }
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = _Function(_reconstruct_array)
        known[f"{core}.multiarray", "scalar"] = _Scalar
        known[f"{core}.numeric", "_frombuffer"] = _BufferArray
    for builtins in ("__builtin__", "builtins"):
        known[builtins, "object"] = _ObjectName
        known[builtins, "bytes"] = _Function(_empty_bytes)
        known[builtins, "set"] = _Function(_plain_set)
    for registry in ("copy_reg", "copyreg"):
        known[registry, "_reconstructor"] = _Function(_reconstruct_object)
    return known


_KNOWN_GLOBALS = _known_globals()


def _build_array(shape: Any, dtype: Any, content: Any, is_fortran: bool, resolver: Resolver) -> np.ndarray:
    """Return an array of numbers or strings from raw bytes, or one of objects from a list of values."""
    if not isinstance(dtype, _Dtype):
        raise ValueError("array without a type")
    numpy_dtype, order = dtype.dtype(), "F" if is_fortran else "C"
    sizes = tuple(int(size) for size in shape)
    if numpy_dtype.kind == "O":
        if not isinstance(content, list):
            raise ValueError("array of objects without a list")
        values = np.empty(len(content), dtype=object)
        for index, value in enumerate(content):
            values[index] = resolver.resolve(value)
        return values.reshape(sizes, order=order)
    raw = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(raw, (bytes, bytearray)):
        raise ValueError("array without bytes")
    return np.frombuffer(raw, dtype=numpy_dtype).reshape(sizes, order=order).copy(order=order)
