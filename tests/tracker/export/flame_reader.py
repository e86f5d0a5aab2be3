"""FLAME as other programs compute it from a file, written from its equations alone; and clips with dots on heads."""

from __future__ import annotations

import pickle
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import trimesh

from tracker.result import Track

DOT_PX = 2.5


@lru_cache(maxsize=2)
def flame_file(path: Path) -> dict[str, np.ndarray]:
    """Read a file that a test has just written, as FLAME's readers do."""
    with path.open("rb") as stream:
        return {
            name: np.asarray(each.todense() if hasattr(each, "todense") else each)
            for name, each in pickle.load(stream, encoding="latin1").items()
        }


def rotation(axis_angle: np.ndarray) -> np.ndarray:
    """Return the matrix of a rotation vector, by way of a unit quaternion."""
    angle = float(np.linalg.norm(axis_angle))
    x, y, z = np.sin(angle / 2) * np.asarray(axis_angle, float) / max(angle, 1e-12)
    w = np.cos(angle / 2)
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
    )


def from_six(six: np.ndarray) -> np.ndarray:
    """Return the matrix whose first two rows are given, by Gram and Schmidt."""
    first = six[:3] / np.linalg.norm(six[:3])
    second = six[3:] - (first @ six[3:]) * first
    second /= np.linalg.norm(second)
    return np.stack((first, second, np.cross(first, second)))


def flame_vertices(
    data: dict[str, np.ndarray], shape: np.ndarray, expr: np.ndarray, turns: list[np.ndarray], translation: np.ndarray
) -> np.ndarray:
    """Return vertices (V, 3) for 300 + 100 codes and five joint rotations (3, 3): root, neck, jaw, left, right eye."""
    rest = data["v_template"] + data["shapedirs"] @ np.concatenate((shape, expr))
    joints = data["J_regressor"] @ rest
    features = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    rest = rest + data["posedirs"] @ features
    parents = data["kintree_table"][0].astype(np.int64)
    chain: list[np.ndarray] = []
    for joint, turn in enumerate(turns):
        local = np.eye(4)
        local[:3, :3] = turn
        local[:3, 3] = joints[joint] - (joints[parents[joint]] if joint else 0)
        chain.append(local if joint == 0 else chain[parents[joint]] @ local)
    vertices = np.zeros_like(rest)
    for joint, matrix in enumerate(chain):
        moved = (rest - joints[joint]) @ matrix[:3, :3].T + matrix[:3, 3]
        vertices += data["weights"][:, joint : joint + 1] * moved
    return vertices + translation


def clip_pixels(track: Track, position: int, person: int) -> np.ndarray:
    """Return where a head's vertices are in the clip (V, 2)."""
    x, y, z = track.vertices(position, person).astype(np.float64).T
    lens = track.intrinsics
    return np.stack((lens.fx * x / z + lens.cx, lens.fy * y / z + lens.cy), axis=1)


def dotted_vertices(track: Track) -> list[int]:
    """Return the vertices with a red, a green and a blue dot: of the front of the face, well apart."""
    template = track.head_model.template.numpy()
    size = np.ptp(template[:, 1])
    wanted = ((0.0, 0.1, 1.0), (0.15, 0.25, 1.0), (-0.15, -0.05, 1.0))
    front = np.flatnonzero(template[:, 2] > template[:, 2].max() - 0.25 * size)
    middle = template.mean(axis=0)[:2]
    return [int(front[np.abs(template[front, :2] - middle - size * np.array(at[:2])).sum(1).argmin()]) for at in wanted]


def write_dotted_clip(track: Track, folder: Path, person: int = 0) -> None:
    """Write a picture per frame of the track: dark, with three dots where vertices of the head are."""
    folder.mkdir()
    lens = track.intrinsics
    columns, rows = np.meshgrid(np.arange(lens.width) + 0.5, np.arange(lens.height) + 0.5)
    for position in range(len(track)):
        image = np.zeros((lens.height, lens.width, 3))
        if track.is_tracked[person, position]:
            points = clip_pixels(track, position, person)[dotted_vertices(track)]
            for channel, (x, y) in enumerate(points):
                away = (columns - x) ** 2 + (rows - y) ** 2
                image[..., channel] = 255 * np.exp(-away / (2 * DOT_PX**2))
        cv2.imwrite(str(folder / f"{position:05d}.png"), np.round(image[..., ::-1]).astype(np.uint8))


def dot_position(channel: np.ndarray, near: np.ndarray, reach: int) -> np.ndarray:
    """Return the centre of the light near a point (2,), pixels."""
    left, top = np.round(near - reach).astype(int)
    part = channel[top : top + 2 * reach, left : left + 2 * reach].astype(np.float64)
    rows, columns = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
    return np.array((left + (columns * part).sum() / part.sum(), top + (rows * part).sum() / part.sum()))


def everything(image: np.ndarray, _context: object) -> np.ndarray:
    """Cut nothing out."""
    return np.ones(image.shape[:2], np.float32)


def read_mesh(path: Path) -> trimesh.Trimesh:
    """Read a mesh with its vertices in their order."""
    mesh = trimesh.load(path, process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh
