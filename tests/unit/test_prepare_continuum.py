"""Pseudo-continua against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from maury.errors import UsageError
from maury.prepare import GaussianContinuum, PolynomialContinuum, RunningMedian, Scale
from maury.prepare.continuum import gaussian_continuum, masked_median
from maury.prepare.median import running_median
from maury.spectra import Spectra


def _noisy(n=4, p=500, spacing=1.0):
    rng = np.random.default_rng(8)
    wavelength = 5000 + spacing * np.arange(p)
    flux = rng.lognormal(0, 0.5, (n, p))
    ivar = rng.uniform(0.1, 3, (n, p))
    ivar[rng.random((n, p)) < 0.2] = 0.0
    ivar[0, 100:300] = 0.0  # wider than many windows
    return wavelength, flux, ivar


def _spectra(wavelength, flux, ivar):
    return Spectra.from_arrays(wavelength, flux, ivar=ivar, medium="vacuum", frame="rest")


@pytest.mark.parametrize("half", [1, 2, 10, 60, 1000])
def test_running_median_is_the_median_of_the_good_pixels(half):
    _, flux, ivar = _noisy()
    good = ivar > 0
    fast = running_median(flux, good, half)
    for row in range(len(flux)):
        for i in range(flux.shape[1]):
            window = slice(max(0, i - half), i + half + 1)
            values = flux[row, window][good[row, window]]
            wanted = np.median(values) if values.size else np.nan
            np.testing.assert_allclose(fast[row, i], wanted, rtol=1e-14)


def test_running_median_step():
    wavelength, flux, ivar = _noisy()
    out = RunningMedian(window=40)(_spectra(wavelength, flux, ivar))
    continuum = running_median(flux, ivar > 0, 20)
    good = out.ivar > 0
    np.testing.assert_array_equal(good, (ivar > 0) & np.isfinite(continuum))
    np.testing.assert_allclose(out.flux[good], (flux / continuum)[good], rtol=1e-14)
    np.testing.assert_allclose(out.ivar[good], (ivar * continuum**2)[good], rtol=1e-14)


@pytest.mark.parametrize(("variant", "exponent"), [("paper", 1.0), ("code", 0.5)])
@pytest.mark.parametrize("weights", ["ivar", "uniform"])
@pytest.mark.parametrize("spacing", [0.3, 1.0, 2.9])
def test_gaussian_continuum_is_its_formula(variant, exponent, weights, spacing):
    """METHODS 0.4 written out with the full matrix; the factored form agrees to 1e-9."""
    wavelength, flux, ivar = _noisy(p=900, spacing=spacing)
    kernel = np.exp(-exponent * ((wavelength[:, None] - wavelength) / 50.0) ** 2)
    weight = ivar if weights == "ivar" else (ivar > 0).astype(float)
    continuum = ((flux * weight) @ kernel) / (weight @ kernel)
    out = GaussianContinuum(variant=variant, weights=weights)(_spectra(wavelength, flux, ivar))
    good = ivar > 0
    np.testing.assert_array_equal(out.ivar > 0, good)
    np.testing.assert_allclose(out.flux[good], (flux / continuum)[good], rtol=1e-9)
    np.testing.assert_allclose(out.ivar[good], (ivar * continuum**2)[good], rtol=1e-9)


def test_gaussian_continuum_on_an_irregular_grid_with_a_gap():
    rng = np.random.default_rng(9)
    wavelength = np.cumsum(rng.uniform(0.1, 2.0, 600)) + 4000
    wavelength[300:] += 700.0
    flux, weight = rng.lognormal(0, 0.3, (2, 600)), rng.uniform(1, 2, (2, 600))
    kernel = np.exp(-0.5 * ((wavelength[:, None] - wavelength) / 30.0) ** 2)
    np.testing.assert_allclose(
        gaussian_continuum(wavelength, flux, weight, 30.0), ((flux * weight) @ kernel) / (weight @ kernel), rtol=1e-9
    )


def test_a_continuum_that_is_not_positive_masks_its_pixels():
    wavelength = np.arange(5000.0, 5400.0)
    flux = np.where(wavelength < 5200, 1.0, -1.0)[None]
    for step in (RunningMedian(window=20), GaussianContinuum(length=10.0)):
        out = step(_spectra(wavelength, flux, np.ones((1, 400))))
        np.testing.assert_allclose(out.ivar[0, :150], 1, rtol=1e-9)
        assert not out.ivar[0, 250:].any()


@pytest.mark.parametrize("degree", [0, 3, 6])
def test_polynomial_finds_the_continuum_above_the_lines(degree):
    """A polynomial with 25 strong lines in it and 0.5 % noise: the envelope is found to 1 %, at any flux unit."""
    rng = np.random.default_rng(10)
    wavelength = np.arange(5000.0, 6000.0)
    x = (wavelength - 5500) / 500
    truth = np.polynomial.polynomial.polyval(x, [2.0, 0.5, -0.3, 0.2, 0.1, -0.05, 0.03][: degree + 1])
    lines = 1 - sum(0.7 * np.exp(-0.5 * ((wavelength - c) / 2) ** 2) for c in np.linspace(5010, 5990, 25))
    flux = truth * (lines + 0.005 * rng.normal(size=(3, 1000))) * np.array([[1.0], [1e-16], [1e8]])
    sigma = 0.005 * truth * np.array([[1.0], [1e-16], [1e8]])
    out = PolynomialContinuum(degree=degree)(_spectra(wavelength, flux, 1 / sigma**2))
    np.testing.assert_allclose(out.flux, np.tile(lines, (3, 1)), atol=0.03)
    assert np.abs(np.median(out.flux / lines) - 1) < 0.01


def test_polynomial_with_too_few_pixels_is_undefined():
    wavelength = np.arange(5000.0, 5100.0)
    ivar = np.zeros((2, 100))
    ivar[0] = 1
    ivar[1, :3] = 1
    out = PolynomialContinuum(degree=4)(_spectra(wavelength, np.ones((2, 100)), ivar))
    np.testing.assert_allclose(out.flux[0], 1.0, rtol=1e-10)
    assert not out.ivar[1].any()


def test_scale_divides_by_the_median_in_the_range():
    wavelength, flux, ivar = _noisy()
    out = Scale(ranges=((5100.0, 5200.0), (5400.0, 5450.0)))(_spectra(wavelength, flux, ivar))
    inside = ((wavelength >= 5100) & (wavelength <= 5200)) | ((wavelength >= 5400) & (wavelength <= 5450))
    for row in range(4):
        level = np.median(flux[row][inside & (ivar[row] > 0)])
        np.testing.assert_allclose(out.flux[row], np.where(ivar[row] > 0, flux[row], 0) / level, rtol=1e-14)
        np.testing.assert_allclose(out.ivar[row], ivar[row] * level**2, rtol=1e-14)


def test_masked_median():
    values = np.array([[3.0, 1.0, 2.0, 9.0], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    good = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(masked_median(values, good), [2.0, 2.5, np.nan])


def test_impossible_settings_are_said():
    for make, text in (
        (lambda: RunningMedian(window=1), "window of at least 3"),
        (lambda: GaussianContinuum(length=0.0), "positive length"),
        (lambda: GaussianContinuum(variant="theirs"), "variant among paper, code"),
        (lambda: GaussianContinuum(weights="all"), "weights among ivar, uniform"),
        (lambda: PolynomialContinuum(degree=-1), "degree 0–30"),
        (lambda: Scale(ranges=((2.0, 1.0),)), "0 < low < high"),
    ):
        with pytest.raises(UsageError, match=text):
            make()
