"""Wavelength grids and velocities: the small geometry that several steps share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

GAP_FACTOR = 1.5
"""A spacing this many times the local median spacing is a gap in the data, not a wide pixel."""
WINDOW_FACTOR = 3.0
"""Likewise of a gap that parts two windows: one or two pixels that were removed leave less."""
_TOUCHING = 1e-6
"""Of a pixel: two windows that are less apart touch."""


class PixelEdges(NamedTuple):
    """Contiguous bins that hold the pixels, and, between them, one empty bin for each gap of the grid."""

    edges: FloatArray
    """(n_bins + 1,) Å, increasing."""
    bin_of_pixel: IntArray
    """(n_pixels,): which bin each pixel is; bins that no pixel names are gaps."""

    @property
    def pixels(self) -> slice | IntArray:
        """The bins that are pixels, as an index; a slice (no copying) where there is no gap."""
        return slice(None) if self.bin_of_pixel.size == self.edges.size - 1 else self.bin_of_pixel

    @property
    def width(self) -> FloatArray:
        """(n_pixels,) widths of the pixels in Å."""
        width: FloatArray = np.diff(self.edges)[self.bin_of_pixel]
        return width


def pixel_edges(wavelength: FloatArray) -> PixelEdges:
    """Edges of pixels from their centres: midpoints, except at gaps.

    Missing pixels (chips, removed pixels) must not be filled by stretching their neighbours: where the spacing
    exceeds 1.5 times the local typical spacing, both neighbours end half of that away and an empty bin lies
    between them.

    Parameters
    ----------
    wavelength : (n_pixels,) increasing, Å.
    """
    return _pixel_edges(np.ascontiguousarray(wavelength, dtype=np.float64).tobytes())


def windows_of(wavelength: FloatArray) -> list[slice]:
    """The contiguous stretches of a grid, in order; one where it has no gap.

    A gap is a spacing more than 3 times the local typical one, hence as little as three pixels that are missing: what is on
    either side of it was measured, or cut, apart. Steps that work along pixels (GISIC) take each stretch by itself.

    Parameters
    ----------
    wavelength : (n_pixels,) increasing, Å.
    """
    spacing = np.diff(wavelength)
    ends = [0, *(np.flatnonzero(spacing > WINDOW_FACTOR * _typical(spacing)) + 1).tolist(), wavelength.size]
    return [slice(low, high) for low, high in pairwise(ends)]


def window_edges(windows: Sequence[tuple[FloatArray, float]]) -> PixelEdges:
    """Edges of the pixels of windows, each of one spacing: nothing between two windows belongs to a pixel.

    Parameters
    ----------
    windows : for each, in increasing order, the centres of its pixels and their spacing, Å.
    """
    edges: list[FloatArray] = []
    bins: list[IntArray] = []
    n_bins = 0
    for centres, spacing in windows:
        own = centres[0] + spacing * (np.arange(centres.size + 1) - 0.5)
        touches = bool(edges) and own[0] - edges[-1][-1] < _TOUCHING * spacing
        n_bins += bool(edges) and not touches  # the empty bin of the gap
        bins.append(n_bins + np.arange(centres.size))
        edges.append(own[1:] if touches else own)
        n_bins += centres.size
    return PixelEdges(np.concatenate(edges), np.concatenate(bins))


def _typical(spacing: FloatArray) -> FloatArray:
    """The fourth largest of 11 spacings around each.

    A change of step (PHOENIX at 1 µm) is no gap, for either side has more than three; nor is every other spacing where two
    orders were sorted together; up to three gaps among eleven spacings are found.
    """
    from scipy.ndimage import rank_filter

    return np.asarray(rank_filter(spacing, rank=7, size=11, mode="reflect")) if spacing.size > 2 else spacing


@lru_cache(maxsize=64)
def _pixel_edges(wavelength_bytes: bytes) -> PixelEdges:
    wavelength = np.frombuffer(wavelength_bytes)
    spacing = np.diff(wavelength)
    typical = _typical(spacing)
    gap = spacing > GAP_FACTOR * typical
    middle = wavelength[:-1] + 0.5 * spacing
    upper = np.where(gap, wavelength[:-1] + 0.5 * typical, middle)
    lower = np.where(gap, wavelength[1:] - 0.5 * typical, middle)
    n_before = np.concatenate([[0], np.cumsum(gap)])
    edges = np.empty(wavelength.size + 1 + int(gap.sum()))
    edges[0] = wavelength[0] - 0.5 * typical[0]
    edges[-1] = wavelength[-1] + 0.5 * typical[-1]
    position = np.arange(1, wavelength.size) + n_before[:-1]
    edges[position] = upper
    edges[position[gap] + 1] = lower[gap]
    bins = np.arange(wavelength.size) + n_before
    edges.flags.writeable = bins.flags.writeable = False  # shared by the cache
    return PixelEdges(edges, bins)


def meta_floats(spectra: Spectra, column: str) -> FloatArray:
    """(n_spectra,) a meta column as floats, NaN where it is masked, absent or not a number."""
    if column not in spectra.meta.colnames:
        return np.full(len(spectra), np.nan)
    stored = np.ma.asarray(spectra.meta[column])
    try:
        values = np.ma.filled(stored.astype(np.float64), np.nan)
    except (ValueError, TypeError):  # text: entries that are numbers count, others do not
        values = np.array([_number(entry) for entry in np.ma.filled(stored.astype(object), None)])
    return np.array(values, dtype=np.float64)


def _number(entry: object) -> float:
    try:
        return float(entry)  # type: ignore[arg-type]  # whatever a table holds; what float() refuses is not a number
    except (ValueError, TypeError):
        return float("nan")


def with_meta(spectra: Spectra, columns: dict[str, NDArray[Any]]) -> Spectra:
    """The same spectra with these meta columns written (a copy: the caller's table stays as it is)."""
    table = spectra.meta.copy()
    for name, values in columns.items():
        table[name] = values
    return spectra.with_pixels(meta=table)


def velocity_of(spectra: Spectra) -> FloatArray:
    """(n_spectra,) radial velocity in km/s from meta ``rv``; NaN where unknown."""
    rv = meta_floats(spectra, "rv")
    return np.where(np.isfinite(rv) & (np.abs(rv) < SPEED_OF_LIGHT_KM_S), rv, np.nan)


def doppler_factor(rv: FloatArray) -> FloatArray:
    """1 + rv/c, rv in km/s: λ_observed = λ_rest (1 + rv/c), the definition of a catalogue's cz."""
    factor: FloatArray = 1.0 + rv / SPEED_OF_LIGHT_KM_S
    return factor
