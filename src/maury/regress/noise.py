"""Noise like that of observed spectra: for spectra that judge networks (errors are learned on spectra like those they are for),
and residuals for those that train them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

_ROUNDS = 30
_FEW = 20  # spectra whose median is not yet what they have in common


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
    """(m, n_pixels) flux of observed spectra minus that of the synthetic ones they are most like; 0 where a pixel is bad.

    A pattern that all spectra of a set have in common (what is left of sky lines, a flat field) is not of the stars, and must not
    choose the synthetic spectrum: it is the median of the residuals, taken away before the nearest spectrum by chi-square is
    looked for, in turn, until the choice stays or after thirty rounds. It remains in the residuals. What of it looks like a
    change of labels in stars of all kinds cannot be told from one.

    Parameters
    ----------
    observed, synthetic : m and n spectra on one grid; synthetic ones without noise of their own, their bad pixels count as 0.
        Observed ones with the same meta column ``set``, or all where there is no such column, are a set.
    """
    library = synthetic.flux.astype(np.float64)
    sets = np.asarray(observed.meta["set"]).astype(str) if "set" in observed.meta.colnames else np.full(len(observed), "")
    out = np.empty(observed.flux.shape)
    for name in np.unique(sets):
        rows = np.flatnonzero(sets == name)
        ivar = observed.ivar[rows].astype(np.float64)
        out[rows] = _residuals(np.where(ivar > 0, observed.flux[rows], 0.0), ivar, library)
    return out


def _residuals(flux: FloatArray, ivar: FloatArray, library: FloatArray) -> FloatArray:
    """(m, p) residuals of the spectra of one set."""
    good, of_library = ivar > 0, ivar @ (library**2).T
    common, before = np.zeros(flux.shape[1]), None
    for _ in range(_ROUNDS):
        nearest = (of_library - 2.0 * (ivar * (flux - common)) @ library.T).argmin(axis=1)
        residuals = np.where(good, flux - library[nearest], 0.0)
        if len(flux) < _FEW or (before is not None and np.array_equal(nearest, before)):
            break
        before = nearest
        known = good.any(axis=0)
        common[known] = np.nanmedian(np.where(good, residuals, np.nan)[:, known], axis=0)
    return residuals


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
