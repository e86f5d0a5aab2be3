"""Import a USD file into Blender and store where its meshes' vertices are at given time codes.

    python blender_usd_vertices.py FILE.usdc CODE,CODE,… RESULT.npz

``RESULT.npz`` gets ``Person_N`` (codes, V, 3) for each person, evaluated by Blender with its modifiers, in USD's axes,
and ``window`` (2, 2), the picture's left bottom and right top corner on the plane one metre before Blender's camera.
Needs ``bpy``.
"""

from __future__ import annotations

import math
import sys

import bpy
import numpy as np

_USD_FROM_BLENDER = np.array(((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)))


def main(usd: str, codes: list[float], result: str) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.wm.usd_import(filepath=usd)
    scene = bpy.context.scene
    camera = next(thing for thing in scene.objects if thing.type == "CAMERA")
    width, height = (camera.data[name] for name in ("imageWidth", "imageHeight"))
    scene.render.resolution_x, scene.render.resolution_y = width, height
    corners = np.array([list(corner) for corner in camera.data.view_frame(scene=scene)])
    corners = corners[:, :2] / -corners[:, 2:]
    people: dict[str, list[np.ndarray]] = {}
    for code in codes:
        scene.frame_set(math.floor(code), subframe=code - math.floor(code))
        graph = bpy.context.evaluated_depsgraph_get()
        for thing in (thing for thing in scene.objects if thing.type == "MESH"):
            evaluated = thing.evaluated_get(graph)
            local = np.empty(3 * len(evaluated.data.vertices), np.float32)
            evaluated.data.vertices.foreach_get("co", local)
            world = np.array(evaluated.matrix_world)
            vertices = local.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3]
            people.setdefault(thing.parent.name, []).append(vertices @ _USD_FROM_BLENDER.T)
    stacked = {name: np.stack(vertices) for name, vertices in people.items()}
    np.savez(result, window=np.stack((corners.min(axis=0), corners.max(axis=0))), **stacked)


if __name__ == "__main__":
    usd_path, times, result_path = sys.argv[1:]
    main(usd_path, [float(time) for time in times.split(",")], result_path)
