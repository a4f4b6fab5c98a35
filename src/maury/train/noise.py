"""Noise that spectra get anew in each epoch (needs torch)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def white_noise(x: Tensor, snr: tuple[float, float], unit: float, generator: torch.Generator | None = None) -> Tensor:
    """(n, p) white noise of one random signal-to-noise ratio for each spectrum.

    Parameters
    ----------
    snr : lowest and highest ratio per pixel at flux 1, drawn evenly in the logarithm.
    unit : flux that is 1 in the inputs ``x``.
    generator : None: torch's own, which the training loop has seeded and keeps.
    """
    low, high = np.log(snr)
    device = "cpu" if generator is not None else x.device
    even = torch.rand((len(x), 1), generator=generator, device=device).to(x.device)
    noise = torch.randn(x.shape, generator=generator, device=device).to(x.device)
    return torch.exp(-(low + (high - low) * even)) / unit * noise
