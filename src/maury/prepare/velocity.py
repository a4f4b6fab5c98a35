"""Radial velocities against templates, with errors and flags: spectra of any grid, several templates, the best by chi-square.

The arithmetic stands in :mod:`~maury.prepare.cross_correlation`. Here spectra and templates lose their continua in the same way,
edges are softened, pixels are chosen, and every spectrum leaves with a velocity or with the reason why it has none.

A velocity is that of the frame the wavelengths are in: of a barycentric spectrum the barycentric one. Nothing is corrected here.
It is cz in the sense of λ_observed = λ_rest (1 + rv/c), as everywhere in this package, not the relativistic velocity.
The step of a preparation that does this is :class:`~maury.prepare.MeasureRv`, which carries its templates as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.flags import ResultFlag
from maury.prepare.cross_correlation import (
    Data,
    LogGrid,
    Peak,
    Sums,
    SumsByProduct,
    SumsByTransform,
    TransformedTemplates,
    correlate,
    find_peak,
    interpolation,
)
from maury.prepare.grid import FloatArray, IntArray
from maury.prepare.templates import ContinuumRule, in_medium, rest_range, sampled
from maury.spectra import Spectra

NODES_PER_PIXEL = 3  # enough that the quartic between lags is good to 0.02 km/s at R = 1800 (tests)
_RIVAL_DELTA_CHI2 = 9.0  # 3 sigma, as in fits of labels
_SIGNIFICANT_DELTA_CHI2 = 25.0  # 5 sigma: noise alone reaches it in one of 1e4 searches of a hundred independent places
_ROUNDED = 0.01  # ln Å: grids of spectra that differ by less in their ends share one of the templates
_MANY_SPECTRA = 48  # on one grid: from here on moving the templates to all lags first saves more than it costs
_VALUES_KEPT = 4_000_000  # of templates moved to all lags: 64 MB with their squares
_GRIDS_KEPT = 8  # whose templates stay in memory: files of one survey share a few
_NEGLIGIBLE = 1e-12  # of the largest weight: pixels worth less count as masked, or sums over the others lose their digits
_VALUES_AT_ONCE = 200_000  # nodes of all rows of a block: these arrays stay in the cache


@dataclass(frozen=True)
class CrossCorrelation:
    """How velocities are measured.

    Parameters
    ----------
    low, high : km/s, between which the velocity is searched.
    continuum : what spectra and templates are divided by.
    degree : of the polynomial fitted beside the template, which takes up what still differs between the two continua.
    apodise : part of the pixels at either end over which weights rise from zero, since continua are unsure there. All sums are
        exact, so nothing else needs it; errors are right or, in those pixels, slightly too large.
    min_pixels : usable pixels below which no velocity is measured.
    scale_errors : multiply errors by the root of the reduced chi-square where that exceeds 1: templates never fit perfectly, and
        the curvature of chi-square alone then promises too much. A smooth misfit of continua counts, too, though it hardly moves
        a velocity: behind a response of ±25 % errors are 1.2 times too large at S/N 60, up to 3 times at 200 (GISIC: 1.1).
    floor : km/s added to errors in quadrature, for what no spectrum knows of itself: the stability of the wavelength calibration.
    """

    low: float = -500.0
    high: float = 500.0
    continuum: ContinuumRule = field(default_factory=ContinuumRule)
    degree: int = 2
    apodise: float = 0.02
    min_pixels: int = 50
    scale_errors: bool = True
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not -0.1 * SPEED_OF_LIGHT_KM_S < self.low < self.high < 0.1 * SPEED_OF_LIGHT_KM_S:
            raise UsageError(
                f"expected a range low < high within a tenth of the speed of light, got {self.low} to {self.high} km/s; "
                "correct it"
            )
        if not 0 <= self.degree <= 20 or not 0 <= self.apodise < 0.5:
            raise UsageError(
                f"expected a degree from 0 to 20 and apodise from 0 to below 0.5, got {self.degree} and {self.apodise}; "
                "correct them"
            )
        if not 0 <= self.floor < SPEED_OF_LIGHT_KM_S:
            raise UsageError(f"expected a floor of errors in km/s, 0 or more, got {self.floor}; correct it")
        if self.min_pixels < self.degree + 4:
            raise UsageError(f"expected min_pixels of at least degree + 4, got {self.min_pixels}; a fit needs more than it fits")

    def lags(self, step: float) -> IntArray:
        """Shifts to try, in nodes, with two more on either side for the refinement of peaks."""
        low, high = (np.log1p(v / SPEED_OF_LIGHT_KM_S) / step for v in (self.low, self.high))
        return np.arange(int(np.floor(low)) - 2, int(np.ceil(high)) + 3)


@dataclass(frozen=True, eq=False)
class Velocities:
    """What was measured, one entry per spectrum.

    Parameters
    ----------
    rv, e_rv : (n,) km/s, receding positive; NaN where there is none, with the reason.
    ccf_peak : (n,) height of the correlation at its peak, 0 to 1.
    ccf_second : (n,) that of the next peak; NaN where there is no other.
    template : (n,) number of the best template, -1 where there is none.
    chi2 : (n,) chi-square with it, weights as apodised.
    n_pixels : (n,) pixels used.
    flag : (n,) int64 of :class:`~maury.flags.ResultFlag`.
    reason : (n,) a sentence where there is no velocity, else "".
    """

    rv: FloatArray
    e_rv: FloatArray
    ccf_peak: FloatArray
    ccf_second: FloatArray
    template: IntArray
    chi2: FloatArray
    n_pixels: IntArray
    flag: NDArray[np.int64]
    reason: tuple[str, ...]

    @classmethod
    def missing(cls, reasons: Sequence[str], flag: ResultFlag, n_pixels: IntArray | None = None) -> Velocities:
        """Entries without a velocity."""
        n = len(reasons)
        nan = np.full(n, np.nan)
        count = np.zeros(n, np.int64) if n_pixels is None else n_pixels
        flags = np.full(n, int(flag), np.int64)
        return cls(nan, nan, nan, nan, np.full(n, -1), nan, count, flags, tuple(reasons))

    @classmethod
    def concatenate(cls, parts: Sequence[Velocities]) -> Velocities:
        """All entries, one part after the other."""
        names = ("rv", "e_rv", "ccf_peak", "ccf_second", "template", "chi2", "n_pixels", "flag")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**arrays, reason=tuple(reason for part in parts for reason in part.reason))

    def __len__(self) -> int:
        return len(self.rv)

    def __getitem__(self, rows: IntArray) -> Velocities:
        arrays = {name: getattr(self, name)[rows] for name in self.__dataclass_fields__ if name != "reason"}
        return Velocities(**arrays, reason=tuple(self.reason[row] for row in rows))


@dataclass(frozen=True, eq=False)
class CrossCorrelator:
    """Templates and settings, ready for any number of spectra.

    Parameters
    ----------
    templates : batches of template spectra, at rest or of known velocity, of about the resolution of the spectra. Their errors
        are not used, only which pixels are good; of a spectrum only those pixels count that all templates cover.
    settings : see :class:`CrossCorrelation`.

    Examples
    --------
    >>> import numpy as np
    >>> from maury.grids import AnalyticSpectra
    >>> star, grid = AnalyticSpectra(("teff",)), np.arange(4800.0, 5600.0)
    >>> template = star.spectra(grid, [[5800.0]], snr=1000.0, seed=1)
    >>> CrossCorrelator((template,)).measure(template[:1]).rv.round(1).tolist()
    [0.0]
    """

    templates: tuple[Spectra, ...]
    settings: CrossCorrelation = field(default_factory=CrossCorrelation)
    _transformed: dict[tuple[object, ...], TransformedTemplates | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not sum(len(batch) for batch in self.templates):
            raise UsageError("expected at least one template spectrum, got none; give one of about the same type of star")
        for batch in self.templates:
            rest_range(batch)  # refuses those of unknown velocity now, not at the first spectrum
            dead = ~(batch.ivar > 0).any(axis=1)
            if dead.any():  # it would leave no pixel that all templates cover
                raise UsageError(f"expected templates with good pixels, got {batch.ids[dead][0]} without any; leave it out")

    def measure(self, spectra: Spectra) -> Velocities:
        """Velocities of a batch.

        Parameters
        ----------
        spectra : any flux unit; pixels of ivar = 0 have no influence. Mask tellurics and sky lines before: they do not move.

        Returns
        -------
        Velocities, one entry per spectrum; no spectrum raises.
        """
        if len(spectra) == 0:
            return Velocities.missing((), ResultFlag(0))
        step = float(f"{np.median(np.diff(np.log(spectra.wavelength))) / NODES_PER_PIXEL:.3g}")
        templates = self._templates(spectra, step)
        used = np.zeros(spectra.n_pixels, bool) if templates is None else templates.reached(spectra.wavelength)
        if templates is None or not used.any():
            sentence = (
                f"expected a spectrum that the templates cover at all velocities, got {spectra.wavelength[0]:.1f}-"
                f"{spectra.wavelength[-1]:.1f} Å; give wider templates or a narrower velocity range"
            )
            return Velocities.missing([sentence] * len(spectra), ResultFlag.WRONG_DOMAIN)
        sums = _sums(templates, spectra.wavelength[used], len(spectra))
        search = _Search(templates, _pixels(used), sums, self._taper(int(used.sum())))
        rows = max(1, _VALUES_AT_ONCE // templates.grid.n_nodes)
        blocks = [slice(low, low + rows) for low in range(0, len(spectra), rows)]
        return Velocities.concatenate([self._block(spectra[block], search) for block in blocks])

    def _block(self, spectra: Spectra, search: _Search) -> Velocities:
        divided = self.settings.continuum.divide(spectra)
        flux, weight = divided.flux[:, search.pixels], divided.ivar[:, search.pixels] * search.taper
        weight = np.where(weight > _NEGLIGIBLE * weight.max(axis=1, keepdims=True, initial=0.0), weight, 0.0)
        n_pixels = (weight > 0).sum(axis=1)
        out = Velocities.missing(
            [
                f"expected at least {self.settings.min_pixels} usable pixels of positive continuum that all templates cover, "
                f"got {n}; check masks and flux"
                for n in n_pixels
            ],
            ResultFlag.FEW_PIXELS,
            n_pixels,
        )
        enough = np.flatnonzero(n_pixels >= self.settings.min_pixels)
        if enough.size == 0:
            return out
        x = np.linspace(-1.0, 1.0, search.taper.size)
        terms = np.polynomial.legendre.legvander(x, self.settings.degree).T
        data = Data(flux[enough], weight[enough], np.ascontiguousarray(terms))
        found = self._best(data, search)
        parts = Velocities.concatenate([out, found])
        rows = np.arange(len(spectra))
        rows[enough] = len(spectra) + np.arange(enough.size)
        return parts[rows]

    def _best(self, data: Data, search: _Search) -> Velocities:
        """Velocities by the template that explains most."""
        correlations = correlate(data, search.sums)
        peaks = [find_peak(correlation.gain) for correlation in correlations]
        # a rise towards an end counts as the template's best, so that no poor peak of another one is taken instead
        heights = np.stack([np.where(peak.at_edge, peak.edge, np.nan_to_num(peak.height, nan=-1.0)) for peak in peaks])
        best = heights.argmax(axis=0)
        rows = np.arange(len(best))
        chosen = Peak(*(np.stack(values)[best, rows] for values in zip(*peaks, strict=True)))
        chi2_of_none = correlations[0].chi2
        used = data.weight > 0
        freedom = np.maximum((used * search.taper).sum(axis=1) - len(data.polynomials) - 2, 1.0)
        return self._judged(chosen, chi2_of_none, freedom, best, used.sum(axis=1), search)

    def _judged(
        self, peak: Peak, chi2_of_none: FloatArray, freedom: FloatArray, best: IntArray, n_pixels: IntArray, search: _Search
    ) -> Velocities:
        step = search.templates.grid.step
        shift = (search.templates.lags[0] + np.nan_to_num(peak.place)) * step
        low, high = self.settings.low, self.settings.high
        outside = np.isfinite(peak.place) & ((_velocity(shift) < low) | (_velocity(shift) > high))  # lags reach a node further
        at_edge = peak.at_edge | outside
        good = np.isfinite(peak.place) & ~at_edge
        shift = np.where(good, shift, np.nan)
        chi2 = np.where(good, chi2_of_none - peak.height, np.nan)
        inflation = np.maximum(np.nan_to_num(chi2 / freedom, nan=1.0), 1.0)
        per_node = np.sqrt(2.0 / np.where(good, -peak.curvature, np.nan))
        error = SPEED_OF_LIGHT_KM_S * np.exp(shift) * step * per_node
        flag = np.where(at_edge, int(ResultFlag.AT_BOUND), np.where(good, 0, int(ResultFlag.FAILED))).astype(np.int64)
        flag[good & (peak.height / inflation < _SIGNIFICANT_DELTA_CHI2)] |= int(ResultFlag.UNCONSTRAINED)
        flag[good & ((peak.height - peak.second) / inflation < _RIVAL_DELTA_CHI2)] |= int(ResultFlag.SEVERAL_MINIMA)
        sentences = {
            True: f"expected a peak between {low:g} and {high:g} km/s, the correlation is highest at an end; widen the range",
            False: "expected a peak of the correlation, got none: the template explains nothing of the spectrum; try another",
        }
        reason = tuple("" if ok else sentences[bool(edge)] for ok, edge in zip(good, at_edge, strict=True))
        return Velocities(
            _velocity(shift),
            np.hypot(error * np.sqrt(inflation) if self.settings.scale_errors else error, self.settings.floor),
            np.where(good, np.sqrt(np.clip(peak.height / chi2_of_none, 0.0, 1.0)), np.nan),
            np.where(good, np.sqrt(np.clip(peak.second / chi2_of_none, 0.0, 1.0)), np.nan),
            np.where(good, best, -1),
            chi2,
            n_pixels,
            flag,
            reason,
        )

    def _taper(self, n: int) -> FloatArray:
        """(n,) a cosine's rise over the first and the last part of the pixels, 1 between."""
        from_end = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
        if self.settings.apodise * n < 1:
            return np.ones(n)
        return np.asarray(np.sin(0.5 * np.pi * np.minimum(from_end / (self.settings.apodise * n), 1.0)) ** 2)

    def _templates(self, spectra: Spectra, step: float) -> TransformedTemplates | None:
        """Templates on a grid that covers the spectra, None where they do not overlap; made once for spectra of like grids."""
        low = np.floor(np.log(spectra.wavelength[0]) / _ROUNDED) * _ROUNDED
        high = np.ceil(np.log(spectra.wavelength[-1]) / _ROUNDED) * _ROUNDED
        key = (spectra.medium, step, round(low / _ROUNDED), round(high / _ROUNDED))
        with suppress(KeyError):
            return self._transformed[key]
        made = self._transform(spectra, step, float(low), float(high))
        # threads share this: none may rely on what another could have dropped meanwhile
        for old in list(self._transformed)[: max(0, len(self._transformed) + 1 - _GRIDS_KEPT)]:
            self._transformed.pop(old, None)
        self._transformed[key] = made
        return made

    def _transform(self, spectra: Spectra, step: float, low: float, high: float) -> TransformedTemplates | None:
        batches = [in_medium(batch, spectra.medium) for batch in self.templates]
        reach = max(abs(np.log1p(v / SPEED_OF_LIGHT_KM_S)) for v in (self.settings.low, self.settings.high)) + 40 * step
        ends = np.log([rest_range(batch) for batch in batches])
        low, high = max(low - reach, float(ends[:, 0].max())), min(high + reach, float(ends[:, 1].min()))
        if high - low < 40 * step:
            return None
        grid = LogGrid(low, step, int((high - low) / step) + 1)
        wavelength = np.exp(grid.nodes)
        rows, known = zip(*(sampled(batch, grid) for batch in batches), strict=True)
        flux, good = np.concatenate(rows), np.concatenate(known)
        whole = Spectra.from_arrays(wavelength, flux, ivar=good.astype(float), medium=spectra.medium, frame="rest")
        divided = self.settings.continuum.divide(whole, finer=NODES_PER_PIXEL)
        return TransformedTemplates.of(grid, self.settings.lags(step), divided.flux, np.asarray((divided.ivar > 0).all(axis=0)))


class _Search(NamedTuple):
    """What the spectra of one grid share."""

    templates: TransformedTemplates
    pixels: slice | IntArray
    """Those that meet known template at every velocity."""
    sums: Sums
    """Over these pixels."""
    taper: FloatArray
    """Their weights by place."""


def _pixels(used: NDArray[np.bool_]) -> slice | IntArray:
    """Which pixels are used; a slice (no copying) where they are neighbours."""
    index = np.flatnonzero(used)
    return slice(int(index[0]), int(index[-1]) + 1) if index[-1] - index[0] + 1 == index.size else index


def _sums(templates: TransformedTemplates, wavelength: FloatArray, n_spectra: int) -> Sums:
    """The faster of two ways to the same sums."""
    at_pixels = interpolation(templates.grid, wavelength)
    values = len(templates.first) * wavelength.size * templates.lags.size
    if n_spectra >= _MANY_SPECTRA and values <= _VALUES_KEPT:
        return SumsByProduct.of(templates, at_pixels)
    return SumsByTransform(templates, at_pixels)


def _velocity(shift: FloatArray) -> FloatArray:
    """Shifts in ln λ as velocities in km/s."""
    return np.asarray(SPEED_OF_LIGHT_KM_S * np.expm1(shift))
