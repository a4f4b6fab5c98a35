"""Degradation to a lower resolution by a Gaussian or Voigt profile that may change along wavelength.

The kernel of a pixel is a Gaussian of σ² = σ_target² − σ_native² (METHODS 0.2: FWHM = λ/R = 2.35482 σ), or, for a Voigt target,
that with σ_target of its Gaussian part, convolved with its Lorentzian part. :mod:`maury.prepare.instrument` says how kernels are
sampled.

Errors: as in :mod:`maury.prepare.resample`, ``variance = "information"`` (default) leaves the noise power per Å as it is,
because smoothing adds no information about anything broader than the kernel and a fit that treats pixels as independent
must not believe otherwise; ``"marginal"`` is the exact variance of a single pixel, Σ K² σ² / (Σ K)², smaller by up to the
number of pixels in the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from maury.errors import UsageError
from maury.flags import PixelFlag
from maury.prepare.arrays import real_number
from maury.prepare.config import VarianceRule, check_choice, config_of
from maury.prepare.grid import FloatArray, meta_floats, with_meta
from maury.prepare.instrument import Kernel, Profile, check_profile, instrument_kernel, kernel_widths, lsf_of
from maury.prepare.lsf import Lsf, Table, lsf_from, lsf_from_mapping
from maury.spectra import Spectra, source_names

_ROWS_AT_ONCE = 32
"""Rows per block: small enough to stay in the cache."""


@dataclass(frozen=True)
class Degrade:
    """Convolve to a target resolution.

    Parameters
    ----------
    resolving_power, fwhm, table : the target: R = λ/FWHM constant, or FWHM in Å constant, or rows of (wavelength, FWHM)
        in Å, interpolated linearly. Exactly one. For a Voigt profile the FWHM is that of the whole, f_V.
    profile : of the target: "gaussian" or "voigt". Native profiles are Gaussian.
    eta : Voigt only: FWHM of the Lorentzian part over that of the Gaussian part, 0.6 by default (METHODS 0.2: a choice).
    native_resolving_power, native_fwhm, native_table : what the spectra have; at most one. Where none is given,
        ``native`` is asked for the spectrum's format and instrument, then its meta columns ``resolving_power`` and ``fwhm``.
    native : per file format or instrument (meta ``format``, ``instrument``), e.g. ``{"lamost": {"resolving_power": 1800.0}}``;
        wins over meta.
    allow_sharper : by which part of itself the native FWHM may exceed the target's (0.05 is five per cent); such
        pixels stay as they are. Beyond it the spectrum is refused: nothing is ever deconvolved.
    min_good : the part of the kernel that must fall on good pixels.
    edge_tolerance : the part of the kernel that may fall beyond the data (ends, gaps) before a pixel is given up.
    variance : "information" or "marginal"; see the module.

    Notes
    -----
    Wavelengths are those of the spectra as they come; a velocity of 300 km/s changes a native width by 0.1 %.
    The meta columns are updated to the target (NaN for a table). Pixel integration is part of the native width.
    """

    resolving_power: float | None = None
    fwhm: float | None = None
    table: Table | None = None
    profile: Profile = "gaussian"
    eta: float = 0.6
    native_resolving_power: float | None = None
    native_fwhm: float | None = None
    native_table: Table | None = None
    native: dict[str, dict[str, Any]] = field(default_factory=dict)
    allow_sharper: float = 0.0
    min_good: float = 0.5
    edge_tolerance: float = 0.02
    variance: VarianceRule = "information"

    name: ClassVar[str] = "degrade"

    def __post_init__(self) -> None:
        check_choice("variance", self.variance, VarianceRule)
        check_profile(self.profile, self.eta)
        if lsf_of("target", self.resolving_power, self.fwhm, self.table) is None:
            raise UsageError("expected a target resolution, got none; give resolving_power, fwhm (Å) or table")
        lsf_of("native", self.native_resolving_power, self.native_fwhm, self.native_table)
        for instrument, options in self.native.items():
            if not isinstance(options, Mapping):
                raise UsageError(f"expected native {instrument} as a table such as {{resolving_power = 1800.0}}, got {options!r}")
            lsf_from_mapping(f"native {instrument}", options)
        for name in ("allow_sharper", "min_good", "edge_tolerance"):
            real_number(name, getattr(self, name))
        if not self.allow_sharper >= 0 or not 0 < self.min_good <= 1 or not 0 <= self.edge_tolerance < 1:
            raise UsageError(
                "expected allow_sharper ≥ 0, min_good in (0, 1] and edge_tolerance in [0, 1), got others; correct them"
            )

    def __call__(self, spectra: Spectra) -> Spectra:
        target = lsf_from("target", self.resolving_power, self.fwhm, self.table)
        assert target is not None
        natives = self._natives(spectra)
        flux, ivar = np.empty(spectra.flux.shape), np.empty(spectra.flux.shape)
        beyond = np.zeros(spectra.flux.shape, bool)
        for native in dict.fromkeys(natives):
            eta = self.eta if self.profile == "voigt" else 0.0
            kernel = instrument_kernel(
                spectra.wavelength, *kernel_widths(spectra.wavelength, target, native, eta, self.allow_sharper)
            )
            lost = kernel.coverage < 1 - self.edge_tolerance
            rows = np.array([i for i, n in enumerate(natives) if n == native])
            beyond[rows] = lost
            for some in np.array_split(rows, -(-rows.size // _ROWS_AT_ONCE)):
                usable = np.where(lost, 0.0, 1.0)
                f, w = _convolve(spectra.flux[some], spectra.ivar[some], kernel, self.min_good, self.variance)
                flux[some], ivar[some] = f * usable, w * usable
        mask = spectra.mask
        if beyond.any():
            mask = (np.uint32(0) if mask is None else mask) | np.where(beyond, np.uint32(PixelFlag.WAVELENGTH), np.uint32(0))
        n, nan = len(spectra), np.nan
        meta = {"resolving_power": np.full(n, self.resolving_power or nan), "fwhm": np.full(n, self.fwhm or nan)}
        return with_meta(spectra.with_pixels(flux=flux, ivar=ivar, mask=mask), meta)

    def to_config(self) -> dict[str, Any]:
        return config_of(self)

    def _natives(self, spectra: Spectra) -> list[Lsf]:
        """The native line-spread function of every row."""
        explicit = lsf_from("native", self.native_resolving_power, self.native_fwhm, self.native_table)
        if explicit is not None:
            return [explicit] * len(spectra)
        power, width = meta_floats(spectra, "resolving_power"), meta_floats(spectra, "fwhm")
        return [self._native_of(*row) for row in zip(spectra.ids, source_names(spectra), power, width, strict=True)]

    def _native_of(self, name: str, sources: set[str], power: float, width: float) -> Lsf:
        known = next((name for name in self.native if name in sources), None)
        if known is not None:
            return lsf_from_mapping(f"native {known}", self.native[known])
        if np.isfinite(power) and power > 0:
            return Lsf(resolving_power=float(power))
        if np.isfinite(width) and width > 0:
            return Lsf(fwhm=float(width))
        raise UsageError(
            f"expected the native resolution of {name} ({', '.join(sorted(sources)) or 'unknown instrument'}), got none in its "
            "meta; give native_resolving_power, native_fwhm, or native for its format"
        )


def _convolve(
    flux: FloatArray, ivar: FloatArray, kernel: Kernel, min_good: float, variance: str
) -> tuple[FloatArray, FloatArray]:
    """Convolve the good pixels only and renormalise by the kernel that fell on them."""
    good = ivar > 1e-280  # anything smaller has no finite variance
    spread = kernel.positive if variance == "information" else kernel.squared
    if good.all():  # the kernels' sums are 1
        return kernel.matrix.apply(flux), 1.0 / spread.apply(1.0 / ivar)
    share = kernel.matrix.apply(good.astype(np.float64))
    total = kernel.matrix.apply(np.where(good, flux, 0.0))
    power = spread.apply(np.divide(1.0, ivar, out=np.zeros(ivar.shape), where=good))
    usable = (share >= min_good) & (power > 0)
    out_flux = np.divide(total, share, out=np.zeros(flux.shape), where=usable)
    out_ivar = np.divide(share**2, power, out=np.zeros(flux.shape), where=usable)
    return out_flux, out_ivar
