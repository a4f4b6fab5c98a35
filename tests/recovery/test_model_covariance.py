"""Covariance of the model, star weights, continuum modes, prior, regions: each against a truth that was planted."""

from __future__ import annotations

import numpy as np
import pytest

from maury.assess.region import TrainingRegion
from maury.emulate import CannonEmulator
from maury.emulate.covariance import held_out_residuals, low_rank_covariance
from maury.emulate.polynomial import PolynomialTerms
from maury.emulate.robust import student_weights
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.fit import ChiSquareFitter, ContinuumModes, RegionalInferrer
from maury.fit.prior import LabelPrior
from maury.fit.regional import blend_weights, kernel_weights
from maury.flags import ResultFlag
from maury.labels import LabelSet, make_label
from maury.protocols import ModelCovariance
from maury.spectra import Spectra
from maury.train.splits import k_folds

LABELS = (make_label("teff", "K", "inverse"), make_label("logg", "dex"))
N_PIXELS = 120


def label_set(rng: np.random.Generator) -> tuple[LabelSet, np.ndarray]:
    values = np.column_stack([rng.uniform(4000, 7000, 500), rng.uniform(1, 5, 500)])
    return LabelSet.from_training(LABELS, values), values


def emulator(rng: np.random.Generator, scatter: float = 0.01, factors: np.ndarray | None = None) -> CannonEmulator:
    labels, _ = label_set(rng)
    terms = PolynomialTerms.of_order(2, 2)
    coefficients = rng.normal(0, 0.05, (terms.n_terms, N_PIXELS)) / np.arange(1, terms.n_terms + 1)[:, None]
    coefficients[0] = 1.0
    wavelength = np.linspace(5000, 5500, N_PIXELS)
    return CannonEmulator(labels, wavelength, coefficients, ModelCovariance(np.full(N_PIXELS, scatter**2), factors), terms)


def observe(model: CannonEmulator, values: np.ndarray, flux_error: np.ndarray, sigma: float = 0.01) -> Spectra:
    flux = model.predict_flux(values) + flux_error
    error = np.full(flux.shape, sigma)
    return Spectra.from_arrays(model.wavelength, flux, error=error, medium="vacuum", frame="rest")


class TestLowRank:
    def test_planted_covariance_is_found(self) -> None:
        rng = np.random.default_rng(5)
        planted = np.outer(np.sin(np.linspace(0, 9, N_PIXELS)), [0.05]) + 0.0
        residuals = rng.normal(size=(3000, 1)) @ planted.T + rng.normal(0, 0.02, (3000, N_PIXELS))
        noise = np.full(residuals.shape, 1 / 0.015**2)
        found = low_rank_covariance(residuals, noise, 1, clip=50.0)
        assert found.factors is not None
        np.testing.assert_allclose(found.factors @ found.factors.T, planted @ planted.T, atol=2.5e-4)  # 10 % of its peak
        assert np.median(found.diagonal) == pytest.approx(0.02**2 - 0.015**2, rel=0.1)

    def test_inflation_multiplies_the_diagonal_alone(self) -> None:
        rng = np.random.default_rng(6)
        residuals = rng.normal(size=(300, N_PIXELS))
        one, ten = (low_rank_covariance(residuals, np.full(residuals.shape, 100.0), 5, inflation=a) for a in (1.0, 10.0))
        np.testing.assert_allclose(ten.diagonal, 10 * one.diagonal)
        np.testing.assert_array_equal(ten.factors, one.factors)

    def test_one_wild_star_makes_no_factor(self) -> None:
        rng = np.random.default_rng(7)
        residuals = rng.normal(0, 0.01, (400, N_PIXELS))
        ivar = np.full(residuals.shape, 1e12)
        clean = low_rank_covariance(residuals, ivar, 1)
        residuals[0] += 30.0
        wild = low_rank_covariance(residuals, ivar, 1)
        assert clean.factors is not None
        assert wild.factors is not None
        assert np.abs(wild.factors).max() < 3 * np.abs(clean.factors).max()

    def test_masked_pixels_have_no_influence(self) -> None:
        rng = np.random.default_rng(8)
        residuals = rng.normal(0, 0.01, (200, N_PIXELS))
        ivar = np.full(residuals.shape, 1e4)
        ivar[:, 10] = 0.0
        ivar[5, 20] = 0.0
        first = low_rank_covariance(np.where(ivar > 0, residuals, 0.0), ivar, 3)
        residuals[:, 10], residuals[5, 20] = 99.0, -99.0
        second = low_rank_covariance(np.where(ivar > 0, residuals, 0.0), ivar, 3)
        np.testing.assert_array_equal(first.diagonal, second.diagonal)

    @pytest.mark.parametrize(("rank", "inflation", "text"), [(30, 1.0, "rank from 0 to 29"), (3, 0.5, "at least 1")])
    def test_impossible_settings_are_refused(self, rank: int, inflation: float, text: str) -> None:
        with pytest.raises(UsageError, match=text):
            low_rank_covariance(np.ones((30, 5)), np.ones((30, 5)), rank, inflation=inflation)

    def test_held_out_stars_are_not_trained_on(self) -> None:
        rng = np.random.default_rng(9)
        model = emulator(rng)
        values = label_set(rng)[1][:50]
        spectra = observe(model, values, np.zeros((50, N_PIXELS)))
        seen: list[np.ndarray] = []

        def train(stars: np.ndarray) -> CannonEmulator:
            seen.append(stars)
            return model

        folds = k_folds(50, 5, 0)
        residuals = held_out_residuals(spectra, values, train, folds)
        assert all(set(stars).isdisjoint(fold) for stars, fold in zip(seen, folds, strict=True))
        np.testing.assert_allclose(residuals, 0.0, atol=1e-12)


def test_stars_with_wrong_labels_fade() -> None:
    rng = np.random.default_rng(11)
    residuals = rng.normal(0, 0.01, (400, N_PIXELS)) + rng.normal(size=(400, 3)) @ rng.normal(0, 0.01, (3, N_PIXELS))
    residuals[:12] += rng.normal(size=(12, 2)) @ rng.normal(0, 0.2, (2, N_PIXELS))
    weights = student_weights(residuals, 4.0, weights=student_weights(residuals, 4.0))  # two passes, as in training
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:12].max() < 0.5 * np.median(weights[12:])


def test_continuum_modes_equal_fitting_the_polynomial() -> None:
    # a calibration error of 10 % in the modes' own shape biases the fit without them and does not with them
    rng = np.random.default_rng(12)
    model = emulator(rng)
    values = np.tile([[5200.0, 3.0]], (200, 1))
    position = np.linspace(-1, 1, N_PIXELS)
    slope = 0.1 * rng.normal(size=(200, 1)) * position * model.predict_flux(model.labels.unscale(np.zeros((1, 2))))
    spectra = observe(model, values, slope + rng.normal(0, np.hypot(0.01, 0.01), (200, N_PIXELS)))
    plain = ChiSquareFitter().fit(spectra, model)
    marginal = ChiSquareFitter(continuum=ContinuumModes(degree=2, amplitude=1.0)).fit(spectra, model)
    pulls = (marginal.values - values) / marginal.errors
    assert np.std((plain.values - values) / plain.errors) > 2.0
    assert np.std(pulls) == pytest.approx(1.0, abs=0.1)


def test_trusted_formats_do_without_modes() -> None:
    rng = np.random.default_rng(13)
    model = emulator(rng)
    spectra = observe(model, np.tile([[5200.0, 3.0]], (4, 1)), np.zeros((4, N_PIXELS)))
    meta = spectra.meta.copy()
    meta["format"] = ["miles", "lamost", "miles", "lamost"]
    modes = ContinuumModes(degree=3, amplitude=0.1, trusted=("miles",))
    estimates = ChiSquareFitter(continuum=modes).fit(spectra.with_pixels(meta=meta), model)
    assert (estimates.errors[[1, 3], 0] > estimates.errors[[0, 2], 0]).all()


class TestPrior:
    def test_density_and_derivatives(self) -> None:
        rng = np.random.default_rng(14)
        labels, values = label_set(rng)
        prior = LabelPrior.from_training(labels, values, 3)
        x = rng.normal(0, 0.8, (5, 2))
        step = 1e-5
        for k in range(2):
            up, down = (prior.evaluate(x + sign * step * np.eye(2)[k]).chi2 for sign in (1, -1))
            np.testing.assert_allclose((up - down) / (4 * step), prior.evaluate(x).gradient[:, k], rtol=1e-5, atol=1e-8)

    def test_stars_drawn_from_the_prior_have_right_errors(self) -> None:
        rng = np.random.default_rng(15)
        labels, _ = label_set(rng)
        training = np.column_stack([rng.normal(5400, 350, 600), rng.normal(3.0, 0.7, 600)])
        prior = LabelPrior.from_training(labels, training, 1, broad=1e-6)
        model = emulator(np.random.default_rng(15), scatter=0.15)
        truth = np.column_stack([rng.normal(5400, 350, 800), rng.normal(3.0, 0.7, 800)])
        spectra = observe(model, truth, rng.normal(0, np.hypot(0.15, 0.01), (800, N_PIXELS)))
        estimates = ChiSquareFitter(prior=prior).fit(spectra, model)
        pulls = (estimates.values - truth) / estimates.errors
        without = ChiSquareFitter().fit(spectra, model)
        np.testing.assert_allclose(pulls.std(axis=0), 1.0, atol=0.1)
        assert ((estimates.values - truth).std(axis=0) < (without.values - truth).std(axis=0)).all()

    def test_config_round_trip(self) -> None:
        rng = np.random.default_rng(16)
        labels, values = label_set(rng)
        fitter = ChiSquareFitter(prior=LabelPrior.from_training(labels, values, 2), continuum=ContinuumModes())
        assert ChiSquareFitter.from_config(fitter.to_config()).to_config() == fitter.to_config()

    def test_too_many_components_are_refused(self) -> None:
        labels, values = label_set(np.random.default_rng(17))
        with pytest.raises(UsageError, match="lower it"):
            LabelPrior.from_training(labels, values, 200)


class TestRegions:
    def test_blend_is_a_partition_of_unity_and_linear_in_theta(self) -> None:
        labels, _ = label_set(np.random.default_rng(18))
        centres = (4500.0, 5500.0, 6500.0)
        values = np.column_stack([np.linspace(3500, 8000, 60), np.full(60, 3.0)])
        share = blend_weights(labels, "teff", centres, values)
        np.testing.assert_allclose(share.sum(axis=1), 1.0)
        middle = 1.0 / (0.5 * (1 / 4500 + 1 / 5500))
        np.testing.assert_allclose(blend_weights(labels, "teff", centres, np.array([[middle, 3.0]]))[0], [0.5, 0.5, 0.0])
        assert blend_weights(labels, "teff", centres, np.array([[np.nan, 3.0]])).sum() == 0

    def test_kernels_peak_at_their_centres(self) -> None:
        labels, _ = label_set(np.random.default_rng(19))
        values = np.array([[4500.0, 1.0], [5500.0, 4.0], [6500.0, 2.0]])
        np.testing.assert_allclose(np.diag(kernel_weights(labels, "teff", (4500.0, 5500.0, 6500.0), 1.0, values)), 1.0)

    def test_equal_regions_change_nothing(self) -> None:
        rng = np.random.default_rng(20)
        model = emulator(rng)
        truth = np.column_stack([rng.uniform(4200, 6800, 50), rng.uniform(1.5, 4.5, 50)])
        spectra = observe(model, truth, rng.normal(0, 0.0141, (50, N_PIXELS)))
        fitter = ChiSquareFitter()
        regional = RegionalInferrer(model, fitter, "teff", (4500.0, 6000.0), (model, model)).infer(spectra)
        plain = fitter.fit(spectra, model)
        np.testing.assert_allclose(regional.values, plain.values, rtol=1e-4)
        np.testing.assert_allclose(regional.errors, plain.errors, rtol=1e-3)
        np.testing.assert_allclose(regional.chi2, plain.chi2, rtol=1e-6)

    def test_centres_must_increase(self) -> None:
        model = emulator(np.random.default_rng(21))
        with pytest.raises(UsageError, match="increasing centres"):
            RegionalInferrer(model, ChiSquareFitter(), "teff", (6000.0, 4500.0), (model, model))


class TestRegionOfTraining:
    def test_every_star_far_outside_is_flagged_and_none_inside(self) -> None:
        rng = np.random.default_rng(22)
        labels, values = label_set(rng)
        region = TrainingRegion.from_training(labels, values)
        inside = np.column_stack([rng.uniform(4500, 6300, 300), rng.uniform(1.7, 4.3, 300)])
        outside = np.column_stack([rng.uniform(7300, 9000, 300), rng.uniform(1.0, 5.0, 300)])
        assert not region.outside(labels, inside).any()
        assert region.outside(labels, outside).all()

    def test_a_hole_between_sequences_is_outside_of_the_hull_only_if_it_is(self) -> None:
        rng = np.random.default_rng(23)
        _, values = label_set(rng)
        diagonal = values[np.abs((values[:, 0] - 4000) / 3000 - (values[:, 1] - 1) / 4) < 0.1]
        region = TrainingRegion.from_training(LabelSet.from_training(LABELS, diagonal), diagonal)
        corner = np.array([[6900.0, 1.3]])  # each label in its range, together far from every star
        fitted = LabelSet.from_training(LABELS, diagonal)
        assert fitted.in_range(corner).all()
        assert region.outside(fitted, corner).all()

    def test_flag_and_nan(self) -> None:
        labels, values = label_set(np.random.default_rng(24))
        region = TrainingRegion.from_training(labels, values)
        from astropy.table import Table

        estimates = LabelEstimates.missing(labels, ["a", "b"], ["", ""], Table({"file": ["f", "g"]}), 0)
        estimates = estimates.with_(values=np.array([[9000.0, 3.0], [np.nan, np.nan]]))
        assert region.flag(estimates).flag.tolist() == [int(ResultFlag.OUTSIDE_TRAINING | ResultFlag.THIN_TRAINING), 0]
