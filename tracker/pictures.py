"""Turn tracked frames into pictures: the fitted heads over the original, or side by side with what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from configs.schema import EnergyConfig
from flame.rotation_kernels import rotation_matrix
from flame.shading import PERSON_COLORS, HeadLook, head_look
from priors.placed_maps import with_camera_normals
from tracker.clip import Cast, Toolkit, TrackedFrame
from tracker.overlay import OVERLAY_ALPHA, DrawnHead, Layout, draw_heads, draw_label, panels
from tracker.reference_problem import look_up_vertices
from tracker.state import FaceState
from tracker.status import FrameStatus

if TYPE_CHECKING:
    from configs.schema import Config
    from flame.camera import Intrinsics
    from flame.model import HeadModel, ShapedHead
    from priors.evidence import DenseMaps, FaceEvidence, Prior
    from tracker.api import Options
    from tracker.result import Track

_JOINTS = ("neck", "jaw", "left_eye", "right_eye")


@dataclass(frozen=True)
class PictureOptions:
    """Say how pictures look."""

    opacity: float = OVERLAY_ALPHA
    """Opacity of heads over the original."""
    panels: bool = False
    """Show what was seen, too, beside the overlay."""
    layout: Layout = "row"
    """How panels lie beside each other."""
    uv_max_distance: float = EnergyConfig().uv_max_distance
    """Distance in texture space within which a network's map shows a vertex."""

    @staticmethod
    def of(config: Config, *, panels: bool, layout: Layout) -> PictureOptions:
        """Return the options that go with a run's configuration."""
        return PictureOptions(config.overlay.opacity, panels, layout, config.energy.uv_max_distance)


@dataclass(frozen=True)
class ShownFace:
    """Hold what a picture shows of one person in one frame."""

    status: FrameStatus
    state: FaceState | None
    """None where the person is not tracked."""
    evidence: FaceEvidence | None = None
    """What the prior saw, for panels."""


class Painter:
    """Draw the frames of one clip."""

    def __init__(
        self,
        head: HeadModel,
        identities: Sequence[np.ndarray],
        intrinsics: Intrinsics,
        options: PictureOptions | None = None,
        prior: Prior | None = None,
    ) -> None:
        """Prepare every person's head at rest, identities (I,), and its colours; panels need the prior."""
        self._head = head
        self._faces = head.faces.numpy()
        self._intrinsics = intrinsics
        self._options = options or PictureOptions()
        self._prior = prior
        self._heads = [head.rest(torch.as_tensor(identity, dtype=head.dtype)) for identity in identities]
        self._looks = [person_look(head, index) for index in range(len(identities))]
        self._focus_px: float | None = None

    @staticmethod
    def of_run(toolkit: Toolkit, cast: Cast, options: Options) -> Painter:
        """Return the painter of a clip that is being tracked."""
        settings = PictureOptions.of(options.settings, panels=options.panels, layout=options.layout)
        identities = [person.shape for person in cast.people]
        return Painter(toolkit.head, identities, cast.intrinsics, settings, toolkit.prior)

    def paint(self, tracked: TrackedFrame) -> np.ndarray:
        """Return the picture of a frame that has just been tracked; see ``picture``."""
        shown = [
            ShownFace(face.status, face.state, evidence)
            for face, evidence in zip(tracked.faces, tracked.evidence, strict=True)
        ]
        return self.picture(tracked.frame.image, shown)

    def picture(self, image: np.ndarray, shown: Sequence[ShownFace]) -> np.ndarray:
        """Return the picture of a frame, RGB uint8: the image's size, or panels.

        ``shown`` has one entry per person. Where nobody is tracked the picture says why.
        """
        heads = [
            DrawnHead(self.vertices(person, face.state), self._looks[person], _label(face.status))
            for person, face in enumerate(shown)
            if face.state is not None
        ]
        note = "" if heads else min(face.status for face in shown).label
        if self._options.panels:
            return self._panels(image, heads, shown, note)
        picture = draw_heads(image, heads, self._faces, self._intrinsics, alpha=self._options.opacity)
        if note:
            draw_label(picture, note, (8.0, 8.0))
        return picture

    def vertices(self, person: int, state: FaceState) -> np.ndarray:
        """Return a person's head in camera space, float64 (V, 3), metres."""
        return posed_vertices(self._heads[person], state)

    def _panels(self, image: np.ndarray, heads: list[DrawnHead], shown: Sequence[ShownFace], note: str) -> np.ndarray:
        """Return input, predicted normals, seen points, overlay and mesh beside each other."""
        height, width = image.shape[:2]
        normals = np.zeros((height, width, 3), np.float32)
        points_px = [np.zeros((0, 2))]
        for face in shown:
            if face.evidence is None:
                continue
            if self._focus_px is None:
                self._focus_px = face.evidence.region.center_px[0]
            maps = None
            if face.state is not None and self._prior is not None:
                maps = with_camera_normals(self._prior.dense(face.evidence, height, width), self._intrinsics)
                normals[maps.mask] = _normals_cam(maps, face.state)[maps.mask]
            points_px.append(self._seen_points(face.evidence, maps))
        return panels(
            image,
            heads,
            self._faces,
            self._intrinsics,
            normals_cam=normals,
            points_px=np.concatenate(points_px),
            focus_px=self._focus_px,
            alpha=self._options.opacity,
            layout=self._options.layout,
            note=note,
        )

    def _seen_points(self, evidence: FaceEvidence, maps: DenseMaps | None) -> np.ndarray:
        """Return where a prior sees the surface, pixels (N, 2): a network's map shows vertices, others landmarks."""
        topology = self._head.topology
        has_network = evidence.picture is not None and topology is not None and topology.uv is not None
        if maps is None or not has_network or not np.isfinite(maps.uv).any():
            return evidence.points_px
        return look_up_vertices(self._head, maps, self._options.uv_max_distance).points_px


def shown_faces(
    track: Track, frame: int, evidence: Sequence[FaceEvidence | None] | None = None
) -> tuple[ShownFace, ...]:
    """Return what there is to show of everybody at a position of a track."""
    evidence = evidence or (None,) * track.num_people
    return tuple(
        ShownFace(FrameStatus(int(track.status[person, frame])), _state(track, frame, person), evidence[person])
        for person in range(track.num_people)
    )


def _state(track: Track, frame: int, person: int) -> FaceState | None:
    """Return pose, joints and expression of one person at a position of a track; None where not tracked."""
    if not track.is_tracked[person, frame]:
        return None
    at = (person, frame)
    return FaceState(
        rotation=rotation_matrix(track.rotation[at]),
        translation=track.translation[at],
        joint_angles=np.concatenate([getattr(track, name)[at] for name in _JOINTS]).astype(np.float64),
        expression=track.expression[at].astype(np.float64),
    )


def person_look(head: HeadModel, person: int) -> HeadLook:
    """Return a person's colours."""
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
