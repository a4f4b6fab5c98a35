"""Many networks' votes on one label into one value with an interval (METHODS 0.7, as the CARMENES ensembles do).

The value is the maximum of a Gaussian kernel density of the votes with Scott's bandwidth, the interval their 16th and 84th
percentiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError

FloatArray = NDArray[np.float64]

_GRID = 200  # points of the search over a star's votes, the number in METHODS 0.7
_PERIOD = 512  # points that the grid is padded to, so that one end's kernels hardly reach the other: they are at least 311 away
_BLOCK = 10_000  # votes at a time: what is computed of them stays in the processor's cache
_FAR = 1e6  # in ranges of the votes: a missing vote lies where its kernel is 0
_STEP = 1e-6  # in ranges of the votes: the next of Newton's steps would be about the square of this
_MAX_STEPS = 60


@dataclass(frozen=True, eq=False)
class VoteSummary:
    """What n stars' votes on one label say; all of shape (n,), label units.

    Parameters
    ----------
    mode : where the density of the votes is highest.
    q16, q84 : percentiles of the votes.
    degenerate : fewer than two votes, or all equal: ``mode`` is their median (NaN without any) and the interval has no width.
    """

    mode: FloatArray
    q16: FloatArray
    q84: FloatArray
    degenerate: NDArray[np.bool_]

    @property
    def lower(self) -> FloatArray:
        """(n,) mode minus 16th percentile. 0 where the mode lies below that percentile, so that ``mode - lower`` to
        ``mode + upper`` always holds the mode and all of the 16 to 84 % interval."""
        return np.maximum(self.mode - self.q16, 0.0)

    @property
    def upper(self) -> FloatArray:
        """(n,) 84th percentile minus mode, 0 where the mode lies above it."""
        return np.maximum(self.q84 - self.mode, 0.0)

    @property
    def sigma(self) -> FloatArray:
        """(n,) half of the width from the 16th to the 84th percentile: the symmetric error."""
        return 0.5 * (self.q84 - self.q16)


def summarise(votes: FloatArray) -> VoteSummary:
    """Mode and interval of each star's votes.

    The density's maximum is searched on 200 points from the smallest to the largest vote: it lies there, as outside all kernels
    fall. There the density is that of votes shared out to the two nearest points (a Fourier transform does all 200 points in
    the time of a few); from the best point Newton's method on the density itself leads to the maximum, so the mode
    moves continuously with the votes and is not one of 200 values as in published tables. Two peaks of equal height are
    an exception that no refinement removes.

    Parameters
    ----------
    votes : (n, M) label units; what is not finite is no vote.

    Raises
    ------
    UsageError
        If ``votes`` is not of two dimensions.
    """
    given = np.asarray(votes, dtype=np.float64)
    if given.ndim != 2:
        raise UsageError(f"expected votes of shape (n, M), got {given.shape}; one row per star")
    ordered = np.sort(np.where(np.isfinite(given), given, np.nan), axis=1)  # missing ones come last
    count = np.isfinite(ordered).sum(axis=1)
    q16, median, q84 = (_percentile(ordered, count, share) for share in (0.16, 0.5, 0.84))
    lowest, highest = (_percentile(ordered, count, share) for share in (0.0, 1.0))
    spread = np.flatnonzero((count >= 2) & (highest > lowest))
    mode = median.copy()
    size = max(1, _BLOCK // max(1, given.shape[1]))
    for rows in (spread[start : start + size] for start in range(0, spread.size, size)):
        scale = highest[rows] - lowest[rows]
        scaled = (ordered[rows] - lowest[rows, None]) / scale[:, None]
        mode[rows] = lowest[rows] + scale * _mode(scaled, count[rows])
    degenerate = np.ones(len(given), dtype=bool)
    degenerate[spread] = False
    return VoteSummary(mode, np.where(degenerate, median, q16), np.where(degenerate, median, q84), degenerate)


def _percentile(ordered: FloatArray, count: NDArray[np.int64], share: float) -> FloatArray:
    """(n,) of the first ``count`` (n,) entries of each row, linear between them; NaN where there are none."""
    if ordered.shape[1] == 0:
        return np.full(len(ordered), np.nan)
    position = share * np.maximum(count - 1, 0)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    rows = np.arange(len(ordered))
    low, high = ordered[rows, below], ordered[rows, above]
    return np.asarray(low + (high - low) * (position - below))


def _mode(scaled: FloatArray, count: NDArray[np.int64]) -> FloatArray:
    """(m,) highest point of the density of (m, M) votes that span 0 to 1, NaN for none; ``count`` (m,) of them are votes."""
    known = np.isfinite(scaled)
    filled = np.where(known, scaled, 0.0)
    mean = filled.sum(axis=1) / count
    deviation = np.where(known, scaled - mean[:, None], 0.0)
    bandwidth = np.sqrt((deviation**2).sum(axis=1) / (count - 1)) * count**-0.2
    start = _highest_grid_point(filled, known, bandwidth)
    return _refined(np.where(known, scaled, _FAR), bandwidth, start)


def _highest_grid_point(filled: FloatArray, known: NDArray[np.bool_], bandwidth: FloatArray) -> FloatArray:
    """(m,) point of the grid at which the density of the votes, shared out to their neighbouring points, is highest."""
    from scipy.fft import irfft, rfft  # in float32 several times as fast as numpy's

    n = len(filled)
    place = filled * (_GRID - 1)
    cell = np.minimum(place.astype(np.int64), _GRID - 2)
    share = np.where(known, place - cell, 0.0)
    flat = (cell + np.arange(n)[:, None] * _PERIOD).ravel()
    histogram = np.bincount(flat, (known - share).ravel(), n * _PERIOD)
    histogram += np.bincount(flat + 1, share.ravel(), n * _PERIOD)
    transform = rfft(histogram.reshape(n, _PERIOD).astype(np.float32), axis=1)
    frequency = np.arange(_PERIOD // 2 + 1, dtype=np.float32) * np.float32(2.0 * np.pi / _PERIOD * (_GRID - 1))
    transform *= np.exp(-0.5 * (frequency * bandwidth[:, None].astype(np.float32)) ** 2)
    density = irfft(transform, _PERIOD, axis=1)[:, :_GRID]
    return np.asarray(density.argmax(axis=1) / (_GRID - 1))


def _refined(votes: FloatArray, bandwidth: FloatArray, start: FloatArray) -> FloatArray:
    """(m,) the maximum of the density next to ``start``: Newton's steps, kept between points where it rises and where it falls.

    With kernels K of the distances u = (vote - t) / h the slope is sum(u K) and the curvature sum((u² - 1) K), so Newton's step
    is the mean shift sum(u K) / sum(K) h, which always climbs, over 1 - sum(u² K) / sum(K).
    """
    at, low, high = start.copy(), np.zeros(len(start)), np.ones(len(start))
    active = np.arange(len(start))
    for _ in range(_MAX_STEPS):
        h, t = bandwidth[active], at[active]
        u = (votes[active] - t[:, None]) / h[:, None]
        kernel = np.exp(-0.5 * u**2)
        total = kernel.sum(axis=1)
        kernel *= u
        shift = kernel.sum(axis=1) / total
        curvature = 1.0 - (kernel * u).sum(axis=1) / total  # above 0 near a maximum
        step = np.clip(h * shift / np.maximum(curvature, 0.01), -0.02, 0.02)  # four points of the grid at most
        low[active] = np.where(shift > 0, t, low[active])
        high[active] = np.where(shift < 0, t, high[active])
        new = t + step
        new = np.where(new > high[active], 0.5 * (t + high[active]), np.where(new < low[active], 0.5 * (t + low[active]), new))
        at[active] = new
        active = active[np.abs(new - t) > _STEP]
        if active.size == 0:
            break
    return at
