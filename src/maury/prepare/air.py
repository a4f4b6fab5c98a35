"""Vacuum and air wavelengths after Ciddor (1996, Applied Optics 35, 1566), as steps that must be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from maury.errors import UsageError
from maury.prepare.config import config_of
from maury.prepare.grid import FloatArray
from maury.spectra import Spectra

_SHORTEST_AIR_ANGSTROM = 2000.0
"""Below this, air wavelengths are not used in astronomy (IAU convention) and the formula does not hold."""


def refractive_index(vacuum: FloatArray) -> FloatArray:
    """Refractive index of standard air (15 °C, 101 325 Pa, dry, 450 ppm CO2) at vacuum wavelengths in Å.

    Ciddor 1996, eq. 1: 10⁸ (n − 1) = k1/(k0 − σ²) + k3/(k2 − σ²), with σ the *vacuum* wavenumber in µm⁻¹.
    """
    wavenumber_squared = (1e4 / vacuum) ** 2
    excess = 5_792_105.0 / (238.0185 - wavenumber_squared) + 167_917.0 / (57.362 - wavenumber_squared)
    index: FloatArray = 1.0 + 1e-8 * excess
    return index


def vacuum_to_air(vacuum: FloatArray) -> FloatArray:
    """Air wavelengths (Å) of vacuum wavelengths (Å): λ_air = λ_vac / n(λ_vac).

    Raises
    ------
    UsageError
        Below 2000 Å, where air wavelengths are not defined.
    """
    _check(vacuum)
    air: FloatArray = vacuum / refractive_index(vacuum)
    return air


def air_to_vacuum(air: FloatArray) -> FloatArray:
    """Vacuum wavelengths (Å) of air wavelengths (Å): λ_vac = λ_air n(λ_vac), solved by iteration.

    The formula wants the vacuum wavelength, which is not known yet; specutils puts the air wavelength there
    (a difference below 1e-5 Å in the optical). Four rounds of the contraction (factor < 1e-4) are exact, so that
    there and back is the identity.

    Raises
    ------
    UsageError
        Below 2000 Å, where air wavelengths are not defined.
    """
    _check(air)
    vacuum = np.array(air, dtype=np.float64)
    for _ in range(4):
        vacuum = air * refractive_index(vacuum)
    return vacuum


def _check(wavelength: FloatArray) -> None:
    if np.size(wavelength) and np.min(wavelength) < _SHORTEST_AIR_ANGSTROM:
        raise UsageError(
            f"expected wavelengths above {_SHORTEST_AIR_ANGSTROM:.0f} Å for air, got {np.min(wavelength):.1f} Å; "
            "shorter ones are given in vacuum: crop them or leave the conversion out"
        )


@dataclass(frozen=True)
class ToVacuum:
    """Convert air wavelengths to vacuum; spectra already in vacuum pass unchanged.

    Only the wavelength vector changes: no flux is interpolated.
    """

    name: ClassVar[str] = "to_vacuum"

    def __call__(self, spectra: Spectra) -> Spectra:
        if spectra.medium == "vacuum":
            return spectra
        return spectra.with_pixels(wavelength=air_to_vacuum(spectra.wavelength), medium="vacuum")

    def to_config(self) -> dict[str, Any]:
        return config_of(self)


@dataclass(frozen=True)
class ToAir:
    """Convert vacuum wavelengths to air; spectra already in air pass unchanged."""

    name: ClassVar[str] = "to_air"

    def __call__(self, spectra: Spectra) -> Spectra:
        if spectra.medium == "air":
            return spectra
        return spectra.with_pixels(wavelength=vacuum_to_air(spectra.wavelength), medium="air")

    def to_config(self) -> dict[str, Any]:
        return config_of(self)
