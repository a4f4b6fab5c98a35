"""Error models: what is planted is found, correlations stay, and what cannot be known is flagged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from maury.assess.calibration import (
    ErrorInflation,
    ErrorModel,
    SnrErrorModel,
    error_model_from_config,
    galgano2020_error_model,
)
from maury.assess.learn_errors import fit_error_inflation, fit_snr_error_model, snr_bins
from maury.assess.metrics import coverage, robust_std
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.files import canonical_json
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet, make_label

LABELS = LabelSet((make_label("teff", "K"), make_label("logg", "dex")), (5000.0, 4.0), (500.0, 0.5), (4000.0, 1.0), (7000.0, 5.0))
INFLATION = ErrorInflation(("logg", "teff"), ("dex", "K"), (2.0, 3.0), (0.1, 40.0), (10.0, 200.0))


def estimates_of(errors: np.ndarray, rho: float = 0.5, snr: np.ndarray | None = None) -> LabelEstimates:
    n = len(errors)
    covariance = np.array([[1.0, rho], [rho, 1.0]]) * errors[:, :, None] * errors[:, None, :]
    return LabelEstimates(
        LABELS,
        np.array([f"s{i}" for i in range(n)]),
        np.where(np.isfinite(errors), np.array([5000.0, 4.0]), np.nan),
        covariance,
        np.ones(n),
        np.full(n, 100),
        (FitStatus.CONVERGED,) * n,
        np.zeros(n, np.int64),
        np.zeros((n, 2), np.int64),
        ("",) * n,
        Table({"snr": np.full(n, 50.0) if snr is None else snr}),
    )


def snr_model() -> SnrErrorModel:
    return SnrErrorModel(
        ("teff", "logg"), ("K", "dex"), ((0.01, -3.0, 300.0), (0.0, -0.001, 0.3)), (75.0, 0.2), (150.0, 100.0), (20.0, 300.0)
    )


# -- applying -----------------------------------------------------------------------------------------------------


def test_snr_model_sets_errors_and_keeps_correlations() -> None:
    before = estimates_of(np.array([[10.0, 0.02], [20.0, 0.05]]), rho=-0.7)
    after = snr_model().apply(before, [50.0, 400.0])
    np.testing.assert_allclose(after.errors, [[175.0, 0.25], [75.0, 0.2]])
    np.testing.assert_allclose(after.correlation, before.correlation)
    assert after.raw_covariance is before.covariance
    np.testing.assert_array_equal(after.values, before.values)
    assert list(after.flag) == [0, ResultFlag.ERROR_EXTRAPOLATED]
    np.testing.assert_allclose(before.errors, [[10.0, 0.02], [20.0, 0.05]])


def test_inflation_is_a_scale_and_a_floor_whatever_the_order_of_labels() -> None:
    after = INFLATION.apply(estimates_of(np.array([[10.0, 0.05]])))
    np.testing.assert_allclose(after.errors, [[50.0, np.hypot(0.1, 0.1)]])
    np.testing.assert_allclose(after.correlation[0, 0, 1], 0.5)


@pytest.mark.parametrize("model", [snr_model(), INFLATION])
def test_unknown_snr_is_flagged_and_failed_stars_stay_failed(model: ErrorModel) -> None:
    before = estimates_of(np.array([[10.0, 0.02], [np.nan, np.nan], [10.0, 0.02]]), snr=np.array([np.nan, 50.0, 5.0]))
    after = model.apply(before)
    assert [bool(flag & ResultFlag.ERROR_EXTRAPOLATED) for flag in after.flag] == [True, False, True]
    assert np.isnan(after.errors[1]).all()
    assert np.isfinite(after.errors[[0, 2]]).all()


def test_without_snr_the_snr_model_keeps_formal_errors() -> None:
    before = estimates_of(np.array([[10.0, 0.02]]), snr=np.array([np.nan]))
    np.testing.assert_array_equal(snr_model().apply(before).covariance, before.covariance)


def test_a_label_without_formal_error_gets_one_without_correlation() -> None:
    before = estimates_of(np.array([[0.0, 0.02]]))
    after = snr_model().apply(before, [50.0])
    np.testing.assert_allclose(after.errors, [[175.0, 0.25]])
    assert after.covariance[0, 0, 1] == 0.0


def test_the_first_covariance_stays_the_raw_one() -> None:
    before = estimates_of(np.array([[10.0, 0.02]]))
    after = INFLATION.apply(INFLATION.apply(before))
    assert after.raw_covariance is before.covariance


def test_inflation_without_range_needs_no_snr() -> None:
    after = replace(INFLATION, snr_range=None).apply(estimates_of(np.array([[10.0, 0.02]]), snr=np.array([np.nan])))
    assert after.flag[0] == 0


@pytest.mark.parametrize("model", [snr_model(), INFLATION, galgano2020_error_model(), galgano2020_error_model("as_published")])
def test_config_round_trip(model: SnrErrorModel | ErrorInflation) -> None:
    import json

    assert isinstance(model, ErrorModel)
    assert error_model_from_config(json.loads(canonical_json(model.to_config(), "test"))) == model


def test_wrong_usage() -> None:
    before = estimates_of(np.array([[10.0, 0.02]]))
    with pytest.raises(UsageError, match=r"that the errors were learned for, got .*; use its own error model"):
        galgano2020_error_model().apply(before)
    with pytest.raises(UsageError, match="expected one signal-to-noise ratio for each of 1 stars"):
        snr_model().apply(before, [1.0, 2.0])
    with pytest.raises(
        UsageError, match="expected an error model of kind 'snr', 'inflation', 'inflation_along' or 'repeats', got 'magic'"
    ):
        error_model_from_config({"kind": "magic"})
    with pytest.raises(UsageError, match="expected 2 entries in floor, got 1"):
        replace(snr_model(), floor=(1.0,))
    with pytest.raises(UsageError, match="expected variant 'corrected' or 'as_published'"):
        replace(snr_model(), variant="new")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not negative"):
        replace(INFLATION, floor=(-1.0, 0.0))


def test_galgano_floor_and_bare_polynomial() -> None:
    x = [100.0, 225.0, 226.0, 600.0]
    corrected, published = galgano2020_error_model().sigma(x), galgano2020_error_model("as_published").sigma(x)
    np.testing.assert_array_equal(corrected[:2], published[:2])
    np.testing.assert_array_equal(corrected[2:], [[89.2, 0.0432, 0.0516, 0.0097]] * 2)
    assert (published[3] > corrected[3]).all()
    assert np.isnan(galgano2020_error_model().sigma([np.nan, -9999.0, 0.0])).all()


# -- learning -----------------------------------------------------------------------------------------------------


def planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals whose error falls as a quadratic to 80 K, 0.1 dex at S/N 150 and stays there."""
    rng = np.random.default_rng(seed)
    snr = rng.uniform(20.0, 300.0, n)
    drop = np.maximum(0.0, 150.0 - snr)[:, None] ** 2
    sigma = np.array([80.0, 0.1]) + drop * np.array([0.01, 1e-5])
    return rng.normal(size=(n, 2)) * sigma, snr, sigma


def test_the_planted_snr_curve_is_found() -> None:
    residuals, snr, _ = planted(40_000, 1)
    model = fit_snr_error_model(residuals, snr, LABELS)
    x = np.array([30.0, 80.0, 150.0, 200.0, 290.0])
    expected = np.array([80.0, 0.1]) + np.maximum(0.0, 150.0 - x)[:, None] ** 2 * np.array([0.01, 1e-5])
    # 1.17/sqrt(2 x 1360) x sqrt(1/0.37) = 3.2 % noise per bin's scatter, averaged over the bins of the curve
    np.testing.assert_allclose(model.sigma(x), expected, rtol=0.05)
    np.testing.assert_allclose(model.snr_floor, 150.0, atol=20.0)
    np.testing.assert_allclose(model.sigma([400.0, 1000.0]), [model.floor] * 2)
    assert model.snr_range == (snr.min(), snr.max())
    below, above = (model.sigma(np.array(model.snr_floor) * factor).diagonal() for factor in (1 - 1e-9, 1 + 1e-9))
    np.testing.assert_allclose(below, above, rtol=1e-6)  # the curve does not jump where the floor begins


def test_fitted_errors_have_unit_pulls_on_other_stars() -> None:
    residuals, snr, _ = planted(20_000, 2)
    model = fit_snr_error_model(residuals, snr, LABELS, n_bins=15)
    others, other_snr, _ = planted(20_000, 3)
    pulls = others / model.sigma(other_snr)
    for k in range(2):
        assert robust_std(pulls[:, k]) == pytest.approx(1.0, abs=0.04)


def test_errors_that_do_not_fall_give_a_constant() -> None:
    rng = np.random.default_rng(4)
    snr = rng.uniform(20.0, 300.0, 4000)
    model = fit_snr_error_model(rng.normal(size=(4000, 2)) * (50.0 + snr[:, None]), snr, LABELS, n_bins=8)
    sigma = model.sigma([20.0, 100.0, 300.0])
    np.testing.assert_allclose(sigma / sigma[0], 1.0, rtol=0.05)


def test_equal_count_bins_and_missing_rows() -> None:
    residuals, snr, _ = planted(1000, 5)
    residuals[::10, 0] = np.nan
    snr[1::10] = -9999.0
    centres, scatter = snr_bins(residuals, snr, 4)
    assert scatter.shape == (4, 2)
    assert (np.diff(centres) > 0).all()
    model = fit_snr_error_model(residuals, snr, LABELS)
    assert model.snr_range[0] >= 20.0


def test_too_few_stars_or_wrong_shapes() -> None:
    with pytest.raises(UsageError, match="expected at least 4 bins of 20 stars to learn errors from, got 50 stars in 4 bins"):
        fit_snr_error_model(np.ones((50, 2)), np.ones(50), LABELS)
    with pytest.raises(UsageError, match=r"expected residuals \(n, 2\) and snr \(n,\)"):
        fit_snr_error_model(np.ones((50, 3)), np.ones(50), LABELS)
    with pytest.raises(UsageError, match=r"expected residuals and errors \(n, 2\)"):
        fit_error_inflation(np.ones((50, 2)), np.ones((50, 1)), LABELS)
    with pytest.raises(UsageError, match="expected at least 20 stars with residual and error of teff, got 0"):
        fit_error_inflation(np.ones((50, 2)), np.zeros((50, 2)), LABELS)


def test_planted_scale_and_floor_are_found() -> None:
    """Formal errors spread over a factor 20, true errors 1.8 times these plus a floor: both found within 15 %.

    (10,000 Gaussian stars; the two parameters are correlated at -0.6, their own errors are about 2 %, the grid's step 0.25 deg.)
    """
    rng = np.random.default_rng(6)
    formal = np.exp(rng.uniform(np.log(5.0), np.log(100.0), (10_000, 2))) * np.array([1.0, 0.002])
    true_error = np.hypot(1.8 * formal, [40.0, 0.08])
    model = fit_error_inflation(rng.normal(size=formal.shape) * true_error, formal, LABELS, snr=rng.uniform(10, 20, 10_000))
    np.testing.assert_allclose(model.scale, 1.8, rtol=0.15)
    np.testing.assert_allclose(model.floor, [40.0, 0.08], rtol=0.15)
    others = rng.normal(size=formal.shape) * true_error
    pulls = others / model.sigma(formal)
    for k in range(2):
        assert np.std(pulls[:, k]) == pytest.approx(1.0, abs=0.04)
        for row in coverage(pulls[:, k]):
            assert abs(row.fraction - row.level) < 0.015
    assert model.snr_range is not None
    assert 10.0 <= model.snr_range[0] < model.snr_range[1] <= 20.0


def test_pulls_of_the_training_stars_have_robust_std_one_whatever_the_tails() -> None:
    rng = np.random.default_rng(7)
    formal = rng.uniform(5.0, 50.0, (3000, 2))
    residuals = rng.standard_t(2.0, size=formal.shape) * formal * 3.0
    model = fit_error_inflation(residuals, formal, LABELS)
    pulls = residuals / model.sigma(formal)
    np.testing.assert_allclose(1.482602218505602 * np.median(np.abs(pulls), axis=0), 1.0, rtol=1e-9)


def test_equal_formal_errors_give_a_pure_scale() -> None:
    residuals = np.random.default_rng(8).normal(size=(500, 2)) * 30.0
    model = fit_error_inflation(residuals, np.full((500, 2), 10.0), LABELS)
    assert model.floor == (0.0, 0.0)
    np.testing.assert_allclose(model.scale, 3.0, rtol=0.15)


def test_a_noisy_star_keeps_its_own_error() -> None:
    # stars of one S/N with label errors on top: a constant would describe them, and be wrong for one of ten times the noise
    rng = np.random.default_rng(77)
    formal = np.full((600, 2), 30.0) * rng.uniform(0.9, 1.1, (600, 2))
    residuals = rng.normal(size=formal.shape) * np.hypot(formal, 60.0)
    model = fit_error_inflation(residuals, formal, LABELS)
    assert (model.sigma(np.full((1, 2), 300.0)) >= 300.0).all()
    np.testing.assert_allclose(model.floor, 60.0, rtol=0.15)
