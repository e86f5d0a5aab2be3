"""One tracked clip as the viewer needs it: read without torch, posed frame by frame on demand."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from flame.errors import InputError
from flame.head_files import HeadArrays, read_head_arrays
from tracker.result import Track
from tracker.viewer.controls import Control, Edits, controls_of
from tracker.viewer.posing import FaceParameters, PersonRig, cam_from_head


class Clip:
    """Hold a track, its head and its people's rigs."""

    def __init__(self, track: Track, *, folder: Path | None = None, source: Path | None = None) -> None:
        """Take a track.

        Args:
            track: what to show.
            folder: output folder that it came from, where its textures are kept.
            source: where the clip is now, if it was moved.

        Raises:
            InputError: the track holds no frame, or its head is not the one it was made with.
            AssetMissingError: the head model is not there.
        """
        if not len(track) or not track.num_people:
            raise InputError("the track holds no frames; track the clip again with python -m tracker.run")
        self.track = track
        self.folder = folder
        self.head: HeadArrays = read_head_arrays(track.head)
        if self.head.content_hash != track.head_hash:
            raise InputError(
                f"head '{track.head}' has content {self.head.content_hash[:12]}, the track was made with "
                f"{track.head_hash[:12]}; use the head model of that time or track the clip again."
            )
        self.source = source
        self._rigs: dict[int, PersonRig] = {}

    @staticmethod
    def load(folder: str | Path, *, source: Path | None = None, head: str | Path | None = None) -> Clip:
        """Read a clip from its output folder (or the path of its ``track.npz``); see ``Track.load`` for errors."""
        path = Path(folder)
        track = Track.load(path, head=head)
        return Clip(track, folder=path if path.is_dir() else path.parent, source=source)

    @property
    def name(self) -> str:
        """Return what to call the clip."""
        if self.folder is not None:
            return self.folder.resolve().name
        source = self.source or (self.track.info.get("source") or {}).get("path")
        return Path(source).stem if source else "track"

    @cached_property
    def controls(self) -> dict[str, Control]:
        """Return the sliders of the head, by name, in the order of their folders."""
        return {control.name: control for control in controls_of(self.track, self.head)}

    def rig(self, person: int) -> PersonRig:
        """Return the rig of a person, built once."""
        if person not in self._rigs:
            self._rigs[person] = PersonRig.of(self.head, self.track.identity[person])
        return self._rigs[person]

    def parameters(self, frame: int, person: int, edits: Edits) -> FaceParameters:
        """Return what poses a person in a frame, edits included."""
        return edits.apply(person, FaceParameters.of(self.track, frame, person), self.controls)

    def vertices(self, frame: int, person: int, edits: Edits) -> np.ndarray | None:
        """Return a person's vertices in camera space, float32 (V, 3), metres; None where not tracked."""
        if not self.track.is_tracked[person, frame]:
            return None
        verts_head = self.rig(person).pose(self.parameters(frame, person, edits))
        placed = cam_from_head(self.track, frame, person)
        return (verts_head @ placed[:3, :3].T + placed[:3, 3]).astype(np.float32)
