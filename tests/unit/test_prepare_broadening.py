"""The steps rotate and macroturbulence, the Voigt profile of degrade, and what they refuse.

Their accuracy is measured in tests/recovery/test_kernels.py.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from maury.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.flags import PixelFlag
from maury.prepare import Degrade, Macroturbulence, Rotate, convolve_instrument, macroturbulence_flux, rotate_flux
from maury.prepare.profiles import RadialTangentialProfile, RotationProfile, tabulated_transform, voigt_profile, voigt_widths
from maury.spectra import Spectra, empty_meta

WAVELENGTH = np.arange(8500.0, 8560.0, 0.1)
KM_S_PER_PIXEL = 0.1 / 8530 * SPEED_OF_LIGHT_KM_S  # 3.5
PROFILES = [RotationProfile(), RotationProfile(0.0), RotationProfile(1.0), RadialTangentialProfile()]


def _line(depth=0.6, sigma=0.3, centre=8530.0):
    return 1 - depth * np.exp(-0.5 * ((WAVELENGTH - centre) / sigma) ** 2)


def _spectra(flux, ivar=1e4, wavelength=WAVELENGTH, **meta_columns):
    flux = np.atleast_2d(flux)
    meta = empty_meta(len(flux))
    for name, values in meta_columns.items():
        meta[name] = values
    return Spectra.from_arrays(wavelength, flux, ivar=np.broadcast_to(ivar, flux.shape), medium="air", frame="rest", meta=meta)


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_the_forms_of_a_profile_agree(profile):
    """Density, integral, transform and moments, by the midpoint rule; a sixth moment misses 9e-6 beyond the reach of 4 ζ."""
    step = 1e-5 * profile.reach
    x = np.arange(-1e5 + 0.5, 1e5) * step
    density = profile.density(x)
    np.testing.assert_allclose(density.sum() * step, 1, atol=1e-7)
    np.testing.assert_allclose(np.cumsum(density) * step, profile.cumulative(x + step / 2), atol=1e-7)
    s = np.array([0.0, 0.01, 0.299, 0.301, 1.0, 7.0, 40.0])
    exact = profile.transform(s)
    np.testing.assert_allclose(exact, [np.cos(a * x) @ density * step for a in s], atol=1e-7)
    np.testing.assert_allclose(tabulated_transform(profile, s), exact, atol=5e-7)
    np.testing.assert_allclose(
        [profile.moment(k) for k in range(4)], [x ** (2 * k) @ density * step for k in range(4)], rtol=2e-5
    )


def test_gray_s_profile_at_its_centre():
    """K(0) = [2(1−ε) + πε/2] / [π(1−ε/3)] = 0.69331 for ε = 0.6 (METHODS 0.1), zero at the limb."""
    np.testing.assert_allclose(RotationProfile().density(np.array([0.0, 1.0, 1.5])), [0.69331, 0, 0], atol=1e-5)


def test_widths_of_a_voigt_profile():
    """METHODS 0.2: 1.593 and 0.955 pixels give 2.16; here back from f_V and η, and the half width of the profile itself."""
    gauss, lorentz = voigt_widths(np.array(2.16), 0.955 / 1.593)
    np.testing.assert_allclose([gauss, lorentz], [1.593, 0.955], atol=0.005)
    peak, half = voigt_profile(np.array([0.0, 2.16 / 2]), gauss / FWHM_PER_SIGMA, lorentz)
    np.testing.assert_allclose(half / peak, 0.5, atol=3e-4)


def test_vsini_for_all_or_from_meta():
    flux = np.tile(_line(), (3, 1))
    own = Rotate()(_spectra(flux, vsini=[0.0, 30.0, 60.0]))
    assert list(own.meta["vsini"]) == [0.0, 30.0, 60.0]
    all_alike = Rotate(vsini=30.0)(_spectra(flux))
    assert list(all_alike.meta["vsini"]) == [30.0] * 3
    np.testing.assert_array_equal(own.flux[0], flux[0])
    np.testing.assert_allclose(own.flux[1], all_alike.flux[1], atol=1e-12)
    good = own.ivar[2] > 0
    np.testing.assert_allclose(own.flux[2][good], rotate_flux(WAVELENGTH, flux[2], 60.0)[good], atol=1e-12)
    macro = Macroturbulence()(_spectra(flux, v_macro=[5.0, 5.0, 20.0]))
    np.testing.assert_allclose(macro.flux[1], Macroturbulence(v_macro=5.0)(_spectra(flux)).flux[1], atol=1e-12)
    good = macro.ivar[2] > 0
    np.testing.assert_allclose(macro.flux[2][good], macroturbulence_flux(WAVELENGTH, flux[2], 20.0)[good], atol=1e-12)


def test_ends_and_gaps_are_trimmed_not_wrapped():
    """A line on the last pixel must not appear at the first; pixels without a complete profile are masked, with the reason."""
    hole = np.concatenate([WAVELENGTH[:250], WAVELENGTH[320:]])
    flux = 1 - 0.9 * np.exp(-0.5 * ((hole - hole[-1]) / 0.3) ** 2)
    out = Rotate(vsini=60.0)(_spectra(flux, wavelength=hole))
    lost = out.ivar[0] == 0
    near = hole * 60 / SPEED_OF_LIGHT_KM_S  # 1.7 Å
    inside = np.ones(hole.size, bool)
    for end in (hole[0], hole[249], hole[250], hole[-1]):
        inside &= np.abs(hole - end) > near
    assert not lost[inside].any()
    assert lost[np.abs(hole - hole[0]) < 0.9 * near].all()
    assert lost[np.abs(hole - hole[250]) < 0.9 * near].all()
    assert (out.mask[0][lost] == PixelFlag.WAVELENGTH).all()
    np.testing.assert_allclose(rotate_flux(hole, flux, 60.0)[:100], 1, atol=1e-5)


def test_masked_pixels_do_not_leak():
    flux, ivar = np.ones(WAVELENGTH.size), np.full(WAVELENGTH.size, 1e4)
    flux[300], ivar[300] = 1e9, 0.0
    for vsini in (2.0, 40.0):
        out = Rotate(vsini=vsini)(_spectra(flux, ivar))
        good = out.ivar[0] > 0
        np.testing.assert_allclose(out.flux[0][good], 1, atol=1e-12)
        assert good[300] == (vsini == 40.0)  # of a profile of 0.6 pixel nothing fell on good ones
        assert good[290:300].all()


@pytest.mark.parametrize("vsini", [2.0, 40.0, 150.0])
@pytest.mark.parametrize(("variance", "mean"), [("information", False), ("marginal", True)])
def test_errors(vsini, variance, mean):
    """Constant errors stay ("information"), or fall as a mean over the profile's pixels does ("marginal": 3000 noise rows)."""
    rng = np.random.default_rng(4)
    spectra = _spectra(1 + 0.1 * rng.normal(size=(3000, WAVELENGTH.size)), 100.0)
    out = Rotate(vsini=vsini, variance=variance)(spectra)
    good = out.ivar[0] > 0
    if not mean:
        np.testing.assert_allclose(out.ivar[:, good], 100.0, rtol=1e-12)
        return
    pull = (out.flux - 1)[:, good] * np.sqrt(out.ivar[:, good])
    # below a pixel the histogram of the profile stays on one pixel, while its series smooths noise at the Nyquist frequency
    assert 0.8 < pull.std() < 1.05


def test_errors_that_vary_are_averaged_by_the_profile():
    """A step of the variance from 1 to 9 becomes the profile's integral, to 2.5 % of the step (of eight parts)."""
    variance = np.where(WAVELENGTH < 8530.05, 1.0, 9.0)
    out = Rotate(vsini=100.0)(_spectra(np.ones(WAVELENGTH.size), 1 / variance))
    x = (WAVELENGTH - 8530.05) / (8530 * 100 / SPEED_OF_LIGHT_KM_S)
    good = out.ivar[0] > 0
    np.testing.assert_allclose(1 / out.ivar[0][good], (1 + 8 * RotationProfile().cumulative(x))[good], atol=0.2)


def test_native_width_comes_off_the_gaussian_part_only():
    """A Gaussian native line of FWHM 0.7 Å, degraded to a Voigt profile of 2 Å: the Voigt line of exactly that width."""
    wavelength = np.arange(8000.0, 9000.0, 0.25)
    line = lambda sigma, lorentz: 1 - voigt_profile(wavelength - 8500, sigma, lorentz)  # noqa: E731
    out = Degrade(fwhm=2.0, profile="voigt", native_fwhm=0.7)(_spectra(line(0.7 / FWHM_PER_SIGMA, 0.0), wavelength=wavelength))
    gauss, lorentz = voigt_widths(np.array(2.0), 0.6)
    middle = np.abs(wavelength - 8500) < 30
    # beyond 20 FWHM of the kernel its wings, f_L/(2π d²), are cut, and what they hold is given to the rest (METHODS 0.2)
    kernel_fwhm = 0.5346 * lorentz + np.sqrt(0.2166 * lorentz**2 + gauss**2 - 0.7**2)
    wanted = (1 - line(gauss / FWHM_PER_SIGMA, lorentz)) / (1 - lorentz / (np.pi * 20 * kernel_fwhm))
    np.testing.assert_allclose(1 - out.flux[0][middle], wanted[middle], rtol=2e-4)
    assert out.meta["fwhm"][0] == 2.0
    assert (out.ivar[0][[0, -1]] == 0).all()


def test_eta_of_zero_is_a_gaussian():
    flux = _line()
    one = convolve_instrument(WAVELENGTH, flux, fwhm=0.7, profile="voigt", eta=0.0)
    np.testing.assert_array_equal(one, convolve_instrument(WAVELENGTH, flux, fwhm=0.7))
    nearly = convolve_instrument(WAVELENGTH, flux, fwhm=0.7, profile="voigt", eta=1e-6)
    np.testing.assert_allclose(nearly, one, atol=1e-6)


def test_convolve_instrument_is_what_degrade_does():
    flux = np.stack([_line(), _line(0.3, 0.5, 8520.0)])
    for options in ({"resolving_power": 5000.0}, {"fwhm": 1.0}, {"table": ((8500.0, 0.8), (8560.0, 1.5))}):
        for profile in ("gaussian", "voigt"):
            out = Degrade(**options, profile=profile, native_fwhm=0.3)(_spectra(flux))
            plain = convolve_instrument(WAVELENGTH, flux, **options, profile=profile, native_fwhm=0.3)
            good = out.ivar > 0
            assert good.mean() > 0.8
            np.testing.assert_allclose(plain[good], out.flux[good], rtol=1e-14)


def test_shapes_and_the_caller_s_arrays():
    flux = np.stack([_line(), _line(0.3)])
    before = flux.copy()
    assert rotate_flux(WAVELENGTH, flux, [10.0, 20.0]).shape == flux.shape
    assert rotate_flux(WAVELENGTH, flux, 10.0).shape == flux.shape
    assert rotate_flux(WAVELENGTH, flux[0], 10.0).shape == WAVELENGTH.shape
    assert rotate_flux(WAVELENGTH, flux[0], [1.0, 10.0, 100.0]).shape == (3, WAVELENGTH.size)
    assert rotate_flux(WAVELENGTH, flux[:0], 10.0).shape == (0, WAVELENGTH.size)
    assert convolve_instrument(WAVELENGTH, flux[0], fwhm=1.0).shape == WAVELENGTH.shape
    np.testing.assert_array_equal(flux, before)
    np.testing.assert_array_equal(rotate_flux(WAVELENGTH, flux, 0.0), flux)


def test_quantities_are_converted():
    flux = _line()
    nm = WAVELENGTH / 10 * u.nm
    np.testing.assert_allclose(rotate_flux(nm, flux, 5000 * u.m / u.s), rotate_flux(WAVELENGTH, flux, 5.0), atol=1e-12)
    got = convolve_instrument(nm, flux, fwhm=0.1 * u.nm)
    np.testing.assert_allclose(got, convolve_instrument(WAVELENGTH, flux, fwhm=1.0), atol=1e-12)


def test_a_pixel_alone_between_wide_gaps_stays():
    grid = np.concatenate([WAVELENGTH[:100], [9000.0], WAVELENGTH[:100] + 1000])
    flux = np.random.default_rng(5).normal(size=(2, grid.size))
    np.testing.assert_array_equal(rotate_flux(grid, flux, [10.0, 300.0])[:, 100], flux[:, 100])
    np.testing.assert_array_equal(rotate_flux(grid, flux[0], [10.0, 300.0])[:, 100], flux[0, 100])


def test_a_voigt_profile_without_width_changes_nothing():
    flux = _line()
    for fwhm in (1e-12, 1e-6, 9e-5):  # to 1e-3 pixel
        np.testing.assert_array_equal(convolve_instrument(WAVELENGTH, flux, fwhm=fwhm, profile="voigt"), flux)


def test_grids_that_are_hard():
    """Two pixels, interleaved orders, and repeated near-coincident pixels: no swinging, constants constant."""
    for grid in (
        [8500.0, 8501.0],
        np.sort(np.append(WAVELENGTH, WAVELENGTH + 1e-4)),
        np.sort(np.append(WAVELENGTH, WAVELENGTH + 0.03)),
    ):
        noise = 1 + 0.01 * np.random.default_rng(3).normal(size=len(grid))
        for vsini in (1.0, 30.0, 999.0):
            np.testing.assert_allclose(rotate_flux(grid, np.full(len(grid), 3.0), vsini), 3.0, rtol=1e-12)
            assert np.abs(rotate_flux(grid, noise, vsini) - 1).max() < 0.07  # 3.5 σ came in


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rotate_flux(WAVELENGTH, _line(), -1.0), "expected vsini between 0 and 1000 km/s, got -1"),
        (lambda: rotate_flux(WAVELENGTH, _line(), np.nan), "expected vsini between 0 and 1000 km/s, got nan"),
        (lambda: rotate_flux(WAVELENGTH, _line(), [[1.0]]), "expected one vsini or one per spectrum"),
        (lambda: rotate_flux(WAVELENGTH, np.ones((3, 600)), [1.0, 2.0]), r"one per spectrum \(3\), got shape \(2,\)"),
        (lambda: rotate_flux(WAVELENGTH, np.ones(7), 1.0), r"expected flux of shape \(n, 600\)"),
        (lambda: rotate_flux(WAVELENGTH, np.full(600, np.nan), 1.0), "expected finite flux"),
        (lambda: rotate_flux(WAVELENGTH[::-1], _line(), 1.0), "increasing positive wavelengths"),
        (lambda: rotate_flux(WAVELENGTH, ["a"] * 600, 1.0), "expected flux as real numbers, got str32 values"),
        (lambda: rotate_flux(WAVELENGTH, _line() + 1j, 1.0), "expected flux as real numbers, got complex128 values"),
        (lambda: rotate_flux(WAVELENGTH, [[1.0], [1.0, 2.0]], 1.0), "expected flux as real numbers, got others"),
        (
            lambda: rotate_flux(WAVELENGTH, np.ma.masked_less(_line(), 0.9), 1.0),
            "expected flux without masked values, got 11 masked",
        ),
        (lambda: rotate_flux(WAVELENGTH, _line(), 5 * u.AA), "expected vsini as real numbers in km/s, got others"),
        (lambda: rotate_flux(WAVELENGTH, _line(), None), "expected vsini as real numbers in km/s, got object values"),
        (lambda: rotate_flux(WAVELENGTH, _line(), 1.0, "linear"), "expected limb darkening as real numbers"),
        (lambda: Rotate(vsini=[1.0, 2.0]), r"expected vsini as one number, got shape \(2,\)"),
        (lambda: Rotate(vsini=1 * u.km / u.s), "expected vsini of a step as a plain number in km/s, got 1.0 km / s"),
        (lambda: Rotate(min_good="half"), "expected min_good as real numbers"),
        (lambda: Rotate()(_spectra(_line(), vsini=["fast"])), "expected vsini between 0 and 1000 km/s, got nan"),
        (lambda: convolve_instrument(WAVELENGTH, _line(), fwhm="1"), "expected target FWHM as real numbers"),
        (lambda: convolve_instrument(WAVELENGTH, _line(), resolving_power=[1, 2]), "target resolving power as one number"),
        (lambda: Degrade(fwhm=1.0, native={"x": 3}), "expected native x as a table"),
        (lambda: rotate_flux(WAVELENGTH, _line(), 1.0, 1.5), r"limb darkening in \[0, 1\], got 1.5"),
        (lambda: macroturbulence_flux(WAVELENGTH, _line(), 2000.0), "expected v_macro between 0 and 1000"),
        (lambda: Rotate(vsini=-3.0), "expected vsini between 0 and 1000"),
        (lambda: Rotate(limb_darkening=-0.1), "limb darkening"),
        (lambda: Macroturbulence(min_good=0.0), "min_good"),
        (lambda: Rotate()(_spectra(_line())), "expected vsini in km/s as a setting or a meta column, got neither"),
        (lambda: Rotate()(_spectra(_line(), vsini=[np.nan])), "expected vsini between 0 and 1000 km/s, got nan"),
        (lambda: convolve_instrument(WAVELENGTH, _line()), "expected a target resolution, got none"),
        (lambda: convolve_instrument(WAVELENGTH, _line(), fwhm=1.0, native_fwhm=2.0), "resolution lower than the spectrum's"),
        (lambda: convolve_instrument(WAVELENGTH, _line(), fwhm=1.0, profile="box"), "expected profile among gaussian, voigt"),
        (lambda: Degrade(fwhm=1.0, profile="voigt", eta=-1.0), "expected eta"),
        (
            lambda: convolve_instrument(
                np.arange(8000.0, 8600.0, 0.02), np.ones(30_000), resolving_power=1000.0, profile="voigt"
            ),
            "expected a kernel of at most 3333 pixels of 0.02 Å for 30000 pixels, got 16600; resample",
        ),
        (
            lambda: Degrade(fwhm=1.0, profile="voigt", native_fwhm=0.9)(_spectra(_line())),
            "FWHM 0.736 Å from 0.900 Å at 8500.0 Å in the Gaussian part of a Voigt profile of 1.000 Å",
        ),
    ],
)
def test_what_cannot_be_done_is_said(call, text):
    with pytest.raises(UsageError, match=text):
        call()
