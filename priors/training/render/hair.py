"""Hair of the head: locks that grow from the scalp, are combed, fall, and lie over face, ears, neck and background."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from priors.pixel_kinds import Kind
from priors.training.render import hair_kernels
from priors.training.render.canvas import Canvas
from priors.training.render.head_frame import LINE_FRONT, LINE_HEIGHT, SKULL_CENTER, hair_height
from priors.training.render.noise_tiles import grain

_MAX_POINTS = 11
"""Most points along a lock; short ones have fewer."""
_PIECE_PX = 6.0
"""Length of the straight pieces that a lock is drawn in, pixels."""
_LEAST_HEIGHT = -0.16
"""Below it hair hangs freely, metres of wear space."""
_COLORS = (
    ((0.07, 0.06, 0.06), 0.27),
    ((0.16, 0.11, 0.09), 0.22),
    ((0.27, 0.18, 0.12), 0.16),
    ((0.40, 0.24, 0.13), 0.07),
    ((0.48, 0.36, 0.22), 0.08),
    ((0.70, 0.57, 0.38), 0.08),
    ((0.52, 0.51, 0.50), 0.06),
    ((0.82, 0.81, 0.79), 0.04),
)
"""Colours of hair (sRGB) and how frequent they are; the rest is dyed."""
_COMBS = ("back", "parted", "forward", "out", "down")


@dataclass(frozen=True)
class HairStyle:
    """Describe how hair is worn; lengths in metres of wear space."""

    color: np.ndarray
    """Base colour, sRGB (3,)."""
    comb: str
    """Where it is combed: back, parted, forward, out or down."""
    length: float
    """Length of the locks."""
    fringe: float
    """Length of the locks over the forehead."""
    volume: float
    """How far the outermost locks stand off the skin."""
    lift: float
    """How upright locks leave the skin, 0 flat."""
    gravity: float
    """How soon they fall, 0 never."""
    curl: float
    """Amplitude of waves along a lock."""
    opening: float
    """Half of the width of the face that long hair leaves free."""
    part: float
    """Where the parting is, x."""
    line: float
    """How much further up and back than usual the hairline lies."""
    width: float
    """Width of a lock."""
    count: int
    """Number of locks."""
    mess: float
    """How much the directions of neighbouring locks differ."""
    knot: str
    """none, bun or tail."""


def random_color(rng: np.random.Generator) -> np.ndarray:
    """Return a colour of hair, sRGB (3,)."""
    shares = np.array([share for _, share in _COLORS])
    choice = rng.random()
    if choice >= shares.sum():
        return rng.uniform(0.1, 0.9, 3)
    index = int(np.searchsorted(np.cumsum(shares), choice, side="right"))
    base = np.array(_COLORS[min(index, len(_COLORS) - 1)][0])
    return np.clip(base * np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.06, 3)), 0.01, 0.95)


def random_style(rng: np.random.Generator) -> HairStyle:
    """Return a hair style: short, middle or long, combed in one of five ways, sometimes tied up."""
    comb = str(rng.choice(_COMBS, p=(0.25, 0.3, 0.15, 0.15, 0.15)))
    size = int(rng.choice(3, p=(0.42, 0.2, 0.38)))
    length = float((rng.uniform(0.008, 0.05), rng.uniform(0.05, 0.16), rng.uniform(0.16, 0.42))[size])
    is_out = comb == "out"
    if is_out:
        length = min(length, float(rng.uniform(0.01, 0.09)))
    knot = "none"
    if size == 2 and rng.random() < 0.3:
        knot, comb = str(rng.choice(("bun", "tail"))), "back"
    has_fringe = rng.random() < 0.4 and comb != "back"
    curl = float(rng.choice((0.0, 0.002, 0.006, 0.012), p=(0.4, 0.3, 0.2, 0.1)))
    return HairStyle(
        color=random_color(rng),
        comb=comb,
        length=length,
        fringe=float(rng.uniform(0.03, 0.10)) if has_fringe else length,
        volume=float(rng.uniform(0.003, 0.012) + rng.uniform(0, 0.025) * min(1.0, length / 0.1)),
        lift=float(rng.uniform(0.8, 1.5) if is_out else rng.uniform(0.0, 0.4)),
        gravity=float(rng.uniform(0.0, 0.08) if is_out else rng.uniform(0.1, 0.6)),
        curl=curl if not is_out else curl + 0.004,
        opening=float(rng.uniform(0.035, 0.085)),
        part=float(rng.normal(0, 0.02)),
        line=float(rng.normal(0, 0.008) + (rng.random() < 0.12) * rng.uniform(0.01, 0.05)),
        width=float(rng.uniform(0.003, 0.008) * (0.7 + 0.6 * min(1.0, length / 0.2))),
        count=int(rng.uniform(380, 620) * (1.6 if length < 0.1 else 1.0)),
        mess=float(rng.uniform(0.02, 0.14)),
        knot=knot,
    )


def under_hat(style: HairStyle) -> HairStyle:
    """Return the style pressed flat, as below a hat."""
    comb = "down" if style.comb == "out" else style.comb
    volume, curl = min(style.volume, 0.005), min(style.curl, 0.002)
    return replace(style, comb=comb, volume=volume, lift=0.0, gravity=max(style.gravity, 0.3), curl=curl, knot="none")


def draw_hair(canvas: Canvas, rng: np.random.Generator, style: HairStyle | None = None) -> HairStyle:
    """Draw hair on a head, in place: the scalp darkened, then locks; kind HAIR.

    Args:
        canvas: the picture.
        rng: random numbers.
        style: how it is worn; random if not given.

    Returns:
        The style.
    """
    style = random_style(rng) if style is None else style
    _paint_scalp(canvas, rng, style)
    roots, normals, shift_cam = _roots(canvas, rng, style)
    if len(roots) < 8:
        return style
    locks, clearance = _grow(canvas, rng, style, roots, normals)
    _draw(canvas, rng, style, locks, clearance, shift_cam)
    if style.knot != "none":
        _draw_knot(canvas, rng, style)
    return style


def _paint_scalp(canvas: Canvas, rng: np.random.Generator, style: HairStyle) -> None:
    """Colour the skin behind the hairline like the hair's ground, in place; kind HAIR where it is dense."""
    hair_kernels.paint_scalp(
        canvas.image,
        canvas.kind,
        canvas.place,
        np.ascontiguousarray(grain(rng, *canvas.size, 0.6)[..., 0]),
        np.array((LINE_HEIGHT, LINE_FRONT), np.float32),
        style.color.astype(np.float32),
        max(float(canvas.skin.mean()), 0.05),
        style.line,
        int(Kind.HAIR),
    )


def _roots(canvas: Canvas, rng: np.random.Generator, style: HairStyle) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return roots and normals in wear space, (N, 3) each, and how far the fitted map misses the posed skin, (N, 3)."""
    guide = canvas.frame.guide
    if len(guide.scalp_triangles) == 0:
        return np.empty((0, 3)), np.empty((0, 3)), np.empty((0, 3))
    chosen = np.searchsorted(guide.scalp_share, rng.random(style.count))
    chosen = np.minimum(chosen, len(guide.scalp_triangles) - 1)
    corners = guide.faces[guide.scalp_triangles[chosen]]
    weights = rng.dirichlet((1.0, 1.0, 1.0), style.count)
    roots = np.einsum("nk,nkc->nc", weights, guide.verts[corners])
    keep = hair_height(roots) > style.line + rng.normal(0, 0.003, style.count)
    roots, corners, weights = roots[keep], corners[keep], weights[keep]
    posed = np.einsum("nk,nkc->nc", weights, canvas.frame.verts_cam[corners])
    return roots, guide.scalp_normals[chosen[keep]], posed - canvas.frame.to_cam(roots)


def _comb(style: HairStyle, roots: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return the direction in which locks leave the skin, unit (N, 3)."""
    x, y, z = roots.T
    side = np.where(x > style.part, 1.0, -1.0)
    zero, one = np.zeros_like(x), np.ones_like(x)
    low = y < 0.05
    fields = {
        "back": (0.3 * np.sign(x), -0.3 * one, -one),
        "parted": (side, -0.4 * one, np.where(z > -0.03, -0.1, -0.5)),
        "forward": (0.2 * x / 0.07, np.where(low, -1.0, -0.2), np.where(low & (z < -0.05), -0.2, 1.0)),
        "out": (normals[:, 0], normals[:, 1], normals[:, 2]),
        "down": (np.sign(x) * 0.3, -one, np.where(z > 0, 0.8, zero)),
    }
    direction = np.stack(fields[style.comb], axis=-1)
    if style.fringe != style.length:
        is_fringe = _is_fringe(roots, style)
        direction[is_fringe] = np.stack((0.5 * x + 0.3 * style.part, -0.5 * one, one), axis=-1)[is_fringe]
    along = np.einsum("nc,nc->n", direction, normals)[:, None]
    direction = direction - along * normals
    direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6
    direction += style.lift * normals
    return direction / (np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6)


def _is_fringe(roots: np.ndarray, style: HairStyle) -> np.ndarray:
    return (roots[:, 1] > 0.055) & (hair_height(roots) - style.line < 0.045) & (np.abs(roots[:, 0]) < 0.055)


def _grow(
    canvas: Canvas, rng: np.random.Generator, style: HairStyle, roots: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let locks grow; returns their points, float32 (N, K, 3), wear space, and how far out each lies, 0 to 1, (N,)."""
    count, guide = len(roots), canvas.frame.guide
    layer = rng.random(count, np.float32)
    clearance = np.float32(style.volume) * (0.15 + 0.85 * layer) + np.float32(0.001)
    is_fringe = _is_fringe(roots, style) if style.fringe != style.length else np.zeros(count, bool)
    length = np.where(is_fringe, style.fringe, style.length) * rng.uniform(0.75, 1.1, count)
    longest_px = max(style.length, style.fringe) * canvas.frame.px_per_metre
    num_points = int(np.clip(longest_px / _PIECE_PX, 4, _MAX_POINTS))
    step = (length / (num_points - 1)).astype(np.float32)[:, None]
    direction = (_comb(style, roots, normals) + rng.normal(0, style.mess, (count, 3))).astype(np.float32)
    fall = (canvas.frame.down * style.gravity).astype(np.float32) * (0.5 + 30 * step)
    falls = np.ascontiguousarray(np.broadcast_to(fall, (count, 3)), np.float32)
    points = hair_kernels.grow_locks(
        roots.astype(np.float32),
        direction,
        step[:, 0],
        falls,
        # Waves much shorter than a step would be zigzags.
        np.minimum(style.curl, 0.3 * step) * rng.standard_normal((count, 3), np.float32),
        rng.uniform(0, 2 * np.pi, count).astype(np.float32),
        clearance,
        (style.opening * rng.uniform(0.85, 1.25, count)).astype(np.float32),
        is_fringe,
        SKULL_CENTER.astype(np.float32),
        guide.radius,
        _LEAST_HEIGHT,
        num_points,
    )
    return points, layer


def _draw(
    canvas: Canvas,
    rng: np.random.Generator,
    style: HairStyle,
    locks: np.ndarray,
    layer: np.ndarray,
    shift_cam: np.ndarray,
) -> None:
    """Shade locks (N, K, 3) of wear space and draw them; ``layer`` (N,): 0 next to the skin, 1 outermost."""
    frame, count, camera = canvas.frame, len(locks), canvas.frame.intrinsics
    points, shade = hair_kernels.place_locks(
        locks,
        shift_cam.astype(np.float32),
        layer.astype(np.float32),
        SKULL_CENTER.astype(np.float32),
        frame.cam_from_wear.astype(np.float32),
        np.array((camera.fx, camera.fy, camera.cx, camera.cy), np.float32),
        canvas.light.packed,
        float(rng.uniform(0.1, 0.9)),
    )
    taper = np.clip(1.25 - np.linspace(0, 1, locks.shape[1]) ** 3, 0.3, 1)
    widths = style.width * np.exp(rng.normal(0, 0.25, count))
    half_px = 0.5 * frame.px_per_metre * widths[:, None] * taper
    colors = style.color * np.exp(rng.normal(0, 0.09, (count, 1))) * np.exp(rng.normal(0, 0.02, (count, 3)))
    canvas.draw_locks(points, half_px, colors, shade, rng.random(count))


def _draw_knot(canvas: Canvas, rng: np.random.Generator, style: HairStyle) -> None:
    """Draw a bun or a tail of hair behind the head."""
    count = 90
    height, radius = rng.uniform(-0.02, 0.12), rng.uniform(0.022, 0.045)
    angle = np.arctan2(height - SKULL_CENTER[1], -1.0 * 0.09)
    direction = np.array((rng.normal(0, 0.1), np.sin(angle), np.cos(angle)))
    direction /= np.linalg.norm(direction)
    skin = float(canvas.frame.guide.skin_radius((SKULL_CENTER + direction)[None])[0])
    center = SKULL_CENTER + direction * (skin + radius * 0.7)
    t = np.linspace(0, 1, _MAX_POINTS)
    if style.knot == "bun":
        first = rng.normal(0, 1, (count, 3))
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second = np.cross(first, rng.normal(0, 1, (count, 3)))
        second /= np.linalg.norm(second, axis=1, keepdims=True)
        turn = (t * rng.uniform(1.0, 2.5, (count, 1)))[..., None]
        locks = center + radius * (first[:, None] * np.cos(turn) + second[:, None] * np.sin(turn))
    else:
        spread = rng.normal(0, 1, (count, 1, 3)) * (0.25 + t[:, None] * 0.75) * radius * 0.6
        away = direction * 0.05 * np.sin(np.pi * np.minimum(t * 1.5, 1))[:, None]
        locks = center + spread + away + canvas.frame.down * (t * rng.uniform(0.1, 0.35))[:, None]
    _draw(canvas, rng, style, locks.astype(np.float32), rng.random(count), np.zeros((count, 3)))
