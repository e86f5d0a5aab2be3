"""Write results so that readers see the old file or the whole new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from tracker.errors import OutputError

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose content becomes the file at ``path`` when the block ends without an exception.

    Raises:
        OutputError: the folder is not there, cannot be written, or is full.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Write a (height, width, 3) uint8 RGB picture; the suffix decides the format.

    Raises:
        OutputError: the folder is not there, cannot be written, or is full, or the suffix is no image format.
    """
    path = Path(path)
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format not in Image.SAVE:
        raise OutputError(f"{path}: {path.suffix or 'no suffix'} is no image format; use .png or .jpg")
    with write_atomically(path) as stream:
        Image.fromarray(image).save(stream, format=image_format)


def make_output_folder(path: Path) -> Path:
    """Create an output folder and see that files can be written there.

    Raises:
        OutputError: it is a file, or cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise output_error(path, error) from error
    return path


def output_error(path: Path, error: OSError) -> OutputError:
    """Say in one line why a file or folder could not be written."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return OutputError(f"{path}: cannot be made, a file is in its way; choose another folder with -o")
    if isinstance(error, FileNotFoundError):
        return OutputError(f"{path}: there is no folder {path.parent}; make it first or choose another with -o")
    if error.errno in _FULL_DISK:
        return OutputError(f"{path}: the disk is full; free some space or choose another folder with -o")
    if error.errno in _NO_PERMISSION:
        return OutputError(f"{path}: no permission to write there; choose another folder with -o")
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder with -o")
