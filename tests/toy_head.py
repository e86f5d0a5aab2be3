"""A small seeded head in FLAME's shape, for tests: an egg with two eyeballs, exactly symmetric."""

from __future__ import annotations

import numpy as np
import torch

from flame.model import HeadModel, JointAction
from flame.topology import Topology, mirror_from_template

NUM_RINGS, NUM_SEGMENTS = 9, 12
EXPRESSION_NAMES = (
    *("jawForward", "mouthPucker"),
    *("mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight", "browDownLeft", "browDownRight"),
)
_FLIP_X = np.array((-1.0, 1.0, 1.0))


def make_toy_head(dtype: torch.dtype = torch.float64, num_shape: int = 10, seed: int = 7) -> HeadModel:
    """Return a head of about 120 vertices; even shape modes are symmetric, odd ones antisymmetric."""
    rng = np.random.default_rng(seed)
    template, faces, parts = _mesh()
    mirror = mirror_from_template(template, tolerance_m=1e-9)
    assert mirror is not None
    weights = _skin_weights(template, parts)
    regressor = _joint_regressor(template, parts)
    count = len(template)
    shape = 3e-3 * _smooth_fields(rng, template, num_shape)
    signs = np.where(np.arange(num_shape) % 2 == 0, 1.0, -1.0)
    shape = (shape + signs * _mirrored(shape, mirror)) / 2
    expression = 5e-3 * _smooth_fields(rng, template, len(EXPRESSION_NAMES))
    expression *= _moved_by_expression(template, parts, regressor)[:, None, None]
    expression = (expression + _mirrored(expression, mirror)[..., _swapped_expressions()]) / 2
    pose = 1e-3 * _smooth_fields(rng, template, 36)
    pose = (pose + _mirrored(pose, mirror)[..., _swapped_features()[0]] * _swapped_features()[1]) / 2

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)

    return HeadModel(
        name="toy",
        template=tensor(template),
        faces=torch.from_numpy(faces),
        shape_basis=tensor(shape),
        expression_basis=tensor(expression),
        pose_basis=tensor(np.moveaxis(pose, -1, 0).reshape(36, 3 * count)),
        joint_regressor=tensor(regressor),
        skin_weights=tensor(weights),
        topology=_topology(template, faces, parts, mirror),
        expression_names=EXPRESSION_NAMES,
        expression_bounds=tensor(np.tile((-0.2, 1.2), (len(EXPRESSION_NAMES), 1))),
        joint_actions=(
            JointAction("jawOpen", 2, (0.3, 0.0, 0.0)),
            JointAction("eyeLookInLeft", 3, (0.0, -0.4, 0.0)),
            JointAction("eyeLookInRight", 4, (0.0, 0.4, 0.0)),
        ),
        licence="CC0-1.0",
        source="made for tests",
    )


def mirrored_coefficients(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the arguments of ``HeadModel.vertices`` that give the mirror image."""
    swapped = {"left_eye": "right_eye", "right_eye": "left_eye"}
    result = {}
    for name, value in values.items():
        if name == "shape":
            result[name] = value * torch.where(torch.arange(value.shape[-1]) % 2 == 0, 1.0, -1.0)
        elif name == "expression":
            result[name] = value[..., _swapped_expressions()]
        elif name == "translation":
            result[name] = value * torch.tensor((-1.0, 1.0, 1.0))
        else:
            result[swapped.get(name, name)] = value * torch.tensor((1.0, -1.0, -1.0))
    return result


def random_coefficients(model: HeadModel, batch: tuple[int, ...] = (), seed: int = 0) -> dict[str, torch.Tensor]:
    """Return arguments of ``HeadModel.vertices``: every coefficient, joint angles of about half a radian."""
    generator = torch.Generator().manual_seed(seed)

    def normal(size: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(*batch, size, generator=generator, dtype=torch.float64).to(model.dtype)

    turns = {name: normal(3, 0.4) for name in ("root", "neck", "jaw", "left_eye", "right_eye")}
    return {
        "shape": normal(model.num_shape, 1.0),
        "expression": normal(model.num_expression, 0.5),
        "translation": normal(3, 0.3),
        **turns,
    }


def _mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (V, 3), faces (F, 3) and parts (V,): 0 skin, 1 left eye, 2 right eye."""
    skin, skin_faces = _ellipsoid(NUM_RINGS, NUM_SEGMENTS, np.array((0.075, 0.11, 0.09)), np.zeros(3))
    eye, eye_faces = _ellipsoid(3, 4, np.full(3, 0.012), np.array((0.032, 0.03, 0.066)))
    vertices = np.concatenate((skin, eye, eye * _FLIP_X))
    offsets = (len(skin), len(skin) + len(eye))
    faces = np.concatenate((skin_faces, eye_faces + offsets[0], eye_faces[:, ::-1] + offsets[1]))
    parts = np.repeat((0, 1, 2), (len(skin), len(eye), len(eye)))
    return vertices, faces.astype(np.int64), parts


def _ellipsoid(
    num_rings: int, num_segments: int, radii: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a closed ellipsoid with poles along y, exactly symmetric in x about its centre, outward faces."""
    polar = np.pi * np.arange(1, num_rings + 1) / (num_rings + 1)
    around = 2 * np.pi * np.arange(num_segments) / num_segments
    x, z = np.sin(around), np.cos(around)
    x = (x - x[-np.arange(num_segments)]) / 2
    rings = [np.stack((np.sin(t) * x, np.full(num_segments, np.cos(t)), np.sin(t) * z), -1) for t in polar]
    unit = np.concatenate((*rings, ((0.0, 1.0, 0.0), (0.0, -1.0, 0.0))))
    index = np.arange(num_rings * num_segments).reshape(num_rings, num_segments)
    right = np.roll(index, -1, axis=1)
    quads = [(index[:-1], index[1:], right[1:]), (index[:-1], right[1:], right[:-1])]
    top, bottom = num_rings * num_segments, num_rings * num_segments + 1
    caps = [
        np.stack((np.full(num_segments, top), index[0], right[0]), -1),
        np.stack((np.full(num_segments, bottom), right[-1], index[-1]), -1),
    ]
    faces = [np.stack(quad, -1).reshape(-1, 3) for quad in quads]
    return unit * radii + centre, np.concatenate((*faces, *caps))


def _smooth_fields(rng: np.random.Generator, points: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` smooth random vector fields at the points (V, 3, count), of about unit size."""
    frequencies = rng.normal(0.0, 12.0, (count, 3, 3))
    phases = rng.uniform(0.0, 2 * np.pi, (count, 3))
    return np.sqrt(2) * np.sin(np.einsum("vd,kcd->vck", points, frequencies) + phases.T)


def _mirrored(fields: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    return fields[mirror] * _FLIP_X[:, None]


def _swapped_expressions() -> list[int]:
    swap = {"Left": "Right", "Right": "Left"}
    names = list(EXPRESSION_NAMES)
    return [
        names.index(next((name[: -len(side)] + swap[side] for side in swap if name.endswith(side)), name))
        for name in names
    ]


def _swapped_features() -> tuple[list[int], np.ndarray]:
    """Return where each entry of R - I comes from in the mirror image diag(-1, 1, 1) R diag(-1, 1, 1), with signs."""
    signs = np.tile(np.outer(_FLIP_X, _FLIP_X).reshape(-1), 4)
    joints = (0, 1, 3, 2)
    return [9 * joint + entry for joint in joints for entry in range(9)], signs


def _skin_weights(template: np.ndarray, parts: np.ndarray) -> np.ndarray:
    y, z = template[:, 1], template[:, 2]
    root = np.clip((-0.07 - y) / 0.04, 0, 1)
    jaw = np.round((1 - root) * np.clip((-0.01 - y) / 0.05, 0, 1) * np.clip(z / 0.05, 0, 1), 6)
    weights = np.stack((root, 1 - root - jaw, jaw, np.zeros_like(root), np.zeros_like(root)), -1)
    weights[parts == 1] = (0, 0, 0, 1, 0)
    weights[parts == 2] = (0, 0, 0, 0, 1)
    return weights


def _joint_regressor(template: np.ndarray, parts: np.ndarray) -> np.ndarray:
    y, z = template[:, 1], template[:, 2]
    members = (
        (parts == 0) & (y < -0.1),
        (parts == 0) & (np.abs(y + 0.064) < 0.01),
        (parts == 0) & (np.abs(y) < 0.01) & (z < 0.02) & (z > -0.05),
        parts == 1,
        parts == 2,
    )
    return np.stack([member / member.sum() for member in members])


def _moved_by_expression(template: np.ndarray, parts: np.ndarray, regressor: np.ndarray) -> np.ndarray:
    return (parts == 0) & (template[:, 2] > 0.0) & (regressor == 0).all(axis=0)


def _topology(template: np.ndarray, faces: np.ndarray, parts: np.ndarray, mirror: np.ndarray) -> Topology:
    x, y, z = template.T
    skin = parts == 0
    face = skin & (z > 0) & (y < 0.08) & (y > -0.09)
    regions = {
        "face": face,
        "lips": face & (np.abs(y + 0.034) < 0.02) & (np.abs(x) < 0.04),
        "nose": face & (np.abs(y) < 0.01) & (np.abs(x) < 0.04),
        "left_eye": parts == 1,
        "right_eye": parts == 2,
        "eyes": parts > 0,
        "ears": skin & (np.abs(x) > 0.07),
        "scalp": skin & ~face & (y > 0.0),
        "neck": skin & (y < -0.08),
        "inner_mouth": np.zeros(len(template), dtype=bool),
    }
    plane = np.stack((0.25 + x / 0.4, 0.5 + y / 0.25), -1)
    uv = np.concatenate((plane, plane + (0.5, 0.0))).astype(np.float32)
    is_back = template[faces][..., 2].mean(axis=1) < 0
    return Topology(faces, regions, mirror, uv, faces + len(template) * is_back[:, None])
