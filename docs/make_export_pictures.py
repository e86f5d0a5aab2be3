"""Draw the pictures of docs/exports.md from the sample clip: what exports look like, the viewer, the report.

python -m docs.make_export_pictures

Run it in the top folder; it needs what tests/interop needs: Node.js with its packages, and Chromium.
"""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import tracker
from flame.camera import Intrinsics, project
from tests.interop.programs import HERE, chromium, node, three_vertices
from tracker.export import export
from tracker.frames import open_source
from tracker.output_files import write_image
from tracker.report import write_report
from tracker.view import view

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "examples" / "sample.mp4"
FRAME = 70
TILE_HEIGHT, TILE_WIDTH = 300, 400
FACE = (120, 0, 520, 300)
"""Left, top, right, bottom of what is shown of the clip, pixels."""
CURVES = ("JawOpen", "EyeBlinkLeft", "MouthSmileLeft", "BrowInnerUp", "HeadYaw")
COLORS = ((214, 92, 62), (62, 128, 214), (60, 160, 90), (170, 100, 190), (120, 120, 120))
_NO_NOTICES = ".mantine-Notifications-root"
"""What the viewer says of a browser without a graphics card."""
PAPER, INK = (250, 250, 248), (40, 42, 48)


def main() -> None:
    """Track the sample, export it and write the pictures into docs/."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sample_track"
        track = tracker.track(SAMPLE.relative_to(Path.cwd()), folder)
        names = ["glb", "arkit", "gaussian-avatars", "insta", "nerfstudio"]
        done = {each.format.name: each.folder for each in export(folder, names)}
        with open_source(SAMPLE) as source:
            image = next(frame.image for frame in source if frame.index == FRAME)
        _, pictures = three_vertices(done["glb"] / "track.glb", track.pts_seconds[[FRAME]] - track.pts_seconds[0])
        tiles = {
            "the clip": image[FACE[1] : FACE[3], FACE[0] : FACE[2]],
            "glb, played by three.js": _on_paper(Image.open(pictures[0]).crop(FACE)),
            "its texture, fused from the clip": _fitted(Image.open(folder / "texture" / "person_0.png")),
            "arkit: Live Link Face curves": _curves(next(done["arkit"].glob("*.csv"))),
            "gaussian-avatars: matted, centred": _fitted(_avatar_picture(done["gaussian-avatars"])),
            "nerfstudio: cameras around the head": _cameras(done["nerfstudio"] / "transforms.json", track),
        }
        write_image(ROOT / "docs" / "exports.jpg", _sheet(tiles, columns=3))
        report = write_report(folder)
        _photograph(report.as_uri(), "report.jpg", (1320, 1180), 3)
        with view(folder, port=0, browser=False) as viewer:
            viewer.player.set_look(surface="texture")
            viewer.player.seek(FRAME)
            _photograph(viewer.url, "viewer.jpg", (1320, 760), 8)


def _photograph(url: str, name: str, size: tuple[int, int], seconds: int) -> None:
    """Write a picture of a page, opened for some seconds, into docs/."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        script = HERE / "screenshot.mjs"
        command = [node("playwright-core"), script, chromium(), url, picture, *size, seconds, _NO_NOTICES]
        subprocess.run([str(part) for part in command], check=True)
        write_image(ROOT / "docs" / name, np.asarray(Image.open(picture).convert("RGB")))


def _avatar_picture(folder: Path) -> Image.Image:
    """Return a picture of the data set with its mask applied, as its readers do."""
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    frame = min(frames, key=lambda each: abs(each["timestep_index"] - FRAME))
    image = Image.open(folder / frame["file_path"]).convert("RGB")
    mask = Image.open(folder / frame["fg_mask_path"]).convert("L")
    return Image.composite(image, Image.new("RGB", image.size, PAPER), mask)


def _curves(path: Path) -> np.ndarray:
    """Draw some columns of a CSV file over time."""
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    tile = Image.new("RGB", (TILE_WIDTH, TILE_HEIGHT), PAPER)
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(13)
    height = (TILE_HEIGHT - 30) / len(CURVES)
    for index, (column, color) in enumerate(zip(CURVES, COLORS, strict=True)):
        values = np.array([float(row[column]) for row in rows])
        low, high = min(values.min(), 0.0), max(values.max(), 0.5)
        bottom = 24 + (index + 1) * height - 6
        x = np.linspace(110, TILE_WIDTH - 12, len(values))
        y = bottom - (values - low) / (high - low) * (height - 12)
        draw.line([(110, bottom), (TILE_WIDTH - 12, bottom)], fill=(222, 222, 218))
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=color, width=2)
        draw.text((10, bottom - height / 2), column, fill=color, font=font)
    return np.asarray(tile)


def _cameras(path: Path, track: tracker.Track) -> np.ndarray:
    """Draw the head and the cameras of a transforms file, seen from above and behind."""
    layout = json.loads(path.read_text())
    applied = np.vstack((np.array(layout["applied_transform"]), (0, 0, 0, 1)))
    world_from_cameras = [np.array(frame["transform_matrix"]) for frame in layout["frames"]]
    head = track.head_model.rest(None).vertices.numpy().astype(np.float64)
    verts_world = head @ applied[:3, :3].T + applied[:3, 3]
    centres = np.stack([each[:3, 3] for each in world_from_cameras])
    middle_world = (centres.mean(axis=0) + verts_world.mean(axis=0)) / 2 + np.array((0.0, 0.04, 0.0))
    view = _looking_at(middle_world + np.array((1.3, -0.1, 0.75)), middle_world)
    camera = Intrinsics.from_fov(40.0, TILE_WIDTH, TILE_HEIGHT)
    tile = Image.new("RGB", (TILE_WIDTH, TILE_HEIGHT), PAPER)
    draw = ImageDraw.Draw(tile)
    for x, y in _seen(verts_world, view, camera)[::2].tolist():
        draw.ellipse((x - 0.7, y - 0.7, x + 0.7, y + 0.7), fill=(150, 140, 132))
    for matrix, color in zip(world_from_cameras[::3], _sweep(len(world_from_cameras[::3])), strict=True):
        corners = np.array([(0, 0, 0), (-1, -1, -2), (1, -1, -2), (1, 1, -2), (-1, 1, -2)]) * (0.02, 0.015, 0.02)
        points = [tuple(point) for point in _seen(corners @ matrix[:3, :3].T + matrix[:3, 3], view, camera).tolist()]
        for one, other in ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)):
            draw.line([points[one], points[other]], fill=color)
    return np.asarray(tile)


def _looking_at(eye_world: np.ndarray, target_world: np.ndarray) -> np.ndarray:
    """Return the transform (4, 4) from a world with +z up to an OpenCV camera that looks at a point."""
    forward = (target_world - eye_world) / np.linalg.norm(target_world - eye_world)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack((right, np.cross(forward, right), forward))
    matrix[:3, 3] = -matrix[:3, :3] @ eye_world
    return matrix


def _seen(points_world: np.ndarray, cam_from_world: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Project points (N, 3), pixels (N, 2)."""
    return project(points_world @ cam_from_world[:3, :3].T + cam_from_world[:3, 3], camera)


def _sweep(count: int) -> list[tuple[int, int, int]]:
    """Return colours from orange to blue."""
    share = np.linspace(0, 1, count)[:, None]
    return [
        tuple(color) for color in np.rint((1 - share) * COLORS[0] + share * np.array(COLORS[1])).astype(int).tolist()
    ]


def _on_paper(picture: Image.Image) -> np.ndarray:
    """Lay a picture with transparency on paper."""
    paper = Image.new("RGBA", picture.size, (*PAPER, 255))
    return np.asarray(Image.alpha_composite(paper, picture.convert("RGBA")).convert("RGB"))


def _fitted(picture: Image.Image) -> np.ndarray:
    """Fit a picture into a tile, on paper."""
    picture = picture.convert("RGB")
    scale = min(TILE_WIDTH / picture.width, TILE_HEIGHT / picture.height)
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (TILE_WIDTH, TILE_HEIGHT), PAPER)
    tile.paste(small, ((TILE_WIDTH - small.width) // 2, (TILE_HEIGHT - small.height) // 2))
    return np.asarray(tile)


def _sheet(tiles: dict[str, np.ndarray], columns: int) -> np.ndarray:
    """Lay tiles in rows, each with its name below."""
    caption, gap = 26, 8
    rows = -(-len(tiles) // columns)
    sheet = Image.new(
        "RGB", (columns * (TILE_WIDTH + gap) - gap, rows * (TILE_HEIGHT + caption + gap) - gap), (255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for index, (name, tile) in enumerate(tiles.items()):
        left, top = (index % columns) * (TILE_WIDTH + gap), index // columns * (TILE_HEIGHT + caption + gap)
        sheet.paste(Image.fromarray(tile), (left, top))
        draw.text((left + 4, top + TILE_HEIGHT + 4), name, fill=INK, font=ImageFont.load_default(15))
    return np.asarray(sheet)


if __name__ == "__main__":
    main()
