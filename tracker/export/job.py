"""What a format is given to write: the track, an empty folder, the original frames, textures and options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from flame.errors import AssetMissingError, InputError

if TYPE_CHECKING:
    from tracker.frames import Frame, SourceInfo
    from tracker.result import Track
    from tracker.texture import HeadTexture

Item = TypeVar("Item")
Steps = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Shows how far a loop is: what is looped over, its length, what it does."""

MIN_TEXTURE_PX, MAX_TEXTURE_PX = 64, 4096


@dataclass(frozen=True)
class ExportOptions:
    """Say how to export; every field is an option of the command line."""

    mesh: Literal["frames", "neutral"] = "frames"
    """obj and ply: a mesh a frame, or the neutral head alone."""
    texture: bool = True
    """glb, usd and obj: carry a texture fused from the clip."""
    texture_px: int = 1024
    """Width and height of that texture."""
    matting: str = "mediapipe"
    """gaussian-avatars, metrical-tracker, insta, nerfstudio and colmap: what tells heads from the background:
    ``mediapipe``, or ``module:function`` of your own (see ``priors.head_matting``)."""
    panels: bool = False
    """video: input, normals, 2D vertices, overlay and mesh beside each other."""
    layout: Literal["row", "grid"] = "row"
    """How panels lie beside each other."""
    convert_to: str | None = None
    """Convert to this head model first: ``commons``, or a FLAME file."""
    source: str | None = None
    """Where the clip is now, if it is no longer where it was when it was tracked."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            InputError: an option is out of range.
        """
        _check_choice("mesh", self.mesh, ("frames", "neutral"))
        _check_choice("layout", self.layout, ("row", "grid"))
        if self.layout != "row" and not self.panels:
            raise InputError(f"--layout {self.layout} says how panels lie; add --panels.")
        if not MIN_TEXTURE_PX <= self.texture_px <= MAX_TEXTURE_PX:
            raise InputError(f"--texture-px {self.texture_px}: it must be from {MIN_TEXTURE_PX} to {MAX_TEXTURE_PX}.")


@dataclass(frozen=True)
class Written:
    """Say what a format wrote."""

    paths: tuple[Path, ...]
    """Files or folders to open first, inside the job's folder."""
    notes: tuple[str, ...] = ()
    """What its user should know, a line each: what was held or left out, what the format cannot say."""


@dataclass(frozen=True, eq=False)
class ExportJob:
    """Hold what one format is to write, and where."""

    track: Track
    """What to export."""
    folder: Path
    """An empty folder for this format alone; it gets its name when everything in it is written."""
    options: ExportOptions = field(default_factory=ExportOptions)
    """How to export."""
    home: Path | None = None
    """The track's own folder, where textures are kept from one export to the next; None keeps none."""
    show_steps: Steps = lambda steps, _count, _label: steps
    """Shows progress."""
    shelf: dict[str, Any] = field(default_factory=dict)
    """What one format has computed and others can use."""

    @property
    def people(self) -> tuple[int, ...]:
        """Return the people who are tracked in some frame."""
        return tuple(person for person, seen in enumerate(self.track.is_tracked.any(axis=1)) if seen)

    def person_folder(self, person: int) -> Path:
        """Return the folder of one person: the format's own where there is one person, else one in it."""
        if self.track.num_people == 1:
            return self.folder
        folder = self.folder / f"person_{person}"
        folder.mkdir(exist_ok=True)
        return folder

    def steps(self, items: Iterable[Item], count: int, label: str) -> Iterable[Item]:
        """Return the items, while a bar shows how far through ``count`` of them their reader is."""
        return self.show_steps(items, count, label)

    @property
    def source(self) -> SourceInfo:
        """Return the clip that was tracked.

        Raises:
            AssetMissingError: it is not where it was.
            InputError: it is another one, or cannot be read.
        """
        from tracker.tracked_clip import find_clip

        # Every format has a job of its own, and to know a clip again all of it is read.
        if "source" not in self.shelf:
            self.shelf["source"] = find_clip(self.track, self.options.source)
        return self.shelf["source"]

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """Yield position in the track and picture of every frame of the track, in order and in constant memory.

        Raises:
            AssetMissingError: the clip is not where it was.
            InputError: it is another one, or cannot be read.
        """
        from tracker.tracked_clip import clip_frames

        return clip_frames(self.track, self.source)

    def texture(self, person: int) -> HeadTexture | None:
        """Return a person's texture, fused from the clip; None where textures are not wanted or not possible.

        Raises:
            AssetMissingError: the clip is not where it is said to be now.
            InputError: the clip is another one, or cannot be read.
        """
        return self._textures()[person] if self.options.texture else None

    @property
    def texture_note(self) -> str | None:
        """Say why there are no textures, where they were asked for and the clip is gone."""
        return self.shelf.get("no texture") if self.options.texture else None

    def _textures(self) -> list[HeadTexture | None]:
        """Return everybody's texture, fused once for all formats; none where the clip is gone."""
        from tracker.texture.stored import textures_of

        def frames() -> Iterable[tuple[int, Frame]]:
            return self.steps(self.frames(), len(self.track), "texture")

        if "textures" not in self.shelf:
            textures: list[HeadTexture | None] = [None] * self.track.num_people
            try:
                textures = textures_of(self.track, self.home, frames, self.options.texture_px)
            except AssetMissingError as error:
                if self.options.source is not None:
                    raise
                self.shelf["no texture"] = f"without texture: {error}"
            self.shelf["textures"] = textures
        return self.shelf["textures"]


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is no choice."""
    if value not in allowed:
        raise InputError(f"--{name} {value}: it must be one of {', '.join(allowed)}.")
