"""Write a track as one GLB file (glTF 2.0): every person's animated head, and the camera.

Written from the glTF 2.0 specification (Khronos, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html): §3.5
nodes, §3.7 meshes and skins, §3.9 materials, §3.10 cameras, §3.11 animations.

What is in it:

- *Axes*: glTF's, +y up, and the camera at the origin looks along -z. That is OpenCV's camera space turned by half
  about x. Metres, seconds from the track's first frame.
- *Per person*: a node with the joints ``root``, ``neck``, ``jaw``, ``left_eye`` and ``right_eye`` (``person_0_root`` …
  where there are several people) and a node with the mesh, which is skinned to them. The mesh is in head space.
  Expressions and pose correctives are morph targets, named in the mesh's ``extras.targetNames`` as Blender and three.js
  read it; skinning and morph targets together give ``Track.vertices``.
- *Vertices*: the first V rows are ours in our order, copies for seams of the texture follow. The attribute ``_VERTEX``
  holds the number of our vertex for each row.
- *Animation* ``track``: linear keys at the times of the frames; lost frames hold the last tracked pose, those before
  the first tracked one hold that. The file's static pose is the first frame's; a track of one frame has nothing else.
- *Camera*: vertical field of view and aspect ratio; ``extras`` holds the exact intrinsics in pixels.

Blender's importer (seen in io_scene_gltf2 of Blender 5.0, ``animation_weight.py``) limits each shape key's slider, and
with it the animation, to [0, 1] and the first key of each animation. Weights outside (pose correctives, FLAME's
expressions) would be cut off. So two more animations, ``lowest_weights`` and ``highest_weights``, of one key each, tell
it the ranges where that matters. They are addressed by the extension KHR_animation_pointer, so that programs that play
all animations at once but do not know the extension, such as three.js, are not disturbed.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame.camera import OPENGL_AXES
from flame.errors import InputError
from tracker.export.glb_buffers import GlbBuffers
from tracker.export.glb_mesh import head_primitive, jpeg, painted, split_at_seams
from tracker.export.job import Written
from tracker.export.rig import HeadMotion, RiggedHead, head_motion, rig_head, unbroken_quaternions

if TYPE_CHECKING:
    from flame.camera import Intrinsics
    from tracker.export.job import ExportJob
    from tracker.result import Track
    from tracker.texture import HeadTexture

FILE_NAME = "track.glb"

_GLTF_FROM_CAM = np.diag((*OPENGL_AXES, 1.0))
_NEAR_METRES, _FAR_METRES = 0.01, 100.0
_CENTRED_PX = 0.5
"""A principal point this far from the image's centre is not worth a note."""

_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP = 9729, 9987, 33071


def write(job: ExportJob) -> Written:
    """Write ``track.glb`` with all people and the camera.

    Raises:
        InputError: nobody is tracked, two frames have the same time, or GLB cannot express or hold it.
    """
    track = job.track
    if not job.people:
        raise InputError("nobody is tracked in any frame, so there is nothing to write; give another track.")
    document = _Document(_key_seconds(track))
    document.add_camera(track.intrinsics)
    notes = [*_camera_notes(track.intrinsics)]
    for person in job.steps(job.people, len(job.people), "glb"):
        rig = rig_head(track, person)
        motion = head_motion(track, person, rig)
        prefix = f"person_{person}_" if track.num_people > 1 else ""
        topology = track.head_model.topology
        texture = job.texture(person) if rig.uv is not None else None
        colors = None if texture else painted(rig, topology.regions if topology is not None else {}, person)
        document.add_head(rig, motion, prefix, texture, colors)
        notes.extend(_held_notes(motion, f"person {person}: " if prefix else ""))
        if (rig.skin_weights > 0).sum(axis=1).max() > 4:
            notes.append("some vertices hang on five joints; programs that read four (three.js) leave the least out.")
    notes.extend(f"person {person} is tracked in no frame and left out." for person in _absent(job))
    if job.texture_note is not None:
        notes.append(job.texture_note)
    document.write(job.folder / FILE_NAME, _clip_extras(track))
    return Written((job.folder / FILE_NAME,), tuple(dict.fromkeys(notes)))


class _Document:
    """Collect a glTF document; indices refer to its own lists."""

    def __init__(self, seconds: np.ndarray) -> None:
        """Start an empty scene that is animated at times (T,), seconds, float32."""
        self._seconds = seconds
        self._buffers = GlbBuffers()
        self._scene_nodes: list[int] = []
        self._lists: dict[str, list[dict[str, Any]]] = {}
        self._keys: dict[str, Any] = {"channels": [], "samplers": []}
        self._weights: list[tuple[int, np.ndarray]] = []

    def add_camera(self, intrinsics: Intrinsics) -> None:
        """Add the camera at the origin."""
        tangent = intrinsics.height / (2 * intrinsics.fy)
        perspective = {
            "yfov": 2 * math.atan(tangent),
            "aspectRatio": intrinsics.width / (2 * intrinsics.fx) / tangent,
            "znear": _NEAR_METRES,
            "zfar": _FAR_METRES,
        }
        camera = {"name": "camera", "type": "perspective", "perspective": perspective, "extras": asdict(intrinsics)}
        self._scene_nodes.append(self._add("nodes", {"name": "camera", "camera": self._add("cameras", camera)}))

    def add_head(
        self,
        rig: RiggedHead,
        motion: HeadMotion,
        prefix: str,
        texture: HeadTexture | None,
        colors: np.ndarray | None,
    ) -> None:
        """Add one person.

        Args:
            rig: the person's head.
            motion: what it does.
            prefix: what the names of the person's nodes begin with.
            texture: the person's texture, where there is one.
            colors: sRGB colours of the vertices (V, 3), where there is none.
        """
        split = split_at_seams(len(rig.rest_vertices), rig.faces, rig.uv, rig.uv_faces)
        primitive = head_primitive(self._buffers, rig, split, colors)
        primitive["material"] = self._material(f"{prefix}skin", texture)
        mesh: dict[str, Any] = {"name": f"{prefix}head", "primitives": [primitive]}
        if rig.morph_names:
            mesh["weights"] = motion.morph_weights[0].tolist()
            mesh["extras"] = {"targetNames": list(rig.morph_names), "num_vertices": len(rig.rest_vertices)}
        skeleton, joints = self._add_skeleton(rig, motion, prefix)
        skin = {
            "name": f"{prefix}rig",
            "joints": joints,
            "skeleton": skeleton,
            "inverseBindMatrices": self._buffers.numbers(_inverse_bind_matrices(rig.rest_joints)),
        }
        # Readers ignore where a skinned mesh hangs, and the validator wants it to be at the root.
        node = {"name": f"{prefix}head", "mesh": self._add("meshes", mesh), "skin": self._add("skins", skin)}
        self._scene_nodes += [skeleton, self._add("nodes", node)]
        if rig.morph_names:
            mesh_node = self._scene_nodes[-1]
            self._add_keys(mesh_node, "weights", motion.morph_weights.reshape(-1))
            self._weights.append((mesh_node, motion.morph_weights))

    def write(self, path: Path, extras: dict[str, Any]) -> None:
        """Write the file; ``extras`` go to the animation, or to the scene of a single frame."""
        scene: dict[str, Any] = {"name": "track", "nodes": self._scene_nodes}
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "pixel3dmm-tracker"},
            "scene": 0,
            "scenes": [scene],
            **self._lists,
        }
        if len(self._seconds) > 1:
            ranges = self._weight_ranges()
            document["animations"] = [{"name": "track", **self._keys, "extras": extras}, *ranges]
            if ranges:
                document["extensionsUsed"] = ["KHR_animation_pointer"]
        else:
            scene["extras"] = extras
        self._buffers.write(path, document)

    def _add(self, kind: str, entry: dict[str, Any]) -> int:
        """Append to one of the document's lists; return the index."""
        entries = self._lists.setdefault(kind, [])
        entries.append(entry)
        return len(entries) - 1

    def _add_skeleton(self, rig: RiggedHead, motion: HeadMotion, prefix: str) -> tuple[int, list[int]]:
        """Add joints under a node of their own; return that node and the joints."""
        local = motion.parent_from_joint(rig.joint_parents)
        local[:, 0] = _GLTF_FROM_CAM @ local[:, 0]
        turns, joints = unbroken_quaternions(local[..., :3, :3]).astype(np.float32), []
        for joint, name in enumerate(rig.joint_names):
            rotations, places = turns[:, joint], local[:, joint, :3, 3].astype(np.float32)
            entry = {"name": prefix + name, "rotation": rotations[0].tolist(), "translation": places[0].tolist()}
            joints.append(self._add("nodes", entry))
            self._add_keys(joints[-1], "rotation", rotations)
            self._add_keys(joints[-1], "translation", places)
        for joint, parent in enumerate(rig.joint_parents):
            if parent >= 0:
                self._lists["nodes"][joints[parent]].setdefault("children", []).append(joints[joint])
        return self._add("nodes", {"name": f"{prefix}rig", "children": [joints[0]]}), joints

    def _add_keys(self, node: int, path: str, values: np.ndarray) -> None:
        """Animate a property of a node by keys at the frames."""
        if len(self._seconds) < 2:
            return
        self._keys["samplers"].append(
            {
                "input": self._buffers.numbers(self._seconds, bounds=True),
                "output": self._buffers.numbers(values),
                "interpolation": "LINEAR",
            }
        )
        sampler = len(self._keys["samplers"]) - 1
        self._keys["channels"].append({"sampler": sampler, "target": {"node": node, "path": path}})

    def _weight_ranges(self) -> list[dict[str, Any]]:
        """Return animations of one key, which show Blender weights beyond [0, 1] that the first frame does not."""
        animations = []
        for name, extreme, known in (("lowest_weights", np.min, 0.0), ("highest_weights", np.max, 1.0)):
            reached = [(node, extreme(weights, axis=0)) for node, weights in self._weights]
            shown = [extreme((weights[0], np.full_like(weights[0], known)), axis=0) for _, weights in self._weights]
            if any(
                (extreme((most, seen), axis=0) != seen).any() for (_, most), seen in zip(reached, shown, strict=True)
            ):
                animations.append(self._pose(name, reached))
        return animations

    def _pose(self, name: str, weights: list[tuple[int, np.ndarray]]) -> dict[str, Any]:
        """Return an animation of one key, which only readers of KHR_animation_pointer see."""
        start = self._buffers.numbers(np.zeros(1, np.float32), bounds=True)
        channels = []
        for sampler, (node, _) in enumerate(weights):
            pointer = {"KHR_animation_pointer": {"pointer": f"/nodes/{node}/weights"}}
            channels.append({"sampler": sampler, "target": {"path": "pointer", "extensions": pointer}})
        samplers = [{"input": start, "output": self._buffers.numbers(values)} for _, values in weights]
        return {"name": name, "channels": channels, "samplers": samplers}

    def _material(self, name: str, texture: HeadTexture | None) -> int:
        """Add a matt material; return its index."""
        surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.8}
        if texture is not None:
            image = {"name": name, "mimeType": "image/jpeg", "bufferView": self._buffers.view(jpeg(texture))}
            sampler = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}
            source = {"source": self._add("images", image), "sampler": self._add("samplers", sampler)}
            surface["baseColorTexture"] = {"index": self._add("textures", source)}
        # The inside shows through an open mouth and from below.
        return self._add("materials", {"name": name, "pbrMetallicRoughness": surface, "doubleSided": True})


def _key_seconds(track: Track) -> np.ndarray:
    """Return the times of the frames from the first one, float32 (T,), seconds.

    Raises:
        InputError: they do not increase.
    """
    seconds = (track.pts_seconds - track.pts_seconds[0]).astype(np.float32)
    stuck = np.flatnonzero(np.diff(seconds) <= 0)
    if len(stuck):
        first = int(stuck[0])
        raise InputError(
            f"frames {first} and {first + 1} of the track have the times {track.pts_seconds[first]} s and "
            f"{track.pts_seconds[first + 1]} s; GLB needs times that increase."
        )
    return seconds


def _inverse_bind_matrices(rest_joints: np.ndarray) -> np.ndarray:
    """Return what takes head space to each joint at (5, 3), float32 (5, 4, 4), transposed: glTF stores columns."""
    matrices = np.tile(np.eye(4, dtype=np.float32), (len(rest_joints), 1, 1))
    matrices[:, 3, :3] = -rest_joints
    return matrices


def _camera_notes(intrinsics: Intrinsics) -> list[str]:
    """Say where the camera differs from the track's."""
    right, down = intrinsics.cx - intrinsics.width / 2, intrinsics.cy - intrinsics.height / 2
    if max(abs(right), abs(down)) <= _CENTRED_PX:
        return []
    return [
        f"the principal point is {right:+.1f} px right of and {down:+.1f} px below the image's centre, which "
        "glTF cannot express: the camera is centred, its extras hold the exact intrinsics."
    ]


def _held_notes(motion: HeadMotion, whose: str) -> list[str]:
    """Say how many frames hold a pose."""
    lost = int((~motion.is_tracked).sum())
    return [f"{whose}{lost} of {len(motion.is_tracked)} frames are lost and hold a tracked pose."] if lost else []


def _absent(job: ExportJob) -> list[int]:
    """Return the people who are tracked in no frame."""
    return sorted(set(range(job.track.num_people)) - set(job.people))


def _clip_extras(track: Track) -> dict[str, Any]:
    """Return what glTF has no words for: where the clip starts, and which frames are tracked."""
    return {
        "first_pts_seconds": float(track.pts_seconds[0]),
        "frame_index": track.frame_index.tolist(),
        "is_tracked": track.is_tracked.astype(int).tolist(),
    }
