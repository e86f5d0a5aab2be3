"""The prior of Pixel3DMM's networks: texture coordinates and normals for every pixel of a face.

Faces and landmarks come from the default prior. The weights are the user's: the released ones, which speak of FLAME's
topology (CC BY-NC 4.0, no commercial use), or those of a training of one's own. Where the release averages with the
mirror image by a constant, the constant here follows from the head's texture layout, and where it asks a face-parsing
network which pixels are skin, three things decide here: a pixel shows a person, its texture coordinates lie on skin,
and picture and mirror image agree on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from flame.errors import InputError
from flame.model import HeadModel
from flame.obj_layout import TEMPLATE_OBJ
from flame.rasterizer import Backend
from priors.evidence import DenseMaps
from priors.foreground import ForegroundSegmenter
from priors.mediapipe import MediaPipePrior
from priors.network_prior import NetworkPrior
from priors.networks.flip import MirrorAveraged
from priors.networks.released import RELEASED_IMAGE_PX
from priors.networks.released_checkpoint import load_released
from priors.networks.weights import load_card, load_network
from priors.prior_surface import FLAME, MapSurface
from priors.uv_transfer import UvTransfer, load_transfer

OWN_FILES = {"uv": "uv.safetensors", "normals": "normals.safetensors"}
"""Networks of a training of one's own, by what they predict."""
_PERSON = 0.5
_MAX_DISAGREEMENT = 0.05
"""Texture coordinates of a picture and of its mirror image differ by less on a face; elsewhere they are arbitrary."""


def transfer_file(head: HeadModel) -> str:
    """Return the name of the file, beside the weights, that carries FLAME's texture coordinates over to a head."""
    return f"flame_to_{head.name}.npz"


class SurfacePredictor:
    """Draw texture coordinates, normals in head space and mask of an upright face."""

    def __init__(self, network: nn.Module, transfer: UvTransfer, device: str = "cpu") -> None:
        """Take a network that returns ``uv`` and ``normals`` of the transfer's source topology, see `priors.networks`.

        ``device`` is torch's name of where it runs.
        """
        self._device = torch.device(device)
        self._network = MirrorAveraged(network, transfer.mirror).to(self._device).eval()
        self._transfer = transfer
        self._rotation = transfer.rotation.astype(np.float32)
        self._segment = ForegroundSegmenter()

    def __call__(self, picture: np.ndarray) -> DenseMaps:
        """Return maps of a picture, RGB uint8 (512, 512, 3), at its size, of the head that is tracked."""
        maps = self._predict(picture)
        uv, normals = self._transfer(maps["uv"]), maps["normals"]
        lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
        mask = (self._segment(picture) > _PERSON) & (maps["mirror_gap_uv"][..., 0] < _MAX_DISAGREEMENT)
        mask &= np.isfinite(uv).all(axis=-1) & (lengths[..., 0] > 0)
        normals = (normals / np.maximum(lengths, 1e-9)) @ self._rotation.T
        uv[~mask], normals[~mask] = np.nan, np.nan
        return DenseMaps(uv, normals, mask, FLAME.normal_space)

    def _predict(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """Return the network's maps, float32 (h, w, C), mirrored and averaged."""
        image = torch.from_numpy(np.ascontiguousarray(picture)).to(self._device).permute(2, 0, 1)[None].float().div(255)
        is_short = self._device.type == "cuda"
        with torch.inference_mode(), torch.autocast(self._device.type, torch.float16, enabled=is_short):
            maps = self._network(image)
        return {name: np.moveaxis(values[0].float().cpu().numpy(), 0, -1) for name, values in maps.items()}


class Pixel3DMMPrior(NetworkPrior):
    """Find faces and landmarks with MediaPipe, and draw dense maps with the released networks."""

    def __init__(self, head: HeadModel, weights: str | Path, backend: Backend = "cpu", device: str = "cpu") -> None:
        """Load the networks from a folder.

        Args:
            head: for the released networks a FLAME head with texture coordinates, or one with a transfer file beside
                the weights; for networks of one's own the head that they were trained for.
            weights: folder with ``uv.ckpt`` and ``normals.ckpt``, or ``uv.safetensors`` and ``normals.safetensors``.
            backend: draws the landmarks' own maps.
            device: where the networks run, torch's name.

        Raises:
            AssetMissingError: a file is not there; the message says where it comes from and its licence.
            InputError: the head has another topology and no transfer, or a file is none of the released networks.
            UnsafeFileError: a file asks to run code.
        """
        folder = Path(weights)
        is_own = all((folder / name).is_file() for name in OWN_FILES.values())
        source = _own_networks(head, folder) if is_own else _released_networks(head, folder)
        predict = SurfacePredictor(source.network, source.transfer, device)
        super().__init__("pixel3dmm", MediaPipePrior(head, backend), predict, source.image_px, source.surface)


@dataclass(frozen=True)
class _Source:
    """Hold networks, and what is known of them."""

    network: nn.Module
    transfer: UvTransfer
    image_px: int
    surface: MapSurface


def _released_networks(head: HeadModel, folder: Path) -> _Source:
    # The head first: reading weights takes seconds.
    transfer = _transfer(head, folder)
    return _Source(load_released(folder), transfer, RELEASED_IMAGE_PX, FLAME)


def _own_networks(head: HeadModel, folder: Path) -> _Source:
    """Load what ``python -m priors.training.train --preset paper-uv`` and ``paper-normals`` wrote."""
    paths = {output: folder / name for output, name in OWN_FILES.items()}
    cards = {output: load_card(path) for output, path in paths.items()}
    for output, card in cards.items():
        if card.head_hash != head.content_hash:
            raise InputError(f"{paths[output]} was trained for another head than {head.name!r}; choose that by --head")
        if card.network.kind != "vit" or output not in card.network.outputs:
            raise InputError(f"{paths[output]} holds no network of kind 'vit' that predicts {output}")
    if cards["normals"].normal_space != FLAME.normal_space:
        raise InputError(
            f"{paths['normals']} predicts normals in {cards['normals'].normal_space} space, not head space"
        )
    sizes = {card.network.image_px for card in cards.values()}
    if len(sizes) > 1:
        raise InputError(f"the networks in {folder} look at pictures of different sizes: {sorted(sizes)} pixels")
    network = _OneOutputEach({output: load_network(path) for output, path in paths.items()})
    surface = MapSurface(head.name, FLAME.normal_space, head.num_vertices, len(head.faces))
    return _Source(network, UvTransfer.within(head, head.name), sizes.pop(), surface)


class _OneOutputEach(nn.Module):
    """Take one output from each of several networks."""

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return maps of pictures (B, 3, S, S)."""
        return {output: network(image)[output] for output, network in self.networks.items()}


def _transfer(head: HeadModel, folder: Path) -> UvTransfer:
    """Return how FLAME's texture coordinates become those of a head."""
    if FLAME.is_of(head):
        if head.topology is None or head.topology.uv is None:
            raise InputError(
                f"head {head.name!r} has no texture coordinates, which prior 'pixel3dmm' speaks of; put {TEMPLATE_OBJ} "
                "(FLAME's texture space and DECA's data folder have it) beside the head's file"
            )
        return UvTransfer.within(head, FLAME.topology)
    path = folder / transfer_file(head)
    if not path.is_file():
        raise InputError(
            f"prior 'pixel3dmm' speaks of the {FLAME}; head {head.name!r} has {head.num_vertices} vertices and "
            f"{len(head.faces)} triangles: use --head with a FLAME file, or make {path} from one by "
            "python -m priors.flame_transfer"
        )
    return load_transfer(path, head)
