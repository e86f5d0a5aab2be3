"""The COLMAP model, read again by a reader written from its documentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from tests.tracker.export.flame_reader import clip_pixels
from tests.tracker.export.test_nerfstudio import LENS, MATTING, dotted
from tracker.export import Exported, export
from tracker.export.colmap import quaternion_from_matrix
from tracker.result import Track


@dataclass(frozen=True, eq=False)
class ReadImage:
    rotation: np.ndarray
    translation: np.ndarray
    camera: int
    name: str
    places: np.ndarray
    points: list[int]


@dataclass(frozen=True, eq=False)
class Model:
    cameras: dict[int, list[str]]
    images: dict[int, ReadImage]
    positions: dict[int, np.ndarray]
    colors: dict[int, np.ndarray]
    errors: dict[int, float]
    tracks: dict[int, list[tuple[int, int]]]

    def project(self, number: int, points: np.ndarray) -> np.ndarray:
        """Return pixels (N, 2) of points of the world, PINHOLE: fx fy cx cy."""
        image = self.images[number]
        model, _width, _height, fx, fy, cx, cy = self.cameras[image.camera]
        assert model == "PINHOLE"
        x, y, z = (points @ image.rotation.T + image.translation).T
        return np.stack((float(fx) * x / z + float(cx), float(fy) * y / z + float(cy)), axis=1)


def from_hamilton(w: float, x: float, y: float, z: float) -> np.ndarray:
    """Return the rotation of a unit quaternion, Hamilton's convention."""
    assert w * w + x * x + y * y + z * z == pytest.approx(1, abs=1e-12)
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
    )


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="ascii").split("\n")[:-1] if not line.startswith("#")]


def read_model(folder: Path) -> Model:
    cameras = {int(line.split()[0]): line.split()[1:] for line in lines_of(folder / "cameras.txt")}
    lines = lines_of(folder / "images.txt")
    images = {}
    for head, tail in zip(lines[::2], lines[1::2], strict=True):
        number, *pose, camera, name = head.split()
        values = [float(value) for value in pose]
        table = np.array(tail.split(), float).reshape(-1, 3)
        points = table[:, 2].astype(int).tolist()
        images[int(number)] = ReadImage(
            from_hamilton(*values[:4]), np.array(values[4:]), int(camera), name, table[:, :2], points
        )
    rows = [line.split() for line in lines_of(folder / "points3D.txt")]
    ids = [int(row[0]) for row in rows]
    places = [np.array(row[8:], int).reshape(-1, 2).tolist() for row in rows]
    return Model(
        cameras=cameras,
        images=images,
        positions={number: np.array(row[1:4], float) for number, row in zip(ids, rows, strict=True)},
        colors={number: np.array(row[4:7], int) for number, row in zip(ids, rows, strict=True)},
        errors={number: float(row[7]) for number, row in zip(ids, rows, strict=True)},
        tracks={number: [tuple(pair) for pair in place] for number, place in zip(ids, places, strict=True)},
    )


def exported(tmp_path: Path, track: Track) -> Exported:
    return export(track, ["colmap"], tmp_path / "export", matting=MATTING)[0]


@pytest.fixture(scope="module")
def stiff(tmp_path_factory: pytest.TempPathFactory) -> tuple[Track, Path]:
    folder = tmp_path_factory.mktemp("stiff")
    track = dotted(folder, is_stiff=True, frames=4, lost=((0, 2),))
    return track, exported(folder, track).folder


def test_pictures_and_camera_are_the_clips(stiff: tuple[Track, Path]):
    track, folder = stiff
    model = read_model(folder / "sparse/0")
    assert list(model.cameras) == [1]
    kind, *numbers = model.cameras[1]
    assert kind == "PINHOLE"
    assert [float(number) for number in numbers] == [LENS.width, LENS.height, LENS.fx, LENS.fy, LENS.cx, LENS.cy]
    assert [image.name for image in model.images.values()] == [f"frame_0000{frame}.png" for frame in (0, 1, 3)]
    assert list(model.images) == [1, 2, 3]
    for image in model.images.values():
        assert cv2.imread(str(folder / "images" / image.name)).shape == (LENS.height, LENS.width, 3)
        mask = cv2.imread(str(folder / "masks" / f"{image.name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (LENS.height, LENS.width)
    assert len(track) == 4


def test_points_lie_where_the_still_face_is_seen(stiff: tuple[Track, Path]):
    track, folder = stiff
    model = read_model(folder / "sparse/0")
    assert len(model.positions) > 300
    is_head = track.head_model.skin_weights.numpy()[:, 1] > 0.999
    for frame, (number, image) in zip((0, 1, 3), model.images.items(), strict=True):
        positions = np.array([model.positions[point] for point in image.points])
        # What the file says of a picture is where vertices are in it.
        away, nearest = KDTree(clip_pixels(track, frame, 0)).query(image.places)
        assert away.max() < 1e-3
        still = is_head[nearest]
        off = np.abs(model.project(number, positions) - image.places).max(axis=1)
        assert off[still].max() < 0.1
        assert np.median(off) < 0.02


def test_tracks_and_places_name_each_other(stiff: tuple[Track, Path]):
    _, folder = stiff
    model = read_model(folder / "sparse/0")
    said = {
        (number, place, point) for number, image in model.images.items() for place, point in enumerate(image.points)
    }
    tracked = {(number, place, point) for point, track in model.tracks.items() for number, place in track}
    assert said == tracked
    for point, track in model.tracks.items():
        offs = [
            np.linalg.norm(model.project(number, model.positions[point][None])[0] - model.images[number].places[place])
            for number, place in track
        ]
        assert np.mean(offs) == pytest.approx(model.errors[point], abs=2e-3)


def test_colours_are_those_of_the_pictures(stiff: tuple[Track, Path]):
    _, folder = stiff
    model = read_model(folder / "sparse/0")
    sums = dict.fromkeys(model.positions, np.zeros(3))
    for image in model.images.values():
        picture = cv2.imread(str(folder / "images" / image.name))[..., ::-1].astype(float)
        for (x, y), point in zip(image.places, image.points, strict=True):
            sums[point] = sums[point] + picture[int(y), int(x)]
    for point, total in sums.items():
        assert np.abs(total / len(model.tracks[point]) - model.colors[point]).max() <= 0.5 + 1e-9


def test_every_person_has_a_model(tmp_path: Path):
    track = dotted(tmp_path, people=2, frames=2, lost=((1, 0),))
    done = exported(tmp_path, track)
    models = [read_model(path / "sparse/0") for path in done.paths]
    assert [len(model.images) for model in models] == [2, 1]
    assert done.notes[0] == "person 1: 1 frames without a face are left out"


def test_quaternions_are_hamiltons_also_at_half_turns():
    turns = Rotation.random(50, random_state=0).as_matrix()
    turns = np.concatenate((turns, np.diag((1.0, -1, -1))[None], np.diag((-1.0, -1, 1))[None]))
    for quaternion, turn in zip(quaternion_from_matrix(turns), turns, strict=True):
        assert quaternion[0] >= 0
        np.testing.assert_allclose(from_hamilton(*quaternion), turn, atol=1e-12)
