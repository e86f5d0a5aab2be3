"""Import a GLB file into Blender and store where its meshes' vertices are at given times.

    python blender_vertices.py FILE.glb FRAMES_PER_SECOND SECONDS,SECONDS,… RESULT.npz

``RESULT.npz`` gets per mesh object ``<name>/vertices`` (times, V, 3), evaluated by Blender with its modifiers, in the
axes of glTF, and ``<name>/map`` (V,), the attribute ``_VERTEX``; and ``told``, names and camera. Needs ``bpy``.
"""

from __future__ import annotations

import json
import math
import sys

import bpy
import numpy as np

_GLTF_FROM_BLENDER = np.array(((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)))


def main(glb: str, frames_per_second: float, seconds: list[float], result: str) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    # Blender's clock is a whole number over a real one; the importer multiplies the two.
    scene.render.fps, scene.render.fps_base = round(frames_per_second), 1.0
    bpy.ops.import_scene.gltf(filepath=glb)
    meshes = [thing for thing in scene.objects if thing.type == "MESH" and "_VERTEX" in thing.data.attributes]
    arrays: dict[str, np.ndarray] = {}
    for thing in meshes:
        arrays[f"{thing.name}/map"] = _numbers(thing.data.attributes["_VERTEX"].data, "value", 1)[:, 0]
    positions: dict[str, list[np.ndarray]] = {thing.name: [] for thing in meshes}
    for time in seconds:
        whole = math.floor(time * scene.render.fps)
        scene.frame_set(whole, subframe=time * scene.render.fps - whole)
        graph = bpy.context.evaluated_depsgraph_get()
        for thing in meshes:
            evaluated = thing.evaluated_get(graph)
            local = _numbers(evaluated.data.vertices, "co", 3)
            world = np.array(evaluated.matrix_world)
            positions[thing.name].append((local @ world[:3, :3].T + world[:3, 3]) @ _GLTF_FROM_BLENDER.T)
    for name, stack in positions.items():
        arrays[f"{name}/vertices"] = np.stack(stack)
    np.savez(result, told=json.dumps(_told(scene, meshes)), **arrays)


def _numbers(items: bpy.types.bpy_prop_collection, name: str, width: int) -> np.ndarray:
    """Return a property of all items, float64 (items, width)."""
    values = np.empty(len(items) * width, np.float32)
    items.foreach_get(name, values)
    return values.reshape(-1, width).astype(np.float64)


def _told(scene: bpy.types.Scene, meshes: list[bpy.types.Object]) -> dict[str, object]:
    """Return names and the camera, as Blender has them."""
    camera = next(thing for thing in scene.objects if thing.type == "CAMERA")
    return {
        "shape_keys": {thing.name: [key.name for key in thing.data.shape_keys.key_blocks][1:] for thing in meshes},
        "bones": sorted(bone.name for thing in scene.objects if thing.type == "ARMATURE" for bone in thing.data.bones),
        "images": [image.name for image in bpy.data.images if image.has_data or image.packed_file],
        "camera_yfov": camera.data.angle_y,
        "camera_place": list(camera.matrix_world.translation),
        "camera_ahead": [-row[2] for row in camera.matrix_world][:3],
        "actions": sorted(action.name for action in bpy.data.actions),
    }


if __name__ == "__main__":
    glb_path, rate, times, result_path = sys.argv[1:]
    main(glb_path, float(rate), [float(time) for time in times.split(",") if time], result_path)
