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


def with_noise_of(spectra: Spectra, observed: Spectra, seed: int) -> Spectra:
    """The same spectra with noise like that of observed ones, drawn at random for each, in flux, ivar and meta ``snr``.

    Parameters
    ----------
    spectra : n normalised spectra without noise of their own, on the grid of ``observed``; their bad pixels stay bad, and those
        of the observed spectrum are added.
    seed : of the draw and of the noise.
    """
    random = np.random.default_rng(seed)
    of = random.integers(len(observed), size=len(spectra))
    ivar = np.where(spectra.ivar > 0, observed.ivar[of], 0.0)
    good = ivar > 0
    sigma = 1.0 / np.sqrt(np.where(good, ivar, 1.0))
    flux = np.where(good, spectra.flux + sigma * random.standard_normal(spectra.flux.shape), 0.0)
    meta = spectra.meta.copy()
    meta["snr"] = np.asarray(observed.meta["snr"], dtype=np.float64)[of]
    return spectra.with_pixels(flux=flux, ivar=ivar, meta=meta)
