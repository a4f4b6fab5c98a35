"""Estimates of some labels alone and back together; and what a model says of labels that are fitted beyond its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from maury.assess.calibration import ErrorInflation, with_errors
from maury.assess.quality import QualityCuts
from maury.assess.region import TrainingRegion
from maury.assess.visits import combine_visits
from maury.emulate.cannon import train_cannon
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.fit.fitter import ChiSquareFitter
from maury.fit.inferrer import EmulatorInferrer
from maury.fit.velocity import VelocityLabel
from maury.flags import FitStatus, ResultFlag
from maury.grids import AnalyticSpectra
from maury.labels import LabelSet, make_label
from maury.model import Model
from maury.prepare import Preparation
from maury.spectra import Spectra, empty_meta

LABELS = (make_label("teff", "K"), make_label("logg", "dex"), make_label("fe_h", "dex"))
N = 6


def label_set() -> LabelSet:
    values = np.array([4000.0, 1.0, -1.0]) + np.random.default_rng(1).random((50, 3)) * np.array([3000.0, 3.0, 1.0])
    return LabelSet.from_training(LABELS, values).with_label(make_label("delta_rv", "km/s"), -50.0, 50.0)


def estimates() -> LabelEstimates:
    """Six stars with four labels and full covariances; the last has no estimate."""
    rng = np.random.default_rng(2)
    root = rng.normal(size=(N, 4, 4)) * np.array([100.0, 0.2, 0.1, 3.0])[:, None]
    covariance = root @ root.transpose(0, 2, 1)
    values = np.array([5000.0, 3.0, -0.5, 5.0]) + rng.normal(size=(N, 4))
    values[-1], covariance[-1] = np.nan, np.nan
    return LabelEstimates(
        label_set(),
        np.array([f"s{i}" for i in range(N)]),
        values,
        covariance,
        rng.uniform(50, 100, N),
        np.full(N, 80),
        (FitStatus.CONVERGED,) * (N - 1) + (FitStatus.FAILED,),
        np.array([0, 1, 2, 0, 4, 8]),
        np.arange(4 * N).reshape(N, 4),
        ("",) * (N - 1) + ("no minimum",),
        empty_meta(N),
    )


class TestOnly:
    def test_some_labels_in_another_order(self) -> None:
        whole = estimates()
        part = whole.only(["fe_h", "teff"])
        assert part.labels == whole.labels.only(["fe_h", "teff"])
        assert part.labels.lower == (whole.labels.lower[2], whole.labels.lower[0])
        np.testing.assert_array_equal(part.values, whole.values[:, [2, 0]])
        np.testing.assert_array_equal(part.label_flags, whole.label_flags[:, [2, 0]])
        np.testing.assert_array_equal(part.covariance[:, 0, 1], whole.covariance[:, 2, 0])
        np.testing.assert_array_equal(part.errors, whole.errors[:, [2, 0]])
        for name in ("ids", "chi2", "n_pixels", "flag"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
        assert (part.status, part.reason) == (whole.status, whole.reason)
        assert part.raw_values is part.raw_covariance is None

    def test_raw_values_and_errors_go_along(self) -> None:
        whole = estimates()
        whole = whole.with_(raw_values=whole.values + 1, raw_covariance=2 * whole.covariance)
        part = whole.only(["logg"])
        np.testing.assert_array_equal(part.raw_values, whole.values[:, [1]] + 1)
        np.testing.assert_array_equal(part.raw_covariance, 2 * whole.covariance[:, 1:2, 1:2])

    def test_all_of_them_are_the_same(self) -> None:
        whole = estimates()
        assert whole.only(whole.labels.names) is whole

    def test_an_unknown_one(self) -> None:
        with pytest.raises(UsageError, match="a label among teff, logg, fe_h, delta_rv, got 'm_h'; correct the name"):
            estimates().only(["teff", "m_h"])


class TestMerged:
    NAMES = ("teff", "logg", "fe_h")

    def test_there_and_back(self) -> None:
        whole = estimates()
        again = whole.merged(whole.only(["fe_h", "teff"]))
        for name in ("values", "covariance", "label_flags", "flag"):
            np.testing.assert_allclose(getattr(again, name), getattr(whole, name), rtol=1e-14)
        assert again.raw_values is again.raw_covariance is None

    def test_new_errors_keep_every_correlation(self) -> None:
        """Also that with the label that the part does not have."""
        whole = estimates()
        part = whole.only(self.NAMES)
        sigma = part.errors * np.array([2.0, 0.5, 3.0])
        merged = whole.merged(with_errors(part, sigma))
        np.testing.assert_allclose(merged.errors[:, :3], sigma, rtol=1e-12)
        np.testing.assert_allclose(merged.errors[:, 3], whole.errors[:, 3], rtol=1e-12)
        np.testing.assert_allclose(merged.correlation, whole.correlation, rtol=1e-10)
        assert np.linalg.eigvalsh(merged.correlation[:-1]).min() > 0
        np.testing.assert_array_equal(merged.raw_covariance, whole.covariance)
        assert merged.raw_values is None

    def test_calibrated_twice_the_raw_errors_are_those_before_the_first(self) -> None:
        whole = estimates()
        once = whole.merged(with_errors(whole.only(self.NAMES), 2 * whole.errors[:, :3]))
        twice = once.merged(with_errors(once.only(self.NAMES), 3 * whole.errors[:, :3]))
        np.testing.assert_array_equal(twice.raw_covariance, whole.covariance)
        np.testing.assert_allclose(twice.errors[:, :3], 3 * whole.errors[:, :3])

    def test_raw_values_that_were_there_stay(self) -> None:
        """Merging a part that only set flags must not call calibrated labels raw ones."""
        whole = estimates()
        whole = whole.with_(raw_values=whole.values - 7, raw_covariance=4 * whole.covariance)
        merged = whole.merged(whole.only(self.NAMES).add_flag(np.ones(N, dtype=bool), 64))
        np.testing.assert_array_equal(merged.raw_values, whole.raw_values)
        np.testing.assert_array_equal(merged.raw_covariance, whole.raw_covariance)

    def test_new_values_keep_the_old_ones_as_raw(self) -> None:
        whole = estimates()
        part = whole.only(["logg"])
        merged = whole.merged(part.with_(values=part.values + 0.1, raw_values=part.values))
        np.testing.assert_array_equal(merged.raw_values, whole.values)
        np.testing.assert_array_equal(merged.values[:, [0, 2, 3]], whole.values[:, [0, 2, 3]])
        np.testing.assert_array_equal(merged.values[:, 1], whole.values[:, 1] + 0.1)

    def test_flags_of_the_part(self) -> None:
        whole = estimates()
        where = np.zeros((N, 3), dtype=bool)
        where[2, 1] = True
        merged = whole.merged(whole.only(self.NAMES).add_label_flag(where, 1 << 10))
        assert merged.label_flags[2, 1] == whole.label_flags[2, 1] | 1 << 10
        assert merged.flag[2] == whole.flag[2] | 1 << 10
        np.testing.assert_array_equal(merged.label_flags[:, 3], whole.label_flags[:, 3])

    def test_labels_without_error(self) -> None:
        """No error where a fit knows nothing: no NaN and no infinity spreads to the other labels."""
        whole = estimates()
        covariance = whole.covariance.copy()
        covariance[0, 1], covariance[0, :, 1] = 0.0, 0.0
        whole = whole.with_(covariance=covariance)
        merged = whole.merged(with_errors(whole.only(self.NAMES), np.full((N, 3), 0.3)))
        assert merged.errors[0, 1] == pytest.approx(0.3)
        assert np.isfinite(merged.covariance[:-1]).all()
        assert merged.covariance[0, 1, 3] == 0.0

    def test_the_first_is_left_alone(self) -> None:
        whole = estimates()
        before = whole.values.copy(), whole.covariance.copy(), whole.label_flags.copy()
        part = whole.only(self.NAMES)
        whole.merged(with_errors(part.with_(values=part.values + 1), 2 * part.errors))
        for kept, now in zip(before, (whole.values, whole.covariance, whole.label_flags), strict=True):
            np.testing.assert_array_equal(kept, now)


class TestIntervalErrors:
    """Lower and upper errors go wherever the symmetric ones go."""

    NAMES = ("teff", "logg", "fe_h")

    def uneven(self) -> LabelEstimates:
        """Lower errors half, upper errors twice the symmetric ones."""
        whole = estimates()
        return whole.with_(interval_errors=whole.errors[:, :, None] * np.array([0.5, 2.0]))

    def test_shape_is_checked(self) -> None:
        with pytest.raises(UsageError, match=r"expected interval_errors of shape \(6, 4, 2\), got \(6, 4\); one row per star"):
            estimates().with_(interval_errors=np.zeros((N, 4)))

    def test_labels_and_rows(self) -> None:
        whole = self.uneven()
        assert whole.interval_errors is not None
        np.testing.assert_array_equal(whole.only(["fe_h", "teff"]).interval_errors, whole.interval_errors[:, [2, 0]])
        np.testing.assert_array_equal(whole[[3, 1]].interval_errors, whole.interval_errors[[3, 1]])
        assert estimates().only(["logg"])[1:].interval_errors is None

    def test_parts_without_get_the_symmetric_ones(self) -> None:
        whole = self.uneven()
        missing = LabelEstimates.missing(whole.labels, ["x"], ["unreadable"], empty_meta(1), 1)
        joined = LabelEstimates.concatenate([whole, estimates(), missing])
        assert joined.interval_errors is not None
        np.testing.assert_array_equal(joined.interval_errors[:N], whole.interval_errors)
        np.testing.assert_array_equal(joined.interval_errors[N : 2 * N, :, 0], estimates().errors)
        np.testing.assert_array_equal(joined.interval_errors[N : 2 * N, :, 1], estimates().errors)
        assert np.isnan(joined.interval_errors[-1]).all()
        assert LabelEstimates.concatenate([estimates(), missing]).interval_errors is None

    def test_what_an_error_model_adds_lies_on_both_sides(self) -> None:
        """Through Model.judge's way: a part with new errors, merged; the other label keeps its interval.

        Errors twice and three times as large gain sqrt(3) and sqrt(8) of themselves in quadrature; a smaller one is scaled.
        """
        whole = self.uneven()
        part = whole.only(self.NAMES)
        merged = whole.merged(with_errors(part, part.errors * np.array([2.0, 0.5, 3.0])))
        assert merged.interval_errors is not None
        formal, ours = whole.errors[:, :3], merged.interval_errors[:, :3]
        for k, gained in ((0, 3.0), (2, 8.0)):
            np.testing.assert_allclose(ours[:, k, 0], np.sqrt(0.25 + gained) * formal[:, k], rtol=1e-12)
            np.testing.assert_allclose(ours[:, k, 1], np.sqrt(4.0 + gained) * formal[:, k], rtol=1e-12)
        np.testing.assert_allclose(ours[:, 1], 0.5 * whole.interval_errors[:, 1], rtol=1e-12)
        np.testing.assert_array_equal(merged.interval_errors[:, 3], self.uneven().both_errors[:, 3])

    def test_a_part_brings_the_first(self) -> None:
        part = self.uneven().only(["logg"])
        merged = estimates().merged(part)
        assert merged.interval_errors is not None
        np.testing.assert_array_equal(merged.interval_errors[:, 1], part.both_errors[:, 0])
        np.testing.assert_array_equal(merged.interval_errors[:, 0], estimates().both_errors[:, 0])

    def test_visits_of_a_star_have_symmetric_errors(self) -> None:
        """The spread of visits, from which a star's error is made, has no sides."""
        assert combine_visits(self.uneven(), ["a", "a", "b", "b", "b", "c"]).interval_errors is None

    def test_an_interval_without_width_becomes_the_calibrated_error(self) -> None:
        """All networks agree: their interval has nothing that could be scaled."""
        whole = self.uneven().only(["teff"])
        agreed = whole.with_(covariance=0.0 * whole.covariance, interval_errors=0.0 * whole.both_errors)
        calibrated = with_errors(agreed, np.full((N, 1), 70.0))
        assert calibrated.interval_errors is not None
        np.testing.assert_array_equal(calibrated.interval_errors[:-1], np.full((N - 1, 1, 2), 70.0))
        assert np.isnan(calibrated.interval_errors[-1]).all()  # the star without estimate


class TestJudge:
    """A model whose fit has one label more than its emulator: the velocity."""

    WAVELENGTH = 5000.0 + 2.0 * np.arange(150)

    def model(self, **settings: Any) -> tuple[Model, Spectra, np.ndarray]:
        rng = np.random.default_rng(5)
        values = np.array([4500.0, 1.5]) + rng.random((150, 2)) * np.array([2000.0, 3.0])
        star = AnalyticSpectra(("teff", "logg"))
        emulator = train_cannon(star.spectra(self.WAVELENGTH, values, snr=200, seed=3), LABELS[:2], values)
        preparation = Preparation.from_config([{"step": "resample", "start": 5000, "stop": 5298, "spacing": 2}])
        fitter = ChiSquareFitter(velocity=VelocityLabel(80.0))
        region = TrainingRegion.from_training(emulator.labels, values)
        model = Model(preparation, EmulatorInferrer(emulator, fitter), region, **settings)
        spectra = star.spectra(self.WAVELENGTH, values[:20], snr=200, seed=4).with_pixels(preparation=preparation.fingerprint)
        return model, spectra, values[:20]

    def test_region_and_errors_know_the_labels_alone(self) -> None:
        inflation = ErrorInflation(("teff", "logg"), ("K", "dex"), (2.0, 3.0), (0.0, 0.0), None)
        model, spectra, _ = self.model(error_model=inflation)
        assert model.labels.names == ("teff", "logg", "delta_rv")
        plain = replace(model, error_model=None, region=None)
        found, formal = model.infer_prepared(spectra), plain.infer_prepared(spectra)
        assert found.labels.names == ("teff", "logg", "delta_rv")
        np.testing.assert_array_equal(found.values, formal.values)
        np.testing.assert_allclose(found.errors, formal.errors * [2.0, 3.0, 1.0], rtol=1e-12)
        np.testing.assert_allclose(found.correlation, formal.correlation, rtol=1e-9)
        np.testing.assert_array_equal(found.raw_covariance, formal.covariance)
        assert np.abs(found.values[:, 2]).max() < 20.0  # km/s; pixels are 120
        known = model.region.bits(model.inferrer.emulator.labels, found.values[:, :2]) if model.region else 0
        np.testing.assert_array_equal(found.flag, formal.flag | known)

    def test_judged_twice_is_judged_once(self) -> None:
        model, spectra, _ = self.model()
        once = model.infer_prepared(spectra)
        twice = model.judge(once)
        np.testing.assert_array_equal(once.flag, twice.flag)
        np.testing.assert_array_equal(once.covariance, twice.covariance)

    def test_far_outside_is_flagged_whatever_the_velocity(self) -> None:
        model, spectra, _ = self.model()
        estimates = model.inferrer.infer(spectra)
        far = estimates.values.copy()
        far[:, 0] += 20_000.0
        flag = model.judge(estimates.with_(values=far)).flag
        assert (flag & int(ResultFlag.OUTSIDE_TRAINING) > 0).all()

    def test_cuts_count_the_velocity_as_a_label(self) -> None:
        model, spectra, _ = self.model(cuts=QualityCuts(max_reduced_chi2=1.0))
        estimates = model.inferrer.infer(spectra)
        chi2 = np.where(np.arange(20) < 10, 0.999, 1.001) * (estimates.n_pixels - 3)
        flag = model.judge(estimates.with_(chi2=chi2)).flag
        np.testing.assert_array_equal(flag & int(ResultFlag.POOR_CHI2) > 0, np.arange(20) >= 10)

    def test_a_spectrum_that_cannot_be_prepared_has_all_labels(self) -> None:
        model, _, _ = self.model()
        short = Spectra.from_arrays(
            np.arange(4000.0, 4100.0), np.ones((1, 100)), ivar=np.ones((1, 100)), medium="air", frame="rest"
        )
        found = model.infer(short)
        assert found.values.shape == (1, 3)
        assert np.isnan(found.values).all()
