"""Relighting by spherical harmonics, and the procedure of IC-Light with a stand-in for the diffusion model."""

from __future__ import annotations

import builtins
import importlib.util

import numpy as np
import pytest
import torch

from flame.errors import InputError
from priors.training.render import ic_light
from priors.training.render.color import linear_from_srgb, srgb_from_linear
from priors.training.render.relight import (
    SKIN_ALBEDO,
    RelightSettings,
    directional_sh,
    estimate_sh,
    feather,
    mirror_sh,
    random_relight,
    random_sh,
    relight,
    sh_basis,
    shade_sh,
)

SIZE = 96
HARD = RelightSettings(least_ratio=0.01, most_ratio=100.0, feather_px=0.0)


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray]:
    """Return normals (S, S, 3) of a ball seen by the camera, and where it is."""
    x, y = np.meshgrid((np.arange(SIZE) + 0.5) / SIZE * 2.2 - 1.1, (np.arange(SIZE) + 0.5) / SIZE * 2.2 - 1.1)
    mask = x * x + y * y < 0.95
    z = -np.sqrt(np.maximum(1 - x * x - y * y, 0))
    normals = np.where(mask[..., None], np.stack((x, y, z), axis=-1), 0)
    return normals.astype(np.float32), mask


def soft_light(seed: int) -> np.ndarray:
    """Return light that is nowhere near zero, (9, 3)."""
    sh = random_sh(np.random.default_rng(seed))
    sh[0] += 1.5
    return sh


def photo(normals: np.ndarray, mask: np.ndarray, sh: np.ndarray, albedo: np.ndarray) -> np.ndarray:
    """Return a matt surface under light, linear float32."""
    shading = sh_basis(normals.astype(np.float64)) @ sh
    return np.where(mask[..., None], albedo * shading, 0.3).astype(np.float32)


def test_harmonics_are_orthogonal_and_damped_as_a_cosine_damps_them():
    count = 200_000
    directions = np.random.default_rng(0).normal(0, 1, (count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    basis = sh_basis(directions)
    gram = basis.T @ basis * (4 * np.pi / count)
    expected = np.diag([1.0, *[4 / 9] * 3, *[1 / 16] * 5])
    np.testing.assert_allclose(gram, expected, atol=0.01)
    # The shading of a lamp is near its cosine: nine harmonics hold over 99 % of it (Ramamoorthi and Hanrahan).
    toward = np.array((0.6, 0.0, -0.8))
    shading = basis @ directional_sh(toward)
    cosine = np.maximum(directions @ toward, 0)
    scale = (shading @ cosine) / (shading @ shading)
    assert np.square(scale * shading - cosine).mean() < 0.01 * np.square(cosine).mean()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_known_light_is_recovered(ball, seed):
    normals, mask = ball
    sh = 0.4 * soft_light(seed)
    image = photo(normals, mask, sh, np.array(SKIN_ALBEDO))
    found = estimate_sh(image, normals, mask, stiffness=1e-9)
    np.testing.assert_allclose(found, sh, atol=2e-3 * np.abs(sh).max())


def test_outliers_of_albedo_hardly_matter(ball):
    normals, mask = ball
    rng, sh = np.random.default_rng(4), 0.4 * soft_light(4)
    image = photo(normals, mask, sh, np.array(SKIN_ALBEDO))
    image *= rng.normal(1, 0.03, (SIZE, SIZE, 1)).astype(np.float32)
    dark = rng.random((SIZE, SIZE)) < 0.15
    image[dark] *= 0.3
    found = shade_sh(normals[mask], estimate_sh(image, normals, mask))
    true = shade_sh(normals[mask], sh)
    assert np.median(np.abs(found / true - 1)) < 0.02
    with_outliers = np.linalg.lstsq(sh_basis(normals[mask]), image[mask] / np.array(SKIN_ALBEDO), rcond=None)[0]
    plain = sh_basis(normals[mask]) @ with_outliers
    assert np.median(np.abs(found / true - 1)) < 0.3 * np.median(np.abs(plain / true - 1))


def test_relighting_to_its_own_light_changes_nothing(ball):
    normals, mask = ball
    sh = 0.4 * soft_light(5)
    image = srgb_from_linear(photo(normals, mask, sh, np.array(SKIN_ALBEDO)))
    own = estimate_sh(linear_from_srgb(image), normals, mask)
    np.testing.assert_allclose(relight(image, normals, mask, own), image, atol=2e-6)


def test_relit_picture_equals_a_direct_rendering(ball):
    normals, mask = ball
    old, new = 0.4 * soft_light(6), 0.4 * soft_light(7)
    texture = np.random.default_rng(8).uniform(0.1, 0.5, (SIZE, SIZE, 3))
    image = srgb_from_linear(photo(normals, mask, old, texture))
    expected = srgb_from_linear(photo(normals, mask, new, texture))
    with_known = relight(image, normals, mask, new, old_sh=old, settings=HARD)
    np.testing.assert_allclose(with_known, expected, atol=1e-4)
    # With the light estimated from the textured surface itself, up to its mean albedo.
    mean = texture[mask].mean(axis=0)
    estimated = estimate_sh(linear_from_srgb(image), normals, mask, albedo=mean)
    with_estimated = relight(image, normals, mask, new, old_sh=estimated, settings=HARD)
    assert np.abs(with_estimated - expected)[mask].mean() < 0.02


def test_a_mirrored_picture_is_relit_as_the_mirror_of_the_relit_one(ball):
    normals, mask = ball
    mask = mask & (np.arange(SIZE)[None] > 20)
    old, new = 0.4 * soft_light(9), 0.4 * soft_light(10)
    image = srgb_from_linear(photo(normals, mask, old, np.array(SKIN_ALBEDO)))
    mirrored = (normals * (-1, 1, 1))[:, ::-1].astype(np.float32)
    relit = relight(image, normals, mask, new)
    of_mirror = relight(image[:, ::-1].copy(), mirrored, mask[:, ::-1].copy(), mirror_sh(new))
    np.testing.assert_allclose(of_mirror[:, ::-1], relit, atol=1e-4)
    assert np.abs(relit - image).max() > 0.05


def test_a_lamp_at_the_right_and_above_brightens_that_side(ball):
    normals, _ = ball
    shading = shade_sh(normals, 0.2 + directional_sh(np.array((0.6, -0.6, -0.53)))[:, None] * np.ones(3))
    assert shading[SIZE // 4, 3 * SIZE // 4, 0] > 2 * shading[3 * SIZE // 4, SIZE // 4, 0]


def test_changes_are_bounded_and_fade_out_at_the_border(ball):
    normals, mask = ball
    image = np.full((SIZE, SIZE, 3), 0.3, np.float32)
    bright = np.zeros((9, 3))
    bright[0] = 100.0
    dim = np.zeros((9, 3))
    dim[0] = 1.0
    relit = relight(image, normals, mask, bright, old_sh=dim, settings=RelightSettings(feather_px=6.0))
    assert np.array_equal(relit[~mask], image[~mask])
    assert relit[SIZE // 2, SIZE // 2, 0] == pytest.approx(0.3 * 3.0**0.5, abs=1e-4)
    share = feather(mask, 6.0)
    assert share[~mask].max() == 0
    assert 0 < share[mask].min() < 0.1
    assert np.abs(np.diff(share, axis=1)).max() < 0.4


def test_random_light_repeats_by_seed_and_lights_the_front():
    first, again, other = (random_sh(np.random.default_rng(seed)) for seed in (11, 11, 12))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.05
    front = np.stack(
        [shade_sh(np.array([[0.0, 0.0, -1.0]]), random_sh(np.random.default_rng(s)))[0] for s in range(50)]
    )
    assert front.mean(axis=1).min() > 0.4
    assert front.mean(axis=1).max() < 1.3


def test_random_relighting_keeps_the_exposure(ball):
    normals, mask = ball
    image = srgb_from_linear(photo(normals, mask, 0.4 * soft_light(13), np.array(SKIN_ALBEDO)))
    before = linear_from_srgb(image)[mask].mean()
    levels = [
        linear_from_srgb(random_relight(image, normals, mask, np.random.default_rng(seed)))[mask].mean() / before
        for seed in range(12)
    ]
    assert 0.4 < min(levels) < max(levels) < 2.2
    assert np.std(levels) > 0.02


def test_unusable_input_is_refused(ball):
    normals, mask = ball
    with pytest.raises(InputError, match="do not fit"):
        estimate_sh(np.zeros((4, 4, 3), np.float32), normals, mask)
    with pytest.raises(InputError, match="neither black nor saturated"):
        estimate_sh(np.ones((SIZE, SIZE, 3), np.float32), normals, mask)


class FakeDiffusion:
    """Encode by taking every eighth pixel; `sample` notes what it is asked for and returns the foreground's latents."""

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        small = pictures[:, :, ::8, ::8]
        return np.concatenate((small, small[:, :1]), axis=1)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return latents[:, :3].repeat(8, axis=2).repeat(8, axis=3)

    def sample(self, condition: np.ndarray, sampling: ic_light.Sampling) -> np.ndarray:
        self.calls.append({"condition": condition, **vars(sampling)})
        return condition[:, :4]


def picture() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(14)
    image = rng.integers(0, 256, (160, 128, 3), np.uint8)
    alpha = np.zeros((160, 128))
    alpha[30:130, 30:100] = 1
    return image, alpha


def test_foreground_is_laid_on_the_grey_that_is_zero_for_the_network():
    image, alpha = picture()
    laid = ic_light.foreground_on_grey(image, alpha)
    np.testing.assert_array_equal(laid[alpha == 1], image[alpha == 1])
    assert np.all(laid[alpha == 0] == 127)
    assert np.all(ic_light.to_network(laid)[0][:, alpha == 0] == 0.0)
    half = ic_light.foreground_on_grey(np.full((2, 2, 3), 227, np.uint8), np.full((2, 2), 0.5))
    assert np.all(half == 177)


@pytest.mark.parametrize(
    ("side", "corner", "opposite"), [("left", (0, 0), (0, -1)), ("right", (0, -1), (0, 0)), ("top", (0, 0), (-1, 0))]
)
def test_gradients_are_those_published(side, corner, opposite):
    ramp = ic_light.light_gradient(side, 12, 10)
    assert (ramp[corner] == 255).all()
    assert (ramp[opposite] == 0).all()
    behind = ic_light.light_gradient(side, 12, 10, "background")
    assert (behind[corner] == 224).all()
    assert (behind[opposite] == 32).all()
    assert (ic_light.light_gradient("none", 12, 10, "background") == 64).all()
    with pytest.raises(InputError, match="choose one of: left, right, top, bottom"):
        ic_light.light_gradient("none", 12, 10)


def test_two_passes_of_the_foreground_model():
    image, alpha = picture()
    fake = FakeDiffusion()
    relit = ic_light.relight_photo(image, alpha, fake, prompt="sunset", side="left", seed=3)
    first, second = fake.calls
    height, width = ic_light.working_size(160, 128, 512 * 640)
    assert (height, width) == (640, 512)
    assert first["condition"].shape == (1, 4, height // 8, width // 8)
    assert second["condition"].shape == (1, 4, 960 // 8, 768 // 8)
    assert first["prompt"] == "sunset, best quality"
    assert (first["steps"], first["strength"], first["guidance"], first["seed"]) == (28, 0.9, 2.0, 3)
    assert (second["steps"], second["strength"]) == (50, 0.5)
    assert first["start"][0, 0, 0, 0] == pytest.approx(255 / 127 - 1)
    assert first["start"][0, 0, 0, -1] < first["start"][0, 0, 0, 0] - 1.5
    assert relit.image.shape == image.shape
    assert relit.image.dtype == np.uint8


def test_without_a_side_the_foreground_model_starts_from_noise_and_the_other_one_sees_a_background():
    image, alpha = picture()
    fake = FakeDiffusion()
    ic_light.relight_photo(image, alpha, fake, prompt="studio")
    assert fake.calls[0]["start"] is None
    assert fake.calls[0]["steps"] == 25
    settings = ic_light.ICLightSettings.of("background")
    fake = FakeDiffusion()
    ic_light.relight_photo(image, alpha, fake, prompt="studio", side="top", settings=settings)
    assert fake.calls[0]["condition"].shape[1] == 8
    assert fake.calls[0]["start"] is None
    assert (fake.calls[0]["steps"], fake.calls[0]["guidance"]) == (20, 7.0)
    assert fake.calls[0]["condition"][0, 4, 0, 0] == pytest.approx(224 / 127 - 1)
    with pytest.raises(InputError, match="choose the background model"):
        ic_light.relight_photo(image, alpha, fake, prompt="x", background=image)


def test_drift_of_the_face_is_noticed():
    rng = np.random.default_rng(15)
    coarse = rng.uniform(60, 200, (64, 64, 3)).astype(np.float32)
    image = np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8)
    alpha = np.ones((256, 256))
    lit = (image * np.linspace(0.4, 1.0, 256)[None, :, None]).astype(np.uint8)
    assert ic_light.detail_kept(image, lit, alpha) > 0.9
    assert ic_light.detail_kept(image, np.roll(lit, 3, axis=1), alpha) < 0.55
    assert ic_light.detail_kept(image, lit, np.zeros((256, 256))) == 0.0


def test_missing_libraries_and_weights_are_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install diffusers transformers") as caught:
        ic_light.load_diffusion(tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: builtins)
    with pytest.raises(InputError, match=r"iclight_sd15_fbc\.safetensors .*Apache-2\.0") as caught:
        ic_light.load_diffusion(tmp_path, "background")
    assert str(tmp_path) in str(caught.value)
    (tmp_path / "iclight_sd15_fc.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="lacks tokenizer, text_encoder, vae, unet"):
        ic_light.load_diffusion(tmp_path)


def test_offsets_are_added_by_name_and_must_fit():
    origin = {"a": torch.ones(2), "b": torch.zeros(3)}
    merged = ic_light.merge_offsets(origin, {"a": torch.full((2,), 0.5), "b": torch.ones(3)})
    assert merged["a"].tolist() == [1.5, 1.5]
    with pytest.raises(InputError, match="2 tensors differ, first b"):
        ic_light.merge_offsets(origin, {"a": torch.ones(2), "c": torch.ones(3)})
    with pytest.raises(InputError, match="1 tensors differ, first b"):
        ic_light.merge_offsets(origin, {"a": torch.ones(2), "b": torch.ones(4)})
