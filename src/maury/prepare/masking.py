"""Leaving pixels out: survey mask bits by name, sky lines, arm joins, telluric bands, and cosmic-ray spikes.

A pixel that is left out gets ivar = 0 (the house rule) and a :class:`~maury.flags.PixelFlag` that says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.flags import PixelFlag, combine
from maury.prepare.air import air_to_vacuum
from maury.prepare.config import Ranges, check_ranges, config_of
from maury.prepare.continuum import within
from maury.prepare.grid import FloatArray, doppler_factor, velocity_of
from maury.prepare.median import running_median
from maury.spectra import Spectra, selected

PRESETS: dict[str, tuple[PixelFlag, Ranges]] = {
    "sky_lines": (
        PixelFlag.SKY_LINE,
        tuple((line - 3.0, line + 3.0) for line in (4046.0, 4358.0, 5460.0, 5577.0, 6300.0, 6363.0, 6863.0)),
    ),
    "lamost_arm_join": (PixelFlag.ARM_JOIN, ((5800.0, 6000.0),)),
    "telluric_oxygen": (PixelFlag.TELLURIC, ((6860.0, 6960.0), (7590.0, 7720.0))),
    "telluric_water": (PixelFlag.TELLURIC, ((7160.0, 7340.0), (8130.0, 8350.0), (8930.0, 9100.0))),
}
"""Named sets of ranges, Å, vacuum, observed frame. Sky lines and the join: METHODS 5, step 3 (TheCannon's LAMOST code;
its last three lines were computed there but not used). Telluric bands: O2 B and A, then H2O, their usual limits."""

DEFAULT_BITS = (
    "NO_DATA",
    "BAD_PIXEL",
    "FULL_REJECT",
    "NO_SKY",
    "BRIGHT_SKY",
    "COMBINE_REJECT",
    "COSMIC_RAY",
    "SATURATED",
    "BAD_ERROR",
)
"""SDSS-style bits 24, 18, 22, 23, 25 of METHODS 5 (NODATA, FULLREJECT, NOSKY, BRIGHTSKY, COMBINEREJ), and what the other
surveys call unusable. Near-bad, low-flat, partly rejected pixels and whole-fibre bits are kept: they cost a third of LAMOST."""


@dataclass(frozen=True)
class Mask:
    """Leave out pixels by mask bit and by wavelength.

    Parameters
    ----------
    bits : names of :class:`~maury.flags.PixelFlag`; pixels with any of them are left out.
    presets : names of :data:`PRESETS`: "sky_lines", "lamost_arm_join", "telluric_oxygen", "telluric_water".
    ranges : more ranges (low, high) in Å, **vacuum, observed frame**, like the presets.
    rest_ranges : ranges in Å, **vacuum, rest frame** (lines of the star).
    grow : pixels by which each run of pixels masked by ``bits`` is widened on either side (flag NEAR_BAD_PIXEL).
    only, skip : file formats or instruments (meta ``format``, ``instrument``): the step touches only those of ``only`` (if
        any is given) and none of ``skip``. Telluric bands, say, need no mask in a library that was corrected for them.

    Notes
    -----
    The ranges are taken to the spectra's own medium and, by meta ``rv``, to their frame. Where the velocity is not
    known it is taken as zero here (300 km/s move a range by 6 Å at 6000 Å). A range takes every pixel whose centre is in it.
    """

    bits: tuple[str, ...] = DEFAULT_BITS
    presets: tuple[str, ...] = ("sky_lines",)
    ranges: Ranges = ()
    rest_ranges: Ranges = ()
    grow: int = 0
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "mask"

    def __post_init__(self) -> None:
        combine(PixelFlag, self.bits)
        unknown = [p for p in self.presets if p not in PRESETS]
        if unknown:
            raise UsageError(f"expected presets among {', '.join(PRESETS)}, got {', '.join(unknown)}; correct the name")
        check_ranges("ranges", self.ranges)
        check_ranges("rest_ranges", self.rest_ranges)
        if self.grow < 0:
            raise UsageError(f"expected grow as a number of pixels, 0 or more, got {self.grow}; correct it")

    def __call__(self, spectra: Spectra) -> Spectra:
        flags = np.zeros(spectra.flux.shape, np.uint32) if spectra.mask is None else spectra.mask.copy()
        bad = flags & np.uint32(combine(PixelFlag, self.bits)) != 0
        grown = _grow(bad, self.grow) & ~bad
        flags[grown] |= np.uint32(PixelFlag.NEAR_BAD_PIXEL)
        bad |= grown
        factor = doppler_factor(np.nan_to_num(velocity_of(spectra), nan=0.0))
        observed = factor if spectra.frame == "rest" else np.ones(len(spectra))
        rest = np.ones(len(spectra)) if spectra.frame == "rest" else 1.0 / factor
        for flag, ranges, to_wanted in self._wanted(observed, rest):
            inside = _inside(spectra, ranges, to_wanted)
            flags |= np.where(inside, np.uint32(flag), np.uint32(0))
            bad = bad | inside
        rows = selected(spectra, self.only, self.skip)[:, None]
        flags = np.where(rows, flags, 0 if spectra.mask is None else spectra.mask).astype(np.uint32)
        ivar = np.where(bad & rows, 0.0, spectra.ivar)
        return spectra.with_pixels(ivar=ivar, mask=flags if flags.any() else spectra.mask)

    def to_config(self) -> dict[str, Any]:
        return config_of(self)

    def _wanted(self, observed: FloatArray, rest: FloatArray) -> list[tuple[PixelFlag, Ranges, FloatArray]]:
        wanted = [(*PRESETS[p], observed) for p in self.presets]
        wanted += [(PixelFlag.WAVELENGTH, r, v) for r, v in ((self.ranges, observed), (self.rest_ranges, rest)) if r]
        return wanted


def _inside(spectra: Spectra, ranges: Ranges, factor: FloatArray) -> NDArray[np.bool_]:
    """Which pixels lie in the (vacuum) ranges when wavelengths are multiplied by ``factor`` (n_spectra,)."""
    vacuum = air_to_vacuum(spectra.wavelength) if spectra.medium == "air" else spectra.wavelength
    if (factor == 1.0).all():
        return within(vacuum, ranges)[None].repeat(len(spectra), axis=0)
    return within(vacuum * factor[:, None], ranges)


def _grow(bad: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Pixels within ``pixels`` of a bad one, along rows."""
    if pixels == 0 or bad.shape[1] == 0:
        return bad
    count = np.cumsum(np.pad(bad, ((0, 0), (pixels + 1, pixels))).astype(np.int32), axis=1)
    near: NDArray[np.bool_] = count[:, 2 * pixels + 1 :] > count[:, : -(2 * pixels + 1)]
    return near


@dataclass(frozen=True)
class RejectSpikes:
    """Leave out cosmic-ray spikes: narrow runs of pixels far above a running median. Not part of any default.

    Parameters
    ----------
    threshold : in σ of the pixel; a spike's highest pixel exceeds the median by this.
    neighbour_threshold : in σ; the pixels of the spike on either side of it exceed the median by this.
    max_width : pixels; a run wider than that is an emission line (Hα of an active star), not a spike, and stays.
    window : pixels of the running median.

    Notes
    -----
    σ² is the pixel's variance plus the square of the robust scatter of the spectrum about its running median within
    the same spectrum, so that lines of a high S/N spectrum are not taken for spikes.
    """

    threshold: float = 8.0
    neighbour_threshold: float = 4.0
    max_width: int = 4
    window: int = 51

    name: ClassVar[str] = "reject_spikes"

    def __post_init__(self) -> None:
        if not 0 < self.neighbour_threshold <= self.threshold or self.max_width < 1 or self.window < 5:
            raise UsageError(
                "expected 0 < neighbour_threshold ≤ threshold, max_width ≥ 1 and window ≥ 5, got others; correct the settings"
            )

    def __call__(self, spectra: Spectra) -> Spectra:
        if len(spectra) == 0:
            return spectra
        good = spectra.ivar > 0
        flux = np.where(good, spectra.flux, 0.0).astype(np.float64)
        excess = np.where(good, flux - running_median(flux, good, self.window // 2), 0.0)
        scatter = 1.4826 * running_median(np.abs(excess), good, min(2000, flux.shape[1]))
        variance = np.divide(1.0, spectra.ivar, out=np.ones(good.shape), where=good) + np.nan_to_num(scatter) ** 2
        height = np.where(good, excess / np.sqrt(variance), 0.0)
        spike = _narrow_runs(height, self.neighbour_threshold, self.threshold, self.max_width)
        if not spike.any():
            return spectra
        flags = np.uint32(0) if spectra.mask is None else spectra.mask
        flags = flags | np.where(spike, np.uint32(PixelFlag.COSMIC_RAY), np.uint32(0))
        return spectra.with_pixels(ivar=np.where(spike, 0.0, spectra.ivar), mask=flags)

    def to_config(self) -> dict[str, Any]:
        return config_of(self)


def _narrow_runs(height: FloatArray, low: float, high: float, max_width: int) -> NDArray[np.bool_]:
    """Runs above ``low`` that reach ``high`` somewhere and are at most ``max_width`` long, along rows."""
    padded = np.pad(height, ((0, 0), (1, 1)), constant_values=-np.inf)
    above = padded > low
    run = np.cumsum(np.diff(above.ravel().astype(np.int8), prepend=0) == 1) * above.ravel()
    length = np.bincount(run)
    top = np.full(length.size, -np.inf)
    np.maximum.at(top, run, padded.ravel())
    chosen = (length <= max_width) & (top > high)
    chosen[0] = False
    spikes: NDArray[np.bool_] = chosen[run].reshape(padded.shape)[:, 1:-1]
    return spikes


@dataclass(frozen=True)
class FillMasked:
    """Give masked pixels a small inverse variance, as published codes do (Galgano+2020; METHODS 5, step 3).

    Only to reproduce them: the house rule is ivar = 0. It belongs at the *end* of a preparation, on normalised
    flux, where 1e-5 (σ = 316) is nothing; on raw LAMOST counts 1e-5 would be a good measurement. The flux is set to
    ``flux`` at the same time (TheCannon's test step does that too), so that what stood there has no influence.
    TheCannon's training then raises inverse variances below 0.01 to 0.01.
    """

    ivar: float = 1e-5
    flux: float = 1.0

    name: ClassVar[str] = "fill_masked"

    def __post_init__(self) -> None:
        if not self.ivar > 0 or not np.isfinite(self.flux):
            raise UsageError(f"expected a positive ivar and a finite flux, got {self.ivar} and {self.flux}; correct them")

    def __call__(self, spectra: Spectra) -> Spectra:
        bad = spectra.ivar <= 0
        return spectra.with_pixels(flux=np.where(bad, self.flux, spectra.flux), ivar=np.where(bad, self.ivar, spectra.ivar))

    def to_config(self) -> dict[str, Any]:
        return config_of(self)
