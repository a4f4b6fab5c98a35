"""Order statistics of many overlapping stretches of spectra: medians, percentiles and median absolute deviations, exactly.

Stretches of a few pixels are sorted, each by itself. Long ones share most of their pixels with their neighbours: each spectrum
is sorted once, and the k-th smallest value of a stretch is found from counts (:class:`_Ranked`). Order statistics are values
of the spectrum, so both ways give the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.prepare.grid import FloatArray, IntArray

_SHORT = 2
"""Stretches with fewer pixels in all than this many times the spectra's are sorted one by one: that is then faster."""


class Stretches(NamedTuple):
    """Pixels low:high of spectrum ``row``, one entry per stretch."""

    row: IntArray
    low: IntArray
    high: IntArray


class Statistics(NamedTuple):
    """What the good pixels of stretches look like, one value each; 0 for stretches without a good pixel."""

    position: FloatArray
    """Median wavelength, Å."""
    middle: FloatArray
    """Median of the flux between the lower and the upper percentile, both included; their mean where no pixel lies there."""
    top: FloatArray
    """Upper percentile."""
    median: FloatArray
    scatter: FloatArray
    """Median absolute deviation."""
    n_pixels: IntArray


def statistics(
    wavelength: FloatArray, flux: FloatArray, good: NDArray[np.bool_], stretches: Stretches, percentiles: tuple[float, float]
) -> Statistics:
    """Statistics of every stretch.

    Parameters
    ----------
    wavelength : (n_pixels,) Å, increasing.
    flux, good : (n_spectra, n_pixels); pixels that are not good have no part in anything.
    percentiles : lower and upper, with numpy's linear interpolation between neighbours.
    """
    row, low, high = stretches
    offset = row * wavelength.size
    before = np.concatenate([[0], np.cumsum(good)])[np.stack([offset + low, offset + high])]  # good pixels up to there
    n = before[1] - before[0]
    known, last = n > 0, np.maximum(n - 1, 0)
    good_pixels = np.append(np.flatnonzero(good), 0)
    centre = good_pixels[before[0] + np.stack([last // 2, n // 2])] - offset
    position = 0.5 * wavelength[np.where(known, centre, 0)].sum(axis=0)
    values = np.where(good, flux, np.inf)
    length = int((high - low).max(initial=0))
    short = row.size * length <= _SHORT * values.size
    ordered = _Sorted(_gathered(values, stretches, length)) if short else _Ranked(values, stretches)
    with np.errstate(invalid="ignore"):  # differences of infinities, in stretches without a good pixel
        middle, top = _between(ordered, last, percentiles)
        median = _median(ordered, np.zeros_like(n), last + 1)
        scatter = ordered.deviation(median, last + 1)
    position, middle, top, median, scatter = (np.where(known, v, 0.0) for v in (position, middle, top, median, scatter))
    return Statistics(position, middle, top, median, scatter, n)


def _gathered(values: FloatArray, stretches: Stretches, length: int) -> FloatArray:
    """(n_stretches, length) the values of each stretch, and infinities."""
    row, low, high = (a[:, None] for a in stretches)
    pixel = low + np.arange(length)
    return np.where(pixel < high, values[row, np.minimum(pixel, values.shape[1] - 1)], np.inf)


class _Sorted:
    """Each stretch sorted by itself: a row of an array, filled up with infinities."""

    def __init__(self, values: FloatArray) -> None:
        self._values = np.sort(values, axis=1)

    def at(self, k: IntArray) -> FloatArray:
        """(n_stretches, m) the k-th smallest (from 0) values of each stretch."""
        return np.take_along_axis(self._values, k, axis=1)

    def deviation(self, median: FloatArray, n: IntArray) -> FloatArray:
        """(n_stretches,) median absolute deviation of the n values of each."""
        return _median(_Sorted(np.abs(self._values - median[:, None])), np.zeros_like(n), n)


class _Ranked:
    """Each spectrum sorted once; its ranks in blocks, and how many pixels of each stretch are in each block.

    The counts tell in which block the k-th smallest value of a stretch is; the block's pixels, tried one by one, tell which.
    """

    def __init__(self, values: FloatArray, stretches: Stretches) -> None:
        n_rows, n = values.shape
        size = 1 << max(2, (n.bit_length() - 1) // 2 - 1)  # ranks per block: half the root of n pixels
        n_blocks = -(-n // size)
        order = np.argsort(values, axis=1)
        block = np.empty((n_rows, n), dtype=np.intp)
        np.put_along_axis(block, order, (np.arange(n) // size)[None], axis=1)
        self._ordered = np.full((n_rows, n_blocks * size), np.inf)
        self._ordered[:, :n] = np.take_along_axis(values, order, axis=1)
        pixels = np.full((n_rows, n_blocks * size), n, dtype=np.int32)  # what fills the last block is in no stretch
        pixels[:, :n] = order
        self._pixels = pixels.reshape(-1, size)
        self._low, self._length = stretches.low.astype(np.int32), (stretches.high - stretches.low).astype(np.uint32)
        # pixels of each block between neighbouring ends of stretches; their sums up to each end; differences of these
        start, stop = stretches.row * n + stretches.low, stretches.row * n + stretches.high
        piece = np.zeros(values.size + 1, dtype=np.intp)
        piece[start] = piece[stop] = 1
        np.cumsum(piece, out=piece)
        n_pieces = int(piece[-1]) + 1
        counts = np.bincount(piece[:-1] * n_blocks + block.ravel(), minlength=n_pieces * n_blocks).reshape(n_pieces, n_blocks)
        up_to = np.zeros((n_pieces + 1, n_blocks), dtype=np.int32)
        np.cumsum(counts, axis=0, dtype=np.int32, out=up_to[1:])
        self._earlier = np.zeros((start.size, n_blocks + 1), dtype=np.intp)  # pixels of the stretch in earlier blocks
        np.cumsum(up_to[piece[stop]] - up_to[piece[start]], axis=1, out=self._earlier[:, 1:])
        self._first_key = np.arange(start.size)[:, None] * (n + 1)  # keys of one stretch lie below those of the next
        self._keys = (self._earlier + self._first_key).ravel()
        self._first_count = np.arange(start.size)[:, None] * (n_blocks + 1)
        self._first_block = stretches.row[:, None] * n_blocks
        self._n_blocks, self._size = n_blocks, size

    def at(self, k: IntArray) -> FloatArray:
        """(n_stretches, m) the k-th smallest (from 0) values of each stretch."""
        count = np.searchsorted(self._keys, k + self._first_key, side="right") - 1
        block = self._first_block + np.minimum(count - self._first_count, self._n_blocks - 1)
        pixels = self._pixels.take(block, axis=0)
        pixels -= self._low[:, None, None]
        inside = pixels.view(np.uint32) < self._length[:, None, None]
        running = np.cumsum(inside, axis=-1, dtype=np.int16)
        earlier_in_block = (k - self._earlier.ravel()[count]).astype(np.int16)
        place = np.count_nonzero(running <= earlier_in_block[..., None], axis=-1)
        return np.asarray(self._ordered.ravel()[block * self._size + np.minimum(place, self._size - 1)])

    def deviation(self, median: FloatArray, n: IntArray) -> FloatArray:
        """(n_stretches,) median absolute deviation of the n values of each.

        Deviations below and above the median are two lists in order. Of the k + 1 least deviations some number i are below:
        the first at which the next one below is not less than the last one taken above. It is found by bisection.
        """
        half, k = n // 2, (n - 1) // 2
        low, high = np.zeros_like(n), half
        while np.any(low < high):
            i = (low + high) // 2
            above, below = np.abs(self.at(np.stack([half + k - i, np.maximum(half - 1 - i, 0)], axis=1)).T - median)
            enough = (above <= below) | (low >= high)
            low, high = np.where(enough, low, i + 1), np.where(enough, np.minimum(i, high), high)
        exists = np.stack([low > 0, k >= low, low < half, half + k + 1 - low < n])
        wanted = np.stack([half - low, half + k - low, half - 1 - low, half + k + 1 - low])
        deviation = np.abs(self.at(np.where(exists, wanted, 0).T).T - median)
        taken = np.where(exists[:2], deviation[:2], -np.inf).max(axis=0)
        following = np.where(exists[2:], deviation[2:], np.inf).min(axis=0)
        return np.asarray(np.where(n % 2 == 1, taken, 0.5 * (taken + following)))


def _median(ordered: _Sorted | _Ranked, begin: IntArray, end: IntArray) -> FloatArray:
    """Median of the values begin:end of each stretch."""
    lower, upper = ordered.at(np.stack([(begin + end - 1) // 2, (begin + end) // 2], axis=1)).T
    return np.asarray(0.5 * (lower + upper))


def _between(ordered: _Sorted | _Ranked, last: IntArray, percentiles: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Median of the values from one percentile to the other, both included, and the upper one."""
    position = np.array(percentiles) / 100.0 * last[:, None]
    left = position.astype(np.intp)
    lower, upper = np.split(ordered.at(np.concatenate([left, np.minimum(left + 1, last[:, None])], axis=1)), 2, axis=1)
    step, part = upper - lower, position - left
    limits = np.where(part < 0.5, lower + step * part, upper - step * (1 - part))  # numpy's order of operations
    bottom, top = limits.T
    begin = left[:, 0] + (lower[:, 0] < bottom)
    end = np.minimum(left[:, 1] + 1 + (upper[:, 1] <= top), last + 1)
    beside = ordered.at(np.stack([np.maximum(begin - 1, 0), np.minimum(end, last)], axis=1)).T
    if np.any((begin > 0) & (beside[0] >= bottom)) or np.any((end <= last) & (beside[1] <= top)):  # more pixels of equal flux
        begin, end = _count_below(ordered, np.stack([bottom, np.nextafter(top, np.inf)], axis=1), last).T
    middle = _median(ordered, np.minimum(begin, last), np.clip(end, begin + 1, last + 1))
    return np.where(end > begin, middle, 0.5 * (bottom + top)), top


def _count_below(ordered: _Sorted | _Ranked, limits: FloatArray, last: IntArray) -> IntArray:
    """(n_stretches, m) how many values are less than each limit, by bisection."""
    low, high = np.zeros(limits.shape, dtype=np.intp), np.repeat(last[:, None] + 1, limits.shape[1], axis=1)
    while np.any(low < high):
        mid = (low + high) // 2
        below = (ordered.at(np.minimum(mid, last[:, None])) < limits) & (low < high)
        low, high = np.where(below, mid + 1, low), np.where(below, high, np.minimum(mid, high))
    return low
