"""How random heads are painted: where on the surface what can be, and random colours and amounts of it.

Masks are known at vertices; brows, irises, hairlines and all noise are evaluated for each pixel from its place on the
template (``priors.training.render.sample_kernels``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from flame.model import HeadModel
from flame.surface import SurfacePoints
from priors.training.render.color import linear_from_srgb
from priors.training.render.sample_kernels import PAINT_ROWS

NOISE_CELLS = 32
"""Side of the noise volume, which repeats."""
_WIDTH = 8
MASKS = ("lips", "stubble", "red", "lid", "lash", "ears", "oily", "inside")
"""What the columns of `vertex_masks` are."""
SKIN_TONES = (
    (0.94, 0.80, 0.73),
    (0.91, 0.75, 0.66),
    (0.88, 0.70, 0.59),
    (0.83, 0.64, 0.52),
    (0.77, 0.57, 0.44),
    (0.68, 0.48, 0.35),
    (0.57, 0.385, 0.275),
    (0.45, 0.295, 0.21),
    (0.34, 0.215, 0.155),
    (0.235, 0.15, 0.115),
)
"""Reflectance of skin from very light to very dark, sRGB."""
_HAIR = (
    (0.06, 0.05, 0.05),
    (0.10, 0.07, 0.055),
    (0.20, 0.13, 0.09),
    (0.33, 0.22, 0.14),
    (0.50, 0.36, 0.22),
    (0.72, 0.58, 0.38),
    (0.48, 0.22, 0.11),
    (0.55, 0.54, 0.53),
    (0.82, 0.81, 0.79),
)
_HAIR_SHARE_LIGHT = (0.08, 0.14, 0.2, 0.18, 0.13, 0.08, 0.05, 0.09, 0.05)
_HAIR_SHARE_DARK = (0.5, 0.25, 0.1, 0.02, 0.01, 0.01, 0.01, 0.06, 0.04)
_IRIS = ((0.16, 0.09, 0.05), (0.26, 0.15, 0.08), (0.38, 0.26, 0.13), (0.34, 0.38, 0.22), (0.38, 0.50, 0.58))
_IRIS_GREY = (0.42, 0.46, 0.48)


class Paint(NamedTuple):
    """Hold how one person is painted: colours linear, float32 (3,), lengths in metres or eye distances (see each)."""

    skin: np.ndarray
    lips: np.ndarray
    hair: np.ndarray
    brow: np.ndarray
    iris: np.ndarray
    sclera: np.ndarray
    makeup: np.ndarray
    cloth: np.ndarray
    cloth_other: np.ndarray
    mouth: np.ndarray
    left_eye: np.ndarray
    """Centre of the left eyeball on the template, float32 (3,), metres."""
    right_eye: np.ndarray
    offsets: np.ndarray
    """Where in the noise this person begins, float32 (3,), cells."""
    mottle: np.ndarray
    """Strength of noise at 30, 8 and 2 mm, float32 (3,)."""
    bump: np.ndarray
    """How far noise at 12 and 3 mm tilts normals, float32 (2,)."""
    redness: float
    freckles: float
    stubble: float
    lid_shade: float
    lash: float
    makeup_share: float
    lip_share: float
    oil: float
    brow_shape: np.ndarray
    """Inner end, outer end, height, arch, half width, tilt, density, roughness, float32 (8,), eye distances."""
    iris_radius: float
    pupil_radius: float
    veins: float
    hair_share: float
    """Opacity of the hair painted on the scalp; 0 is a bald head."""
    hair_line: np.ndarray
    """Height in the middle, slope, recess at the temples, ragged edge, softness, float32 (5,), metres and ratios."""
    cloth_scale: float
    """Size of the pattern on the clothes, metres; 0 for plain ones."""
    wrinkles: float
    """How far lines of the forehead and beside the eyes tilt the surface."""

    def packed(self) -> np.ndarray:
        """Return the values as rows, float32 (fields, 8), in the order that the kernels read."""
        rows = np.zeros((len(PAINT_ROWS), _WIDTH), np.float32)
        for number, name in enumerate(PAINT_ROWS):
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                rows[number, : len(value)] = value
            else:
                rows[number, 0] = value
        return rows


def noise_volume(seed: int = 5) -> np.ndarray:
    """Return noise that repeats, float32 (N ** 3, 4), four independent channels of unit deviation."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((NOISE_CELLS, NOISE_CELLS, NOISE_CELLS, 4))
    smooth = gaussian_filter(white, (0.55, 0.55, 0.55, 0), mode="wrap")
    return np.ascontiguousarray((smooth / smooth.std()).reshape(-1, 4), np.float32)


def vertex_masks(head: HeadModel, landmarks: SurfacePoints) -> np.ndarray:
    """Return where on a head what can be, float32 (V, len(MASKS)), from its regions and MediaPipe's landmarks."""
    template = head.template.numpy().astype(np.float64)
    regions = head.topology.regions if head.topology is not None else {}
    absent = np.zeros(len(template), bool)
    points = landmarks.on(template, head.faces.numpy())
    x, y, z = template.T
    unit = np.linalg.norm(points[33] - points[263]) / 0.09

    def blob(center: np.ndarray, radius: float) -> np.ndarray:
        return np.exp(-0.5 * np.sum((template - center) ** 2, axis=1) / (radius * unit) ** 2)

    def near(indices: tuple[int, ...], radius: float) -> np.ndarray:
        a = np.linspace(0, 1, 5)[:, None]
        ends = points[list(indices)]
        line = np.concatenate([p * (1 - a) + q * a for p, q in zip(ends[:-1], ends[1:], strict=True)])
        distance = np.linalg.norm(template[:, None] - line, axis=2).min(axis=1)
        return np.exp(-0.5 * (distance / (radius * unit)) ** 2)

    lips = regions.get("lips", absent).astype(float)
    inside = (regions.get("inner_mouth", absent) & ~regions.get("lips", absent)).astype(float)
    nose_base, chin, mouth = points[2], points[152], points[[61, 291]].mean(axis=0)
    step = _smoothstep
    # Below a line from the nose to the ears, before the ears, down to the throat.
    stubble = step(nose_base[1] - 0.002 - 0.25 * (z - nose_base[2]) - y, 0.0, 0.012) * step(z, -0.035, -0.01)
    cheeks = step(np.abs(x), 0.02, 0.035) * step(y, mouth[1] - 0.005, mouth[1] + 0.03) * step(z, 0.005, 0.03)
    stubble *= (1 - cheeks) * step(y, chin[1] - 0.035, chin[1] - 0.01)
    upper = (159, 160, 161, 33), (386, 385, 384, 398)
    lash_lines = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
    lash = np.maximum(near(lash_lines[0], 0.0015), near(lash_lines[1], 0.0015))
    lid_centers = [points[list(indices)].mean(axis=0) + (0, 0.004, 0) for indices in upper]
    below = [points[i] - (0, 0.006, 0) for i in (145, 374)]
    lid = np.maximum.reduce([*(blob(c, 0.009) for c in lid_centers), *(0.7 * blob(c, 0.009) for c in below)])
    red = np.maximum.reduce(
        [blob(points[1], 0.012), 0.9 * blob(points[50], 0.02), 0.9 * blob(points[280], 0.02), 0.4 * blob(chin, 0.012)]
    )
    red = np.maximum(red, 0.7 * regions.get("ears", absent))
    oily = np.maximum(blob(points[1], 0.02), blob(points[9] + (0, 0.02, 0), 0.025))
    columns = (lips, stubble, red, lid, lash, regions.get("ears", absent).astype(float), oily, inside)
    return np.ascontiguousarray(np.column_stack(columns), np.float32)


def random_paint(rng: np.random.Generator, eye_centers: np.ndarray) -> tuple[Paint, float]:
    """Return how a random person is painted, and the skin tone, 0 (light) to 9 (dark)."""
    tone = float(rng.uniform(0, len(SKIN_TONES) - 1))
    dark = tone / 9
    skin = _tone(tone) * np.exp(rng.normal(0, 0.035, 3)) * np.exp(rng.normal(0, 0.05))
    hair, brow, iris = _hair_and_iris(rng, dark)
    lips = skin * (0.80, 0.58, 0.60) * np.exp(rng.normal(0, 0.06, 3))
    made_up = rng.random() < 0.25
    if made_up:
        lips = np.array((rng.uniform(0.25, 0.85), rng.uniform(0.05, 0.35), rng.uniform(0.1, 0.4)))
    random_color = rng.uniform(0.0, 1.0, 3) ** 1.3
    other = np.clip(random_color + rng.normal(0, 0.3, 3), 0, 1)
    grey = rng.random()
    paint = Paint(
        skin=_linear(skin),
        lips=_linear(lips),
        hair=_linear(hair),
        brow=_linear(brow),
        iris=_linear(iris * np.exp(rng.normal(0, 0.15, 3))),
        sclera=_linear(np.array((0.76, 0.72, 0.70)) * rng.uniform(0.8, 1.1)),
        makeup=_linear(rng.uniform(0.03, 0.6, 3) if made_up else skin * (0.72, 0.62, 0.62)),
        cloth=_linear(grey * random_color.mean() + (1 - grey) * random_color),
        cloth_other=_linear(other),
        mouth=_linear(np.array((0.50, 0.22, 0.21)) * rng.uniform(0.6, 1.1)),
        left_eye=eye_centers[0],
        right_eye=eye_centers[1],
        offsets=rng.uniform(0, NOISE_CELLS, 3).astype(np.float32),
        mottle=(rng.uniform(0.2, 1.0, 3) * (0.06, 0.05, 0.032)).astype(np.float32),
        bump=(rng.random(2) ** 2 * (0.05, 0.10)).astype(np.float32),
        redness=float(rng.random() ** 1.5 * 0.45),
        freckles=float(max(0.0, rng.uniform(-1.2, 0.8)) * (1 - 0.7 * dark)),
        stubble=float(max(0.0, rng.uniform(-0.5, 0.75))),
        lid_shade=float(rng.uniform(0, 0.6)),
        lash=float(rng.uniform(0.3, 0.95)),
        makeup_share=float(rng.uniform(0.2, 0.8) if made_up else 0.0),
        lip_share=float(rng.uniform(0.6, 1.0) if made_up else rng.uniform(0.3, 0.9)),
        oil=float(rng.random() ** 1.5),
        brow_shape=_brow(rng),
        iris_radius=float(rng.uniform(0.0056, 0.0063)),
        pupil_radius=float(rng.uniform(0.0013, 0.0032)),
        veins=float(rng.random() ** 2 * 0.5),
        hair_share=float(rng.uniform(0.35, 0.98) if rng.random() < 0.75 else rng.uniform(0, 0.2)),
        hair_line=_hair_line(rng),
        cloth_scale=float(rng.choice((0.0, 0.004, 0.012, 0.03), p=(0.55, 0.15, 0.15, 0.15))),
        wrinkles=float(max(0.0, rng.uniform(-0.6, 1.0)) ** 2 * 0.35),
    )
    return paint, tone


def _hair_and_iris(rng: np.random.Generator, dark: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return colours of hair, brows and irises, sRGB (3,), for skin from light (0) to dark (1)."""
    shares = np.array(_HAIR_SHARE_LIGHT) * (1 - dark**0.5) + np.array(_HAIR_SHARE_DARK) * dark**0.5
    hair = np.array(_HAIR[rng.choice(len(_HAIR), p=shares / shares.sum())]) * np.exp(rng.normal(0, 0.12, 3))
    brow = np.clip(hair * rng.uniform(0.45, 1.0), 0.03, 0.75)
    iris = np.array(_IRIS[min(4, int(rng.integers(0, 6) * (1 - dark) ** 0.7))])
    return hair, brow, np.array(_IRIS_GREY) if rng.random() < 0.1 * (1 - dark) else iris


def _hair_line(rng: np.random.Generator) -> np.ndarray:
    values = (
        rng.normal(0.088, 0.009),
        rng.normal(0.82, 0.1),
        rng.uniform(-0.1, 0.5),
        rng.uniform(0.5, 2.5) * 1e-3,
        rng.uniform(1, 7) * 1e-3,
    )
    return np.array(values, np.float32)


def _brow(rng: np.random.Generator) -> np.ndarray:
    values = (
        rng.normal(-0.25, 0.035),
        rng.normal(0.37, 0.04),
        rng.normal(0.34, 0.02),
        rng.normal(0.055, 0.03),
        np.exp(rng.normal(np.log(0.064), 0.28)),
        rng.normal(0, 0.05),
        rng.uniform(0.45, 1.0),
        rng.uniform(0.2, 1.0),
    )
    return np.array(values, np.float32)


def _tone(tone: float) -> np.ndarray:
    return np.array([np.interp(tone, np.arange(len(SKIN_TONES)), channel) for channel in np.array(SKIN_TONES).T])


def _linear(color: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(linear_from_srgb(np.clip(color, 0.0, 1.0)), np.float32)


def _smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
