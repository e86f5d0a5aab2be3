"""Relight photographs whose normals are known: estimate the light, multiply by the ratio of new and old shading.

A matt surface under distant light is well described by nine spherical harmonics per channel (Ramamoorthi and Hanrahan,
"An Efficient Representation for Irradiance Environment Maps", SIGGRAPH 2001): the light's coefficients L, each damped
by what a cosine keeps of its band (pi, 2 pi / 3, pi / 4), evaluated at the normal. A photograph of skin is albedo times
that shading, so the quotient of two shadings turns one light into another and leaves the albedo alone (ratio images;
the order of the harmonics is 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2).

Normals are in camera space (+x right, +y down, +z forward), so a lamp above the camera has negative y and z. Light and
pictures are linear where a name says so, else sRGB in [0, 1]. Shadings are in units of albedo: a white surface under
light of shading 1 looks white.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flame.errors import InputError
from priors.training.render.color import linear_from_srgb, srgb_from_linear

NUM_HARMONICS = 9
SKIN_ALBEDO = (0.42, 0.27, 0.20)
"""Mean linear albedo that skin is taken to have where nothing is known; only the light's level depends on it."""

_Y0, _Y1, _Y2, _Y20, _Y22 = 0.282095, 0.488603, 1.092548, 0.315392, 0.546274
"""Constants of the real harmonics."""
_KEPT = np.array((1.0, *(2 / 3,) * 3, *(1 / 4,) * 5))
"""Share of each harmonic that a matt surface keeps, over pi."""
_BAND = np.array((0, 1, 1, 1, 2, 2, 2, 2, 2))
_MIRRORED = np.array((1, 1, 1, -1, -1, 1, 1, -1, 1), np.float64)
"""Sign of each harmonic under reflection in x = 0."""
_LEAST_PIXELS = 50
_ROUNDS = 8
_TUKEY = 4.7
"""Deviations from which on a pixel counts nothing: Tukey's biweight at 95 % efficiency."""
_SATURATED, _TOO_DARK = 0.97, 0.003


@dataclass(frozen=True)
class RelightSettings:
    """Say how boldly a photograph is relit."""

    least_ratio: float = 0.3
    """Darkest that a pixel may become, as a factor in linear light."""
    most_ratio: float = 3.0
    """Brightest that a pixel may become, as a factor in linear light."""
    feather_px: float = 4.0
    """Width over which the change fades out inside the mask's border, pixels."""
    least_shading: float = 0.08
    """Lower bound of shadings, in units of their mean: unlit skin still gets stray light."""


DEFAULT = RelightSettings()


def sh_basis(normals: np.ndarray) -> np.ndarray:
    """Return what each of nine lights gives a matt surface with unit normals (..., 3); same float type, (..., 9)."""
    x, y, z = np.moveaxis(normals, -1, 0)
    basis = np.empty((*normals.shape[:-1], NUM_HARMONICS), normals.dtype)
    terms = (1.0, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
    constants = (_Y0, _Y1, _Y1, _Y1, _Y2, _Y2, _Y20, _Y2, _Y22)
    for index, (term, constant) in enumerate(zip(terms, constants, strict=True)):
        basis[..., index] = constant * _KEPT[index] * term
    return basis


def shade_sh(normals: np.ndarray, sh: np.ndarray, least: float = DEFAULT.least_shading) -> np.ndarray:
    """Return the shading, (..., 3), of unit normals (..., 3) under light ``sh`` (9, 3).

    ``least`` bounds it from below, in units of the light's mean over all directions, because nine harmonics of a single
    lamp fall below zero on its far side.
    """
    shading = sh_basis(normals) @ sh.astype(normals.dtype)
    floor = least * np.maximum(_Y0 * sh[0], 1e-6)
    return np.maximum(shading, floor.astype(shading.dtype))


def mirror_sh(sh: np.ndarray) -> np.ndarray:
    """Return light (9, 3) as it would fall in a picture mirrored left to right."""
    return sh * _MIRRORED[:, None]


def directional_sh(direction: np.ndarray, softness: float = 0.0) -> np.ndarray:
    """Return the coefficients, (9,), of a lamp in a unit direction (3,) that lights a surface facing it by 1.

    ``softness`` spreads the lamp: 0 a point, 1 a very large soft box.
    """
    damped = sh_basis(np.asarray(direction, np.float64)) / _KEPT
    damped *= np.exp(-0.5 * softness * _BAND * (_BAND + 1) / 2)
    return damped / float(sh_basis(np.asarray(direction, np.float64)) @ damped)


def random_sh(rng: np.random.Generator) -> np.ndarray:
    """Return random light, float64 (9, 3): sky and floor, one to three lamps of different colour and size.

    Its shading of a surface that faces the camera is between about 0.5 and 1.2.
    """
    sh = np.zeros((NUM_HARMONICS, 3))
    sh[0] = rng.uniform(0.15, 0.7) * _light_color(rng, 0.1) / _Y0
    # Light from above is brighter than from below, as in nearly all places.
    sh[1] = -rng.uniform(0.0, 0.5) * sh[0]
    for lamp in range(int(rng.integers(1, 4))):
        toward = rng.normal(0, 1, 3) * (1.0, 0.7, 0.6) + (0.0, -0.4, -0.8 if lamp == 0 else 0.0)
        toward /= np.linalg.norm(toward)
        strength = rng.uniform(0.3, 1.1) if lamp == 0 else rng.uniform(0.0, 0.5)
        sh += directional_sh(toward, float(rng.uniform(0, 1)))[:, None] * strength * _light_color(rng, 0.25)
    front = sh_basis(np.array((0.0, 0.0, -1.0))) @ sh
    return sh * (rng.uniform(0.5, 1.2) / max(float(front.mean()), 0.15))


def _light_color(rng: np.random.Generator, spread: float) -> np.ndarray:
    """Return a colour of light, warm to cold, mean about 1, (3,)."""
    warmth, tint = rng.normal(0, spread, 2)
    return np.exp(np.array((warmth, 0.3 * tint, -warmth)))


def estimate_sh(
    image_linear: np.ndarray,
    normals: np.ndarray,
    mask: np.ndarray,
    *,
    albedo: np.ndarray | tuple[float, float, float] = SKIN_ALBEDO,
    stiffness: float = 1e-4,
) -> np.ndarray:
    """Estimate the light of a photograph from its skin.

    Iteratively re-weighted least squares: brows, beards, highlights and cast shadows are outliers of the albedo and
    lose their weight; saturated and black pixels never count.

    Args:
        image_linear: linear light, (H, W, 3).
        normals: unit normals in camera space, (H, W, 3).
        mask: skin, bool (H, W).
        albedo: expected albedo, linear, (3,), or one a pixel, (H, W, 3).
        stiffness: how strongly light of the first and second band is held back, per pixel.

    Returns:
        The light, float64 (9, 3).

    Raises:
        InputError: shapes differ, or the mask has too few usable pixels.
    """
    _check(image_linear, normals, mask)
    pixels = image_linear[mask].astype(np.float64)
    basis = sh_basis(normals[mask].astype(np.float64))
    reflectance = np.broadcast_to(np.asarray(albedo, np.float64), image_linear.shape)[mask]
    usable = (pixels.max(axis=1) < _SATURATED) & (pixels.max(axis=1) > _TOO_DARK)
    if usable.sum() < _LEAST_PIXELS:
        raise InputError(
            f"the light cannot be estimated from {int(usable.sum())} pixels of skin that are neither black nor "
            f"saturated; at least {_LEAST_PIXELS} are needed: give a larger mask or a better exposed picture"
        )
    pixels, basis, reflectance = pixels[usable], basis[usable], reflectance[usable]
    target = pixels / np.maximum(reflectance, 1e-3)
    weights, sh = np.ones(len(target)), np.zeros((NUM_HARMONICS, 3))
    hold = np.diag(stiffness * np.where(_BAND == 0, 0.0, 1.0)) * len(target)
    for _ in range(_ROUNDS):
        weighted = basis * weights[:, None]
        sh = np.linalg.solve(weighted.T @ basis + hold, weighted.T @ target)
        weights = _tukey_weights((target - basis @ sh).mean(axis=1), floor=1e-3 * float(np.abs(target).mean()))
    return sh


def _tukey_weights(residuals: np.ndarray, floor: float) -> np.ndarray:
    """Return weights in [0, 1] of residuals (n,) by Tukey's biweight; ``floor`` is the least scale."""
    scale = max(1.4826 * float(np.median(np.abs(residuals - np.median(residuals)))), floor)
    return np.maximum(1 - (residuals / (_TUKEY * scale)) ** 2, 0) ** 2


def relight(
    image: np.ndarray,
    normals: np.ndarray,
    mask: np.ndarray,
    new_sh: np.ndarray,
    *,
    old_sh: np.ndarray | None = None,
    settings: RelightSettings = DEFAULT,
) -> np.ndarray:
    """Return a photograph as it would look under other light; only pixels of the mask change.

    Args:
        image: sRGB float32 (H, W, 3) in [0, 1].
        normals: unit normals in camera space, (H, W, 3); anything outside the mask.
        mask: where normals are known, bool (H, W).
        new_sh: the light wanted, (9, 3).
        old_sh: the light of the photograph, (9, 3); estimated if not given, which takes all of the mask for skin.
        settings: bounds and feathering.

    Raises:
        InputError: shapes differ, or the light cannot be estimated.
    """
    _check(image, normals, mask)
    linear = linear_from_srgb(image)
    old_sh = estimate_sh(linear, normals, mask) if old_sh is None else old_sh
    known = normals[mask].astype(np.float32)
    ratio = np.ones((*mask.shape, 3), np.float32)
    quotient = shade_sh(known, new_sh, settings.least_shading) / shade_sh(known, old_sh, settings.least_shading)
    ratio[mask] = np.clip(quotient, settings.least_ratio, settings.most_ratio)
    share = feather(mask, settings.feather_px)[..., None]
    return np.where(share > 0, srgb_from_linear(linear * (1 + share * (ratio - 1))), image).astype(np.float32)


def random_relight(
    image: np.ndarray,
    normals: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    skin: np.ndarray | None = None,
    settings: RelightSettings = DEFAULT,
) -> np.ndarray:
    """Return a photograph under random light that leaves it about as bright as it was; see `relight`.

    ``skin`` (H, W) says which pixels tell the old light; the whole mask if not given.
    """
    known = mask if skin is None else mask & skin
    old_sh, new_sh = estimate_sh(linear_from_srgb(image), normals, known), random_sh(rng)
    normals_of_skin = normals[known].astype(np.float32)
    level = shade_sh(normals_of_skin, old_sh).mean() / max(float(shade_sh(normals_of_skin, new_sh).mean()), 1e-3)
    new_sh = new_sh * level * np.exp(rng.normal(0, 0.2))
    return relight(image, normals, mask, new_sh, old_sh=old_sh, settings=settings)


def feather(mask: np.ndarray, width_px: float) -> np.ndarray:
    """Return a share, float32 (H, W), that is 0 outside a mask and rises to 1 within ``width_px`` of its border."""
    if width_px <= 0:
        return mask.astype(np.float32)
    inside = np.pad(mask.astype(np.uint8), 1, mode="edge")
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    share = np.clip(distance / np.float32(width_px), 0, 1)
    return share * share * (3 - 2 * share)


def _check(image: np.ndarray, normals: np.ndarray, mask: np.ndarray) -> None:
    """Make sure that picture, normals and mask have one size."""
    if image.ndim != 3 or image.shape[2] != 3 or normals.shape != image.shape or mask.shape != image.shape[:2]:
        raise InputError(
            f"picture {image.shape}, normals {normals.shape} and mask {mask.shape} do not fit; "
            "(H, W, 3), (H, W, 3) and (H, W) are needed"
        )
