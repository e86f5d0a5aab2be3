"""Draw labelled pictures of random people of a head model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from flame.camera import project
from flame.model import HeadModel
from flame.rasterizer import Backend, check_backend
from flame.shading import vertex_normals
from flame.surface import NECK
from priors.landmark_embedding import load_embedding
from priors.pixel_kinds import Kind
from priors.training.labels import LabelMaps
from priors.training.render.backgrounds import random_background
from priors.training.render.color import linear_from_srgb
from priors.training.render.covers import UNTOUCHED, CoverChances, add_covers
from priors.training.render.exposure import SampleBuffer, develop, random_gain
from priors.training.render.head_frame import HeadFrame, HeadGuide
from priors.training.render.head_frame import Light as CoverLight
from priors.training.render.labelling import covered, cut_at_border
from priors.training.render.light import Light, random_light
from priors.training.render.paint import random_paint
from priors.training.render.people import People, Person
from priors.training.render.photo_effects import degrade
from priors.training.render.stage import Stage
from priors.training.render.view import View, place_head

RENDERER_VERSION = 2
"""Raised when the same seed gives other pictures than before."""
_SAMPLES = 2
"""Samples along a pixel's side, at outlines."""
_CUT_CHANCE = 0.08
"""How often the photograph ends inside the crop."""
_HAIR_CHANCE = 0.62
"""How often hair stands off the head; otherwise it is painted on, or there is none."""
_HAND_CHANCE, _THING_CHANCE = 0.1, 0.09


@dataclass(frozen=True, eq=False)
class Rendering:
    """Hold a labelled picture."""

    image: np.ndarray
    """The picture, uint8 (S, S, 3) RGB."""
    labels: LabelMaps
    """What its pixels show."""
    meta: dict[str, Any]
    """Everything else that is known about it, as JSON values."""


class Renderer:
    """Draw random people; one renderer serves one thread."""

    def __init__(self, head: HeadModel, image_px: int = 256, labels_px: int = 128, backend: Backend = "cpu") -> None:
        """Prepare a head for pictures and label maps of these sides; ``backend`` rasterises.

        Raises:
            InputError: the head has no texture coordinates or regions, or the back end cannot be used.
        """
        check_backend(backend)
        self.backend: Backend = backend
        self.head, self.image_px, self.labels_px = head, image_px, labels_px
        self.people = People(head)
        self.landmarks = load_embedding(head).points
        self.stage = Stage(head, self.people.rig, self.landmarks)
        self._guide = HeadGuide(head)
        self._eyes = (head.joint_regressor @ head.template).numpy()[[3, 4]]
        self._buffer = SampleBuffer(image_px, _SAMPLES)

    def draw(self, seed: int, number: int) -> Rendering:
        """Return the picture of that number; the same seed and number give the same picture."""
        rng = np.random.default_rng((seed, number))
        person = self.people.draw(rng)
        rig = self.people.rig
        posed = rig.pose(person.identity, person.expression, person.joint_angles, np.eye(3), np.zeros(3))
        points = self.landmarks.on(posed.verts_cam, rig.faces)
        view = place_head(points, rng, self.image_px)
        verts = self.stage.vertices(posed.verts_cam, person, view.rotation, rng)
        points_px = project(points @ view.rotation.T + view.translation, view.intrinsics)
        image, labels, tone = self._picture(verts, points_px, view, rng)
        image = degrade(image, rng)
        if rng.random() < _CUT_CHANCE:
            image, labels = cut_at_border(image, labels, rng)
        facts = {"source": "render", "seed": [seed, number], "skin_tone": round(tone, 2)}
        cam_from_neck = view.rotation @ posed.joint_rotations[NECK]
        return Rendering(image, labels, {**facts, **self._facts(person, view, cam_from_neck)})

    def _picture(
        self, verts: np.ndarray, points_px: np.ndarray, view: View, rng: np.random.Generator
    ) -> tuple[np.ndarray, LabelMaps, float]:
        """Return the picture, sRGB float32 (S, S, 3), its labels, and the skin's tone."""
        verts_cam = verts @ view.rotation.T + view.translation
        mesh = self.stage.mesh
        normals = vertex_normals(verts_cam, mesh.faces)
        backdrop = random_background(rng, self.image_px, self.image_px)
        paint, tone = random_paint(rng, self._eyes)
        has_hair = rng.random() < _HAIR_CHANCE
        if has_hair:
            paint = paint._replace(hair_share=0.0)
        light = random_light(rng, verts_cam, mesh.faces, linear_from_srgb(np.array(cv2.mean(backdrop)[:3])))
        surface = (verts, verts_cam, normals, view.intrinsics)
        count, place, hair, depth = self.stage.sample(*surface, paint, light, self._buffer, self.backend)
        layer = self._buffer.lit(count, light)
        gain = random_gain(layer, rng)
        frame = HeadFrame.of(self._guide, verts_cam[: self.stage.num_head], view.intrinsics)
        lamp = _cover_light(light, np.einsum("vc->c", verts_cam) / len(verts_cam), gain)
        chances = CoverChances(hair=float(has_hair), clothes=0.0, hand=_HAND_CHANCE, thing=_THING_CHANCE)
        image = develop(layer, backdrop, gain)
        image, cover = add_covers(image, place, depth, points_px, frame, lamp, rng, chances)
        cover = np.where((cover == UNTOUCHED) & (hair > 0.5), np.uint8(Kind.HAIR), cover)
        camera = view.intrinsics.scale(self.labels_px / self.image_px)
        return image, covered(mesh.labels(verts_cam, normals, camera, self.backend), cover), tone

    def _facts(self, person: Person, view: View, cam_from_neck: np.ndarray) -> dict[str, Any]:
        """Return what is known about a picture beside its pixels, as JSON values."""
        k = view.intrinsics
        cam_from_head = np.eye(4)
        cam_from_head[:3, :3], cam_from_head[:3, 3] = view.rotation, view.translation
        return {
            "head_hash": self.head.content_hash,
            "intrinsics": {"fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy, "width": k.width, "height": k.height},
            "cam_from_head": cam_from_head.tolist(),
            "cam_from_neck": cam_from_neck.tolist(),
            "identity": np.round(person.identity, 5).tolist(),
            "expression": np.round(person.expression, 5).tolist(),
            "joint_angles": np.round(person.joint_angles, 6).tolist(),
            "turn_degrees": [round(value, 3) for value in view.turn_degrees],
        }


def _cover_light(light: Light, center: np.ndarray, gain: float) -> CoverLight:
    """Return the light in the words of covers: the strongest lamp, and the rest from all around."""
    ambient = gain * np.maximum(light.sh[0], 0.02)
    if not len(light.colors):
        return CoverLight(np.array((0.0, -0.6, -0.8)), 0.5 * ambient, ambient)
    strongest = int(light.colors.sum(axis=1).argmax())
    towards = light.positions[strongest] - center
    return CoverLight(towards / np.linalg.norm(towards), gain * light.colors[strongest], ambient)
