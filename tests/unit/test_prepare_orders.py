"""Orders of a file -> one spectrum of the wanted windows; and the steps of passegger2020 on CARMENES' files."""

from __future__ import annotations

import numpy as np
import pytest
from carmenes_files import DWARF, write_carmenes_vis

from maury.errors import UsageError
from maury.prepare import Gisic, PolynomialContinuum, Preparation, Resample, ToVacuum, vacuum_to_air
from maury.prepare.grid import windows_of, with_meta
from maury.prepare.orders import Wanted, join_orders, velocity_of_orders
from maury.prepare.velocity import Velocities
from maury.protocols import Step
from maury.read import ReadResult, read_files
from maury.spectra import Spectra, empty_meta

ENDS = ((5000.0, 5040.0), (5035.0, 5080.0), (5090.0, 5130.0), (5125.0, 5170.0))  # the second and the third do not meet


def flux_at(wavelength: np.ndarray) -> np.ndarray:
    return np.asarray(1 - 0.3 * np.sin(wavelength / 3.0) ** 2)


def order(number: int, *, level: float = 1.0, medium: str = "vacuum", rv: float = 0.0, bad: slice = slice(0)) -> Spectra:
    """An order of pixels of 0.1 Å, its grid not that of its neighbours; errors of one per cent of the level."""
    low, high = ENDS[number]
    wavelength = np.arange(low + 0.03 * number, high, 0.1)
    meta = empty_meta(1)
    meta["file"], meta["order"], meta["rv"] = ["e2ds.fits"], number, rv
    ivar = np.full(wavelength.size, 1e4 / level**2)
    ivar[bad] = 0.0
    flux = level * flux_at(wavelength)
    ids = [f"e2ds#{number}"]
    return Spectra.from_arrays(wavelength, flux, ivar=ivar, medium=medium, frame="observed", ids=ids, meta=meta)  # type: ignore[arg-type]


def joined(preparation: Preparation, *orders: Spectra) -> Spectra:
    result = ReadResult(list(orders), [], ["a/e2ds.fits"] * len(orders))
    found = join_orders(result, Wanted.by(preparation))
    assert found.files == ["a/e2ds.fits"]
    assert len(found.spectra) == 1
    return found.spectra[0]


def resampled(*windows: tuple[float, float]) -> Preparation:
    return Preparation((Resample(windows=tuple((low, high, 0.1) for low, high in windows)),))


class TestJoining:
    def test_a_window_is_taken_from_the_order_that_holds_it(self) -> None:
        """And its surroundings up to 500 km/s, 8.4 Å here, where that order has some."""
        out = joined(resampled((5045.0, 5060.0)), *(order(n, level=n + 1.0) for n in range(4)))
        own = order(1, level=2.0)
        inside = np.isin(out.wavelength, own.wavelength)
        assert inside.all()
        np.testing.assert_array_equal(out.flux[0, inside], own.flux[0, np.isin(own.wavelength, out.wavelength)])
        assert out.ids.tolist() == ["e2ds"]
        assert (out.meta["order"][0], out.meta["file"][0]) == (-1, "e2ds.fits")
        assert out.meta["snr"][0] == pytest.approx(np.median(100 * flux_at(out.wavelength)), rel=1e-6)

    def test_what_it_lacks_comes_from_the_next_ones_at_its_level(self) -> None:
        levels = (3.0, 1.0, 0.2, 50.0)
        out = joined(resampled((5010.0, 5160.0)), *(order(n, level=levels[n]) for n in (2, 0, 3, 1)))
        assert (np.diff(out.wavelength) > 0).all()
        # in the gap there is nothing, and across it levels are only guessed: from medians of the 50 pixels on either side
        assert not ((out.wavelength > 5080.1) & (out.wavelength < 5090.0)).any()
        for low, high in ((5010, 5080), (5090, 5160)):
            here = (out.wavelength > low) & (out.wavelength < high)
            ratio = out.flux[0, here] / flux_at(out.wavelength[here])
            np.testing.assert_allclose(ratio, ratio[0], rtol=5e-3)  # medians of pixels that are up to half a pixel apart
        np.testing.assert_allclose(np.sqrt(out.ivar[0]) * out.flux[0], 100 * flux_at(out.wavelength), rtol=1e-6)

    def test_ends_without_good_pixels_are_the_next_orders(self) -> None:
        out = joined(resampled((5010.0, 5060.0)), order(0), order(1, bad=slice(0, 30)))
        assert (out.ivar > 0).all()
        np.testing.assert_array_less(np.diff(out.wavelength), 0.2)

    def test_neighbouring_windows_share_what_lies_between(self) -> None:
        out = joined(resampled((5005.0, 5030.0), (5032.0, 5033.0), (5050.0, 5070.0)), order(0), order(1, level=7.0))
        assert (np.diff(out.wavelength) > 0).all()
        assert np.isin(out.wavelength[out.wavelength < 5038.0], order(0).wavelength).all()
        assert np.isin(out.wavelength[out.wavelength > 5045.0], order(1).wavelength).all()

    def test_known_velocities_move_the_windows(self) -> None:
        """At 900 km/s the window is 15 Å further, in the next order."""
        preparation = resampled((5024.0, 5034.0))
        still, moving = (joined(preparation, order(0, rv=rv), order(1, rv=rv)) for rv in (0.0, 900.0))
        assert still.meta["snr"][0] > 0
        assert np.isin(still.wavelength, order(0).wavelength).mean() > 0.8
        assert np.isin(moving.wavelength, order(1).wavelength).mean() > 0.8

    def test_windows_in_vacuum_of_a_file_in_air(self) -> None:
        """1.4 Å further to the red in vacuum than in air."""
        steps = (ToVacuum(), Resample(windows=((5041.0, 5060.0, 0.1),)))
        wanted = Wanted.by(Preparation(steps))
        assert wanted is not None
        low, high = wanted.observed(order(0, medium="air"))[0]
        np.testing.assert_allclose([low, high], vacuum_to_air(np.array([5040.95, 5059.95])), atol=1e-6)

    def test_a_file_without_any_of_it_is_one_failure(self) -> None:
        preparation = resampled((6000.0, 6010.0))
        out = joined(preparation, *(order(n) for n in range(4)))
        np.testing.assert_array_equal(out.wavelength, order(3).wavelength)
        with pytest.raises(UsageError, match=r"expected spectra that overlap 6000.0–6009.9 Å, got 5125.1–5170.0 Å for e2ds"):
            preparation(out)


class TestWhatStays:
    def test_spectra_that_are_no_orders_and_other_files(self) -> None:
        merged = with_meta(order(0), {"order": np.array([-1])})
        plain = Spectra.from_arrays(np.arange(5000.0, 5100.0), np.ones(100), ivar=np.ones(100), medium="vacuum", frame="rest")
        spectra = [plain, order(1), merged, order(0), order(2)]
        files = ["plain", "one", "merged", "one", "alone"]
        found = join_orders(ReadResult(spectra, [], files), Wanted.by(resampled((5010.0, 5060.0))))
        assert found.files == ["plain", "one", "merged", "alone"]
        assert found.spectra[0] is plain
        assert found.spectra[2] is merged
        assert found.spectra[3] is spectra[4]

    def test_without_a_grid_nothing_is_joined(self) -> None:
        result = ReadResult([order(0), order(1)], [], ["one", "one"])
        assert join_orders(result, Wanted.by(Preparation((Gisic(),)))) is result


class TestVelocities:
    def velocities(self, rv: list[float], error: list[float], flag: list[int]) -> Velocities:
        n, ones = len(rv), np.ones(len(rv))
        numbers = np.arange(n)
        return Velocities(
            np.array(rv), np.array(error), 0.1 * numbers, 0 * ones, numbers, ones, 100 + numbers, np.array(flag), ("",) * n
        )

    def test_the_mean_is_weighted_and_outliers_and_flagged_ones_have_no_part(self) -> None:
        """Weights 1, 4, 1 of 10, 11, 12.4: (10 + 44 + 12.4)/6, and chi-square 3.0 for 2 degrees of freedom."""
        found = velocity_of_orders(
            self.velocities([10.0, 400.0, 11.0, 12.4, 90.0, np.nan], [1.0, 0.5, 0.5, 1.0, 0.1, np.nan], [0, 0, 0, 0, 1 << 4, 1])
        )
        mean = 66.4 / 6
        chi2 = (10 - mean) ** 2 + 4 * (11 - mean) ** 2 + (12.4 - mean) ** 2
        assert found.rv[0] == pytest.approx(mean, rel=1e-12)
        assert found.e_rv[0] == pytest.approx(np.sqrt(chi2 / 2 / 6), rel=1e-12)
        assert found.n_pixels[0] == 100 + 102 + 103

    def test_agreeing_orders_have_the_error_of_the_mean(self) -> None:
        found = velocity_of_orders(self.velocities([10.0, 10.0, 10.0, 10.0], [2.0] * 4, [0] * 4))
        assert (found.rv[0], found.e_rv[0]) == pytest.approx((10.0, 1.0), rel=1e-12)

    def test_without_any_there_is_none(self) -> None:
        found = velocity_of_orders(self.velocities([np.nan, 3.0], [np.nan, 1.0], [1, 1 << 4]))
        assert (len(found.rv), found.flag[0], found.rv[0]) == (1, 1 << 4, 3.0)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ReadResult:
    path = tmp_path_factory.mktemp("carmenes") / "car-20160101T00h00m00s-sci-gtoc-vis_A.fits"
    return read_files([write_carmenes_vis(path, TestCarmenes.LABELS, TestCarmenes.RV, 200.0, 1)])


class TestCarmenes:
    """Windows 8485-8530 and 8800-8835 Å with margins, as recipes of passegger2020 have them, on a format-true file."""

    LABELS, RV = (3400.0, 4.8, 0.1), 110.0
    """The second window is moved by 3.2 Å: its end lies in the next order."""
    WINDOWS = ((8480.0, 8535.0, 0.01), (8795.0, 8840.0, 0.01))

    def test_it_is_read_as_such(self, found: ReadResult) -> None:
        assert len(found.spectra) == 61
        assert found.spectra[0].meta["instrument"][0] == "CARMENES VIS"
        assert found.spectra[0].meta["velocity_frame"][0] == "barycentric"

    def test_windows_are_those_of_the_synthetic_spectrum(self, found: ReadResult) -> None:
        """Resampled, the two agree within the noise; GISIC's tops of noisy spectra lie half a per cent higher (0.6 % at most)."""
        resample = Resample(windows=self.WINDOWS)
        result = join_orders(found, Wanted.by(Preparation((resample,))))
        assert len(result.spectra) == 1
        star = with_meta(result.spectra[0], {"rv": np.array([self.RV])})
        wavelength = np.concatenate([np.arange(low - 1, high + 1, 0.01) for low, high, _ in self.WINDOWS])
        flux = DWARF.flux(wavelength[::5], [[*self.LABELS, 0.0]])
        flux = np.array([np.interp(wavelength, wavelength[::5], row) for row in flux])
        model = Spectra.from_arrays(wavelength, flux, ivar=np.full(flux.shape, 1e6), medium="vacuum", frame="rest")
        seen, expected = resample(star), resample(model)
        assert (seen.ivar > 0).all()
        for window in windows_of(seen.wavelength):
            level = np.median(seen.flux[0, window]) / np.median(expected.flux[0, window])
            misfit = (seen.flux[0, window] - level * expected.flux[0, window]) * np.sqrt(seen.ivar[0, window])
            # 0.01 Å are a third of a pixel: chi-square per pixel is s/w (1 - s/3w) = 0.27 with s/w = 0.3 (resample.py)
            assert (misfit**2).mean() < 0.5
        seen, expected = Gisic()(seen), Gisic()(expected)
        for window in windows_of(seen.wavelength):
            difference = seen.flux[0, window] - expected.flux[0, window]
            assert abs(np.median(difference)) < 0.01
            assert np.std(difference) < 0.015

    def test_an_envelope_for_each_window_takes_the_blaze_away_before_gisic(self, found: ReadResult) -> None:
        """A flux that rises by 60 % over a window, as HPF's at 8800 Å, makes errors of 10 % with GISIC alone."""
        resample = Resample(windows=self.WINDOWS)
        star = with_meta(join_orders(found, Wanted.by(Preparation((resample,)))).spectra[0], {"rv": np.array([self.RV])})
        plain = resample(star)
        window = windows_of(plain.wavelength)[1]
        tilt = np.ones(plain.n_pixels)
        tilt[window] = np.linspace(0.75, 1.25, window.stop - window.start)
        tilted = plain.with_pixels(flux=plain.flux * tilt, ivar=plain.ivar / tilt**2)
        envelope = PolynomialContinuum(degree=2, each_window=True, weights="uniform")

        def misfit(*steps: Step) -> float:
            one, other = (Preparation(steps)(spectra).flux[0, window] for spectra in (plain, tilted))
            return float(np.abs(one - other).max())

        assert misfit(Gisic()) > 0.05
        assert misfit(envelope, Gisic()) < 0.02
