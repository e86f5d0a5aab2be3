"""Change pictures while they are learnt from, and their labels with them.

Everything random comes from the generator handed in, so a sample is changed in the same way whoever loads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from flame.camera import Intrinsics
from priors.pixel_kinds import Kind
from priors.training.labels import LabelMaps
from priors.training.settings import AugmentationSettings

UNKNOWN = 255
"""Kind of pixels of which nothing is known any more; see ``losses.UNKNOWN_KIND``."""
UvFlip = Callable[[np.ndarray], np.ndarray]
_FLIP_X = np.array((-1.0, 1.0, 1.0), dtype=np.float32)
_LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """Hold a picture with its labels and what is known of its camera."""

    image: np.ndarray
    """RGB uint8 (S, S, 3)."""
    labels: LabelMaps
    """At the picture's size or a part of it."""
    intrinsics: Intrinsics
    """Of the picture."""
    cam_from_neck: np.ndarray
    """Rotation from the head's axes, the neck's turn included, to the camera's, float32 (3, 3)."""


def augment(
    picture: LabelledPicture,
    settings: AugmentationSettings,
    rng: np.random.Generator,
    uv_flip: UvFlip | None = None,
    *,
    may_flip: bool = True,
) -> LabelledPicture:
    """Return the picture as another camera, in other light, might have taken it.

    Args:
        picture: what is changed.
        settings: how often and how strongly.
        rng: source of chance.
        uv_flip: texture coordinates of mirrored points; see ``mirrored``.
        may_flip: whether the mirror image is allowed at all.
    """
    # Chances are drawn whether used or not, so that one setting does not change what others do.
    chances = rng.random(8)
    if may_flip and chances[0] < settings.flip:
        picture = mirrored(picture, uv_flip)
    if chances[1] < settings.warp:
        turn = math.radians(settings.max_turn_degrees) * rng.uniform(-1, 1)
        scale = math.exp(math.log1p(settings.max_scale) * rng.uniform(-1, 1))
        shift = settings.max_shift * picture.image.shape[0] * rng.uniform(-1, 1, 2)
        picture = warped(picture, turn, scale, (float(shift[0]), float(shift[1])))
    image, labels = picture.image, picture.labels
    if chances[2] < settings.erase:
        image, labels = _erase(image, labels, rng)
    if chances[3] < settings.colour:
        image = _recolour(image, rng)
    if chances[4] < settings.grey:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if chances[5] < settings.blur:
        image = _blur(image, rng)
    if chances[6] < settings.noise:
        image = _add_noise(image, rng)
    if chances[7] < settings.compression:
        image = _compress(image, rng)
    return replace(picture, image=image, labels=labels)


def mirrored(picture: LabelledPicture, uv_flip: UvFlip | None = None) -> LabelledPicture:
    """Return the mirror image: what a camera would see of the mirrored head in a mirrored room.

    Args:
        picture: what is mirrored.
        uv_flip: returns the texture coordinates of mirror images of points, e.g. ``priors.networks.flip.UvMirror``;
            without it texture coordinates are meaningless afterwards.
    """
    labels, camera = picture.labels, picture.intrinsics
    uv = np.ascontiguousarray(labels.uv[:, ::-1])
    if uv_flip is not None:
        uv = np.where(labels.valid[:, ::-1, None], uv_flip(uv), np.float32(0)).astype(np.float32)
    return LabelledPicture(
        np.ascontiguousarray(picture.image[:, ::-1]),
        LabelMaps(
            place=labels.place[:, ::-1] * _FLIP_X,
            uv=uv,
            normals_cam=labels.normals_cam[:, ::-1] * _FLIP_X,
            kind=np.ascontiguousarray(labels.kind[:, ::-1]),
        ),
        replace(camera, cx=camera.width - camera.cx),
        picture.cam_from_neck * np.outer(_FLIP_X, _FLIP_X),
    )


def warped(picture: LabelledPicture, turn_rad: float, scale: float, shift_px: tuple[float, float]) -> LabelledPicture:
    """Return the picture turned clockwise and scaled about its middle, then shifted.

    What comes in from outside is unlabelled. With square pixels the result is the picture of a camera turned about its
    optical axis, with another focal length and principal point: normals turn with it, nothing else changes.
    """
    size = picture.image.shape[0]
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    turn = np.array(((cos, -sin), (sin, cos)))
    new_from_old = np.column_stack(
        (scale * turn, np.full(2, size / 2) + shift_px - scale * turn @ np.full(2, size / 2))
    )
    matrix = _between_centers(new_from_old)
    image = cv2.warpAffine(picture.image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    labels = picture.labels
    side = labels.kind.shape[0]
    label_from_pixel = side / size
    matrix = _between_centers(new_from_old * (1, 1, label_from_pixel))

    def moved(values: np.ndarray, outside: float) -> np.ndarray:
        border = (outside,) * 4
        return cv2.warpAffine(
            values, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=border
        )

    normals = moved(labels.normals_cam, 0.0)
    turn_32 = turn.astype(np.float32)
    normals[..., :2] = normals[..., :2] @ turn_32.T
    rotation = np.eye(3, dtype=np.float32)
    rotation[:2, :2] = turn_32
    camera = picture.intrinsics
    cx, cy = new_from_old @ (camera.cx, camera.cy, 1.0)
    return LabelledPicture(
        image,
        LabelMaps(moved(labels.place, math.nan), moved(labels.uv, 0.0), normals, moved(labels.kind, UNKNOWN)),
        replace(camera, fx=camera.fx * scale, fy=camera.fy * scale, cx=float(cx), cy=float(cy)),
        rotation @ picture.cam_from_neck,
    )


def _between_centers(a_from_b: np.ndarray) -> np.ndarray:
    """Return a similarity (2, 3) between pixel edges for a library that counts from the first pixel's centre."""
    shift = a_from_b[:, :2] @ np.full(2, 0.5) - 0.5
    return np.column_stack((a_from_b[:, :2], a_from_b[:, 2] + shift))


def _erase(image: np.ndarray, labels: LabelMaps, rng: np.random.Generator) -> tuple[np.ndarray, LabelMaps]:
    """Cover up to three patches with noise, one colour, or another part of the picture.

    A patch on the head is a cover; elsewhere it could be anything.
    """
    size, side = image.shape[0], labels.kind.shape[0]
    patches = np.zeros((size, size), dtype=np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        center = tuple(int(value) for value in rng.integers(0, size, 2))
        axes = tuple(max(1, int(value)) for value in rng.uniform(0.04, 0.2, 2) * size)
        if rng.random() < 0.5:
            cv2.ellipse(patches, center, axes, float(rng.uniform(0, 180)), 0, 360, (255,), -1)
        else:
            box = cv2.boxPoints((center, (2 * axes[0], 2 * axes[1]), float(rng.uniform(0, 180))))
            cv2.fillPoly(patches, [box.astype(np.int32)], (255,))
    source = rng.random()
    if source < 0.4:
        # Somewhere else in the picture, upside down.
        shift = (int(rng.integers(size // 4, size)), int(rng.integers(size // 4, size)))
        filling = np.roll(image[::-1], shift, axis=(0, 1))
    else:
        colour = rng.integers(0, 256, 3)
        cells = int(rng.choice((4, 16, size)))
        strength = 0 if source < 0.6 else int(rng.integers(10, 120))
        grain = rng.integers(-strength, strength + 1, (cells, cells, 3))
        filling = cv2.resize(np.clip(colour + grain, 0, 255).astype(np.uint8), (size, size))
    image = np.where(patches[..., None] > 0, filling, image)
    is_hidden = cv2.resize(patches, (side, side), interpolation=cv2.INTER_AREA) > 127
    kind = np.where(is_hidden, np.where(labels.kind == Kind.BACKGROUND, UNKNOWN, Kind.COVER), labels.kind)
    place, uv, normals = labels.place.copy(), labels.uv.copy(), labels.normals_cam.copy()
    place[is_hidden], uv[is_hidden], normals[is_hidden] = np.nan, 0, 0
    return image, LabelMaps(place, uv, normals, kind.astype(np.uint8))


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change white balance, brightness, contrast, gamma and saturation."""
    gains = np.exp(rng.normal(0, 0.08, 3)) * math.exp(rng.normal(0, 0.15))
    gamma, contrast = math.exp(rng.normal(0, 0.2)), math.exp(rng.normal(0, 0.12))
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gains
    levels = np.clip((levels - 0.45) * contrast + 0.45 + rng.normal(0, 0.03), 0, 1)
    table = np.rint(levels * 255).astype(np.uint8)[None]
    image = cv2.LUT(image, table)
    saturation = float(np.clip(rng.normal(1, 0.25), 0, 1.8))
    matrix = saturation * np.eye(3, dtype=np.float32) + np.float32(1 - saturation) * _LUMA
    return cv2.transform(image, matrix.astype(np.float32))


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur as a lens out of focus, a hand that moves, or a small picture that was enlarged."""
    size = image.shape[0]
    way = rng.random()
    if way < 0.4:
        return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 2.0)) * size / 256)
    if way < 0.6:
        length = max(2, int(rng.uniform(2, 8) * size / 256))
        kernel = np.zeros((2 * length + 1, 2 * length + 1), dtype=np.float32)
        angle = rng.uniform(0, math.pi)
        step = (int(round(length * math.cos(angle))), int(round(length * math.sin(angle))))
        cv2.line(kernel, (length - step[0], length - step[1]), (length + step[0], length + step[1]), (1.0,), 1)
        return cv2.filter2D(image, -1, kernel / kernel.sum())
    small = int(size * rng.uniform(0.25, 0.8))
    reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (size, size), interpolation=cv2.INTER_LINEAR if way < 0.8 else cv2.INTER_CUBIC)


def _add_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= np.float32(rng.uniform(1, 10))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _compress(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Store and read the picture as a JPEG of low quality."""
    _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))))
    return cv2.imdecode(data, cv2.IMREAD_COLOR)
