"""Learn from renderings what MediaPipe's landmarks tell about identity; see `priors.identity_anchor`.

People are drawn from the head model, photographed with random poses, expressions, cameras, lights and paints, and
looked at by the detector. Nothing but the model and the kept figures of a population is needed. Run
``python -m priors.anchor_calibration`` (some minutes) to learn anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from flame.camera import Intrinsics
from flame.commons.population import load_population
from flame.loading import load_head
from flame.model import HeadModel
from flame.shading import Lighting
from priors.evidence import FaceRegion
from priors.face_landmarker import FaceLandmarker, Landmarks
from priors.identity_anchor import ANCHOR_FILE, IdentityAnchor, landmark_features, pose_terms, save_anchor
from priors.landmark_embedding import MIN_RENDERED_LOGIT, load_embedding, look_at_face
from priors.landmark_topology import NUM_LANDMARKS, NUM_MESH_LANDMARKS
from priors.painted_head import PALETTES, PaintedHead

_IMAGE_PX = 320
_FACE_METRES = 0.24
_PHOTOS = 5
_COMPONENTS = 80
_TRUST_IN_GEOMETRY = 1000.0
"""So many photos of unit identities is it worth that landmarks move as their places on the surface do."""
_FOLDS = 4
_POPULATION_SHARE, _OTHER_SIGMA = 0.6, 0.35
"""Expected identities: so much of the population's covariance, and a standard deviation for every coefficient."""
_EXPRESSION_SIGMA, _SIDES_DIFFER = 0.2, 0.1
"""Real faces do more than the photographed ones: standard deviation of all expressions, beside what photos show, and
the share of its variance by which left and right differ."""
_COVERED_NOISE = 1e-3
"""How exactly the population's figures are met by coefficients, metres."""


Look = Callable[[np.ndarray, Landmarks], np.ndarray]
"""Returns features (m,) of a picture, uint8 (H, W, 3), and the landmarks in it."""


@dataclass(frozen=True)
class Photos:
    """Hold what the detector made of N photos."""

    features: np.ndarray
    """See ``landmark_features`` (N, 1404), millimetres, and what else is looked at (N, M)."""
    turns: np.ndarray
    """Yaw and pitch that the landmarks suggest (N, 2), radians."""
    people: np.ndarray
    """Who is seen, int64 (N,), from 0."""
    identities: np.ndarray
    """True identity of each photo's person (N, I)."""


def photograph_people(
    head: HeadModel, num_people: int, seed: int = 1, *, image_px: int = _IMAGE_PX, look: Look | None = None
) -> Photos:
    """Photograph random people, each several times, every other time neutral; ``look`` adds features of its own."""
    random = np.random.default_rng(seed)
    painted, landmarker = PaintedHead(head), FaceLandmarker()
    reference = reference_landmarks(head)
    rows = []
    for person in range(num_people):
        identity = random.uniform(0.5, 1.0) * random.normal(size=head.num_shape)
        fov, palette = random.uniform(30.0, 50.0), PALETTES[random.integers(len(PALETTES))]
        for number in range(_PHOTOS):
            verts = _vertices(head, identity, random, is_neutral=number % 2 == 0)
            yaw = random.uniform(-22.0, 22.0) if number < 2 else random.uniform(-42.0, 42.0)
            # The detector looks at a crop: a larger image would show nothing more.
            focal_px = Intrinsics.from_fov(fov, 512, 512).fx
            distance = focal_px * _FACE_METRES / (random.uniform(0.45, 0.65) * 512)
            verts_cam = look_at_face(verts, painted, yaw, random.uniform(-16.0, 16.0), distance)
            camera = Intrinsics(focal_px, focal_px, image_px / 2, image_px / 2, image_px, image_px)
            lighting = Lighting(key_direction=tuple(random.normal((0.0, 0.4, 0.8), 0.35)))
            image, _, _ = painted.render(verts_cam, camera, palette=palette, lighting=lighting)
            region = FaceRegion((image_px / 2, image_px / 2), 1.45 * _FACE_METRES * focal_px / distance, 0.0)
            for _ in range(2):
                landmarks = landmarker(image, region)
                region = landmarks.region
            if landmarks.logit >= MIN_RENDERED_LOGIT:
                features, turn = landmark_features(reference, landmarks.points_px, landmarks.depth_px)
                if look is not None:
                    features = np.concatenate((features, look(image, landmarks)))
                rows.append((features, turn, person, identity))
    features, turns, people, identities = (np.array(column) for column in zip(*rows, strict=True))
    return Photos(features, turns, people, identities)


def _vertices(head: HeadModel, identity: np.ndarray, random: np.random.Generator, *, is_neutral: bool) -> np.ndarray:
    """Return vertices (V, 3) of a person, neutral or with a random expression."""
    expression, jaw_rad = np.zeros(head.num_expression), 0.0
    if not is_neutral:
        chosen = random.choice(head.num_expression, size=min(4, head.num_expression), replace=False)
        expression[chosen] = random.uniform(0.0, 0.6, len(chosen))
        jaw_rad = max(0.0, random.normal(0.0, 0.1))
    with torch.no_grad():
        verts = head.vertices(
            shape=torch.as_tensor(identity, dtype=head.dtype),
            expression=torch.as_tensor(expression, dtype=head.dtype),
            jaw=torch.tensor((jaw_rad, 0.0, 0.0), dtype=head.dtype),
        )
    return verts.numpy().astype(np.float64)


def reference_landmarks(head: HeadModel) -> np.ndarray:
    """Return the landmarks' places on the mean head (468, 3), metres."""
    template, faces = head.template.numpy().astype(np.float64), head.faces.numpy()
    return load_embedding(head).points.on(template, faces)[:NUM_MESH_LANDMARKS]


def geometric_map(head: HeadModel) -> np.ndarray:
    """Return how features change with identity if landmarks stay where they lie on the surface (1404, I)."""
    return _feature_map(head, head.shape_basis.numpy())


def expression_map(head: HeadModel) -> np.ndarray:
    """Return how features change with independent unit expressions (1404, E): sides together, and against each other.

    Expressions are told apart by name: ``...Left`` and ``...Right`` go together.
    """
    return with_partners(_feature_map(head, head.expression_basis.numpy()), list(head.expression_names or ()))


def with_partners(columns: np.ndarray, names: list[str]) -> np.ndarray:
    """Return columns (M, E) for actions that go together or against each other, of columns for each by itself."""
    out = columns.copy()
    for index, name in enumerate(names):
        partner = name[: -len("Left")] + "Right"
        if name.endswith("Left") and partner in names:
            left, right = columns[:, index], columns[:, names.index(partner)]
            out[:, index] = np.sqrt(1 - _SIDES_DIFFER) * (left + right)
            out[:, names.index(partner)] = np.sqrt(_SIDES_DIFFER) * (left - right)
    return out


def _feature_map(head: HeadModel, basis: np.ndarray) -> np.ndarray:
    """Return how features change with displacements (V, 3, B) if landmarks stay where they lie on the surface."""
    reference = reference_landmarks(head)
    fields = basis.astype(np.float64).transpose(2, 0, 1)
    modes = load_embedding(head).points.on(fields, head.faces.numpy())[:, :NUM_MESH_LANDMARKS]
    columns = []
    for mode in modes:
        # The irises are no features.
        points = np.zeros((NUM_LANDMARKS, 3))
        points[:NUM_MESH_LANDMARKS] = (reference + mode) * (1.0, -1.0, -1.0)
        columns.append(landmark_features(reference, points[:, :2], points[:, 2])[0])
    return np.stack(columns, axis=1)


def expected_covariance(head: HeadModel) -> np.ndarray:
    """Return the covariance of identities (I, I) that a population of faces suggests, given the mean head's size."""
    population = load_population()
    template = head.template.numpy().astype(np.float64)[population.members]
    growth = (template - template.mean(axis=0)).ravel()
    growth /= np.linalg.norm(growth)
    basis = head.shape_basis.numpy().astype(np.float64)[population.members].reshape(-1, head.num_shape)
    variations = np.concatenate((population.symmetric, population.antisymmetric))
    variations = variations.reshape(len(variations), -1).T
    # No camera sees size, and few modes tell it: it would take large coefficients to follow the population there.
    basis, variations = (fields - np.outer(growth, growth @ fields) for fields in (basis, variations))
    system = basis.T @ basis + _COVERED_NOISE**2 * len(population.members) / 10 * np.eye(head.num_shape)
    factor = np.linalg.solve(system, basis.T @ variations)
    covariance = _POPULATION_SHARE * factor @ factor.T + _OTHER_SIGMA**2 * np.eye(head.num_shape)
    return _given_size(covariance, size_gradient(head))


def size_gradient(head: HeadModel) -> np.ndarray:
    """Return how the landmarks' size grows with identity (I,); as ``SurfaceRig.observable_shape_directions`` has it."""
    places = load_embedding(head).points
    points = places.on(head.template.numpy().astype(np.float64), head.faces.numpy())
    moves = places.on(head.shape_basis.numpy().astype(np.float64).transpose(2, 0, 1), head.faces.numpy())
    return np.einsum("nc,inc->i", points - points.mean(axis=0), moves)


def _given_size(covariance: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return the covariance (I, I) of those identities that are as large as the mean head."""
    with_size = covariance @ gradient
    return covariance - np.outer(with_size, with_size) / (gradient @ with_size)


def learn(
    photos: Photos,
    reference: np.ndarray,
    geometry: np.ndarray,
    covariance: np.ndarray,
    expressions: np.ndarray,
    num_components: int = _COMPONENTS,
) -> tuple[IdentityAnchor, float]:
    """Learn the anchor from photos.

    Args:
        photos: What the detector made of people whose identity is known.
        reference: The landmarks on the mean head (468, 3), metres.
        geometry: See ``geometric_map`` (1404, I), millimetres; with a damping of its own for each component it is what
            the learned map is drawn towards.
        covariance: Covariance of the identities to expect (I, I).
        expressions: See ``expression_map`` (1404, E), millimetres.
        num_components: Directions in which features are looked at.

    Returns:
        The anchor, and the share of the components' variance that identities of unseen people explain.
    """
    terms = pose_terms(photos.turns)
    pose_effect = np.linalg.lstsq(terms, photos.features, rcond=None)[0]
    rest = photos.features - terms @ pose_effect
    # The leading eigenvectors of the smaller of the two product matrices.
    components = np.linalg.svd(rest[:: max(1, len(rest) // 1500)], full_matrices=False)[2][:num_components]
    seen, expected = rest @ components.T, photos.identities @ (components @ geometry).T
    damping = (expected * seen).sum(axis=0) / (expected**2).sum(axis=0)
    start = damping[:, None] * (components @ geometry)
    unexplained = np.empty_like(seen)
    fold = photos.people % _FOLDS
    for left_out in range(_FOLDS):
        others, mine = fold != left_out, fold == left_out
        forward = _forward(photos.identities[others], seen[others], start)
        unexplained[mine] = seen[mine] - photos.identities[mine] @ forward.T
    person_noise, frame_noise = _split_noise(unexplained, photos.people)
    moved = _EXPRESSION_SIGMA * components @ expressions
    frame_noise += moved @ moved.T
    forward = _forward(photos.identities, seen, start)
    cross = covariance @ forward.T
    anchor = IdentityAnchor(reference, pose_effect, components, cross, forward @ cross, person_noise, frame_noise)
    return anchor, float(1.0 - (unexplained**2).sum() / (seen**2).sum())


def _forward(identities: np.ndarray, seen: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the ridge regression (K, I) of components (N, K) on identities (N, I), drawn towards ``start``."""
    system = identities.T @ identities + _TRUST_IN_GEOMETRY * np.eye(identities.shape[1])
    return start + np.linalg.solve(system, identities.T @ (seen - identities @ start.T)).T


def _split_noise(unexplained: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split residuals (N, K) into the covariances (K, K) of what a person's photos share and of what they do not."""
    names, who, counts = np.unique(people, return_inverse=True, return_counts=True)
    means = np.zeros((len(names), unexplained.shape[1]))
    np.add.at(means, who, unexplained)
    means /= counts[:, None]
    own = unexplained - means[who]
    frame_noise = own.T @ own / max(1, len(unexplained) - len(names))
    shared = means.T @ means / len(names) - frame_noise * np.mean(1.0 / counts)
    values, vectors = np.linalg.eigh(shared)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T, frame_noise


def main() -> int:
    """Learn the anchor of the shipped head, store it, and report."""
    parser = argparse.ArgumentParser(description="Learn what landmarks tell about identity, from rendered heads.")
    parser.add_argument("--people", type=int, default=1000, help="number of people (default: 1000)")
    options = parser.parse_args()
    head = load_head()
    photos = photograph_people(head, options.people)
    reference, expressions = reference_landmarks(head), expression_map(head)
    anchor, explained = learn(photos, reference, geometric_map(head), expected_covariance(head), expressions)
    source = f"{options.people} random people of the head model, {len(photos.people)} renderings, MediaPipe 0.10.21"
    save_anchor(anchor, head.content_hash, source)
    sys.stdout.write(
        f"{ANCHOR_FILE} ({ANCHOR_FILE.stat().st_size / 1e3:.0f} kB)\n{source}\n"
        f"of unseen people's landmarks, identity explains {explained:.0%} of the variance; the rest is "
        f"{np.sqrt(np.trace(anchor.person_noise)):.1f} mm shared by a person's photos and "
        f"{np.sqrt(np.trace(anchor.frame_noise)):.1f} mm not shared (root of the summed variances)\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
