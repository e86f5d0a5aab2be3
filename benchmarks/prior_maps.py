"""Measure priors' dense maps on labelled pictures: angles of normals, and places that texture coordinates name.

    python benchmarks/prior_maps.py SHARDS [SHARDS ...] [--weights FILE] [--limit N] [--json FILE]

SHARDS are folders made by ``python -m priors.training.render`` or ``python -m tracker.register_frames``. ``mediapipe``
is the default prior, told where in the crop the face is; ``commons`` is the network whose weights ship, or those of
FILE. Pixels of skin are compared that are labelled; ``each`` takes those that the prior itself speaks of, ``common``
those that all priors speak of.

``normal``: angle between predicted and true normals in the picture's camera, degrees; shares within 11.25, 22.5, 30.
``uv``: where on the rest mean head the predicted texture coordinates lie, against where the pixel's surface truly lies,
millimetres; in pixels, that distance times the pixels per metre of the head in the picture (focal length over depth).
``covers``: share of the labelled skin of which the prior speaks; where it finds no face, of none.

Registered frames are labelled by heads that were fitted to the default prior's landmarks: they favour ``mediapipe``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flame import HeadModel, load_head
from flame.camera import Intrinsics
from flame.rasterizer import rasterize
from priors import create_prior
from priors.dense_surface import DenseSurface
from priors.evidence import DenseMaps, FaceRegion
from priors.face_crop import MARGIN, SHIFT_UP, ray_from_cam
from priors.face_landmarker import REGION_SCALE
from priors.mediapipe import PRESENCE_THRESHOLD
from priors.pixel_kinds import Kind
from priors.placed_maps import with_camera_normals
from priors.training.shards import ShardReader

Predictor = Callable[[np.ndarray], "DenseMaps | None"]
"""Draws the maps of a picture, uint8 (S, S, 3), at a size of its own; None where it sees no face."""
YAW_BINS = (0, 15, 30, 45, 180)
TONES = (("light skin", 0.0, 3.0), ("medium skin", 3.0, 6.0), ("dark skin", 6.0, 9.01))
"""Bins of the renderer's scale of skin, 0 to 9."""
ANGLES_DEGREES = (11.25, 22.5, 30.0)
"""Angles whose share is usual to report."""
_ATLAS_PX = 2048


@dataclass(frozen=True, eq=False)
class MapErrors:
    """Hold the errors of pixels; N with normals, M with texture coordinates."""

    angle_degrees: np.ndarray
    """Angle between predicted and true normals, float32 (N,)."""
    place_mm: np.ndarray
    """Distance on the template of the predicted place from the true one, float32 (M,)."""
    place_px: np.ndarray
    """The same, times the pixels per metre of the head in the 256-pixel picture, float32 (M,)."""

    @staticmethod
    def joined(parts: list[MapErrors]) -> MapErrors:
        """Return the errors of several pictures as one."""
        columns = zip(*((each.angle_degrees, each.place_mm, each.place_px) for each in parts), strict=True)
        return MapErrors(*(np.concatenate(column) for column in columns)) if parts else MapErrors(*[np.zeros(0)] * 3)

    def figures(self) -> dict[str, float]:
        """Return mean, median and shares of the angles (degrees, percent), mean and median of the places (px, mm)."""

        def of(function: object, values: np.ndarray) -> float:
            return float(function(values)) if len(values) else math.nan  # type: ignore[operator]

        shares = {
            f"normal_within_{angle:g}_percent": 100 * of(np.mean, self.angle_degrees <= angle)
            for angle in ANGLES_DEGREES
        }
        return {
            "normal_mean_degrees": of(np.mean, self.angle_degrees),
            "normal_median_degrees": of(np.median, self.angle_degrees),
            **shares,
            "uv_mean_px": of(np.mean, self.place_px),
            "uv_median_px": of(np.median, self.place_px),
            "uv_mean_mm": of(np.mean, self.place_mm),
            "uv_median_mm": of(np.median, self.place_mm),
        }


@dataclass(frozen=True, eq=False)
class Atlas:
    """Find the place on a head's template that texture coordinates name."""

    triangle: np.ndarray
    """Triangle of each texel, int32 (S, S), the first row at v = 0; -1 where there is none."""
    origin: np.ndarray
    """One corner of each triangle, float64 (F, 3), metres."""
    uv_origin: np.ndarray
    """Its texture coordinates, float64 (F, 2)."""
    place_from_uv: np.ndarray
    """Change of the place with texture coordinates, float64 (F, 3, 2), metres."""

    @staticmethod
    def of(head: HeadModel) -> Atlas:
        """Prepare a head's skin.

        Raises:
            InputError: the head has no texture coordinates.
        """
        surface = DenseSurface.of(head)
        uv = surface.uv[surface.uv_faces]
        corners = head.template.detach().cpu().numpy().astype(np.float64)[head.faces.detach().cpu().numpy()]
        uv_edges = np.stack((uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]), axis=2)
        edges = np.stack((corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=2)
        camera = Intrinsics(_ATLAS_PX, _ATLAS_PX, 0.0, 0.0, _ATLAS_PX, _ATLAS_PX)
        flat = np.column_stack((surface.uv, np.ones(len(surface.uv))))
        triangle = rasterize(flat, surface.uv_faces[~surface.is_excluded], camera).triangle
        numbers = np.append(np.flatnonzero(~surface.is_excluded), -1).astype(np.int32)
        return Atlas(numbers[triangle], corners[:, 0], uv[:, 0], edges @ np.linalg.pinv(uv_edges))

    def __call__(self, uv: np.ndarray) -> np.ndarray:
        """Return places (N, 3), metres, of texture coordinates (N, 2); NaN where they name no skin."""
        with np.errstate(invalid="ignore"):
            texel = np.nan_to_num(np.floor(uv * _ATLAS_PX), nan=-1).astype(np.int64)
        is_inside = ((texel >= 0) & (texel < _ATLAS_PX)).all(axis=1)
        column, row = np.where(is_inside, texel.T, 0)
        triangle = np.where(is_inside, self.triangle[row, column], -1)
        offset = uv - self.uv_origin[triangle]
        places = self.origin[triangle] + np.einsum("nij,nj->ni", self.place_from_uv[triangle], offset)
        places[triangle < 0] = np.nan
        return places


def map_errors(
    uv: np.ndarray,
    normals: np.ndarray,
    true_place: np.ndarray,
    true_normals: np.ndarray,
    px_per_metre: float,
    atlas: Atlas,
) -> MapErrors:
    """Compare predictions of N pixels with the truth; predictions that are NaN are left out.

    Args:
        uv: Predicted texture coordinates (N, 2).
        normals: Predicted unit normals (N, 3), in the axes of the true ones.
        true_place: Where on the template the pixels' surface lies (N, 3), metres.
        true_normals: True unit normals (N, 3).
        px_per_metre: Scale of the picture where the head is.
        atlas: The head's texture.
    """
    cosine = np.einsum("nc,nc->n", normals, true_normals)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    distance = np.linalg.norm(atlas(uv) - true_place, axis=1)
    angle, distance = angle[np.isfinite(angle)], distance[np.isfinite(distance)]
    return MapErrors(
        angle.astype(np.float32), (1e3 * distance).astype(np.float32), (px_per_metre * distance).astype(np.float32)
    )


def yaw_degrees(cam_from_neck: np.ndarray, intrinsics: Intrinsics) -> float:
    """Return by how much a head is turned sideways from the ray through the picture's middle, either way."""
    forward = ray_from_cam(intrinsics) @ np.asarray(cam_from_neck)[:, 2]
    return abs(math.degrees(math.atan2(forward[0], -forward[2])))


@dataclass
class Score:
    """Gather one prior's errors in one group of pictures."""

    parts: list[MapErrors] = field(default_factory=list)
    num_covered: int = 0
    num_labelled: int = 0

    def add(self, errors: MapErrors, num_covered: int, num_labelled: int) -> None:
        """Add a picture."""
        self.parts.append(errors)
        self.num_covered += num_covered
        self.num_labelled += num_labelled

    def join(self, other: Score) -> None:
        """Add the pictures of another score."""
        self.parts += other.parts
        self.num_covered += other.num_covered
        self.num_labelled += other.num_labelled

    def figures(self) -> dict[str, float]:
        """Return the figures of all pictures."""
        covers = 100 * self.num_covered / max(self.num_labelled, 1)
        return {"pictures": len(self.parts), "covers_percent": covers, **MapErrors.joined(self.parts).figures()}


def mediapipe_predictor(head: HeadModel) -> Predictor:
    """Return the default prior; it is told where in the crop the face is, as the network knows."""
    prior = create_prior("mediapipe", head)

    def predict(picture: np.ndarray) -> DenseMaps | None:
        side = len(picture)
        middle = (side / 2, side * (0.5 + SHIFT_UP))
        (evidence,) = prior.observe(picture, [FaceRegion(middle, REGION_SCALE / MARGIN * side, 0.0)])
        if evidence is None or evidence.presence < PRESENCE_THRESHOLD:
            return None
        return prior.dense(evidence, side, side)

    return predict


def commons_predictor(head: HeadModel, weights: Path | None) -> Predictor:
    """Return the network, which takes the picture as the crop that it is."""
    from priors.commons import WEIGHTS_FILE, CommonsNetwork

    network = CommonsNetwork(head, weights or WEIGHTS_FILE)

    def predict(picture: np.ndarray) -> DenseMaps:
        side = network.input_px
        scaled = picture if len(picture) == side else cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        return network(scaled)

    return predict


def at_label_size(maps: DenseMaps, intrinsics: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Return texture coordinates and camera normals at the pixels of labels with this camera, NaN outside the mask.

    A label's pixel centre is the middle of a block of pixels: the nearest pixel's value serves, blending would mix
    what lies on two sides of a seam or an outline.
    """
    side = maps.mask.shape[0]
    factor = side / intrinsics.width
    turned = with_camera_normals(maps, intrinsics.scale(factor))
    index = np.minimum(((np.arange(intrinsics.width) + 0.5) * factor).astype(int), side - 1)
    uv, normals = (np.where(maps.mask[..., None], each, np.nan) for each in (turned.uv, turned.normals))
    return uv[np.ix_(index, index)], normals[np.ix_(index, index)]


def groups_of(facts: dict[str, Any], yaw: float) -> list[str]:
    """Return the names of the groups that a picture belongs to."""
    groups = ["all"]
    low, high = next(pair for pair in zip(YAW_BINS, YAW_BINS[1:], strict=False) if yaw < pair[1] or pair[1] == 180)
    groups.append(f"yaw {low} to {high}" if high < 180 else f"yaw {low} and more")
    if "skin_tone" in facts:
        groups += [name for name, low, high in TONES if low <= float(facts["skin_tone"]) < high]
    if "clip" in facts:
        groups.append(Path(str(facts["clip"])).stem)
    return groups


def measure(
    samples: Iterator[tuple[np.ndarray, Any, dict[str, Any]]], predictors: dict[str, Predictor], atlas: Atlas
) -> dict[tuple[str, str, str], Score]:
    """Return scores by group, prior and pixels (``each`` or ``common``).

    Args:
        samples: pictures with ``LabelMaps`` and facts.
        predictors: priors by name.
        atlas: the head's texture.
    """
    scores: dict[tuple[str, str, str], Score] = {}
    for picture, labels, facts in samples:
        camera = Intrinsics(**facts["intrinsics"])
        small = camera.scale(labels.kind.shape[0] / camera.width)
        px_per_metre = camera.fx / facts["cam_from_head"][2][3]
        is_skin = labels.valid & (labels.kind == Kind.SKIN)
        found = {}
        for name, predict in predictors.items():
            maps = predict(picture)
            if maps is None:
                maps = DenseMaps(*(np.full((*is_skin.shape, n), np.nan) for n in (2, 3)), np.zeros_like(is_skin))
            uv, normals = at_label_size(maps, small)
            found[name] = uv, normals, is_skin & np.isfinite(normals).all(axis=-1) & np.isfinite(uv).all(axis=-1)
        common = np.logical_and.reduce([is_seen for _, _, is_seen in found.values()])
        for group in groups_of(facts, yaw_degrees(facts["cam_from_neck"], camera)):
            for name, (uv, normals, is_seen) in found.items():
                for label, chosen in (("each", is_seen), ("common", common)):
                    errors = map_errors(
                        uv[chosen],
                        normals[chosen],
                        labels.place[chosen],
                        labels.normals_cam[chosen],
                        px_per_metre,
                        atlas,
                    )
                    score = scores.setdefault((group, name, label), Score())
                    score.add(errors, int(chosen.sum()), int(is_skin.sum()))
    return scores


def samples_of(folder: Path, limit: int | None) -> Iterator[tuple[np.ndarray, Any, dict[str, Any]]]:
    """Read a folder of shards, evenly thinned to ``limit`` samples."""
    reader = ShardReader(folder)
    count = len(reader) if limit is None else min(limit, len(reader))
    for index in np.linspace(0, len(reader) - 1, count).round().astype(int):
        yield reader.read(int(index))


def table(scores: dict[tuple[str, str, str], Score]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the lines of a table and its figures as records."""
    lines = [
        f"{'group':28s} {'prior':10s} {'pixels':7s} {'images':>6s} {'covers':>7s} | {'mean':>6s} {'median':>6s} "
        f"{'<11.25':>6s} {'<22.5':>6s} {'<30':>6s} | {'uv px':>6s} {'median':>6s} {'uv mm':>6s} {'median':>6s}"
    ]
    records = []
    for key in sorted(scores, key=lambda key: (key[0] != "all", not key[0].startswith("yaw"), key[0], key[2])):
        figures = scores[key].figures()
        group, prior, pixels = key
        values = list(figures.values())
        lines.append(
            f"{group[:28]:28s} {prior:10s} {pixels:7s} {values[0]:6d} {values[1]:6.1f}% | "
            + " ".join(f"{value:6.2f}" for value in values[2:4])
            + " "
            + " ".join(f"{value:6.1f}" for value in values[4:7])
            + " | "
            + " ".join(f"{value:6.2f}" for value in values[7:])
        )
        records.append({"group": group, "prior": prior, "pixels": pixels, **figures})
    return lines, records


def report(title: str, scores: dict[tuple[str, str, str], Score]) -> list[dict[str, Any]]:
    """Print a table and return its figures as records."""
    lines, records = table(scores)
    print(f"\n{title}", *lines, sep="\n", flush=True)
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every folder and print one table each."""
    parser = argparse.ArgumentParser(description="Measure priors' dense maps on labelled pictures.")
    parser.add_argument("shards", nargs="+", type=Path, help="folders of labelled pictures")
    parser.add_argument("--prior", action="append", choices=("mediapipe", "commons"), help="measure only these")
    parser.add_argument("--weights", type=Path, help="weights of the network, in place of those that ship")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many pictures of each folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args(arguments)
    head = load_head()
    names = options.prior or ["mediapipe", "commons"]
    predictors: dict[str, Predictor] = {}
    if "mediapipe" in names:
        predictors["mediapipe"] = mediapipe_predictor(head)
    if "commons" in names:
        predictors["commons"] = commons_predictor(head, options.weights)
    atlas = Atlas.of(head)
    result, together = {}, {}
    for folder in options.shards:
        scores = measure(samples_of(folder, options.limit), predictors, atlas)
        result[str(folder)] = report(str(folder), scores)
        for key, score in scores.items():
            together.setdefault(key, Score()).join(score)
    if len(options.shards) > 1:
        result["all folders"] = report("all folders", together)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
