"""GLB files as the Khronos validator, Blender and three.js read them; see tests/interop/README.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from flame.camera import project
from flame.shading import vertex_normals
from tests.interop.programs import blender_vertices, three_vertices, validate_glb
from tests.tracker.export.tracks import small_track, toy_head_file
from tracker.export.glb import write
from tracker.export.job import ExportJob
from tracker.export.rig import shown_frames
from tracker.result import Track
from tracker.texture import HeadTexture

TOLERANCE_M = 1e-4
CAM_FROM_GLTF = np.array((1.0, -1.0, -1.0))
TEXTURE_PX = 256


@dataclass(frozen=True, eq=False)
class Case:
    """Hold a file and what it was written from."""

    path: Path
    track: Track

    @property
    def seconds(self) -> np.ndarray:
        return (self.track.pts_seconds - self.track.pts_seconds[0]).astype(np.float32)

    @property
    def meshes(self) -> list[str]:
        people = range(self.track.num_people)
        return ["head"] if len(people) == 1 else [f"person_{person}_head" for person in people]

    def vertices(self, person: int, frame: int) -> np.ndarray:
        """Return what a reader should see, in the axes of glTF."""
        shown = shown_frames(self.track.is_tracked[person])[frame]
        return self.track.vertices(int(shown), person) * CAM_FROM_GLTF


def skin(track: Track) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices of the face's skin, and texture coordinates (V, 2) of all."""
    topology = track.head_model.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    uv = np.zeros((track.head_model.num_vertices, 2))
    uv[topology.faces] = topology.uv[topology.uv_faces]
    hidden = topology.region("lips", "eyelids", "eyes", "eye_sockets", "inner_mouth", "ears", "scalp")
    return np.flatnonzero(topology.region("face") & ~hidden), uv


def quarters(track: Track) -> tuple[np.ndarray, HeadTexture]:
    """Return where the face has the middle of its texture coordinates, and a texture whose colours change there."""
    vertices, uv = skin(track)
    middle = np.median(uv[vertices], axis=0)
    rgb = np.full((TEXTURE_PX, TEXTURE_PX, 3), 128, np.uint8)
    column, row = round(middle[0] * TEXTURE_PX), round((1 - middle[1]) * TEXTURE_PX)
    rgb[:, :column, 0], rgb[:, column:, 0] = 40, 250
    rgb[:row, :, 1], rgb[row:, :, 1] = 250, 40
    return middle, HeadTexture(rgb, np.ones(rgb.shape[:2], np.float32))


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Callable[[str], Case]:
    """Return a function that writes a file by its name, once."""
    home = tmp_path_factory.mktemp("glb")
    written: dict[str, Case] = {}

    def make(name: str) -> Case:
        if name not in written:
            folder = home / name
            folder.mkdir()
            track = TRACKS[name](home)
            with pytest.MonkeyPatch.context() as patch:
                # The first of two people has a texture, the other one is clay.
                texture = None if name in ("flame", "alone") else quarters(track)[1]
                patch.setattr(ExportJob, "texture", lambda job, person: None if person else texture)
                write(ExportJob(track, folder))
            written[name] = Case(folder / "track.glb", track)
        return written[name]

    return make


def flame_track(home: Path) -> Track:
    """Return a track on a FLAME file, whose expressions go beyond [0, 1] as FLAME's do."""
    track = small_track(toy_head_file(home), frames=20, seconds_per_frame=1001 / 24000)
    expression = track.expression.copy()
    expression[0, :, 0], expression[0, :, 1] = np.linspace(0, -2.5, 20), np.linspace(0, 3, 20)
    jaw = track.jaw + np.linspace(-0.2, 0.5, 20, dtype=np.float32)[:, None] * np.float32((1, 0, 0))
    return replace(track, expression=expression, jaw=jaw)


TRACKS: dict[str, Callable[[Path], Track]] = {
    "people": lambda home: small_track(people=2, frames=20, lost=((0, 0), (1, 7), (1, 8)), first_seconds=1.5),
    "flame": flame_track,
    "alone": lambda home: small_track(frames=3, seconds_per_frame=1 / 30),
    "one_frame": lambda home: small_track(frames=1),
}


def test_the_validator_has_no_complaint(case):
    reports = validate_glb(*(case(name).path for name in TRACKS))
    for path, report in reports.items():
        issues = report["issues"]
        assert issues["numErrors"] == issues["numWarnings"] == issues["numHints"] == 0, issues["messages"]
        # Texture coordinates of a head without a texture are there for its user's own; and the validator says that it
        # does not know everything about KHR_animation_pointer.
        codes = {message["code"] for message in issues["messages"]}
        assert codes <= {"UNUSED_OBJECT", "INCOMPLETE_EXTENSION_SUPPORT"}, issues["messages"]
        assert report["info"]["hasSkins"] and report["info"]["hasMorphTargets"], path
    assert len(reports) == len(TRACKS)


def test_the_validator_finds_what_is_wrong(case, tmp_path):
    content = bytearray(case("one_frame").path.read_bytes())
    broken = tmp_path / "broken.glb"
    broken.write_bytes(content.replace(b'"WEIGHTS_0"', b'"WEIGHTS_1"'))
    assert validate_glb(broken)[broken]["issues"]["numErrors"] > 0


@pytest.mark.parametrize("name", ["people", "flame", "one_frame"])
def test_blender_has_our_vertices(case, name):
    ours = case(name)
    # At 24 frames a second the keys of most tracks lie between Blender's frames.
    found = blender_vertices(ours.path, ours.seconds)
    assert len(ours.seconds) == (1 if name == "one_frame" else 20)
    for person, mesh in enumerate(ours.meshes):
        rows = found[f"{mesh}/map"].astype(int)
        assert np.array_equal(np.unique(rows), np.arange(ours.track.head_model.num_vertices))
        for frame, vertices in enumerate(found[f"{mesh}/vertices"]):
            expected = ours.vertices(person, frame)[rows]
            assert np.linalg.norm(vertices - expected, axis=1).max() < TOLERANCE_M, (mesh, frame)
    if name == "people":
        check_what_blender_tells(ours, found["told"])


def check_what_blender_tells(ours: Case, told: dict[str, Any]) -> None:
    """Compare names, texture and camera."""
    assert set(told["shape_keys"]) == set(ours.meshes)
    names = ours.track.expression_names
    assert told["shape_keys"]["person_0_head"][: len(names)] == list(names)
    joints = ("root", "neck", "jaw", "left_eye", "right_eye")
    assert told["bones"] == sorted(f"person_{person}_{joint}" for person in range(2) for joint in joints)
    assert told["images"] == ["person_0_skin"]
    intrinsics = ours.track.intrinsics
    assert told["camera_yfov"] == pytest.approx(2 * np.arctan(intrinsics.height / 2 / intrinsics.fy), abs=1e-5)
    assert np.allclose(told["camera_place"], 0, atol=1e-9) and np.allclose(told["camera_ahead"], (0, 1, 0), atol=1e-6)


@pytest.mark.parametrize("name", ["people", "flame"])
def test_three_js_plays_it(case, name):
    ours = case(name)
    frames = np.array((0, 3, 7, 8, 12, 19))
    found, pictures = three_vertices(ours.path, ours.seconds[frames])
    assert found["problems"] == []
    assert [fact["name"] for fact in found["facts"]] == ours.meshes
    assert found["clips"][0]["seconds"] == pytest.approx(ours.seconds[-1], abs=1e-5)
    assert all(clip["tracks"] == 0 for clip in found["clips"][1:])
    for person, fact in enumerate(found["facts"]):
        rows = np.array(fact["map"]).astype(int)
        assert fact["isSkinned"] and len(fact["bones"]) == 5
        assert fact["morphs"][:8] == list(ours.track.expression_names or [f"expression_{k:03d}" for k in range(8)])[:8]
        for number, frame in enumerate(frames):
            vertices = np.array(found["positions"][number][person]).reshape(-1, 3)
            expected = ours.vertices(person, frame)[rows]
            assert np.linalg.norm(vertices - expected, axis=1).max() < TOLERANCE_M, (fact["name"], frame)
    if name == "people":
        check_picture(ours, np.asarray(Image.open(pictures[4]).convert("RGB"), float), int(frames[4]))


def check_picture(ours: Case, picture: np.ndarray, frame: int) -> None:
    """Compare a picture through the file's camera with where we project the heads, and with the texture."""
    intrinsics = ours.track.intrinsics
    assert picture.shape == (intrinsics.height, intrinsics.width, 3)
    background = np.array((0x40, 0x60, 0x80))
    is_drawn = np.abs(picture - background).max(axis=2) > 12
    faces = ours.track.head_model.faces.numpy()
    expected = np.zeros(picture.shape[:2], np.uint8)
    points_px = []
    for person in range(2):
        verts_cam = ours.vertices(person, frame) * CAM_FROM_GLTF
        points_px.append(project(verts_cam.astype(np.float64), intrinsics))
        for triangle in points_px[-1][faces]:
            # Pixel centres are at halves; the last four bits are fractions.
            cv2.fillConvexPoly(expected, np.round(16 * (triangle - 0.5)).astype(np.int32), 1, shift=4)
    overlap = (is_drawn & (expected > 0)).sum() / (is_drawn | (expected > 0)).sum()
    assert overlap > 0.95
    check_texture(ours, picture, frame, points_px[0])


def check_texture(ours: Case, picture: np.ndarray, frame: int, points_px: np.ndarray) -> None:
    """Compare the colours of the face's front, whatever the light, with the quarter of the texture it is in."""
    middle, _ = quarters(ours.track)
    vertices, uv = skin(ours.track)
    normals = vertex_normals(ours.vertices(0, frame), ours.track.head_model.faces.numpy())
    is_clear = (np.abs(uv - middle) > 0.02).all(axis=1) & (normals[:, 2] > 0.7)
    front = vertices[is_clear[vertices]]
    column, row = np.floor(points_px[front]).astype(int).T
    red, green, blue = picture[row, column].T
    for channel, is_high in ((red, uv[front, 0] > middle[0]), (green, uv[front, 1] > middle[1])):
        assert min(is_high.sum(), (~is_high).sum()) > 40
        assert ((channel > blue) == is_high).mean() > 0.97
