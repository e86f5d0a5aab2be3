"""What data sets for head avatars share: a camera with a central principal point, matted pictures, files, splits.

Readers of these data sets take the principal point for the middle of the picture and one focal length for both axes.
`View` is such a camera at the place of the clip's own: the picture is padded (`padded_view`), or seen by the camera
turned towards the head (`square_view`), which is exact: a turned camera sees the same light at other pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from flame.camera import Intrinsics
from flame.errors import InputError
from priors.face_crop import ray_from_cam
from priors.head_matting import HeadLocator, HeadPlace, MattingContext, find_matting, head_alpha, neighbours
from tracker.export.job import ExportJob

PNG_LEVEL = 3
"""Compression of pictures: higher levels take several times longer for a few per cent."""

_JPEG_QUALITY = 98
_MARGIN_TOP, _MARGIN = 0.4, 0.25
"""Room for hair above and around the mesh, over the larger side of its bounding box."""
_WHOLE_PX = 1e-3
"""Principal points this near to whole or half pixels count as there."""
_WRITERS = 3
_MOST_WAITING = 24
"""Pictures that may wait to be written: a bound on memory."""


@dataclass(frozen=True, eq=False)
class View:
    """A camera at the place of the clip's: its principal point is the middle of its picture, its pixels are square."""

    intrinsics: Intrinsics
    """The camera."""
    view_from_cam: np.ndarray
    """Rotation from the clip's camera space (3, 3)."""
    view_from_image: np.ndarray
    """Homography from pixels of the clip to those of the view, float64 (3, 3)."""
    image_size: tuple[int, int]
    """Width and height of the clip."""

    @cached_property
    def is_clip(self) -> bool:
        """Return whether the view's picture is the clip's own."""
        size = (self.intrinsics.width, self.intrinsics.height)
        return size == self.image_size and np.allclose(self.view_from_image, np.eye(3), atol=1e-9)

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Return the view's picture of one of the clip, RGB uint8 (H, W, 3); black outside."""
        return self._warp(image, cv2.INTER_CUBIC)

    def draw_alpha(self, alpha: np.ndarray) -> np.ndarray:
        """Return the view's opacity of one of the clip, float32 (H, W); 0 outside."""
        return self._warp(alpha, cv2.INTER_LINEAR)

    def _warp(self, image: np.ndarray, interpolation: int) -> np.ndarray:
        """Return an image of the clip as the view sees it; what shrinks is averaged."""
        if self.is_clip:
            return image
        size = (self.intrinsics.width, self.intrinsics.height)
        factor = min(8, max(1, math.ceil(1 / self.zoom - 0.25)))
        homography = np.diag((factor, factor, 1.0)) @ self.view_from_image
        # The library counts from the first pixel's centre.
        shift = np.array(((1, 0, 0.5), (0, 1, 0.5), (0, 0, 1)))
        fine = (size[0] * factor, size[1] * factor)
        drawn = cv2.warpPerspective(image, np.linalg.inv(shift) @ homography @ shift, fine, flags=interpolation)
        return drawn if factor == 1 else cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)

    @cached_property
    def zoom(self) -> float:
        """Return how many pixels of the view are one of the clip, along a line at its middle."""
        middle = np.array((self.intrinsics.width / 2, self.intrinsics.height / 2, 1.0))
        image_from_view = np.linalg.inv(self.view_from_image)
        points = [image_from_view @ (middle + offset) for offset in ((0, 0, 0), (1, 0, 0), (0, 1, 0))]
        start, right, down = (point[:2] / point[2] for point in points)
        return 1 / max(math.hypot(*(right - start)), math.hypot(*(down - start)))


def padded_view(camera: Intrinsics) -> View:
    """Return the view of the whole picture, padded until the principal point is in its middle."""
    focal = max(camera.fx, camera.fy)
    scale_x, scale_y = focal / camera.fx, focal / camera.fy
    width, left = _padding(camera.cx * scale_x, camera.width * scale_x)
    height, top = _padding(camera.cy * scale_y, camera.height * scale_y)
    homography = np.array(((scale_x, 0, left), (0, scale_y, top), (0, 0, 1.0)))
    view = Intrinsics(focal, focal, width / 2, height / 2, width, height)
    return View(view, np.eye(3), homography, (camera.width, camera.height))


def _padding(center: float, length: float) -> tuple[int, float]:
    """Return the length, whole pixels, of the shortest side with this centre that covers ``length``; where it begins.

    What is moved by whole pixels is not resampled: sides may be odd.
    """
    need = 2 * max(center, length - center)
    size = round(2 * center) % 2 + 2 * math.ceil((need - round(2 * center) % 2) / 2 - _WHOLE_PX)
    shift = size / 2 - center
    return size, float(round(shift)) if abs(shift - round(shift)) < _WHOLE_PX else shift


def square_view(camera: Intrinsics, boxes_px: np.ndarray, size_px: int) -> View:
    """Return a square view that looks at the middle of bounding boxes (N, 4; left, top, right, bottom), pixels."""
    corners = boxes_px[:, ((0, 1), (2, 1), (2, 3), (0, 3))].reshape(-1, 2)
    rays = np.column_stack(((corners - (camera.cx, camera.cy)) / (camera.fx, camera.fy), np.ones(len(corners))))
    middle = (boxes_px[:, :2].min(axis=0) + boxes_px[:, 2:].max(axis=0)) / 2
    turn = ray_from_cam(camera, (float(middle[0]), float(middle[1])))
    turned = rays @ turn.T
    reach = float(np.abs(turned[:, :2] / turned[:, 2:]).max())
    focal = size_px / 2 / reach
    view = Intrinsics(focal, focal, size_px / 2, size_px / 2, size_px, size_px)
    homography = view.matrix @ turn @ np.linalg.inv(camera.matrix)
    return View(view, turn, homography / homography[2, 2], (camera.width, camera.height))


def head_boxes(job: ExportJob, person: int) -> np.ndarray:
    """Return a head's bounding boxes in the clip with room for hair, float64 (N, 4): left, top, right, bottom."""
    track = job.track
    camera, boxes = track.intrinsics, []
    positions = np.flatnonzero(track.is_tracked[person])
    for position in job.steps(positions, len(positions), "where the head is"):
        points = np.asarray(track.vertices(int(position), person), np.float64)
        points = points[points[:, 2] > 0.05]
        if not len(points):
            continue
        points_px = points[:, :2] / points[:, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
        low, high = points_px.min(axis=0), points_px.max(axis=0)
        room = float((high - low).max())
        boxes.append((*(low - (_MARGIN * room, _MARGIN_TOP * room)), *(high + _MARGIN * room)))
    wanted = np.array(boxes or [(0.0, 0.0, camera.width, camera.height)], np.float64)
    # What the clip does not show need not be in the view, unless it shows nothing.
    shown = np.clip(wanted, 0, (camera.width, camera.height) * 2)
    is_shown = (shown[:, 2:] > shown[:, :2]).all(axis=1)
    return np.where(is_shown[:, None], shown, wanted)


@dataclass(frozen=True, eq=False)
class HeadPicture:
    """Show one person in one frame, as the person's view sees it."""

    person: int
    """Which person."""
    number: int
    """How many frames of the person came before."""
    position: int
    """Position of the frame in the track."""
    image: np.ndarray
    """RGB, uint8 (h, w, 3)."""
    alpha: np.ndarray
    """Opacity of the head, float32 (h, w)."""
    verts_view: np.ndarray
    """Vertices in the view's camera space, float64 (V, 3), metres."""


def head_pictures(job: ExportJob, views: Mapping[int, View], label: str) -> Iterator[HeadPicture]:
    """Yield the people's pictures, frame by frame, matted as the options say; frames without a person are left out.

    Raises:
        UserError: the clip or the matting cannot be used.
    """
    track = job.track
    matting, locate = find_matting(job.options.matting), HeadLocator(track.head_model)
    counts = dict.fromkeys(views, 0)
    for position, frame in job.steps(job.frames(), len(track), label):
        seen = [person for person in range(track.num_people) if track.is_tracked[person, position]]
        verts_cam = {person: track.vertices(position, person).astype(np.float64) for person in seen}
        ups = {person: track.cam_from_head(position, person)[:3, 1] for person in seen}
        places: list[HeadPlace | None] = [None] * track.num_people
        for person in seen:
            places[person] = locate(verts_cam[person], ups[person], track.intrinsics)
        drawn: dict[int, np.ndarray] = {}
        for person in (each for each in seen if each in views):
            view, place = views[person], places[person]
            if place is None:
                continue
            if id(view) not in drawn:
                drawn[id(view)] = view.draw(frame.image)
            # The matting sees the whole frame, not the view: black around a picture misleads networks.
            context = MattingContext(position, person, place, neighbours(places, person))
            alpha = view.draw_alpha(head_alpha(matting, frame.image, context))
            verts_view = verts_cam[person] @ view.view_from_cam.T
            yield HeadPicture(person, counts[person], position, drawn[id(view)], alpha, verts_view)
            counts[person] += 1


class PictureWriter:
    """Write pictures in threads, a bounded number at a time; leaving the ``with`` block waits for all of them."""

    def __init__(self) -> None:
        """Start without threads; they come with the first picture."""
        self._pool = ThreadPoolExecutor(_WRITERS, "picture")
        self._waiting: list[Future[None]] = []

    def __enter__(self) -> PictureWriter:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all pictures; raise what kept one from being written."""
        self._pool.shutdown(cancel_futures=error is not None)
        if error is None:
            for each in self._waiting:
                each.result()

    def add(self, path: Path, picture: np.ndarray) -> None:
        """Write a PNG or a JPEG: grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4); arrays must not change later.

        Raises:
            OSError: an earlier picture could not be written.
        """
        while len(self._waiting) >= _MOST_WAITING:
            self._waiting.pop(0).result()
        self._waiting.append(self._pool.submit(_write_picture, path, picture))


def _write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    settings = (cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL, cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
    is_written, data = cv2.imencode(path.suffix, picture, settings)
    if not is_written:
        raise InputError(f"the picture {path.name} cannot be compressed")
    path.write_bytes(data.tobytes())


def over_white(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return a picture, RGB uint8 (H, W, 3), with what has no opacity replaced by white."""
    weight = cv2.merge((as_bytes(alpha),) * 3)
    return 255 - cv2.multiply(255 - image, weight, scale=1 / 255)


def as_bytes(alpha: np.ndarray) -> np.ndarray:
    """Return an opacity in [0, 1] as uint8."""
    return cv2.convertScaleAbs(alpha, alpha=255)
