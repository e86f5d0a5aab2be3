"""What the page shows in space: heads, the picture behind them, the camera's frustum, lights.

The world is the camera's space, OpenCV's, with -y up; or, seen fixed to a head, everything is moved so that this head
stands still. All that moves with the camera hangs on one node, ``/space``.

Vertices of plain meshes are updated in place. viser's page takes textures and colours by vertex only in glTF files, and
while it reads a new one shows nothing in its place; so each painted head has two nodes, one on show and one that is
read in the meantime, and a frame in these looks comes on show one update later, all of it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from flame.camera import Intrinsics
from tracker.viewer.eyes import IRIS_METRES, PUPIL_METRES, EyeDisc

if TYPE_CHECKING:
    from viser import GlbHandle, MeshHandle, SceneApi

    from flame.head_files import HeadArrays
    from tracker.viewer.painting import PaintedFiles

Surface = Literal["clay", "texture", "normals", "none"]
SURFACES: tuple[Surface, ...] = ("clay", "texture", "normals", "none")

_LEFT_EYE, _RIGHT_EYE = 3, 4
_WHITE, _IRIS, _PUPIL, _LINE = (232, 232, 230), (86, 70, 58), (14, 13, 13), (28, 34, 44)
_FRUSTUM_COLOR = (70, 92, 122)
_WIRE_LIFT_METRES = 0.0002
_WIRE_OPACITY = 0.5
_INSIDE = ("inner_mouth", "tongue", "eye_sockets")
"""Regions whose edges are not drawn: seen through the face they are but a dark spot."""
_CAMERA_METRES = 0.09
"""Length of the camera's frustum as it is drawn; the picture stands further away."""
_EMPTY_PICTURE = np.full((2, 2, 3), 200, np.uint8)
# Towards the lights, camera axes (x right, y down, z forward), with colour and intensity.
_LIGHTS = (
    ("key", (-0.55, -0.62, -0.75), (255, 247, 236), 2.6),
    ("fill", (0.90, -0.05, -0.45), (226, 236, 255), 0.8),
    ("rim", (0.35, -0.55, 0.90), (255, 255, 255), 1.3),
)


@dataclass(frozen=True)
class Look:
    """Say how heads are drawn."""

    surface: Surface = "clay"
    """``clay``, ``texture``, ``normals`` (as colours) or ``none``."""
    wireframe: bool = False
    """Draw the triangles' edges on top."""
    opacity: float = 1.0
    """Opacity of clay; 0 is invisible."""
    picture: bool = True
    """Show the picture behind the heads."""
    frustum: bool = True
    """Show the camera's frustum."""


@dataclass(frozen=True, eq=False)
class FrameView:
    """Hold one frame as it is to be shown."""

    heads: Mapping[int, np.ndarray]
    """Vertices of the people to show, camera space, float32 (V, 3), by person."""
    world_from_cam: np.ndarray
    """Where the camera's space stands in the world, (4, 4)."""
    picture: np.ndarray | None
    """Picture behind the heads, RGB; None keeps the one that is there."""
    has_picture: bool = True
    """Whether there is any picture to show."""


class Stage:
    """Own the nodes of one clip."""

    def __init__(self, scene: SceneApi, intrinsics: Intrinsics, picture_depth: float) -> None:
        """Set up lights, camera and an empty picture ``picture_depth`` metres before the camera."""
        self._scene = scene
        self._heads: dict[int, _HeadNodes] = {}
        self._shown_picture: np.ndarray | None = None
        self._staged: tuple[FrameView, Look, tuple[int, ...]] | None = None
        scene.set_up_direction("-y")
        scene.configure_default_lights(enabled=False)
        scene.configure_environment_map(None)
        scene.set_background_image(_background(), format="png")
        for name, direction, color, intensity in _LIGHTS:
            place = tuple(10.0 * np.divide(direction, np.linalg.norm(direction)))
            scene.add_light_directional(f"/lights/{name}", color=color, intensity=intensity, position=place)
        scene.add_light_hemisphere(
            "/lights/sky", sky_color=(214, 224, 240), ground_color=(120, 108, 98), intensity=0.95, position=(0, -1, 0)
        )
        self._space = scene.add_frame("/space", show_axes=False)
        width, height = intrinsics.width, intrinsics.height
        per_x, per_y = picture_depth / intrinsics.fx, picture_depth / intrinsics.fy
        centre = ((width / 2 - intrinsics.cx) * per_x, (height / 2 - intrinsics.cy) * per_y, picture_depth)
        self._picture = scene.add_image(
            "/space/picture",
            _EMPTY_PICTURE,
            width * per_x,
            height * per_y,
            format="jpeg",
            jpeg_quality=85,
            position=centre,
            cast_shadow=False,
            receive_shadow=False,
            visible=False,
        )
        left, top = -intrinsics.cx * per_x, -intrinsics.cy * per_y
        self._frustum = scene.add_line_segments(
            "/space/camera",
            _frustum_segments(left, top, left + width * per_x, top + height * per_y, picture_depth),
            colors=_FRUSTUM_COLOR,
            thickness=1.5,
            thickness_units="screen",
        )

    def add_head(self, person: int, head: HeadArrays, rest: np.ndarray, color: tuple[float, float, float]) -> None:
        """Add a person's head, rest vertices (V, 3), of a colour (sRGB, 0 to 1); hidden until it is shown."""
        self._heads[person] = _HeadNodes(self._scene, f"/space/person_{person}", _HeadParts.of(head, rest), color)

    @property
    def is_pending(self) -> bool:
        """Tell whether a frame is being read by the page and waits to be shown with ``settle``."""
        return self._staged is not None

    def show(self, view: FrameView, look: Look, painted: Mapping[int, PaintedFiles]) -> None:
        """Show a frame; with ``painted`` heads (by person) it comes on show with the next call, or ``settle``."""
        if painted:
            self.settle()
            for person, files in painted.items():
                self._heads[person].stage(files)
            self._staged = view, look, tuple(painted)
        else:
            self._staged = None
            self._present(view, look, ())

    def settle(self) -> None:
        """Show the frame that was waiting."""
        if self._staged is not None:
            staged, self._staged = self._staged, None
            self._present(*staged)

    def _present(self, view: FrameView, look: Look, painted: tuple[int, ...]) -> None:
        pose = _wxyz(view.world_from_cam[:3, :3])
        self._space.wxyz, self._space.position = pose, view.world_from_cam[:3, 3]
        for person, nodes in self._heads.items():
            is_painted = person in painted
            shown = look if is_painted or look.surface in ("clay", "none") else replace(look, surface="clay")
            nodes.present(view.heads.get(person), shown)
        if view.picture is not None and view.picture is not self._shown_picture:
            self._picture.image = view.picture
            self._shown_picture = view.picture
        self._picture.visible = look.picture and view.has_picture
        self._frustum.visible = look.frustum


@dataclass(frozen=True, eq=False)
class _HeadParts:
    """Split a head: skin, eyeballs, irises and pupils."""

    rest: np.ndarray
    skin_faces: np.ndarray
    ball_faces: np.ndarray
    irises: tuple[EyeDisc, ...]
    pupils: tuple[EyeDisc, ...]
    wire_faces: np.ndarray

    @staticmethod
    def of(head: HeadArrays, rest: np.ndarray) -> _HeadParts:
        balls = [head.skin_weights[:, joint] > 0.5 for joint in (_LEFT_EYE, _RIGHT_EYE)]
        is_ball = (balls[0] | balls[1])[head.faces].all(axis=1)
        # Where heads are half transparent the front has to be drawn first: it hides what is inside.
        order = np.argsort(-rest[head.faces].mean(axis=1)[:, 2], kind="stable")
        faces, is_ball = head.faces.astype(np.uint32)[order], is_ball[order]
        discs = {
            radius: tuple(disc for ball in balls if (disc := EyeDisc.on(rest, head.faces, ball, radius)) is not None)
            for radius in (IRIS_METRES, PUPIL_METRES)
        }
        regions = head.topology.regions
        hidden = [regions[name] for name in _INSIDE if name in regions]
        is_inside = np.logical_or.reduce(hidden)[faces].all(axis=1) if hidden else np.zeros(len(faces), bool)
        return _HeadParts(
            rest, faces[~is_ball], faces[is_ball], discs[IRIS_METRES], discs[PUPIL_METRES], faces[~is_inside & ~is_ball]
        )


class _HeadNodes:
    """Own the nodes of one head."""

    def __init__(self, scene: SceneApi, name: str, parts: _HeadParts, color: tuple[float, float, float]) -> None:
        self._scene, self._name, self._parts = scene, name, parts
        self._solids = [self._mesh("skin", parts.skin_faces, tuple(round(255 * part) for part in color))]
        if len(parts.ball_faces):
            self._solids.append(self._mesh("eyes", parts.ball_faces, _WHITE))
        self._discs: list[tuple[MeshHandle, EyeDisc, int]] = []
        for layer, (kind, discs, paint) in enumerate(
            (("iris", parts.irises, _IRIS), ("pupil", parts.pupils, _PUPIL)), start=1
        ):
            for side, disc in enumerate(discs):
                points = disc.at(parts.rest, layer)
                handle = self._mesh(f"{kind}_{side}", disc.faces, paint, points)
                self._discs.append((handle, disc, layer))
        self._wire: MeshHandle | None = None
        self._painted: list[GlbHandle] = []
        self._detail: GlbHandle | None = None
        self._staged_detail: bytes | None = None
        self._front = 0

    def _mesh(
        self, part: str, faces: np.ndarray, color: tuple[int, ...], vertices: np.ndarray | None = None
    ) -> MeshHandle:
        return self._scene.add_mesh_simple(
            f"{self._name}/{part}",
            self._parts.rest if vertices is None else vertices,
            faces,
            color=(color[0], color[1], color[2]),
            wireframe=part == "wire",
            # The inside of the neck and the mouth is seen, too.
            side="double",
            cast_shadow=False,
            receive_shadow=False,
            visible=False,
        )

    def stage(self, files: PaintedFiles) -> None:
        """Let the page read a painted head that is shown later."""
        if len(self._painted) < 2:
            self._painted.append(self._glb(f"painted_{len(self._painted)}", files.base))
            self._front = len(self._painted) % 2
        else:
            self._painted[1 - self._front].glb_data = files.base
        self._staged_detail = files.detail

    def _glb(self, part: str, content: bytes) -> GlbHandle:
        return self._scene.add_glb(
            f"{self._name}/{part}", content, cast_shadow=False, receive_shadow=False, visible=False
        )

    def present(self, vertices: np.ndarray | None, look: Look) -> None:
        """Show vertices in camera space, or nothing; a painted surface is the one that was staged last."""
        is_solid = vertices is not None and look.surface == "clay"
        is_painted = vertices is not None and look.surface in ("texture", "normals") and bool(self._painted)
        if is_painted:
            self._front = 1 - self._front if len(self._painted) == 2 else 0
        for slot, node in enumerate(self._painted):
            node.visible = is_painted and slot == self._front
        self._show_detail(is_painted)
        opacity = None if look.opacity >= 1 else look.opacity
        for handle in self._solids:
            self._set(handle, is_solid, vertices, opacity)
        for handle, disc, layer in self._discs:
            points = disc.at(vertices, layer) if is_solid and vertices is not None else None
            self._set(handle, is_solid, points, opacity)
        self._show_wire(vertices, look)

    def _show_detail(self, is_painted: bool) -> None:
        """Lay what was staged over the painted head, as soon as the page has it."""
        if is_painted and self._staged_detail is not None:
            if self._detail is None:
                self._detail = self._glb("detail", self._staged_detail)
            self._detail.glb_data = self._staged_detail
        if self._detail is not None:
            self._detail.visible = is_painted and self._staged_detail is not None

    def _show_wire(self, vertices: np.ndarray | None, look: Look) -> None:
        is_shown = vertices is not None and look.wireframe
        if is_shown and self._wire is None:
            self._wire = self._mesh("wire", self._parts.wire_faces, _LINE)
        if self._wire is None:
            return
        lifted = None
        if is_shown and vertices is not None:
            from flame.shading import vertex_normals

            normals = vertex_normals(vertices, self._parts.wire_faces)
            lifted = (vertices + _WIRE_LIFT_METRES * normals).astype(np.float32)
        self._set(self._wire, is_shown, lifted, _WIRE_OPACITY)

    @staticmethod
    def _set(handle: MeshHandle, is_shown: bool, vertices: np.ndarray | None, opacity: float | None) -> None:
        if is_shown and vertices is not None:
            handle.vertices = vertices
            handle.opacity = opacity
            # Of what is half transparent the page draws the inner sides first, where they would shine through.
            handle.side = "double" if opacity is None else "front"
        handle.visible = is_shown


def _frustum_segments(left: float, top: float, right: float, bottom: float, depth: float) -> np.ndarray:
    """Return the lines of a small camera, and of the picture's frame at ``depth``, (12, 2, 3)."""
    corners = np.array([(left, top, depth), (right, top, depth), (right, bottom, depth), (left, bottom, depth)])
    near = corners * (_CAMERA_METRES / depth)
    rays = np.stack((np.zeros((4, 3)), near), axis=1)
    frames = [np.stack((each, np.roll(each, -1, axis=0)), axis=1) for each in (near, corners)]
    return np.concatenate((rays, *frames)).astype(np.float32)


def _background() -> np.ndarray:
    """Return a neutral background, a little lighter above, RGB uint8."""
    rows = np.linspace(236, 205, 256)[:, None, None]
    return np.broadcast_to(np.rint(rows), (256, 2, 3)).astype(np.uint8)


def _wxyz(rotation: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (w, x, y, z) of a rotation (3, 3)."""
    from viser.transforms import SO3

    return SO3.from_matrix(rotation).wxyz
