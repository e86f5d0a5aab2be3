"""Find out what the computer lacks before a library deep below says so in its own words.

Runs on the standard library alone: ``python -m tracker.system_check``.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass

from flame.errors import UserError


@dataclass(frozen=True)
class SystemLibrary:
    """Name a shared library that the wheels link to and do not bring along."""

    file_name: str
    """The name that the loader looks for."""
    apt_package: str
    """Where Debian and Ubuntu have it."""
    dnf_package: str
    """Where Fedora and its relatives have it."""


# What opencv-contrib-python needs of a bare Debian, found by trial; torch, mediapipe, av and decord bring all theirs.
SYSTEM_LIBRARIES = (
    SystemLibrary("libGL.so.1", "libgl1", "libglvnd-glx"),
    SystemLibrary("libglib-2.0.so.0", "libglib2.0-0", "glib2"),
    SystemLibrary("libgthread-2.0.so.0", "libglib2.0-0", "glib2"),
)
PYTHON_MODULES = ("av", "cv2", "mediapipe", "numba", "numpy", "scipy", "torch", "tqdm")


class MissingDependencyError(UserError, ImportError):
    """Something that must be installed before the tracker can run is not."""


def check_python_packages(find: Callable[[str], object] = importlib.util.find_spec) -> None:
    """Make sure that the Python packages are there, without importing them.

    Raises:
        MissingDependencyError: some are not; the message names them and the command that installs them.
    """
    missing = [name for name in PYTHON_MODULES if find(name) is None]
    if missing:
        raise MissingDependencyError(
            f"missing Python modules: {', '.join(missing)} (this is {sys.executable}); "
            "run `make demo`, or `python -m pip install -c constraints.txt -e .` in an environment of Python 3.10-3.12"
        )


def check_system_libraries(load: Callable[[str], object] = ctypes.CDLL) -> None:
    """Make sure that the shared libraries which the wheels expect of a Linux system can be loaded.

    Raises:
        MissingDependencyError: some cannot; the message names them and the command that installs them.
    """
    if not sys.platform.startswith("linux"):
        return
    missing = [library for library in SYSTEM_LIBRARIES if not _can_load(library.file_name, load)]
    # A build of OpenCV without windows needs none of them.
    if not missing or _can_import("cv2"):
        return
    apt = " ".join(dict.fromkeys(library.apt_package for library in missing))
    dnf = " ".join(dict.fromkeys(library.dnf_package for library in missing))
    names = ", ".join(library.file_name for library in missing)
    raise MissingDependencyError(
        f"missing system libraries: {names}; "
        f"install them with `sudo apt-get install {apt}` (Debian, Ubuntu) or `sudo dnf install {dnf}` (Fedora)"
    )


def main() -> int:
    """Check everything; print one line and return 2 where something is missing."""
    try:
        check_python_packages()
        check_system_libraries()
    except MissingDependencyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _can_load(file_name: str, load: Callable[[str], object]) -> bool:
    try:
        load(file_name)
    except OSError:
        return False
    return True


def _can_import(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
