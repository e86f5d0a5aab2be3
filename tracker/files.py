"""Write files in one atomic step: readers see the old file or the whole new one, never half of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from flame.errors import InputError


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose content becomes the file at ``path`` when the block ends without an exception.

    Raises:
        InputError: the folder cannot be written or is full.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another folder with -o.") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def make_output_folder(path: Path) -> Path:
    """Create an output folder and see that files can be written there.

    Raises:
        InputError: it is a file, or cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"output folder {path} cannot be written: {error.strerror or error}; choose another folder with -o."
        ) from error
    return path
