"""The arithmetic of resampling, on whole batches: overlaps of pixels, and linear interpolation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from maury.prepare.grid import FloatArray, PixelEdges, pixel_edges
from maury.spectra import Spectra

_ROWS_AT_ONCE = 8
"""Rows per block: small enough to stay in the cache."""
_TOUCHING = 1e-9
"""Overlaps of less than this part of a pixel are rounding."""


class Rebinned(NamedTuple):
    """Flux, inverse variance, coverage and mask bits on the output grid, each (n_spectra, n_pixels)."""

    flux: FloatArray
    ivar: FloatArray
    covered: NDArray[np.bool_]
    mask: NDArray[np.uint32] | None


class Overlaps(NamedTuple):
    """By how many Å each output bin overlaps each input bin, for a block of rows laid end to end."""

    matrix: csr_matrix
    """(n_rows * n_out, n_rows * n_in): overlaps in Å."""
    covered: FloatArray
    """(n_rows, n_out) Å of each output bin between the first and the last edge of the input."""

    def sums(self, density: FloatArray, *, squared: bool = False) -> FloatArray:
        """(n_rows, n_in) -> (n_rows, n_out): Σ overlap · density, or Σ overlap² · density."""
        matrix = self.matrix.power(2) if squared else self.matrix
        total: FloatArray = (matrix @ density.ravel()).reshape(self.covered.shape)
        return total

    def any_bits(self, bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """(n_rows, n_in) -> (n_rows, n_out): every bit of every input bin that an output bin overlaps."""
        touching = self.matrix.data > _TOUCHING * float(self.covered.max(initial=0.0))
        picked = np.where(touching, bits.ravel()[self.matrix.indices], np.uint32(0))
        return np.bitwise_or.reduceat(picked, self.matrix.indptr[:-1]).reshape(self.covered.shape)


def overlaps(edges: FloatArray, out_edges: FloatArray) -> Overlaps:
    """Overlaps of the bins of one input grid with those of several output grids.

    Merging two sorted lists of edges cuts the axis into segments, each inside one input and one output bin. In order,
    their lengths are the entries of the matrix row by row, so it is built without sorting and with one search.

    Parameters
    ----------
    edges : (n_in + 1,) Å, increasing.
    out_edges : (n_rows, n_out + 1) Å, increasing along rows; may reach beyond the input.
    """
    n_rows, n_out, n_in = out_edges.shape[0], out_edges.shape[1] - 1, edges.size - 1
    at = np.clip(out_edges, edges[0], edges[-1])
    # np.interp remembers where it was, so it is twice as fast as searchsorted; rounding leaves segments of 1e-12 pixel
    place = np.interp(at.ravel(), edges, np.arange(n_in + 1.0)).reshape(at.shape)
    index = np.minimum(place, n_in - 1).astype(np.int32)
    segments = (index[:, 1:] - index[:, :-1] + 1).ravel()
    end = np.cumsum(segments, dtype=np.int32)
    begin = end - segments
    first = index[:, :-1] + (np.arange(n_rows, dtype=np.int32) * n_in)[:, None]
    columns = np.repeat(first.ravel() - begin, segments)
    columns += np.arange(columns.size, dtype=np.int32)
    starts = np.empty(columns.size + 1)
    np.take(np.tile(edges[:-1], n_rows), columns, out=starts[:-1], mode="clip")
    starts[begin] = at[:, :-1].ravel()
    length = starts[1:] - starts[:-1]
    rows_end = end[n_out - 1 :: n_out] - 1  # the segment before the next row's first ends at its own row's last edge
    length[rows_end] = at[:, -1] - starts[rows_end]
    matrix = csr_matrix((n_rows * n_out, n_rows * n_in))
    # set directly: the constructor would check and copy what is right by construction
    matrix.data, matrix.indices = length, columns
    matrix.indptr = np.concatenate([np.zeros(1, np.int32), end])
    return Overlaps(matrix, at[:, 1:] - at[:, :-1])


def rebin_rows(spectra: Spectra, out: PixelEdges, factor: FloatArray, *, min_good: float, variance: str) -> Rebinned:
    """Flux-conserving resampling of every row onto ``out``, whose edges row i sees multiplied by ``factor[i]``.

    Parameters
    ----------
    spectra : one grid, n_spectra rows.
    out : the bins of the output grid, Å.
    factor : (n_spectra,) 1 + rv/c.
    min_good : the fraction of an output pixel that good pixels must cover.
    variance : "information" or "marginal"; see :mod:`maury.prepare.resample`.
    """
    shape = (len(spectra), out.bin_of_pixel.size)
    result = Rebinned(np.zeros(shape), np.zeros(shape), np.zeros(shape, bool), _empty_mask(spectra, shape))
    grid = pixel_edges(spectra.wavelength)
    least = min_good * (1 - 1e-9) * np.diff(out.edges)[out.pixels]
    previous: tuple[FloatArray, Overlaps] | None = None
    for rows in _blocks(len(spectra), _ROWS_AT_ONCE):
        if previous is None or not np.array_equal(previous[0], factor[rows]):  # one velocity for all: one geometry
            previous = factor[rows], overlaps(grid.edges, out.edges * factor[rows, None])
        overlap = previous[1]
        total, area, spread, present = (a[:, out.pixels] for a in _sums(spectra, rows, grid, overlap, variance))
        need = least * factor[rows, None]
        usable = (area >= need) & (spread > 0)
        every = bool(usable.all())  # "where" costs more than the division
        np.divide(total, area, out=result.flux[rows], where=True if every else usable)
        np.divide(area * area, spread, out=result.ivar[rows], where=True if every else usable)
        np.greater_equal(present, need, out=result.covered[rows])
        if result.mask is not None and spectra.mask is not None:
            result.mask[rows] = overlap.any_bits(_in_bins(spectra.mask[rows], grid))[:, out.pixels]
    return result


def _sums(spectra: Spectra, rows: slice, grid: PixelEdges, overlap: Overlaps, variance: str) -> tuple[FloatArray, ...]:
    """Over the good part of each output bin: Σ flux · Å, Å, and Σ variance · Å²; and the Å that have data, good or bad."""
    flux, ivar = spectra.flux[rows], spectra.ivar[rows]
    noise = grid.width if variance == "information" else 1.0
    marginal = variance == "marginal"
    good = ivar > 1e-280  # anything smaller has no finite variance
    whole = isinstance(grid.pixels, slice)
    present = overlap.covered if whole else overlap.sums(_in_bins(np.ones(flux.shape), grid))
    if good.all():
        return overlap.sums(_in_bins(flux, grid)), present, overlap.sums(_in_bins(noise / ivar, grid), squared=marginal), present
    power = np.divide(noise, ivar, out=np.zeros(ivar.shape), where=good)
    total, area = overlap.sums(_in_bins(np.where(good, flux, 0.0), grid)), overlap.sums(_in_bins(good, grid))
    return total, area, overlap.sums(_in_bins(power, grid), squared=marginal), present


def _in_bins(rows: NDArray[Any], grid: PixelEdges) -> NDArray[Any]:
    """(n, n_pixels) -> (n, n_bins): with nothing in the gaps."""
    kind = np.uint32 if rows.dtype == np.uint32 else np.float64
    if isinstance(grid.pixels, slice):
        return np.asarray(rows, dtype=kind)
    out = np.zeros((len(rows), grid.edges.size - 1), dtype=kind)
    out[:, grid.pixels] = rows
    return out


def interpolate_rows(spectra: Spectra, grid: FloatArray, factor: FloatArray) -> Rebinned:
    """Linear interpolation of flux and inverse variance at ``grid * factor[i]``; a bad neighbour makes a bad pixel.

    As in Galgano+2020 (METHODS 5, step 5), negative inverse variances cannot arise; a point on a pixel's very
    centre needs that pixel only.
    """
    shape = (len(spectra), grid.size)
    result = Rebinned(np.zeros(shape), np.zeros(shape), np.zeros(shape, bool), _empty_mask(spectra, shape))
    wavelength = spectra.wavelength
    gap = np.diff(pixel_edges(wavelength).bin_of_pixel) > 1
    for rows in _blocks(len(spectra), _ROWS_AT_ONCE):
        where = grid[None] * factor[rows, None]
        left = np.clip(np.searchsorted(wavelength, where, side="right") - 1, 0, wavelength.size - 2)
        weight = (where - wavelength[left]) / (wavelength[left + 1] - wavelength[left])
        inside = (weight >= 0) & (weight <= 1) & (~gap[left] | (weight == 0) | (weight == 1))
        flux = [np.take_along_axis(spectra.flux[rows], left + side, axis=1) for side in (0, 1)]
        ivar = [np.take_along_axis(spectra.ivar[rows], left + side, axis=1) for side in (0, 1)]
        good = inside & ((ivar[0] > 0) | (weight == 1)) & ((ivar[1] > 0) | (weight == 0))
        share = [np.where(good, 1 - weight, 0.0), np.where(good, weight, 0.0)]
        result.flux[rows] = share[0] * np.where(good, flux[0], 0) + share[1] * np.where(good, flux[1], 0)
        result.ivar[rows] = share[0] * ivar[0] + share[1] * ivar[1]
        result.covered[rows] = inside
        if result.mask is not None and spectra.mask is not None:
            bits = [np.take_along_axis(spectra.mask[rows], left + side, axis=1) for side in (0, 1)]
            result.mask[rows] = np.where(inside & (weight < 1), bits[0], 0) | np.where(inside & (weight > 0), bits[1], 0)
    return result


def _empty_mask(spectra: Spectra, shape: tuple[int, int]) -> NDArray[np.uint32] | None:
    return None if spectra.mask is None else np.zeros(shape, np.uint32)


def _blocks(n: int, size: int) -> Iterator[slice]:
    for low in range(0, n, size):
        yield slice(low, min(low + size, n))
