"""Convolution with an instrument's line-spread function, a Gaussian or a Voigt profile whose width may change along wavelength.

Gaussians are sampled at the pixel centres; for lines that the pixels sample properly this is exact to 1e-6. Below σ = 0.9 pixel
a sampled Gaussian is not: there, nine weights are solved for so that the moments of the Gaussian up to the eighth are exact.
Voigt profiles have no moments; where one is too narrow to be sampled, it is sampled on a finer grid, and the flux there is
interpolated with polynomials of degree 15. Where the pixels are spaced unevenly (a change of step, rounded wavelengths) a sum
over their centres is not the integral: there, profiles of either kind are integrated on such a finer grid by Gauss's rule. Always
the kernel of a pixel sums to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.constants import FWHM_PER_SIGMA
from maury.errors import UsageError
from maury.prepare import banded
from maury.prepare.arrays import real_fluxes, real_number, real_numbers
from maury.prepare.config import check_choice
from maury.prepare.grid import FloatArray, IntArray, pixel_edges
from maury.prepare.interpolation import HALF, interpolation
from maury.prepare.log_grid import pieces, pieces_within
from maury.prepare.lsf import Lsf, Table, lsf_from
from maury.prepare.profiles import voigt_profile, voigt_widths

Profile = Literal["gaussian", "voigt"]

_REACH_SIGMA = 6.0
"""Gaussians end here; 2e-9 lies beyond."""
_REACH_VOIGT_FWHM = 20.0
"""Voigt profiles end here and are renormalised (METHODS 0.2); for η = 0.6, 0.7 % lies beyond."""
_NARROW_PIXELS = 0.9
"""Below this σ (in pixels) sampled Gaussians alias (4e-5 of a line's height at twice critical sampling)."""
_NARROW_DAMPING = 4.0
"""Sampled Voigt profiles alias where they damp waves of two pixels by less than e to this (a Gaussian of σ 0.9 pixel does)."""
_FINEST = 400
"""Subdivisions of a pixel for the narrowest Voigt profiles; narrower ones change nothing by more than 1e-3 of a line's height."""
_NO_WIDTH_PIXELS = 1e-3
"""Voigt profiles narrower than this leave a pixel as it is."""
_UNEVEN = 3e-4
"""Third differences of the pixels' positions over their spacing from which on sums over pixel centres are off by 1e-5 or more."""
_GAUSS = 4
"""Points of Gauss's rule in a pixel (or in each of its parts) where the pixels are uneven."""
_LARGE_ENTRIES, _MOST_ENTRIES = 1e7, 1e8
"""Of a kernel with more numbers than the first (80 MB) only one is kept; with more than the second (0.8 GB) it is refused."""
_BLOCK = 32
"""Output pixels per dense block."""
_STENCIL_HALF = 4
"""Nine pixels for the narrow Gaussians."""


def convolve_instrument(
    wavelength: ArrayLike,
    flux: ArrayLike,
    *,
    resolving_power: float | None = None,
    fwhm: float | None = None,
    table: Table | None = None,
    profile: Profile = "gaussian",
    eta: float = 0.6,
    native_resolving_power: float | None = None,
    native_fwhm: float | None = None,
    native_table: Table | None = None,
) -> NDArray[np.float64]:
    """Plain fluxes convolved with a line-spread function: what :class:`~maury.prepare.Degrade` does to spectra.

    Parameters
    ----------
    wavelength : (n_pixels,) Å or an astropy Quantity of length, increasing; any spacing.
    flux : (n, n_pixels) or (n_pixels,).
    resolving_power, fwhm, table : the resolution wanted: R = λ/FWHM, or FWHM in Å, or rows of (wavelength, FWHM) in Å;
        exactly one.
    profile : "gaussian" or "voigt"; the FWHM is that of the whole.
    eta : Voigt only: FWHM of the Lorentzian over that of the Gaussian part.
    native_resolving_power, native_fwhm, native_table : the resolution the fluxes have (Gaussian); infinite by default.

    Returns
    -------
    The shape of ``flux``, float64. Near the ends and gaps the kernel is cut and renormalised: keep a margin of
    3 FWHM for a Gaussian, 20 for a Voigt profile, and cut it off.

    Raises
    ------
    UsageError
        If the arrays do not fit together, are not finite or masked, or the native resolution is lower than that wanted.
    """
    grid, rows = real_fluxes(wavelength, flux)
    target = lsf_of("target", resolving_power, fwhm, table)
    if target is None:
        raise UsageError("expected a target resolution, got none; give resolving_power, fwhm (Å) or table")
    check_profile(profile, eta)
    native = lsf_of("native", native_resolving_power, native_fwhm, native_table)
    sigma, lorentz = kernel_widths(grid, target, native, eta if profile == "voigt" else 0.0, 0.0)
    return instrument_kernel(grid, sigma, lorentz).matrix.apply(np.atleast_2d(rows)).reshape(rows.shape)


def lsf_of(what: str, resolving_power: Any, fwhm: Any, table: Any) -> Lsf | None:
    """As :func:`~maury.prepare.lsf.lsf_from`, of what a caller may have given: quantities become Å, text is refused.

    Raises
    ------
    UsageError
        If several are set, or a value cannot be a width.
    """
    return lsf_from(
        what,
        None if resolving_power is None else real_number(f"{what} resolving power", resolving_power, ""),
        None if fwhm is None else real_number(f"{what} FWHM", fwhm, "Angstrom"),
        None if table is None else real_numbers(f"{what} table", table),
    )


def check_profile(profile: str, eta: float) -> None:
    """Raise UsageError unless the profile is known and η = f_L/f_G is 0 or more."""
    check_choice("profile", profile, Profile)
    eta = real_number("eta", eta)
    if not (np.isfinite(eta) and eta >= 0):
        raise UsageError(f"expected eta, Lorentzian over Gaussian FWHM, of 0 or more, got {eta}; 0.6 is usual")


def kernel_widths(
    wavelength: FloatArray, target: Lsf, native: Lsf | None, eta: float, allow_sharper: float
) -> tuple[FloatArray, FloatArray]:
    """What is to be convolved with, from what is wanted and what is there.

    Parameters
    ----------
    target, native : FWHM of the whole profile wanted, and of the Gaussian there is (None: infinitely sharp).
    eta : f_L/f_G of the profile wanted; 0 is a Gaussian.
    allow_sharper : as in :class:`~maury.prepare.Degrade`.

    Returns
    -------
    σ of the Gaussian part and FWHM of the Lorentzian part, each (n_pixels,) in Å; both 0 where the spectrum stays as it is.

    Raises
    ------
    UsageError
        If the native Gaussian is broader than the Gaussian part of the target: nothing is ever deconvolved.
    """
    whole = target.fwhm_at(wavelength)
    wanted, lorentz = voigt_widths(whole, eta)
    has = np.zeros(wavelength.size) if native is None else native.fwhm_at(wavelength)
    sharper = wanted < has * (1 - allow_sharper) * (1 - 1e-9)
    if sharper.any():
        at = int(np.argmax(np.where(sharper, has / wanted, 0.0)))
        part = "" if eta == 0 else f" in the Gaussian part of a Voigt profile of {whole[at]:.3f} Å"
        raise UsageError(
            f"expected a target resolution lower than the spectrum's, got FWHM {wanted[at]:.3f} Å from {has[at]:.3f} Å at "
            f"{wavelength[at]:.1f} Å{part}; lower the target, crop, or set allow_sharper to {1 - wanted[at] / has[at] + 5e-4:.3f}"
        )
    return np.sqrt(np.maximum(wanted**2 - has**2, 0.0)) / FWHM_PER_SIGMA, lorentz


@dataclass(frozen=True, eq=False)
class Kernel:
    """A convolution for one grid and one width along it."""

    matrix: banded.Banded
    coverage: FloatArray
    """(n_pixels,) the part of each kernel that falls inside the data."""

    @cached_property
    def positive(self) -> banded.Banded:
        """Its entries without the negative ones that narrow kernels have, summing to 1 again: what variances are averaged by."""
        if all((block.weights >= 0).all() for block in self.matrix.blocks):
            return self.matrix
        blocks = []
        for block in self.matrix.blocks:
            weights = np.maximum(block.weights, 0.0)
            blocks.append(banded.Block(block.low, block.high, block.out_low, block.out_high, weights / weights.sum(axis=0)))
        return banded.Banded(self.matrix.shape, tuple(blocks))

    @cached_property
    def squared(self) -> banded.Banded:
        """Its entries squared, which carries the variance of single pixels."""
        return self.matrix.squared()


def instrument_kernel(wavelength: FloatArray, sigma: FloatArray, lorentz: FloatArray) -> Kernel:
    """The kernel of a grid and of widths along it in Å; kept, because a survey has few grids and one line-spread function.

    Raises
    ------
    UsageError
        If the kernel holds too many pixels to be stored: on pixels that fine, the spectrum should be resampled first.
    """
    reach = _REACH_VOIGT_FWHM * _whole(sigma, lorentz) if lorentz.any() else _REACH_SIGMA * sigma
    width = pixel_edges(wavelength).width
    entries = float(np.sum(np.minimum(2 * reach / width, wavelength.size)))
    if entries > _MOST_ENTRIES:
        raise UsageError(
            f"expected a kernel of at most {_MOST_ENTRIES / wavelength.size:.0f} pixels of {np.median(width):.3g} Å for "
            f"{wavelength.size} pixels, got {entries / wavelength.size:.0f}; resample to coarser pixels or crop first"
        )
    make = _kernel if entries + 2 * _BLOCK * wavelength.size < _LARGE_ENTRIES else _large_kernel
    return make(np.ascontiguousarray(wavelength).tobytes(), sigma.tobytes(), lorentz.tobytes())


def _new_kernel(wavelength: bytes, sigma: bytes, lorentz: bytes) -> Kernel:
    make = _voigt_kernel if np.frombuffer(lorentz).any() else _gaussian_kernel
    return make(np.frombuffer(wavelength), np.frombuffer(sigma), np.frombuffer(lorentz))


_kernel = lru_cache(maxsize=16)(_new_kernel)
_large_kernel = lru_cache(maxsize=1)(_new_kernel)


def _whole(sigma: FloatArray, lorentz: FloatArray) -> FloatArray:
    """FWHM of a Voigt profile from σ of its Gaussian and FWHM of its Lorentzian part (METHODS 0.2)."""
    fwhm: FloatArray = 0.5346 * lorentz + np.sqrt(0.2166 * lorentz**2 + (FWHM_PER_SIGMA * sigma) ** 2)
    return fwhm


class _Sampling:
    """Where the profiles of a block are sampled: at the pixel centres, or on finer points where the pixels are uneven."""

    def __init__(self, wavelength: FloatArray) -> None:
        grid = pixel_edges(wavelength)
        self.wavelength, self.width, self.low_edge = wavelength, grid.width, grid.edges[grid.bin_of_pixel]
        self.first = pieces(wavelength)
        third = np.abs(np.diff(wavelength, n=3)) if wavelength.size > 3 else np.zeros(0)
        self.uneven = np.zeros(wavelength.size, bool)
        self.uneven[1 : 1 + third.size] = third > _UNEVEN * self.width[1 : 1 + third.size]
        self.uneven[2 : 2 + third.size] |= self.uneven[1 : 1 + third.size].copy()

    def reach(self, reach: FloatArray, finer: bool) -> FloatArray:
        """How far a block must see so that what its profiles reach can be interpolated."""
        if not finer and not self.uneven.any():
            return reach
        return np.maximum(reach, 1.5 * (HALF + 1) * np.maximum(self.width, np.gradient(self.wavelength)))

    def entries(self, profile: Callable[[FloatArray], FloatArray], rows: slice, parts: int) -> tuple[FloatArray, FloatArray]:
        """Entries (pixels, outputs) for the input pixels ``rows``, each in so many parts, and their sums before interpolation.

        ``profile`` gives the densities (points, outputs) at the wavelengths of points.
        """
        if self.uneven[rows].any():
            nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
        elif parts > 1:
            nodes, weights = np.zeros(1), np.full(1, 2.0)
        else:
            at_centres = profile(self.wavelength[rows]) * self.width[rows, None]
            return at_centres, at_centres.sum(axis=0)
        place = (np.arange(parts)[:, None] + 0.5 + 0.5 * nodes).ravel() / parts
        points = (self.low_edge[rows, None] + place * self.width[rows, None]).ravel()
        share = np.tile(0.5 * weights / parts, parts) * self.width[rows, None]
        fine = profile(points) * share.reshape(-1, 1)
        gather = interpolation(self.wavelength[rows], points, pieces_within(self.first, rows)).gather
        return gather(fine), fine.sum(axis=0)


def _gaussian_kernel(wavelength: FloatArray, sigma: FloatArray, lorentz: FloatArray) -> Kernel:
    """Sampled, and by its moments where it is narrow."""
    sampling = _Sampling(wavelength)
    narrow = sigma < _NARROW_PIXELS * sampling.width
    stencils = _moment_stencils(wavelength, sigma, sampling.first, np.flatnonzero(narrow))
    offset = np.arange(-_STENCIL_HALF, _STENCIL_HALF + 1)
    spacing = np.maximum(sampling.width, np.gradient(wavelength))
    reach = np.where(narrow, 1.5 * (_STENCIL_HALF + 1) * spacing, _REACH_SIGMA * sigma)

    def weights(rows: slice, columns: slice) -> FloatArray:
        s = np.where(narrow[columns], 1.0, sigma[columns])

        def profile(points: FloatArray) -> FloatArray:
            distance = points[:, None] - wavelength[columns]
            return np.where(np.abs(distance) > _REACH_SIGMA * s, 0.0, np.exp(-0.5 * (distance / s) ** 2))

        entries, _ = sampling.entries(profile, rows, 1)
        column = np.flatnonzero(narrow[columns])[:, None]
        index = column + columns.start + offset - rows.start
        entries[:, column[:, 0]] = 0.0
        inside = (index >= 0) & (index < entries.shape[0])
        entries[index[inside], np.broadcast_to(column, index.shape)[inside]] = stencils[column[:, 0] + columns.start][inside]
        entries /= entries.sum(axis=0)
        return entries

    matrix = banded.build(wavelength, wavelength, sampling.reach(reach, False), weights, block=_BLOCK)
    return Kernel(matrix, _coverage(wavelength, sigma))


def _voigt_kernel(wavelength: FloatArray, sigma: FloatArray, lorentz: FloatArray) -> Kernel:
    """Sampled, on a finer grid where it is narrow; cut at 20 FWHM and renormalised."""
    sampling = _Sampling(wavelength)
    width = sampling.width
    fwhm = _whole(sigma, lorentz)
    damping = 0.5 * (np.pi * sigma / width) ** 2 + 0.5 * np.pi * lorentz / width
    finer = np.clip(np.ceil(np.minimum(_NARROW_DAMPING / np.maximum(damping, 1e-9), _FINEST)), 1, _FINEST).astype(np.int64)
    no_width = fwhm < _NO_WIDTH_PIXELS * width
    reach = _REACH_VOIGT_FWHM * fwhm
    coverage = np.zeros(wavelength.size)

    def weights(rows: slice, columns: slice) -> FloatArray:
        def profile(points: FloatArray) -> FloatArray:
            distance = points[:, None] - wavelength[columns]
            values = voigt_profile(distance, sigma[columns], lorentz[columns])
            return np.where(np.abs(distance) > reach[columns], 0.0, values)

        entries, coverage[columns] = sampling.entries(profile, rows, int(finer[columns].max()))
        left = np.flatnonzero(no_width[columns])
        entries[:, left] = 0.0
        entries[left + columns.start - rows.start, left] = 1.0
        coverage[left + columns.start] = 1.0
        entries /= entries.sum(axis=0)
        return entries

    matrix = banded.build(wavelength, wavelength, sampling.reach(reach, True), weights, block=_BLOCK)
    share = coverage / (1 - 2 * _beyond_twenty(sigma, lorentz, fwhm))
    return Kernel(matrix, np.minimum(share, 1.0))


def _beyond_twenty(sigma: FloatArray, lorentz: FloatArray, fwhm: FloatArray) -> FloatArray:
    """What lies beyond +20 FWHM: the wing f_L/(2π d²) (1 + 3 σ²/d² ...) integrated; the Gaussian has nothing there."""
    d = _REACH_VOIGT_FWHM * fwhm
    wing: FloatArray = lorentz / (2 * np.pi * d) * (1 + sigma**2 / d**2 - (0.5 * lorentz) ** 2 / (3 * d**2))
    return wing


def _moment_stencils(wavelength: FloatArray, sigma: FloatArray, first: IntArray, wanted: IntArray) -> FloatArray:
    """Weights on the nearest pixels whose moments are those of a Gaussian, (n_pixels, 9), filled for the wanted pixels.

    Near the ends of contiguous pieces (which begin with the pixels ``first``) the stencil shrinks symmetrically (2h + 1 pixels,
    moments up to 2h), so that it never extrapolates, nor reaches over a gap.
    """
    n, half = wavelength.size, _STENCIL_HALF
    out = np.zeros((n, 2 * half + 1))
    unit = np.gradient(wavelength)
    piece = np.searchsorted(first, wanted, side="right") - 1
    h_of = np.minimum(np.minimum(wanted - first[piece], np.append(first[1:], n)[piece] - 1 - wanted), half)
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
    first = pieces(wavelength)
    last = np.append(first[1:], wavelength.size) - 1
    s = np.maximum(sigma, 1e-6 * grid.width)
    total = np.zeros(wavelength.size)
    far = 9 * float(s.max())
    for a, b in zip(grid.edges[grid.bin_of_pixel[first]], grid.edges[grid.bin_of_pixel[last] + 1], strict=True):
        near = slice(*np.searchsorted(wavelength, [a - far, b + far]))
        total[near] += ndtr((b - wavelength[near]) / s[near]) - ndtr((a - wavelength[near]) / s[near])
    return total
