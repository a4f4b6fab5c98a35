"""A smooth upper envelope as continuum: a low polynomial fitted with asymmetric clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.polynomial import legendre

from maury.errors import UsageError
from maury.prepare.config import check_choice, config_of
from maury.prepare.continuum import Weights, divide
from maury.prepare.grid import FloatArray, windows_of
from maury.spectra import Spectra

_RIDGE = 1e-12
"""Relative to the mean of the normal matrix's diagonal: keeps rows with too few pixels solvable; they are refused after."""


@dataclass(frozen=True)
class PolynomialContinuum:
    """Divide by a Legendre polynomial fitted to the upper envelope of the good pixels.

    Pixels far below the fit (lines) and far above it (spikes) are dropped, and it is fitted again.

    Parameters
    ----------
    degree : of the polynomial over the whole wavelength range.
    clip_below, clip_above : in standard deviations of the pixels kept; the smaller one below makes it an envelope.
    iterations : rounds of clipping at most; a spectrum whose selection no longer changes is finished.
    each_window : a polynomial for each stretch of a grid with gaps (windows, detectors), instead of one for all.
    weights : "ivar", or "uniform": every good pixel counts alike, so that the continuum does not depend on how errors run along
        the spectrum. Errors that are a constant part of the flux (``assumed_snr``) make cores of lines count most.
    """

    degree: int = 4
    clip_below: float = 1.0
    clip_above: float = 3.0
    iterations: int = 10
    each_window: bool = False
    weights: Weights = "ivar"

    name: ClassVar[str] = "polynomial"

    def __post_init__(self) -> None:
        check_choice("weights", self.weights, Weights)
        if not 0 <= self.degree <= 30 or self.clip_below <= 0 or self.clip_above <= 0 or self.iterations < 1:
            raise UsageError("expected degree 0–30, positive clip_below and clip_above, iterations ≥ 1, got others; correct them")

    def __call__(self, spectra: Spectra) -> Spectra:
        def continuum(rows: slice) -> FloatArray:
            flux, weight = spectra.flux[rows].astype(np.float64), spectra.ivar[rows].astype(np.float64)
            weight = weight if self.weights == "ivar" else (weight > 0).astype(np.float64)
            parts = [envelope(spectra.wavelength[i], flux[:, i], weight[:, i], self) for i in stretches]
            return np.concatenate(parts, axis=1)

        stretches = windows_of(spectra.wavelength) if self.each_window else [slice(None)]

        return divide(spectra, continuum, rows_at_once=64)

    def to_config(self) -> dict[str, Any]:
        config = config_of(self)
        for name in ("each_window", "weights"):  # models from before there was the choice keep their fingerprints
            if getattr(self, name) == getattr(PolynomialContinuum, name):
                del config[name]
        return config


def envelope(wavelength: FloatArray, flux: FloatArray, weight: FloatArray, settings: PolynomialContinuum) -> FloatArray:
    """(n_spectra, n_pixels) the fitted continuum; NaN for spectra with fewer good pixels than coefficients.

    All spectra are fitted at once: the products of basis functions are formed once, and one matrix product with the
    weights gives the normal matrices of the whole batch.
    """
    n_terms = settings.degree + 1
    x = 2.0 * (wavelength - wavelength[0]) / (wavelength[-1] - wavelength[0]) - 1.0
    basis = legendre.legvander(x, settings.degree)
    first, second = np.triu_indices(n_terms)
    products = basis[:, first] * basis[:, second]
    keep = weight > 0
    scale = np.maximum(weight.max(axis=1, initial=0.0, keepdims=True), 1e-300)
    fit = np.full(flux.shape, np.nan)
    active = np.flatnonzero(keep.sum(axis=1) >= n_terms)
    clean = np.where(keep, flux, 0.0)
    for _ in range(settings.iterations):
        if active.size == 0:
            break
        w = np.where(keep[active], weight[active] / scale[active], 0.0)
        fit[active] = _solve(w, clean[active], basis, products, (first, second)) @ basis.T
        residual = clean[active] - fit[active]
        spread = np.sqrt(np.sum(w * residual**2, axis=1) / np.maximum(np.sum(w, axis=1), 1e-300))[:, None]
        chosen = (weight[active] > 0) & (residual > -settings.clip_below * spread) & (residual < settings.clip_above * spread)
        # never below twice the number of coefficients: an envelope through a handful of pixels is noise
        moved = (chosen != keep[active]).any(axis=1) & (chosen.sum(axis=1) >= 2 * n_terms)
        active = active[moved]
        keep[active] = chosen[moved]
    return fit


def _solve(
    w: FloatArray, flux: FloatArray, basis: FloatArray, products: FloatArray, pairs: tuple[np.ndarray[Any, Any], ...]
) -> FloatArray:
    """(n, n_terms) coefficients of the weighted fits."""
    n_terms = basis.shape[1]
    normal = np.zeros((len(w), n_terms, n_terms))
    normal[:, pairs[0], pairs[1]] = w @ products
    normal[:, pairs[1], pairs[0]] = normal[:, pairs[0], pairs[1]]
    level = _RIDGE * np.trace(normal, axis1=1, axis2=2) / n_terms + 1e-300
    normal += level[:, None, None] * np.eye(n_terms)
    solution = np.linalg.solve(normal, ((w * flux) @ basis)[:, :, None])[:, :, 0]
    return np.asarray(solution, dtype=np.float64)
