import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from flame.errors import UserError
from tracker import system_check
from tracker.system_check import (
    MissingDependencyError,
    SystemLibrary,
    check_python_packages,
    check_system_libraries,
    main,
)

ROOT = Path(__file__).parents[2]


def refuse(*names):
    """Imitate a loader on a computer that lacks some libraries."""

    def load(name):
        if name in names:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return object()

    return load


@pytest.fixture
def bare_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(system_check, "_can_import", lambda name: False)


def test_nothing_is_said_where_nothing_is_missing(bare_linux):
    check_system_libraries(refuse())
    check_python_packages(lambda name: object())


def test_missing_libraries_are_named_with_their_cure(bare_linux):
    with pytest.raises(UserError, match=r"missing system libraries: libGL\.so\.1; install") as caught:
        check_system_libraries(refuse("libGL.so.1"))
    assert "`sudo apt-get install libgl1`" in str(caught.value)
    assert "`sudo dnf install libglvnd-glx`" in str(caught.value)


def test_a_package_with_two_libraries_is_named_once(bare_linux):
    with pytest.raises(MissingDependencyError) as caught:
        check_system_libraries(refuse("libGL.so.1", "libglib-2.0.so.0", "libgthread-2.0.so.0"))
    message = str(caught.value)
    assert "libGL.so.1, libglib-2.0.so.0, libgthread-2.0.so.0" in message
    assert "`sudo apt-get install libgl1 libglib2.0-0`" in message
    assert "\n" not in message


def test_an_opencv_that_needs_no_windows_is_accepted(bare_linux, monkeypatch):
    monkeypatch.setattr(system_check, "_can_import", lambda name: name == "cv2")
    check_system_libraries(refuse("libGL.so.1"))


def test_other_systems_are_not_asked(bare_linux, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    check_system_libraries(refuse("libGL.so.1"))


def test_missing_python_modules_are_named():
    with pytest.raises(UserError, match=r"missing Python modules: cv2, numba .*make demo.*pip install -c constraints"):
        check_python_packages(lambda name: None if name in ("cv2", "numba") else object())


def test_the_check_passes_here():
    check_python_packages()
    check_system_libraries()
    assert main() == 0


def test_main_prints_one_line_and_fails(bare_linux, monkeypatch, capsys):
    absent = SystemLibrary("libnowhere.so.1", "libnowhere1", "nowhere")
    monkeypatch.setattr(system_check, "SYSTEM_LIBRARIES", (absent,))
    assert main() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: missing system libraries: libnowhere.so.1;")
    assert captured.err.count("\n") == 1


def test_the_check_itself_loads_nothing_that_may_be_broken():
    loaded = "sorted({'cv2', 'mediapipe', 'av', 'decord'} & set(sys.modules))"
    code = f"import sys, tracker, tracker.system_check; print({loaded})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_module_that_is_checked_exists_under_its_name():
    assert all(importlib.util.find_spec(name) for name in system_check.PYTHON_MODULES)


def test_an_unknown_name_in_the_package_is_an_attribute_error():
    import tracker

    with pytest.raises(AttributeError, match="no attribute 'trak'"):
        _ = tracker.trak
