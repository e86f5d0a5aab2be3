"""Meshes: Wavefront OBJ with texture, and binary PLY; one a frame, or the neutral head.

Frames (``00012.obj``, the number of the frame in the clip) stand before a camera at the origin that looks along -z, +y
up, +x right: the axes of OpenGL, in which Blender's OBJ import, trimesh and MeshLab show them upright, and in which a
sequence moves as the person does. The neutral head (``neutral.obj``) is in head space: +x the person's left, +y up, +z
out of the face, identity alone, no expression and no pose. Lengths are metres. Frames without the person have no file.

Vertices and triangles keep the order of the head model, so that sequences are shape keys of each other. OBJ says a
texture coordinate per corner (``f v/vt``), so seams split no vertex; PLY has one per vertex and therefore carries none.

Formats: P. Bourke's pages "Object Files (.obj)", "MTL material format" and "PLY - Polygon File Format", and what
trimesh (``trimesh.exchange``) and Blender read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from flame.camera import OPENGL_AXES
from tracker.export.job import ExportJob, Written
from tracker.output_files import write_image

if TYPE_CHECKING:
    from tracker.result import Track

VIEWER_FROM_CAM = np.array(OPENGL_AXES)
"""Signs that turn camera space (OpenCV) into the axes of OpenGL, and back."""

_MATERIAL = "head"
_NEUTRAL = "neutral"


@dataclass(frozen=True, eq=False)
class Mesh:
    """Hold what does not change from frame to frame: F triangles, and texture coordinates where there are some."""

    faces: np.ndarray
    """Vertex indices, int64 (F, 3), anticlockwise seen from outside."""
    uv: np.ndarray | None = None
    """Texture coordinates, float32 (VT, 2), origin bottom left."""
    uv_faces: np.ndarray | None = None
    """Rows of ``uv`` at the corners of the triangles, int64 (F, 3)."""


def mesh_of(track: Track) -> Mesh:
    """Return triangles and texture coordinates of a track's head."""
    model = track.head_model
    topology = model.topology
    if topology is None or topology.uv is None or topology.uv_faces is None:
        return Mesh(model.faces.numpy())
    return Mesh(model.faces.numpy(), topology.uv, topology.uv_faces)


def neutral_vertices(track: Track, person: int) -> np.ndarray:
    """Return a person's head at rest, float64 (V, 3), metres, head space."""
    model = track.head_model
    with torch.no_grad():
        return model.rest(torch.as_tensor(track.identity[person], dtype=model.dtype)).vertices.double().numpy()


def write_obj(job: ExportJob) -> Written:
    """Write OBJ files, with one material and one texture per person where there is a texture.

    Raises:
        UserError: the clip is another one, or cannot be read for the texture.
    """
    mesh = mesh_of(job.track)

    def write_person(folder: Path, person: int) -> Callable[[str, np.ndarray], None]:
        has_texture = mesh.uv is not None and _write_material(job, folder, person)
        head = f"mtllib {_MATERIAL}.mtl\n" if has_texture else ""
        tail = (f"usemtl {_MATERIAL}\n" if has_texture else "") + _obj_faces(mesh)
        head, tail = f"{head}o {_MATERIAL}\n", _obj_uv(mesh) + tail

        def write_mesh(name: str, vertices: np.ndarray) -> None:
            (folder / f"{name}.obj").write_text(head + _obj_vertices(vertices) + tail, encoding="ascii", newline="\n")

        return write_mesh

    written = _write_people(job, write_person, ".obj")
    return written if job.texture_note is None else Written(written.paths, (*written.notes, job.texture_note))


def write_ply(job: ExportJob) -> Written:
    """Write binary PLY files."""
    mesh = mesh_of(job.track)

    def write_person(folder: Path, _person: int) -> Callable[[str, np.ndarray], None]:
        def write_mesh(name: str, vertices: np.ndarray) -> None:
            (folder / f"{name}.ply").write_bytes(ply_bytes(vertices, mesh.faces))

        return write_mesh

    return _write_people(job, write_person, ".ply")


def _write_people(
    job: ExportJob, write_person: Callable[[Path, int], Callable[[str, np.ndarray], None]], suffix: str
) -> Written:
    """Write everybody's meshes with what ``write_person`` returns for each; tell what was left out."""
    paths, notes = [], []
    track = job.track
    for person in job.people:
        folder = job.person_folder(person)
        write_mesh = write_person(folder, person)
        if job.options.mesh == "neutral":
            write_mesh(_NEUTRAL, neutral_vertices(track, person))
            paths.append(folder / f"{_NEUTRAL}{suffix}")
            continue
        tracked = np.flatnonzero(track.is_tracked[person])
        for frame in job.steps(tracked, len(tracked), f"{suffix[1:]} of person {person}"):
            write_mesh(f"{track.frame_index[frame]:05d}", track.vertices(frame, person) * VIEWER_FROM_CAM)
        paths.append(folder)
        if len(tracked) < len(track):
            notes.append(f"person {person}: {len(track) - len(tracked)} frames without a face have no file")
    return Written(tuple(dict.fromkeys(paths)), tuple(notes))


def obj_text(vertices: np.ndarray, faces: np.ndarray) -> str:
    """Return a mesh, vertices (V, 3) and triangles (F, 3), as an OBJ file with vertices in their order."""
    return _obj_vertices(vertices) + _obj_faces(Mesh(faces))


def _obj_vertices(vertices: np.ndarray) -> str:
    """Return the ``v`` lines of vertices (V, 3), to a micrometre's hundredth."""
    # One formatting of everything takes a fifth of the time that a line at a time does.
    return "v %.8f %.8f %.8f\n" * len(vertices) % tuple(np.asarray(vertices, np.float64).ravel().tolist())


def _obj_uv(mesh: Mesh) -> str:
    """Return the ``vt`` lines of a mesh."""
    return "" if mesh.uv is None else "".join(f"vt {u:.7f} {v:.7f}\n" for u, v in mesh.uv.tolist())


def _obj_faces(mesh: Mesh) -> str:
    """Return the ``f`` lines of a mesh; OBJ counts from 1."""
    if mesh.uv_faces is None:
        return "f %d %d %d\n" * len(mesh.faces) % tuple((mesh.faces + 1).ravel().tolist())
    corners = np.concatenate((mesh.faces, mesh.uv_faces), axis=1) + 1
    return "".join(f"f {a}/{ta} {b}/{tb} {c}/{tc}\n" for a, b, c, ta, tb, tc in corners.tolist())


def _write_material(job: ExportJob, folder: Path, person: int) -> bool:
    """Write material and texture of a person; tell whether there is a texture."""
    texture = job.texture(person)
    if texture is None:
        return False
    write_image(folder / "texture.png", texture.rgb)
    lines = ("newmtl head", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", "map_Kd texture.png", "")
    (folder / f"{_MATERIAL}.mtl").write_text("\n".join(lines), encoding="ascii", newline="\n")
    return True


def ply_bytes(vertices: np.ndarray, faces: np.ndarray | None = None, colors: np.ndarray | None = None) -> bytes:
    """Return a binary little-endian PLY file.

    Args:
        vertices: positions (V, 3).
        faces: triangles (F, 3), or None for points alone.
        colors: RGB per vertex, uint8 (V, 3), or None.
    """
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    kind = [("xyz", "<f4", 3)]
    if colors is not None:
        header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
        kind.append(("rgb", "u1", 3))
    table = np.empty(len(vertices), kind)
    table["xyz"] = vertices
    if colors is not None:
        table["rgb"] = colors
    body = table.tobytes()
    if faces is not None:
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        triangles = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
        triangles["count"], triangles["corners"] = 3, faces
        body += triangles.tobytes()
    return ("\n".join([*header, "end_header"]) + "\n").encode("ascii") + body
