"""Textures for the viewer: those kept in the output folder, or fused from the clip when somebody asks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flame.errors import UserError
from tracker.viewer.clip import Clip
from tracker.viewer.painting import PaintedFiles, before_tone_mapping, coloured_glb, encode_texture, textured_glb

if TYPE_CHECKING:
    from tracker.frames import Frame
    from tracker.texture import HeadTexture

log = logging.getLogger(__name__)

FUSED_PX = 1024
_COLOR_PX = 256
"""Size to which the texture is averaged before colours are taken from it for vertices."""
_DETAIL_LIFT_METRES = 0.0002
_PROGRESS_SECONDS = 0.25


@dataclass(frozen=True, eq=False)
class PaintedHead:
    """Hold what a textured head needs beside its vertices.

    The page takes a while to unpack a picture, and shows nothing until then. So a head is sent with a colour at each
    vertex of a mesh with four times the triangles, which is there at once, and the picture is laid over it where the
    clip stands still.
    """

    vertex_of_uv: np.ndarray
    """Vertex of each texture coordinate, int64 (VT,)."""
    uv: np.ndarray
    """Texture coordinates, float32 (VT, 2)."""
    uv_faces: np.ndarray
    """Triangles, rows of ``uv``, (F, 3)."""
    jpeg: bytes
    """The texture, as it is sent."""
    edges: np.ndarray
    """Rows of ``uv`` between which the finer mesh has a vertex, (N, 2)."""
    fine_faces: np.ndarray
    """Triangles of the finer mesh, (4 F, 3): rows of ``uv``, then of ``edges``."""
    fine_colors: np.ndarray
    """Colours of its vertices as ``before_tone_mapping`` gives them, (VT + N, 3)."""

    @staticmethod
    def of(clip: Clip, texture: HeadTexture) -> PaintedHead:
        """Prepare a texture for a clip's head."""
        topology = clip.head.topology
        assert topology.uv is not None and topology.uv_faces is not None
        vertex_of_uv = np.zeros(len(topology.uv), np.int64)
        vertex_of_uv[topology.uv_faces.ravel()] = clip.head.faces.ravel()
        edges, fine_faces = split_edges(topology.uv_faces, len(topology.uv))
        fine_uv = np.concatenate((topology.uv, topology.uv[edges].mean(axis=1)))
        return PaintedHead(
            vertex_of_uv,
            topology.uv,
            topology.uv_faces,
            encode_texture(texture.rgb, FUSED_PX),
            edges,
            fine_faces,
            before_tone_mapping(colors_at(texture.rgb, fine_uv)),
        )

    def files(self, vertices: np.ndarray, faces: np.ndarray, is_moving: bool) -> PaintedFiles:
        """Return the head, vertices (V, 3) and triangles (F, 3), as it is sent."""
        at_uv = vertices[self.vertex_of_uv]
        fine = np.concatenate((at_uv, at_uv[self.edges].mean(axis=1)))
        base = coloured_glb(fine, self.fine_faces, self.fine_colors)
        if is_moving:
            return PaintedFiles(base)
        from flame.shading import vertex_normals

        lifted = at_uv + _DETAIL_LIFT_METRES * vertex_normals(vertices, faces)[self.vertex_of_uv]
        return PaintedFiles(base, textured_glb(lifted, self.uv_faces, self.uv, self.jpeg))


def split_edges(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Split triangles (F, 3) of ``count`` vertices in four, at the middles of their edges.

    Returns:
        the edges (N, 2), whose middles are vertices ``count``, ``count + 1`` …; triangles (4 F, 3).
    """
    ends = np.sort(np.stack((faces, np.roll(faces, -1, axis=1)), axis=-1).reshape(-1, 2), axis=1)
    edges, which = np.unique(ends, axis=0, return_inverse=True)
    middles = count + which.reshape(-1, 3)
    first, second, third = faces.T
    along, across, back = middles.T
    parts = ((first, along, back), (along, second, across), (back, across, third), (along, across, back))
    return edges, np.concatenate([np.stack(part, axis=1) for part in parts])


def colors_at(rgb: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return the texture's colours, float (N, 3) in [0, 1], averaged around texture coordinates (N, 2)."""
    from PIL import Image

    image = Image.fromarray(rgb)
    if len(rgb) > _COLOR_PX:
        image = image.resize((_COLOR_PX, _COLOR_PX), Image.Resampling.BOX)
    pixels = np.asarray(image)
    size = len(pixels)
    columns = np.clip((uv[:, 0] * size).astype(np.int64), 0, size - 1)
    rows = np.clip(((1 - uv[:, 1]) * size).astype(np.int64), 0, size - 1)
    return pixels[rows, columns] / 255.0


class Textures:
    """Get the textures of a clip in a thread of their own, once."""

    def __init__(self, clip: Clip, on_change: Callable[[], None]) -> None:
        """Get nothing yet; ``on_change`` is called, in the working thread, when there is something new to show."""
        self.problem: str | None = None
        """Why there are no textures, one line."""
        self.progress: float | None = None
        """Share of the work done, 0 to 1; None where nothing is going on."""
        self.heads: dict[int, PaintedHead] = {}
        """Painted heads, by person."""
        self._clip = clip
        self._on_change = on_change
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self.is_possible = clip.head.topology.uv is not None and clip.head.topology.uv_faces is not None
        """Whether this head can have a texture at all."""
        if not self.is_possible:
            self.problem = (
                "this head has no texture coordinates; for FLAME, put head_template.obj beside its file to have them"
            )

    def start(self) -> None:
        """Begin, if that has not happened yet."""
        with self._lock:
            if self._thread is None and self.problem is None and not self._is_closed:
                self.progress = 0.0
                self._thread = threading.Thread(target=self._run, name="viewer textures", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop soon."""
        self._is_closed = True

    def _run(self) -> None:
        from tracker.texture.stored import textures_of

        clip = self._clip
        try:
            for person, texture in enumerate(textures_of(clip.track, clip.folder, self._frames, FUSED_PX)):
                if texture is not None:
                    self.heads[person] = PaintedHead.of(clip, texture)
            if not self.heads:
                self.problem = "nobody is seen well enough for a texture"
        except _ClosedError:
            pass
        except UserError as error:
            self.problem = str(error)
        except Exception as error:  # whatever the fusion stumbles over, the viewer goes on
            log.warning("texture", exc_info=True)
            self.problem = f"no texture ({' '.join(str(error).split()) or type(error).__name__})"
        finally:
            self.progress = None
            self._on_change()

    def _frames(self) -> Iterator[tuple[int, Frame]]:
        """Yield position in the track and frame, in order, and tell how far the reading is.

        Raises:
            UserError: the clip is not there, is another one, or cannot be read.
        """
        from tracker.tracked_clip import clip_frames, find_clip

        track = self._clip.track
        told = time.monotonic()
        for position, frame in clip_frames(track, find_clip(track, self._clip.source)):
            if self._is_closed:
                raise _ClosedError
            yield position, frame
            self.progress = (position + 1) / len(track)
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                self._on_change()


class _ClosedError(Exception):
    """The viewer was closed meanwhile."""
