"""A small closed-form generator of spectra: known truth for tests and for ``maury demo``. **Not physics.**

It looks like a star and behaves like a smooth function of its labels, which is all that tests of preparation, training and
fitting need; no number in it means anything for a real star. A spectrum is

    f(λ) = B(λ, Teff)/B(5500 Å, Teff) · [1 - Σ_i d_i G(λ; λ_i, w_i, σ_i) - Σ_j b_j E(λ; λ_j, l_j, σ_j)]

* G: Gaussian lines at seeded wavelengths, of intrinsic width w, widened by the instrument to sqrt(w² + σ²) at constant area;
  four wide ones at the Balmer wavelengths.
* E: bands like those of TiO, a sharp head and an exponential tail of length l to the red, convolved with the instrument.
* σ = λ_i/(2.3548 R): Gaussian broadening of resolving power R, taken at the line. The sum is linear, so broadening is exact:
  a spectrum of R = 5000 convolved to 1800 is the spectrum of R = 1800 (up to the slope of continuum and σ over one line).
* d = t/(1 + t), ln t = linear in the labels: weak lines grow, strong ones saturate.

Teff enters as theta = 5040 K/Teff; every other label through (value - centre)/width with fixed centres and widths, so that the
same line has the same depth whatever subset of labels a generator is built for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError

if TYPE_CHECKING:
    from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

CENTRES_AND_WIDTHS: dict[str, tuple[float, float]] = {
    "teff": (0.95, 0.20),  # of theta = 5040/Teff
    "logg": (3.5, 1.0),
    "fe_h": (-0.3, 0.4),
    "m_h": (-0.3, 0.4),
    "alpha_m": (0.1, 0.15),
    "radius": (0.4, 0.15),
    "mass": (0.4, 0.15),
    "luminosity": (0.03, 0.03),
}
"""The labels a generator may have, in label units (Teff excepted), and what makes a change of one of them 'one'."""

BALMER_LINES = (4102.89, 4341.68, 4862.68, 6564.61)  # Å, vacuum
BAND_HEADS = (4762.0, 4956.0, 5168.0, 5449.0, 5760.0, 5849.0, 6160.0, 6653.0, 7055.0, 7591.0, 8434.0)  # Å, near those of TiO
_BAND_LENGTH = 110.0  # Å
_FWHM_PER_SIGMA = 2.354820045030949
_NEUTRAL_THETA = 1.40  # bands reach half their strength at 3600 K
_HC_PER_K = 1.438776877e8  # Å K


@dataclass(frozen=True)
class AnalyticSpectra:
    """Spectra in closed form as a function of labels.

    Parameters
    ----------
    labels : names among :data:`CENTRES_AND_WIDTHS`; ``teff`` must be one of them.
    resolving_power : R of the Gaussian instrument, constant along λ.
    n_lines : number of seeded lines between ``start`` and ``stop`` (Å).
    seed : of the lines' wavelengths, strengths and sensitivities.

    Examples
    --------
    >>> import numpy as np
    >>> from maury.grids import AnalyticSpectra
    >>> star = AnalyticSpectra(("teff", "logg", "fe_h"))
    >>> star.flux(np.linspace(5000.0, 5100.0, 101), [[5777.0, 4.44, 0.0]]).shape
    (1, 101)
    """

    labels: tuple[str, ...]
    resolving_power: float = 1800.0
    n_lines: int = 400
    seed: int = 1866  # the year of Antonia Maury's birth
    start: float = 3600.0
    stop: float = 9200.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.labels if name not in CENTRES_AND_WIDTHS]
        if unknown or "teff" not in self.labels or len(set(self.labels)) != len(self.labels):
            raise UsageError(
                f"expected different labels among {', '.join(CENTRES_AND_WIDTHS)} with teff, got {', '.join(self.labels)}; "
                "correct the names"
            )
        if not (self.resolving_power > 0 and self.n_lines >= 1 and 0 < self.start < self.stop):
            raise UsageError(
                "expected a positive resolving power, at least one line and 0 < start < stop, got others; correct them"
            )

    def flux(self, wavelength: ArrayLike, values: ArrayLike, velocity: ArrayLike | None = None) -> FloatArray:
        """Flux per Å, 1 at 5500 Å of the line-free continuum.

        Parameters
        ----------
        wavelength : (n_pixels,) Å; rest frame, or observed if ``velocity`` is given.
        values : (n, K) labels in label units, in the order of ``labels``.
        velocity : (n,) km/s, receding positive; each star's lines are then shifted (cubic interpolation, good to 1e-5).

        Returns
        -------
        (n, n_pixels).
        """
        grid, table = np.asarray(wavelength, dtype=float), self._checked(values)
        if velocity is None:
            return self.continuum(grid, table) * self.normalised(grid, table)
        from scipy.interpolate import CubicSpline

        factor = 1.0 + np.broadcast_to(np.asarray(velocity, dtype=float), (len(table),)) / SPEED_OF_LIGHT_KM_S
        low, high = grid.min() / factor.max() - 1.0, grid.max() / factor.min() + 1.0
        # eight points per instrumental FWHM: the spline's error is then below 1e-5 of a line's depth
        step = 0.125 * low / max(self.resolving_power, 1000.0)
        fine = np.arange(low, high + step, step)
        rest = self.continuum(fine, table) * self.normalised(fine, table)
        return np.array([CubicSpline(fine, row)(grid / f) for row, f in zip(rest, factor, strict=True)])

    def normalised(self, wavelength: ArrayLike, values: ArrayLike) -> FloatArray:
        """(n, n_pixels) flux over continuum; see :meth:`flux`."""
        grid, table = np.asarray(wavelength, dtype=float), self._checked(values)
        absorbed = self._depths(table) @ self._line_profiles(grid) + self._band_depths(table) @ self._band_profiles(grid)
        return np.asarray(1.0 - absorbed)

    def continuum(self, wavelength: ArrayLike, values: ArrayLike) -> FloatArray:
        """(n, n_pixels) black body of Teff, 1 at 5500 Å."""
        grid, table = np.asarray(wavelength, dtype=float), self._checked(values)
        teff = table[:, [self.labels.index("teff")]]
        return np.asarray((5500.0 / grid) ** 5 * np.expm1(_HC_PER_K / (5500.0 * teff)) / np.expm1(_HC_PER_K / (grid * teff)))

    def spectra(self, wavelength: ArrayLike, values: ArrayLike, *, snr: ArrayLike, seed: int) -> Spectra:
        """Noisy normalised spectra in vacuum and the rest frame, their noise Gaussian and of exactly the error they state.

        Parameters
        ----------
        wavelength, values : as for :meth:`flux`.
        snr : one or (n,) signal-to-noise ratios per pixel at normalised flux 1; the error is the same for all pixels of a star.
        seed : of the noise.
        """
        from maury.spectra import Spectra, empty_meta

        grid, clean = np.asarray(wavelength, dtype=float), self.normalised(wavelength, values)
        ratio = np.broadcast_to(np.asarray(snr, dtype=float), (len(clean),))
        sigma = 1.0 / ratio[:, None]
        noisy = clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)
        meta = empty_meta(len(clean))
        meta["snr"], meta["rv"], meta["resolving_power"] = ratio, 0.0, self.resolving_power
        ivar = np.broadcast_to(1.0 / sigma**2, clean.shape)
        return Spectra.from_arrays(grid, noisy, ivar=ivar, medium="vacuum", frame="rest", meta=meta)

    # -- lines ------------------------------------------------------------------------------------------------------

    @cached_property
    def _lines(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Wavelengths (m,), intrinsic sigma (m,) and (m, 1 + K) strength and slopes of ln t; the Balmer lines come last.

        Slopes are drawn for every label there is, so a line does not depend on which of them a generator has.
        """
        random = np.random.default_rng(self.seed)
        position = np.sort(random.uniform(self.start, self.stop, self.n_lines))
        width = random.uniform(0.4, 0.9, self.n_lines)
        strength = random.normal(-0.9, 0.9, self.n_lines)
        slopes = dict(zip(CENTRES_AND_WIDTHS, random.normal(0.0, 0.25, (len(CENTRES_AND_WIDTHS), self.n_lines)), strict=True))
        slopes["teff"] = slopes["teff"] + 0.25  # most lines grow towards cooler stars
        for name in ("fe_h", "m_h"):
            slopes[name] = np.abs(slopes[name]) + 0.25  # and all with metals
        table = np.column_stack([strength, *(slopes[name] for name in self.labels)])
        balmer = np.zeros((len(BALMER_LINES), table.shape[1]))
        balmer[:, 0] = -1.2
        balmer[:, 1 + self.labels.index("teff")] = -1.6
        return np.r_[position, BALMER_LINES], np.r_[width, np.full(len(BALMER_LINES), 5.0)], np.vstack([table, balmer])

    def _depths(self, table: FloatArray) -> FloatArray:
        """(n, m) intrinsic central depths, between 0 and 0.8."""
        t = np.exp(np.clip(np.column_stack([np.ones(len(table)), self._coordinates(table)]) @ self._lines[2].T, -30.0, 30.0))
        return np.asarray(0.8 * t / (1.0 + t))

    def _line_profiles(self, grid: FloatArray) -> FloatArray:
        """(m, n_pixels) profiles whose area is that of a Gaussian of depth 1 and the intrinsic width."""
        position, width, _ = self._lines
        total = np.hypot(width, self._sigma(position))[:, None]
        return np.asarray(width[:, None] / total * np.exp(-0.5 * ((grid - position[:, None]) / total) ** 2))

    # -- bands ------------------------------------------------------------------------------------------------------

    def _band_depths(self, table: FloatArray) -> FloatArray:
        """(n, n_bands): up to 0.5 for the coolest stars (less where other labels say so)."""
        theta = 5040.0 / table[:, self.labels.index("teff")]
        strength = 0.5 / (1.0 + np.exp(-(theta - _NEUTRAL_THETA) / 0.15))
        random = np.random.default_rng(self.seed + 1)
        drawn = dict(zip(CENTRES_AND_WIDTHS, random.normal(0.0, 0.12, (len(CENTRES_AND_WIDTHS), len(BAND_HEADS))), strict=True))
        others = [k for k, name in enumerate(self.labels) if name != "teff"]
        slopes = np.array([drawn[self.labels[k]] for k in others]).reshape(len(others), len(BAND_HEADS))
        return np.asarray(strength[:, None] / (1.0 + np.exp(-self._coordinates(table)[:, others] @ slopes)))

    def _band_profiles(self, grid: FloatArray) -> FloatArray:
        """(n_bands, n_pixels): exp(-(λ - λ_j)/l) redward of the head, convolved with the instrument's Gaussian.

        The convolution of an exponential with a Gaussian: exp(σ²/(2 l²) - x/l) · erfc((σ/l - x/σ)/√2)/2.
        """
        from scipy.special import erfc, erfcx

        heads = np.array(BAND_HEADS)[:, None]
        sigma, x = self._sigma(heads), grid - heads
        argument = (sigma / _BAND_LENGTH - x / sigma) / np.sqrt(2.0)
        # erfcx(a) = exp(a²) erfc(a) keeps both ends finite: far blueward a is large, far redward it is very negative
        blue = 0.5 * np.exp(-0.5 * (x / sigma) ** 2) * erfcx(np.maximum(argument, 0.0))
        red = (
            0.5 * np.exp(np.minimum(0.5 * (sigma / _BAND_LENGTH) ** 2 - x / _BAND_LENGTH, 5.0)) * erfc(np.minimum(argument, 0.0))
        )
        return np.asarray(np.where(argument > 0, blue, red))

    # -- parts ------------------------------------------------------------------------------------------------------

    def _sigma(self, position: FloatArray) -> FloatArray:
        return np.asarray(position / (self.resolving_power * _FWHM_PER_SIGMA))

    def _coordinates(self, table: FloatArray) -> FloatArray:
        """(n, K) labels as the lines see them."""
        columns = []
        for k, name in enumerate(self.labels):
            centre, width = CENTRES_AND_WIDTHS[name]
            value = 5040.0 / table[:, k] if name == "teff" else table[:, k]
            columns.append((value - centre) / width)
        return np.column_stack(columns)

    def _checked(self, values: ArrayLike) -> FloatArray:
        table = np.atleast_2d(np.asarray(values, dtype=float))
        if table.shape[1] != len(self.labels) or not np.isfinite(table).all():
            raise UsageError(
                f"expected finite labels of shape (n, {len(self.labels)}), got {table.shape}; one column each for "
                f"{', '.join(self.labels)}"
            )
        return table
