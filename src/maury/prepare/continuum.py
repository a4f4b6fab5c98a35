"""Pseudo-continua: what a spectrum is divided by so that lines remain and the flux calibration does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.prepare import banded
from maury.prepare.config import Ranges, check_choice, check_ranges, config_of
from maury.prepare.grid import FloatArray
from maury.prepare.median import running_median
from maury.spectra import Spectra

Variant = Literal["paper", "code"]
Weights = Literal["ivar", "uniform"]


def divide(spectra: Spectra, continuum: Callable[[slice], FloatArray], *, rows_at_once: int = 16) -> Spectra:
    """f/c and ivar c²; where the continuum is not positive or not known, ivar = 0 and flux = 0.

    Parameters
    ----------
    continuum : rows -> (n_rows, n_pixels) or (n_rows, 1), in the flux unit; NaN where undefined. It is asked for a few
        rows at a time, so that everything about them stays in the processor's cache.
    """
    flux, ivar = np.empty(spectra.flux.shape), np.empty(spectra.flux.shape)
    for low in range(0, len(spectra), rows_at_once):
        rows = slice(low, min(low + rows_at_once, len(spectra)))
        level = continuum(rows)
        with np.errstate(invalid="ignore"):
            usable = (level > 1e-150) & (level < 1e150)  # NaN is neither; squares stay finite
        safe = level if usable.all() else np.where(usable, level, 1.0)
        np.divide(spectra.flux[rows], safe, out=flux[rows])
        np.multiply(spectra.ivar[rows], safe * safe, out=ivar[rows])
        if safe is not level:
            flux[rows] *= usable
            ivar[rows] *= usable
    return spectra.with_pixels(flux=flux, ivar=ivar)


@dataclass(frozen=True)
class RunningMedian:
    """Divide by the running median of the good pixels.

    Parameters
    ----------
    window : pixels; 400 as Imig+2022. It reaches window // 2 pixels to either side (so 401 for 400), which keeps it
        symmetric, and is cut at the ends of the spectrum (our choice; the paper does not say).
    """

    window: int = 400

    name: ClassVar[str] = "running_median"

    def __post_init__(self) -> None:
        if self.window < 3:
            raise UsageError(f"expected a window of at least 3 pixels, got {self.window}; 400 is the published one")

    def __call__(self, spectra: Spectra) -> Spectra:
        half = self.window // 2
        return divide(spectra, lambda rows: running_median(spectra.flux[rows], spectra.ivar[rows] > 0, half))

    def to_config(self) -> dict[str, Any]:
        return config_of(self)


@dataclass(frozen=True)
class GaussianContinuum:
    """Divide by the Gaussian-smoothed spectrum (METHODS 0.4): c(λ0) = Σ f w ivar / Σ w ivar.

    Parameters
    ----------
    length : L in Å.
    variant : "paper": w = exp[−(λ0−λ)²/L²] (Galgano+2020 eq. 2, Ho+2017); "code": exp[−½(λ0−λ)²/L²] (TheCannon).
    weights : "ivar" as published, or "uniform": every good pixel counts alike, so that the continuum does not depend
        on how the signal-to-noise ratio runs along the spectrum (another instrument's, for instance).
    """

    length: float = 50.0
    variant: Variant = "paper"
    weights: Weights = "ivar"

    name: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, Variant)
        check_choice("weights", self.weights, Weights)
        if not self.length > 0:
            raise UsageError(f"expected a positive length in Å, got {self.length}; 50 is the published one")

    def __call__(self, spectra: Spectra) -> Spectra:
        sigma = self.length / np.sqrt(2) if self.variant == "paper" else self.length

        def continuum(rows: slice) -> FloatArray:
            weight = spectra.ivar[rows] if self.weights == "ivar" else (spectra.ivar[rows] > 0).astype(np.float64)
            return gaussian_continuum(spectra.wavelength, spectra.flux[rows], weight, float(sigma))

        return divide(spectra, continuum, rows_at_once=64)

    def to_config(self) -> dict[str, Any]:
        return config_of(self)


def gaussian_continuum(wavelength: FloatArray, flux: NDArray[Any], weight: NDArray[Any], sigma: float) -> FloatArray:
    """Weighted Gaussian mean of the flux around every pixel, exp[−½ (Δλ/σ)²]; NaN or meaningless where no good pixel is near.

    The kernel matrix exp[−½ (x−y)²/σ²] is not formed. It is factored exactly: a Gaussian is the convolution of two
    narrower ones, and the trapezoidal sum over nodes 0.42 σ apart in place of that integral is wrong by 1e-12 only.
    So pixels go to nodes and nodes to pixels through one thin banded matrix A: K = A Aᵀ (on any grid, without edges
    wrapped), which costs a few per cent of the product with K. The error is 1e-12 of the largest weight near by: a good pixel
    worth less than that beside it gets a meaningless mean, and keeps its meaningless weight.

    Parameters
    ----------
    wavelength : (n_pixels,) Å.
    flux, weight : (n_spectra, n_pixels); pixels of weight 0 have no influence.
    sigma : Å.
    """
    factor = _gaussian_factor(wavelength.tobytes(), sigma)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # nothing near, or weights beyond 1e+300
        top, bottom = (factor.to_pixels.apply(factor.to_nodes.apply(rows)) for rows in (flux * weight, weight))
        mean: FloatArray = top / bottom
    return mean


class GaussianFactor(NamedTuple):
    """A and its transpose, A Aᵀ = exp[−½ (x−y)²/σ²], each in blocks of its own outputs."""

    to_nodes: banded.Banded
    to_pixels: banded.Banded


@lru_cache(maxsize=16)
def _gaussian_factor(wavelength_bytes: bytes, sigma: float) -> GaussianFactor:
    """Gaussians of width σ/√2 around nodes 0.42 σ apart."""
    wavelength = np.frombuffer(wavelength_bytes)
    narrow, spacing = sigma / np.sqrt(2), 0.42 * sigma
    reach = 7.0 * narrow  # exp(-24.5) = 2e-11
    nodes = np.arange(wavelength[0] - reach, wavelength[-1] + reach + spacing, spacing)
    height = np.sqrt(spacing / (narrow * np.sqrt(np.pi)))

    def weights(x: FloatArray, y: FloatArray) -> Callable[[slice, slice], FloatArray]:
        return lambda i, j: np.asarray(height * np.exp(-0.5 * ((x[i, None] - y[j]) / narrow) ** 2), dtype=np.float64)

    return GaussianFactor(
        banded.build(wavelength, nodes, np.full(nodes.size, reach), weights(wavelength, nodes), block=16),
        banded.build(nodes, wavelength, np.full(wavelength.size, reach), weights(nodes, wavelength), block=256),
    )


@dataclass(frozen=True)
class Scale:
    """Divide each spectrum by its median flux, so that batches of any flux unit become comparable.

    Parameters
    ----------
    ranges : wavelength ranges in Å in which the median is taken; the whole spectrum where none is given.
    """

    ranges: Ranges = ()

    name: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        check_ranges("ranges", self.ranges)

    def __call__(self, spectra: Spectra) -> Spectra:
        inside = within(spectra.wavelength, self.ranges)
        return divide(spectra, lambda rows: masked_median(spectra.flux[rows], (spectra.ivar[rows] > 0) & inside)[:, None])

    def to_config(self) -> dict[str, Any]:
        return config_of(self)


def within(wavelength: FloatArray, ranges: Ranges) -> NDArray[np.bool_]:
    """Which pixels lie in any of the ranges (ends included); all of them if there are no ranges."""
    if not ranges:
        return np.ones(wavelength.shape, bool)
    inside = [(wavelength >= low) & (wavelength <= high) for low, high in ranges]
    return np.asarray(np.logical_or.reduce(inside), dtype=np.bool_)


def masked_median(values: NDArray[Any], good: NDArray[np.bool_]) -> FloatArray:
    """(n_spectra,) the median of each row's good values; NaN where a row has none."""
    ordered = np.sort(np.where(good, values, np.inf).astype(np.float64), axis=1)
    n = good.sum(axis=1)
    rows = np.arange(len(values))
    if values.shape[1] == 0 or len(values) == 0:
        return np.full(len(values), np.nan)
    lower, upper = ordered[rows, np.maximum(n - 1, 0) // 2], ordered[rows, np.minimum(n // 2, values.shape[1] - 1)]
    middle: FloatArray = np.where(n > 0, 0.5 * np.where(n > 0, lower, 0.0) + 0.5 * np.where(n > 0, upper, 0.0), np.nan)
    return middle
