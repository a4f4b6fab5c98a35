"""Macroturbulence: Gray's radial–tangential profile with equal velocities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.prepare.broadening import BroadeningRules, broaden_flux, broaden_spectra, check_setting, widths_of
from maury.prepare.config import VarianceRule, config_of
from maury.prepare.grid import with_meta
from maury.prepare.profiles import RadialTangentialProfile
from maury.spectra import Spectra


def macroturbulence_flux(wavelength: ArrayLike, flux: ArrayLike, v_macro: ArrayLike) -> NDArray[np.float64]:
    """Spectra broadened by radial–tangential macroturbulence.

    Parameters
    ----------
    wavelength : (n_pixels,) Å or an astropy Quantity of length, increasing; any spacing.
    flux : (n, n_pixels) or (n_pixels,).
    v_macro : ζ = ζ_R = ζ_T in km/s, the most probable speed: one number, (n,), or (m,) for m versions of one spectrum.

    Returns
    -------
    As :func:`~maury.prepare.rotation.rotate_flux`; the profile ends at 4 ζ, where 1e-8 of it is left.

    Raises
    ------
    UsageError
        If the arrays do not fit together, are not finite, or a velocity is impossible.

    Notes
    -----
    K(v) = 2/(√π ζ) [exp(−v²/ζ²) − √π |v|/ζ erfc(|v|/ζ)] (Gray 2005, 3rd ed., sect. 17.4; Gray 1975, ApJ 202, 148): the
    mean over a disk without limb darkening. Applied beside rotation this treats the two as independent, as Gray's disk
    integration does not; the difference is second order where ζ is below v sin i.
    """
    return broaden_flux("v_macro", wavelength, flux, v_macro, RadialTangentialProfile())


@dataclass(frozen=True)
class Macroturbulence:
    """Broaden by radial–tangential macroturbulence (Gray 2005).

    Parameters
    ----------
    v_macro : ζ in km/s for all spectra; without it, meta ``v_macro`` of each spectrum. 0 leaves a spectrum as it is.
    min_good, edge_tolerance, variance : as in :class:`~maury.prepare.Rotate`.

    Notes
    -----
    Meta ``v_macro`` is written. For plain arrays, and for the formula: :func:`macroturbulence_flux`.
    """

    v_macro: float | None = None
    min_good: float = 0.5
    edge_tolerance: float = 1e-4
    variance: VarianceRule = "information"

    name: ClassVar[str] = "macroturbulence"

    def __post_init__(self) -> None:
        BroadeningRules(self.min_good, self.edge_tolerance, self.variance).check()
        check_setting("v_macro", self.v_macro)

    def __call__(self, spectra: Spectra) -> Spectra:
        v_macro = widths_of(spectra, "v_macro", self.v_macro)
        rules = BroadeningRules(self.min_good, self.edge_tolerance, self.variance)
        return with_meta(broaden_spectra(spectra, v_macro, RadialTangentialProfile(), rules), {"v_macro": v_macro})

    def to_config(self) -> dict[str, Any]:
        return config_of(self)
