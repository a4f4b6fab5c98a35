"""Velocities: the sums against direct ones, known shifts, right errors, masks, flags, templates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import BSpline

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.flags import ResultFlag
from maury.grids import AnalyticSpectra
from maury.prepare import ToAir
from maury.prepare.cross_correlation import (
    Data,
    LogGrid,
    SumsByProduct,
    SumsByTransform,
    TransformedTemplates,
    correlate,
    find_peak,
    interpolation,
)
from maury.prepare.templates import ContinuumRule
from maury.prepare.velocity import CrossCorrelation, CrossCorrelator, Velocities
from maury.spectra import Spectra

STAR = AnalyticSpectra(("teff", "logg", "fe_h"))
SUN = np.array([[5777.0, 4.4, 0.0]])
WAVELENGTH = 10 ** (3.65 + 1e-4 * np.arange(1500))  # 4467-6309 Å in LAMOST's pixels of 69 km/s, R = 1800
WIDE = np.arange(4300.0, 6500.0, 1.0)


def template(labels: np.ndarray = SUN, wavelength: np.ndarray = WIDE, frame: Any = "rest") -> Spectra:
    flux = STAR.flux(wavelength, labels)
    return Spectra.from_arrays(wavelength, flux, ivar=np.ones(flux.shape), medium="vacuum", frame=frame)


def observed(rv: np.ndarray, snr: float, seed: int = 1, labels: np.ndarray = SUN, **changes: Any) -> Spectra:
    """Spectra of stated velocities with Gaussian noise of the error they state."""
    wavelength = changes.pop("wavelength", WAVELENGTH)
    clean = STAR.flux(wavelength, np.repeat(labels, len(rv), axis=0), velocity=rv)
    noise = np.random.default_rng(seed).standard_normal(clean.shape)
    return Spectra.from_arrays(
        wavelength, clean * (1 + noise / snr), error=clean / snr, medium="vacuum", frame="observed", **changes
    )


RV = np.random.default_rng(7).uniform(-300.0, 300.0, 300)


class TestSums:
    """Σ w d t and Σ w t² at every lag, by FFT and by products, against sums over a spline evaluated pixel by pixel."""

    LAGS = np.arange(-9, 6)
    GRID = LogGrid(float(np.log(4300.0)), 8e-5, 4000)

    def templates(self) -> tuple[TransformedTemplates, np.ndarray]:
        flux = np.random.default_rng(1).normal(size=(2, self.GRID.n_nodes))
        return TransformedTemplates.of(self.GRID, self.LAGS, flux, np.ones(self.GRID.n_nodes, bool)), flux

    def pixels(self) -> np.ndarray:
        return np.sort(np.random.default_rng(2).uniform(4400.0, 5700.0, 700))  # anywhere

    def test_both_ways_are_the_direct_sums(self) -> None:
        templates, _ = self.templates()
        wavelength = self.pixels()
        rows = np.random.default_rng(3).normal(size=(3, 4, wavelength.size))
        x = self.GRID.place(wavelength)
        knots = np.arange(-2, self.GRID.n_nodes + 2)
        at = interpolation(self.GRID, wavelength)
        ways = [SumsByTransform(templates, at)(rows), SumsByProduct.of(templates, at)(rows)]
        for k, ((a, a2), (b, b2)) in enumerate(zip(*ways, strict=True)):
            first, second = (BSpline(knots, c[k], 3) for c in (templates.coefficients, templates.squares))
            for j, lag in enumerate(self.LAGS):
                direct, square = rows @ first(x - lag), rows[1] @ second(x - lag)
                for way, way2 in ((a, a2), (b, b2)):
                    np.testing.assert_allclose(way[..., j], direct, atol=1e-10)  # of sums of 700 numbers of order one
                    np.testing.assert_allclose(way2[..., j], square, atol=1e-10)

    def test_the_gain_is_that_of_weighted_least_squares(self) -> None:
        templates, _ = self.templates()
        wavelength = self.pixels()
        rng = np.random.default_rng(5)
        terms = np.polynomial.legendre.legvander(np.linspace(-1, 1, wavelength.size), 2).T
        data = Data(rng.normal(size=(3, wavelength.size)), rng.uniform(0, 2, (3, wavelength.size)), terms)
        found = correlate(data, SumsByTransform(templates, interpolation(self.GRID, wavelength)))[1]
        x, knots = self.GRID.place(wavelength), np.arange(-2, self.GRID.n_nodes + 2)
        for row, weight in enumerate(np.sqrt(data.weight)):
            for j in (0, 7, 14):
                t = BSpline(knots, templates.coefficients[1], 3)(x - self.LAGS[j])
                left = [self._chi2(np.vstack([terms, *more]), data.flux[row], weight) for more in ([], [t])]
                assert found.chi2[row] == pytest.approx(left[0], rel=1e-10)
                # t² has its own spline: on white noise, the worst there is, that is a tenth of D; lines are far smoother
                assert abs(found.gain[row, j]) == pytest.approx(left[0] - left[1], rel=0.2)

    @staticmethod
    def _chi2(design: np.ndarray, flux: np.ndarray, weight: np.ndarray) -> float:
        solution = np.linalg.lstsq((design * weight).T, flux * weight, rcond=None)[0]
        return float((((flux - solution @ design) * weight) ** 2).sum())

    def test_pixels_whose_template_is_unknown_at_some_lag_are_not_reached(self) -> None:
        known = np.ones(self.GRID.n_nodes, bool)
        known[2000] = False
        templates = TransformedTemplates.of(self.GRID, self.LAGS, np.ones((1, self.GRID.n_nodes)), known)
        wavelength = np.exp(self.GRID.nodes)
        reached = templates.reached(wavelength)
        unreached = np.flatnonzero(~reached)
        inner = unreached[(unreached > 500) & (unreached < 3500)]
        # lags -9 to 5 and 12 nodes of margin to either side
        assert (inner[0], inner[-1]) == (2000 - 9 - 12, 2000 + 5 + 12)
        assert not reached[:5].any()
        assert not reached[-5:].any()


class TestPeak:
    def test_a_peak_between_lags_is_found_to_a_hundredth_of_a_per_cent(self) -> None:
        # a Gaussian of the width that a correlation has at R = 1800 with three nodes per pixel
        x, sigma = np.arange(41.0), 4.3
        centres = 20 + np.linspace(-0.5, 0.5, 11)
        gain = np.exp(-0.5 * ((x - centres[:, None]) / sigma) ** 2)
        peak = find_peak(gain)
        np.testing.assert_allclose(peak.place, centres, atol=1e-3)
        np.testing.assert_allclose(peak.curvature, -1 / sigma**2, rtol=2e-3)
        np.testing.assert_allclose(peak.height, 1.0, atol=1e-4)
        assert np.isnan(peak.second).all()

    def test_second_peak_edge_and_none(self) -> None:
        x = np.arange(60.0)
        two = np.exp(-0.5 * ((x - 20) / 3) ** 2) + 0.6 * np.exp(-0.5 * ((x - 45) / 3) ** 2)
        peak = find_peak(np.stack([two, x, -np.ones(60), two + np.clip(x - 45.0, 0, None)]))
        assert peak.second[0] == pytest.approx(0.6, abs=1e-6)
        assert peak.at_edge.tolist() == [False, True, False, True]
        assert np.isnan(peak.place[1:3]).all()


class TestTruth:
    @pytest.mark.parametrize("kind", ["running_median", "gisic", "gaussian"])
    def test_a_noiseless_shift_is_recovered(self, kind: Any) -> None:
        found = CrossCorrelator((template(),), CrossCorrelation(continuum=ContinuumRule(kind))).measure(observed(RV[:60], 1e6))
        # pixels are 69 km/s: this is under a thousandth of one; the running median is least smooth
        np.testing.assert_allclose(found.rv, RV[:60], atol=0.06)
        assert (found.flag == 0).all()

    @pytest.mark.parametrize("snr", [20.0, 60.0, 200.0])
    def test_errors_are_right(self, snr: float) -> None:
        found = CrossCorrelator((template(),)).measure(observed(RV, snr))
        pulls = (found.rv - RV) / found.e_rv
        # 300 pulls: the standard deviation is known to 4 %, the mean to 0.06
        assert 0.9 < pulls.std() < 1.1
        assert abs(pulls.mean()) < 0.2
        assert found.e_rv.mean() == pytest.approx(35.0 / snr, rel=0.25)  # errors go with 1/snr

    @pytest.mark.parametrize(("snr", "largest"), [(20.0, 1.05), (60.0, 1.2), (200.0, 2.5)])
    def test_a_response_that_the_template_lacks(self, snr: float, largest: float) -> None:
        # a smooth response of ±25 % is what uncalibrated spectra have against models; continua take it out but for per cents
        response = 1 + 0.25 * np.sin(WAVELENGTH / 500.0)
        batch = observed(RV, snr)
        seen = batch.with_pixels(flux=batch.flux * response, ivar=batch.ivar / response**2)
        plain, scaled = (
            CrossCorrelator((template(),), CrossCorrelation(scale_errors=scale)).measure(seen) for scale in (False, True)
        )
        pulls = (plain.rv - RV) / plain.e_rv
        # the velocities scatter as the curvature says; what is left of the response makes errors too large, never too small
        assert 0.9 < pulls.std() < 1.1
        assert abs((plain.rv - RV).mean()) < 0.1 + 3 * plain.e_rv.mean() / np.sqrt(RV.size)  # 0.1 km/s: 1/700 of a pixel
        assert 1.0 <= np.median(scaled.e_rv / plain.e_rv) < largest

    def test_pixels_of_their_own_error_and_masked_ones(self) -> None:
        rng = np.random.default_rng(3)
        batch = observed(RV, 50.0)
        factor = rng.uniform(0.3, 3.0, batch.flux.shape)  # errors differ tenfold along a spectrum
        clean = STAR.flux(WAVELENGTH, np.repeat(SUN, len(RV), axis=0), velocity=RV)
        flux = clean + (batch.flux - clean) * factor
        ivar = np.where(rng.random(flux.shape) < 0.2, 0.0, batch.ivar / factor**2)
        dirty = batch.with_pixels(flux=np.where(ivar > 0, flux, 1e6), ivar=ivar)
        settings = CrossCorrelation(continuum=ContinuumRule("gaussian", 5000.0))
        found = CrossCorrelator((template(),), settings).measure(dirty)
        assert 0.9 < ((found.rv - RV) / found.e_rv).std() < 1.1

    def test_errors_grow_with_the_misfit_unless_told_not_to(self) -> None:
        batch = observed(RV[:20], 100.0)
        bold = batch.with_pixels(ivar=batch.ivar * 16.0)  # as if the errors were four times smaller
        correlator = CrossCorrelator((template(),))
        right, scaled = correlator.measure(batch), correlator.measure(bold)
        np.testing.assert_allclose(scaled.e_rv, right.e_rv, rtol=0.06)
        plain = CrossCorrelator((template(),), CrossCorrelation(scale_errors=False)).measure(bold)
        np.testing.assert_allclose(plain.e_rv, scaled.e_rv / np.sqrt(scaled.chi2 / scaled.n_pixels), rtol=0.03)
        floor = CrossCorrelator((template(),), CrossCorrelation(floor=5.0)).measure(batch)
        np.testing.assert_allclose(floor.e_rv, np.hypot(right.e_rv, 5.0))

    def test_the_best_of_several_templates(self) -> None:
        kinds = np.array([[4200.0, 4.7, 0.0], [5777.0, 4.4, 0.0], [7500.0, 4.0, -0.5]])
        correlator = CrossCorrelator((template(kinds[:1]), template(kinds[1:])))
        for number, kind in enumerate(kinds):
            found = correlator.measure(observed(RV[:5], 50.0, labels=kind[None]))
            assert found.template.tolist() == [number] * 5
            assert np.abs((found.rv - RV[:5]) / found.e_rv).max() < 4


class TestBatches:
    def test_alone_in_a_batch_and_in_any_order(self) -> None:
        correlator, batch = CrossCorrelator((template(),)), observed(RV[:60], 40.0)
        together = correlator.measure(batch)  # by products
        alone = Velocities.concatenate([correlator.measure(batch[[i]]) for i in range(5)])  # by transforms
        np.testing.assert_allclose(alone.rv, together.rv[:5], atol=1e-8)
        np.testing.assert_allclose(alone.e_rv, together.e_rv[:5], rtol=1e-8)
        back = correlator.measure(batch[np.arange(60)[::-1]])
        np.testing.assert_allclose(back.rv[::-1], together.rv, atol=1e-8)

    def test_the_caller_keeps_what_was_given(self) -> None:
        batch, rest = observed(RV[:3], 40.0), template()
        before = [np.array(a) for a in (batch.flux, batch.ivar, rest.flux, rest.ivar)]
        CrossCorrelator((rest,)).measure(batch)
        for old, new in zip(before, (batch.flux, batch.ivar, rest.flux, rest.ivar), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_flux_units_do_not_matter(self) -> None:
        batch, correlator = observed(RV[:3], 40.0), CrossCorrelator((template(),))
        small = batch.with_pixels(flux=batch.flux * 1e-17, ivar=batch.ivar * 1e34)
        np.testing.assert_allclose(correlator.measure(small).rv, correlator.measure(batch).rv, atol=1e-6)

    def test_weights_without_measure(self) -> None:
        # a pixel of ivar 1e-300 counts as masked: with five real ones left there is nothing to fit, and nothing breaks
        batch = observed(RV[:3], 40.0)
        ivar = batch.ivar.copy()
        ivar[0, 5:] = 1e-300
        ivar[1, ::2] = 1e-300
        found = CrossCorrelator((template(),)).measure(batch.with_pixels(ivar=ivar))
        assert found.flag.tolist() == [int(ResultFlag.FEW_PIXELS), 0, 0]
        assert found.n_pixels[1] == pytest.approx(found.n_pixels[2] / 2, abs=1)

    def test_many_grids_do_not_fill_the_memory(self) -> None:
        correlator = CrossCorrelator((template(),))
        for k in range(12):
            wavelength = WAVELENGTH[0] * 10 ** ((1e-4 + 1e-7 * k) * np.arange(800))
            found = correlator.measure(observed(RV[:1], 200.0, wavelength=wavelength))
            np.testing.assert_allclose(found.rv, RV[:1], atol=2.0)
        assert len(correlator._transformed) <= 8

    def test_no_spectrum(self) -> None:
        assert len(CrossCorrelator((template(),)).measure(observed(RV[:2], 40.0)[:0])) == 0


class TestFlags:
    def test_a_velocity_outside_the_range_is_none(self) -> None:
        narrow = CrossCorrelator((template(),), CrossCorrelation(low=-100.0, high=100.0))
        found = narrow.measure(observed(np.array([160.0, 20.0]), 200.0))
        assert found.flag.tolist() == [int(ResultFlag.AT_BOUND), 0]
        assert np.isnan(found.rv[0])
        assert "widen the range" in found.reason[0]
        assert found.reason[1] == ""

    def test_no_velocity_lies_outside_the_range_by_a_part_of_a_node(self) -> None:
        # nodes are 23 km/s apart and lags reach beyond the range to a whole node
        settings = CrossCorrelation(low=-100.0, high=100.0)
        found = CrossCorrelator((template(),), settings).measure(observed(np.array([-110.0, -99.0, 99.0, 104.0]), 1e4))
        assert found.flag.tolist() == [int(ResultFlag.AT_BOUND), 0, 0, int(ResultFlag.AT_BOUND)]
        assert np.isfinite(found.rv).tolist() == [False, True, True, False]

    def test_noise_alone_is_unconstrained(self) -> None:
        noise = 1 + 0.1 * np.random.default_rng(8).standard_normal((200, WAVELENGTH.size))
        batch = Spectra.from_arrays(WAVELENGTH, noise, ivar=np.full(noise.shape, 100.0), medium="vacuum", frame="observed")
        found = CrossCorrelator((template(),)).measure(batch)
        has = np.isfinite(found.rv)
        assert (found.flag[has] & int(ResultFlag.UNCONSTRAINED) > 0).all()
        assert (found.flag[~has] != 0).all()
        assert (found.flag & int(ResultFlag.SEVERAL_MINIMA) > 0).mean() > 0.3

    def test_masked_dark_and_foreign_spectra_have_reasons(self) -> None:
        batch = observed(RV[:4], 50.0)
        ivar, flux = batch.ivar.copy(), batch.flux.copy()
        ivar[0] = 0.0
        flux[1] = 0.0
        found = CrossCorrelator((template(),)).measure(batch.with_pixels(flux=flux, ivar=ivar))
        assert np.isnan(found.rv[:2]).all()
        assert np.isfinite(found.rv[2:]).all()
        assert found.flag[0] == int(ResultFlag.FEW_PIXELS)
        assert "usable pixels" in found.reason[0]
        far = CrossCorrelator((template(wavelength=np.arange(8000.0, 8500.0)),)).measure(batch)
        assert (far.flag == int(ResultFlag.WRONG_DOMAIN)).all()
        assert "templates cover" in far.reason[0]

    def test_a_template_upside_down_is_no_match(self) -> None:
        rest = template()
        flat = STAR.continuum(WIDE, SUN)
        emission = rest.with_pixels(flux=2 * flat - rest.flux)
        found = CrossCorrelator((emission,), CrossCorrelation(low=-30, high=30)).measure(observed(np.zeros(3), 100.0))
        assert (found.flag != 0).all()


class TestTemplates:
    def test_media_and_frames_are_brought_together(self) -> None:
        batch = observed(RV[:5], 1e5)
        plain = CrossCorrelator((template(),)).measure(batch).rv
        np.testing.assert_allclose(CrossCorrelator((ToAir()(template()),)).measure(batch).rv, plain, atol=0.02)
        moved = template(wavelength=WIDE)
        factor = 1 + 100.0 / SPEED_OF_LIGHT_KM_S
        meta = moved.meta.copy()
        meta["rv"] = 100.0
        moved = replace(moved, wavelength=np.array(moved.wavelength) * factor, frame="observed", meta=meta)
        np.testing.assert_allclose(CrossCorrelator((moved,)).measure(batch).rv, plain, atol=0.02)

    def test_fine_and_coarse_templates_agree(self) -> None:
        batch = observed(RV[:5], 1e5)
        rows = [CrossCorrelator((template(wavelength=np.arange(4300.0, 6500.0, s)),)).measure(batch).rv for s in (0.05, 1.0)]
        np.testing.assert_allclose(rows[0], rows[1], atol=0.05)

    def test_a_hole_in_a_template_costs_pixels_only(self) -> None:
        rest = template()
        ivar, flux = rest.ivar.copy(), rest.flux.copy()
        ivar[0, 700:760], flux[0, 700:760] = 0.0, 1e9
        batch = observed(RV[:20], 100.0)
        whole, holed = (CrossCorrelator((t,)).measure(batch) for t in (rest, rest.with_pixels(flux=flux, ivar=ivar)))
        assert (holed.n_pixels < whole.n_pixels - 40).all()
        assert np.abs((holed.rv - RV[:20]) / holed.e_rv).max() < 4

    def test_refused(self) -> None:
        with pytest.raises(UsageError, match="at least one template"):
            CrossCorrelator(())
        with pytest.raises(UsageError, match="at rest or of known velocity"):
            CrossCorrelator((template(frame="observed"),))
        with pytest.raises(UsageError, match="templates with good pixels, got 0 without any"):
            CrossCorrelator((template(), template().with_pixels(ivar=np.zeros((1, WIDE.size)))))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"low": 100.0, "high": -100.0}, "range low < high"),
        ({"high": 1e5}, "tenth of the speed of light"),
        ({"degree": -1}, "degree from 0"),
        ({"apodise": 0.5}, "apodise"),
        ({"floor": -1.0}, "floor of errors"),
        ({"min_pixels": 4}, "min_pixels"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CrossCorrelation(**settings)


def test_impossible_continua() -> None:
    with pytest.raises(UsageError, match="running_median, gisic"):
        ContinuumRule("spline")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="positive window"):
        ContinuumRule(window=0.0)
