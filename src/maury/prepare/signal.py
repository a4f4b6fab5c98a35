"""Signal-to-noise ratios per band and overall, and errors that noise alone does not give: a floor, and correlated pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from maury.errors import UsageError
from maury.prepare.config import Ranges, check_ranges, config_of
from maury.prepare.continuum import masked_median, within
from maury.prepare.grid import FloatArray, meta_floats, with_meta
from maury.spectra import Spectra, selected

SDSS_BANDS: dict[str, tuple[float, float]] = {
    "u": (3250.0, 3850.0),
    "g": (3950.0, 5450.0),
    "r": (5600.0, 6950.0),
    "i": (6900.0, 8200.0),
    "z": (8200.0, 9600.0),
}
"""Half-maximum ranges of the SDSS filters in Å, rounded; LAMOST's SNRU … SNRZ are medians over such bands."""


def snr(spectra: Spectra, ranges: Ranges = ()) -> FloatArray:
    """(n_spectra,) median of flux sqrt(ivar) per pixel over the good pixels in ``ranges`` (Å); NaN without any."""
    good = (spectra.ivar > 0) & within(spectra.wavelength, ranges)
    return masked_median(spectra.flux * np.sqrt(spectra.ivar), good)


def snr_bands(spectra: Spectra, bands: dict[str, tuple[float, float]] | None = None) -> dict[str, FloatArray]:
    """S/N per band, ``{name: (n_spectra,)}``; the SDSS bands unless others are given."""
    return {name: snr(spectra, (limits,)) for name, limits in (bands or SDSS_BANDS).items()}


def snr_sum(spectra: Spectra) -> FloatArray:
    """(n_spectra,) SNR_λ of Galgano+2020 (METHODS 5, step 2): the sum of the header values SNRU + SNRG + SNRR + SNRI + SNRZ.

    Reads the meta columns ``snr_u`` … ``snr_z``; NaN where any is missing, because a sum of four is another scale.
    Bands measured as negative count as they are.

    Raises
    ------
    UsageError
        If a column is absent altogether.
    """
    missing = [f"snr_{band}" for band in SDSS_BANDS if f"snr_{band}" not in spectra.meta.colnames]
    if missing:
        raise UsageError(
            f"expected meta columns snr_u, snr_g, snr_r, snr_i, snr_z, got no {', '.join(missing)}; "
            "read LAMOST files, or add a measure_snr step with bands"
        )
    total: FloatArray = np.sum([meta_floats(spectra, f"snr_{band}") for band in SDSS_BANDS], axis=0)
    return total


@dataclass(frozen=True)
class MeasureSnr:
    """Write the measured S/N per pixel into meta ``snr``, and per band into ``snr_u`` … ``snr_z`` if asked.

    Parameters
    ----------
    ranges : Å; where meta ``snr`` is measured (everywhere if there are none).
    bands : also measure the five SDSS bands; header values of the same names are replaced.
    """

    ranges: Ranges = ()
    bands: bool = False

    name: ClassVar[str] = "measure_snr"

    def __post_init__(self) -> None:
        check_ranges("ranges", self.ranges)

    def __call__(self, spectra: Spectra) -> Spectra:
        columns = {"snr": snr(spectra, self.ranges)}
        if self.bands:
            columns |= {f"snr_{band}": values for band, values in snr_bands(spectra).items()}
        return with_meta(spectra, columns)

    def to_config(self) -> dict[str, Any]:
        return config_of(self)


@dataclass(frozen=True)
class NoiseFloor:
    """Add an error proportional to the flux: σ² + (fraction · f)².

    Flat fields, flux calibration and models are not better than about a per cent; without a floor one very well
    exposed spectrum outweighs all others, and its chi-square means nothing.

    Parameters
    ----------
    fraction : of the flux.
    only, skip : file formats or instruments that the step is for, as in :class:`~maury.prepare.Mask`.

    Notes
    -----
    The published form takes each pixel's own flux, which makes noise-lowered pixels look more certain; ``fraction`` is
    of the order of 0.01, where that does not matter.
    """

    fraction: float = 0.01
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "noise_floor"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.fraction) and self.fraction >= 0):
            raise UsageError(f"expected a fraction of the flux, 0 or more, got {self.fraction}; 0.01 is one per cent")

    def __call__(self, spectra: Spectra) -> Spectra:
        # ivar/(1 + ivar e²), not 1/(1/ivar + e²): masked pixels stay at 0, and nothing is divided by zero
        good = (spectra.ivar > 0) & selected(spectra, self.only, self.skip)[:, None]
        error = np.where(good, self.fraction * spectra.flux, 0.0).astype(np.float64)
        return spectra.with_pixels(ivar=spectra.ivar / (1.0 + spectra.ivar * error**2))

    def to_config(self) -> dict[str, Any]:
        return config_of(self)


@dataclass(frozen=True)
class CorrelatedNoise:
    """Count neighbouring pixels that share their noise as one measurement: ivar/pixels.

    A spectrum that was interpolated onto finer pixels has no more information than before, but as many more inverse variances.
    For whatever is broader than the correlation, lines among it, the error of a sum is right again when each variance is
    multiplied by 1 + 2 Σ ρ(k), with ρ(k) the autocorrelation of the noise at a distance of k pixels.

    Parameters
    ----------
    pixels : that factor, at least 1. Gaia's mean RVS spectra, 0.245 Å pixels on a grid of 0.1 Å, have ρ = 0.79, 0.43, 0.18
        (measured: docs/method.md), hence 3.8.
    only, skip : file formats or instruments that the step is for, as in :class:`~maury.prepare.Mask`.

    Notes
    -----
    A reduced chi-square of right errors is then 1/pixels, not 1.
    """

    pixels: float = 1.0
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "correlated_noise"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.pixels) and self.pixels >= 1):
            raise UsageError(f"expected at least 1 pixel that shares its noise, got {self.pixels}; 1 is independent noise")

    def __call__(self, spectra: Spectra) -> Spectra:
        factor = np.where(selected(spectra, self.only, self.skip), 1.0 / self.pixels, 1.0)
        return spectra.with_pixels(ivar=spectra.ivar * factor[:, None])

    def to_config(self) -> dict[str, Any]:
        return config_of(self)


@dataclass(frozen=True)
class Crop:
    """Keep only the pixels whose centres lie between ``start`` and ``stop`` (Å, ends included)."""

    start: float = 3000.0
    stop: float = 25_000.0

    name: ClassVar[str] = "crop"

    def __post_init__(self) -> None:
        check_ranges("start and stop", ((self.start, self.stop),))

    def __call__(self, spectra: Spectra) -> Spectra:
        keep = within(spectra.wavelength, ((self.start, self.stop),))
        if keep.sum() < 2:
            raise UsageError(
                f"expected spectra with pixels in {self.start:.1f}–{self.stop:.1f} Å, got {spectra!r}; leave them out or choose "
                "another range"
            )
        mask = None if spectra.mask is None else spectra.mask[:, keep]
        return spectra.with_pixels(
            wavelength=spectra.wavelength[keep], flux=spectra.flux[:, keep], ivar=spectra.ivar[:, keep], mask=mask
        )

    def to_config(self) -> dict[str, Any]:
        return config_of(self)
