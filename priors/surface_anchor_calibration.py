"""Learn from renderings what landmarks and a network's normals tell about identity; see `priors.surface_anchor`.

The renderings are those of `priors.anchor_calibration`, larger, since the network looks at the whole head. Run
``python -m priors.surface_anchor_calibration`` (some minutes) after every training of the network.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from flame.loading import load_head
from flame.model import HeadModel
from priors.anchor_calibration import (
    Photos,
    expected_covariance,
    expression_map,
    geometric_map,
    learn,
    photograph_people,
    reference_landmarks,
    with_partners,
)
from priors.commons import WEIGHTS_FILE, CommonsNetwork
from priors.face_crop import FaceCrop
from priors.face_landmarker import Landmarks
from priors.identity_anchor import save_anchor
from priors.landmark_embedding import load_embedding
from priors.landmark_topology import NUM_MESH_LANDMARKS
from priors.surface_anchor import (
    NORMAL_MM,
    SURFACE_ANCHOR_FILE,
    anchor_key,
    normal_features,
    normals_at_points,
    normals_in_image,
)

_IMAGE_PX = 512
_COMPONENTS = 120
_STEP = 0.05
_UNSEEN = np.full(3 * NUM_MESH_LANDMARKS, np.nan)


class _Look:
    """Read a network's normals off a photo."""

    def __init__(self, head: HeadModel, weights: Path) -> None:
        self._network = CommonsNetwork(head, weights)
        self._reference, self._normals = reference_landmarks(head), reference_normals(head)

    def __call__(self, image: np.ndarray, landmarks: Landmarks) -> np.ndarray:
        """Return the features (1404,), NaN where the network sees too little of the face."""
        crop = FaceCrop.around(landmarks.points_px, self._network.input_px)
        points_px = landmarks.points_px[:NUM_MESH_LANDMARKS]
        normals = normals_in_image(self._network.normals_at, crop.cut(image), crop.image_from_crop, points_px)
        if normals is None:
            return _UNSEEN
        return normal_features(self._reference, self._normals, landmarks.points_px, landmarks.depth_px, normals)


def reference_normals(head: HeadModel) -> np.ndarray:
    """Return the normals of the mean head at the landmarks (468, 3)."""
    return _normals(head, head.template.numpy().astype(np.float64))


def normal_map(head: HeadModel, basis: np.ndarray) -> np.ndarray:
    """Return how features of normals change with displacements (V, 3, B), by central differences (1404, B)."""
    template = head.template.numpy().astype(np.float64)
    columns = []
    for mode in basis.astype(np.float64).transpose(2, 0, 1):
        ahead, behind = (_normals(head, template + sign * _STEP * mode) for sign in (1, -1))
        columns.append(NORMAL_MM * (ahead - behind).ravel() / (2 * _STEP))
    return np.stack(columns, axis=1)


def _normals(head: HeadModel, verts: np.ndarray) -> np.ndarray:
    return normals_at_points(verts, head.faces.numpy(), load_embedding(head).points)[:NUM_MESH_LANDMARKS]


def _photograph(num_people: int, seed: int, weights: Path) -> Photos:
    """Photograph some people in a process of its own."""
    import torch

    torch.set_num_threads(1)
    head = load_head()
    photos = photograph_people(head, num_people, seed, image_px=_IMAGE_PX, look=_Look(head, weights))
    is_seen = np.isfinite(photos.features).all(axis=1)
    return Photos(photos.features[is_seen], photos.turns[is_seen], photos.people[is_seen], photos.identities[is_seen])


def photograph_in_parallel(num_people: int, weights: Path, jobs: int, seed: int = 21) -> Photos:
    """Photograph people in several processes; who they are depends on the number of processes."""
    share = -(-num_people // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_photograph, [share] * jobs, range(seed, seed + jobs), [weights] * jobs))
    return Photos(
        features=np.concatenate([part.features for part in parts]),
        turns=np.concatenate([part.turns for part in parts]),
        people=np.concatenate([part.people + share * index for index, part in enumerate(parts)]),
        identities=np.concatenate([part.identities for part in parts]),
    )


def main() -> int:
    """Learn the anchor of the shipped head and a network, store it, and report."""
    parser = argparse.ArgumentParser(description="Learn what landmarks and a network's normals tell about identity.")
    parser.add_argument("--people", type=int, default=1000, help="number of people (default: 1000)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FILE, help="the network (default: the shipped one)")
    parser.add_argument("--out", type=Path, default=SURFACE_ANCHOR_FILE, help="where to store what was learned")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes (default: 2)")
    options = parser.parse_args()
    head = load_head()
    photos = photograph_in_parallel(options.people, options.weights, options.jobs)
    basis = head.shape_basis.numpy()
    geometry = np.concatenate((geometric_map(head), normal_map(head, basis)))
    moved = with_partners(normal_map(head, head.expression_basis.numpy()), list(head.expression_names or ()))
    expressions = np.concatenate((expression_map(head), moved))
    reference, covariance = reference_landmarks(head), expected_covariance(head)
    anchor, explained = learn(photos, reference, geometry, covariance, expressions, _COMPONENTS)
    source = f"{options.people} random people of the head model, {len(photos.people)} renderings, MediaPipe 0.10.21"
    save_anchor(anchor, anchor_key(head, options.weights), f"{source}, network {options.weights.name}", options.out)
    sys.stdout.write(
        f"{options.out} ({options.out.stat().st_size / 1e3:.0f} kB)\n{source}\n"
        f"of unseen people's features, identity explains {explained:.0%} of the variance\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
