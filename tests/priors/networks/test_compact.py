"""The compact network: what it returns, where it begins, and that batches and layouts do not matter."""

import pytest
import torch

from flame.errors import InputError
from priors.networks import build_network, config_from
from priors.networks.compact import NUM_KINDS, CompactConfig, CompactNetwork

TINY = CompactConfig(input_px=64, widths=(4, 6, 8, 10, 12), depths=(0, 1, 1, 1, 1))


def network(config: CompactConfig = TINY) -> CompactNetwork:
    torch.manual_seed(3)
    built = build_network(config)
    assert isinstance(built, CompactNetwork)
    return built


def test_maps_have_half_the_pictures_size() -> None:
    maps = network()(torch.rand(2, 3, 64, 64))
    assert {name: tuple(values.shape) for name, values in maps.items()} == {
        "place": (2, 3, 32, 32),
        "log_sigma_place": (2, 1, 32, 32),
        "normals": (2, 3, 32, 32),
        "log_sigma_normals": (2, 1, 32, 32),
        "kind": (2, NUM_KINDS, 32, 32),
    }


def test_it_begins_at_an_average_head_that_faces_the_camera() -> None:
    with torch.no_grad():
        maps = network().eval()(torch.rand(1, 3, 64, 64))
    place, normals = maps["place"][0], maps["normals"][0]
    # The subject's left is on the right; up is up; the nose is in front.
    assert place[0, 16, 28] > 0.3 > -0.3 > place[0, 16, 3]
    assert place[1, 4, 16] > 0.3 > -0.3 > place[1, 28, 16]
    assert place[2, 16, 16] > place[2, 16, 1]
    assert normals[0, 16, 28] > 0.3 and normals[1, 28, 16] > 0.3 and normals[2, 16, 16] < -0.8


def test_results_do_not_depend_on_the_batch_or_the_memory_layout() -> None:
    built = network().eval()
    pictures = torch.rand(5, 3, 64, 64)
    with torch.no_grad():
        together = built(pictures)
        alone = [built(picture[None]) for picture in pictures]
        last = built.to(memory_format=torch.channels_last)(pictures.contiguous(memory_format=torch.channels_last))
    for name, values in together.items():
        scale = float(values.abs().max())
        assert float((torch.cat([each[name] for each in alone]) - values).abs().max()) < 1e-4 * scale
        assert float((last[name] - values).abs().max()) < 1e-4 * scale


def test_low_precision_changes_results_by_less_than_a_hundredth() -> None:
    built, pictures = network().eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = built(pictures)
        with torch.autocast("cpu", torch.bfloat16):
            rough = built(pictures)
    for name in ("place", "normals"):
        assert float((rough[name] - exact[name]).abs().mean()) < 0.01 * float(exact[name].abs().mean())


def test_it_compiles_into_one_graph() -> None:
    built, pictures = network().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(built, backend="eager", fullgraph=True)(pictures)
        torch.testing.assert_close(compiled, built(pictures))


def test_every_parameter_gets_a_gradient() -> None:
    built = network()
    for block in built.modules():
        if isinstance(block, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(block.weight)
    sum(values.square().sum() for values in built(torch.rand(2, 3, 64, 64)).values()).backward()  # pyright: ignore
    assert all(weight.grad is not None and float(weight.grad.abs().sum()) > 0 for weight in built.parameters())


def test_the_shipped_size_is_small() -> None:
    with torch.device("meta"):
        count = sum(weight.numel() for weight in CompactNetwork(CompactConfig()).parameters())
    assert 2 * count < 12e6


def test_configurations_survive_storage_and_wrong_ones_are_refused() -> None:
    values = {"input_px": 64, "widths": [4, 6, 8, 10, 12], "depths": [0, 1, 1, 1, 1], "kind": "compact"}
    assert config_from(values) == TINY
    with pytest.raises(InputError, match="of 100 px.*must be a multiple of 32"):
        CompactConfig(input_px=100)
