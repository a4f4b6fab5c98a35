"""GISIC: a spline through the tops between the lines (Whitten's package, versions 1.4 and 2.0.5; METHODS 0.3).

The package finds where the smoothed spectrum bulges upwards, takes a high flux from a stretch around each of these places (the
higher, the more lines the stretch has), and lays a cubic spline through these points. Passegger+2020 normalise observed and
synthetic spectra with it. Written from the specification; the package does not run with the numpy and pandas of today.

Where this differs from the package, and why:

* Masked pixels are bridged by straight lines in the search for bulges and have no part in anything else.
* Derivatives are not divided by their maxima: that changes no zero crossing, and would turn signs where a maximum is negative.
* Between two zero crossings of a second derivative its sign is one, so "more than 80 % of the pixels" is all or none.
* Points at one wavelength are merged; without any bulge a straight line joins the ends; equal scatter everywhere boosts nothing.
* Stretches of fewer than five good pixels are not used; the ends are the first and the last 30 good pixels.
* Beyond the first and the last point (masked ends) the continuum is constant.
* A grid with gaps (windows, detectors) is several stretches, each normalised by itself: bulges are looked for along pixels.
* Replaced pixels (below 0 or above 2) become 1 as published, with ivar = 0: no made-up number has a weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.prepare.config import Ranges, check_choice, check_ranges, config_of
from maury.prepare.continuum import divide, masked_median
from maury.prepare.grid import FloatArray, IntArray, windows_of
from maury.prepare.stretches import Statistics, Stretches, statistics
from maury.spectra import Spectra

Scatter = Literal["relative", "absolute"]
Version = Literal["2.0.5", "1.4"]

BANDS: Ranges = ((4100.0, 4200.0), (4200.0, 4400.0), (5060.0, 5180.0))
"""Å: molecular bands (CN, CH, MgH) in which version 2.0.5 looks for no continuum; 1.4 lacks the first."""

_END_PIXELS = 30
_LARGEST_FLUX = 2.0
_FLUX_MAX = 98.0
_PIXELS_AT_ONCE = 1 << 16  # what is computed about them stays in the processor's cache
_MIN_PIXELS = 5  # fewer have no pixel between their 70th and 98th percentile


@dataclass(frozen=True)
class Gisic:
    """Divide by the GISIC pseudo-continuum.

    Parameters
    ----------
    sigma : pixels, of the Gaussian that smooths the spectrum before bulges are looked for.
    degree : of the spline, 1 to 5.
    smoothing : s, the sum of squared residuals the spline may leave; 0 interpolates. In units of the flux, or of its median if
        ``scaled``.
    half_width : Å on either side of a bulge from which its flux is taken.
    flux_min : percentile; the flux taken is the median of those between it and the 98th.
    bands : Å, in the spectrum's own medium: bulges in them are not used.
    scatter : what a stretch's weight of lines is measured by: its median absolute deviation "relative" to its median flux
        (2.0.5), or "absolute" (1.4).
    boost : raise the flux towards the 98th percentile where the scatter is large.
    scaled : divide each spectrum by its median flux first, so that ``smoothing`` does not depend on the flux unit.
    replace : give up pixels whose normalised flux is below 0 or above 2.

    Notes
    -----
    The defaults are METHODS' choice: Passegger+2020 name neither sigma nor s. With :meth:`package_defaults` s is 5 in units of
    flux squared: on flux of order one this constrains hardly anything and leaves nearly one cubic polynomial, on counts of 1e5
    it interpolates. In windows of 25-85 Å a stretch of ±15 Å covers much of the window.
    """

    sigma: float = 30.0
    degree: int = 3
    smoothing: float = 0.0
    half_width: float = 15.0
    flux_min: float = 70.0
    bands: Ranges = BANDS
    scatter: Scatter = "relative"
    boost: bool = True
    scaled: bool = True
    replace: bool = True

    name: ClassVar[str] = "gisic"

    def __post_init__(self) -> None:
        check_choice("scatter", self.scatter, Scatter)
        check_ranges("bands", self.bands)
        if not (np.isfinite(self.sigma) and self.sigma > 0 and np.isfinite(self.half_width) and self.half_width > 0):
            raise UsageError(
                f"expected a positive sigma (pixels) and half_width (Å), got {self.sigma} and {self.half_width}; 30 and 15 are "
                "the published ones"
            )
        if self.degree not in (1, 2, 3, 4, 5) or not (np.isfinite(self.smoothing) and self.smoothing >= 0):
            raise UsageError(
                f"expected a spline of degree 1 to 5 and smoothing >= 0, got {self.degree} and {self.smoothing}; correct them"
            )
        if not 0 <= self.flux_min < 98:
            raise UsageError(f"expected flux_min as a percentile from 0 to 98, got {self.flux_min}; 70 is the published one")

    @classmethod
    def package_defaults(cls, version: Version = "2.0.5") -> Gisic:
        """The settings of ``GISIC.normalize`` without arguments, in one of its two versions."""
        check_choice("version", version, Version)
        if version == "1.4":
            return cls(smoothing=0.0, flux_min=85.0, bands=BANDS[1:], scatter="absolute", scaled=False)
        return cls(smoothing=5.0, scaled=False)

    def __call__(self, spectra: Spectra) -> Spectra:
        flux, good = spectra.flux, spectra.ivar > 0
        rows_at_once = max(1, _PIXELS_AT_ONCE // max(1, spectra.wavelength.size))
        out = divide(spectra, lambda rows: self._continuum(spectra.wavelength, flux[rows], good[rows]), rows_at_once=rows_at_once)
        if not self.replace:
            return out
        wild = (out.ivar > 0) & ((out.flux < 0) | (out.flux > _LARGEST_FLUX))
        if not wild.any():
            return out
        return out.with_pixels(flux=np.where(wild, 1.0, out.flux), ivar=np.where(wild, 0.0, out.ivar))

    def continuum(self, spectra: Spectra) -> FloatArray:
        """(n_spectra, n_pixels) the pseudo-continuum in the flux unit; NaN in stretches without a good pixel."""
        return self._continuum(spectra.wavelength, spectra.flux, spectra.ivar > 0)

    def _continuum(self, wavelength: FloatArray, flux: NDArray[Any], good: NDArray[np.bool_]) -> FloatArray:
        parts = [self._of_stretch(wavelength[i], flux[:, i], good[:, i]) for i in windows_of(wavelength)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _of_stretch(self, wavelength: FloatArray, flux: NDArray[Any], good: NDArray[np.bool_]) -> FloatArray:
        """The same where the grid has no gap."""
        rows = np.flatnonzero(good.any(axis=1))
        if rows.size < len(flux):
            out = np.full(flux.shape, np.nan)
            if rows.size:
                out[rows] = self._of_stretch(wavelength, flux[rows], good[rows])
            return out
        flux = flux.astype(np.float64)
        if wavelength.size == 1:  # between two gaps: its own continuum
            return flux
        points = self._points(wavelength, flux, good)
        if self.scaled and self.smoothing > 0:  # nothing else here depends on the flux unit
            level = np.abs(masked_median(flux, good))
            level[level == 0] = 1.0
            points = points._replace(flux=points.flux / level[points.row])
            return level[:, None] * self._splines(points, len(flux), wavelength)
        return self._splines(points, len(flux), wavelength)

    def to_config(self) -> dict[str, Any]:
        return config_of(self)

    def _points(self, wavelength: FloatArray, flux: FloatArray, good: NDArray[np.bool_]) -> _Points:
        """The points that the splines go through (steps 1 to 8 of METHODS 0.3)."""
        row, pixel = bulges(second_derivative(flux, good, self.sigma))
        at = wavelength[pixel]
        free = (
            ~np.any([(at >= low) & (at <= high) for low, high in self.bands], axis=0) if self.bands else np.ones(at.shape, bool)
        )
        row, at = row[free], at[free]
        first, last = _ends(good)
        low = np.searchsorted(wavelength, at - self.half_width)
        high = np.searchsorted(wavelength, at + self.half_width, side="right")
        n = np.arange(len(flux))
        stretches = Stretches(
            np.concatenate([row, n, n]),
            np.concatenate([low, first[:, 0], last[:, 0]]),
            np.concatenate([high, first[:, 1], last[:, 1]]),
        )
        ends = np.concatenate([np.full(row.size, np.nan), wavelength[first[:, 0]], wavelength[last[:, 1] - 1]])
        found = statistics(wavelength, flux, good, stretches, (self.flux_min, _FLUX_MAX))
        kept = (found.n_pixels >= _MIN_PIXELS) | np.isfinite(ends)  # the ends always have their say
        found, owner, ends = Statistics(*(values[kept] for values in found)), stretches.row[kept], ends[kept]
        x = np.where(np.isfinite(ends), ends, found.position)
        y = found.middle + (found.top - found.middle) * self._boosts(found, owner) if self.boost else found.middle
        order = np.lexsort((x, owner))
        return _Points(owner[order], x[order], y[order])

    def _boosts(self, found: Statistics, owner: IntArray) -> FloatArray:
        """0 for the calmest stretch of a spectrum, 1 for the one with most scatter; 0 for all where they are equal."""
        m = found.scatter
        if self.scatter == "relative":
            m = np.divide(m, found.median, out=np.zeros(m.shape), where=found.median != 0)
        n = int(owner.max()) + 1
        least, most = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(least, owner, m)
        np.maximum.at(most, owner, m)
        span = (most - least)[owner]
        return np.asarray(np.divide(m - least[owner], span, out=np.zeros(m.shape), where=span > 0))

    def _splines(self, points: _Points, n_spectra: int, wavelength: FloatArray) -> FloatArray:
        """(n_spectra, n_pixels) the splines through each spectrum's points, constant beyond its first and last.

        FITPACK finds them; as polynomials between their knots they are evaluated for all spectra at once.
        """
        edges = np.searchsorted(points.row, np.arange(n_spectra + 1))
        own = [slice(low, high) for low, high in pairwise(edges)]
        pieces = [_pieces(points.wavelength[i], points.flux[i], self.degree, self.smoothing) for i in own]
        right = np.searchsorted(wavelength, np.concatenate([np.append(p.knots[1:-1], np.inf) for p in pieces]))
        row = np.repeat(np.arange(n_spectra), [p.knots.size - 1 for p in pieces])
        n_pixels = np.diff(row * wavelength.size + right, prepend=0)  # of each piece
        first, last = (points.wavelength[i][:, None] for i in (edges[:-1], edges[1:] - 1))
        x = np.clip(wavelength, first, last).ravel()
        x -= np.repeat(np.concatenate([p.knots[:-1] for p in pieces]), n_pixels)
        highest, *others = np.concatenate([p.coefficients for p in pieces], axis=1)
        out = np.repeat(highest, n_pixels)
        for coefficient in others:
            out *= x
            out += np.repeat(coefficient, n_pixels)
        return out.reshape(n_spectra, wavelength.size)


class _Points(NamedTuple):
    """Points of all spectra of a batch, in order of spectrum and wavelength."""

    row: IntArray
    wavelength: FloatArray
    flux: FloatArray


class _Pieces(NamedTuple):
    """A spline as polynomials in wavelength less that of the knot on the left."""

    knots: FloatArray
    """(n + 1,) Å."""
    coefficients: FloatArray
    """(degree + 1, n), the highest power first."""


def second_derivative(flux: FloatArray, good: NDArray[np.bool_], sigma: float) -> FloatArray:
    """(n, n_pixels) of the Gaussian-smoothed spectra, per pixel squared; masked pixels are bridged by straight lines.

    Every spectrum needs a good pixel. The ends are mirrored and the Gaussian is cut at 4 sigma, as scipy's filter does by
    default. Of a mirrored spectrum the smoothing is a product in the cosine transform: exact but for rounding, without
    any wrapping or padding.
    """
    from scipy.fft import dct, idct

    whole = flux
    if not good.all():
        whole, pixels = flux.copy(), np.arange(flux.shape[1])
        for row, ok in zip(whole, good, strict=True):
            row[~ok] = np.interp(pixels[~ok], pixels[ok], row[ok])
    smooth = idct(dct(whole, axis=1) * _gaussian_transfer(flux.shape[1], sigma), axis=1, overwrite_x=True)
    return np.asarray(np.gradient(np.gradient(smooth, axis=1), axis=1))


@lru_cache(maxsize=16)
def _gaussian_transfer(n_pixels: int, sigma: float) -> FloatArray:
    """(n_pixels,) what a Gaussian cut at 4 sigma does to each wave of the cosine transform."""
    radius = int(4.0 * sigma + 0.5)
    offset = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    period = 2 * n_pixels  # of the mirrored spectrum
    wrapped = np.bincount(offset % period, kernel / kernel.sum(), minlength=period)
    transfer: FloatArray = np.fft.rfft(wrapped).real[:n_pixels]
    transfer.flags.writeable = False
    return transfer


def bulges(curvature: FloatArray) -> tuple[IntArray, IntArray]:
    """Rows and pixels where the second derivative is least, in each run of negative ones that touches neither end."""
    n = curvature.shape[1]
    negative = curvature < 0
    flat = negative.ravel()
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1  # the first pixel after each change of sign
    change = change[change % n > 0]
    run = np.flatnonzero(flat[change[:-1]] & (change[1:] // n == change[:-1] // n))
    start, stop = change[run], change[run + 1]
    # the first of the least is lower than its left neighbour and not higher than its right one: few others are
    inner, left, right = curvature[:, 1:-1], curvature[:, :-2], curvature[:, 2:]
    candidate = np.flatnonzero(np.pad(negative[:, 1:-1] & (inner < left) & (inner <= right), ((0, 0), (1, 1))))
    run = np.searchsorted(start, candidate, side="right") - 1
    inside = (run >= 0) & (candidate < np.append(stop, 0)[run])
    candidate, run = candidate[inside], run[inside]
    order = np.lexsort((curvature.ravel()[candidate], run))  # stable: the first of equals stays first
    least = candidate[order][np.flatnonzero(np.diff(run[order], prepend=-1))]
    return least // n, least % n


def _ends(good: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """(n, 2) each: pixels low:high that hold the first and the last 30 good pixels."""
    pixels = np.flatnonzero(good)
    count = np.count_nonzero(good, axis=1)
    stop = np.cumsum(count)
    start, some = stop - count, np.minimum(count, _END_PIXELS)
    of_row = np.arange(len(good))[:, None] * good.shape[1] - [0, 1]
    first, last = (pixels[np.stack(ends, axis=1)] - of_row for ends in ((start, start + some - 1), (stop - some, stop - 1)))
    return first, last


def _pieces(x: FloatArray, y: FloatArray, degree: int, smoothing: float) -> _Pieces:
    """The spline through sorted points; of a lower degree where they are few."""
    from scipy.interpolate import splev, splrep

    x, y = _merged(x, y)
    coefficients = np.zeros((degree + 1, 1))
    if x.size == 1:
        coefficients[-1] = y
        return _Pieces(np.repeat(x, 2), coefficients)
    k = min(degree, x.size - 1)
    # full_output, or it warns where s lies below what twenty iterations reach; the spline it has by then is taken, as there
    spline, *_ = splrep(x, y, k=k, s=smoothing, full_output=1, quiet=1)
    knots = spline[0][k : len(spline[0]) - k]
    coefficients = np.zeros((degree + 1, knots.size - 1))
    for power in range(k + 1):
        coefficients[degree - power] = splev(knots[:-1], spline, der=power) / math.factorial(power)
    return _Pieces(knots, coefficients)


def _merged(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sorted points with those of one wavelength averaged."""
    if np.all(x[1:] > x[:-1]):
        return x, y
    places, member = np.unique(x, return_inverse=True)
    return places, np.bincount(member, y) / np.bincount(member)
