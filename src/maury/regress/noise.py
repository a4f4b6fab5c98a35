"""White noise for spectra that judge networks trained with noise: errors are learned on spectra like those they are for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maury.spectra import Spectra

FloatArray = NDArray[np.float64]


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


def residuals_of(observed: Spectra, synthetic: Spectra) -> FloatArray:
    """(m, n_pixels) flux of observed spectra minus that of the nearest synthetic ones by chi-square; 0 where a pixel is bad.

    Parameters
    ----------
    observed, synthetic : m and n spectra on one grid; synthetic ones without noise of their own, their bad pixels count as 0.
    """
    ivar = observed.ivar.astype(np.float64)
    flux, library = np.where(ivar > 0, observed.flux, 0.0), synthetic.flux.astype(np.float64)
    chi2 = ivar @ (library**2).T - 2.0 * (ivar * flux) @ library.T  # but for a constant of each observed spectrum
    return np.where(ivar > 0, flux - library[chi2.argmin(axis=1)], 0.0)


def with_residuals_of(spectra: Spectra, observed: Spectra, residuals: FloatArray, seed: int) -> Spectra:
    """Spectra with noise like that of observed ones (:func:`with_noise_of`), every second one with a residual of one instead.

    Parameters
    ----------
    residuals : (m, n_pixels) of the observed spectra, see :func:`residuals_of`.
    """
    white = with_noise_of(spectra, observed, seed)
    of = np.random.default_rng(seed).integers(len(observed), size=len(spectra))  # the draw that with_noise_of begins with
    second = (np.arange(len(spectra)) % 2 == 1)[:, None] & (white.ivar > 0)
    return white.with_pixels(flux=np.where(second, spectra.flux + residuals[of], white.flux))
