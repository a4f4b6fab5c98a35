"""Training sets of the stars that there are: synthetic spectra drawn as often as labels found of observed ones say.

A library covers its range evenly, a survey does not. A network that minimises the mean square error answers with the mean of what
is possible, and what is likely belongs to it; alignment of features (:mod:`maury.train.transfer`) supposes the same stars on
either side. No label of an observed star is used, only what was found of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_WIDTH = 0.1  # of the kernels, in training ranges
_FLOOR = 0.02  # of the mean weight: no kind of star is ruled out


def population_weights(scaled: ArrayLike, found: ArrayLike) -> FloatArray:
    """(n,) weights of mean 1 by which stars of ``scaled`` labels are distributed like ``found`` ones.

    Ratio of two Gaussian kernel densities at each star, and a floor. All alike where no star is near any that was found.

    Parameters
    ----------
    scaled : (n, K) labels in units of their training ranges.
    found : (m, K) of observed stars; rows with NaN do not count.
    """
    own, other = np.asarray(scaled, dtype=np.float64), np.asarray(found, dtype=np.float64)
    other = other[np.isfinite(other).all(axis=1)]
    weights = _density(own, other) / _density(own, own) if len(other) else np.zeros(len(own))
    weights = (weights / weights.mean() if weights.any() else weights) + _FLOOR
    return np.asarray(weights / weights.mean())


def drawn(rows: NDArray[np.int64], weights: FloatArray, seed: int) -> NDArray[np.int64]:
    """As many of ``rows`` as there are, drawn with replacement by their (n,) weights, in ascending order."""
    random = np.random.default_rng(seed)
    return np.sort(random.choice(rows, len(rows), p=weights / weights.sum()))


def _density(at: FloatArray, of: FloatArray) -> FloatArray:
    """(n,) kernel density of some points at others, in units of its own."""
    out = np.empty(len(at))
    for first in range(0, len(at), 256):
        part = at[first : first + 256]
        squares = ((part[:, None] - of[None]) ** 2).sum(axis=2)
        out[first : first + 256] = np.exp(-0.5 * squares / _WIDTH**2).mean(axis=1)
    return out
