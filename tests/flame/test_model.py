"""The head model: axioms, a slow obvious twin, derivatives, batches, types, and what users can get wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from flame.camera import transform
from flame.errors import InputError
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from tests.tolerances import assert_close
from tests.toy_head import make_toy_head, mirrored_coefficients, random_coefficients

BATCHES = [(), (1,), (4,), (2, 3)]


def _slow_vertices(model: HeadModel, values: dict[str, torch.Tensor]) -> np.ndarray:
    """Follow the paper's equations vertex by vertex, joint by joint, with scipy's rotations."""
    arrays = {name: getattr(model, name).numpy() for name in ("template", "pose_basis", "joint_regressor")}
    shaped = arrays["template"] + model.shape_basis.numpy() @ values["shape"].numpy()
    shaped = shaped + model.expression_basis.numpy() @ values["expression"].numpy()
    joints = arrays["joint_regressor"] @ shaped
    names = ("root", "neck", "jaw", "left_eye", "right_eye")
    local = [Rotation.from_rotvec(values[name].numpy()).as_matrix() for name in names]
    features = np.concatenate([(rotation - np.eye(3)).reshape(-1) for rotation in local[1:]])
    shaped = shaped + (features @ arrays["pose_basis"]).reshape(-1, 3)
    world = []
    for joint, parent in enumerate(model.parents):
        step = np.eye(4)
        step[:3, :3] = local[joint]
        step[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(world[parent] @ step if parent >= 0 else step)
    posed = np.zeros_like(shaped)
    for vertex, point in enumerate(shaped):
        for joint in range(5):
            moved = world[joint] @ np.append(point - joints[joint], 1)
            posed[vertex] += model.skin_weights[vertex, joint].item() * moved[:3]
    return posed + values["translation"].numpy()


@pytest.fixture
def free_head(toy_head: HeadModel) -> HeadModel:
    """Return a head without any structure to lean on: expressions move the joints, every weight is in use."""
    generator = torch.Generator().manual_seed(1)

    def random(*size: int) -> torch.Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    regressor, weights = random(5, toy_head.num_vertices), random(toy_head.num_vertices, 5)
    return replace(
        toy_head,
        joint_regressor=regressor / regressor.sum(1, keepdim=True),
        skin_weights=weights / weights.sum(1, keepdim=True),
        parents=(-1, 0, 1, 2, 1),
        has_jaw=True,
    )


def test_nothing_given_is_the_template(toy_head):
    assert torch.equal(toy_head.rest().vertices, toy_head.template)
    assert_close(toy_head.vertices(), toy_head.template)


@pytest.mark.parametrize("seed", range(5))
def test_slow_twin_agrees(free_head, seed):
    values = random_coefficients(free_head, seed=seed)
    assert_close(free_head.vertices(**values), torch.from_numpy(_slow_vertices(free_head, values)))


def test_root_rotation_is_rigid_motion_about_the_root_joint(toy_head):
    values = random_coefficients(toy_head)
    still = {name: value for name, value in values.items() if name not in ("root", "translation")}
    root_joint = toy_head.rest(values["shape"]).joints[0]
    turned = (toy_head.vertices(**still) - root_joint) @ matrix_from_axis_angle(values["root"]).T + root_joint
    assert_close(toy_head.vertices(root=values["root"], **still), turned)


def test_jaw_moves_only_what_hangs_on_it(toy_head):
    without_correctives = replace(toy_head, pose_basis=torch.zeros_like(toy_head.pose_basis))
    moved = without_correctives.vertices(jaw=torch.tensor((0.3, 0.0, 0.0))) - toy_head.template
    free = toy_head.skin_weights[:, 2] == 0
    assert_close(moved[free], torch.zeros_like(moved[free]))
    assert moved[~free].norm(dim=-1).min() > 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_mirrored_coefficients_give_the_mirrored_head(toy_head, seed):
    values = random_coefficients(toy_head, (2,), seed)
    expected = toy_head.topology.mirrored(toy_head.vertices(**values).numpy())
    assert_close(toy_head.vertices(**mirrored_coefficients(values)), torch.from_numpy(expected))


def test_joints_and_transforms_belong_to_the_vertices(toy_head):
    values = random_coefficients(toy_head, (3,))
    rest = toy_head.rest(values.pop("shape"))
    posed = rest.pose(**values)
    eye = toy_head.topology.region("left_eye")
    without_correctives = replace(toy_head, pose_basis=torch.zeros_like(toy_head.pose_basis))
    bare = replace(rest, model=without_correctives).pose(**values)
    assert_close(transform(posed.posed_from_rest[:, 3], rest.vertices[:, eye]), bare.vertices[:, eye])
    assert_close(transform(posed.posed_from_rest[:, 4], rest.joints[:, 4:]), posed.joints[:, 4:])
    assert_close(posed.joints[:, 0], rest.joints[:, 0] + values["translation"])


@pytest.mark.parametrize("batch", BATCHES)
def test_batches_are_loops(free_head, batch):
    values = random_coefficients(free_head, batch)
    vertices = free_head.vertices(**values)
    assert vertices.shape == (*batch, free_head.num_vertices, 3)
    for index in np.ndindex(*batch):
        assert_close(vertices[index], free_head.vertices(**{name: value[index] for name, value in values.items()}))


def test_leading_shapes_broadcast(free_head):
    values = random_coefficients(free_head)
    people = torch.randn(2, 1, free_head.num_shape, dtype=torch.float64)
    frames = torch.randn(3, 3, dtype=torch.float64)
    together = free_head.vertices(**{**values, "shape": people, "jaw": frames})
    assert together.shape == (2, 3, free_head.num_vertices, 3)
    assert_close(together[1, 2], free_head.vertices(**{**values, "shape": people[1, 0], "jaw": frames[2]}))
    moved = free_head.vertices(translation=frames)
    assert_close(moved, free_head.template + frames[:, None])


def test_float32_agrees_with_float64(free_head):
    values = random_coefficients(free_head, (5,))
    single = free_head.to(dtype=torch.float32)
    vertices = single.vertices(**{name: value.float() for name, value in values.items()})
    assert vertices.dtype == torch.float32
    assert_close(vertices.double(), free_head.vertices(**values), torch.float32)


@given(num_shape=st.integers(0, 10), num_expression=st.integers(0, 8), batch=st.sampled_from(BATCHES))
def test_missing_coefficients_are_zero(num_shape, num_expression, batch):
    model = make_toy_head()
    shape, expression = torch.randn(*batch, 10).double(), torch.randn(*batch, 8).double()
    shape[..., num_shape:] = 0
    expression[..., num_expression:] = 0
    few = model.vertices(shape=shape[..., :num_shape], expression=expression[..., :num_expression])
    assert_close(few, model.vertices(shape=shape, expression=expression))


def test_gradcheck(free_head):
    values = random_coefficients(free_head, (2,))
    values["jaw"] = torch.zeros_like(values["jaw"])
    names = list(values)
    some = torch.randn(free_head.num_vertices, 3, dtype=torch.float64)

    def energy(*tensors: torch.Tensor) -> torch.Tensor:
        return (free_head.vertices(**dict(zip(names, tensors, strict=True))) * some).sum((-1, -2))

    assert torch.autograd.gradcheck(energy, tuple(value.requires_grad_() for value in values.values()))


def test_head_without_jaw_ignores_the_jaw_rotation(toy_head):
    model = replace(toy_head, has_jaw=False)
    jaw = torch.tensor((0.3, 0.0, 0.0), dtype=torch.float64, requires_grad=True)
    assert_close(model.vertices(jaw=jaw), model.template)
    assert model.content_hash != toy_head.content_hash


def test_expressions_move_no_joint_of_the_toy_head(toy_head, free_head):
    assert toy_head.joint_expression_basis.abs().max() == 0
    assert free_head.joint_expression_basis.abs().max() > 1e-4


def test_content_hash_names_the_content_not_the_type(toy_head):
    assert toy_head.content_hash == make_toy_head(torch.float32).content_hash
    assert toy_head.content_hash == replace(toy_head, name="other").content_hash
    changed = toy_head.template.clone()
    changed[3, 1] += 1e-6
    assert toy_head.content_hash != replace(toy_head, template=changed).content_hash
    assert len(toy_head.content_hash) == 64


def test_counts_and_types(toy_head):
    single = toy_head.to(dtype=torch.float32)
    assert (toy_head.num_vertices, toy_head.num_shape, toy_head.num_expression) == (len(toy_head.template), 10, 8)
    assert (single.dtype, single.expression_bounds.dtype, single.faces.dtype) == (
        torch.float32,
        torch.float32,
        torch.int64,
    )
    assert single.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": torch.zeros(11)}, r"shape coefficients have shape \(11,\); head 'toy' takes \(\.\.\., <= 10\)"),
        ({"expression": torch.zeros(2, 9)}, r"expression coefficients have shape \(2, 9\).*<= 8"),
        ({"shape": torch.tensor(1.0)}, r"shape coefficients have shape \(\)"),
        ({"jaw": torch.zeros(3, 4)}, r"jaw rotation has shape \(3, 4\); axis-angle needs \(\.\.\., 3\)"),
        ({"translation": torch.zeros(2)}, r"translation has shape \(2,\); it needs \(\.\.\., 3\)"),
    ],
)
def test_wrong_shapes_are_named(toy_head, arguments, message):
    with pytest.raises(InputError, match=message):
        toy_head.vertices(**arguments)
