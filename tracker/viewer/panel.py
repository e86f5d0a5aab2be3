"""The page's panels: clip and timeline on the left, views and sliders on the right."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tracker.viewer.controls import Control
from tracker.viewer.posing import FaceParameters
from tracker.viewer.status_text import frame_text, status_strip

if TYPE_CHECKING:
    from viser import ClientHandle, GuiApi, GuiEvent, GuiSliderHandle

    from tracker.viewer.player import Player
    from tracker.viewer.scene import Look

_PICTURE_SIDE_PX = 480
_SLOW_SECONDS = 0.1
"""While playing, texts and the timeline follow at this interval."""
_SLIDER_SECONDS = 0.4
"""While playing, sliders follow at this interval."""
_SPEEDS = ("0.1", "0.25", "0.5", "1", "2", "4")
_SURFACE_LABELS = {"Clay": "clay", "Texture": "texture", "Normals as colours": "normals", "Hidden": "none"}
_CAMERA_FIXED = "Camera fixed"
_TITLE = "Face track"


class Panel:
    """Own the controls of one clip."""

    def __init__(self, gui: GuiApi, player: Player) -> None:
        """Build the panels."""
        self._gui = gui
        self._player = player
        self._track = player.clip.track
        self._updated_at = {"slow": 0.0, "sliders": 0.0}
        self._person = 0
        self._shown_picture: np.ndarray | None = None
        self._sliders: dict[str, GuiSliderHandle] = {}
        gui.configure_theme(show_logo=False, show_share_button=False, control_width="medium")
        gui.set_panel_label(_TITLE)
        self._build_clip_panel()
        self._build_view_folder()
        if self._track.num_people > 1:
            self._build_people_folder()
        self._build_expression_folder()
        self._add_hotkeys()
        gui.main_panel.dock_right()
        gui.main_panel.set_width(310)

    def update(self, frame: int, picture: np.ndarray | None, problem: str | None, is_playing: bool) -> None:
        """Show a frame's picture, status, place on the timeline and slider positions; less often while playing."""
        now = time.perf_counter()
        if picture is not None and picture is not self._shown_picture:
            self._picture.image = _small(picture)
            self._shown_picture = picture
        self._picture.visible = problem is None
        if not is_playing or now - self._updated_at["slow"] > _SLOW_SECONDS:
            self._updated_at["slow"] = now
            self._status.content = frame_text(self._track, frame, problem)
            self._timeline.value = frame
            self._play.label = "Pause" if is_playing else "Play"
            self._update_texture_note()
        if not is_playing or now - self._updated_at["sliders"] > _SLIDER_SECONDS:
            self._updated_at["sliders"] = now
            self._update_sliders(frame)

    # Clip and timeline -----------------------------------------------------------------------------------------------

    def _build_clip_panel(self) -> None:
        gui, player = self._gui, self._player
        panel = gui.add_panel()
        with panel.add_tab(f"Clip: {player.clip.name}"):
            self._picture = gui.add_image(np.full((2, 2, 3), 200, np.uint8), format="jpeg", jpeg_quality=85)
            last = max(len(self._track) - 1, 1)
            self._timeline = gui.add_slider(
                "Frame",
                min=0,
                max=last,
                step=1,
                initial_value=min(player.frame, last),
                hint="Drag to scrub. Arrow keys: one frame; Home and End: first and last.",
            )
            gui.add_html(status_strip(self._track))
            self._play = gui.add_button("Play", hint="Space bar")
            steps = gui.add_button_group("Step", ("first", "-1", "+1", "last"))
            speed = gui.add_dropdown(
                "Speed", _SPEEDS, initial_value="1", hint="1 is real time; frames are left out rather than slowed down"
            )
            loop = gui.add_checkbox("Loop", True)
            self._status = gui.add_html("")
        panel.dock_left()
        panel.set_width(330)

        self._on_client_update(self._timeline, lambda value: player.seek(int(value)))
        self._play.on_click(lambda _: self._toggle())
        moves = {"first": lambda: player.seek(0), "last": lambda: player.seek(-1)}
        moves |= {"-1": lambda: player.step(-1), "+1": lambda: player.step(1)}
        steps.on_click(lambda _: moves[steps.value]())
        speed.on_update(lambda _: player.set_speed(float(speed.value)))
        loop.on_update(lambda _: player.set_loop(loop.value))

    def _toggle(self) -> None:
        (self._player.pause if self._player.is_playing else self._player.play)()

    # Views -----------------------------------------------------------------------------------------------------------

    def _build_view_folder(self) -> None:
        gui, player = self._gui, self._player
        with gui.add_folder("View"):
            through = gui.add_button(
                "Look through the camera", hint="T: the heads lie on the picture as they were tracked"
            )
            free = gui.add_button("Look from the side", hint="F: back to where the page began. Drag to turn")
            space = gui.add_dropdown(
                "Space", self._space_names(), hint="What stands still: the camera, or somebody's head"
            )
            self._surface = gui.add_dropdown(
                "Surface", self._surface_names(), hint="Normals: red is right, green up, blue towards the camera"
            )
            self._texture_note = gui.add_html("", visible=False)
            self._texture_bar = gui.add_progress_bar(0.0, visible=False)
            self._wire = gui.add_checkbox("Wireframe", player.look.wireframe, hint="W: the mesh's triangles")
            opacity = gui.add_slider(
                "Opacity", min=0.0, max=1.0, step=0.05, initial_value=1.0, hint="Of clay: less lets the picture through"
            )
            picture = gui.add_checkbox("Picture behind the heads", True, hint="P")
            frustum = gui.add_checkbox("Camera frustum", True)
        through.on_click(lambda event: self._look_through(event.client))
        free.on_click(lambda event: self._look_freely(event.client))
        self._on_client_update(space, lambda value: player.fix_to(self._fixed_person(value)))
        self._space, self._picture_box, self._frustum, self._opacity = space, picture, frustum, opacity
        self._looks_follow(self._surface, lambda value: {"surface": _SURFACE_LABELS[value]})
        self._looks_follow(self._wire, lambda value: {"wireframe": value})
        self._looks_follow(opacity, lambda value: {"opacity": float(value)})
        self._looks_follow(picture, lambda value: {"picture": value})
        self._looks_follow(frustum, lambda value: {"frustum": value})

    def _looks_follow(self, control: Any, changes: Callable[[Any], dict[str, Any]]) -> None:
        self._on_client_update(control, lambda value: self._player.set_look(**changes(value)))

    @staticmethod
    def _on_client_update(control: Any, act: Callable[[Any], object]) -> None:
        """Act on what a user sets, not on what the player sets itself: that comes without a client."""

        @control.on_update
        def _(event: GuiEvent) -> None:
            if event.client is not None:
                act(control.value)

    def _surface_names(self) -> tuple[str, ...]:
        """Return the surfaces that this head can have."""
        is_possible = self._player.textures.is_possible
        return tuple(name for name, value in _SURFACE_LABELS.items() if value != "texture" or is_possible)

    def follow_look(self, look: Look) -> None:
        """Set the controls to how heads are drawn."""
        names = {value: name for name, value in _SURFACE_LABELS.items()}
        self._surface.value = names[look.surface]
        self._wire.value, self._opacity.value = look.wireframe, look.opacity
        self._picture_box.value, self._frustum.value = look.picture, look.frustum

    def follow_space(self, person: int | None) -> None:
        """Set the control to what stands still."""
        self._space.value = self._space_names()[0 if person is None else person + 1]

    def _space_names(self) -> tuple[str, ...]:
        if self._track.num_people == 1:
            return (_CAMERA_FIXED, "Head fixed")
        return (_CAMERA_FIXED, *(f"Head of person {person} fixed" for person in range(self._track.num_people)))

    def _fixed_person(self, name: str) -> int | None:
        place = self._space_names().index(name)
        return None if place == 0 else place - 1

    def _look_through(self, client: ClientHandle | None) -> None:
        if client is not None:
            self._player.through_camera(client.camera.aspect).apply(client.camera)

    def _look_freely(self, client: ClientHandle | None) -> None:
        if client is not None:
            self._player.home.apply(client.camera)

    def _update_texture_note(self) -> None:
        textures = self._player.textures
        is_wanted = self._player.look.surface == "texture"
        note = textures.problem if is_wanted or not textures.is_possible else None
        if is_wanted and textures.progress is not None:
            note = "fusing a texture from the clip …"
            self._texture_bar.value = 100 * textures.progress
        self._texture_bar.visible = is_wanted and textures.progress is not None
        self._texture_note.visible = note is not None
        self._texture_note.content = f'<div style="font-size:.8em;padding:0 .8em">{html.escape(note or "")}</div>'

    # People and sliders ----------------------------------------------------------------------------------------------

    def _build_people_folder(self) -> None:
        with self._gui.add_folder("People"):
            for person in range(self._track.num_people):
                box = self._gui.add_checkbox(f"Show person {person}", True)
                box.on_update(lambda event, person=person: self._player.set_visible(person, bool(event.target.value)))

    def _build_expression_folder(self) -> None:
        gui, player = self._gui, self._player
        with gui.add_folder("Expression and joints"):
            self._edited = gui.add_html("")
            if self._track.num_people > 1:
                names = tuple(f"person {person}" for person in range(self._track.num_people))
                whose = gui.add_dropdown("Sliders of", names)
                whose.on_update(lambda _: self._select(names.index(whose.value)))
            reset = gui.add_button("Follow the track again", hint="R: forget all slider changes of this person")
            reset.on_click(lambda _: player.reset_edits(self._person))
            folders: dict[str, list[Control]] = {}
            for control in player.clip.controls.values():
                folders.setdefault(control.folder, []).append(control)
            for place, (name, controls) in enumerate(folders.items()):
                with gui.add_folder(name, expand_by_default=place < 1):
                    for control in controls:
                        self._add_slider(control)

    def _add_slider(self, control: Control) -> None:
        slider = self._gui.add_slider(
            control.label,
            min=control.low,
            max=control.high,
            step=0.5 if control.is_angle else 0.01,
            initial_value=min(max(0.0, control.low), control.high),
            hint=control.hint,
        )
        self._sliders[control.name] = slider
        self._on_client_update(slider, lambda value: self._player.edit(control.name, float(value), self._person))

    def _select(self, person: int) -> None:
        self._person = person
        self._update_sliders(self._player.frame)

    def _update_sliders(self, frame: int) -> None:
        """Move the sliders to where the head is, and list those that were moved by hand."""
        controls = self._player.clip.controls
        if self._track.is_tracked[self._person, frame]:
            tracked = FaceParameters.of(self._track, frame, self._person)
            shown = self._player.edits.apply(self._person, tracked, controls)
            for name, slider in self._sliders.items():
                control = controls[name]
                slider.value = float(np.clip(control.value_in(shown), control.low, control.high))
        names = self._player.edits.names(self._person)
        text = "Sliders show the tracked frame. Move one: it holds its value in every frame."
        if names:
            text = f"<b>Held by hand:</b> {html.escape(', '.join(names))}"
        self._edited.content = f'<div style="font-size:.8em;padding:0 .8em">{text}</div>'

    # Keys ------------------------------------------------------------------------------------------------------------

    def _add_hotkeys(self) -> None:
        gui, player = self._gui, self._player
        for label, key, action in (
            ("Play or pause", "space", lambda _: self._toggle()),
            ("Next frame", "arrowright", lambda _: player.step(1)),
            ("Previous frame", "arrowleft", lambda _: player.step(-1)),
            ("First frame", "home", lambda _: player.seek(0)),
            ("Last frame", "end", lambda _: player.seek(-1)),
            ("Look through the camera", "T", lambda event: self._look_through(event.client)),
            ("Look from the side", "F", lambda event: self._look_freely(event.client)),
            ("Wireframe", "W", lambda _: player.set_look(wireframe=not player.look.wireframe)),
            ("Picture behind the heads", "P", lambda _: player.set_look(picture=not player.look.picture)),
            ("Follow the track again", "R", lambda _: player.reset_edits(self._person)),
        ):
            # viser's type of keys is not public.
            gui.add_command(label, hotkey=cast(Any, key)).on_trigger(action)


def _small(picture: np.ndarray) -> np.ndarray:
    """Return a picture for the panel, its longer side at most ``_PICTURE_SIDE_PX``."""
    height, width = picture.shape[:2]
    factor = _PICTURE_SIDE_PX / max(height, width)
    if factor >= 1:
        return picture
    import cv2

    return cv2.resize(
        picture, (max(round(width * factor), 1), max(round(height * factor), 1)), interpolation=cv2.INTER_AREA
    )
