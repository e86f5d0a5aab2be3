"""The examples run as they are, and do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tracker import Track

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))


def run_example(name: str, *arguments: str) -> str:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def vertices_of(path: Path) -> np.ndarray:
    lines = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("v ")]
    return np.array(lines, float)


def test_hello_video(tmp_path):
    printed = run_example("00_hello_video.py", "--max-frames", "31", "-o", str(tmp_path))
    assert "tracked in 31 of 31 frames" in printed
    yaw = [float(value) for value in re.findall(r"ok +([-+]\d+\.\d)°", printed)]
    assert len(yaw) == 7
    assert abs(yaw[0]) < 4 and yaw[-1] < -12  # the clip begins frontal and turns to the left of the picture
    assert len(Track.load(tmp_path)) == 31
    assert (tmp_path / "overlay.mp4").stat().st_size > 0


def test_one_image(tmp_path):
    run_example("01_one_image.py", "-o", str(tmp_path))
    track = Track.load(tmp_path)
    assert len(track) == 1
    posed, neutral = vertices_of(tmp_path / "posed.obj"), vertices_of(tmp_path / "neutral.obj")
    assert np.allclose(posed, track.vertices(0), atol=1e-5)
    assert posed.shape == neutral.shape == (track.head_model.num_vertices, 3)


def test_dense_maps():
    printed = run_example("04_dense_maps.py", "--steps", "10")
    ours, adams = (float(value) for value in re.findall(r"energy (\d+\.\d) in", printed))
    assert ours < adams


def test_exports(tmp_path):
    printed = run_example("05_exports.py", "--max-frames", "12", "-o", str(tmp_path))
    assert "glb: " in printed and "in 12 frames" in printed
    assert (tmp_path / "export" / "glb" / "track.glb").read_bytes()[:4] == b"glTF"
    assert np.loadtxt(tmp_path / "jaw.csv", delimiter=",").shape == (12, 2)


def test_your_own_term():
    printed = run_example("02_your_own_term.py")
    difference = [float(value) for value in re.findall(r"difference (\d\.\d+)", printed)]
    residual_px = [float(value) for value in re.findall(r"residual (\d+\.\d+) px", printed)]
    assert difference[1] < 0.2 * difference[0]
    assert residual_px[1] < residual_px[0] + 0.5


def test_photos_of_one_person():
    printed = run_example("03_photos_of_one_person.py")
    assert "one identity for all 4 photos: True" in printed
    assert len(re.findall(r"photo_\d\.png: residual", printed)) == 4


def test_every_example_is_tested():
    tests = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES if f'"{path.name}"' not in tests] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_in_the_readme(path):
    assert len(path.read_text().splitlines()) <= 60
    assert path.name in (ROOT / "examples" / "README.md").read_text()
