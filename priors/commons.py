"""The network prior of the commons head: a compact network of our own, trained on renderings and registered frames."""

from __future__ import annotations

from pathlib import Path

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
from priors.prior_surface import MapSurface
from priors.template_lookup import TemplateLookup

WEIGHTS_FILE = Path(__file__).parent / "assets" / "commons_network.safetensors"
_SKIN = 1
"""See ``priors.training.labels.Kind``."""
_USUAL_PLACE_ERROR_M, _USUAL_NORMAL_ERROR = 2.0e-3, 0.12
"""Expected errors that count as ordinary: metres on the template, length of the difference of unit normals."""
_MOST_TRUST = 2.0


class CommonsNetwork:
    """Draw texture coordinates, normals and mask of an upright face."""

    def __init__(self, head: HeadModel, weights: Path = WEIGHTS_FILE, device: str = "cpu") -> None:
        """Load the network and prepare the head's template.

        Raises:
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
        self._uv_of = TemplateLookup.of(head)

    def __call__(self, picture: np.ndarray) -> DenseMaps:
        """Return maps in ray space at half the size of a picture, RGB uint8 (S, S, 3)."""
        image = torch.from_numpy(np.ascontiguousarray(picture)).to(self._device)
        batch = image.permute(2, 0, 1)[None].float().div(255).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            found = {name: values[0].cpu().numpy() for name, values in self._network(batch).items()}
        mask = found["kind"].argmax(axis=0) == _SKIN
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


def commons_prior(head: HeadModel, weights: Path | None = None, backend: Backend = "cpu") -> NetworkPrior:
    """Create the prior.

    Raises:
        InputError: the head is another one than that of the weights.
        AssetMissingError: the installed MediaPipe wheel does not carry the networks that find faces.
    """
    network = CommonsNetwork(head, weights or WEIGHTS_FILE)
    surface = MapSurface(head.name, "ray", head.num_vertices, len(head.faces))
    return NetworkPrior("commons", MediaPipePrior(head, backend), network, network.input_px, surface)
