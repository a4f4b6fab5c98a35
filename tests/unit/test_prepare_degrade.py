"""Degradation against the closed form: a Gaussian line broadened by a Gaussian is a Gaussian."""

from __future__ import annotations

import numpy as np
import pytest

from maury.constants import FWHM_PER_SIGMA
from maury.errors import UsageError
from maury.flags import PixelFlag
from maury.prepare import Degrade
from maury.prepare.lsf import Lsf, lsf_from
from maury.spectra import Spectra, empty_meta

LINES = ((5030.0, 0.6, 0.0), (5062.3, 0.3, 0.4), (5100.7, 0.5, 0.0))
"""Centre Å, equivalent width Å, extra σ Å."""


def _truth(wavelength, sigma):
    """Flux of the lines with an instrument of width sigma (Å)."""
    flux = np.ones(np.broadcast_shapes(wavelength.shape, np.shape(sigma)))
    for centre, width, own in LINES:
        total = np.sqrt(sigma**2 + own**2)
        flux = flux - width / (total * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((wavelength - centre) / total) ** 2)
    return flux


def _spectra(wavelength, flux, ivar=1e4, **meta_columns):
    flux = np.atleast_2d(flux)
    meta = empty_meta(len(flux))
    for name, values in meta_columns.items():
        meta[name] = values
    return Spectra.from_arrays(wavelength, flux, ivar=np.broadcast_to(ivar, flux.shape), medium="vacuum", frame="rest", meta=meta)


@pytest.mark.parametrize("target_fwhm", [2.51, 2.6, 2.8, 3.2, 4.0, 8.0])
@pytest.mark.parametrize("grid", ["linear", "log", "warped"])
def test_known_broadening_is_recovered(target_fwhm, grid):
    """From FWHM 2.5 Å on 0.9 Å pixels (MILES) to anything broader: within 1e-4 of the closed form, narrow kernels too."""
    wavelength = {
        "linear": 4980 + 0.9 * np.arange(170),
        "log": 4980 * 10 ** (7.5e-5 * np.arange(175)),
        "warped": 4980 + 0.9 * np.arange(170) + 3 * np.sin(np.arange(170) / 25),
    }[grid]
    native, target = 2.5 / FWHM_PER_SIGMA, target_fwhm / FWHM_PER_SIGMA
    out = Degrade(fwhm=target_fwhm)(_spectra(wavelength, _truth(wavelength, native), fwhm=2.5))
    good = out.ivar[0] > 0
    assert good.sum() > 130
    np.testing.assert_allclose(out.flux[0][good], _truth(wavelength, target)[good], atol=1e-4)
    assert out.meta["fwhm"][0] == target_fwhm
    assert np.isnan(out.meta["resolving_power"][0])


def test_against_a_twenty_times_oversampled_integral():
    """Lines of no closed form (boxes broadened by the native LSF), kernel varying along λ: constant R from constant FWHM."""
    fine = np.arange(4900.0, 5200.0, 0.05)
    raw = 1 - 0.5 * ((np.abs(fine - 5040) < 4) | (np.abs(fine - 5100.3) < 1.7) | (np.abs(fine - 5111) < 1))
    native = 3.0 / FWHM_PER_SIGMA

    def smooth(at, sigma):
        kernel = np.exp(-0.5 * ((fine - at[:, None]) / np.broadcast_to(sigma, at.shape)[:, None]) ** 2)
        return (kernel * raw).sum(axis=1) / kernel.sum(axis=1)

    wavelength = np.arange(4950.0, 5150.0, 1.0)
    out = Degrade(resolving_power=800.0, native_fwhm=3.0)(_spectra(wavelength, smooth(wavelength, native)))
    wanted = smooth(wavelength, wavelength / 800.0 / FWHM_PER_SIGMA)
    good = out.ivar[0] > 0
    np.testing.assert_allclose(out.flux[0][good], wanted[good], atol=1e-4)


@pytest.mark.parametrize("options", [{"fwhm": 2.7}, {"fwhm": 6.0}, {"resolving_power": 1000.0}])
def test_equivalent_widths_are_conserved(options):
    wavelength = 4900 + 0.9 * np.arange(330)
    before = _truth(wavelength, 2.5 / FWHM_PER_SIGMA)
    out = Degrade(**options, native_fwhm=2.5)(_spectra(wavelength, before))
    lost, kept = (1 - before).sum(), (1 - out.flux[0])[out.ivar[0] > 0].sum()
    np.testing.assert_allclose(kept, lost, rtol=1e-6)


def test_a_constant_stays_constant():
    wavelength = 4000 * 10 ** (1e-4 * np.arange(1000))
    table = ((4000.0, 2.6), (4500.0, 6.0), (5100.0, 2.52))
    out = Degrade(table=table, native_fwhm=2.5)(_spectra(wavelength, np.full(1000, 7.25)))
    good = out.ivar[0] > 0
    assert good.sum() > 980
    np.testing.assert_allclose(out.flux[0][good], 7.25, rtol=1e-13)


def test_masked_pixels_do_not_leak_and_their_neighbours_survive():
    wavelength = 4980 + 0.9 * np.arange(170)
    flux, ivar = _truth(wavelength, 2.5 / FWHM_PER_SIGMA), np.full(170, 1e4)
    flux[10], ivar[10] = 1e7, 0.0
    out = Degrade(fwhm=5.0, native_fwhm=2.5)(_spectra(wavelength, flux, ivar))
    good = out.ivar[0] > 0
    assert good[10]
    np.testing.assert_allclose(out.flux[0][5:16], 1.0, atol=1e-3)


def test_ends_and_gaps_are_given_up_not_wrapped():
    """On a slope, a pixel whose kernel hangs over the end would be biased; more than 2 % over, it is masked."""
    wavelength = np.concatenate([np.arange(5000.0, 5100.0), np.arange(5150.0, 5250.0)])
    slope = wavelength / 5000
    out = Degrade(fwhm=7.0, native_fwhm=3.0)(_spectra(wavelength, slope))
    good = out.ivar[0] > 0
    assert not good[[0, 1, 99, 100, 199]].any()
    assert (out.mask[0][~good] == PixelFlag.WAVELENGTH).all()
    assert good.sum() > 170
    np.testing.assert_allclose(out.flux[0][good], slope[good], atol=1e-4)


@pytest.mark.parametrize(("variance", "low", "high"), [("information", 0.95, 1.05), ("marginal", 2.0, 5.0)])
def test_the_error_of_a_mean_over_many_pixels(variance, low, high):
    """A constant fitted to smoothed noise, pixels taken as independent: pulls of 1 with "information".

    With "marginal" they are wider by the root of the number of pixels a kernel holds (2√π σ = 6.6 for σ = 1.85 pixels):
    this is what "information" is for. 3000 spectra, fixed seed: 1.3 %.
    """
    rng = np.random.default_rng(1)
    wavelength = np.arange(5000.0, 5300.0)
    spectra = _spectra(wavelength, 1 + 0.1 * rng.normal(size=(3000, 300)), 100.0)
    out = Degrade(fwhm=5.0, native_fwhm=2.5, variance=variance)(spectra)
    mean = (out.flux * out.ivar).sum(axis=1) / out.ivar.sum(axis=1)
    assert low < ((mean - 1) * np.sqrt(out.ivar.sum(axis=1))).std() < high


def test_the_marginal_variance_is_that_of_a_pixel():
    rng = np.random.default_rng(2)
    wavelength = np.arange(5000.0, 5300.0)
    for fwhm in (2.6, 5.0):
        spectra = _spectra(wavelength, 1 + 0.1 * rng.normal(size=(1000, 300)), 100.0)
        out = Degrade(fwhm=fwhm, native_fwhm=2.5, variance="marginal")(spectra)
        assert 0.98 < ((out.flux - 1)[out.ivar > 0] ** 2 * out.ivar[out.ivar > 0]).mean() < 1.02


def test_negative_weights_of_narrow_kernels_do_not_make_variances_negative():
    """Beside one pixel with a variance 1e7 times the others' (it crashed); constant variances stay as they are."""
    wavelength = np.arange(5000.0, 5300.0)
    ivar = np.full(300, 1e4)
    narrow = Degrade(fwhm=2.6, native_fwhm=2.5)
    np.testing.assert_allclose(narrow(_spectra(wavelength, np.ones(300), ivar)).ivar[0, 5:-5], 1e4, rtol=1e-12)
    ivar[150] = 1e-3
    out = narrow(_spectra(wavelength, np.ones(300), ivar)).ivar[0]
    assert (out[5:-5] > 0).all()
    assert (out <= 1e4 * (1 + 1e-12)).all()
    np.testing.assert_allclose(out[150], 1e-3, rtol=0.5)


def test_narrow_kernels_do_not_reach_over_a_gap():
    """What stands beyond the gap has no influence, and noise beside it is not amplified."""
    wavelength = np.concatenate([np.arange(5000.0, 5100.0), np.arange(5103.0, 5200.0)])
    noise = np.random.default_rng(6).normal(size=(400, wavelength.size))
    step = Degrade(fwhm=3.0, native_fwhm=2.5, edge_tolerance=0.3)  # σ of 0.70 pixel
    out = step(_spectra(wavelength, noise))
    used = out.ivar[0] > 0
    assert out.flux.std(axis=0)[used].max() < 1.1
    other = step(_spectra(wavelength, np.where(wavelength > 5101, 1e3, noise)))
    np.testing.assert_array_equal(other.flux[:, :100], out.flux[:, :100])


def test_the_native_resolution_is_found():
    wavelength = np.arange(5000.0, 5200.0)
    flux = np.tile(_truth(wavelength, 2.5 / FWHM_PER_SIGMA), (3, 1))
    spectra = _spectra(
        wavelength,
        flux,
        instrument=["lamost", "miles", "x"],
        resolving_power=[1800.0, np.nan, 2000.0],
        fwhm=[np.nan, 2.5, np.nan],
    )
    step = Degrade(fwhm=5.0, native={"lamost": {"fwhm": 2.5}})
    out = step(spectra)
    np.testing.assert_allclose(out.flux[0], out.flux[1], rtol=1e-13)  # lamost's entry wins over its meta
    by_hand = Degrade(fwhm=5.0, native_resolving_power=2000.0)(spectra)
    np.testing.assert_allclose(out.flux[2], by_hand.flux[2], rtol=1e-13)


def test_what_cannot_be_degraded_is_said():
    spectra = _spectra(np.arange(5000.0, 5200.0), np.ones(200), fwhm=2.5)
    with pytest.raises(
        UsageError, match=r"expected a target resolution lower .* FWHM 2.400 Å from 2.500 Å at 5000.0 Å; .* allow_sharper"
    ):
        Degrade(fwhm=2.4)(spectra)
    np.testing.assert_allclose(Degrade(fwhm=2.4, allow_sharper=0.05)(spectra).flux, 1.0, rtol=1e-13)
    unknown = _spectra(np.arange(5000.0, 5200.0), np.ones(200))
    with pytest.raises(UsageError, match=r"expected the native resolution of 0 \(unknown instrument\), got none"):
        Degrade(fwhm=4.0)(unknown)
    for bad, text in (
        ({}, "expected a target resolution, got none"),
        ({"fwhm": 1.0, "resolving_power": 2.0}, "got several; keep one"),
        ({"fwhm": -1.0}, "positive target resolution"),
        ({"table": ((5000.0, 1.0), (4000.0, 1.0))}, "increasing wavelengths"),
        ({"fwhm": 1.0, "native": {"x": {"r": 1}}}, "one of the keys resolving_power, fwhm, table"),
        ({"fwhm": 1.0, "allow_sharper": -1.0}, "allow_sharper"),
    ):
        with pytest.raises(UsageError, match=text):
            Degrade(**bad)


def test_line_spread_functions():
    wavelength = np.array([4000.0, 5000.0, 6000.0])
    np.testing.assert_array_equal(Lsf(resolving_power=2000.0).fwhm_at(wavelength), [2.0, 2.5, 3.0])
    np.testing.assert_array_equal(lsf_from("x", None, None, [[4500, 1.0], [5500, 3.0]]).fwhm_at(wavelength), [1, 2, 3])


def test_text_is_no_native_resolution():
    """A column of text: entries that are numbers count, others are unknown."""
    flux = np.ones((2, 200))
    spectra = _spectra(np.arange(5000.0, 5200.0), flux, fwhm=["2.5", "sharp"])
    np.testing.assert_allclose(Degrade(fwhm=4.0)(spectra[[0]]).flux[:, 20:-20], 1.0, rtol=1e-13)
    with pytest.raises(UsageError, match=r"expected the native resolution of 1 .*got none"):
        Degrade(fwhm=4.0)(spectra)
