"""INSTA's data set, read again as its loader does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flame.camera import Intrinsics
from tests.tracker.export.flame_reader import clip_pixels, dot_position, dotted_vertices, read_mesh, write_dotted_clip
from tests.tracker.export.tracks import SIZE, small_track, toy_head_file
from tracker.export import Exported, export
from tracker.result import Track

MATTING = "tests.tracker.export.flame_reader:everything"
OFF_CENTRE = Intrinsics(330.0, 300.0, 118.25, 104.5, SIZE[1], SIZE[0])
ROOT_KEYS = {
    *("w", "h", "cx", "cy", "fl_x", "fl_y", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov"),
    *("integer_depth_scale", "frames"),
}
FRAME_KEYS = {"transform_matrix", "file_path", "mesh_path", "exp_path", "depth_path", "seg_mask_path"}


def exported(tmp_path: Path, head: str | Path = "commons", **options: Any) -> tuple[Track, Exported]:
    track = small_track(head, source=tmp_path / "clip", **options)
    write_dotted_clip(track, tmp_path / "clip")
    return track, export(track, ["insta"], tmp_path / "export", matting=MATTING)[0]


def read_set(folder: Path, part: str = "") -> dict[str, Any]:
    return json.loads((folder / f"transforms{part}.json").read_text())


def seen(content: dict[str, Any], frame: dict[str, Any], verts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (V, 2) and depths (V,) of vertices; the loader turns ``x_fov``, in degrees, into a focal length."""
    w2c = np.linalg.inv(np.array(frame["transform_matrix"]))
    x, y, z = (verts @ w2c[:3, :3].T + w2c[:3, 3]).T
    fx = 0.5 * content["w"] / math.tan(0.5 * math.radians(content["x_fov"]))
    fy = 0.5 * content["h"] / math.tan(0.5 * math.radians(content["y_fov"]))
    return np.stack((fx * x / z + content["cx"], fy * y / z + content["cy"]), axis=1), z


@pytest.mark.parametrize("lens", [None, OFF_CENTRE])
@pytest.mark.parametrize("is_commons", [False, True])
def test_meshes_lie_where_the_pictures_show_the_head(tmp_path: Path, lens: Intrinsics | None, is_commons: bool):
    track, done = exported(
        tmp_path, "commons" if is_commons else toy_head_file(tmp_path), intrinsics=lens, frames=4, lost=((0, 2),)
    )
    content = read_set(done.folder)
    assert content.keys() == ROOT_KEYS and len(content["frames"]) == 3
    for position, frame in zip((0, 1, 3), content["frames"], strict=True):
        assert frame.keys() == FRAME_KEYS
        mesh = read_mesh(done.folder / frame["mesh_path"])
        assert (mesh.faces == track.head_model.faces.numpy()).all()
        seen_px, depth = seen(content, frame, mesh.vertices)
        homography, _ = cv2.findHomography(clip_pixels(track, position, 0), seen_px)
        mapped = cv2.perspectiveTransform(clip_pixels(track, position, 0)[None], homography)[0]
        assert np.abs(mapped - seen_px).max() < 0.02
        picture = cv2.imread(str(done.folder / frame["file_path"]), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (content["h"], content["w"], 4)
        for channel, vertex in enumerate(dotted_vertices(track)):
            found = dot_position(picture[..., 2 - channel], seen_px[vertex], 16)
            assert np.abs(found - seen_px[vertex]).max() < 0.1
            assert picture[tuple(seen_px[vertex].astype(int)[::-1])][3] == 255
        depth_map = cv2.imread(str(done.folder / frame["depth_path"]), cv2.IMREAD_UNCHANGED)
        nearest = int(depth.argmin())
        column, row = seen_px[nearest].astype(int)
        assert depth_map.dtype == np.uint16
        assert abs(depth_map[row, column] * content["integer_depth_scale"] - depth[nearest]) < 2e-3
        codes = np.loadtxt(done.folder / frame["exp_path"])
        assert codes.shape == (100,)
        size = track.head_model.num_expression
        assert np.allclose(codes[:size], track.expression[0, position], atol=1e-7) and not codes[size:].any()


def test_masks_name_parts_in_the_red_channel(tmp_path: Path):
    track, done = exported(tmp_path, frames=2)
    content = read_set(done.folder)
    frame = content["frames"][0]
    mask = cv2.imread(str(done.folder / frame["seg_mask_path"]), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (512, 512, 3) and not mask[..., :2].any()
    assert not any("FLAME_masks.pkl" in note for note in done.notes)
    alpha = cv2.imread(str(done.folder / frame["file_path"]), cv2.IMREAD_UNCHANGED)[..., 3]
    assert ((mask[..., 2] > 0) == (alpha > 127)).mean() > 0.999
    verts = read_mesh(done.folder / frame["mesh_path"]).vertices
    seen_px, _ = seen(content, frame, verts)
    regions = track.head_model.topology.regions  # pyright: ignore
    front = track.head_model.template.numpy()[:, 2]
    for region, numbers in (("nose", {150}), ("lips", {120, 130, 140}), ("forehead", {250})):
        at = np.flatnonzero(regions[region])
        column, row = seen_px[at[front[at].argmax()]].astype(int)
        assert mask[row, column, 2] in numbers
    assert {80, 110, 120, 130, 150, 180, 200, 210, 250} <= set(np.unique(mask[..., 2]))


def test_the_last_frames_are_for_tests(tmp_path: Path):
    track, done = exported(tmp_path, toy_head_file(tmp_path), frames=30)
    paths = {part: [frame["file_path"] for frame in read_set(done.folder, part)["frames"]] for part in ("", *PARTS)}
    assert len(paths[""]) == len(track) and paths[""] == sorted(paths[""])
    assert paths["_train"] == paths[""][:20] and paths["_test"] == paths[""][20:] and paths["_val"] == paths[""][-20:]
    assert any("1000 frames" in note for note in done.notes)
    assert (done.folder / "canonical.obj").is_file()
    # A FLAME file alone does not say where the mouth is.
    assert any("FLAME_masks.pkl" in note for note in done.notes)


PARTS = ("_train", "_test", "_val")


def test_people_have_folders(tmp_path: Path):
    _, done = exported(tmp_path, people=2, frames=2, lost=((1, 0),))
    assert [len(read_set(path)["frames"]) for path in done.paths] == [2, 1]
    assert [path.name for path in done.paths] == ["person_0", "person_1"]
