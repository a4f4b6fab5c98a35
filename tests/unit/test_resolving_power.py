"""A resolving power of its own for each spectrum: against closed forms and against the kernels of the instrument step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maury.constants import FWHM_PER_SIGMA
from maury.errors import UsageError
from maury.grids import AnalyticSpectra
from maury.prepare import convolve_instrument
from maury.prepare.resolving_power import GaussianProfile, convolve_resolving_power

STAR = AnalyticSpectra(("teff", "logg", "m_h"), resolving_power=60_000, n_lines=2000)
WAVELENGTH = np.arange(8700.0, 8900.0, 0.04)
LABELS = np.array([[3500.0, 4.5, 0.0], [3700.0, 5.0, 0.5], [3400.0, 5.0, -0.5]])
WELL_INSIDE = slice(200, -200)  # 8 Å: 3 FWHM at R = 5000 are 5 Å
NATIVE: tuple[dict[str, Any], ...] = ({}, {"native_resolving_power": 60_000.0}, {"native_fwhm": 0.15})


@pytest.mark.parametrize("native", NATIVE)
def test_each_row_is_what_the_instrument_makes_of_it(native: dict[str, Any]) -> None:
    """To 1e-4 of the continuum, row by row, from Gebran's range of R to that of the spectra themselves."""
    power = np.array([5000.0, 6234.5, 9000.0, 11_500.0, 14_500.0, 20_000.0, 30_000.0, 50_000.0])
    flux = STAR.flux(WAVELENGTH, LABELS)[np.arange(8) % 3]
    flux /= flux.max(axis=1, keepdims=True)
    found = convolve_resolving_power(WAVELENGTH, flux, power, **native)
    for row, one in enumerate(power):
        expected = convolve_instrument(WAVELENGTH, flux[row], resolving_power=one, **native)
        assert np.abs(found[row] - expected)[WELL_INSIDE].max() < 1e-4
    lowest_contrast = np.ptp(found[:, WELL_INSIDE], axis=1).min()
    assert lowest_contrast > 0.05  # else there would be nothing to compare


def test_a_line_becomes_as_broad_as_the_quadratic_sum() -> None:
    """Gaussians in ln λ: a depth of d s/√(s² + σ²), in closed form, from lines of two pixels."""
    power = np.array([5000.0, 11_500.0, 40_000.0])
    s = 2 * 0.04 / 8800.0
    u = np.log(WAVELENGTH / 8800.0)
    found = convolve_resolving_power(WAVELENGTH, 1 - 0.8 * np.exp(-0.5 * (u / s) ** 2), power)
    broad = np.sqrt(s**2 + (1 / (FWHM_PER_SIGMA * power)) ** 2)[:, None]
    expected = 1 - 0.8 * s / broad * np.exp(-0.5 * (u / broad) ** 2)
    # the transform is tabulated to 2e-6 and polynomials of degree 15 interpolate lines of two pixels to 1e-5
    assert np.abs(found - expected).max() < 2e-5


def test_at_the_lowest_resolving_power_the_two_still_agree() -> None:
    """The worst line: as broad as the instrument, black in its centre."""
    wavelength = np.arange(8200.0, 9000.0, 0.1)
    s = 8600.0 / 1000.0 / FWHM_PER_SIGMA
    flux = 1 - np.exp(-0.5 * ((wavelength - 8600.0) / s) ** 2)
    difference = convolve_resolving_power(wavelength, flux, 1000.0) - convolve_instrument(
        wavelength, flux, resolving_power=1000.0
    )
    assert 2e-5 < np.abs(difference[400:-400]).max() < 1e-4


def test_versions_of_one_spectrum_are_those_made_one_by_one() -> None:
    power = np.array([5000.0, 7000.0, 14_500.0])
    flux = STAR.flux(WAVELENGTH, LABELS[:1])[0]
    together = convolve_resolving_power(WAVELENGTH, flux, power, native_fwhm=0.15)
    assert together.shape == (3, WAVELENGTH.size)
    for row, one in zip(together, power, strict=True):
        alone = convolve_resolving_power(WAVELENGTH, flux, float(one), native_fwhm=0.15)
        assert np.allclose(row, alone, rtol=1e-12)


def test_a_spectrum_wanted_at_its_own_resolving_power_stays_as_it_is() -> None:
    flux = STAR.flux(WAVELENGTH, LABELS)
    assert np.array_equal(convolve_resolving_power(WAVELENGTH, flux, 60_000.0, native_resolving_power=60_000.0), flux)


def test_the_profile_is_the_normal_distribution() -> None:
    """Moments 1, 3, 15 of σ = 1; transform and integral by sums over the density, which are exact for a Gaussian."""
    profile, x = GaussianProfile(), np.linspace(-9, 9, 1801)
    density = profile.density(x)
    assert [profile.moment(k) for k in (1, 2, 3)] == [1.0, 3.0, 15.0]
    for k in (1, 2, 3):
        assert np.sum(density * x ** (2 * k)) * 0.01 == pytest.approx(profile.moment(k), rel=1e-10)
    assert np.sum(density * np.cos(1.7 * x)) * 0.01 == pytest.approx(float(profile.transform(np.array(1.7))), rel=1e-10)
    assert profile.cumulative(np.array([0.0, 1.0])) == pytest.approx([0.5, 0.8413447460685429], rel=1e-12)


@pytest.mark.parametrize(
    ("power", "native", "sentence"),
    [
        (999.0, {}, "expected resolving powers of 1000 or more, got 999; correct them"),
        (np.nan, {}, "expected resolving powers of 1000 or more, got nan"),
        (np.inf, {}, "expected resolving powers of 1000 or more, got inf"),
        (60_001.0, {"native_resolving_power": 60_000.0}, "of 1000 to 60000, what the spectra have, got 60001"),
        (60_000.0, {"native_fwhm": 0.15}, "of 1000 to 58000, what the spectra have, got 60000"),  # 8700/0.15
        (5000.0, {"native_fwhm": 0.0}, "expected a positive native FWHM, got 0"),
        (
            5000.0,
            {"native_fwhm": 0.1, "native_resolving_power": 9e4},
            "expected one of native resolving power and FWHM, got both",
        ),
    ],
)
def test_impossible_resolving_powers_are_refused(power: float, native: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        convolve_resolving_power(WAVELENGTH, np.ones(WAVELENGTH.size), power, **native)
