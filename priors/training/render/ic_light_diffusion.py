"""IC-Light on the ``diffusers`` library; imported only once it is known to be installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (  # pyright: ignore[reportMissingImports] - optional
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from safetensors.torch import load_file

from priors.training.render.ic_light import Sampling, merge_offsets


class StableDiffusion:
    """Stable Diffusion 1.5 whose network sees further latents beside the noisy one."""

    def __init__(self, base: Path, weights: Path, extra_channels: int, device: str) -> None:
        """Load the base model from its folder, widen its first convolution, add the offsets of a safetensors file."""
        on_gpu = torch.device(device).type == "cuda"
        # The decoder overflows in half precision; bfloat16 has the range.
        self._dtype = torch.float16 if on_gpu else torch.float32
        options: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None}
        text = StableDiffusionPipeline.from_pretrained(base, use_safetensors=True, local_files_only=True, **options)
        unet = text.unet
        _widen(unet, extra_channels)
        unet.load_state_dict(merge_offsets(unet.state_dict(), load_file(weights)))
        text.scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.012,
            algorithm_type="sde-dpmsolver++",
            use_karras_sigmas=True,
            steps_offset=1,
        )
        text.to(device=device, dtype=self._dtype)
        text.vae.to(dtype=torch.bfloat16 if on_gpu else torch.float32)
        text.set_progress_bar_config(disable=True)
        self._text, self._device = text, device
        self._picture = StableDiffusionImg2ImgPipeline(**text.components, requires_safety_checker=False)
        self._picture.set_progress_bar_config(disable=True)

    @torch.inference_mode()
    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Return scaled latents of pictures; see ``Diffusion``."""
        vae = self._text.vae
        latents = vae.encode(torch.from_numpy(pictures).to(vae.device, vae.dtype)).latent_dist.mode()
        return (latents * vae.config.scaling_factor).float().cpu().numpy()

    @torch.inference_mode()
    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return pictures of scaled latents; see ``Diffusion``."""
        vae = self._text.vae
        tensor = torch.from_numpy(latents).to(vae.device, vae.dtype) / vae.config.scaling_factor
        return vae.decode(tensor).sample.float().cpu().numpy()

    @torch.inference_mode()
    def sample(self, condition: np.ndarray, sampling: Sampling) -> np.ndarray:
        """Return new latents; see ``Diffusion``."""
        common: dict[str, Any] = {
            "prompt": sampling.prompt,
            "negative_prompt": sampling.negative_prompt,
            "num_inference_steps": sampling.steps,
            "guidance_scale": sampling.guidance,
            "generator": torch.Generator(device=self._device).manual_seed(sampling.seed),
            "output_type": "latent",
            "cross_attention_kwargs": {"concat_conds": torch.from_numpy(condition)},
        }
        if sampling.start is None:
            height, width = (8 * edge for edge in condition.shape[2:])
            latents = self._text(height=height, width=width, **common).images
        else:
            image = torch.from_numpy(sampling.start).to(self._device, self._dtype)
            latents = self._picture(image=image, strength=sampling.strength, **common).images
        return latents.float().cpu().numpy()


def _widen(unet: Any, extra_channels: int) -> None:
    """Let a network take further latents beside its own, first without effect; they come as ``concat_conds``."""
    old = unet.conv_in
    own = old.in_channels
    new = torch.nn.Conv2d(own + extra_channels, old.out_channels, old.kernel_size, old.stride, old.padding)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :own] = old.weight
        new.bias = old.bias
    unet.conv_in = new
    plain = unet.forward

    def forward(sample: torch.Tensor, timestep: Any, encoder_hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        beside = kwargs.pop("cross_attention_kwargs")["concat_conds"].to(sample)
        # With guidance the batch holds the latent twice.
        beside = beside.repeat(sample.shape[0] // beside.shape[0], 1, 1, 1)
        return plain(torch.cat((sample, beside), dim=1), timestep, encoder_hidden_states, **kwargs)

    unet.forward = forward
