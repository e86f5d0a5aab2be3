"""How far MediaPipe's landmarks lie from the truth, measured on rendered heads whose truth is known.

Errors are measured in metres on the head, in the image plane, by how far the head is turned: the detector under-reads
large turns, and its face outline slides over the head. What is measured contains the embedding's own error.

Run ``python -m priors.calibration`` to measure anew.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from flame.camera import Intrinsics, project
from flame.errors import AssetMissingError
from flame.loading import load_head
from flame.model import HeadModel
from flame.shading import Lighting
from priors.evidence import FaceRegion
from priors.face_landmarker import FaceLandmarker
from priors.landmark_embedding import MIN_RENDERED_LOGIT, load_embedding, look_at_face
from priors.landmark_topology import NUM_LANDMARKS, landmark_topology
from priors.outline import outline_normals
from priors.painted_head import PALETTES, PaintedHead
from priors.rough_pose import PoseEstimator

_ASSET = Path(__file__).parent / "assets" / "mediapipe_errors.npz"
_IMAGE_PX = 512
_YAW_EDGES_DEGREES = np.array((0.0, 8.0, 16.0, 24.0, 32.0, 40.0, 90.0))
_TRIMMED_SHARE = 0.05
_MIN_SAMPLES = 30
_FIELDS = ("yaw_rad", "sigma_m", "true_yaw_rad", "reference_m")


@dataclass(frozen=True)
class LandmarkErrors:
    """Standard deviations of the landmarks, by the turn that the landmarks themselves suggest."""

    yaw_rad: np.ndarray
    """Middle of each class of turns to the subject's left, radians, ascending from about 0, float64 (classes,)."""
    sigma_m: np.ndarray
    """Standard deviations (classes, 478, 2), metres: along and across the outline's normal for the outline."""
    true_yaw_rad: np.ndarray
    """Mean true turn in each class, radians, float64 (classes,)."""
    reference_m: np.ndarray
    """The landmarks on the mean head, float64 (478, 3), metres, head space; turn and shape are measured against it."""

    def at(self, yaw_rad: float) -> np.ndarray:
        """Return the standard deviations (478, 2), metres, at a turn to either side."""
        position = np.interp(abs(yaw_rad), self.yaw_rad, np.arange(len(self.yaw_rad)))
        low = int(min(position, len(self.yaw_rad) - 2))
        share = position - low
        sigma = (1 - share) * self.sigma_m[low] + share * self.sigma_m[low + 1]
        return sigma if yaw_rad >= 0 else sigma[landmark_topology().mirror]


@lru_cache(maxsize=1)
def landmark_errors() -> LandmarkErrors:
    """Return the shipped measurement.

    Raises:
        AssetMissingError: the file is not in the package.
    """
    if not _ASSET.is_file():
        raise AssetMissingError(
            f"the measured landmark errors are not there: {_ASSET}; run python -m priors.calibration"
        )
    with np.load(_ASSET, allow_pickle=False) as data:
        return LandmarkErrors(*(data[name].astype(np.float64) for name in _FIELDS))


@dataclass(frozen=True)
class _Sample:
    error_m: np.ndarray
    seen_yaw_rad: float
    true_yaw_rad: float


def measure(head: HeadModel, num_pictures: int, seed: int = 7) -> tuple[LandmarkErrors, list[tuple[float, float]]]:
    """Render random people, expressions, poses and lights, and compare.

    Returns:
        The errors, and per picture the true yaw and the yaw read (NaN where no face was found), degrees.
    """
    random = np.random.default_rng(seed)
    painted, landmarker, embedding = PaintedHead(head), FaceLandmarker(), load_embedding(head)
    reference = embedding.points.on(painted.template, painted.faces)
    estimator = PoseEstimator(reference)
    samples, readings = [], []
    for _ in range(num_pictures):
        yaw = random.uniform(-60.0, 60.0)
        verts = _random_head(head, random)
        verts_cam = look_at_face(verts, painted, yaw, random.uniform(-20.0, 20.0), random.uniform(0.5, 1.2))
        depth = verts_cam[:, 2].mean()
        focal_px = random.uniform(0.45, 0.7) * _IMAGE_PX * depth / 0.24
        intrinsics = Intrinsics(focal_px, focal_px, _IMAGE_PX / 2, _IMAGE_PX / 2, _IMAGE_PX, _IMAGE_PX)
        lighting = Lighting(key_direction=tuple(random.normal((0.0, 0.4, 0.8), 0.4)))
        palette = PALETTES[random.integers(len(PALETTES))]
        image, _, _ = painted.render(verts_cam, intrinsics, palette=palette, lighting=lighting)
        region = FaceRegion((_IMAGE_PX / 2, _IMAGE_PX / 2), 0.24 * 1.4 * focal_px / depth, 0.0)
        for _ in range(3):
            landmarks = landmarker(image, region)
            region = landmarks.region
        if landmarks.logit < MIN_RENDERED_LOGIT:
            readings.append((yaw, np.nan))
            continue
        truth = project(embedding.points.on(verts_cam, painted.faces), intrinsics)
        pose = estimator(landmarks.points_px, landmarks.depth_px)
        readings.append((yaw, np.degrees(pose.yaw_rad)))
        error = _along_and_across(landmarks.points_px, landmarks.points_px - truth) * depth / focal_px
        if pose.yaw_rad < 0:
            error = error[landmark_topology().mirror]
        samples.append(_Sample(error, abs(pose.yaw_rad), np.sign(pose.yaw_rad) * np.radians(yaw)))
    return _summarise(samples, reference), readings


def _random_head(head: HeadModel, random: np.random.Generator) -> np.ndarray:
    """Return vertices (V, 3) of a random person with a random expression and gaze."""
    expression = np.zeros(head.num_expression)
    chosen = random.choice(head.num_expression, size=min(5, head.num_expression), replace=False)
    expression[chosen] = random.uniform(0.0, 0.8, len(chosen))
    gaze = random.normal(0.0, 0.15, 3) * (1.0, 1.0, 0.0)
    to_tensor = {"dtype": head.dtype, "device": head.device}
    with torch.no_grad():
        verts = head.vertices(
            shape=torch.as_tensor(random.normal(0.0, 0.8, head.num_shape), **to_tensor),
            expression=torch.as_tensor(expression, **to_tensor),
            jaw=torch.tensor((max(0.0, random.normal(0.0, 0.12)), 0.0, 0.0), **to_tensor),
            left_eye=torch.as_tensor(gaze, **to_tensor),
            right_eye=torch.as_tensor(gaze, **to_tensor),
        )
    return verts.cpu().numpy().astype(np.float64)


def _along_and_across(points_px: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Turn errors (478, 2) into components along and across the directions that the evidence uses."""
    normal = outline_normals(points_px)
    along = (error * normal).sum(axis=1)
    across = error[:, 1] * normal[:, 0] - error[:, 0] * normal[:, 1]
    return np.column_stack((along, across))


def _summarise(samples: list[_Sample], reference: np.ndarray) -> LandmarkErrors:
    """Reduce the samples to trimmed root mean squares by class of turn."""
    seen = np.degrees([sample.seen_yaw_rad for sample in samples])
    true = np.array([sample.true_yaw_rad for sample in samples])
    errors = np.stack([sample.error_m for sample in samples])
    middles, sigmas, truths = [], [], []
    for low, high in zip(_YAW_EDGES_DEGREES[:-1], _YAW_EDGES_DEGREES[1:], strict=True):
        chosen = (seen >= low) & (seen < high)
        if chosen.sum() < _MIN_SAMPLES:
            continue
        squares = np.sort(errors[chosen] ** 2, axis=0)
        kept = squares[: max(1, round(len(squares) * (1 - _TRIMMED_SHARE)))]
        middles.append(np.radians(seen[chosen].mean()))
        sigmas.append(_isotropic_off_outline(np.sqrt(kept.mean(axis=0))))
        truths.append(true[chosen].mean())
    return LandmarkErrors(np.array(middles), np.stack(sigmas), np.array(truths), reference)


def _isotropic_off_outline(sigma: np.ndarray) -> np.ndarray:
    """Give landmarks off the outline one standard deviation for both directions."""
    outline = np.isin(np.arange(NUM_LANDMARKS), landmark_topology().oval)
    mean = np.sqrt((sigma**2).mean(axis=1, keepdims=True))
    return np.where(outline[:, None], sigma, mean)


def main() -> int:
    """Measure on the shipped head, store, and report."""
    parser = argparse.ArgumentParser(description="Measure the errors of MediaPipe's landmarks on rendered heads.")
    parser.add_argument("--pictures", type=int, default=1500, help="number of rendered pictures (default: 1500)")
    options = parser.parse_args()
    errors, readings = measure(load_head(), options.pictures)
    _ASSET.parent.mkdir(parents=True, exist_ok=True)
    # Half precision is 0.05 % of a value: micrometres.
    np.savez_compressed(_ASSET, **{name: getattr(errors, name).astype(np.float16) for name in _FIELDS})
    sys.stdout.write(f"{_ASSET}\n{_report(errors, np.array(readings))}\n")
    return 0


def _report(errors: LandmarkErrors, readings: np.ndarray) -> str:
    """Describe the measurement in a few lines."""
    lines = []
    for low in range(0, 60, 10):
        chosen = (np.abs(readings[:, 0]) >= low) & (np.abs(readings[:, 0]) < low + 10)
        found = chosen & np.isfinite(readings[:, 1])
        read = np.abs(readings[found, 1]).mean()
        lines.append(f"true yaw {low:2d}-{low + 10} deg: read {read:.1f} deg, found {found.sum() / chosen.sum():.0%}")
    groups = {name: indices for name, indices in landmark_topology().groups.items() if name != "oval"}
    for name, indices in {**groups, "oval": landmark_topology().oval}.items():
        along, across = (1000 * np.median(errors.sigma_m[:, indices, axis], axis=1) for axis in (0, 1))
        lines.append(f"{name:10s} sigma by turn, mm: {np.round(along, 1)} across {np.round(across, 1)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
