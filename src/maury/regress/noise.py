"""White noise for spectra that judge networks trained with noise: errors are learned on spectra like those they are for."""

from __future__ import annotations

import numpy as np

from maury.spectra import Spectra


def with_noise(spectra: Spectra, snr: tuple[float, float] | None, seed: int) -> Spectra:
    """The same spectra with white noise of a random signal-to-noise ratio each, in flux, ivar and meta ``snr``.

    Parameters
    ----------
    spectra : n normalised spectra, flux near 1, without noise of their own.
    snr : lowest and highest ratio per pixel at flux 1, drawn evenly in the logarithm; None leaves the spectra as they are.
    seed : of ratios and noise.
    """
    if snr is None:
        return spectra
    random = np.random.default_rng(seed)
    low, high = np.log(snr)
    ratio = np.exp(random.uniform(low, high, len(spectra)))
    good = spectra.ivar > 0
    flux = spectra.flux + random.standard_normal(spectra.flux.shape) / ratio[:, None]
    meta = spectra.meta.copy()
    meta["snr"] = ratio
    return spectra.with_pixels(flux=np.where(good, flux, 0.0), ivar=np.where(good, ratio[:, None] ** 2, 0.0), meta=meta)
