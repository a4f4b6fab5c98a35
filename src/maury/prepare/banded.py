"""Linear operators along wavelength that are narrow bands, applied to whole batches by small dense products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

NEGLIGIBLE = 1e-30
"""Smaller entries become zero: products of denormal numbers are a hundred times slower (PEERS.md, lesson 5)."""


@dataclass(frozen=True, eq=False)
class Block:
    """A dense piece of a banded matrix: rows ``low:high`` of the input to columns ``out_low:out_high`` of the output."""

    low: int
    high: int
    out_low: int
    out_high: int
    weights: FloatArray
    """(high - low, out_high - out_low)."""


@dataclass(frozen=True, eq=False)
class Banded:
    """A banded matrix (n_in, n_out) as dense blocks. BLAS does the work at a multiple of the speed of a sparse product."""

    shape: tuple[int, int]
    blocks: tuple[Block, ...]

    def apply(self, rows: FloatArray) -> FloatArray:
        """(n, n_in) -> (n, n_out)."""
        out = np.empty((rows.shape[0], self.shape[1]))
        for b in self.blocks:
            np.matmul(rows[:, b.low : b.high], b.weights, out=out[:, b.out_low : b.out_high])
        return out

    def squared(self) -> Banded:
        """The matrix of squared entries, which carries variances."""
        return Banded(self.shape, tuple(Block(b.low, b.high, b.out_low, b.out_high, b.weights**2) for b in self.blocks))


def build(
    x_in: FloatArray, x_out: FloatArray, reach: FloatArray, weights: Callable[[slice, slice], FloatArray], *, block: int
) -> Banded:
    """A banded operator from a function that gives its dense pieces.

    Parameters
    ----------
    x_in, x_out : (n_in,), (n_out,) increasing coordinates.
    reach : (n_out,) how far from ``x_out`` inputs still count, in the same unit.
    weights : (input slice, output slice) -> (inputs, outputs) matrix entries.
    block : outputs per block; about the band's width in pixels is fastest.
    """
    blocks = []
    for out_low in range(0, x_out.size, block):
        out_high = min(out_low + block, x_out.size)
        low = int(np.searchsorted(x_in, np.min(x_out[out_low:out_high] - reach[out_low:out_high])))
        high = int(np.searchsorted(x_in, np.max(x_out[out_low:out_high] + reach[out_low:out_high]), side="right"))
        entries = weights(slice(low, max(low, high)), slice(out_low, out_high))  # no inputs: the product gives zeros
        entries = np.where(np.abs(entries) < NEGLIGIBLE, 0.0, entries)
        blocks.append(Block(low, max(low, high), out_low, out_high, np.ascontiguousarray(entries)))
    return Banded((x_in.size, x_out.size), tuple(blocks))
