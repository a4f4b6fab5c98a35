"""Degradation to a lower resolution by a Gaussian that may change along wavelength.

The kernel of a pixel is a Gaussian of σ² = σ_target² − σ_native² (METHODS 0.2: FWHM = λ/R = 2.35482 σ), sampled at
the pixel centres; for lines that the pixels sample properly this is exact to 1e-6. Below 0.9 pixel a sampled Gaussian is not:
there, nine weights are solved for so that the moments of the Gaussian up to the eighth are exact, on any grid.

Errors: as in :mod:`maury.prepare.resample`, ``variance = "information"`` (default) leaves the noise power per Å as it is,
because smoothing adds no information about anything broader than the kernel and a fit that treats pixels as independent
must not believe otherwise; ``"marginal"`` is the exact variance of a single pixel, Σ K² σ² / (Σ K)², smaller by up to the
number of pixels in the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from maury.constants import FWHM_PER_SIGMA
from maury.errors import UsageError
from maury.flags import PixelFlag
from maury.prepare import banded
from maury.prepare.config import VarianceRule, check_choice, config_of
from maury.prepare.grid import FloatArray, IntArray, meta_floats, pixel_edges, with_meta
from maury.prepare.lsf import Lsf, Table, lsf_from, lsf_from_mapping
from maury.spectra import Spectra, source_names

_REACH_SIGMA = 6.0
"""Kernels end here; a Gaussian holds 2e-9 beyond."""
_NARROW_PIXELS = 0.9
"""Below this σ (in pixels) sampled Gaussians alias (4e-5 of a line's height at twice critical sampling)."""
_ROWS_AT_ONCE = 32
"""Rows per block: small enough to stay in the cache."""
_STENCIL_HALF = 4
"""Nine pixels for the narrow kernels."""


@dataclass(frozen=True)
class Degrade:
    """Convolve to a target resolution.

    Parameters
    ----------
    resolving_power, fwhm, table : the target: R = λ/FWHM constant, or FWHM in Å constant, or rows of (wavelength, FWHM)
        in Å, interpolated linearly. Exactly one.
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
        if lsf_from("target", self.resolving_power, self.fwhm, self.table) is None:
            raise UsageError("expected a target resolution, got none; give resolving_power, fwhm (Å) or table")
        lsf_from("native", self.native_resolving_power, self.native_fwhm, self.native_table)
        for instrument, options in self.native.items():
            lsf_from_mapping(f"native {instrument}", options)
        if self.allow_sharper < 0 or not 0 < self.min_good <= 1 or not 0 <= self.edge_tolerance < 1:
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
            sigma = _kernel_sigma(spectra.wavelength, target, native, self.allow_sharper)
            kernel = _kernel(spectra.wavelength.tobytes(), sigma.tobytes())
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


class Kernel(NamedTuple):
    """A convolution for one grid and one width along it."""

    matrix: banded.Banded
    squared: banded.Banded
    """Its entries squared, which carries the variance of single pixels."""
    coverage: FloatArray
    """(n_pixels,) the part of each kernel that falls inside the data."""


def _kernel_sigma(wavelength: FloatArray, target: Lsf, native: Lsf, allow_sharper: float) -> FloatArray:
    """(n_pixels,) σ of the kernel in Å; 0 where the native width is at the target already."""
    wanted, has = target.fwhm_at(wavelength), native.fwhm_at(wavelength)
    sharper = wanted < has * (1 - allow_sharper) * (1 - 1e-9)
    if sharper.any():
        at = int(np.argmax(np.where(sharper, has / wanted, 0.0)))
        raise UsageError(
            f"expected a target resolution lower than the spectrum's, got FWHM {wanted[at]:.3f} Å from {has[at]:.3f} Å at "
            f"{wavelength[at]:.1f} Å; lower the target, crop, or set allow_sharper to {1 - wanted[at] / has[at] + 5e-4:.3f}"
        )
    sigma: FloatArray = np.sqrt(np.maximum(wanted**2 - has**2, 0.0)) / FWHM_PER_SIGMA
    return sigma


def _convolve(
    flux: FloatArray, ivar: FloatArray, kernel: Kernel, min_good: float, variance: str
) -> tuple[FloatArray, FloatArray]:
    """Convolve the good pixels only and renormalise by the kernel that fell on them."""
    good = ivar > 1e-280  # anything smaller has no finite variance
    spread = kernel.matrix if variance == "information" else kernel.squared
    if good.all():  # the kernels' sums are 1
        return kernel.matrix.apply(flux), 1.0 / spread.apply(1.0 / ivar)
    share = kernel.matrix.apply(good.astype(np.float64))
    total = kernel.matrix.apply(np.where(good, flux, 0.0))
    power = spread.apply(np.divide(1.0, ivar, out=np.zeros(ivar.shape), where=good))
    usable = (share >= min_good) & (power > 0)
    out_flux = np.divide(total, share, out=np.zeros(flux.shape), where=usable)
    out_ivar = np.divide(share**2, power, out=np.zeros(flux.shape), where=usable)
    return out_flux, out_ivar


@lru_cache(maxsize=64)
def _kernel(wavelength_bytes: bytes, sigma_bytes: bytes) -> Kernel:
    """The kernel of a grid and a width along it (cached: a survey has few grids and one line-spread function)."""
    wavelength, sigma = np.frombuffer(wavelength_bytes), np.frombuffer(sigma_bytes)
    width = pixel_edges(wavelength).width
    narrow = sigma < _NARROW_PIXELS * width
    stencils = _moment_stencils(wavelength, sigma, np.flatnonzero(narrow))
    offset = np.arange(-_STENCIL_HALF, _STENCIL_HALF + 1)
    spacing = np.maximum(width, np.gradient(wavelength))  # a stencil also reaches over gaps
    reach = np.where(narrow, 1.5 * (_STENCIL_HALF + 1) * spacing, _REACH_SIGMA * sigma)

    def weights(rows: slice, columns: slice) -> FloatArray:
        s = np.where(narrow[columns], 1.0, sigma[columns])
        entries: FloatArray = np.exp(-0.5 * ((wavelength[rows, None] - wavelength[columns]) / s) ** 2) * width[rows, None]
        entries[np.abs(wavelength[rows, None] - wavelength[columns]) > _REACH_SIGMA * s] = 0.0
        column = np.flatnonzero(narrow[columns])[:, None]
        index = column + columns.start + offset - rows.start
        entries[:, column[:, 0]] = 0.0
        inside = (index >= 0) & (index < entries.shape[0])
        entries[index[inside], np.broadcast_to(column, index.shape)[inside]] = stencils[column[:, 0] + columns.start][inside]
        entries /= entries.sum(axis=0)
        return entries

    matrix = banded.build(wavelength, wavelength, reach, weights, block=32)
    return Kernel(matrix, matrix.squared(), _coverage(wavelength, sigma))


def _moment_stencils(wavelength: FloatArray, sigma: FloatArray, wanted: IntArray) -> FloatArray:
    """Weights on the nearest pixels whose moments are those of a Gaussian, (n_pixels, 9), filled for the wanted pixels.

    Near the ends the stencil shrinks symmetrically (2h + 1 pixels, moments up to 2h), so that it never extrapolates.
    """
    n, half = wavelength.size, _STENCIL_HALF
    out = np.zeros((n, 2 * half + 1))
    unit = np.gradient(wavelength)
    h_of = np.minimum(np.minimum(wanted, n - 1 - wanted), half)
    for h in range(half + 1):
        pixels = wanted[h_of == h]
        index = pixels[:, None] + np.arange(-h, h + 1)
        x = (wavelength[index] - wavelength[pixels, None]) / unit[pixels, None]
        order = np.arange(2 * h + 1)
        s = sigma[pixels] / unit[pixels]
        moment = np.zeros((pixels.size, order.size))
        moment[:, 0::2] = s[:, None] ** order[0::2] * np.cumprod(np.concatenate([[1], np.arange(1, 2 * h, 2)]))
        vandermonde = np.swapaxes(x[:, :, None] ** order, 1, 2)
        out[pixels[:, None], half + np.arange(-h, h + 1)] = np.linalg.solve(vandermonde, moment[:, :, None])[:, :, 0]
    return out


def _coverage(wavelength: FloatArray, sigma: FloatArray) -> FloatArray:
    """The part of each pixel's Gaussian that lies within the data, gaps left out."""
    from scipy.special import ndtr

    grid = pixel_edges(wavelength)
    breaks = np.flatnonzero(np.diff(grid.bin_of_pixel) > 1)  # contiguous pieces end after these pixels
    first = np.concatenate([[0], breaks + 1])
    last = np.concatenate([breaks, [wavelength.size - 1]])
    s = np.maximum(sigma, 1e-6 * grid.width)
    total = np.zeros(wavelength.size)
    for a, b in zip(grid.edges[grid.bin_of_pixel[first]], grid.edges[grid.bin_of_pixel[last] + 1], strict=True):
        total += ndtr((b - wavelength) / s) - ndtr((a - wavelength) / s)
    return total
