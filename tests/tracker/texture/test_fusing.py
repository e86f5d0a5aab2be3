from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from flame import load_head
from flame.errors import InputError
from flame.model import HeadModel
from flame.obj_layout import TEMPLATE_OBJ
from flame.saving import save_flame_pkl
from tests.toy_head import make_toy_head
from tests.tracker.texture.scenes import Scene, painted_texture
from tracker.result import Track
from tracker.texture import HeadTexture, fuse_textures
from tracker.texture.eyes import eye_texels
from tracker.texture.srgb import linear_from_srgb, srgb_from_linear
from tracker.texture.texels import Part, TexelTable, parts

SIZE = 256
TURN = np.linspace(-45, 45, 7)
SURE = 0.9


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons")


@pytest.fixture(scope="module")
def albedo() -> np.ndarray:
    return painted_texture(SIZE)


def _fuse(scene: Scene, **options: int) -> list[HeadTexture | None]:
    track = scene.track()
    return fuse_textures(track, scene.frames(), SIZE, **options)


def _fuse_one(scene: Scene, **options: int) -> HeadTexture:
    texture = _fuse(scene, **options)[0]
    assert texture is not None
    return texture


def _errors(texture: HeadTexture, albedo: np.ndarray, *, is_scaled: bool = True) -> np.ndarray:
    """Return the largest difference of a channel, 8-bit steps, of well-seen texels, after the light's colour."""
    is_sure = texture.confidence > SURE
    found, truth = linear_from_srgb(texture.rgb / 255)[is_sure], albedo[is_sure]
    scale = np.median(found / truth, axis=0) if is_scaled else 1.0
    return 255 * np.abs(srgb_from_linear(found / scale) - srgb_from_linear(truth)).max(axis=1)


def test_albedo_of_turning_head_under_a_side_lamp_is_recovered(commons: HeadModel, albedo: np.ndarray) -> None:
    gains = np.exp(0.2 * np.sin(np.arange(len(TURN))))
    texture = _fuse_one(Scene(commons, (albedo,), TURN, gains=gains))
    errors = _errors(texture, albedo)
    # The face is about a tenth of the layout; spots on it are 0.45 of the skin's brightness.
    assert (texture.confidence > SURE).mean() > 0.07
    assert np.median(errors) < 5
    assert np.percentile(errors, 90) < 14
    assert texture.rgb.shape == (SIZE, SIZE, 3)
    assert texture.confidence.dtype == np.float32


def test_light_is_divided_out(commons: HeadModel, albedo: np.ndarray) -> None:
    scene = Scene(commons, (np.full_like(albedo, 0.3),), TURN, lamp=(0.8, 0.8, 0.8), ambient=0.3)
    texture = _fuse_one(scene)
    is_sure = texture.confidence > SURE
    shades = linear_from_srgb(texture.rgb[is_sure] / 255).mean(axis=1)
    # The lamp makes one cheek three times as bright as the other.
    assert np.percentile(shades, 95) / np.percentile(shades, 5) < 1.35


def test_occluder_in_some_of_the_frames_leaves_no_trace(commons: HeadModel, albedo: np.ndarray) -> None:
    yaw = np.linspace(-20, 20, 7)
    clear = _fuse_one(Scene(commons, (albedo,), yaw))
    covered = _fuse_one(Scene(commons, (albedo,), yaw, covered=(1, 5)))
    both = (clear.confidence > SURE) & (covered.confidence > SURE)
    difference = np.abs(clear.rgb[both].astype(int) - covered.rgb[both]).max(axis=1)
    assert np.percentile(difference, 99) < 30
    assert np.median(difference) < 4


def test_background_is_not_smeared_into_the_texture(commons: HeadModel, albedo: np.ndarray) -> None:
    texture = _fuse_one(Scene(commons, (albedo,), TURN))
    rgb = texture.rgb.astype(int)
    assert not (rgb[..., 1] > rgb[..., 0] + 15).any()


def test_texels_of_both_sides_of_a_seam_agree(commons: HeadModel, albedo: np.ndarray) -> None:
    smooth = np.broadcast_to(np.median(albedo, axis=(0, 1)), albedo.shape)
    texture = _fuse_one(Scene(commons, (smooth,), TURN))
    differences = _seam_differences(commons, texture)
    assert len(differences) > 40
    assert np.percentile(differences, 90) < 5


def _seam_differences(head: HeadModel, texture: HeadTexture) -> np.ndarray:
    """Return the difference of texels just inside both triangles at the middle of edges that the layout cuts."""
    topology = head.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    kinds = parts(head)
    sides: dict[tuple[int, int], list[tuple[tuple[int, int], np.ndarray]]] = {}
    for kind, face, rows in zip(kinds, head.faces.tolist(), topology.uv_faces.tolist(), strict=True):
        if kind != Part.SKIN:
            continue
        for a, b in ((0, 1), (1, 2), (2, 0)):
            ends = sorted(((face[a], rows[a]), (face[b], rows[b])))
            middle = topology.uv[[rows[a], rows[b]]].mean(axis=0)
            inwards = topology.uv[rows].mean(axis=0) - middle
            point = middle + 0.5 / SIZE * inwards / np.linalg.norm(inwards)
            sides.setdefault((ends[0][0], ends[1][0]), []).append(((ends[0][1], ends[1][1]), point))
    points = [
        (two[0][1], two[1][1]) for two in sides.values() if len(two) == 2 and set(two[0][0]).isdisjoint(two[1][0])
    ]
    at = (np.array(points) * (1, -1) + (0, 1)) * SIZE
    column, row = np.moveaxis(at.astype(int).clip(0, SIZE - 1), -1, 0)
    colors = texture.rgb[row, column].astype(int)
    return np.abs(colors[:, 0] - colors[:, 1]).max(axis=1)


def test_side_that_is_never_seen_is_the_mirror_image_of_the_other(commons: HeadModel, albedo: np.ndarray) -> None:
    texture = _fuse_one(Scene(commons, (albedo,), np.linspace(40, 70, 5)))
    table = TexelTable.of(commons, SIZE)
    assert table is not None
    confidence = texture.confidence[table.row, table.column]
    is_filled = (confidence < 0.01) & (table.part == Part.SKIN) & (table.mirror >= 0)
    is_filled &= confidence[table.mirror] > 0.99
    assert is_filled.sum() > 300
    colors = texture.rgb[table.row, table.column].astype(float)
    detail, other = (colors[index] - colors[index].mean(axis=0) for index in (is_filled, table.mirror[is_filled]))
    assert (detail * other).sum() / np.sqrt((detail**2).sum() * (other**2).sum()) > 0.7


def test_every_texel_has_a_colour(commons: HeadModel, albedo: np.ndarray) -> None:
    texture = _fuse_one(Scene(commons, (albedo,), np.zeros(1)))
    table = TexelTable.of(commons, SIZE)
    assert table is not None
    is_on_head = np.zeros((SIZE, SIZE), bool)
    is_on_head[table.row, table.column] = True
    assert texture.rgb[is_on_head & (texture.confidence == 0)].max(axis=1).min() > 5
    # Islands are continued beyond their rims, so that nothing dark bleeds in where the texture is made smaller.
    row, column = table.row[1000], table.column[1000]
    assert (table.nearest[row, column] == 1000) and (table.nearest >= 0).all()


def test_frames_larger_than_the_texture_are_averaged_not_skipped(commons: HeadModel, albedo: np.ndarray) -> None:
    fine = np.random.default_rng(0).uniform(0.1, 0.6, (512, 512, 1)) * np.ones(3)
    scene = Scene(commons, (fine,), np.zeros(1), size_px=900)
    texture = fuse_textures(scene.track(), scene.frames(), 128)[0]
    assert texture is not None
    linear = linear_from_srgb(texture.rgb[texture.confidence > 0.5] / 255).mean(axis=1)
    # Single samples vary by 0.2, the mean of the sixteen points that a texel covers by 0.1.
    assert len(linear) > 60
    assert linear.std() / linear.mean() < 0.14


def test_lost_frames_are_ignored(commons: HeadModel, albedo: np.ndarray) -> None:
    scene = Scene(commons, (albedo,), TURN, lost=(0, 3, 4))
    assert np.median(_errors(_fuse_one(scene), albedo)) < 5


def test_person_who_is_never_tracked_has_none(commons: HeadModel, albedo: np.ndarray) -> None:
    scene = Scene(commons, (albedo,), np.zeros(2), lost=(0, 1))
    assert _fuse(scene) == [None]


def test_two_people_keep_their_colours_apart(commons: HeadModel, albedo: np.ndarray) -> None:
    pale, dark = np.full_like(albedo, 0.5), np.full_like(albedo, 0.08)
    scene = Scene(
        commons, (pale, dark), np.linspace(-20, 20, 3), offsets=((-0.08, 0.0, 0.7), (0.05, 0.0, 0.9)), size_px=400
    )
    first, second = _fuse(scene)
    assert first is not None and second is not None
    for texture, truth in ((first, pale), (second, dark)):
        is_sure = texture.confidence > SURE
        found = linear_from_srgb(texture.rgb[is_sure] / 255) / truth[is_sure]
        assert is_sure.mean() > 0.01
        assert np.percentile(found, 95) / np.percentile(found, 5) < 2.2


def test_memory_does_not_grow_with_the_clip(commons: HeadModel, albedo: np.ndarray) -> None:
    short = Scene(commons, (albedo,), np.linspace(-20, 20, 4))
    pictures = [frame for _, frame in short.frames()]

    def peak(num_frames: int) -> int:
        track = Scene(commons, (albedo,), np.linspace(-20, 20, num_frames)).track()
        endless = zip(range(num_frames), itertools.cycle(pictures), strict=False)
        tracemalloc.start()
        fuse_textures(track, endless, 128, max_frames=4)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    fuse_textures(short.track(), zip(range(4), pictures, strict=True), 128, max_frames=4)
    assert peak(120) < 1.3 * peak(4)


def test_no_frame_is_asked_for_after_the_last_one_used(commons: HeadModel, albedo: np.ndarray) -> None:
    scene = Scene(commons, (albedo,), np.zeros(6), lost=(2, 3, 4, 5))
    _fuse(scene)
    assert scene.drawn == [0, 1]


def test_flame_head_has_a_texture_only_with_a_layout(tmp_path: Path) -> None:
    toy = make_toy_head()
    save_flame_pkl(toy, tmp_path / "flame.pkl")
    bare = load_head(tmp_path / "flame.pkl")
    layout = toy.topology
    assert layout is not None and layout.uv is not None and layout.uv_faces is not None
    truth = np.full((SIZE, SIZE, 3), (0.4, 0.25, 0.2))
    frames = list(Scene(toy.to(dtype=bare.dtype), (truth,), np.zeros(1)).frames())
    assert fuse_textures(Scene(bare, (truth,), np.zeros(1)).track(), frames, SIZE) == [None]

    corners = zip(layout.faces.tolist(), layout.uv_faces.tolist(), strict=True)
    lines = [f"vt {u} {v}" for u, v in layout.uv.tolist()]
    lines += ["f " + " ".join(f"{v + 1}/{vt + 1}" for v, vt in zip(*pair, strict=True)) for pair in corners]
    (tmp_path / TEMPLATE_OBJ).write_text("\n".join(lines))
    texture = fuse_textures(Scene(load_head(tmp_path / "flame.pkl"), (truth,), np.zeros(1)).track(), frames, SIZE)[0]
    assert texture is not None
    assert (texture.confidence > SURE).mean() > 0.01
    assert np.median(_errors(texture, truth)) < 6


@pytest.mark.parametrize(("size_px", "max_frames"), [(32, 8), (9000, 8), (256, 0)])
def test_bad_sizes_are_refused(commons: HeadModel, albedo: np.ndarray, size_px: int, max_frames: int) -> None:
    track = Scene(commons, (albedo,), np.zeros(1)).track()
    with pytest.raises(InputError):
        fuse_textures(track, iter(()), size_px, max_frames=max_frames)


def test_frames_of_another_clip_are_refused(commons: HeadModel, albedo: np.ndarray) -> None:
    track: Track = Scene(commons, (albedo,), np.zeros(1)).track()
    other = Scene(commons, (albedo,), np.zeros(1), size_px=64)
    with pytest.raises(InputError, match="64 x 64 pixels"):
        fuse_textures(track, other.frames(), SIZE)


def test_hair_is_continued_over_the_back_of_the_head(commons: HeadModel) -> None:
    table = TexelTable.of(commons, SIZE)
    assert table is not None and commons.topology is not None
    skin, hair = np.array((0.45, 0.28, 0.2)), np.array((0.05, 0.04, 0.03))
    is_scalp = commons.topology.regions["scalp"][table.vertices].any(axis=1)
    albedo = table.picture(np.where(is_scalp[:, None], hair, skin))
    texture = _fuse_one(Scene(commons, (albedo,), np.linspace(-20, 20, 3)))
    place = table.on(commons.template.numpy())
    is_back = is_scalp & (place[:, 2] < -0.05) & (place[:, 1] > 0.05)
    is_cheek = (place[:, 2] > 0.03) & (np.abs(place[:, 1]) < 0.02) & (table.part == Part.SKIN)
    linear = linear_from_srgb(texture.rgb[table.row, table.column] / 255)
    assert texture.confidence[table.row, table.column][is_back].max() < 0.01
    assert np.median(linear[is_back]) < 0.1
    assert np.median(linear[is_cheek]) > 0.2


def test_eyes_are_painted_with_pupil_iris_and_white(commons: HeadModel, albedo: np.ndarray) -> None:
    texture = _fuse_one(Scene(commons, (albedo,), np.zeros(1)))
    table = TexelTable.of(commons, SIZE)
    assert table is not None
    light = linear_from_srgb(texture.rgb[table.row, table.column] / 255).mean(axis=1)
    for part in (Part.LEFT_EYE, Part.RIGHT_EYE):
        eye = eye_texels(table, commons.template.numpy(), part)
        pupil, iris, white = (
            float(np.median(light[eye.index[(eye.radius > low) & (eye.radius < high)]]))
            for low, high in ((0.0, 0.0016), (0.003, 0.005), (0.0065, 0.0085))
        )
        assert pupil < 0.6 * iris
        assert iris < 0.8 * white
        assert texture.confidence[table.row, table.column][eye.index].max() == 0
