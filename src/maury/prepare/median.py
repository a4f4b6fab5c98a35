"""Exact running medians over good pixels only, for whole batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_PIXELS_AT_ONCE = 1 << 18


def running_median(flux: FloatArray, good: NDArray[np.bool_], half_window: int) -> FloatArray:
    """Median over the good pixels within ``half_window`` pixels on either side; NaN where there is none.

    Windows are cut at the ends of the spectrum. For an even number of good pixels, the mean of the middle two.

    A filter of fixed rank cannot leave pixels out, but this can be arranged: missing pixels (masked ones, and those
    beyond the ends) become +∞ and −∞ in turn. Every window holds a run of that alternation, so the infinities on the
    two sides differ by one at most, and the middle of the whole window is the middle of its good pixels, or, for
    an even number of them, one of the middle two. Exchanging the signs gives the other one; the mean of both is exact.

    Parameters
    ----------
    flux, good : (n_spectra, n_pixels).
    half_window : pixels on each side; the window is 2 half_window + 1 pixels.
    """
    out = np.empty(flux.shape)
    half = min(half_window, flux.shape[1])  # wider windows see the whole spectrum anyway
    rows = max(1, _PIXELS_AT_ONCE // (flux.shape[1] + 2 * half))
    for low in range(0, len(flux), rows):
        block = slice(low, low + rows)
        out[block] = _median_block(flux[block], good[block], half)
    return out


def _median_block(flux: FloatArray, good: NDArray[np.bool_], half: int) -> FloatArray:
    """All rows end to end in one vector, with ``half`` missing pixels on either side of each."""
    from scipy.ndimage import median_filter

    ends = ((0, 0), (half, half))
    missing = ~np.pad(good, ends).ravel()
    values = np.pad(np.asarray(flux, dtype=np.float64), ends).ravel()
    values[missing] = np.inf
    values[np.flatnonzero(missing)[::2]] = -np.inf
    one = median_filter(values, size=2 * half + 1, mode="nearest")
    values[missing] *= -1
    other = median_filter(values, size=2 * half + 1, mode="nearest")
    known = np.isfinite(one) & np.isfinite(other)
    middle = np.where(known, 0.5 * np.where(known, one, 0.0) + 0.5 * np.where(known, other, 0.0), np.nan)
    return middle.reshape(len(flux), -1)[:, half : half + flux.shape[1]]
