"""Registered frames: labels lie where the fitted head is, good frames are chosen, shards can be read back."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from configs import Config, load_preset, preset_for_prior
from flame.camera import project, transform
from flame.closest_point import ClosestPoint
from flame.errors import InputError
from priors.foreground import ForegroundSegmenter
from priors.pixel_kinds import Kind
from priors.training.augmentation import UNKNOWN
from priors.training.shards import ShardReader
from tests.tracker.face_clips import photograph, portrait, wall, write_video
from tracker.api import Options
from tracker.clip import Toolkit
from tracker.register_frames import EXIT_NO_FRAMES, EXIT_USER_ERROR, main
from tracker.registration import RegisteredFrame, RegistrationConfig, register_clip, sharpness, spread, vertices_of
from tracker.registration_labels import LabelPainter

CONFIG = RegistrationConfig(every=2, frames_per_person=4)
OPTIONS = Options(overlay=False)


@pytest.fixture(scope="module")
def painter(toolkit: Toolkit) -> LabelPainter:
    return LabelPainter.of(toolkit.head, toolkit.prior.surface)


@pytest.fixture(scope="module")
def frames(face_clip: Path, toolkit: Toolkit, painter: LabelPainter) -> list[RegisteredFrame]:
    """Return registered frames of a face that rolls by 8 degrees either way."""
    return register_clip(face_clip, toolkit, painter, OPTIONS, CONFIG)


def vertices_cam(frame: RegisteredFrame, toolkit: Toolkit) -> np.ndarray:
    """Return the fitted head in the camera of the picture."""
    return transform(frame.cam_from_head, vertices_of(toolkit.head, frame.identity, frame.state))


def test_good_frames_are_kept_at_most_so_many_and_one_in_so_many(frames: list[RegisteredFrame]):
    assert len(frames) == CONFIG.frames_per_person
    assert all(frame.frame_index % 2 == 0 and frame.person == 0 and frame.clip == "face.mp4" for frame in frames)
    assert all(frame.picture.shape == (256, 256, 3) and frame.labels.kind.shape == (128, 128) for frame in frames)


def test_a_labelled_place_on_the_fitted_head_is_seen_at_its_pixel(frames: list[RegisteredFrame], toolkit: Toolkit):
    faces = toolkit.head.faces.numpy()
    template = toolkit.head.template.numpy().astype(np.float64)
    surface = ClosestPoint(template, faces)
    for frame in frames[:2]:
        labels = frame.labels
        rows, columns = np.nonzero(labels.valid & (labels.kind == Kind.SKIN))
        some = np.random.default_rng(0).choice(len(rows), 200, replace=False)
        places = labels.place[rows[some], columns[some]].astype(np.float64)
        nearest = surface(places)
        assert nearest.distance.max() < 1e-5
        corners = vertices_cam(frame, toolkit)[faces[nearest.triangle]]
        seen = project(np.einsum("nk,nkc->nc", nearest.barycentric, corners), frame.intrinsics)
        pixels = 2 * (np.column_stack((columns, rows))[some] + 0.5)
        assert np.abs(seen - pixels).max() < 0.1


def test_normals_are_those_of_the_fitted_head_and_face_the_camera(frames: list[RegisteredFrame]):
    labels, intrinsics = frames[0].labels, frames[0].intrinsics.scale(0.5)
    rows, columns = np.nonzero(labels.valid)
    normals = labels.normals_cam[rows, columns]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    rays = np.column_stack(
        ((columns + 0.5 - intrinsics.cx) / intrinsics.fx, (rows + 0.5 - intrinsics.cy) / intrinsics.fy)
    )
    rays = np.column_stack((rays, np.ones(len(rays))))
    assert (np.einsum("nc,nc->n", normals, rays) < 0.15).mean() > 0.99
    nose = np.unravel_index(np.argmax(np.nan_to_num(labels.place[..., 2], nan=-1)), labels.kind.shape)
    assert labels.normals_cam[nose][2] < -0.5


def test_crops_are_upright_whatever_the_roll(frames: list[RegisteredFrame], toolkit: Toolkit):
    topology = toolkit.head.topology
    assert topology is not None
    left, right = topology.region("left_eye"), topology.region("right_eye")
    for frame in frames:
        verts_cam = vertices_cam(frame, toolkit)
        middles = np.stack([verts_cam[eye].mean(axis=0) for eye in (right, left)])
        across = np.diff(project(middles, frame.intrinsics), axis=0)[0]
        assert abs(np.degrees(np.arctan2(across[1], across[0]))) < 2.5


def test_the_neck_turns_the_head_in_what_is_stored(frames: list[RegisteredFrame]):
    facts = frames[0].facts("hash")
    rotation = np.array(facts["cam_from_neck"])
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    turn = rotation.T @ np.array(facts["cam_from_head"])[:3, :3]
    angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
    assert angle == pytest.approx(np.linalg.norm(facts["joint_angles"][:3]), abs=1e-6)


def test_the_background_and_hair_have_no_skin(frames: list[RegisteredFrame]):
    labels = frames[0].labels
    assert labels.kind[2, 2] == Kind.BACKGROUND
    found = set(np.unique(labels.kind).tolist())
    assert {Kind.SKIN, Kind.EYE, Kind.HAIR, Kind.BACKGROUND} <= found
    assert not labels.valid[labels.kind == Kind.BACKGROUND].any()
    assert not labels.valid[labels.kind == UNKNOWN].any()


def test_what_the_network_takes_for_background_is_not_labelled(
    frames: list[RegisteredFrame], toolkit: Toolkit, painter: LabelPainter
):
    frame = frames[0]
    person = np.ones((128, 128), np.float32)
    person[:, 64:] = 0.0
    labels = painter.paint(vertices_cam(frame, toolkit), frame.intrinsics.scale(0.5), frame.picture, person)
    assert (labels.kind[:, 64:] == Kind.BACKGROUND).all() and not labels.valid[:, 63:].any()
    assert labels.valid[:, :63].sum() > 500


def test_dark_pixels_on_the_forehead_are_hair_and_keep_the_place_below(
    frames: list[RegisteredFrame], toolkit: Toolkit, painter: LabelPainter
):
    frame = frames[0]
    small = frame.intrinsics.scale(0.5)
    person = np.ones((128, 128), np.float32)
    before = painter.paint(vertices_cam(frame, toolkit), small, frame.picture, person)
    y = before.place[..., 1]
    fringe = before.valid & (before.kind == Kind.SKIN) & (y > np.nanmax(y) - 0.03)
    picture = frame.picture.copy()
    picture[np.repeat(np.repeat(fringe, 2, 0), 2, 1)] = (40, 30, 20)
    after = painter.paint(vertices_cam(frame, toolkit), small, picture, person)
    inner = cv2.erode(fringe.astype(np.uint8), np.ones((3, 3))) > 0
    assert inner.any() and (after.kind[inner] == Kind.HAIR).all() and after.valid[inner].all()
    np.testing.assert_array_equal(after.place[inner], before.place[inner])


def test_people_are_told_from_the_background():
    share = ForegroundSegmenter()(photograph()[:400, 30:430], size_px=100)
    assert share.shape == (100, 100)
    assert share[25, 48] > 0.9 and share[3, 3] < 0.1


def test_the_frames_kept_are_far_apart():
    features = np.concatenate((np.zeros((50, 2)), [[3.0, 0.0], [0.0, 4.0], [-2.0, -2.0]]))
    assert spread(features, 4)[1:] == [50, 51, 52]
    assert spread(features[:3], 5) == [0, 1, 2]
    assert spread(np.zeros((4, 2)), 2) == [0]


def test_blur_is_less_sharp():
    picture = photograph()[0:256, 100:356]
    assert sharpness(cv2.GaussianBlur(picture, (0, 0), 3)) < 0.4 * sharpness(picture)


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path, toolkit: Toolkit, painter: LabelPainter):
    path = tmp_path / "wide.mp4"
    narrow = cv2.resize(portrait(size=384), (288, 384), interpolation=cv2.INTER_AREA).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=12, options={"crf": "14"})
        stream.codec_context.width, stream.codec_context.height = 288, 384
        stream.codec_context.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(narrow, format="rgb24")))
        output.mux(stream.encode(None))
    (frame, *_) = register_clip(path, toolkit, painter, OPTIONS, replace(CONFIG, frames_per_person=1, every=1))
    assert frame.intrinsics.fx == pytest.approx(frame.intrinsics.fy)
    skin = frame.labels.valid & (frame.labels.kind == Kind.SKIN)
    rows, columns = np.nonzero(skin)
    # An adult face is higher than wide in square pixels; squeezed by 3/4 the ratio were 1.8.
    assert 1.1 < np.ptp(rows) / np.ptp(columns) < 1.5


def test_the_command_writes_shards_that_can_be_read(
    face_clip: Path, tmp_path: Path, toolkit: Toolkit, monkeypatch, capsys
):
    monkeypatch.setattr("tracker.clip.load_toolkit", lambda *_, **__: toolkit)
    out = tmp_path / "data"
    status = main([str(face_clip), "--out", str(out), "--every", "8", "--labels", "64", "--note", "public domain"])
    assert status == 0 and "2 frames of 1 person" in capsys.readouterr().out
    reader = ShardReader(out)
    reader.check()
    assert len(reader) == 2 and reader.index.note == "public domain" and reader.index.labels_px == 64
    picture, labels, facts = reader.read(1)
    assert picture.shape == (256, 256, 3) and labels.kind.shape == (64, 64)
    assert facts["source"] == "registered" and facts["head_hash"] == toolkit.head.content_hash
    assert len(facts["expression"]) == toolkit.head.num_expression and len(facts["joint_angles"]) == 12
    assert main([str(face_clip), "--out", str(out)]) == EXIT_USER_ERROR
    assert "has files in it" in capsys.readouterr().err


def test_a_clip_without_a_good_frame_gives_a_status(tmp_path: Path, toolkit: Toolkit, monkeypatch, capsys):
    monkeypatch.setattr("tracker.clip.load_toolkit", lambda *_, **__: toolkit)
    clip = write_video(tmp_path / "nobody.mp4", [wall()] * 3)
    assert main([str(clip), "--out", str(tmp_path / "data")]) == EXIT_NO_FRAMES
    assert "no frame was good enough" in capsys.readouterr().err
    assert not any((tmp_path / "data").iterdir())


def test_networks_register_with_the_preset_made_for_them(tmp_path: Path, monkeypatch):
    asked = []

    def load(_head: str, prior: str, config: Config, **_):
        asked.append((prior, config))
        raise InputError("no further")

    monkeypatch.setattr("tracker.clip.load_toolkit", load)
    for prior in ("mediapipe", "commons"):
        assert main(["clip.mp4", "--out", str(tmp_path / "data"), "--prior", prior]) == EXIT_USER_ERROR
    assert asked == [("mediapipe", load_preset("default")), ("commons", preset_for_prior("commons"))]


@pytest.mark.parametrize("sizes", [{"image_px": 250}, {"labels_px": 8}, {"every": 0}, {"frames_per_person": 0}])
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int]):
    with pytest.raises(InputError):
        RegistrationConfig(**sizes)
