"""Read tensors and plain configuration out of a file of ``torch.save`` without executing anything in it.

Such a file is a ZIP archive: one pickle, and the raw numbers of every tensor beside it. The unpickler here binds each
name that the pickle uses to an inert record of this module, as ``flame.safe_pickle`` does; a name outside a short list
is refused. Containers of OmegaConf, which training programs like to store, become dictionaries and lists; OmegaConf
itself is not needed. Numbers are read only of tensors that are asked for, so optimiser states cost nothing.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flame.errors import AssetMissingError, InputError, UnsafeFileError, UserError
from flame.safe_pickle import Resolver

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_PLAIN_BUILTINS = frozenset(("bool", "bytes", "dict", "float", "int", "list", "object", "set", "str", "tuple"))
_BOOKKEEPING = frozenset(
    ("omegaconf", "pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "torch", "numpy")
    + ("collections", "typing", "pathlib", "enum", "datetime", "copyreg", "_codecs")
)
"""Packages whose names in a pickle stand for bookkeeping: each becomes a record that does nothing."""
_MAX_PICKLE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Unread:
    """Stand for an object of a class that is not needed; harmless unless somebody wants its value."""

    kind: str
    """The class or function that the file names."""


@dataclass(frozen=True)
class TorchFile:
    """Hold what a file of ``torch.save`` contains; tensors are read when asked for."""

    path: Path
    content: Any
    """Dicts, lists, numbers and strings, with ``StoredTensor`` for tensors and ``Unread`` for other objects."""

    def tensors(self, stored: Mapping[str, Any]) -> dict[str, Tensor]:
        """Read the tensors among the values of a dictionary of the content.

        Raises:
            InputError: the file does not hold the numbers that it promises.
        """
        found = {}
        blocks: dict[str, Tensor] = {}
        with _opened(self.path) as archive:
            for name, value in stored.items():
                if isinstance(value, StoredTensor):
                    found[name] = value.read(archive, blocks, f"{self.path}: {name}")
        return found


class _Unchangeable:
    """Refuse attributes that a pickle gives to an object."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("something is given attributes that takes none")


@dataclass(frozen=True)
class Storage(_Unchangeable):
    """Name a block of numbers in the archive."""

    entry: str
    """Member of the archive."""
    dtype: torch.dtype
    count: int
    """How many numbers there are."""


@dataclass(frozen=True)
class StoredTensor(_Unchangeable):
    """Describe a tensor whose numbers are still in the file."""

    storage: Storage
    offset: int
    """Where in the storage it begins."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Steps along each axis, numbers."""

    def read(self, archive: zipfile.ZipFile, blocks: dict[str, Tensor], label: str) -> Tensor:
        """Return a copy of the tensor's numbers; ``blocks`` keeps those that several tensors share."""
        storage = self.storage
        if storage.entry not in blocks:
            blocks[storage.entry] = _read_block(archive, storage, label)
        sizes = (self.offset, *self.shape, *self.strides)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if min(sizes) < 0 or (math.prod(self.shape) > 0 and last >= storage.count):
            raise InputError(f"{label} reaches beyond the numbers that the file holds; the file is damaged")
        if math.prod(self.shape) > storage.count:
            raise InputError(f"{label} repeats its numbers to a shape of {self.shape}; no weights are stored like that")
        return torch.as_strided(blocks[storage.entry], self.shape, self.strides, self.offset).contiguous().clone()


def read_torch_file(path: str | Path) -> TorchFile:
    """Read the structure of a file of ``torch.save``.

    Raises:
        AssetMissingError: there is no such file.
        UnsafeFileError: the file names something that is neither a tensor nor bookkeeping.
        InputError: the file is damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise AssetMissingError(f"no such file: {path}")
    with _opened(path) as archive:
        try:
            prefix, names = _layout(archive)
            if f"{prefix}byteorder" in names and archive.read(f"{prefix}byteorder") != sys.byteorder.encode():
                raise InputError(f"{path} was written on a machine of another byte order")
            if archive.getinfo(f"{prefix}data.pkl").file_size > _MAX_PICKLE_BYTES:
                raise InputError(f"{path}: its description of the content is too large to be one")
            unpickler = _TensorUnpickler(io.BytesIO(archive.read(f"{prefix}data.pkl")), encoding="utf-8")
            unpickler.label, unpickler.prefix = str(path), prefix
            return TorchFile(path, Resolver(_Record, _plain).resolve(unpickler.load()))
        except UserError:
            raise
        except (Exception, RecursionError) as error:  # what a damaged archive or pickle raises is of many kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path} is not a readable file of torch.save ({reason}); it may be damaged") from error


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions and the disk") from error
    except Exception as error:  # zipfile says in many ways that a file is no archive, or a damaged one
        with path.open("rb") as stream:
            start = stream.read(64).lstrip().lower()
        if start.startswith((b"<!", b"<html")):
            raise InputError(f"{path} is a web page, not weights: download it in the browser") from error
        raise InputError(
            f"{path} is not a file of torch.save (no ZIP archive); it may be cut off or of another kind"
        ) from error


def _layout(archive: zipfile.ZipFile) -> tuple[str, frozenset[str]]:
    """Return the archive's inner folder with a slash, and the names of all members."""
    names = frozenset(archive.namelist())
    folders = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise ValueError("the archive holds no data.pkl")
    return folders[0], names


def _read_block(archive: zipfile.ZipFile, storage: Storage, label: str) -> Tensor:
    try:
        member = archive.getinfo(storage.entry)
        # torch.save never compresses; a small compressed member could swell to any size.
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != storage.count * storage.dtype.itemsize:
            raise ValueError("its size is not the promised one")
        content = bytearray(archive.read(member))
    except Exception as error:  # what a damaged archive raises is of many kinds
        reason = " ".join(str(error).split())
        raise InputError(f"{label} cannot be read ({reason}); the file is damaged") from error
    return torch.frombuffer(content, dtype=storage.dtype) if content else torch.empty(0, dtype=storage.dtype)


class _Record:
    """Keep the state that a pickle gives to an object; do nothing with it."""

    kind = "object"
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Any:
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take an item as a list would; it is not kept."""

    def extend(self, values: Any) -> None:
        """Take items as a list would; they are not kept."""

    def value(self, resolver: Resolver) -> Any:
        """Return what this record stands for."""
        return Unread(self.kind)


class _OmegaConf(_Record):
    """Stand for OmegaConf's DictConfig and ListConfig and for the values in them."""

    field = ""

    def value(self, resolver: Resolver) -> Any:
        """Return the plain content."""
        if not isinstance(self.state, dict) or self.field not in self.state:
            raise ValueError(f"{self.kind} without content")
        return resolver.resolve(self.state[self.field])


class _Mapping(dict):
    """Stand for subclasses of dict: ordered, with defaults, with attributes; keep the items only."""

    def __init__(self, *args: Any) -> None:
        # The factory of a defaultdict is no content.
        super().__init__(*(pairs for pairs in args if isinstance(pairs, (dict, list, tuple))))

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class _StorageName(_Unchangeable):
    """Stand for a class of storage."""

    dtype: torch.dtype


class _Function(_Unchangeable):
    """Wrap a stand-in for a function so that a pickle can call it but not change it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


class _TensorUnpickler(pickle._Unpickler):
    """Bind known names to records, refuse all others; written in Python, for the reason in ``flame.safe_pickle``."""

    label = "the file"
    prefix = ""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the stand-in for a global."""
        name = f"{module_name}.{global_name}"
        known = _KNOWN.get(name)
        if known is not None:
            return known
        if module_name == "torch" and global_name in _STORAGES:
            return _StorageName(_STORAGES[global_name])
        package = module_name.split(".")[0]
        is_plain = package in ("builtins", "__builtin__") and global_name in _PLAIN_BUILTINS
        if is_plain or (package in _BOOKKEEPING and global_name.isidentifier()):
            return _record_class(module_name, global_name)
        raise UnsafeFileError(
            f"{self.label} asks to use {name}, which is neither a tensor nor plain configuration; it is refused and "
            "nothing was executed: get the file from its publisher"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Return the block of numbers that a persistent id names: ("storage", class, key, device, count)."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageName):
            raise ValueError("a reference that is no storage of numbers")
        if not isinstance(pid[2], str) or not isinstance(pid[4], int) or pid[4] < 0:
            raise ValueError("a storage of numbers without name or size")
        return Storage(f"{self.prefix}data/{pid[2]}", pid[1].dtype, pid[4])


def _record_class(module_name: str, global_name: str) -> type[_Record]:
    """Return a class for what is bookkeeping, or OmegaConf's."""
    values = {"kind": f"{module_name}.{global_name}"}
    if module_name.startswith("omegaconf."):
        if global_name in ("DictConfig", "ListConfig"):
            return type(global_name, (_OmegaConf,), {**values, "field": "_content"})
        if global_name.endswith("Node"):
            return type(global_name, (_OmegaConf,), {**values, "field": "_val"})
    return type(global_name, (_Record,), values)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_others: Any) -> StoredTensor:
    """Stand in for ``torch._utils._rebuild_tensor_v2``."""
    sizes = tuple(shape), tuple(strides)
    if not isinstance(storage, Storage) or not all(isinstance(size, int) for size in (offset, *sizes[0], *sizes[1])):
        raise ValueError("a tensor without numbers")
    if len(sizes[0]) != len(sizes[1]):
        raise ValueError("a tensor with more sizes than strides")
    return StoredTensor(storage, offset, *sizes)


def _rebuild_parameter(data: Any, *_others: Any) -> Any:
    """Stand in for ``torch._utils._rebuild_parameter``."""
    return data


_KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Function(_rebuild_parameter),
    "collections.OrderedDict": _Mapping,
    "collections.defaultdict": _Mapping,
    "lightning_fabric.utilities.data.AttributeDict": _Mapping,
    "lightning.fabric.utilities.data.AttributeDict": _Mapping,
    "pytorch_lightning.utilities.parsing.AttributeDict": _Mapping,
}


def _plain(value: Any) -> Any:
    """Return a value that has no parts; anything but numbers, texts and tensors stays unread."""
    is_known = isinstance(value, (str, bytes, bool, int, float, type(None), Storage, StoredTensor))
    return value if is_known else Unread("name")
