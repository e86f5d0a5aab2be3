"""The released checkpoints: read as they are laid out, no weight left over unknown, and the function is theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional

from flame.errors import AssetMissingError, InputError
from priors.networks import build_network, config_from
from priors.networks.released import (
    ReleasedConfig,
    normals_from_raw,
    raw_from_normals,
    raw_from_uv,
    uv_from_raw,
)
from priors.networks.released_checkpoint import UNUSED, load_released, load_released_network
from tests.priors.networks.released_files import (
    SMALL,
    as_omegaconf,
    checkpoint,
    configuration,
    random_weights,
    save,
    write_released,
)

UV = replace(SMALL, outputs=("uv_map",))


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(5))


def attend(weights: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    """Apply torch's own attention, without biases."""
    layer = torch.nn.MultiheadAttention(x.shape[-1], heads, bias=False, batch_first=True)
    inside = f"{name}."
    layer.load_state_dict({key.removeprefix(inside): value for key, value in weights.items() if key.startswith(inside)})
    return layer(x, x, x, need_weights=False)[0]


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def perceptron(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    hidden = functional.linear(x, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"])
    return functional.linear(functional.gelu(hidden), weights[f"{name}.3.weight"], weights[f"{name}.3.bias"])


def expected(weights: dict[str, Tensor], config: ReleasedConfig, image: Tensor) -> Tensor:
    """Compute the release's function step by step from the weights alone."""
    weights = {name.removeprefix("net."): value for name, value in weights.items()}
    model: Any = timm.create_model(
        config.backbone,
        num_classes=0,
        dynamic_img_size=True,
        embed_dim=config.backbone_width,
        depth=config.backbone_depth,
    )
    prefix = "img_encoder.model."
    model.load_state_dict({key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)})
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    scaled = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    x = model.forward_features(scaled)[:, 1:]
    x = x + weights["patch_pos_enc"].flatten(2).transpose(1, 2)
    view = weights["view_embed"][:, 0, :, 0, 0]
    x = torch.cat((x, view[:, None].expand(len(x), x.shape[1], -1)), dim=-1)
    x = functional.linear(x, weights["vol_decoder.down_proj.weight"], weights["vol_decoder.down_proj.bias"])
    for index in range(config.num_layers):
        layer = f"vol_decoder.layers.{index}"
        for first, attention, second, mlp in (
            ("norm1", "self_attn", "norm2", "mlp"),
            ("norm3", "self_attn2", "norm4", "mlp2"),
        ):
            x = norm(weights, f"{layer}.{first}", x)
            x = x + attend(weights, f"{layer}.{attention}", x, config.num_heads)
            x = x + perceptron(weights, f"{layer}.{mlp}", norm(weights, f"{layer}.{second}", x))
    x = x.transpose(1, 2).unflatten(2, (32, 32))
    for name in ("t_conv1", "t_conv2", "t_conv3"):
        x = functional.gelu(
            functional.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2)
        )
    cells = functional.linear(
        x.permute(0, 2, 3, 1), weights["token_2_patch_content.weight"], weights["token_2_patch_content.bias"]
    )
    channels = cells.shape[-1] // 4
    out = torch.empty(len(image), channels, 512, 512)
    for row in range(2):
        for column in range(2):
            first = (2 * row + column) * channels
            out[:, :, row::2, column::2] = cells[..., first : first + channels].permute(0, 3, 1, 2)
    return out


@pytest.mark.parametrize("output", ["uv_map", "normals"])
def test_the_function_is_the_release_s(tmp_path, picture, output):
    config = replace(SMALL, outputs=(output,))
    content = checkpoint(config, seed=3)
    network = load_released_network(save(content, tmp_path / "a.ckpt"), output)
    assert network.config == config
    with torch.no_grad():
        found, wanted = network(picture)[output], expected(dict(content["state_dict"]), config, picture)
    assert found.shape == (2, {"uv_map": 2, "normals": 3}[output], 512, 512) and found.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


VARIANTS = {
    "as released": {},
    "one view": {"num_views": 1, "view_width": 0, "has_position_grid": False},
    "confidence": {"has_confidence": True},
    "disentangled": {"is_disentangled": True},
    "several layers": {"num_layers": 3, "backbone_depth": 2},
    "several outputs": {"outputs": ("uv_map", "normals")},
    "no up-convolutions": {"has_up_convolutions": False},
}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_weight_is_used_and_changes_the_maps(tmp_path, picture, variant):
    config = replace(UV, **VARIANTS[variant])
    content = checkpoint(config)
    network = load_released_network(save(content, tmp_path / "a.ckpt"), "uv_map")
    assert network.config == config
    used = {f"net.{name}" for name in network.state_dict()}
    left = set(content["state_dict"]) - used
    assert used <= set(content["state_dict"]) and all(name.startswith(tuple(UNUSED)) for name in left)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, content["state_dict"][f"net.{name}"], rtol=0, atol=0)
    network.requires_grad_()
    maps = network(picture[:1])
    torch.stack([value.square().sum() for value in maps.values()]).sum().backward()
    idle = [name for name, parameter in network.named_parameters() if not torch.count_nonzero(parameter.grad)]
    assert not idle
    assert set(maps) >= set(config.outputs)


def changed(**changes: Any) -> dict[str, Any]:
    """Return the content of a checkpoint with settings changed; dots are written as two underscores."""
    values = configuration(UV)
    for name, value in changes.items():
        *place, last = name.split("__")
        section = values
        for part in place:
            section = section[part]
        if value is None:
            del section[last]
        else:
            section[last] = value
    content = checkpoint(UV)
    content["hyper_parameters"]["cfg"] = as_omegaconf(values)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(model__num_layers=None), r"'model.num_layers' of its configuration is not there; int is needed"),
        (changed(model__num_heads="4"), r"'model.num_heads' of its configuration is '4'; int is needed"),
        (changed(model__num_heads=5), "32 cannot be divided among 5"),
        (changed(model__num_layers=2), "says it has 2 layers; there are weights of 1"),
        (changed(model__encoder_backbone="hf-hub:x/y"), "backbone is 'hf-hub:x/y'; the released networks have"),
        (changed(model__feature_map_type="sapiens"), "'sapiens'; networks with 'DINO' are read"),
        (changed(model__use_uv_enc=True), "needs encoded texture coordinates"),
        (changed(model__embedding_dim=64), r"net\.\S+ has shape \(\d+,.*\) is needed"),
        (changed(model__use_pos_enc=False), "has 1 weights that this architecture does not know: net.patch_pos_enc"),
        (changed(model__pred_conf=True), "lacks 4 weights that its configuration asks for: net.t_conv3_conf.bias"),
        (changed(model__prediction_type="depth"), r"predicts \['depth'\] is not known"),
        (changed(model__prediction_type="normals"), "predicts normals, not uv_map: are the files confused"),
        (changed(model=None), "holds no configuration"),
        ({"state_dict": {}}, "holds no weights"),
        ({"state_dict": {"net.x": "text"}}, "net.x is no tensor"),
        (["list"], "holds no weights"),
    ],
)
def test_other_architectures_are_refused_by_name(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as error:
        load_released_network(save(content, tmp_path / "a.ckpt"), "uv_map")
    assert "\n" not in str(error.value)


def test_weights_nobody_knows_and_weights_that_are_no_numbers(tmp_path):
    content = checkpoint(UV)
    content["state_dict"]["net.magic.weight"] = torch.zeros(2)
    with pytest.raises(InputError, match="1 weights that this architecture does not know: net.magic.weight; its maps"):
        load_released_network(save(content, tmp_path / "a.ckpt"), "uv_map")
    del content["state_dict"]["net.magic.weight"]
    content["state_dict"]["net.t_conv1.bias"] = torch.full((32,), torch.nan)
    with pytest.raises(InputError, match="t_conv1.bias holds values that are not finite"):
        load_released_network(save(content, tmp_path / "b.ckpt"), "uv_map")


def test_a_folder_without_the_files_says_where_they_come_from(tmp_path):
    with pytest.raises(
        AssetMissingError, match="has no uv.ckpt and no normals.ckpt: .*https://.*CC BY-NC 4.0.*--weights"
    ):
        load_released(tmp_path)
    write_released(tmp_path)
    (tmp_path / "normals.ckpt").unlink()
    with pytest.raises(AssetMissingError, match="has no normals.ckpt: "):
        load_released(tmp_path / ".")


def test_both_networks_speak_our_conventions(tmp_path, picture):
    surface = load_released(write_released(tmp_path))
    assert surface.uv is not None and surface.normals is not None
    with torch.no_grad():
        maps, raw_uv, raw_normals = surface(picture), surface.uv(picture), surface.normals(picture)
    torch.testing.assert_close(maps["uv"][:, 0], (raw_uv["uv_map"][:, 0] + 1) / 2)
    torch.testing.assert_close(maps["uv"][:, 1], (1 - raw_uv["uv_map"][:, 1]) / 2)
    x, y, z = maps["normals"].unbind(1)
    torch.testing.assert_close(torch.stack((x, -z, -y), 1), raw_normals["normals"])


def test_conventions_round_trip():
    uv, normals = torch.rand(2, 2, 4, 5), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(uv_from_raw(raw_from_uv(uv)), uv)
    torch.testing.assert_close(normals_from_raw(raw_from_normals(normals)), normals)
    # A texel at the left and bottom of the texture: u is -1, and v, counted from the top, is 1.
    assert raw_from_uv(torch.zeros(1, 2, 1, 1)).flatten().tolist() == [-1, 1]
    # A surface that faces forward.
    assert raw_from_normals(torch.tensor((0.0, 0, 1)).view(1, 3, 1, 1)).flatten().tolist() == [0, -1, 0]


def test_configurations_are_stored_as_plain_values():
    import dataclasses
    import json

    stored = json.loads(json.dumps(dataclasses.asdict(UV)))
    assert config_from(stored) == UV
    assert {f"net.{name}" for name in build_network(UV).state_dict()} <= set(random_weights(UV))
    with pytest.raises(InputError, match="no network of kind 'other'; choose one of: compact, released, vit"):
        config_from({"kind": "other"})
    with pytest.raises(InputError, match="'released' has no setting size"):
        config_from({"kind": "released", "size": 1})
