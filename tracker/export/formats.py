"""The formats that a track can be exported to: what each is for, who reads it, and what becomes of lost frames."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flame.errors import InputError

if TYPE_CHECKING:
    from tracker.export.job import ExportJob, Written

LostRule = Literal["hold", "gap", "skip"]
"""What becomes of frames without a person: ``hold`` repeats the last tracked pose (before the first one, that one),
``gap`` keeps the frame and shows nobody, ``skip`` leaves the frame out."""

EXPORT_FOLDER = "export"
"""The folder of exports in a track's output folder."""

ALL = "all"
"""Stands for every format on the command line."""


@dataclass(frozen=True)
class Format:
    """Describe an export."""

    name: str
    """As on the command line, and the folder that it is written into."""
    summary: str
    """What is in it, one line."""
    readers: str
    """Programs that read it."""
    lost: LostRule
    """What becomes of lost frames."""
    writer: str
    """The function that writes it, ``module:function``."""
    needs_clip: bool = False
    """Whether the original clip is read again."""

    def load(self) -> Callable[[ExportJob], Written]:
        """Import and return the function that writes the format."""
        module, _, function = self.writer.partition(":")
        return getattr(importlib.import_module(module), function)


_LIST = (
    Format(
        "glb",
        "animated heads with skeleton, named morph targets, texture and camera",
        "Blender, three.js, Unity, Unreal, Godot",
        "hold",
        "tracker.export.glb:write",
    ),
    Format(
        "usd",
        "the same as UsdSkel with blend shapes",
        "Houdini, Maya, Omniverse, Unreal, Blender, usdview",
        "gap",
        "tracker.export.usd:write",
    ),
    Format("obj", "a mesh a frame, or the neutral head", "everything", "skip", "tracker.export.mesh_files:write_obj"),
    Format("ply", "the same, binary", "MeshLab, CloudCompare, trimesh", "skip", "tracker.export.mesh_files:write_ply"),
    Format(
        "arkit",
        "CSV of the 52 ARKit coefficients, head and eyes, in the columns of Live Link Face",
        "Unreal (Live Link Face import), Blender add-ons, Maya",
        "skip",
        "tracker.export.arkit:write",
    ),
    Format(
        "gaussian-avatars",
        "the data set that VHAP writes",
        "GaussianAvatars and what builds on it",
        "skip",
        "tracker.export.gaussian_avatars:write",
        needs_clip=True,
    ),
    Format(
        "metrical-tracker",
        ".frame files with camera and FLAME codes",
        "INSTA's scripts, FlashAvatar",
        "skip",
        "tracker.export.metrical_tracker:write",
        needs_clip=True,
    ),
    Format(
        "insta",
        "transforms, matted images, depth, masks and meshes",
        "INSTA",
        "skip",
        "tracker.export.insta:write",
        needs_clip=True,
    ),
    Format(
        "nerfstudio",
        "images and cameras around a head that keeps still",
        "nerfstudio",
        "skip",
        "tracker.export.nerfstudio:write",
        needs_clip=True,
    ),
    Format(
        "colmap",
        "the same as a COLMAP model with points on the head",
        "COLMAP, Gaussian splatting",
        "skip",
        "tracker.export.colmap:write",
        needs_clip=True,
    ),
    Format(
        "video",
        "the overlay, or panels, drawn from the track",
        "every player",
        "gap",
        "tracker.export.video:write",
        needs_clip=True,
    ),
)

FORMATS: dict[str, Format] = {each.name: each for each in _LIST}
"""The formats by name, in the order in which they are told."""


def find_formats(names: str | Iterable[str]) -> list[Format]:
    """Return formats by their names, which may be joined by commas; ``all`` stands for every one.

    Raises:
        InputError: a name is not known, or there is none.
    """
    texts = [names] if isinstance(names, str) else names
    wanted = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    if not wanted:
        raise InputError(f"no format is named; known are {', '.join(FORMATS)}, and {ALL}.")
    for name in wanted:
        if name not in FORMATS and name != ALL:
            near = difflib.get_close_matches(name, FORMATS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"export '{name}' is not known; {hint}known are {', '.join(FORMATS)}, and {ALL}.")
    return list(FORMATS.values()) if ALL in wanted else [FORMATS[name] for name in dict.fromkeys(wanted)]
