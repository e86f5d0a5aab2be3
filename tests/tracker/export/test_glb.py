from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flame import save_flame_pkl
from flame.camera import Intrinsics, project
from flame.errors import InputError
from tests.toy_head import make_toy_head
from tests.tracker.export.glb_reader import GlbFile, read_glb
from tests.tracker.export.tracks import small_track, toy_head_file
from tracker.export.glb import write
from tracker.export.glb_mesh import joints_and_weights, split_at_seams
from tracker.export.job import ExportJob, ExportOptions, Written
from tracker.export.rig import shown_frames
from tracker.result import Track
from tracker.status import FrameStatus
from tracker.texture import HeadTexture

CAM_FROM_GLTF = np.array((1.0, -1.0, -1.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "glb"
    path.mkdir()
    return path


def exported(track: Track, folder: Path) -> tuple[GlbFile, Written]:
    written = write(ExportJob(track, folder, ExportOptions(texture=False)))
    assert written.paths == (folder / "track.glb",)
    return read_glb(folder / "track.glb"), written


def check_vertices(glb: GlbFile, track: Track, tolerance_m: float = 2e-6) -> None:
    """Compare every person in every frame with the track, through the attribute that names our vertices."""
    seconds = glb.key_seconds()
    assert np.allclose(seconds, track.pts_seconds - track.pts_seconds[0], atol=1e-6)
    for person in range(track.num_people):
        mesh = f"person_{person}_head" if track.num_people > 1 else "head"
        ours = glb.attribute(mesh, "_VERTEX").astype(int)
        for frame, shown in enumerate(shown_frames(track.is_tracked[person])):
            expected = track.vertices(int(shown), person)[ours] * CAM_FROM_GLTF
            found = glb.world_vertices(mesh, float(seconds[frame]))
            assert np.abs(found - expected).max() < tolerance_m, (person, frame)


def test_the_commons_head_moves_as_tracked(folder):
    track = small_track(frames=3)
    glb, written = exported(track, folder)
    check_vertices(glb, track)
    assert written.notes == ()


def test_two_people_with_a_flame_file_and_lost_frames(folder, tmp_path):
    track = small_track(toy_head_file(tmp_path), people=2, frames=6, lost=((0, 0), (0, 3), (1, 4), (1, 5)))
    glb, written = exported(track, folder)
    check_vertices(glb, track)
    assert [note.split(" frames")[0] for note in written.notes] == ["person 0: 2 of 6", "person 1: 2 of 6"]
    assert glb.document["animations"][0]["extras"]["is_tracked"] == track.is_tracked.astype(int).tolist()
    names = [node["name"] for node in glb.document["nodes"]]
    assert len(set(names)) == len(names)
    assert {f"person_{k}_{joint}" for k in (0, 1) for joint in ("root", "neck", "jaw", "left_eye", "right_eye")} <= {
        *names
    }


def test_a_head_whose_joints_follow_the_face(folder, tmp_path):
    head = make_toy_head()
    basis = head.expression_basis.clone()
    basis[:, 1] += 0.01  # every expression lifts everything, joints included
    save_flame_pkl(replace(head, expression_basis=basis), tmp_path / "lifting.pkl")
    track = small_track(tmp_path / "lifting.pkl", frames=4)
    glb, _ = exported(track, folder)
    check_vertices(glb, track)


def test_a_head_without_a_jaw_joint(folder, tmp_path):
    head = make_toy_head()
    save_flame_pkl(head, tmp_path / "toy.pkl")
    track = small_track(tmp_path / "toy.pkl", frames=3)
    track.__dict__["head_model"] = replace(track.head_model, has_jaw=False)
    glb, _ = exported(track, folder)
    check_vertices(glb, track)


def test_times_between_frames_are_between_the_frames(folder):
    track = small_track(frames=4)
    glb, _ = exported(track, folder)
    seconds = glb.key_seconds().astype(np.float64)
    for first, second in zip(seconds[:-1], seconds[1:], strict=True):
        around = [glb.world_vertices("head", time) for time in (first, second)]
        between = glb.world_vertices("head", (first + second) / 2)
        assert np.abs(between - np.mean(around, axis=0)).max() < 0.1 * np.abs(around[1] - around[0]).max()
    for sampler, channel in zip(
        glb.document["animations"][0]["samplers"], glb.document["animations"][0]["channels"], strict=True
    ):
        if channel["target"]["path"] == "rotation":
            turns = glb.numbers(sampler["output"])
            assert ((turns[1:] * turns[:-1]).sum(axis=1) > 0).all()


def test_turning_all_the_way_round_keeps_quaternions_together(folder, tmp_path):
    track = small_track(toy_head_file(tmp_path), frames=30)
    angles = np.linspace(0, 4 * np.pi, 30)
    rotation = np.zeros_like(track.rotation)
    rotation[0, :, 1] = (angles + np.pi) % (2 * np.pi) - np.pi
    glb, _ = exported(replace(track, rotation=rotation), folder)
    animation = glb.document["animations"][0]
    root = glb.named("nodes", "root")[0]
    (channel,) = [item for item in animation["channels"] if item["target"] == {"node": root, "path": "rotation"}]
    turns = glb.numbers(animation["samplers"][channel["sampler"]]["output"])
    assert ((turns[1:] * turns[:-1]).sum(axis=1) > 0.9).all()


def test_the_static_pose_is_the_first_frame(folder):
    track = small_track(frames=3, lost=((0, 0),))
    glb, _ = exported(track, folder)
    expected = track.vertices(1)[glb.attribute("head", "_VERTEX").astype(int)] * CAM_FROM_GLTF
    assert np.abs(glb.world_vertices("head") - expected).max() < 2e-6


def test_one_frame_is_a_static_pose(folder):
    track = small_track(frames=1, first_seconds=2.0)
    glb, _ = exported(track, folder)
    assert "animations" not in glb.document and "extensionsUsed" not in glb.document
    expected = track.vertices(0)[glb.attribute("head", "_VERTEX").astype(int)] * CAM_FROM_GLTF
    assert np.abs(glb.world_vertices("head") - expected).max() < 2e-6
    assert glb.document["scenes"][0]["extras"]["first_pts_seconds"] == 2.0


def test_morph_targets_are_named_and_empty_ones_left_out(folder, tmp_path):
    track = small_track(toy_head_file(tmp_path), frames=2)
    glb, _ = exported(track, folder)
    mesh = glb.named("meshes", "head")[1]
    names = mesh["extras"]["targetNames"]
    # A FLAME file has 100 columns for expressions, and names none; the toy head uses 8 of them.
    assert names[:8] == [f"expression_{index:03d}" for index in range(8)]
    assert len(names) == len(mesh["weights"]) == len(mesh["primitives"][0]["targets"]) == 8 + 36
    assert names[8:11] == ["pose_neck_00", "pose_neck_01", "pose_neck_02"]
    commons = exported(small_track(frames=2), folder)[0].named("meshes", "head")[1]["extras"]["targetNames"]
    assert {"eyeBlinkLeft", "mouthSmileRight", "cheekPuff", "pose_jaw_12"} <= set(commons)
    assert "pose_neck_00" not in commons


def test_vertices_keep_their_order_and_copies_follow(folder):
    track = small_track(frames=2)
    glb, _ = exported(track, folder)
    ours = glb.attribute("head", "_VERTEX").astype(int)
    head = track.head_model
    assert glb.named("meshes", "head")[1]["extras"]["num_vertices"] == head.num_vertices < len(ours)
    assert np.array_equal(ours[: head.num_vertices], np.arange(head.num_vertices))
    for attribute in ("POSITION", "NORMAL", "JOINTS_0", "WEIGHTS_0"):
        values = glb.attribute("head", attribute)
        assert np.array_equal(values, values[ours])
    rest = head.rest(torch.from_numpy(track.identity[0])).vertices.numpy()
    assert np.abs(glb.attribute("head", "POSITION") - rest[ours]).max() < 1e-6
    (primitive,) = glb.named("meshes", "head")[1]["primitives"]
    rows = glb.numbers(primitive["indices"]).astype(int).reshape(-1, 3)
    assert np.array_equal(ours[rows], head.faces.numpy())
    topology = head.topology
    expected_uv = topology.uv[topology.uv_faces] * (1, -1) + (0, 1)
    assert np.abs(glb.attribute("head", "TEXCOORD_0")[rows] - expected_uv).max() < 1e-7


def test_a_vertex_on_a_seam_has_a_row_for_each_texture_coordinate():
    faces = np.array(((0, 1, 2), (2, 1, 3)))
    uv = np.array(((0, 0), (0.5, 0), (0, 1), (0.6, 0.2), (0.9, 0.9), (0.6, 1)), np.float32)
    split = split_at_seams(5, faces, uv, np.array(((0, 1, 2), (2, 3, 4))))
    assert split.vertex.tolist() == [0, 1, 2, 3, 4, 1]
    assert split.faces.tolist() == [[0, 1, 2], [2, 5, 3]]
    assert np.allclose(split.uv[:4], ((0, 1), (0.5, 1), (0, 0), (0.9, 0.1)), atol=1e-6)
    assert np.allclose(split.uv[5], (0.6, 0.8), atol=1e-6)


def test_a_head_without_texture_coordinates(folder, tmp_path):
    save_flame_pkl(make_toy_head(), tmp_path / "plain.pkl")
    track = small_track(tmp_path / "plain.pkl", frames=2)
    model = track.head_model
    topology = None if model.topology is None else replace(model.topology, uv=None, uv_faces=None)
    track.__dict__["head_model"] = replace(model, topology=topology)
    # A texture is wanted, but there is nothing to ask the clip for.
    write(ExportJob(track, folder, ExportOptions(texture=True)))
    glb = read_glb(folder / "track.glb")
    assert "TEXCOORD_0" not in glb.named("meshes", "head")[1]["primitives"][0]["attributes"]
    assert np.array_equal(glb.attribute("head", "_VERTEX"), np.arange(model.num_vertices))
    check_vertices(glb, track)


@pytest.mark.parametrize("with_texture", [True, False])
def test_colour_is_the_texture_or_clay_with_eyes(folder, monkeypatch, with_texture):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128), -1).astype(np.uint8)
    texture = HeadTexture(picture, np.ones((64, 64), np.float32)) if with_texture else None
    monkeypatch.setattr(ExportJob, "texture", lambda job, person: texture)
    track = small_track(frames=2)
    write(ExportJob(track, folder))
    glb = read_glb(folder / "track.glb")
    (primitive,) = glb.named("meshes", "head")[1]["primitives"]
    surface = glb.document["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert surface["metallicFactor"] == 0
    if texture is not None:
        source = glb.document["textures"][surface["baseColorTexture"]["index"]]["source"]
        shown = Image.open(io.BytesIO(glb.view(glb.document["images"][source]["bufferView"])))
        assert np.abs(np.asarray(shown, int) - texture.rgb).max() <= 8
        assert "COLOR_0" not in primitive["attributes"]
        return
    linear = glb.attribute("head", "COLOR_0")[: track.head_model.num_vertices] / 255
    regions = track.head_model.topology.regions
    rest = glb.attribute("head", "POSITION")[: track.head_model.num_vertices]
    for name in ("left_eye", "right_eye"):
        eye = np.flatnonzero(regions[name])
        pupil = eye[rest[eye, 2].argmax()]
        assert linear[pupil, :3].max() < 0.05 < 0.5 < linear[eye, :3].max()
    assert (linear[:, 3] == 1).all()
    assert np.allclose(np.median(linear[regions["forehead"], :3], axis=0), (0.60, 0.53, 0.47), atol=0.02)


def test_the_camera_sees_what_ours_sees(folder):
    intrinsics = Intrinsics(fx=500.0, fy=400.0, cx=128.0, cy=96.0, width=256, height=192)
    track = small_track(frames=2, intrinsics=intrinsics)
    glb, written = exported(track, folder)
    camera = glb.document["cameras"][0]
    node = next(node for node in glb.document["nodes"] if "camera" in node)
    assert not {"translation", "rotation", "matrix"} & set(node) and camera["extras"] == vars(intrinsics)
    seen = glb.world_vertices("head", 0.0)
    # §3.10.3.3: clip space of the perspective camera.
    perspective = camera["perspective"]
    tangent = np.tan(perspective["yfov"] / 2)
    right = seen[:, 0] / (perspective["aspectRatio"] * tangent) / -seen[:, 2]
    up = seen[:, 1] / tangent / -seen[:, 2]
    pixels = np.stack(((1 + right) * 256 / 2, (1 - up) * 192 / 2), -1)
    expected = project(track.vertices(0).astype(np.float64), intrinsics)[glb.attribute("head", "_VERTEX").astype(int)]
    assert np.abs(pixels - expected).max() < 0.01
    assert written.notes == ()
    off_centre = replace(intrinsics, cx=140.0, cy=90.0)
    glb, written = exported(small_track(frames=2, intrinsics=off_centre), folder)
    assert "+12.0 px right of and -6.0 px below" in written.notes[0]
    assert glb.document["cameras"][0]["extras"]["cx"] == 140.0


def test_weights_beyond_the_sliders_are_shown_to_blender(folder, tmp_path):
    track = small_track(toy_head_file(tmp_path), frames=4)
    expression = np.zeros_like(track.expression)
    expression[0, :, 0] = (0.0, -2.5, 0.5, 3.0)
    animations = exported(replace(track, expression=expression), folder)[0].document["animations"]
    assert [animation["name"] for animation in animations] == ["track", "lowest_weights", "highest_weights"]
    glb = read_glb(folder / "track.glb")
    for animation, value in zip(animations[1:], (-2.5, 3.0), strict=True):
        (sampler,), (channel,) = animation["samplers"], animation["channels"]
        assert glb.numbers(sampler["input"]).tolist() == [0] and glb.numbers(sampler["output"])[0] == value
        pointer = channel["target"]["extensions"]["KHR_animation_pointer"]["pointer"]
        assert (
            pointer
            == f"/nodes/{glb.document['nodes'].index(next(n for n in glb.document['nodes'] if 'mesh' in n))}/weights"
        )
        assert "node" not in channel["target"] and channel["target"]["path"] == "pointer"
    still = {name: np.zeros_like(getattr(track, name)) for name in ("neck", "jaw", "left_eye", "right_eye")}
    calm = replace(track, expression=np.abs(expression) / 4, **still)
    document = exported(calm, folder)[0].document
    assert [animation["name"] for animation in document["animations"]] == ["track"]
    assert "extensionsUsed" not in document


def test_people_share_what_is_the_same(folder):
    exported(small_track(frames=2), folder)
    alone = (folder / "track.glb").stat().st_size
    exported(small_track(frames=2, people=2), folder)
    assert (folder / "track.glb").stat().st_size < 1.6 * alone < 1.6 * 2.5e6


def test_five_joints_at_a_vertex_take_a_second_set():
    skin_weights = np.array(((0.1, 0.2, 0.3, 0.15, 0.25), (1.0, 0, 0, 0, 1e-9)))
    joints, weights = joints_and_weights(skin_weights)
    assert joints.shape == weights.shape == (2, 8) and weights.dtype == np.float32
    assert joints[0].tolist() == [2, 4, 1, 3, 0, 0, 0, 0] and joints[1].tolist() == [0] * 8
    assert np.allclose(weights[0], (0.3, 0.25, 0.2, 0.15, 0.1, 0, 0, 0)) and weights[1].tolist() == [1.0] + [0.0] * 7
    assert joints_and_weights(skin_weights[1:])[0].shape == (1, 4)
    with pytest.raises(InputError, match="negative skin weights"):
        joints_and_weights(np.array(((1.1, -0.1, 0, 0, 0),)))


def test_five_joints_at_a_vertex_move_as_tracked_and_are_told(folder, tmp_path):
    head = make_toy_head()
    skin_weights = head.skin_weights.clone()
    skin_weights[5] = torch.tensor((0.1, 0.2, 0.3, 0.15, 0.25))
    save_flame_pkl(replace(head, skin_weights=skin_weights), tmp_path / "five.pkl")
    track = small_track(tmp_path / "five.pkl", frames=2)
    glb, written = exported(track, folder)
    check_vertices(glb, track)
    assert "five joints" in written.notes[0]


def test_people_who_are_never_seen_are_left_out(folder, tmp_path):
    track = small_track(toy_head_file(tmp_path), people=2, frames=2, lost=((0, 0), (0, 1)))
    glb, written = exported(track, folder)
    assert [mesh["name"] for mesh in glb.document["meshes"]] == ["person_1_head"]
    assert written.notes == ("person 0 is tracked in no frame and left out.",)
    status = np.full_like(track.status, FrameStatus.LOST)
    with pytest.raises(InputError, match="nobody is tracked"):
        exported(replace(track, status=status), folder)


def test_times_have_to_increase(folder, tmp_path):
    track = small_track(toy_head_file(tmp_path), frames=3)
    with pytest.raises(InputError, match="frames 1 and 2 of the track have the times"):
        exported(replace(track, pts_seconds=np.array((0.0, 0.5, 0.5))), folder)
