"""Broadening by a profile of velocities: plain fluxes of a grid, and spectra with their errors and masks.

Masked pixels are bridged by straight lines before the convolution, and given up after it where less than ``min_good`` of the
profile fell on good ones. Ends and gaps are trimmed: a pixel of whose profile more than ``edge_tolerance`` reaches beyond the
data gets ivar 0 and the bit WAVELENGTH; beside those the flux of three pixels is interpolated with fewer neighbours, and exact
to 6e-4 instead of 1e-4. Errors follow the two rules of :mod:`maury.prepare.degrade`; for them the profile
is a histogram of eight equal parts, exact for constant errors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.flags import PixelFlag
from maury.prepare.arrays import real_fluxes, real_number, real_numbers
from maury.prepare.config import VarianceRule, check_choice
from maury.prepare.grid import FloatArray, meta_floats, pixel_edges
from maury.prepare.log_grid import broadening_grid
from maury.prepare.profiles import VelocityProfile
from maury.spectra import Spectra

FASTEST_KM_S = 1000.0
"""No star rotates faster; and above it a profile symmetric in ln λ is not one symmetric in λ to 1e-4."""
_PARTS = 8
"""Parts of equal weight into which a profile is cut for errors."""
_WORST_IVAR = 1e-12
"""A pixel with so small a part of its spectrum's largest ivar counts as masked: it has no weight in anything."""


def broaden_flux(
    what: str, wavelength: ArrayLike, flux: ArrayLike, width: ArrayLike, profile: VelocityProfile
) -> NDArray[np.float64]:
    """Checked arrays through :meth:`~maury.prepare.log_grid.BroadeningGrid.convolve`; ``what`` names the width in errors.

    Raises
    ------
    UsageError
        If the arrays do not fit together, are not finite or masked, or a width is impossible.
    """
    grid, rows, widths = _checked(what, wavelength, flux, width)
    out = broadening_grid(grid).convolve(np.atleast_2d(rows), np.atleast_1d(widths), profile)
    return out[0] if rows.ndim == 1 and widths.ndim == 0 else out


def check_setting(what: str, width: float | None) -> None:
    """Raise UsageError unless a step's width is None (it stands in meta) or one possible velocity, a plain number of km/s."""
    if width is None:
        return
    if hasattr(width, "to_value"):  # a step is stored as plain numbers
        raise UsageError(f"expected {what} of a step as a plain number in km/s, got {width}; convert it")
    check_widths(what, np.array(real_number(what, width)))


def check_widths(what: str, widths: FloatArray) -> None:
    """Raise UsageError unless all widths are velocities between 0 and ``FASTEST_KM_S``."""
    wrong = ~(np.isfinite(widths) & (widths >= 0) & (widths <= FASTEST_KM_S))
    if wrong.any():
        raise UsageError(
            f"expected {what} between 0 and {FASTEST_KM_S:.0f} km/s, got {np.atleast_1d(widths)[np.atleast_1d(wrong)][0]:g}; "
            "correct or leave out such spectra"
        )


def _checked(what: str, wavelength: ArrayLike, flux: ArrayLike, width: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    grid, rows = real_fluxes(wavelength, flux)
    widths = real_numbers(what, width, "km/s")
    n = len(np.atleast_2d(rows))
    if widths.ndim > 1 or (widths.size != 1 and n not in (1, widths.size)):
        raise UsageError(f"expected one {what} or one per spectrum ({n}), got shape {widths.shape}; give a number or {n} numbers")
    check_widths(what, widths)
    return grid, rows, widths


def widths_of(spectra: Spectra, what: str, value: float | None) -> FloatArray:
    """(n_spectra,) widths in km/s: the setting, or the meta column of its name.

    Raises
    ------
    UsageError
        If there is neither, or a value of the column is impossible.
    """
    if value is not None:
        return np.full(len(spectra), float(value))
    if what not in spectra.meta.colnames:
        raise UsageError(f"expected {what} in km/s as a setting or a meta column, got neither; set {what} or add the column")
    widths = meta_floats(spectra, what)
    check_widths(what, widths)
    return widths


class BroadeningRules(NamedTuple):
    """What the steps of this kind share; the names are those of :class:`~maury.prepare.Degrade`."""

    min_good: float
    edge_tolerance: float
    variance: VarianceRule

    def check(self) -> None:
        check_choice("variance", self.variance, VarianceRule)
        real_number("min_good", self.min_good)
        real_number("edge_tolerance", self.edge_tolerance)
        if not 0 < self.min_good <= 1 or not 0 <= self.edge_tolerance < 1:
            raise UsageError("expected min_good in (0, 1] and edge_tolerance in [0, 1), got others; correct them")


def broaden_spectra(spectra: Spectra, widths: FloatArray, profile: VelocityProfile, rules: BroadeningRules) -> Spectra:
    """Spectra convolved with a profile of (n_spectra,) widths in km/s; those of width 0 stay as they are."""
    flux, ivar = np.array(spectra.flux, dtype=np.float64), np.array(spectra.ivar, dtype=np.float64)
    beyond = np.zeros(flux.shape, bool)
    grid = broadening_grid(spectra.wavelength)
    for width in np.unique(widths[widths > 0]):
        rows = np.flatnonzero(widths == width)
        parts = _Parts(spectra.wavelength, float(width), profile)
        beyond[rows] = lost = parts.coverage() < 1 - rules.edge_tolerance - 1e-12
        ivar[rows] = np.where(lost, 0.0, _ivar(ivar[rows], parts, rules))
    moved = np.flatnonzero(widths > 0)
    if moved.size:
        shared = widths[moved[:1]] if (widths[moved] == widths[moved[0]]).all() else widths[moved]
        broad = grid.convolve(_bridged(spectra.wavelength, flux[moved], _good(spectra.ivar[moved])), shared, profile)
        flux[moved] = np.where(ivar[moved] > 0, broad, 0.0)
    mask = spectra.mask
    if beyond.any():
        mask = (np.uint32(0) if mask is None else mask) | np.where(beyond, np.uint32(PixelFlag.WAVELENGTH), np.uint32(0))
    return spectra.with_pixels(flux=flux, ivar=ivar, mask=mask)


def _good(ivar: FloatArray) -> NDArray[np.bool_]:
    best = np.max(ivar, axis=1, keepdims=True, initial=0.0)
    good: NDArray[np.bool_] = (ivar > 1e-280) & (ivar > _WORST_IVAR * best)
    return good


def _bridged(wavelength: FloatArray, flux: FloatArray, good: NDArray[np.bool_]) -> FloatArray:
    """Flux with straight lines over the masked pixels, and 0 where there is no good pixel at all."""
    out = flux.copy()
    for row in np.flatnonzero(~good.all(axis=1)):
        ok = good[row]
        out[row, ~ok] = np.interp(wavelength[~ok], wavelength[ok], flux[row, ok]) if ok.any() else 0.0
    return out


def _ivar(ivar: FloatArray, parts: _Parts, rules: BroadeningRules) -> FloatArray:
    """Inverse variances of broadened rows, 0 where too little of the profile fell on good pixels."""
    good = _good(ivar)
    if good.all() and rules.variance == "information" and (ivar == ivar[:, :1]).all():
        return ivar
    power = np.divide(1.0, ivar, out=np.zeros(ivar.shape), where=good)
    share = np.minimum(parts.mean(good.astype(np.float64)) / parts.coverage(), 1.0)
    spread = np.clip(parts.mean(power), np.min(power, axis=1, keepdims=True, where=good, initial=np.inf), None)
    if rules.variance == "marginal":
        spread = np.minimum(spread, parts.mean_square(power))
    usable = (share >= rules.min_good) & np.isfinite(spread) & (spread > 0)
    out: FloatArray = np.divide(share**2, spread, out=np.zeros(ivar.shape), where=usable)
    return out


class _Parts:
    """A profile of one width as a histogram of equal parts at every pixel, on the spectrum's own pixels and gaps.

    Each part's mean is a difference of running integrals, so the cost does not grow with the width, and nothing is negative.
    """

    def __init__(self, wavelength: FloatArray, width: float, profile: VelocityProfile) -> None:
        x = np.linspace(-profile.reach, profile.reach, 4001)
        quantile = np.interp(np.linspace(0, 1, _PARTS + 1), profile.cumulative(x), x)
        quantile[0], quantile[-1] = -profile.reach, profile.reach
        self._grid = pixel_edges(wavelength)
        self._bounds = wavelength * (1 + quantile[:, None] * width / SPEED_OF_LIGHT_KM_S)  # (parts + 1, n_pixels)
        self._lengths = np.diff(self._bounds, axis=0)
        self._coverage: FloatArray | None = None

    def coverage(self) -> FloatArray:
        """(n_pixels,) the part of the profile that falls on pixels, masked or not."""
        if self._coverage is None:
            self._coverage = self.mean(np.ones((1, self._grid.bin_of_pixel.size)))[0]
        return self._coverage

    def mean(self, values: FloatArray) -> FloatArray:
        """(n, n_pixels) -> (n, n_pixels): ∫ K v, with nothing in the gaps and beyond the ends."""
        return np.array([(self._integrals(row) / self._lengths).mean(axis=0) for row in values]).reshape(values.shape)

    def mean_square(self, values: FloatArray) -> FloatArray:
        """Σ K² v over pixels, K being the part of the profile that a pixel holds (for pixels narrower than the parts)."""
        wide = [(self._integrals(row * self._grid.width) / self._lengths**2).sum(axis=0) / _PARTS**2 for row in values]
        return np.array(wide).reshape(values.shape)

    def _integrals(self, row: FloatArray) -> FloatArray:
        """(parts, n_pixels): the integral of a row over each part."""
        amount = np.zeros(self._grid.edges.size - 1)
        amount[self._grid.bin_of_pixel] = row * self._grid.width
        running = np.append(0.0, np.cumsum(amount))
        found: FloatArray = np.diff([np.interp(bound, self._grid.edges, running) for bound in self._bounds], axis=0)
        return np.maximum(found, 0.0)
