"""Visits of one star become one spectrum, by inverse-variance weights (METHODS 4: Imig+2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.prepare import snr
from maury.spectra import Spectra

IntArray = NDArray[np.int64]


def star_groups(stars: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Number of each star's first visit (n_stars,), and for every visit the number of its star (n_visits,).

    Stars come in the order of their first visits.
    """
    _, first, star = np.unique(np.asarray(stars, dtype=np.str_), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return first[order].astype(np.int64), rank[star].astype(np.int64)


def stack_visits(spectra: Spectra, stars: Sequence[str]) -> Spectra:
    """One spectrum for each star: f = Σ w f / Σ w and ivar = Σ w per pixel, w the visits' inverse variances.

    Parameters
    ----------
    spectra : (n_visits, n_pixels), prepared: on one grid, in the rest frame, normalised alike.
    stars : (n_visits,) names.

    Returns
    -------
    Spectra
        One row per star in the order of their first visits, with its id and meta; ``snr`` is that of the stack, the new column
        ``n_visits`` says of how many. A pixel is flagged by the visits that made it; where none did, by all.
    """
    first, star = star_groups(stars)
    n_visits = np.bincount(star)
    meta = spectra.meta[first].copy()
    meta["n_visits"] = n_visits
    stacked = spectra.with_pixels(
        flux=spectra.flux[first], ivar=spectra.ivar[first], ids=spectra.ids[first], meta=meta, mask=_rows(spectra.mask, first)
    )
    flux, ivar = np.array(stacked.flux), np.array(stacked.ivar)
    mask = None if stacked.mask is None else np.array(stacked.mask)
    order = np.argsort(star, kind="stable")
    for k, visits in enumerate(np.split(order, np.cumsum(n_visits)[:-1])):
        if len(visits) > 1:
            flux[k], ivar[k] = _weighted_mean(spectra.flux[visits], spectra.ivar[visits])
            if mask is not None and spectra.mask is not None:
                used = (spectra.ivar[visits] > 0) | (ivar[k] == 0)
                mask[k] = np.bitwise_or.reduce(np.where(used, spectra.mask[visits], np.uint32(0)), axis=0)
    stacked = stacked.with_pixels(flux=flux, ivar=ivar, mask=mask)
    meta["snr"] = np.where(n_visits > 1, snr(stacked), np.asarray(meta["snr"], dtype=np.float64))
    return stacked.with_pixels(meta=meta)


def _weighted_mean(flux: NDArray[Any], ivar: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n_pixels,) mean and its inverse variance; 0 and 0 where no visit has a usable pixel."""
    weight = ivar.astype(np.float64)
    total = weight.sum(axis=0)
    mean = np.divide((weight * flux).sum(axis=0), total, out=np.zeros(total.shape), where=total > 0)
    return mean, total


def _rows(mask: NDArray[np.uint32] | None, rows: IntArray) -> NDArray[np.uint32] | None:
    return None if mask is None else mask[rows]
