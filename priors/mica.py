"""MICA's identity anchor: who somebody is, from pixels, in the shape coefficients of FLAME 2020.

W. Zielonka et al., "Towards Metrical Reconstruction of Human Faces", 2022: ArcFace's features of an aligned face of
112 x 112 pixels, normalised, go through a small network that gives 300 shape coefficients. The user has the weights,
``mica.tar``; nothing in the file is executed. Several pictures of a person give one code each, and the anchor is their
geometric median, which a few bad pictures do not move.

Published descriptions speak of a 50-layer ArcFace; MICA's own code builds one of 100 layers. The file decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from flame.errors import AssetMissingError, InputError
from flame.model import HeadModel
from priors.evidence import DenseMaps, EyePoints, FaceEvidence, FacePicture, FaceRegion, Prior
from priors.face_crop import FaceCrop
from priors.landmark_topology import NUM_LANDMARKS
from priors.networks.arcface import FEATURES, INPUT_PX, ArcFace
from priors.networks.torch_file import StoredTensor, TorchFile, read_torch_file

MAX_PICTURES = 8
"""Pictures of a person that the network looks at; one takes some 0.3 s on a CPU core."""
WHERE = (
    "mica.tar comes from https://github.com/Zielon/MICA (licence of the Max Planck Society: no commercial use); put it "
    "anywhere and name it with --mica FILE"
)
_SHAPES = 300
_TEMPLATE_PX = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where ArcFace's training has eyes, nose and corners of the mouth, from the image's left, first pixel's centre 0."""
_POINTS = ((33, 133), (362, 263), (4,), (61,), (291,))
"""The landmarks whose means are these five points. The nose's is the one halfway between eyes and mouth in most faces,
as in ArcFace's template; the tip below it, 1, would lie an eighth of that distance too low."""
_SLOPE = 0.2
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")
_UNUSED = "generator."
"""Beginning of names of MICA's own copy of FLAME, which only serves to check the head."""
_FLAME_VERTICES, _SAME_M = 5023, 1e-4
_TOLERANCE, _ROUNDS = 1e-9, 200


class ShapeMapping(nn.Module):
    """Turn features (B, 512) of length 1 into shape coefficients (B, 300)."""

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Build linear layers of these inputs and outputs; where a layer takes more, it is given the features again."""
        super().__init__()
        self.network = nn.ModuleList([nn.Linear(inner, outer) for inner, outer in sizes[:-1]])
        self.output = nn.Linear(*sizes[-1])

    def forward(self, features: Tensor) -> Tensor:
        """Return coefficients (B, 300)."""
        x = features
        for layer in self.network:
            assert isinstance(layer, nn.Linear)
            if layer.in_features > x.shape[1]:
                x = torch.cat((features, x), dim=1)
            x = nn.functional.leaky_relu(layer(x), _SLOPE)
        return self.output(x)


class MicaNetwork(nn.Module):
    """Turn aligned pictures (B, 3, 112, 112), RGB in [-1, 1], into shape coefficients (B, 300) of FLAME 2020."""

    def __init__(self, blocks: Sequence[int], sizes: Sequence[tuple[int, int]]) -> None:
        """Build ArcFace with ``blocks`` per stage and a mapping with layers of ``sizes``."""
        super().__init__()
        self.arcface = ArcFace(blocks)
        self.regressor = ShapeMapping(sizes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return coefficients (B, 300)."""
        return self.regressor(nn.functional.normalize(self.arcface(pictures)))


@dataclass(frozen=True, eq=False)
class MicaAnchor:
    """Expect the identity that MICA sees in a person's pictures."""

    network: MicaNetwork

    def __call__(self, frames: Sequence[FaceEvidence]) -> np.ndarray:
        """Return the expected identity (300,), float64, of the person in frames; zeros without any picture."""
        pictures = [each for each in map(aligned_picture, frames) if each is not None]
        if not pictures:
            return np.zeros(_SHAPES)
        chosen = np.unique(np.linspace(0, len(pictures) - 1, MAX_PICTURES).round().astype(int))
        return geometric_median(self.codes(np.stack([pictures[index] for index in chosen])))

    def codes(self, pictures: np.ndarray) -> np.ndarray:
        """Return shape coefficients (N, 300), float64, of aligned pictures, RGB uint8 (N, 112, 112, 3)."""
        batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
        with torch.inference_mode():
            return self.network(batch).numpy().astype(np.float64)


class MicaPrior:
    """Look at frames with another prior, keep the faces' pixels, and expect the identity that MICA sees in them."""

    def __init__(self, prior: Prior, anchor: MicaAnchor) -> None:
        """Wrap a prior whose points are MediaPipe's landmarks."""
        self.name = prior.name
        self.surface = prior.surface
        self.map_surface = prior.map_surface
        self.eyes: EyePoints | None = prior.eyes
        self.identity_anchor: Callable[[Sequence[FaceEvidence]], np.ndarray] | None = anchor
        self._prior = prior

    def observe(self, image: np.ndarray, regions: Sequence[FaceRegion] = ()) -> list[FaceEvidence | None]:
        """Look at a frame where faces are expected; see ``Prior.observe``."""
        found = self._prior.observe(image, regions)
        return [None if evidence is None else with_picture(evidence, image) for evidence in found]

    def search(
        self,
        image: np.ndarray,
        known: Sequence[FaceRegion] = (),
        max_faces: int = 1,
        *,
        is_thorough: bool = True,
    ) -> list[FaceEvidence]:
        """Find faces anywhere in a frame; see ``Prior.search``."""
        found = self._prior.search(image, known, max_faces, is_thorough=is_thorough)
        return [with_picture(evidence, image) for evidence in found]

    def dense(self, evidence: FaceEvidence, height: int, width: int) -> DenseMaps:
        """Rasterise the evidence to dense maps; see ``Prior.dense``."""
        return self._prior.dense(evidence, height, width)


def anchored_by_mica(prior: Prior, head: HeadModel, path: str | Path) -> MicaPrior:
    """Return a prior that expects the identity that MICA sees.

    Raises:
        AssetMissingError: there is no such file; the message says where it comes from and its licence.
        InputError: the head is not FLAME 2020's, or the file is damaged or of another kind.
        UnsafeFileError: the file asks to run code.
    """
    return MicaPrior(prior, MicaAnchor(load_mica(path, head)))


def load_mica(path: str | Path, head: HeadModel | None = None) -> MicaNetwork:
    """Load MICA's network from ``mica.tar``, and check that a head has the shape coefficients that it speaks of.

    Raises:
        UserError: as `anchored_by_mica` does.
    """
    path = Path(path)
    if not path.is_file():
        raise AssetMissingError(f"no file {path}: {WHERE}")
    file = read_torch_file(path)
    arcface, flame = (_weights(file.content, name, path) for name in ("arcface", "flameModel"))
    regressor = {name: value for name, value in flame.items() if not name.startswith(_UNUSED)}
    stored = {f"arcface.{name}": value for name, value in arcface.items()} | regressor
    with torch.device("meta"):
        network = MicaNetwork(_blocks(arcface, path), _layer_sizes(regressor, path))
    _check_names(stored, network.state_dict(), path)
    if head is not None:
        _check_head(file, flame, head, path)
    weights = file.tensors(stored)
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise InputError(f"{path} holds numbers that are not finite; it is damaged: {WHERE}")
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _weights(content: Any, name: str, path: Path) -> Mapping[str, StoredTensor]:
    """Return one part of the checkpoint.

    Raises:
        InputError: it is not there, or holds something else than tensors.
    """
    part = content.get(name) if isinstance(content, dict) else None
    if not isinstance(part, dict) or not all(isinstance(value, StoredTensor) for value in part.values()):
        raise InputError(f"{path} has no weights {name!r}, so it is not MICA's network: {WHERE}")
    return part


def _blocks(arcface: Mapping[str, StoredTensor], path: Path) -> tuple[int, ...]:
    """Return the number of blocks per stage."""
    matches = [match for match in map(_BLOCK.match, arcface) if match]
    counts = [max((int(match[2]) + 1 for match in matches if match[1] == stage), default=0) for stage in "1234"]
    if min(counts) == 0 or sum(counts) > 100:
        raise InputError(f"{path}: its 'arcface' has {counts} blocks in four stages, which is no ArcFace network")
    return tuple(counts)


def _layer_sizes(regressor: Mapping[str, StoredTensor], path: Path) -> list[tuple[int, int]]:
    """Return inputs and outputs of the mapping's layers, the last one's at the end."""
    names = [f"regressor.network.{number}.weight" for number in range(len(regressor))]
    names = [name for name in names if name in regressor] + ["regressor.output.weight"]
    shapes = [regressor[name].shape if name in regressor else () for name in names]
    sizes = [(shape[1], shape[0]) for shape in shapes if len(shape) == 2]
    if len(sizes) < max(len(names), 2) or sizes[0][0] != FEATURES or sizes[-1][1] != _SHAPES:
        raise InputError(
            f"{path}: its mapping has layers of {shapes}; from {FEATURES} features to {_SHAPES} shape coefficients of "
            "FLAME 2020 are needed"
        )
    for (_, before), (inner, _) in zip(sizes, sizes[1:], strict=False):
        if inner not in (before, before + FEATURES):
            raise InputError(f"{path}: its mapping has layers of {shapes}, which do not fit each other")
    return sizes


def _check_names(stored: Mapping[str, StoredTensor], needed: Mapping[str, Tensor], path: Path) -> None:
    """See that what is stored is what the network needs, no more and no less.

    Raises:
        InputError: it is not.
    """
    missing, unknown = sorted(set(needed) - set(stored)), sorted(set(stored) - set(needed))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which MICA's network does not have"
        raise InputError(f"{path} {what} ({len(missing)} missing, {len(unknown)} unknown); is it another version?")
    for name, value in needed.items():
        if stored[name].shape != tuple(value.shape):
            raise InputError(f"{path}: {name} has shape {stored[name].shape}; {tuple(value.shape)} is needed")


def _check_head(file: TorchFile, flame: Mapping[str, StoredTensor], head: HeadModel, path: Path) -> None:
    """See that a head's coefficients are those of the FLAME that the file was made with, of which it has a copy.

    Raises:
        InputError: they are not.
    """
    names = {name: flame[_UNUSED + name] for name in ("v_template", "shapedirs") if _UNUSED + name in flame}
    own = {"v_template": head.template, "shapedirs": head.shape_basis}
    is_same = head.num_shape == _SHAPES and (len(names) == 2 or head.num_vertices == _FLAME_VERTICES)
    for name, theirs in file.tensors(names).items() if is_same else ():
        ours = own[name].detach().cpu().float()
        theirs = theirs[..., :_SHAPES].float() if name == "shapedirs" else theirs.float()
        is_same &= theirs.shape == ours.shape and float((theirs - ours).abs().max()) < _SAME_M
    if not is_same:
        raise InputError(
            f"{path.name} speaks of the {_SHAPES} shape coefficients of FLAME 2020, which head {head.name!r} does not "
            "have; use --head generic_model.pkl of FLAME 2020, or leave --mica out"
        )


def with_picture(evidence: FaceEvidence, image: np.ndarray) -> FaceEvidence:
    """Return evidence that keeps the face's pixels of an image, unless it does already."""
    if evidence.picture is not None:
        return evidence
    crop = FaceCrop.around(evidence.points_px)
    return replace(evidence, picture=FacePicture(crop.cut(image)), image_from_picture=crop.image_from_crop)


def aligned_picture(evidence: FaceEvidence) -> np.ndarray | None:
    """Return the face as ArcFace is used to it, RGB uint8 (112, 112, 3); None without pixels or landmarks."""
    if evidence.picture is None or evidence.image_from_picture is None or len(evidence.points_px) != NUM_LANDMARKS:
        return None
    points_px = np.stack([evidence.points_px[list(group)].mean(axis=0) for group in _POINTS])
    picture_from_image = cv2.invertAffineTransform(np.asarray(evidence.image_from_picture, np.float64))
    seen = points_px @ picture_from_image[:, :2].T + picture_from_image[:, 2]
    # OpenCV, and ArcFace's template with it, puts pixel centres at whole numbers.
    aligned_from_picture = similarity(seen - 0.5, np.array(_TEMPLATE_PX))
    return cv2.warpAffine(evidence.picture.image, aligned_from_picture, (INPUT_PX, INPUT_PX), flags=cv2.INTER_LINEAR)


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the similarity (2, 3) that brings points (N, 2) nearest to targets (N, 2), least squares; no mirroring."""
    source, target = (values @ (1, 1j) for values in (np.asarray(points, float), np.asarray(targets, float)))
    centred = source - source.mean()
    turn = np.vdot(centred, target - target.mean()) / max(float(np.vdot(centred, centred).real), 1e-12)
    shift = target.mean() - turn * source.mean()
    return np.array(((turn.real, -turn.imag, shift.real), (turn.imag, turn.real, shift.imag)))


def geometric_median(codes: np.ndarray) -> np.ndarray:
    """Return the point whose distances to codes (N, D) have the least sum, float64 (D,), by Weiszfeld's iteration.

    Unlike the mean it stays with the majority, however far off the others are.
    """
    codes = np.asarray(codes, np.float64)
    middle = codes.mean(axis=0)
    scale = max(float(np.linalg.norm(codes - middle, axis=1).mean()), 1e-300)
    for _ in range(_ROUNDS):
        # A code at the very place would have all the weight, though it need not be the median.
        weights = 1 / np.maximum(np.linalg.norm(codes - middle, axis=1), 1e-6 * scale)
        found = weights @ codes / weights.sum()
        if np.linalg.norm(found - middle) < _TOLERANCE * scale:
            return found
        middle = found
    return middle
