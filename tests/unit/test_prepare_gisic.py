"""GISIC: against METHODS 0.3 written down plainly, and where the package fails (its pitfalls a to f)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gisic_plain import normalize
from scipy.ndimage import gaussian_filter1d

from maury.errors import UsageError
from maury.grids import AnalyticSpectra
from maury.prepare import Gisic, PolynomialContinuum, Preparation
from maury.prepare.gisic import _ends, bulges, second_derivative
from maury.spectra import Spectra

WAVELENGTH = np.arange(3800.0, 7400.0, 1.0)
STAR = AnalyticSpectra(("teff", "logg", "fe_h"))
LABELS = np.array([[3700.0, 4.8, -0.2], [4500.0, 2.0, -1.0], [5777.0, 4.4, 0.0], [6800.0, 4.0, -0.5]])


def spectra(flux: np.ndarray, ivar: np.ndarray | float = 1e4, wavelength: np.ndarray = WAVELENGTH) -> Spectra:
    return Spectra.from_arrays(wavelength, flux, ivar=np.broadcast_to(ivar, flux.shape), medium="vacuum", frame="rest")


def noisy(scale: float = 1.0) -> np.ndarray:
    flux = STAR.flux(WAVELENGTH, LABELS)
    return np.asarray(scale * (flux + 0.01 * np.random.default_rng(4).standard_normal(flux.shape)))


class TestPublished:
    @pytest.mark.parametrize("version", ["2.0.5", "1.4"])
    @pytest.mark.parametrize("scale", [1.0, 1e5])  # s = 5 is an approximation on the first, an interpolation on the second
    def test_package_defaults_are_the_ten_steps(self, version: str, scale: float) -> None:
        batch = spectra(noisy(scale))
        step = Gisic.package_defaults(version)  # type: ignore[arg-type]
        out = step(batch)
        for row, flux in enumerate(batch.flux):
            expected, continuum = normalize(WAVELENGTH, flux, version=version)
            # on counts FITPACK's two entries stop at different knots, both with residuals of 5 counts squared
            tolerance = 4e-3 if (version, scale) == ("2.0.5", 1e5) else 1e-12  # else rounding only
            np.testing.assert_allclose(step.continuum(batch)[row], continuum, rtol=tolerance)
            np.testing.assert_allclose(out.flux[row], expected, rtol=tolerance)

    @pytest.mark.parametrize("version", ["2.0.5", "1.4"])
    def test_windows_of_narrow_pixels_too(self, version: str) -> None:
        """Pixels of 0.01 Å: stretches of up to 3001 pixels, a way of their own (stretches.py)."""
        wavelength = 8797.015 + 0.01 * np.arange(4096.0)
        rng = np.random.default_rng(7)
        flux = np.ones((3, wavelength.size))
        for centre, sigma, depth in rng.uniform([8797, 0.05, 0.02], [8838, 0.2, 0.5], (100, 3)):
            flux -= rng.uniform(0.2, 0.5, (3, 1)) * depth * np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2)
        package = Gisic.package_defaults(version)  # type: ignore[arg-type]
        for step, s in ((package, None), (replace(package, smoothing=0.0), 0.0)):
            continua = step.continuum(spectra(flux, wavelength=wavelength))
            for found, own in zip(continua, flux, strict=True):
                np.testing.assert_allclose(found, normalize(wavelength, own, version=version, s=s)[1], rtol=1e-12)

    def test_our_defaults_interpolate_the_flux_over_its_median(self) -> None:
        batch = spectra(noisy(1e-15))
        for row, flux in enumerate(batch.flux):
            level = np.median(flux)
            _, continuum = normalize(WAVELENGTH, flux / level, s=0.0)
            np.testing.assert_allclose(Gisic().continuum(batch)[row], level * continuum, rtol=1e-12)

    def test_without_boost(self) -> None:
        batch = spectra(noisy())
        step = Gisic(boost=False, smoothing=5.0, scaled=False)
        np.testing.assert_allclose(step.continuum(batch)[1], normalize(WAVELENGTH, batch.flux[1], boost=False)[1], rtol=1e-12)

    def test_the_flux_unit_does_not_matter_unless_it_is_the_package(self) -> None:
        # pitfall e: s = 5 constrains nothing on flux of order one
        small, large = spectra(noisy(1.0)), spectra(noisy(1e5))
        np.testing.assert_allclose(Gisic(smoothing=0.01)(small).flux, Gisic(smoothing=0.01)(large).flux, rtol=1e-9)
        package = Gisic.package_defaults()
        assert np.abs(package(small).flux - package(large).flux).max() > 0.01


class TestContinuum:
    def test_the_tops_between_lines_are_found(self) -> None:
        x = np.arange(WAVELENGTH.size)
        lines = 1 - 0.3 * np.exp(-0.5 * (((x % 200) - 100) / 4.0) ** 2)  # one in 200 pixels, four wide
        for labels in LABELS:
            out = Gisic()(spectra(lines * STAR.continuum(WAVELENGTH, labels[None])))
            # a high percentile of 30 sloping pixels lies above their end by 4 % where a cool star's flux rises fastest
            np.testing.assert_allclose(out.flux[0], lines, atol=0.05)
            np.testing.assert_allclose(out.flux[0, 200:-200], lines[200:-200], atol=0.02)

    def test_ivar_follows_and_wild_pixels_lose_theirs(self) -> None:
        flux = noisy()
        flux[2, 1000], flux[2, 2000] = 5.0, -1.0
        batch = spectra(flux)
        out, continuum = Gisic()(batch), Gisic().continuum(batch)
        assert out.flux[2, [1000, 2000]].tolist() == [1.0, 1.0]
        assert out.ivar[2, [1000, 2000]].tolist() == [0.0, 0.0]
        np.testing.assert_allclose(out.ivar[1], 1e4 * continuum[1] ** 2)
        kept = Gisic(replace=False)(batch)
        assert kept.flux[2, 1000] > 2
        assert kept.ivar[2, 1000] > 0


class TestPitfalls:
    def test_no_bulge_gives_the_line_between_the_ends(self) -> None:  # d
        flux = (1.0 + 1e-4 * (WAVELENGTH - 5600) + 1e-7 * (WAVELENGTH - 5600) ** 2)[None]  # curved downwards nowhere
        assert bulges(second_derivative(flux, np.ones(flux.shape, bool), 30.0))[0].size == 0
        continuum = Gisic(boost=False).continuum(spectra(flux))[0]
        np.testing.assert_allclose(continuum, np.linspace(continuum[0], continuum[-1], continuum.size), rtol=1e-12)
        high = [np.percentile(end, [70, 98]) for end in (flux[0, :30], flux[0, -30:])]
        for value, (low, top) in zip((continuum[0], continuum[-1]), high, strict=True):
            assert low <= value <= top

    def test_equal_scatter_everywhere_does_not_divide_by_zero(self) -> None:  # b
        continuum = Gisic().continuum(spectra(np.full((1, WAVELENGTH.size), 3.0)))
        np.testing.assert_allclose(continuum, 3.0, rtol=1e-12)

    def test_points_at_one_wavelength_are_merged(self) -> None:  # c
        # 10 Å of spectrum: every stretch holds all of it, so that the bulges are one point, and with the ends a parabola
        wavelength = 8800.0 + 0.01 * np.arange(1001)
        flux = 1 - 0.3 * np.sin(np.arange(1001) / 40.0)[None] ** 2
        assert bulges(second_derivative(flux, np.ones(flux.shape, bool), 30.0))[0].size > 2
        step = Gisic(boost=False)
        continuum = step.continuum(spectra(flux, wavelength=wavelength))[0]
        points = [flux[0, :30], flux[0], flux[0, -30:]]
        limits = [np.percentile(values, [70, 98]) for values in points]
        tops = [np.median(v[(v >= low) & (v <= high)]) for v, (low, high) in zip(points, limits, strict=True)]
        parabola = np.polynomial.Polynomial.fit(wavelength[[0, 500, 1000]], tops, 2)
        np.testing.assert_allclose(continuum, parabola(wavelength), rtol=1e-12)

    def test_one_good_pixel_is_its_own_continuum(self) -> None:
        flux, ivar = noisy()[:1], np.zeros((1, WAVELENGTH.size))
        ivar[0, 100] = 1.0
        np.testing.assert_array_equal(Gisic().continuum(spectra(flux, ivar))[0], flux[0, 100])

    def test_a_narrow_window(self) -> None:  # f: ±15 Å cover it nearly whole
        wavelength = np.arange(8800.0, 8835.0, 0.01)
        out = Gisic()(spectra(STAR.flux(wavelength, LABELS), wavelength=wavelength))
        assert np.percentile(out.flux, 98) == pytest.approx(1.0, abs=0.03)

    def test_bulges_in_bands_are_not_used(self) -> None:
        batch = spectra(noisy())
        everywhere = Gisic(bands=((4600.0, 4800.0),)).continuum(batch)
        free = Gisic(bands=()).continuum(batch)
        inside = (WAVELENGTH > 4650) & (WAVELENGTH < 4750)
        assert np.abs(everywhere - free)[:, inside].max() > 1e-3

    def test_masked_pixels_are_bridged(self) -> None:
        flux, ivar = STAR.flux(WAVELENGTH, LABELS), np.full((4, WAVELENGTH.size), 1e4)
        ivar[:, 1500:1510] = 0.0
        garbage = np.where(ivar > 0, flux, 1e9)
        whole, holed = Gisic().continuum(spectra(flux)), Gisic().continuum(spectra(garbage, ivar))
        np.testing.assert_allclose(holed, whole, rtol=0.03)  # a stretch of 31 pixels lost a third of them
        other = Gisic().continuum(spectra(np.where(ivar > 0, flux, -7.0), ivar))
        np.testing.assert_array_equal(holed, other)


class TestWindows:
    """Stretches of a grid with gaps, each normalised by itself."""

    GRIDS = (np.arange(8485.0, 8500.0, 0.02), np.arange(8800.0, 8835.0, 0.05))

    def test_each_is_what_it_is_alone(self) -> None:
        alone = [spectra(STAR.flux(grid, LABELS), wavelength=grid) for grid in self.GRIDS]
        both = spectra(np.hstack([one.flux for one in alone]), wavelength=np.concatenate(self.GRIDS))
        for step in (Gisic(), Gisic(smoothing=0.01)):
            np.testing.assert_array_equal(step(both).flux, np.hstack([step(one).flux for one in alone]))

    def test_the_level_of_one_does_not_touch_the_other(self) -> None:
        """Orders of a spectrograph whose blaze is not removed differ in level, by whatever factor."""
        flux = np.hstack([STAR.flux(grid, LABELS) for grid in self.GRIDS])
        first = np.arange(flux.shape[1]) < self.GRIDS[0].size
        one, other = (
            Gisic()(spectra(flux * np.where(first, k, 1.0), wavelength=np.concatenate(self.GRIDS))) for k in (1.0, 64.0)
        )
        np.testing.assert_array_equal(one.flux, other.flux)

    def test_one_without_good_pixels_is_masked_alone(self) -> None:
        wavelength = np.concatenate(self.GRIDS)
        ivar = np.full((4, wavelength.size), 1e4)
        ivar[1, : self.GRIDS[0].size] = 0.0
        out = Gisic()(spectra(np.hstack([STAR.flux(grid, LABELS) for grid in self.GRIDS]), ivar, wavelength))
        assert (out.ivar > 0).all(axis=1).tolist() == [True, False, True, True]
        np.testing.assert_array_equal(out.ivar[1] > 0, wavelength > 8600)

    def test_the_polynomial_envelope_likewise_if_asked(self) -> None:
        alone = [spectra(STAR.flux(grid, LABELS), wavelength=grid) for grid in self.GRIDS]
        both = spectra(np.hstack([one.flux for one in alone]), wavelength=np.concatenate(self.GRIDS))
        step = PolynomialContinuum(degree=2, each_window=True)
        # weights are sums over the same pixels, but one matrix product is not bit by bit the other
        np.testing.assert_allclose(step(both).flux, np.hstack([step(one).flux for one in alone]), rtol=1e-12)
        assert np.abs(PolynomialContinuum(degree=2)(both).flux - step(both).flux).max() > 0.01
        assert not {"each_window", "weights"} & set(PolynomialContinuum().to_config())  # fingerprints of models from before
        assert Preparation.from_config([step.to_config()]).steps[0] == step

    def test_an_envelope_of_uniform_weights_does_not_depend_on_the_errors(self) -> None:
        """Errors that are a constant part of the flux make the cores of lines count most, and the envelope go through them."""
        wavelength = np.arange(8480.0, 8535.0, 0.01)
        flux = 1 - 0.95 * np.exp(-0.5 * ((wavelength % 11 - 5) / 0.7) ** 2)[None]
        even, proportional = spectra(flux, 1e6, wavelength), spectra(flux, 1e6 / flux**2, wavelength)
        step = PolynomialContinuum(degree=2, weights="uniform")
        np.testing.assert_array_equal(step(even).flux, step(proportional).flux)
        np.testing.assert_allclose(step(even).flux, flux, atol=0.01)
        assert np.median(PolynomialContinuum(degree=2)(proportional).flux) > 1.5

    def test_a_pixel_between_two_gaps_is_its_own_continuum(self) -> None:
        wavelength = np.concatenate([self.GRIDS[0], [8600.0], self.GRIDS[1]])
        flux = STAR.flux(wavelength, LABELS)
        continuum = Gisic().continuum(spectra(flux, wavelength=wavelength))
        np.testing.assert_array_equal(continuum[:, self.GRIDS[0].size], flux[:, self.GRIDS[0].size])


def test_bulges_are_the_lowest_points_of_inner_runs_only() -> None:
    curvature = np.array([[-1.0, 1, -1, -3, -2, 0, -1, 1, -9], [1, -2, 1, 1, 1, 1, 1, -1, 1]])
    row, pixel = bulges(curvature)
    assert list(zip(row.tolist(), pixel.tolist(), strict=True)) == [(0, 3), (0, 6), (1, 1), (1, 7)]


@pytest.mark.parametrize(("n_pixels", "sigma"), [(3600, 30.0), (4099, 8.0), (101, 30.0), (2, 3.0), (50, 1e-3)])
def test_the_cosine_transform_smooths_as_scipys_filter(n_pixels: int, sigma: float) -> None:
    flux = 1 + np.random.default_rng(1).normal(size=(3, n_pixels))
    expected = np.gradient(np.gradient(gaussian_filter1d(flux, sigma, axis=1), axis=1), axis=1)
    np.testing.assert_allclose(second_derivative(flux, np.ones(flux.shape, bool), sigma), expected, rtol=0, atol=5e-15)


def test_ends_are_the_outermost_good_pixels() -> None:
    good = np.ones((3, 100), bool)
    good[1, [0, 1, 5, 98]] = False
    good[2] = False
    good[2, [7, 50]] = True
    first, last = _ends(good)
    assert first.tolist() == [[0, 30], [2, 33], [7, 51]]
    assert last.tolist() == [[70, 100], [69, 100], [7, 51]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sigma": 0.0}, "positive sigma"),
        ({"half_width": float("nan")}, "half_width"),
        ({"degree": 6}, "degree 1 to 5"),
        ({"degree": 2.5}, "degree 1 to 5"),
        ({"smoothing": -1.0}, "smoothing >= 0"),
        ({"flux_min": 98.0}, "flux_min as a percentile"),
        ({"scatter": "wide"}, "relative, absolute"),
        ({"bands": ((4400.0, 4200.0),)}, "low < high"),
    ],
)
def test_impossible_settings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Gisic(**settings)  # type: ignore[arg-type]
