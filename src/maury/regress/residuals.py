"""Errors of an inversion from spectra that its networks did not see: what they do not know, and what noise does to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.regress.pca_mlp import PcaMlpInferrer
from maury.regress.scores import Scores

FloatArray = NDArray[np.float64]

_ONE_SIGMA = 0.682689492137086  # of a Gaussian lies within one standard deviation
_CLIP = 3.0  # correlations are formed of residuals moved to 3 sigma: one bad spectrum makes none
_SMALLEST_SHARE = 0.1  # of a residual variance stays, however much of it the spectra's own noise explains
_USUAL_SNR = (20.0, 200.0)  # where noise is tried if the networks were trained without
_AT_MOST = 2000  # spectra with which noise is tried
_LARGEST_FACTOR = 20.0


def residual_covariance(
    inferrer: PcaMlpInferrer, found: Scores, scaled: FloatArray, held_back: NDArray[np.bool_]
) -> PcaMlpInferrer:
    """The inferrer with the covariance of held-out residuals, in scaled labels, less what the spectra's own noise explains.

    Robust: sigma is the 68.3 % quantile of |residual| (a bias is part of the error). A tail beyond a Gaussian is not in it.

    Parameters
    ----------
    found : scores of the n training spectra; scaled : (n, K) their labels; held_back : (members, n).

    Raises
    ------
    UsageError
        If no spectrum was held back.
    """
    if not held_back.any():
        raise UsageError("expected spectra that a network did not train on, got none; hold some back")
    residuals, own = [], []
    for member, rows in enumerate(held_back):
        values, slopes = inferrer.member(member).scaled_labels(found.values[rows] / inferrer.space.spread)
        residuals.append(values - scaled[rows])
        own.append(inferrer.scaled_covariance(slopes, found.covariance[rows]) - inferrer.residual_covariance)
    joined = np.concatenate(residuals)
    variance = np.quantile(np.abs(joined), _ONE_SIGMA, axis=0) ** 2 + 1e-12  # 1e-6 of a scaled label is never known better
    unit = np.clip(joined / np.sqrt(variance), -_CLIP, _CLIP)
    second = unit.T @ unit
    scale = np.sqrt(np.diagonal(second))
    explained = np.median(np.diagonal(np.concatenate(own), axis1=1, axis2=2), axis=0)
    sigma = np.sqrt(np.maximum(variance - explained, _SMALLEST_SHARE * variance))
    return replace(inferrer, residual_covariance=second / (scale[:, None] * scale) * sigma[:, None] * sigma)


def noise_factors(
    inferrer: PcaMlpInferrer,
    found: Scores,
    scaled: FloatArray,
    held_back: NDArray[np.bool_],
    snr: tuple[float, float] | None,
    seed: int,
) -> PcaMlpInferrer:
    """The inferrer with the factors (K,) >= 1 on its noise errors that make 68.3 % of noisy held-out spectra lie within 1 sigma.

    J C J' is first order and knows nothing of the pull towards the mean of networks trained with noise; both make errors too
    small at low S/N.

    Parameters
    ----------
    snr : lowest and highest signal-to-noise ratio, drawn evenly in the logarithm; None: 20 to 200.
    seed : of the noise.
    """
    random = np.random.default_rng(seed)
    low, high = np.log(_USUAL_SNR if snr is None else snr)
    residuals, noise = [], []
    for member, rows in enumerate(held_back):
        picked = random.permutation(np.flatnonzero(rows))[: max(1, _AT_MOST // len(held_back))]
        variance = np.exp(-2.0 * random.uniform(low, high, (len(picked), 1)))
        scores, covariance = _with_noise(inferrer, found.values[picked], variance, random)
        one = inferrer.member(member)
        values, slopes = one.scaled_labels(scores / inferrer.space.spread)
        residuals.append(values - scaled[picked])
        noise.append(np.einsum("nkr,nr->nk", (slopes / inferrer.space.spread) ** 2, covariance))
    known = np.diagonal(inferrer.residual_covariance)
    return replace(inferrer, noise_factor=_factors(np.concatenate(residuals), known, np.concatenate(noise)))


def _with_noise(
    inferrer: PcaMlpInferrer, scores: FloatArray, variance: FloatArray, random: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Scores with white noise of ``variance`` (n, 1) per pixel, as :meth:`ScoreSpace.project` finds them, and theirs (n, r)."""
    rest = inferrer.space.mean_rest
    noisy = scores + np.sqrt(variance) * random.standard_normal(scores.shape)
    pull = 1.0 / (1.0 + (variance + rest) / inferrer.space.spread**2)
    return noisy * pull, pull * (variance + rest) - rest * pull**2


def _factors(residuals: FloatArray, known: FloatArray, noise: FloatArray) -> FloatArray:
    """(K,) f with 68.3 % of |residual| below sqrt(known + f² noise), at least 1; by bisection, the share rises with f."""
    lower, upper = np.ones(len(known)), np.full(len(known), _LARGEST_FACTOR)
    for _ in range(40):
        middle = 0.5 * (lower + upper)
        short = (residuals**2 <= known + middle**2 * noise).mean(axis=0) < _ONE_SIGMA
        lower, upper = np.where(short, middle, lower), np.where(short, upper, middle)
    return np.asarray(lower)
