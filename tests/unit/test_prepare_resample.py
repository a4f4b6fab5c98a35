"""Resampling against closed forms: conservation, velocities, errors, masks, gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.flags import PixelFlag
from maury.prepare import Degrade, Preparation, Resample
from maury.prepare.grid import pixel_edges, window_edges, windows_of
from maury.spectra import Spectra, empty_meta


def _spectra(wavelength, flux, ivar=1.0, *, rv=None, frame="observed", mask=None):
    flux = np.atleast_2d(flux)
    meta = empty_meta(len(flux))
    if rv is not None:
        meta["rv"] = rv
    weight = np.broadcast_to(ivar, flux.shape)
    return Spectra.from_arrays(wavelength, flux, ivar=weight, medium="vacuum", frame=frame, meta=meta, mask=mask)


def _brute_force(wavelength, flux, grid, factor):
    """The definition, pixel by pixel: the mean of the piecewise constant flux over each shifted output pixel."""
    edges, out = pixel_edges(wavelength).edges, pixel_edges(grid).edges * factor
    result = np.empty(grid.size)
    for k in range(grid.size):
        overlap = np.clip(np.minimum(edges[1:], out[k + 1]) - np.maximum(edges[:-1], out[k]), 0, None)
        result[k] = (overlap * flux).sum() / overlap.sum()
    return result


@pytest.mark.parametrize("spacing", [0.13, 0.5, 1.0, 1.7, 6.0, 31.0])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_it_is_the_definition(spacing, logarithmic):
    rng = np.random.default_rng(1)
    wavelength = 5000 * 10 ** (1e-4 * np.arange(900)) if logarithmic else np.arange(5000.0, 6000.0, 1.0)
    flux = rng.normal(1, 0.3, (5, wavelength.size))
    rv = np.array([-290.0, -3.3, 0.0, 41.0, 300.0])
    step = Resample(start=5030, stop=5900, spacing=spacing)
    out = step(_spectra(wavelength, flux, rv=rv))
    for i, v in enumerate(rv):
        np.testing.assert_allclose(
            out.flux[i], _brute_force(wavelength, flux[i], step.grid(), 1 + v / SPEED_OF_LIGHT_KM_S), rtol=1e-10
        )
    assert (out.ivar > 0).all()
    assert out.frame == "rest"


@pytest.mark.parametrize("spacing", [0.31, 0.8, 2.7, 10.0])
def test_flux_is_conserved(spacing):
    rng = np.random.default_rng(2)
    wavelength = np.cumsum(rng.uniform(0.8, 1.2, 700)) + 5000  # irregular pixels
    flux = rng.lognormal(0, 2, (3, 700))
    step = Resample(start=4900, stop=5900, spacing=spacing, min_good=1e-9)
    out = step(_spectra(wavelength, flux, frame="rest"))
    edges = pixel_edges(wavelength)
    inside = np.minimum(edges.edges[-1], step.grid() + spacing / 2) - np.maximum(edges.edges[0], step.grid() - spacing / 2)
    total = (out.flux * np.clip(inside, 0, None)).sum(axis=1)
    np.testing.assert_allclose(total, (flux * edges.width).sum(axis=1), rtol=1e-10)


def test_one_velocity_for_all_is_the_same_as_one_for_each():
    rng = np.random.default_rng(3)
    wavelength = np.arange(5000.0, 5400.0, 0.9)
    flux = rng.normal(1, 0.1, (4, wavelength.size))
    step = Resample(start=5020, stop=5380, spacing=1.1)
    alike = step(_spectra(wavelength, flux, rv=[25.0] * 4))
    mixed = step(_spectra(wavelength, flux, rv=[25.0, 25.0, 25.0, -70.0]))
    np.testing.assert_allclose(alike.flux[:3], mixed.flux[:3], rtol=1e-13)


def _gaussian_pixels(wavelength, centre, sigma, depth):
    """Mean of 1 − Gaussian line over each pixel, in closed form."""
    edges = pixel_edges(wavelength).edges
    area = depth * sigma * np.sqrt(2 * np.pi) * np.diff(ndtr((edges - centre) / sigma))
    return 1 - area / np.diff(edges)


@pytest.mark.parametrize("rv", [-412.7, -0.05, 12.34, 250.0])
@pytest.mark.parametrize("method", ["conserving", "linear"])
def test_a_shift_is_recovered_to_ten_metres_per_second(rv, method):
    """A line at 5500 Å seen at rv: after the shift its centroid is at 5500 Å within 0.01 km/s (0.0002 Å).

    Both methods blur a little, which must not move the centroid of a symmetric line.
    """
    wavelength = 5400 * 10 ** (2e-5 * np.arange(900))  # 0.25 Å pixels, line of σ = 3 Å: sampling errors < 1e-6
    centre = 5500 * (1 + rv / SPEED_OF_LIGHT_KM_S)
    spectra = _spectra(wavelength, _gaussian_pixels(wavelength, centre, 3.0, 0.5), rv=[rv])
    out = Resample(start=5450, stop=5550, spacing=0.3, method=method)(spectra)
    depth = 1 - out.flux[0]
    centroid = (out.wavelength * depth).sum() / depth.sum()
    assert abs(centroid / 5500 - 1) * SPEED_OF_LIGHT_KM_S < 0.01


@pytest.mark.parametrize("spacing", [0.25, 0.5, 1.0, 1.3, 4.0])
def test_a_constant_fitted_to_resampled_noise_has_the_right_error(spacing):
    """Information is conserved: Σ ivar of the output, taken as independent, is that of the input over the same range.

    Closed form, no dice: the mean over whole input pixels is linear, so its true variance is σ²/N exactly.
    """
    wavelength = np.arange(5000.0, 6001.0, 1.0)
    sigma2 = 0.04
    step = Resample(start=5100, stop=5900, spacing=spacing)
    out = step(_spectra(wavelength, np.ones(wavelength.size), 1 / sigma2, frame="rest"))
    covered = out.wavelength.size * spacing  # Å, so many input pixels
    np.testing.assert_allclose(out.ivar.sum(), covered / sigma2, rtol=1e-9)


@pytest.mark.parametrize(("spacing", "chi2_low", "chi2_high"), [(0.5, 0.4, 0.55), (1.0, 0.6, 0.75), (8.0, 0.9, 1.05)])
def test_pulls_of_noise(spacing, chi2_low, chi2_high):
    """Noise of known σ, resampled at many velocities: pulls of a fitted constant are 1, of single pixels below 1.

    4000 spectra, fixed seed: the standard deviation of the pulls is known to 1.1 %. The chi-square per pixel is
    Σa²/(Σa w): s/w (1 - s/3w) = 0.42 for half-width pixels, 2/3 for equal ones, 1 - 1/24 at 8.
    """
    rng = np.random.default_rng(4)
    wavelength = np.arange(5000.0, 5201.0, 1.0)
    flux = 1 + 0.2 * rng.normal(size=(4000, wavelength.size))
    spectra = _spectra(wavelength, flux, 25.0, rv=rng.uniform(-200, 200, 4000))
    out = Resample(start=5010, stop=5190, spacing=spacing)(spectra)
    mean = (out.flux * out.ivar).sum(axis=1) / out.ivar.sum(axis=1)
    assert 0.95 < ((mean - 1) * np.sqrt(out.ivar.sum(axis=1))).std() < 1.05
    assert chi2_low < ((out.flux - 1) ** 2 * out.ivar).mean() < chi2_high


def test_the_marginal_variance_is_that_of_the_pixel():
    rng = np.random.default_rng(5)
    wavelength = np.arange(5000.0, 5201.0, 1.0)
    flux = 1 + 0.2 * rng.normal(size=(4000, wavelength.size))
    for spacing in (0.5, 1.0, 2.6):
        spectra = _spectra(wavelength, flux, 25.0, rv=rng.uniform(-200, 200, 4000))
        out = Resample(start=5010, stop=5190, spacing=spacing, variance="marginal")(spectra)
        assert 0.98 < ((out.flux - 1) ** 2 * out.ivar).mean() < 1.02


def test_bad_pixels_count_by_the_part_they_cover():
    wavelength = np.arange(5000.0, 5100.0, 1.0)
    ivar = np.ones((1, 100))
    ivar[0, [20, 40, 41]] = 0.0  # 5020, and 5040 with 5041
    flux = np.where(ivar > 0, 2.0, 1e6)
    grid = {"start": 5010.0, "stop": 5090.0, "spacing": 2.0}  # pixels [5009, 5011), ...: edges amid input pixels
    out = Resample(**grid)(_spectra(wavelength, flux, ivar, frame="rest"))
    good = out.ivar[0] > 0
    # 5020 takes half of each: bad 5020 lies wholly in [5019, 5021): 1 of 2 Å left, 0.5 is enough
    assert good[5]
    # [5039, 5041) holds 0.5 of 5039, all of bad 5040, half of bad 5041: a quarter is left
    assert not good[15]
    np.testing.assert_allclose(out.flux[0][good], 2.0, rtol=1e-13)
    assert not Resample(**grid, min_good=0.51)(_spectra(wavelength, flux, ivar, frame="rest")).ivar[0][5]


def test_mask_bits_are_carried_to_every_pixel_they_touch():
    wavelength = np.arange(5000.0, 5100.0, 1.0)
    mask = np.zeros((1, 100), np.uint32)
    mask[0, 20], mask[0, 50] = PixelFlag.BRIGHT_SKY, PixelFlag.LOW_FLAT
    for spacing in (0.4, 1.0, 2.0, 3.0, 20.0):
        step = Resample(start=5000, stop=5099, spacing=spacing)
        out = step(_spectra(wavelength, np.ones((1, 100)), frame="rest", mask=mask))
        grid = step.grid()
        for pixel, bit in ((5020.0, PixelFlag.BRIGHT_SKY), (5050.0, PixelFlag.LOW_FLAT)):
            touches = (grid - spacing / 2 < pixel + 0.5 - 1e-6) & (grid + spacing / 2 > pixel - 0.5 + 1e-6)
            np.testing.assert_array_equal((out.mask[0] & bit) != 0, touches)


def test_beyond_the_data_there_is_nothing():
    out = Resample(start=4990, stop=5110, spacing=1)(_spectra(np.arange(5000.0, 5100.0), np.ones(100), frame="rest"))
    absent = (out.wavelength < 5000) | (out.wavelength > 5099)
    np.testing.assert_array_equal(out.ivar[0] == 0, absent)
    np.testing.assert_array_equal(out.mask[0] == PixelFlag.WAVELENGTH, absent)


@pytest.mark.parametrize("method", ["conserving", "linear"])
def test_a_gap_in_the_grid_is_not_bridged(method):
    """A detector gap of 40 Å: pixels beside it end half a pixel away and do not stretch into it."""
    wavelength = np.concatenate([np.arange(5000.0, 5050.0), np.arange(5090.0, 5140.0)])
    out = Resample(start=5000, stop=5139, spacing=1, method=method)(_spectra(wavelength, np.ones(100), frame="rest"))
    in_gap = (out.wavelength > 5049) & (out.wavelength < 5090)
    np.testing.assert_array_equal(out.ivar[0] == 0, in_gap)
    assert ((out.mask[0] == PixelFlag.WAVELENGTH) == in_gap).all()


def test_a_change_of_step_is_no_gap():
    """PHOENIX doubles its step at 1 µm; every pixel stays usable."""
    wavelength = np.concatenate([np.arange(9990.0, 10000.0, 0.01), np.arange(10000.0, 10010.0, 0.02)])
    assert pixel_edges(wavelength).edges.size == wavelength.size + 1


def test_linear_is_linear_and_a_bad_neighbour_makes_a_bad_pixel():
    wavelength = np.arange(5000.0, 5100.0)
    flux = 3 + 0.01 * (wavelength - 5000)
    ivar = 1 + 0.1 * (wavelength - 5000)
    ivar[30] = 0
    step = Resample(start=5010.25, stop=5080, spacing=1, method="linear")
    out = step(_spectra(wavelength, flux, ivar, frame="rest"))
    bad = (out.wavelength > 5029) & (out.wavelength < 5031)
    np.testing.assert_array_equal(out.ivar[0] == 0, bad)
    np.testing.assert_allclose(out.flux[0][~bad], 3 + 0.01 * (out.wavelength - 5000)[~bad], rtol=1e-13)
    np.testing.assert_allclose(out.ivar[0][~bad], 1 + 0.1 * (out.wavelength - 5000)[~bad], rtol=1e-12)


def test_grids():
    assert Resample(start=4500, stop=7500, spacing=1).grid()[-1] == 7499
    assert Resample(start=4500, stop=7500, spacing=0.1).grid().size == 30000  # the stop stays out whatever the rounding
    log = Resample(start=4000, stop=4000 * 10**0.1, log_spacing=1e-4).grid()
    assert log.size == 1000
    np.testing.assert_allclose(np.diff(np.log10(log)), 1e-4, rtol=1e-9)
    np.testing.assert_array_equal(Resample(wavelengths=(4000.0, 4001.0, 4003.0)).grid(), [4000, 4001, 4003])


def test_missing_velocity():
    spectra = _spectra(np.arange(5000.0, 5100.0), np.ones((3, 100)), rv=[10.0, np.nan, -10.0])
    grid = {"start": 5010.0, "stop": 5090.0}
    with pytest.raises(UsageError, match=r"expected a radial velocity .* got none for 1; give it \(maury rv .* missing_velocity"):
        Resample(**grid)(spectra)
    out = Resample(**grid, missing_velocity="zero")(spectra)
    assert list(out.meta["no_velocity"]) == [False, True, False]
    assert "no_velocity" not in spectra.meta.colnames
    assert Resample(**grid, frame="as_is")(spectra).frame == "observed"


def test_wrong_use_is_said():
    spectra = _spectra(np.arange(5000.0, 5100.0), np.ones((1, 100)), frame="rest")
    with pytest.raises(UsageError, match=r"expected spectra that overlap 6000.0–6099.0 Å, got 5000.0–5099.0 Å for 0"):
        Resample(start=6000, stop=6100)(spectra)
    for bad, text in (
        ({"start": 5000.0, "stop": 4000.0}, "0 < start < stop"),
        ({"spacing": -1.0}, "positive spacing"),
        ({"wavelengths": (1.0, 1.0)}, "increasing positive numbers"),
        ({"min_good": 0.0}, "min_good"),
        ({"method": "cubic"}, "method among conserving, linear"),
        ({"frame": "observed"}, "frame among rest, as_is"),
        ({"missing_velocity": "guess"}, "missing_velocity among"),
        ({"variance": "none"}, "variance among"),
    ):
        with pytest.raises(UsageError, match=text):
            Resample(**bad)


WINDOWS = ((5010.0, 5030.0, 0.7), (5030.8, 5045.0, 0.5), (5060.0, 5090.0, 2.0))
"""The first two stand half an Å apart: less than pixels of one spacing would be taken for a gap."""


class TestWindows:
    @pytest.mark.parametrize("method", ["conserving", "linear"])
    @pytest.mark.parametrize("variance", ["information", "marginal"])
    def test_each_is_what_it_is_alone(self, method, variance):
        rng = np.random.default_rng(6)
        wavelength = np.arange(5000.0, 5100.0, 0.3)
        flux, ivar = rng.normal(1, 0.3, (3, wavelength.size)), rng.uniform(0, 2, (3, wavelength.size))
        mask = np.where(rng.random(flux.shape) < 0.1, np.uint32(PixelFlag.BRIGHT_SKY), np.uint32(0))
        spectra = _spectra(wavelength, flux, ivar, rv=[-90.0, 0.0, 55.0], mask=mask)
        step = Resample(windows=WINDOWS, method=method, variance=variance)
        out = step(spectra)
        # alone by their very numbers: rounding of the edges apart, nothing may differ
        alone = [Resample(start=a, stop=b, spacing=s, method=method, variance=variance)(spectra) for a, b, s in WINDOWS]
        np.testing.assert_array_equal(out.wavelength, np.concatenate([one.wavelength for one in alone]))
        for name in ("flux", "ivar"):
            np.testing.assert_allclose(
                getattr(out, name), np.hstack([getattr(one, name) for one in alone]), rtol=1e-9, atol=1e-12
            )
        np.testing.assert_array_equal(out.mask, np.hstack([one.mask for one in alone]))

    def test_what_lies_between_has_no_part(self):
        wavelength = np.arange(5000.0, 5100.0, 0.1)
        between = (wavelength > 5031) & (wavelength < 5059)
        step = Resample(windows=(WINDOWS[0], WINDOWS[2]))
        one, other = (step(_spectra(wavelength, np.where(between, level, 1.0), frame="rest")) for level in (1.0, 1e6))
        np.testing.assert_array_equal(one.flux, other.flux)

    def test_windows_that_touch_have_no_bin_between(self):
        grids = [(np.arange(5000.0, 5010.0), 1.0), (np.arange(5010.0, 5020.0), 1.0), (np.arange(5030.0, 5034.0), 1.0)]
        found = window_edges(grids)
        np.testing.assert_allclose(found.edges, np.r_[4999.5:5020.5, 5029.5:5034.5])
        np.testing.assert_array_equal(found.bin_of_pixel, np.r_[0:20, 21:25])

    def test_a_spectrum_in_a_gap_is_refused(self):
        with pytest.raises(UsageError, match="expected spectra that overlap"):
            Resample(windows=(WINDOWS[0], WINDOWS[2]))(_spectra(np.arange(5035.0, 5055.0), np.ones((1, 20)), frame="rest"))

    def test_configurations_without_windows_are_as_they_were(self):
        """The fingerprint that models of these steps were saved with before there were windows."""
        assert "windows" not in Resample().to_config()
        assert Preparation((Resample(start=4500, stop=7500, spacing=1),)).fingerprint == "6f2595261774e1dc"
        config = Resample(windows=WINDOWS).to_config()
        assert config["windows"] == [list(window) for window in WINDOWS]
        assert Preparation.from_config([config]).steps[0] == Resample(windows=WINDOWS)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            (
                {"windows": WINDOWS[::-1]},
                "windows that increase and do not overlap, got one whose pixels end at 5089 Å and the next",
            ),
            ({"windows": ((5000.0, 5010.0, 1.0), (5009.0, 5020.0, 1.0))}, "end at 5009.5 Å and the next from 5008.5 Å; sort"),
            ({"windows": ((5000.0, 5001.0, 1.0),)}, r"at least two pixels, got \(5000.0, 5001.0, 1.0\); correct it"),
            ({"windows": ((5000.0, 5010.0, -1.0),)}, "0 < start < stop and at least two pixels"),
            ({"windows": WINDOWS, "log_spacing": 1e-4}, "expected windows alone"),
        ],
    )
    def test_impossible_ones(self, settings, words):
        with pytest.raises(UsageError, match=words):
            Resample(**settings)

    def test_a_degraded_grid_of_windows_loses_their_ends_alone(self):
        """No kernel reaches across a gap: inside a window the pixels are those of a grid without gaps."""
        wavelength = np.arange(5000.0, 5100.0, 0.1)
        flux = 1 - 0.5 * np.exp(-0.5 * ((wavelength - 5075) / 0.4) ** 2)
        spectra = _spectra(wavelength, flux, frame="rest")
        windows = Resample(windows=((5010.0, 5030.0, 0.1), (5060.0, 5090.0, 0.1)))(spectra)
        degrade = Degrade(fwhm=2.0, native_fwhm=0.1)
        out, whole = degrade(windows), degrade(spectra)
        good = out.ivar[0] > 0
        low, high = (out.wavelength[good & (out.wavelength < 5040)], out.wavelength[good & (out.wavelength > 5040)])
        # 2 % of a Gaussian of FWHM 2 Å lie 1.75 Å from its centre, with half a pixel less
        np.testing.assert_allclose([low[0], low[-1], high[0], high[-1]], [5011.7, 5028.2, 5061.7, 5088.2], atol=0.11)
        same = np.isclose(wavelength[:, None], out.wavelength[good]).any(axis=1)
        np.testing.assert_allclose(out.flux[0, good], whole.flux[0, same], atol=2e-3)  # up to 2 % of a kernel is missing


class TestStretchesOfAGrid:
    @pytest.mark.parametrize(
        ("parts", "sizes"),
        [
            ([np.arange(5000.0, 5100.0)], [100]),
            ([np.arange(5000.0, 5100.0), np.arange(5103.0, 5200.0)], [100, 97]),  # three pixels are missing
            ([np.arange(5000.0, 5100.0), np.arange(5102.0, 5200.0)], [198]),  # two are
            ([np.arange(9990.0, 10000.0, 0.01), np.arange(10000.0, 10010.0, 0.02)], [1500]),  # PHOENIX changes its step
            ([np.arange(5000.0, 5050.0), [5070.0], np.arange(5090.0, 5100.0)], [50, 1, 10]),
            ([10 ** np.arange(3.6, 3.9, 1e-4)], [3000]),
        ],
    )
    def test_gaps(self, parts, sizes):
        assert [i.stop - i.start for i in windows_of(np.concatenate(parts))] == sizes
