"""Gaussian line-spread functions of a resolving power of its own for each spectrum.

FWHM = λ/R is one velocity for all pixels, so that the convolution is a multiplication in ln λ (:mod:`maury.prepare.log_grid`):
no kernel is made per spectrum, and one spectrum's transform serves all resolving powers it is wanted at. For spectra of one
resolving power :func:`~maury.prepare.convolve_instrument` is as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.prepare.arrays import real_fluxes, real_numbers
from maury.prepare.broadening import broaden_flux
from maury.prepare.grid import FloatArray
from maury.prepare.instrument import convolve_instrument

LOWEST_RESOLVING_POWER = 1000.0
"""Below it, a Gaussian in ln λ is not one in λ to 1e-4: the flux of a line may differ by 0.06/R of its depth."""


@dataclass(frozen=True)
class GaussianProfile:
    """A Gaussian; the width is σ. K(x) = exp(−x²/2)/√2π, transform exp(−s²/2), ⟨x²ᵏ⟩ = (2k − 1)!!."""

    reach: ClassVar[float] = 6.0
    """As in :mod:`maury.prepare.instrument`; 2e-9 lies beyond."""

    def density(self, x: FloatArray) -> FloatArray:
        values: FloatArray = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
        return values

    def cumulative(self, x: FloatArray) -> FloatArray:
        from scipy.special import ndtr

        values: FloatArray = ndtr(x)
        return values

    def transform(self, s: FloatArray) -> FloatArray:
        values: FloatArray = np.exp(-0.5 * s**2)
        return values

    def moment(self, k: int) -> float:
        return float(prod(range(1, 2 * k, 2)))


def convolve_resolving_power(
    wavelength: ArrayLike,
    flux: ArrayLike,
    resolving_power: ArrayLike,
    *,
    native_resolving_power: float | None = None,
    native_fwhm: float | None = None,
) -> NDArray[np.float64]:
    """Spectra at a resolving power each, seen through a Gaussian line-spread function.

    Parameters
    ----------
    wavelength : (n_pixels,) Å or an astropy Quantity of length, increasing; any spacing.
    flux : (n, n_pixels) or (n_pixels,).
    resolving_power : R = λ/FWHM wanted, 1000 or more: one number, or (n,) one per spectrum, or (m,) for m versions of a single
        spectrum.
    native_resolving_power, native_fwhm : what the fluxes have (Gaussian), at most one; infinitely sharp by default.

    Returns
    -------
    (n, n_pixels) float64; (n_pixels,) for one spectrum and a single number. Beyond its ends a spectrum is taken to go on with its
    last value: keep a margin of 3 FWHM, and cut it off.

    Raises
    ------
    UsageError
        If the arrays do not fit together, are not finite or masked, or a resolving power is lower than 1000 or higher than that
        of the fluxes: nothing is ever deconvolved.

    Notes
    -----
    FWHM² = (λ/R)² − native² (METHODS 0.2), as :func:`~maury.prepare.convolve_instrument` has it, with which it agrees to 1e-4 of
    the continuum. A native width that is constant in Å is first made one that is constant in velocity, the lowest resolving power
    that the fluxes have anywhere: Gaussians add in quadrature, so nothing is approximated by that.
    """
    grid, rows = real_fluxes(wavelength, flux)
    power = real_numbers("resolving power", resolving_power, "")
    native = lowest_native(grid, native_resolving_power, native_fwhm)
    check_resolving_powers(power, native)
    if native_fwhm is not None:
        rows = convolve_instrument(grid, rows, resolving_power=native, native_fwhm=native_fwhm)
    return broaden_flux("resolving power", grid, rows, _sigma_km_s(power, native), GaussianProfile())


def lowest_native(wavelength: FloatArray, resolving_power: float | None, fwhm: float | None) -> float:
    """The lowest resolving power that fluxes of this native resolution have at any pixel; infinite where neither is given.

    Raises
    ------
    UsageError
        If both are given, or one is no positive number.
    """
    for name, value in (("resolving power", resolving_power), ("FWHM", fwhm)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise UsageError(f"expected a positive native {name}, got {value}; correct it")
    if fwhm is None:
        return np.inf if resolving_power is None else float(resolving_power)
    if resolving_power is not None:
        raise UsageError("expected one of native resolving power and FWHM, got both; keep one")
    return float(wavelength[0] / fwhm)


def check_resolving_powers(resolving_power: FloatArray, native: float = np.inf) -> None:
    """Raise UsageError unless all are numbers from 1000 to the native one."""
    wrong = ~(
        (resolving_power >= LOWEST_RESOLVING_POWER) & (resolving_power <= native * (1 + 1e-9)) & np.isfinite(resolving_power)
    )
    if wrong.any():
        most = f" to {native:.0f}, what the spectra have" if np.isfinite(native) else " or more"
        raise UsageError(
            f"expected resolving powers of {LOWEST_RESOLVING_POWER:.0f}{most}, got "
            f"{np.atleast_1d(resolving_power)[np.atleast_1d(wrong)][0]:g}; correct them"
        )


def _sigma_km_s(resolving_power: FloatArray, native: float) -> FloatArray:
    """σ that leads from the native to the wanted resolving power, as a velocity."""
    width: FloatArray = np.sqrt(np.maximum(1 / resolving_power**2 - 1 / native**2, 0.0))
    return SPEED_OF_LIGHT_KM_S / FWHM_PER_SIGMA * width
