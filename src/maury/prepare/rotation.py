"""Rotational broadening: Gray's profile, for one v sin i or one per spectrum (METHODS 0.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.prepare.broadening import BroadeningRules, broaden_flux, broaden_spectra, check_setting, widths_of
from maury.prepare.config import VarianceRule, config_of
from maury.prepare.grid import with_meta
from maury.prepare.profiles import RotationProfile
from maury.spectra import Spectra


def rotate_flux(wavelength: ArrayLike, flux: ArrayLike, vsini: ArrayLike, limb_darkening: float = 0.6) -> NDArray[np.float64]:
    """Spectra as a star rotating with v sin i shows them.

    Parameters
    ----------
    wavelength : (n_pixels,) Å or an astropy Quantity of length, increasing; any spacing.
    flux : (n, n_pixels) or (n_pixels,), any unit per Å.
    vsini : km/s, 0 to 1000: one number, or (n,) one per spectrum, or (m,) for m versions of a single spectrum.
    limb_darkening : ε of the linear law.

    Returns
    -------
    (n, n_pixels) float64; (n_pixels,) for one spectrum and a single number. Beyond the ends the spectrum is taken to go on with
    its last value (so too into gaps of more than 64 pixels; narrower ones are bridged by straight lines): keep a margin of
    λ v sin i / c and four pixels, and cut it off. Nothing is wrapped around.

    Raises
    ------
    UsageError
        If the arrays do not fit together, are not finite, or a v sin i is impossible.

    Notes
    -----
    f'(λ₀) = ∫ K(x) f(λ₀ (1 + x v/c)) dx with K of :class:`~maury.prepare.profiles.RotationProfile`, as in METHODS 0.1 (after
    eniric's ``rotational_convolution``), which sums the kernel over pixels and divides by its sum. Here the kernel is
    never sampled (see :mod:`maury.prepare.log_grid`), so v sin i below a pixel needs no special case; the profile is taken as
    symmetric in ln λ, which differs from λ by (v/c)²/2, a shift of 0.15 km/s · x² at 300 km/s.
    Lines must be sampled. The result is exact to 1e-4 of the continuum where a line's σ is at least 1.5 pixels (optical depth 1
    in its centre), 1.75 (2), 2 (4), 2.5 (10): the edges of saturated lines are steep.

    Examples
    --------
    >>> import numpy as np
    >>> wavelength = np.arange(8400.0, 8500.0, 0.04)
    >>> flux = 1 - 0.5 * np.exp(-0.5 * ((wavelength - 8450) / 0.1) ** 2)
    >>> rotate_flux(wavelength, flux, [0.0, 10.0, 100.0]).min(axis=1).round(2)
    array([0.5 , 0.72, 0.97])
    """
    return broaden_flux("vsini", wavelength, flux, vsini, RotationProfile(limb_darkening))


@dataclass(frozen=True)
class Rotate:
    """Broaden by rotation (Gray's profile, linear limb darkening).

    Parameters
    ----------
    vsini : km/s for all spectra; without it, meta ``vsini`` of each spectrum. 0 leaves a spectrum as it is.
    limb_darkening : ε in [0, 1].
    min_good : the part of the profile that must fall on good pixels.
    edge_tolerance : the part of the profile that may fall beyond the data (ends, gaps) before a pixel is given up.
    variance : "information" or "marginal"; see :mod:`maury.prepare.degrade`.

    Notes
    -----
    Meta ``vsini`` is written: what the spectra were rotated by. For plain arrays: :func:`rotate_flux`.
    """

    vsini: float | None = None
    limb_darkening: float = 0.6
    min_good: float = 0.5
    edge_tolerance: float = 1e-4
    variance: VarianceRule = "information"

    name: ClassVar[str] = "rotate"

    def __post_init__(self) -> None:
        RotationProfile(self.limb_darkening)
        BroadeningRules(self.min_good, self.edge_tolerance, self.variance).check()
        check_setting("vsini", self.vsini)

    def __call__(self, spectra: Spectra) -> Spectra:
        vsini = widths_of(spectra, "vsini", self.vsini)
        rules = BroadeningRules(self.min_good, self.edge_tolerance, self.variance)
        return with_meta(broaden_spectra(spectra, vsini, RotationProfile(self.limb_darkening), rules), {"vsini": vsini})

    def to_config(self) -> dict[str, Any]:
        return config_of(self)
