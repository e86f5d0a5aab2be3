"""Relight photographs with IC-Light, a diffusion model that the user may have; nothing of it is shipped.

IC-Light (Zhang, Rao and Agrawala, 2024) is Stable Diffusion 1.5 whose first convolution sees the foreground, and with
the ``background`` model a background too, as further latent channels; its weights are offsets to those of a Stable
Diffusion 1.5 model. The procedure published with it is followed: the foreground is laid on middle grey, light from a
side comes from a grey gradient as the first latent (``foreground`` model) or as the background (``background`` model),
and a second pass works on the enlarged result. The foreground's alpha is the caller's: where a head was fitted it is
known, and no matting network is needed.

Faces may drift under diffusion, while their labels stay. So `relight_photo` says how much of the face's fine detail it
kept; `RelitPhoto.is_faithful` is to be asked before a result is used for training.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np

from flame.errors import InputError

Side = Literal["left", "right", "top", "bottom", "none"]
ModelName = Literal["foreground", "background"]

GREY = 127
"""What lies behind a foreground; exactly 0 for the networks."""
_WEIGHTS = {"foreground": "iclight_sd15_fc.safetensors", "background": "iclight_sd15_fbc.safetensors"}
_BASE_FOLDER = "sd15"
_BASE_PARTS = ("tokenizer", "text_encoder", "vae", "unet")
_LATENT_CHANNELS = 4
_PLAIN_BACKGROUND = 64
_STEP_PX = 64
_DETAIL_PX = 2.0
"""Scale of the detail by which before and after are compared, for a picture of 512 pixels."""


@dataclass(frozen=True)
class ICLightSettings:
    """Hold the numbers of the published procedure; defaults are those of the ``foreground`` model."""

    model: ModelName = "foreground"
    """Which of the two models."""
    steps: int = 25
    """Steps of the sampler."""
    guidance: float = 2.0
    """Weight of the prompt."""
    first_strength: float = 0.9
    """How much of a gradient latent is replaced, share."""
    enlarge: float = 1.5
    """Size of the second pass over the first."""
    second_strength: float = 0.5
    """How much the second pass may change, share."""
    working_pixels: int = 512 * 640
    """Pixels of the first pass."""
    added_prompt: str = "best quality"
    """Put behind every prompt."""
    negative_prompt: str = "lowres, bad anatomy, bad hands, cropped, worst quality"
    """What is not wanted."""
    least_detail: float = 0.55
    """Correlation of fine detail before and after, from which on a result counts as faithful."""

    @staticmethod
    def of(model: ModelName) -> ICLightSettings:
        """Return the published settings of a model."""
        if model == "background":
            return ICLightSettings(model="background", steps=20, guidance=7.0)
        return ICLightSettings()


@dataclass(frozen=True, eq=False)
class Sampling:
    """Say how a diffusion model is to come to its latents."""

    prompt: str
    """What is wanted."""
    negative_prompt: str
    """What is not."""
    steps: int
    """Number of steps of the whole way."""
    guidance: float
    """How strongly the prompts count."""
    seed: int
    """Of the sampler."""
    start: np.ndarray | None = None
    """Scaled latents (1, 4, h, w) to begin with, instead of noise."""
    strength: float = 1.0
    """Share of the way that is taken from ``start``."""


class Diffusion(Protocol):
    """Say what is needed of a diffusion model; arrays are float32, pictures (N, 3, H, W) in [-1, 1]."""

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Return scaled latents (N, 4, H / 8, W / 8)."""
        ...

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return pictures of scaled latents."""
        ...

    def sample(self, condition: np.ndarray, sampling: Sampling) -> np.ndarray:
        """Return new scaled latents (1, 4, h, w) under latents of foreground and background (1, 4 or 8, h, w)."""
        ...


@dataclass(frozen=True, eq=False)
class RelitPhoto:
    """Hold a relit photograph."""

    image: np.ndarray
    """The photograph, uint8 (H, W, 3), pixel for pixel where the original was."""
    detail: float
    """Correlation of fine detail with the original inside the foreground, -1 to 1."""
    is_faithful: bool
    """Whether the face seems to have kept its shape."""


def relight_photo(
    image: np.ndarray,
    alpha: np.ndarray,
    diffusion: Diffusion,
    *,
    prompt: str,
    side: Side = "none",
    seed: int = 0,
    background: np.ndarray | None = None,
    settings: ICLightSettings | None = None,
) -> RelitPhoto:
    """Relight a photograph; the result covers the same pixels, background included.

    Args:
        image: the photograph, uint8 (H, W, 3).
        alpha: share of the foreground, float (H, W) in [0, 1].
        diffusion: the model, from `load_diffusion`.
        prompt: the light or place wanted, as "sunset over sea".
        side: where light comes from.
        seed: of the sampler.
        background: for the ``background`` model, uint8 (H, W, 3), instead of a gradient.
        settings: published defaults if not given.

    Raises:
        InputError: shapes differ, or the model takes no background.
    """
    settings = ICLightSettings() if settings is None else settings
    if image.ndim != 3 or image.dtype != np.uint8 or alpha.shape != image.shape[:2]:
        raise InputError(
            f"picture {image.dtype} {image.shape} and alpha {alpha.shape} do not fit; uint8 (H, W, 3) and (H, W) needed"
        )
    if background is not None and settings.model == "foreground":
        raise InputError("IC-Light's foreground model takes no background picture; choose the background model")
    foreground = foreground_on_grey(image, alpha)
    size = working_size(image.shape[0], image.shape[1], settings.working_pixels)
    first = _first_pass(foreground, background, diffusion, prompt, side, seed, settings, size)
    larger = tuple(round(edge * settings.enlarge / _STEP_PX) * _STEP_PX for edge in size)
    enlarged = to_network(_resized(from_network(first), larger[0], larger[1]))
    condition = _condition(foreground, background, diffusion, side, settings, (larger[0], larger[1]))
    sampling = _sampling(settings, prompt, seed, diffusion.encode(enlarged), settings.second_strength)
    latents = diffusion.sample(condition, sampling)
    result = _resized(from_network(diffusion.decode(latents)), image.shape[0], image.shape[1])
    detail = detail_kept(image, result, alpha)
    return RelitPhoto(result, detail, detail >= settings.least_detail)


def foreground_on_grey(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay a picture, uint8 (H, W, 3), by its alpha (H, W) on the grey that means nothing to the networks."""
    laid = GREY + (image.astype(np.float32) - GREY) * alpha[..., None].astype(np.float32)
    return np.clip(laid, 0, 255).astype(np.uint8)


def light_gradient(side: Side, height: int, width: int, model: ModelName = "foreground") -> np.ndarray:
    """Return the grey ramp, uint8 (height, width, 3), that stands for light from a side.

    From 255 to 0 as first latent of the foreground model, from 224 to 32 as background of the other one, for which
    ``none`` is an even grey of 64; the foreground model starts from noise then.

    Raises:
        InputError: the side is not known, or ``none`` with the foreground model.
    """
    bright, dark = (255, 0) if model == "foreground" else (224, 32)
    ramps = {
        "left": np.linspace(bright, dark, width)[None, :],
        "right": np.linspace(dark, bright, width)[None, :],
        "top": np.linspace(bright, dark, height)[:, None],
        "bottom": np.linspace(dark, bright, height)[:, None],
    }
    if model == "background":
        ramps["none"] = np.full((1, 1), _PLAIN_BACKGROUND)
    if side not in ramps:
        raise InputError(f"no gradient for light from {side!r}; choose one of: {', '.join(ramps)}")
    return np.repeat(np.broadcast_to(ramps[side], (height, width))[..., None], 3, axis=2).astype(np.uint8)


def to_network(image: np.ndarray) -> np.ndarray:
    """Return a picture, uint8 (H, W, 3), as float32 (1, 3, H, W), grey of 127 exactly 0."""
    return np.ascontiguousarray(np.moveaxis(image.astype(np.float32) / GREY - 1, -1, 0)[None])


def from_network(picture: np.ndarray) -> np.ndarray:
    """Return a picture (1, 3, H, W) in [-1, 1] as uint8 (H, W, 3)."""
    return np.clip(np.moveaxis(picture[0], 0, -1) * 127.5 + 127.5, 0, 255).astype(np.uint8)


def working_size(height: int, width: int, pixels: int) -> tuple[int, int]:
    """Return height and width near a picture's shape with about that many pixels, multiples of 64."""
    factor = (pixels / (height * width)) ** 0.5
    rows, columns = (max(1, round(edge * factor / _STEP_PX)) * _STEP_PX for edge in (height, width))
    return rows, columns


def detail_kept(before: np.ndarray, after: np.ndarray, alpha: np.ndarray) -> float:
    """Return how alike the fine detail of two pictures, uint8 (H, W, 3), is where alpha (H, W) is large, -1 to 1.

    Detail is the logarithm of brightness less its surroundings, divided by its local strength, so that other light
    changes it little.
    """
    sigma = _DETAIL_PX * max(before.shape[:2]) / 512
    parts = []
    for picture in (before, after):
        log = np.log(picture.astype(np.float32).mean(axis=2) + 8)
        fine = cv2.GaussianBlur(log, (0, 0), 0.5 * sigma) - cv2.GaussianBlur(log, (0, 0), 2 * sigma)
        parts.append(fine / (np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), 6 * sigma)) + 0.01))
    inside = cv2.erode((alpha > 0.9).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=round(3 * sigma)) > 0
    if inside.sum() < 100:
        return 0.0
    first, second = (part[inside] - part[inside].mean() for part in parts)
    return float((first @ second) / (np.linalg.norm(first) * np.linalg.norm(second) + 1e-9))


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    shrinks = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)


def _condition(
    foreground: np.ndarray,
    background: np.ndarray | None,
    diffusion: Diffusion,
    side: Side,
    settings: ICLightSettings,
    size: tuple[int, int],
) -> np.ndarray:
    """Return the latents that a pass is given beside its noise, (1, 4 or 8, h, w)."""
    pictures = [to_network(_resized(foreground, *size))]
    if settings.model == "background":
        behind = light_gradient(side, *size, "background") if background is None else _resized(background, *size)
        pictures.append(to_network(behind))
    return np.concatenate([diffusion.encode(picture) for picture in pictures], axis=1)


def _first_pass(
    foreground: np.ndarray,
    background: np.ndarray | None,
    diffusion: Diffusion,
    prompt: str,
    side: Side,
    seed: int,
    settings: ICLightSettings,
    size: tuple[int, int],
) -> np.ndarray:
    """Return the picture of the first pass, (1, 3, h, w) in [-1, 1]."""
    start, strength = None, 1.0
    if settings.model == "foreground" and side != "none":
        start, strength = diffusion.encode(to_network(light_gradient(side, *size))), settings.first_strength
    condition = _condition(foreground, background, diffusion, side, settings, size)
    return diffusion.decode(diffusion.sample(condition, _sampling(settings, prompt, seed, start, strength)))


def _sampling(settings: ICLightSettings, prompt: str, seed: int, start: np.ndarray | None, strength: float) -> Sampling:
    """Return how to sample so that the published number of steps is made on the part of the way that is taken."""
    words, steps = f"{prompt}, {settings.added_prompt}", round(settings.steps / strength)
    return Sampling(words, settings.negative_prompt, steps, settings.guidance, seed, start, strength)


def check_installed(folder: Path, model: ModelName = "foreground") -> None:
    """Make sure that the libraries and weights of IC-Light are there.

    Raises:
        InputError: something is missing; the message says what, from where, under which licence, and where to put it.
    """
    missing = [name for name in ("diffusers", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"relighting with IC-Light needs {' and '.join(missing)}, which is not installed; run: "
            "pip install diffusers transformers (Apache-2.0)"
        )
    weights = folder / _WEIGHTS[model]
    if not weights.is_file():
        raise InputError(
            f"IC-Light's weights are not at {weights}; download {weights.name} from "
            "https://huggingface.co/lllyasviel/ic-light (code Apache-2.0, see there for the weights) and put it there"
        )
    absent = [part for part in _BASE_PARTS if not (folder / _BASE_FOLDER / part).is_dir()]
    if absent:
        raise InputError(
            f"IC-Light changes a Stable Diffusion 1.5 model, but {folder / _BASE_FOLDER} lacks {', '.join(absent)}; "
            "put one there in the layout of diffusers with safetensors (published with "
            "https://huggingface.co/stablediffusionapi/realistic-vision-v51; CreativeML OpenRAIL-M)"
        )


def load_diffusion(folder: Path, model: ModelName = "foreground", device: str = "cuda") -> Diffusion:
    """Load IC-Light from a folder with its weights and ``sd15/``, a Stable Diffusion 1.5 model.

    Raises:
        InputError: see `check_installed`; or the weights do not fit the model.
    """
    check_installed(folder, model)
    from priors.training.render.ic_light_diffusion import StableDiffusion

    return StableDiffusion(folder / _BASE_FOLDER, folder / _WEIGHTS[model], _extra_channels(model), device)


def _extra_channels(model: ModelName) -> int:
    return _LATENT_CHANNELS * (2 if model == "background" else 1)


def merge_offsets(origin: dict[str, Any], offsets: dict[str, Any]) -> dict[str, Any]:
    """Add IC-Light's offsets to a network's weights, by name.

    Raises:
        InputError: names or shapes differ.
    """
    unlike = sorted(set(origin) ^ set(offsets)) or [
        name for name in origin if tuple(origin[name].shape) != tuple(offsets[name].shape)
    ]
    if unlike:
        raise InputError(
            f"IC-Light's weights do not fit this Stable Diffusion 1.5 model: {len(unlike)} tensors differ, "
            f"first {unlike[0]}; choose the weights of the same model (foreground: fc, background: fbc)"
        )
    return {name: origin[name] + offsets[name].to(origin[name]) for name in origin}
