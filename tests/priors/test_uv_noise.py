"""Noise of texture-coordinate maps: measured as large as it is, and removed without touching what is exact."""

from __future__ import annotations

import numpy as np
import pytest

from priors.uv_lookup import UvLookup
from priors.uv_noise import denoise_uv, measure_uv_noise

STEP = 0.004


def smooth_map(height: int = 90, width: int = 110) -> tuple[np.ndarray, np.ndarray]:
    """Return a gently curved map without kinks, and its mask: an ellipse."""
    rows, columns = np.mgrid[0.5:height, 0.5:width]
    uv = np.stack((columns + 0.8 * np.sin(rows / 25), height - rows + 0.8 * np.cos(columns / 30)), axis=-1) * STEP
    mask = ((rows / height - 0.5) ** 2 + (columns / width - 0.5) ** 2) < 0.23
    return np.where(mask[..., None], uv, np.nan), mask


def with_noise(uv: np.ndarray, rms_px: float, outliers: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    noisy = uv + rms_px * STEP / np.sqrt(2) * rng.normal(size=uv.shape)
    wrong = rng.random(uv.shape[:2]) < outliers
    noisy[wrong] = rng.random((int(wrong.sum()), 2))
    return noisy


@pytest.mark.parametrize("rms_px", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("outliers", [0.0, 0.05])
def test_noise_is_measured(rms_px, outliers):
    uv, mask = smooth_map()
    noise = measure_uv_noise(with_noise(uv, rms_px, outliers), mask)
    assert noise.rms_px == pytest.approx(rms_px, rel=0.3)
    assert noise.step_uv == pytest.approx(STEP, rel=0.15)


def test_an_exact_map_comes_back_as_it_is():
    uv, mask = smooth_map()
    np.testing.assert_array_equal(denoise_uv(uv, mask), uv)
    np.testing.assert_array_equal(denoise_uv(with_noise(uv, 0.05), mask), with_noise(uv, 0.05))


@pytest.mark.parametrize(("rms_px", "most_px"), [(0.3, 0.2), (1.0, 0.4), (3.0, 0.8)])
def test_noise_and_outliers_are_removed(rms_px, most_px):
    uv, mask = smooth_map()
    found = denoise_uv(with_noise(uv, rms_px, outliers=0.05), mask)
    np.testing.assert_array_equal(np.isfinite(found).all(axis=-1), mask)
    errors_px = np.linalg.norm(found - uv, axis=-1)[mask] / STEP
    assert np.sqrt(np.mean(errors_px**2)) < most_px


def test_lookups_in_a_noisy_map_come_three_times_closer():
    uv, mask = smooth_map()
    noisy = with_noise(uv, 3.0, outliers=0.05)
    inside = [(row, column) for row in range(25, 65, 3) for column in range(30, 80, 3)]
    targets = np.array([uv[place] for place in inside])
    truth_px = np.array([(column + 0.5, row + 0.5) for row, column in inside])
    rms = []
    for uv_map in (noisy, denoise_uv(noisy, mask)):
        errors = np.linalg.norm(UvLookup(uv_map, mask).find(targets, 0.02).points_px - truth_px, axis=1)
        rms.append(np.sqrt(np.mean(errors**2)))
    assert rms[0] > 2.5
    assert rms[1] < rms[0] / 3


def test_both_sides_of_a_seam_stay_apart():
    uv, mask = smooth_map()
    uv[:, 55:, 0] += 0.4
    found = denoise_uv(with_noise(uv, 1.0), mask)
    beside = np.linalg.norm(found - uv, axis=-1)[:, 53:57] / STEP
    assert np.nanmedian(beside) < 0.7
    assert np.nanpercentile(beside, 98) < 3.0


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 7), (3, 3), (8, 9)])
def test_maps_too_small_to_tell_come_back_as_they_are(shape):
    uv = np.random.default_rng(0).random((*shape, 2)).astype(np.float32)
    found = denoise_uv(uv, np.ones(shape, dtype=bool))
    assert found.shape == uv.shape
    if min(shape) < 3:
        np.testing.assert_array_equal(found, uv)
    assert np.isfinite(found).all()


def test_nothing_valid_gives_nothing():
    uv, mask = smooth_map()
    assert np.isnan(denoise_uv(uv, np.zeros_like(mask))).all()
    assert measure_uv_noise(np.full_like(uv, np.nan), mask).rms_px == 0.0
