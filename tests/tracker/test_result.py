"""Tracks: round trip through files, vertices in both spaces, and files that are no tracks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flame import load_head
from flame.camera import Intrinsics, project, transform
from flame.errors import AssetMissingError, InputError
from flame.rotation_kernels import rotation_matrix
from flame.saving import save_flame_pkl
from tracker import Track
from tracker.result import FORMAT_VERSION
from tracker.status import FrameStatus

PARAMETERS = ("expression", "neck", "jaw", "left_eye", "right_eye", "rotation", "translation")


def make_track(num_people: int = 2, num_frames: int = 3, head: str = "commons") -> Track:
    """Return a track of random parameters whose person 1 is lost in frame 1."""
    rng = np.random.default_rng(0)
    model = load_head(head)
    size = (num_people, num_frames)
    arrays = {name: 0.1 * rng.normal(size=(*size, 3)).astype(np.float32) for name in ("neck", "jaw")}
    arrays |= {name: 0.1 * rng.normal(size=(*size, 3)).astype(np.float32) for name in ("left_eye", "right_eye")}
    arrays |= {"rotation": rng.normal(size=(*size, 3)), "translation": rng.normal(size=(*size, 3)) + (0, 0, 3)}
    arrays["expression"] = rng.uniform(size=(*size, model.num_expression)).astype(np.float32)
    arrays |= {
        name: rng.uniform(1, 2, size).astype(np.float32) for name in ("residual_px", "interocular_px", "presence")
    }
    status = np.zeros(size, np.int8)
    if num_people > 1 and num_frames > 1:
        status[1, 1] = FrameStatus.LOST
        for name in PARAMETERS:
            arrays[name][1, 1] = np.nan
    return Track(
        identity=rng.normal(size=(num_people, model.num_shape)).astype(np.float32),
        status=status,
        frame_index=np.arange(num_frames) + 7,
        pts_seconds=np.arange(num_frames) / 29.97,
        intrinsics=Intrinsics(800.0, 810.0, 320.0, 240.0, 640, 480),
        head=head,
        head_hash=model.content_hash,
        expression_names=tuple(model.expression_names or ()),
        info={"is_complete": True, "source": {"path": "a b ü.mp4", "problems": []}},
        **arrays,
    )


@pytest.fixture(scope="module")
def track() -> Track:
    """Return a track of two people over three frames."""
    return make_track()


def rewrite(folder: Path, **changes: object) -> Path:
    """Change arrays of a stored track; None removes one."""
    with np.load(folder / "track.npz") as stored:
        arrays = dict(stored)
    arrays.update(changes)
    np.savez(folder / "track.npz", **{name: value for name, value in arrays.items() if value is not None})
    return folder


def test_round_trip(track, tmp_path):
    track.save(tmp_path)
    loaded = Track.load(tmp_path)
    for item in dataclasses.fields(Track):
        before, after = getattr(track, item.name), getattr(loaded, item.name)
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype, item.name
            np.testing.assert_array_equal(after, before, err_msg=item.name)
        else:
            assert after == before, item.name
    assert Track.load(tmp_path / "track.npz").head == "commons"


@pytest.mark.parametrize("size", [(1, 0), (1, 1), (3, 2)])
def test_round_trip_of_any_size(size, tmp_path):
    make_track(*size).save(tmp_path)
    loaded = Track.load(tmp_path)
    assert (loaded.num_people, len(loaded)) == size and len(list(loaded)) == size[1]


def test_the_readable_file_says_the_same_and_is_plain_json(track, tmp_path):
    track.save(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    header = json.loads((tmp_path / "track.json").read_text(), parse_constant=refuse)
    assert header["format_version"] == FORMAT_VERSION and header["head_hash"] == track.head_hash
    assert header["status_counts"][1] == {"ok": 2, "low_confidence": 0, "lost": 1, "no_face": 0}
    assert header["intrinsics"]["fy"] == 810.0 and header["source"]["path"] == "a b ü.mp4"


def test_saving_leaves_nothing_else_in_the_folder(track, tmp_path):
    track.save(tmp_path)
    track.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["track.json", "track.npz"]


def test_frames(track):
    frames = list(track)
    assert [frame.index for frame in frames] == [7, 8, 9]
    assert frames[2].pts_seconds == pytest.approx(2 / 29.97)
    assert frames[1].faces[1].status is FrameStatus.LOST and frames[1].faces[0].status is FrameStatus.OK
    np.testing.assert_array_equal(frames[2].faces[1].jaw, track.jaw[1, 2])
    np.testing.assert_array_equal(track[-1].faces[0].cam_from_head, frames[2].faces[0].cam_from_head)
    with pytest.raises(IndexError):
        track[3]


def test_vertices_in_head_space_are_those_of_the_model(track):
    model = load_head()
    tensors = {name: torch.from_numpy(getattr(track, name)[0, 2]) for name in PARAMETERS[:5]}
    expected = model.vertices(shape=torch.from_numpy(track.identity[0]), **tensors)
    np.testing.assert_allclose(track.vertices(2, space="head"), expected.numpy(), atol=1e-6)


def test_vertices_in_camera_space_are_moved_by_the_pose(track):
    verts_head, verts_cam = track.vertices(2, 1, space="head"), track.vertices(2, 1)
    assert verts_cam.dtype == np.float32 and verts_cam.shape == (load_head().num_vertices, 3)
    expected = verts_head @ rotation_matrix(track.rotation[1, 2]).T + track.translation[1, 2]
    np.testing.assert_allclose(verts_cam, expected, atol=1e-6)
    np.testing.assert_allclose(transform(track.cam_from_head(2, 1), verts_head), expected, atol=1e-6)


def test_vertices_of_a_frame_without_a_face_are_not_a_number(track):
    assert np.isnan(track.vertices(1, 1)).all() and np.isnan(track.vertices(1, 1, space="head")).all()
    assert np.isnan(track.cam_from_head(1, 1)[:3]).all()
    assert np.isfinite(track.vertices(1, 0)).all()


def test_an_unknown_space_is_refused(track):
    with pytest.raises(InputError, match=r"space 'world' is not known; allowed: camera, head\."):
        track.vertices(0, space="world")


def test_arkit_coefficients_by_name(track):
    coefficients = track.arkit(1)
    assert len(coefficients) == 52 and all(values.shape == (3,) for values in coefficients.values())
    smile = track.expression[1, :, track.expression_names.index("mouthSmileLeft")]
    np.testing.assert_allclose(coefficients["mouthSmileLeft"], smile, atol=1e-5)
    assert all(np.isnan(values[1]) for values in coefficients.values())


def test_a_head_that_has_changed_is_refused(track, tmp_path):
    other = dataclasses.replace(track, head_hash="0123456789abcdef")
    with pytest.raises(InputError, match=r"head 'commons' has content \w{12}, the track was made with 0123456789ab; "):
        other.vertices(0)


def test_a_head_that_has_moved_may_be_named(toy_head, tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    save_flame_pkl(toy_head, tmp_path / "old" / "toy.pkl")
    track = make_track(1, 1, str(tmp_path / "old" / "toy.pkl"))
    track.save(tmp_path)
    expected = Track.load(tmp_path).vertices(0)
    (tmp_path / "old" / "toy.pkl").rename(tmp_path / "toy.pkl")
    with pytest.raises(AssetMissingError, match=r"no such head file: .*old/toy\.pkl"):
        Track.load(tmp_path).vertices(0)
    np.testing.assert_array_equal(Track.load(tmp_path, head=tmp_path / "toy.pkl").vertices(0), expected)


def test_no_track_there(tmp_path):
    with pytest.raises(AssetMissingError, match=r"no track at .*track\.npz; give the output folder of a run"):
        Track.load(tmp_path)
    with pytest.raises(AssetMissingError, match="no track at"):
        Track.load(tmp_path / "missing" / "track.npz")


@pytest.mark.parametrize("content", [b"", b"no track", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00broken"])
def test_a_file_that_is_no_track(content, tmp_path):
    (tmp_path / "track.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"track\.npz cannot be read as a track \(.+\); run tracker\.run again\."):
        Track.load(tmp_path)


def test_a_single_array_is_no_track(tmp_path):
    with (tmp_path / "track.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(InputError, match="cannot be read as a track"):
        Track.load(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_track_that_is_cut_off(track, share, tmp_path):
    track.save(tmp_path)
    content = (tmp_path / "track.npz").read_bytes()
    (tmp_path / "track.npz").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cannot be read as a track"):
        Track.load(tmp_path)


def test_a_track_with_a_wrong_byte(track, tmp_path):
    track.save(tmp_path)
    content = bytearray((tmp_path / "track.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "track.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a track"):
        Track.load(tmp_path)


@pytest.mark.parametrize("name", ["header", "jaw", "pts_seconds"])
def test_a_track_that_lacks_something(track, name, tmp_path):
    track.save(tmp_path)
    with pytest.raises(InputError, match=rf"cannot be read as a track \(.*{name}.*\)"):
        Track.load(rewrite(tmp_path, **{name: None}))


@pytest.mark.parametrize("header", ["{}", "[]", "null", "not json", '{"format_version": "new"}'])
def test_a_track_with_a_header_that_is_none(track, header, tmp_path):
    track.save(tmp_path)
    with pytest.raises(InputError, match="cannot be read as a track"):
        Track.load(rewrite(tmp_path, header=np.array(header)))


def test_arrays_that_do_not_belong_together(track, tmp_path):
    track.save(tmp_path)
    with pytest.raises(InputError, match=r"'jaw' has shape \(2, 2, 3\); it has to begin with \(2, 3\)"):
        Track.load(rewrite(tmp_path, jaw=track.jaw[:, :2]))


def test_a_track_of_a_newer_program(track, tmp_path):
    track.save(tmp_path)
    header = json.dumps(track.header() | {"format_version": FORMAT_VERSION + 1})
    with pytest.raises(InputError, match=r"has format version 2, this program reads up to 1; update the program\."):
        Track.load(rewrite(tmp_path, header=np.array(header)))


def test_a_track_that_asks_to_run_code_is_refused(track, tmp_path):
    track.save(tmp_path)
    with pytest.raises(InputError, match="cannot be read as a track"):
        Track.load(rewrite(tmp_path, jaw=np.array([object()], dtype=object)))


def test_a_real_track_lies_on_the_face(face_track):
    eyes = [face_track.head_model.topology.regions[name] for name in ("left_eye", "right_eye")]
    left, right = (
        project(face_track.vertices(0)[np.asarray(mask)].mean(axis=0), face_track.intrinsics) for mask in eyes
    )
    distance = float(np.linalg.norm(left - right))
    assert 30 < distance < 70 and left[0] > right[0]
    assert distance == pytest.approx(face_track.interocular_px[0, 0], rel=0.2)
