"""Turn tracked frames into pictures: the fitted heads over the original, or side by side with what was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from flame.rotation_kernels import rotation_matrix
from flame.shading import PERSON_COLORS, HeadLook, head_look
from priors.placed_maps import with_camera_normals
from tracker.clip import Cast, Toolkit, TrackedFrame
from tracker.overlay import DrawnHead, draw_heads, draw_label, panels
from tracker.state import FaceState
from tracker.status import FrameStatus

if TYPE_CHECKING:
    from flame.model import ShapedHead
    from priors.evidence import DenseMaps
    from tracker.api import Options

_JOINTS = ("neck", "jaw", "left_eye", "right_eye")


class Painter:
    """Draw the frames of one clip."""

    def __init__(self, toolkit: Toolkit, cast: Cast, options: Options) -> None:
        """Prepare every person's head at rest and its colours."""
        self._cast = cast
        self._options = options
        self._toolkit = toolkit
        self._faces = toolkit.head.faces.numpy()
        self._heads = [_shaped(toolkit, person.shape) for person in cast.people]
        self._looks = [_look(toolkit, index) for index in range(len(cast.people))]
        self._focus_px: float | None = None

    def paint(self, tracked: TrackedFrame) -> np.ndarray:
        """Return the picture of a frame, RGB uint8: the original's size, or five panels of its height."""
        heads = [
            DrawnHead(posed_vertices(shaped, face.state), look, _label(face.status))
            for shaped, look, face in zip(self._heads, self._looks, tracked.faces, strict=True)
            if face.state is not None
        ]
        image = tracked.frame.image
        if self._options.panels:
            picture = self._panels(image, heads, tracked)
        else:
            opacity = self._options.settings.overlay.opacity
            picture = draw_heads(image, heads, self._faces, self._cast.intrinsics, alpha=opacity)
        if not heads:
            picture = np.ascontiguousarray(picture)
            draw_label(picture, min(face.status for face in tracked.faces).label, (8.0, 8.0))
        return picture

    def _panels(self, image: np.ndarray, heads: list[DrawnHead], tracked: TrackedFrame) -> np.ndarray:
        """Return input, predicted normals, seen points, overlay and mesh side by side."""
        height, width = image.shape[:2]
        seen = [evidence for evidence in tracked.evidence if evidence is not None]
        normals = np.zeros((height, width, 3), np.float32)
        for face, evidence in zip(tracked.faces, tracked.evidence, strict=True):
            if evidence is None or face.state is None:
                continue
            maps = with_camera_normals(self._toolkit.prior.dense(evidence, height, width), self._cast.intrinsics)
            normals[maps.mask] = _normals_cam(maps, face.state)[maps.mask]
        if self._focus_px is None and seen:
            self._focus_px = seen[0].region.center_px[0]
        points_px = np.concatenate([evidence.points_px for evidence in seen]) if seen else np.zeros((0, 2))
        return panels(
            image,
            heads,
            self._faces,
            self._cast.intrinsics,
            normals_cam=normals,
            points_px=points_px,
            focus_px=self._focus_px,
        )


def _shaped(toolkit: Toolkit, shape: np.ndarray) -> ShapedHead:
    """Return a person's head at rest."""
    return toolkit.head.rest(torch.as_tensor(shape, dtype=toolkit.head.dtype))


def _look(toolkit: Toolkit, person: int) -> HeadLook:
    """Return a person's colours."""
    head = toolkit.head
    regions = head.topology.regions if head.topology is not None else {}
    color = PERSON_COLORS[person % len(PERSON_COLORS)]
    masks = {name: np.asarray(mask) for name, mask in regions.items()}
    return head_look(head.template.numpy(), head.faces.numpy(), masks, color)


def posed_vertices(shaped: ShapedHead, state: FaceState) -> np.ndarray:
    """Return the head's vertices in camera space, float64 (V, 3), metres."""
    dtype = shaped.model.dtype
    joints = {
        name: torch.as_tensor(state.joint_angles[3 * index : 3 * index + 3], dtype=dtype)
        for index, name in enumerate(_JOINTS)
    }
    with torch.no_grad():
        posed = shaped.pose(expression=torch.as_tensor(state.expression, dtype=dtype), **joints)
    return state.points_cam(posed.vertices.numpy().astype(np.float64))


def _normals_cam(maps: DenseMaps, state: FaceState) -> np.ndarray:
    """Return the normals (H, W, 3) of maps in the camera's axes; those of head space turn with head and neck."""
    if maps.normal_space != "head":
        return maps.normals
    cam_from_neck = state.rotation @ rotation_matrix(np.ascontiguousarray(state.joint_angles[:3]))
    return maps.normals @ cam_from_neck.T


def _label(status: FrameStatus) -> str:
    """Return the tag of a head: nothing where all is well."""
    return "" if status is FrameStatus.OK else status.label
