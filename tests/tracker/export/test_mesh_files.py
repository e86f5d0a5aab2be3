"""OBJ and PLY: read again by trimesh and by readers written from the formats' descriptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from flame import load_head
from tests.tracker.export.tracks import small_track, toy_head_file
from tracker.export import ExportJob, ExportOptions, export
from tracker.export.mesh_files import obj_text, ply_bytes, write_obj
from tracker.texture import HeadTexture

LEFT, TOP = (230, 40, 30), (20, 60, 220)


def obj_lines(path: Path) -> dict[str, list[list[str]]]:
    lines: dict[str, list[list[str]]] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        word, *rest = line.split()
        lines.setdefault(word, []).append(rest)
    return lines


def upright(vertices_cam: np.ndarray) -> np.ndarray:
    return vertices_cam * (1, -1, -1)


def loaded(path: Path) -> trimesh.Trimesh:
    mesh = trimesh.load(path, process=False, maintain_order=True)
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


@pytest.mark.parametrize("name", ["obj", "ply"])
@pytest.mark.parametrize("is_commons", [True, False])
def test_trimesh_reads_frames_unchanged(tmp_path: Path, name: str, is_commons: bool):
    track = small_track("commons" if is_commons else toy_head_file(tmp_path), frames=2)
    done = export(track, [name], tmp_path / "export", texture=False)[0]
    assert done.paths == (done.folder,)
    assert sorted(path.name for path in done.folder.iterdir()) == [f"0000{frame}.{name}" for frame in range(2)]
    for frame in range(2):
        path = done.folder / f"0000{frame}.{name}"
        expected = upright(track.vertices(frame))
        mesh = loaded(path)
        np.testing.assert_array_equal(mesh.faces, track.head_model.faces.numpy())
        np.testing.assert_allclose(mesh.vertices, expected, atol=1e-7)


def test_a_head_before_the_camera_stands_upright_and_looks_back(tmp_path: Path):
    track = small_track(frames=1)
    vertices = loaded(export(track, ["ply"], tmp_path)[0].folder / "00000.ply").vertices
    template = track.head_model.template.numpy()
    nose, crown, left_ear = template[:, 2].argmax(), template[:, 1].argmax(), template[:, 0].argmax()
    center = vertices.mean(axis=0)
    assert center[2] < -0.4
    assert vertices[nose, 2] > center[2]
    assert vertices[crown, 1] > center[1]
    assert vertices[left_ear, 0] > center[0]


@pytest.mark.parametrize("name", ["obj", "ply"])
def test_the_neutral_head_is_identity_alone_in_head_space(tmp_path: Path, name: str):
    track = small_track(people=2, frames=2)
    done = export(track, [name], tmp_path, mesh="neutral", texture=False)[0]
    assert [path.name for path in done.paths] == [f"neutral.{name}"] * 2
    model = load_head("commons")
    for person, path in enumerate(done.paths):
        expected = (model.template + model.shape_basis @ model.template.new_tensor(track.identity[person])).numpy()
        vertices = loaded(path).vertices if name == "ply" else np.array(obj_lines(path)["v"], float)
        np.testing.assert_allclose(vertices, expected, atol=1e-6)


def test_lost_frames_have_no_file_and_are_told(tmp_path: Path):
    track = small_track(people=2, frames=4, lost=((0, 1), (1, 0), (1, 1)))
    done = export(track, ["ply"], tmp_path)[0]
    names = [sorted(path.stem for path in folder.iterdir()) for folder in done.paths]
    assert [folder.name for folder in done.paths] == ["person_0", "person_1"]
    assert names == [["00000", "00002", "00003"], ["00002", "00003"]]
    assert done.notes == (
        "person 0: 1 frames without a face have no file",
        "person 1: 2 frames without a face have no file",
    )


def test_textures_hang_on_the_right_corners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The left edge and the top edge of the texture can be told apart.
    rgb = np.full((64, 64, 3), 128, np.uint8)
    rgb[:, :8], rgb[:8] = LEFT, TOP
    texture = HeadTexture(rgb, np.ones((64, 64), np.float32))
    monkeypatch.setattr(ExportJob, "texture", lambda _job, _person: texture)
    track = small_track(frames=1)
    write_obj(ExportJob(track, tmp_path, ExportOptions(mesh="neutral")))
    topology = track.head_model.topology
    lines = obj_lines(tmp_path / "neutral.obj")
    uv = np.array(lines["vt"], float)
    corners = np.array([[corner.split("/") for corner in face] for face in lines["f"]], int) - 1
    np.testing.assert_allclose(uv, topology.uv, atol=1e-6)
    np.testing.assert_array_equal(corners[..., 0], topology.faces)
    np.testing.assert_array_equal(corners[..., 1], topology.uv_faces)
    assert lines["mtllib"] == [["head.mtl"]] and lines["usemtl"] == [["head"]]
    assert obj_lines(tmp_path / "head.mtl")["map_Kd"] == [["texture.png"]]
    picture = np.asarray(Image.open(tmp_path / "texture.png"))
    assert tuple(picture[0, 32]) == TOP and tuple(picture[63, 0]) == LEFT
    read = loaded(tmp_path / "neutral.obj")
    assert read.visual.material.image.size == (64, 64)


def test_without_the_clip_there_is_no_texture_and_it_is_told(tmp_path: Path):
    done = export(small_track(frames=1, source=tmp_path / "gone.mp4"), ["obj"], tmp_path)[0]
    assert [path.name for path in done.folder.iterdir()] == ["00000.obj"]
    assert "mtllib" not in obj_lines(done.folder / "00000.obj")
    assert any("without texture" in note for note in done.notes)


def test_points_may_have_colours(tmp_path: Path):
    points = np.array(((0.0, 1, 2), (3, 4, 5)), np.float32)
    colors = np.array(((1, 2, 3), (250, 251, 252)), np.uint8)
    (tmp_path / "points.ply").write_bytes(ply_bytes(points, colors=colors))
    cloud = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_array_equal(cloud.vertices, points)
    np.testing.assert_array_equal(np.asarray(cloud.colors)[:, :3], colors)


def test_a_mesh_alone_keeps_vertices_and_triangles(tmp_path: Path):
    sphere = trimesh.creation.icosphere(subdivisions=1)
    (tmp_path / "mesh.obj").write_text(obj_text(np.asarray(sphere.vertices), np.asarray(sphere.faces)))
    again = loaded(tmp_path / "mesh.obj")
    np.testing.assert_allclose(again.vertices, sphere.vertices, atol=1e-8)
    np.testing.assert_array_equal(again.faces, sphere.faces)
