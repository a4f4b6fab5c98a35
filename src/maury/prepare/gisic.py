"""GISIC: a spline through the tops between the lines (Whitten's package, versions 1.4 and 2.0.5; METHODS 0.3).

The package finds where the smoothed spectrum bulges upwards, takes a high flux from a stretch around each of these places (the
higher, the more lines the stretch has), and lays a cubic spline through these points. Passegger+2020 normalise observed and
synthetic spectra with it. Written from the specification; the package does not run with the numpy and pandas of today.

Where this differs from the package, and why:

* Masked pixels are bridged by straight lines in the search for bulges and have no part in anything else.
* Derivatives are not divided by their maxima: that changes no zero crossing, and would turn signs where a maximum is negative.
* Between two zero crossings of a second derivative its sign is one, so "more than 80 % of the pixels" is all or none.
* Points at one wavelength are merged; without any bulge a straight line joins the ends; equal scatter everywhere boosts nothing.
* Replaced pixels (below 0 or above 2) become 1 as published, with ivar = 0: no made-up number has a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.prepare.config import Ranges, check_choice, check_ranges, config_of
from maury.prepare.continuum import divide, masked_median
from maury.prepare.grid import FloatArray, IntArray
from maury.spectra import Spectra

Scatter = Literal["relative", "absolute"]
Version = Literal["2.0.5", "1.4"]

BANDS: Ranges = ((4100.0, 4200.0), (4200.0, 4400.0), (5060.0, 5180.0))
"""Å: molecular bands (CN, CH, MgH) in which version 2.0.5 looks for no continuum; 1.4 lacks the first."""

_END_PIXELS = 30
_LARGEST_FLUX = 2.0
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
        if not 1 <= self.degree <= 5 or not (np.isfinite(self.smoothing) and self.smoothing >= 0):
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
        out = divide(spectra, lambda rows: self.continuum(spectra[rows]), rows_at_once=8)
        if not self.replace:
            return out
        wild = (out.ivar > 0) & ((out.flux < 0) | (out.flux > _LARGEST_FLUX))
        return out.with_pixels(flux=np.where(wild, 1.0, out.flux), ivar=np.where(wild, 0.0, out.ivar))

    def continuum(self, spectra: Spectra) -> FloatArray:
        """(n_spectra, n_pixels) the pseudo-continuum in the flux unit; NaN for spectra without a good pixel."""
        out = np.full(spectra.flux.shape, np.nan)
        good = spectra.ivar > 0
        rows = np.flatnonzero(good.any(axis=1))
        if rows.size == 0:
            return out
        flux, good, wavelength = spectra.flux[rows].astype(np.float64), good[rows], spectra.wavelength
        level = np.abs(masked_median(flux, good)) if self.scaled else np.ones(len(flux))
        level[level == 0] = 1.0
        flux = np.where(good, flux, 0.0) / level[:, None]
        points = self._points(wavelength, flux, good)
        for i, row in enumerate(rows):
            own = points.row == i
            out[row] = level[i] * self._spline(points.wavelength[own], points.flux[own], wavelength)
        return out

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
        n = np.arange(len(flux))
        owner = np.concatenate([row, n, n])
        low = np.concatenate([np.searchsorted(wavelength, at - self.half_width, side="left"), first[:, 0], last[:, 0]])
        high = np.concatenate([np.searchsorted(wavelength, at + self.half_width, side="right"), first[:, 1], last[:, 1]])
        ends = np.concatenate([np.full(row.size, np.nan), wavelength[first[:, 0]], wavelength[last[:, 1] - 1]])
        found = _stretches(wavelength, flux, good, (owner, low, high), self.flux_min)
        kept = (found.n_pixels >= _MIN_PIXELS) | np.isfinite(ends)  # the ends always have their say
        found, owner, ends = _Stretches(*(values[kept] for values in found)), owner[kept], ends[kept]
        x = np.where(np.isfinite(ends), ends, found.wavelength)
        y = found.middle + (found.top - found.middle) * self._boosts(found, owner) if self.boost else found.middle
        order = np.lexsort((x, owner))
        return _Points(owner[order], x[order], y[order])

    def _boosts(self, found: _Stretches, owner: IntArray) -> FloatArray:
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

    def _spline(self, x: FloatArray, y: FloatArray, wavelength: FloatArray) -> FloatArray:
        """The spline through sorted points, constant beyond the first and the last."""
        from scipy.interpolate import splev, splrep

        x, y = _merged(x, y)
        if x.size == 1:
            return np.full(wavelength.shape, y[0])
        # full_output, or it warns where s lies below what twenty iterations reach; the spline it has by then is taken, as there
        knots, *_ = splrep(x, y, k=min(self.degree, x.size - 1), s=self.smoothing, full_output=1, quiet=1)
        return np.asarray(splev(np.clip(wavelength, x[0], x[-1]), knots))


class _Points(NamedTuple):
    """Points of all spectra of a batch, in order of spectrum and wavelength."""

    row: IntArray
    wavelength: FloatArray
    flux: FloatArray


class _Stretches(NamedTuple):
    """What stretches of spectrum look like, one value each."""

    wavelength: FloatArray
    """Median of their good pixels, Å."""
    middle: FloatArray
    """Median of the flux between the lower percentile and the 98th."""
    top: FloatArray
    """98th percentile."""
    median: FloatArray
    scatter: FloatArray
    """Median absolute deviation."""
    n_pixels: IntArray


def second_derivative(flux: FloatArray, good: NDArray[np.bool_], sigma: float) -> FloatArray:
    """(n, n_pixels) of the Gaussian-smoothed spectra, per pixel squared; masked pixels are bridged by straight lines.

    Every spectrum needs a good pixel. The ends are mirrored, as scipy's filter does by default.
    """
    from scipy.ndimage import gaussian_filter1d

    whole = flux
    if not good.all():
        whole, pixels = flux.copy(), np.arange(flux.shape[1])
        for row, ok in zip(whole, good, strict=True):
            row[~ok] = np.interp(pixels[~ok], pixels[ok], row[ok])
    smooth = gaussian_filter1d(whole, sigma, axis=1)
    return np.asarray(np.gradient(np.gradient(smooth, axis=1), axis=1))


def bulges(curvature: FloatArray) -> tuple[IntArray, IntArray]:
    """Rows and pixels where the second derivative is least, in each run of negative ones that touches neither end."""
    negative = np.pad(curvature < 0, ((0, 0), (1, 1)))
    edges = np.diff(negative.astype(np.int8), axis=1)
    row, start = np.nonzero(edges == 1)
    stop = np.nonzero(edges == -1)[1]
    inside = (start > 0) & (stop < curvature.shape[1])
    row, start, stop = row[inside], start[inside], stop[inside]
    if row.size == 0:
        return row, start
    offset = row * curvature.shape[1]
    flat = np.append(curvature.ravel(), 0.0)  # a last run may end where the array does
    least = np.minimum.reduceat(flat, np.stack([offset + start, offset + stop], axis=1).ravel())[::2]
    length = stop - start
    run = np.repeat(np.arange(row.size), length)
    pixel = np.arange(run.size) + np.repeat(start - (np.cumsum(length) - length), length)  # of every pixel in a run
    deepest = np.flatnonzero(flat[offset[run] + pixel] == least[run])
    first = np.unique(run[deepest], return_index=True)[1]
    return row, pixel[deepest[first]]


def _ends(good: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """(n, 2) each: pixels low:high that hold the first and the last 30 good pixels."""
    count = np.cumsum(good, axis=1)
    total = count[:, -1:]
    first = np.stack([good.argmax(axis=1), (count >= np.minimum(_END_PIXELS, total)).argmax(axis=1) + 1], axis=1)
    last_good = good.shape[1] - good[:, ::-1].argmax(axis=1)
    last = np.stack([(count >= np.maximum(total - _END_PIXELS + 1, 1)).argmax(axis=1), last_good], axis=1)
    return first, last


def _stretches(
    wavelength: FloatArray,
    flux: FloatArray,
    good: NDArray[np.bool_],
    where: tuple[IntArray, IntArray, IntArray],
    flux_min: float,
) -> _Stretches:
    """Statistics of the good pixels low:high of each (row, low, high), all in one padded array."""
    row, low, high = (a[:, None] for a in where)
    index = low + np.arange(int((high - low).max()))
    inside = index < high
    index = np.minimum(index, wavelength.size - 1)
    used = inside & good[row, index]
    values = np.sort(np.where(used, flux[row, index], np.inf), axis=1)
    n = used.sum(axis=1)
    bottom, top = _percentile(values, n, flux_min), _percentile(values, n, 98.0)
    begin, end = (values < bottom[:, None]).sum(axis=1), (values <= top[:, None]).sum(axis=1)
    between = end > begin
    middle = np.where(between, _middle(values, begin, np.maximum(end, begin + 1)), 0.5 * (bottom + top))
    median = _middle(values, np.zeros_like(n), n)
    deviation = np.sort(np.where(values < np.inf, np.abs(values - median[:, None]), np.inf), axis=1)
    place = np.sort(np.where(used, wavelength[index], np.inf), axis=1)
    zero = np.zeros_like(n)
    return _Stretches(_middle(place, zero, n), middle, top, median, _middle(deviation, zero, n), n)


def _percentile(ordered: FloatArray, n: IntArray, percent: float) -> FloatArray:
    """Linear between the two nearest of the first n values of each sorted row; 0 for rows without any."""
    rows, last, known = np.arange(len(ordered)), np.maximum(n - 1, 0), n > 0
    position = percent / 100.0 * last
    left = np.floor(position).astype(np.intp)
    lower, upper = (np.where(known, ordered[rows, i], 0.0) for i in (left, np.minimum(left + 1, last)))
    return np.asarray(lower + (position - left) * (upper - lower))


def _middle(ordered: FloatArray, begin: IntArray, end: IntArray) -> FloatArray:
    """Median of the entries begin:end of each sorted row; 0 where that is nothing or unknown."""
    rows, k = np.arange(len(ordered)), end - begin
    last = ordered.shape[1] - 1
    lower, upper = (ordered[rows, np.clip(begin + half, 0, last)] for half in ((k - 1) // 2, k // 2))
    known = (k > 0) & np.isfinite(lower) & np.isfinite(upper)
    return np.where(known, 0.5 * (np.where(known, lower, 0.0) + np.where(known, upper, 0.0)), 0.0)


def _merged(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sorted points with those of one wavelength averaged."""
    places, member = np.unique(x, return_inverse=True)
    if places.size == x.size:
        return x, y
    return places, np.bincount(member, y) / np.bincount(member)
