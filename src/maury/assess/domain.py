"""The gap of a set of observed spectra: how many lie beyond the synthetic ones, and how well the two can be told apart.

Passegger+2020 (Sect. 4.3) look at a map of synthetic spectra, without noise and with S/N 50, 100 and 150, and observed ones, and
find 46 of 50 stars outside. Shares of the same kind are counted here in the original space, where distances have a meaning. A
classifier answers the question from another side: if it can tell observed spectra from their nearest synthetic ones, noise like
theirs added, there is a gap, and the area under its ROC curve says how wide it is: 0.5 none, 1 complete.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maury.assess.gap import SyntheticGap
from maury.assess.gap_window import NEIGHBOUR, GapWindow
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

SNR_VARIANTS = (np.inf, 150.0, 100.0, 50.0)
"""Of the synthetic spectra, as in the paper."""

QUANTILE = 0.99
"""Of the distances among synthetic spectra: beyond it an observed one lies outside."""

PARTNERS = 5
"""Synthetic neighbours of each star."""
_FOLDS = 5
_MIN_STARS = 20  # fewer tell nothing
_STARS_PER_FEATURE, _MAX_FEATURES = 5, 30
_RESAMPLED = 500


@dataclass(frozen=True, eq=False)
class WindowGap:
    """What is known of a set of n observed spectra in one window.

    Parameters
    ----------
    low, high : ends of the window, Å.
    ratio : (n,) distance from the training spectra over what explains it (:meth:`GapWindow.ratio`); NaN for too few pixels.
    beyond : share of the spectra whose ratio exceeds 1.
    plain : S/N of the synthetic spectra -> share of the observed ones whose plain correlation distance to the tenth neighbour
        exceeds the 99th percentile of that among the synthetic ones. The paper's question; no noise is subtracted.
    synthetic_share : (n,) share of synthetic spectra that look less observed than this one; NaN where nothing was classified.
    auc, auc_error : mean of ``synthetic_share``, the area under the ROC curve, and its bootstrap error over stars.
    """

    low: float
    high: float
    ratio: FloatArray
    beyond: float
    plain: dict[float, float]
    synthetic_share: FloatArray
    auc: float
    auc_error: float


def set_gap(
    gap: SyntheticGap, spectra: Spectra, ratios: FloatArray, velocity: FloatArray | None = None, *, seed: int = 0
) -> list[WindowGap]:
    """The gap of a set of prepared spectra in each window.

    Parameters
    ----------
    ratios : (n, W), see :meth:`SyntheticGap.ratios`.
    velocity : (n,) km/s that the spectra still have.
    seed : of noise, folds and bootstrap.
    """
    flux, ivar = spectra.flux, spectra.ivar
    if velocity is not None:
        flux, ivar = gap.at_rest(flux, ivar, velocity)
    out = []
    for window, ratio in zip(gap.windows, ratios.T, strict=True):
        known = np.isfinite(ratio)
        own, _, variance, _ = window.without_modes(flux[known], ivar[known])
        random = np.random.default_rng(seed)
        plain = {snr: plain_share(window, own, snr, random) for snr in SNR_VARIANTS}
        share = np.full(len(ratio), np.nan)
        share[known] = classified(window, own, variance, random)
        auc, error = mean_and_error(share[np.isfinite(share)], random)
        beyond = float((ratio[known] > 1.0).mean()) if known.any() else float("nan")
        out.append(WindowGap(window.low, window.high, ratio, beyond, plain, share, auc, error))
    return out


def plain_share(window: GapWindow, own: FloatArray, snr: float, random: np.random.Generator) -> float:
    """Share of (n, m) spectra without modes that lie farther from synthetic ones of this S/N than those from one another."""
    if not len(own):
        return float("nan")
    synthetic = window.reference_flux(snr, random).astype(np.float32)
    among = synthetic @ synthetic.T
    np.fill_diagonal(among, -np.inf)
    lowest = np.quantile(_tenth(among), 1.0 - QUANTILE)
    return float((_tenth(_unit(own).astype(np.float32) @ synthetic.T) < lowest).mean())


def classified(window: GapWindow, own: FloatArray, variance: FloatArray, random: np.random.Generator) -> FloatArray:
    """(n,) share of synthetic spectra that look less observed (:func:`told_apart`).

    Each star has five partners: its nearest synthetic spectra, as strong as the star and with noise like its own, so that neither
    labels nor noise give the answer away.

    Parameters
    ----------
    own : (n, m) observed spectra without modes; variance : (n, m) of their noise.

    Returns
    -------
    Shares; NaN for fewer than 20 stars.
    """
    n = len(own)
    if n < _MIN_STARS:
        return np.full(n, np.nan)
    chosen, reach = window.neighbours(own @ window.basis.T.astype(np.float64), PARTNERS)
    clean = window.references[chosen].astype(np.float64) @ window.basis.astype(np.float64)
    noise = np.sqrt(variance)[:, None] * random.standard_normal(clean.shape)
    partners = window.bare((reach[:, :, None] * clean + noise).reshape(n * PARTNERS, -1))
    return told_apart(_unit(own), _unit(partners).reshape(n, PARTNERS, -1), random)


def told_apart(observed: FloatArray, partners: FloatArray, random: np.random.Generator) -> FloatArray:
    """(n,) share of synthetic spectra that look less observed, by linear discriminants that did not see the star.

    Features are the leading principal components; star and partners are in one fold.

    Parameters
    ----------
    observed : (n, f) what is known of each star, pixels or latent numbers; partners : (n, P, f) of synthetic spectra like it.

    Returns
    -------
    Shares, whose mean is the area under the ROC curve; NaN for fewer than 20 stars.
    """
    n = len(observed)
    if n < _MIN_STARS:
        return np.full(n, np.nan)
    every = np.vstack([observed, partners.reshape(-1, partners.shape[2])])
    features = _features(every, int(np.clip(n // _STARS_PER_FEATURE, 2, _MAX_FEATURES)))
    own, others = features[:n], features[n:].reshape(*partners.shape[:2], -1)
    fold = random.permutation(n) % _FOLDS
    share = np.empty(n)
    for number in range(_FOLDS):
        held, seen = fold == number, fold != number
        direction = _discriminant(own[seen], others[seen].reshape(-1, features.shape[1]))
        scores, rest = own[held] @ direction, np.sort((others[held] @ direction).ravel())
        below = np.searchsorted(rest, scores, side="left") + np.searchsorted(rest, scores, side="right")
        share[held] = 0.5 * below / rest.size
    return share


def _discriminant(first: FloatArray, second: FloatArray) -> FloatArray:
    """(r,) direction that tells two samples of features apart: Fisher's, covariance shrunk as Ledoit & Wolf (2004) advise."""
    centred = np.vstack([first - first.mean(axis=0), second - second.mean(axis=0)])
    n, r = centred.shape
    covariance = centred.T @ centred / n
    even = np.trace(covariance) / r
    away = ((covariance - even * np.eye(r)) ** 2).sum()
    scatter = ((centred**2).sum(axis=1) ** 2).sum() / n**2 - (covariance**2).sum() / n
    shrink = float(np.clip(scatter / max(float(away), 1e-300), 0.0, 1.0))
    shrunk = (1.0 - shrink) * covariance + shrink * even * np.eye(r)
    return np.asarray(np.linalg.solve(shrunk + 1e-9 * even * np.eye(r), first.mean(axis=0) - second.mean(axis=0)))


def _features(directions: FloatArray, number: int) -> FloatArray:
    """(n, number) leading principal-component scores, each of unit variance."""
    centred = directions - directions.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(number, int(np.count_nonzero(size > 1e-9 * size[0])))
    return np.asarray(left[:, :kept] * np.sqrt(len(centred)))


def _tenth(cosines: NDArray[np.float32]) -> FloatArray:
    """(n,) the tenth largest cosine of each row."""
    place = cosines.shape[1] - NEIGHBOUR
    return np.asarray(np.partition(cosines, place, axis=1)[:, place], dtype=np.float64)


def _unit(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.maximum(np.sqrt((rows**2).sum(axis=1, keepdims=True)), 1e-300))


def mean_and_error(share: FloatArray, random: np.random.Generator) -> tuple[float, float]:
    """Mean of shares, the area under the ROC curve, and its bootstrap error over stars; NaN for none."""
    if not share.size:
        return float("nan"), float("nan")
    means = share[random.integers(0, share.size, (_RESAMPLED, share.size))].mean(axis=1)
    return float(share.mean()), float(means.std())
