"""The network prior of the commons head: a compact network of our own, trained on renderings and registered frames."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from flame.errors import InputError
from flame.model import HeadModel
from flame.rasterizer import Backend
from priors.evidence import DenseMaps
from priors.mediapipe import MediaPipePrior
from priors.network_prior import NetworkPrior
from priors.networks.compact import PLACE_SCALE
from priors.networks.weights import load_card, load_network
from priors.pixel_kinds import Kind
from priors.prior_surface import MapSurface
from priors.surface_anchor import load_surface_anchor
from priors.template_lookup import TemplateLookup

WEIGHTS_FILE = Path(__file__).parent / "assets" / "commons_network.safetensors"
_FACE = (Kind.SKIN, Kind.EYE, Kind.MOUTH)
_USUAL_PLACE_ERROR_M, _USUAL_NORMAL_ERROR = 2.0e-3, 0.12
"""Expected errors that count as ordinary: metres on the template, length of the difference of unit normals."""
_MOST_TRUST = 2.0


class CommonsNetwork:
    """Draw texture coordinates, normals and mask of an upright face."""

    def __init__(self, head: HeadModel, weights: Path = WEIGHTS_FILE, device: str = "cpu") -> None:
        """Load the network of a head; ``device`` is torch's name of where the network runs.

        Raises:
            AssetMissingError: there is no such file.
            InputError: the weights were trained for another head, or cannot be read.
        """
        card = load_card(weights)
        if card.head_hash != head.content_hash:
            raise InputError(
                f"the network in {weights.name} was trained for another head than {head.name!r}; "
                "use --head commons, or --prior mediapipe"
            )
        if card.network.kind != "compact" or card.normal_space != "ray":
            raise InputError(
                f"{weights.name} holds a network of kind {card.network.kind!r} with normals in {card.normal_space} "
                "space; this prior needs kind 'compact' and space 'ray'"
            )
        self._device = torch.device(device)
        self._network = load_network(weights).to(self._device).to(memory_format=torch.channels_last)  # pyright: ignore
        self.input_px = int(card.network.input_px)
        self._head = head

    @cached_property
    def _uv_of(self) -> TemplateLookup:
        """Return what finds texture coordinates; made when maps are asked for, which identity alone does not."""
        return TemplateLookup.of(self._head)

    def _look(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """Return the network's maps (C, S / 2, S / 2) by name."""
        image = torch.from_numpy(np.ascontiguousarray(picture)).to(self._device)
        batch = image.permute(2, 0, 1)[None].float().div(255).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return {name: values[0].cpu().numpy() for name, values in self._network(batch).items()}

    def normals_at(self, picture: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return unit normals (N, 3) in ray space, and where the face itself is seen, bool (N,).

        Args:
            picture: RGB, uint8 (S, S, 3).
            points_px: points of the picture (N, 2), pixels.
        """
        found = self._look(picture)
        side = found["kind"].shape[-1]
        local = (points_px * (side / picture.shape[0])).astype(np.float32)
        normals = np.ascontiguousarray(np.moveaxis(found["normals"], 0, -1))
        x, y = local.T - np.float32(0.5)
        sampled = cv2.remap(normals, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0].astype(np.float64)
        columns, rows = np.clip(local.astype(np.int64), 0, side - 1).T
        is_face = np.isin(found["kind"].argmax(axis=0)[rows, columns], _FACE)
        return sampled / np.maximum(np.linalg.norm(sampled, axis=-1, keepdims=True), 1e-9), is_face

    def __call__(self, picture: np.ndarray) -> DenseMaps:
        """Return maps in ray space at half the size of a picture, RGB uint8 (S, S, 3)."""
        found = self._look(picture)
        mask = found["kind"].argmax(axis=0) == Kind.SKIN
        normals = np.moveaxis(found["normals"], 0, -1)
        normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        place = np.moveaxis(found["place"], 0, -1) * np.float32(PLACE_SCALE)
        uv = np.full((*mask.shape, 2), np.nan, np.float32)
        uv[mask] = self._uv_of(place[mask])
        normals[~mask] = np.nan
        middle = mask.shape[0] / 2
        trusts = (
            np.minimum(usual * np.exp(-found[name][0]), _MOST_TRUST).astype(np.float32)
            for name, usual in (
                ("log_sigma_place", _USUAL_PLACE_ERROR_M / PLACE_SCALE),
                ("log_sigma_normals", _USUAL_NORMAL_ERROR),
            )
        )
        return DenseMaps(uv, normals, mask, "ray", (middle, middle), *trusts)


def commons_prior(
    head: HeadModel, weights: Path | None = None, backend: Backend = "cpu", device: str = "cpu"
) -> NetworkPrior:
    """Create the prior with its network on a device, torch's name, and the landmarks' own maps drawn by a back end.

    Raises:
        InputError: the head is another one than that of the weights.
        AssetMissingError: there are no weights, or the installed MediaPipe wheel does not carry the networks that find
            faces.
    """
    network = CommonsNetwork(head, weights or WEIGHTS_FILE, device)
    surface = MapSurface(head.name, "ray", head.num_vertices, len(head.faces))
    prior = NetworkPrior("commons", MediaPipePrior(head, backend), network, network.input_px, surface)
    anchor = load_surface_anchor(head, prior.surface, weights or WEIGHTS_FILE, network.normals_at)
    if anchor is not None:
        prior.identity_anchor = anchor
    return prior
