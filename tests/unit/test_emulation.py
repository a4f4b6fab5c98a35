"""Emulator accuracy and the resolution experiment: closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from maury.assess.emulation import CA_TRIPLET, emulator_accuracy, fitted_flux, share_per_pixel, spectrum_metrics
from maury.assess.resolution import degradations, resolution_shifts
from maury.emulate.cannon import train_cannon
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.fit.continuum import ContinuumModes
from maury.fit.fitter import ChiSquareFitter
from maury.fit.inferrer import EmulatorInferrer
from maury.fit.regional import RegionalInferrer
from maury.flags import FitStatus
from maury.labels import Label, LabelSet, make_label
from maury.prepare import Preparation
from maury.prepare.degrade import Degrade
from maury.spectra import Spectra, empty_meta

WAVELENGTH = np.array([5000.0, 5001.0, 5002.0, 5003.0])
FACTORS = np.array([[1.005, 1.015, 1.03, 1.1], [1.0, 0.99, 0.985, 1.5], [1.02, 1.02, 1.02, 1.02]])


def observed(ivar: np.ndarray | None = None) -> Spectra:
    flux = np.full((3, 4), 2.0)
    return Spectra.from_arrays(WAVELENGTH, flux, ivar=np.ones((3, 4)) if ivar is None else ivar, medium="vacuum", frame="rest")


def test_shares_are_counted_over_pixels() -> None:
    (everything,) = emulator_accuracy(observed(), 2.0 * FACTORS + 1e-9)
    assert (everything.n_spectra, everything.n_pixels) == (3, 12)
    # within 1 %: 0.5, 0, (1.0 just above by 1e-9 is inside below 1); 2 %: + 1.5, 1.5; 2.0 + 1e-9 is outside
    np.testing.assert_allclose(everything.shares, [3 / 12, 5 / 12, 10 / 12])


def test_masked_unknown_and_missing_pixels_are_left_out() -> None:
    ivar = np.ones((3, 4))
    ivar[0, 3] = 0.0
    flux = 2.0 * FACTORS
    flux[1, 0] = np.nan
    (row,) = emulator_accuracy(observed(ivar), flux, known=[True, True, True, False], limits=(0.05,))
    assert (row.n_pixels, row.shares) == (8, (1.0,))
    wild = flux.copy()
    wild[0, 3], wild[1, 3] = 1e9, -5.0
    assert emulator_accuracy(observed(ivar), wild, known=[True, True, True, False], limits=(0.05,)) == [row]


def test_bins_and_empty_bins() -> None:
    rows = emulator_accuracy(
        observed(), 2.0 * FACTORS, by=("teff", [4000.0, 6000.0, np.nan]), ranges=[(3000, 5000), (5000, 8000), (8000, 9000)]
    )
    assert [row.selection for row in rows] == ["all", "3000 <= teff < 5000", "5000 <= teff < 8000", "8000 <= teff < 9000"]
    assert [row.n_spectra for row in rows] == [3, 1, 1, 0]
    assert rows[1].shares == (0.25, 0.5, 0.75)
    assert np.isnan(rows[3].shares).all()


def test_share_per_pixel() -> None:
    ivar = np.ones((3, 4))
    ivar[:, 1] = 0.0
    shares = share_per_pixel(observed(ivar), 2.0 * FACTORS, limits=(0.01, 0.025))
    np.testing.assert_allclose(shares, [[2 / 3, np.nan, 0.0, 0.0], [1.0, np.nan, 2 / 3, 1 / 3]])


def test_wrong_shapes() -> None:
    with pytest.raises(UsageError, match=r"expected the emulator's flux of shape \(3, 4\), got \(2, 4\)"):
        emulator_accuracy(observed(), FACTORS[:2])
    with pytest.raises(UsageError, match="expected one teff for each of 3 spectra"):
        emulator_accuracy(observed(), FACTORS, by=("teff", [1.0]), ranges=[(0, 1)])


# -- the flux of a whole model ------------------------------------------------------------------------------------------


def inferrer_with(modes: ContinuumModes | None) -> tuple[EmulatorInferrer, Spectra, np.ndarray]:
    rng = np.random.default_rng(3)
    wavelength = 5000.0 + np.arange(200.0)
    values = np.column_stack([rng.uniform(4000, 6000, 60), rng.uniform(1, 5, 60)])
    unit = (values - [5000.0, 3.0]) / [600.0, 1.2]
    flux = 1.0 + unit @ rng.normal(0, 0.02, (2, 200))
    spectra = Spectra.from_arrays(wavelength, flux, ivar=np.full(flux.shape, 1e6), medium="vacuum", frame="rest")
    emulator = train_cannon(spectra, (Label("teff", "K"), Label("logg", "dex")), values)
    return EmulatorInferrer(emulator, ChiSquareFitter(continuum=modes)), spectra, values


def test_smooth_calibration_errors_are_no_fault_of_the_emulator() -> None:
    inferrer, spectra, values = inferrer_with(ContinuumModes(degree=3, amplitude=0.5))
    tilt = 1.0 + 0.1 * np.linspace(-1, 1, 200)
    tilted = spectra.with_pixels(flux=spectra.flux * tilt)
    # the modes multiply a typical spectrum: a tenth of a star's own features, up to 0.1 deep, is left
    np.testing.assert_allclose(fitted_flux(inferrer, tilted, values) / tilted.flux, 1.0, atol=0.015)
    plain, _, _ = inferrer_with(None)
    assert np.abs(fitted_flux(plain, tilted, values) / tilted.flux - 1.0).max() > 0.09


def test_modes_agree_with_the_dense_formula_of_the_fit() -> None:
    modes = ContinuumModes(degree=3, amplitude=0.1)
    inferrer, spectra, values = inferrer_with(modes)
    shifted = values + np.array([200.0, 0.3])
    expected = modes.fitted(spectra[:3], inferrer.emulator, shifted[:3])
    np.testing.assert_allclose(fitted_flux(inferrer, spectra[:3], shifted[:3]), expected, rtol=1e-8)


def test_unknown_labels_give_no_flux_and_regions_are_blended() -> None:
    inferrer, spectra, values = inferrer_with(None)
    values[0, 1] = np.nan
    flux = fitted_flux(inferrer, spectra, values)
    assert np.isnan(flux[0]).all()
    assert np.isfinite(flux[1:]).all()
    emulator = inferrer.emulator
    regional = RegionalInferrer(emulator, inferrer.fitter, "teff", (4500.0, 5500.0), (emulator, emulator))
    np.testing.assert_allclose(fitted_flux(regional, spectra, values), flux, rtol=1e-12)


# -- other resolutions --------------------------------------------------------------------------------------------------


def line_spectra(fwhm: float) -> Spectra:
    """Two spectra with one line of 1 Å, said to have a line-spread function of ``fwhm`` Å."""
    wavelength = 5000.0 + 0.1 * np.arange(1000)
    flux = 1.0 - np.array([[0.2], [0.5]]) * np.exp(-0.5 * ((wavelength - 5050.0) / 1.0) ** 2)
    meta = empty_meta(2)
    meta["fwhm"] = fwhm
    return Spectra.from_arrays(wavelength, flux, ivar=np.full(flux.shape, 1e4), medium="vacuum", frame="rest", meta=meta)


def depth_of(batches: list[Spectra]) -> LabelEstimates:
    """An inferrer whose one label is ln of the line's depth."""
    depth = np.concatenate([np.log(1.0 - np.where(batch.ivar > 0, batch.flux, 1.0).min(axis=1)) for batch in batches])
    told = np.concatenate([np.asarray(batch.meta["fwhm"], dtype=float) for batch in batches])
    assert (told == 1.0).all()  # the model goes on believing what it was told
    n = depth.size
    labels = LabelSet((make_label("fe_h", "dex"),), (0.0,), (1.0,), (-3.0,), (1.0,))
    return LabelEstimates(
        labels,
        np.array([f"s{i}" for i in range(n)]),
        depth[:, None],
        np.full((n, 1, 1), 0.01),
        np.ones(n),
        np.full(n, 10),
        (FitStatus.CONVERGED,) * n,
        np.zeros(n, np.int64),
        np.zeros((n, 1), np.int64),
        ("",) * n,
        Table({"snr": np.full(n, 50.0)}),
    )


def test_a_wider_line_spread_function_makes_the_line_shallower_as_it_must() -> None:
    # Gaussian line of sigma 1 Å; the kernel adds (2.35482^2 - 1)/2.35482^2 Å^2: depth times 1/sqrt(1 + added)
    added = (2.354820045**2 - 1.0) / 2.354820045**2
    steps = degradations(Preparation((Degrade(fwhm=9.0, native_fwhm=1.0),)), [], [2.354820045])
    (row,) = resolution_shifts(depth_of, [line_spectra(1.0)], steps)
    assert (row.target, row.n, row.error) == ("FWHM = 2.35482 Å", 2, 0.1)
    assert row.shift == pytest.approx(-0.5 * np.log1p(added), abs=1e-3)
    assert row.scatter == pytest.approx(0.0, abs=1e-6)


def test_what_the_preparation_says_of_the_spectra_counts() -> None:
    native = {"lamost": {"fwhm": 2.8}}
    steps = degradations(Preparation((Degrade(fwhm=4.2, native=native),)), [1000.0], [5.0])
    assert list(steps) == ["R = 1000", "FWHM = 5 Å"]
    assert steps["R = 1000"] == Degrade(resolving_power=1000.0, native=native)
    assert degradations(Preparation(()), [], [5.0])["FWHM = 5 Å"] == Degrade(fwhm=5.0)


def test_sharper_than_the_spectrum_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a target resolution lower than the spectrum's"):
        resolution_shifts(depth_of, [line_spectra(1.0)], degradations(Preparation(()), [], [0.5]))


class TestSpectrumMetrics:
    """Closed forms: two spectra, two pixels, errors that one can count."""

    TRUE = np.array([[1.0, 2.0], [3.0, 6.0]])  # variances over spectra 1 and 4
    ERROR = np.array([[0.5, 0.0], [0.5, -2.0]])  # variances 0 and 1, mean squares 0.25 and 2

    def spectra(self, ivar: object = 1.0) -> Spectra:
        full = np.broadcast_to(np.asarray(ivar, dtype=float), (2, 2))
        return Spectra.from_arrays(WAVELENGTH[:2], self.TRUE, ivar=full, medium="air", frame="rest")

    def test_of_the_flux(self) -> None:
        found = spectrum_metrics(self.spectra(), self.TRUE + self.ERROR)
        assert (found.n_spectra, found.n_pixels, found.lines) == (2, 4, ())
        np.testing.assert_allclose(found.mse, (0.25 + 0.25 + 4.0) / 4)
        np.testing.assert_allclose(found.mae, 3.0 / 4)
        np.testing.assert_allclose(found.relative_error, 100 * (0.5 + 0.0 + 0.5 / 3 + 2.0 / 6) / 4)
        np.testing.assert_allclose(found.explained_variance, (1.0 + 0.75) / 2)
        np.testing.assert_allclose(found.r2, (0.75 + 0.5) / 2)

    def test_perfect_and_mean_spectra(self) -> None:
        perfect = spectrum_metrics(self.spectra(), self.TRUE)
        assert (perfect.mse, perfect.explained_variance, perfect.r2, perfect.relative_error) == (0.0, 1.0, 1.0, 0.0)
        mean = spectrum_metrics(self.spectra(), np.broadcast_to(self.TRUE.mean(axis=0), (2, 2)))
        np.testing.assert_allclose([mean.explained_variance, mean.r2], 0.0, atol=1e-12)

    def test_what_is_left_out(self) -> None:
        """A masked pixel, one that is not known, a NaN; a pixel that never varies explains nothing."""
        flux = self.TRUE + self.ERROR
        flux[0, 1] = np.nan
        found = spectrum_metrics(self.spectra([[1.0, 1.0], [1.0, 0.0]]), flux)
        assert (found.n_pixels, found.mse, found.r2) == (2, 0.25, 0.75)
        assert spectrum_metrics(self.spectra(), self.TRUE + self.ERROR, known=[True, False]).r2 == 0.75
        nothing = spectrum_metrics(self.spectra(0.0), flux)
        assert (nothing.n_spectra, nothing.n_pixels) == (0, 0)
        assert np.isnan([nothing.mse, nothing.mae, nothing.r2, nothing.explained_variance, nothing.relative_error]).all()

    @pytest.mark.parametrize(("medium", "centre"), [("air", 8542.09), ("vacuum", 8544.438)])
    def test_line_depths(self, medium: str, centre: float) -> None:
        """Triangular lines of depth 0.6 and 0.2, linear as the interpolation is: exact. The vacuum wavelength is NIST's."""
        grid = np.arange(8530.0, 8560.0, 0.1)
        shape = np.clip(1 - np.abs(grid - centre) / 5.0, 0, None)
        true, made = (1 - np.outer(depths, shape) for depths in ([0.6, 0.2], [0.5, 0.23]))
        spectra = Spectra.from_arrays(grid, true, ivar=np.ones(true.shape), medium=medium, frame="rest")
        (line,) = spectrum_metrics(spectra, made).lines
        assert (line.line, line.n) == ("Ca II 8542", 2)
        found = (line.depth, line.bias, line.mae, line.rmse)
        np.testing.assert_allclose(found, (0.4, -0.035, 0.065, np.sqrt((0.01 + 0.0009) / 2)), atol=0.008)
        assert set(CA_TRIPLET.values()) == {8498.02, 8542.09, 8662.14}

    def test_a_masked_line(self) -> None:
        """On the pixel between: 0.25 of the way."""
        lines = {"here": 5000.25, "beyond": 5005.0}
        (line,) = spectrum_metrics(self.spectra(), self.TRUE + self.ERROR, lines=lines).lines
        np.testing.assert_allclose([line.depth, line.bias, line.mae], [1 - (1.25 + 3.75) / 2, -(0.375 - 0.125) / 2, 0.25])
        (masked,) = spectrum_metrics(self.spectra([[1.0, 0.0], [1.0, 1.0]]), self.TRUE + self.ERROR, lines=lines).lines
        assert (masked.n, masked.bias) == (1, 0.125)
        (empty,) = spectrum_metrics(self.spectra(0.0), self.TRUE, lines=lines).lines
        assert empty.n == 0
        assert np.isnan(empty.mae)

    def test_wrong_usage(self) -> None:
        with pytest.raises(UsageError, match=r"expected the emulator's flux of shape \(2, 2\), got \(1, 2\)"):
            spectrum_metrics(self.spectra(), self.TRUE[:1])
