"""Principal components of spectra with masked pixels: the space in which a small network learns a whole spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError

FloatArray = NDArray[np.float64]

_MAX_PASSES = 10
_SMALL_CHANGE = 1e-2  # of the rms of what is filled in: passes end below it
_PULL = 1e-3  # of a pixel's regression towards what it was: what decides where too few spectra have the pixel


def principal_components(
    flux: FloatArray, good: NDArray[np.bool_], weights: FloatArray, n_components: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted principal components; masked pixels are filled from the components themselves.

    In turns, as in probabilistic components with missing data (Tipping & Bishop 1999, J. R. Stat. Soc. B 61, 611): the scores
    that the good pixels of a spectrum make likely; the regression of a pixel on the scores of the spectra that have it. A
    block of pixels that half of the spectra lack is so filled from the other half.

    Parameters
    ----------
    flux : (n, n_pixels); good : (n, n_pixels) False where masked.
    weights : (n,) of the spectra.
    n_components : r, fewer than spectra.

    Returns
    -------
    Mean (n_pixels,), orthonormal basis (r, n_pixels) and the scores of every spectrum (n, r).

    Raises
    ------
    UsageError
        If there are not more spectra than components.
    """
    n = len(flux)
    if not 1 <= n_components < min(flux.shape):
        raise UsageError(
            f"expected 1 to {min(flux.shape) - 1} principal components for {n} spectra, got {n_components}; lower it"
        )
    share = weights / weights.sum()
    mean = (share @ (flux * good)) / np.maximum(share @ good, 1e-12)
    filled = np.where(good, flux, mean)
    gaps, holes = np.flatnonzero(~good.all(axis=1)), np.flatnonzero(~good.all(axis=0))
    bad = ~good[np.ix_(gaps, holes)]
    for _ in range(_MAX_PASSES):
        mean = share @ filled
        basis = _leading(filled - mean, share, n_components)
        scores = (filled - mean) @ basis.T
        if gaps.size == 0:
            break
        residual = np.where(good, filled - mean - scores @ basis, 0.0)
        shrink = (share @ residual**2).sum() / np.maximum((share @ good).sum() * (share @ scores**2), 1e-300)
        shrink = np.clip(shrink, 1e-8, 1e8)  # a spectrum without a good pixel must not make the matrix singular
        known = np.where(good[gaps], filled[gaps] - mean, 0.0)
        scores[gaps] = _likely_scores(known, bad, basis, basis[:, holes], shrink)
        terms = np.column_stack([np.ones(n), scores])
        rows = _regressions(terms, flux[:, holes], good[:, holes] * share[:, None], np.vstack([mean, basis])[:, holes])
        new, old = (terms[gaps] @ rows)[bad], filled[np.ix_(gaps, holes)][bad]
        place = np.nonzero(bad)
        filled[gaps[place[0]], holes[place[1]]] = new
        if np.linalg.norm(new - old) <= _SMALL_CHANGE * np.linalg.norm(new - mean[holes[place[1]]]):
            break
    return mean, basis, (filled - mean) @ basis.T


def _likely_scores(
    known: FloatArray, bad: NDArray[np.bool_], basis: FloatArray, in_holes: FloatArray, shrink: FloatArray
) -> FloatArray:
    """(m, r) scores from the good pixels alone; ``shrink`` (r,) is the noise's variance over that of each score."""
    i, j = np.triu_indices(len(basis))
    normal = np.empty((len(known), len(basis), len(basis)))
    # the basis is orthonormal: what the masked pixels take away from the unit matrix
    normal[:, i, j] = normal[:, j, i] = (i == j) * (1.0 + shrink[i]) - _product(bad, (in_holes[i] * in_holes[j]).T)
    return np.asarray(np.linalg.solve(normal, (known @ basis.T)[:, :, None])[:, :, 0])


def _product(a: NDArray[Any], b: FloatArray) -> FloatArray:
    """a @ b in float32: the large products of a pass, which only has to bring the fill nearer."""
    return np.asarray(a.astype(np.float32) @ b.astype(np.float32), dtype=np.float64)


def _regressions(terms: FloatArray, flux: FloatArray, weight: FloatArray, before: FloatArray) -> FloatArray:
    """(t, n_pixels) coefficients of each pixel on the (n, t) terms by its own weights, pulled towards those of before."""
    i, j = np.triu_indices(terms.shape[1])
    normal = np.empty((flux.shape[1], terms.shape[1], terms.shape[1]))
    normal[:, i, j] = normal[:, j, i] = _product(weight.T, terms[:, i] * terms[:, j])
    pull = _PULL * np.maximum((terms**2).mean(axis=0), 1e-300)
    normal[:, np.arange(len(pull)), np.arange(len(pull))] += pull
    right = terms.T @ np.where(weight > 0, flux * weight, 0.0) + pull[:, None] * before
    return np.asarray(np.linalg.solve(normal, right.T[:, :, None])[:, :, 0].T)


def _leading(centred: FloatArray, share: FloatArray, r: int) -> FloatArray:
    """(r, n_pixels) leading right singular vectors, from the smaller of the two Gram matrices."""
    weighted = centred * np.sqrt(share)[:, None]
    n, n_pixels = weighted.shape
    if n <= n_pixels:
        values, vectors = np.linalg.eigh(weighted @ weighted.T)
        basis = (weighted.T @ vectors[:, ::-1][:, :r]) / np.sqrt(np.maximum(values[::-1][:r], 1e-300))
    else:
        basis = np.linalg.eigh(weighted.T @ weighted)[1][:, ::-1][:, :r]
    return np.ascontiguousarray(np.linalg.qr(basis)[0].T)
