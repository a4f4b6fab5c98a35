"""What the Payne benchmarks work on: line spectra in closed form with many labels, networks trained on them, noisy stars."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.emulate.payne import PayneEmulator
from maury.emulate.payne_config import PRESETS, PayneConfig
from maury.emulate.payne_training import train_payne
from maury.fit.velocity import VelocityLabel
from maury.labels import Label
from maury.protocols import ModelCovariance
from maury.spectra import Spectra, empty_meta

FWHM_PER_SIGMA = 2.354820045030949


@dataclass(frozen=True)
class Survey:
    """A logarithmic grid from ``start`` Å with ``step`` in ln λ, lines of resolving power R, and labels between -1 and 1."""

    name: str
    n_labels: int
    n_pixels: int
    start: float
    step: float
    resolving_power: float
    max_km_s: float
    n_lines: int
    rms_km_s: float
    seed: int = 5

    @property
    def wavelength(self) -> np.ndarray:
        return np.asarray(self.start * np.exp(self.step * np.arange(self.n_pixels)))

    @property
    def labels(self) -> tuple[Label, ...]:
        return tuple(Label(f"label{k}", "dex") for k in range(self.n_labels))

    def flux(self, values: np.ndarray, velocity: np.ndarray | None = None) -> np.ndarray:
        """(n, n_pixels) 1 - sum_i d_i Gauss_i, d = t/(1 + t), ln t linear in the labels: three of them move every line, each of
        the others every tenth, as effective temperature, gravity, metallicity and single elements do."""
        rng = np.random.default_rng(self.seed)
        centre = np.log(self.start) + self.step * rng.uniform(0.0, self.n_pixels, self.n_lines)
        slope = rng.normal(size=(self.n_lines, self.n_labels)) * np.array([0.5, 0.25, 0.6] + [0.6] * (self.n_labels - 3))
        slope[:, 3:] *= rng.random((self.n_lines, self.n_labels - 3)) < 0.1
        strength = np.exp(rng.normal(-1.5, 1.0, self.n_lines) + values @ slope.T)
        depth = strength / (1.0 + strength)
        sigma = 1.0 / (self.resolving_power * FWHM_PER_SIGMA)
        grid = np.log(self.wavelength)
        out = np.ones((len(values), self.n_pixels))
        shift = np.zeros(len(values)) if velocity is None else np.log1p(velocity / SPEED_OF_LIGHT_KM_S)
        half = int(np.ceil(6.0 * sigma / self.step + np.abs(shift).max() / self.step)) + 1
        for line in range(self.n_lines):
            middle = round((centre[line] - grid[0]) / self.step)
            near = slice(max(middle - half, 0), middle + half + 1)
            offset = (grid[near] - centre[line] - shift[:, None]) / sigma
            out[:, near] -= depth[:, [line]] * np.exp(-0.5 * offset**2)
        return out


MASTAR = Survey("5 labels + RV, 4563 px", 5, 4563, 3622.0, np.log(10354.0 / 3622.0) / 4562, 1800.0, 100.0, 900, 30.0)
APOGEE = Survey("25 labels + RV, 7214 px", 25, 7214, 15151.0, 6e-6 * np.log(10.0), 22500.0, 5.0, 1500, 1.5)


def draw_labels(survey: Survey, n: int, rng: np.random.Generator, width: float = 1.0) -> np.ndarray:
    """(n, K) labels, even between -width and width."""
    return np.asarray(rng.uniform(-width, width, (n, survey.n_labels)))


def training_set(survey: Survey, n: int, seed: int) -> tuple[Spectra, np.ndarray]:
    """Noiseless spectra of the closed form and their labels."""
    values = draw_labels(survey, n, np.random.default_rng(seed))
    flux = survey.flux(values)
    return _spectra(survey, flux, np.full(flux.shape, 1e8)), values


def published_network(survey: Survey, epochs: int = 100) -> PayneEmulator:
    """300-300 leaky ReLU, labels to [-0.5, 0.5], as published; trained in the space of 40 components to be quick.

    The model's own error is set aside (covariance 0), as the peer knows none.
    """
    config = PayneConfig(hidden=(300, 300), activation="leaky_relu", components=40, members=1, scaling="range")
    config = replace(config, loop=replace(PRESETS["maury"].loop, learning_rate=2e-3, max_epochs=epochs, batch_size=0))
    return _trained(survey, config)


def own_network(survey: Survey, epochs: int = 150) -> PayneEmulator:
    """Ours: 64-64 silu and 40 components, one member (an ensemble would be another model than the peer's)."""
    config = PRESETS["maury"]
    return _trained(survey, replace(config, members=1, scaling="range", loop=replace(config.loop, max_epochs=epochs)))


def _trained(survey: Survey, config: PayneConfig) -> PayneEmulator:
    spectra, values = training_set(survey, 2000, 1)
    emulator = train_payne(spectra, survey.labels, values, config).emulator
    return emulator.with_covariance(ModelCovariance(np.zeros(survey.n_pixels)))


def noisy_stars(survey: Survey, emulator: PayneEmulator, n: int, seed: int) -> Spectra:
    """Stars of the network at random labels (inner 80 % of the box) and velocities, S/N 50 to 200, 2 % of the pixels masked."""
    rng = np.random.default_rng(seed)
    values = draw_labels(survey, n, rng, 0.8)
    velocity = np.clip(survey.rms_km_s * rng.normal(size=n), -0.8 * survey.max_km_s, 0.8 * survey.max_km_s)
    moving = VelocityLabel(survey.max_km_s).extend(emulator).predict_flux(np.column_stack([values, velocity]))
    error = 1.0 / np.exp(rng.uniform(np.log(50.0), np.log(200.0), (n, 1))) * rng.uniform(0.8, 1.2, moving.shape)
    flux = moving + error * rng.normal(size=moving.shape)
    masked = rng.random(flux.shape) < 0.02
    return _spectra(survey, np.where(masked, 1.0, flux), np.where(masked, 0.0, 1.0 / error**2))


def _spectra(survey: Survey, flux: np.ndarray, ivar: np.ndarray) -> Spectra:
    ids = np.array([str(i) for i in range(len(flux))])
    return Spectra(
        survey.wavelength, flux.astype(np.float32), ivar.astype(np.float32), ids, "vacuum", "rest", empty_meta(len(flux))
    )
