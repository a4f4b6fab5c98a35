"""The region of the training labels: who lies outside is flagged, who lies in a void too, who lies in the middle is not."""

from __future__ import annotations

import numpy as np
import pytest

from maury.assess.region import TrainingRegion
from maury.emulate import PayneConfig, train_cannon, train_payne
from maury.estimates import LabelEstimates
from maury.fit import ChiSquareFitter, EmulatorInferrer
from maury.flags import ResultFlag
from maury.grids import AnalyticSpectra
from maury.labels import LabelSet, make_label
from maury.protocols import Emulator

NAMES = ("teff", "logg", "fe_h")
LABELS = tuple(make_label(n, "K" if n == "teff" else "dex", "inverse" if n == "teff" else "linear") for n in NAMES)
LOWER, UPPER = np.array([4500.0, 1.5, -1.0]), np.array([6500.0, 4.5, 0.3])
WAVELENGTH = np.arange(4000.0, 7000.0, 6.0)
REGION_BITS = int(
    ResultFlag.OUT_OF_RANGE | ResultFlag.AT_BOUND | ResultFlag.OUTSIDE_TRAINING | ResultFlag.THIN_TRAINING
)  # other bits, such as POOR_CHI2 or NOT_CONVERGED, must not be what saves the day


Trained = tuple[Emulator, TrainingRegion, np.ndarray]


@pytest.fixture(scope="module", params=["cannon", "payne"])
def trained(request: pytest.FixtureRequest) -> Trained:
    """A Cannon, and a Payne: networks extrapolate otherwise than polynomials do."""
    values = LOWER + np.random.default_rng(5).random((800, 3)) * (UPPER - LOWER)
    spectra = AnalyticSpectra(NAMES).spectra(WAVELENGTH, values, snr=200.0, seed=1)
    emulator: Emulator
    if request.param == "cannon":
        emulator = train_cannon(spectra, LABELS, values)
    else:
        emulator = train_payne(spectra, LABELS, values, PayneConfig(components=20)).emulator
    return emulator, TrainingRegion.from_training(emulator.labels, values), values


def fitted(trained: Trained, values: np.ndarray, snr: float) -> LabelEstimates:
    """Labels of simulated stars as a catalogue would have them: a real fit of noisy spectra, then the region's judgement."""
    emulator, region, _ = trained
    spectra = AnalyticSpectra(NAMES).spectra(WAVELENGTH, values, snr=snr, seed=2)
    return region.flag(EmulatorInferrer(emulator, ChiSquareFitter()).infer(spectra))


@pytest.mark.parametrize("snr", [60.0, 200.0])
def test_a_thousand_stars_outside_the_training_range_are_all_flagged(trained: Trained, snr: float) -> None:
    """One label lies beyond the range by 15-100 % of its width, the fit's bounds 10 % beyond it.

    S/N 60 and more: there 15 % are more than three times the errors of the fit. At S/N 30 the error of log g is 0.26 dex, and
    noise alone brings a star 0.57 dex beyond the range back into it once in a thousand.
    """
    rng = np.random.default_rng(6)
    width = UPPER - LOWER
    values = LOWER + rng.random((1000, 3)) * width
    star, label, beyond = np.arange(1000), rng.integers(0, 3, 1000), rng.uniform(0.15, 1.0, 1000)
    edge = np.where(rng.random(1000) < 0.5, LOWER[label] - beyond * width[label], UPPER[label] + beyond * width[label])
    values[star, label] = edge
    estimates = fitted(trained, values, snr)
    assert ((estimates.flag & REGION_BITS) > 0).all()


def test_stars_in_the_middle_are_not(trained: Trained) -> None:
    middle = LOWER + (0.25 + 0.5 * np.random.default_rng(7).random((1000, 3))) * (UPPER - LOWER)
    assert (fitted(trained, middle, 100.0).flag == 0).all()


def test_of_the_training_stars_one_percent_at_most_is_thin(trained: Trained) -> None:
    emulator, region, values = trained
    assert 0 < region.thin(emulator.labels, values).mean() <= 0.01


class TestVoid:
    """Two clumps of stars and nothing between them: hull and ellipsoid hold the void, the density does not."""

    values = np.vstack([np.random.default_rng(8).normal(centre, [100.0, 0.2], (300, 2)) for centre in ([4500, 2.0], [6500, 4.5])])
    labels = LabelSet.from_training(LABELS[:2], values)
    region = TrainingRegion.from_training(labels, values)
    void = np.array([[5500.0, 3.25]])

    def test_its_middle_is_thin_though_inside(self) -> None:
        bits = self.region.bits(self.labels, np.vstack([self.void, [4500.0, 2.0], [np.nan, 2.0]]))
        np.testing.assert_array_equal(bits, [int(ResultFlag.THIN_TRAINING), 0, 0])

    def test_saved_and_loaded_is_equal(self) -> None:
        arrays, config = self.region.to_arrays()
        assert arrays["stars"].dtype == np.float32
        loaded = TrainingRegion.from_arrays(arrays, config)
        grid = np.stack(np.meshgrid(np.linspace(4000, 7000, 30), np.linspace(1, 5, 30)), axis=-1).reshape(-1, 2)
        np.testing.assert_array_equal(loaded.bits(self.labels, grid), self.region.bits(self.labels, grid))

    def test_a_model_file_of_before_has_no_density(self) -> None:
        arrays, config = self.region.to_arrays()
        del arrays["stars"], config["density"]
        old = TrainingRegion.from_arrays(arrays, config)
        assert not old.thin(self.labels, self.void).any()
        assert not old.outside(self.labels, self.void).any()

    def test_few_stars_have_no_density(self) -> None:
        assert TrainingRegion.from_training(self.labels, self.values[::7]).density is None
