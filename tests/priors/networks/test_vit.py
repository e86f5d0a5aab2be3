"""The paper's network: sizes, batches, short floats, compilation, outputs that share a backbone."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flame.errors import InputError
from priors.networks import build_network
from priors.networks.blocks import unpatchify
from priors.networks.vit import BACKBONES, ViTSurface, ViTSurfaceConfig

SMALL = ViTSurfaceConfig(
    outputs=("normals", "uv"),
    has_confidence=True,
    backbone="vit_small_patch14_reg4_dinov2",
    backbone_width=36,
    backbone_depth=1,
    image_px=64,
    width=32,
    num_blocks=1,
    num_heads=4,
)


@pytest.fixture(scope="module")
def network() -> ViTSurface:
    torch.manual_seed(0)
    built = build_network(SMALL)
    assert isinstance(built, ViTSurface)
    return built.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def difference(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Return the largest difference over the spread of the wanted values, of all maps the worst."""
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).abs().max() / wanted[name].std()) for name in wanted)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_gives_maps_of_the_picture_s_size(backbone):
    network = build_network(replace(SMALL, backbone=backbone, backbone_width=36, outputs=("uv",), has_confidence=False))
    maps = network(torch.rand(1, 3, 64, 64))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {"uv": (1, 2, 64, 64)}


def test_the_paper_s_sizes():
    """512 pixels are 32 x 32 patches of a picture of 448, and 256 x 256 cells of 2 x 2 pixels."""
    with torch.device("meta"):
        network = ViTSurface(ViTSurfaceConfig(outputs=("normals",)))
    head = network.heads["normals"]
    assert network.backbone.pos_embed.shape == (1, 32 * 32, 768) and network.backbone.num_prefix_tokens == 5
    assert len(head.blocks) == 4 and len(head.grow.up) == 3
    assert head.grow.pixels.out_features == 2 * 2 * 3
    groups = network.parameter_groups()
    assert sum(len(group) for group in groups.values()) == len(list(network.parameters()))


def test_two_outputs_share_a_backbone_and_have_confidence(network, pictures):
    maps = network(pictures)
    shapes = {name: tuple(value.shape[1:]) for name, value in maps.items()}
    assert shapes == {
        "normals": (3, 64, 64),
        "log_sigma_normals": (1, 64, 64),
        "uv": (2, 64, 64),
        "log_sigma_uv": (1, 64, 64),
    }
    alone = build_network(replace(SMALL, outputs=("uv",), has_confidence=False))
    assert set(alone(pictures)) == {"uv"}


def test_batches_do_not_change_the_result(network, pictures):
    whole = network(pictures)
    single = [network(picture[None]) for picture in pictures]
    joined = {name: torch.cat([maps[name] for maps in single]) for name in whole}
    assert difference(joined, whole) < 0.01


def test_bf16_is_near(network, pictures):
    with torch.autocast("cpu", torch.bfloat16):
        short = network(pictures)
    assert difference({name: value.float() for name, value in short.items()}, network(pictures)) < 0.15


def test_compiles_into_one_graph(network, pictures):
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert difference(compiled(pictures), network(pictures)) < 1e-4


@pytest.mark.needs_cuda
def test_a_gpu_gives_the_same_maps(network, pictures):
    if not torch.cuda.is_available() and not os.environ.get("FAIL_WITHOUT_CUDA"):
        pytest.skip("no CUDA device")
    wanted = network(pictures)
    on_gpu = copy.deepcopy(network).cuda()
    compiled = torch.compile(on_gpu, fullgraph=True)
    for predict in (on_gpu, compiled):
        found = predict(pictures.cuda())
        assert difference({name: value.cpu() for name, value in found.items()}, wanted) < 0.01
        with torch.autocast("cuda", torch.float16):
            short = predict(pictures.cuda())
        assert difference({name: value.float().cpu() for name, value in short.items()}, wanted) < 0.05


def test_other_sizes_work_in_multiples_of_16(network):
    assert network(torch.rand(1, 3, 96, 48))["uv"].shape == (1, 2, 96, 48)
    with pytest.raises(InputError, match="pictures of 100 x 64 pixels; it needs multiples of 16"):
        network(torch.rand(1, 3, 64, 100))


def test_learns_from_both_outputs(pictures):
    torch.manual_seed(0)
    network = build_network(SMALL)
    sum(value.square().mean() for value in network(pictures).values()).backward()
    idle = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.count_nonzero()]
    # Registers are read by no head, the mask token by nobody.
    assert not [name for name in idle if "mask_token" not in name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": ("depth",)}, r"cannot predict \['depth'\]; choose some of: normals, uv"),
        ({"outputs": ()}, "choose some of: normals, uv"),
        ({"backbone": "resnet50"}, "backbone 'resnet50' is not known; choose one of: vit_small_patch14_dinov2"),
        ({"image_px": 100}, "pictures of 100 pixels: a multiple of 16"),
        ({"num_heads": 5}, "width of 32 cannot be divided among 5"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)


def test_pretrained_weights_are_those_of_the_backbone_s_own_size():
    with pytest.raises(InputError, match="pretrained weights are those of the backbone's own size"):
        ViTSurface(SMALL, is_pretrained=True)


def test_cells_are_laid_out_row_column_channel():
    cells = torch.arange(2 * 1 * 12.0).view(1, 2, 1, 12)
    image = unpatchify(cells, 2)
    assert image.shape == (1, 3, 4, 2)
    assert image[0, :, 0, 1].tolist() == [3, 4, 5] and image[0, :, 3, 0].tolist() == [18, 19, 20]
