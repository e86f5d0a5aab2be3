"""Play a clip: one thread that decides which frame is on show, poses the heads and hands everything to the page."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from flame.errors import InputError
from tracker.viewer.clip import Clip
from tracker.viewer.clock import PlaybackClock
from tracker.viewer.controls import Edits
from tracker.viewer.framing import (
    Viewpoint,
    first_tracked_frame,
    free_view,
    head_centres,
    picture_depth,
    through_camera,
    world_from_cam,
)
from tracker.viewer.painting import PaintedFiles, before_tone_mapping, coloured_glb
from tracker.viewer.panel import Panel
from tracker.viewer.pictures import PictureReader
from tracker.viewer.scene import SURFACES, FrameView, Look, Stage
from tracker.viewer.status_text import person_color
from tracker.viewer.textures import Textures

if TYPE_CHECKING:
    from viser import ViserServer

log = logging.getLogger(__name__)

_TICK_SECONDS = 1 / 60
_PAINTED_SECONDS = 1 / 25
"""Shortest time between two painted frames: the page has to read each of them."""
_PICTURE_LAG_SECONDS = 0.5
"""While playing, the heads wait for their picture up to so long."""


@dataclass
class _Wishes:
    """Hold what users asked for; changed by the page's callbacks, read by the player's thread."""

    look: Look = field(default_factory=Look)
    visible: set[int] = field(default_factory=set)
    fixed_person: int | None = None
    edits: Edits = field(default_factory=Edits)
    version: int = 0


class Player:
    """Show a clip on a server's page; all methods may be called from any thread."""

    def __init__(self, server: ViserServer, clip: Clip) -> None:
        """Build the page and show the first frame with everybody in it."""
        self.clip = clip
        self._server = server
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._is_closed = False
        self._wishes = _Wishes(visible=set(range(clip.track.num_people)))
        self._clock = PlaybackClock(clip.track.pts_seconds)
        start = first_tracked_frame(clip.track)
        self._clock.seek(start, time.perf_counter())
        self._picture_depth = picture_depth(clip.track)
        centres = head_centres(clip.track, start)
        self.home: Viewpoint = free_view(centres)
        """Where the page looks from at first."""
        self._anchor = centres.mean(axis=0)
        self._pose = np.eye(4)
        self._shown: tuple[object, ...] | None = None
        self._shown_version = -1
        self._drawn_at = 0.0
        self._num_drawn = 0
        self._set_home()
        with server.atomic():
            self._stage = Stage(server.scene, clip.track.intrinsics, self._picture_depth)
            for person in range(clip.track.num_people):
                self._stage.add_head(person, clip.head, clip.rig(person).rest, person_color(person))
        self._reader = PictureReader(clip.track, clip.source, on_read=self._wake.set)
        self.textures = Textures(clip, self._refresh)
        with server.atomic():
            self.panel = Panel(server.gui, self)
        self._tick()
        self._thread = threading.Thread(target=self._run, name="viewer player", daemon=True)
        self._thread.start()

    # What users ask for ----------------------------------------------------------------------------------------------

    @property
    def frame(self) -> int:
        """Return the position of the frame on show."""
        with self._lock:
            return self._clock.frame_at(time.perf_counter())

    @property
    def is_playing(self) -> bool:
        """Tell whether the clip plays."""
        return self._clock.is_playing

    @property
    def look(self) -> Look:
        """Return how heads are drawn."""
        return self._wishes.look

    @property
    def edits(self) -> Edits:
        """Return which sliders were moved."""
        return self._wishes.edits

    @property
    def num_drawn(self) -> int:
        """Count the frames handed to the page so far."""
        return self._num_drawn

    def play(self) -> None:
        """Play from the frame on show."""
        with self._lock:
            self._clock.play(time.perf_counter())
        self._refresh()

    def pause(self) -> None:
        """Stand still."""
        with self._lock:
            self._clock.pause(time.perf_counter())
        self._refresh()

    def seek(self, frame: int) -> None:
        """Stand still at a frame; negative positions count from the end."""
        with self._lock:
            self._clock.pause(time.perf_counter())
            self._clock.seek(frame + len(self.clip.track) if frame < 0 else frame, time.perf_counter())
        self._refresh()

    def step(self, by: int) -> None:
        """Stand still some frames on, or back."""
        self.seek(min(max(self.frame + by, 0), len(self.clip.track) - 1))

    def set_speed(self, speed: float) -> None:
        """Play at this many clip seconds a second."""
        with self._lock:
            self._clock.set_speed(speed, time.perf_counter())

    def set_loop(self, loop: bool) -> None:
        """Begin again at the end, or stand still there."""
        self._clock.loop = loop

    def set_look(self, **changes: object) -> None:
        """Change how heads are drawn: fields of ``Look``.

        Raises:
            InputError: there is no such field or surface, or this head can have no texture.
        """
        surface = changes.get("surface", "clay")
        if surface not in SURFACES:
            raise InputError(f"surface '{surface}' is not known; allowed: {', '.join(SURFACES)}.")
        if surface == "texture" and not self.textures.is_possible:
            raise InputError(f"{self.textures.problem}.")
        unknown = set(changes) - set(Look.__dataclass_fields__)
        if unknown:
            raise InputError(f"looks have no {sorted(unknown)[0]}; they have: {', '.join(Look.__dataclass_fields__)}.")
        with self._lock:
            self._wishes.look = replace(self._wishes.look, **changes)  # type: ignore[arg-type]
            look = self._wishes.look
        self.panel.follow_look(look)
        if surface == "texture":
            self.textures.start()
        self._refresh()

    def set_visible(self, person: int, is_visible: bool) -> None:
        """Show or hide a person.

        Raises:
            InputError: there is no such person.
        """
        self._check_person(person)
        with self._lock:
            (self._wishes.visible.add if is_visible else self._wishes.visible.discard)(person)
        self._refresh()

    def fix_to(self, person: int | None) -> None:
        """Keep the camera still (None), or a person's head.

        Raises:
            InputError: there is no such person.
        """
        if person is not None:
            self._check_person(person)
        with self._lock:
            self._wishes.fixed_person = person
        self.panel.follow_space(person)
        self._refresh()

    def edit(self, name: str, value: float, person: int = 0) -> None:
        """Hold a control at a value in every frame: a coefficient, or a joint's angle in degrees (``jaw.x``).

        Raises:
            InputError: the head has no such control, or there is no such person.
        """
        self._check_person(person)
        if name not in self.clip.controls:
            known = ", ".join(list(self.clip.controls)[:6])
            raise InputError(f"this head has no control '{name}'; it has: {known} …")
        with self._lock:
            self.edits.set(person, self.clip.controls[name], value)
        self._refresh()

    def reset_edits(self, person: int | None = None) -> None:
        """Follow the track again."""
        with self._lock:
            self.edits.reset(person)
        self._refresh()

    def through_camera(self, aspect: float) -> Viewpoint:
        """Return the tracked camera's view for a window of this width over height."""
        depth = float(np.linalg.norm(head_centres(self.clip.track, self.frame).mean(axis=0)))
        return through_camera(self.clip.track.intrinsics, self._pose, aspect, depth)

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until all that was asked for is handed to the page; tell whether that was within so many seconds."""
        end = time.monotonic() + seconds
        while self._shown_version != self._wishes.version or self._stage.is_pending:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def close(self) -> None:
        """End the threads."""
        self._is_closed = True
        self._reader.close()
        self.textures.close()
        self._wake.set()
        self._thread.join(timeout=5)

    # The thread ------------------------------------------------------------------------------------------------------

    def _check_person(self, person: int) -> None:
        count = self.clip.track.num_people
        if not 0 <= person < count:
            raise InputError(f"there is no person {person}; the track has {count}, counted from 0.")

    def _refresh(self) -> None:
        """Have the frame on show drawn anew."""
        with self._lock:
            self._wishes.version += 1
        self._wake.set()

    def _set_home(self) -> None:
        camera = self._server.initial_camera
        camera.position, camera.look_at = self.home.position, self.home.look_at
        camera.up, camera.fov = self.home.up, self.home.fov_radians

    def _run(self) -> None:
        while not self._is_closed:
            is_busy = self.is_playing or self._stage.is_pending
            self._wake.wait(_TICK_SECONDS if is_busy else 1.0)
            self._wake.clear()
            if self._is_closed:
                return
            try:
                self._tick()
            except Exception:  # one bad frame must not end the page
                log.warning("a frame could not be shown", exc_info=True)

    def _tick(self) -> None:
        """Show what is due."""
        now = time.perf_counter()
        with self._lock:
            wanted = self._clock.frame_at(now)
            is_playing = self._clock.is_playing
            wishes = replace(self._wishes, visible=set(self._wishes.visible))
        self._reader.want(wanted)
        frame = self._frame_with_picture(wanted) if is_playing else wanted
        key = (frame, wishes.version, is_playing, self._reader.get(frame) is not None, self._reader.problem_of(frame))
        painted_due = now - self._drawn_at >= _PAINTED_SECONDS
        if key == self._shown:
            if self._stage.is_pending and painted_due:
                with self._server.atomic():
                    self._stage.settle()
            return
        is_painted = wishes.look.surface in ("texture", "normals")
        if is_painted and not painted_due:
            self._wake.set()
            time.sleep(0.002)
            return
        self._shown, self._drawn_at = key, now
        self._draw(frame, wishes, is_playing)
        self._num_drawn += 1
        self._shown_version = wishes.version

    def _frame_with_picture(self, wanted: int) -> int:
        """Return the last frame up to the wanted one whose picture is there; the wanted one where none is near."""
        times = self.clip.track.pts_seconds
        first = int(np.searchsorted(times, times[wanted] - _PICTURE_LAG_SECONDS))
        latest = self._reader.latest_between(first, wanted)
        return wanted if latest is None else latest

    def _draw(self, frame: int, wishes: _Wishes, is_playing: bool) -> None:
        """Pose the heads of a frame and hand everything to the page, at once."""
        heads = {}
        for person in sorted(wishes.visible):
            vertices = self.clip.vertices(frame, person, wishes.edits)
            if vertices is not None:
                heads[person] = vertices
        pose = world_from_cam(self.clip.track, frame, wishes.fixed_person, self._anchor)
        self._pose = self._pose if pose is None else pose
        picture, problem = self._reader.get(frame), self._reader.problem_of(frame)
        view = FrameView(heads, self._pose, picture, problem is None)
        painted = self._paint(heads, wishes.look, is_playing)
        with self._server.atomic():
            self._stage.show(view, wishes.look, painted)
            self.panel.update(frame, picture, problem, is_playing)

    def _paint(self, heads: dict[int, np.ndarray], look: Look, is_playing: bool) -> dict[int, PaintedFiles]:
        """Return the heads that show a texture or normals as glTF files."""
        faces = self.clip.head.faces
        if look.surface == "texture":
            ready = self.textures.heads
            return {
                person: ready[person].files(vertices, faces, is_playing)
                for person, vertices in heads.items()
                if person in ready
            }
        if look.surface == "normals":
            from flame.shading import normals_to_rgb, vertex_normals

            light = {
                person: before_tone_mapping(normals_to_rgb(vertex_normals(vertices, faces)))
                for person, vertices in heads.items()
            }
            return {
                person: PaintedFiles(coloured_glb(heads[person], faces, colors)) for person, colors in light.items()
            }
        return {}
