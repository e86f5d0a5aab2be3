"""nerfstudio data set: pictures, cameras around a head that keeps still, and points on it.

``transforms.json`` is what nerfstudio's default data parser reads (``nerfstudio.data.dataparsers``, and "Data
conventions" in its documentation): intrinsics for all frames (``camera_model`` OPENCV without distortion), and per
frame ``file_path``, ``mask_path`` (black is ignored) and ``transform_matrix``, the camera in the world with OpenGL's
axes (+x right, +y up, looking along -z). Pixel coordinates follow the corner rule, as here: its cameras shoot rays
through ``pixel + 0.5`` (``Cameras.get_image_coords``).

The world is the head at rest (``tracker.export.head_cameras``) in nerfstudio's orientation, +z up: x the person's left,
y out of the back of the head, z out of the crown, metres; the face looks along -y. ``applied_transform`` is this world
from head space, so nerfstudio's exports that undo its transforms come back in head space. ``points.ply``
(``ply_file_path``) holds the seen vertices with their colours in the same world; splatfacto starts from them.
``orientation_override`` keeps the axes. Frames without the person are left out.
"""

from __future__ import annotations

import json

import numpy as np

from flame.camera import OPENGL_AXES
from tracker.export.head_cameras import IMAGES, MASKS, HeadScene, scene_notes, write_scenes
from tracker.export.job import ExportJob, Written
from tracker.export.mesh_files import ply_bytes

WORLD_FROM_HEAD = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""nerfstudio's +z up from head space's +y up."""

_CAM_FROM_OPENGL = np.diag((*OPENGL_AXES, 1.0))
_POINTS = "points.ply"
_COMMAND = "--center-method none --auto-scale-poses False"


def write(job: ExportJob) -> Written:
    """Write a data set per person.

    Raises:
        UserError: the clip or the matting cannot be used.
    """
    scenes = write_scenes(job)
    for scene in scenes:
        (scene.folder / "transforms.json").write_text(json.dumps(_transforms(job, scene), indent=1) + "\n")
        points = scene.points.positions @ WORLD_FROM_HEAD[:3, :3].T
        (scene.folder / _POINTS).write_bytes(ply_bytes(points, colors=scene.points.colors))
    note = f"to keep metres and the head in the middle: ns-train METHOD --data FOLDER nerfstudio-data {_COMMAND}"
    return Written(tuple(scene.folder / "transforms.json" for scene in scenes), (*scene_notes(job.track, scenes), note))


def _transforms(job: ExportJob, scene: HeadScene) -> dict[str, object]:
    """Return what ``transforms.json`` holds."""
    camera = job.track.intrinsics
    world_from_cam = WORLD_FROM_HEAD @ np.linalg.inv(scene.cam_from_skull) @ _CAM_FROM_OPENGL
    return {
        "camera_model": "OPENCV",
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "w": camera.width,
        "h": camera.height,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "orientation_override": "none",
        "applied_transform": WORLD_FROM_HEAD[:3].tolist(),
        "ply_file_path": _POINTS,
        "frames": [
            {"file_path": f"{IMAGES}/{name}", "mask_path": f"{MASKS}/{name}", "transform_matrix": matrix.tolist()}
            for name, matrix in zip(scene.names, world_from_cam, strict=True)
        ],
    }
