"""Fuse what the frames of a track show of each person into a texture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flame.errors import InputError
from tracker.texture import eyes, filling, kernels
from tracker.texture.collecting import Foreground, FrameMeshes, SampleStore
from tracker.texture.frame_choice import choose_frames, frame_preference, frame_quality
from tracker.texture.head_texture import HeadTexture
from tracker.texture.lighting import Light, estimate_light
from tracker.texture.srgb import LINEAR_FROM_SRGB, srgb_from_linear
from tracker.texture.texels import Part, TexelTable

if TYPE_CHECKING:
    from flame.model import HeadModel
    from tracker.frames import Frame
    from tracker.result import Track

MAX_FRAMES = 32
"""Frames that a texture is made from, at most; memory is 4 bytes for each and each texel."""
_ALLOWED_PX = (64, 4096)
_AGREEMENT_WIDTH = 0.09
"""Distance from the median, in roots of linear colour, at which a sample's weight has fallen to a quarter."""
_RANK_SHARE = 0.6
"""Weight of a frame in the final mean relative to that of the next better one: few frames count at any place, so that
small errors of the fit do not blur what they show."""
_FULL_CONFIDENCE = 0.25
"""Sum of weights at which a texel's confidence is 0.63; one frontal view has up to 1."""
_DOUBT = 0.15
"""Confidence, as it follows from the weights, below which nothing is taken from a frame, and as far from 1 it is full:
a glimpse past an outline shows as much of the background as of the head."""
_LIGHT_POINTS = 5000
_DARK_RED = np.array((0.075, 0.016, 0.014))
"""Linear albedo of the inside of the mouth, before the light's colour."""
_TONGUE = np.array((0.17, 0.045, 0.040))
_MIN_HAIR = 0.0003
"""Part of the texels that has to show the scalp for its colour to be continued over the back of the head."""
_MIN_EARS = 0.1
"""Mean weight of the ears' vertices from which what is seen of them is continued over the rest of them."""
_DARKEST_HAIR = np.sqrt(0.008)
"""Root of the least linear albedo of hair that is continued: pictures of black hair are often blacker than it is."""
_USUAL_SHARE = 0.01
"""Hold of that colour on vertices of the scalp that are not seen, and of the skin's on ears."""
_SEED = 0


def fuse_textures(
    track: Track, frames: Iterable[tuple[int, Frame]], size_px: int = 1024, *, max_frames: int = MAX_FRAMES
) -> list[HeadTexture | None]:
    """Fuse the textures of all people of a track in one pass over its frames, in constant memory.

    Args:
        track: the tracked clip; its head has to have texture coordinates.
        frames: positions in the track, ascending, with the frames of the original clip. Only some are used, and none is
            asked for after the last of those.
        size_px: length of a side of the textures, texels.
        max_frames: frames that each person's texture is made from, at most.

    Returns:
        A texture for each person; None for heads without texture coordinates and people who are never seen.

    Raises:
        InputError: the size or the number of frames is out of range, or a frame has another size than the track says.
    """
    low, high = _ALLOWED_PX
    if not low <= size_px <= high:
        raise InputError(f"a texture of {size_px} px; allowed: {low} to {high}")
    if max_frames < 1:
        raise InputError(f"textures from {max_frames} frames; at least 1 is needed")
    table = TexelTable.of(track.head_model, size_px)
    chosen = [choose_frames(track, person, max_frames) for person in range(track.num_people)]
    if table is None or not any(len(positions) for positions in chosen):
        return [None] * track.num_people
    stores = [SampleStore(table, len(positions)) for positions in chosen]
    _collect(track, frames, chosen, stores)
    return [_finish(track.head_model, store) for store in stores]


def _collect(
    track: Track, frames: Iterable[tuple[int, Frame]], chosen: list[np.ndarray], stores: list[SampleStore]
) -> None:
    """Fill the stores from the chosen frames."""
    wanted = [set(positions.tolist()) for positions in chosen]
    last = max(max(positions, default=-1) for positions in wanted)
    quality = [frame_quality(track, person) for person in range(track.num_people)]
    best = [max(float(values.max(initial=0.0)), 1e-9) for values in quality]
    preference = [frame_preference(track, person) for person in range(track.num_people)]
    camera = track.intrinsics
    faces = track.head_model.faces.detach().cpu().numpy().astype(np.int32)
    foreground = Foreground()
    for position, frame in frames:
        people = [person for person, positions in enumerate(wanted) if position in positions]
        if people:
            if frame.image.shape[:2] != (camera.height, camera.width):
                found = f"{frame.image.shape[1]} x {frame.image.shape[0]}"
                raise InputError(
                    f"frame {frame.index} has {found} pixels, the track {camera.width} x {camera.height}; "
                    "give the clip that was tracked"
                )
            is_tracked = track.is_tracked[:, position]
            meshes = FrameMeshes(
                tuple(
                    track.vertices(position, person) if is_tracked[person] else None
                    for person in range(track.num_people)
                ),
                faces,
            )
            for person in people:
                share = float(quality[person][position]) / best[person]
                score = float(preference[person][position])
                stores[person].add(frame.image, meshes, person, camera, share, score, foreground)
        if position >= last:
            break


def _finish(head: HeadModel, store: SampleStore) -> HeadTexture | None:
    """Turn the samples of one person into a texture; None where nothing was seen."""
    table = store.table
    seen = _fused(head, store)
    if seen is None:
        return None
    skin = _skin(head, table, seen)
    template = head.template.detach().cpu().numpy().astype(np.float64)
    roots = _filled(head, table, seen, skin, template)
    linear = np.square(np.maximum(roots, 0))
    confidence = np.where(table.part == Part.SKIN, seen.confidence, 0).astype(np.float32)
    skin_light = float(eyes.luminance(skin.color))
    index, painted = eyes.paint_eyes(table, template, np.square(seen.roots), seen.confidence, skin_light)
    linear[index] = painted
    rgb = np.rint(255 * srgb_from_linear(linear)).astype(np.uint8)
    covered = np.zeros((table.size_px, table.size_px), np.float32)
    covered[table.row, table.column] = confidence
    return HeadTexture(np.ascontiguousarray(table.picture(rgb)), covered)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the frames say of each texel."""

    roots: np.ndarray
    """Roots of the linear albedo, float32 (N, 3)."""
    confidence: np.ndarray
    """How well it is known, float32 (N,) in [0, 1]."""


@dataclass(frozen=True, eq=False)
class _Skin:
    """Which texels show the face's skin, and its colour."""

    is_face: np.ndarray
    color: np.ndarray


def _fused(head: HeadModel, store: SampleStore) -> _Seen | None:
    """Estimate the light and fuse the samples without it; None where nothing was seen."""
    table, count = store.table, store.count
    if count == 0 or not store.samples[..., 3].any():
        return None
    light = _light(head, store)
    inverse = np.stack([1 / light.shading(frame, store.normals_cam[frame]) for frame in range(count)])
    roots = np.zeros((len(table), 3), np.float32)
    total = np.zeros(len(table), np.float32)
    samples = store.samples[:, :count]
    kernels.fuse(
        samples,
        inverse.astype(np.float32),
        table.vertices,
        table.weights,
        LINEAR_FROM_SRGB,
        _AGREEMENT_WIDTH,
        _RANK_SHARE ** np.argsort(np.argsort(-np.array(store.scores))),
        roots,
        total,
    )
    confidence = np.clip((1 - np.exp(-total / _FULL_CONFIDENCE) - _DOUBT) / (1 - 2 * _DOUBT), 0, 1)
    return _Seen(roots, confidence.astype(np.float32))


def _light(head: HeadModel, store: SampleStore) -> Light:
    """Estimate the light from points of the skin."""
    table = store.table
    is_seen = np.flatnonzero(_is_face(head, table) & (store.samples[:, : store.count, 3] > 60).any(axis=1))
    if len(is_seen) == 0:
        return Light.even(store.count)
    points = np.random.default_rng(_SEED).choice(is_seen, min(_LIGHT_POINTS, len(is_seen)), replace=False)
    samples = store.samples[points, : store.count].transpose(1, 0, 2)
    corners, shares = table.vertices[points], table.weights[points]
    normals = np.stack([np.einsum("mkc,mk->mc", frame[corners], shares) for frame in store.normals_cam])
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-9)
    weights = np.square(samples[..., 3] / 255.0)
    return estimate_light(LINEAR_FROM_SRGB[samples[..., :3]].astype(np.float64), weights, normals)


def _is_face(head: HeadModel, table: TexelTable) -> np.ndarray:
    """Return which texels show skin of the face beside lips and lids, bool (N,); all skin of a head without regions."""
    regions = head.topology.regions if head.topology is not None else {}
    is_face = table.part == Part.SKIN
    if "face" in regions:
        others = [regions[name] for name in ("lips", "eyelids", "eye_region") if name in regions]
        mask = regions["face"] & ~np.logical_or.reduce([~regions["face"], *others])
        is_face = is_face & mask[table.vertices].all(axis=1)
    return is_face


def _skin(head: HeadModel, table: TexelTable, seen: _Seen) -> _Skin:
    """Find the skin's colour: the median over what is well seen of the face, linear."""
    is_face = _is_face(head, table)
    is_sure = is_face & (seen.confidence > 0.5)
    if is_sure.sum() < 100:
        is_sure = seen.confidence > 0.5 * seen.confidence.max()
    return _Skin(is_face, np.median(np.square(seen.roots[is_sure]), axis=0).astype(np.float64))


def _filled(head: HeadModel, table: TexelTable, seen: _Seen, skin: _Skin, template: np.ndarray) -> np.ndarray:
    """Return roots of linear albedo (N, 3) of all texels."""
    faces = head.faces.detach().cpu().numpy()
    mirror = head.topology.mirror if head.topology is not None else None
    stiffness = filling.laplacian(template, faces)
    fallback = np.broadcast_to(np.sqrt(skin.color), template.shape)
    colors, weights = filling.vertex_colors(table, seen.roots, seen.confidence, head.num_vertices)
    colors, weights = filling.mirrored_vertices(colors, weights, mirror)
    scalp, hair = _hair(head, table, seen)
    ears = _unseen_ears(head, weights)
    for vertices, usual in ((scalp, hair), (ears, np.sqrt(0.85 * skin.color))):
        share = _USUAL_SHARE * (1 - np.clip(weights[vertices], 0, 1))[:, None]
        held = weights[vertices, None]
        colors[vertices] = (held * colors[vertices] + share * usual) / (held + share + 1e-12)
        weights[vertices] += share[:, 0]
    inside, inside_color = _inside_of_mouth(head, table, skin)
    colors[inside], weights[inside] = inside_color, 1
    base = filling.spread_over_mesh(stiffness, colors, weights, fallback)
    base_texels = table.on(base)
    known = np.where(table.part == Part.SKIN, seen.confidence, 0)
    detail = np.where(known[:, None] > 0, seen.roots - base_texels, 0)
    is_skin = (table.part == Part.SKIN)[:, None]
    return base_texels + np.where(is_skin, filling.fill_detail(table, detail, known), 0)


def _hair(head: HeadModel, table: TexelTable, seen: _Seen) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices of the scalp, int64 (M,), none where too little of it is seen, and the root of its colour.

    The colour is that of the darker part of what is seen above the forehead, for hair shines: hair, or skin where there
    is none.
    """
    regions = head.topology.regions if head.topology is not None else {}
    if "scalp" not in regions:
        return np.zeros(0, np.int64), np.zeros(3)
    is_scalp = regions["scalp"] & ~regions.get("face", np.zeros(head.num_vertices, bool))
    is_seen = is_scalp[table.vertices].any(axis=1) & (seen.confidence > 0.3)
    if is_seen.sum() < _MIN_HAIR * len(table):
        # Only past the forehead's edge, then.
        is_seen = is_scalp[table.vertices].any(axis=1) & (seen.confidence > 0.05)
    if is_seen.sum() < _MIN_HAIR * len(table):
        return np.zeros(0, np.int64), np.zeros(3)
    roots = seen.roots[is_seen].astype(np.float64)
    light = eyes.luminance(np.square(roots))
    low, high = np.percentile(light, (10, 30))
    color = np.median(roots[(light >= low) & (light <= high)], axis=0)
    # Grey is added, for the hue of what is almost black is noise.
    return np.flatnonzero(is_scalp & _may_have_hair(head)), color + max(0.0, _DARKEST_HAIR - float(color.mean()))


def _unseen_ears(head: HeadModel, weights: np.ndarray) -> np.ndarray:
    """Return the vertices of the ears, int64 (M,); none where they, or hair over them, are seen with weights (V,)."""
    ears = np.flatnonzero(head.topology.regions.get("ears", False)) if head.topology is not None else np.zeros(0, int)
    return ears if len(ears) and weights[ears].mean() < _MIN_EARS else ears[:0]


def _may_have_hair(head: HeadModel) -> np.ndarray:
    """Return which vertices lie above or behind the ears, bool (V,): the scalp's region reaches down to the jaw."""
    regions = head.topology.regions if head.topology is not None else {}
    if not np.any(regions.get("ears", False)):
        return np.ones(head.num_vertices, bool)
    template = head.template.detach().cpu().numpy()
    ears = template[regions["ears"]]
    y, z = template[:, 1], template[:, 2]
    middle = (ears.min(axis=0) + ears.max(axis=0)) / 2
    return (y > middle[1]) | ((z < ears[:, 2].min()) & (y > ears[:, 1].min()))


def _inside_of_mouth(head: HeadModel, table: TexelTable, skin: _Skin) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices that lie wholly inside the mouth, int64 (M,), and roots of their colour (M, 3)."""
    regions = head.topology.regions if head.topology is not None else {}
    if "inner_mouth" not in regions:
        return np.zeros(0, np.int64), np.zeros((0, 3))
    outside = np.zeros(head.num_vertices, bool)
    outside[head.faces.detach().cpu().numpy()[table.triangle_part != Part.HIDDEN]] = True
    inside = np.flatnonzero(regions["inner_mouth"] & ~outside)
    is_tongue = regions.get("tongue", np.zeros(head.num_vertices, bool))[inside]
    # The light's colour is that of the skin: a mouth in a dark, yellow clip is dark and yellow, too.
    usual_skin = np.array((0.45, 0.27, 0.20))
    tint = np.clip(skin.color / usual_skin, 0.3, 1.5)
    return inside, np.sqrt(np.where(is_tongue[:, None], _TONGUE, _DARK_RED) * tint)
