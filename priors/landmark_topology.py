"""The 478 MediaPipe face landmarks as a surface: triangles, left-right pairs, named groups, network outputs.

Everything is read from the installed MediaPipe package (connection lists and the graph that ships beside the network),
so that no table has to be kept here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from priors.tensor_graph import mediapipe_modules, quiet_native_logs

NUM_LANDMARKS = 478
NUM_MESH_LANDMARKS = 468
RIGHT_IRIS = (468, 469, 470, 471, 472)
LEFT_IRIS = (473, 474, 475, 476, 477)
"""Pupil centre, then the iris' border at the image's right, top, left and bottom."""

_FIRST_TRIANGLE: tuple[int, ...] = (127, 34, 139)


@dataclass(frozen=True)
class LandmarkTopology:
    """Describe how the landmarks hang together."""

    triangles: np.ndarray
    """Faces of the 468-point mesh, int32 (852, 3); eyes and mouth are holes; counter-clockwise seen from the front."""
    mirror: np.ndarray
    """Landmark at the reflection of each landmark, int64 (478,); an involution."""
    oval: np.ndarray
    """The face outline as a closed ring, int64 (36,)."""
    groups: dict[str, np.ndarray]
    """Sorted indices by name: oval, lips, left_eye, right_eye, left_brow, right_brow, nose, left_iris, right_iris."""


@dataclass(frozen=True)
class NetworkOutput:
    """Say which landmarks one output tensor of the attention network gives."""

    indices: np.ndarray
    """Landmark of each of the tensor's points, int64 (n,)."""
    depth_from: np.ndarray | None
    """Landmarks whose mean depth these points take where the tensor has no depth itself, int64; None: keep theirs."""
    values_per_point: int
    """3 where the tensor holds x, y, z; 2 where it holds x, y."""


@lru_cache(maxsize=1)
def landmark_topology() -> LandmarkTopology:
    """Return the topology of the landmarks (computed on first use)."""
    with quiet_native_logs():
        from mediapipe.python.solutions import face_mesh_connections as lists

    triangles = _oriented_triangles(lists.FACEMESH_TESSELATION)
    named = {
        "oval": lists.FACEMESH_FACE_OVAL,
        "lips": lists.FACEMESH_LIPS,
        "left_eye": lists.FACEMESH_LEFT_EYE,
        "right_eye": lists.FACEMESH_RIGHT_EYE,
        "left_brow": lists.FACEMESH_LEFT_EYEBROW,
        "right_brow": lists.FACEMESH_RIGHT_EYEBROW,
        "nose": lists.FACEMESH_NOSE,
    }
    groups = {name: np.unique(np.array(sorted(edges), dtype=np.int64)) for name, edges in named.items()}
    groups["left_iris"] = np.array(LEFT_IRIS)
    groups["right_iris"] = np.array(RIGHT_IRIS)
    return LandmarkTopology(triangles, _mirror_map(triangles), _ring(lists.FACEMESH_FACE_OVAL), groups)


def _oriented_triangles(edges: frozenset[tuple[int, int]]) -> np.ndarray:
    """Find the triangles of the mesh from its edges and turn them all the same way round."""
    neighbours: dict[int, set[int]] = {}
    for a, b in edges:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    apexes = {(a, b): neighbours[a] & neighbours[b] for a in neighbours for b in neighbours[a]}
    cliques = {tuple(sorted((a, b, c))) for (a, b), tips in apexes.items() for c in tips}
    # Three landmarks around one of valence three are joined in pairs without being a face of the mesh.
    faces = {face for face in cliques if not all(len(apexes[face[i], face[i - 1]]) > 2 for i in range(3))}
    # The first triangle of the package's own list sets the direction.
    oriented = [_FIRST_TRIANGLE]
    faces.remove(tuple(sorted(_FIRST_TRIANGLE)))
    waiting = [_FIRST_TRIANGLE[1::-1], _FIRST_TRIANGLE[:0:-1], _FIRST_TRIANGLE[::2]]
    while waiting:
        a, b = waiting.pop()
        for c in apexes[a, b]:
            face = tuple(sorted((a, b, c)))
            if face in faces:
                faces.remove(face)
                oriented.append((a, b, c))
                waiting += [(b, a), (c, b), (a, c)]
    return np.array(sorted(oriented), dtype=np.int32)


def _mirror_map(triangles: np.ndarray) -> np.ndarray:
    """Spread the known left-right pairs of the eyes over the mesh, each triangle voting for its tip's partner.

    A majority is needed because a few quadrilaterals are split along different diagonals on the two sides.
    """
    tips = {}
    for a, b, c in triangles.tolist():
        tips[a, b], tips[b, c], tips[c, a] = c, a, b
    left_eye, right_eye = (output.indices.tolist() for output in attention_network_outputs()[2:4])
    known = dict(zip(left_eye + right_eye, right_eye + left_eye, strict=True))
    partner: dict[int, int] = {}
    grown = dict(known)
    while grown != partner:
        partner = grown
        votes: dict[int, Counter[int]] = {}
        for (a, b), tip in tips.items():
            mirrored = tips.get((partner.get(b, -1), partner.get(a, -1)))
            if mirrored is not None:
                votes.setdefault(tip, Counter())[mirrored] += 1
        grown = {tip: counts.most_common(1)[0][0] for tip, counts in votes.items()} | known
    mirror = np.arange(NUM_LANDMARKS)
    mirror[list(partner)] = list(partner.values())
    right_iris, left_iris = np.array(RIGHT_IRIS), np.array(LEFT_IRIS)
    mirror[right_iris] = left_iris[[0, 3, 2, 1, 4]]
    mirror[left_iris] = right_iris[[0, 3, 2, 1, 4]]
    return mirror


def _ring(edges: frozenset[tuple[int, int]]) -> np.ndarray:
    """Order the landmarks of a closed contour."""
    following = dict(edges)
    ring = [10]
    while following[ring[-1]] != ring[0]:
        ring.append(following[ring[-1]])
    return np.array(ring, dtype=np.int64)


@lru_cache(maxsize=1)
def attention_network_outputs() -> tuple[NetworkOutput, ...]:
    """Read which landmark each number of the attention network is from the graph that ships beside it."""
    with quiet_native_logs():
        from google.protobuf import text_format
        from mediapipe.calculators.core import constant_side_packet_calculator_pb2 as _constants  # noqa: F401
        from mediapipe.calculators.util.landmarks_refinement_calculator_pb2 import (
            LandmarksRefinementCalculatorOptions,  # pyright: ignore[reportAttributeAccessIssue] - generated code
        )
        from mediapipe.python import solution_base as _registrations  # noqa: F401
        from mediapipe.python._framework_bindings import validated_graph_config

        graph = validated_graph_config.ValidatedGraphConfig()
        path = mediapipe_modules() / "face_landmark" / "face_landmark_front_cpu.binarypb"
        graph.initialize(binary_graph_path=str(path))
    node = graph.text_config.split('calculator: "LandmarksRefinementCalculator"', 1)[1]
    body = node.split("[mediapipe.LandmarksRefinementCalculatorOptions.ext] {", 1)[1]
    options = LandmarksRefinementCalculatorOptions()
    text_format.Parse(body[: _closing_brace(body)], options)
    outputs = []
    for position, refinement in enumerate(options.refinement):
        averaged = refinement.z_refinement.assign_average.indexes_for_average
        depth_from = np.array(averaged, dtype=np.int64) if len(averaged) else None
        indices = np.array(refinement.indexes_mapping, dtype=np.int64)
        outputs.append(NetworkOutput(indices, depth_from, 3 if position == 0 else 2))
    return tuple(outputs)


def _closing_brace(text: str) -> int:
    """Return the position of the brace that closes a block whose opening brace lies before ``text``."""
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return position
    return len(text)
