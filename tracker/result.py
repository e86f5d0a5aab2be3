"""A tracked clip: parameter sequences per person, how they are stored, and the head's vertices in any frame.

``track.npz`` holds the arrays of ``Track`` under the same names; ``track.json`` the same head matter, readable.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame.camera import Intrinsics, transform
from flame.errors import AssetMissingError, InputError
from tracker.output_files import write_atomically
from tracker.status import FrameStatus

if TYPE_CHECKING:
    from flame.model import HeadModel

FORMAT_VERSION = 1
_PER_PERSON_FRAME = (
    "expression",
    "neck",
    "jaw",
    "left_eye",
    "right_eye",
    "rotation",
    "translation",
    "status",
    "residual_px",
    "interocular_px",
    "presence",
)
_ARRAYS = ("identity", "frame_index", "pts_seconds", *_PER_PERSON_FRAME)
_HEADER_OF_FIELDS = (
    "format_version",
    "head",
    "head_hash",
    "expression_names",
    "intrinsics",
    "num_frames",
    "num_people",
    "status_values",
    "status_counts",
)
"""Keys of the header that are fields or follow from them; the others are ``Track.info``."""


@dataclass(frozen=True, eq=False)
class FacePose:
    """Hold one person in one frame; parameters are NaN where ``status`` is not tracked."""

    status: FrameStatus
    expression: np.ndarray
    """Expression coefficients, float32 (E,)."""
    neck: np.ndarray
    """Axis-angle, float32 (3,), radians."""
    jaw: np.ndarray
    """Axis-angle, float32 (3,), radians."""
    left_eye: np.ndarray
    """Axis-angle, float32 (3,), radians; the subject's left."""
    right_eye: np.ndarray
    """Axis-angle, float32 (3,), radians; the subject's right."""
    cam_from_head: np.ndarray
    """Rigid transform from head space to camera space, float64 (4, 4), metres."""
    residual_px: float
    """Median distance of the evidence from the fitted head, pixels."""
    presence: float
    """Probability that a face is there."""


@dataclass(frozen=True, eq=False)
class TrackFrame:
    """Hold one frame of a track."""

    index: int
    """Number of the frame in the source."""
    pts_seconds: float
    """Time of the frame on the container's clock."""
    faces: tuple[FacePose, ...]
    """One entry per person."""


@dataclass(frozen=True, eq=False)
class Track:
    """Hold P people over T frames; one identity per person. Results refer to the original image."""

    identity: np.ndarray
    """Identity coefficients, float32 (P, I), standard deviations of the head model."""
    expression: np.ndarray
    """Expression coefficients, float32 (P, T, E)."""
    neck: np.ndarray
    """Axis-angle, float32 (P, T, 3), radians."""
    jaw: np.ndarray
    """Axis-angle, float32 (P, T, 3), radians."""
    left_eye: np.ndarray
    """Axis-angle, float32 (P, T, 3), radians."""
    right_eye: np.ndarray
    """Axis-angle, float32 (P, T, 3), radians."""
    rotation: np.ndarray
    """Axis-angle of cam_from_head, float64 (P, T, 3), radians."""
    translation: np.ndarray
    """Translation of cam_from_head, float64 (P, T, 3), metres."""
    status: np.ndarray
    """``FrameStatus`` values, int8 (P, T)."""
    residual_px: np.ndarray
    """Median distance of the evidence from the fitted head, float32 (P, T), pixels."""
    interocular_px: np.ndarray
    """Distance of the eyeballs' centres as seen from the front, float32 (P, T), pixels."""
    presence: np.ndarray
    """Probability that a face is there, float32 (P, T)."""
    frame_index: np.ndarray
    """Number of the frame in the source, int64 (T,)."""
    pts_seconds: np.ndarray
    """Time of the frame on the container's clock, float64 (T,), seconds."""
    intrinsics: Intrinsics
    """The camera, one per clip, in pixels of the original image."""
    head: str
    """Head model: ``commons`` or a path."""
    head_hash: str
    """Content hash of the head model."""
    expression_names: tuple[str, ...] = ()
    """Names of the expression coefficients, where the model has them."""
    info: dict[str, Any] = field(default_factory=dict)
    """Source, settings and completeness, as written to ``track.json``."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.pts_seconds)

    @property
    def num_people(self) -> int:
        """Return the number of people."""
        return len(self.identity)

    @property
    def is_tracked(self) -> np.ndarray:
        """Return where parameters exist, bool (P, T)."""
        return (self.status == FrameStatus.OK) | (self.status == FrameStatus.LOW_CONFIDENCE)

    def __getitem__(self, frame: int) -> TrackFrame:
        """Return one frame."""
        faces = tuple(self._face(frame, person) for person in range(self.num_people))
        return TrackFrame(int(self.frame_index[frame]), float(self.pts_seconds[frame]), faces)

    def __iter__(self) -> Iterator[TrackFrame]:
        """Iterate over the frames in order."""
        return (self[frame] for frame in range(len(self)))

    def _face(self, frame: int, person: int) -> FacePose:
        """Return one person in one frame."""
        at = (person, frame)
        return FacePose(
            status=FrameStatus(int(self.status[at])),
            cam_from_head=self.cam_from_head(frame, person),
            residual_px=float(self.residual_px[at]),
            presence=float(self.presence[at]),
            **{name: getattr(self, name)[at] for name in ("expression", "neck", "jaw", "left_eye", "right_eye")},
        )

    def cam_from_head(self, frame: int, person: int = 0) -> np.ndarray:
        """Return the rigid transform from head to camera space, float64 (4, 4), metres; NaN where not tracked."""
        from flame.rotation_kernels import rotation_matrix

        matrix = np.eye(4)
        matrix[:3, :3] = rotation_matrix(self.rotation[person, frame])
        matrix[:3, 3] = self.translation[person, frame]
        return matrix

    @cached_property
    def head_model(self) -> HeadModel:
        """Load the head model that the track was made with.

        Raises:
            InputError: the file's content is not the one that the track was made with.
        """
        from flame import load_head

        model = load_head(self.head)
        if model.content_hash != self.head_hash:
            raise InputError(
                f"head '{self.head}' has content {model.content_hash[:12]}, the track was made with "
                f"{self.head_hash[:12]}; use the head model of that time or track the clip again."
            )
        return model

    def vertices(self, frame: int, person: int = 0, *, space: str = "camera") -> np.ndarray:
        """Return the head's vertices in a frame, float32 (V, 3), metres; NaN where the person is not tracked.

        Args:
            frame: position in the track, from 0.
            person: which person, from 0.
            space: ``camera``, or ``head`` for the unposed head with expression, jaw, eyes and neck applied.

        Raises:
            InputError: the space is not known.
        """
        if space not in ("camera", "head"):
            raise InputError(f"space '{space}' is not known; allowed: camera, head.")
        import torch

        at = (person, frame)
        model = self.head_model
        parts = {name: getattr(self, name)[at] for name in ("expression", "neck", "jaw", "left_eye", "right_eye")}
        with torch.no_grad():
            tensors = {name: torch.from_numpy(np.asarray(part, np.float32)) for name, part in parts.items()}
            verts_head = model.vertices(shape=torch.from_numpy(self.identity[person]), **tensors).numpy()
        if space == "head":
            return verts_head
        return transform(self.cam_from_head(frame, person), verts_head).astype(np.float32)

    def arkit(self, person: int = 0) -> dict[str, np.ndarray]:
        """Return the 52 ARKit coefficients of every frame, each float64 (T,), by name; NaN where not tracked.

        Raises:
            InputError: the head model has no ARKit actions.
        """
        from flame.arkit import ARKIT_NAMES, arkit_coefficients

        coefficients = arkit_coefficients(
            self.head_model,
            self.expression[person],
            jaw=self.jaw[person],
            left_eye=self.left_eye[person],
            right_eye=self.right_eye[person],
        )
        return dict(zip(ARKIT_NAMES, coefficients.T, strict=True))

    def save(self, folder: str | Path) -> None:
        """Write ``track.npz`` and ``track.json`` into a folder, each in one atomic step."""
        folder = Path(folder)
        header = self.header()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with write_atomically(folder / "track.npz") as stream:
            np.savez_compressed(stream, header=np.array(json.dumps(header)), **arrays)
        with write_atomically(folder / "track.json") as stream:
            stream.write((json.dumps(header, indent=2) + "\n").encode())

    def status_counts(self, person: int = 0) -> dict[str, int]:
        """Return how many frames have each status, by its label."""
        return {status.label: int((self.status[person] == status).sum()) for status in FrameStatus}

    def header(self) -> dict[str, Any]:
        """Return what is not an array: version, model, camera, counts, and ``info``."""
        return {
            "format_version": FORMAT_VERSION,
            "head": self.head,
            "head_hash": self.head_hash,
            "expression_names": list(self.expression_names),
            "intrinsics": dataclasses.asdict(self.intrinsics),
            "num_frames": len(self),
            "num_people": self.num_people,
            "status_values": {status.label: int(status) for status in FrameStatus},
            "status_counts": [self.status_counts(person) for person in range(self.num_people)],
            **self.info,
        }

    @staticmethod
    def load(folder: str | Path, *, head: str | Path | None = None) -> Track:
        """Read a track from its output folder (or the path of its ``track.npz``).

        Args:
            folder: output folder of a run.
            head: where the head model is now, if it is no longer where it was when the clip was tracked.

        Raises:
            AssetMissingError: there is no ``track.npz``.
            InputError: the file is not a track, or one of a newer version.
        """
        path = Path(folder)
        path = path if path.suffix == ".npz" and not path.is_dir() else path / "track.npz"
        if not path.is_file():
            raise AssetMissingError(f"no track at {path}; give the output folder of a run of tracker.run.")
        try:
            return _read(path, head)
        except InputError:
            raise
        except Exception as error:  # zipfile, zlib, numpy and json each raise kinds of their own on damage
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path} cannot be read as a track ({reason}); run tracker.run again.") from error


def _read(path: Path, head: str | Path | None) -> Track:
    """Read a track; damage raises whatever the libraries raise."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        header = json.loads(str(stored["header"]))
        version = header["format_version"]
        if version > FORMAT_VERSION:
            raise InputError(
                f"{path} has format version {version}, this program reads up to {FORMAT_VERSION}; update the program."
            )
        arrays = {name: stored[name] for name in _ARRAYS}
    shape = (len(arrays["identity"]), len(arrays["pts_seconds"]))
    for name in _PER_PERSON_FRAME:
        if arrays[name].shape[:2] != shape:
            raise InputError(f"{path}: '{name}' has shape {arrays[name].shape}; it has to begin with {shape}.")
    return Track(
        **arrays,
        intrinsics=Intrinsics(**header["intrinsics"]),
        head=header["head"] if head is None else str(head),
        head_hash=header["head_hash"],
        expression_names=tuple(header["expression_names"]),
        info={key: value for key, value in header.items() if key not in _HEADER_OF_FIELDS},
    )
