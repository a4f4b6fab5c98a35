"""A small network with known weights over smooth lines, and stars drawn from it at velocities; needs no torch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from maury.emulate.payne import PayneEmulator
from maury.fit.velocity import VelocityLabel
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance
from maury.spectra import Spectra

LABELS = (Label("teff", "K"), Label("logg", "dex"), Label("fe_h", "dex"))
MAX_KM_S = 80.0  # 1.3 pixels of 60 km/s


def network(n_pixels: int = 400, r: int = 8, rank: int = 0, hidden: int = 16, unknown: slice | None = None) -> PayneEmulator:
    """Three labels, two layers of silu neurons, r basis vectors of Gaussian lines 2.7 pixels wide (FWHM)."""
    rng = np.random.default_rng(5)  # fixed: the same network every time
    wavelength = 5000.0 * np.exp(2e-4 * np.arange(n_pixels))
    lines = np.exp(-0.5 * ((np.arange(n_pixels) - rng.uniform(0, n_pixels, (n_pixels // 4, 1))) / 1.15) ** 2)
    basis = 0.03 * np.sqrt(8 / r) * rng.normal(size=(r, len(lines))) @ lines
    mean = 1.0 - 0.3 * rng.random(len(lines)) @ lines
    sizes = (3, hidden, hidden, r)
    layers = tuple((rng.normal(size=(1, a, b)) / np.sqrt(a), 0.3 * rng.normal(size=(1, b))) for a, b in pairwise(sizes))
    diagonal = (0.003 * np.exp(rng.uniform(-0.7, 0.7, n_pixels))) ** 2
    if unknown is not None:
        diagonal[unknown] = np.inf
    factors = 0.004 * rng.normal(size=(n_pixels, rank)) if rank else None
    labels = LabelSet(LABELS, (5000.0, 3.0, -0.3), (500.0, 0.8, 0.3), (4000.0, 1.4, -0.9), (6000.0, 4.6, 0.3))
    return PayneEmulator(labels, wavelength, layers, "silu", mean, basis, ModelCovariance(diagonal, factors))


def moving_stars(
    model: PayneEmulator, n: int, seed: int = 2, error: float = 0.01, factor: float = 0.5
) -> tuple[Spectra, np.ndarray]:
    """Spectra with noise and the model's own error, 3 % masked, and their labels with velocity as (n, 4)."""
    rng = np.random.default_rng(seed)
    labels = model.labels.unscale(rng.uniform(-1.2, 1.2, (n, 3)))
    values = np.column_stack([labels, factor * MAX_KM_S * rng.uniform(-1, 1, n)])
    clean = VelocityLabel(MAX_KM_S).extend(model).predict_flux(values)
    covariance = model.model_covariance
    sigma = error * np.exp(rng.uniform(-0.5, 0.5, (n, 1))) * rng.uniform(0.8, 1.2, clean.shape)
    own = np.sqrt(np.where(covariance.known, covariance.diagonal, 0.0))
    flux = clean + np.hypot(sigma, own) * rng.normal(size=clean.shape)
    if covariance.factors is not None:
        flux += rng.normal(size=(n, covariance.rank)) @ covariance.factors.T
    ivar = np.where(rng.random(flux.shape) < 0.03, 0.0, 1.0 / sigma**2)
    return Spectra.from_arrays(model.wavelength, flux, ivar=ivar, medium="vacuum", frame="rest"), values
