"""Things on and before a face: hair, beards, glasses, hats, clothes, hands, telephones, cups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from priors.training.render.beard import draw_beard
from priors.training.render.canvas import UNTOUCHED, Canvas
from priors.training.render.clothes import draw_clothes
from priors.training.render.glasses import draw_glasses
from priors.training.render.hair import draw_hair, random_style, under_hat
from priors.training.render.hands import draw_hand
from priors.training.render.head_frame import HeadFrame, HeadGuide, Light
from priors.training.render.headwear import draw_headwear
from priors.training.render.things import draw_mask, draw_thing

__all__ = ["UNTOUCHED", "CoverChances", "HeadFrame", "HeadGuide", "Light", "add_covers"]


@dataclass(frozen=True)
class CoverChances:
    """How often each thing is put on a picture; probabilities in [0, 1]."""

    clothes: float = 0.85
    """Shoulders, bare or in clothes."""
    hair: float = 0.88
    """Hair of the head."""
    beard: float = 0.3
    """Beard, moustache or stubble."""
    headwear: float = 0.14
    """A hat, cap, hood, headscarf or headphones."""
    glasses: float = 0.22
    """Glasses or sunglasses."""
    mask: float = 0.03
    """A cloth over mouth and nose."""
    hand: float = 0.16
    """A hand in front of the head."""
    thing: float = 0.14
    """A telephone, cup, microphone or something cut in from outside."""


DEFAULT = CoverChances()


def add_covers(
    image: np.ndarray,
    place: np.ndarray,
    depth: np.ndarray,
    landmarks_px: np.ndarray,
    frame: HeadFrame,
    light: Light,
    rng: np.random.Generator,
    chances: CoverChances = DEFAULT,
) -> tuple[np.ndarray, np.ndarray]:
    """Put hair and other things on a rendered head.

    Args:
        image: the rendering with its background, sRGB float32 (H, W, 3).
        place: where on the template each pixel lies, float32 (H, W, 3), metres in head space; NaN where no head is.
        depth: camera-space z, float32 (H, W), metres; infinite, NaN or 0 where no head is.
        landmarks_px: the 478 landmarks, (478, 2), pixels.
        frame: the posed head.
        light: the light it was rendered in.
        rng: random numbers; the same state gives the same picture.
        chances: how often each thing is put on.

    Returns:
        The picture, sRGB float32 (H, W, 3) in [0, 1], and what was drawn, uint8 (H, W): ``Kind.HAIR`` (labels of the
        head below stay valid), ``Kind.COVER`` (a thing in front), ``Kind.BACKGROUND`` (clothes and shoulders);
        UNTOUCHED elsewhere.
    """
    canvas = Canvas.of(image, place, depth, landmarks_px, frame, light)
    if rng.random() < chances.clothes:
        draw_clothes(canvas, rng)
    has_headwear = rng.random() < chances.headwear
    hair_color = None
    if rng.random() < chances.hair:
        style = random_style(rng)
        hair_color = draw_hair(canvas, rng, under_hat(style) if has_headwear else style).color
    if rng.random() < chances.beard:
        draw_beard(canvas, rng, hair_color)
    later = (
        (chances.mask, draw_mask),
        (float(has_headwear), draw_headwear),
        (chances.glasses, draw_glasses),
        (chances.thing, draw_thing),
        (chances.hand, draw_hand),
    )
    for chance, draw in later:
        if rng.random() < chance:
            draw(canvas, rng)
    return np.clip(canvas.image, 0, 1), canvas.kind
