"""Lay one head's surface on another's: identity fit, then a smooth deformation, then closest points of like facing.

Heads of one mesh need none of this: their vertices correspond by number. Otherwise the head whose regions are known
is laid on the other: its identity coefficients bring it near, a deformation as smooth as the gap allows closes the
rest, and each of its vertices that is seen from outside is paired with the point that it then lies on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import factorized

from flame.camera import Intrinsics
from flame.closest_point import Closest, ClosestPoint
from flame.commons.fitting import FitOptions, LinearHead, find_start, fit_scan
from flame.commons.mesh import averaging_matrix, boundary_vertices, vertex_normals
from flame.errors import InputError
from flame.model import HeadModel
from flame.rasterizer import rasterize
from flame.rotation import matrix_from_axis_angle
from flame.surface import SurfacePoints
from flame.surface_error import Similarity, similarity_of

_MODES = 120
_STAGES, _ROUNDS = (30.0, 10.0, 5.0, 3.0), 3
_MAX_SCALE = 1.3
_MAX_GAP_M, _MAX_MEDIAN_M = 0.008, 0.003
"""Vertices farther from the other head have no partner; heads whose median vertex is farther are too different."""
_MIN_SHARE = 0.5
_MAX_EYES_M = 0.012
"""Eyeballs' centres that are farther apart show that something else than a face has been matched."""
_STIFFNESS = (300.0, 30.0, 3.0, 0.3)
"""Weight of smoothness in the rounds of the deformation."""
_MIN_COSINE = 0.5
_LIKELY_GAP_M = 0.002
_REGION_WEIGHTS = {"neck": 0.4, "scalp": 0.2, "ears": 0.3, "face": 1.0, "lips": 2.0, "eyelids": 2.0}
"""What a pair counts by where it lies; the last region that a vertex is in decides."""
_HIDDEN = ("eyes", "eye_sockets", "inner_mouth", "tongue")
_HIDDEN_WEIGHT = 0.05
_PLAIN_WEIGHT = 0.3
"""What a pair away from the face counts on heads without regions."""
_EYES = (3, 4)
_VIEWS_DEGREES = ((0, 0), (40, 0), (-40, 0), (85, 0), (-85, 0), (180, 0), (0, 30), (0, -30), (40, -30), (-40, -30))
_VIEW_PX, _VIEW_FOV, _VIEW_DISTANCE_M = 768, 20.0, 1.1
_TO_CAMERA = np.diag((1.0, -1.0, -1.0))


@dataclass(frozen=True, eq=False)
class PairedPoints:
    """Hold paired points of two heads; fields as in ``flame.correspondence.SurfaceCorrespondence``."""

    source: SurfacePoints
    target: SurfacePoints
    weight: np.ndarray
    is_face: np.ndarray
    gap_m: float


@dataclass(frozen=True, eq=False)
class Skin:
    """Say what of a head's surface is skin that is seen from outside."""

    template: np.ndarray
    """Vertices at rest, float64 (V, 3), metres."""
    faces: np.ndarray
    """Triangles, int64 (F, 3)."""
    weight: np.ndarray
    """What a vertex counts, float64 (V,); 0 where it is hidden or no skin."""
    is_face: np.ndarray
    """Which vertices are the face's, bool (V,)."""
    detail: int
    """How many of the regions that matter are known."""

    @staticmethod
    def of(head: HeadModel) -> Skin:
        """Select by the head's regions, or by the places of its eyes where it has none."""
        template = head.template.detach().cpu().numpy().astype(np.float64)
        faces = head.faces.detach().cpu().numpy().astype(np.int64)
        regions = head.topology.regions if head.topology is not None else {}
        is_open = _seen(template, faces) & ~_are_eyeballs(head)
        if "face" not in regions:
            is_face = is_open & _face_by_eyes(template, head)
            return Skin(template, faces, np.where(is_face, 1.0, _PLAIN_WEIGHT) * is_open, is_face, 0)
        weight = np.zeros(len(template))
        for name, value in _REGION_WEIGHTS.items():
            weight[regions.get(name, np.zeros(len(template), bool))] = value
        for name in _HIDDEN:
            if name in regions:
                weight[regions[name] & ~regions["face"]] = 0.0
        names = [name for name in ("face", "lips", "eyelids") if name in regions]
        is_face = np.logical_or.reduce([regions[name] for name in names])
        return Skin(template, faces, weight * is_open, is_face & is_open & (weight > 0), len(names))

    @property
    def triangles(self) -> np.ndarray:
        """Return the triangles between skin vertices, int64 (N,)."""
        return np.flatnonzero((self.weight > 0)[self.faces].all(axis=1))


def pair_surfaces(source: HeadModel, target: HeadModel) -> PairedPoints:
    """Pair the points of two heads; see ``flame.correspondence.find_correspondence``.

    Raises:
        InputError: the heads are too different, or not of one scale.
    """
    first, second = Skin.of(source), Skin.of(target)
    _check_sizes((source, first), (target, second))
    if first.faces.shape == second.faces.shape and np.array_equal(first.faces, second.faces):
        return _same_mesh(*((source, first) if first.detail >= second.detail else (target, second)))
    if first.detail >= second.detail:
        return _laid_on(source, first, target, second)
    paired = _laid_on(target, second, source, first)
    return replace(paired, source=paired.target, target=paired.source)


def _check_sizes(*heads: tuple[HeadModel, Skin]) -> None:
    """Refuse heads in other units of length: eyes are 6 cm apart."""
    for head, skin in heads:
        left, right = _eye_centres(head, skin.template)
        apart = float(np.linalg.norm(left - right))
        if not 0.04 < apart < 0.09:
            raise InputError(
                f"the eyes of head {head.name!r} are {apart:.3f} m apart, 0.04 to 0.09 are allowed; give it in metres"
            )


def _same_mesh(head: HeadModel, skin: Skin) -> PairedPoints:
    """Pair the vertices of one mesh with themselves; what is hidden, such as the tongue, counts a little, too."""
    weight = np.maximum(skin.weight, _HIDDEN_WEIGHT)
    chosen = _in_spread_order(skin.template, weight, np.flatnonzero(~_are_eyeballs(head)))
    points = _at_vertices(skin.faces, len(skin.template), chosen)
    return PairedPoints(points, points, weight[chosen], skin.is_face[chosen], 0.0)


def _fitted(head: HeadModel, skin: Skin, other: HeadModel, other_skin: Skin) -> tuple[np.ndarray, Similarity]:
    """Return a head's vertices (V, 3) with the identity that is nearest to another head, and what moves that to it.

    Raises:
        InputError: the heads are too different, or not of one scale.
    """
    modes = np.moveaxis(head.shape_basis.detach().cpu().numpy().astype(np.float64)[..., :_MODES], -1, 0)
    linear = LinearHead(skin.template, modes, skin.faces, skin.weight > 0)
    scan, scan_faces = _part(other_skin)
    options = FitOptions(free_scale=True, stages=_STAGES, rounds=_ROUNDS)
    try:
        fit = fit_scan(linear, scan, scan_faces, find_start(linear, scan), options)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise InputError(f"head {head.name!r} finds no hold on head {other.name!r}; they are too different") from error
    moved = similarity_of(scan, fit.scan)
    fitted = linear.vertices(fit.coefficients)
    away_m = np.linalg.norm(_eye_centres(head, fitted) - moved(_eye_centres(other, other_skin.template)), axis=1).max()
    if away_m > _MAX_EYES_M:
        raise InputError(
            f"head {other.name!r} was laid on head {head.name!r} with its eyes {1e3 * away_m:.0f} mm off; they are too "
            "different, or one has not +y up and +z out of the face"
        )
    if not 1 / _MAX_SCALE < moved.scale < _MAX_SCALE:
        raise InputError(
            f"head {other.name!r} has {1 / moved.scale:.2f} times the size of head {head.name!r}, "
            f"{1 / _MAX_SCALE:.2f} to {_MAX_SCALE:.2f} are allowed; heads are in metres"
        )
    return fitted, moved


def _laid_on(head: HeadModel, skin: Skin, other: HeadModel, other_skin: Skin) -> PairedPoints:
    """Pair a head's vertices with points of another head that it is laid on."""
    fitted, moved = _fitted(head, skin, other, other_skin)
    closest = ClosestPoint(moved(other_skin.template), other_skin.faces, other_skin.triangles)
    gap_m = float(np.median(closest(fitted[skin.is_face]).distance))
    laid = _deformed(fitted, skin, closest)
    match, fits = _matched(laid, skin, closest)
    share = float(fits[skin.is_face].mean())
    if not (gap_m <= _MAX_MEDIAN_M and share >= _MIN_SHARE):
        raise InputError(
            f"head {head.name!r} and head {other.name!r} lie {1e3 * gap_m:.1f} mm apart after fitting and agree on "
            f"{100 * share:.0f} % of the face; they are too different, or one has not +y up and +z out of the face"
        )
    chosen = _in_spread_order(skin.template, skin.weight, np.flatnonzero(fits))
    certainty = np.exp(-0.5 * (match.distance[chosen] / _LIKELY_GAP_M) ** 2)
    return PairedPoints(
        _at_vertices(skin.faces, len(skin.template), chosen),
        match.surface.take(chosen),
        skin.weight[chosen] * certainty,
        skin.is_face[chosen],
        gap_m,
    )


def _deformed(vertices: np.ndarray, skin: Skin, closest: ClosestPoint) -> np.ndarray:
    """Return vertices (V, 3) moved onto the other surface by a displacement that is smooth over the mesh."""
    count = len(vertices)
    rough = sparse.eye(count, format="csr") - averaging_matrix(skin.faces, count)
    bending = (rough.T @ rough).tocsc()
    moved = vertices
    for stiffness in _STIFFNESS:
        match, fits = _matched(moved, skin, closest)
        held = sparse.diags(fits.astype(np.float64) + 1e-6)
        solve = factorized((held + stiffness * bending).tocsc())
        pull = np.where(fits[:, None], match.point - vertices, 0.0)
        moved = vertices + np.column_stack([solve(np.ascontiguousarray(column)) for column in pull.T])
    return moved


def _matched(vertices: np.ndarray, skin: Skin, closest: ClosestPoint) -> tuple[Closest, np.ndarray]:
    """Return the closest points of vertices (V, 3), and which of them face the same way and are near, bool (V,)."""
    match = closest(vertices)
    corners = closest.vertices[closest.faces[match.triangle]]
    planes = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    planes /= np.maximum(np.linalg.norm(planes, axis=1, keepdims=True), 1e-20)
    cosine = (planes * vertex_normals(vertices, skin.faces)).sum(axis=1)
    return match, (skin.weight > 0) & (cosine > _MIN_COSINE) & (match.distance < _MAX_GAP_M) & ~_at_rim(match, closest)


def _at_rim(match: Closest, closest: ClosestPoint) -> np.ndarray:
    """Return which matches lie on the border of the mesh, where the surface just ends, bool (N,)."""
    is_border = np.zeros(len(closest.vertices), bool)
    is_border[boundary_vertices(closest.faces)] = True
    on_border = np.where(is_border[closest.faces[match.triangle]], match.barycentric, 0.0).sum(axis=1)
    return on_border > 0.999


def _part(skin: Skin) -> tuple[np.ndarray, np.ndarray]:
    """Return the skin's vertices (N, 3) and the triangles between them (M, 3)."""
    kept = np.unique(skin.faces[skin.triangles])
    index = np.full(len(skin.template), -1)
    index[kept] = np.arange(len(kept))
    return skin.template[kept], index[skin.faces[skin.triangles]]


def _at_vertices(faces: np.ndarray, num_vertices: int, vertices: np.ndarray) -> SurfacePoints:
    """Return surface points at vertices."""
    corner = np.zeros(num_vertices, np.int64)
    corner[faces.ravel()] = np.arange(faces.size)
    return SurfacePoints(corner[vertices] // 3, np.eye(3)[corner[vertices] % 3])


def _in_spread_order(template: np.ndarray, weight: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Order vertices so that the first ones are spread evenly, denser where a vertex counts more: farthest first."""
    points, importance = template[chosen], np.sqrt(weight[chosen])
    distance = np.full(len(chosen), np.inf)
    order = np.empty(len(chosen), np.int64)
    pick = int(np.argmax(points[:, 2]))
    for rank in range(len(chosen)):
        order[rank] = pick
        distance = np.minimum(distance, np.linalg.norm(points - points[pick], axis=1))
        distance[pick] = -1.0
        pick = int(np.argmax(distance * importance))
    return chosen[order]


def _seen(template: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return which vertices are seen from outside, from any of a few sides, bool (V,)."""
    seen = np.zeros(len(template), bool)
    middle = 0.5 * (template.min(axis=0) + template.max(axis=0))
    camera = Intrinsics.from_fov(_VIEW_FOV, _VIEW_PX, _VIEW_PX)
    for yaw, pitch in np.radians(_VIEWS_DEGREES):
        turn = matrix_from_axis_angle(np.array((pitch, 0.0, 0.0))) @ matrix_from_axis_angle(np.array((0.0, yaw, 0.0)))
        verts_cam = (template - middle) @ (_TO_CAMERA @ turn).T + (0.0, 0.0, _VIEW_DISTANCE_M)
        fragments = rasterize(verts_cam, faces, camera)
        seen[faces[np.unique(fragments.triangle[fragments.mask])]] = True
    return seen


def _face_by_eyes(template: np.ndarray, head: HeadModel) -> np.ndarray:
    """Return which vertices are about where a face is, judged by the eyeballs' centres, bool (V,)."""
    left, right = _eye_centres(head, template)
    unit = np.linalg.norm(left - right)
    x, y, z = ((template - 0.5 * (left + right)) / unit).T
    return (np.abs(x) < 1.15) & (y > -1.9) & (y < 0.8) & (z > -0.35)


def _eye_centres(head: HeadModel, vertices: np.ndarray) -> np.ndarray:
    """Return where the eyeballs' centres are (2, 3) on vertices at rest (V, 3)."""
    return (head.joint_regressor.detach().cpu().numpy().astype(np.float64) @ vertices)[list(_EYES)]


def _are_eyeballs(head: HeadModel) -> np.ndarray:
    """Return which vertices turn with the eyes, bool (V,)."""
    return head.skin_weights.detach().cpu().numpy()[:, _EYES].sum(axis=1) > 0.5
