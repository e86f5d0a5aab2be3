"""Mirrored averaging: the constant follows from the head's texture layout, and exact maps stay exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from priors.dense_rendering import render_dense_maps
from priors.evidence import DenseMaps, NormalSpace
from priors.networks.flip import MirrorAveraged, UvMirror, mirror_partners, unmirror

RELEASED_SUM_U = 1.0075
"""Twice the axis by which the release mirrors u, in [0, 1]: u <- 0.0075 * 2 - u in [-1, 1]."""
_CAMERA = Intrinsics.from_fov(24.0, 96, 96)
_MIRROR = np.diag((-1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons")


def with_uv(head: HeadModel, uv: np.ndarray) -> HeadModel:
    assert head.topology is not None
    return replace(head, topology=replace(head.topology, uv=uv.astype(np.float32)))


def as_maps(maps: DenseMaps) -> dict[str, Tensor]:
    arrays = {"uv": maps.uv, "normals": maps.normals}
    return {name: torch.from_numpy(value).double().permute(2, 0, 1)[None] for name, value in arrays.items()}


def test_the_commons_head_is_mirrored_about_the_middle(commons):
    mirror = UvMirror.of(commons)
    assert mirror.sum_u == pytest.approx(1.0, abs=1e-6) and mirror.spread < 1e-6


@pytest.mark.parametrize("axis", [0.4963, 0.5, 0.42])
def test_the_constant_is_twice_the_axis(commons, axis):
    """0.4963 is where FLAME's layout has its axis."""
    uv = commons.topology.uv.copy()
    uv[:, 0] = axis + 0.8 * (uv[:, 0] - 0.5)
    assert UvMirror.of(with_uv(commons, uv)).sum_u == pytest.approx(2 * axis, abs=1e-6)


def test_a_layout_that_is_a_little_uneven_has_a_constant_all_the_same(commons):
    rng = np.random.default_rng(0)
    uv = commons.topology.uv + rng.normal(0, 2e-3, commons.topology.uv.shape)
    mirror = UvMirror.of(with_uv(commons, uv))
    assert mirror.sum_u == pytest.approx(1.0, abs=3e-4) and 1e-3 < mirror.spread < 1e-2


def test_partners_are_found_by_place_where_no_mirror_map_is_known(commons):
    blind = replace(commons, topology=replace(commons.topology, mirror=None))
    np.testing.assert_array_equal(mirror_partners(commons), commons.topology.mirror)
    found = mirror_partners(blind)
    assert (found == commons.topology.mirror).mean() > 0.9
    assert UvMirror.of(blind).sum_u == pytest.approx(1.0, abs=1e-5)


def test_layouts_without_an_axis_are_refused(commons):
    uv = commons.topology.uv.copy()
    uv[:, 0] = uv[:, 0] + 0.3 * uv[:, 1]
    # A shear keeps an axis of its own for each height: pairs agree on no constant.
    with pytest.raises(InputError, match=r"texture coordinates of head 'commons' are not symmetric \(pairs are off by"):
        UvMirror.of(with_uv(commons, uv))
    bare = replace(commons, topology=replace(commons.topology, uv=None))
    with pytest.raises(InputError, match="has no texture coordinates"):
        UvMirror.of(bare)


def posed_maps(head: HeadModel, *, is_mirrored: bool, space: NormalSpace = "head") -> DenseMaps:
    """Render a symmetric head with its jaw open, its neck bent and its root turned; or the mirror image of that."""
    jaw, neck, root = (np.array(turn) for turn in ((0.2, 0.05, 0.0), (0.1, -0.1, 0.05), (0.1, 0.3, 0.1)))
    if is_mirrored:
        jaw, neck, root = (turn * (1, -1, -1) for turn in (jaw, neck, root))
    with torch.no_grad():
        turns = {"jaw": torch.tensor(jaw).to(head.dtype), "neck": torch.tensor(neck).to(head.dtype)}
        verts = head.vertices(**turns)
    cam_from_head = matrix_from_axis_angle(root) @ np.diag((1.0, -1.0, -1.0))
    verts_cam = (verts.double().numpy() - verts.double().numpy().mean(axis=0) * (0, 1, 1)) @ cam_from_head.T
    cam_from_neck = cam_from_head @ matrix_from_axis_angle(neck)
    return render_dense_maps(head, verts_cam + (0, 0, 0.9), _CAMERA, normal_space=space, cam_from_neck=cam_from_neck)


def typical(differences: Tensor) -> float:
    """Return what all but some pixels stay below: triangles along seams and edges in depth are cut otherwise."""
    return float(differences.abs().quantile(0.97))


@pytest.mark.parametrize("space", ["camera", "head"])
def test_the_mirrored_head_has_the_mirrored_maps(commons, space):
    seen, mirrored = (posed_maps(commons, is_mirrored=side, space=space) for side in (False, True))
    undone = unmirror(as_maps(mirrored), UvMirror.of(commons))
    both = seen.mask & mirrored.mask[:, ::-1]
    assert both.sum() > 0.98 * seen.mask.sum() > 1000
    for name, values in as_maps(seen).items():
        assert typical(undone[name][0, :, both] - values[0, :, both]) < {"uv": 1e-4, "normals": 1e-2}[name]


class Exact(nn.Module):
    """Answer with exact maps: of the picture, and of its mirror image, which is told by its first pixel."""

    def __init__(self, seen: dict[str, Tensor], mirrored: dict[str, Tensor]) -> None:
        super().__init__()
        self.seen, self.mirrored = seen, mirrored

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        chosen = [self.seen if picture[0, 0, 0] > picture[0, 0, -1] else self.mirrored for picture in image]
        return {name: torch.cat([maps[name] for maps in chosen]) for name in self.seen}


def test_averaging_exact_maps_changes_nothing_but_with_the_released_constant_it_does(commons):
    uv = commons.topology.uv - np.array((0.0037, 0.0))
    head = with_uv(commons, uv)
    seen, mirrored = (posed_maps(head, is_mirrored=side) for side in (False, True))
    network = Exact(as_maps(seen), as_maps(mirrored))
    picture = torch.linspace(1, 0, 96).expand(1, 3, 96, 96)
    both = seen.mask & mirrored.mask[:, ::-1]

    def shift(mirror: UvMirror) -> tuple[float, ...]:
        maps = MirrorAveraged(network, mirror)(picture)
        away = {name: (maps[name] - values)[0, :, both] for name, values in as_maps(seen).items()}
        assert typical(away["normals"]) < 1e-2
        return tuple(away["uv"].median(dim=1).values.tolist())

    assert shift(UvMirror.of(head)) == pytest.approx((0, 0), abs=1e-6)
    assert shift(UvMirror(RELEASED_SUM_U)) == pytest.approx((0.00745, 0), abs=2e-5)


def test_averaging_compiles_and_is_its_own_mirror_image():
    torch.manual_seed(0)
    network = MirrorAveraged(Stub(), UvMirror(0.98))
    picture = torch.rand(2, 3, 16, 16)
    maps, mirrored = network(picture), network(picture.flip(-1))
    for name, values in unmirror(mirrored, network.mirror).items():
        torch.testing.assert_close(values, maps[name])
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(picture)["uv"], maps["uv"])


class Stub(nn.Module):
    """Predict something that depends on left and right."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 9, 3, padding=1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        values = self.layer(image)
        return {"uv": values[:, :2], "normals": values[:, 2:5], "place": values[:, 5:8], "log_sigma_uv": values[:, 8:]}
