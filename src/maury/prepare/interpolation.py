"""Local interpolation and differentiation of high order between grids, for whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import factorial
from typing import Any

import numpy as np

from maury.prepare.banded import Banded, Block
from maury.prepare.grid import FloatArray, IntArray

HALF = 8
"""Pixels on either side: polynomials of degree 15."""
_UNEVEN = 2.6
"""Neighbouring pixels whose spacings differ by more than this factor are joined by straight lines: high orders would swing."""
_BLOCK = 32
"""Output pixels per dense block."""
_PIXELS_AT_ONCE = 4096
"""Stencils worked out together: they need 2 (2 ``HALF`` + 1)² numbers each."""


def lagrange(x_in: FloatArray, x_out: FloatArray, first: IntArray) -> tuple[IntArray, FloatArray]:
    """Lagrange interpolation on the 2 ``HALF`` nearest pixels.

    Fewer near the ends of a contiguous piece (never one-sided, so noise is not amplified), two across a gap or where pixels
    are spaced unevenly; beyond the ends the nearest value.

    Parameters
    ----------
    x_in : (n_in,) increasing.
    x_out : (n_out,).
    first : (n_pieces,) the index in ``x_in`` with which each contiguous piece begins; 0 is the first.

    Returns
    -------
    start : (n_out,) index of the first of 2 ``HALF`` consecutive inputs (may be negative where the weight is 0).
    weights : (n_out, 2 ``HALF``); each row's sum is 1.
    """
    n = x_in.size
    x = np.clip(x_out, x_in[0], x_in[-1])
    left = np.clip(np.searchsorted(x_in, x, side="right") - 1, 0, n - 2)
    piece = np.searchsorted(first, np.arange(n), side="right") - 1
    last = np.append(first[1:], n) - 1
    room = np.minimum(left - first[piece[left]] + 1, last[piece[left]] - left)
    half = np.clip(room, 1, HALF)
    half[~_even(np.diff(x_in), left, half)] = 1
    weights = np.zeros((x.size, 2 * HALF))
    for h in range(1, HALF + 1):
        rows = np.flatnonzero(half == h)
        nodes = x_in[left[rows, None] + np.arange(1 - h, h + 1)]
        unit = (nodes[:, -1] - nodes[:, 0]) / (2 * h - 1)
        weights[rows, HALF - h : HALF + h] = _weights((nodes - x[rows, None]) / unit[:, None])
    return left + 1 - HALF, weights


def _even(spacing: FloatArray, left: IntArray, half: IntArray) -> np.ndarray:
    """(n_out,) whether the spacings of each stencil are alike."""
    low, high = spacing[left].copy(), spacing[left].copy()
    for offset in range(1 - HALF, HALF):
        inside = (offset > -half) & (offset < half)
        other = spacing[np.clip(left + offset, 0, spacing.size - 1)]
        low, high = np.where(inside, np.minimum(low, other), low), np.where(inside, np.maximum(high, other), high)
    return high <= _UNEVEN * low


def _weights(t: FloatArray) -> FloatArray:
    """Weights at 0 of Lagrange polynomials through the nodes (rows, k)."""
    out = np.ones(t.shape)
    for a in range(t.shape[1]):
        for b in range(t.shape[1]):
            if a != b:
                out[:, a] *= t[:, b] / (t[:, b] - t[:, a])
    out /= out.sum(axis=1, keepdims=True)  # rounding, so that constants stay exactly constant
    return out


@dataclass(frozen=True, eq=False)
class LocalSums:
    """An operator whose outputs are weighted sums of a few consecutive inputs.

    Parameters
    ----------
    start : (n_out,) index of the first input of each output; may lie outside where the weights are 0.
    weights : (n_out, n_points).
    n_in : number of inputs.
    """

    start: IntArray
    weights: FloatArray
    n_in: int

    def apply(self, rows: FloatArray) -> FloatArray:
        """(n, n_in) -> (n, n_out). Batches go through dense blocks; a single row would wait for their memory."""
        if len(rows) == 1:
            single: FloatArray = (self._sparse @ rows[0])[None]
            return single
        return self._banded.apply(rows)

    def gather(self, columns: FloatArray) -> FloatArray:
        """(n_out, n) -> (n_in, n): the transpose, which takes weights of the outputs to weights of the inputs."""
        gathered: FloatArray = self._sparse.T @ columns
        return gathered

    @cached_property
    def _banded(self) -> Banded:
        n_out, points = self.weights.shape
        blocks = []
        for low_out in range(0, n_out, _BLOCK):
            some = slice(low_out, min(low_out + _BLOCK, n_out))
            low, high = max(0, int(self.start[some].min())), min(self.n_in, int(self.start[some].max()) + points)
            entries = dense(self.start[some] - low, self.weights[some], high - low)
            blocks.append(Block(low, high, some.start, some.stop, entries))
        return Banded((self.n_in, n_out), tuple(blocks))

    @cached_property
    def _sparse(self) -> Any:
        from scipy.sparse import csr_matrix

        n_out, points = self.weights.shape
        index = np.clip(self.start[:, None] + np.arange(points), 0, self.n_in - 1)
        shape = (n_out, self.n_in)
        return csr_matrix((self.weights.ravel(), index.ravel(), np.arange(0, self.weights.size + 1, points)), shape=shape)


def interpolation(x_in: FloatArray, x_out: FloatArray, first: IntArray) -> LocalSums:
    """The operator of :func:`lagrange`."""
    return LocalSums(*lagrange(x_in, x_out, first), x_in.size)


def dense(start: IntArray, weights: FloatArray, n_in: int) -> FloatArray:
    """(n_in, n_out): the matrix of some outputs, from where their stencils start and their weights."""
    index = start[:, None] + np.arange(weights.shape[1])
    inside = (index >= 0) & (index < n_in)
    matrix = np.zeros((n_in, start.size))
    matrix[index[inside], np.broadcast_to(np.arange(start.size)[:, None], index.shape)[inside]] = weights[inside]
    return matrix


def derivatives(x: FloatArray, first: IntArray) -> tuple[LocalSums, ...]:
    """The second, fourth, ... derivatives at every pixel, of the polynomial through it and ``HALF`` pixels on either side.

    Fewer pixels near the ends of contiguous pieces and where they are spaced unevenly; with none there the derivative is 0.

    Parameters
    ----------
    x : (n,) increasing, of spacing about 1.
    first : as in :func:`lagrange`.

    Returns
    -------
    ``HALF`` operators (n, n).
    """
    n, size = x.size, 2 * HALF + 1
    pixel = np.arange(n)
    piece = np.searchsorted(first, pixel, side="right") - 1
    half = np.minimum(np.minimum(pixel - first[piece], np.append(first[1:], n)[piece] - 1 - pixel), HALF)
    half[~_even(np.diff(x), np.clip(pixel, 0, n - 2), half) & (half > 1)] = 1
    weights = np.zeros((HALF, n, size))
    for h in range(1, HALF + 1):
        every = np.flatnonzero(half == h)
        for rows in (every[low : low + _PIXELS_AT_ONCE] for low in range(0, every.size, _PIXELS_AT_ONCE)):
            nodes = (x[rows[:, None] + np.arange(-h, h + 1)] - x[rows, None]) / h
            inverse = np.linalg.inv(nodes[:, :, None] ** np.arange(2 * h + 1))
            for k in range(1, h + 1):
                weights[k - 1, rows, HALF - h : HALF + h + 1] = inverse[:, 2 * k] * (factorial(2 * k) / float(h) ** (2 * k))
    weights[:, :, HALF] -= weights.sum(axis=2)  # rounding, so that constants stay exactly constant
    return tuple(LocalSums(pixel - HALF, w, n) for w in weights)
