"""The gap before and after a transfer: in flux, and in the latent numbers of the encoder as it was and as it is.

Mas-Buitrago+2024 see no significant difference between the domains in latent space. Two numbers say how large one is (METHODS 2):
the share of observed spectra that lie farther from synthetic ones than those from one another, and how well a classifier tells
an observed spectrum from its nearest synthetic ones. Noise like that of the observed spectra is in the synthetic ones for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.assess.domain import PARTNERS, QUANTILE, mean_and_error, told_apart
from maury.assess.gap_window import NEIGHBOUR
from maury.regress.latent import Encoder
from maury.regress.noise import with_noise_of
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

SPACES = ("flux", "latent numbers before", "latent numbers after")
"""Where the gap is looked at: inputs of the first encoder, and what all encoders make of them before and after the transfer."""

_REFERENCE = 1000  # synthetic spectra that stand for all
_ON_MAP = 400  # synthetic spectra that are drawn


@dataclass(frozen=True, eq=False)
class SpaceGap:
    """The gap of n observed spectra in one space; means over the encoders.

    Parameters
    ----------
    space : one of :data:`SPACES`; n : observed spectra.
    ratio : median over the spectra of the distance to the tenth nearest synthetic one, over the 99th percentile of that distance
        among synthetic ones (Euclidean).
    beyond : share of the spectra where it is above 1.
    auc, auc_error : area under the ROC curve of the classifier (0.5: no gap, 1: a complete one), NaN for fewer than 20 spectra.
    synthetic, observed : (m, 2), (n, 2) principal components of both together, of the first encoder.
    """

    space: str
    n: int
    ratio: float
    beyond: float
    auc: float
    auc_error: float
    synthetic: FloatArray
    observed: FloatArray


def transfer_gap(
    synthetic: Spectra, observed: Spectra, before: Sequence[Encoder], after: Sequence[Encoder], *, seed: int = 0
) -> list[SpaceGap]:
    """The gap in each of :data:`SPACES`.

    Parameters
    ----------
    synthetic, observed : prepared spectra on the encoders' grid; of either at most a thousand are drawn;
        more than five synthetic ones.
    before, after : the encoders.
    seed : of draws, noise, folds and bootstrap.
    """
    random = np.random.default_rng(seed)
    chosen = synthetic[np.sort(random.permutation(len(synthetic))[:_REFERENCE])]
    if len(observed) > _REFERENCE:
        observed = observed[np.sort(np.random.default_rng(seed).permutation(len(observed))[:_REFERENCE])]
    reference, partners = with_noise_of(chosen, observed, seed), _partners(chosen, observed, random)
    good = observed.ivar > 0

    def in_space(space: str, see: Sequence[Callable[[NDArray[Any], NDArray[np.bool_]], NDArray[Any]]]) -> SpaceGap:
        found = []
        for each in see:
            own = each(observed.flux, good).astype(np.float64)
            others = each(reference.flux, reference.ivar > 0).astype(np.float64)
            near = each(partners.reshape(-1, partners.shape[2]), np.repeat(good, PARTNERS, axis=0)).astype(np.float64)
            share = told_apart(own, near.reshape(len(own), PARTNERS, -1), np.random.default_rng(seed))
            away = _tenth(own, others) / np.quantile(_tenth(others, others, itself=1), QUANTILE)
            area = mean_and_error(share[np.isfinite(share)], np.random.default_rng(seed))
            found.append((float(np.median(away)), float((away > 1).mean()), *area, *_map(others, own)))
        ratio, beyond, auc, error = np.mean([row[:4] for row in found], axis=0).tolist()
        return SpaceGap(space, len(observed), ratio, beyond, auc, error, *found[0][4:])

    return [
        in_space(SPACES[0], [before[0].scale]),
        in_space(SPACES[1], [encoder.encode for encoder in before]),
        in_space(SPACES[2], [encoder.encode for encoder in after]),
    ]


def _partners(synthetic: Spectra, observed: Spectra, random: np.random.Generator) -> FloatArray:
    """(n, 5, n_pixels) flux of the synthetic spectra nearest to each observed one by chi-square, with noise like its own."""
    out = np.empty((len(observed), PARTNERS, observed.n_pixels))
    for row, (flux, ivar) in enumerate(zip(observed.flux, observed.ivar, strict=True)):
        chi2 = ((synthetic.flux - flux) ** 2) @ ivar
        nearest = np.argpartition(chi2, PARTNERS)[:PARTNERS]
        sigma = np.where(ivar > 0, 1.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), 0.0)
        out[row] = synthetic.flux[nearest] + sigma * random.standard_normal((PARTNERS, len(flux)))
    return out


def _tenth(points: FloatArray, of: FloatArray, itself: int = 0) -> FloatArray:
    """(n,) distance to the tenth nearest of some points; ``itself``: 1 where a point is among them."""
    squares = (points**2).sum(axis=1)[:, None] + (of**2).sum(axis=1) - 2.0 * points @ of.T
    place = min(NEIGHBOUR - 1 + itself, len(of) - 1)
    return np.asarray(np.sqrt(np.maximum(np.partition(squares, place, axis=1)[:, place], 0.0)))


def _map(synthetic: FloatArray, observed: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two principal components of some synthetic and all observed spectra together."""
    some = synthetic[:_ON_MAP]
    both = np.vstack([some, observed])
    left, size, _ = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)
    points = np.zeros((len(both), 2))  # one latent number has one component
    points[:, : min(2, len(size))] = left[:, :2] * size[:2]
    return points[: len(some)], points[len(some) :]
