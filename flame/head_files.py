"""Read head files into plain arrays, without torch: what a program needs that shall be there at once.

``flame.loading`` makes a ``HeadModel`` of them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from flame.errors import AssetMissingError, InputError, UserError
from flame.obj_layout import TEMPLATE_OBJ, read_obj_layout
from flame.safe_pickle import UnreadValue, read_pickle, read_pickle_bytes
from flame.topology import Topology, mirror_from_template

NUM_JOINTS = 5
NUM_POSE_FEATURES = 9 * (NUM_JOINTS - 1)
FLAME_NUM_SHAPE = 300
"""Identity columns of FLAME's ``shapedirs``; the columns after them are expressions."""
_COMMONS_VERSION = 1


@dataclass(frozen=True)
class JointAction:
    """Name a facial action that is motion of a joint, not of the surface."""

    name: str
    """ARKit's name of the action, such as ``jawOpen``."""
    joint: int
    """Index into ``flame.model.JOINT_NAMES``."""
    axis_angle: tuple[float, float, float]
    """The joint's rotation at weight 1, radians."""


@dataclass(frozen=True, eq=False, repr=False)
class HeadArrays:
    """Hold a head file's content; what is not told here is told in ``flame.model.HeadModel``, field by field."""

    name: str
    path: Path
    """File it was read from."""
    template: np.ndarray
    """Mean head, float64 (V, 3), metres, head space."""
    faces: np.ndarray
    """Vertex indices of the triangles, int64 (F, 3)."""
    shape_directions: np.ndarray
    """Identity directions (I, V, 3), metres per standard deviation."""
    expression_directions: np.ndarray
    """Expression directions (E, V, 3), metres per unit."""
    pose_basis: np.ndarray
    """Pose correctives (36, V * 3)."""
    joint_regressor: np.ndarray
    """Joints from vertices, float64 (5, V)."""
    skin_weights: np.ndarray
    """Share of each joint in each vertex, float64 (V, 5)."""
    parents: tuple[int, ...]
    topology: Topology
    expression_names: tuple[str, ...] | None = None
    expression_bounds: np.ndarray | None = None
    """Lowest and highest sensible value of each expression coefficient (E, 2), where they are bounded."""
    joint_actions: tuple[JointAction, ...] = ()
    has_jaw: bool = True
    licence: str = ""
    source: str = ""

    @cached_property
    def content_hash(self) -> str:
        """Return ``HeadModel.content_hash`` of the model made of these arrays."""
        arrays = (self.template, self.shape_directions, self.expression_directions, self.pose_basis)
        arrays += (self.joint_regressor, self.skin_weights)
        return content_hash(arrays, self.faces, self.parents, self.has_jaw)


def content_hash(arrays: tuple[np.ndarray, ...], faces: np.ndarray, parents: tuple[int, ...], has_jaw: bool) -> str:
    """Return the SHA-256 of a head's numbers, equal whatever floating-point type they are held in.

    Args:
        arrays: template (V, 3), shape (I, V, 3), expression (E, V, 3), pose (36, V * 3), regressor (5, V) and
            weights (V, 5), in this order.
        faces: triangles (F, 3).
        parents: parent of each joint.
        has_jaw: whether the jaw is a joint.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{tuple(array.shape)};".encode())
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    digest.update(np.ascontiguousarray(faces, "<i8").tobytes())
    digest.update(repr((parents, has_jaw)).encode())
    return digest.hexdigest()


def read_head_arrays(name_or_path: str | Path = "commons") -> HeadArrays:
    """Read the shipped ``commons`` head or a head file; see ``flame.loading.load_head`` for what is read and raised."""
    if str(name_or_path) == "commons":
        asset = resources.files("flame") / "assets" / "commons.npz"
        with resources.as_file(asset) as path:
            if not path.is_file():
                raise AssetMissingError(
                    f"the shipped head is not there: {path}; build it with python -m flame.commons.build"
                )
            return _from_commons(_read_npz(path), path, "commons")
    path = Path(name_or_path)
    if not path.is_file():
        raise AssetMissingError(
            f"no such head file: {path}; FLAME is downloaded from https://flame.is.tue.mpg.de after accepting its "
            "licence, while --head commons needs no file"
        )
    data = _read_npz(path) if path.suffix.lower() == ".npz" or _is_archive(path) else read_pickle(path)
    if not isinstance(data, Mapping):
        raise InputError(f"{path} holds a {type(data).__name__}; a head file holds a dictionary of arrays")
    return _from_commons(data, path, str(path)) if "format_version" in data else _from_flame(data, path)


@dataclass(frozen=True)
class _Fields:
    """Give the arrays of a head file by name, checked."""

    data: Mapping[str, Any]
    label: str

    def array(self, key: str, shape: tuple[int | None, ...], kinds: str = "f") -> np.ndarray:
        """Return an array whose shape is as given (None: any size) and whose dtype kind is one of ``kinds``."""
        if key not in self.data:
            raise InputError(f"{self.label} has no {key!r}; it has: {', '.join(sorted(map(str, self.data)))}")
        value = self.data[key]
        if isinstance(value, UnreadValue):
            raise InputError(f"{self.label}: {key!r} is a {value.kind}, which holds no plain array")
        if not isinstance(value, np.ndarray) and not _is_sparse(value):
            raise InputError(f"{self.label}: {key!r} is a {type(value).__name__}; an array is needed")
        fits = len(shape) == len(value.shape) and all(
            want in (None, got) for want, got in zip(shape, value.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(f"{self.label}: {key!r} has shape {tuple(value.shape)}; ({wanted}) is needed")
        if value.dtype.kind not in kinds:
            raise InputError(f"{self.label}: {key!r} holds {value.dtype}; that is not the kind of number needed here")
        array = value if isinstance(value, np.ndarray) else value.toarray()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{self.label}: {key!r} holds values that are not finite")
        return array

    def indices(self, key: str, shape: tuple[int | None, ...], limit: int) -> np.ndarray:
        """Return an int64 array of indices, all in [0, limit)."""
        array = self.array(key, shape, "iu").astype(np.int64)
        if array.size and (array.min() < 0 or array.max() >= limit):
            raise InputError(
                f"{self.label}: {key!r} has indices from {array.min()} to {array.max()}; 0 to {limit - 1} exist"
            )
        return array

    def names(self, key: str, count: int | None) -> tuple[str, ...]:
        """Return an array of strings as a tuple."""
        return tuple(str(name) for name in self.array(key, (count,), "U"))

    def text(self, key: str) -> str:
        """Return a single string."""
        return str(self.array(key, (), "U"))


def _is_sparse(value: Any) -> bool:
    from scipy import sparse

    return sparse.issparse(value)


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions and the disk") from error


def _read_npz(path: Path) -> dict[str, Any]:
    """Return the arrays of an ``.npz``; members that hold Python objects go through the safe unpickler."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _read_npy(archive.read(name), f"{path}: {name}")
                for name in archive.namelist()
            }
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy's header parser each raise kinds of their own on damage
        raise InputError(f"{path} is not a readable .npz file ({' '.join(str(error).split())})") from error


def _read_npy(content: bytes, label: str) -> Any:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(stream)
    if not dtype.hasobject:
        return np.load(io.BytesIO(content), allow_pickle=False)
    value = read_pickle_bytes(content[stream.tell() :], label)
    return value[()] if isinstance(value, np.ndarray) and value.shape == () else value


def _from_commons(data: Mapping[str, Any], path: Path, label: str) -> HeadArrays:
    fields = _Fields(data, label)
    version = int(fields.array("format_version", (), "iu"))
    if version != _COMMONS_VERSION:
        raise InputError(f"{label} has format version {version}; this program reads version {_COMMONS_VERSION}")
    template = fields.array("template", (None, 3)).astype(np.float64)
    count = len(template)
    faces = fields.indices("faces", (None, 3), count)
    names = fields.names("expression_names", None)
    lower, upper = (fields.array(f"expression_{side}", (len(names),)) for side in ("lower", "upper"))
    regressor = np.zeros((NUM_JOINTS, count))
    rows = fields.indices("joint_regressor_rows", (None,), NUM_JOINTS)
    columns = fields.indices("joint_regressor_cols", rows.shape, count)
    np.add.at(regressor, (rows, columns), fields.array("joint_regressor_values", rows.shape))
    return HeadArrays(
        name=fields.text("name"),
        path=path,
        template=template,
        faces=faces,
        shape_directions=_dequantised(fields, "shape_basis", None, count),
        expression_directions=_dequantised(fields, "expression_basis", len(names), count),
        pose_basis=_dequantised(fields, "pose_basis", NUM_POSE_FEATURES, count).reshape(NUM_POSE_FEATURES, -1),
        joint_regressor=regressor,
        skin_weights=_weights(fields, "skin_weights", count),
        parents=_parents(fields.array("parents", (NUM_JOINTS,), "iu"), label),
        topology=_commons_topology(fields, faces, count),
        expression_names=names,
        expression_bounds=np.stack((lower, upper), axis=-1),
        joint_actions=_joint_actions(fields),
        licence=fields.text("licence"),
        source=fields.text("source"),
    )


def _dequantised(fields: _Fields, key: str, num_modes: int | None, num_vertices: int) -> np.ndarray:
    """Return directions, float32 (modes, V, 3), from 16-bit integers and one scale per mode."""
    quantised = fields.array(f"{key}_q", (num_modes, num_vertices * 3), "i")
    scale = fields.array(f"{key}_scale", (len(quantised),)).astype(np.float32)
    return (quantised.astype(np.float32) * scale[:, None]).reshape(-1, num_vertices, 3)


def _commons_topology(fields: _Fields, faces: np.ndarray, count: int) -> Topology:
    mirror = fields.indices("mirror", (count,), count)
    if not np.array_equal(mirror[mirror], np.arange(count)):
        raise InputError(f"{fields.label}: 'mirror' is not its own inverse")
    names = fields.names("region_names", None)
    masks = fields.array("region_masks", (len(names), count), "b")
    uv = fields.array("uv", (None, 2)).astype(np.float32)
    uv_faces = fields.indices("uv_faces", faces.shape, len(uv))
    return Topology(faces, dict(zip(names, masks, strict=True)), mirror, uv, uv_faces)


def _joint_actions(fields: _Fields) -> tuple[JointAction, ...]:
    names = fields.names("arkit_joint_names", None)
    joints = fields.indices("arkit_joint_index", (len(names),), NUM_JOINTS)
    turns = fields.array("arkit_joint_axis_angle", (len(names), 3)).astype(np.float64)
    return tuple(
        JointAction(name, int(joint), (float(turn[0]), float(turn[1]), float(turn[2])))
        for name, joint, turn in zip(names, joints, turns, strict=True)
    )


def _from_flame(data: Mapping[str, Any], path: Path) -> HeadArrays:
    fields = _Fields(data, str(path))
    template = fields.array("v_template", (None, 3)).astype(np.float64)
    count = len(template)
    faces = fields.indices("f", (None, 3), count)
    directions = np.moveaxis(fields.array("shapedirs", (count, 3, None)), -1, 0)
    corrective = np.moveaxis(fields.array("posedirs", (count, 3, NUM_POSE_FEATURES)), -1, 0)
    weights = _weights(fields, "weights", count)
    layout = path.with_name(TEMPLATE_OBJ)
    uv, uv_faces = read_obj_layout(layout, faces) if layout.is_file() else (None, None)
    return HeadArrays(
        name=path.stem,
        path=path,
        template=template,
        faces=faces,
        shape_directions=directions[:FLAME_NUM_SHAPE],
        expression_directions=directions[FLAME_NUM_SHAPE:],
        pose_basis=corrective.reshape(NUM_POSE_FEATURES, -1),
        joint_regressor=fields.array("J_regressor", (NUM_JOINTS, count)),
        skin_weights=weights,
        parents=_parents(fields.array("kintree_table", (2, NUM_JOINTS), "iu")[0], str(path)),
        topology=Topology(faces, _flame_regions(path, count), mirror_from_template(template), uv, uv_faces),
        has_jaw=bool(weights[:, 2].any()) and "no_jaw" not in path.stem.lower(),
        licence="see https://flame.is.tue.mpg.de",
        source=str(path),
    )


def _flame_regions(path: Path, count: int) -> dict[str, np.ndarray]:
    """Return vertex masks from ``FLAME_masks.pkl`` in the same folder; none where there is no such file."""
    masks_path = path.with_name("FLAME_masks.pkl")
    if not masks_path.is_file():
        return {}
    content = read_pickle(masks_path)
    if not isinstance(content, Mapping):
        raise InputError(f"{masks_path} holds a {type(content).__name__}; a dictionary of vertex indices is needed")
    fields = _Fields(content, str(masks_path))
    regions = {}
    for name in map(str, content):
        regions[name] = np.zeros(count, dtype=bool)
        regions[name][fields.indices(name, (None,), count)] = True
    renamed = {"left_eyeball": "left_eye", "right_eyeball": "right_eye"}
    regions.update({ours: regions[theirs] for theirs, ours in renamed.items() if theirs in regions})
    for union, sides in {"eyes": ("left_eye", "right_eye"), "ears": ("left_ear", "right_ear")}.items():
        if all(side in regions for side in sides):
            regions[union] = regions[sides[0]] | regions[sides[1]]
    return regions


def _weights(fields: _Fields, key: str, count: int) -> np.ndarray:
    weights = fields.array(key, (count, NUM_JOINTS)).astype(np.float64)
    if np.abs(weights.sum(axis=1) - 1).max(initial=0) > 1e-3:
        raise InputError(f"{fields.label}: the rows of {key!r} do not sum to one")
    return weights


def _parents(table: np.ndarray, label: str) -> tuple[int, ...]:
    """Return joint parents; files write the root's as -1 or, in unsigned integers, as 4294967295."""
    parents = (-1, *(int(parent) for parent in table[1:]))
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise InputError(f"{label}: joint parents are {parents[1:]}; each has to be an earlier joint")
    return parents
