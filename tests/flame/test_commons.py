"""The shipped commons head: what must hold for it as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import flame
from flame import HeadModel, load_head
from flame.arkit import ARKIT_NAMES, expression_from_arkit
from flame.commons.joints import sphere_centre
from flame.commons.visible_faults import find_faults

ASSET = Path(flame.__file__).parent / "assets" / "commons.npz"
REGIONS = ("face", "lips", "eyelids", "nose", "left_eye", "right_eye", "eyes", "ears", "scalp", "neck", "inner_mouth")


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons", dtype=torch.float64)


@pytest.fixture(scope="module")
def random_heads(commons: HeadModel) -> np.ndarray:
    generator = np.random.default_rng(3)
    return commons.vertices(shape=torch.as_tensor(generator.standard_normal((12, commons.num_shape)))).numpy()


def region(commons: HeadModel, *names: str) -> np.ndarray:
    assert commons.topology is not None
    return commons.topology.region(*names)


def action(commons: HeadModel, **coefficients: float) -> np.ndarray:
    expression, joints = expression_from_arkit(commons, coefficients)
    turns = {name: torch.as_tensor(turn) for name, turn in joints.items()}
    return commons.vertices(expression=torch.as_tensor(expression), **turns).numpy()


def reflected(commons: HeadModel, vertices: np.ndarray) -> np.ndarray:
    assert commons.topology is not None
    return commons.topology.mirrored(vertices)


def test_asset_is_small_and_holds_plain_arrays():
    assert ASSET.stat().st_size <= 12e6
    with np.load(ASSET, allow_pickle=False) as data:
        assert all(data[name].dtype != object for name in data)


def test_sizes(commons: HeadModel):
    assert commons.num_shape == 300
    assert commons.num_expression == 41
    assert len(commons.joint_actions) == 11
    assert {*(commons.expression_names or ()), *(one.name for one in commons.joint_actions)} == set(ARKIT_NAMES)


def test_convention_axes_and_size(commons: HeadModel):
    template = commons.template.numpy()
    joints = (commons.joint_regressor @ commons.template).numpy()
    assert joints[3, 0] > 0.02 and joints[4, 0] < -0.02, "the left eye is on +x"
    assert template[region(commons, "nose"), 2].max() > 0.07, "the nose points to +z"
    assert template[region(commons, "scalp"), 1].max() > template[region(commons, "neck"), 1].max(), "+y is up"
    assert 0.13 < np.ptp(template[region(commons, "face"), 0]) < 0.17, "metres"
    assert 0.058 < joints[3, 0] - joints[4, 0] < 0.066, "adult distance between the eyes"


def test_triangles_face_outwards(commons: HeadModel):
    corners = commons.template.numpy()[commons.faces.numpy()]
    assert np.einsum("fc,fc->f", np.cross(corners[:, 0], corners[:, 1]), corners[:, 2]).sum() > 0


def test_everything_is_mirror_symmetric(commons: HeadModel):
    topology = commons.topology
    assert topology is not None and topology.mirror is not None
    mirror = topology.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    template = commons.template.numpy()
    np.testing.assert_allclose(reflected(commons, template), template, atol=1e-9)
    triangles = {tuple(sorted(face)) for face in commons.faces.tolist()}
    assert triangles == {tuple(sorted(mirror[face])) for face in commons.faces.numpy()}
    for name, mask in topology.regions.items():
        partner = name.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")
        np.testing.assert_array_equal(mask[mirror], topology.regions[partner], err_msg=name)
    np.testing.assert_allclose(commons.skin_weights[mirror][:, [0, 1, 2, 4, 3]], commons.skin_weights, atol=1e-6)


def test_modes_are_symmetric_first_and_then_antisymmetric(commons: HeadModel):
    modes = commons.shape_basis.numpy().transpose(2, 0, 1)
    largest = np.abs(modes).max(axis=(1, 2))
    parity = np.array([np.sign((reflected(commons, mode) * mode).sum()) for mode in modes])
    for mode, sign, size in zip(modes, parity, largest, strict=True):
        np.testing.assert_allclose(reflected(commons, mode), sign * mode, atol=1e-4 * size)
    first_antisymmetric = int((parity > 0).sum())
    assert 150 < first_antisymmetric < 300
    assert (parity[:first_antisymmetric] > 0).all() and (parity[first_antisymmetric:] < 0).all()


def test_modes_do_not_turn_or_shift_the_face(commons: HeadModel):
    face = region(commons, "face")
    points = commons.template.numpy()[face]
    lever = points - points.mean(axis=0)
    for mode in commons.shape_basis.numpy().transpose(2, 0, 1):
        size = np.abs(mode[face]).sum()
        assert np.abs(mode[face].sum(axis=0)).max() < 1e-3 * size
        assert np.abs(np.cross(lever, mode[face]).sum(axis=0)).max() < 1e-3 * size * np.abs(lever).max()


def test_weights_and_regressor_sum_to_one(commons: HeadModel):
    weights, regressor = commons.skin_weights.numpy(), commons.joint_regressor.numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert weights.min() >= 0
    np.testing.assert_allclose(regressor.sum(axis=1), 1.0, atol=1e-6)
    assert (np.count_nonzero(regressor, axis=1) < 100).all()
    assert regressor[:3].min() >= 0


def test_expressions_do_not_move_the_joints(commons: HeadModel):
    moved = torch.einsum("jv,vce->jce", commons.joint_regressor, commons.expression_basis)
    assert moved.abs().max() < 1e-6


def test_eye_joints_are_the_centres_of_the_eyeballs(commons: HeadModel, random_heads: np.ndarray):
    for head in random_heads:
        joints = commons.joint_regressor.numpy() @ head
        for joint, name in ((3, "left_eye"), (4, "right_eye")):
            np.testing.assert_allclose(joints[joint], sphere_centre(head[region(commons, name)]), atol=1e-4)


def test_eyeballs_keep_their_shape(commons: HeadModel, random_heads: np.ndarray):
    ball = region(commons, "left_eye")
    template = commons.template.numpy()[ball]
    for head in random_heads:
        fitted = np.linalg.lstsq(np.c_[template, np.ones(len(template))], head[ball], rcond=None)[0]
        stretch = np.linalg.svd(fitted[:3], compute_uv=False)
        assert stretch[0] / stretch[2] < 1.005


def test_root_moves_everything_and_neck_spares_the_rim(commons: HeadModel):
    neutral = commons.template.numpy()
    turn = torch.tensor([0.0, 0.3, 0.0], dtype=torch.float64)
    joints = (commons.joint_regressor @ commons.template).numpy()
    whole = commons.vertices(root=turn).numpy()
    np.testing.assert_allclose(
        np.linalg.norm(whole - joints[0], axis=1), np.linalg.norm(neutral - joints[0], axis=1), atol=1e-9
    )
    moved = np.linalg.norm(commons.vertices(neck=turn).numpy() - neutral, axis=1)
    lowest = neutral[:, 1] < neutral[:, 1].min() + 0.005
    assert moved[lowest].max() < 1e-3
    assert moved[region(commons, "nose")].min() > 0.01


def test_jaw_moves_the_lower_lip_and_not_the_upper(commons: HeadModel):
    neutral = commons.template.numpy()
    moved = np.linalg.norm(action(commons, jawOpen=1.0) - neutral, axis=1)
    lips = region(commons, "lips")
    middle = lips & (np.abs(neutral[:, 0]) < 0.006)
    centre = neutral[lips, 1].mean()
    upper = middle & (neutral[:, 1] > centre + 0.004) & (neutral[:, 2] > 0.06)
    lower = middle & (neutral[:, 1] < centre - 0.004) & (neutral[:, 2] > 0.06)
    assert upper.sum() >= 3 and lower.sum() >= 3
    assert moved[upper].max() < 0.004
    assert moved[lower].min() > 0.02
    assert moved[region(commons, "forehead", "eyes")].max() < 1e-4


def test_pose_correctives_vanish_without_rotation(commons: HeadModel):
    zero = torch.zeros(3, dtype=torch.float64)
    still = commons.vertices(jaw=zero, left_eye=zero, right_eye=zero, neck=zero)
    torch.testing.assert_close(still, commons.template)


@pytest.mark.parametrize("name", [name for name in ARKIT_NAMES if name.endswith("Left")])
def test_left_action_is_the_mirror_image_of_the_right(commons: HeadModel, name: str):
    left, right = action(commons, **{name: 1.0}), action(commons, **{name[:-4] + "Right": 1.0})
    np.testing.assert_allclose(reflected(commons, left), right, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "place", "axis", "at_least"),
    [
        ("jawOpen", "lips", 1, -0.015),
        ("eyeBlinkLeft", "eyelids", 1, -0.004),
        ("mouthPucker", "lips", 2, 0.001),
        ("tongueOut", "tongue", 2, 0.01),
        ("jawForward", "lips", 2, 0.001),
        ("jawLeft", "tongue", 0, 0.004),
        ("browInnerUp", "face", 1, 0.003),
    ],
)
def test_actions_go_where_their_names_say(commons: HeadModel, name: str, place: str, axis: int, at_least: float):
    moved = (action(commons, **{name: 1.0}) - commons.template.numpy())[region(commons, place), axis]
    assert (moved.min() if at_least < 0 else moved.max()) * np.sign(at_least) > abs(at_least)


def test_gaze_turns_the_eyeball_that_way(commons: HeadModel):
    ball = region(commons, "left_eye")
    front = np.flatnonzero(ball)[commons.template.numpy()[ball, 2].argmax()]
    neutral = commons.template.numpy()[front]
    assert (action(commons, eyeLookOutLeft=1.0)[front] - neutral)[0] > 0.002
    assert (action(commons, eyeLookInLeft=1.0)[front] - neutral)[0] < -0.002
    assert (action(commons, eyeLookUpLeft=1.0)[front] - neutral)[1] > 0.001
    assert (action(commons, eyeLookDownLeft=1.0)[front] - neutral)[1] < -0.001


def test_blink_covers_the_eyeballs(commons: HeadModel):
    views = find_faults(commons, [commons.template.numpy(), action(commons, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)])
    open_eyes, closed_eyes = views[0][0].eyeball, views[1][0].eyeball
    assert open_eyes > 500
    assert closed_eyes < 0.02 * open_eyes


def test_random_identities_show_no_faults(commons: HeadModel, random_heads: np.ndarray):
    found = find_faults(commons, random_heads)
    assert max(view.total for views in found for view in views) <= 1


def test_faults_are_found_when_they_are_there(commons: HeadModel):
    bulging = commons.template.numpy().copy()
    bulging[region(commons, "eyes"), 2] += 0.008
    turned_in = commons.template.numpy().copy()
    turned_in[region(commons, "nose"), 2] -= 0.05
    mouth_out = commons.template.numpy().copy()
    mouth_out[region(commons, "inner_mouth"), 2] += 0.02
    bulge, nose, mouth = (views[0] for views in find_faults(commons, [bulging, turned_in, mouth_out]))
    assert bulge.stray_eye > 100
    assert nose.inside_out > 100
    assert mouth.stray_mouth > 100


def test_texture_covers_each_triangle_once(commons: HeadModel):
    topology = commons.topology
    assert topology is not None and topology.uv is not None and topology.uv_faces is not None
    assert 0 <= topology.uv.min() and topology.uv.max() <= 1
    corners = topology.uv[topology.uv_faces].astype(np.float64)
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (area >= 0).all(), "no triangle is laid down mirrored"
    owner = np.full(len(topology.uv), -1)
    owner[topology.uv_faces.ravel()] = topology.faces.ravel()
    np.testing.assert_array_equal(owner[topology.uv_faces], topology.faces)


def test_regions(commons: HeadModel):
    for name in REGIONS:
        assert region(commons, name).any(), name
    face = region(commons, "face")
    for name in ("eyes", "ears", "scalp", "neck", "inner_mouth"):
        assert not (face & region(commons, name)).any(), name
    for name in ("lips", "nose", "forehead"):
        assert not (region(commons, name) & ~face).any(), name
