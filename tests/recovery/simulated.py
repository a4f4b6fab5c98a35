"""A small quadratic Cannon with known coefficients and scatter, and stars drawn from it."""

from __future__ import annotations

import numpy as np

from maury.emulate.cannon import CannonEmulator
from maury.emulate.polynomial import PolynomialTerms
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance
from maury.spectra import Spectra

LABELS = (Label("teff", "K"), Label("logg", "dex"), Label("fe_h", "dex"))


def label_values(n: int, rng: np.random.Generator, n_labels: int = 3) -> np.ndarray:
    """(n, K) labels in label units."""
    unit = rng.uniform(-1.7, 1.7, (n, n_labels))
    return np.asarray(np.array([5000.0, 3.0, -0.3])[:n_labels] + unit * np.array([500.0, 0.8, 0.3])[:n_labels])


def quadratic_model(n_pixels: int, n_labels: int = 3, scatter: float = 0.01, rank: int = 0, seed: int = 11) -> CannonEmulator:
    """Slopes of 3 %, curvatures of 0.6 %, scatter that varies by a factor of 4 over pixels, and low-rank factors."""
    rng = np.random.default_rng(seed)
    labels = LabelSet.from_training(LABELS[:n_labels], label_values(400, rng, n_labels))
    polynomial = PolynomialTerms.of_order(n_labels, 2)
    size = np.array([0.0, 0.03, 0.006])[[sum(p) for p in polynomial.powers]]
    coefficients = size[:, None] * rng.normal(size=(polynomial.n_terms, n_pixels))
    coefficients[0] = 1.0 - 0.2 * rng.random(n_pixels)
    diagonal = (scatter * np.exp(rng.uniform(-0.7, 0.7, n_pixels))) ** 2
    factors = 0.005 * rng.normal(size=(n_pixels, rank)) if rank else None
    wavelength = 5000.0 + np.arange(n_pixels)
    return CannonEmulator(labels, wavelength, coefficients, ModelCovariance(diagonal, factors), polynomial)


def draw(
    model: CannonEmulator, values: np.ndarray, rng: np.random.Generator, *, error: float = 0.01, masked: float = 0.03
) -> Spectra:
    """Stars of the model at these labels, with its covariance, noise (a factor of 3 over stars) and masked pixels."""
    n, n_pixels = len(values), len(model.wavelength)
    sigma = error * np.exp(rng.uniform(-0.55, 0.55, (n, 1))) * rng.uniform(0.8, 1.2, (n, n_pixels))
    covariance = model.model_covariance
    flux = model.predict_flux(values) + np.hypot(sigma, np.sqrt(covariance.diagonal)) * rng.normal(size=(n, n_pixels))
    if covariance.factors is not None:
        flux += rng.normal(size=(n, covariance.rank)) @ covariance.factors.T
    ivar = np.where(rng.random((n, n_pixels)) < masked, 0.0, 1.0 / sigma**2)
    return Spectra.from_arrays(model.wavelength, flux, ivar=ivar, medium="vacuum", frame="rest")
