"""Training data on disk: numbered tar files of samples (WebDataset layout), and an index that knows their hashes.

A sample ``KEY`` (8 digits) is three members: ``KEY.jpg``, the picture; ``KEY.npz``, its labels, quantised as
`LabelMaps.quantised` says; ``KEY.json``, everything else. Shards appear whole or not at all, and the index is renewed
after each, so a run that is stopped leaves a folder that can be read, and continued.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flame.errors import AssetMissingError, InputError
from priors.training.labels import LabelMaps

INDEX_NAME = "index.json"
FORMAT_VERSION = 1
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class ShardEntry:
    """Describe one finished shard."""

    name: str
    """File name in the folder."""
    count: int
    """Number of samples."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Hash of the file, hexadecimal."""


@dataclass(frozen=True)
class ShardIndex:
    """Describe a folder of shards."""

    head_hash: str
    """``content_hash`` of the head that the labels speak of."""
    image_px: int
    """Side of the pictures, pixels."""
    labels_px: int
    """Side of the label maps, pixels."""
    seed: int
    """What all randomness comes from."""
    samples_per_shard: int
    """Number of samples of each shard but the last."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of the run."""
    note: str = ""
    """Where the data come from and under which terms they may be used."""
    shards: tuple[ShardEntry, ...] = ()
    """The finished shards, in order of their names."""
    version: int = FORMAT_VERSION
    """Version of the format."""

    @property
    def count(self) -> int:
        """Return the number of samples."""
        return sum(shard.count for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Store the index in a folder; the file appears whole or not at all."""
        partial = folder / f"{INDEX_NAME}.{os.getpid()}.part"
        try:
            partial.write_text(json.dumps({**asdict(self), "count": self.count}, indent=1) + "\n", encoding="utf-8")
            partial.replace(folder / INDEX_NAME)
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def read(folder: Path) -> ShardIndex:
        """Read the index of a folder.

        Raises:
            AssetMissingError: there is none.
            InputError: it is damaged, or of another version.
        """
        path = Path(folder) / INDEX_NAME
        if not path.is_file():
            raise AssetMissingError(
                f"no training data in {folder}: it has no {INDEX_NAME}; make some with python -m "
                f"priors.training.render --out {folder}"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["version"]
            if version != FORMAT_VERSION:
                raise InputError(f"{path} has format version {version}; this program reads version {FORMAT_VERSION}")
            values.pop("count")
            values["shards"] = tuple(ShardEntry(**entry) for entry in values["shards"])
            return ShardIndex(**values)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is damaged ({error}); delete the folder and make the data again") from error


def shard_name(number: int) -> str:
    """Return the file name of a shard by its number."""
    return f"shard-{number:06d}.tar"


def encode_sample(image: np.ndarray, labels: LabelMaps, meta: Mapping[str, Any]) -> dict[str, bytes]:
    """Return a sample's members by extension: picture uint8 (S, S, 3) RGB, labels and other facts."""
    import cv2

    done, jpeg = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    if not done:
        raise InputError(f"a picture of shape {image.shape} and type {image.dtype} cannot be stored as JPEG")
    arrays = io.BytesIO()
    np.savez(arrays, allow_pickle=False, **labels.quantised())  # type: ignore[arg-type]
    text = json.dumps(dict(meta), separators=(",", ":"), sort_keys=True)
    return {"jpg": jpeg.tobytes(), "npz": arrays.getvalue(), "json": text.encode()}


def write_shard(path: Path, first_key: int, samples: Iterable[Mapping[str, bytes]]) -> ShardEntry:
    """Write samples (members by extension), numbered from ``first_key``, into a tar file that appears whole.

    The same samples give the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
            for count, members in enumerate(samples, 1):
                for extension, content in members.items():
                    member = tarfile.TarInfo(f"{first_key + count - 1:08d}.{extension}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        entry = ShardEntry(path.name, count, partial.stat().st_size, _sha256(partial))
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); check the folder and the disk") from error
    finally:
        partial.unlink(missing_ok=True)
    return entry


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class ShardReader:
    """Read the samples of a folder in any order; usable from several threads and processes at once."""

    def __init__(self, folder: str | Path) -> None:
        """Read the folder's index.

        Raises:
            AssetMissingError: the folder has no index, or a shard is missing.
            InputError: the index is damaged, or a shard has another size than it says.
        """
        self.folder = Path(folder)
        self.index = ShardIndex.read(self.folder)
        for shard in self.index.shards:
            path = self.folder / shard.name
            if not path.is_file():
                raise AssetMissingError(f"{path} is missing; make the data again, or remove it from {INDEX_NAME}")
            if path.stat().st_size != shard.bytes:
                found = path.stat().st_size
                raise InputError(f"{path} has {found} bytes, its index says {shard.bytes}; make the data again")
        self._first = np.cumsum([0, *(shard.count for shard in self.index.shards)])

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._first[-1])

    def read(self, number: int) -> tuple[np.ndarray, LabelMaps, dict[str, Any]]:
        """Return picture uint8 (S, S, 3) RGB, labels and other facts of a sample, 0 <= number < len.

        Raises:
            InputError: there is no such sample, or it is damaged.
        """
        if not 0 <= number < len(self):
            raise InputError(f"there is no sample {number}; {self.folder} has {len(self)}, numbered from 0")
        import cv2

        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        path = self.folder / self.index.shards[shard].name
        members = self._members[shard][number - int(self._first[shard])]
        content = {}
        with path.open("rb") as stream:
            for extension, (offset, size) in members.items():
                stream.seek(offset)
                content[extension] = stream.read(size)
        try:
            image = cv2.imdecode(np.frombuffer(content["jpg"], np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError("the picture is no JPEG")
            with np.load(io.BytesIO(content["npz"]), allow_pickle=False) as arrays:
                labels = LabelMaps.from_quantised(dict(arrays))
            meta = json.loads(content["json"])
        except (KeyError, ValueError, OSError) as error:
            raise InputError(f"sample {number} in {path} is damaged ({error}); make the data again") from error
        return np.ascontiguousarray(image[..., ::-1]), labels, meta

    def check(self) -> None:
        """Compare every shard with its hash.

        Raises:
            InputError: one differs.
        """
        for shard in self.index.shards:
            if _sha256(self.folder / shard.name) != shard.sha256:
                raise InputError(f"{self.folder / shard.name} differs from what was written; make the data again")

    @cached_property
    def _members(self) -> _MemberTables:
        return _MemberTables([self.folder / shard.name for shard in self.index.shards])


class _MemberTables:
    """Know where each sample's members lie in each shard: read when first asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._tables: dict[int, list[dict[str, tuple[int, int]]]] = {}

    def __getitem__(self, shard: int) -> list[dict[str, tuple[int, int]]]:
        """Return offset and size of a shard's members by sample and extension."""
        if shard not in self._tables:
            samples: dict[str, dict[str, tuple[int, int]]] = {}
            try:
                with tarfile.open(self._paths[shard], "r:") as archive:
                    for member in archive:
                        key, _, extension = member.name.partition(".")
                        samples.setdefault(key, {})[extension] = (member.offset_data, member.size)
            except (tarfile.TarError, OSError) as error:
                raise InputError(f"{self._paths[shard]} is no readable tar file ({error})") from error
            self._tables[shard] = list(samples.values())
        return self._tables[shard]
