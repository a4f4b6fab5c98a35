"""The seam is general: somebody else's trained networks become an Emulator and are fitted like any other.

``apogee/binspec`` holds the networks of El-Badry+2018 (MNRAS 476, 528): one small network per pixel, labels scaled to
[-0.5, 0.5], one hidden layer of five sigmoids. The converter below is all that such a model needs; nothing in the package knows
of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from numpy.typing import NDArray

from maury.catalogue.spectra_file import SpectrumGenerator, write_spectra
from maury.fit import ChiSquareFitter, EmulatorInferrer
from maury.flags import FitStatus, ResultFlag
from maury.labels import Label, LabelSet, make_label
from maury.prepare import Preparation, Resample
from maury.prepare.polynomial import PolynomialContinuum, envelope
from maury.protocols import Emulator, ModelCovariance
from maury.read import read_file
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

# 15,168-16,937 Å, Teff 4200-6996 K, log g 4-4.98, [Fe/H] -0.79...+0.38 (DATA.md)
LABELS = (make_label("teff", "K"), make_label("logg", "dex"), make_label("fe_h", "dex"), Label("mg_fe", "dex"))
LABELS += (make_label("v_macro", "km/s"),)
SUN = np.array([[5777.0, 4.44, 0.0, 0.0, 5.0]])
CHIPS = ((15100.0, 15850.0), (15850.0, 16450.0), (16450.0, 17000.0))  # Å: the grid has gaps of 83 and 89 Å between them
GROUP = 32  # stars at a time: (stars, pixels, hidden) arrays


@dataclass(frozen=True, eq=False)
class PixelNetworks:
    """One small network per pixel: flux_p = w1_p . sigmoid(w0_p x + b0_p) + b1_p, x the scaled labels.

    Parameters
    ----------
    hidden_weight : (n_pixels, 5, K); hidden_bias : (n_pixels, 5).
    output_weight : (n_pixels, 5); output_bias : (n_pixels,).
    """

    labels: LabelSet
    wavelength: FloatArray
    hidden_weight: FloatArray
    hidden_bias: FloatArray
    output_weight: FloatArray
    output_bias: FloatArray
    model_covariance: ModelCovariance

    @classmethod
    def from_file(cls, folder: Path) -> PixelNetworks:
        with np.load(folder / "NN_normalized_spectra.npz", allow_pickle=False) as file:
            arrays = {name: file[name].astype(np.float64) for name in file.files}
        lower, upper = arrays["x_min"], arrays["x_max"]
        middle, width = 0.5 * (lower + upper), upper - lower
        labels = LabelSet(LABELS, *(tuple(part.tolist()) for part in (middle, width, lower, upper)))
        with np.load(folder / "apogee_wavelength.npz", allow_pickle=False) as file:
            wavelength = file["wavelength"]
        weights = (arrays[name] for name in ("w_array_0", "b_array_0", "w_array_1", "b_array_1"))
        return cls(labels, wavelength, *weights, ModelCovariance(np.zeros(len(wavelength))))

    def _hidden(self, values: FloatArray) -> FloatArray:
        """(n, n_pixels, 5)."""
        inner = np.tensordot(self.labels.scale(np.atleast_2d(values)), self.hidden_weight, axes=(1, 2)) + self.hidden_bias
        return np.asarray(1.0 / (1.0 + np.exp(-inner)))

    def predict_flux(self, values: FloatArray) -> FloatArray:
        groups = np.array_split(np.atleast_2d(values), -(-len(values) // GROUP))
        flux = [np.einsum("nph,ph->np", self._hidden(group), self.output_weight) + self.output_bias for group in groups]
        return np.concatenate(flux)

    def predict_jacobian(self, values: FloatArray) -> FloatArray:
        groups = np.array_split(np.atleast_2d(values), -(-len(values) // GROUP))
        parts = []
        for group in groups:
            hidden = self._hidden(group)
            slope = hidden * (1.0 - hidden) * self.output_weight
            parts.append(np.matmul(slope.transpose(1, 0, 2), self.hidden_weight).transpose(1, 0, 2))
        return np.concatenate(parts) / np.array(self.labels.spread)

    def with_covariance(self, covariance: ModelCovariance) -> PixelNetworks:
        return replace(self, model_covariance=covariance)

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        names = ("wavelength", "hidden_weight", "hidden_bias", "output_weight", "output_bias")
        return {name: getattr(self, name) for name in names}, {"kind": "pixel_networks", "label_set": self.labels.to_config()}


def continuum_pixels(folder: Path) -> NDArray[np.bool_]:
    """(n_pixels,) The Cannon's continuum pixels of APOGEE."""
    with np.load(folder / "cannon_cont_pixels_apogee.npz", allow_pickle=False) as file:
        return np.asarray(file["pixels_cannon"])


def stars(labels: LabelSet, n: int, seed: int) -> FloatArray:
    """(n, 5) labels that keep a tenth of the range off its edges; v_macro positive, which the range is not."""
    low, high = np.array(labels.lower), np.array(labels.upper)
    low[4] = 2.0
    return np.asarray(low + (0.1 + 0.8 * np.random.default_rng(seed).random((n, 5))) * (high - low))


def real_spectrum(networks: PixelNetworks, folder: Path) -> Spectra:
    """The combined spectrum, normalised chip by chip by a polynomial through the continuum pixels; no pixels with huge errors."""
    with np.load(folder / "spectrum_ap_id_2M13012770+5754582_.npz", allow_pickle=False) as file:
        flux, error = file["spectrum"].astype(np.float64), file["spec_err"].astype(np.float64)
    good = error < 0.1
    weight = np.where(continuum_pixels(folder) & good, 1.0 / error**2, 0.0)
    through_all = PolynomialContinuum(degree=4, clip_below=50.0, clip_above=50.0)  # the pixels are chosen already: no clipping
    continuum = np.empty(flux.size)
    for low, high in CHIPS:
        chip = (networks.wavelength > low) & (networks.wavelength < high)
        continuum[chip] = envelope(networks.wavelength[chip], flux[None, chip], weight[None, chip], through_all)[0]
    assert np.abs(continuum - 1.0).max() < 0.01  # the file's spectrum is normalised nearly so already
    error = np.where(good, error / continuum, np.nan)
    return Spectra.from_arrays(networks.wavelength, flux / continuum, error=error, medium="vacuum", frame="rest")


@pytest.fixture(scope="module")
def folder(data: Path) -> Path:
    folder = data / "apogee" / "binspec"
    if not folder.is_dir():
        pytest.skip(f"no networks at {folder}")
    return folder


@pytest.fixture(scope="module")
def networks(folder: Path) -> PixelNetworks:
    return PixelNetworks.from_file(folder)


def test_it_is_an_emulator(networks: PixelNetworks) -> None:
    assert isinstance(networks, Emulator)
    sun = networks.predict_flux(SUN)
    assert sun.shape == (1, 7214)
    assert 0.5 < sun.min() < 0.7  # the deepest lines of the H band at R = 22,500
    assert sun.max() < 1.05
    arrays, config = networks.to_arrays()
    assert arrays["hidden_weight"].shape == (7214, 5, 5)
    assert LabelSet.from_config(config["label_set"]) == networks.labels


def test_its_cannon_continuum_pixels_are_continuum(networks: PixelNetworks, folder: Path) -> None:
    """The pixels that the field takes for continuum lie at 1 in the sun's spectrum: layers, scaling and grid are right."""
    level = networks.predict_flux(SUN)[0, continuum_pixels(folder)]
    assert np.median(level) == pytest.approx(1.0, abs=0.003)
    assert level.std() < 0.01


def test_it_generates_spectra_into_a_file(networks: PixelNetworks, tmp_path: Path) -> None:
    values = stars(networks.labels, 3, seed=4)
    generator = SpectrumGenerator(networks, None, Preparation(()), "vacuum", "binspec")
    write_spectra(tmp_path / "stars.fits", generator, values)
    (spectra,) = read_file(tmp_path / "stars.fits")
    np.testing.assert_array_equal(spectra.wavelength, networks.wavelength)
    np.testing.assert_array_equal(spectra.flux, networks.predict_flux(values).astype(np.float32))
    np.testing.assert_array_equal(spectra.meta["header_mg_fe"], values[:, 3])


def test_jacobian_against_finite_differences(networks: PixelNetworks) -> None:
    values = stars(networks.labels, 20, seed=1)
    jacobian = networks.predict_jacobian(values)
    for k, width in enumerate(networks.labels.spread):
        shift = 1e-5 * width * np.eye(5)[k]
        slope = (networks.predict_flux(values + shift) - networks.predict_flux(values - shift)) / (2e-5 * width)
        np.testing.assert_allclose(jacobian[..., k], slope, rtol=0, atol=1e-7 * np.abs(slope).max())


def test_synthetic_stars_are_recovered_within_their_errors(networks: PixelNetworks) -> None:
    """S/N 200: pulls of 150 labels have standard deviation 1 (its own error 0.06), and none is wild."""
    truth = stars(networks.labels, 30, seed=2)
    noise = np.random.default_rng(3).normal(0.0, 1.0 / 200.0, (30, 7214))
    flux = networks.predict_flux(truth) + noise
    spectra = Spectra.from_arrays(
        networks.wavelength, flux, error=np.full(flux.shape, 1.0 / 200.0), medium="vacuum", frame="rest"
    )
    estimates = EmulatorInferrer(networks, ChiSquareFitter()).infer(spectra)
    assert set(estimates.status) == {FitStatus.CONVERGED}
    pulls = (estimates.values - truth) / estimates.errors
    assert np.abs(pulls).max() < 4.5
    assert 0.82 < pulls.std() < 1.18
    np.testing.assert_allclose(estimates.chi2 / estimates.n_pixels, 1.0, atol=0.08)  # 5 of its sqrt(2/7214)
    assert (estimates.errors[:, 0] < 10.0).all()  # K


def test_labels_of_the_real_spectrum(networks: PixelNetworks, folder: Path) -> None:
    """2M13012770+5754582, combined spectrum. Velocity left in it: the lowest chi-square of a scan, as the seam fits labels alone.

    One star does not describe it to its stated errors of 0.5 % (reduced chi-square about 4), but to 1 %. Its v_macro of 17 km/s,
    much for a dwarf of 4960 K, suggests the blended lines of two stars, which are what El-Badry+2018 looked for. So the labels
    are asked to be determined and inside the range, no more.
    """
    spectrum = real_spectrum(networks, folder)
    velocities = np.arange(-4.0, 6.1, 0.5)
    flux, ivar = (np.repeat(array, len(velocities), axis=0) for array in (spectrum.flux, spectrum.ivar))
    observed = Spectra.from_arrays(
        networks.wavelength, flux, ivar=ivar, medium="vacuum", frame="observed", meta=Table({"rv": velocities})
    )
    shifted = Resample(wavelengths=tuple(networks.wavelength.tolist()))(observed)
    estimates = EmulatorInferrer(networks, ChiSquareFitter()).infer(shifted)
    best = int(np.argmin(estimates.chi2))
    assert 0 < best < len(velocities) - 1
    assert estimates.status[best] is FitStatus.CONVERGED
    assert not estimates.flag[best] & int(ResultFlag.OUT_OF_RANGE | ResultFlag.AT_BOUND)
    values, errors = estimates.values[best], estimates.errors[best]
    assert np.isfinite(errors).all()
    assert (errors < [20.0, 0.02, 0.01, 0.01, 0.5]).all()
    residual = (shifted.flux[best] - networks.predict_flux(values[None])[0])[shifted.ivar[best] > 0]
    assert 1.4826 * np.median(np.abs(residual)) < 0.01
    assert estimates.chi2[best] / estimates.n_pixels[best] < 5.0
    assert 4800 < values[0] < 5200
    assert 4.4 < values[1] < 4.7
