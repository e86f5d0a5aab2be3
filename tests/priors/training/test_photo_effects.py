"""Backgrounds, and what a camera does to a picture."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from priors.training.render.backgrounds import random_background
from priors.training.render.noise_tiles import clouds, grain
from priors.training.render.photo_effects import PhotoEffects, compress, degrade

NOTHING = PhotoEffects(**{field.name: 0 for field in fields(PhotoEffects)})
SIZES = [(64, 64), (48, 80), (256, 256)]


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Return a picture with edges, colours and even areas, float32 (96, 96, 3)."""
    picture = np.full((96, 96, 3), (0.7, 0.5, 0.4), np.float32)
    picture[:, :32] = (0.2, 0.3, 0.6)
    picture[40:60, 50:80] = 0.05
    return picture


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_backgrounds_have_the_size_and_range_asked_for(height, width):
    for seed in range(30):
        picture = random_background(np.random.default_rng(seed), height, width)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1


def test_backgrounds_repeat_by_seed_and_are_unlike():
    pictures = [random_background(np.random.default_rng(seed), 64, 64) for seed in range(40)]
    np.testing.assert_array_equal(pictures[7], random_background(np.random.default_rng(7), 64, 64))
    means = np.stack([picture.mean(axis=(0, 1)) for picture in pictures])
    assert means.std(axis=0).min() > 0.1
    spread = np.array([picture.std(axis=(0, 1)).mean() for picture in pictures])
    assert spread.min() < 0.05 < 0.12 < spread.max()


def test_noise_tiles_have_unit_spread_and_the_grain_asked_for():
    fine = grain(np.random.default_rng(0), 300, 300)
    coarse = grain(np.random.default_rng(0), 300, 300, 1.1)
    for field in (fine, coarse):
        assert field.std() == pytest.approx(1, abs=0.05)

    def neighbours(field: np.ndarray) -> float:
        return float((field[:, 1:] * field[:, :-1]).mean())

    assert abs(neighbours(fine)) < 0.02
    assert neighbours(coarse) > 0.5
    assert clouds(np.random.default_rng(1), 700, 800).shape == (700, 800, 3)


def test_degrading_repeats_by_seed_and_leaves_its_input_alone(scene):
    before = scene.copy()
    first = degrade(scene, np.random.default_rng(3))
    np.testing.assert_array_equal(first, degrade(scene, np.random.default_rng(3)))
    np.testing.assert_array_equal(scene, before)
    assert first.dtype == np.uint8
    assert first.shape == scene.shape
    assert np.abs(first.astype(int) - degrade(scene, np.random.default_rng(4))).mean() > 1


@pytest.mark.parametrize("size", [(64, 64), (50, 90)])
def test_any_size_is_kept(size):
    image = np.full((*size, 3), 0.5, np.float32)
    for seed in range(40):
        assert degrade(image, np.random.default_rng(seed)).shape == (*size, 3)


def test_without_effects_only_the_tone_curve_remains(scene):
    plain = degrade(scene, np.random.default_rng(5), NOTHING)
    for area in (np.s_[:, :32], np.s_[40:60, 50:80], np.s_[70:, 40:]):
        assert np.ptp(plain[area].reshape(-1, 3), axis=0).max() == 0
    # Brighter stays brighter.
    assert plain[80, 60].mean() > plain[80, 10].mean() > plain[50, 60].mean()


def test_most_pictures_are_only_lightly_degraded(scene):
    smooth, edges = [], []
    for seed in range(150):
        picture = degrade(scene, np.random.default_rng(seed)).astype(float)
        smooth.append(picture[70:90, 40:90].std(axis=(0, 1)).mean())
        edges.append(np.abs(np.diff(picture[:36], axis=1)).max() / np.ptp(picture))
    assert np.mean(np.array(smooth) < 4) > 0.6
    assert np.mean(np.array(edges) > 0.4) > 0.6
    assert min(edges) < 0.3


def test_nothing_moves(scene):
    """The strongest edge stays where it is, whatever blur and resizing do."""
    places = []
    for seed in range(60):
        picture = degrade(scene, np.random.default_rng(seed)).astype(float)
        profile = np.abs(np.diff(picture[:36].mean(axis=(0, 2)))) + 1e-6
        profile[np.r_[0:24, 40:95]] = 0
        places.append((profile * (np.arange(95) + 1)).sum() / profile.sum())
    assert abs(np.median(places) - 32) < 0.3
    assert np.percentile(np.abs(np.array(places) - 32), 90) < 1.0


def test_each_effect_does_what_it_says(scene):
    def only(seed: int = 6, **chosen: float) -> np.ndarray:
        return degrade(scene, np.random.default_rng(seed), replace(NOTHING, **chosen)).astype(float)

    even = np.s_[70:90, 40:90]
    plain = only()
    noisy = np.stack([only(seed, noise=1.0, most_noise=0.08)[even].std(axis=(0, 1)).mean() for seed in range(20)])
    assert noisy.max() > 5
    grey = only(grey=1.0)
    assert np.ptp(grey, axis=2).max() <= 1
    assert np.ptp(plain, axis=2).max() > 20
    darkest = min(only(seed, max_vignette=0.6)[0, 95].mean() / only(seed)[0, 95].mean() for seed in range(20))
    assert darkest < 0.85

    def sharpness(picture: np.ndarray) -> float:
        return np.abs(np.diff(picture[:36], axis=1)).max() / np.ptp(picture)

    softest = min(sharpness(only(seed, focus_blur=1.0, max_blur=0.03)) for seed in range(10))
    assert softest < 0.4 * sharpness(plain)
    small = min(sharpness(only(seed, small_picture=1.0, least_scale=0.2)) for seed in range(10))
    assert small < 0.8 * sharpness(plain)


def test_compression_at_low_quality_leaves_blocks():
    ramp = np.tile(np.linspace(60, 190, 96).astype(np.uint8)[None, :, None], (96, 1, 3))
    low = compress(ramp, 5).astype(float)
    steps = np.abs(np.diff(low[..., 1], axis=1)).mean(axis=0)
    assert steps[7::8].mean() > 1.5 * np.delete(steps, np.s_[7::8]).mean()
    high = compress(ramp, 98)
    assert cv2.absdiff(high, ramp).max() <= 3
