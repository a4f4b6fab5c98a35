"""What observing does to a spectrum, for training sets: noise, velocity errors, continuum errors, lost pixels.

Each is drawn for every spectrum from a random stream of its own, named by (seed, augmentation, number of the spectrum): the
result depends neither on how spectra are divided into chunks, nor on the number of processes, nor on the other augmentations.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Augmentation(Protocol):
    """A frozen dataclass that maps prepared Spectra to disturbed ones."""

    def __call__(self, spectra: Spectra, seed: int, rows: IntArray) -> Spectra:
        """``rows`` (n_spectra,) are the numbers of the spectra in the whole training set."""
        ...


def streams(name: str, seed: int, rows: IntArray) -> Iterator[np.random.Generator]:
    """One random generator per spectrum."""
    code = zlib.crc32(name.encode())
    for row in rows.tolist():
        yield np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(code, row))))


def _drawn(name: str, seed: int, rows: IntArray, draw: Callable[[np.random.Generator], float | FloatArray]) -> FloatArray:
    """(n_spectra, ...) what ``draw`` gets from each spectrum's stream."""
    return np.array([draw(random) for random in streams(name, seed, rows)], dtype=np.float64)


@dataclass(frozen=True)
class VelocityJitter:
    """Radial-velocity errors left by the rest-frame shift: normal with mean 0.

    Not an :class:`Augmentation`: the build applies it in the resampling step, so that flux is interpolated once.

    Parameters
    ----------
    sigma : km/s.
    """

    sigma: float

    name: ClassVar[str] = "velocity_jitter"

    def __post_init__(self) -> None:
        _check("sigma (km/s)", self.sigma, 0.0, 300.0)

    def velocities(self, seed: int, rows: IntArray) -> FloatArray:
        """(n_spectra,) km/s, receding positive."""
        return _drawn(self.name, seed, rows, lambda random: self.sigma * random.standard_normal())


@dataclass(frozen=True)
class ContinuumWiggles:
    """Multiply by a smooth curve 1 + Σ a_k √(2k+1) P_k(x), as a wrong continuum does.

    P_k are Legendre polynomials, x in [-1, 1] along the spectrum, a_k normal with variance amplitude²/degree, k = 1 ... degree:
    the curve's expected mean square deviation from 1 is amplitude².

    Parameters
    ----------
    amplitude : 0.01 is one per cent.
    degree : of the highest polynomial.
    """

    amplitude: float
    degree: int = 3

    name: ClassVar[str] = "continuum_wiggles"

    def __post_init__(self) -> None:
        _check("amplitude", self.amplitude, 0.0, 1.0)
        _check("degree", self.degree, 1, 100)

    def __call__(self, spectra: Spectra, seed: int, rows: IntArray) -> Spectra:
        wave = spectra.wavelength
        x = 2.0 * (wave - wave[0]) / (wave[-1] - wave[0]) - 1.0
        k = np.arange(1, self.degree + 1)
        curves = np.polynomial.legendre.legvander(x, self.degree)[:, 1:] * np.sqrt(2.0 * k + 1.0)
        drawn = _drawn(self.name, seed, rows, lambda random: random.standard_normal(self.degree))
        scaled = self.amplitude / np.sqrt(self.degree) * drawn
        factor = np.ones(spectra.flux.shape)
        for coefficient, curve in zip(scaled.T, curves.T, strict=True):  # a matrix product rounds by the number of its rows
            factor += coefficient[:, None] * curve
        return spectra.with_pixels(flux=spectra.flux * factor, ivar=spectra.ivar / np.maximum(factor**2, 1e-6))


@dataclass(frozen=True)
class WhiteNoise:
    """Independent normal noise of one standard deviation per spectrum: its median flux over a S/N drawn uniform in the logarithm.

    Parameters
    ----------
    snr : (low, high) of the S/N per pixel; the same twice for one S/N.

    Notes
    -----
    The inverse variance becomes that of the noise, and meta ``snr`` what was drawn; pixels with ivar = 0 stay as they are.
    """

    snr: tuple[float, float]

    name: ClassVar[str] = "white_noise"

    def __post_init__(self) -> None:
        low, high = self.snr
        if not 0 < low <= high < np.inf:
            raise UsageError(f"expected snr as (low, high) with 0 < low <= high, got ({low:g}, {high:g}); correct them")

    def __call__(self, spectra: Spectra, seed: int, rows: IntArray) -> Spectra:
        flux, ivar, snr = np.array(spectra.flux, dtype=np.float64), np.zeros(spectra.flux.shape), np.empty(len(rows))
        low, high = self.snr
        for i, random in enumerate(streams(self.name, seed, rows)):
            snr[i] = low * (high / low) ** random.random()
            good = spectra.ivar[i] > 0
            level = float(np.median(np.abs(flux[i, good]))) if good.any() else 0.0
            sigma = level / snr[i] if level > 0 else 1.0 / snr[i]
            noise = random.standard_normal(spectra.n_pixels)  # for all pixels: masks must not change the noise of the others
            flux[i] += np.where(good, sigma * noise, 0.0)
            ivar[i, good] = 1.0 / sigma**2
        meta = spectra.meta.copy()
        meta["snr"] = snr
        return spectra.with_pixels(flux=flux, ivar=ivar, meta=meta)


@dataclass(frozen=True)
class DroppedPixels:
    """Lose runs of neighbouring pixels at random places, as cosmic rays and bad columns do.

    Parameters
    ----------
    fraction : of the pixels, in the mean (where runs overlap, a little less).
    run : length of a run, pixels.
    fill : flux written there, with ivar = 0; the continuum of a normalised spectrum by default.
    """

    fraction: float
    run: int = 4
    fill: float = 1.0

    name: ClassVar[str] = "dropped_pixels"

    def __post_init__(self) -> None:
        _check("fraction", self.fraction, 0.0, 0.9)
        _check("run", self.run, 1, 10_000)
        if not np.isfinite(self.fill):
            raise UsageError(f"expected a finite fill, got {self.fill}; 1 is the continuum of a normalised spectrum")

    def __call__(self, spectra: Spectra, seed: int, rows: IntArray) -> Spectra:
        n = spectra.n_pixels
        lost = np.zeros(spectra.flux.shape, bool)
        for i, random in enumerate(streams(self.name, seed, rows)):
            # runs may begin before the first pixel, so that the ends are lost as often as the middle
            start = random.integers(1 - self.run, n, random.poisson(self.fraction * (n + self.run - 1) / self.run))
            for first in start.tolist():
                lost[i, max(first, 0) : first + self.run] = True
        return spectra.with_pixels(flux=np.where(lost, self.fill, spectra.flux), ivar=np.where(lost, 0.0, spectra.ivar))


def _check(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"expected {what} between {low:g} and {high:g}, got {value:g}; correct it")
