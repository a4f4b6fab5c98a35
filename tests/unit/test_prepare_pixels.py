"""Air and vacuum, masks, spikes, signal-to-noise, crop, noise floor, correlated noise."""

from __future__ import annotations

import numpy as np
import pytest

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.flags import PixelFlag
from maury.prepare import (
    CorrelatedNoise,
    Crop,
    FillMasked,
    Mask,
    MeasureSnr,
    NoiseFloor,
    RejectSpikes,
    ToAir,
    ToVacuum,
    air_to_vacuum,
    snr,
    snr_bands,
    snr_sum,
    vacuum_to_air,
)
from maury.spectra import Spectra, empty_meta


def _spectra(wavelength=None, flux=None, ivar=None, *, rv=None, medium="vacuum", frame="observed", mask=None):
    wavelength = np.arange(5000.0, 7000.0) if wavelength is None else wavelength
    flux = np.ones((1, wavelength.size)) if flux is None else np.atleast_2d(flux)
    meta = empty_meta(len(flux))
    if rv is not None:
        meta["rv"] = rv
    weight = np.ones(flux.shape) if ivar is None else np.broadcast_to(ivar, flux.shape)
    return Spectra.from_arrays(wavelength, flux, ivar=weight, medium=medium, frame=frame, meta=meta, mask=mask)


def test_ciddor_against_specutils():
    """specutils 2.4, method Ciddor1996: vacuum to air is the same formula; air to vacuum by its own iteration to 1e-9 Å,
    and by its default 'inversion', which puts the air wavelength into the formula, to 1e-4 Å."""
    utils = pytest.importorskip("specutils.utils.wcs_utils")
    from astropy import units as u

    wavelength = np.linspace(2500.0, 17000.0, 3000)
    theirs = utils.vac_to_air(wavelength * u.AA, method="Ciddor1996").to_value("AA")
    np.testing.assert_allclose(vacuum_to_air(wavelength), theirs, atol=1e-9)
    for scheme, tolerance in (("iteration", 1e-9), ("inversion", 1e-4)):
        theirs = utils.air_to_vac(wavelength * u.AA, scheme=scheme, method="Ciddor1996").to_value("AA")
        np.testing.assert_allclose(air_to_vacuum(wavelength), theirs, atol=tolerance)


def test_known_lines_in_air_and_vacuum():
    """NIST: Hα 6562.79 Å in air is 6564.61 Å in vacuum; Ca II 8542.09 is 8544.44; Na D2 5889.951 is 5891.583."""
    np.testing.assert_allclose(air_to_vacuum(np.array([6562.79, 8542.09, 5889.951])), [6564.61, 8544.44, 5891.583], atol=0.01)


def test_air_there_and_back_and_only_once():
    raw = _spectra(medium="air")
    vacuum = ToVacuum()(raw)
    assert vacuum.medium == "vacuum"
    assert ToVacuum()(vacuum) is vacuum
    back = ToAir()(vacuum)
    assert back.medium == "air"
    np.testing.assert_allclose(back.wavelength, raw.wavelength, atol=1e-9)
    assert ToAir()(back) is back
    with pytest.raises(UsageError, match=r"above 2000 Å for air, got 1500\.0"):
        ToAir()(_spectra(np.arange(1500.0, 1600.0)))


def test_survey_bits_are_masked_by_name_and_grown():
    mask = np.zeros((1, 2000), np.uint32)
    mask[0, 100], mask[0, 200], mask[0, 300] = PixelFlag.BRIGHT_SKY, PixelFlag.NEAR_BAD_PIXEL, PixelFlag.COSMIC_RAY
    raw = _spectra(mask=mask)
    assert list(np.flatnonzero(Mask(presets=())(raw).ivar[0] == 0)) == [100, 300]
    out = Mask(bits=("BRIGHT_SKY",), presets=(), grow=2)(raw)
    assert list(np.flatnonzero(out.ivar[0] == 0)) == [98, 99, 100, 101, 102]
    assert (out.mask[0, [98, 99, 101, 102]] == PixelFlag.NEAR_BAD_PIXEL).all()
    assert out.mask[0, 100] == PixelFlag.BRIGHT_SKY
    with pytest.raises(UsageError, match="expected names among NO_DATA"):
        Mask(bits=("BRIGHTSKY",))


def test_sky_lines_are_masked_where_they_are_on_the_detector():
    """Observed vacuum 5577 ± 3 Å, in any frame and medium: rest-frame spectra of a star at 200 km/s have it at 5573.3 Å."""
    for spectra, shift in ((_spectra(rv=[200.0]), 1.0), (_spectra(rv=[200.0], frame="rest"), 1 + 200 / SPEED_OF_LIGHT_KM_S)):
        out = Mask(presets=("sky_lines",))(spectra)
        observed = out.wavelength * shift
        hit = np.zeros(2000, bool)
        for line in (5460, 5577, 6300, 6363, 6863):
            hit |= np.abs(observed - line) <= 3
        np.testing.assert_array_equal(out.ivar[0] == 0, hit)
        np.testing.assert_array_equal(out.mask[0] == PixelFlag.SKY_LINE, hit)
    in_air = Mask(presets=("sky_lines",))(_spectra(medium="air"))
    np.testing.assert_array_equal(in_air.ivar, Mask(presets=("sky_lines",))(ToVacuum()(_spectra(medium="air"))).ivar)


def test_rest_ranges_follow_the_star():
    out = Mask(bits=(), presets=(), rest_ranges=((6560.0, 6570.0),))(_spectra(rv=[0.0, 300.0], flux=np.ones((2, 2000))))
    for row, rv in enumerate((0.0, 300.0)):
        rest = out.wavelength / (1 + rv / SPEED_OF_LIGHT_KM_S)
        np.testing.assert_array_equal(out.ivar[row] == 0, (rest >= 6560) & (rest <= 6570))
        assert (out.mask[row][out.ivar[row] == 0] == PixelFlag.WAVELENGTH).all()


def test_presets():
    out = Mask(bits=(), presets=("lamost_arm_join", "telluric_oxygen"))(_spectra())
    assert (out.mask[0, 800:1001] == PixelFlag.ARM_JOIN).all()
    assert (out.mask[0, 1860:1961] == PixelFlag.TELLURIC).all()
    with pytest.raises(UsageError, match="expected presets among sky_lines"):
        Mask(presets=("moon",))


def test_spikes_go_and_lines_stay():
    rng = np.random.default_rng(3)
    wavelength = np.arange(5000.0, 7000.0)
    flux = 1 - 0.5 * np.exp(-0.5 * ((wavelength - 5500) / 2) ** 2) + 4 * np.exp(-0.5 * ((wavelength - 6564) / 5) ** 2)
    flux = flux + 0.02 * rng.normal(size=(2, 2000))
    flux[0, 300] += 3
    flux[0, 701:704] += [1.0, 2.5, 0.6]
    out = RejectSpikes()(_spectra(wavelength, flux, 2500.0))
    assert list(np.flatnonzero(out.ivar[0] == 0)) == [300, 701, 702, 703]
    assert (out.mask[0, [300, 701, 702, 703]] == PixelFlag.COSMIC_RAY).all()
    assert (out.ivar[1] > 0).all()


def test_fill_masked_reproduces_the_published_weights():
    out = FillMasked()(_spectra(flux=np.full((1, 2000), 1.1), ivar=np.where(np.arange(2000) == 7, 0.0, 400.0)))
    assert (out.ivar[0, 7], out.flux[0, 7]) == (1e-5, 1.0)
    assert (out.ivar[0, 8], out.flux[0, 8]) == (400.0, 1.1)


def test_signal_to_noise():
    wavelength = np.arange(3500.0, 9500.0)
    flux = np.where(wavelength < 5500, 1.0, 2.0)
    spectra = _spectra(wavelength, flux, 100.0)
    assert snr(spectra, ((6000.0, 6500.0),))[0] == pytest.approx(20)
    assert np.isnan(snr(spectra, ((100.0, 200.0),))[0])
    bands = snr_bands(spectra)
    assert [round(float(bands[b][0]), 6) for b in "ugriz"] == [10, 10, 20, 20, 20]
    out = MeasureSnr(bands=True)(spectra)
    assert snr_sum(out)[0] == pytest.approx(80)
    with pytest.raises(UsageError, match="got no snr_u, snr_g, snr_r, snr_i, snr_z"):
        snr_sum(spectra)


def test_noise_floor():
    out = NoiseFloor(fraction=0.02)(_spectra(flux=np.full((1, 2000), 3.0), ivar=np.where(np.arange(2000) < 5, 0.0, 100.0)))
    assert not out.ivar[0, :5].any()
    np.testing.assert_allclose(1 / out.ivar[0, 5:], 0.1**2 + 0.06**2, rtol=1e-13)


def test_correlated_noise_divides_the_inverse_variance():
    raw = _spectra(ivar=np.where(np.arange(2000) < 5, 0.0, 100.0))
    out = CorrelatedNoise(pixels=3.8)(raw)
    assert not out.ivar[0, :5].any()
    np.testing.assert_allclose(out.ivar[0, 5:], 100.0 / 3.8, rtol=1e-13)
    np.testing.assert_array_equal(out.flux, raw.flux)
    np.testing.assert_array_equal(CorrelatedNoise()(raw).ivar, raw.ivar)  # 1: independent noise


def test_correlated_noise_makes_the_error_of_a_sum_right_again():
    """Gaia's 0.245 Å pixels on a grid of 0.1 Å: white noise, interpolated; sums over 20 Å, that a line's width is small beside.

    1000 sums: their scatter is known to 2.2 %, the limit is four of that. Linear interpolation has ρ(k) of its own: the factor is
    measured here, as docs/method.md does it for Gaia.
    """
    rng = np.random.default_rng(8)
    fine, coarse = np.arange(5000.0, 5100.0, 0.1), np.arange(4990.0, 5110.0, 0.245)
    noise = np.array([np.interp(fine, coarse, row) for row in rng.normal(size=(1000, len(coarse)))])
    variance = noise.var()
    rho = [np.mean(noise[:, :-k] * noise[:, k:]) / variance for k in range(1, 6)]
    spectra = _spectra(fine, 1.0 + noise, np.full(noise.shape, 1.0 / variance))
    out = CorrelatedNoise(pixels=float(1.0 + 2.0 * np.sum(rho)))(spectra)
    inside = slice(400, 600)
    claimed = np.sqrt((1.0 / out.ivar[:, inside]).sum(axis=1)).mean()
    assert noise[:, inside].sum(axis=1).std() == pytest.approx(claimed, rel=4 * 0.022)


def test_correlated_noise_is_for_the_sources_that_it_names():
    raw = _spectra(flux=np.ones((3, 2000)))
    meta = raw.meta.copy()
    meta["format"] = ["gaia-rvs", "hpf", "maury"]
    meta["instrument"] = ["Gaia RVS", "HPF", "Gaia RVS"]
    raw = Spectra.from_arrays(raw.wavelength, raw.flux, ivar=raw.ivar, medium="vacuum", frame="observed", meta=meta)
    for settings, factors in (
        ({"only": ("gaia-rvs",)}, [0.25, 1, 1]),
        ({"only": ("Gaia RVS",)}, [0.25, 1, 0.25]),
        ({"skip": ("hpf",)}, [0.25, 1, 0.25]),
        ({"only": ("Gaia RVS",), "skip": ("maury",)}, [0.25, 1, 1]),
    ):
        np.testing.assert_array_equal(CorrelatedNoise(pixels=4.0, **settings)(raw).ivar, np.array(factors)[:, None] * raw.ivar)


def test_crop():
    out = Crop(start=5100.0, stop=5199.5)(_spectra(mask=np.arange(2000, dtype=np.uint32)[None]))
    assert (out.wavelength[0], out.wavelength[-1], out.n_pixels, int(out.mask[0, 0])) == (5100.0, 5199.0, 100, 100)
    with pytest.raises(UsageError, match=r"expected spectra with pixels in 8000\.0–9000\.0 Å"):
        Crop(start=8000.0, stop=9000.0)(_spectra())


def test_impossible_settings_are_said():
    for make, text in (
        (lambda: Mask(grow=-1), "grow"),
        (lambda: Mask(ranges=((6000.0, 5000.0),)), "0 < low < high"),
        (lambda: RejectSpikes(threshold=1.0), "neighbour_threshold ≤ threshold"),
        (lambda: FillMasked(ivar=0.0), "positive ivar"),
        (lambda: NoiseFloor(fraction=-1.0), "fraction of the flux"),
        (lambda: CorrelatedNoise(pixels=0.5), "at least 1 pixel that shares its noise, got 0.5; 1 is independent noise"),
        (lambda: CorrelatedNoise(pixels=np.nan), "at least 1 pixel"),
        (lambda: Crop(start=2.0, stop=1.0), "0 < low < high"),
    ):
        with pytest.raises(UsageError, match=text):
            make()
