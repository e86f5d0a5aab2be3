"""The options of exports on the command line, the same at tracking time and afterwards."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker.export.formats import ALL, FORMATS
from tracker.export.job import ExportOptions

if TYPE_CHECKING:
    from tracker.export.writing import Exported

_WIDTH = max(map(len, FORMATS))


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of exports, all but ``--panels`` and ``--layout``, which tracking has of its own."""
    group = parser.add_argument_group("exports")
    group.add_argument(
        "--mesh", choices=("frames", "neutral"), default="frames", help="obj, ply: a mesh a frame (default), or one"
    )
    group.add_argument("--no-texture", action="store_true", help="glb, usd, obj: plain clay")
    group.add_argument(
        "--texture-px",
        type=int,
        default=ExportOptions.texture_px,
        metavar="N",
        help="texture size (default: %(default)s)",
    )
    group.add_argument(
        "--matting",
        default=ExportOptions.matting,
        metavar="NAME",
        help="what cuts heads out for data sets: mediapipe (default), or module:function of your own",
    )
    group.add_argument(
        "--convert-to",
        metavar="commons|PATH",
        help="convert to this head model first: commons, or a FLAME file; the error is reported",
    )


def add_panel_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of panels."""
    parser.add_argument(
        "--panels", action="store_true", help="overlay video: input, normals, 2D vertices, overlay, mesh"
    )
    parser.add_argument(
        "--layout",
        choices=("row", "grid"),
        default="row",
        help="how --panels lie: side by side (default), or in a grid",
    )


def export_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of ``ExportOptions`` that a command line says."""
    named = {each.name: getattr(arguments, each.name, None) for each in fields(ExportOptions)}
    named["texture"] = not arguments.no_texture
    return {name: value for name, value in named.items() if value is not None}


def list_formats() -> str:
    """Return a table of the formats for ``--help``."""
    lines = []
    for each in FORMATS.values():
        lines.append(f"  {each.name:<{_WIDTH}}  {each.summary}")
        lines.append(f"  {'':<{_WIDTH}}  for {each.readers}; lost frames: {each.lost}")
    lines.append(f"  {ALL:<{_WIDTH}}  every one of them")
    return "\n".join(lines)


def describe(exported: Exported) -> str:
    """Return what was exported, and what to know about it, for the summary."""
    where = ", ".join(_short(path) for path in exported.paths) or _short(exported.folder)
    lines = [f"  {exported.format.name:<{_WIDTH}}  {where}"]
    lines.extend(f"  {'':<{_WIDTH}}  {note}" for note in exported.notes)
    return "\n".join(lines)


def _short(path: Path) -> str:
    """Return a path as seen from here, where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
