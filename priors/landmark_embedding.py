"""Find where MediaPipe's 478 face landmarks lie on the surface of any head model.

The head is painted and rendered from several sides with several identities, the landmark network looks at the pictures,
and each landmark's pixel is traced back to the surface. The robust median over all pictures, made symmetric, is the
embedding. Irises are set by construction: on the eyeballs, round the axis of gaze, so that they turn with the joints.

Run ``python -m priors.landmark_embedding --head commons`` to make the embedding of a head anew.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

import flame
from flame.camera import Intrinsics
from flame.closest_point import ClosestPoint
from flame.errors import InputError, UserError
from flame.landmarks import LandmarkEmbedding, embedding_path, read_embedding, write_embedding
from flame.loading import load_head
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from flame.shading import Lighting
from flame.surface import SurfacePoints
from priors.evidence import FaceRegion
from priors.face_landmarker import FaceLandmarker
from priors.landmark_topology import LEFT_IRIS, NUM_LANDMARKS, NUM_MESH_LANDMARKS, RIGHT_IRIS, landmark_topology
from priors.painted_head import IRIS_RADIUS_M, PALETTES, PaintedHead

_LOG = logging.getLogger(__name__)
_CAM_FROM_HEAD_AXES = np.diag((1.0, -1.0, -1.0))
_LIGHTINGS = (Lighting(), Lighting(key_direction=(0.55, 0.35, 0.75)), Lighting(key_direction=(0.05, 0.75, 0.65)))
_NUM_IDENTITIES = 6
_IDENTITY_SPREAD = 0.7
_IMAGE_PX = 640
_MIDDLE_STEPS = 20
_FOV_DEGREES = 20.0
_DISTANCE_M = 0.85
MIN_RENDERED_LOGIT = 5.0
"""Least score of the landmark network on a rendered head; below, the picture is left out."""
_MAX_OVAL_YAW_DEGREES = 12.0
"""The detector's face outline slides over the head as it turns; only near-frontal views say where it lies."""


@dataclass(frozen=True)
class _View:
    yaw_degrees: float
    pitch_degrees: float
    jaw_rad: float
    identity: int


def embed_landmarks(head: HeadModel) -> LandmarkEmbedding:
    """Compute the embedding of a head (some seconds); the same head gives the same result.

    Raises:
        InputError: the detector does not take the rendered head for a face.
    """
    painted = PaintedHead(head)
    landmarker = FaceLandmarker()
    identities = _identities(head)
    samples: list[tuple[np.ndarray, float]] = []
    for view in _views(has_jaw=head.has_jaw):
        places = _look(painted, landmarker, head, identities[view.identity], view)
        if places is not None:
            samples.append((places, view.yaw_degrees))
    if len(samples) < 10:
        raise InputError(
            f"no landmarks found on head {head.name!r}: the detector takes {len(samples)} of its pictures for a face; "
            "is it a head in metres with +y up and +z out of the face?"
        )
    points, spread = _consensus(painted, head, samples)
    return LandmarkEmbedding(points, spread, head.content_hash)


def _views(*, has_jaw: bool) -> list[_View]:
    jaws = (0.0, 0.0, 0.16) if has_jaw else (0.0,)
    angles = itertools.product(range(_NUM_IDENTITIES), (-30.0, -18.0, -6.0, 6.0, 18.0, 30.0), (-12.0, 0.0, 12.0))
    return [_View(yaw, pitch, jaws[index % len(jaws)], who) for index, (who, yaw, pitch) in enumerate(angles)]


def _identities(head: HeadModel) -> np.ndarray:
    """Return shape coefficients (identities, <= 60), the first zero."""
    count = min(60, head.num_shape)
    coefficients = np.random.default_rng(20).normal(0.0, _IDENTITY_SPREAD, (_NUM_IDENTITIES, count))
    coefficients[0] = 0.0
    return coefficients


def _look(
    painted: PaintedHead, landmarker: FaceLandmarker, head: HeadModel, shape: np.ndarray, view: _View
) -> np.ndarray | None:
    """Return the places on the template (478, 3) that the landmarks of one picture fall on; None where unseen."""
    verts = pose_vertices(head, shape, jaw_rad=view.jaw_rad)
    intrinsics = Intrinsics.from_fov(_FOV_DEGREES, _IMAGE_PX, _IMAGE_PX)
    verts_cam = look_at_face(verts, painted, view.yaw_degrees, view.pitch_degrees, _DISTANCE_M)
    image, fragments, places = painted.render(
        verts_cam,
        intrinsics,
        palette=PALETTES[view.identity % len(PALETTES)],
        lighting=_LIGHTINGS[view.identity % len(_LIGHTINGS)],
    )
    region = FaceRegion((_IMAGE_PX / 2, _IMAGE_PX / 2), 0.7 * _IMAGE_PX, 0.0)
    for _ in range(3):
        landmarks = landmarker(image, region)
        region = landmarks.region
    if landmarks.logit < MIN_RENDERED_LOGIT:
        return None
    hidden = painted.is_eyeball | painted.is_mouth_inside
    usable = fragments.mask & ~hidden[painted.faces].any(axis=1)[fragments.triangle]
    columns, rows = np.clip(np.floor(landmarks.points_px).astype(np.int64), 0, _IMAGE_PX - 1).T
    return places[_nearest(usable, rows, columns)]


def _nearest(usable: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the pixels of a mask, bool (height, width), that lie nearest to given ones."""
    labels = cv2.distanceTransformWithLabels(
        (~usable).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    in_mask = np.nonzero(usable)
    places = np.zeros((2, int(labels.max()) + 1), dtype=np.int64)
    places[:, labels[in_mask]] = in_mask
    row, column = places[:, labels[rows, columns]]
    return row, column


def pose_vertices(
    head: HeadModel, shape: np.ndarray, *, jaw_rad: float = 0.0, expression: np.ndarray | None = None
) -> np.ndarray:
    """Return vertices (V, 3), metres, of a head with a shape, an open jaw and an expression."""
    to_tensor = {"dtype": head.dtype, "device": head.device}
    with torch.no_grad():
        posed = head.vertices(
            shape=torch.as_tensor(shape, **to_tensor),
            expression=None if expression is None else torch.as_tensor(expression, **to_tensor),
            jaw=torch.tensor((jaw_rad, 0.0, 0.0), **to_tensor),
        )
    return posed.cpu().numpy().astype(np.float64)


def look_at_face(
    verts: np.ndarray, painted: PaintedHead, yaw_degrees: float, pitch_degrees: float, distance_m: float
) -> np.ndarray:
    """Turn a head (positive yaw: to its left; positive pitch: down) and put its face before a camera."""
    center = painted.eye_centers.mean(axis=0) + (0.0, -0.03, 0.0)
    angles = torch.tensor(((0.0, np.radians(yaw_degrees), 0.0), (np.radians(pitch_degrees), 0.0, 0.0)))
    yaw, pitch = matrix_from_axis_angle(angles.double()).numpy()
    return (verts - center) @ (_CAM_FROM_HEAD_AXES @ yaw @ pitch).T + (0.0, 0.0, distance_m)


def _consensus(
    painted: PaintedHead, head: HeadModel, samples: list[tuple[np.ndarray, float]]
) -> tuple[SurfacePoints, np.ndarray]:
    """Reduce the samples to one symmetric place per landmark, and say how far they scatter."""
    topology = landmark_topology()
    mirror = topology.mirror[:NUM_MESH_LANDMARKS]
    places = np.stack([places[:NUM_MESH_LANDMARKS] for places, _ in samples])
    reflected = places[:, mirror] * (-1.0, 1.0, 1.0)
    both = np.concatenate((places, reflected))
    yaw = np.tile([abs(yaw) for _, yaw in samples], 2)
    frontal = np.isin(np.arange(NUM_MESH_LANDMARKS), topology.oval)
    usable = (yaw[:, None] <= _MAX_OVAL_YAW_DEGREES) | ~frontal
    masked = np.where(usable[..., None], both, np.nan)
    middle = np.nanmedian(masked, axis=0)
    spread = np.nanmedian(np.linalg.norm(masked - middle, axis=-1), axis=0)
    hidden = painted.is_eyeball | painted.is_mouth_inside
    allowed = np.flatnonzero(~hidden[painted.faces].any(axis=1))
    closest = ClosestPoint(painted.template, painted.faces, allowed)
    middle[mirror == np.arange(NUM_MESH_LANDMARKS), 0] = 0.0
    mesh = closest(middle).surface
    mesh = _symmetric(mesh, mirror, closest, head)
    left = _iris_points(painted, 0)
    right = _iris_points(painted, 1)
    triangles, barycentric = np.empty(NUM_LANDMARKS, np.int64), np.empty((NUM_LANDMARKS, 3))
    mesh_indices = np.arange(NUM_MESH_LANDMARKS)
    for indices, part in ((mesh_indices, mesh), (np.array(LEFT_IRIS), left), (np.array(RIGHT_IRIS), right)):
        triangles[indices], barycentric[indices] = part.triangles, part.barycentric
    padded = np.zeros(NUM_LANDMARKS)
    padded[:NUM_MESH_LANDMARKS] = spread
    return SurfacePoints(triangles, barycentric), padded


def _symmetric(points: SurfacePoints, mirror: np.ndarray, closest: ClosestPoint, head: HeadModel) -> SurfacePoints:
    """Give the subject's left landmarks the reflected places of the right ones."""
    template, faces = closest.vertices, closest.faces
    in_middle = np.flatnonzero(mirror == np.arange(len(mirror)))
    place = points.on(template, faces)
    for _ in range(_MIDDLE_STEPS):
        # Going back and forth between surface and plane of symmetry ends where they meet.
        moved = closest(place[in_middle] * (0.0, 1.0, 1.0)).surface
        points.triangles[in_middle], points.barycentric[in_middle] = moved.triangles, moved.barycentric
        place = points.on(template, faces)
    partner = np.arange(len(mirror))
    left = place[:, 0] > place[mirror, 0]
    triangles, barycentric = points.triangles.copy(), points.barycentric.copy()
    vertex_mirror = head.topology.mirror if head.topology is not None else None
    if vertex_mirror is None:
        moved = closest(place[mirror] * (-1.0, 1.0, 1.0)).surface
        triangles[left], barycentric[left] = moved.triangles[left], moved.barycentric[left]
        return SurfacePoints(triangles, barycentric)
    by_corners = {tuple(sorted(face)): index for index, face in enumerate(faces.tolist())}
    for landmark in partner[left]:
        other = mirror[landmark]
        corners = vertex_mirror[faces[points.triangles[other]]]
        face = by_corners.get(tuple(sorted(corners.tolist())))
        if face is None:
            moved = closest(place[[other]] * (-1.0, 1.0, 1.0)).surface
            triangles[landmark], barycentric[landmark] = moved.triangles[0], moved.barycentric[0]
            continue
        order = [corners.tolist().index(vertex) for vertex in faces[face].tolist()]
        triangles[landmark], barycentric[landmark] = face, points.barycentric[other][order]
    return SurfacePoints(triangles, barycentric)


def _iris_points(painted: PaintedHead, eye: int) -> SurfacePoints:
    """Place pupil centre and iris border (subject's left, top, right, bottom) on an eyeball looking straight ahead."""
    center = painted.eye_centers[eye]
    side = np.sign(painted.template[:, 0]) == np.sign(center[0])
    mine = painted.is_eyeball & side
    triangles = np.flatnonzero(mine[painted.faces].all(axis=1))
    radius = np.median(np.linalg.norm(painted.template[mine] - center, axis=1))
    sine = IRIS_RADIUS_M / radius
    cosine = np.sqrt(1.0 - sine**2)
    directions = np.array(
        ((0.0, 0.0, 1.0), (sine, 0.0, cosine), (0.0, sine, cosine), (-sine, 0.0, cosine), (0.0, -sine, cosine))
    )
    return ClosestPoint(painted.template, painted.faces, triangles)(center + radius * directions).surface


def load_embedding(head: HeadModel) -> LandmarkEmbedding:
    """Return the embedding of a head: the stored one where there is one, else computed and stored for the next time.

    Stored embeddings lie in the package (for the shipped head), beside the head's file, or in the user's cache folder.
    """
    for path in _cache_paths(head):
        stored = read_embedding(path)
        if stored is not None and stored.head_hash == head.content_hash:
            return stored
    _LOG.info("placing the landmarks on head %r (once, some seconds)", head.name)
    embedding = embed_landmarks(head)
    for path in _cache_paths(head)[1:]:
        try:
            write_embedding(path, embedding)
            break
        except OSError:
            continue
    return embedding


def _cache_paths(head: HeadModel) -> list[Path]:
    """Return where an embedding may lie: in the package, beside the head's file, in the user's cache folder."""
    paths = [shipped_path()]
    file = Path(head.source)
    if file.suffix in {".pkl", ".npz"} and file.is_file():
        paths.append(embedding_path(file))
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    paths.append(Path(home) / "pixel3dmm-tracker" / f"mediapipe_landmarks_{head.content_hash[:16]}.npz")
    return paths


def shipped_path() -> Path:
    """Return the file with the embedding of the shipped head."""
    return embedding_path(Path(flame.__file__).parent / "assets" / "commons.npz")


def main() -> int:
    """Make the embedding of a head anew, store it, and report how far pictures scatter."""
    parser = argparse.ArgumentParser(description="Place MediaPipe's 478 landmarks on a head model.")
    parser.add_argument("--head", default="commons", help="commons, or a FLAME .pkl or .npz file")
    parser.add_argument("--output", type=Path, help="file to write (default: where the program looks for it)")
    options = parser.parse_args()
    try:
        head = load_head(options.head)
        embedding = embed_landmarks(head)
        path = options.output or (shipped_path() if options.head == "commons" else _cache_paths(head)[1])
        write_embedding(path, embedding)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{path}\n{_report(embedding)}\n")
    return 0


def _report(embedding: LandmarkEmbedding) -> str:
    """Describe the scatter of each group of landmarks in one line each."""
    lines = []
    groups = {name: indices for name, indices in landmark_topology().groups.items() if "iris" not in name}
    for name, indices in {"all": np.arange(NUM_MESH_LANDMARKS), **groups}.items():
        spread_mm = 1000 * embedding.spread_m[indices]
        lines.append(f"{name:10s} scatter {np.median(spread_mm):.1f} mm (median), {spread_mm.max():.1f} mm (largest)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
