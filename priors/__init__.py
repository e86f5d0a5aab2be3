"""Priors: what looks at a frame and says where on the head's surface things are seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flame.errors import InputError

if TYPE_CHECKING:
    from flame.model import HeadModel
    from flame.rasterizer import Backend
    from priors.evidence import Prior

__all__ = ["PRIOR_NAMES", "create_prior"]

PRIOR_NAMES = ("mediapipe", "pixel3dmm", "commons")
"""Names that `create_prior` takes."""


def create_prior(
    name: str, head: HeadModel, backend: Backend = "cpu", *, weights: str | Path | None = None, device: str = "cpu"
) -> Prior:
    """Create a prior by name for a head model.

    Args:
        name: one of `PRIOR_NAMES`.
        head: the head that is tracked.
        backend: rasterises dense maps of landmarks.
        weights: networks of the user: for ``pixel3dmm`` the folder with ``uv.ckpt`` and ``normals.ckpt``, for
            ``commons`` a file of a training of one's own.
        device: where networks run: ``cpu``, ``cuda``, or ``auto`` for the GPU if there is one.

    Raises:
        InputError: there is no prior of that name, or the weights or the head are not for it.
        AssetMissingError: the prior's networks are not installed.
        UnsafeFileError: a file of weights asks to run code.
    """
    if name not in PRIOR_NAMES:
        raise InputError(f"unknown prior {name!r}; choose one of: {', '.join(PRIOR_NAMES)}")
    if name == "mediapipe":
        if weights is not None:
            raise InputError(
                f"--weights {weights}: prior 'mediapipe' has its own; they are for {' and '.join(PRIOR_NAMES[1:])}"
            )
        from priors.mediapipe import MediaPipePrior

        return MediaPipePrior(head, backend)
    if name == "commons":
        from priors.commons import commons_prior

        return commons_prior(head, None if weights is None else Path(weights), backend, _torch_device(device))
    if weights is None:
        raise InputError(
            "--prior pixel3dmm needs --weights DIR, the folder with uv.ckpt and normals.ckpt from "
            "https://huggingface.co/SimonGiebenhain/Pixel3dmm (licence CC BY-NC 4.0: no commercial use)"
        )
    from priors.pixel3dmm import Pixel3DMMPrior

    return Pixel3DMMPrior(head, weights, backend, _torch_device(device))


def _torch_device(device: str) -> str:
    """Return torch's name of a device: for ``auto`` that of a GPU where there is one.

    Raises:
        InputError: its name is not known, or there is none.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}; choose auto, cpu or cuda")
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise InputError("networks cannot run on device 'cuda': torch finds no GPU; choose auto or cpu")
    return "cuda" if has_gpu and device != "cpu" else "cpu"
