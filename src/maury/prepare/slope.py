"""Refusing spectra whose continuum falls steeper than any star's: extraction or flux calibration went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from maury.errors import UsageError
from maury.prepare.config import check_ranges, config_of
from maury.prepare.continuum import gaussian_continuum, masked_median, within
from maury.prepare.grid import FloatArray
from maury.spectra import Spectra


@dataclass(frozen=True)
class RejectSlope:
    """Fail spectra whose pseudo-continuum slopes by less than ``minimum`` (Galgano+2020, Sect. 2; METHODS 5, step 7).

    The paper rejects about 1000 spectra with a slope below -3 in "normalised flux per unit wavelength" and does not say which
    unit. Here it is that of the least-squares line through continuum/median(continuum) between ``start`` and ``stop``, per
    1000 Å (choice). At -3 a continuum falls from 2.5 to below zero over the default range, which no star does.

    Parameters
    ----------
    minimum : smallest slope that is accepted, per 1000 Å.
    start, stop : Å, of the range it is measured in.
    length : L in Å of the Gaussian pseudo-continuum (METHODS 0.4, paper variant).

    Raises
    ------
    UsageError
        On a call, if a spectrum is refused; :meth:`Preparation.prepare_each` then keeps it as a row with this reason.
        Spectra without good pixels in the range pass: nothing is known against them.
    """

    minimum: float = -3.0
    start: float = 4500.0
    stop: float = 5500.0
    length: float = 50.0

    name: ClassVar[str] = "reject_slope"

    def __post_init__(self) -> None:
        check_ranges("start and stop", ((self.start, self.stop),))
        if not self.length > 0 or not np.isfinite(self.minimum):
            raise UsageError(f"expected a positive length in Å and a finite minimum, got {self.length} and {self.minimum}")

    def __call__(self, spectra: Spectra) -> Spectra:
        slope = self.slope(spectra)
        steep = slope < self.minimum  # NaN is not
        if steep.any():
            raise UsageError(
                f"expected a continuum slope of at least {self.minimum:g} per 1000 Å, got {slope[steep][0]:.2f} for "
                f"{spectra.ids[steep][0]}; the spectrum's extraction or flux calibration went wrong"
            )
        return spectra

    def slope(self, spectra: Spectra) -> FloatArray:
        """(n_spectra,) slope of continuum/median per 1000 Å; NaN where it cannot be measured."""
        inside = within(spectra.wavelength, ((self.start, self.stop),))
        if inside.sum() < 2:
            return np.full(len(spectra), np.nan)
        x = spectra.wavelength[inside] / 1000.0
        flux, ivar = spectra.flux[:, inside], spectra.ivar[:, inside]
        good = ivar > 0
        continuum = gaussian_continuum(spectra.wavelength[inside], flux, ivar, float(self.length / np.sqrt(2.0)))
        good &= np.isfinite(continuum)
        level = masked_median(continuum, good)
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.where(good, continuum / np.abs(level)[:, None], 0.0)
            n = good.sum(axis=1)
            mean = (good * x).sum(axis=1) / n
            offset = np.where(good, x - mean[:, None], 0.0)
            slope = (offset * y).sum(axis=1) / (offset**2).sum(axis=1)
        return np.asarray(np.where(np.isfinite(slope), slope, np.nan))

    def to_config(self) -> dict[str, Any]:
        return config_of(self)
