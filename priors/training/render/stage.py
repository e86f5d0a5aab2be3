"""All surfaces of a picture of a head: the head itself, teeth, neck, shoulders; posed and painted."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from flame.camera import Intrinsics
from flame.mesh_rig import MeshRig
from flame.model import HeadModel
from flame.rasterizer import Backend
from flame.shading import screen_occlusion
from flame.surface import SurfacePoints
from priors.pixel_kinds import Kind
from priors.training.render import sample_kernels as kernels
from priors.training.render.body import Body, Teeth
from priors.training.render.exposure import SampleBuffer
from priors.training.render.labelling import LabelledMesh
from priors.training.render.light import Light
from priors.training.render.paint import Paint, noise_volume, vertex_masks
from priors.training.render.people import Person

_KINDS = np.array((Kind.SKIN, Kind.EYE, Kind.MOUTH, Kind.MOUTH, Kind.BACKGROUND, Kind.BACKGROUND), np.uint8)
"""What the materials show."""
_BODY_FOLLOWS = 0.7
"""Largest share of the head's turn that the body makes, too."""


class Stage:
    """Hold head, teeth and body of a model, whose vertices are numbered in this order."""

    def __init__(self, head: HeadModel, rig: MeshRig, landmarks: SurfacePoints) -> None:
        """Put teeth and a body to a head that has texture coordinates and regions."""
        self.teeth = Teeth(rig, landmarks)
        self.num_head = head.num_vertices
        self.body = Body(head, self.num_head + self.teeth.num_vertices)
        self.materials = np.concatenate((_materials(head), self.teeth.materials, self.body.materials)).astype(np.int8)
        topology = head.topology
        assert topology is not None and topology.uv is not None and topology.uv_faces is not None
        self.mesh = LabelledMesh(
            faces=np.concatenate((rig.faces, self.teeth.faces, self.body.faces)).astype(np.int32),
            kinds=_KINDS[self.materials],
            template=head.template.numpy().astype(np.float64),
            uv=topology.uv,
            uv_faces=topology.uv_faces.astype(np.int32),
        )
        masks = vertex_masks(head, landmarks)
        extra = self.teeth.num_vertices + self.body.num_vertices
        self._masks = np.concatenate((masks, np.zeros((extra, masks.shape[1]), np.float32)))
        self._volume = noise_volume()

    def vertices(
        self, head_verts: np.ndarray, person: Person, rotation: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return all vertices in head space; the body turns less than the head, whose rotation cam_from_head is."""
        axes = np.diag((1.0, -1.0, -1.0))
        share = rng.uniform(0, _BODY_FOLLOWS)
        turn = Rotation.from_matrix(axes @ rotation).as_rotvec() * (share * 0.6, share, share * 0.4)
        turn += rng.normal(0, (0.08, 0.25, 0.06))
        upright = rotation.T @ axes @ Rotation.from_rotvec(turn).as_matrix()
        teeth = self.teeth.vertices(person.identity, person.expression, person.joint_angles)
        return np.concatenate((head_verts, teeth, self.body.vertices(head_verts[self.body.rim], upright, rng)))

    def sample(
        self,
        verts: np.ndarray,
        verts_cam: np.ndarray,
        normals_cam: np.ndarray,
        camera: Intrinsics,
        paint: Paint,
        light: Light,
        buffer: SampleBuffer,
        backend: Backend = "cpu",
    ) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Fill the buffer with painted samples.

        Args:
            verts: all vertices in head space.
            verts_cam: all vertices in camera space.
            normals_cam: their normals.
            camera: the picture's camera.
            paint: the person's looks.
            light: the light, for its shadow.
            buffer: takes the samples.
            backend: rasteriser.

        Returns:
            The number of samples; of each pixel the place on the template (S, S, 3), NaN where no head is, the share of
            painted hair (S, S), and the depth (S, S), infinite where nothing is.
        """
        size, n = buffer.image_px, buffer.per_side
        fine = camera.scale(n)
        corners, triangle, inverse = self.mesh.visible(verts_cam, fine, backend)
        attributes = self._attributes(verts, verts_cam, normals_cam, inverse, fine)
        place, hair = np.full((size, size, 3), np.nan, np.float32), np.zeros((size, size), np.float32)
        lens = np.array((fine.fx, fine.fy, fine.cx, fine.cy))
        shadow = (light.shadow, light.shadow_from_cam, light.numbers())
        surface = (corners, self.mesh.faces, self.materials, triangle, inverse, attributes)
        rows, pixel = buffer.rows, buffer.pixel
        count = kernels.sample(surface, lens, paint.packed(), shadow, self._volume, n, rows, pixel, place, hair)
        closeness = inverse[::n, ::n]
        depth = np.where(closeness > 0, 1 / np.maximum(closeness, np.float32(1e-6)), np.float32(np.inf))
        return count, place, hair, depth

    def _attributes(
        self, verts: np.ndarray, verts_cam: np.ndarray, normals_cam: np.ndarray, inverse: np.ndarray, fine: Intrinsics
    ) -> np.ndarray:
        """Return what the kernels interpolate, float32 (V, columns)."""
        attributes = np.empty((len(verts), kernels.NUM_SURFACE + self._masks.shape[1]), np.float32)
        after_teeth = self.num_head + self.teeth.num_vertices
        attributes[: self.num_head, :3] = self.mesh.template
        attributes[self.num_head : after_teeth, :3] = self.teeth.texture
        attributes[after_teeth:, :3] = verts[after_teeth:]
        attributes[:, 3:6] = normals_cam
        attributes[:, 6] = screen_occlusion(verts_cam, normals_cam, inverse, fine)
        attributes[:, kernels.NUM_SURFACE :] = self._masks
        return attributes


def _materials(head: HeadModel) -> np.ndarray:
    """Return the material of each of the head's triangles, int8 (F,)."""
    faces = head.faces.numpy()
    regions = head.topology.regions if head.topology is not None else {}
    absent = np.zeros(head.num_vertices, bool)
    material = np.full(len(faces), kernels.SKIN, np.int8)
    inside = regions.get("inner_mouth", absent) & ~regions.get("lips", absent)
    material[inside[faces].all(axis=1)] = kernels.INSIDE
    material[regions.get("eyes", absent)[faces].all(axis=1)] = kernels.EYE
    return material
