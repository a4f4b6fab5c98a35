"""The closed-form generator keeps its promises: smooth in the labels, exactly broadened, shifted, and of the noise it states."""

from __future__ import annotations

import numpy as np
import pytest

from maury.errors import UsageError
from maury.grids import AnalyticSpectra
from maury.grids.analytic import CENTRES_AND_WIDTHS
from maury.prepare import Degrade
from maury.spectra import Spectra, empty_meta

GIANT_TO_DWARF = [[4300.0, 1.5, -0.5], [5777.0, 4.44, 0.0], [6700.0, 4.2, 0.3]]
GRID = np.arange(4000.0, 7000.0, 0.5)


@pytest.fixture(scope="module")
def stars() -> AnalyticSpectra:
    return AnalyticSpectra(("teff", "logg", "fe_h"))


@pytest.mark.parametrize("labels", [("teff",), ("teff", "logg", "fe_h"), ("teff", "radius", "mass", "luminosity")])
def test_flux_is_positive_and_below_the_continuum(labels: tuple[str, ...]) -> None:
    generator = AnalyticSpectra(labels)
    middle = [CENTRES_AND_WIDTHS[name][0] for name in labels]
    for teff in (2900.0, 3500.0, 5000.0, 7000.0):
        flux = generator.normalised(GRID, [[teff, *middle[1:]]])
        assert flux.min() > 0.0
        assert flux.max() <= 1.0 + 1e-12


def test_the_same_seed_gives_the_same_spectra_and_another_gives_others(stars: AnalyticSpectra) -> None:
    again, other = AnalyticSpectra(stars.labels), AnalyticSpectra(stars.labels, seed=1)
    np.testing.assert_array_equal(stars.flux(GRID, GIANT_TO_DWARF), again.flux(GRID, GIANT_TO_DWARF))
    assert np.abs(stars.normalised(GRID, GIANT_TO_DWARF) - other.normalised(GRID, GIANT_TO_DWARF)).max() > 0.1


def test_a_label_at_its_centre_is_as_good_as_absent(stars: AnalyticSpectra) -> None:
    without = AnalyticSpectra(("teff",)).normalised(GRID, [[5777.0]])
    centre = [[5777.0, CENTRES_AND_WIDTHS["logg"][0], CENTRES_AND_WIDTHS["fe_h"][0]]]
    np.testing.assert_allclose(stars.normalised(GRID, centre), without, rtol=0, atol=1e-14)


def test_lines_change_smoothly_with_every_label(stars: AnalyticSpectra) -> None:
    # a step of a hundredth moves the flux by a hundredth of what a whole one does, up to the curvature of d = t/(1 + t)
    for step in ([100.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.3]):
        here, small, large = (stars.normalised(GRID, [np.add(GIANT_TO_DWARF[1], np.multiply(step, f))]) for f in (0, 0.01, 1))
        assert 0.005 < np.abs(large - here).max() < 0.2
        np.testing.assert_allclose((small - here) * 100, large - here, atol=0.3 * np.abs(large - here).max())


def test_degrading_gives_the_spectrum_of_the_lower_resolution(stars: AnalyticSpectra) -> None:
    sharp, blunt = (AnalyticSpectra(stars.labels, resolving_power=r) for r in (5000.0, 1800.0))
    fine = np.arange(4800.0, 5600.0, 0.2)
    values = np.array([[3600.0, 4.0, 0.0], GIANT_TO_DWARF[1]])
    meta = empty_meta(2)
    meta["resolving_power"] = 5000.0
    flux = sharp.normalised(fine, values)
    given = Spectra.from_arrays(fine, flux, error=np.full(flux.shape, 0.01), medium="vacuum", frame="rest", meta=meta)
    got = Degrade(resolving_power=1800.0)(given)
    inside = (got.wavelength > 4820.0) & (got.wavelength < 5580.0)
    # 1e-3: pixels have a width and sigma grows by 1 % over a line's wings, which the closed form leaves out
    np.testing.assert_allclose(got.flux[:, inside], blunt.normalised(got.wavelength[inside], values), rtol=0, atol=1e-3)


def test_bands_are_the_convolution_they_claim() -> None:
    sharp, blunt = (AnalyticSpectra(("teff",), resolving_power=r, n_lines=1) for r in (1e5, 800.0))
    grid = np.arange(6900.0, 7400.0, 0.05)
    sigma = 7055.0 / (800.0 * 2.354820045)
    kernel = np.exp(-0.5 * (np.arange(-6 * sigma, 6 * sigma, 0.05) / sigma) ** 2)
    broad = np.convolve(sharp.normalised(grid, [[3000.0]])[0] - 1.0, kernel / kernel.sum(), mode="same") + 1.0
    inside = (grid > 7000.0) & (grid < 7300.0)
    # 2e-3: the reference convolves at a head of finite sharpness on a grid of 0.05 Å, with the kernel half a pixel off centre
    np.testing.assert_allclose(blunt.normalised(grid, [[3000.0]])[0, inside], broad[inside], rtol=0, atol=2e-3)


def test_velocities_shift_wavelengths(stars: AnalyticSpectra) -> None:
    factor = 1.0 + 120.0 / 299_792.458
    shifted = stars.flux(GRID, GIANT_TO_DWARF, velocity=[120.0, 120.0, -50.0])
    np.testing.assert_allclose(shifted[:2], stars.flux(GRID / factor, GIANT_TO_DWARF[:2]), rtol=0, atol=1e-5)
    assert np.abs(shifted[2] - stars.flux(GRID / factor, GIANT_TO_DWARF[2:])[0]).max() > 0.01


def test_repeat_visits_have_the_noise_they_state(stars: AnalyticSpectra) -> None:
    values = np.repeat(GIANT_TO_DWARF, 2, axis=0)
    visits = stars.spectra(GRID, values, snr=[50, 50, 100, 100, 25, 25], seed=4)
    pull = (visits.flux[::2] - visits.flux[1::2]) / np.sqrt(1 / visits.ivar[::2] + 1 / visits.ivar[1::2])
    # 18,000 Gaussian numbers: mean 0 and standard deviation 1 to five standard errors
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)
    assert visits.frame == "rest"


@pytest.mark.parametrize("labels", [("logg",), ("teff", "teff"), ("teff", "colour")])
def test_impossible_label_sets_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="expected different labels among teff, logg"):
        AnalyticSpectra(labels)


def test_impossible_settings_and_values_are_refused(stars: AnalyticSpectra) -> None:
    with pytest.raises(UsageError, match="positive resolving power"):
        AnalyticSpectra(("teff",), resolving_power=0.0)
    with pytest.raises(UsageError, match=r"finite labels of shape \(n, 3\)"):
        stars.flux(GRID, [[5000.0, 4.0]])
    with pytest.raises(UsageError, match="finite labels"):
        stars.flux(GRID, [[5000.0, 4.0, np.nan]])
